/*
 * tests/unit/test_smtp_in_watch.c - the server machine with its owner watching: a step reads one
 * line at most and says beforehand what it takes it for, so that nothing secret is ever shown.
 */
#include <criterion/criterion.h>

#include "gateway/smtp/smtp_in.h"
#include "gateway/smtp/transcript.h"

static struct smtp_in_config config = {
    .auth_mechanisms = SASL_PLAIN | SASL_LOGIN, .message_size_max = 1000000, .rcpt_count_max = 10};

struct watched {
    struct smtp_in s;
    struct transcript t;
    uint8_t line[SMTP_AUTH_LINE_MAX];
    uint64_t content;
    struct buf shown;
    char text[16384];
};

static void show(struct watched *w, enum transcript_from from, bool secret, struct slice bytes)
{
    uint8_t line[TRANSCRIPT_SHOWN_MAX];
    struct buf out = buf_over(line, sizeof line);
    while (transcript_line(&w->t, from, secret, &bytes, &out)) {
        buf_addf(&w->shown, "%c %.*s\n", from == TRANSCRIPT_CLIENT ? '<' : '>', (int)out.len, line);
        out.len = 0;
    }
}

/* As session_io.c does it. */
static void feed(struct watched *w, struct slice in)
{
    uint8_t replies[4096];
    for (bool more = true; more;) {
        struct buf out = buf_over(replies, sizeof replies);
        struct smtp_in_event ev;
        const struct slice before = in;
        enum smtp_in_reading what = smtp_in_reading(&w->s);
        enum smtp_in_event_kind kind = smtp_in_step(&w->s, &in, &out, &ev);
        struct slice read = slice_head(before, before.len - in.len);
        if (what == SMTP_IN_READS_CONTENT) {
            w->content += read.len;
        } else {
            show(w, TRANSCRIPT_CLIENT, what == SMTP_IN_READS_SECRET, read);
        }
        const struct why wrong = {.smtp_code = 535, .enhanced = "5.7.8", .text = "wrong"};
        if (kind == SMTP_IN_AUTH || kind == SMTP_IN_MAIL || kind == SMTP_IN_RCPT ||
            kind == SMTP_IN_DATA || kind == SMTP_IN_END)
            smtp_in_answer(&w->s, &out, kind == SMTP_IN_AUTH ? &wrong : NULL, NULL);
        show(w, TRANSCRIPT_SERVER, false, buf_slice(&out));
        if (kind == SMTP_IN_NEED_INPUT && smtp_in_wants_line(&w->s))
            smtp_in_lend_line(&w->s, w->line);
        else
            more = kind != SMTP_IN_NEED_INPUT && kind != SMTP_IN_CLOSE;
    }
    (void)smtp_in_take_line(&w->s);
}

static const char *play(struct watched *w, const char *text, size_t step)
{
    uint8_t greeting[512];
    struct buf out = buf_over(greeting, sizeof greeting);
    memset(w, 0, sizeof *w);
    w->shown = buf_over(w->text, sizeof w->text - 1);
    config.fqdn = slice_str("mx.test");
    smtp_in_init(&w->s, &config, true);
    transcript_init(&w->t, false, false);
    w->s.lines = true;
    smtp_in_greet(&w->s, &out, NULL);
    for (size_t at = 0, n = strlen(text); at < n && !smtp_in_is_closing(&w->s); at += step) {
        uint8_t piece[4096];
        size_t len = n - at < step ? n - at : step;
        memcpy(piece, text + at, len);
        feed(w, slice_of(piece, len));
    }
    cr_assert_not(w->shown.overflow);
    return w->text;
}

Test(smtp_in_watch, secrets_are_masked_however_they_come)
{
    static const char *const dialogs[] = {
        "EHLO a\r\nAUTH PLAIN AHUAc2VjcmV0\r\nQUIT\r\n",
        "EHLO a\r\nAUTH PLAIN\r\nAHUAc2VjcmV0\r\nQUIT\r\n",
        "EHLO a\r\nAUTH LOGIN\r\nc2VjcmV0\r\nc2VjcmV0\r\nQUIT\r\n",
        "EHLO a\r\nAUTH LOGIN c2VjcmV0\r\nc2VjcmV0\r\nQUIT\r\n",
        "EHLO a\r\nAUTH XOAUTH2 c2VjcmV0\r\nQUIT\r\n",
        "EHLO a\r\nAUTH XOAUTH2\r\nc2VjcmV0\r\nQUIT\r\n",
        "AUTH LOGIN\r\nc2VjcmV0\r\nc2VjcmV0\r\nQUIT\r\n",
        "EHLO a\r\nAUTH LOGIN\r\n!c2VjcmV0\r\nc2VjcmV0\r\nQUIT\r\n",
        "EHLO a\r\nAUTH LOGIN\r\nc2Vj\ncmV0c2VjcmV0\r\nc2VjcmV0\r\nQUIT\r\n",
        "EHLO a\r\nAUTH PLAIN c2Vj\ncmV0c2VjcmV0\r\nQUIT\r\n",
        "EHLO a\r\nAUTH LOGIN\r\n*\r\nc2VjcmV0\r\nQUIT\r\n"};
    static struct watched w;
    for (size_t i = 0; i < sizeof dialogs / sizeof *dialogs; i++)
        for (size_t step = 1; step < 80; step++) {
            const char *shown = play(&w, dialogs[i], step);
            cr_assert_null(strstr(shown, "c2V"), "%zu in pieces of %zu: %s", i, step, shown);
            cr_assert_null(strstr(shown, "cmV0"), "%zu in pieces of %zu: %s", i, step, shown);
            cr_assert_null(strstr(shown, "AHUA"), "%zu in pieces of %zu: %s", i, step, shown);
            cr_assert(strstr(shown, "***") && strstr(shown, "< QUIT\n> 221 "), "%s", shown);
        }
}

Test(smtp_in_watch, content_is_counted_and_not_shown)
{
    static const char text[] = "EHLO a\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"
                               "Subject: hidden\r\n\r\nhidden words\r\nQUIT\r\n.\r\nQUIT\r\n"
                               "BDAT 10 LAST\r\nhidden\r\nabc";
    static struct watched w;
    for (size_t step = 1; step < 90; step++) {
        const char *shown = play(&w, text, step);
        cr_assert_null(strstr(shown, "hidden"), "in pieces of %zu: %s", step, shown);
        cr_assert(strstr(shown, "< DATA\n> 354 ") && strstr(shown, "> 221 "), "%s", shown);
        cr_assert_eq(w.content, strlen("Subject: hidden\r\n\r\nhidden words\r\nQUIT\r\n.\r\n"));
    }
    static const char refused[] = "EHLO a\r\nBDAT 12 LAST\r\nhidden\r\nwordQUIT\r\n";
    for (size_t step = 1; step < 50; step++) {
        const char *shown = play(&w, refused, step);
        cr_assert(strstr(shown, "< QUIT\n> 221 "), "in pieces of %zu: %s", step, shown);
        cr_assert_null(strstr(shown, "hidden"), "in pieces of %zu: %s", step, shown);
        cr_assert_eq(w.content, 12);
    }
}
