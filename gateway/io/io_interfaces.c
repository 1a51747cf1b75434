/*
 * gateway/io/io_interfaces.c - the addresses of this machine.
 *
 * Owns:     nothing.
 * Runs on:  the control thread, at start and at reload; it waits for the kernel.
 * Contract: what getifaddrs tells, addresses alone: no ports.
 * Failure:  nothing is told: 0.
 * Bounds:   `max`; more are left out.
 * Tests:    tests/unit/test_own_addr.c
 */
#include <ifaddrs.h>

#include "gateway/io/io.h"

uint32_t io_interfaces(struct io_addr *out, uint32_t max)
{
    struct ifaddrs *all, *i;
    uint32_t count = 0;
    if (getifaddrs(&all) < 0)
        return 0;
    for (i = all; i && count < max; i = i->ifa_next) {
        struct io_addr a = {0};
        if (!i->ifa_addr)
            continue;
        if (i->ifa_addr->sa_family == AF_INET)
            a.len = sizeof a.in;
        else if (i->ifa_addr->sa_family == AF_INET6)
            a.len = sizeof a.in6;
        else
            continue;
        memcpy(&a.sa, i->ifa_addr, a.len);
        out[count++] = a;
    }
    freeifaddrs(all);
    return count;
}
