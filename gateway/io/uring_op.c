/*
 * gateway/io/uring_op.c - the io_uring backend: operations from start to last completion.
 *
 * Owns:     the queue of completions.
 * Runs on:  the thread of the io.
 * Contract: an operation is idle before its last `done` begins.
 * Failure:  a descriptor that is not open: the operation completes with -EBADF. Starting a running
 *           operation: asserted. No memory for a completion: aborts, its owner would hang for ever.
 * Bounds:   each operation has at most one entry of its own making in the queue.
 * Tests:    tests/unit/test_uring.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "gateway/io/uring_internal.h"

/* ---- completions ---- */

static void events_grow(struct io *io)
{
    uint32_t count = io->event_tail - io->event_head;
    struct uring_event *events = malloc((size_t)count * 2 * sizeof *events);

    if (!events)
        abort(); /* a completion lost would hang its owner for ever */
    for (uint32_t i = 0; i < count; i++)
        events[i] = io->events[(io->event_head + i) & io->event_mask];
    free(io->events);
    io->events = events;
    io->event_mask = count * 2 - 1;
    io->event_head = 0;
    io->event_tail = count;
}

void uring_event_add(struct io *io, uint64_t user_data, int32_t res, uint32_t flags)
{
    if (io->event_tail - io->event_head > io->event_mask)
        events_grow(io);
    io->events[io->event_tail++ & io->event_mask] =
        (struct uring_event){.user_data = user_data, .res = res, .flags = flags};
}

static void dispatch_op(struct io *io, struct io_op *op, struct uring_event e)
{
    switch ((enum uring_kind)op->kind) {
    case URING_RECV: uring_recv_next(io, op, e.res, e.flags); return;
    case URING_SEND: uring_send_next(io, op, e.res); return;
    case URING_CONNECT: uring_connect_next(io, op, e.res); return;
    case URING_ACCEPT: uring_accept_next(io, op, e.res); return;
    case URING_POLL: uring_op_end(io, op, e.res); return;
    case URING_OPEN:
    case URING_READ:
    case URING_WRITE:
    case URING_SYNC:
    case URING_WRITE_SYNC:
    case URING_ALLOCATE:
    case URING_UNLINK:
    case URING_RENAME:
    case URING_FILE_SIZE:
        uring_file_next(io, op, e.res, (e.user_data & URING_TAG_MASK) == URING_OP_FIRST);
        return;
    }
    assert(!"a completion of no known kind");
}

void uring_dispatch(struct io *io, struct uring_event e)
{
    switch ((enum uring_tag)(e.user_data & URING_TAG_MASK)) {
    case URING_OP:
    case URING_OP_FIRST: {
        struct io_op *op = (struct io_op *)(uintptr_t)(e.user_data & ~(uint64_t)URING_TAG_MASK);
        assert(op->state == URING_RUNNING);
        dispatch_op(io, op, e);
        return;
    }
    case URING_SHUTDOWN: uring_fd_release(io, (int32_t)(e.user_data >> 3)); return;
    case URING_CLOSE: assert(e.res != -EBADF); return;
    case URING_WRITER: uring_writer_woke(io); return;
    case URING_CALL:
    case URING_IGNORE:
    case URING_TAG_MASK: return;
    }
}

/* ---- operations ---- */

void uring_op_start(struct io *io, struct io_op *op, enum uring_kind kind)
{
    assert(op->state == URING_IDLE && op->done);
    op->kind = (uint8_t)kind;
    op->state = URING_RUNNING;
    op->flags = 0;
    op->fd = -1;
    op->res = 0;
    op->sent = 0;
    io->running++;
}

void uring_op_fail(struct io *io, struct io_op *op, int32_t res)
{
    uring_event_add(io, (uintptr_t)op | URING_OP, res, 0);
}

bool uring_op_start_fd(struct io *io, struct io_op *op, enum uring_kind kind, int32_t fd)
{
    uring_op_start(io, op, kind);
    if (fd < 0 || (uint32_t)fd >= io->fd_count ||
        (io->fds[fd].flags & (URING_FD_OPEN | URING_FD_CLOSING)) != URING_FD_OPEN) {
        uring_op_fail(io, op, -EBADF);
        return false;
    }
    op->fd = fd;
    uring_fd_hold(io, fd);
    return true;
}

void uring_op_end(struct io *io, struct io_op *op, int32_t res)
{
    int32_t fd = op->fd;

    assert(op->state == URING_RUNNING && io->running > 0);
    if (fd >= 0) {
        if (op->kind == URING_RECV)
            io->fds[fd].flags &= ~(URING_FD_RECEIVING | URING_FD_RECV_CUT);
        else if (op->kind == URING_SEND)
            io->fds[fd].flags &= ~(URING_FD_SENDING | URING_FD_SEND_CUT);
        uring_fd_release(io, fd);
    }
    op->state = URING_IDLE;
    io->running--;
    op->done(op, res, 0);
}

bool io_op_running(const struct io_op *op)
{
    return op->state != URING_IDLE;
}

void uring_op_cancel(struct io *io, const struct io_op *op, enum uring_tag tag)
{
    struct io_uring_sqe *sqe = uring_sqe(io);

    io_uring_prep_cancel64(sqe, (uintptr_t)op | tag, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    uring_tag(sqe, NULL, URING_IGNORE);
}

void io_cancel(struct io *io, struct io_op *op)
{
    if (op->state == URING_IDLE || (op->flags & URING_CANCELLED))
        return;
    op->flags |= URING_CANCELLED;
    if (op->fd >= 0 && op->kind == URING_RECV)
        io->fds[op->fd].flags |= URING_FD_RECV_CUT;
    else if (op->fd >= 0 && op->kind == URING_SEND)
        io->fds[op->fd].flags |= URING_FD_SEND_CUT;
    if (op->state == URING_PARKED || op->state == URING_QUEUED) {
        uring_recv_unpark(io, op);
        uring_op_fail(io, op, -ECANCELED);
        return;
    }
    if (op->kind == URING_WRITE_SYNC)
        uring_op_cancel(io, op, URING_OP_FIRST);
    uring_op_cancel(io, op, URING_OP);
}
