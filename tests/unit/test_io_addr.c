/*
 * tests/unit/test_io_addr.c - gateway/io/io_addr.c: addresses as text.
 */
#include <criterion/criterion.h>

#include "gateway/io/io.h"

static void gives(const char *host, uint16_t port, const char *with_port, const char *bare)
{
    char text[IO_ADDR_TEXT_MAX];
    struct io_addr a;

    cr_assert(io_addr_parse(&a, slice_str(host), port), "%s", host);
    cr_expect_eq(io_addr_port(&a), port);
    cr_expect_str_eq(io_addr_text(&a, true, text), with_port);
    cr_expect_str_eq(io_addr_text(&a, false, text), bare);
}

Test(io_addr, reads_and_writes_literals)
{
    gives("192.0.2.1", 25, "192.0.2.1:25", "192.0.2.1");
    gives("0.0.0.0", 0, "0.0.0.0:0", "0.0.0.0");
    gives("255.255.255.255", 65535, "255.255.255.255:65535", "255.255.255.255");
    gives("2001:DB8::1", 587, "[2001:db8::1]:587", "2001:db8::1");
    gives("[2001:db8::1]", 587, "[2001:db8::1]:587", "2001:db8::1");
    gives("::", 25, "[::]:25", "::");
    gives("::ffff:192.0.2.1", 25, "[::ffff:192.0.2.1]:25", "::ffff:192.0.2.1");
    gives("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", 65535,
          "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
          "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
}

Test(io_addr, refuses_everything_else)
{
    static const char *const bad[] = {
        "",
        "localhost",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.1:25",
        " 192.0.2.1",
        "[::1",
        "::1]",
        "[]",
        "[192.0.2.1]",
        "fe80::1%lo",
        "1.2.3.4.5",
        "0x7f.1",
        "[[::1]]",
        "2130706433",
        ":::",
        "12345::",
        "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
    };
    struct io_addr a = {.len = 99};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_not(io_addr_parse(&a, slice_str(bad[i]), 25), "%s", bad[i]);
        cr_expect_eq(a.len, 99);
    }
    cr_expect_not(io_addr_parse(&a, slice_of("192.0.2.1\0x", 11), 25));
}

Test(io_addr, has_a_text_for_no_address)
{
    char text[IO_ADDR_TEXT_MAX];
    struct io_addr a = {0};

    cr_expect_str_eq(io_addr_text(&a, true, text), "?:0");
    cr_expect_eq(io_addr_port(&a), 0);
}
