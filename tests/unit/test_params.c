/*
 * Tests of gateway/smtp/params.c. f<N>: as in test_smtp_in.c. Each input also in all its prefixes.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/smtp/params.h"

static uint8_t memory[SMTP_DECODED_MAX];
static struct smtp_mail mail;
static struct smtp_rcpt rcpt;
static char reply[32];

static const char *parse_mail(const char *in)
{
    struct why why = {0};
    struct buf decoded;
    for (size_t n = 0; n < strlen(in); n++) {
        char *copy = malloc(n ? n : 1);
        memcpy(copy, in, n);
        decoded = buf_over(memory, sizeof memory);
        if (!smtp_mail_params_parse(slice_of(copy, n), &mail, &decoded, &why))
            cr_assert(why.smtp_code == 501 || why.smtp_code == 555);
        free(copy);
    }
    decoded = buf_over(memory, sizeof memory);
    if (smtp_mail_params_parse(slice_str(in), &mail, &decoded, &why))
        return "ok";
    snprintf(reply, sizeof reply, "%u %s", why.smtp_code, why.enhanced);
    return reply;
}

static const char *parse_rcpt_utf8(const char *in, bool utf8)
{
    struct why why = {0};
    for (size_t n = 0; n < strlen(in); n++) {
        char *copy = malloc(n ? n : 1);
        memcpy(copy, in, n);
        if (!smtp_rcpt_params_parse(slice_of(copy, n), utf8, &rcpt, &why))
            cr_assert(why.smtp_code == 501 || why.smtp_code == 555);
        free(copy);
    }
    if (smtp_rcpt_params_parse(slice_str(in), utf8, &rcpt, &why))
        return "ok";
    snprintf(reply, sizeof reply, "%u %s", why.smtp_code, why.enhanced);
    return reply;
}

static const char *parse_rcpt(const char *in)
{
    return parse_rcpt_utf8(in, false);
}

#define SYNTAX "501 5.5.4"

Test(params, mail)
{
    cr_assert_str_eq(parse_mail(""), "ok");
    cr_assert(mail.size == 0 && !mail.body_8bit && !mail.smtputf8 && mail.ret == SMTP_RET_NONE);
    cr_assert_str_eq(parse_mail(" size=12  Body=8bitmime SMTPUTF8 ret=full ENVID=x AUTH=a@b "),
                     "ok");
    cr_assert_eq(mail.size, 12);
    cr_assert(mail.body_8bit && mail.smtputf8 && mail.ret == SMTP_RET_FULL);
    cr_assert(slice_eq(mail.envid, SLICE_LIT("x")));
    cr_assert(slice_eq(mail.auth, SLICE_LIT("a@b")));
    cr_assert_str_eq(parse_mail(" BODY=7BIT RET=HDRS"), "ok");
    cr_assert(!mail.body_8bit && mail.ret == SMTP_RET_HDRS);
}

Test(params, the_address_is_left_alone)
{
    struct buf decoded = buf_over(memory, sizeof memory);
    mail.from.mailbox = SLICE_LIT("a@b");
    cr_assert(smtp_mail_params_parse(SLICE_LIT(" SIZE=1"), &mail, &decoded, NULL));
    cr_assert(slice_eq(mail.from.mailbox, SLICE_LIT("a@b")));
}

Test(params, f15_unknown_bad_and_duplicate)
{
    cr_assert_str_eq(parse_mail(" FOO"), "555 5.5.4");
    cr_assert_str_eq(parse_mail(" FOO=bar"), "555 5.5.4");
    cr_assert_str_eq(parse_mail(" SIZES=1"), "555 5.5.4");
    cr_assert_str_eq(parse_mail(" NOTIFY=NEVER"), "555 5.5.4");
    cr_assert_str_eq(parse_mail("SIZE=1"), SYNTAX);
    cr_assert_str_eq(parse_mail(" =1"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE="), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE=1=2"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE =1"), SYNTAX);
    cr_assert_str_eq(parse_mail(" -X=1"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE=1\tX"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE=1 SIZE=1"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SMTPUTF8 SMTPUTF8"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SMTPUTF8=1"), SYNTAX);
    cr_assert_str_eq(parse_mail(" BODY=7BIT BODY=8BITMIME"), SYNTAX);
    cr_assert_str_eq(parse_mail(" BODY"), SYNTAX);
    cr_assert_str_eq(parse_mail(" AUTH=<> AUTH=<>"), SYNTAX);
    cr_assert_str_eq(parse_mail(" ENVID=a ENVID=a"), SYNTAX);
    cr_assert_str_eq(parse_rcpt(" SIZE=1"), "555 5.5.4");
    cr_assert_str_eq(parse_rcpt(" NOTIFY=NEVER NOTIFY=NEVER"), SYNTAX);
    cr_assert_str_eq(parse_rcpt(" ORCPT=a;b ORCPT=a;b"), SYNTAX);
}

Test(params, f29_binarymime_is_not_offered)
{
    cr_assert_str_eq(parse_mail(" BODY=BINARYMIME"), SYNTAX);
}

Test(params, f18_size)
{
    cr_assert_str_eq(parse_mail(" SIZE=18446744073709551615"), "ok");
    cr_assert_eq(mail.size, UINT64_MAX);
    cr_assert_str_eq(parse_mail(" SIZE=18446744073709551616"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE=99999999999999999999"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE=000000000000000000001"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE=-1"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE=+1"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE=1e9"), SYNTAX);
    cr_assert_str_eq(parse_mail(" SIZE=0x10"), SYNTAX);
}

Test(params, f16_xtext)
{
    cr_assert_str_eq(parse_mail(" ENVID=a+2Bb+3D+20c AUTH=x+2B+40y"), "ok");
    cr_assert(slice_eq(mail.envid, SLICE_LIT("a+b= c")));
    cr_assert(slice_eq(mail.auth, SLICE_LIT("x+@y")));
    static const char *const bad[] = {"a+0D+0Ab", "+00", "+G1", "+1",  "+",    "a+",
                                      "+7F",      "+2b", "+80", "a=b", "\x7f", "\xe3\x81\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[64];
        snprintf(text, sizeof text, " ENVID=%s", bad[i]);
        cr_assert_str_eq(parse_mail(text), SYNTAX, "%s", text);
        snprintf(text, sizeof text, " AUTH=%s", bad[i]);
        cr_assert_str_eq(parse_mail(text), SYNTAX, "%s", text);
        snprintf(text, sizeof text, " ORCPT=rfc822;%s", bad[i]);
        cr_assert_str_eq(parse_rcpt(text), SYNTAX, "%s", text);
    }
}

static const char *long_value(const char *key, size_t len, const char *unit)
{
    static char text[4000];
    strcpy(text, key);
    for (size_t n = 0; n < len; n += strlen(unit))
        strcat(text, unit);
    return text;
}

Test(params, f17_envid_and_others_too_long)
{
    cr_assert_str_eq(parse_mail(long_value(" ENVID=", SMTP_ENVID_MAX, "x")), "ok");
    cr_assert_str_eq(parse_mail(long_value(" ENVID=", SMTP_ENVID_MAX + 1, "x")), SYNTAX);
    cr_assert_str_eq(parse_mail(long_value(" ENVID=", SMTP_ENVID_MAX + 2, "+20")), SYNTAX);
    cr_assert_str_eq(parse_mail(long_value(" AUTH=", SMTP_PATH_MAX + 2, "x")), "ok");
    cr_assert_str_eq(parse_mail(long_value(" AUTH=", SMTP_PATH_MAX + 3, "x")), SYNTAX);
    cr_assert_str_eq(parse_mail(long_value(" AUTH=", 3 * (SMTP_PATH_MAX + 2), "+41")), "ok");
    cr_assert_eq(mail.auth.len, SMTP_PATH_MAX + 2);
    cr_assert_str_eq(parse_mail(long_value(" AUTH=", 3 * (SMTP_PATH_MAX + 3), "+41")), SYNTAX);
    cr_assert_str_eq(parse_mail(long_value(" AUTH=", 1200, "+41")), SYNTAX);
    cr_assert_str_eq(parse_rcpt(long_value(" ORCPT=rfc822;", SMTP_ORCPT_MAX - 7, "x")), "ok");
    cr_assert_str_eq(parse_rcpt(long_value(" ORCPT=rfc822;", SMTP_ORCPT_MAX - 6, "x")), SYNTAX);
}

Test(params, f17_ret_and_notify)
{
    cr_assert_str_eq(parse_mail(" RET=FULL RET=FULL"), SYNTAX);
    cr_assert_str_eq(parse_mail(" RET=BODY"), SYNTAX);
    cr_assert_str_eq(parse_mail(" RET"), SYNTAX);
    cr_assert_str_eq(parse_rcpt(" NOTIFY=never"), "ok");
    cr_assert_eq(rcpt.notify, SMTP_NOTIFY_NEVER);
    cr_assert_str_eq(parse_rcpt(" NOTIFY=FAILURE,SUCCESS,DELAY"), "ok");
    cr_assert_eq(rcpt.notify, SMTP_NOTIFY_SUCCESS | SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY);
    static const char *const bad[] = {
        "NEVER,FAILURE", "FAILURE,NEVER", "FAILURE,", ",FAILURE", "X", "", "FAILURES"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[64];
        snprintf(text, sizeof text, " NOTIFY=%s", bad[i]);
        cr_assert_str_eq(parse_rcpt(text), SYNTAX, "%s", text);
    }
    cr_assert_str_eq(parse_rcpt(" NOTIFY"), SYNTAX);
}

Test(params, orcpt)
{
    cr_assert_str_eq(parse_rcpt(" ORCPT=rfc822;Bob+20x@y"), "ok");
    cr_assert(slice_eq(rcpt.orcpt, SLICE_LIT("rfc822;Bob+20x@y")));
    cr_assert_str_eq(parse_rcpt(" ORCPT=rfc822;"), SYNTAX);
    cr_assert_str_eq(parse_rcpt(" ORCPT=;a"), SYNTAX);
    cr_assert_str_eq(parse_rcpt(" ORCPT=a@b"), SYNTAX);
    cr_assert_str_eq(parse_rcpt(" ORCPT=rfc(822);a"), SYNTAX);
    cr_assert_str_eq(parse_rcpt(" ORCPT"), SYNTAX);
    cr_assert_str_eq(parse_rcpt_utf8(" ORCPT=utf-8;\xe3\x81\x82@x", true), "ok");
    cr_assert_str_eq(parse_rcpt_utf8(" ORCPT=utf-8;\xe3\x81@x", true), SYNTAX);
    cr_assert_str_eq(parse_rcpt_utf8(" ORCPT=utf-8;\\x{3042}@x", false), "ok");
}

Test(params, xtext_both_ways)
{
    uint8_t there[64], back[64];
    struct buf a = buf_over(there, sizeof there), b = buf_over(back, sizeof back);
    cr_assert(smtp_xtext_encode(SLICE_LIT("a+b= c~!"), &a));
    cr_assert(slice_eq(buf_slice(&a), SLICE_LIT("a+2Bb+3D+20c~!")));
    cr_assert(smtp_xtext_decode(buf_slice(&a), &b));
    cr_assert(slice_eq(buf_slice(&b), SLICE_LIT("a+b= c~!")));
    a = buf_over(there, 2);
    cr_assert_not(smtp_xtext_encode(SLICE_LIT("+"), &a));
    b = buf_over(back, 1);
    cr_assert_not(smtp_xtext_decode(SLICE_LIT("ab"), &b));
}
