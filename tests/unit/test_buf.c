/*
 * tests/unit/test_buf.c - numbers in a buffer.
 */
#include <criterion/criterion.h>

#include "gateway/base/buf.h"

static bool says(struct buf *b, const char *text)
{
    bool same = slice_eq(buf_slice(b), slice_str(text));
    b->len = 0;
    return same;
}

Test(buf, hexadecimal)
{
    char text[24];
    struct buf b = buf_over(text, sizeof text);
    cr_assert(buf_add_hex(&b, 0x1f, 2) && buf_add_hex(&b, 0xabcdef, 8) && buf_add_hex(&b, 0, 6));
    cr_assert(says(&b, "1f00abcdef000000"));
    cr_assert(buf_add_hex(&b, 0x12345, 3) && says(&b, "345"), "the lowest digits");
    cr_assert(buf_add_hex(&b, UINT64_MAX, 99) && says(&b, "ffffffffffffffff"));
    b.cap = 4;
    cr_assert(!buf_add_hex(&b, 1, 5) && b.overflow && b.len == 0);
}

Test(buf, decimal)
{
    char text[24];
    struct buf b = buf_over(text, sizeof text);
    cr_assert(buf_add_number(&b, 0, 0) && says(&b, "0"));
    cr_assert(buf_add_number(&b, 36700160, 0) && says(&b, "36700160"));
    cr_assert(buf_add_number(&b, 7, 3) && says(&b, "007"));
    cr_assert(buf_add_number(&b, UINT64_MAX, 1) && says(&b, "18446744073709551615"));
}
