/*
 * tests/unit/test_reply.c - replies of servers, good and bad, in every cut.
 */
#include <criterion/criterion.h>

#include "gateway/smtp/reply.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Parses `in`, `step` bytes at a time, up to the end of the first reply. Returns the lines' number,
 * 0: NEED_MORE at the end, -1: BAD. */
static int parse(struct slice in, size_t step, struct smtp_reply *reply, size_t *used)
{
    struct smtp_reply_parser p;
    smtp_reply_start(&p, reply);
    cr_assert_not(smtp_reply_is_partial(&p));
    for (size_t i = 0; i < in.len; i += step) {
        struct slice piece = slice_head(slice_from(in, i), step);
        while (piece.len > 0) {
            enum smtp_parse got = smtp_reply_parse(&p, &piece, reply);
            *used = (size_t)(piece.ptr ? piece.ptr - in.ptr : (ptrdiff_t)(i + step));
            if (*used > in.len)
                *used = in.len;
            if (got == SMTP_PARSE_BAD) {
                struct slice more = SLICE_LIT("250 ok\r\n");
                cr_assert_eq(smtp_reply_parse(&p, &more, reply), SMTP_PARSE_BAD);
                return -1;
            }
            cr_assert_eq(smtp_reply_is_partial(&p), got == SMTP_PARSE_NEED_MORE || !p.last);
            if (got == SMTP_PARSE_DONE && p.last)
                return (int)p.line_count;
        }
    }
    return 0;
}

