/*
 * Tests of gateway/base/slice.h: what no caller's test shows whole.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "gateway/base/slice.h"

Test(slice, says_whether_a_byte_is_over_127)
{
    uint8_t data[40];

    cr_assert_not(slice_has_8bit(slice_of(NULL, 0)));
    for (size_t len = 0; len <= sizeof data; len++) {
        memset(data, 0x7f, sizeof data);
        cr_assert_not(slice_has_8bit(slice_of(data, len)));
        for (size_t at = 0; at < len; at++) {
            data[at] = 0x80;
            cr_assert(slice_has_8bit(slice_of(data, len)));
            data[at] = 'a';
        }
        memset(data + len, 0xff, sizeof data - len);
        cr_assert_not(slice_has_8bit(slice_of(data, len)));
    }
}
