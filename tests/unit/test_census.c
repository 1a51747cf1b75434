/*
 * tests/unit/test_census.c - records left to be replayed, by message.
 */
#include <criterion/criterion.h>

#include "queue/census.h"

Test(census, counts_down_to_none)
{
    struct census c = {0};

    cr_assert_eq(census_left(&c, 7), 0);
    cr_assert_eq(census_take(&c, 7), 0);
    census_add(&c, 7);
    census_add(&c, 7);
    census_add(&c, 8);
    cr_assert_eq(census_left(&c, 7), 2);
    cr_assert_eq(census_take(&c, 7), 1);
    cr_assert_eq(census_take(&c, 7), 0);
    cr_assert_eq(census_take(&c, 7), 0, "no more than there were");
    cr_assert_eq(census_left(&c, 8), 1);
    cr_assert_eq(census_left(&c, 9), 0);
    census_free(&c);
}

Test(census, grows)
{
    enum { COUNT = 100000 };
    struct census c = {0};

    for (uint64_t i = 1; i <= COUNT; i++)
        for (uint64_t n = 0; n < i % 3 + 1; n++)
            census_add(&c, i << 20);
    for (uint64_t i = 1; i <= COUNT; i++)
        cr_assert_eq(census_left(&c, i << 20), i % 3 + 1);
    cr_assert_eq(census_left(&c, 5), 0);
    census_free(&c);
}

Test(census, without_memory_nothing_is_complete)
{
    struct census c = {.lost = true};

    census_add(&c, 1);
    cr_assert_neq(census_left(&c, 1), 0);
    cr_assert_neq(census_take(&c, 1), 0);
    cr_assert_neq(census_left(&c, 2), 0);
}
