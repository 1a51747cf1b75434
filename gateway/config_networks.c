/*
 * gateway/config_networks.c - is an address in a set of networks; do two sets of rules overlap.
 *
 * Owns:     nothing.
 * Runs on:  any thread, shards too; pure, no heap.
 * Contract: an IPv4 address in IPv6's clothes (::ffff:192.0.2.1) is the IPv4 address.
 * Failure:  cannot fail.
 * Bounds:   one comparison a network; overlap: 128 steps a pair and exception.
 * Tests:    tests/unit/test_config_value.c
 */
#include "gateway/config_internal.h"

bool config_address_same(const struct io_addr *a, const struct io_addr *b)
{
    if (a->len == 0 || b->len == 0)
        return a->len == b->len;
    if (a->sa.sa_family != b->sa.sa_family || io_addr_port(a) != io_addr_port(b))
        return false;
    return a->sa.sa_family == AF_INET
               ? a->in.sin_addr.s_addr == b->in.sin_addr.s_addr
               : memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof a->in6.sin6_addr) == 0;
}

bool config_receive_bound(const struct config_receive_connector *c, const struct io_addr *addr)
{
    for (uint32_t b = 0; b < c->bind_count; b++)
        if (c->bind[b].len == addr->len && memcmp(&c->bind[b].sa, &addr->sa, addr->len) == 0)
            return true;
    return false;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, uint32_t bits)
{
    uint8_t mask = (uint8_t)(0xff00u >> bits % 8);
    return memcmp(a, b, bits / 8) == 0 &&
           (bits % 8 == 0 || ((a[bits / 8] ^ b[bits / 8]) & mask) == 0);
}

bool config_network_covers(const struct config_network *outer, const struct config_network *inner)
{
    return outer->family == inner->family && outer->bits <= inner->bits &&
           same_bits(outer->addr, inner->addr, outer->bits);
}

bool config_networks_match(const struct config_networks *n, const struct io_addr *a)
{
    struct config_network host = {0};
    if (a->len == 0)
        return false;
    if (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) {
        host.family = AF_INET;
        memcpy(host.addr, a->in6.sin6_addr.s6_addr + 12, 4);
    } else if (a->sa.sa_family == AF_INET6) {
        host.family = AF_INET6;
        memcpy(host.addr, &a->in6.sin6_addr, 16);
    } else {
        host.family = AF_INET;
        memcpy(host.addr, &a->in.sin_addr, 4);
    }
    host.bits = host.family == AF_INET ? 32 : 128;
    for (uint32_t i = 0; i < n->count; i++)
        if (config_network_covers(&n->items[i], &host))
            return true;
    return false;
}

/* Do the networks of a and b together leave nothing of `whole`? Halves it where one lies inside. */
static bool nothing_left(const struct config_network *whole, const struct config_networks *a,
                         const struct config_networks *b)
{
    bool inside = false;
    for (uint32_t i = 0; i < a->count + b->count; i++) {
        const struct config_network *n = i < a->count ? &a->items[i] : &b->items[i - a->count];
        if (config_network_covers(n, whole))
            return true;
        inside |= config_network_covers(whole, n);
    }
    if (!inside)
        return false;
    struct config_network half = *whole;
    half.bits++;
    if (!nothing_left(&half, a, b))
        return false;
    half.addr[whole->bits / 8] |= (uint8_t)(0x80u >> whole->bits % 8);
    return nothing_left(&half, a, b);
}

bool config_remotes_overlap(const struct config_networks *allow_a,
                            const struct config_networks *deny_a,
                            const struct config_networks *allow_b,
                            const struct config_networks *deny_b)
{
    for (uint32_t i = 0; i < allow_a->count; i++)
        for (uint32_t k = 0; k < allow_b->count; k++) {
            const struct config_network *x = &allow_a->items[i], *y = &allow_b->items[k];
            const struct config_network *both = config_network_covers(x, y)   ? y
                                                : config_network_covers(y, x) ? x
                                                                              : NULL;
            if (both && !nothing_left(both, deny_a, deny_b))
                return true;
        }
    return false;
}
