/*
 * Tests of gateway/auth/base64.c: RFC 4648 section 10, all lengths, all that is malformed.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/auth/sasl.h"

static bool decode(struct slice in, struct buf *out)
{
    uint8_t *copy = malloc(in.len ? in.len : 1);
    memcpy(copy, in.ptr, in.len);
    bool ok = base64_decode(slice_of(copy, in.len), out);
    free(copy);
    return ok;
}

Test(base64, vectors)
{
    static const char *const plain[] = {"", "f", "fo", "foo", "foob", "fooba", "foobar"};
    static const char *const coded[] = {"",         "Zg==",     "Zm8=",    "Zm9v",
                                        "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    for (size_t i = 0; i < 7; i++) {
        uint8_t memory[16];
        struct buf out = buf_over(memory, sizeof memory);
        cr_assert(base64_encode(slice_str(plain[i]), &out));
        cr_assert(slice_eq(buf_slice(&out), slice_str(coded[i])));
        out.len = 0;
        cr_assert(decode(slice_str(coded[i]), &out));
        cr_assert(slice_eq(buf_slice(&out), slice_str(plain[i])));
    }
}

Test(base64, all_bytes_and_lengths_there_and_back)
{
    uint8_t bytes[256 + 64], text[500], back[500];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 167 + i / 256);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        struct buf a = buf_over(text, sizeof text), b = buf_over(back, n);
        cr_assert(base64_encode(slice_of(bytes, n), &a));
        cr_assert_eq(a.len, (n + 2) / 3 * 4);
        cr_assert(decode(buf_slice(&a), &b), "%zu", n);
        cr_assert(slice_eq(buf_slice(&b), slice_of(bytes, n)));
    }
}

Test(base64, malformed_changes_nothing)
{
    static const char *const bad[] = {
        "Z",      "Zg",   "Zg=",  "Zg===",    "=",    "====", "Zh==",   "Zm9=",    "Zm 9",
        "Zm9v\n", "Zm9-", "Zm9_", "Zg==Zg==", "Z===", "Zm=v", "Zm9vZg", "Zm\xc3v", "=g=="};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint8_t memory[32];
        struct buf out = buf_over(memory, sizeof memory);
        out.len = 3;
        cr_assert_not(decode(slice_str(bad[i]), &out), "%s", bad[i]);
        cr_assert_eq(out.len, 3);
    }
    uint8_t memory[32];
    struct buf out = buf_over(memory, sizeof memory);
    cr_assert_not(decode(slice_of("Zm\0v", 4), &out));
}

Test(base64, room)
{
    uint8_t memory[8];
    struct buf out = buf_over(memory, 2);
    cr_assert_not(decode(SLICE_LIT("Zm9v"), &out));
    cr_assert(decode(SLICE_LIT("Zm8="), &out));
    out = buf_over(memory, 3);
    cr_assert_not(base64_encode(SLICE_LIT("a"), &out));
    cr_assert_eq(out.len, 0);
    out = buf_over(memory, 4);
    cr_assert(base64_encode(SLICE_LIT("a"), &out));
}
