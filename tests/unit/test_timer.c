/*
 * tests/unit/test_timer.c - gateway/base/timer.c: deadlines.
 */
#include <criterion/criterion.h>

#include "gateway/base/prng.h"
#include "gateway/base/timer.h"

static void nothing(struct timer *t)
{
    (void)t;
}

Test(timer, pops_in_order_and_only_what_is_due)
{
    struct timer a = {.fire = nothing}, b = a, c = a;
    struct timer_heap h;

    timer_heap_init(&h);
    cr_assert_eq(timer_heap_next(&h), UINT64_MAX);
    cr_assert_null(timer_heap_pop(&h, UINT64_MAX));
    timer_heap_set(&h, &a, 30);
    timer_heap_set(&h, &b, 10);
    timer_heap_set(&h, &c, 20);
    cr_assert_eq(timer_heap_next(&h), 10);
    cr_assert_null(timer_heap_pop(&h, 9));
    cr_assert_eq(timer_heap_pop(&h, 10), &b);
    cr_assert_not(timer_is_set(&b));
    cr_assert_eq(timer_heap_pop(&h, 100), &c);
    cr_assert_eq(timer_heap_pop(&h, 100), &a);
    cr_assert_null(timer_heap_pop(&h, 100));
    timer_heap_destroy(&h);
}

Test(timer, moves_and_clears)
{
    struct timer a = {.fire = nothing}, b = a;
    struct timer_heap h;

    timer_heap_init(&h);
    timer_heap_clear(&h, &a);
    timer_heap_set(&h, &a, 30);
    timer_heap_set(&h, &b, 20);
    timer_heap_set(&h, &a, 10);
    cr_assert_eq(timer_heap_next(&h), 10);
    timer_heap_set(&h, &a, 40);
    cr_assert_eq(timer_heap_next(&h), 20);
    cr_assert_eq(h.count, 2);
    timer_heap_clear(&h, &b);
    timer_heap_clear(&h, &b);
    cr_assert_not(timer_is_set(&b));
    cr_assert_eq(timer_heap_pop(&h, 40), &a);
    timer_heap_destroy(&h);
}

Test(timer, agrees_with_a_plain_search_over_many_random_steps)
{
    enum { COUNT = 700 };
    static struct timer t[COUNT];
    struct timer_heap h;
    struct prng p;
    uint64_t now = 0;

    timer_heap_init(&h);
    prng_seed(&p, 11);
    for (int i = 0; i < COUNT; i++)
        t[i].fire = nothing;
    for (int step = 0; step < 20000; step++) {
        uint64_t least = UINT64_MAX;
        struct timer *one = &t[prng_below(&p, COUNT)], *due;
        uint32_t set = 0;

        if (prng_below(&p, 4) == 0)
            timer_heap_clear(&h, one);
        else
            timer_heap_set(&h, one, now + prng_below(&p, 1000));
        for (int i = 0; i < COUNT; i++) {
            set += timer_is_set(&t[i]);
            if (timer_is_set(&t[i]) && t[i].deadline_ns < least)
                least = t[i].deadline_ns;
        }
        cr_assert_eq(h.count, set);
        cr_assert_eq(timer_heap_next(&h), least);
        if (prng_below(&p, 3) == 0) {
            now += prng_below(&p, 10);
            due = timer_heap_pop(&h, now);
            if (least <= now)
                cr_assert(due && due->deadline_ns == least && !timer_is_set(due));
            else
                cr_assert_null(due);
        }
    }
    timer_heap_destroy(&h);
}
