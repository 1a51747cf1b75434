/*
 * tests/unit/test_backlog.c - gateway/backlog.c.
 */
#include <criterion/criterion.h>

#include "gateway/backlog.h"

Test(backlog, order_survives_growth_and_wrap)
{
    struct backlog *b = backlog_create();
    uint64_t next_in = 1, next_out = 1, qid;
    cr_assert(backlog_empty(b));
    cr_assert_not(backlog_pop(b, &qid));
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 37; i++)
            cr_assert(backlog_push(b, next_in++));
        for (int i = 0; i < 23; i++) {
            cr_assert(backlog_pop(b, &qid));
            cr_assert_eq(qid, next_out++);
        }
    }
    while (backlog_pop(b, &qid))
        cr_assert_eq(qid, next_out++);
    cr_assert_eq(next_in, next_out);
    cr_assert(backlog_empty(b));
    backlog_destroy(b);
}
