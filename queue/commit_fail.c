/*
 * queue/commit_fail.c - a batch that could not be written or synced: who hears of it, and what of
 * it has to be said again.
 *
 * Owns:     nothing; works on the batches of commit.c.
 * Runs on:  the shard that owns the lane.
 * Contract: waiters of the batch get 451, or 452 where there is no room. Its segment takes no
 *           record any more; changes of states that it held are stashed, to be written into the
 *           next one from the index.
 * Failure:  SPOOL_SYNC_FAILED_MAX failures in a row: the lane stops taking mail and tries again
 *           with growing pauses.
 * Bounds:   one batch that was written, one that fills.
 * Tests:    tests/unit/test_lane_fault.c, tests/sim; format: queue/FORMAT.md section 4
 */
#include <errno.h>

#include "queue/lane_internal.h"

/* What these bytes said, and what may or may not be on disk now, is put right in the next segment.
 */
static void stash_batch(struct lane *l, const struct batch *b)
{
    uint32_t at = 0;

    while (at < b->len) {
        struct record_header h;
        struct record_state_view v;
        struct record_message_view m;
        uint32_t used;
        struct slice payload;
        memcpy(&h, b->data + at, sizeof h);
        payload = slice_of(b->data + at + RECORD_HEADER_SIZE, h.length - RECORD_HEADER_SIZE);
        if (h.type == RECORD_RCPT_FINAL || h.type == RECORD_DEFER || h.type == RECORD_STATE ||
            h.type == RECORD_ATTEMPT) {
            if (record_state_decode(payload, &v, &used))
                state_stash(l, h.qid, v.state.gone, b->segment->id);
        } else if (h.type == RECORD_MOVED) {
            b->segment->strays =
                true; /* the copy may be on disk, and its tombstone not know of it */
            if (!index_find(&l->index, h.qid)) /* it was to be new here: handed over */
                state_stash(l, h.qid, true, b->segment->id);
        } else if (h.type == RECORD_MESSAGE && record_message_decode(payload, &m)) {
            state_stash(l, h.qid, true, b->segment->id);
            if (m.final_block.len && record_state_decode(m.final_block, &v, &used))
                state_stash(l, v.state.qid, false, 0);
        }
        at += h.length;
    }
}

static void fail_waiters(struct lane *l, struct batch *b, uint16_t code)
{
    struct list *link;

    while ((link = list_pop_front(&b->waiters)) != NULL)
        tx_fail(l, container_of(link, struct lane_tx, link), code);
    b->waiter_count = 0;
}

/* Messages in the batch that still fills, whose earlier parts were in the one that failed. */
static void fail_orphans(struct lane *l, struct batch *b, uint64_t lost, uint16_t code)
{
    struct list *link = b->waiters.next;

    while (link != &b->waiters) {
        struct lane_tx *tx = container_of(link, struct lane_tx, link);
        link = link->next;
        if (!tx_has_bytes_in(tx, lost))
            continue;
        list_remove(&tx->link);
        b->waiter_count--;
        state_stash(l, tx->qid, true, b->segment->id);
        tx_fail(l, tx, code);
    }
}

static void stop_or_retry(struct lane *l)
{
    if (l->failed_in_row >= SPOOL_SYNC_FAILED_MAX) {
        l->paused = true;
        prepare_later(l);
    } else {
        commit_open_segment(l);
    }
}

void commit_failed(struct lane *l, struct batch *b, int32_t res)
{
    struct segment *s = b->segment;
    uint16_t code = res == -ENOSPC || res == -EDQUOT ? 452 : 451;
    struct batch *next = l->filling;

    l->stats.sync_failed++;
    l->failed_in_row++;
    l->last_error = res < 0 ? res : -EIO;
    fail_waiters(l, b, code);
    stash_batch(l, b);
    if (next->len && next->segment == s) {
        fail_waiters(l, next, code);
        stash_batch(l, next);
        tx_fail_extents(l, next->number);
        compact_batch(l, next->number, false);
        durable_requeue(l, next->number);
        commit_batch_begin(l, next);
    } else if (b->part) {
        commit_batch_begin(l, next);
    } else {
        fail_orphans(l, next, b->number, code);
    }
    tx_fail_extents(l, b->number);
    compact_batch(l, b->number, false);
    durable_requeue(l, b->number);
    segments_requiet(&l->segments, b->number, commit_quiet(l));
    if (s == l->open)
        l->open = NULL;
    else
        l->summary[l->open_summary == &l->summary[0]].busy = false;
    s->state = SEGMENT_FAILED;
    io_close(l->io, s->write_fd);
    s->write_fd = -1;
    if (!l->open)
        stop_or_retry(l);
}
