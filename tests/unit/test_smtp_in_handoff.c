/*
 * Tests of gateway/smtp/smtp_in_handoff.c: XHANDOFF dialogs, each whole and in pieces.
 */
#include <criterion/criterion.h>

#include "tests/unit/smtp_dialog.h"

static struct dialog dialog;

/* What comes of `in` behind EHLO and, with `known`, AUTH. */
static void check(bool offered, bool tls, bool known, const char *in, const char *expected)
{
    const size_t steps[] = {1000000, 1, 2, 3, 13};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        dialog_init(&dialog, tls);
        dialog.config.handoff = offered;
        dialog_run(&dialog, SLICE_LIT("EHLO x\r\n"), 100);
        if (known)
            dialog_feed(&dialog, SLICE_LIT("AUTH PLAIN AGEAc2VjcmV0\r\n"), 100);
        dialog.log.len = 0;
        dialog_feed(&dialog, slice_str(in), steps[i]);
        const char *got = dialog_text(&dialog);
        cr_assert_str_eq(got, expected, "in pieces of %zu:\n%s\n--- expected:\n%s", steps[i], got,
                         expected);
        dialog_end(&dialog);
    }
}

#define OFFER  "XHANDOFF id=abcd1234/00G1 state=6\r\n"
#define DO354  "354 Start mail input; end with <CRLF>.<CRLF>\r\n"
#define SYNTAX "501 5.5.4 Syntax: XHANDOFF id=<id> state=<octets>\r\n"

Test(smtp_in_handoff, prepare_and_settle)
{
    check(true, true, true,
          OFFER "AAAA\r\nSubject: x\r\n\r\n..dot\r\n.\r\n"
                "XHANDOFF-COMMIT id=abcd1234/00G1 to=efgh5678\r\n"
                "XHANDOFF-ABORT id=abcd1234/00G2 to=efgh5678\r\n",
          "<HANDOFF abcd1234/00G1  6>\n" DO354 "<HEADERS open>\n"
          "<BODY AAAA\r\nSubject: x\r\n\r\n.dot\r\n>\n<END>\n250 2.0.0 Q1\r\n"
          "<COMMIT abcd1234/00G1 efgh5678 0>\n250 2.0.0 Ok\r\n"
          "<ABORT abcd1234/00G2 efgh5678 0>\n250 2.0.0 Ok\r\n");
    check(true, true, true, "xhandoff-next from=abcd1234 after=-\r\n",
          "<NEXT  abcd1234 0>\n250 2.0.0 Ok\r\n");
    check(true, true, true, "XHANDOFF-NEXT from=abcd1234 after=abcd1234/7\r\n",
          "<NEXT abcd1234/7 abcd1234 0>\n250 2.0.0 Ok\r\n");
}

/* A message may be larger than others here: it was accepted elsewhere. */
Test(smtp_in_handoff, mail_goes_on_behind_it)
{
    check(true, true, true,
          "XHANDOFF id=bad/1 state=6\r\n"
          "MAIL FROM:<a@b>\r\nXHANDOFF id=a/1 state=6\r\nRSET\r\n" OFFER "AAAA\r\nx\r\n.\r\n",
          "<HANDOFF bad/1  6>\n450 4.3.2 Not now\r\n<MAIL a@b>\n250 2.1.0 Sender ok\r\n"
          "503 5.5.1 A mail transaction is open\r\n250 2.0.0 Ok\r\n<RESET>\n"
          "<HANDOFF abcd1234/00G1  6>\n" DO354
          "<HEADERS open>\n<BODY AAAA\r\nx\r\n>\n<END>\n250 2.0.0 Q1\r\n");
}

Test(smtp_in_handoff, not_for_everybody)
{
    check(false, true, true, OFFER, "502 5.5.1 Command not implemented\r\n");
    check(true, false, true, OFFER, "530 5.7.0 Must issue a STARTTLS command first\r\n");
    check(true, true, false, OFFER, "530 5.7.0 Authentication required\r\n");
    check(true, true, false, "XHANDOFF-COMMIT id=a/1 to=b\r\n",
          "530 5.7.0 Authentication required\r\n");
    check(true, true, false, "XHANDOFF-NEXT from=a after=-\r\n",
          "530 5.7.0 Authentication required\r\n");
}

Test(smtp_in_handoff, syntax)
{
    check(true, true, true, "XHANDOFF\r\n", SYNTAX);
    check(true, true, true, "XHANDOFF id=a/1\r\n", SYNTAX);
    check(true, true, true, "XHANDOFF id=a/1 state=0\r\n", SYNTAX);
    check(true, true, true, "XHANDOFF id=a/1 state=9999999\r\n", SYNTAX);
    check(true, true, true, "XHANDOFF id=a/1 state=1x\r\n", SYNTAX);
    check(true, true, true, "XHANDOFF id=a/1 state=1 more=2\r\n", SYNTAX);
    check(true, true, true, "XHANDOFF id=a state=1\r\n", SYNTAX);
    check(true, true, true, "XHANDOFF id=a/b/c state=1\r\n", SYNTAX);
    check(true, true, true, "XHANDOFF id=a/<b> state=1\r\n", SYNTAX);
    check(true, true, true, "XHANDOFF id=a/0123456789012345678901234567890123456789 state=1\r\n",
          SYNTAX);
    check(true, true, true, "XHANDOFF-COMMIT id=a/1\r\n",
          "501 5.5.4 Syntax: id=<id> to=<instance>\r\n");
    check(true, true, true, "XHANDOFF-NEXT from=a after=b\r\n",
          "501 5.5.4 Syntax: from=<instance> after=<id>\r\n");
}

Test(smtp_in_handoff, said_in_ehlo_inside_tls)
{
    dialog_init(&dialog, true);
    dialog.config.handoff = true;
    dialog_run(&dialog, SLICE_LIT("EHLO x\r\n"), 100);
    cr_assert_not_null(strstr(dialog_text(&dialog), "250-XHANDOFF 1\r\n"));
    dialog_end(&dialog);
    dialog_init(&dialog, false);
    dialog.config.handoff = true;
    dialog_run(&dialog, SLICE_LIT("EHLO x\r\n"), 100);
    cr_assert_null(strstr(dialog_text(&dialog), "XHANDOFF"));
    dialog_end(&dialog);
}
