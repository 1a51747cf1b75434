/*
 * gateway/base/timer.c - deadlines of one thread in a binary heap.
 *
 * Owns:     the heap's array; the timers are embedded in their owners.
 * Runs on:  one thread.
 * Contract: timer_heap_pop gives timers in the order of their deadlines. A timer may be set, moved
 *           and cleared at any time, also inside its own `fire`. Of equal deadlines no order is
 *           promised.
 * Failure:  aborts when there is no memory for the array: it grows to the highest number of timers
 *           ever set at once.
 * Bounds:   as many timers as their owners; each operation is O(log n).
 * Tests:    tests/unit/test_timer.c
 */
#include "gateway/base/timer.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

#define TIMER_HEAP_FIRST 256u

void timer_heap_init(struct timer_heap *h)
{
    *h = (struct timer_heap){0};
}

void timer_heap_destroy(struct timer_heap *h)
{
    free(h->items);
    *h = (struct timer_heap){0};
}

static void heap_put(struct timer_heap *h, uint32_t at, struct timer *t)
{
    h->items[at] = t;
    t->heap_index = at + 1;
}

static void heap_up(struct timer_heap *h, uint32_t at, struct timer *t)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (h->items[parent]->deadline_ns <= t->deadline_ns)
            break;
        heap_put(h, at, h->items[parent]);
        at = parent;
    }
    heap_put(h, at, t);
}

static void heap_down(struct timer_heap *h, uint32_t at, struct timer *t)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->items[child + 1]->deadline_ns < h->items[child]->deadline_ns)
            child++;
        if (t->deadline_ns <= h->items[child]->deadline_ns)
            break;
        heap_put(h, at, h->items[child]);
        at = child;
    }
    heap_put(h, at, t);
}

/* Puts a timer whose place is `at` where its deadline belongs. */
static void heap_place(struct timer_heap *h, uint32_t at, struct timer *t)
{
    if (at > 0 && t->deadline_ns < h->items[(at - 1) / 2]->deadline_ns)
        heap_up(h, at, t);
    else
        heap_down(h, at, t);
}

static void heap_grow(struct timer_heap *h)
{
    uint32_t capacity = h->capacity ? h->capacity * 2 : TIMER_HEAP_FIRST;
    struct timer **items = realloc(h->items, (size_t)capacity * sizeof *items);

    if (!items)
        abort();
    h->items = items;
    h->capacity = capacity;
}

void timer_heap_set(struct timer_heap *h, struct timer *t, uint64_t deadline_ns)
{
    assert(t->fire);
    t->deadline_ns = deadline_ns;
    if (timer_is_set(t)) {
        assert(t->heap_index <= h->count && h->items[t->heap_index - 1] == t);
        heap_place(h, t->heap_index - 1, t);
        return;
    }
    if (h->count == h->capacity)
        heap_grow(h);
    heap_up(h, h->count++, t);
}

void timer_heap_clear(struct timer_heap *h, struct timer *t)
{
    uint32_t at = t->heap_index;

    if (at-- == 0)
        return;
    assert(at < h->count && h->items[at] == t);
    t->heap_index = 0;
    h->count--;
    if (at != h->count)
        heap_place(h, at, h->items[h->count]);
}

uint64_t timer_heap_next(const struct timer_heap *h)
{
    return h->count ? h->items[0]->deadline_ns : UINT64_MAX;
}

struct timer *timer_heap_pop(struct timer_heap *h, uint64_t now_ns)
{
    struct timer *t;

    if (h->count == 0 || h->items[0]->deadline_ns > now_ns)
        return NULL;
    t = h->items[0];
    timer_heap_clear(h, t);
    return t;
}
