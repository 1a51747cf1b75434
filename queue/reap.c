/*
 * queue/reap.c - removes segments that nobody needs, or keeps their files to be used again.
 *
 * Owns:     the segments it has marked as dying.
 * Runs on:  the shard that owns the lane.
 * Contract: only what segments_next_dead gives; a segment is forgotten - and so no longer holds
 *           back those that depend on it - only after the directory was synced. Until then its file
 *           is there as .tmp: whoever starts sees that its end may not be on disk (leftover.c).
 * Failure:  a file that cannot be renamed is left alone until the next start; after a failed sync
 *           of the directory nothing of that round is ever taken for gone.
 * Bounds:   REAP_BATCH segments a round.
 * Tests:    tests/unit/test_lane.c, tests/unit/test_segment.c, tests/sim/test_lane_sim.c; rule:
 *           queue/FORMAT.md section 7
 */
#include <assert.h>
#include <errno.h>

#include "queue/lane_internal.h"

enum reap_step { REAP_RENAME, REAP_SYNC, REAP_REMOVE };

static void reap_done(struct io_op *op, int32_t res, uint32_t flags);
static void reap_round_over(struct lane *l);

bool reap_is_naming(const struct lane *l)
{
    return l->reap.running && l->reap.step != REAP_REMOVE;
}

static void rename_next(struct lane *l)
{
    struct reap *r = &l->reap;

    if (r->next == r->count) {
        r->step = REAP_SYNC;
        io_sync(l->io, &r->op, l->dir_fd);
        return;
    }
    lane_path(l, r->dead[r->next]->id, "seg", r->path);
    lane_path(l, r->dead[r->next]->id, "tmp", r->to);
    io_rename(l->io, &r->op, r->path, r->to);
}

/* What is not kept goes. */
static void remove_next(struct lane *l)
{
    struct reap *r = &l->reap;

    while (r->next < r->count && (!r->dead[r->next] || r->keep[r->next]))
        r->next++;
    if (r->next == r->count) {
        reap_round_over(l);
        return;
    }
    lane_path(l, r->dead[r->next++]->id, "tmp", r->to);
    io_unlink(l->io, &r->op, r->to);
}

void reap_kick(struct lane *l)
{
    struct reap *r = &l->reap;
    uint32_t at = 0, keep = l->stock_count;
    struct segment *s;

    if (r->running || l->recovering || !l->is_open || l->closing || prepare_is_naming(l))
        return;
    r->count = r->next = 0;
    while (r->count < REAP_BATCH &&
           (s = segments_next_dead(&l->segments, &at, l->batch_durable)) != NULL) {
        s->state = SEGMENT_DYING;
        read_forget_segment(l, s);
        r->keep[r->count] = keep < RECYCLE_STOCK_MAX && s->bytes == l->p.segment_bytes;
        keep += r->keep[r->count];
        r->dead[r->count++] = s;
    }
    if (r->count == 0)
        return;
    r->running = true;
    r->step = REAP_RENAME;
    r->op.done = reap_done;
    rename_next(l);
}

void reap_look(struct lane *l)
{
    if (io_now_ns(l->io) < l->reap.next_check_ns)
        return;
    l->reap.next_check_ns = io_now_ns(l->io) + REAP_CHECK_NS;
    tx_relieve(l);
    reap_kick(l);
}

static void keep_file(struct lane *l, const struct segment *s)
{
    l->stock_written[l->stock_count] = s->written;
    l->stock[l->stock_count++] = s->id;
}

static void reap_round_over(struct lane *l)
{
    struct reap *r = &l->reap;

    for (uint32_t i = 0; i < r->count; i++) {
        if (!r->dead[i])
            continue;
        if (r->keep[i])
            keep_file(l, r->dead[i]);
        segments_forget(&l->segments, r->dead[i]);
    }
    r->running = false;
    prepare_kick(l);
    lane_health_update(l);
    commit_progress(l);
    reap_kick(l); /* those that waited for these */
    lane_soon(l);
}

static void reap_synced(struct lane *l, int32_t res)
{
    struct reap *r = &l->reap;

    if (res < 0) { /* they stay DYING for good */
        l->stats.sync_failed++;
        r->count = 0;
    }
    r->step = REAP_REMOVE;
    r->next = 0;
    prepare_go_on(l);
    remove_next(l);
}

static void reap_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct lane *l = container_of(op, struct lane, reap.op);
    struct reap *r = &l->reap;

    (void)flags;
    switch ((enum reap_step)r->step) {
    case REAP_RENAME:
        if (res < 0 && res != -ENOENT)
            r->dead[r->next] = NULL;
        else if (res < 0)
            r->keep[r->next] = false;
        r->next++;
        rename_next(l);
        break;
    case REAP_SYNC: reap_synced(l, res); break;
    case REAP_REMOVE: remove_next(l); break;
    }
}
