/*
 * gateway/own_addr.c - is this address ourselves?
 *
 * Owns:     nothing.
 * Runs on:  the shard that delivers.
 * Contract: another server on this machine, at another port or address, is not ourselves.
 * Failure:  none.
 * Bounds:   looks at every bind of every receive connector, every interface.
 * Tests:    tests/unit/test_own_addr.c, tests/system/test_mx.py (FAULTS 74)
 */
#include "gateway/own_addr.h"

static bool same_host(const struct io_addr *x, const struct io_addr *y)
{
    if (x->sa.sa_family != y->sa.sa_family)
        return false;
    return x->sa.sa_family == AF_INET6
               ? memcmp(&x->in6.sin6_addr, &y->in6.sin6_addr, sizeof x->in6.sin6_addr) == 0
               : x->in.sin_addr.s_addr == y->in.sin_addr.s_addr;
}

static bool is_wildcard(const struct io_addr *a)
{
    return a->sa.sa_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr)
                                       : a->in.sin_addr.s_addr == 0;
}

/* Is it an address of this machine? */
static bool is_here(const struct io_addr *interfaces, uint32_t count, const struct io_addr *a)
{
    if (is_wildcard(a))
        return true; /* connecting to 0.0.0.0 leads here, too */
    if (a->sa.sa_family == AF_INET && ntohl(a->in.sin_addr.s_addr) >> 24 == 127)
        return true;
    for (uint32_t i = 0; i < count; i++)
        if (same_host(&interfaces[i], a))
            return true;
    return false;
}

bool own_addr_is(const struct config *c, const struct io_addr *interfaces, uint32_t count,
                 const struct io_addr *a)
{
    struct io_addr plain = *a;
    if (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) {
        memset(&plain, 0, sizeof plain);
        plain.in.sin_family = AF_INET;
        plain.in.sin_port = a->in6.sin6_port;
        memcpy(&plain.in.sin_addr, &a->in6.sin6_addr.s6_addr[12], 4);
        plain.len = sizeof plain.in;
    }
    if (config_networks_match(&c->own_addresses, &plain))
        return true;
    for (uint32_t i = 0; i < c->receive_count; i++)
        for (uint32_t k = 0; k < c->receive[i].bind_count; k++) {
            const struct io_addr *bind = &c->receive[i].bind[k];
            if (bind->sa.sa_family != plain.sa.sa_family ||
                io_addr_port(bind) != io_addr_port(&plain))
                continue;
            if (same_host(bind, &plain) ||
                (is_wildcard(bind) && is_here(interfaces, count, &plain)))
                return true;
        }
    return false;
}
