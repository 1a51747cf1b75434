/*
 * gateway/io/uring_recv.c - the io_uring backend: receiving into buffers that the kernel picks.
 *
 * Owns:     the provided buffers of the thread; receives parked for want of one.
 * Runs on:  the thread of the io.
 * Contract: a multishot receive that the kernel ends early goes on unseen. A buffer belongs to the
 *           owner of the receive from `done` until io_buf_put. Waiting connections hold no buffer
 *           (POLL_FIRST). A connection that has much to read is read one buffer at a time, in turn
 *           with the others.
 * Failure:  no buffer left: receives are parked, and started again as buffers come back. Nothing is
 *           lost: TCP makes the peer wait.
 * Bounds:   recv_buf_count buffers of recv_buf_size.
 * Tests:    tests/unit/test_uring.c
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#include "gateway/io/uring_internal.h"

#ifndef IORING_RECVSEND_BUNDLE
#define IORING_RECVSEND_BUNDLE (1u << 4) /* Linux 6.10; liburing 2.3 does not have it */
#endif

#define BUF_GROUP     0
#define BUF_COUNT_MAX 32768u /* the kernel's bound of a buffer ring */

static void *map(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static void buf_offer(struct io *io, uint16_t id)
{
    io_uring_buf_ring_add(io->buf_ring, io->bufs + (size_t)id * io->buf_size, io->buf_size, id,
                          io_uring_buf_ring_mask(io->buf_count), 0);
    io_uring_buf_ring_advance(io->buf_ring, 1);
    io->buf_free++;
}

bool uring_recv_create(struct io *io, const struct io_params *params, struct why *why)
{
    struct io_uring_buf_reg reg = {.ring_entries = params->recv_buf_count, .bgid = BUF_GROUP};
    uint32_t count = params->recv_buf_count;
    int r;

    if (count == 0)
        return true;
    assert((count & (count - 1)) == 0 && count <= BUF_COUNT_MAX && params->recv_buf_size > 0);
    io->buf_count = count;
    io->buf_size = params->recv_buf_size;
    io->recv_cap = io->buf_size;
    io->buf_ring = map(count * sizeof(struct io_uring_buf));
    io->bufs = map((size_t)count * io->buf_size);
    if (!io->buf_ring || !io->bufs)
        return false;
    reg.ring_addr = (uintptr_t)io->buf_ring;
    r = io_uring_register_buf_ring(&io->ring, &reg, 0);
    if (r < 0) {
        why_set(why, 0, "", "cannot register %u receive buffers: %s", count, strerror(-r));
        return false;
    }
    io_uring_buf_ring_init(io->buf_ring);
    for (uint32_t i = 0; i < count; i++)
        buf_offer(io, (uint16_t)i);
    return true;
}

void uring_recv_destroy(struct io *io)
{
    if (io->buf_ring)
        munmap(io->buf_ring, io->buf_count * sizeof(struct io_uring_buf));
    if (io->bufs)
        munmap(io->bufs, (size_t)io->buf_count * io->buf_size);
}

void io_buf_put(struct io *io, uint16_t buf_id)
{
    assert(buf_id < io->buf_count && io->buf_free < io->buf_count);
    buf_offer(io, buf_id);
}

/*
 * Left to itself the kernel reads a connection 32 times before it looks at the next one: a hundred
 * uploads then hold up everybody's short command for 50 MB. Since Linux 6.17 the length of a bundle
 * bounds that; one of a single buffer differs from no bundle in nothing else. Older kernels refuse
 * one or the other (uring_recv_next).
 */
static void arm(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = uring_sqe(io);

    io_uring_prep_recv_multishot(sqe, op->fd, NULL, io->recv_cap, 0);
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST | (io->recv_cap ? IORING_RECVSEND_BUNDLE : 0);
    sqe->flags |= uring_fd_flag(io) | IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUF_GROUP;
    uring_tag(sqe, op, URING_OP);
}

void io_recv(struct io *io, struct io_op *op, int32_t fd)
{
    if (!uring_op_start_fd(io, op, URING_RECV, fd))
        return;
    assert(!(io->fds[fd].flags & URING_FD_RECEIVING));
    io->fds[fd].flags |= URING_FD_RECEIVING;
    if (io->buf_count == 0)
        uring_op_fail(io, op, -EINVAL);
    else
        arm(io, op);
}

static void park(struct io *io, struct io_op *op)
{
    io->stats.recv_buf_empty++;
    op->state = URING_PARKED;
    op->next = NULL;
    *io->parked_last = op;
    io->parked_last = &op->next;
}

void uring_recv_unpark(struct io *io, struct io_op *op)
{
    struct io_op **at = &io->parked_first;

    assert(op->state == URING_PARKED);
    while (*at != op)
        at = &(*at)->next;
    *at = op->next;
    if (io->parked_last == &op->next)
        io->parked_last = at;
    op->state = URING_RUNNING;
}

bool uring_recv_restart(struct io *io)
{
    /* Not more than there are buffers, or they would only be parked again. */
    for (uint32_t n = io->buf_free; n > 0 && io->parked_first; n--) {
        struct io_op *op = io->parked_first;
        uring_recv_unpark(io, op);
        arm(io, op);
    }
    return io->parked_first && io->buf_free > 0;
}

static void deliver(struct io *io, struct io_op *op, int32_t res, uint32_t flags)
{
    uint16_t id = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);

    assert(flags & IORING_CQE_F_BUFFER);
    assert(id < io->buf_count && io->buf_free > 0 && (uint32_t)res <= io->buf_size);
    io->buf_free--;
    op->buf_id = id;
    op->data = io->bufs + (size_t)id * io->buf_size;
    op->done(op, res, IO_MORE);
}

void uring_recv_next(struct io *io, struct io_op *op, int32_t res, uint32_t flags)
{
    bool more = (flags & IORING_CQE_F_MORE) != 0;

    if (res > 0) {
        if (!more && (op->flags & URING_CANCELLED))
            uring_op_fail(io, op, -ECANCELED);
        else if (!more)
            arm(io, op);
        deliver(io, op, res, flags);
        return;
    }
    if (flags & IORING_CQE_F_BUFFER) { /* picked, but nothing was put in */
        io->buf_free--;
        buf_offer(io, (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT));
    }
    if (more)
        return;
    if ((res == -ENOBUFS || res == -EAGAIN || res == -EINTR) && (op->flags & URING_CANCELLED))
        res = -ECANCELED;
    if (res == -EINVAL && io->recv_cap) {
        io->recv_cap = 0;
        arm(io, op);
    } else if (res == -ENOBUFS)
        park(io, op);
    else if (res == -EAGAIN || res == -EINTR)
        arm(io, op);
    else
        uring_op_end(io, op, res);
}
