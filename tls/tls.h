/*
 * tls/tls.h - TLS over buffers (wolfSSL), no sockets: ciphertext and plaintext in, ciphertext and
 * plaintext out.
 *
 * A context and its connections belong to one thread: wolfSSL is built without locks. Each shard
 * has contexts of its own; another thread may make one and hand it over before its first
 * connection. TLS 1.2 and 1.3.
 */
#ifndef HIKYAKU_TLS_H
#define HIKYAKU_TLS_H

#include "gateway/base/buf.h"
#include "gateway/base/slice.h"
#include "gateway/base/why.h"

struct tls_ctx;
struct tls_conn;

/* Once per process, before any thread; false: the library does not work here. Sets wolfSSL's
 * allocators (counted, see tls_memory). */
bool tls_global_init(struct why *why) __attribute__((warn_unused_result));
void tls_global_cleanup(void);

/* One certificate chain and its key, PEM bytes that the owner keeps until the context is made.
 * Checked to belong together. */
struct tls_identity {
    struct slice certificate, key;
    const char *certificate_name, *key_name; /* file names for messages */
};

struct tls_server_params {
    const struct tls_identity
        *identities; /* the first is the default; others by SNI against the certificates' names */
    uint32_t identity_count;
    uint16_t version_min;      /* 0x0303 or 0x0304 */
    uint32_t bits_min;         /* of the cipher; 128: AES-128 and up */
    const uint8_t *ticket_key; /* 48 bytes common to all shards, or NULL: no tickets */
    uint16_t version_max;      /* 0: the newest; 0x0303: no TLS 1.3 */
};
struct tls_ctx *tls_server_ctx_create(const struct tls_server_params *p, struct why *why);

struct tls_client_params {
    uint16_t version_min;
    bool verify;         /* chain and name are checked; else any certificate will do */
    bool inspect;        /* any will do, but it is kept and judged: tls_peer_certificate */
    const char *ca_file; /* NULL: the system's */
    const struct tls_identity *identity; /* client certificate or NULL */
    uint16_t version_max;                /* 0: the newest; 0x0303: no TLS 1.3 */
};
struct tls_ctx *tls_client_ctx_create(const struct tls_client_params *p, struct why *why);
/* Connections keep what they need; the context may go first. */
void tls_ctx_destroy(struct tls_ctx *c);

/* Does any name of the certificate (SAN, else CN; exact or wildcard, RFC 6125) match? For --check.
 * Times (seconds since 1970) and `names` are for warnings; an expired certificate is no error here.
 */
struct tls_certificate_info {
    bool matches;
    int64_t not_before_s, not_after_s;
    char names[256];
};
/* Also checks that key and certificate belong together. False fills `why` (names the files). */
bool tls_identity_check(const struct tls_identity *id, const char *fqdn,
                        struct tls_certificate_info *info, struct why *why)
    __attribute__((warn_unused_result));

/* `name`: SNI and, when the context verifies, the name to check (NULL: none). NULL: no memory
 * (454 4.7.0). */
struct tls_conn *tls_server_conn(struct tls_ctx *c);
struct tls_conn *tls_client_conn(struct tls_ctx *c, const char *name);
void tls_conn_free(struct tls_conn *c);

enum tls_status {
    TLS_OK,       /* handshake: done; read: *got bytes; write: taken */
    TLS_WANT_IN,  /* more ciphertext is needed */
    TLS_WANT_OUT, /* `out` must be sent first, then call again with the same arguments */
    TLS_CLOSED,   /* close_notify came */
    TLS_FAILED    /* why is filled; the connection is dead. An alert may be in `out` */
};

/*
 * Ciphertext goes in by `in` (advanced over what was taken) and comes out in `out` (appended, never
 * past its room). Every call may do both.
 */
enum tls_status tls_handshake(struct tls_conn *c, struct slice *in, struct buf *out,
                              struct why *why);
/* Plaintext into `plain` (appended). OK with at least one byte, else WANT_IN. */
enum tls_status tls_read(struct tls_conn *c, struct slice *in, struct buf *out, struct buf *plain,
                         struct why *why);
/*
 * Takes all of `data` or (WANT_OUT) a part: `data` is advanced over what lies in `out` as
 * ciphertext. After WANT_OUT, with something sent, call again with the same bytes (or more behind
 * them).
 */
enum tls_status tls_write(struct tls_conn *c, struct slice *data, struct buf *out, struct why *why);
/* close_notify into `out`. */
void tls_close(struct tls_conn *c, struct buf *out);
/* True when what was taken in holds unread plaintext, or an end not told yet: read again before
 * waiting. */
bool tls_pending(const struct tls_conn *c);

/*
 * What a client of a context with `inspect` was shown, and what a verifying one would say of it:
 * `refusal` is empty when chain, dates and the connection's name are right. False: nothing was
 * shown (yet).
 */
struct tls_peer_certificate {
    struct tls_certificate_info info;
    char issuer[128];
    char refusal[WHY_TEXT_MAX];
};
bool tls_peer_certificate(const struct tls_conn *c, struct tls_peer_certificate *out)
    __attribute__((warn_unused_result));

/* A client's session, to resume it later with the same context and name; belongs to its thread. */
struct tls_session;
struct tls_session *tls_session_get(struct tls_conn *c); /* NULL: there is none; TLS 1.3 only */
/* Before the handshake. The session stays the caller's. */
bool tls_session_set(struct tls_conn *c, struct tls_session *s) __attribute__((warn_unused_result));
void tls_session_free(struct tls_session *s);

struct tls_facts {
    const char *version; /* "TLSv1.3" */
    const char *cipher;
    uint16_t bits;
    bool resumed, verified;
    char sni[256];
};
void tls_facts(const struct tls_conn *c, struct tls_facts *out);
/* "TLSv1.3 TLS_AES_128_GCM_SHA256 verified", for logs; "" while there is no TLS. */
#define TLS_TEXT_MAX 96
const char *tls_facts_text(const struct tls_facts *f, char text[TLS_TEXT_MAX]);

/* Bytes wolfSSL holds for the calling thread, and the bound set by tls_memory_limit (0: none): past
 * it allocations fail and handshakes end with 454. */
uint64_t tls_memory(void);
void tls_memory_limit(uint64_t bytes);

#endif
