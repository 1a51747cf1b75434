/*
 * gateway/io/uring_net.c - the io_uring backend: listening, accepting, connecting, sending,
 * closing, polling.
 *
 * Owns:     nothing of its own; sockets are slots of the ring's file table, so they cost no number
 *           of the process.
 * Runs on:  the thread of the io. io_listen and io_local_addr wait for the kernel: start, reload,
 *           once a connection at most.
 * Contract: see io.h. A new outbound socket has a number of the process until the kernel has put it
 *           into the table.
 * Failure:  results of the kernel; accepting without descriptors or memory pauses ACCEPT_PAUSE_NS
 *           and goes on.
 * Bounds:   IO_ACCEPT_SLOTS accepts a turn and listener.
 * Tests:    tests/unit/test_uring.c
 */
#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "gateway/io/uring_internal.h"
#include "gateway/limits.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define LISTEN_TRIES    10 /* LISTEN_PAUSE_NS apart */
#define LISTEN_PAUSE_NS (20 * NS_PER_MS)

/* ---- listening ---- */

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
 * The kernel frees the sockets of a process that was killed some 40 ms after it ended, since they
 * are its ring's: who starts again at once must not be told that somebody else listens.
 */
static int make_listener_patiently(struct io *io, const struct io_addr *addr,
                                   const struct io_listen_opts *opts)
{
    struct __kernel_timespec pause = {.tv_nsec = LISTEN_PAUSE_NS};
    int s = make_listener(addr, opts);

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

static uint32_t listener_remember(struct io *io, int32_t fd, int s)
{
    struct io_addr addr = {.len = sizeof addr.in6};

    for (uint32_t i = 0; i < URING_LISTENERS_KEPT; i++) {
        if (io->listeners[i].fd >= 0)
            continue;
        if (getsockname(s, &addr.sa, &addr.len) < 0)
            return 0;
        io->listeners[i] = (struct uring_listener){.fd = fd, .addr = addr};
        return URING_FD_LISTENER;
    }
    return 0;
}

void uring_listener_forget(struct io *io, int32_t fd)
{
    for (uint32_t i = 0; i < URING_LISTENERS_KEPT; i++)
        if (io->listeners[i].fd == fd)
            io->listeners[i].fd = -1;
}

bool io_listen(struct io *io, const struct io_addr *addr, const struct io_listen_opts *opts,
               int32_t *fd, struct why *why)
{
    char text[IO_ADDR_TEXT_MAX];
    struct io_uring_sqe *sqe;
    int s = make_listener_patiently(io, addr, opts), slot = s, r = s;

    if (s >= 0) {
        sqe = uring_sqe(io);
        io_uring_prep_files_update(sqe, &slot, 1, (int)IORING_FILE_INDEX_ALLOC);
        r = uring_call(io, sqe);
        if (r >= 0)
            uring_fd_opened(io, slot, listener_remember(io, slot, s));
        close(s);
    }
    if (r < 0) {
        why_set(why, 0, "", "cannot listen on %s: %s", io_addr_text(addr, true, text),
                listen_problem(-r));
        return false;
    }
    *fd = slot;
    return true;
}

/* ---- accepting ---- */

static void accept_arm(struct io_acceptor *a, struct io_op *op)
{
    struct io_uring_sqe *sqe;

    a->running++;
    if (!uring_op_start_fd(a->io, op, URING_ACCEPT, a->listen_fd))
        return;
    op->net.addr.len = sizeof op->net.addr.in6;
    sqe = uring_sqe(a->io);
    io_uring_prep_accept(sqe, a->listen_fd, &op->net.addr.sa, &op->net.addr.len, 0);
    sqe->file_index = IORING_FILE_INDEX_ALLOC;
    sqe->flags |= IOSQE_FIXED_FILE;
    uring_tag(sqe, op, URING_OP);
}

/* The connection was lost before we took it: no reason to pause. */
static bool accept_error_is_peers(int32_t res)
{
    switch (-res) {
    case ECONNABORTED:
    case EINTR:
    case EAGAIN:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETUNREACH: return true;
    default: return false;
    }
}

static void accept_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct io_acceptor *a = op->ptr;

    (void)flags;
    a->running--;
    if (res >= 0) {
        a->on_accept(a, res, &op->net.addr);
    } else if (res != -ECANCELED && !a->stopping && !accept_error_is_peers(res) &&
               !timer_is_set(&a->pause)) {
        io_timer_set(a->io, &a->pause, io_now_ns(a->io) + ACCEPT_PAUSE_NS);
        a->on_accept(a, res, NULL);
    }
    if (!a->stopping && !timer_is_set(&a->pause) && !io_op_running(op))
        accept_arm(a, op);
    else if (a->stopping && a->running == 0)
        a->on_stopped(a);
}

static void accept_resume(struct timer *t)
{
    struct io_acceptor *a = container_of(t, struct io_acceptor, pause);

    for (uint32_t i = 0; i < IO_ACCEPT_SLOTS; i++)
        if (!io_op_running(&a->slots[i]))
            accept_arm(a, &a->slots[i]);
}

void io_accept_start(struct io *io, struct io_acceptor *a, int32_t listen_fd)
{
    a->io = io;
    a->listen_fd = listen_fd;
    a->stopping = false;
    a->running = 0;
    a->pause = (struct timer){.fire = accept_resume};
    for (uint32_t i = 0; i < IO_ACCEPT_SLOTS; i++) {
        a->slots[i] = (struct io_op){.done = accept_done, .ptr = a};
        accept_arm(a, &a->slots[i]);
    }
}

