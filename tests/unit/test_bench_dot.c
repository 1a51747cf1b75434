/*
 * tests/unit/test_bench_dot.c - the end of data, against a plain reference, in every split.
 *
 * Owns:     nothing.
 * Runs on:  the test's process.
 * Contract: each test fails when bench/dot.c ends data anywhere but at CRLF.CRLF.
 * Failure:  Criterion reports the string.
 * Bounds:   strings of up to 7 bytes over CR, LF, dot and x.
 * Tests:    bench/dot.c
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "bench/dot.h"

static void collect(void *ctx, const char *data, size_t count)
{
    bench_buf_add(ctx, data, count);
}

/* The reference: where the data ends (0: it does not), and the message with its dots undone. */
static size_t reference(const char *in, size_t count, struct bench_buf *message)
{
    char text[64] = "\r\n";
    memcpy(text + 2, in, count);
    for (size_t i = 2; i < count + 2; i++) {
        if (memcmp(text + i - 2, "\r\n", 2) == 0 && text[i] == '.') {
            if (i + 2 < count + 2 && memcmp(text + i + 1, "\r\n", 2) == 0)
                return i + 3 - 2;
            continue;
        }
        bench_buf_add(message, text + i, 1);
    }
    return 0;
}

/* Feeds in parts cut where the bits of mask say. */
static void check(const char *in, size_t count, unsigned mask)
{
    struct bench_buf got = {0}, expected = {0};
    struct bench_dot dot;
    size_t end = reference(in, count, &expected), total = 0, from = 0;
    bool ended = false;
    bench_dot_init(&dot);
    for (size_t i = 1; i <= count && !ended; i++) {
        if (i < count && !(mask >> (i - 1) & 1))
            continue;
        size_t used = 0;
        ended = bench_dot_feed(&dot, in + from, i - from, &used, collect, &got);
        cr_assert(ended || used == i - from);
        total += used;
        from = i;
    }
    cr_assert_eq(ended, end > 0);
    if (ended)
        cr_assert_eq(total, end);
    /* what is held back at an unfinished end is ".\r" at most, and never wrong */
    size_t have = bench_buf_count(&got), want = bench_buf_count(&expected);
    cr_assert(have == want || (!ended && have + 1 == want));
    cr_assert_eq(memcmp(bench_buf_head(&got), bench_buf_head(&expected), have), 0);
    bench_buf_free(&got);
    bench_buf_free(&expected);
}

Test(bench_dot, ends_where_the_reference_ends)
{
    static const char alphabet[] = {'\r', '\n', '.', 'x'};
    for (size_t count = 1; count <= 7; count++) {
        for (unsigned code = 0; code < 1u << (2 * count); code++) {
            char in[8];
            for (size_t i = 0; i < count; i++)
                in[i] = alphabet[code >> (2 * i) & 3];
            check(in, count, 0);
            check(in, count, ~0u);
            if (count == 7)
                check(in, count, code * 2654435761u >> 20);
            else
                for (unsigned mask = 1; mask + 1 < 1u << (count - 1); mask++)
                    check(in, count, mask);
        }
    }
}

Test(bench_dot, nothing_behind_the_end_is_taken)
{
    static const char in[] = "a\r\n.\r\nMAIL FROM:<x>\r\n";
    struct bench_dot dot;
    size_t used = 0;
    bench_dot_init(&dot);
    cr_assert(bench_dot_feed(&dot, in, sizeof(in) - 1, &used, NULL, NULL));
    cr_assert_eq(used, 6);
}

Test(bench_dot, stuffing_is_undone)
{
    static const char message[] = ".\r\n..\r\nx.\r\n.y\r\n";
    for (size_t cut = 0; cut < sizeof(message); cut++) {
        struct bench_buf wire = {0}, got = {0};
        struct bench_dot dot;
        bool line_start = true;
        size_t used = 0;
        bench_dot_stuff(&wire, message, cut, &line_start);
        bench_dot_stuff(&wire, message + cut, sizeof(message) - 1 - cut, &line_start);
        bench_buf_str(&wire, ".\r\n");
        bench_dot_init(&dot);
        cr_assert(bench_dot_feed(&dot, bench_buf_head(&wire), bench_buf_count(&wire), &used,
                                 collect, &got));
        cr_assert_eq(used, bench_buf_count(&wire));
        cr_assert_eq(bench_buf_count(&got), sizeof(message) - 1);
        cr_assert_eq(memcmp(bench_buf_head(&got), message, sizeof(message) - 1), 0);
        bench_buf_free(&wire);
        bench_buf_free(&got);
    }
}
