/*
 * tests/unit/test_ring.c - gateway/base/ring.c: rings between two threads; meant to run under
 * ThreadSanitizer too.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "gateway/base/prng.h"
#include "gateway/base/ring.h"

Test(ring, msg_keeps_order_and_says_full_and_empty)
{
    struct ring_msg *r = ring_msg_create(5); /* rounded up to 8 */
    struct ring_item item = {.kind = 1}, got;

    cr_assert_not(ring_msg_pop(r, &got));
    for (uint64_t round = 0; round < 10; round++) {
        for (uint64_t i = 0; i < 8; i++) {
            item.a = round * 100 + i;
            cr_assert(ring_msg_push(r, &item));
            cr_assert_eq(ring_msg_was_empty(r), i == 0);
        }
        cr_assert_not(ring_msg_push(r, &item));
        for (uint64_t i = 0; i < 8; i++) {
            cr_assert(ring_msg_pop(r, &got));
            cr_assert_eq(got.a, round * 100 + i);
            cr_assert_eq(got.kind, 1);
        }
        cr_assert_not(ring_msg_pop(r, &got));
    }
    ring_msg_destroy(r);
}

/*
 * A consumer that "sleeps" until it is woken: a lost wake-up shows as a consumer that never gets
 * on.
 */
#define ITEMS 200000u
struct two {
    struct ring_msg *msg;
    struct ring_bytes *bytes;
    atomic_uint wakes;
};

static void *produce_items(void *arg)
{
    struct two *t = arg;

    for (uint64_t i = 0; i < ITEMS; i++) {
        struct ring_item item = {.kind = 7, .a = i, .d = ~i};
        while (!ring_msg_push(t->msg, &item))
            sched_yield();
        if (ring_msg_was_empty(t->msg))
            atomic_fetch_add(&t->wakes, 1);
    }
    return NULL;
}

Test(ring, msg_loses_nothing_between_two_threads, .timeout = 60)
{
    struct two t = {.msg = ring_msg_create(16)};
    struct ring_item got;
    uint64_t expected = 0;
    uint32_t wakes_seen = 0;
    pthread_t producer;

    cr_assert_eq(pthread_create(&producer, NULL, produce_items, &t), 0);
    while (expected < ITEMS) {
        while (ring_msg_pop(t.msg, &got)) {
            cr_assert_eq(got.kind, 7);
            cr_assert_eq(got.a, expected);
            cr_assert_eq(got.d, ~expected);
            expected++;
        }
        if (expected == ITEMS)
            break;
        /* Asleep: whatever comes now must announce itself. */
        while (atomic_load(&t.wakes) == wakes_seen)
            sched_yield();
        wakes_seen = atomic_load(&t.wakes);
    }
    pthread_join(producer, NULL);
    cr_assert_not(ring_msg_pop(t.msg, &got));
    ring_msg_destroy(t.msg);
}

Test(ring, bytes_writes_all_or_nothing)
{
    struct ring_bytes *r = ring_bytes_create(16);
    char out[32];

    cr_assert(ring_bytes_empty(r));
    cr_assert_eq(ring_bytes_read(r, out, sizeof out), 0);
    cr_assert_not(ring_bytes_write(r, "12345678901234567", 17));
    cr_assert(ring_bytes_empty(r));
    for (int round = 0; round < 20; round++) { /* every position of the wrap */
        cr_assert(ring_bytes_write(r, "abcdefghijk", 11));
        cr_assert_not(ring_bytes_write(r, "123456", 6));
        cr_assert(ring_bytes_write(r, "12345", 5));
        cr_assert_not(ring_bytes_empty(r));
        cr_assert_eq(ring_bytes_read(r, out, 3), 3);
        cr_assert_eq(memcmp(out, "abc", 3), 0);
        cr_assert_eq(ring_bytes_read(r, out, sizeof out), 13);
        cr_assert_eq(memcmp(out, "defghijk12345", 13), 0);
    }
    cr_assert(ring_bytes_write(r, "", 0));
    ring_bytes_destroy(r);
}

#define BYTES (1u << 20)

static void *produce_bytes(void *arg)
{
    struct two *t = arg;
    uint8_t line[64];
    uint32_t sent = 0;
    struct prng p;

    prng_seed(&p, 3);
    while (sent < BYTES) {
        uint32_t len = (uint32_t)prng_below(&p, sizeof line) + 1;
        if (len > BYTES - sent)
            len = BYTES - sent;
        for (uint32_t i = 0; i < len; i++)
            line[i] = (uint8_t)((sent + i) * 31);
        while (!ring_bytes_write(t->bytes, line, len))
            sched_yield();
        sent += len;
    }
    return NULL;
}

Test(ring, bytes_loses_nothing_between_two_threads, .timeout = 60)
{
    struct two t = {.bytes = ring_bytes_create(256)};
    uint8_t out[100];
    uint32_t got = 0, n;
    pthread_t producer;

    cr_assert_eq(pthread_create(&producer, NULL, produce_bytes, &t), 0);
    while (got < BYTES) {
        n = ring_bytes_read(t.bytes, out, sizeof out);
        if (n == 0)
            sched_yield();
        for (uint32_t i = 0; i < n; i++)
            cr_assert_eq(out[i], (uint8_t)((got + i) * 31));
        got += n;
    }
    pthread_join(producer, NULL);
    cr_assert(ring_bytes_empty(t.bytes));
    ring_bytes_destroy(t.bytes);
}
