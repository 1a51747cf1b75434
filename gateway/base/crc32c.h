/*
 * gateway/base/crc32c.h - CRC-32C (Castagnoli; RFC 3720 appendix B.4), in hardware where there is
 * one.
 *
 * crc32c(crc32c(0, a), b) equals crc32c(0, ab). The choice between products of
 * whole vectors (AVX-512), SSE4.2, ARMv8 and a table is the processor's.
 */
#ifndef HIKYAKU_BASE_CRC32C_H
#define HIKYAKU_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *data, size_t len);

/* The table version, for comparison in tests. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len);

#endif
