/*
 * Tests of gateway/smtp/address.c. f<N>: as in test_smtp_in.c. "Byte by byte" here means: each
 * prefix of an input is parsed too, in memory of its own, and may be anything but out of bounds.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/limits.h"
#include "gateway/smtp/smtp.h"

static bool parse(struct slice in, bool rcpt, bool utf8, struct smtp_address *out,
                  struct slice *rest, struct why *why)
{
    for (size_t n = 0; n < in.len; n++) {
        struct smtp_address a;
        struct slice r;
        uint8_t *copy = malloc(n ? n : 1);
        memcpy(copy, in.ptr, n);
        if (smtp_path_parse(slice_of(copy, n), rcpt, utf8, &a, &r, NULL))
            cr_assert_leq(a.mailbox.len + r.len, n);
        free(copy);
    }
    return smtp_path_parse(in, rcpt, utf8, out, rest, why);
}

static void good_slice(struct slice in, bool utf8, const char *mailbox, const char *rest)
{
    for (int rcpt = 0; rcpt < 2; rcpt++) {
        struct smtp_address a;
        struct slice r = {0};
        struct why why = {0};
        cr_assert(parse(in, rcpt, utf8, &a, &r, &why), "refused: %.*s", (int)in.len, in.ptr);
        cr_assert(slice_eq(a.mailbox, slice_str(mailbox)), "'%.*s', not '%s'", (int)a.mailbox.len,
                  a.mailbox.ptr, mailbox);
        cr_assert(slice_eq(r, slice_str(rest)), "rest '%.*s'", (int)r.len, r.ptr);
        cr_assert_eq(a.local.len + 1 + a.domain.len, a.mailbox.len);
        cr_assert_eq(a.local.ptr, a.mailbox.ptr);
    }
}

static void good(const char *in, const char *mailbox)
{
    good_slice(slice_str(in), false, mailbox, "");
}

static void bad_slice(struct slice in, bool utf8)
{
    for (int rcpt = 0; rcpt < 2; rcpt++) {
        struct smtp_address a;
        struct slice r;
        struct why why = {0};
        cr_assert_not(parse(in, rcpt, utf8, &a, &r, &why), "taken: %.*s", (int)in.len, in.ptr);
        cr_assert_eq(why.smtp_code, 501);
        cr_assert_str_eq(why.enhanced, rcpt ? "5.1.3" : "5.1.7");
    }
}

static void bad(const char *in)
{
    bad_slice(slice_str(in), false);
}

Test(address, plain)
{
    good("<a@b>", "a@b");
    good("<user@mail.example.com>", "user@mail.example.com");
    good("<first.last+tag=x@a-b.c_d.example>", "first.last+tag=x@a-b.c_d.example");
    good("<!#$%&'*+-/=?^_`{|}~@x>", "!#$%&'*+-/=?^_`{|}~@x");
    good("<1@2>", "1@2");
}

Test(address, without_brackets)
{
    good("a@b", "a@b");
    good_slice(SLICE_LIT("a@b SIZE=1"), false, "a@b", " SIZE=1");
    good("\"a b\"@c", "\"a b\"@c");
    bad("a@b>");
    bad("a");
    bad("a@b,c@d");
}

Test(address, what_follows_is_left)
{
    good_slice(SLICE_LIT("<a@b> SIZE=1"), false, "a@b", " SIZE=1");
    good_slice(SLICE_LIT("<a@b>>"), false, "a@b", ">");
    good_slice(SLICE_LIT("<a@b> X=\xff"), false, "a@b", " X=\xff");
}

Test(address, f13_local_parts_are_opaque)
{
    good("<\"a b\"@c>", "\"a b\"@c");
    good("<\"a\\\"b\\\\\"@c>", "\"a\\\"b\\\\\"@c");
    good("<\"a@b>c\"@d>", "\"a@b>c\"@d");
    good("<\"\"@c>", "\"\"@c");
    good("<a%b@c>", "a%b@c");
    good("<a!b@c>", "a!b@c");
    good("<|/bin/sh@c>", "|/bin/sh@c");
    good("<\"$(id);`id`\"@c>", "\"$(id);`id`\"@c");
    bad("<\"a@c>");
    bad("<\"a\\\"@c>");
    bad("<\"a\"b@c>");
    bad("<\"a\tb\"@c>");
    bad("<\"a\\\x01\"@c>");
    bad("<\"a\x7f\"@c>");
    bad("<a\\b@c>");
    bad("<a b@c>");
    bad("<a(b)@c>");
    bad("<.a@c>");
    bad("<a.@c>");
    bad("<a..b@c>");
}

Test(address, f13_source_routes_are_stripped)
{
    good("<@a:u@b>", "u@b");
    good("<@a.example,@[192.0.2.1]:u@b>", "u@b");
    good("@a:u@b", "u@b");
    bad("<@a u@b>");
    bad("<@a,b:u@c>");
    bad("<@a,:u@c>");
    bad("<@:u@c>");
    bad("<@a:>");
    bad("<@a>");
    bad("<@a,@b>");
    bad("<@>");
}

Test(address, domains)
{
    good("<u@[192.0.2.1]>", "u@[192.0.2.1]");
    good("<u@[IPv6:2001:db8::1]>", "u@[IPv6:2001:db8::1]");
    good("<u@[ipv6:::]>", "u@[ipv6:::]");
    bad("<u@[192.0.2]>");
    bad("<u@[192.0.2.256]>");
    bad("<u@[]>");
    bad("<u@[IPv6:]>");
    bad("<u@[IPv6:1::2::3]>");
    bad("<u@[x-tag:y]>");
    bad("<u@[192.0.2.1>");
    bad("<u@[192.0.2.1]x>");
    bad("<u@192.0.2.1]>");
    bad("<u@-a>");
    bad("<u@a->");
    bad("<u@a-.b>");
    bad("<u@a..b>");
    bad("<u@.a>");
    bad("<u@a.>");
    bad("<u@>");
    bad("<u@a b>");
    bad("<u@a@b>");
    bad("<u@a/b>");
}

Test(address, malformed)
{
    bad("");
    bad("<");
    bad(">");
    bad("<a@b");
    bad("<<a@b>>");
    bad("<a>");
    bad("<@b>");
    bad("< a@b>");
    bad("<a@b >");
    bad("<a\x01@b>");
    bad_slice(slice_of("<a\0@b>", 6), false);
    bad_slice(slice_of("<a@b\0>", 6), false);
    bad_slice(slice_of("<u@[1.2.3.4\0]>", 14), false);
}

Test(address, f14_null_sender_and_postmaster)
{
    struct smtp_address a;
    struct slice r;
    struct why why;
    cr_assert(smtp_path_parse(SLICE_LIT("<> X"), false, false, &a, &r, &why));
    cr_assert_eq(a.mailbox.len, 0);
    cr_assert(slice_eq(r, SLICE_LIT(" X")));
    cr_assert_not(smtp_path_parse(SLICE_LIT("<>"), true, false, &a, &r, &why));
    cr_assert_str_eq(why.enhanced, "5.1.3");
    cr_assert(smtp_path_parse(SLICE_LIT("<PostMaster>"), true, false, &a, &r, &why));
    cr_assert(slice_eq(a.mailbox, SLICE_LIT("PostMaster")));
    cr_assert_eq(a.domain.len, 0);
    cr_assert(smtp_path_parse(SLICE_LIT("<postmaster@x>"), true, false, &a, &r, &why));
    cr_assert(slice_eq(a.domain, SLICE_LIT("x")));
    cr_assert_not(smtp_path_parse(SLICE_LIT("<postmaster>"), false, false, &a, &r, &why));
    cr_assert_not(smtp_path_parse(SLICE_LIT("<postmasters>"), true, false, &a, &r, &why));
}

/* local@label.label...; lengths in bytes */
static struct slice sized(size_t local, size_t label, size_t domain)
{
    static char text[2000];
    size_t n = 0;
    text[n++] = '<';
    memset(text + n, 'l', local);
    n += local;
    text[n++] = '@';
    for (size_t i = 1; i <= domain; i++)
        text[n++] = i % (label + 1) == 0 && i != domain ? '.' : 'd';
    text[n++] = '>';
    return slice_of(text, n);
}

