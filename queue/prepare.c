/*
 * queue/prepare.c - the next segment, made before it is needed: a new file, or a dead one used
 * again.
 *
 * Owns:     one file under its .tmp name until it is the spare; the pause after a failure.
 * Runs on:  the shard that owns the lane.
 * Contract: the spare is allocated, its header synced, its name .seg and its directory synced
 *           before anything is appended to it.
 * Failure:  the file is removed; tried again after a pause that grows to PREPARE_RETRY_NS_MAX.
 *           Meanwhile the lane uses up what it has, then refuses mail.
 * Bounds:   one spare, RECYCLE_STOCK_MAX dead files kept for it.
 * Tests:    tests/unit/test_lane.c; format: queue/FORMAT.md sections 1 and 7
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "gateway/base/plant.h"
#include "queue/lane_internal.h"

enum prepare_step {
    PREPARE_OPEN,
    PREPARE_ALLOCATE,
    PREPARE_HEADER,
    PREPARE_TURN, /* waits for the reaper */
    PREPARE_RENAME,
    PREPARE_SYNC_DIR,
    PREPARE_REMOVE
};

static void prepare_done(struct io_op *op, int32_t res, uint32_t flags);

bool prepare_init(struct lane *l)
{
    l->prepare.fd = -1;
    l->prepare.op.done = prepare_done;
    l->prepare.block = aligned_alloc(SEGMENT_BLOCK, SEGMENT_BLOCK);
    return l->prepare.block != NULL;
}

static uint32_t open_flags(const struct lane *l, bool recycled)
{
    uint32_t flags = IO_WRITE | (recycled ? 0 : IO_CREATE | IO_TRUNC);

    return l->p.mode == LANE_WRITE_DIRECT ? flags | IO_DIRECT : flags;
}

/* Is a spare wanted, and is there room for one? Then begins to make it. */
void prepare_kick(struct lane *l)
{
    struct prepare *p = &l->prepare;
    uint32_t from = l->segment_next;

    if (l->spare || p->segment || timer_is_set(&l->prepare_timer) ||
        (l->closing && !l->stash_count))
        return;
    /* Without any segment one is made whatever the limits say, and for the last words before the
     * end: deliveries must be noted. */
    if (l->open && l->stock_count == 0 && !l->closing && !lane_may_grow(l))
        return;
    p->segment = segment_create(l->segment_next, l->p.segment_bytes);
    if (!p->segment)
        return;
    l->segment_next++;
    p->recycled = l->stock_count > 0;
    if (p->recycled) {
        from = l->stock[--l->stock_count];
        p->segment->written = fill_recycled(l, l->stock_written[l->stock_count]);
    }
    p->error = 0;
    lane_path(l, from, "tmp", p->path);
    lane_path(l, p->segment->id, "seg", p->final_path);
    p->step = PREPARE_OPEN;
    io_open(l->io, &p->op, p->path, open_flags(l, p->recycled));
}

static void write_header(struct lane *l)
{
    struct prepare *p = &l->prepare;
    struct segment_header h = {.lane = l->p.lane,
                               .id = p->segment->id,
                               .segment_bytes = p->segment->bytes,
                               .qid_limit = l->qid_next + QID_BLOCK};

    io_random(l->io, &h.salt, sizeof h.salt);
    p->segment->seed = segment_seed(h.salt, h.id, h.lane);
    p->segment->qid_limit = h.qid_limit;
    segment_header_encode(&h, p->block);
    p->step = PREPARE_HEADER;
    io_write_sync(l->io, &p->op, p->fd, p->block, SEGMENT_BLOCK, 0);
}

/* Not every file system takes direct writes: then they go through the page cache from here on. */
static bool fall_back(struct lane *l, int32_t error)
{
    struct prepare *p = &l->prepare;

    if (error != -EINVAL || l->p.mode != LANE_WRITE_DIRECT || l->open)
        return false;
    l->p.mode = LANE_WRITE_BUFFERED;
    if (p->fd >= 0)
        io_close(l->io, p->fd);
    p->fd = -1;
    p->step = PREPARE_OPEN;
    io_open(l->io, &p->op, p->path, open_flags(l, p->recycled));
    return true;
}

