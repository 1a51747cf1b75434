/*
 * Tests of gateway/smtp/smtp_in_auth.c: AUTH dialogs, each whole and in pieces. f<N>: as in
 * test_smtp_in.c.
 */
#include <criterion/criterion.h>

#include "tests/unit/smtp_dialog.h"

static struct dialog dialog;
static struct smtp_in_config config;

static void setup(void)
{
    dialog_init(&dialog, false);
    config = dialog.config;
}

TestSuite(smtp_in_auth, .init = setup);

/* The log behind the EHLO reply, of `in` behind an EHLO. */
static void check(const char *in, const char *expected)
{
    const size_t steps[] = {1000000, 1, 2, 3, 13};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        dialog_init(&dialog, false);
        dialog.config = config;
        dialog_run(&dialog, SLICE_LIT("EHLO x\r\n"), 100);
        dialog.log.len = 0;
        dialog_feed(&dialog, slice_str(in), steps[i]);
        const char *got = dialog_text(&dialog);
        cr_assert_str_eq(got, expected, "in pieces of %zu:\n%s\n--- expected:\n%s", steps[i], got,
                         expected);
        dialog_end(&dialog);
    }
}

#define OK        "235 2.7.0 Authentication successful\r\n"
#define MALFORMED "501 5.5.2 Malformed authentication response\r\n"

Test(smtp_in_auth, plain)
{
    check("AUTH PLAIN AGEAc2VjcmV0\r\n", "<AUTH /a/secret>\n" OK);
    check("auth plain\r\nYgBhAHNlY3JldA==\r\n", "334 \r\n<AUTH b/a/secret>\n" OK);
    check("AUTH PLAIN AGEAd3Jvbmc=\r\nNOOP\r\n",
          "<AUTH /a/wrong>\n535 5.7.8 Wrong\r\n250 2.0.0 Ok\r\n");
    check("AUTH PLAIN AGEAbGF0ZXI=\r\n", "<AUTH /a/later>\n454 4.7.0 Try again later\r\n");
}

Test(smtp_in_auth, login)
{
    check("AUTH LOGIN\r\nYQ==\r\nc2VjcmV0\r\n",
          "334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n<AUTH /a/secret>\n" OK);
    check("AUTH LOGIN YQ==\r\nc2VjcmV0\r\n", "334 UGFzc3dvcmQ6\r\n<AUTH /a/secret>\n" OK);
}

Test(smtp_in_auth, required_before_mail)
{
    config.auth_required = true;
    check("MAIL FROM:<a@b>\r\nAUTH PLAIN AGEAc2VjcmV0\r\nMAIL FROM:<a@b>\r\n",
          "530 5.7.0 Authentication required\r\n<AUTH /a/secret>\n" OK
          "<MAIL a@b>\n250 2.1.0 Sender ok\r\n");
}

Test(smtp_in_auth, f44_cancelled)
{
    check("AUTH PLAIN\r\n*\r\nNOOP\r\n", "334 \r\n501 5.7.0 Authentication cancelled\r\n"
                                         "250 2.0.0 Ok\r\n");
    check("AUTH LOGIN\r\nYQ==\r\n*\r\n", "334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"
                                         "501 5.7.0 Authentication cancelled\r\n");
}

Test(smtp_in_auth, f44_bad_base64)
{
    check("AUTH PLAIN\r\nAGEAc2VjcmV\r\nNOOP\r\n", "334 \r\n" MALFORMED "250 2.0.0 Ok\r\n");
    check("AUTH PLAIN AGEA c2VjcmV0\r\n", MALFORMED);
    check("AUTH PLAIN *\r\n", MALFORMED);
    check("AUTH LOGIN\r\n \r\n", "334 VXNlcm5hbWU6\r\n" MALFORMED);
    check("AUTH LOGIN\r\nY\nQ==\r\nNOOP\r\n",
          "334 VXNlcm5hbWU6\r\n500 5.5.2 Bare CR, bare LF or NUL: only CRLF ends a line\r\n"
          "250 2.0.0 Ok\r\n");
}

/* `head`, then A to a length of `len`, then CRLF and NOOP. */
static const char *filled(const char *head, size_t len)
{
    static char text[70100];
    memset(text, 'A', len);
    memcpy(text, head, strlen(head));
    strcpy(text + len, "\r\nNOOP\r\n");
    return text;
}

Test(smtp_in_auth, f44_f45_too_long)
{
    check(filled("AUTH PLAIN ", SMTP_AUTH_LINE_MAX - 2), MALFORMED "250 2.0.0 Ok\r\n");
    check(filled("AUTH PLAIN ", SMTP_AUTH_LINE_MAX - 1),
          "500 5.5.6 Line too long\r\n250 2.0.0 Ok\r\n");
    check(filled("AUTH PLAIN ", 65536), "500 5.5.6 Line too long\r\n250 2.0.0 Ok\r\n");
    check(filled("AUTH PLAIN\r\n", SMTP_AUTH_LINE_MAX - 2 + 12),
          "334 \r\n" MALFORMED "250 2.0.0 Ok\r\n");
    check(filled("AUTH PLAIN\r\n", SMTP_AUTH_LINE_MAX - 1 + 12),
          "334 \r\n500 5.5.6 Line too long\r\n250 2.0.0 Ok\r\n");
    check(filled("AUTH LOGIN\r\nYQ==\r\n", SMTP_AUTH_LINE_MAX),
          "334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n" MALFORMED "250 2.0.0 Ok\r\n");
}

