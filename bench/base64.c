/*
 * bench/base64.c - base64 both ways.
 *
 * Owns:     nothing.
 * Runs on:  the one thread of the command.
 * Contract: decode takes padded text only and no white space.
 * Failure:  -1.
 * Bounds:   the caller's buffer.
 * Tests:    tests/unit/test_bench_text.c
 */
#include "bench/base64.h"

#include <stdint.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void bench_base64_encode(struct bench_buf *out, const void *data, size_t count)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < count; i += 3) {
        size_t left = count - i;
        uint32_t bits = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                        (left > 2 ? (uint32_t)p[i + 2] : 0);
        char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
                        left > 1 ? digits[bits >> 6 & 63] : '=',
                        left > 2 ? digits[bits & 63] : '='};
        bench_buf_add(out, four, sizeof(four));
    }
}

long bench_base64_decode(const char *text, char *out, size_t size)
{
    size_t count = strlen(text), at = 0;
    if (strcmp(text, "=") == 0)
        return 0;
    if (count % 4 != 0)
        return -1;
    for (size_t i = 0; i < count; i += 4) {
        uint32_t bits = 0;
        unsigned padding = 0;
        for (size_t k = 0; k < 4; k++) {
            char c = text[i + k];
            const char *digit = c != '\0' ? strchr(digits, c) : NULL;
            if (c == '=' && k >= 2 && i + 4 == count)
                padding++;
            else if (digit == NULL || padding > 0)
                return -1;
            bits = bits << 6 | (digit != NULL && c != '=' ? (uint32_t)(digit - digits) : 0);
        }
        for (unsigned k = 0; k < 3 - padding; k++) {
            if (at == size)
                return -1;
            out[at++] = (char)(bits >> (16 - 8 * k) & 0xFF);
        }
    }
    return (long)at;
}
