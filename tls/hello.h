/*
 * tls/hello.h - what a server must know of a ClientHello before it can choose a certificate.
 */
#ifndef HIKYAKU_TLS_HELLO_H
#define HIKYAKU_TLS_HELLO_H

#include "gateway/base/slice.h"

enum tls_hello_status {
    TLS_HELLO_MORE, /* not all there yet */
    TLS_HELLO_DONE,
    TLS_HELLO_BAD,   /* not TLS, or not a ClientHello */
    TLS_HELLO_LARGE, /* past TLS_HELLO_BYTES_MAX or TLS_HELLO_RECORDS_MAX */
    TLS_HELLO_ALERT  /* the client sent an alert instead */
};

struct tls_hello {
    uint8_t name[255];       /* host name asked for (RFC 6066 section 3), as it came, opaque */
    uint8_t name_len;        /* 0: none, or one that is longer than 255 bytes or has a NUL */
    uint16_t ticket_len;     /* TLS 1.2 session ticket (RFC 5077 section 3.2); 0: none */
    uint8_t ticket_name[16]; /* its first bytes: the name of the key it is sealed with */
};

/* `raw`: everything received so far, record headers and all (RFC 8446 sections 5.1 and 4.1.2).
 * `out` is filled on DONE. */
enum tls_hello_status tls_hello_parse(struct slice raw, struct tls_hello *out)
    __attribute__((warn_unused_result));

#endif
