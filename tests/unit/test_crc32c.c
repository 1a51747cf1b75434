/*
 * tests/unit/test_crc32c.c - gateway/base/crc32c.c: CRC-32C; vectors of RFC 3720 appendix B.4.
 */
#include <criterion/criterion.h>

#include "gateway/base/crc32c.h"
#include "gateway/base/prng.h"

static void known(const void *data, size_t len, uint32_t expected)
{
    cr_expect_eq(crc32c(0, data, len), expected);
    cr_expect_eq(crc32c_portable(0, data, len), expected);
}

Test(crc32c, gives_the_published_values)
{
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];

    for (int i = 0; i < 32; i++) {
        ones[i] = 0xff;
        up[i] = (uint8_t)i;
        down[i] = (uint8_t)(31 - i);
    }
    known(zeros, 32, 0x8a9136aa);
    known(ones, 32, 0x62a8ab43);
    known(up, 32, 0x46dd794e);
    known(down, 32, 0x113fdb5c);
    known("123456789", 9, 0xe3069283);
    known("", 0, 0);
}

Test(crc32c, agrees_between_versions_at_every_length_and_alignment)
{
    uint8_t data[600];
    struct prng p;

    prng_seed(&p, 1);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)prng_next(&p);
    for (size_t start = 0; start < 9; start++)
        for (size_t len = 0; start + len <= sizeof data; len++)
            cr_assert_eq(crc32c(7, data + start, len), crc32c_portable(7, data + start, len));
}

Test(crc32c, agrees_between_versions_at_every_length_of_large_pieces)
{
    static uint8_t data[2500];
    struct prng p;
    uint32_t expected;

    prng_seed(&p, 2);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)prng_next(&p);
    for (size_t start = 0; start < 3; start++) {
        expected = 0x12345678;
        for (size_t len = 0; start + len < sizeof data; len++) {
            cr_assert_eq(crc32c(0x12345678, data + start, len), expected);
            expected = crc32c_portable(expected, data + start + len, 1);
        }
    }
}

Test(crc32c, continues_from_any_split)
{
    uint8_t data[100];
    uint32_t whole;

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 37);
    whole = crc32c(0, data, sizeof data);
    for (size_t at = 0; at <= sizeof data; at++)
        cr_assert_eq(crc32c(crc32c(0, data, at), data + at, sizeof data - at), whole);
}
