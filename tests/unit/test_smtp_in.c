/*
 * Tests of gateway/smtp/smtp_in*.c: dialogs, each whole, byte by byte and in other pieces. f<N> in a name: row N of
 * the hostile inputs that the project counts.
 */
#include <criterion/criterion.h>

#include "tests/unit/smtp_dialog.h"

#define GREETING "220 mx.example.com ESMTP\r\n"
#define EHLO     "EHLO client.example\r\n"
#define EHLO_REPLY(more)                                                               \
    "250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE 100000\r\n250-8BITMIME\r\n" more \
    "250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250 SMTPUTF8\r\n<RESET>\n"
#define EHLO_ALL EHLO_REPLY("250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n")
#define MAIL     "MAIL FROM:<a@x.example>\r\n"
#define MAIL_OK  "<MAIL a@x.example>\n250 2.1.0 Sender ok\r\n"
#define RCPT     "RCPT TO:<b@y.example>\r\n"
#define RCPT_OK  "<RCPT b@y.example>\n250 2.1.5 Recipient ok\r\n"
#define DATA_OK  "354 Start mail input; end with <CRLF>.<CRLF>\r\n"
#define NOOP_OK  "250 2.0.0 Ok\r\n"

static struct dialog dialog;

/* The connector of the next check(). */
static struct smtp_in_config config;
static bool start_in_tls;

static void setup(void)
{
    dialog_init(&dialog, false);
    config = dialog.config;
    start_in_tls = false;
}

static const char *run(struct slice in, size_t step)
{
    dialog_init(&dialog, start_in_tls);
    dialog.config = config;
    dialog_run(&dialog, in, step);
    dialog_end(&dialog);
    return dialog_text(&dialog);
}

static void check_bytes(struct slice in, const char *expected)
{
    const size_t steps[] = {in.len ? in.len : 1, 1, 2, 3, 7, 61};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const char *got = run(in, steps[i]);
        cr_assert_str_eq(got, expected, "in pieces of %zu:\n%s\n--- expected:\n%s", steps[i], got,
                         expected);
    }
}

static void check(const char *in, const char *expected)
{
    check_bytes(slice_str(in), expected);
}

TestSuite(smtp_in, .init = setup);

Test(smtp_in, a_message)
{
    check(EHLO MAIL RCPT "DATA\r\nFrom: a\r\n\r\nhi\r\n.\r\nQUIT\r\n",
          GREETING EHLO_ALL MAIL_OK RCPT_OK DATA_OK
          "<BODY From: a\r\n>\n<HEADERS from>\n<BODY \r\nhi\r\n>\n<END>\n250 2.0.0 Q1\r\n"
          "221 2.0.0 Bye\r\n<CLOSE>\n");
}

Test(smtp_in, two_messages_on_one_connection)
{
    check(EHLO MAIL RCPT "DATA\r\n.\r\n" MAIL RCPT "DATA\r\n\r\nFAIL\r\n.\r\nNOOP\r\n",
          GREETING EHLO_ALL MAIL_OK RCPT_OK DATA_OK
          "<HEADERS open>\n<END>\n250 2.0.0 Q1\r\n" MAIL_OK RCPT_OK DATA_OK
          "<HEADERS>\n<BODY \r\nFAIL\r\n>\n<END>\n451 4.3.0 Not now\r\n" NOOP_OK);
    cr_assert_eq(dialog.s.messages, 1);
    cr_assert_eq(dialog.s.commands, 8);
}
