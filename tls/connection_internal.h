/*
 * tls/connection_internal.h - one connection, shared by its files: connection.c, early.c (before
 * the ClientHello is complete), facts.c (what is known of it).
 */
#ifndef HIKYAKU_TLS_CONNECTION_INTERNAL_H
#define HIKYAKU_TLS_CONNECTION_INTERNAL_H

#include "tls/internal.h"

enum { TLS_RECORD_HEADER = 5 };

struct tls_conn {
    struct tls_ctx *ctx;
    WOLFSSL *ssl; /* a server's: NULL until the hello is complete */
    char *name;   /* SNI: asked by or of the peer; NULL: none */
    /* Only during a call. */
    struct slice *in;
    struct buf *out;
    struct why *why;
    struct why *refusal; /* why a certificate was refused, kept until the handshake has failed */
    uint8_t *leaf;       /* a client's that inspects: the server's certificate */
    uint32_t leaf_len;
    /* The hello, until wolfSSL has taken it. */
    uint8_t *early;
    uint32_t early_len, early_size, early_at;
    /* Framing of what wolfSSL takes. */
    uint32_t record_left;
    uint32_t handshake_bytes;
    uint32_t records; /* in the handshake; afterwards since data last came */
    uint8_t header[TLS_RECORD_HEADER], header_len;
    bool alien; /* the first bytes of a record are no TLS */
    bool established, flooded, dead, closed, closed_told, close_sent;
    int fault; /* wolfSSL's error that came after data of the same call: told by the next one */
    uint32_t write_pending; /* length of a write that wolfSSL still holds */
};

/* ---- connection.c ---- */
/* Makes the WOLFSSL object. False: no memory. */
bool tls_conn_attach(struct tls_conn *c, WOLFSSL_CTX *ssl_ctx) __attribute__((warn_unused_result));
/* Keeps the name that is asked for. False: no memory. */
bool tls_conn_name(struct tls_conn *c, const void *name, size_t len)
    __attribute__((warn_unused_result));

/* ---- early.c ---- */
/* Reads the hello up to its end and makes the WOLFSSL object for the name it asks for. */
enum tls_status tls_early_await(struct tls_conn *c) __attribute__((warn_unused_result));
/* The hello's bytes are of no more use once wolfSSL has taken them all. */
void tls_early_drop(struct tls_conn *c);

#endif
