/*
 * gateway/smtp/proxy_header.h - the PROXY protocol, versions 1 and 2, as a receiver: what a load
 * balancer says about the client before the client's own first byte. Pure.
 *
 * Source: "The PROXY protocol, versions 1 & 2", W. Tarreau (HAProxy), 2020/03/05 edition and later.
 * Whether the connection comes from somebody whose header may be believed is for the owner to know
 * before a byte is looked at.
 */
#ifndef HIKYAKU_SMTP_PROXY_HEADER_H
#define HIKYAKU_SMTP_PROXY_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "gateway/base/slice.h"
#include "gateway/limits.h"

struct proxy_address {
    uint8_t family;    /* 4 or 6; an IPv4 address in IPv6's clothes is told as 4 */
    uint8_t bytes[16]; /* network order, the first 4 for family 4 */
    uint16_t port;
};

/* What a TLS-terminating proxy tells (PP2_TYPE_SSL); cut to fit, printable ASCII or '?'. */
struct proxy_tls {
    bool used;        /* the client came over TLS */
    bool verified;    /* it showed a certificate, and the proxy found it good */
    char version[16]; /* "TLSv1.3" */
    char cipher[64];
    char common_name[65]; /* of the client's certificate */
};

enum proxy_status {
    PROXY_NEED_MORE,
    PROXY_NONE,   /* the first byte begins no header; nothing was consumed */
    PROXY_CLIENT, /* a header, and whose connection it is */
    PROXY_LOCAL,  /* a header without an address: the proxy's own connection (a health check), or
                     UNKNOWN, AF_UNSPEC, AF_UNIX: the address is not to be had */
    PROXY_BAD     /* no header can come of this; `reason` */
};

struct proxy_header {
    struct proxy_address client, server; /* PROXY_CLIENT */
    bool own_check;                      /* PROXY_LOCAL by the LOCAL command of version 2 */
    struct proxy_tls tls;
    char server_name[256]; /* PP2_TYPE_AUTHORITY: the name the client asked for */
    const char *reason;    /* PROXY_BAD: a few words */
    /* private */
    uint16_t len;
    uint8_t bytes[PROXY_HEADER_MAX];
};

void proxy_header_init(struct proxy_header *p);
/*
 * Takes bytes off *in, never one behind the header. After PROXY_NEED_MORE all of *in is consumed;
 * after any other status it must not be called again.
 */
enum proxy_status proxy_header_step(struct proxy_header *p, struct slice *in)
    __attribute__((warn_unused_result));

/* Begins `in` with the signature of version 2? No command of SMTP does. */
bool proxy_header_is_v2(struct slice in);

#endif
