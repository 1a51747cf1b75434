/*
 * Tests of gateway/smtp/smtp_in*.c: dialogs, each whole, byte by byte and in other pieces. f<N> in
 * a name: row N of the hostile inputs that the project counts.
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
static bool start_in_tls, watched;

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
    dialog.s.lines = watched; /* changes nothing but how far a step goes */
    dialog_run(&dialog, in, step);
    dialog_end(&dialog);
    return dialog_text(&dialog);
}

static void check_bytes(struct slice in, const char *expected)
{
    const size_t steps[] = {in.len ? in.len : 1, 1, 2, 3, 7, 61};
    for (size_t i = 0; i < 2 * sizeof steps / sizeof *steps; i++) {
        watched = i & 1;
        const char *got = run(in, steps[i / 2]);
        cr_assert_str_eq(got, expected, "in pieces of %zu, watched %d:\n%s\n--- expected:\n%s",
                         steps[i / 2], watched, got, expected);
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

/* ---- lines ---- */

Test(smtp_in, f3_bare_cr_lf_or_nul_in_a_command)
{
    static const char bad[] = "500 5.5.2 Bare CR, bare LF or NUL: only CRLF ends a line\r\n";
    char expected[400];
    snprintf(expected, sizeof expected, GREETING "%s" NOOP_OK, bad);
    check("NOOP\nQUIT\nQUIT\r\nNOOP\r\n", expected);
    check("NOOP\rQUIT\r\nNOOP\r\n", expected);
    check("NOOP\r\r\nNOOP\r\n", expected);
    check("\nQUIT\r\nNOOP\r\n", expected);
    check("NOOP\n\r\nNOOP\r\n", expected);
    check("NOOP\nQUIT\n\r\nNOOP\r\n", expected);
    check_bytes(slice_of("NO\0P\r\nNOOP\r\n", 12), expected);
}

static char *filled(char *text, const char *head, size_t len, const char *tail)
{
    size_t at = strlen(head);
    memcpy(text, head, at);
    memset(text + at, 'x', len - at);
    strcpy(text + len, tail);
    return text;
}

Test(smtp_in, f7_line_too_long)
{
    static char text[70000];
    check(filled(text, "NOOP ", SMTP_COMMAND_LINE_MAX - 2, "\r\nNOOP\r\n"),
          GREETING NOOP_OK NOOP_OK);
    check(filled(text, "NOOP ", SMTP_COMMAND_LINE_MAX - 1, "\r\nNOOP\r\n"),
          GREETING "500 5.5.2 Line too long\r\n" NOOP_OK);
    check(filled(text, "NOOP ", 60000, "\r\nNOOP\r\n"),
          GREETING "500 5.5.2 Line too long\r\n" NOOP_OK);
    check(filled(text, "NOOP ", 5000, "\nQUIT\nQUIT\rQUIT\r\nNOOP\r\n"),
          GREETING "500 5.5.2 Line too long\r\n" NOOP_OK);
}

Test(smtp_in, f7_a_line_without_end_closes)
{
    static char text[SMTP_LINE_DISCARD_MAX + 100];
    filled(text, "", sizeof text - 1, "");
    for (size_t step = 1; step < 100000; step = step * 31)
        cr_assert_str_eq(run(slice_str(text), step), GREETING
                         "500 5.5.2 Line too long\r\n421 4.7.0 Line too long\r\n<CLOSE>\n");
}

Test(smtp_in, no_line_buffer_no_partial_line)
{
    dialog_init(&dialog, false);
    dialog.starved = true;
    dialog_run(&dialog, SLICE_LIT("NOOP\r\nNOO"), 9);
    cr_assert_str_eq(dialog_text(&dialog), GREETING NOOP_OK "421 4.3.2 No memory\r\n<CLOSE>\n");
}

/* ---- order, arguments ---- */

Test(smtp_in, f20_commands_out_of_order)
{
    check(MAIL, GREETING "503 5.5.1 Send EHLO first\r\n");
    check(RCPT, GREETING "503 5.5.1 Send EHLO first\r\n");
    check("DATA\r\n", GREETING "503 5.5.1 Send EHLO first\r\n");
    check("AUTH PLAIN\r\n", GREETING "503 5.5.1 Send EHLO first\r\n");
    check("STARTTLS\r\n", GREETING "503 5.5.1 Send EHLO first\r\n");
    check(EHLO RCPT "DATA\r\n" MAIL MAIL "RSET\r\n" RCPT,
          GREETING EHLO_ALL "503 5.5.1 Send MAIL first\r\n503 5.5.1 Send MAIL first\r\n" MAIL_OK
                            "503 5.5.1 A mail transaction is already open\r\n" NOOP_OK
                            "<RESET>\n503 5.5.1 Send MAIL first\r\n");
    check(EHLO MAIL EHLO RCPT "HELO x\r\n" MAIL, GREETING EHLO_ALL MAIL_OK EHLO_ALL
          "503 5.5.1 Send MAIL first\r\n250 mx.example.com\r\n<RESET>\n" MAIL_OK);
    check(EHLO MAIL "STARTTLS\r\n",
          GREETING EHLO_ALL MAIL_OK "503 5.5.1 Not inside a mail transaction\r\n");
}

Test(smtp_in, arguments)
{
    check("EHLO\r\nHELO \r\nehlo \xff\r\n",
          GREETING "501 5.5.4 EHLO needs a domain name\r\n501 5.5.4 HELO needs a domain name\r\n"
                   "501 5.5.4 EHLO needs a domain name\r\n");
    check(EHLO MAIL RCPT "DATA now\r\nRSET x\r\nQUIT x\r\nSTARTTLS x\r\nNOOP x\r\nQUIT \r\n",
          GREETING EHLO_ALL MAIL_OK RCPT_OK
          "501 5.5.4 Command takes no argument\r\n501 5.5.4 Command takes no argument\r\n"
          "501 5.5.4 Command takes no argument\r\n501 5.5.4 Command takes no argument\r\n" NOOP_OK
          "221 2.0.0 Bye\r\n<CLOSE>\n");
    check(EHLO "MAIL\r\nMAIL TO:<a@b>\r\nMAIL FROM <a@b>\r\nMAIL FROM:\r\n" MAIL
               "RCPT FROM:<a@b>\r\n",
          GREETING EHLO_ALL "501 5.5.4 Syntax: MAIL FROM:<address>\r\n"
                            "501 5.5.4 Syntax: MAIL FROM:<address>\r\n"
                            "501 5.5.4 Syntax: MAIL FROM:<address>\r\n"
                            "501 5.1.7 Malformed sender address\r\n" MAIL_OK
                            "501 5.5.4 Syntax: RCPT TO:<address>\r\n");
    check("ehlo client.example\r\nmail from: <a@x.example> \r\nrCpT  tO:b@y.example\r\n",
          GREETING EHLO_ALL MAIL_OK RCPT_OK);
    check("\r\nXYZZY\r\n  NOOP\r\nNOOPX\r\nNOOP\t\r\n",
          GREETING "500 5.5.2 Command not recognized\r\n500 5.5.2 Command not recognized\r\n"
                   "500 5.5.2 Command not recognized\r\n500 5.5.2 Command not recognized\r\n"
                   "500 5.5.2 Command not recognized\r\n");
}

Test(smtp_in, parameters_reach_the_owner)
{
    check(EHLO "MAIL FROM:<> SIZE=99 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb AUTH=<>\r\n"
               "RCPT TO:<\xe3\x81\x82@y.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+3Dy\r\n",
          GREETING EHLO_ALL
          "<MAIL  size=99 envid=a+b auth=<> 8bit utf8 hdrs>\n250 2.1.0 Sender ok\r\n"
          "<RCPT \xe3\x81\x82@y.example notify=10 orcpt=rfc822;x+3Dy>\n"
          "250 2.1.5 Recipient ok\r\n");
}

Test(smtp_in, f10_f11_addresses_that_are_not_ascii)
{
    check(EHLO "MAIL FROM:<\xe3\x81\x82@x>\r\nMAIL FROM:<\xe3\x81@x> SMTPUTF8\r\n" MAIL
               "RCPT TO:<\xe3\x81\x82@x>\r\n",
          GREETING EHLO_ALL "553 5.6.7 Address is not ASCII: SMTPUTF8 is required\r\n"
                            "553 5.6.7 Address is not valid UTF-8\r\n" MAIL_OK
                            "553 5.6.7 Address is not ASCII: SMTPUTF8 is required\r\n");
}

Test(smtp_in, f14_postmaster_and_the_null_path)
{
    check(EHLO MAIL "RCPT TO:<>\r\nRCPT TO:<postMaster>\r\n",
          GREETING EHLO_ALL MAIL_OK "501 5.1.3 Malformed recipient address\r\n"
                                    "<RCPT postMaster>\n250 2.1.5 Recipient ok\r\n");
}

Test(smtp_in, f15_f16_f17_f29_bad_parameters)
{
    check(EHLO "MAIL FROM:<a@b> FOO=1\r\nMAIL FROM:<a@b> RET=FULL RET=FULL\r\n"
               "MAIL FROM:<a@b> ENVID=a+0D+0Ab\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\n" MAIL
               "RCPT TO:<a@b> NOTIFY=NEVER,FAILURE\r\nRCPT TO:<a@b> SIZE=1\r\n",
          GREETING EHLO_ALL
          "555 5.5.4 Parameter is not known or not offered\r\n501 5.5.4 Bad parameter: RET\r\n"
          "501 5.5.4 Bad parameter: ENVID\r\n501 5.5.4 Bad parameter: BODY\r\n" MAIL_OK
          "501 5.5.4 Bad parameter: NOTIFY\r\n"
          "555 5.5.4 Parameter is not known or not offered\r\n");
}

/* ---- sizes and counts ---- */

Test(smtp_in, f18_declared_size)
{
    check(EHLO
          "MAIL FROM:<a@x.example> SIZE=100001\r\nMAIL FROM:<a@b> SIZE=18446744073709551616\r\n"
          "MAIL FROM:<a@b> SIZE=-1\r\nMAIL FROM:<a@b> SIZE=1e9\r\n"
          "MAIL FROM:<a@x.example> SIZE=100000\r\n",
          GREETING EHLO_ALL
          "552 5.3.4 Message is larger than 100000 bytes\r\n501 5.5.4 Bad parameter: SIZE\r\n"
          "501 5.5.4 Bad parameter: SIZE\r\n501 5.5.4 Bad parameter: SIZE\r\n"
          "<MAIL a@x.example size=100000>\n250 2.1.0 Sender ok\r\n");
}

Test(smtp_in, f19_true_size)
{
    config.message_size_max = 10;
    check("HELO x\r\nMAIL FROM:<a@x.example> SIZE=3\r\n" RCPT
          "DATA\r\n\r\n123456789\r\n.\r\n" MAIL RCPT "DATA\r\n\r\n123456\r\n.\r\n",
          GREETING
          "250 mx.example.com\r\n<RESET>\n<MAIL a@x.example size=3>\n"
          "250 2.1.0 Sender ok\r\n" RCPT_OK DATA_OK
          "<HEADERS>\n552 5.3.4 Message is larger than 10 bytes\r\n<BAD>\n" MAIL_OK RCPT_OK DATA_OK
          "<HEADERS>\n<BODY \r\n123456\r\n>\n<END>\n250 2.0.0 Q1\r\n");
}

Test(smtp_in, f1_bare_lf_in_data_is_refused_after_the_true_end)
{
    check(EHLO MAIL RCPT "DATA\r\na: b\n.\nMAIL FROM:<evil@x>\n.\r\n\r\n.\r\n" RCPT MAIL,
          GREETING EHLO_ALL MAIL_OK RCPT_OK DATA_OK
          "550 5.6.11 Bare CR, bare LF or NUL in the message: only CRLF ends a line\r\n<BAD>\n"
          "503 5.5.1 Send MAIL first\r\n" MAIL_OK);
}

Test(smtp_in, f30_loop)
{
    static char text[4000];
    struct buf b = buf_over(text, sizeof text - 1);
    buf_add_str(&b, EHLO MAIL RCPT "DATA\r\n");
    for (int i = 0; i < 51; i++)
        buf_add_str(&b, "Received: x\r\n");
    buf_add_str(&b, "\r\n.\r\n");
    cr_assert(strstr(run(buf_slice(&b), 5), "554 5.4.6 Mail loop"));
    cr_assert(strstr(dialog_text(&dialog), "<BAD>\n"));
}

Test(smtp_in, f32_too_many_recipients)
{
    check(EHLO MAIL RCPT RCPT RCPT RCPT RCPT RCPT RCPT "DATA\r\n\r\n.\r\n" MAIL RCPT,
          GREETING EHLO_ALL MAIL_OK RCPT_OK RCPT_OK RCPT_OK RCPT_OK RCPT_OK
          "452 4.5.3 Too many recipients\r\n452 4.5.3 Too many recipients\r\n" DATA_OK
          "<HEADERS>\n<BODY \r\n>\n<END>\n250 2.0.0 Q1\r\n" MAIL_OK RCPT_OK);
}

Test(smtp_in, f21_no_recipient_accepted)
{
    check(EHLO MAIL "RCPT TO:<no@y>\r\nRCPT TO:<later@y>\r\nDATA\r\nFrom: x\r\n.\r\n" RCPT
                    "DATA\r\n",
          GREETING EHLO_ALL MAIL_OK
          "<RCPT no@y>\n550 5.7.1 Unable to relay\r\n<RCPT later@y>\n451 4.3.0 Later\r\n"
          "554 5.5.1 No valid recipients\r\n500 5.5.2 Command not recognized\r\n"
          "500 5.5.2 Command not recognized\r\n" RCPT_OK DATA_OK);
}

Test(smtp_in, refusals_of_the_owner)
{
    check(EHLO "MAIL FROM:<bad@x>\r\n" RCPT,
          GREETING EHLO_ALL "<MAIL bad@x>\n550 5.7.60 Not yours\r\n503 5.5.1 Send MAIL first\r\n");
    check(EHLO MAIL "RCPT TO:<drain@x>\r\nNOOP\r\n",
          GREETING EHLO_ALL MAIL_OK "<RCPT drain@x>\n421 4.3.2 Going\r\n<CLOSE>\n");
}

/* ---- floods ---- */

static struct slice repeated(const char *head, size_t n, const char *unit)
{
    static char text[200000];
    struct buf b = buf_over(text, sizeof text);
    buf_add_str(&b, head);
    for (size_t i = 0; i < n; i++)
        buf_add_str(&b, unit);
    cr_assert(!b.overflow);
    return buf_slice(&b);
}

/* All of `in` gets a reply up to reply number `replies` (greeting included), which is a 421. */
static void closes_after(struct slice in, uint32_t replies)
{
    const size_t steps[] = {1, 1000, in.len};
    for (size_t i = 0; i < 3; i++) {
        const char *log = run(in, steps[i]);
        cr_assert(strstr(log, "\n421 4.7.0 "), "%s", log);
        cr_assert(dialog.closed);
        cr_assert_eq(dialog.replies, replies, "%u replies", dialog.replies);
    }
}

Test(smtp_in, f48_floods)
{
    closes_after(repeated("", 2000, "NOOP\r\n"), 1 + SMTP_NOOP_MAX + 1);
    closes_after(repeated("", 2000, "RSET\r\n"), 1 + SMTP_NOOP_MAX + 1);
    closes_after(repeated("", 2000, "HELO x\r\n"), 1 + SMTP_NOOP_MAX + 1);
    closes_after(repeated("", 2000, "VRFY x\r\n"), 1 + SMTP_NOOP_MAX + 1);
    closes_after(repeated("", 2000, "HELP\r\n"), 1 + SMTP_NOOP_MAX + 1);
    closes_after(repeated("HELO x\r\n", 500, MAIL "RSET\r\n"), 1 + 1 + 2 * SMTP_NOOP_MAX);
    closes_after(repeated("HELO x\r\n", 2000, "MAIL FROM:<bad@x>\r\n"), 1 + SMTP_NOOP_MAX + 1);
    closes_after(repeated("", 2000, "junk\r\n"), 1 + SMTP_BAD_COMMANDS_MAX + 1);
    closes_after(repeated("", 2000, "\r\n"), 1 + SMTP_BAD_COMMANDS_MAX + 1);
    closes_after(repeated("", 2000, "\n\r\n"), 1 + SMTP_BAD_COMMANDS_MAX + 1);
    closes_after(repeated("", 2000, "DATA\r\n"), 1 + SMTP_BAD_COMMANDS_MAX + 1);
    const char *log = run(repeated("", 200, "EHLO x\r\n"), 1);
    cr_assert(strstr(log, "\n421 4.7.0 ") && dialog.closed);
}

Test(smtp_in, f49_refused_recipients)
{
    closes_after(repeated("HELO x\r\n" MAIL, 200, "RCPT TO:<no@x>\r\n"),
                 3 + SMTP_RCPT_REJECTED_MAX + 1);
    closes_after(repeated("HELO x\r\n" MAIL, 200, "RCPT TO:<@>\r\n"),
                 3 + SMTP_RCPT_REJECTED_MAX + 1);
    (void)run(repeated("HELO x\r\n" MAIL, 200, "RCPT TO:<later@x>\r\n"), 999);
    cr_assert_not(dialog.closed);
}

Test(smtp_in, a_message_forgives)
{
    (void)run(repeated("HELO x\r\n", 60, "bad\r\nNOOP\r\n" MAIL RCPT "DATA\r\n\r\n.\r\n"), 1000);
    cr_assert_not(dialog.closed);
    cr_assert_eq(dialog.s.messages, 60);
}

/* ---- what is not for us ---- */

Test(smtp_in, f33_no_enumeration)
{
    check("VRFY root\r\nVRFY nobody@x\r\nEXPN list\r\nHELP\r\nETRN x\r\nTURN\r\n",
          GREETING "252 2.5.0 Cannot verify, but will take mail and try to deliver\r\n"
                   "252 2.5.0 Cannot verify, but will take mail and try to deliver\r\n"
                   "502 5.5.1 Command not implemented\r\n214 2.0.0 See RFC 5321\r\n"
                   "502 5.5.1 Command not implemented\r\n502 5.5.1 Command not implemented\r\n");
}

Test(smtp_in, f36_other_protocols)
{
    static const char closed[] = GREETING "421 4.7.0 This is an SMTP service\r\n<CLOSE>\n";
    check("GET /<script> HTTP/1.1\r\nHost: x\r\n\r\n", closed);
    check("POST / HTTP/1.1\r\n\r\nEHLO x\r\n", closed);
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", closed);
    check("\x16\x03\x01\x02\x01\x01", closed);
    check("EHLO x\r\nget / HTTP/1.1\r\n",
          GREETING EHLO_ALL "421 4.7.0 This is an SMTP service\r\n<CLOSE>\n");
}

Test(smtp_in, f23_bdat_octets_are_no_commands)
{
    check(EHLO MAIL RCPT "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n",
          GREETING EHLO_ALL MAIL_OK RCPT_OK "502 5.5.1 BDAT is not offered\r\n" NOOP_OK);
    check("BDAT 0\r\nNOOP\r\n", GREETING "502 5.5.1 BDAT is not offered\r\n" NOOP_OK);
    check("BDAT x\r\nQUIT\r\n", GREETING "502 5.5.1 BDAT is not offered\r\n<CLOSE>\n");
    check("BDAT 9223372036854775808\r\nQUIT\r\n",
          GREETING "502 5.5.1 BDAT is not offered\r\n<CLOSE>\n");
    check("BDAT\r\nQUIT\r\n", GREETING "502 5.5.1 BDAT is not offered\r\n<CLOSE>\n");
}

Test(smtp_in, f31_what_a_client_calls_itself)
{
    static const struct {
        const char *name, *kept;
    } cases[] = {{"a.b", "a.b"},        {"[IPv6:::1]", "[IPv6:::1]"},
                 {"x(y)\"z", "x?y??z"}, {"a\tb\x1b", "a?b?"},
                 {"a b", "a"},          {"\xe3\x81\x82", "\xe3\x81\x82"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[64];
        snprintf(line, sizeof line, "EHLO %s\r\n", cases[i].name);
        cr_assert(!strstr(run(slice_str(line), 3), "501"));
        cr_assert_str_eq(dialog.s.helo, cases[i].kept);
    }
    char line[1000] = "HELO ", *p = line + 5;
    for (int i = 0; i < 200; i++, p += 3)
        memcpy(p, "\xe3\x81\x82", 3);
    strcpy(p, "\r\n");
    (void)run(slice_str(line), 1000);
    cr_assert_eq(strlen(dialog.s.helo), 255);
    line[6 + 3] = 'x'; /* cut in the middle of a character now */
    memmove(line + 5 + 1, line + 5, 602);
    line[5] = 'x';
    (void)run(slice_str(line), 1000);
    cr_assert(smtp_utf8_valid(slice_str(dialog.s.helo)));
}

/* ---- TLS ---- */

Test(smtp_in, f37_nothing_behind_starttls_is_read)
{
    dialog_init(&dialog, false);
    dialog_run(&dialog, SLICE_LIT(EHLO "STARTTLS\r\nRSET\r\n"), 1000);
    cr_assert(dialog.drop_behind_starttls);
    cr_assert_str_eq(dialog_text(&dialog),
                     GREETING EHLO_ALL "220 2.0.0 Ready to start TLS\r\n<STARTTLS>\n");
}

Test(smtp_in, f38_all_is_forgotten_after_starttls)
{
    dialog_init(&dialog, false);
    dialog_run(&dialog, SLICE_LIT(EHLO "AUTH PLAIN AGEAc2VjcmV0\r\nSTARTTLS\r\n"), 1000);
    cr_assert(!dialog.drop_behind_starttls && dialog.s.tls);
    cr_assert(!dialog.s.authenticated && !dialog.s.esmtp && !*dialog.s.helo);
    dialog.log.len = 0;
    dialog_feed(&dialog, SLICE_LIT(MAIL EHLO "STARTTLS\r\n"), 1);
    cr_assert_str_eq(dialog_text(&dialog),
                     "503 5.5.1 Send EHLO first\r\n" EHLO_REPLY(
                         "250-AUTH PLAIN LOGIN\r\n") "503 5.5.1 TLS is already active\r\n");
    dialog_end(&dialog);
    config.starttls = false;
    check(EHLO "STARTTLS\r\n",
          GREETING EHLO_REPLY("250-AUTH PLAIN LOGIN\r\n") "502 5.5.1 STARTTLS is not offered\r\n");
}

Test(smtp_in, f38_f43_tls_required)
{
    static const char tls_first[] = "530 5.7.0 Must issue a STARTTLS command first\r\n";
    char expected[1000];
    config.tls_required = true;
    snprintf(expected, sizeof expected,
             GREETING EHLO_REPLY("250-STARTTLS\r\n") "%s%s%s%s%s" NOOP_OK, tls_first, tls_first,
             tls_first, tls_first, tls_first);
    check(EHLO MAIL RCPT "DATA\r\nAUTH PLAIN AGEAc2VjcmV0\r\nVRFY x\r\nNOOP\r\n", expected);
    start_in_tls = true;
    check(EHLO MAIL, GREETING EHLO_REPLY("250-AUTH PLAIN LOGIN\r\n") MAIL_OK);
}

Test(smtp_in, f43_auth_requires_tls)
{
    config.auth_require_tls = true;
    check(EHLO "AUTH LOGIN\r\nAUTH PLAIN =\r\n" MAIL,
          GREETING EHLO_REPLY(
              "250-STARTTLS\r\n") "530 5.7.0 Must issue a STARTTLS command first\r\n"
                                  "530 5.7.0 Must issue a STARTTLS command first\r\n" MAIL_OK);
}

/* ---- shutting down ---- */

Test(smtp_in, shutdown)
{
    struct why why;
    why_set(&why, 421, "4.3.2", "Going");
    dialog_init(&dialog, false);
    dialog_run(&dialog, SLICE_LIT(EHLO), 100);
    cr_assert(smtp_in_is_idle(&dialog.s));
    dialog.log.len = 0;
    smtp_in_shutdown(&dialog.s, &dialog.out, &why);
    smtp_in_shutdown(&dialog.s, &dialog.out, &why);
    cr_assert_not(smtp_in_is_idle(&dialog.s));
    dialog_feed(&dialog, SLICE_LIT("NOOP\r\n"), 100);
    cr_assert_str_eq(dialog_text(&dialog), "421 4.3.2 Going\r\n<CLOSE>\n");
}

Test(smtp_in, shutdown_while_an_answer_is_due)
{
    struct why why;
    struct smtp_in_event ev;
    struct slice in = SLICE_LIT(EHLO MAIL);
    why_set(&why, 421, "4.3.2", "Going");
    dialog_init(&dialog, false);
    smtp_in_greet(&dialog.s, &dialog.out, NULL);
    while (smtp_in_step(&dialog.s, &in, &dialog.out, &ev) != SMTP_IN_MAIL)
        dialog.out.len = 0;
    dialog.out.len = 0;
    smtp_in_shutdown(&dialog.s, &dialog.out, &why);
    cr_assert_eq(dialog.out.len, 0);
    cr_assert_eq(smtp_in_step(&dialog.s, &in, &dialog.out, &ev), SMTP_IN_CLOSE);
}

Test(smtp_in, greeting_refused)
{
    struct why why;
    why_set(&why, 554, "5.7.1", "Not \x1b[31mallowed");
    dialog_init(&dialog, false);
    smtp_in_greet(&dialog.s, &dialog.out, &why);
    dialog_feed(&dialog, SLICE_LIT("EHLO x\r\n"), 100);
    cr_assert_str_eq(dialog_text(&dialog), "554 5.7.1 Not ?[31mallowed\r\n<CLOSE>\n");
}

Test(smtp_in, a_reply_has_no_more_than_a_line_may)
{
    struct why why = {.smtp_code = 550, .enhanced = "5.7.60"};
    memset(why.text, 'x', sizeof why.text - 1);
    dialog_init(&dialog, false);
    smtp_in_greet(&dialog.s, &dialog.out, &why);
    cr_assert_leq(dialog.out.len, SMTP_REPLY_LINE_MAX);
    cr_assert_eq(dialog.out.ptr[dialog.out.len - 1], '\n');
}
