/*
 * gateway/smtp/plain.c - looks for line ends, dots and NUL in whole blocks.
 *
 * Owns:     nothing.
 * Runs on:  any thread.
 * Contract: the same answer from every version: AVX-512, AVX2, 16 bytes at a time.
 * Failure:  none.
 * Bounds:   none; reads the byte before its input.
 * Tests:    tests/unit/test_smtp_plain.c
 */
#include "gateway/smtp/plain.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* SSE2, NEON or plain code, as there is. */
typedef uint8_t lanes __attribute__((vector_size(16)));

static size_t blocks_portable(const uint8_t *p, size_t len, bool *eight_bit)
{
    lanes high = {0};
    uint64_t half[2];
    size_t n = 0;

    for (; len - n >= SMTP_PLAIN_BLOCK; n += SMTP_PLAIN_BLOCK) {
        lanes special = {0}, block_high = {0};
        for (size_t i = 0; i < SMTP_PLAIN_BLOCK; i += sizeof(lanes)) {
            lanes c, before;
            memcpy(&c, p + n + i, sizeof c);
            memcpy(&before, p + n + i - 1, sizeof before);
            special |= (lanes)((c == '\n') ^ (before == '\r'));
            special |= (lanes)((c == '.') & (before == '\n'));
            special |= (lanes)(c == 0);
            block_high |= c;
        }
        memcpy(half, &special, sizeof half);
        if ((half[0] | half[1]) != 0)
            break;
        high |= block_high;
    }
    memcpy(half, &high, sizeof half);
    if (((half[0] | half[1]) & 0x8080808080808080ull) != 0)
        *eight_bit = true;
    return n;
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) static __m256i special_32(__m256i c, __m256i before)
{
    const __m256i lf = _mm256_set1_epi8('\n');
    __m256i end = _mm256_xor_si256(_mm256_cmpeq_epi8(c, lf),
                                   _mm256_cmpeq_epi8(before, _mm256_set1_epi8('\r')));
    __m256i dot = _mm256_and_si256(_mm256_cmpeq_epi8(c, _mm256_set1_epi8('.')),
                                   _mm256_cmpeq_epi8(before, lf));
    __m256i nul = _mm256_cmpeq_epi8(c, _mm256_setzero_si256());

    return _mm256_or_si256(_mm256_or_si256(end, dot), nul);
}

__attribute__((target("avx2"))) static size_t blocks_avx2(const uint8_t *p, size_t len,
                                                          bool *eight_bit)
{
    __m256i high = _mm256_setzero_si256();
    size_t n = 0;

    for (; len - n >= SMTP_PLAIN_BLOCK; n += SMTP_PLAIN_BLOCK) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(p + n));
        __m256i b = _mm256_loadu_si256((const __m256i *)(p + n + 32));
        __m256i before_a = _mm256_loadu_si256((const __m256i *)(p + n - 1));
        __m256i before_b = _mm256_loadu_si256((const __m256i *)(p + n + 31));
        __m256i special = _mm256_or_si256(special_32(a, before_a), special_32(b, before_b));
        if (!_mm256_testz_si256(special, special))
            break;
        high = _mm256_or_si256(high, _mm256_or_si256(a, b));
    }
    if (_mm256_movemask_epi8(high) != 0)
        *eight_bit = true;
    return n;
}

__attribute__((target("avx512f,avx512bw"))) static size_t blocks_avx512(const uint8_t *p,
                                                                        size_t len, bool *eight_bit)
{
    const __m512i cr = _mm512_set1_epi8('\r'), lf = _mm512_set1_epi8('\n');
    const __m512i point = _mm512_set1_epi8('.');
    __m512i high = _mm512_setzero_si512();
    size_t n = 0;

    for (; len - n >= SMTP_PLAIN_BLOCK; n += SMTP_PLAIN_BLOCK) {
        __m512i c = _mm512_loadu_si512(p + n);
        __m512i before = _mm512_loadu_si512(p + n - 1);
        __mmask64 end = _mm512_cmpeq_epi8_mask(c, lf) ^ _mm512_cmpeq_epi8_mask(before, cr);
        __mmask64 dot = _mm512_mask_cmpeq_epi8_mask(_mm512_cmpeq_epi8_mask(c, point), before, lf);
        __mmask64 nul = _mm512_testn_epi8_mask(c, c);
        if ((end | dot | nul) != 0)
            break;
        high = _mm512_or_si512(high, c);
    }
    if (_mm512_movepi8_mask(high) != 0)
        *eight_bit = true;
    return n;
}

#endif

bool smtp_plain_blocks_by(enum smtp_plain_version version, const uint8_t *p, size_t len,
                          bool *eight_bit, size_t *blocks)
{
    if (version == SMTP_PLAIN_PORTABLE) {
        *blocks = blocks_portable(p, len, eight_bit);
        return true;
    }
#if defined(__x86_64__)
    if (version == SMTP_PLAIN_AVX512 && __builtin_cpu_supports("avx512bw")) {
        *blocks = blocks_avx512(p, len, eight_bit);
        return true;
    }
    if (version == SMTP_PLAIN_AVX2 && __builtin_cpu_supports("avx2")) {
        *blocks = blocks_avx2(p, len, eight_bit);
        return true;
    }
#endif
    return false;
}

size_t smtp_plain_blocks(const uint8_t *p, size_t len, bool *eight_bit)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bw"))
        return blocks_avx512(p, len, eight_bit);
    if (__builtin_cpu_supports("avx2"))
        return blocks_avx2(p, len, eight_bit);
#endif
    return blocks_portable(p, len, eight_bit);
}
