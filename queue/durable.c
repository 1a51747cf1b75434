/*
 * queue/durable.c - waiting until all that was appended so far is durable.
 *
 * Owns:     the list of those who wait; each brings its own struct lane_wait.
 * Runs on:  the shard that owns the lane.
 * Contract: `done` hears true only when the batch that held the last change, and what was put aside
 *           for a later one, are synced; never from inside lane_when_durable.
 * Failure:  a batch that failed is written again, and waits go on; false when the lane cannot
 *           write any more.
 * Bounds:   none of its own: a wait is its caller's memory.
 * Tests:    tests/unit/test_lane.c, test_lane_fault.c; tests/sim
 */
#include "queue/lane_internal.h"

void lane_when_durable(struct lane *l, struct lane_wait *w)
{
    w->batch = l->dirty_count ? UINT64_MAX : commit_quiet(l);
    list_init(&w->link);
    list_push_back(&l->durable_waits, &w->link);
    if (commit_has_begun(l))
        l->filling->urgent = true;
    lane_soon(l);
}

void lane_wait_cancel(struct lane_wait *w)
{
    list_remove(&w->link);
}

void durable_requeue(struct lane *l, uint64_t batch)
{
    for (struct list *p = l->durable_waits.next; p != &l->durable_waits; p = p->next) {
        struct lane_wait *w = container_of(p, struct lane_wait, link);
        if (w->batch == batch)
            w->batch = UINT64_MAX;
    }
}

void durable_check(struct lane *l)
{
    bool stuck = !l->is_open || (!l->open && l->paused) || commit_is_hopeless(l);
    struct list *link, last = {&last, &last};

    list_push_back(&l->durable_waits, &last);
    while ((link = list_pop_front(&l->durable_waits)) != &last) {
        struct lane_wait *w = container_of(link, struct lane_wait, link);
        if (w->batch == UINT64_MAX && !l->stash_count && !l->dirty_count) {
            w->batch = commit_quiet(l);
            l->filling->urgent = l->filling->urgent || commit_has_begun(l);
        }
        if (w->batch <= l->batch_durable)
            w->done(w, true);
        else if (w->batch == UINT64_MAX && stuck)
            w->done(w, false);
        else
            list_push_back(&l->durable_waits, &w->link);
    }
}