void io_accept_stop(struct io *io, struct io_acceptor *a)
{
    assert(!a->stopping);
    a->stopping = true;
    io_timer_clear(io, &a->pause);
    if (a->running == 0) { /* pausing: one slot that ends at once makes the callback come later */
        a->running = 1;
        uring_op_start(io, &a->slots[0], URING_ACCEPT);
        uring_op_fail(io, &a->slots[0], -ECANCELED);
        return;
    }
    for (uint32_t i = 0; i < IO_ACCEPT_SLOTS; i++)
        io_cancel(io, &a->slots[i]);
}

/* ---- connecting ---- */

/* A socket with a number of the process, or -errno. */
static int make_client(const struct io_addr *to, const struct io_addr *from)
{
    int s = socket(to->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int error;

    if (s < 0)
        return -errno;
    if (set_option(s, IPPROTO_TCP, TCP_NODELAY, 1) == 0) {
        if (!from || from->len == 0)
            return s;
        /*
         * The port is then chosen together with the peer: one address can make more than 28,000
         * connections.
         */
        if (io_addr_port(from) == 0)
            (void)set_option(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
        if (bind(s, &from->sa, from->len) == 0)
            return s;
    }
    error = errno;
    close(s);
    return -error;
}

void io_connect(struct io *io, struct io_op *op, const struct io_addr *to,
                const struct io_addr *from)
{
    struct io_uring_sqe *sqe;
    int s = make_client(to, from);

    uring_op_start(io, op, URING_CONNECT);
    op->net.addr = *to;
    op->len = (uint32_t)s;
    if (s < 0) {
        op->flags |= URING_CONNECTING; /* there is no socket to close */
        uring_op_fail(io, op, s);
        return;
    }
    op->res = s; /* in: number of the process; out: slot */
    sqe = uring_sqe(io);
    io_uring_prep_files_update(sqe, &op->res, 1, (int)IORING_FILE_INDEX_ALLOC);
    uring_tag(sqe, op, URING_OP);
}

void uring_connect_next(struct io *io, struct io_op *op, int32_t res)
{
    struct io_uring_sqe *sqe;
    int32_t fd = op->res;

    if (!(op->flags & URING_CONNECTING)) {
        op->flags |= URING_CONNECTING;
        close((int)op->len);
        if (res < 0) {
            uring_op_end(io, op, res);
            return;
        }
        uring_fd_opened(io, fd, 0);
        op->fd = fd;
        uring_fd_hold(io, fd);
        if (op->flags & URING_CANCELLED) {
            io_close(io, fd);
            uring_op_end(io, op, -ECANCELED);
            return;
        }
        sqe = uring_sqe(io);
        io_uring_prep_connect(sqe, fd, &op->net.addr.sa, op->net.addr.len);
        sqe->flags |= IOSQE_FIXED_FILE;
        uring_tag(sqe, op, URING_OP);
        return;
    }
    if (res < 0 && op->fd >= 0)
        io_close(io, fd);
    uring_op_end(io, op, res < 0 ? res : fd);
}

/* ---- sending ---- */

static void send_arm(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = uring_sqe(io);

    io_uring_prep_send(sqe, op->fd, (const uint8_t *)op->ptr + op->sent, op->len - op->sent,
                       MSG_NOSIGNAL | MSG_WAITALL);
    sqe->flags |= IOSQE_FIXED_FILE;
    uring_tag(sqe, op, URING_OP);
}

void io_send(struct io *io, struct io_op *op, int32_t fd, const void *data, uint32_t len)
{
    assert(len <= INT32_MAX);
    if (!uring_op_start_fd(io, op, URING_SEND, fd))
        return;
    assert(!(io->fds[fd].flags & URING_FD_SENDING));
    io->fds[fd].flags |= URING_FD_SENDING;
    op->ptr = (void *)(uintptr_t)data;
    op->len = len;
    send_arm(io, op);
}

void uring_send_next(struct io *io, struct io_op *op, int32_t res)
{
    if (res > 0)
        op->sent += (uint32_t)res;
    assert(op->fd < 0 || op->sent <= op->len);
    if (res > 0 && op->sent < op->len) {
        if (!(op->flags & URING_CANCELLED)) {
            send_arm(io, op);
            return;
        }
        res = -ECANCELED;
    } else if (res >= 0) {
        res = op->sent == op->len ? (int32_t)op->len : -EIO;
    }
    uring_op_end(io, op, res);
}

void io_shutdown(struct io *io, int32_t fd)
{
    struct io_uring_sqe *sqe = uring_sqe(io);

    uring_fd_hold(io, fd);
    io_uring_prep_shutdown(sqe, fd, SHUT_WR);
    sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = (uint64_t)fd << 3 | URING_SHUTDOWN;
}

/* ---- other ---- */

bool io_local_addr(struct io *io, int32_t fd, struct io_addr *out)
{
    struct io_uring_sqe *sqe;
    socklen_t len = sizeof out->in6;
    int s;
    bool ok;

    for (uint32_t i = 0; i < URING_LISTENERS_KEPT; i++) {
        if (io->listeners[i].fd == fd && fd >= 0) {
            *out = io->listeners[i].addr;
            return true;
        }
    }
    sqe = uring_sqe(io);
    uring_fd_hold(io, fd);
    io_uring_prep_rw(URING_OP_FIXED_FD_INSTALL, sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE;
    s = uring_call(io, sqe);
    uring_fd_release(io, fd);
    if (s < 0)
        return false;
    ok = getsockname(s, &out->sa, &len) == 0;
    out->len = ok ? len : 0;
    close(s);
    return ok;
}

void io_poll_raw(struct io *io, struct io_op *op, int raw_fd, uint32_t poll_events)
{
    struct io_uring_sqe *sqe;

    uring_op_start(io, op, URING_POLL);
    sqe = uring_sqe(io);
    io_uring_prep_poll_add(sqe, raw_fd, poll_events);
    uring_tag(sqe, op, URING_OP);
}
