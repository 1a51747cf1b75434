/*
 * tests/unit/test_dsn.c - delivery status notifications: who gets one, and what stands in it.
 */
#include <criterion/criterion.h>

#include "gateway/dsn.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define T0       (1795321432ull * NS_PER_S) /* Sun, 22 Nov 2026 04:23:52 UTC */
#define MINUTE   (60 * NS_PER_S)

Test(dsn, wanted)
{
    enum {
        N = SMTP_NOTIFY_NEVER,
        S = SMTP_NOTIFY_SUCCESS,
        F = SMTP_NOTIFY_FAILURE,
        D = SMTP_NOTIFY_DELAY
    };
    static const struct {
        uint8_t notify;
        bool failed, expired, delayed, relayed;
    } rows[] = {{0, 1, 1, 1, 0}, {N, 0, 0, 0, 0},     {S, 0, 0, 0, 1},         {F, 1, 1, 0, 0},
                {D, 0, 0, 1, 0}, {S | F, 1, 1, 0, 1}, {S | F | D, 1, 1, 1, 1}, {S | D, 0, 0, 1, 1}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t notify = rows[i].notify;
        cr_expect_eq(dsn_wanted(notify, DSN_FAILED, false), rows[i].failed, "row %zu", i);
        cr_expect_eq(dsn_wanted(notify, DSN_EXPIRED, false), rows[i].expired, "row %zu", i);
        cr_expect_eq(dsn_wanted(notify, DSN_DELAYED, false), rows[i].delayed, "row %zu", i);
        cr_expect_eq(dsn_wanted(notify, DSN_RELAYED, false), rows[i].relayed, "row %zu", i);
        for (int kind = DSN_FAILED; kind <= DSN_RELAYED; kind++)
            cr_expect_not(dsn_wanted(notify, kind, true));
    }
}

static const char ORIGINAL_TEXT[] =
    "Received: from x\r\n\tby y\r\nSubject: caf\xc3\xa9\r\n\r\nBody\r\n.\r\n";

/* Writes the report; the original comes `piece` bytes at a time, `out` has `cap` bytes. */
static const char *write_report(const struct dsn *d, struct slice original, size_t piece,
                                uint32_t cap)
{
    static char text[1 << 22];
    static uint8_t memory[1 << 16];
    struct buf all = buf_over(text, sizeof text - 1), out = buf_over(memory, cap);
    struct dsn_writer w;
    dsn_start(&w, d);
    for (;;) {
        enum dsn_step step = dsn_write(&w, &out);
        if (step == DSN_WANT_ORIGINAL) {
            if (original.len == 0 || dsn_original_is_enough(&w)) {
                dsn_original_end(&w);
                continue;
            }
            size_t taken = dsn_original(&w, slice_head(original, piece), &out);
            cr_assert_leq(taken, piece);
            original = slice_from(original, taken);
            continue;
        }
        cr_assert(buf_add_slice(&all, buf_slice(&out)));
        cr_assert(out.len > 0 || step == DSN_DONE);
        out.len = 0;
        if (step == DSN_DONE)
            break;
    }
    text[all.len] = '\0';
    return text;
}

static void check_lines(const char *text)
{
    for (const char *line = text; *line;) {
        const char *end = strstr(line, "\r\n");
        cr_assert_not_null(end, "no CRLF: %.80s", line);
        cr_assert_eq(strcspn(line, "\r\n"), (size_t)(end - line), "%.80s", line);
        cr_assert_leq((size_t)(end - line), 998);
        line = end + 2;
    }
}

