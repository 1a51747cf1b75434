/*
 * Tests of the tracking log on disk: gateway/log_writer_pack.c, gateway/tracking_read.c.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/tracking_read.h"

Test(tracking, members_of_a_line)
{
    static const char text[] =
        "{\"time\":\"T\",\"n\":42,\"yes\":true,\"s\":\"a\\\"b\\\\\",\"e\":\"\"}";
    static const char *const wanted[] = {"time", "T", "n",          "42", "yes",
                                         "true", "s", "a\\\"b\\\\", "e",  ""};
    struct slice line = slice_str(text), key, value;
    for (size_t i = 0; i < 5; i++) {
        cr_assert(tracking_member(&line, &key, &value));
        cr_assert(slice_eq(key, slice_str(wanted[2 * i])), "%zu", i);
        cr_assert(slice_eq(value, slice_str(wanted[2 * i + 1])), "%zu %.*s", i, (int)value.len,
                  (const char *)value.ptr);
    }
    cr_assert_not(tracking_member(&line, &key, &value));
    for (size_t len = 0; len < sizeof text; len++) { /* cut anywhere: no read past the end */
        char *copy = malloc(len + 1);
        memcpy(copy, text, len);
        line = slice_of(copy, len);
        for (int n = 0; tracking_member(&line, &key, &value); n++)
            cr_assert_lt(n, 6);
        free(copy);
    }
}

Test(tracking, filters_forget_nothing)
{
    static uint8_t filter[TRACKING_FILTER_BYTES];
    char text[32];
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < 8000; i++) {
        snprintf(text, sizeof text, "user%u@example.com", i);
        tracking_filter_add(filter, tracking_hash(slice_str("sender"), slice_str(text)));
    }
    for (uint32_t i = 0; i < 8000; i++) {
        snprintf(text, sizeof text, "USER%u@example.com", i);
        cr_assert(tracking_filter_has(filter, tracking_hash(slice_str("sender"), slice_str(text))));
        wrong +=
            tracking_filter_has(filter, tracking_hash(slice_str("recipient"), slice_str(text)));
    }
    cr_assert_lt(wrong, 8000 / 50, "%u false answers of 8000", wrong);
    cr_assert_eq(tracking_hash(slice_str("qid"), slice_str("A")),
                 tracking_hash(slice_str("about"), slice_str("a")));
}

#define LINES 40000u

struct seen {
    uint32_t lines, blocks;
    uint64_t sum;
};

static bool each(void *arg, struct slice lines)
{
    struct seen *s = arg;
    s->blocks++;
    while (lines.len) {
        size_t end = slice_find(lines, '\n');
        struct slice line = slice_head(lines, end), key, value;
        cr_assert(line.len && line.ptr[0] == '{' && line.ptr[line.len - 1] == '}', "a whole line");
        while (tracking_member(&line, &key, &value))
            if (slice_eq(key, slice_str("number")))
                s->sum += strtoul((const char *)value.ptr, NULL, 10);
        s->lines++;
        lines = slice_from(lines, end + 1);
    }
    return true;
}

static void read_all(const char *path, const struct tracking_want *want, struct seen *s)
{
    struct why why;
    *s = (struct seen){0};
    cr_assert(tracking_read(path, want, each, s, &why), "%s", why.text);
}

Test(tracking, what_is_packed_is_read_again)
{
    char dir[] = "/tmp/tracking-XXXXXX", path[64], aside[128], packed[160], index[192];
    struct why why;
    struct seen s;
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/t.jsonl", dir);
    snprintf(aside, sizeof aside, "%s-20261122T080000.000000Z", path);
    snprintf(packed, sizeof packed, "%s.gz", aside);
    snprintf(index, sizeof index, "%s.idx", packed);
    FILE *f = fopen(aside, "w");
    for (uint32_t i = 0; i < LINES; i++)
        fprintf(f,
                "{\"time\":\"2026-11-22T%02u:%02u:00.000000Z\",\"qid\":\"Q%u\",\"number\":%u,"
                "\"recipient\":\"user%u@example.com\"}\n",
                i / 4000, i / 70 % 60, i / 4, i, i % 1000);
    fclose(f);
    f = fopen(path, "w");
    fputs("{\"time\":\"2026-11-22T20:00:00.000000Z\",\"qid\":\"Q1\",\"number\":0}\n", f);
    fclose(f);
    struct tracking_want anything = {0};
    read_all(path, &anything, &s);
    cr_assert_eq(s.lines, LINES + 1);
    cr_assert(tracking_pack(aside, true, &why), "%s", why.text);
    cr_assert_neq(access(aside, F_OK), 0);
    read_all(path, &anything, &s);
    cr_assert_eq(s.lines, LINES + 1);
    cr_assert_eq(s.sum, (uint64_t)LINES * (LINES - 1) / 2);
    uint32_t blocks = s.blocks;
    cr_assert_gt(blocks, 3);

    f = fopen(aside, "w"); /* a power cut took its end and gave its name back */
    fputs("{\"number\":0}\n", f);
    fclose(f);
    cr_assert(tracking_pack(aside, true, &why), "%s", why.text);
    cr_assert_neq(access(aside, F_OK), 0);
    read_all(path, &anything, &s);
    cr_assert_eq(s.lines, LINES + 1);

    uint64_t hash = tracking_hash(slice_str("qid"), slice_str("Q7"));
    struct tracking_want one = {.hashes = &hash, .hash_count = 1};
    read_all(path, &one, &s);
    cr_assert_leq(s.blocks, 3, "%u blocks of %u", s.blocks, blocks);
    struct tracking_want late = {.from = "2026-11-22T09:30"};
    read_all(path, &late, &s);
    cr_assert_leq(s.blocks, 3);
    cr_assert_geq(s.lines, 2000);

    cr_assert_eq(truncate(index, 5000), 0); /* an index that is damaged only costs time */
    read_all(path, &one, &s);
    cr_assert_eq(s.lines, LINES + 1);
    struct stat st;
    stat(packed, &st);
    cr_assert_eq(truncate(packed, st.st_size / 2), 0);
    cr_assert_eq(unlink(index), 0);
    tracking_read(path, &anything, each, &s, &why); /* says so or gives what is there; no crash */
    unlink(packed);
    unlink(path);
    rmdir(dir);
}
