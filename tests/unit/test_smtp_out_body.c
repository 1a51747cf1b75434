/*
 * tests/unit/test_smtp_out_body.c - what leaves is strict, dot-stuffed and ends once, whatever
 * comes in and however it is cut.
 */
#include <criterion/criterion.h>

#include "gateway/smtp/smtp_out_internal.h"

static void at_body(struct smtp_out *s)
{
    static const struct smtp_out_config config;
    smtp_out_init(s, &config, false);
    s->state = SMTP_OUT_S_BODY;
}

/* The plain way: line by line. A bare CR or LF ends a line too. */
static size_t reference(const uint8_t *in, size_t len, uint8_t *out)
{
    size_t n = 0, i = 0;
    while (i < len) {
        if (in[i] == '.')
            out[n++] = '.';
        while (i < len && in[i] != '\r' && in[i] != '\n')
            out[n++] = in[i++];
        if (i < len && in[i] == '\r' && i + 1 < len && in[i + 1] == '\n')
            i++;
        i++;
        out[n++] = '\r';
        out[n++] = '\n';
    }
    memcpy(out + n, ".\r\n", 3);
    return n + 3;
}

/* `cuts`: bit i set: a new piece begins behind byte i. */
static size_t sent(const uint8_t *in, size_t len, uint32_t cuts, uint8_t *to)
{
    struct smtp_out s;
    struct buf out = buf_over(to, 64);
    at_body(&s);
    for (size_t from = 0, i = 0; i < len; i++)
        if (i + 1 == len || (cuts >> i & 1)) {
            cr_assert_eq(smtp_out_body(&s, slice_of(in + from, i + 1 - from), &out), i + 1 - from);
            from = i + 1;
        }
    cr_assert(smtp_out_body_end(&s, &out));
    cr_assert(s.dot_sent && s.state == SMTP_OUT_S_EOD);
    return out.len;
}

Test(smtp_out_body, every_short_text_in_every_cut, .timeout = 60)
{
    static const uint8_t letters[] = {'\r', '\n', '.', '\0', 'a'};
    uint8_t in[7], out[64], expected[64];
    for (uint32_t len = 0; len <= 7; len++) {
        uint32_t count = 1;
        for (uint32_t i = 0; i < len; i++)
            count *= 5;
        for (uint32_t n = 0; n < count; n++) {
            uint32_t rest = n;
            for (uint32_t i = 0; i < len; i++, rest /= 5)
                in[i] = letters[rest % 5];
            size_t expected_len = reference(in, len, expected);
            for (uint32_t cuts = 0; cuts < (len > 1 ? 1u << (len - 1) : 1u); cuts++) {
                size_t out_len = sent(in, len, cuts, out);
                if (out_len != expected_len || memcmp(out, expected, out_len) != 0)
                    cr_assert_fail("text %u of length %u, cuts %x: %.*s", n, len, cuts,
                                   (int)out_len, (char *)out);
            }
        }
    }
}

/* A small output buffer that is flushed again and again changes nothing. */
Test(smtp_out_body, small_buffers)
{
    static const char text[] =
        "A: b\r\n..\r\n.\r\n\r\n.x\r\nlong line without an end and then\r\n.";
    uint8_t expected[256], collected[256];
    size_t expected_len = reference((const uint8_t *)text, sizeof text - 1, expected);
    for (uint32_t cap = 5; cap < 40; cap++) {
        struct smtp_out s;
        uint8_t memory[64];
        struct buf out = buf_over(memory, cap);
        struct slice in = slice_of(text, sizeof text - 1);
        size_t n = 0;
        at_body(&s);
        while (in.len > 0) {
            size_t taken = smtp_out_body(&s, in, &out);
            in = slice_from(in, taken);
            cr_assert(taken > 0 || out.len > 0, "stuck");
            if (in.len > 0) {
                memcpy(collected + n, out.ptr, out.len);
                n += out.len;
                out.len = 0;
            }
        }
        while (!smtp_out_body_end(&s, &out)) {
            memcpy(collected + n, out.ptr, out.len);
            n += out.len;
            out.len = 0;
        }
        memcpy(collected + n, out.ptr, out.len);
        n += out.len;
        cr_assert_eq(n, expected_len, "room %u", cap);
        cr_assert_arr_eq(collected, expected, n);
    }
}

/* Long texts go in blocks; what needs care stands everywhere in and between them. */
Test(smtp_out_body, blocks)
{
    static const char *const odd[] = {"\r\n.", "\r\n..\r\n", "\n.",           "\r",    "\r.", "\n",
                                      "\r\n",  ".",          "\r\n\r\n.\r\n", "\r\r\n"};
    uint8_t in[400], out_memory[1024], expected[1024];
    for (size_t k = 0; k < sizeof odd / sizeof odd[0]; k++)
        for (size_t at = 0; at < 280; at++) {
            struct smtp_out s;
            struct buf out = buf_over(out_memory, sizeof out_memory);
            memset(in, 'a', sizeof in);
            memcpy(in + 70, "\r\n", 2);
            memcpy(in + at, odd[k], strlen(odd[k]));
            memcpy(in + 300, "\r\n.z", 4);
            size_t expected_len = reference(in, sizeof in, expected);
            at_body(&s);
            for (size_t from = 0; from < sizeof in;) { /* in one piece, and in two */
                size_t n = from == 0 && at % 2 ? at : sizeof in - from;
                cr_assert_eq(smtp_out_body(&s, slice_of(in + from, n), &out), n);
                from += n;
            }
            cr_assert(smtp_out_body_end(&s, &out));
            cr_assert_eq(out.len, expected_len, "%zu at %zu", k, at);
            cr_assert_arr_eq(out_memory, expected, expected_len);
        }
}

/* Nothing is copied, and no dot is sent, when the connection was lost meanwhile. */
Test(smtp_out_body, lost_meanwhile)
{
    struct smtp_out s;
    struct smtp_out_event ev;
    uint8_t memory[SMTP_OUT_ROOM_MIN];
    struct buf out = buf_over(memory, sizeof memory);
    struct slice none = slice_of(NULL, 0);
    at_body(&s);
    smtp_out_lost(&s, "closed");
    cr_assert_eq(smtp_out_body(&s, SLICE_LIT("abc"), &out), 3);
    cr_assert(smtp_out_body_end(&s, &out));
    cr_assert_eq(out.len, 0);
    cr_assert_eq(smtp_out_step(&s, &none, &out, &ev), SMTP_OUT_FAILED);
    cr_assert_not(ev.data_sent);
}
