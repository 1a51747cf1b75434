/*
 * queue/compact.c - copies long-lived messages forward out of segments that are mostly dead.
 *
 * Owns:     COMPACT_SLOTS messages on their way.
 * Runs on:  the shard that owns the lane, beside its traffic.
 * Contract: the index points at the new copy only when it is durable; the old one stays readable
 *           until then. The new copy's segment depends on the old one's (FORMAT.md section 7).
 * Failure:  a copy that fails is forgotten; if its bytes may be on disk, nothing younger than that
 *           segment is deleted before it.
 * Bounds:   COMPACT_SLOTS at a time, a look every COMPACT_CHECK_NS; begins when less than a half
 *           of the segments' bytes is live.
 * Tests:    tests/unit/test_lane_compact.c
 */
#include <assert.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

#define COMPACT_CHECK_NS     (1 * NS_PER_S)
#define COMPACT_SEGMENTS_MIN 6u

/* Mostly dead, and nothing in it but messages that can be moved. */
static bool worth_it(const struct segment *s)
{
    return s->state == SEGMENT_SEALED && s->own && !s->unmovable && s->live == s->own &&
           s->live_bytes <= s->bytes / 2 && !s->unreadable;
}

static struct segment *choose(const struct lane *l)
{
    uint64_t bytes = 0, live = 0;

    for (uint32_t i = 0; i < l->segments.count; i++) {
        bytes += l->segments.items[i]->bytes;
        live += l->segments.items[i]->live_bytes;
    }
    if (l->segments.count < COMPACT_SEGMENTS_MIN || live > bytes / 2)
        return NULL;
    for (uint32_t i = 0; i < l->segments.count; i++)
        if (worth_it(l->segments.items[i]))
            return l->segments.items[i];
    return NULL;
}

/* The state block is encoded for the message as it is now. */
static void append_copy(struct lane *l, struct compact_slot *slot, struct queue_msg *m,
                        const struct record_message_view *v)
{
    struct record_message head = v->message;
    uint32_t size;
    uint8_t *at, *p;

    head.final_len = 0;
    head.state_len = state_block_size(m, NULL);
    size = record_message_size(&head);
    at = commit_room(l, record_round(RECORD_HEADER_SIZE + size), false);
    if (!at)
        return;
    head.first_segment = l->open->id;
    p = at + RECORD_HEADER_SIZE;
    memcpy(p, &head, sizeof head);
    p += sizeof head;
    p += state_block(l, p, m, NULL, 0);
    memcpy(p, v->envelope.ptr, v->envelope.len);
    if (v->tail.len)
        memcpy(p + v->envelope.len, v->tail.ptr, v->tail.len);
    slot->to = l->open->id;
    slot->to_size = record_round(RECORD_HEADER_SIZE + size);
    slot->state_segment = m->state_segment;
    slot->state_offset = m->state_offset;
    slot->to_offset = commit_record(l, at, RECORD_MOVED, m->qid, size);
    slot->batch = commit_number(l);
    segment_depend(&l->segments, l->open, m->segment);
    l->stats.copied_forward_bytes += slot->to_size;
}

static void record_read(struct lane_read *r, int32_t res)
{
    struct compact_slot *slot = container_of(r, struct compact_slot, read);
    struct lane *l = r->lane;
    struct queue_msg *m = index_find(&l->index, slot->qid);
    struct segment *s = segments_find(&l->segments, slot->from);
    struct record_message_view v;

    if (res < 0 && s)
        s->unreadable = true; /* its messages stay where they are */
    slot->reading = false;
    slot->batch = 0;
    if (res > 0 && m && m->segment == slot->from && m->offset == slot->from_offset &&
        !(m->flags & MSG_LOCKED) && !l->closing &&
        record_message_decode(
            slice_of(r->buf + RECORD_HEADER_SIZE, (uint32_t)res - RECORD_HEADER_SIZE), &v) &&
        v.message.extent_count == 0)
        append_copy(l, slot, m, &v);
    free(r->buf);
    r->buf = NULL;
    if (slot->batch == 0) { /* not now */
        l->compact.from = 0;
        slot->qid = 0;
        l->compact.running--;
    }
}

static void start(struct lane *l, struct segment *s)
{
    struct list *at = s->messages.next;

    for (uint32_t i = 0; i < COMPACT_SLOTS && at != &s->messages; at = at->next) {
        struct queue_msg *m = container_of(at, struct queue_msg, segment_link);
        struct compact_slot *slot = &l->compact.slots[i];
        if (m->flags & MSG_LOCKED)
            continue;
        slot->qid = m->qid;
        slot->from = m->segment;
        slot->from_offset = m->offset;
        slot->reading = true;
        slot->read.done = record_read;
        l->compact.running++;
        read_message_record(l, m, &slot->read);
        i++;
    }
}

void compact_kick(struct lane *l)
{
    struct compact *c = &l->compact;
    struct segment *s;

    if (c->running || l->recovering || l->closing || l->full || !l->open || l->failed_in_row ||
        l->stash_count)
        return;
    s = c->from ? segments_find(&l->segments, c->from) : NULL;
    if (!s || !worth_it(s)) {
        if (io_now_ns(l->io) < c->next_check_ns)
            return;
        c->next_check_ns = io_now_ns(l->io) + COMPACT_CHECK_NS;
        s = choose(l);
        c->from = s ? s->id : 0;
    }
    if (s)
        start(l, s);
}

/* The copy is durable: the message is there now. */
static void moved(struct lane *l, const struct compact_slot *slot)
{
    struct queue_msg *m = index_find(&l->index, slot->qid);
    struct segment *to = segments_find(&l->segments, slot->to);
    struct segment *from = segments_find(&l->segments, slot->from);

    assert(to);
    if (!m || m->segment != slot->from || m->offset != slot->from_offset) {
        /* Over meanwhile: its tombstone does not know of this copy. */
        state_stash(l, slot->qid, true, slot->to);
        return;
    }
    segments_cover(&l->segments, slot->to, slot->to, 1, 0);
    segments_cover(&l->segments, slot->from, slot->from, -1, commit_quiet(l));
    segment_owns(from, m, false);
    list_remove(&m->segment_link);
    list_push_back(&to->messages, &m->segment_link);
    m->segment = m->first_segment = slot->to;
    m->offset = slot->to_offset;
    m->record_size = slot->to_size;
    segment_owns(to, m, true);
    if (m->state_segment != slot->state_segment || m->state_offset != slot->state_offset)
        return; /* a newer state was written behind the copy */
    segments_state_moved(&l->segments, m->state_segment, slot->to, commit_quiet(l));
    m->state_segment = slot->to;
    m->state_offset = slot->to_offset;
}

void compact_batch(struct lane *l, uint64_t batch, bool durable)
{
    struct compact *c = &l->compact;

    for (uint32_t i = 0; i < COMPACT_SLOTS && c->running; i++) {
        struct compact_slot *slot = &c->slots[i];
        if (slot->qid == 0 || slot->reading || slot->batch != batch)
            continue;
        if (durable)
            moved(l, slot);
        slot->qid = 0;
        c->running--;
    }
}
