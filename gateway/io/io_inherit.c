/*
 * gateway/io/io_inherit.c - sockets handed over at start: LISTEN_PID, LISTEN_FDS, from 3 on.
 *
 * Owns:     nothing: the environment and the descriptors stay as they were given.
 * Runs on:  the control thread and shards, at start and at reload.
 * Contract: each call gives a descriptor of its own for the same socket, so that every shard can
 *           close its listener; the socket itself goes on listening.
 * Failure:  what is no listening TCP socket is passed over.
 * Bounds:   INHERITED_MAX descriptors are looked at.
 * Tests:    tests/system/test_systemd.py
 */
#include "gateway/io/io_inherit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define FIRST_FD      3
#define INHERITED_MAX 256

static long number_of(const char *name)
{
    const char *text = getenv(name);
    char *end;
    long n = text ? strtol(text, &end, 10) : 0;
    return text && end != text && *end == '\0' ? n : 0;
}

uint32_t io_inherited_count(void)
{
    long n = number_of("LISTEN_FDS");
    if (number_of("LISTEN_PID") != getpid() || n <= 0)
        return 0;
    return n < INHERITED_MAX ? (uint32_t)n : INHERITED_MAX;
}

bool io_inherited_addr(uint32_t index, struct io_addr *out)
{
    int listening = 0, fd = FIRST_FD + (int)index;
    socklen_t len = sizeof listening;
    out->len = sizeof out->in6;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening &&
           getsockname(fd, &out->sa, &out->len) == 0 &&
           (out->sa.sa_family == AF_INET || out->sa.sa_family == AF_INET6);
}

/* Flow and scope of IPv6 are no part of what a configuration says. */
static bool same(const struct io_addr *a, const struct io_addr *b)
{
    if (a->sa.sa_family != b->sa.sa_family || io_addr_port(a) != io_addr_port(b))
        return false;
    return a->sa.sa_family == AF_INET
               ? a->in.sin_addr.s_addr == b->in.sin_addr.s_addr
               : memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof a->in6.sin6_addr) == 0;
}

int io_inherited_listener(const struct io_addr *addr)
{
    struct io_addr have;
    uint32_t n = io_inherited_count();
    for (uint32_t i = 0; i < n; i++) {
        if (!io_inherited_addr(i, &have) || !same(&have, addr))
            continue;
        int fd = fcntl(FIRST_FD + (int)i, F_DUPFD_CLOEXEC, 64);
        /* io_uring answers EAGAIN where a socket does not block, instead of waiting. */
        int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
        if (flags >= 0 && flags & O_NONBLOCK)
            (void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
        return fd;
    }
    return -1;
}
