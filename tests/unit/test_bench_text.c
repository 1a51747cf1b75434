/*
 * tests/unit/test_bench_text.c - the bench's small pieces: buffers, JSON, base64, CRC, options,
 * addresses, header audit, /proc.
 *
 * Owns:     nothing.
 * Runs on:  the test's process.
 * Contract: each test fails when a piece breaks what its header says.
 * Failure:  Criterion reports it.
 * Bounds:   none.
 * Tests:    bench/buf.c, base64.c, crc32.c, opts.c, net.c, audit.c, proc.c
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/audit.h"
#include "bench/base64.h"
#include "bench/net.h"
#include "bench/opts.h"
#include "bench/proc.h"

static void assert_buf(struct bench_buf *b, const char *expected)
{
    bench_buf_add(b, "", 1);
    cr_assert_str_eq(bench_buf_head(b), expected);
    bench_buf_free(b);
}

Test(bench_text, buffer_keeps_the_order_over_growth_and_consumption)
{
    struct bench_buf b = {0};
    unsigned written = 0, read = 0;
    for (int round = 0; round < 1000; round++) {
        for (int i = 0; i < round % 37; i++) {
            unsigned value = written++;
            bench_buf_add(&b, &value, sizeof(value));
        }
        while (bench_buf_count(&b) >= (size_t)(round % 11) * sizeof(unsigned) &&
               bench_buf_count(&b) > 0) {
            unsigned value;
            memcpy(&value, bench_buf_head(&b), sizeof(value));
            cr_assert_eq(value, read++);
            bench_buf_consume(&b, sizeof(value));
        }
    }
    cr_assert_eq(written - read, bench_buf_count(&b) / sizeof(unsigned));
    bench_buf_free(&b);
}

Test(bench_text, json_strings)
{
    struct bench_buf b = {0};
    static const char text[] = "a\"\\\n\x7f\xc3\xa9\xff\xed\xa0\x80";
    bench_buf_json(&b, text, sizeof(text) - 1);
    assert_buf(&b, "\"a\\\"\\\\\\u000a\\u007f\xc3\xa9\\u00ff\\u00ed\\u00a0\\u0080\"");
}

Test(bench_text, base64_vectors)
{
    /* RFC 4648 section 10 */
    static const char *const vectors[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        struct bench_buf b = {0};
        char plain[16];
        bench_base64_encode(&b, vectors[i][0], strlen(vectors[i][0]));
        assert_buf(&b, vectors[i][1]);
        long count = bench_base64_decode(vectors[i][1], plain, sizeof(plain));
        cr_assert_eq(count, (long)strlen(vectors[i][0]));
        cr_assert_eq(memcmp(plain, vectors[i][0], (size_t)count), 0);
    }
}

Test(bench_text, base64_refuses)
{
    static const char *const bad[] = {"Z", "Zg=", "Zg", "Z===", "Zg==Zg==", "Zm9%", "Z=9v", "===="};
    char plain[16];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(bench_base64_decode(bad[i], plain, sizeof(plain)), -1, "%s", bad[i]);
    cr_assert_eq(bench_base64_decode("Zm9vYmFy", plain, 5), -1);
    cr_assert_eq(bench_base64_decode("=", plain, sizeof(plain)), 0);
}

Test(bench_text, crc32_is_the_common_one_in_every_split)
{
    static struct bench_crc32_table table;
    static const char text[] = "The quick brown fox jumps over the lazy dog";
    bench_crc32_table_init(&table);
    cr_assert_eq(bench_crc32_add(&table, 0, "123456789", 9), 0xCBF43926u);
    for (size_t cut = 0; cut < sizeof(text); cut++) {
        uint32_t crc = bench_crc32_add(&table, 0, text, cut);
        cr_assert_eq(bench_crc32_add(&table, crc, text + cut, sizeof(text) - 1 - cut), 0x414FA339u);
    }
}

Test(bench_text, audit_in_every_split)
{
    static struct bench_crc32_table table;
    static const char text[] = "A: 1\r\nx-bench-ID:  r-1-2 \r\nX-Bench-Id: other\r\n\r\nbody\r\n";
    bench_crc32_table_init(&table);
    struct bench_audit a = {0};
    for (size_t cut = 0; cut < sizeof(text); cut++) {
        size_t count = 0;
        bench_audit_begin(&a);
        bench_audit_add(&a, &table, text, cut);
        bench_audit_add(&a, &table, text + cut, sizeof(text) - 1 - cut);
        const char *value = bench_audit_field(&a, "X-Bench-Id", &count);
        cr_assert_eq(count, 5);
        cr_assert_eq(memcmp(value, "r-1-2", 5), 0);
        cr_assert_null(bench_audit_field(&a, "body", &count));
        cr_assert_null(bench_audit_field(&a, "X-Bench", &count));
        cr_assert_eq(a.size, sizeof(text) - 1);
        cr_assert_eq(a.body_size, 6);
        cr_assert_eq(a.body_crc32, bench_crc32_add(&table, 0, "body\r\n", 6));
    }
    bench_audit_begin(&a);
    bench_audit_add(&a, &table, "\r\nbody", 6);
    cr_assert_eq(a.body_size, 4, "a message may begin with the empty line");
    bench_audit_free(&a);
}

