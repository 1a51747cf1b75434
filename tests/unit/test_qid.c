/*
 * tests/unit/test_qid.c - queue ids as text.
 */
#include <criterion/criterion.h>

#include "queue/queue.h"

Test(qid, text_and_back)
{
    static const uint64_t some[] = {1, 31, 32, 1ull << 54, (1023ull << 54) | 77, UINT64_MAX};
    char text[QID_TEXT_MAX], before[QID_TEXT_MAX] = "";
    uint64_t back;

    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        qid_text(some[i], text);
        cr_assert_eq(strlen(text), 13);
        cr_assert(qid_parse(slice_str(text), &back));
        cr_assert_eq(back, some[i]);
        cr_assert_gt(strcmp(text, before), 0, "texts sort as the numbers do");
        memcpy(before, text, sizeof text);
        for (char *p = text; *p; p++)
            *p = (char)ascii_lower((uint8_t)*p);
        cr_assert(qid_parse(slice_str(text), &back));
        cr_assert_eq(back, some[i]);
    }
}

Test(qid, other_texts_are_refused)
{
    static const char *bad[] = {
        "",
        "0000000000000",  /* 0 */
        "G000000000000",  /* 65 bits */
        "000000000001",   /* 12 digits */
        "00000000000001", /* 14 digits */
        "000000000000I",
        "000000000000L",
        "000000000000O",
        "000000000000U",
        "000000000000-",
        "000000000000 ",
    };
    uint64_t qid = 5;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_not(qid_parse(slice_str(bad[i]), &qid) && qid, "%s", bad[i]);
    cr_assert_not(qid_parse(slice_of("000000000000\0", 13), &qid));
}