Test(smtp_in_auth, f44_mechanism_twice_in_a_transaction)
{
    check("AUTH\r\nAUTH CRAM-MD5\r\nAUTH PLAI\r\n",
          "501 5.5.4 AUTH needs a mechanism\r\n504 5.5.4 Mechanism is not offered\r\n"
          "504 5.5.4 Mechanism is not offered\r\n");
    check("AUTH PLAIN AGEAc2VjcmV0\r\nAUTH PLAIN AGEAc2VjcmV0\r\n",
          "<AUTH /a/secret>\n" OK "503 5.5.1 Already authenticated\r\n");
    check("MAIL FROM:<a@b>\r\nAUTH PLAIN AGEAc2VjcmV0\r\n",
          "<MAIL a@b>\n250 2.1.0 Sender ok\r\n503 5.5.1 Not inside a mail transaction\r\n");
    config.auth_mechanisms = SASL_PLAIN;
    check("AUTH LOGIN\r\n", "504 5.5.4 Mechanism is not offered\r\n");
    config.auth_mechanisms = 0;
    check("AUTH LOGIN\r\n", "502 5.5.1 AUTH is not offered\r\n");
}

Test(smtp_in_auth, f45_malformed_messages)
{
    check("AUTH PLAIN =\r\n", MALFORMED);
    check("AUTH PLAIN YWJj\r\n", MALFORMED);     /* abc */
    check("AUTH PLAIN YQBi\r\n", MALFORMED);     /* a 0 b */
    check("AUTH PLAIN AGEAYgBj\r\n", MALFORMED); /* 0 a 0 b 0 c */
    check("AUTH PLAIN AABz\r\n", MALFORMED);     /* 0 0 s */
    check("AUTH PLAIN AGEA\r\n", MALFORMED);     /* 0 a 0 */
    check("AUTH LOGIN =\r\n", MALFORMED);
    check("AUTH LOGIN\r\n\r\n", "334 VXNlcm5hbWU6\r\n" MALFORMED);
}

Test(smtp_in_auth, f46_three_failures_close)
{
    check("AUTH PLAIN AGEAeA==\r\nAUTH PLAIN AGEAeA==\r\nAUTH PLAIN AGEAeA==\r\n"
          "AUTH PLAIN AGEAc2VjcmV0\r\n",
          "<AUTH /a/x>\n535 5.7.8 Wrong\r\n<AUTH /a/x>\n535 5.7.8 Wrong\r\n"
          "<AUTH /a/x>\n535 5.7.8 Wrong\r\n421 4.7.0 Too many failed authentications\r\n<CLOSE>\n");
}

static uint8_t line[SMTP_AUTH_LINE_MAX];

/* Feeds all of `text`, lending `line`; returns at the first event that wants an answer. */
static enum smtp_in_event_kind feed(const char *text, struct smtp_in_event *ev)
{
    for (struct slice all = slice_str(text), in; all.len; all = slice_from(all, 1)) {
        in = slice_head(all, 1);
        while (in.len) {
            dialog.out.len = 0;
            enum smtp_in_event_kind kind = smtp_in_step(&dialog.s, &in, &dialog.out, ev);
            if (kind == SMTP_IN_AUTH)
                return kind;
            if (smtp_in_wants_line(&dialog.s))
                smtp_in_lend_line(&dialog.s, line);
        }
    }
    return smtp_in_step(&dialog.s, &(struct slice){0}, &dialog.out, ev);
}

static bool line_has(const char *secret)
{
    return memmem(line, sizeof line, secret, strlen(secret)) != NULL;
}

Test(smtp_in_auth, secrets_do_not_outlive_the_exchange)
{
    struct smtp_in_event ev;
    dialog_init(&dialog, false);
    smtp_in_greet(&dialog.s, &dialog.out, NULL);
    dialog.out.len = 0;
    cr_assert_eq(feed("EHLO x\r\nAUTH LOGIN YQ==\r\nc2VjcmV0\r\n", &ev), SMTP_IN_AUTH);
    cr_assert(line_has("secret"));
    cr_assert_null(smtp_in_take_line(&dialog.s));
    smtp_in_answer(&dialog.s, &dialog.out, NULL, NULL);
    cr_assert(!line_has("secret") && !line_has("c2VjcmV0"));
    cr_assert_eq(smtp_in_take_line(&dialog.s), line);
}

Test(smtp_in_auth, secrets_do_not_outlive_the_session)
{
    struct smtp_in_event ev;
    dialog_init(&dialog, false);
    smtp_in_greet(&dialog.s, &dialog.out, NULL);
    dialog.out.len = 0;
    feed("EHLO x\r\nAUTH LOGIN YQ==\r\nc2VjcmV0", &ev);
    cr_assert(line_has("c2VjcmV0"));
    cr_assert_eq(smtp_in_abandon(&dialog.s), line);
    cr_assert(!line_has("c2VjcmV0"));
}

Test(smtp_in_auth, a_refused_auth_leaves_no_secret)
{
    struct smtp_in_event ev;
    dialog_init(&dialog, false);
    dialog.config.auth_require_tls = true;
    smtp_in_greet(&dialog.s, &dialog.out, NULL);
    dialog.out.len = 0;
    feed("EHLO x\r\nAUTH PLAIN AGEAc2VjcmV0\r\n", &ev);
    cr_assert(!line_has("AGEAc2VjcmV0"));
    cr_assert_eq(smtp_in_take_line(&dialog.s), line);
}
