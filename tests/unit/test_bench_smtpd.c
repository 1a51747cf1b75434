/*
 * tests/unit/test_bench_smtpd.c - the sink's conversation: dialogs, whole and byte by byte.
 *
 * Owns:     one session at a time.
 * Runs on:  the test's process.
 * Contract: each test fails when the sink answers or keeps something else than the dialog says.
 * Failure:  Criterion reports both texts.
 * Bounds:   none.
 * Tests:    bench/smtpd.c, smtpd_command.c, smtpd_auth.c
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "bench/smtpd.h"

struct kept {
    struct bench_buf body;
    unsigned begun, ended, abandoned;
    bool refuse;
    char first_rcpt[64];
};

static void hook_begin(void *ctx)
{
    ((struct kept *)ctx)->begun++;
}

static void hook_body(void *ctx, const char *data, size_t count)
{
    bench_buf_add(&((struct kept *)ctx)->body, data, count);
}

static struct bench_smtpd session;

static bool hook_end(void *ctx)
{
    struct kept *k = ctx;
    k->ended++;
    snprintf(k->first_rcpt, sizeof(k->first_rcpt), "%s", bench_buf_head(&session.rcpts));
    return !k->refuse;
}

static void hook_abandon(void *ctx)
{
    ((struct kept *)ctx)->abandoned++;
}

static const struct bench_smtpd_hooks hooks = {hook_begin, hook_body, hook_end, hook_abandon};
static struct bench_script script;
static struct bench_smtpd_config config;
static struct kept kept;

static void begin(void)
{
    memset(&kept, 0, sizeof(kept));
    config.hostname = "sink.test";
    config.script = &script;
    config.hooks = &hooks;
    if (config.extensions == 0)
        config.extensions = BENCH_EXT_8BITMIME;
    bench_smtpd_init(&session, &config, &kept);
}

/* Feeds text in parts of step bytes until a result other than MORE. */
static enum bench_smtpd_result feed(const char *text, size_t step)
{
    size_t count = strlen(text), at = 0;
    while (at < count) {
        size_t used = 0, part = count - at < step ? count - at : step;
        enum bench_smtpd_result result = bench_smtpd_feed(&session, text + at, part, &used);
        at += used;
        if (result != BENCH_SMTPD_MORE)
            return result;
        cr_assert_eq(used, part);
    }
    return BENCH_SMTPD_MORE;
}

static void assert_out(const char *expected)
{
    bench_buf_add(&session.out, "", 1);
    cr_assert_str_eq(bench_buf_head(&session.out), expected);
    bench_buf_clear(&session.out);
}

static void end(void)
{
    bench_smtpd_free(&session);
    bench_buf_free(&kept.body);
}

#define ENVELOPE "EHLO c\r\nMAIL FROM:<a@x> BODY=8BITMIME\r\nRCPT TO:<b@y>\r\nDATA\r\n"
#define GREETED  "250-sink.test\r\n250 8BITMIME\r\n"
#define ENVELOPE_REPLIES \
    GREETED "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"

Test(bench_smtpd, one_message_in_every_step_size)
{
    static const char dialog[] = ENVELOPE "S: x\r\n\r\n..dot\r\nb.\r\n.\r\nQUIT\r\n";
    for (size_t step = 1; step <= sizeof(dialog); step++) {
        begin();
        cr_assert_eq(bench_smtpd_greet(&session), BENCH_SMTPD_MORE);
        cr_assert_eq(feed(dialog, step), BENCH_SMTPD_CLOSE);
        assert_out("220 sink.test ESMTP hikyaku-bench sink\r\n" ENVELOPE_REPLIES
                   "250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n");
        cr_assert_eq(bench_buf_count(&kept.body), 18);
        cr_assert_eq(memcmp(bench_buf_head(&kept.body), "S: x\r\n\r\n.dot\r\nb.\r\n", 18), 0);
        cr_assert_eq(kept.ended, 1);
        cr_assert_eq(kept.abandoned, 0);
        end();
    }
}

