/*
 * routing/mx.c - what a domain's MX answer means, and which addresses are no mail host of the
 * public Internet.
 *
 * Owns:     nothing.
 * Runs on:  the shard that delivers.
 * Contract: RFC 5321 section 5.1 and RFC 7505: by preference, equal ones in random order, never
 *           ourselves nor anything as bad. A failed lookup is never taken for "no such domain"
 *           (FAULTS 71, 72).
 * Failure:  MX_PERMANENT and MX_TEMPORARY with the reply in `why`.
 * Bounds:   DNS_MX_MAX hosts.
 * Tests:    tests/unit/test_mx.c (FAULTS 71, 72, 74, 75)
 */
#include "routing/mx.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>

static bool mx_is_own(const char *host, const char *const *own_names, uint32_t own_count)
{
    for (uint32_t i = 0; i < own_count; i++) {
        struct slice own = slice_str(own_names[i]);
        if (own.len && own.ptr[own.len - 1] == '.')
            own.len--;
        if (slice_eq_nocase(slice_str(host), own))
            return true;
    }
    return false;
}

/* "192.0.2.1" or "2001:db8::1" where a name belongs (FAULTS 75). */
static bool mx_is_address(const char *host)
{
    uint8_t out[16];
    return inet_pton(AF_INET, host, out) == 1 || inet_pton(AF_INET6, host, out) == 1;
}

static bool mx_list_has(const struct mx_list *l, const char *host)
{
    for (uint32_t i = 0; i < l->count; i++)
        if (slice_eq_nocase(slice_str(l->hosts[i].host), slice_str(host)))
            return true;
    return false;
}

static void mx_list_add(struct mx_list *l, uint16_t preference, const char *host)
{
    assert(l->count < DNS_MX_MAX);
    l->hosts[l->count].preference = preference;
    snprintf(l->hosts[l->count].host, sizeof l->hosts[l->count].host, "%s", host);
    l->count++;
}

/* Indexes of the answer by preference, equal ones shuffled: shuffle all, then a stable sort. */
static void mx_order(const struct dns_answer *a, uint32_t count, struct prng *chance,
                     uint32_t order[DNS_MX_MAX])
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = (uint32_t)prng_below(chance, i + 1);
        order[i] = order[other];
        order[other] = i;
    }
    for (uint32_t i = 1; i < count; i++) {
        uint32_t moved = order[i], at = i;
        for (; at > 0 && a->mx[order[at - 1]].preference > a->mx[moved].preference; at--)
            order[at] = order[at - 1];
        order[at] = moved;
    }
}

static void mx_loop(struct mx_list *out, const char *domain, struct why *why)
{
    out->verdict = MX_PERMANENT;
    out->count = 0;
    why_set(why, 554, "5.4.6", "Mail for %s loops back to this host", domain);
}

static void mx_from_hosts(const struct dns_answer *a, const char *domain,
                          const char *const *own_names, uint32_t own_count, struct prng *chance,
                          struct mx_list *out, struct why *why)
{
    uint32_t order[DNS_MX_MAX], named = 0;
    uint32_t count = a->mx_count < DNS_MX_MAX ? a->mx_count : DNS_MX_MAX;
    uint32_t own_preference = UINT32_MAX;

    for (uint32_t i = 0; i < count; i++) {
        named += a->mx[i].host[0] != '\0';
        if (a->mx[i].preference < own_preference && mx_is_own(a->mx[i].host, own_names, own_count))
            own_preference = a->mx[i].preference;
    }
    if (named == 0) {
        out->verdict = MX_PERMANENT;
        why_set(why, 556, "5.1.10", "Domain %s does not accept mail (null MX)", domain);
        return;
    }
    out->verdict = MX_HOSTS;
    mx_order(a, count, chance, order);
    for (uint32_t i = 0; i < count; i++) {
        const struct dns_mx *mx = &a->mx[order[i]];
        /* RFC 7505 section 3: a null MX beside others means nothing. */
        if (mx->host[0] && mx->preference < own_preference && !mx_is_address(mx->host) &&
            !mx_list_has(out, mx->host))
            mx_list_add(out, mx->preference, mx->host);
    }
    if (out->count)
        return;
    if (own_preference != UINT32_MAX) {
        mx_loop(out, domain, why);
        return;
    }
    out->verdict = MX_TEMPORARY;
    why_set(why, 451, "4.4.4", "The MX of %s is an address, not a host name", domain);
}

