/*
 * gateway/io/uring_listen.c - the io_uring backend: listeners, and local addresses.
 *
 * Owns:     nothing of its own.
 * Runs on:  the thread of the io, which waits for the kernel: at start and reload, and at most once
 *           a connection.
 * Contract: see io.h. TCP_NODELAY is set on the listener and passes to what it accepts. A listener
 *           is a number of the process; where descriptors are slots, its slot holds a stand-in.
 * Failure:  false, and `why` names the address and the reason, in words.
 * Bounds:   an address in use is tried LISTEN_TRIES times.
 * Tests:    tests/unit/test_uring.c
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "gateway/io/io_inherit.h"
#include "gateway/io/uring_internal.h"
#include "gateway/limits.h"

#define LISTEN_TRIES    10 /* LISTEN_PAUSE_NS apart */
#define LISTEN_PAUSE_NS (20 * NS_PER_MS)

static int set_option(int s, int level, int name, int value)
{
    return setsockopt(s, level, name, &value, sizeof value);
}

/*
 * A listening socket with a number of the process, or -errno. TCP_NODELAY passes to what it
 * accepts.
 */
static int make_listener(const struct io_addr *addr, const struct io_listen_opts *opts)
{
    int s = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (s < 0)
        return -errno;
    if (set_option(s, SOL_SOCKET, SO_REUSEADDR, 1) < 0 ||
        (opts->reuse_port && set_option(s, SOL_SOCKET, SO_REUSEPORT, 1) < 0) ||
        (addr->sa.sa_family == AF_INET6 &&
         set_option(s, IPPROTO_IPV6, IPV6_V6ONLY, opts->v6_only) < 0) ||
        set_option(s, IPPROTO_TCP, TCP_NODELAY, 1) < 0 || bind(s, &addr->sa, addr->len) < 0 ||
        listen(s, opts->backlog) < 0) {
        int error = errno;
        close(s);
        return -error;
    }
    return s;
}

/*
 * The kernel ends the accepts of a process that was killed some milliseconds after it ended, and
 * with them its listener: who starts again at once must not be told that somebody else listens.
 */
static int make_listener_patiently(struct io *io, const struct io_addr *addr,
                                   const struct io_listen_opts *opts)
{
    struct __kernel_timespec pause = {.tv_nsec = LISTEN_PAUSE_NS};
    int s = io_inherited_listener(addr);

    if (s >= 0) {
        set_option(s, IPPROTO_TCP, TCP_NODELAY, 1);
        return s;
    }
    s = make_listener(addr, opts);
    for (int i = 1; s == -EADDRINUSE && i < LISTEN_TRIES; i++) {
        struct io_uring_sqe *sqe = uring_sqe(io);
        io_uring_prep_timeout(sqe, &pause, 0, 0);
        (void)uring_call(io, sqe);
        s = make_listener(addr, opts);
    }
    return s;
}

static const char *listen_problem(int error)
{
    switch (error) {
    case EADDRINUSE: return "another program listens there";
    case EACCES: return "not permitted (a port below 1024 needs root or CAP_NET_BIND_SERVICE)";
    case EADDRNOTAVAIL: return "this machine does not have the address";
    case EAFNOSUPPORT: return "this machine does not speak that protocol";
    default: return strerror(error);
    }
}

static bool local_name(int s, struct io_addr *out)
{
    bool ok;

    out->len = sizeof out->in6;
    ok = getsockname(s, &out->sa, &out->len) == 0;
    if (!ok)
        out->len = 0;
    return ok;
}

/*
 * What stands in the slot of a listener, so that nobody else is given it: a socket that nobody can
 * reach. Adopts it; -errno.
 */
static int32_t stand_in(struct io *io, int family)
{
    struct io_uring_sqe *sqe;
    int s = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), slot = s, r;

    if (s < 0)
        return -errno;
    sqe = uring_sqe(io);
    io_uring_prep_files_update(sqe, &slot, 1, (int)IORING_FILE_INDEX_ALLOC);
    r = uring_call(io, sqe);
    close(s);
    return r < 0 ? r : uring_fd_adopt(io, slot, URING_FD_LISTENER);
}

bool io_listen(struct io *io, const struct io_addr *addr, const struct io_listen_opts *opts,
               int32_t *fd, struct why *why)
{
    char text[IO_ADDR_TEXT_MAX];
    int s = make_listener_patiently(io, addr, opts), r = s;

    if (s >= 0 && io->direct) {
        r = stand_in(io, addr->sa.sa_family);
        if (r < 0)
            close(s);
    } else if (s >= 0) {
        r = uring_fd_adopt(io, s, URING_FD_LISTENER);
    }
    if (r < 0) {
        why_set(why, 0, "", "cannot listen on %s: %s", io_addr_text(addr, true, text),
                listen_problem(-r));
        return false;
    }
    io->fds[r].number = s;
    *fd = r;
    return true;
}

bool io_local_addr(struct io *io, int32_t fd, struct io_addr *out)
{
    struct io_uring_sqe *sqe;
    int s;
    bool ok;

    if (fd >= 0 && (uint32_t)fd < io->fd_count && (io->fds[fd].flags & URING_FD_LISTENER))
        return local_name(io->fds[fd].number, out);
    if (!io->direct)
        return local_name(fd, out);
    sqe = uring_sqe(io);
    uring_fd_hold(io, fd);
    io_uring_prep_rw(URING_OP_FIXED_FD_INSTALL, sqe, fd, NULL, 0, 0);
    sqe->flags |= uring_fd_flag(io);
    s = uring_call(io, sqe);
    uring_fd_release(io, fd);
    if (s < 0)
        return false;
    ok = local_name(s, out);
    close(s);
    return ok;
}
