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

/*
 * `raw`: everything received so far, record headers and all (RFC 8446 sections 5.1 and 4.1.2). On DONE `name` holds the host name
 * asked for (RFC 6066 section 3) as it came, opaque, and *name_len its length, 0 when there was none. A host name with a NUL, or one
 * longer than 255 bytes, counts as none.
 */
enum tls_hello_status tls_hello_parse(struct slice raw, uint8_t name[255], uint8_t *name_len)
    __attribute__((warn_unused_result));

#endif
