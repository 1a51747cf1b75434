/*
 * tests/unit/test_trace.c - Received:, Date: and Message-ID: lines.
 */
#include <criterion/criterion.h>
#include <time.h>

#include "gateway/trace.h"

#define WALL (1795321432ull * NS_PER_S) /* Sun, 22 Nov 2026 04:23:52 UTC */

static struct trace_received typical(void)
{
    return (struct trace_received){.helo = SLICE_LIT("client.example.org"),
                                   .client = SLICE_LIT("192.0.2.7"),
                                   .fqdn = SLICE_LIT("mail.example.com"),
                                   .id = SLICE_LIT("0A1B2C3D"),
                                   .esmtp = true,
                                   .wall_ns = WALL};
}

static const char *written(const struct trace_received *t)
{
    static char text[TRACE_RECEIVED_MAX + 1];
    struct buf out = buf_over(text, sizeof text - 1);
    cr_assert(trace_received_write(t, &out));
    text[out.len] = '\0';
    return text;
}

/* Every line ends in CRLF, none is longer than `columns`, each but the first is a continuation. */
static void check_lines(const char *text, size_t columns)
{
    for (const char *line = text; *line;) {
        const char *end = strstr(line, "\r\n");
        cr_assert_not_null(end, "no CRLF: %s", line);
        cr_assert_eq(strcspn(line, "\r\n"), (size_t)(end - line));
        cr_assert_leq((size_t)(end - line) + (line[0] == '\t' ? 7 : 0), columns, "%s", line);
        cr_assert(line == text || line[0] == '\t', "%s", line);
        line = end + 2;
    }
}

Test(trace, received_is_folded_at_clauses)
{
    struct trace_received t = typical();
    cr_assert_str_eq(written(&t),
                     "Received: from client.example.org ([192.0.2.7]) by mail.example.com\r\n"
                     "\twith ESMTP id 0A1B2C3D; Sun, 22 Nov 2026 04:23:52 +0000\r\n");
    t.tls = t.authenticated = true;
    t.tls_version = SLICE_LIT("TLSv1.3");
    t.tls_cipher = SLICE_LIT("TLS_AES_128_GCM_SHA256");
    t.tls_bits = 128;
    t.client = SLICE_LIT("2001:db8::1");
    cr_assert_str_eq(
        written(&t),
        "Received: from client.example.org ([IPv6:2001:db8::1]) by mail.example.com\r\n"
        "\twith ESMTPSA id 0A1B2C3D (TLSv1.3 TLS_AES_128_GCM_SHA256 128 bits);\r\n"
        "\tSun, 22 Nov 2026 04:23:52 +0000\r\n");
    check_lines(written(&t), 78);
    t.instance = SLICE_LIT("k7f3");
    cr_assert_not_null(strstr(written(&t), "by mail.example.com (k7f3)"));
}

