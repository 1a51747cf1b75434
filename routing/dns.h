/*
 * routing/dns.h - asking the DNS on the shard's own loop. routing/dns_unbound.c implements it over
 * libunbound; the simulator has its own.
 *
 * Callbacks come from io_turn, never from inside dns_*.
 */
#ifndef HIKYAKU_DNS_H
#define HIKYAKU_DNS_H

#include "gateway/base/list.h"
#include "gateway/base/timer.h"
#include "gateway/io/io.h"
#include "gateway/limits.h"

struct dns;
struct dns_lookup;

struct dns_params {
    struct io *io;
    const struct io_addr *servers; /* forwarders; count 0: the system's resolv.conf */
    uint32_t server_count;
    bool dnssec;
    uint64_t timeout_ns;
};
struct dns *dns_create(const struct dns_params *p, struct why *why);
/*
 * Outstanding queries are dropped; their callbacks never run. Turn the loop until its operations
 * are done (a turn or two) before io_destroy. May be called inside a callback.
 */
void dns_destroy(struct dns *d);

enum dns_status {
    DNS_OK,
    DNS_NXDOMAIN,  /* the name does not exist: permanent, DSN 5.1.2 */
    DNS_NODATA,    /* it exists without such a record */
    DNS_TEMPORARY, /* SERVFAIL, timeout, REFUSED: defer 4.4.3 */
    DNS_BOGUS      /* DNSSEC validation failed: defer */
};

struct dns_mx {
    uint16_t preference;
    char host[256]; /* lower case, no final dot; "" for the null MX (RFC 7505) */
};

struct dns_answer {
    enum dns_status status;
    bool secure; /* DNSSEC-validated */
    uint32_t ttl_s;
    char text[128]; /* in words, for the log; "" when all is well */
    uint32_t mx_count, addr_count;
    struct dns_mx mx[DNS_MX_MAX];
    struct io_addr addr[DNS_ADDR_MAX]; /* IPv6 and IPv4 in turns (RFC 8305 section 4), port 0 */
};

/* Embedded in its owner. */
struct dns_query {
    void (*done)(struct dns_query *q,
                 const struct dns_answer *a); /* answer valid during the call */
    /* dns's own */
    struct dns *dns;
    uint64_t id[2];
    uint32_t waiting;
    struct dns_answer *answer;
    struct dns_lookup *lookup;
    struct list link; /* while under way */
    struct timer timer;
    struct io_addr literal;
};
/*
 * `domain` and `host` are not kept. A zeroed query with `done` set is ready to ask; so is one
 * answered.
 */
void dns_mx(struct dns *d, struct dns_query *q, const char *domain);
/* A and AAAA together. An address literal answers itself. */
void dns_addr(struct dns *d, struct dns_query *q, const char *host);
/* `done` will not run any more. Nothing happens to a query that is not under way. */
void dns_cancel(struct dns_query *q);

#endif
