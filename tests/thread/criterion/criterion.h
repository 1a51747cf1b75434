/*
 * tests/thread/criterion/criterion.h - the part of Criterion that runs under ThreadSanitizer.
 *
 * Criterion runs each test in a process it maps its own heap into, which ThreadSanitizer's address
 * space does not allow. SAN=thread builds find this header first: same macros, one process, one
 * thread that starts the tests, the same closing line. Tests that expect a signal or an exit status
 * are left out, parameterized tests too.
 */
#ifndef HIKYAKU_TESTS_THREAD_CRITERION_H
#define HIKYAKU_TESTS_THREAD_CRITERION_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cr_options {
    char unused; /* set by the macros, so that an option given there is set once only */
    void (*init)(void);
    void (*fini)(void);
    double timeout;
    int signal;
    int exit_code;
    bool disabled;
    const char *description;
};

struct cr_test {
    const char *suite, *name;
    void (*run)(void);
    struct cr_options options;
    struct cr_test *next;
};

/* Weak: every file of a test program includes this, helpers too. */
#define CR_SHARED __attribute__((weak))
CR_SHARED struct cr_test *cr_first;
CR_SHARED struct cr_test **cr_last = &cr_first;
CR_SHARED struct cr_options cr_suite_options;
CR_SHARED jmp_buf cr_escape;
CR_SHARED bool cr_failing;

#define Test(suite_, name_, ...)                                                     \
    static void suite_##_##name_##_body(void);                                       \
    static struct cr_test suite_##_##name_##_test = {                                \
        #suite_, #name_, suite_##_##name_##_body, {.unused = 0, __VA_ARGS__}, NULL}; \
    __attribute__((constructor)) static void suite_##_##name_##_add(void)            \
    {                                                                                \
        *cr_last = &suite_##_##name_##_test;                                         \
        cr_last = &suite_##_##name_##_test.next;                                     \
    }                                                                                \
    static void suite_##_##name_##_body(void)

#define TestSuite(suite_, ...)                                            \
    __attribute__((constructor)) static void suite_##_options(void)       \
    {                                                                     \
        cr_suite_options = (struct cr_options){.unused = 0, __VA_ARGS__}; \
    }                                                                     \
    struct cr_test

__attribute__((noinline, unused, format(printf, 5, 6))) static void cr_failed(
    const char *file, int line, const char *what, bool fatal, const char *format, ...)
{
    va_list words;

    cr_failing = true;
    printf("%s:%d: %s", file, line, what);
    va_start(words, format);
    vprintf(format, words);
    va_end(words);
    putchar('\n');
    fflush(stdout);
    if (fatal)
        longjmp(cr_escape, 1);
}

/* With the words of the test, if it has any: what only they name is used so, as it is there. */
#define cr_check_(ok, what, fatal, ...)                                  \
    do {                                                                 \
        if (!(ok))                                                       \
            cr_failed(__FILE__, __LINE__, what, fatal, " " __VA_ARGS__); \
    } while (0)

