/*
 * queue/segment.c - the segments of a lane in memory, and the rule of deletion.
 *
 * Owns:     struct segment and the table of them.
 * Runs on:  the shard that owns the lane. No I/O.
 * Contract: segments_next_dead gives only what FORMAT.md section 7 allows: nothing live, no newest
 *           state, no tombstone whose older copy still exists, and what made it so is durable.
 * Failure:  no memory for a dependence: the segment waits for all older ones instead.
 * Bounds:   one struct a segment file; a dependence list no longer than the table.
 * Tests:    tests/unit/test_segment.c
 */
#include "queue/segment.h"
#include "gateway/base/plant.h"

#include <assert.h>
#include <stdlib.h>

struct segment *segment_create(uint32_t id, uint64_t bytes)
{
    struct segment *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->id = id;
    s->bytes = bytes;
    s->tail = SEGMENT_BLOCK;
    s->written = SEGMENT_BLOCK;
    s->write_fd = s->read_fd = -1;
    list_init(&s->messages);
    list_init(&s->read_link);
    list_init(&s->read_waiters);
    return s;
}

void segment_destroy(struct segment *s)
{
    free(s->deps);
    free(s->entries);
    free(s);
}

/* Position of the first segment with an id of at least `id`. */
static uint32_t position(const struct segments *t, uint32_t id)
{
    uint32_t low = 0, high = t->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (t->items[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool segments_add(struct segments *t, struct segment *s)
{
    uint32_t at = position(t, s->id);

    assert(at == t->count || t->items[at]->id != s->id);
    if (t->count == t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 64;
        struct segment **grown = realloc(t->items, cap * sizeof *grown);
        if (!grown)
            return false;
        t->items = grown;
        t->cap = cap;
    }
    memmove(t->items + at + 1, t->items + at, (t->count - at) * sizeof *t->items);
    t->items[at] = s;
    t->count++;
    return true;
}

uint32_t segments_from(const struct segments *t, uint32_t id)
{
    return position(t, id);
}

struct segment *segments_find(const struct segments *t, uint32_t id)
{
    uint32_t at = position(t, id);

    return at < t->count && t->items[at]->id == id ? t->items[at] : NULL;
}

void segments_destroy(struct segments *t)
{
    for (uint32_t i = 0; i < t->count; i++)
        segment_destroy(t->items[i]);
    free(t->items);
    *t = (struct segments){0};
}

static void became_quieter(struct segment *s, uint64_t batch)
{
    if (s->quiet_batch < batch)
        s->quiet_batch = batch;
}

void segments_cover(struct segments *t, uint32_t first, uint32_t last, int change, uint64_t batch)
{
    assert(first <= last && (change == 1 || change == -1));
    for (uint32_t i = position(t, first); i < t->count && t->items[i]->id <= last; i++) {
        struct segment *s = t->items[i];
        assert(change > 0 || s->live > 0);
        s->live += (uint32_t)change;
        if (change < 0)
            became_quieter(s, batch);
    }
}

void segments_state_moved(struct segments *t, uint32_t from, uint32_t to, uint64_t batch)
{
    struct segment *s = from ? segments_find(t, from) : NULL;

    if (s) {
        assert(s->state_live > 0);
        s->state_live--;
        became_quieter(s, batch);
    }
    s = to ? segments_find(t, to) : NULL;
    if (s)
        s->state_live++;
}

uint64_t segment_extent_bytes(const struct queue_msg *m)
{
    return m->body_size ? (m->body_size - 1) / SPOOL_CHUNK_SIZE * EXTENT_RECORD_BYTES : 0;
}

static void count_bytes(struct segment *s, uint64_t bytes, bool owns)
{
    assert(owns || s->live_bytes >= bytes);
    s->live_bytes += owns ? bytes : -bytes;
}

static struct segment *count_own(const struct segments *t, const struct queue_msg *m, bool owns)
{
    struct segment *s = segments_find(t, m->segment);
    uint64_t extents = segment_extent_bytes(m), share;

    assert(s && (owns || s->own > 0));
    s->own += owns ? 1u : -1u;
    count_bytes(s, m->record_size, owns);
    if (extents == 0)
        return s;
    s->large += owns ? 1u : -1u;
    /* Which segment has how many of them is on disk only: each is taken to have as many. */
    share = extents / (m->segment - m->first_segment + 1ull);
    for (uint32_t i = position(t, m->first_segment); i < t->count && t->items[i]->id <= m->segment;
         i++)
        count_bytes(t->items[i], share, owns);
    return s;
}

void segments_own(const struct segments *t, struct queue_msg *m)
{
    struct segment *s = count_own(t, m, true);

    if (m->first_segment < m->segment)
        list_push_front(&s->messages, &m->segment_link);
    else
        list_push_back(&s->messages, &m->segment_link);
}

void segments_disown(const struct segments *t, const struct queue_msg *m)
{
    (void)count_own(t, m, false);
}

void segment_depend(const struct segments *t, struct segment *s, uint32_t on)
{
    uint32_t at = s->dep_count;

    if (on == s->id || !segments_find(t, on))
        return;
    while (at > 0 && s->deps[at - 1] > on)
        at--;
    if (at > 0 && s->deps[at - 1] == on)
        return;
    if (s->dep_count == s->dep_cap) {
        uint32_t cap = s->dep_cap ? s->dep_cap * 2 : 8;
        uint32_t *grown = realloc(s->deps, cap * sizeof *grown);
        if (!grown) {
            s->deps_all = true;
            return;
        }
        s->deps = grown;
        s->dep_cap = cap;
    }
    memmove(s->deps + at + 1, s->deps + at, (s->dep_count - at) * sizeof *s->deps);
    s->deps[at] = on;
    s->dep_count++;
}

void segment_depend_like(const struct segments *t, struct segment *s, const struct segment *from)
{
    for (uint32_t i = 0; i < from->dep_count; i++)
        segment_depend(t, s, from->deps[i]);
    s->deps_all = s->deps_all || from->deps_all;
}

static void forget_dep(struct segment *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->dep_count && s->deps[i] <= id; i++) {
        if (s->deps[i] != id)
            continue;
        s->dep_count--;
        memmove(s->deps + i, s->deps + i + 1, (s->dep_count - i) * sizeof *s->deps);
        return;
    }
}

void segments_forget(struct segments *t, struct segment *s)
{
    uint32_t at = position(t, s->id);

    assert(at < t->count && t->items[at] == s && list_empty(&s->messages));
    t->count--;
    memmove(t->items + at, t->items + at + 1, (t->count - at) * sizeof *t->items);
    for (uint32_t i = 0; i < t->count; i++)
        forget_dep(t->items[i], s->id);
    segment_destroy(s);
}

void segments_requiet(struct segments *t, uint64_t from, uint64_t to)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (t->items[i]->quiet_batch >= from)
            t->items[i]->quiet_batch = to;
}

static bool may_go(const struct segment *s, bool oldest, uint64_t durable_batch)
{
    if (s->state != SEGMENT_SEALED && s->state != SEGMENT_FAILED)
        return false;
    if (s->unread || s->live || s->state_live || s->read_users || (s->deps_all && !oldest))
        return false;
    if (s->dep_count && !PLANT(TOMBSTONE_EARLY))
        return false;
    return s->quiet_batch <= durable_batch;
}

struct segment *segments_next_dead(const struct segments *t, uint32_t *at, uint64_t durable_batch)
{
    /* An open transaction needs every segment from its first extent on. */
    for (uint32_t i = 0; i < *at && i < t->count; i++)
        if (t->items[i]->pins || t->items[i]->strays || t->items[i]->unread)
            return NULL;
    /* The newest always stays: its qid_limit is what keeps queue ids from being used twice. */
    for (; *at + 1 < t->count; (*at)++) {
        struct segment *s = t->items[*at];
        if (s->pins)
            return NULL;
        if (may_go(s, *at == 0, durable_batch)) {
            (*at)++;
            return s;
        }
        if (s->strays || s->unread) /* younger ones may end, or tell of, what it holds */
            return NULL;
    }
    return NULL;
}
