/*
 * gateway/io/uring_net.c - the io_uring backend: connecting, sending, polling.
 *
 * Owns:     nothing of its own.
 * Runs on:  the thread of the io.
 * Contract: see io.h. Where descriptors are slots of the ring's table, a new outbound socket has a
 *           number of the process until the kernel has put it there.
 * Failure:  results of the kernel.
 * Bounds:   none of its own.
 * Tests:    tests/unit/test_uring.c
 */
#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "gateway/io/uring_internal.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static int set_option(int s, int level, int name, int value)
{
    return setsockopt(s, level, name, &value, sizeof value);
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

/* The second step: the socket is where it belongs. */
static void connect_over(struct io *io, struct io_op *op, int32_t fd)
{
    struct io_uring_sqe *sqe;

    op->flags |= URING_CONNECTING;
    fd = uring_fd_adopt(io, fd, 0);
    if (fd < 0) {
        uring_op_fail(io, op, fd);
        return;
    }
    op->fd = fd;
    uring_fd_hold(io, fd);
    if (op->flags & URING_CANCELLED) {
        uring_op_fail(io, op, -ECANCELED);
        return;
    }
    sqe = uring_sqe(io);
    io_uring_prep_connect(sqe, fd, &op->net.addr.sa, op->net.addr.len);
    sqe->flags |= uring_fd_flag(io);
    uring_tag(sqe, op, URING_OP);
}

void io_connect(struct io *io, struct io_op *op, const struct io_addr *to,
                const struct io_addr *from)
{
    struct io_uring_sqe *sqe;
    int s = make_client(to, from);

    uring_op_start(io, op, URING_CONNECT);
    op->net.addr = *to;
    if (s < 0) {
        op->flags |= URING_CONNECTING; /* the result is the last */
        uring_op_fail(io, op, s);
        return;
    }
    if (!io->direct) {
        connect_over(io, op, s);
        return;
    }
    op->len = (uint32_t)s;
    op->res = s; /* in: number of the process; out: slot */
    sqe = uring_sqe(io);
    io_uring_prep_files_update(sqe, &op->res, 1, (int)IORING_FILE_INDEX_ALLOC);
    uring_tag(sqe, op, URING_OP);
}

void uring_connect_next(struct io *io, struct io_op *op, int32_t res)
{
    if (!(op->flags & URING_CONNECTING)) {
        close((int)op->len);
        if (res < 0)
            uring_op_end(io, op, res);
        else
            connect_over(io, op, op->res);
        return;
    }
    if (res < 0 && op->fd >= 0)
        io_close(io, op->fd);
    uring_op_end(io, op, res < 0 ? res : op->fd);
}

/* ---- sending ---- */

static void prep_shutdown(struct io *io, struct io_uring_sqe *sqe, int32_t fd)
{
    uring_fd_hold(io, fd);
    io_uring_prep_shutdown(sqe, fd, SHUT_WR);
    sqe->flags |= uring_fd_flag(io);
    sqe->user_data = (uint64_t)fd << 3 | URING_SHUTDOWN;
}

static void send_arm(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe, *end = NULL;
    int flags = MSG_NOSIGNAL | MSG_WAITALL;

    if (op->flags & (URING_LAST | URING_MORE)) /* the kernel keeps the last bytes for the end */
        flags |= MSG_MORE;
    if (op->flags & URING_LAST)
        uring_sqe_pair(io, &sqe, &end);
    else
        sqe = uring_sqe(io);
    io_uring_prep_send(sqe, op->fd, (const uint8_t *)op->ptr + op->sent, op->len - op->sent, flags);
    sqe->flags |= uring_fd_flag(io) | (end ? IOSQE_IO_LINK : 0);
    uring_tag(sqe, op, URING_OP);
    if (end)
        prep_shutdown(io, end, op->fd);
}

void io_send(struct io *io, struct io_op *op, int32_t fd, const void *data, uint32_t len,
             enum io_end end)
{
    static const uint32_t flags[] = {
        [IO_END_NONE] = 0, [IO_END_SHUTDOWN] = URING_LAST, [IO_END_CLOSE] = URING_MORE};

    assert(len <= INT32_MAX);
    if (!uring_op_start_fd(io, op, URING_SEND, fd))
        return;
    assert(!(io->fds[fd].flags & URING_FD_SENDING));
    io->fds[fd].flags |= URING_FD_SENDING;
    op->ptr = (void *)(uintptr_t)data;
    op->len = len;
    op->flags |= flags[end];
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
    prep_shutdown(io, uring_sqe(io), fd);
}

/* ---- other ---- */

void io_poll_raw(struct io *io, struct io_op *op, int raw_fd, uint32_t poll_events)
{
    struct io_uring_sqe *sqe;

    uring_op_start(io, op, URING_POLL);
    sqe = uring_sqe(io);
    io_uring_prep_poll_add(sqe, raw_fd, poll_events);
    uring_tag(sqe, op, URING_OP);
}
