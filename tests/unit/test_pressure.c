/*
 * tests/unit/test_pressure.c - levels of back pressure and where they begin and end.
 */
#include <criterion/criterion.h>

#include "gateway/limits.h"
#include "gateway/pressure.h"

/* The level for each of these, one after the other. */
static void walk(const struct pressure_rule *rule, const uint64_t *left, const char *wanted)
{
    struct pressure p = {0};

    for (unsigned i = 0; wanted[i]; i++) {
        enum pressure_level got = pressure_update(&p, PRESSURE_SPOOL, left[i], rule);
        cr_assert_eq("nmh"[got], wanted[i], "step %u: %lu left gives %s", i, left[i],
                     pressure_level_name(got));
    }
}

Test(pressure, begins_and_ends_with_hysteresis)
{
    struct pressure_rule rule = pressure_rule_of(1000);
    static const uint64_t left[] = {1000, 201, 200, 199, 201, 299, 300, 199,  51, 50, 49,
                                    51,   99,  100, 299, 300, 0,   300, 1000, 99, 49};

    walk(&rule, left, "nnnmmmnmmmhhhmmnhnnmh");
}

Test(pressure, marks_of_a_disk)
{
    struct pressure_rule disk = pressure_rule_disk(), inodes = pressure_rule_inodes();

    cr_assert(disk.high < disk.high_end && disk.high_end <= disk.medium &&
              disk.medium < disk.medium_end);
    cr_assert(inodes.high < inodes.high_end && inodes.high_end <= inodes.medium &&
              inodes.medium < inodes.medium_end);
    cr_assert_geq(disk.medium, SEGMENT_BYTES_DEFAULT, "another segment is to fit");
    walk(&disk, (const uint64_t[]){100 * GIB, 0, 100 * GIB}, "nhn");
}

Test(pressure, worst_is_named)
{
    struct pressure p = {0};
    struct pressure_rule rule = pressure_rule_of(100);
    enum pressure_resource which = PRESSURE_SPOOL;

    cr_assert_eq(pressure_worst(&p, &which), PRESSURE_NORMAL);
    pressure_update(&p, PRESSURE_QUEUE, 15, &rule);
    pressure_update(&p, PRESSURE_DISK, 50, &rule);
    cr_assert_eq(pressure_worst(&p, &which), PRESSURE_MEDIUM);
    cr_assert_str_eq(pressure_resource_name(which), "queue");
    pressure_update(&p, PRESSURE_MEMORY, 0, &rule);
    cr_assert_eq(pressure_worst(&p, &which), PRESSURE_HIGH);
    cr_assert_str_eq(pressure_resource_name(which), "memory");
    cr_assert_eq(pressure_worst(&p, NULL), PRESSURE_HIGH);
}

Test(pressure, large_limits_do_not_overflow)
{
    struct pressure_rule rule = pressure_rule_of(UINT64_MAX);

    cr_assert(rule.high < rule.high_end && rule.high_end < rule.medium &&
              rule.medium < rule.medium_end);
}
