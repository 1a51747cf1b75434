/*
 * gateway/base/json.c - JSON strings from untrusted bytes.
 *
 * Owns:     nothing.
 * Runs on:  any thread.
 * Contract: what is written is a valid JSON string in UTF-8, also when it was cut.
 * Failure:  no room: cut, and told.
 * Bounds:   the buffer's room less the reserve.
 * Tests:    tests/unit/test_json.c
 */
#include "gateway/base/json.h"

#define ESCAPE_MAX 6u /* \u00ff */

size_t json_utf8_sequence(struct slice v)
{
    static const uint32_t min[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *p = v.ptr;
    size_t left = v.len, n = p[0] < 0x80    ? 1
                             : p[0] >= 0xf0 ? 4
                             : p[0] >= 0xe0 ? 3
                             : p[0] >= 0xc0 ? 2
                                            : 0;
    if (n == 0 || n > left || p[0] > 0xf4)
        return 0;
    uint32_t c = n == 1 ? p[0] : p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    bool surrogate = c >= 0xd800 && c <= 0xdfff;
    return c < min[n] || surrogate || c > 0x10ffff ? 0 : n;
}

/* Bytes at the start that stand for themselves. */
static size_t plain_run(struct slice v, size_t max)
{
    size_t n = 0;
    while (n < v.len && n < max && v.ptr[n] >= 0x20 && v.ptr[n] < 0x7f && v.ptr[n] != '"' &&
           v.ptr[n] != '\\')
        n++;
    return n;
}

bool json_string(struct buf *b, struct slice v, uint32_t reserve)
{
    bool whole = true;
    if (!buf_add_byte(b, '"'))
        return false;
    while (v.len) {
        uint32_t kept = reserve + ESCAPE_MAX + 1;
        size_t run = plain_run(v, buf_room(b) > kept ? buf_room(b) - kept : 0);
        buf_add(b, v.ptr, run);
        v = slice_from(v, run);
        if (!v.len)
            break;
        size_t n = json_utf8_sequence(v);
        uint8_t c = v.ptr[0];
        if (buf_room(b) <= reserve + ESCAPE_MAX + 1) {
            whole = false;
            break;
        }
        if (n == 0 || c < 0x20 || c == 0x7f)
            buf_addf(b, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            buf_addf(b, "\\%c", c);
        else
            buf_add(b, v.ptr, n);
        v = slice_from(v, n ? n : 1);
    }
    return buf_add_byte(b, '"') && whole;
}
