/*
 * routing/mx.h - what a domain's MX answer means (RFC 5321 section 5.1, RFC 7505). Pure.
 */
#ifndef HIKYAKU_MX_H
#define HIKYAKU_MX_H

#include "gateway/base/prng.h"
#include "routing/dns.h"

enum mx_verdict {
    MX_HOSTS,     /* try `hosts` in this order */
    MX_IMPLICIT,  /* no MX: the domain itself, by A/AAAA; it is also hosts[0] */
    MX_PERMANENT, /* why: 5.1.2 no such domain, 5.1.10 null MX, 5.4.6 only ourselves */
    MX_TEMPORARY  /* why: 4.4.3; 4.4.4 when every host is an address and no name */
};

struct mx_list {
    enum mx_verdict verdict;
    uint32_t count;
    struct {
        uint16_t preference;
        char host[256];
    } hosts[DNS_MX_MAX];
};

/*
 * Sorts by preference, shuffles equal ones, drops our own names (`own_names`: hostname and fqdns)
 * and everything at the same or worse preference (FAULTS 74).
 */
void mx_evaluate(const struct dns_answer *a, const char *domain, const char *const *own_names,
                 uint32_t own_count, struct prng *chance, struct mx_list *out, struct why *why);

/*
 * A host turned out to be ourselves by its address (FAULTS 74): it and everything at the same or
 * worse preference goes. When none is left the verdict is MX_PERMANENT, 5.4.6. `host`: index in
 * l->hosts.
 */
void mx_drop_self(struct mx_list *l, uint32_t host, struct why *why);

/*
 * FAULTS 75: loopback, private, link-local, unspecified and multicast targets that came from the
 * public DNS. `allowed` is the operator's allow-list verdict.
 */
bool mx_addr_is_public(const struct io_addr *a);

#endif
