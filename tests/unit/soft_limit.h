/*
 * tests/unit/soft_limit.h - a limit of the process, set and put back by a test.
 */
#ifndef HIKYAKU_TESTS_SOFT_LIMIT_H
#define HIKYAKU_TESTS_SOFT_LIMIT_H

#include <criterion/criterion.h>
#include <sys/resource.h>

/* Of RLIMIT_*; gives back what it was. */
static inline rlim_t soft_limit(int what, rlim_t to)
{
    struct rlimit r;
    rlim_t before;

    cr_assert_eq(getrlimit(what, &r), 0);
    before = r.rlim_cur;
    r.rlim_cur = to;
    cr_assert_eq(setrlimit(what, &r), 0);
    return before;
}

#endif
