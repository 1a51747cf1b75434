/*
 * bench/buf.h - a growable byte buffer that is read from the front and appended at the back.
 *
 * The bench may allocate while it runs (unlike a shard); running out of memory ends the program.
 */
#ifndef HIKYAKU_BENCH_BUF_H
#define HIKYAKU_BENCH_BUF_H

#include <stddef.h>

struct bench_buf {
    char *data;
    size_t start; /* first byte not yet consumed */
    size_t end;   /* one past the last byte */
    size_t size;  /* allocated */
};

static inline size_t bench_buf_count(const struct bench_buf *b)
{
    return b->end - b->start;
}

static inline const char *bench_buf_head(const struct bench_buf *b)
{
    return b->data != NULL ? b->data + b->start : "";
}

/* Room for at least extra bytes behind end; returns where they start. */
char *bench_buf_reserve(struct bench_buf *b, size_t extra);
void bench_buf_add(struct bench_buf *b, const void *data, size_t count);
void bench_buf_str(struct bench_buf *b, const char *text);
void bench_buf_printf(struct bench_buf *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Appends text as a JSON string with its quotes. Bytes that are not UTF-8 become \u00XX. */
void bench_buf_json(struct bench_buf *b, const char *text, size_t count);
/* Drops count bytes at the front; an emptied buffer keeps its memory. */
void bench_buf_consume(struct bench_buf *b, size_t count);
void bench_buf_clear(struct bench_buf *b);
void bench_buf_free(struct bench_buf *b);

#endif
