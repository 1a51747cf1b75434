/*
 * tests/unit/test_transcript.c - gateway/smtp/transcript.c: what a protocol log shows, and never
 * shows.
 */
#include <criterion/criterion.h>

#include "gateway/smtp/transcript.h"

/* "C: " and "S: " lines; a client's in an exchange: "X: ". Each piece of `step` bytes at a time. */
static void play(struct transcript *d, const char *script, size_t step, struct buf *shown)
{
    uint8_t line[TRANSCRIPT_SHOWN_MAX];
    while (*script) {
        const char *end = strchr(script, '\n');
        char who = script[0];
        uint8_t bytes[8192];
        size_t n = (size_t)(end - script) - 3;
        cr_assert_lt(n + 2, sizeof bytes);
        memcpy(bytes, script + 3, n);
        memcpy(bytes + n, "\r\n", 2);
        for (size_t at = 0; at < n + 2; at += step) {
            struct slice in = slice_of(bytes + at, n + 2 - at < step ? n + 2 - at : step);
            struct buf out = buf_over(line, sizeof line);
            while (transcript_line(d, who == 'S' ? TRANSCRIPT_SERVER : TRANSCRIPT_CLIENT,
                                   who == 'X', &in, &out)) {
                cr_assert_not(out.overflow);
                buf_addf(shown, "%c ", who == 'S' ? '>' : '<');
                buf_add_slice(shown, buf_slice(&out));
                buf_add_str(shown, "\n");
                out.len = 0;
            }
            cr_assert_eq(in.len, 0);
        }
        script = end + 1;
    }
    cr_assert_not(shown->overflow);
    buf_add_byte(shown, '\0');
}

static void expect_shown(const char *script, const char *want)
{
    static char text[65536];
    for (size_t step = 1; step < 64; step++) {
        struct transcript d;
        struct buf shown = buf_over(text, sizeof text);
        transcript_init(&d, false, false);
        play(&d, script, step, &shown);
        cr_assert_str_eq(text, want, "in pieces of %zu", step);
    }
}

Test(transcript, lines_are_shown_as_they_are)
{
    expect_shown("S: 220 mail.example.com ESMTP\nC: EHLO client\nS: 250-mail.example.com\n"
                 "S: 250 AUTH PLAIN LOGIN\nC: MAIL FROM:<a@x.test> SIZE=12\nS: 250 2.1.0 ok\n",
                 "> 220 mail.example.com ESMTP\n< EHLO client\n> 250-mail.example.com\n"
                 "> 250 AUTH PLAIN LOGIN\n< MAIL FROM:<a@x.test> SIZE=12\n> 250 2.1.0 ok\n");
}

Test(transcript, no_form_of_auth_shows_more_than_its_mechanism)
{
    static const char *const mechanisms[] = {"PLAIN",   "LOGIN",       "CRAM-MD5",
                                             "XOAUTH2", "OAUTHBEARER", "SCRAM-SHA-256",
                                             "NTLM",    "GSSAPI",      "xoauth2"};
    for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms; i++) {
        char script[1024], want[1024];
        snprintf(script, sizeof script,
                 "C: AUTH %s c2VjcmV0c2VjcmV0\nS: 235 2.7.0 ok\nC: QUIT\n"
                 "C: auth   %s   c2VjcmV0c2VjcmV0 more\nS: 501 no\n"
                 "C: AUTH %s\nS: 334 Y2hhbGxlbmdl\nX: cmVzcG9uc2U=\nS: 334 \nX: YWdhaW4=\n"
                 "S: 535 5.7.8 no\nC: NOOP\n",
                 mechanisms[i], mechanisms[i], mechanisms[i]);
        snprintf(want, sizeof want,
                 "< AUTH %s ***\n> 235 2.7.0 ok\n< QUIT\n< AUTH %s ***\n> 501 no\n"
                 "< AUTH %s\n> 334 ***\n< ***\n> 334\n< ***\n> 535 5.7.8 no\n< NOOP\n",
                 mechanisms[i], mechanisms[i], mechanisms[i]);
        /* "334 " is shown without its blank only where it has nothing behind */
        expect_shown(script, want);
    }
}

