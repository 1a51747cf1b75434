/*
 * tests/unit/test_json.c - gateway/base/json.c.
 */
#include <criterion/criterion.h>

#include "gateway/base/json.h"

static const char *written(struct slice v, size_t cap, uint32_t reserve, bool *whole)
{
    static uint8_t bytes[256];
    struct buf b = buf_over(bytes, cap);
    *whole = json_string(&b, v, reserve);
    bytes[b.len] = '\0';
    return (char *)bytes;
}

Test(json, escapes_what_must_be)
{
    bool whole;
    cr_assert_str_eq(written(SLICE_LIT("a\"\\\r\n\x01\x7f/"), 200, 0, &whole),
                     "\"a\\\"\\\\\\u000d\\u000a\\u0001\\u007f/\"");
    cr_assert(whole);
}

Test(json, keeps_utf8_and_shows_other_bytes)
{
    bool whole;
    cr_assert_str_eq(written(SLICE_LIT("\xc3\xa9\xf0\x9f\x98\x80"), 200, 0, &whole),
                     "\"\xc3\xa9\xf0\x9f\x98\x80\"");
    /* overlong, surrogate, truncated, above U+10FFFF */
    cr_assert_str_eq(written(SLICE_LIT("\xc0\xaf"), 200, 0, &whole), "\"\\u00c0\\u00af\"");
    cr_assert_str_eq(written(SLICE_LIT("\xed\xa0\x80"), 200, 0, &whole),
                     "\"\\u00ed\\u00a0\\u0080\"");
    cr_assert_str_eq(written(SLICE_LIT("\xe2\x82"), 200, 0, &whole), "\"\\u00e2\\u0082\"");
    cr_assert_str_eq(written(SLICE_LIT("\xf4\x90\x80\x80"), 200, 0, &whole),
                     "\"\\u00f4\\u0090\\u0080\\u0080\"");
}

Test(json, a_cut_string_is_still_a_string)
{
    bool whole;
    for (size_t cap = 12; cap < 40; cap++) {
        const char *s =
            written(SLICE_LIT("\x01\x02\xc3\xa9 and more than there is room for"), cap, 2, &whole);
        cr_assert_not(whole);
        cr_assert_eq(s[0], '"');
        cr_assert_eq(s[strlen(s) - 1], '"');
        cr_assert(strlen(s) + 2 <= cap);
    }
}
