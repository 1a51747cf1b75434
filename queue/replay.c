/*
 * queue/replay.c - what a record found at start means: FORMAT.md section 5, rows M1 to M13.
 *
 * Owns:     the messages it makes; they stay hidden until tell.c tells of them.
 * Runs on:  the shard that owns the lane. No I/O.
 * Contract: after all records of all old segments in order, the index holds what is live, and the
 *           segments' counters and dependences are those of section 7.
 * Failure:  REPLAY_DAMAGED: the contents contradict what is known; ignored. REPLAY_NO_MEMORY:
 *           recovery cannot go on.
 * Bounds:   one index entry a live message.
 * Tests:    tests/unit/test_recovery.c
 */
#include <assert.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

static void apply_state(struct lane *l, struct segment *s, struct queue_msg *m,
                        const struct record_state_view *v, uint32_t offset)
{
    uint64_t *bits = m->rcpt_count > 64 ? m->rcpt_final : &m->rcpt_final_bits;
    uint32_t last = m->rcpt_count % 64, pending = 0;

    m->state = v->state.state < QUEUE_STATES ? v->state.state : QUEUE_READY;
    m->attempts = v->state.attempts;
    m->warned = v->state.warned != 0;
    m->attempt = v->state.attempt & RECORD_ATTEMPT_OPEN ? ATTEMPT_BEGUN : ATTEMPT_NONE;
    m->uncertain = (v->state.attempt & RECORD_ATTEMPT_DOT) != 0;
    m->crashes = v->state.crashes < QUEUE_CRASHES_MAX ? v->state.crashes : QUEUE_CRASHES_MAX;
    m->next_attempt_wall_s = v->state.next_attempt_wall_s;
    for (uint32_t i = 0; i < v->state.final_words; i++) {
        bits[i] = record_state_word(v, i);
        if (last && i == v->state.final_words - 1u)
            bits[i] &= (1ull << last) - 1;
        pending += (uint32_t)__builtin_popcountll(bits[i]);
    }
    m->rcpt_pending = (uint16_t)(m->rcpt_count - pending);
    m->flags &= (uint8_t)~MSG_ENDED;
    segments_state_moved(&l->segments, m->state_segment, s->id, 0);
    m->state_segment = s->id;
    m->state_offset = offset;
}

static void over(struct lane *l, struct segment *s, struct queue_msg *m)
{
    segment_depend(&l->segments, s, m->segment);
    index_remove(&l->index, m);
    lane_msg_free(l, m);
}

/* `by_report`: the block lies in the record of a report about this message. */
static enum replay_result replay_state(struct lane *l, struct segment *s, struct slice block,
                                       uint32_t offset, bool by_report, struct queue_msg **touched)
{
    struct record_state_view v;
    struct queue_msg *m;
    uint32_t used;

    if (!record_state_decode(block, &v, &used))
        return REPLAY_DAMAGED;
    m = index_find(&l->index, lane_qid(l, v.state.qid));
    if (!m)
        return REPLAY_OK;
    if (!(m->flags & MSG_HIDDEN)) /* told already: the records are not those that were counted */
        return REPLAY_DAMAGED;
    if (v.state.gone && by_report) { /* unless its commit failed: then the truth follows */
        segment_depend(&l->segments, s, m->segment);
        m->flags |= MSG_ENDED;
        return REPLAY_OK;
    }
    if (v.state.gone) {
        over(l, s, m);
        return REPLAY_OK;
    }
    if (v.state.rcpt_count != m->rcpt_count)
        return REPLAY_DAMAGED;
    apply_state(l, s, m, &v, offset);
    if (m->rcpt_pending == 0)
        over(l, s, m);
    else
        *touched = m;
    return REPLAY_OK;
}

static struct queue_msg *new_message(struct lane *l, struct segment *s,
                                     const struct record_digest *d)
{
    struct queue_msg *m;

    if (l->index.count >= SPOOL_MESSAGES_MAX ||
        !schedule_reserve(&l->schedule, l->index.count + 1 + l->tx_count))
        return NULL;
    m = slab_alloc(&l->msg_slab);
    if (!m)
        return NULL;
    *m = (struct queue_msg){.qid = lane_qid(l, d->qid),
                            .body_size = d->message.body_size,
                            .accepted_wall_s = d->message.accepted_wall_s,
                            .state = QUEUE_READY,
                            .flags = MSG_HIDDEN,
                            .segment = s->id,
                            .offset = d->offset,
                            .record_size = d->length,
                            .rcpt_count = (uint16_t)d->message.rcpt_count,
                            .rcpt_pending = (uint16_t)d->message.rcpt_count,
                            .first_segment = d->message.first_segment};
    list_init(&m->segment_link);
    if (!state_bits_alloc(m)) {
        slab_free(&l->msg_slab, m);
        return NULL;
    }
    return m;
}

static enum replay_result replay_message(struct lane *l, struct segment *s,
                                         const struct record_digest *d, struct queue_msg **touched)
{
    uint64_t sequence = d->qid & QID_SEQUENCE_MASK;
    struct record_state_view v;
    struct queue_msg *m;
    uint32_t used;

    if (d->message.rcpt_count == 0 || d->message.rcpt_count > RCPT_COUNT_LIMIT ||
        d->message.first_segment > s->id || d->message.first_segment == 0)
        return REPLAY_DAMAGED;
    m = index_find(&l->index, lane_qid(l, d->qid));
    if (m && !(m->flags & MSG_HIDDEN))
        return REPLAY_DAMAGED;
    if (m)
        over(l, s, m); /* this copy takes its place */
    m = new_message(l, s, d);
    if (!m)
        return REPLAY_NO_MEMORY;
    if (l->qid_next <= sequence)
        l->qid_next = sequence + 1;
    index_insert(&l->index, m);
    segments_own(&l->segments, m);
    segments_cover(&l->segments, m->first_segment, m->segment, 1, 0);
    *touched = m;
    if (d->type != RECORD_MOVED)
        return REPLAY_OK;
    if (!record_state_decode(d->state_block, &v, &used) || v.state.gone ||
        v.state.rcpt_count != m->rcpt_count)
        return REPLAY_DAMAGED;
    apply_state(l, s, m, &v, d->offset);
    return REPLAY_OK;
}

enum replay_result replay_record(struct lane *l, struct segment *s, const struct record_digest *d,
                                 struct queue_msg **touched)
{
    enum replay_result first = REPLAY_OK, second;
    struct queue_msg *other;

    switch (d->type) {
    case RECORD_MESSAGE:
    case RECORD_MOVED:
        if (d->final_block.len)
            first = replay_state(l, s, d->final_block, d->offset, true, &other);
        second = replay_message(l, s, d, touched);
        return second == REPLAY_OK ? first : second;
    case RECORD_RCPT_FINAL:
    case RECORD_DEFER:
    case RECORD_STATE:
    case RECORD_ATTEMPT: return replay_state(l, s, d->state_block, d->offset, false, touched);
    default: return REPLAY_OK;
    }
}
