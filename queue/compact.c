/*
 * queue/compact.c - copies long-lived messages forward out of segments that are mostly dead.
 *
 * Owns:     COMPACT_SLOTS small messages on their way; large.c has those with extents.
 * Runs on:  the shard that owns the lane, beside its traffic.
 * Contract: the index points at the new copy only when it is durable; the old one stays readable
 *           until then. The new copy's segment depends on the old one's (FORMAT.md section 7).
 * Failure:  a copy that fails is forgotten; if its bytes may be on disk, nothing younger than that
 *           segment is deleted before it.
 * Bounds:   COMPACT_SLOTS at a time, a look every COMPACT_CHECK_NS; begins when less than a half
 *           of the segments' bytes is live. At most as much is copied as becomes free by it.
 * Tests:    tests/unit/test_lane_compact.c, tests/unit/test_lane_large.c
 */
#include <assert.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

#define COMPACT_CHECK_NS     (1 * NS_PER_S)
#define COMPACT_SEGMENTS_MIN 6u
#define COMPACT_BLOCKERS_MAX 8u

static bool can_be_emptied(const struct segment *s)
{
    return (s->state == SEGMENT_SEALED || s->state == SEGMENT_FAILED) && s->live &&
           !s->unreadable && !s->unread;
}

/* Mostly dead, or in the way of all that is younger (FORMAT.md section 7, rule 5). */
static bool worth_it(const struct segment *s)
{
    return can_be_emptied(s) && (s->strays || s->live_bytes <= s->bytes / 2);
}

static bool depends_on_held(const struct segments *t, const struct segment *s)
{
    for (uint32_t i = 0; i < s->dep_count; i++) {
        const struct segment *on = segments_find(t, s->deps[i]);
        if (on && on->held)
            return true;
    }
    return s->deps_all;
}

/*
 * Bytes of dead segments that wait for this one alone or in a row: a tombstone in the next segment
 * is enough for each (rule 3).
 */
static uint64_t held_by(const struct segments *t, struct segment *blocker)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        struct segment *s = t->items[i];
        s->held = s == blocker || (s->id > blocker->id && !s->live && !s->state_live &&
                                   (s->state == SEGMENT_SEALED || s->state == SEGMENT_FAILED) &&
                                   depends_on_held(t, s));
        bytes += s->held && s != blocker ? s->bytes : 0;
    }
    return bytes;
}

static struct segment *choose_blocker(const struct segments *t, uint32_t passed)
{
    uint32_t looked_at = 0;

    for (uint32_t i = 0; i < t->count && looked_at < COMPACT_BLOCKERS_MAX; i++) {
        struct segment *s = t->items[i];
        if (s->id <= passed || !can_be_emptied(s))
            continue;
        if (held_by(t, s) >= 2 * s->bytes)
            return s;
        looked_at++;
    }
    return NULL;
}

bool compact_is_wanted(const struct lane *l)
{
    const struct segments *t = &l->segments;
    uint64_t bytes = 0, live = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        bytes += t->items[i]->bytes;
        live += t->items[i]->live_bytes;
    }
    return t->count >= COMPACT_SEGMENTS_MIN && live <= bytes / 2;
}

/* The oldest behind the one that was tried in vain. */
static struct segment *choose(struct lane *l)
{
    const struct segments *t = &l->segments;
    uint32_t passed = l->compact.passed;
    bool wanted = compact_is_wanted(l);

    l->compact.passed = 0;
    l->compact.blocker = false;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->items[i]->id > passed && worth_it(t->items[i]) && (wanted || t->items[i]->strays))
            return t->items[i];
    l->compact.blocker = true;
    return wanted ? choose_blocker(t, passed) : NULL;
}

