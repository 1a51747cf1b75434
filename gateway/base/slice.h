/*
 * gateway/base/slice.h - borrowed bytes.
 *
 * A slice never owns what it points at; whoever hands one out says how long it stays valid.
 * A slice of length 0 may have any pointer, also NULL.
 */
#ifndef HIKYAKU_BASE_SLICE_H
#define HIKYAKU_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *ptr;
    size_t len;
};

/* A slice over a string literal. */
#define SLICE_LIT(s) ((struct slice){(const uint8_t *)("" s), sizeof(s) - 1})

static inline struct slice slice_of(const void *ptr, size_t len)
{
    return (struct slice){(const uint8_t *)ptr, len};
}

static inline struct slice slice_str(const char *s)
{
    return slice_of(s, s ? strlen(s) : 0);
}

static inline struct slice slice_from(struct slice s, size_t offset)
{
    return offset >= s.len ? slice_of(NULL, 0) : slice_of(s.ptr + offset, s.len - offset);
}

static inline struct slice slice_head(struct slice s, size_t len)
{
    return slice_of(s.ptr, len < s.len ? len : s.len);
}

/* A string of what fits of `s`. For the paths that every message takes: printf costs ten times as
 * much. */
static inline void slice_text(struct slice s, char *text, size_t cap)
{
    size_t len = s.len < cap - 1 ? s.len : cap - 1;
    if (len)
        memcpy(text, s.ptr, len);
    text[len] = '\0';
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline uint8_t ascii_lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

/* Compares without regard to ASCII case; bytes of 0x80 and above compare as they are. */
static inline bool slice_eq_nocase(struct slice a, struct slice b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (ascii_lower(a.ptr[i]) != ascii_lower(b.ptr[i]))
            return false;
    return true;
}

static inline bool slice_starts_nocase(struct slice s, struct slice prefix)
{
    return s.len >= prefix.len && slice_eq_nocase(slice_head(s, prefix.len), prefix);
}

/* Position of byte c, or s.len when it does not occur. */
static inline size_t slice_find(struct slice s, uint8_t c)
{
    const uint8_t *p = s.len ? memchr(s.ptr, c, s.len) : NULL;
    return p ? (size_t)(p - s.ptr) : s.len;
}

/* Whether a byte is over 127. All are looked at, eight at a time: mostly there is none. */
static inline bool slice_has_8bit(struct slice s)
{
    uint64_t all = 0, word;
    size_t i = 0;
    for (; i + sizeof word <= s.len; i += sizeof word) {
        memcpy(&word, s.ptr + i, sizeof word);
        all |= word;
    }
    for (; i < s.len; i++)
        all |= s.ptr[i];
    return (all & 0x8080808080808080ull) != 0;
}

/* What follows the last byte c; empty when it does not occur. Of a mailbox and '@': its domain. */
static inline struct slice slice_after_last(struct slice s, uint8_t c)
{
    for (size_t i = s.len; i > 0; i--)
        if (s.ptr[i - 1] == c)
            return slice_from(s, i);
    return slice_of(NULL, 0);
}

/*
 * Does the glob fit the whole text, whatever the ASCII case? * is any bytes, ? any one. Linear in
 * practice: only the last star is ever gone back to.
 */
static inline bool slice_glob_nocase(struct slice pattern, struct slice text)
{
    size_t p = 0, t = 0, star = SIZE_MAX, mark = 0;
    while (t < text.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            mark = t;
        } else if (p < pattern.len && (pattern.ptr[p] == '?' ||
                                       ascii_lower(pattern.ptr[p]) == ascii_lower(text.ptr[t]))) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*')
        p++;
    return p == pattern.len;
}

#endif
