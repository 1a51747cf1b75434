/*
 * tests/unit/test_log.c - gateway/log.c: lines are JSON whatever peers send, and whole or not
 * there.
 */
#include <criterion/criterion.h>

#include "gateway/log.h"

static uint64_t wall(void *arg)
{
    (void)arg;
    return 1795319162123456789ull;
}

static struct log make_log(uint32_t capacity, enum log_level level)
{
    return (struct log){
        .ring = ring_bytes_create(capacity), .level = level, .wall_ns = wall, .shard = 3};
}

static size_t take(struct log *l, char *out, size_t size)
{
    uint32_t n = ring_bytes_read(l->ring, out, (uint32_t)size - 1);
    out[n] = '\0';
    return n;
}

Test(log, a_line_has_time_level_event_and_fields)
{
    struct log log = make_log(65536, LOG_INFO);
    struct log_line line;
    char out[8192];
    log_begin(&line, &log, EV_DELIVERED);
    log_str(&line, "qid", "ABC");
    log_u64(&line, "size", 42);
    log_bool(&line, "tls", true);
    log_end(&line);
    take(&log, out, sizeof out);
    cr_assert_str_eq(
        out,
        "T{\"time\":\"2026-11-22T03:46:02.123456Z\",\"level\":\"info\",\"event\":\"delivered\","
        "\"shard\":3,\"qid\":\"ABC\",\"size\":42,\"tls\":true}\n");
    ring_bytes_destroy(log.ring);
}

Test(log, a_thread_that_is_no_shard_names_none)
{
    struct log log = make_log(65536, LOG_INFO);
    struct log_line line;
    char out[8192];
    log.shard = LOG_NO_SHARD;
    log_begin(&line, &log, EV_LISTEN);
    log_end(&line);
    log_begin(&line, &log, EV_LISTEN);
    log_str(&line, "connector", "relay");
    log_end(&line);
    take(&log, out, sizeof out);
    cr_assert_str_eq(
        out, "L{\"time\":\"2026-11-22T03:46:02.123456Z\",\"level\":\"info\",\"event\":\"listen\"}\n"
             "L{\"time\":\"2026-11-22T03:46:02.123456Z\",\"level\":\"info\",\"event\":\"listen\","
             "\"connector\":\"relay\"}\n");
    ring_bytes_destroy(log.ring);
}

Test(log, tracked_events_are_made_at_any_level_when_there_is_a_tracking_log)
{
    struct log log = make_log(65536, LOG_ERROR);
    struct log_line line;
    char out[8192];
    log_begin(&line, &log, EV_DELIVERED);
    log_end(&line);
    cr_assert_eq(take(&log, out, sizeof out), 0, "nobody wants it");
    log.tracking = true;
    log_begin(&line, &log, EV_DELIVERED);
    log_end(&line);
    log_begin(&line, &log, EV_LISTEN);
    log_end(&line);
    log_begin(&line, &log, EV_DAMAGED);
    log_end(&line);
    take(&log, out, sizeof out);
    cr_assert_eq(out[0], LOG_TRACKED);
    char *next = strchr(out, '\n') + 1;
    cr_assert_eq(next[0], LOG_SHOWN, "%s", next);
    cr_assert_not_null(strstr(next, "damaged-record"));
    ring_bytes_destroy(log.ring);
}

Test(log, peers_cannot_forge_fields_or_lines)
{
    struct log log = make_log(65536, LOG_INFO);
    struct log_line line;
    char out[8192];
    log_begin(&line, &log, EV_REFUSED);
    log_slice(&line, "helo", slice_of("a\",\"x\":\"y\r\n{\\\0\xff\xc3\xa9", 17));
    log_end(&line);
    size_t n = take(&log, out, sizeof out);
    cr_assert_eq(n, strlen(out), "no NUL inside");
    cr_assert_eq(strchr(out, '\n'), out + n - 1);
    cr_assert(
        strstr(out, "\"helo\":\"a\\\",\\\"x\\\":\\\"y\\u000d\\u000a{\\\\\\u0000\\u00ff\xc3\xa9\"}"),
        "%s", out);
    ring_bytes_destroy(log.ring);
}

Test(log, too_long_is_cut_and_says_so)
{
    struct log log = make_log(65536, LOG_INFO);
    struct log_line line;
    static char big[20000], out[LOG_LINE_MAX * 2];
    memset(big, '\x01', sizeof big); /* six bytes each when escaped */
    log_begin(&line, &log, EV_REFUSED);
    for (int i = 0; i < 8; i++)
        log_slice(&line, "v", slice_of(big, sizeof big));
    log_u64(&line, "n", 1);
    log_end(&line);
    size_t n = take(&log, out, sizeof out);
    cr_assert(n <= LOG_LINE_MAX);
    cr_assert(strcmp(out + n - 13, "\"cut\":true}\n") == 0 || strstr(out, ",\"cut\":true}\n"), "%s",
              out);
    ring_bytes_destroy(log.ring);
}

Test(log, below_the_level_nothing_is_made_and_a_full_ring_counts)
{
    struct log log = make_log(512, LOG_WARNING);
    struct log_line line;
    log_begin(&line, &log, EV_DELIVERED);
    log_str(&line, "qid", "ABC");
    log_end(&line);
    cr_assert(ring_bytes_empty(log.ring));
    for (int i = 0; i < 100; i++) {
        log_begin(&line, &log, EV_FAILED);
        log_str(&line, "qid", "ABC");
        log_end(&line);
    }
    cr_assert_gt(log.dropped, 0);
    ring_bytes_destroy(log.ring);
}