Test(bench_text, sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},     {"4096", 4096},    {"4KiB", 4096},
                {"4k", 4096}, {"2MiB", 2097152}, {"1G", 1073741824}};
    static const char *const bad[] = {
        "", "x", "4X", "-1", "4 K", "99999999999999999999", "18446744073709551615G"};
    uint64_t bytes = 0;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        cr_assert_null(bench_opts_size(good[i].text, &bytes));
        cr_assert_eq(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_not_null(bench_opts_size(bad[i], &bytes), "%s", bad[i]);
}

static const char *keep_value(void *target, const char *value)
{
    *(const char **)target = value != NULL ? value : "default";
    return NULL;
}

static int parse_options(char **argv, int argc, uint64_t *count, bool *flag, const char **text)
{
    const struct bench_opt opts[] = {
        {"--count", "N", BENCH_OPT_COUNT, count, 2, 10, NULL, ""},
        {"--flag", NULL, BENCH_OPT_FLAG, flag, 0, 0, NULL, ""},
        {"--text", "T", BENCH_OPT_STRING, text, 0, 0, NULL, ""},
        {"--maybe", "M", BENCH_OPT_MAYBE, text, 0, 0, keep_value, ""},
    };
    const struct bench_opt_table table = {"test", "", opts, 4};
    return bench_opts_parse(&table, argc, argv);
}

Test(bench_text, options)
{
    uint64_t count = 0;
    bool flag = false;
    const char *text = NULL;
    char *good[] = {"test", "--count=3", "--flag", "--text", "--flag"};
    cr_assert_eq(parse_options(good, 5, &count, &flag, &text), -1);
    cr_assert_eq(count, 3);
    cr_assert(flag);
    cr_assert_str_eq(text, "--flag");
    char *maybe[] = {"test", "--maybe=x", "--maybe", "--flag"};
    cr_assert_eq(parse_options(maybe, 2, &count, &flag, &text), -1);
    cr_assert_str_eq(text, "x");
    cr_assert_eq(parse_options(maybe, 4, &count, &flag, &text), -1);
    cr_assert_str_eq(text, "default");
    char *bad[][2] = {{"--nope", "x"},   {"--count", "11"},      {"--count", "1"},
                      {"--count", "x"},  {"--flag=1", "--flag"}, {"--flag", "--count"},
                      {"word", "--flag"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char *argv[] = {"test", bad[i][0], bad[i][1]};
        cr_assert_eq(parse_options(argv, 3, &count, &flag, &text), 2, "%s %s", bad[i][0],
                     bad[i][1]);
    }
}

Test(bench_text, addresses)
{
    static const char *const good[] = {"127.0.0.1:25", "[::1]:2525", "localhost:0"};
    static const char *const bad[] = {
        "",       "127.0.0.1",   ":25",          "127.0.0.1:",     "1.2.3:25",
        "::1:25", "[::1]:65536", "host.test:25", "[127.0.0.1]:25", "127.0.0.1:25x"};
    struct bench_addr a;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_assert_null(bench_addr_parse(&a, good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_not_null(bench_addr_parse(&a, bad[i]), "%s", bad[i]);
}

Test(bench_text, usage_of_this_process)
{
    struct bench_proc_usage before, after;
    cr_assert(bench_proc_read(getpid(), &before));
    cr_assert_geq(before.process_count, 1);
    cr_assert_gt(before.rss_bytes, 100000);
    uint64_t end = bench_clock_thread_ns() + 100000000;
    while (bench_clock_thread_ns() < end)
        continue;
    cr_assert(bench_proc_read(getpid(), &after));
    cr_assert_geq(after.cpu_seconds - before.cpu_seconds, 0.05);
    cr_assert_lt(after.cpu_seconds - before.cpu_seconds, 5);
    cr_assert_not(bench_proc_read(0x3FFFFFFF, &after));
}

enum { SWITCHES = 100 };

static void *switch_often(void *arg)
{
    int *pipes = arg;
    char byte = 0;
    while (read(pipes[0], &byte, 1) == 1 && write(pipes[3], &byte, 1) == 1)
        continue;
    return NULL;
}

/* Another thread waits a hundred times for a byte. */
Test(bench_text, switches_of_all_threads)
{
    int pipes[4];
    char byte = 'x';
    pthread_t thread;
    struct bench_proc_usage before, after;
    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(pipe(pipes + 2), 0);
    cr_assert_eq(pthread_create(&thread, NULL, switch_often, pipes), 0);
    cr_assert(bench_proc_read(getpid(), &before));
    struct rusage own, own_after;
    cr_assert_eq(getrusage(RUSAGE_THREAD, &own), 0);
    for (int i = 0; i < SWITCHES; i++) {
        cr_assert_eq(write(pipes[1], &byte, 1), 1);
        cr_assert_eq(read(pipes[2], &byte, 1), 1);
    }
    cr_assert_eq(getrusage(RUSAGE_THREAD, &own_after), 0);
    cr_assert(bench_proc_read(getpid(), &after));
    uint64_t of_this =
        (uint64_t)(own_after.ru_nvcsw + own_after.ru_nivcsw - own.ru_nvcsw - own.ru_nivcsw);
    cr_assert_geq(after.switches - before.switches, of_this + SWITCHES / 10);
    close(pipes[1]);
    pthread_join(thread, NULL);
}
