/*
 * gateway/io/uring_recv.c - the io_uring backend: receiving into buffers that the kernel picks.
 *
 * Owns:     the provided buffers of the thread; receives parked for want of one.
 * Runs on:  the thread of the io.
 * Contract: a multishot receive that the kernel ends early goes on unseen. A buffer belongs to the
 *           owner of the receive from `done` until io_buf_put. Waiting connections hold no buffer
 *           (POLL_FIRST). What a completion brings in several buffers is handed over one by one.
 *           Connections that have much to read take turns: RECV_BULK_TURNS of them are read in a
 *           turn of the loop, one buffer each, and a part of the buffers is not for them; so a
 *           short command never waits for all of them.
 * Failure:  no buffer left: receives are parked, and started again as buffers come back. Nothing is
 *           lost: TCP makes the peer wait.
 * Bounds:   recv_buf_count buffers of recv_buf_size.
 * Tests:    tests/unit/test_uring_recv.c, test_uring.c
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "gateway/io/uring_internal.h"
#include "gateway/limits.h"

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

/* What uploads never have, and a bundle is never more than. */
static uint32_t spare(const struct io *io)
{
    return io->buf_count / RECV_BULK_SPARE;
}

static void buf_offer(struct io *io, uint16_t id)
{
    io->buf_places[io->buf_last].next = id;
    io->buf_places[id].at = io->buf_ring->tail;
    io->buf_last = id;
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
    io->recv_cap = io->buf_size * (spare(io) < RECV_BUNDLE ? 1 : RECV_BUNDLE);
    io->buf_ring = map(count * sizeof(struct io_uring_buf));
    io->bufs = map((size_t)count * io->buf_size);
    io->buf_places = calloc(count, sizeof *io->buf_places);
    if (!io->buf_ring || !io->bufs || !io->buf_places)
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
    free(io->buf_places);
}

void io_buf_put(struct io *io, uint16_t buf_id)
{
    assert(buf_id < io->buf_count && io->buf_free < io->buf_count);
    buf_offer(io, buf_id);
}

/* It fills its buffers, and nothing else: what comes is much, and waits for no answer. */
static bool is_bulk(const struct io *io, const struct io_op *op)
{
    return io->fds[op->fd].full_reads >= RECV_BULK_AFTER;
}

/*
 * Left to itself the kernel reads a connection 32 times before it looks at the next one: a hundred
 * uploads then hold up everybody's short command for 50 MB. Since Linux 6.17 the length of a bundle
 * bounds that. Older kernels refuse one or the other (uring_recv_next). Several buffers at once
 * cost less; but when buffers are scarce each connection gets one, and so does what was once seen
 * to be an upload. What one can come to hold is the same in either case: full_reads counts buffers.
 */
static void arm(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = uring_sqe(io);
    bool one = io->buf_free <= spare(io) || (io->fds[op->fd].flags & URING_FD_UPLOAD);
    uint32_t cap = io->recv_cap && one ? io->buf_size : io->recv_cap;

    io_uring_prep_recv_multishot(sqe, op->fd, NULL, cap, 0);
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST | (cap ? IORING_RECVSEND_BUNDLE : 0);
    sqe->flags |= uring_fd_flag(io) | IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUF_GROUP;
    uring_tag(sqe, op, URING_OP);
}

/* One buffer, taken as the entry is submitted when something is there. */
static void arm_once(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = uring_sqe(io);

    io_uring_prep_recv(sqe, op->fd, NULL, 0, 0);
    sqe->flags |= uring_fd_flag(io) | IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUF_GROUP;
    uring_tag(sqe, op, URING_OP);
}

/* ---- lines ---- */

static void line_add(struct uring_line *line, struct io_op *op, enum uring_state state)
{
    op->state = (uint8_t)state;
    op->next = NULL;
    *line->last = op;
    line->last = &op->next;
}

void uring_recv_unpark(struct io *io, struct io_op *op)
{
    struct uring_line *line = op->state == URING_PARKED ? &io->parked : &io->queued;
    struct io_op **at = &line->first;

    assert(op->state == URING_PARKED || op->state == URING_QUEUED);
    while (*at != op) {
        assert(*at);
        at = &(*at)->next;
    }
    *at = op->next;
    if (line->last == &op->next)
        line->last = at;
    op->state = URING_RUNNING;
}

static void park(struct io *io, struct io_op *op)
{
    io->stats.recv_buf_empty++;
    op->flags &= ~URING_TO_TURNS;
    if (is_bulk(io, op))
        line_add(&io->queued, op, URING_QUEUED);
    else
        line_add(&io->parked, op, URING_PARKED);
}

