/*
 * bench/crc32.h - the CRC-32 of zlib and Python's binascii (IEEE 802.3), for audits of bodies.
 */
#ifndef HIKYAKU_BENCH_CRC32_H
#define HIKYAKU_BENCH_CRC32_H

#include <stddef.h>
#include <stdint.h>

struct bench_crc32_table {
    uint32_t rows[8][256];
};

void bench_crc32_table_init(struct bench_crc32_table *t);
/* crc: 0 at the start, then the last result. */
uint32_t bench_crc32_add(const struct bench_crc32_table *t, uint32_t crc, const void *data,
                         size_t count);

#endif