Test(bench_smtpd, sequence_errors)
{
    begin();
    cr_assert_eq(feed("MAIL FROM:<a@x>\r\nEHLO c\r\nRCPT TO:<b@y>\r\nDATA\r\nMAIL FROM:<>\r\n"
                      "DATA\r\nMAIL FROM:<a@x>\r\nRSET\r\nRCPT TO:<b@y>\r\nFOO\r\nMAIL FROM:a\r\n",
                      3),
                 BENCH_SMTPD_MORE);
    assert_out("503 5.5.1 Bad sequence of commands\r\n" GREETED
               "503 5.5.1 Bad sequence of commands\r\n503 5.5.1 Bad sequence of commands\r\n"
               "250 2.1.0 Ok\r\n554 5.5.1 No valid recipients\r\n"
               "503 5.5.1 Bad sequence of commands\r\n250 2.0.0 Ok\r\n"
               "503 5.5.1 Bad sequence of commands\r\n500 5.5.2 Command not recognized\r\n"
               "501 5.5.4 Syntax: MAIL FROM:<address>\r\n");
    end();
}

Test(bench_smtpd, bare_lf_ends_nothing)
{
    begin();
    cr_assert_eq(feed(ENVELOPE "a\n.\nb\r\n.\nc\r\n", 1), BENCH_SMTPD_MORE);
    assert_out(ENVELOPE_REPLIES);
    cr_assert_eq(kept.ended, 0);
    cr_assert_eq(feed(".\r\n", 1), BENCH_SMTPD_MORE);
    cr_assert_eq(kept.ended, 1);
    end();
}

Test(bench_smtpd, store_failure_is_451)
{
    begin();
    kept.refuse = true;
    cr_assert_eq(feed(ENVELOPE ".\r\n", 100), BENCH_SMTPD_MORE);
    assert_out(ENVELOPE_REPLIES "451 4.3.0 Cannot store the message\r\n");
    end();
}

Test(bench_smtpd, scripted_refusals)
{
    bench_script_add(&script, BENCH_RULE_REPLY, "rcpt~bad*=550 5.1.1 gone");
    bench_script_add(&script, BENCH_RULE_REPLY, "eod#1=451 4.3.0 later");
    begin();
    cr_assert_eq(feed("EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<bad@y>\r\nRCPT TO:<b@y>\r\nDATA\r\n"
                      "x\r\n.\r\n",
                      7),
                 BENCH_SMTPD_MORE);
    assert_out(GREETED "250 2.1.0 Ok\r\n550 5.1.1 gone\r\n250 2.1.5 Ok\r\n"
                       "354 End data with <CR><LF>.<CR><LF>\r\n451 4.3.0 later\r\n");
    cr_assert_eq(kept.ended, 0);
    cr_assert_eq(kept.abandoned, 1);
    cr_assert_eq(
        feed("MAIL FROM:<a@x>\r\nRCPT TO:<bad@y>\r\nRCPT TO:<b@y>\r\nDATA\r\nx\r\n.\r\n", 7),
        BENCH_SMTPD_MORE);
    cr_assert_eq(kept.ended, 1);
    cr_assert_str_eq(kept.first_rcpt, "b@y");
    end();
}

Test(bench_smtpd, drops)
{
    bench_script_add(&script, BENCH_RULE_DROP_AFTER_DOT, "eod~after@*");
    bench_script_add(&script, BENCH_RULE_DROP, "eod~before@*");
    bench_script_add(&script, BENCH_RULE_DROP, "body~body@*");
    static const struct {
        const char *rcpt;
        unsigned ended, abandoned;
    } cases[] = {{"after", 1, 0}, {"before", 0, 1}, {"body", 0, 1}};
    for (size_t i = 0; i < 3; i++) {
        char text[200];
        snprintf(text, sizeof(text), "EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<%s@y>\r\nDATA\r\n",
                 cases[i].rcpt);
        begin();
        cr_assert_eq(feed(text, 200), BENCH_SMTPD_MORE);
        cr_assert_eq(feed("x\r\n.\r\n", 100), BENCH_SMTPD_DROP);
        end();
        cr_assert_eq(kept.ended, cases[i].ended);
        cr_assert_eq(kept.abandoned, cases[i].abandoned);
    }
}

