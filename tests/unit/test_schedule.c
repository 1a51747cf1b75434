/*
 * tests/unit/test_schedule.c - the heap of next attempts, against sorting.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/base/prng.h"
#include "queue/schedule.h"

Test(schedule, gives_in_order_of_time)
{
    enum { COUNT = 5000 };
    struct queue_msg *m = calloc(COUNT, sizeof *m);
    struct schedule s = {0};
    struct prng rng;
    uint64_t last = 0, last_qid = 0;
    uint32_t seen = 0;

    prng_seed(&rng, 1);
    cr_assert(schedule_reserve(&s, COUNT));
    for (uint32_t i = 0; i < COUNT; i++) {
        m[i].qid = i + 1;
        m[i].next_attempt_wall_s = prng_below(&rng, 1000);
        schedule_set(&s, &m[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t which = (uint32_t)prng_below(&rng, COUNT);
        if (i % 3 == 0) {
            schedule_clear(&s, &m[which]);
        } else {
            m[which].next_attempt_wall_s = prng_below(&rng, 1000);
            schedule_set(&s, &m[which]);
        }
    }
    for (uint32_t i = 0; i < COUNT; i++)
        seen += m[i].schedule_index != 0;
    cr_assert_eq(s.count, seen);
    for (struct queue_msg *x; (x = schedule_pop(&s, 2000)) != NULL; seen--) {
        cr_assert(x->next_attempt_wall_s > last ||
                  (x->next_attempt_wall_s == last && x->qid > last_qid));
        cr_assert_eq(x->schedule_index, 0);
        last = x->next_attempt_wall_s;
        last_qid = x->qid;
    }
    cr_assert_eq(seen, 0);
    cr_assert_null(schedule_first(&s));
    schedule_destroy(&s);
    free(m);
}

Test(schedule, nothing_before_its_time)
{
    struct queue_msg m = {.qid = 1, .next_attempt_wall_s = 100};
    struct schedule s = {0};

    cr_assert(schedule_reserve(&s, 1));
    schedule_clear(&s, &m);
    schedule_set(&s, &m);
    cr_assert_null(schedule_pop(&s, 99));
    cr_assert_eq(schedule_first(&s), &m);
    cr_assert_eq(schedule_pop(&s, 100), &m);
    cr_assert_null(schedule_pop(&s, 100));
    schedule_destroy(&s);
}
