/*
 * queue/schedule.c - messages by the time of their next attempt; equal times by queue id, so the
 * oldest goes first.
 *
 * Owns:     the heap's array; messages belong to the lane.
 * Runs on:  the shard that owns the lane. Reads no clock.
 * Contract: set, clear and pop take logarithmic time; m->schedule_index is the position + 1, 0
 *           when off.
 * Failure:  schedule_reserve says that there is no memory; then nothing was promised.
 * Bounds:   one pointer a message.
 * Tests:    tests/unit/test_schedule.c
 */
#include "queue/schedule.h"

#include <assert.h>

static struct queue_msg *item(const struct schedule *s, uint32_t i)
{
    return *pages_at(&s->heap, i);
}

static void put(struct schedule *s, uint32_t i, struct queue_msg *m)
{
    *pages_at(&s->heap, i) = m;
    m->schedule_index = i + 1;
}

static bool before(const struct queue_msg *a, const struct queue_msg *b)
{
    if (a->next_attempt_wall_s != b->next_attempt_wall_s)
        return a->next_attempt_wall_s < b->next_attempt_wall_s;
    return a->qid < b->qid;
}

static void sift_up(struct schedule *s, uint32_t i, struct queue_msg *m)
{
    while (i > 0 && before(m, item(s, (i - 1) / 2))) {
        put(s, i, item(s, (i - 1) / 2));
        i = (i - 1) / 2;
    }
    put(s, i, m);
}

static void sift_down(struct schedule *s, uint32_t i, struct queue_msg *m)
{
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= s->count)
            break;
        if (child + 1 < s->count && before(item(s, child + 1), item(s, child)))
            child++;
        if (!before(item(s, child), m))
            break;
        put(s, i, item(s, child));
        i = child;
    }
    put(s, i, m);
}

void schedule_destroy(struct schedule *s)
{
    pages_free(&s->heap);
    s->count = 0;
}

bool schedule_reserve(struct schedule *s, uint64_t message_count)
{
    assert(message_count < UINT32_MAX);
    return pages_reach(&s->heap, (uint32_t)message_count);
}

void schedule_set(struct schedule *s, struct queue_msg *m)
{
    uint32_t i = m->schedule_index;

    if (i == 0) {
        i = ++s->count;
        put(s, i - 1, m);
    }
    assert(item(s, i - 1) == m);
    if (i > 1 && before(m, item(s, (i - 2) / 2)))
        sift_up(s, i - 1, m);
    else
        sift_down(s, i - 1, m);
}

void schedule_clear(struct schedule *s, struct queue_msg *m)
{
    uint32_t i = m->schedule_index;
    struct queue_msg *last;

    if (i == 0)
        return;
    assert(item(s, i - 1) == m && s->count > 0);
    last = item(s, --s->count);
    m->schedule_index = 0;
    if (last == m)
        return;
    put(s, i - 1, last);
    schedule_set(s, last);
}

struct queue_msg *schedule_first(const struct schedule *s)
{
    return s->count ? item(s, 0) : NULL;
}

struct queue_msg *schedule_pop(struct schedule *s, uint64_t wall_s)
{
    struct queue_msg *m = schedule_first(s);

    if (!m || m->next_attempt_wall_s > wall_s)
        return NULL;
    schedule_clear(s, m);
    return m;
}