#define cr_assert(c, ...)          cr_check_((c), #c, true, __VA_ARGS__)
#define cr_expect(c, ...)          cr_check_((c), #c, false, __VA_ARGS__)
#define cr_assert_not(c, ...)      cr_check_(!(c), "not " #c, true, __VA_ARGS__)
#define cr_expect_not(c, ...)      cr_check_(!(c), "not " #c, false, __VA_ARGS__)
#define cr_assert_eq(a, b, ...)    cr_check_((a) == (b), #a " == " #b, true, __VA_ARGS__)
#define cr_expect_eq(a, b, ...)    cr_check_((a) == (b), #a " == " #b, false, __VA_ARGS__)
#define cr_assert_neq(a, b, ...)   cr_check_((a) != (b), #a " != " #b, true, __VA_ARGS__)
#define cr_expect_neq(a, b, ...)   cr_check_((a) != (b), #a " != " #b, false, __VA_ARGS__)
#define cr_assert_lt(a, b, ...)    cr_check_((a) < (b), #a " < " #b, true, __VA_ARGS__)
#define cr_expect_lt(a, b, ...)    cr_check_((a) < (b), #a " < " #b, false, __VA_ARGS__)
#define cr_assert_gt(a, b, ...)    cr_check_((a) > (b), #a " > " #b, true, __VA_ARGS__)
#define cr_expect_gt(a, b, ...)    cr_check_((a) > (b), #a " > " #b, false, __VA_ARGS__)
#define cr_assert_leq(a, b, ...)   cr_check_((a) <= (b), #a " <= " #b, true, __VA_ARGS__)
#define cr_expect_leq(a, b, ...)   cr_check_((a) <= (b), #a " <= " #b, false, __VA_ARGS__)
#define cr_assert_geq(a, b, ...)   cr_check_((a) >= (b), #a " >= " #b, true, __VA_ARGS__)
#define cr_expect_geq(a, b, ...)   cr_check_((a) >= (b), #a " >= " #b, false, __VA_ARGS__)
#define cr_assert_null(a, ...)     cr_check_((a) == NULL, #a " is null", true, __VA_ARGS__)
#define cr_expect_null(a, ...)     cr_check_((a) == NULL, #a " is null", false, __VA_ARGS__)
#define cr_assert_not_null(a, ...) cr_check_((a) != NULL, #a " is not null", true, __VA_ARGS__)
#define cr_expect_not_null(a, ...) cr_check_((a) != NULL, #a " is not null", false, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) \
    cr_check_(strcmp((a), (b)) == 0, #a " equals the string " #b, true, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) \
    cr_check_(strcmp((a), (b)) == 0, #a " equals the string " #b, false, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) \
    cr_check_(strcmp((a), (b)) != 0, #a " differs from the string " #b, true, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) \
    cr_check_(strcmp((a), (b)) != 0, #a " differs from the string " #b, false, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) \
    cr_check_(memcmp((a), (b), (n)) == 0, #a " has the bytes of " #b, true, __VA_ARGS__)
#define cr_expect_arr_eq(a, b, n, ...) \
    cr_check_(memcmp((a), (b), (n)) == 0, #a " has the bytes of " #b, false, __VA_ARGS__)
#define cr_assert_float_eq(a, b, off, ...) \
    cr_check_((a) - (b) <= (off) && (b) - (a) <= (off), #a " is about " #b, true, __VA_ARGS__)
#define cr_expect_float_eq(a, b, off, ...) \
    cr_check_((a) - (b) <= (off) && (b) - (a) <= (off), #a " is about " #b, false, __VA_ARGS__)
#define cr_assert_fail(...) cr_check_(false, "failed", true, __VA_ARGS__)
#define cr_expect_fail(...) cr_check_(false, "failed", false, __VA_ARGS__)
#define cr_fatal(...)       cr_check_(false, "failed", true, __VA_ARGS__)
#define cr_skip_test(...)   longjmp(cr_escape, 1)
#define cr_skip(...)        longjmp(cr_escape, 1)
#define cr_log_info(...)    ((void)0)
#define cr_log_warn(...)    ((void)0)

CR_SHARED bool cr_run(const struct cr_test *test)
{
    cr_failing = false;
    if (setjmp(cr_escape) == 0) {
        if (cr_suite_options.init != NULL)
            cr_suite_options.init();
        if (test->options.init != NULL)
            test->options.init();
        test->run();
        if (test->options.fini != NULL)
            test->options.fini();
        if (cr_suite_options.fini != NULL)
            cr_suite_options.fini();
    }
    if (cr_failing)
        printf("[FAIL] %s::%s\n", test->suite, test->name);
    return !cr_failing;
}

CR_SHARED int main(int argc, char **argv)
{
    int tested = 0, passing = 0;

    for (const struct cr_test *test = cr_first; test != NULL; test = test->next) {
        if (test->options.signal != 0 || test->options.exit_code != 0 || test->options.disabled)
            continue;
        if (argc > 1 && strcmp(argv[1], test->name) != 0)
            continue;
        tested++;
        passing += cr_run(test);
    }
    printf("[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: 0\n", tested,
           passing, tested - passing);
    return tested == passing ? 0 : 1;
}

#endif