static void prepare_failed(struct lane *l, int32_t error)
{
    struct prepare *p = &l->prepare;

    if (fall_back(l, error))
        return;
    p->error = error;
    l->last_error = error;
    if (p->fd >= 0)
        io_close(l->io, p->fd);
    p->fd = -1;
    p->step = PREPARE_REMOVE;
    io_unlink(l->io, &p->op, p->path);
}

void prepare_later(struct lane *l)
{
    l->prepare_pause_ns = l->prepare_pause_ns ? l->prepare_pause_ns * 2 : PREPARE_RETRY_NS;
    if (l->prepare_pause_ns > PREPARE_RETRY_NS_MAX)
        l->prepare_pause_ns = PREPARE_RETRY_NS_MAX;
    if (l->closing) /* there is not much time */
        l->prepare_pause_ns = PREPARE_RETRY_NS;
    io_timer_set(l->io, &l->prepare_timer, io_now_ns(l->io) + l->prepare_pause_ns);
}

/* The pause begins; whoever waits for this segment learns that it does not come. */
static void prepare_pause(struct lane *l)
{
    segment_destroy(l->prepare.segment);
    l->prepare.segment = NULL;
    prepare_later(l);
    if (!l->open)
        l->paused = true;
    if (!l->is_open)
        lane_opened(l);
    reap_kick(l); /* it may have waited */
    lane_health_update(l);
    commit_progress(l);
    lane_soon(l);
}

static void prepare_ready(struct lane *l)
{
    struct prepare *p = &l->prepare;
    struct segment *s = p->segment;

    p->segment = NULL;
    s->write_fd = p->fd;
    p->fd = -1;
    if (!segments_add(&l->segments, s)) {
        io_close(l->io, s->write_fd);
        p->segment = s;
        p->error = -ENOMEM;
        prepare_pause(l);
        return;
    }
    s->state = SEGMENT_CLOSING; /* not to be reaped while it waits */
    s->lane = l;
    l->spare = s;
    if (!l->failed_in_row)
        l->prepare_pause_ns = 0;
    commit_open_segment(l);
    if (!l->is_open)
        lane_opened(l);
    reap_kick(l); /* it may have waited */
    lane_health_update(l);
    commit_progress(l);
    fill_kick(l);
    lane_soon(l);
}

bool prepare_is_naming(const struct lane *l)
{
    const struct prepare *p = &l->prepare;

    return p->segment && (p->step == PREPARE_RENAME || p->step == PREPARE_SYNC_DIR);
}

static void rename_file(struct lane *l)
{
    struct prepare *p = &l->prepare;

    if (reap_is_naming(l)) {
        p->step = PREPARE_TURN;
        return;
    }
    p->step = PREPARE_RENAME;
    io_rename(l->io, &p->op, p->path, p->final_path);
}

void prepare_go_on(struct lane *l)
{
    if (l->prepare.segment && l->prepare.step == PREPARE_TURN)
        rename_file(l);
}

static void prepare_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct lane *l = container_of(op, struct lane, prepare.op);
    struct prepare *p = &l->prepare;

    (void)flags;
    if (res < 0 && p->step != PREPARE_REMOVE) {
        prepare_failed(l, res);
        return;
    }
    switch ((enum prepare_step)p->step) {
    case PREPARE_OPEN:
        p->fd = res;
        if (p->recycled) {
            write_header(l);
        } else {
            p->step = PREPARE_ALLOCATE;
            io_allocate(l->io, op, p->fd, 0, p->segment->bytes);
        }
        break;
    case PREPARE_ALLOCATE: write_header(l); break;
    case PREPARE_HEADER: rename_file(l); break;
    case PREPARE_TURN: break; /* nothing is under way */
    case PREPARE_RENAME:
        p->step = PREPARE_SYNC_DIR;
        if (PLANT(NO_DIR_SYNC))
            prepare_ready(l);
        else
            io_sync(l->io, op, l->dir_fd);
        break;
    case PREPARE_SYNC_DIR: prepare_ready(l); break;
    case PREPARE_REMOVE: prepare_pause(l); break;
    }
}

void prepare_timer_fire(struct timer *t)
{
    struct lane *l = container_of(t, struct lane, prepare_timer);

    l->prepare.error = 0;
    l->disk_checked_ns = 0;
    l->paused = false;
    prepare_kick(l);
    commit_open_segment(l);
    lane_health_update(l);
    lane_soon(l);
}
