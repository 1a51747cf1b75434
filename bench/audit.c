/*
 * bench/audit.c - size, checksums and header block of a passing message.
 *
 * Owns:     the kept header block.
 * Runs on:  the one thread of the command.
 * Contract: the same result for every split of the message.
 * Failure:  none; a message without an empty line is all header.
 * Bounds:   BENCH_HEADER_SIZE_MAX of header kept; fields behind it are not found.
 * Tests:    tests/unit/test_bench_text.c
 */
#include "bench/audit.h"

#include <string.h>
#include <strings.h>

#include "bench/limits.h"

void bench_audit_begin(struct bench_audit *a)
{
    struct bench_buf header = a->header;
    bench_buf_clear(&header);
    *a = (struct bench_audit){.header = header, .line_end_match = 2};
}

void bench_audit_free(struct bench_audit *a)
{
    bench_buf_free(&a->header);
}

/* Bytes of data that belong to the header block, the empty line included. */
static size_t header_part(struct bench_audit *a, const char *data, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char wanted = a->line_end_match % 2 == 0 ? '\r' : '\n';
        if (data[i] == wanted)
            a->line_end_match++;
        else
            a->line_end_match = data[i] == '\r' ? 1 : 0;
        if (a->line_end_match == 4) {
            a->in_body = true;
            return i + 1;
        }
    }
    return count;
}

void bench_audit_add(struct bench_audit *a, const struct bench_crc32_table *t, const char *data,
                     size_t count)
{
    a->size += count;
    a->crc32 = bench_crc32_add(t, a->crc32, data, count);
    if (!a->in_body) {
        size_t part = header_part(a, data, count);
        size_t room = BENCH_HEADER_SIZE_MAX - bench_buf_count(&a->header);
        bench_buf_add(&a->header, data, part < room ? part : room);
        data += part;
        count -= part;
    }
    a->body_size += count;
    a->body_crc32 = bench_crc32_add(t, a->body_crc32, data, count);
}

const char *bench_audit_field(const struct bench_audit *a, const char *name, size_t *count)
{
    size_t name_count = strlen(name);
    const char *p = bench_buf_head(&a->header), *end = p + bench_buf_count(&a->header);
    while (p < end) {
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        const char *line_end = lf != NULL ? lf : end;
        if ((size_t)(line_end - p) > name_count && p[name_count] == ':' &&
            strncasecmp(p, name, name_count) == 0) {
            const char *value = p + name_count + 1;
            while (value < line_end && (*value == ' ' || *value == '\t'))
                value++;
            while (line_end > value && strchr(" \t\r", line_end[-1]) != NULL)
                line_end--;
            *count = (size_t)(line_end - value);
            return value;
        }
        p = line_end + 1;
    }
    return NULL;
}