static void go_on(struct io *io, struct io_op *op)
{
    op->flags &= ~URING_TO_TURNS;
    if (is_bulk(io, op))
        line_add(&io->queued, op, URING_QUEUED);
    else
        arm(io, op);
}

bool uring_recv_restart(struct io *io)
{
    uint32_t n = io->buf_free;
    struct io_op *op;

    /* Not more than there are buffers, or they would only be parked again. */
    for (; n > 0 && (op = io->parked.first); n--) {
        uring_recv_unpark(io, op);
        arm(io, op);
    }
    for (uint32_t turns = RECV_BULK_TURNS; turns > 0 && n > spare(io) && (op = io->queued.first);
         turns--, n--) {
        uring_recv_unpark(io, op);
        arm_once(io, op);
    }
    /* Those just started may find nothing to read: they then take no buffer, and wake nobody. */
    return (io->parked.first && io->buf_free > 0) || (io->queued.first && io->buf_free > spare(io));
}

/* ---- receiving ---- */

void io_recv(struct io *io, struct io_op *op, int32_t fd)
{
    if (!uring_op_start_fd(io, op, URING_RECV, fd))
        return;
    assert(!(io->fds[fd].flags & URING_FD_RECEIVING));
    io->fds[fd].flags |= URING_FD_RECEIVING;
    if (io->buf_count == 0)
        uring_op_fail(io, op, -EINVAL);
    else
        go_on(io, op);
}

/* A kernel that cut an entry to what it thought would come leaves it so when nothing came. */
static uint32_t buf_room(const struct io *io, uint16_t id)
{
    const struct io_uring_buf *entry =
        &io->buf_ring->bufs[io->buf_places[id].at & (io->buf_count - 1)];

    return entry->bid == id ? entry->len : io->buf_size;
}

/*
 * A bundle: the buffers from the one that is named on, in the order in which they were offered,
 * each filled but the last. They are handed over one by one, as if each had come by itself: an
 * owner that cancels or closes meanwhile gets the rest as well and puts it back (who only pauses
 * needs those bytes), and the operation lives on, for its last event is still to come.
 *
 * In whatever order buffers come back, this chain holds: who follows a buffer is noted when that
 * one is offered, so before the kernel can pick both, and changes only once the buffer itself has
 * been offered again, so after it was handed over here and put back. That is why `next` is read
 * before `done` may do so. The ring's own entries would not do: they are written over when the tail
 * comes round, and that may be before a completion is dispatched if the kernel does not complete in
 * the order of picking (it does for bundles, but promises nothing); a buffer then counts as whole.
 */
static void deliver(struct io *io, struct io_op *op, int32_t res, uint32_t flags)
{
    uint16_t id = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT), next;

    assert(flags & IORING_CQE_F_BUFFER);
    for (uint32_t left = (uint32_t)res, n; left > 0; left -= n, id = next) {
        assert(id < io->buf_count && io->buf_free > 0);
        n = buf_room(io, id) < left ? buf_room(io, id) : left;
        assert(n > 0);
        next = io->buf_places[id].next;
        io->buf_free--;
        op->buf_id = id;
        op->data = io->bufs + (size_t)id * io->buf_size;
        op->done(op, (int32_t)n, IO_MORE);
    }
}

/* Half a buffer is still much: a peer that sends as fast as it can leaves now and then less. */
static void count_full(struct io *io, struct io_op *op, int32_t res)
{
    struct uring_fd *fd = &io->fds[op->fd];

    if ((uint32_t)res < io->buf_size / 2)
        fd->full_reads = 0;
    else if (fd->full_reads < RECV_BULK_AFTER)
        fd->full_reads += (uint32_t)res / io->buf_size;
    if (fd->full_reads >= RECV_BULK_AFTER)
        fd->flags |= URING_FD_UPLOAD;
}

void uring_recv_next(struct io *io, struct io_op *op, int32_t res, uint32_t flags)
{
    bool more = (flags & IORING_CQE_F_MORE) != 0;
    bool turned = (op->flags & (URING_TO_TURNS | URING_CANCELLED)) == URING_TO_TURNS;

    if (res > 0) {
        count_full(io, op, res);
        if (!more && (op->flags & URING_CANCELLED))
            uring_op_fail(io, op, -ECANCELED);
        else if (!more)
            go_on(io, op);
        else if (is_bulk(io, op) && !(op->flags & (URING_CANCELLED | URING_TO_TURNS))) {
            op->flags |= URING_TO_TURNS;
            uring_op_cancel(io, op, URING_OP);
        }
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
    else if (res == -EAGAIN || res == -EINTR || (res == -ECANCELED && turned))
        go_on(io, op);
    else
        uring_op_end(io, op, res);
}