Test(transcript, a_response_is_masked_whoever_knows_of_the_exchange)
{
    /* The machine knows, or the 334 tells. */
    expect_shown("C: AUTH LOGIN\nX: dXNlcg==\nX: cGFzcw==\nC: QUIT\n",
                 "< AUTH LOGIN\n< ***\n< ***\n< QUIT\n");
    expect_shown("C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dXNlcg==\nS: 334 UGFzc3dvcmQ6\n"
                 "C: cGFzcw==\nS: 235 ok\nC: QUIT\n",
                 "< AUTH LOGIN\n> 334 ***\n< ***\n> 334 ***\n< ***\n> 235 ok\n< QUIT\n");
    expect_shown("X: AUTH PLAIN c2VjcmV0\nX: *\nX: QUIT\n", "< AUTH PLAIN ***\n< *\n< ***\n");
}

Test(transcript, what_follows_a_refused_auth_or_data_is_masked)
{
    expect_shown("C: AUTH LOGIN\nS: 530 5.7.0 no\nC: dXNlcg==\nS: 500 what\nC: my own secret\n"
                 "C: MAIL FROM:<a@b>\n",
                 "< AUTH LOGIN\n> 530 5.7.0 no\n< ***\n> 500 what\n< ***\n< MAIL FROM:<a@b>\n");
    expect_shown("C: DATA\nS: 503 no\nC: Subject: private\nC: \nC: QUIT\n",
                 "< DATA\n> 503 no\n< ***\n< \n< QUIT\n");
    expect_shown("C: GET / HTTP/1.1\nC: Authorization: Basic c2VjcmV0\nC: Cookie: a\n",
                 "< GET / HTTP/1.1\n< AUTH ***\n< ***\n");
}

Test(transcript, misspelt_auth_shows_nothing)
{
    expect_shown("C: AUTH c2VjcmV0c2VjcmV0\n", "< AUTH ***\n");
    expect_shown("C: AUTHPLAIN c2VjcmV0\n", "< AUTH ***\n");
    expect_shown("C: AUTH\tPLAIN\tc2VjcmV0\n", "< AUTH ***\n");
    expect_shown("C:  AUTH PLAIN c2VjcmV0\n", "< ***\n");
    expect_shown("C: XAUTH PLAIN c2VjcmV0\n", "< ***\n");
    expect_shown("C: AUTH PLAIN\n", "< AUTH PLAIN\n");
    expect_shown("C: AUTH\n", "< AUTH\n");
}

Test(transcript, a_server_that_says_a_response_again_is_masked)
{
    expect_shown("C: AUTH PLAIN AGRlbW8Ac2VjcmV0\nS: 501 cannot decode 'AGRlbW8Ac2VjcmV0' of ours\n"
                 "S: 535 authentication failed\n",
                 "< AUTH PLAIN ***\n> 501 cannot decode '***' of ours\n"
                 "> 535 authentication failed\n");
    expect_shown("C: AUTH LOGIN\nS: 334 x\nC: cGFzc3dvcmQ=\nS: 535 cGFzc3dvcmQ=: wrong\n",
                 "< AUTH LOGIN\n> 334 ***\n< ***\n> 535 ***=: wrong\n");
}

Test(transcript, what_a_server_said_is_masked_when_it_is_told_again)
{
    struct transcript d;
    char text[1024];
    struct buf shown = buf_over(text, sizeof text);
    transcript_init(&d, false, false);
    play(&d, "C: AUTH PLAIN AGRlbW8Ac2VjcmV0\n", 3, &shown);
    shown.len = 0;
    transcript_words(&d, SLICE_LIT("not AGRlbW8Ac2VjcmV0,\tsorry"), &shown);
    cr_assert(slice_eq(buf_slice(&shown), SLICE_LIT("not ***,\\x09sorry")));
}

