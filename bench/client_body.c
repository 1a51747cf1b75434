/*
 * bench/client_body.c - how large messages are, and the body that all of them share.
 *
 * Owns:     nothing.
 * Runs on:  the one thread of the load.
 * Contract: a body is whole lines of printable characters; with its header and without a mix, a
 *           message has the size that was asked for. The same run makes the same bytes.
 * Failure:  none.
 * Bounds:   run->message_size.
 * Tests:    tests/unit/test_bench_client.c
 */
#include <string.h>

#include "bench/client_internal.h"

#define BENCH_LINE_BYTES 78u /* of the body, with CRLF */

static const struct bench_size_mix mixes[] = {
    {"mail",
     {{2048, 12}, {6144, 26}, {16384, 24}, {40960, 18}, {98304, 12}, {327680, 6}, {2097152, 2}}},
    {"small", {{1024, 20}, {2048, 30}, {4096, 30}, {8192, 20}}},
};

const struct bench_size_mix *bench_size_mix_find(const char *name)
{
    for (size_t i = 0; i < sizeof(mixes) / sizeof(mixes[0]); i++)
        if (strcmp(mixes[i].name, name) == 0)
            return &mixes[i];
    return NULL;
}

uint64_t bench_size_mix_max(const struct bench_size_mix *mix)
{
    uint64_t most = 0;
    for (size_t i = 0; i < sizeof(mix->parts) / sizeof(mix->parts[0]); i++)
        if (mix->parts[i].bytes > most)
            most = mix->parts[i].bytes;
    return most;
}

size_t client_body_count(struct bench_client_run *run, size_t header)
{
    if (run->mix == NULL || run->body_count < BENCH_LINE_BYTES)
        return run->body_count;
    run->mix_random = run->mix_random * 1664525u + 1013904223u;
    uint32_t chance = (run->mix_random >> 16) % 100;
    size_t i = 0;
    while (chance >= run->mix->parts[i].percent)
        chance -= run->mix->parts[i++].percent;
    size_t bytes = run->mix->parts[i].bytes;
    bytes = bytes > header + BENCH_LINE_BYTES ? bytes - header : BENCH_LINE_BYTES;
    bytes -= bytes % BENCH_LINE_BYTES;
    return bytes < run->body_count ? bytes : run->body_count - run->body_count % BENCH_LINE_BYTES;
}

void bench_client_make_body(struct bench_client_run *run, struct bench_buf *into)
{
    static const char alphabet[] =
        "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 ";
    struct bench_buf sample = {0};
    client_put_header(&sample, run, 0, 0);
    uint64_t header = bench_buf_count(&sample), left = 2;
    bench_buf_free(&sample);
    if (run->message_size > header + left)
        left = run->message_size - header;
    uint32_t random = 1;
    while (left > 0) {
        uint64_t text = left - 2;
        if (left > BENCH_LINE_BYTES)
            text = left >= BENCH_LINE_BYTES + 2 ? BENCH_LINE_BYTES - 2 : left - 4;
        for (uint64_t i = 0; i < text; i++) {
            random = random * 1664525u + 1013904223u;
            char c = alphabet[(random >> 16) % (sizeof(alphabet) - 1)];
            bench_buf_add(into, &c, 1);
        }
        bench_buf_str(into, "\r\n");
        left -= text + 2;
    }
    bench_buf_str(into, ".\r\n");
    run->body = bench_buf_head(into);
    run->body_count = bench_buf_count(into) - 3;
}