static uint32_t occurrences(const char *text, const char *what)
{
    uint32_t n = 0;
    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

static struct dsn_rcpt refused(void)
{
    return (struct dsn_rcpt){.mailbox = SLICE_LIT("x@example.org"),
                             .host = SLICE_LIT("mx.example.org"),
                             .address = SLICE_LIT("192.0.2.1"),
                             .code = 550,
                             .enhanced = SLICE_LIT("5.1.1"),
                             .text = SLICE_LIT("No such user"),
                             .attempt_wall_ns = T0 + MINUTE};
}

static struct dsn report(const struct dsn_rcpt *rcpts, uint32_t rcpt_count)
{
    return (struct dsn){.kind = DSN_FAILED,
                        .hostname = SLICE_LIT("mail.example.com"),
                        .id = SLICE_LIT("0A1B2C3Dx17f2c"),
                        .qid = SLICE_LIT("0A1B2C3D"),
                        .to = SLICE_LIT("joe@example.com"),
                        .arrival_wall_ns = T0,
                        .now_wall_ns = T0 + 2 * MINUTE,
                        .rcpts = rcpts,
                        .rcpt_count = rcpt_count,
                        .original_size = sizeof ORIGINAL_TEXT - 1};
}

static const char *plain(const struct dsn *d)
{
    return write_report(d, slice_str(ORIGINAL_TEXT), 10, DSN_ROOM_MIN);
}

#define HEAD                                                           \
    "From: Mail Delivery System <MAILER-DAEMON@mail.example.com>\r\n"  \
    "To: <joe@example.com>\r\n"                                        \
    "Subject: Undeliverable: your message could not be delivered\r\n"  \
    "Date: Sun, 22 Nov 2026 04:25:52 +0000\r\n"                        \
    "Message-ID: <0A1B2C3Dx17f2c@mail.example.com>\r\n"                \
    "Auto-Submitted: auto-replied\r\n"                                 \
    "MIME-Version: 1.0\r\n"                                            \
    "Content-Type: multipart/report; report-type=delivery-status;\r\n" \
    "\tboundary=\"hikyaku.0A1B2C3Dx17f2c\"\r\n"

Test(dsn, failure_word_for_word)
{
    struct dsn_rcpt rcpt = refused();
    struct dsn d = report(&rcpt, 1);
    rcpt.orcpt = SLICE_LIT("rfc822;old+2Bx@example.net");
    d.envid = SLICE_LIT("job 7");
    cr_assert_str_eq(
        plain(&d),
        HEAD "\r\n"
             "This is a delivery report in MIME format.\r\n"
             "\r\n"
             "--hikyaku.0A1B2C3Dx17f2c\r\n"
             "Content-Type: text/plain; charset=us-ascii\r\n"
             "\r\n"
             "This is the mail gateway mail.example.com.\r\n"
             "\r\n"
             "Your message of Sun, 22 Nov 2026 04:23:52 +0000\r\n"
             "could not be delivered to:\r\n"
             "\r\n"
             "    <x@example.org>\r\n"
             "        mx.example.org [192.0.2.1] said on Sun, 22 Nov 2026 04:24:52 +0000:\r\n"
             "        550 5.1.1 No such user\r\n"
             "\r\n"
             "It will not be tried again. The headers of the message follow below.\r\n"
             "\r\n"
             "If you ask your administrator about it, give this number: 0A1B2C3D\r\n"
             "\r\n"
             "--hikyaku.0A1B2C3Dx17f2c\r\n"
             "Content-Type: message/delivery-status\r\n"
             "\r\n"
             "Reporting-MTA: dns; mail.example.com\r\n"
             "X-Hikyaku-Queue-Id: 0A1B2C3D\r\n"
             "Original-Envelope-Id: job 7\r\n"
             "Arrival-Date: Sun, 22 Nov 2026 04:23:52 +0000\r\n"
             "\r\n"
             "Original-Recipient: rfc822; old+x@example.net\r\n"
             "Final-Recipient: rfc822; x@example.org\r\n"
             "Action: failed\r\n"
             "Status: 5.1.1\r\n"
             "Remote-MTA: dns; mx.example.org\r\n"
             "Diagnostic-Code: smtp; 550 5.1.1 No such user\r\n"
             "Last-Attempt-Date: Sun, 22 Nov 2026 04:24:52 +0000\r\n"
             "\r\n"
             "--hikyaku.0A1B2C3Dx17f2c\r\n"
             "Content-Type: text/rfc822-headers\r\n"
             "\r\n"
             "Received: from x\r\n\tby y\r\nSubject: caf??\r\n\r\n"
             "\r\n"
             "--hikyaku.0A1B2C3Dx17f2c--\r\n");
    cr_assert_not(dsn_is_8bit(&d));
}

/* The text does not depend on how much room there is, nor on how the original is cut. */
Test(dsn, same_in_every_cut)
{
    static struct dsn_rcpt rcpts[50];
    for (size_t i = 0; i < COUNT(rcpts); i++)
        rcpts[i] = refused();
    struct dsn d = report(rcpts, COUNT(rcpts));
    struct slice original = slice_str(ORIGINAL_TEXT);
    for (int full = 0; full < 2; full++) {
        d.ret = full ? SMTP_RET_FULL : SMTP_RET_HDRS;
        char *whole = strdup(write_report(&d, original, original.len, 65536));
        check_lines(whole);
        cr_assert_eq(occurrences(whole, "Action: failed"), COUNT(rcpts));
        cr_assert_eq(occurrences(whole, "    <x@example.org>"), COUNT(rcpts));
        for (size_t piece = 1; piece < 20; piece += 3)
            for (uint32_t cap = DSN_ROOM_MIN; cap < 9000; cap += 1111)
                cr_assert_str_eq(write_report(&d, original, piece, cap), whole);
        free(whole);
    }
}

Test(dsn, full_original_is_returned_byte_for_byte)
{
    struct dsn_rcpt rcpt = refused();
    struct dsn d = report(&rcpt, 1);
    d.ret = SMTP_RET_FULL;
    d.original_8bit = true;
    cr_assert(dsn_returns_full(&d) && dsn_is_8bit(&d) && !dsn_is_utf8(&d));
    const char *text = plain(&d);
    char expected[512];
    snprintf(expected, sizeof expected,
             "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%s\r\n"
             "--hikyaku.0A1B2C3Dx17f2c--\r\n",
             ORIGINAL_TEXT);
    cr_assert_not_null(strstr(text, expected), "%s", text);
    cr_assert_not_null(strstr(text, "\tboundary=\"hikyaku.0A1B2C3Dx17f2c\"\r\n"
                                    "Content-Transfer-Encoding: 8bit\r\n"));
    d.original_8bit = false;
    cr_assert_null(strstr(plain(&d), "8bit"));
    d.original_size = DSN_FULL_MAX + 1;
    cr_assert_not_null(strstr(plain(&d), "text/rfc822-headers"));
    d.original_size = 1;
    d.kind = DSN_DELAYED; /* RFC 3461 section 4.3: only failures return the message */
    cr_assert_not_null(strstr(plain(&d), "text/rfc822-headers"));
}

Test(dsn, headers_end_where_they_end)
{
    static const struct {
        const char *original, *kept;
    } rows[] = {
        {"", ""},
        {"A: b\r\n\r\nbody\r\n", "A: b\r\n\r\n"},
        {"\r\nbody\r\n", "\r\n"},
        {"A: b\r\nC: d", "A: b\r\nC: d"},
        {"A: b\r\n", "A: b\r\n"},
        {"A: b\r\r\n\r\nbody", "A: b\r\r\n\r\n"},
        {"A: b\r\n\r\r\n\r\nbody", "A: b\r\n\r\r\n\r\n"},
    };
    struct dsn_rcpt rcpt = refused();
    struct dsn d = report(&rcpt, 1);
    for (size_t i = 0; i < COUNT(rows); i++)
        for (size_t piece = 1; piece < 30; piece += 7) {
            char expected[256];
            const char *text = write_report(&d, slice_str(rows[i].original), piece, DSN_ROOM_MIN);
            snprintf(expected, sizeof expected, "text/rfc822-headers\r\n\r\n%s\r\n--hikyaku.",
                     rows[i].kept);
            cr_assert_not_null(strstr(text, expected), "%zu: %s", i, text);
            cr_assert_null(strstr(text, "body"));
        }
}

Test(dsn, endless_headers_are_cut_at_a_line)
{
    static char original[4 * DSN_HEADERS_MAX];
    memset(original, 0, sizeof original);
    struct buf b = buf_over(original, sizeof original - 1);
    while (buf_add_str(&b, "X-Header: 0123456789012345678901234567890123456789\r\n"))
        ;
    struct dsn_rcpt rcpt = refused();
    struct dsn d = report(&rcpt, 1);
    const char *text = write_report(&d, slice_of(original, b.len), 1000, DSN_ROOM_MIN);
    check_lines(text);
    cr_assert_lt(strlen(text), DSN_HEADERS_MAX + 4096);
    cr_assert_gt(strlen(text), DSN_HEADERS_MAX);
}

Test(dsn, other_kinds)
{
    struct dsn_rcpt rcpt = refused();
    struct dsn d = report(&rcpt, 1);
    rcpt.code = 450;
    rcpt.enhanced = SLICE_LIT("4.2.0");
    rcpt.text = SLICE_LIT("greylisted");

    d.kind = DSN_EXPIRED;
    const char *text = plain(&d);
    cr_assert_not_null(strstr(text, "Action: failed\r\nStatus: 4.4.7\r\n"));
    cr_assert_not_null(strstr(text, "in the time allowed to:"));
    cr_assert_not_null(strstr(text, "Diagnostic-Code: smtp; 450 4.2.0 greylisted\r\n"));

    d.kind = DSN_DELAYED;
    d.retry_until_wall_ns = T0 + 48 * 60 * MINUTE;
    text = plain(&d);
    cr_assert_not_null(strstr(text, "Action: delayed\r\nStatus: 4.2.0\r\n"));
    cr_assert_not_null(strstr(text, "Will-Retry-Until: Tue, 24 Nov 2026 04:23:52 +0000\r\n"));
    cr_assert_not_null(strstr(text, "still being tried until\r\nTue, 24 Nov 2026 04:23:52 +0000."));
    cr_assert_not_null(strstr(text, "Subject: Delayed"));

    d.kind = DSN_RELAYED;
    text = plain(&d);
    cr_assert_not_null(strstr(text, "Action: relayed\r\nStatus: 2.1.9\r\n"));
    cr_assert_null(strstr(text, "Will-Retry-Until"));
    cr_assert_null(strstr(text, "not be tried again"));
}

Test(dsn, status_and_words_of_all_sorts)
{
    static const struct {
        uint16_t code;
        const char *enhanced, *text, *status, *diagnostic;
    } rows[] = {
        {550, "5.7.1", "no", "5.7.1", "smtp; 550 5.7.1 no"},
        {550, "", "no", "5.0.0", "smtp; 550 no"},
        {554, "5.7", "no", "5.0.0", "smtp; 554 5.7 no"},
        {554, "2.0.0", "no", "5.0.0", "smtp; 554 2.0.0 no"},
        {554, "5..1.1", "no", "5.0.0", "smtp; 554 5..1.1 no"},
        {554, "", "", "5.0.0", "smtp; 554"},
        {0, "4.4.1", "connection timed out", "4.4.1", "X-Hikyaku; connection timed out"},
        {0, "5.1.10", "null MX", "5.1.10", "X-Hikyaku; null MX"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct dsn_rcpt rcpt = refused();
        struct dsn d = report(&rcpt, 1);
        struct smtp_reply reply = {.code = rows[i].code};
        snprintf(reply.enhanced, sizeof reply.enhanced, "%s", rows[i].enhanced);
        snprintf(reply.text, sizeof reply.text, "%s", rows[i].text);
        dsn_rcpt_set_reply(&rcpt, &reply);
        char expected[256];
        const char *text = plain(&d);
        snprintf(expected, sizeof expected,
                 "Status: %s\r\nRemote-MTA: dns; mx.example.org\r\nDiagnostic-Code: %s\r\n",
                 rows[i].status, rows[i].diagnostic);
        cr_assert_not_null(strstr(text, expected), "%s", text);
    }
}

Test(dsn, nobody_was_reached)
{
    struct dsn_rcpt rcpt = {.mailbox = SLICE_LIT("x@example.org"), .text = SLICE_LIT("no route")};
    struct dsn d = report(&rcpt, 1);
    const char *text = plain(&d);
    cr_assert_null(strstr(text, "Remote-MTA"));
    cr_assert_null(strstr(text, "Last-Attempt-Date"));
    cr_assert_not_null(strstr(text, "        the gateway reports:\r\n        no route\r\n"));
    rcpt.address = SLICE_LIT("192.0.2.1");
    text = plain(&d);
    cr_assert_not_null(strstr(text, "Remote-MTA: dns; [192.0.2.1]\r\n"));
    cr_assert_not_null(strstr(text, "        192.0.2.1 reports:\r\n"));
}

/* What others chose can end neither a line nor a part, and is 7-bit unless the report may be
 * otherwise. */
Test(dsn, hostile_words)
{
    static char evil[3000];
    struct buf b = buf_over(evil, sizeof evil);
    buf_add_str(&b, "x\r\nBcc: y\r\n\r\n--hikyaku.0A1B2C3Dx17f2c--\r\n\xff\xfe\x01");
    while (b.len < sizeof evil)
        buf_add_byte(&b, 'w');
    struct slice s = slice_of(evil, sizeof evil);
    struct dsn_rcpt rcpt = {.mailbox = s,
                            .orcpt = s,
                            .host = s,
                            .address = s,
                            .code = 550,
                            .enhanced = s,
                            .text = s,
                            .attempt_wall_ns = T0};
    struct dsn d = report(&rcpt, 1);
    d.to = d.envid = d.qid = d.hostname = s;
    for (int utf8 = 0; utf8 < 2; utf8++)
        for (int kind = DSN_FAILED; kind <= DSN_RELAYED; kind++) {
            d.original_utf8 = utf8;
            d.kind = (enum dsn_kind)kind;
            const char *text = write_report(&d, SLICE_LIT("A: b\r\n\r\n"), 100, DSN_ROOM_MIN);
            check_lines(text);
            cr_assert_eq(occurrences(text, "\r\n--hikyaku."), 4);
            cr_assert_null(strstr(text, "\nBcc"));
            for (const char *p = text; *p; p++)
                cr_assert(((uint8_t)*p >= 0x20 && (uint8_t)*p < 0x7f) || strchr("\r\n\t", *p));
        }
    const char *diagnostic =
        strstr(write_report(&d, SLICE_LIT(""), 1, DSN_ROOM_MIN), "Diagnostic-Code: smtp; ");
    cr_assert_eq(strcspn(diagnostic + 23, "\r"), DSN_TEXT_MAX);
}

/* RFC 6533 */
Test(dsn, internationalized)
{
    struct dsn_rcpt rcpts[] = {refused(), refused()};
    rcpts[0].mailbox = SLICE_LIT("\xc3\xbc@example.org");
    rcpts[0].orcpt = SLICE_LIT("utf-8;a\\x{FC}+b@example.org");
    struct dsn d = report(rcpts, 2);
    d.original_utf8 = true;
    d.to = SLICE_LIT("j\xc3\xb6@example.com");
    cr_assert(dsn_is_8bit(&d) && dsn_is_utf8(&d));
    const char *text = plain(&d);
    static const char *const parts[] = {
        "To: <j\xc3\xb6@example.com>\r\n",
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
        "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n",
        "Original-Recipient: utf-8; a\\x{FC}+b@example.org\r\n",
        "Final-Recipient: utf-8; \xc3\xbc@example.org\r\n",
        "Final-Recipient: rfc822; x@example.org\r\n",
        "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n",
        "Subject: caf\xc3\xa9\r\n",
    };
    for (size_t i = 0; i < COUNT(parts); i++)
        cr_assert_not_null(strstr(text, parts[i]), "no %s in %s", parts[i], text);
    d.ret = SMTP_RET_FULL;
    cr_assert_not_null(strstr(plain(&d), "Content-Type: message/global\r\n"));
}

/* FAULTS 89: a report whose own recipient is ASCII needs no SMTPUTF8, and gets through everywhere.
 */
Test(dsn, internationalized_original_of_an_ascii_sender)
{
    struct dsn_rcpt rcpt = refused();
    rcpt.mailbox = SLICE_LIT("\xc3\xbc+\xf0\x9f\x98\x80@example.org");
    struct dsn d = report(&rcpt, 1);
    d.original_utf8 = true;
    d.ret = SMTP_RET_FULL;
    cr_assert(!dsn_is_utf8(&d) && !dsn_is_8bit(&d) && !dsn_returns_full(&d));
    const char *text = plain(&d);
    cr_assert_not_null(strstr(text, "Content-Type: message/delivery-status\r\n"));
    cr_assert_not_null(
        strstr(text, "Final-Recipient: utf-8; \\x{FC}\\x{2B}\\x{1F600}@example.org\r\n"), "%s",
        text);
    for (const char *p = text; *p; p++)
        cr_assert((uint8_t)*p < 0x80, "8-bit in %s", text);
}
