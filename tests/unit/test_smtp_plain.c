/*
 * tests/unit/test_smtp_plain.c - gateway/smtp/plain.c: blocks without anything to look at twice.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "gateway/base/prng.h"
#include "gateway/smtp/plain.h"

#define ROOM (8 * SMTP_PLAIN_BLOCK)

/* What plain.h says, one byte after the other. */
static bool is_plain(const uint8_t *p)
{
    for (size_t i = 0; i < SMTP_PLAIN_BLOCK; i++) {
        uint8_t before = *(p + i - 1);
        if ((p[i] == '\n') != (before == '\r') || (p[i] == '.' && before == '\n') || p[i] == 0)
            return false;
    }
    return true;
}

static void check(const uint8_t *p, size_t len)
{
    size_t n = 0;
    bool wide = false, got = false;

    for (; n + SMTP_PLAIN_BLOCK <= len && is_plain(p + n); n += SMTP_PLAIN_BLOCK)
        for (size_t i = 0; i < SMTP_PLAIN_BLOCK; i++)
            wide = wide || p[n + i] > 127;
    cr_assert_eq(smtp_plain_blocks(p, len, &got), n);
    cr_assert_eq(got, wide);
    for (int v = SMTP_PLAIN_PORTABLE; v <= SMTP_PLAIN_AVX512; v++) {
        size_t blocks;
        bool eight_bit = false;
        if (!smtp_plain_blocks_by((enum smtp_plain_version)v, p, len, &eight_bit, &blocks))
            continue;
        cr_assert_eq(blocks, n);
        cr_assert_eq(eight_bit, wide);
    }
}

Test(smtp_plain, finds_each_kind_of_byte_at_each_place)
{
    static const struct {
        const char *bytes;
        size_t len;
    } kinds[] = {{"\n", 1}, {"\r", 1},     {"\0", 1},     {"\r\n", 2}, {"\r\n.", 3},
                 {"a.", 2}, {"\r\nab", 4}, {"\r\r\n", 3}, {"\x80", 1}, {"\xff", 1}};
    uint8_t data[1 + ROOM];

    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        for (size_t at = 0; at + kinds[k].len <= sizeof data; at++) {
            memset(data, 'a', sizeof data);
            memcpy(data + at, kinds[k].bytes, kinds[k].len);
            for (size_t len = 0; len <= ROOM; len += 21)
                check(data + 1, len);
            check(data + 1, ROOM);
        }
}

Test(smtp_plain, agrees_with_the_definition_on_any_bytes)
{
    static const uint8_t some[] = {'\r', '\n', '.', 0, 'a', 0xc3, ' ', 'b'};
    uint8_t data[1 + ROOM];
    struct prng p;

    prng_seed(&p, 7);
    for (uint32_t round = 0; round < 20000; round++) {
        uint64_t rare = 1 + prng_next(&p) % 200;
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = prng_next(&p) % rare ? 'x' : some[prng_next(&p) % sizeof some];
        for (size_t i = 0; i + 2 <= sizeof data; i += 1 + prng_next(&p) % 90)
            memcpy(data + i, "\r\n", 2);
        check(data + 1, prng_next(&p) % (ROOM + 1));
    }
}