Test(reply, good_ones)
{
    static const struct {
        const char *in;
        int lines;
        uint16_t code;
        const char *enhanced, *text;
    } rows[] = {
        {"250 ok\r\n", 1, 250, "", "ok"},
        {"250\r\n", 1, 250, "", ""},
        {"250 \r\n", 1, 250, "", ""},
        {"550 5.1.1 No such user\r\n", 1, 550, "5.1.1", "No such user"},
        {"250-5.1.1 a\r\n250 5.1.1 b\r\n", 2, 250, "", "5.1.1 a / 5.1.1 b"},
        {"550-5.7.1 a\r\n550-5.7.1 b\r\n550 5.7.1 c\r\n", 3, 550, "5.7.1", "a / b / c"},
        {"550-5.7.1 a\r\n550 5.7.2 b\r\n", 2, 550, "5.7.1", "a / 5.7.2 b"},
        {"550-first\r\n550 5.7.1 b\r\n", 2, 550, "", "first / 5.7.1 b"},
        {"550-\r\n550 b\r\n", 2, 550, "", "b"},
        {"550-a\r\n550-\r\n550 b\r\n", 3, 550, "", "a / b"},
        {"450 4.7.123\r\n", 1, 450, "4.7.123", ""},
        {"450 4.7.1234 x\r\n", 1, 450, "", "4.7.1234 x"},
        {"450 4.7. x\r\n", 1, 450, "", "4.7. x"},
        {"450 4..1 x\r\n", 1, 450, "", "4..1 x"},
        {"450 5.7.1 x\r\n", 1, 450, "", "5.7.1 x"},
        {"450 4.7.1x\r\n", 1, 450, "", "4.7.1x"},
        {"220 caf\xc3\xa9\t\x01\x7f!\r\n", 1, 220, "",
         "caf?"
         "? ?"
         "?!"},
        {"571 odd but said\r\n", 1, 571, "", "odd but said"},
        {"354 go\r\nrest", 1, 354, "", "go"},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        for (size_t step = 1; step <= 40; step += 13) {
            struct smtp_reply reply;
            size_t used = 0;
            cr_assert_eq(parse(slice_str(rows[i].in), step, &reply, &used), rows[i].lines, "%s",
                         rows[i].in);
            cr_assert_eq(reply.code, rows[i].code);
            cr_assert_str_eq(reply.enhanced, rows[i].enhanced, "%s", rows[i].in);
            cr_assert_str_eq(reply.text, rows[i].text);
            const char *rest = strstr(rows[i].in, "rest");
            cr_assert_eq(used, rest ? (size_t)(rest - rows[i].in) : strlen(rows[i].in));
        }
}

/* FAULTS 83 */
Test(reply, bad_ones)
{
    static const struct {
        struct slice in;
        const char *text;
    } rows[] = {
        {{(const uint8_t *)"999 x\r\n", 7}, "no SMTP reply"},
        {{(const uint8_t *)"199 x\r\n", 7}, "no SMTP reply"},
        {{(const uint8_t *)"099 x\r\n", 7}, "no SMTP reply"},
        {{(const uint8_t *)"25 x\r\n", 6}, "no SMTP reply"},
        {{(const uint8_t *)"2500 x\r\n", 8}, "no SMTP reply"},
        {{(const uint8_t *)"250_x\r\n", 7}, "no SMTP reply"},
        {{(const uint8_t *)"\r\n", 2}, "no SMTP reply"},
        {{(const uint8_t *)"hello\r\n", 7}, "no SMTP reply"},
        {{(const uint8_t *)"250 x\n", 6}, "bare line feed"},
        {{(const uint8_t *)"250\n", 4}, "no SMTP reply"},
        {{(const uint8_t *)"250 x\ry\r\n", 9}, "bare carriage return"},
        {{(const uint8_t *)"250 x\r\r\n", 8}, "bare carriage return"},
        {{(const uint8_t *)"250 \0\r\n", 7}, "NUL"},
        {{(const uint8_t *)"250-a\r\n251 b\r\n", 14}, "different codes"},
        {{(const uint8_t *)"250-a\r\n\r\n", 9}, "no SMTP reply"},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        for (size_t step = 1; step <= 20; step += 19) {
            struct smtp_reply reply;
            size_t used = 0;
            cr_assert_eq(parse(rows[i].in, step, &reply, &used), -1, "row %zu", i);
            cr_assert_eq(reply.code, 0);
            cr_assert_str_eq(reply.enhanced, "4.5.0");
            cr_assert_not_null(strstr(reply.text, rows[i].text), "row %zu: %s", i, reply.text);
        }
}

Test(reply, is_asked_for_more_at_every_cut)
{
    struct slice whole = SLICE_LIT("550-5.7.1 a\r\n550 5.7.1 c\r\n");
    for (size_t n = 0; n < whole.len; n++)
        for (size_t step = 1; step <= 30; step += 29) {
            struct smtp_reply reply;
            size_t used = 0;
            cr_assert_eq(parse(slice_head(whole, n), step, &reply, &used), 0);
            cr_assert_eq(used, n);
        }
}

static uint8_t big[SMTP_OUT_REPLY_BYTES_MAX * 2];

Test(reply, bounds_of_lines)
{
    struct smtp_reply reply;
    size_t used;
    memset(big, 'x', sizeof big);
    memcpy(big, "250 ", 4);
    memcpy(big + SMTP_OUT_REPLY_LINE_MAX - 2, "\r\n", 2);
    cr_assert_eq(parse(slice_of(big, sizeof big), 1000, &reply, &used), 1);
    cr_assert_eq(strlen(reply.text), SMTP_OUT_REPLY_KEPT_MAX);
    big[SMTP_OUT_REPLY_LINE_MAX - 2] = 'x';
    memcpy(big + SMTP_OUT_REPLY_LINE_MAX - 1, "\r\n", 2);
    cr_assert_eq(parse(slice_of(big, sizeof big), 1000, &reply, &used), -1);
    cr_assert_not_null(strstr(reply.text, "line of the server's reply is too long"));
    cr_assert_leq(used, SMTP_OUT_REPLY_LINE_MAX + 1);
}

Test(reply, bounds_of_replies)
{
    struct smtp_reply reply;
    size_t used;
    struct buf text = buf_over(big, sizeof big);
    for (uint32_t i = 1; i < SMTP_OUT_REPLY_LINES_MAX; i++)
        buf_add_str(&text, "250-a\r\n");
    buf_add_str(&text, "250 b\r\n");
    cr_assert_eq(parse(buf_slice(&text), 7, &reply, &used), (int)SMTP_OUT_REPLY_LINES_MAX);
    text.len -= 7;
    buf_add_str(&text, "250-b\r\n250 c\r\n");
    cr_assert_eq(parse(buf_slice(&text), 7, &reply, &used), -1);
    cr_assert_not_null(strstr(reply.text, "too many lines"));

    text.len = 0; /* 20 lines of 4,000 bytes */
    for (int i = 0; i < 20; i++) {
        buf_add_str(&text, "250-");
        for (int k = 0; k < 3994; k++)
            buf_add_byte(&text, 'y');
        buf_add_str(&text, "\r\n");
    }
    cr_assert_eq(parse(buf_slice(&text), 5000, &reply, &used), -1);
    cr_assert_not_null(strstr(reply.text, "reply is too long"));
    cr_assert_leq(used, SMTP_OUT_REPLY_BYTES_MAX + 1);
    cr_assert_leq(strlen(reply.text), SMTP_OUT_REPLY_KEPT_MAX);
}

/* The raw line is what EHLO and AUTH look at. */
Test(reply, lines_are_kept_raw_and_cut)
{
    struct smtp_reply_parser p;
    struct smtp_reply reply;
    struct slice in = SLICE_LIT("250-\xc3\xa9 a\r\n250 b\r\n");
    smtp_reply_start(&p, &reply);
    cr_assert_eq(smtp_reply_parse(&p, &in, &reply), SMTP_PARSE_DONE);
    cr_assert(slice_eq(slice_of(p.line, p.line_len), SLICE_LIT("\xc3\xa9 a")));
    cr_assert(!p.last && p.line_count == 1 && smtp_reply_is_partial(&p));
    cr_assert_eq(smtp_reply_parse(&p, &in, &reply), SMTP_PARSE_DONE);
    cr_assert(slice_eq(slice_of(p.line, p.line_len), SLICE_LIT("b")));
    cr_assert(p.last && p.line_count == 2 && !smtp_reply_is_partial(&p));
    memset(big, 'x', sizeof big);
    memcpy(big, "250 ", 4);
    memcpy(big + 4000, "\r\n", 2);
    in = slice_of(big, 4002);
    smtp_reply_start(&p, &reply);
    cr_assert_eq(smtp_reply_parse(&p, &in, &reply), SMTP_PARSE_DONE);
    cr_assert_eq(p.line_len, SMTP_REPLY_LINE_MAX);
}

Test(reply, written_as_said)
{
    static const struct {
        struct smtp_reply reply;
        const char *text;
    } rows[] = {{{550, "5.1.1", "No such user"}, "550 5.1.1 No such user"},
                {{550, "", "No such user"}, "550 No such user"},
                {{450, "4.1.1", ""}, "450 4.1.1"},
                {{0, "4.4.2", "closed"}, "4.4.2 closed"},
                {{0, "", "closed"}, "closed"},
                {{250, "", ""}, "250"},
                {{0, "", ""}, ""}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[600];
        struct buf out = buf_over(text, sizeof text - 1);
        smtp_reply_write(&rows[i].reply, &out);
        text[out.len] = '\0';
        cr_assert_str_eq(text, rows[i].text);
    }
}
