/*
 * queue/large.c - copies a message with extents forward: the extents one by one, and when they are
 * durable the MOVED record that says where they are.
 *
 * Owns:     one such message on its way; the copies that failed and may be on disk (`owed`).
 * Runs on:  the shard that owns the lane, beside its traffic.
 * Contract: MOVED is appended only when every new extent is durable, and the index points at the
 *           copy only when MOVED is. Until then the old one is the message, and the new extents
 *           hold their segments as an upload does.
 * Failure:  what cannot be read stays where it is, and its segments are not tried again in this
 *           run. A failed commit ends the copy; when it had the MOVED, its extents are kept until
 *           a younger record voids it (FORMAT.md section 7).
 * Bounds:   one message at a time, its MESSAGE record and one extent of memory; not more than half
 *           a commit buffer; COMPACT_OWED_MAX, beyond which segments stay until the next start.
 * Tests:    tests/unit/test_lane_large.c, tests/sim/test_lane_sim.c
 */
#include <assert.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

static struct compact_large *large_of(struct lane *l)
{
    return &l->compact.large;
}

/* The message, if it still is where the copy was begun from. */
static struct queue_msg *message_of(const struct lane *l)
{
    const struct compact_slot *slot = &l->compact.large.slot;
    struct queue_msg *m = index_find(&l->index, slot->qid);

    return m && m->segment == slot->from && m->offset == slot->from_offset ? m : NULL;
}

void large_free(struct lane *l)
{
    struct compact_large *c = large_of(l);

    free(c->record);
    free(c->bytes);
    free(c->extents);
    *c = (struct compact_large){0};
}

static void release(struct lane *l)
{
    struct compact_large *c = large_of(l);
    struct segment *s =
        c->extents && c->count ? segments_find(&l->segments, c->extents[0].segment) : NULL;

    assert(!c->count || (s && s->pins > 0));
    if (s)
        s->pins--;
    large_free(l);
}

/* A read under way brings the end. */
static void stop(struct lane *l)
{
    struct compact_large *c = large_of(l);

    if (c->step == LARGE_RECORD || c->step == LARGE_READ)
        c->stop = true;
    else
        release(l);
}

/* Its segments are not worth another try. */
static void cannot_be_read(struct lane *l)
{
    const struct queue_msg *m = message_of(l);

    for (uint32_t i = 0; m && i < l->segments.count; i++) {
        struct segment *s = l->segments.items[i];
        if (s->id >= m->first_segment && s->id <= m->segment)
            s->unreadable = true;
    }
    for (uint32_t i = 0; i < l->compact.owed_count; i++)
        if (m && l->compact.owed[i].qid == m->qid)
            l->compact.owed[i].stuck = true;
    release(l);
}

/* ---- copying ---- */

static void extent_read(struct lane_read *r, int32_t res);

static void next_extent(struct lane *l)
{
    struct compact_large *c = large_of(l);

    if (c->count == c->view.message.extent_count) {
        c->step = LARGE_SYNC;
        return;
    }
    c->step = LARGE_READ;
    c->slot.read.done = extent_read;
    read_extent_record(l, c->slot.qid, record_extent_at(c->view.extents, c->count), &c->slot.read);
}

static void append_extent(struct lane *l)
{
    struct compact_large *c = large_of(l);
    struct lane_extent *e = &c->extents[c->count];
    uint8_t *at = NULL;

    if (!message_of(l)) {
        release(l);
        return;
    }
    at = commit_room_extent(l, EXTENT_RECORD_BYTES, false);
    if (!at)
        return;
    memcpy(at + RECORD_HEADER_SIZE, c->bytes + RECORD_HEADER_SIZE,
           EXTENT_RECORD_BYTES - RECORD_HEADER_SIZE);
    e->segment = l->open->id;
    e->offset =
        commit_record(l, at, RECORD_EXTENT, c->slot.qid, EXTENT_RECORD_BYTES - RECORD_HEADER_SIZE);
    if (c->count++ == 0)
        l->open->pins++;
    if (c->position != commit_number(l)) {
        c->position_before = c->position;
        c->position = commit_number(l);
    }
    l->stats.copied_forward_bytes += EXTENT_RECORD_BYTES;
    free(c->bytes);
    c->bytes = NULL;
    next_extent(l);
}

static bool is_the_extent(const struct compact_large *c, int32_t res)
{
    struct record_extent_view v;
    struct record_header h;

    memcpy(&h, c->bytes, sizeof h);
    return res == (int32_t)EXTENT_RECORD_BYTES && h.type == RECORD_EXTENT &&
           record_extent_decode(
               slice_of(c->bytes + RECORD_HEADER_SIZE, EXTENT_RECORD_BYTES - RECORD_HEADER_SIZE),
               &v) &&
           v.extent.body_offset == (uint64_t)c->count * SPOOL_CHUNK_SIZE &&
           v.body.len == SPOOL_CHUNK_SIZE;
}