Test(trace, keyword_follows_rfc_3848_and_6531)
{
    static const struct {
        bool esmtp, tls, auth, utf8;
        const char *word;
    } rows[] = {{0, 0, 0, 0, "SMTP"},      {0, 1, 0, 0, "SMTP"},      {1, 0, 0, 0, "ESMTP"},
                {1, 1, 0, 0, "ESMTPS"},    {1, 0, 1, 0, "ESMTPA"},    {1, 1, 1, 0, "ESMTPSA"},
                {1, 0, 0, 1, "UTF8SMTP"},  {1, 1, 0, 1, "UTF8SMTPS"}, {1, 0, 1, 1, "UTF8SMTPA"},
                {1, 1, 1, 1, "UTF8SMTPSA"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct trace_received t = {.esmtp = rows[i].esmtp,
                                   .tls = rows[i].tls,
                                   .authenticated = rows[i].auth,
                                   .smtputf8 = rows[i].utf8};
        cr_expect_str_eq(trace_keyword(&t), rows[i].word);
    }
}

/* FAULTS 31 */
Test(trace, names_of_peers_cannot_leave_their_place)
{
    struct trace_received t = typical();
    t.helo = SLICE_LIT("a\r\nX-Evil: (\\) ; \"b\" \xc3\xbc");
    cr_assert_not_null(strstr(written(&t), "from a??X-Evil:????????b????"), "%s", written(&t));
    for (int c = 0; c < 256; c++) {
        uint8_t name[3] = {'a', (uint8_t)c, 'b'};
        t.helo = slice_of(name, 3);
        const char *text = written(&t);
        check_lines(text, 78);
        for (const char *p = text; *p; p++)
            cr_assert(((uint8_t)*p >= 0x20 && (uint8_t)*p < 0x7f) || strchr("\r\n\t", *p));
        cr_assert_eq(strcspn(text, "("), strlen("Received: from a?b "), "%s", text);
    }
}

Test(trace, nothing_known_and_everything_long)
{
    struct trace_received t = {0};
    cr_assert_str_eq(written(&t), "Received: from unknown by unknown with SMTP; "
                                  "Thu, 01 Jan 1970 00:00:00 +0000\r\n");
    static char longest[5000];
    memset(longest, 'x', sizeof longest);
    struct slice name = slice_of(longest, sizeof longest);
    t = (struct trace_received){.helo = name,
                                .client = name,
                                .fqdn = name,
                                .id = name,
                                .instance = name,
                                .tls = true,
                                .tls_version = name,
                                .tls_cipher = name,
                                .tls_bits = 4000000000u,
                                .wall_ns = WALL};
    check_lines(written(&t), 998);
}

Test(trace, without_room_nothing_is_written)
{
    struct trace_received t = typical();
    size_t full = strlen(written(&t));
    char text[TRACE_RECEIVED_MAX];
    for (size_t cap = 0; cap < full; cap++) {
        struct buf out = buf_over(text, cap);
        cr_assert_not(trace_received_write(&t, &out));
        cr_assert_eq(out.len, 0);
    }
    struct buf out = buf_over(text, 12);
    cr_assert_not(trace_date_line(WALL, &out));
    cr_assert_eq(out.len, 0);
    out = buf_over(text, 20);
    cr_assert_not(trace_message_id_line(SLICE_LIT("abcdef"), SLICE_LIT("example.com"), &out));
    cr_assert_eq(out.len, 0);
}

Test(trace, dates_agree_with_the_c_library)
{
    static const uint64_t days[] = {0,     58,    59,    364,    365,    789,     790,
                                    11015, 11016, 11017, 19782,  19783,  20778,   24855,
                                    47540, 47541, 82000, 376199, 376200, 2932896, 1};
    for (size_t i = 0; i < sizeof days / sizeof days[0]; i++)
        for (uint64_t s = 0; s < 86400; s += 86399 / 3) {
            time_t when = (time_t)(days[i] * 86400 + s);
            struct tm tm;
            char expected[64], text[64];
            gmtime_r(&when, &tm);
            strftime(expected, sizeof expected, "%a, %d %b %Y %H:%M:%S +0000", &tm);
            struct buf out = buf_over(text, sizeof text - 1);
            if (when > (time_t)(UINT64_MAX / NS_PER_S))
                continue;
            cr_assert(trace_date_write((uint64_t)when * NS_PER_S, &out));
            text[out.len] = '\0';
            cr_assert_str_eq(text, expected);
        }
}

Test(trace, lines_for_submission)
{
    char text[1024];
    struct buf out = buf_over(text, sizeof text - 1);
    cr_assert(trace_date_line(WALL, &out));
    cr_assert(
        trace_message_id_line(SLICE_LIT("0A1B.17f\r\n>"), SLICE_LIT("mail.example.com"), &out));
    text[out.len] = '\0';
    cr_assert_str_eq(text, "Date: Sun, 22 Nov 2026 04:23:52 +0000\r\n"
                           "Message-ID: <0A1B.17f???@mail.example.com>\r\n");
}
