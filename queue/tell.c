/*
 * queue/tell.c - when recovery tells of a message: as soon as no record to come can contradict what
 * is known of it, and once.
 *
 * Owns:     the census of the records to come; the messages that are not told yet.
 * Runs on:  the shard that owns the lane.
 * Contract: records are counted once each, then replayed in their order. A message is told behind
 *           its last record; one that a record ended is freed instead, and nobody hears of it.
 * Failure:  no memory: recovery is over. A record that contradicts its message is told as damage.
 *           Counted too often, or not as it was replayed: told late, by tell_rest.
 * Bounds:   the census; REPLAY_SLICE messages a turn.
 * Tests:    tests/unit/test_recovery_early.c, tests/unit/test_recovery.c, tests/sim/test_lane_sim.c
 */
#include <assert.h>

#include "queue/recover_internal.h"

void tell_count(struct recover *r, const struct record_digest *d)
{
    struct record_state_view v;
    uint32_t used;

    if (d->final_block.len && record_state_decode(d->final_block, &v, &used))
        census_add(&r->census, lane_qid(r->lane, v.state.qid));
    if (d->type && d->type != RECORD_MESSAGE)
        census_add(&r->census, lane_qid(r->lane, d->qid));
}

static void tell_one(struct recover *r, struct queue_msg *m)
{
    struct lane *l = r->lane;

    assert(m->flags & MSG_HIDDEN && r->hidden > 0);
    r->hidden--;
    if (m->flags & MSG_ENDED) {
        index_remove(&l->index, m);
        lane_msg_free(l, m);
        return;
    }
    m->flags &= (uint8_t)~MSG_HIDDEN;
    if (m->attempt != ATTEMPT_NONE && l->found_unclosed && m->crashes < QUEUE_CRASHES_MAX)
        m->crashes++;
    m->attempt = ATTEMPT_NONE;
    if (m->segment <= l->unread_last && m->state_segment <= l->unread_last)
        m->uncertain = 1; /* what could not be read may have said that it was delivered */
    m->careful = l->found_unclosed;
    l->stats.messages++;
    l->stats.bytes += m->body_size;
    l->stats.by_state[m->state]++;
    l->stats.recovered++;
    if (l->p.found)
        l->p.found(l->p.arg, l, m);
    if (!(m->flags & MSG_DOOMED) && !m->owner && !m->schedule_index &&
        (m->state == QUEUE_READY || m->state == QUEUE_DEFERRED || m->state == QUEUE_UNREACHABLE))
        schedule_set(&l->schedule, m);
}

static void tell_if_complete(struct recover *r, uint32_t left, struct queue_msg *m)
{
    if (left == 0 && m && m->flags & MSG_HIDDEN)
        tell_one(r, m);
}

/* A record of the other message whose end a report brings. */
static void take_final(struct recover *r, const struct record_digest *d)
{
    struct record_state_view v;
    uint32_t used;

    if (d->final_block.len && record_state_decode(d->final_block, &v, &used)) {
        uint64_t qid = lane_qid(r->lane, v.state.qid);
        tell_if_complete(r, census_take(&r->census, qid), index_find(&r->lane->index, qid));
    }
}

bool tell_replay(struct recover *r, const struct record_digest *d)
{
    struct lane *l = r->lane;
    struct queue_msg *m = NULL;
    uint64_t before = l->index.count, qid = lane_qid(l, d->qid);

    if (d->offset <= r->replayed_to || d->type == 0)
        return true;
    r->replayed_to = d->offset;
    switch (replay_record(l, r->segment, d, &m)) {
    case REPLAY_OK: break;
    case REPLAY_DAMAGED:
        quarantine_tell(l, r->segment->id, d->offset, "record contradicts its message");
        break;
    case REPLAY_NO_MEMORY: recover_fail(r, "", 0); return false;
    }
    r->hidden += l->index.count - before;
    take_final(r, d);
    tell_if_complete(
        r, d->type == RECORD_MESSAGE ? census_left(&r->census, qid) : census_take(&r->census, qid),
        m);
    return true;
}

bool tell_rest(struct recover *r)
{
    struct lane *l = r->lane;
    uint32_t left = REPLAY_SLICE;

    while (left) {
        struct list *link = list_pop_front(&r->untold);
        if (link) {
            struct queue_msg *m = container_of(link, struct queue_msg, segment_link);
            list_push_back(&r->segment->messages, link);
            if (m->flags & MSG_HIDDEN)
                tell_one(r, m);
            left--;
            continue;
        }
        r->segment = contents_old_segment(r);
        if (!r->segment) {
            assert(r->hidden == 0);
            return true;
        }
        r->at++;
        r->segment->state = SEGMENT_SEALED;
        if (r->hidden == 0)
            continue;
        while (!list_empty(&r->segment->messages)) {
            link = r->segment->messages.next;
            walk_unlink(l, container_of(link, struct queue_msg, segment_link));
            list_push_back(&r->untold, link);
        }
    }
    return false;
}
