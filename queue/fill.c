/*
 * queue/fill.c - zeros into the spare segment before it is used, so that its blocks are there.
 *
 * Owns:     the write or sync of zeros under way, the timer of its pace.
 * Runs on:  the shard that owns the lane.
 * Contract: only the spare is filled, which has no records: a segment is opened when no write of
 *           zeros into it is under way, and never filled from then on.
 * Failure:  a write that fails ends the filling of this spare, which is used as it is. A sync that
 *           fails ends all filling, and the spare is never used: which of its blocks are there
 *           nobody knows, and the syncs of its commits would not say it again.
 * Bounds:   FILL_BYTES each FILL_PAUSE_NS, by all lanes of a disk together, and none that begins
 *           beside a commit: a lane that is busy does without. A sync each FILL_SYNC_BYTES.
 * Tests:    tests/sim/test_fill.c, tests/sim/test_crash_points.c, tests/unit/test_lane.c; reasons:
 *           queue/FORMAT.md section 9
 */
#include <assert.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

#define FILL_BYTES      (256 * KIB)
#define FILL_PAUSE_NS   (20 * NS_PER_MS)
#define FILL_SYNC_BYTES (1 * MIB) /* what the sync of a commit may find in the disk's memory */
#define FILL_ROOM_MIN   8u        /* segments to spare before one is left half used */

static void fill_done(struct io_op *op, int32_t res, uint32_t flags);
static void fill_timer_fire(struct timer *t);

bool fill_init(struct lane *l)
{
    struct spare_fill *f = &l->fill;

    f->op.done = fill_done;
    f->timer.fire = fill_timer_fire;
    f->zeros = aligned_alloc(SEGMENT_BLOCK, FILL_BYTES);
    if (f->zeros)
        memset(f->zeros, 0, FILL_BYTES);
    return f->zeros != NULL;
}

/* What is left of a segment that was full is not worth a write. */
uint64_t fill_recycled(const struct lane *l, uint64_t written)
{
    uint64_t bytes = l->p.segment_bytes;

    return written >= bytes - bytes / 16 ? bytes : written;
}

static bool is_whole(const struct segment *s)
{
    return s->written == s->bytes;
}

/* Through the page cache all of it would wait for the first sync. */
static bool is_wanted(const struct lane *l)
{
    const struct segment *s = l->spare;

    return l->p.zero_fill > 0 && l->p.mode == LANE_WRITE_DIRECT && s && !is_whole(s) &&
           !(l->fill.given_up && l->fill.id == s->id) && !l->closing;
}

void fill_kick(struct lane *l)
{
    struct spare_fill *f = &l->fill;

    if (!f->running && is_wanted(l) && !timer_is_set(&f->timer))
        io_timer_set(l->io, &f->timer, io_now_ns(l->io) + l->p.zero_fill * FILL_PAUSE_NS);
}

static void fill_more(struct lane *l)
{
    struct spare_fill *f = &l->fill;
    const struct segment *s = l->spare;
    uint64_t left = s->bytes - s->written;

    if (f->id != s->id) {
        f->id = s->id;
        f->given_up = false;
        f->unsynced = 0;
    }
    f->running = true;
    f->len = left < FILL_BYTES ? (uint32_t)left : FILL_BYTES;
    io_write(l->io, &f->op, s->write_fd, f->zeros, f->len, s->written);
}

static void fill_timer_fire(struct timer *t)
{
    struct lane *l = container_of(t, struct lane, fill.timer);

    if (!l->fill.running && is_wanted(l) && !l->writing)
        fill_more(l);
    else
        fill_kick(l);
}

/* Another one is made behind a pause, and not filled. */
static void drop_spare(struct lane *l, int32_t error)
{
    struct segment *s = l->spare;

    l->p.zero_fill = 0;
    l->stats.sync_failed++;
    l->last_error = error;
    l->spare = NULL;
    s->state = SEGMENT_FAILED;
    io_close(l->io, s->write_fd);
    s->write_fd = -1;
    prepare_later(l);
}

/* True: a sync is to follow. */
static bool fill_wrote(struct lane *l, int32_t res)
{
    struct spare_fill *f = &l->fill;
    struct segment *s = l->spare;

    if (res != (int32_t)f->len) {
        f->given_up = true;
        return false;
    }
    s->written += f->len;
    f->unsynced += f->len;
    return f->unsynced >= FILL_SYNC_BYTES || is_whole(s);
}

static void fill_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct lane *l = container_of(op, struct lane, fill.op);
    struct spare_fill *f = &l->fill;

    (void)flags;
    assert(f->running && l->spare && l->spare->record_index == 0);
    if (!f->syncing && fill_wrote(l, res)) {
        f->syncing = true;
        io_sync(l->io, op, l->spare->write_fd);
        return;
    }
    f->running = false;
    if (f->syncing) {
        f->syncing = false;
        f->unsynced = 0;
        if (res < 0)
            drop_spare(l, res);
    }
    commit_open_segment(l); /* they may have waited */
    commit_progress(l);
    fill_kick(l);
    lane_soon(l);
}

bool fill_wants_roll(struct lane *l)
{
    const struct segment *s = l->spare;

    return l->p.zero_fill > 0 && s && is_whole(s) && !l->fill.running && l->open &&
           !is_whole(l->open) && l->open->tail <= s->bytes / 4 && !l->closing && !l->recovering &&
           lane_room(l, false) >= FILL_ROOM_MIN * s->bytes;
}