Test(address, f12_lengths)
{
    struct smtp_address a;
    struct slice r;
    cr_assert(smtp_path_parse(sized(64, 63, 10), false, false, &a, &r, NULL));
    bad_slice(sized(65, 63, 10), false);
    cr_assert(smtp_path_parse(sized(1, 63, 63 + 1 + 63), false, false, &a, &r, NULL));
    bad_slice(sized(1, 64, 64), false);
    cr_assert(smtp_path_parse(sized(64, 63, 254 - 65), false, false, &a, &r, NULL));
    bad_slice(sized(64, 63, 255 - 65), false);
    bad_slice(sized(1, 63, 256), false);
    bad_slice(sized(1, 63, 1500), false);
    bad_slice(sized(1500, 63, 10), false);
}

Test(address, f10_f11_utf8)
{
    struct smtp_address a;
    struct slice r;
    struct why why;
    good_slice(SLICE_LIT("<\xe9\xa3\x9b@\xe8\x84\x9a.example>"), true,
               "\xe9\xa3\x9b@\xe8\x84\x9a.example", "");
    good_slice(SLICE_LIT("<\"\xf0\x9f\x93\xac\"@x>"), true, "\"\xf0\x9f\x93\xac\"@x", "");
    static const char *const invalid[] = {"<\xc0\xae@x>",
                                          "<\xe0\x80\xae@x>",
                                          "<\xed\xa0\x80@x>",
                                          "<\xe3\x81@x>",
                                          "<\xf4\x90\x80\x80@x>",
                                          "<\xf8\x88\x80\x80\x80@x>",
                                          "<\x80@x>",
                                          "<a@\xff>",
                                          "<a@x\xe3",
                                          "<\xf0\x8f\xbf\xbf@x>"};
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        cr_assert_not(parse(slice_str(invalid[i]), true, true, &a, &r, &why), "%zu", i);
        cr_assert_eq(why.smtp_code, 553);
        cr_assert_str_eq(why.enhanced, "5.6.7");
    }
    cr_assert_not(parse(SLICE_LIT("<\xe9\xa3\x9b@x>"), true, false, &a, &r, &why));
    cr_assert_str_eq(why.enhanced, "5.6.7");
}

Test(address, bare_mailbox)
{
    struct smtp_address a;
    cr_assert(smtp_mailbox_parse(SLICE_LIT("a@b"), false, &a));
    cr_assert(slice_eq(a.domain, SLICE_LIT("b")));
    cr_assert_not(smtp_mailbox_parse(SLICE_LIT("a@b "), false, &a));
    cr_assert_not(smtp_mailbox_parse(SLICE_LIT("<a@b>"), false, &a));
    cr_assert_not(smtp_mailbox_parse(SLICE_LIT("postmaster"), false, &a));
    cr_assert_not(smtp_mailbox_parse(SLICE_LIT(""), false, &a));
    cr_assert_not(smtp_mailbox_parse(SLICE_LIT("\xe3\x81\x82@b"), false, &a));
    cr_assert(smtp_mailbox_parse(SLICE_LIT("\xe3\x81\x82@b"), true, &a));
}

Test(address, words)
{
    cr_assert(smtp_utf8_valid(SLICE_LIT("")));
    cr_assert(
        smtp_utf8_valid(SLICE_LIT("a\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf4\x8f\xbf\xbf")));
}
