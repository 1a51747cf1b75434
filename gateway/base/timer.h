/*
 * gateway/base/timer.h - deadlines of one thread: a binary heap of timers embedded in their owners.
 *
 * Pure: the caller says what time it is. Used by both backends of io.h and by the queue's schedule
 *       tests.
 */
#ifndef HIKYAKU_BASE_TIMER_H
#define HIKYAKU_BASE_TIMER_H

#include <stdbool.h>
#include <stdint.h>

struct timer {
    uint64_t deadline_ns;
    uint32_t heap_index; /* position + 1; 0: not set */
    void (*fire)(struct timer *t);
};

struct timer_heap {
    struct timer **items;
    uint32_t count, capacity;
};

void timer_heap_init(struct timer_heap *h);
void timer_heap_destroy(struct timer_heap *h);
/*
 * Sets or moves a timer; t->fire must be set. Aborts when memory for the heap's array runs out
 * (start-up sized).
 */
void timer_heap_set(struct timer_heap *h, struct timer *t, uint64_t deadline_ns);
/* Clears a timer; nothing happens when it is not set. */
void timer_heap_clear(struct timer_heap *h, struct timer *t);
/* UINT64_MAX when there is none. */
uint64_t timer_heap_next(const struct timer_heap *h);
/* Takes the earliest timer whose deadline is <= now_ns off the heap, or returns NULL. */
struct timer *timer_heap_pop(struct timer_heap *h, uint64_t now_ns);

static inline bool timer_is_set(const struct timer *t)
{
    return t->heap_index != 0;
}

#endif