/* The state block is encoded for the message as it is now. */
bool compact_append(struct lane *l, struct compact_slot *slot, struct queue_msg *m,
                    const struct record_message_view *v, const struct lane_extent *extents)
{
    struct record_message head = v->message;
    uint32_t size, list = head.extent_count * (uint32_t)sizeof *extents;
    uint8_t *at, *p;

    head.final_len = 0;
    head.state_len = state_block_size(m, NULL);
    size = record_message_size(&head);
    at = commit_room(l, record_round(RECORD_HEADER_SIZE + size), false);
    if (!at)
        return false;
    slot->to = l->open->id;
    slot->to_first = list ? extents[0].segment : slot->to;
    head.first_segment = slot->to_first;
    p = at + RECORD_HEADER_SIZE;
    memcpy(p, &head, sizeof head);
    p += sizeof head;
    p += state_block(l, p, m, NULL, 0);
    if (list)
        memcpy(p, extents, list);
    p += list;
    memcpy(p, v->envelope.ptr, v->envelope.len);
    if (v->tail.len)
        memcpy(p + v->envelope.len, v->tail.ptr, v->tail.len);
    slot->to_size = record_round(RECORD_HEADER_SIZE + size);
    slot->state_segment = m->state_segment;
    slot->state_offset = m->state_offset;
    slot->to_offset = commit_record(l, at, RECORD_MOVED, m->qid, size);
    slot->batch = commit_number(l);
    segment_depend(&l->segments, l->open, m->segment);
    l->stats.copied_forward_bytes += slot->to_size;
    return true;
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
    slot->batch = 0; /* compact_append sets it */
    if (res > 0 && m && m->segment == slot->from && m->offset == slot->from_offset &&
        !(m->flags & MSG_LOCKED) && !l->closing &&
        record_message_decode(
            slice_of(r->buf + RECORD_HEADER_SIZE, (uint32_t)res - RECORD_HEADER_SIZE), &v) &&
        v.message.extent_count == 0)
        (void)compact_append(l, slot, m, &v, NULL);
    free(r->buf);
    r->buf = NULL;
    if (slot->batch == 0) { /* not now */
        l->compact.from = 0;
        slot->qid = 0;
        l->compact.running--;
    }
}

/* False: there is nothing to be moved now. */
static bool start_small(struct lane *l, struct segment *s)
{
    struct list *at = s->messages.next;
    uint32_t started = 0;

    if (s->own == s->large)
        return false;
    for (; started < COMPACT_SLOTS && at != &s->messages; at = at->next) {
        struct queue_msg *m = container_of(at, struct queue_msg, segment_link);
        struct compact_slot *slot = &l->compact.slots[started];
        if (m->flags & MSG_LOCKED || segment_extent_bytes(m))
            continue;
        slot->qid = m->qid;
        slot->from = m->segment;
        slot->from_offset = m->offset;
        slot->reading = true;
        slot->read.done = record_read;
        l->compact.running++;
        read_message_record(l, m, &slot->read);
        started++;
    }
    return started > 0;
}

void compact_kick(struct lane *l)
{
    struct compact *c = &l->compact;
    bool may = !l->recovering && !l->closing && !l->full && l->open && !l->failed_in_row &&
               !l->stash_count;
    struct segment *s;

    large_kick(l, may);
    restate_kick(l, may);
    if (c->running || !may)
        return;
    s = c->from ? segments_find(&l->segments, c->from) : NULL;
    if (!s || !(c->blocker ? can_be_emptied(s) : worth_it(s))) { /* emptied: the next one at once */
        if (!c->from && io_now_ns(l->io) < c->next_check_ns)
            return;
        c->next_check_ns = io_now_ns(l->io) + COMPACT_CHECK_NS;
        large_owed(l);
        s = choose(l);
        c->from = s ? s->id : 0;
    }
    if (!s || walk_is_ahead(l, s->id))
        return;
    if (!start_small(l, s) && !large_start(l, s)) {
        c->passed = s->id;
        c->from = 0;
    }
}

void compact_moved(struct lane *l, const struct compact_slot *slot)
{
    struct queue_msg *m = index_find(&l->index, slot->qid);

    assert(segments_find(&l->segments, slot->to));
    if (!m || m->segment != slot->from || m->offset != slot->from_offset) {
        /* Over meanwhile: its tombstone does not know of this copy. */
        state_stash(l, slot->qid, true, slot->to);
        return;
    }
    segments_cover(&l->segments, slot->to_first, slot->to, 1, 0);
    segments_cover(&l->segments, m->first_segment, m->segment, -1, commit_quiet(l));
    segments_disown(&l->segments, m);
    walk_unlink(l, m);
    m->segment = slot->to;
    m->first_segment = slot->to_first;
    m->offset = slot->to_offset;
    m->record_size = slot->to_size;
    segments_own(&l->segments, m);
    if (m->state_segment != slot->state_segment || m->state_offset != slot->state_offset)
        return; /* a newer state was written behind the copy */
    segments_state_moved(&l->segments, m->state_segment, slot->to, commit_quiet(l));
    m->state_segment = slot->to;
    m->state_offset = slot->to_offset;
}

void compact_batch(struct lane *l, uint64_t batch, bool durable)
{
    struct compact *c = &l->compact;

    large_batch(l, batch, durable);
    for (uint32_t i = 0; i < COMPACT_SLOTS && c->running; i++) {
        struct compact_slot *slot = &c->slots[i];
        if (slot->qid == 0 || slot->reading || slot->batch != batch)
            continue;
        if (durable)
            compact_moved(l, slot);
        slot->qid = 0;
        c->running--;
    }
}
