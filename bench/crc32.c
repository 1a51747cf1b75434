/*
 * bench/crc32.c - CRC-32, eight bytes a step.
 *
 * Owns:     nothing; the caller owns the table.
 * Runs on:  the one thread of the command.
 * Contract: equals zlib's crc32() for the same bytes in any split.
 * Failure:  none.
 * Bounds:   8 KiB of table.
 * Tests:    tests/unit/test_bench_text.c
 */
#include "bench/crc32.h"

void bench_crc32_table_init(struct bench_crc32_table *t)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? (crc >> 1) ^ 0xEDB88320u : crc >> 1;
        t->rows[0][i] = crc;
    }
    for (int row = 1; row < 8; row++) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t before = t->rows[row - 1][i];
            t->rows[row][i] = (before >> 8) ^ t->rows[0][before & 0xFF];
        }
    }
}

uint32_t bench_crc32_add(const struct bench_crc32_table *t, uint32_t crc, const void *data,
                         size_t count)
{
    const unsigned char *p = data;
    crc = ~crc;
    while (count >= 8) {
        uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                              (uint32_t)p[3] << 24);
        crc = t->rows[7][low & 0xFF] ^ t->rows[6][(low >> 8) & 0xFF] ^
              t->rows[5][(low >> 16) & 0xFF] ^ t->rows[4][low >> 24] ^ t->rows[3][p[4]] ^
              t->rows[2][p[5]] ^ t->rows[1][p[6]] ^ t->rows[0][p[7]];
        p += 8;
        count -= 8;
    }
    while (count-- > 0)
        crc = (crc >> 8) ^ t->rows[0][(crc ^ *p++) & 0xFF];
    return ~crc;
}
