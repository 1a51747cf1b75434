/*
 * tests/unit/test_bench_reply.c - replies as a client reads them, whole and byte by byte.
 *
 * Owns:     nothing.
 * Runs on:  the test's process.
 * Contract: each test fails when bench/reply.c takes a wrong reply or misses a right one.
 * Failure:  Criterion reports it.
 * Bounds:   none.
 * Tests:    bench/reply.c
 */
#include <criterion/criterion.h>
#include <string.h>

#include "bench/reply.h"

static struct bench_reply reply;

/* The result for text in parts of step bytes; *taken: bytes used. */
static enum bench_reply_result feed(const char *text, size_t step, size_t *taken)
{
    size_t count = strlen(text);
    enum bench_reply_result result = BENCH_REPLY_NEED_MORE;
    bench_reply_init(&reply);
    *taken = 0;
    while (*taken < count && result == BENCH_REPLY_NEED_MORE) {
        size_t used = 0, part = count - *taken < step ? count - *taken : step;
        result = bench_reply_feed(&reply, text + *taken, part, &used);
        *taken += used;
    }
    return result;
}

Test(bench_reply, good_ones)
{
    static const struct {
        const char *text;
        int code;
        const char *kept;
        size_t taken;
    } cases[] = {
        {"250 ok\r\n", 250, "ok\n", 8},
        {"250\r\n", 250, "\n", 5},
        {"250 \r\n", 250, "\n", 6},
        {"250-a\r\n250-SIZE 10\r\n250 c\r\nnext", 250, "a\nSIZE 10\nc\n", 27},
        {"354 go\r\n250 early\r\n", 354, "go\n", 8},
        {"599 x\r\n", 599, "x\n", 7},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step <= strlen(cases[i].text); step++) {
            size_t taken = 0;
            cr_assert_eq(feed(cases[i].text, step, &taken), BENCH_REPLY_DONE, "%s", cases[i].text);
            cr_assert_eq(reply.code, cases[i].code);
            cr_assert_str_eq(reply.text, cases[i].kept);
            cr_assert_eq(taken, cases[i].taken);
        }
    }
}

Test(bench_reply, bad_ones)
{
    static const char *const cases[] = {"25 ok\r\n",          "250 ok\n",  "abc\r\n",  "\r\n",
                                        "150 x\r\n",          "650 x\r\n", "2500\r\n", "250_x\r\n",
                                        "250-a\r\n251 b\r\n", "2x0 ok\r\n"};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step <= strlen(cases[i]); step++) {
            size_t taken = 0;
            cr_assert_eq(feed(cases[i], step, &taken), BENCH_REPLY_BAD, "%s", cases[i]);
        }
    }
}

Test(bench_reply, unfinished_ones_wait)
{
    static const char *const cases[] = {"250 ok\r", "250-a\r\n", "2", "250-a\r\n250"};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t taken = 0;
        cr_assert_eq(feed(cases[i], 1, &taken), BENCH_REPLY_NEED_MORE);
        cr_assert_eq(taken, strlen(cases[i]));
    }
}

Test(bench_reply, an_endless_line_is_bad)
{
    static char line[BENCH_REPLY_LINE_MAX + 10];
    size_t taken = 0;
    memset(line, 'x', sizeof(line) - 1);
    memcpy(line, "250 ", 4);
    cr_assert_eq(feed(line, 100, &taken), BENCH_REPLY_BAD);
}

Test(bench_reply, long_text_is_cut_not_overrun)
{
    size_t used = 0;
    bench_reply_init(&reply);
    for (int i = 0; i < 200; i++)
        cr_assert_eq(bench_reply_feed(&reply, "250-0123456789\r\n", 16, &used),
                     BENCH_REPLY_NEED_MORE);
    cr_assert_eq(bench_reply_feed(&reply, "250 end\r\n", 9, &used), BENCH_REPLY_DONE);
    cr_assert_eq(strlen(reply.text), reply.text_count);
    cr_assert_lt(reply.text_count, sizeof(reply.text));
}

Test(bench_reply, keywords)
{
    size_t taken = 0;
    cr_assert_eq(feed("250-host STARTTLS2\r\n250-PIPELINING\r\n250-AUTH LOGIN PLAIN\r\n"
                      "250-AUTH=CRAM-MD5\r\n250 size 10\r\n",
                      1000, &taken),
                 BENCH_REPLY_DONE);
    cr_assert(bench_reply_has_keyword(&reply, "PIPELINING", NULL));
    cr_assert(bench_reply_has_keyword(&reply, "SIZE", NULL));
    cr_assert(bench_reply_has_keyword(&reply, "AUTH", "PLAIN"));
    cr_assert(bench_reply_has_keyword(&reply, "AUTH", "LOGIN"));
    cr_assert(bench_reply_has_keyword(&reply, "AUTH", "CRAM-MD5"));
    cr_assert_not(bench_reply_has_keyword(&reply, "AUTH", "PLA"));
    cr_assert_not(bench_reply_has_keyword(&reply, "AUTH", "NTLM"));
    cr_assert_not(bench_reply_has_keyword(&reply, "STARTTLS", NULL));
    cr_assert_not(bench_reply_has_keyword(&reply, "PIPE", NULL));
}
