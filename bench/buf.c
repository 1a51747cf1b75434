/*
 * bench/buf.c - a growable byte buffer.
 *
 * Owns:     the memory of each struct bench_buf.
 * Runs on:  the one thread of the command.
 * Contract: bytes come out as they went in; reserve keeps what is there.
 * Failure:  out of memory ends the program with a line on stderr.
 * Bounds:   the caller's: each use has its own in bench/limits.h.
 * Tests:    tests/unit/test_bench_text.c
 */
#include "bench/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_SIZE_FIRST 256u

char *bench_buf_reserve(struct bench_buf *b, size_t extra)
{
    if (b->size - b->end >= extra && b->data != NULL)
        return b->data + b->end;
    size_t count = bench_buf_count(b);
    if (b->start > 0 && b->data != NULL) {
        memmove(b->data, b->data + b->start, count);
        b->start = 0;
        b->end = count;
        if (b->size - b->end >= extra)
            return b->data + b->end;
    }
    size_t size = b->size > 0 ? b->size : BUF_SIZE_FIRST;
    while (size - count < extra)
        size *= 2;
    char *data = realloc(b->data, size);
    if (data == NULL) {
        fprintf(stderr, "hikyaku-bench: out of memory\n");
        exit(1);
    }
    b->data = data;
    b->size = size;
    return b->data + b->end;
}

void bench_buf_add(struct bench_buf *b, const void *data, size_t count)
{
    if (count == 0)
        return;
    memcpy(bench_buf_reserve(b, count), data, count);
    b->end += count;
}

void bench_buf_str(struct bench_buf *b, const char *text)
{
    bench_buf_add(b, text, strlen(text));
}

void bench_buf_printf(struct bench_buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int count = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (count < 0)
        return;
    char *at = bench_buf_reserve(b, (size_t)count + 1);
    va_start(args, format);
    vsnprintf(at, (size_t)count + 1, format, args);
    va_end(args);
    b->end += (size_t)count;
}

/* Length of the well-formed UTF-8 sequence at p, or 0. */
static size_t utf8_sequence_size(const unsigned char *p, size_t left)
{
    size_t size = p[0] < 0x80                   ? 1
                  : p[0] >= 0xC2 && p[0] < 0xE0 ? 2
                  : p[0] >= 0xE0 && p[0] < 0xF0 ? 3
                  : p[0] >= 0xF0 && p[0] < 0xF5 ? 4
                                                : 0;
    if (size == 0 || size > left)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    }
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) ||
        (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F))
        return 0;
    return size;
}

void bench_buf_json(struct bench_buf *b, const char *text, size_t count)
{
    const unsigned char *p = (const unsigned char *)text;
    bench_buf_add(b, "\"", 1);
    for (size_t i = 0; i < count;) {
        size_t size = utf8_sequence_size(p + i, count - i);
        if (size == 0 || p[i] < 0x20 || p[i] == 0x7F) {
            bench_buf_printf(b, "\\u%04x", p[i]);
            size = 1;
        } else if (p[i] == '"' || p[i] == '\\') {
            bench_buf_printf(b, "\\%c", p[i]);
        } else {
            bench_buf_add(b, p + i, size);
        }
        i += size;
    }
    bench_buf_add(b, "\"", 1);
}

void bench_buf_consume(struct bench_buf *b, size_t count)
{
    b->start += count;
    if (b->start >= b->end)
        bench_buf_clear(b);
}

void bench_buf_clear(struct bench_buf *b)
{
    b->start = 0;
    b->end = 0;
}

void bench_buf_free(struct bench_buf *b)
{
    free(b->data);
    *b = (struct bench_buf){0};
}
