/*
 * tls/internal.h - what the files of tls/ share. Nobody else includes this (a unit test may).
 */
#ifndef HIKYAKU_TLS_INTERNAL_H
#define HIKYAKU_TLS_INTERNAL_H

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/aes.h>
#include <wolfssl/wolfcrypt/random.h>

#include "tls/hello.h"
#include "tls/tls.h"

/* ---- memory.c ---- */
void *tls_memory_alloc(size_t size);
void tls_memory_free(void *p);
void *tls_memory_realloc(void *p, size_t size);

/* ---- certificate.c ---- */

struct tls_names {
    char **items; /* lower case, no final dot; from tls_memory_alloc */
    uint32_t count;
    int64_t not_before_s, not_after_s; /* seconds since 1970 */
};

/* The names a DER certificate speaks for. False: it does not parse, or no memory. */
bool tls_names_read(struct slice der, struct tls_names *out) __attribute__((warn_unused_result));
void tls_names_free(struct tls_names *n);
/* RFC 6125 section 6.4: whole name, or `*` as the whole leftmost label. */
bool tls_names_match(const struct tls_names *n, struct slice host);
bool tls_name_match(struct slice pattern, struct slice host);
/* The issuer's common name, or all of its name where it has none; printable. */
void tls_issuer_read(struct slice der, char *text, size_t text_size);
/* "a.example, b.example and 3 more" */
void tls_names_text(const struct tls_names *n, char *text, size_t text_size);
/* The first certificate of a PEM text as DER. The caller frees with wc_FreeDer. */
DerBuffer *tls_leaf_read(struct slice pem);
/* Puts chain and key into a context and checks that they fit. False fills `why`. */
bool tls_identity_use(WOLFSSL_CTX *ssl, const struct tls_identity *id, struct why *why)
    __attribute__((warn_unused_result));

/* ---- ticket.c ---- */

struct tls_ticket_key {
    uint8_t name[WOLFSSL_TICKET_NAME_SZ];
    Aes aes;
    WC_RNG *rng;
};
/* Session tickets of one identity: made from the key all shards share and from the certificate. */
bool tls_ticket_init(struct tls_ticket_key *t, const uint8_t key[48], struct slice leaf_der,
                     WC_RNG *rng) __attribute__((warn_unused_result));
void tls_ticket_wipe(struct tls_ticket_key *t);
void tls_ticket_use(struct tls_ticket_key *t, WOLFSSL_CTX *ssl);
/* Is the TLS 1.2 ticket of this hello sealed with this key? */
bool tls_ticket_ours(const struct tls_ticket_key *t, const struct tls_hello *hello);

/* ---- context.c ---- */

struct tls_ctx_identity {
    WOLFSSL_CTX *ssl;
    /* The same without tickets, for a client that offers a TLS 1.2 ticket which is not ours, as one
       does that knows this host's name from another server: wolfSSL would end its handshake. NULL:
       `ssl` itself has none. */
    WOLFSSL_CTX *ssl_ticketless;
    struct tls_names names;
    struct tls_ticket_key ticket;
    bool has_ticket;
};

struct tls_ctx {
    uint32_t references; /* the owner and its connections; one thread */
    bool server, verify, inspect;
    WC_RNG rng;
    bool has_rng;
    uint32_t identity_count; /* a client context has one */
    struct tls_ctx_identity identities[];
};

void tls_ctx_release(struct tls_ctx *c);
/* The context for the name asked for (the first identity when none fits) and the ticket offered. */
WOLFSSL_CTX *tls_ctx_choose(const struct tls_ctx *c, const struct tls_hello *hello);

/* ---- connection.c ---- */

/* wolfSSL's verify callback: keeps the reason of a refusal. */
int tls_conn_verified(int ok, WOLFSSL_X509_STORE_CTX *store);
/* For tests: what a connection stands on; NULL for a server before the hello. */
WOLFSSL *tls_conn_library(struct tls_conn *c);
/* For tests: buffers for a call into the library. */
void tls_conn_lend(struct tls_conn *c, struct slice *in, struct buf *out, struct why *why);

/* ---- fault.c ---- */

/* `code`: wolfSSL's error; `alert`: the last alert received, or -1. */
void tls_fault(struct why *why, int code, int alert, bool server);
/* A certificate was refused: says what is wrong with which one. */
void tls_fault_certificate(struct why *why, int code, struct slice der, const char *name);

#endif