Test(transcript, a_long_token_that_is_said_again_is_masked_too)
{
    char script[9000], token[4001];
    memset(token, 'x', sizeof token - 1);
    memcpy(token, "dXNlcj1hbm5Ac", 13);
    token[sizeof token - 1] = '\0';
    snprintf(script, sizeof script, "C: AUTH XOAUTH2 %s\nS: 501 not %s.\n", token, token);
    struct transcript d;
    char text[16384];
    struct buf shown = buf_over(text, sizeof text);
    transcript_init(&d, false, false);
    play(&d, script, 100, &shown);
    cr_assert_str_eq(text, "< AUTH XOAUTH2 ***... (4013 bytes)\n> 501 not ***... (4009 bytes)\n");
    cr_assert_null(strstr(text, "xx"));
}

Test(transcript, nothing_that_acts_on_a_terminal_comes_through)
{
    expect_shown("C: EHLO \x1b[2Jx\x07\\\x7f\tend\n", "< EHLO \\x1b[2Jx\\x07\\\\\\x7f\\x09end\n");
    expect_shown("C: EHLO b\xc3\xbc"
                 "cher \xc2\x9b\xe2\x80\xae \xff\xfe\n",
                 "< EHLO b\xc3\xbc"
                 "cher \\xc2\\x9b\\xe2\\x80\\xae \\xff\\xfe\n");
    /* Only CRLF ends a line: no line of the log can be forged. */
    expect_shown("C: NOOP\rx\r\r y\n", "< NOOP\\x0dx\\x0d\\x0d y\n");
    struct transcript d;
    uint8_t line[TRANSCRIPT_SHOWN_MAX];
    struct buf out = buf_over(line, sizeof line);
    struct slice in = SLICE_LIT("NOOP\nQUIT\r\n");
    transcript_init(&d, false, false);
    cr_assert(transcript_line(&d, TRANSCRIPT_CLIENT, false, &in, &out));
    cr_assert(slice_eq(buf_slice(&out), SLICE_LIT("NOOP\\x0aQUIT")));
}

Test(transcript, lines_are_bounded)
{
    struct transcript d;
    uint8_t line[TRANSCRIPT_SHOWN_MAX], flood[4096];
    memset(flood, 0x01, sizeof flood); /* four bytes each when shown */
    struct buf out = buf_over(line, sizeof line);
    transcript_init(&d, false, false);
    for (int i = 0; i < 100; i++) {
        struct slice in = slice_of(flood, sizeof flood);
        cr_assert_not(transcript_line(&d, TRANSCRIPT_SERVER, false, &in, &out));
    }
    struct slice in = SLICE_LIT("\r\n220 x\r\n");
    cr_assert(transcript_line(&d, TRANSCRIPT_SERVER, false, &in, &out));
    cr_assert_not(out.overflow);
    cr_assert_eq(out.len, 4 * TRANSCRIPT_LINE_MAX + strlen("... (409600 bytes)"));
    out.len = 0;
    cr_assert(transcript_line(&d, TRANSCRIPT_SERVER, false, &in, &out));
    cr_assert(slice_eq(buf_slice(&out), SLICE_LIT("220 x")));
}

Test(transcript, one_that_begins_in_the_middle_shows_no_end_of_a_line)
{
    struct transcript d;
    char text[1024];
    struct buf shown = buf_over(text, sizeof text);
    transcript_init(&d, true, true);
    play(&d, "C: IGRlbW8gc2VjcmV0\nS: 4 Y2hhbGxlbmdl\nC: c2VjcmV0\nC: QUIT\nS: 221 bye\n", 3,
         &shown);
    cr_assert_str_eq(text, "< ***\n> ***\n< ***\n< QUIT\n> 221 bye\n");
    shown.len = 0;
    transcript_init(&d, true, false);
    play(&d, "C: NOOP\nC: c2VjcmV0\n", 3, &shown);
    cr_assert_str_eq(text, "< NOOP\n< ***\n");
}
