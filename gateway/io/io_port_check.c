/*
 * gateway/io/io_port_check.c - is an address free to listen on?
 *
 * Owns:     nothing.
 * Runs on:  the control thread, at start, before anything else is touched.
 * Contract: shards bind with SO_REUSEPORT, which would let a second gateway of the same user slip
 *           in beside the first without a word; a bind without it finds that out.
 * Failure:  `why` names the address and the reason.
 * Bounds:   one socket at a time.
 * Tests:    tests/system (bad start)
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "gateway/io/io_inherit.h"

#define TRIES 200
#define PAUSE_US \
    10000 /* together 2 s: what a killed process leaves goes away with its last write */

static bool try_bind(const struct io_addr *addr)
{
    int on = 1, fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (addr->sa.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    bool ok = bind(fd, &addr->sa, addr->len) == 0 && listen(fd, 1) == 0;
    int saved = errno;
    close(fd);
    errno = saved;
    return ok;
}

bool io_port_check(const struct io_addr *addr, struct why *why)
{
    char text[IO_ADDR_TEXT_MAX];
    int inherited = io_inherited_listener(addr);
    if (inherited >= 0) {
        close(inherited);
        return true;
    }
    bool ok = try_bind(addr);
    for (int i = 1; !ok && errno == EADDRINUSE && i < TRIES; i++) {
        usleep(PAUSE_US);
        ok = try_bind(addr);
    }
    if (ok)
        return true;
    const char *advice = errno == EADDRINUSE      ? " (another program listens there)"
                         : errno == EACCES        ? " (ports below 1024 need CAP_NET_BIND_SERVICE)"
                         : errno == EADDRNOTAVAIL ? " (no interface has this address)"
                                                  : "";
    why_set(why, 451, "4.3.0", "cannot listen on %s: %s%s", io_addr_text(addr, true, text),
            strerror(errno), advice);
    return false;
}