void mx_evaluate(const struct dns_answer *a, const char *domain, const char *const *own_names,
                 uint32_t own_count, struct prng *chance, struct mx_list *out, struct why *why)
{
    out->count = 0;
    switch (a->status) {
    case DNS_OK:
        if (a->mx_count) {
            mx_from_hosts(a, domain, own_names, own_count, chance, out, why);
            return;
        }
        /* fall through */
    case DNS_NODATA:
        if (mx_is_own(domain, own_names, own_count)) {
            mx_loop(out, domain, why);
            return;
        }
        out->verdict = MX_IMPLICIT;
        mx_list_add(out, 0, domain);
        return;
    case DNS_NXDOMAIN:
        out->verdict = MX_PERMANENT;
        why_set(why, 550, "5.1.2", "Domain %s does not exist", domain);
        return;
    case DNS_TEMPORARY:
    case DNS_BOGUS: break;
    }
    out->verdict = MX_TEMPORARY;
    why_set(why, 451, "4.4.3", "Cannot look up the mail hosts of %s: %s", domain,
            a->text[0]               ? a->text
            : a->status == DNS_BOGUS ? "DNSSEC validation failed"
                                     : "the name server does not answer");
}

void mx_drop_self(struct mx_list *l, uint32_t host, struct why *why)
{
    uint32_t kept = 0;

    assert(host < l->count);
    uint16_t preference = l->hosts[host].preference;
    char domain[sizeof l->hosts[0].host];
    snprintf(domain, sizeof domain, "%s", l->hosts[host].host);
    while (kept < l->count && l->hosts[kept].preference < preference)
        kept++;
    l->count = kept;
    if (kept == 0)
        mx_loop(l, domain, why);
}

/* ---- addresses ---- */

struct net4 {
    uint32_t net;
    uint8_t bits;
};

/* RFC 6890 and its registry: what no host of the public Internet has. */
static const struct net4 not_public4[] = {
    {0x00000000, 8},  /* this network */
    {0x0a000000, 8},  /* private */
    {0x64400000, 10}, /* shared, behind carriers' NAT */
    {0x7f000000, 8},  /* loopback */
    {0xa9fe0000, 16}, /* link-local, and the clouds' metadata service */
    {0xac100000, 12}, /* private */
    {0xc0000000, 24}, /* protocol assignments */
    {0xc0a80000, 16}, /* private */
    {0xe0000000, 3},  /* multicast, reserved, broadcast */
};

static bool addr4_is_public(uint32_t host_order)
{
    for (size_t i = 0; i < sizeof not_public4 / sizeof not_public4[0]; i++)
        if ((host_order ^ not_public4[i].net) >> (32 - not_public4[i].bits) == 0)
            return false;
    return true;
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool addr6_is_public(const uint8_t a[16])
{
    static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const uint8_t zero[12] = {0};

    if (memcmp(a, mapped, 12) == 0 || memcmp(a, nat64, 12) == 0)
        return addr4_is_public(be32(a + 12));
    if (memcmp(a, zero, 12) == 0)
        return false; /* ::, ::1 and the old IPv4-compatible form */
    if (a[0] == 0x20 && a[1] == 0x02)
        return addr4_is_public(be32(a + 2)); /* 6to4 */
    if ((a[0] & 0xfe) == 0xfc || a[0] == 0xff)
        return false;                        /* unique local; multicast */
    return !(a[0] == 0xfe && (a[1] & 0x80)); /* link-local, site-local */
}

bool mx_addr_is_public(const struct io_addr *a)
{
    if (a->len == 0)
        return false;
    if (a->sa.sa_family == AF_INET)
        return addr4_is_public(ntohl(a->in.sin_addr.s_addr));
    return a->sa.sa_family == AF_INET6 && addr6_is_public(a->in6.sin6_addr.s6_addr);
}
