/*
 * bench/tls.h - wolfSSL over memory: ciphertext in, ciphertext out, no socket.
 */
#ifndef HIKYAKU_BENCH_TLS_H
#define HIKYAKU_BENCH_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/buf.h"

struct bench_tls_context; /* one a command */
struct bench_tls_session; /* a session to resume */

struct bench_tls {
    void *ssl;            /* WOLFSSL; NULL: no TLS on this connection */
    struct bench_buf in;  /* ciphertext from the peer, not yet taken */
    struct bench_buf out; /* ciphertext for the peer */
    bool established, ticket_came;
};

enum bench_tls_result { BENCH_TLS_OK, BENCH_TLS_WANT, BENCH_TLS_CLOSED, BENCH_TLS_FAILED };

/* NULL on failure, *why says what. A server takes PEM files; a client does not verify. */
struct bench_tls_context *bench_tls_server(const char *certificate, const char *key,
                                           const char **why);
/* version: "1.2", "1.3" or NULL for the best both sides know. */
struct bench_tls_context *bench_tls_client(const char *version, const char **why);
void bench_tls_context_free(struct bench_tls_context *c);

/* Begins TLS; false: out of memory. name: SNI, or NULL. */
bool bench_tls_start(struct bench_tls *t, struct bench_tls_context *c, const char *name)
    __attribute__((warn_unused_result));
void bench_tls_free(struct bench_tls *t);

/* Goes on with the handshake on what is in `in`. OK once it is done. */
enum bench_tls_result bench_tls_handshake(struct bench_tls *t);
/* Decrypts into data; OK with *count > 0, WANT for more ciphertext. */
enum bench_tls_result bench_tls_read(struct bench_tls *t, char *data, size_t size, size_t *count);
/* Encrypts all of data into `out`. */
enum bench_tls_result bench_tls_write(struct bench_tls *t, const char *data, size_t count);
/* Puts close_notify into `out`. */
void bench_tls_close(struct bench_tls *t);

/* Client: the session to resume later, and its use before the handshake. NULL if there is none, and
 * if a resumed one got no new ticket: the session it came from stays the one to use. */
struct bench_tls_session *bench_tls_session_take(struct bench_tls *t);
void bench_tls_session_use(struct bench_tls *t, struct bench_tls_session *s);
void bench_tls_session_free(struct bench_tls_session *s);
bool bench_tls_resumed(const struct bench_tls *t);
/* "TLSv1.3 TLS13-AES128-GCM-SHA256": valid until the next call. */
const char *bench_tls_describe(const struct bench_tls *t);

#endif
