/*
 * gateway/auth/base64.c - base64 with the standard alphabet, strict (RFC 4648 section 4).
 *
 * Owns:     nothing.
 * Runs on:  any thread.
 * Contract: decode accepts exactly what encode writes: no white space, no missing or surplus
 *           padding, no stray bits in the last character, so that each text has one encoding.
 * Failure:  false, and `out` is as it was.
 * Bounds:   the room in `out`.
 * Tests:    tests/unit/test_base64.c
 */
#include "gateway/auth/sasl.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* 0 to 63, or -1. */
static int value_of(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(struct slice in, struct buf *out)
{
    if (in.len % 4 != 0)
        return false;
    size_t pad = 0;
    while (pad < 2 && pad < in.len && in.ptr[in.len - 1 - pad] == '=')
        pad++;
    size_t digits = in.len - pad;
    if (in.len / 4 * 3 - pad > buf_room(out))
        return false;
    uint32_t start = out->len, bits = 0;
    for (size_t i = 0; i < digits; i++) {
        int v = value_of(in.ptr[i]);
        if (v < 0) {
            out->len = start;
            return false;
        }
        bits = bits << 6 | (uint32_t)v;
        if (i % 4 == 1)
            out->ptr[out->len++] = (uint8_t)(bits >> 4);
        else if (i % 4 == 2)
            out->ptr[out->len++] = (uint8_t)(bits >> 2);
        else if (i % 4 == 3)
            out->ptr[out->len++] = (uint8_t)bits;
    }
    if ((pad == 2 && (bits & 0xf)) || (pad == 1 && (bits & 0x3))) {
        out->len = start;
        return false;
    }
    return true;
}

bool base64_encode(struct slice in, struct buf *out)
{
    if ((in.len + 2) / 3 * 4 > buf_room(out)) {
        out->overflow = true;
        return false;
    }
    for (size_t i = 0; i < in.len; i += 3) {
        size_t n = in.len - i < 3 ? in.len - i : 3;
        uint32_t bits = (uint32_t)in.ptr[i] << 16;
        if (n > 1)
            bits |= (uint32_t)in.ptr[i + 1] << 8;
        if (n > 2)
            bits |= in.ptr[i + 2];
        uint8_t *p = out->ptr + out->len;
        p[0] = (uint8_t)alphabet[bits >> 18];
        p[1] = (uint8_t)alphabet[bits >> 12 & 63];
        p[2] = n > 1 ? (uint8_t)alphabet[bits >> 6 & 63] : '=';
        p[3] = n > 2 ? (uint8_t)alphabet[bits & 63] : '=';
        out->len += 4;
    }
    return true;
}
