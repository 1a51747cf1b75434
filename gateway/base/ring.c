/*
 * gateway/base/ring.c - bounded lock-free rings between one producer and one consumer.
 *
 * Owns:     the ring's memory. head is written by the consumer alone, tail by the producer alone;
 *           each side keeps a copy of the other's index and looks at the shared one only when the
 *           copy says full or empty.
 * Runs on:  one producing and one consuming thread.
 * Contract: indexes run freely and wrap; what lies between head and tail belongs to the consumer.
 *           Both indexes of ring_msg are stored and loaded sequentially consistent, so that of a
 *           consumer that finds the ring empty and a producer that asks ring_msg_was_empty at the
 *           same time at least one sees the other: no item waits for a wake-up that nobody sends.
 * Failure:  false when full or empty; never blocks.
 * Bounds:   capacity, a power of two up to 2^30.
 * Tests:    tests/unit/test_ring.c (also under ThreadSanitizer)
 */
#include "gateway/base/ring.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_LINE   64
#define CAPACITY_MAX (1u << 30)

struct ring_indexes {
    _Alignas(CACHE_LINE) atomic_uint head; /* consumer's line */
    uint32_t tail_seen;
    _Alignas(CACHE_LINE) atomic_uint tail; /* producer's line */
    uint32_t head_seen;
};

struct ring_msg {
    struct ring_indexes at;
    _Alignas(CACHE_LINE) uint32_t mask;
    struct ring_item items[];
};

struct ring_bytes {
    struct ring_indexes at;
    _Alignas(CACHE_LINE) uint32_t mask;
    uint8_t bytes[];
};

static uint32_t power_of_two_above(uint32_t n)
{
    uint32_t p = 1;

    assert(n > 0 && n <= CAPACITY_MAX);
    while (p < n)
        p <<= 1;
    return p;
}

static void *ring_memory(size_t header, uint32_t capacity, size_t item_size)
{
    size_t len = header + capacity * item_size;
    void *p;

    len = (len + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
    p = aligned_alloc(CACHE_LINE, len);
    if (p)
        memset(p, 0, header); /* the rest is touched when it is used */
    return p;
}

struct ring_msg *ring_msg_create(uint32_t capacity)
{
    uint32_t size = power_of_two_above(capacity);
    struct ring_msg *r = ring_memory(sizeof *r, size, sizeof r->items[0]);

    if (r)
        r->mask = size - 1;
    return r;
}

void ring_msg_destroy(struct ring_msg *r)
{
    free(r);
}

bool ring_msg_push(struct ring_msg *r, const struct ring_item *item)
{
    uint32_t tail = atomic_load_explicit(&r->at.tail, memory_order_relaxed);

    if (tail - r->at.head_seen > r->mask) {
        r->at.head_seen = atomic_load(&r->at.head);
        if (tail - r->at.head_seen > r->mask)
            return false;
    }
    r->items[tail & r->mask] = *item;
    atomic_store(&r->at.tail, tail + 1);
    return true;
}

bool ring_msg_pop(struct ring_msg *r, struct ring_item *item)
{
    uint32_t head = atomic_load_explicit(&r->at.head, memory_order_relaxed);

    if (head == r->at.tail_seen) {
        r->at.tail_seen = atomic_load(&r->at.tail);
        if (head == r->at.tail_seen)
            return false;
    }
    *item = r->items[head & r->mask];
    atomic_store(&r->at.head, head + 1);
    return true;
}

bool ring_msg_was_empty(const struct ring_msg *r)
{
    /*
     * Called by the producer after its push. Head at the pushed item: the consumer took all before
     * it, and may sleep.
     */
    uint32_t tail = atomic_load_explicit(&r->at.tail, memory_order_relaxed);

    return atomic_load(&r->at.head) == tail - 1;
}

struct ring_bytes *ring_bytes_create(uint32_t capacity)
{
    uint32_t size = power_of_two_above(capacity);
    struct ring_bytes *r = ring_memory(sizeof *r, size, 1);

    if (r)
        r->mask = size - 1;
    return r;
}

void ring_bytes_destroy(struct ring_bytes *r)
{
    free(r);
}

bool ring_bytes_write(struct ring_bytes *r, const void *data, uint32_t len)
{
    uint32_t tail = atomic_load_explicit(&r->at.tail, memory_order_relaxed);
    uint32_t size = r->mask + 1, at = tail & r->mask, first;

    if (size - (tail - r->at.head_seen) < len) {
        r->at.head_seen = atomic_load_explicit(&r->at.head, memory_order_acquire);
        if (size - (tail - r->at.head_seen) < len)
            return false;
    }
    if (len == 0)
        return true;
    first = len < size - at ? len : size - at;
    memcpy(r->bytes + at, data, first);
    memcpy(r->bytes, (const uint8_t *)data + first, len - first);
    atomic_store_explicit(&r->at.tail, tail + len, memory_order_release);
    return true;
}

uint32_t ring_bytes_read(struct ring_bytes *r, void *data, uint32_t len)
{
    uint32_t head = atomic_load_explicit(&r->at.head, memory_order_relaxed);
    uint32_t size = r->mask + 1, at = head & r->mask, there, first;

    r->at.tail_seen = atomic_load_explicit(&r->at.tail, memory_order_acquire);
    there = r->at.tail_seen - head;
    if (len > there)
        len = there;
    if (len == 0)
        return 0;
    first = len < size - at ? len : size - at;
    memcpy(data, r->bytes + at, first);
    memcpy((uint8_t *)data + first, r->bytes, len - first);
    atomic_store_explicit(&r->at.head, head + len, memory_order_release);
    return len;
}

bool ring_bytes_empty(const struct ring_bytes *r)
{
    return atomic_load_explicit(&r->at.head, memory_order_acquire) ==
           atomic_load_explicit(&r->at.tail, memory_order_acquire);
}