Test(bench_smtpd, a_delay_holds_one_reply_and_what_follows)
{
    size_t used = 0;
    static const char text[] = "NOOP\r\nNOOP\r\n";
    bench_script_add(&script, BENCH_RULE_DELAY, "noop#1=70");
    begin();
    cr_assert_eq(bench_smtpd_feed(&session, text, sizeof(text) - 1, &used), BENCH_SMTPD_DELAY);
    cr_assert_eq(used, 6);
    cr_assert_eq(session.delay_ms, 70);
    assert_out("");
    cr_assert_eq(bench_smtpd_resume(&session), BENCH_SMTPD_MORE);
    assert_out("250 2.0.0 Ok\r\n");
    cr_assert_eq(feed(text + 6, 6), BENCH_SMTPD_MORE);
    assert_out("250 2.0.0 Ok\r\n");
    end();
}

Test(bench_smtpd, auth_is_required_and_checked)
{
    config.auth_user = "user";
    config.auth_password = "secret";
    config.extensions = BENCH_EXT_AUTH;
    begin();
    cr_assert_eq(feed("EHLO c\r\nMAIL FROM:<a@x>\r\nAUTH PLAIN AHVzZXIAd3Jvbmc=\r\n"
                      "AUTH PLAIN %%\r\nAUTH LOGIN\r\ndXNlcg==\r\nc2VjcmV0\r\nMAIL FROM:<a@x>\r\n",
                      5),
                 BENCH_SMTPD_MORE);
    assert_out("250-sink.test\r\n250 AUTH PLAIN LOGIN\r\n530 5.7.0 Authentication required\r\n"
               "535 5.7.8 Authentication credentials invalid\r\n"
               "501 5.5.2 Cannot decode response\r\n334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"
               "235 2.7.0 Authentication successful\r\n250 2.1.0 Ok\r\n");
    cr_assert_str_eq(session.auth_name, "user");
    end();
    begin();
    cr_assert_eq(feed("EHLO c\r\nAUTH PLAIN\r\nAHVzZXIAc2VjcmV0\r\n", 1), BENCH_SMTPD_MORE);
    cr_assert(session.authenticated);
    bench_smtpd_tls_on(&session);
    bench_buf_clear(&session.out);
    cr_assert_eq(feed("EHLO c\r\nMAIL FROM:<a@x>\r\n", 1), BENCH_SMTPD_MORE);
    assert_out("250-sink.test\r\n250 AUTH PLAIN LOGIN\r\n530 5.7.0 Authentication required\r\n");
    end();
}

Test(bench_smtpd, starttls_forgets_what_came_before)
{
    static const char text[] = "EHLO c\r\nMAIL FROM:<a@x>\r\nSTARTTLS\r\nNOOP\r\n";
    size_t used = 0;
    config.tls_available = true;
    config.extensions = BENCH_EXT_STARTTLS;
    begin();
    cr_assert_eq(bench_smtpd_feed(&session, text, sizeof(text) - 1, &used), BENCH_SMTPD_STARTTLS);
    cr_assert_eq(used, sizeof(text) - 1 - 6);
    bench_smtpd_tls_on(&session);
    bench_buf_clear(&session.out);
    cr_assert_eq(feed("RCPT TO:<b@y>\r\nEHLO c\r\n", 4), BENCH_SMTPD_MORE);
    assert_out("503 5.5.1 Bad sequence of commands\r\n250 sink.test\r\n");
    end();
}

Test(bench_smtpd, an_endless_line_closes)
{
    static char line[BENCH_LINE_SIZE_MAX + 100];
    memset(line, 'x', sizeof(line) - 1);
    begin();
    cr_assert_eq(feed(line, 1000), BENCH_SMTPD_CLOSE);
    assert_out("500 5.5.2 Line too long\r\n");
    end();
}

Test(bench_smtpd, size_limit_at_mail_and_at_the_end)
{
    config.message_size_max = 10;
    begin();
    cr_assert_eq(feed("EHLO c\r\nMAIL FROM:<a@x> SIZE=11\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n"
                      "DATA\r\n0123456789\r\n.\r\n",
                      9),
                 BENCH_SMTPD_MORE);
    assert_out(GREETED "552 5.3.4 Message too large\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
                       "354 End data with <CR><LF>.<CR><LF>\r\n552 5.3.4 Message too large\r\n");
    cr_assert_eq(kept.ended, 0);
    end();
}
