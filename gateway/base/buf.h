/*
 * gateway/base/buf.h - a bounded output buffer over memory that somebody else owns.
 *
 * Appending past the capacity changes nothing, sets `overflow` and returns false: a caller may
 * append a whole reply and look once. Used for replies, protocol output and small texts.
 */
#ifndef HIKYAKU_BASE_BUF_H
#define HIKYAKU_BASE_BUF_H

#include <stdarg.h>
#include <stdio.h>

#include "gateway/base/slice.h"

struct buf {
    uint8_t *ptr;
    uint32_t len; /* bytes in use */
    uint32_t cap; /* bytes there are */
    bool overflow;
};

static inline struct buf buf_over(void *ptr, size_t cap)
{
    return (struct buf){.ptr = (uint8_t *)ptr, .len = 0, .cap = (uint32_t)cap, .overflow = false};
}

static inline uint32_t buf_room(const struct buf *b)
{
    return b->cap - b->len;
}

static inline bool buf_add(struct buf *b, const void *data, size_t len)
{
    if (len > buf_room(b)) {
        b->overflow = true;
        return false;
    }
    if (len)
        memcpy(b->ptr + b->len, data, len);
    b->len += (uint32_t)len;
    return true;
}

static inline bool buf_add_slice(struct buf *b, struct slice s)
{
    return buf_add(b, s.ptr, s.len);
}

static inline bool buf_add_str(struct buf *b, const char *s)
{
    return buf_add(b, s, strlen(s));
}

static inline bool buf_add_byte(struct buf *b, uint8_t c)
{
    return buf_add(b, &c, 1);
}

__attribute__((format(printf, 2, 3))) static inline bool buf_addf(struct buf *b, const char *fmt,
                                                                  ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf((char *)b->ptr + b->len, buf_room(b), fmt, ap);
    va_end(ap);
    if (n < 0 || (uint32_t)n >= buf_room(b)) { /* the NUL needs room too; it is not kept */
        b->overflow = true;
        return false;
    }
    b->len += (uint32_t)n;
    return true;
}

/* Decimal digits, with leading zeros up to `width`. For the paths that every message takes: printf
 * costs ten times as much. */
static inline bool buf_add_number(struct buf *b, uint64_t v, uint32_t width)
{
    uint8_t text[20];
    uint32_t n = 0;
    do
        text[sizeof text - ++n] = (uint8_t)('0' + v % 10);
    while ((v /= 10) != 0 || (n < width && n < sizeof text));
    return buf_add(b, text + sizeof text - n, n);
}

/* Hexadecimal digits, lower case, `width` of them. */
static inline bool buf_add_hex(struct buf *b, uint64_t v, uint32_t width)
{
    uint8_t text[16];
    uint32_t n = width < sizeof text ? width : sizeof text;
    for (uint32_t i = n; i-- > 0; v >>= 4)
        text[i] = (uint8_t) "0123456789abcdef"[v & 15];
    return buf_add(b, text, n);
}

static inline struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->ptr, b->len);
}

#endif
