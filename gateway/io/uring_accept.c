/*
 * gateway/io/uring_accept.c - the io_uring backend: accepting connections.
 *
 * Owns:     the descriptor kept for the time when there is none (io->spare).
 * Runs on:  the thread of the io.
 * Contract: see io.h. An owner is told of a failure once a pause.
 * Failure:  without descriptors or memory: pauses ACCEPT_PAUSE_NS and goes on. Where descriptors
 *           are numbers of the process who connects meanwhile hears `busy` (FAULTS 51).
 * Bounds:   IO_ACCEPT_SLOTS accepts a turn and listener.
 * Tests:    tests/unit/test_uring.c
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "gateway/io/uring_internal.h"
#include "gateway/limits.h"

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

static void accept_arm(struct io_acceptor *a, struct io_op *op)
{
    struct io_uring_sqe *sqe;

    a->running++;
    if (!uring_op_start_fd(a->io, op, URING_ACCEPT, a->listen_fd))
        return;
    op->net.addr.len = sizeof op->net.addr.in6;
    sqe = uring_sqe(a->io);
    /* A slot is closed with its ring; SOCK_CLOEXEC would be refused. */
    io_uring_prep_accept(sqe, a->io->fds[a->listen_fd].number, &op->net.addr.sa, &op->net.addr.len,
                         a->io->direct ? 0 : SOCK_CLOEXEC);
    sqe->file_index = a->io->direct ? IORING_FILE_INDEX_ALLOC : 0;
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

/*
 * No descriptors are left. Where they are numbers of the process nobody can be accepted then, not
 * even to be told so: the spare one gives its number, so that each connection of the next pause is
 * told and closed. At a limit of this io alone connections wait: its owner counts.
 */
static void accept_pause(struct io_acceptor *a, int32_t res)
{
    struct io *io = a->io;

    io_timer_set(io, &a->pause, io_now_ns(io) + ACCEPT_PAUSE_NS);
    a->full = (res == -EMFILE || res == -ENFILE) && !io->direct && io->fd_used < io->fd_limit;
    if (a->full && io->spare >= 0) {
        close(io->spare);
        io->spare = -1;
    }
    a->on_accept(a, res, NULL);
}

static void accept_refuse(const struct io_acceptor *a, int s)
{
    if (a->busy)
        (void)!send(s, a->busy, strlen(a->busy), MSG_DONTWAIT | MSG_NOSIGNAL);
    close(s);
}

void uring_accept_next(struct io *io, struct io_op *op, int32_t res)
{
    const struct io_acceptor *a = op->ptr;

    if (res >= 0 && a->full && timer_is_set(&a->pause)) {
        accept_refuse(a, res);
        op->flags |= URING_REFUSED;
        res = -EMFILE;
    } else if (res >= 0) {
        res = uring_fd_adopt(io, res, 0);
    }
    uring_op_end(io, op, res);
}

static void accept_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct io_acceptor *a = op->ptr;
    bool again = op->flags & URING_REFUSED;

    (void)flags;
    a->running--;
    if (res >= 0) {
        a->on_accept(a, res, &op->net.addr);
    } else if (res != -ECANCELED && !a->stopping && !accept_error_is_peers(res) &&
               !timer_is_set(&a->pause)) {
        accept_pause(a, res);
        again = a->full;
    }
    if (!a->stopping && (!timer_is_set(&a->pause) || again) && !io_op_running(op))
        accept_arm(a, op);
    else if (a->stopping && a->running == 0)
        a->on_stopped(a);
}

/* A descriptor that is kept for the time when there is none. */
static void accept_spare(struct io *io)
{
    if (!io->direct && io->spare < 0)
        io->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accept_resume(struct timer *t)
{
    struct io_acceptor *a = container_of(t, struct io_acceptor, pause);

    a->full = false;
    accept_spare(a->io);
    for (uint32_t i = 0; i < IO_ACCEPT_SLOTS; i++)
        if (!io_op_running(&a->slots[i]))
            accept_arm(a, &a->slots[i]);
}

void io_accept_start(struct io *io, struct io_acceptor *a, int32_t listen_fd)
{
    a->io = io;
    a->listen_fd = listen_fd;
    a->stopping = a->full = false;
    a->running = 0;
    accept_spare(io);
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