static void extent_read(struct lane_read *r, int32_t res)
{
    struct lane *l = r->lane;
    struct compact_large *c = large_of(l);

    c->bytes = r->buf;
    c->step = LARGE_APPEND;
    if (c->stop || l->closing || !message_of(l))
        release(l);
    else if (res < 0 || !is_the_extent(c, res))
        cannot_be_read(l);
    else
        append_extent(l);
}

static void record_read(struct lane_read *r, int32_t res)
{
    struct lane *l = r->lane;
    struct compact_large *c = large_of(l);
    uint32_t len = res > 0 ? (uint32_t)res - RECORD_HEADER_SIZE : 0;

    c->record = r->buf;
    c->step = LARGE_APPEND;
    if (c->stop || l->closing || !message_of(l)) {
        release(l);
        return;
    }
    if (len == 0 ||
        !record_message_decode(slice_of(c->record + RECORD_HEADER_SIZE, len), &c->view) ||
        c->view.message.extent_count == 0 || c->view.message.chunk != SPOOL_CHUNK_SIZE) {
        cannot_be_read(l);
        return;
    }
    c->extents = calloc(c->view.message.extent_count, sizeof *c->extents);
    if (!c->extents)
        release(l);
    else
        next_extent(l);
}

static void append_moved(struct lane *l)
{
    struct compact_large *c = large_of(l);
    struct queue_msg *m = message_of(l);

    if (!m)
        release(l);
    else if (!(m->flags & MSG_LOCKED) && c->position <= l->batch_durable &&
             compact_append(l, &c->slot, m, &c->view, c->extents))
        c->step = LARGE_MOVED;
}

/* ---- which, and when ---- */

/* A copy of it takes segments before it gives any back. */
static bool has_room(struct lane *l, const struct queue_msg *m)
{
    return lane_room(l, false) >= segment_extent_bytes(m) + 2 * l->p.segment_bytes;
}

static bool begin(struct lane *l, struct queue_msg *m)
{
    struct compact_large *c = large_of(l);

    if (m->flags & MSG_LOCKED || walk_is_ahead(l, m->segment) || !has_room(l, m))
        return false;
    c->slot.qid = m->qid;
    c->slot.from = m->segment;
    c->slot.from_offset = m->offset;
    c->slot.read.done = record_read;
    c->step = LARGE_RECORD;
    read_message_record(l, m, &c->slot.read);
    return true;
}

/* Those whose extents are in older segments stand first in their list. */
static bool begin_one_of(struct lane *l, struct segment *s, uint32_t first)
{
    for (struct list *at = s->messages.next; at != &s->messages; at = at->next) {
        struct queue_msg *m = container_of(at, struct queue_msg, segment_link);
        if (s->id != first && m->first_segment == s->id)
            break;
        if (m->first_segment <= first && segment_extent_bytes(m) && begin(l, m))
            return true;
    }
    return false;
}

bool large_start(struct lane *l, struct segment *s)
{
    uint32_t i = 0;

    if (large_of(l)->step != LARGE_IDLE)
        return true;
    while (l->segments.items[i] != s)
        i++;
    for (; i < l->segments.count; i++)
        if (l->segments.items[i]->large && begin_one_of(l, l->segments.items[i], s->id))
            return true;
    return false;
}

void large_owed(struct lane *l)
{
    struct compact *c = &l->compact;

    for (uint32_t i = 0; i < c->owed_count;) {
        struct compact_owed *o = &c->owed[i];
        struct queue_msg *m = index_find(&l->index, o->qid);
        if (!m || m->segment > o->last) { /* over, or somewhere younger: that voids it */
            segments_cover(&l->segments, o->first, o->last, -1, commit_quiet(l));
            *o = c->owed[--c->owed_count];
            continue;
        }
        if (!o->stuck && c->large.step == LARGE_IDLE)
            (void)begin(l, m);
        i++;
    }
}

/* ---- on its way ---- */

void large_kick(struct lane *l, bool may)
{
    struct compact_large *c = large_of(l);

    if (c->step == LARGE_IDLE || c->step == LARGE_MOVED || l->closing)
        return;
    if (!may)
        stop(l);
    else if (c->step == LARGE_APPEND)
        append_extent(l);
    else if (c->step == LARGE_SYNC)
        append_moved(l);
}

/* On disk or not, nobody can tell: see struct compact_owed. */
static void owe(struct lane *l, const struct compact_slot *slot)
{
    struct compact *c = &l->compact;

    segments_cover(&l->segments, slot->to_first, slot->to, 1, 0);
    if (c->owed_count == COMPACT_OWED_MAX)
        return; /* until the next start */
    c->owed[c->owed_count++] =
        (struct compact_owed){.qid = slot->qid, .first = slot->to_first, .last = slot->to};
}

void large_batch(struct lane *l, uint64_t batch, bool durable)
{
    struct compact_large *c = large_of(l);

    if (c->step == LARGE_MOVED && c->slot.batch == batch) {
        if (durable)
            compact_moved(l, &c->slot);
        else
            owe(l, &c->slot);
        release(l);
    } else if (c->step > LARGE_RECORD && c->step < LARGE_MOVED && c->count && !durable &&
               (c->position == batch || c->position_before == batch)) {
        stop(l);
    }
}
