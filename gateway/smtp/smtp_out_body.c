/*
 * gateway/smtp/smtp_out_body.c - the message on its way out: dots stuffed, line ends strict.
 *
 * Owns:     s->body_state, what the last byte sent was.
 * Runs on:  any thread; pure.
 * Contract: what leaves has CRLF line ends only and a dot doubled at the start of each line that
 *           has one (RFC 5321 sections 2.3.8, 4.5.2), however the input is cut; so nothing in a
 *           message can end it early.
 * Failure:  none; takes as much as `out` has room for.
 * Bounds:   the room of `out`.
 * Tests:    tests/unit/test_smtp_out_body.c
 */
#include <assert.h>

#include "gateway/base/plant.h"
#include "gateway/smtp/plain.h"
#include "gateway/smtp/smtp_out_internal.h"

enum { AT_LINE_START, IN_LINE, BEHIND_CR };

/* Bytes of `s` that can be copied as they are from inside a line: up to and with the first CRLF, or
 * up to a bare CR or LF. */
static size_t clean_run(struct slice s, bool *line_ended)
{
    size_t lf = slice_find(s, '\n');
    size_t cr = slice_find(slice_head(s, lf), '\r');
    *line_ended = lf < s.len && lf > 0 && cr == lf - 1;
    return *line_ended ? lf + 1 : cr < lf ? cr : lf;
}

/* One byte that needs care. False: no room. */
static bool put_byte(struct smtp_out *s, uint8_t c, struct buf *out)
{
    if (buf_room(out) < 3)
        return false;
    if (s->body_state == BEHIND_CR && c != '\n') {
        buf_add_byte(out, '\n'); /* a bare CR: the line ends here */
        s->body_state = AT_LINE_START;
    }
    if (c == '\n' && s->body_state != BEHIND_CR)
        buf_add_byte(out, '\r');
    if (c == '.' && s->body_state == AT_LINE_START && !PLANT(KEEP_DOTS))
        buf_add_byte(out, '.');
    buf_add_byte(out, c);
    s->body_state = c == '\n' ? AT_LINE_START : c == '\r' ? BEHIND_CR : IN_LINE;
    return true;
}

/* Copies the blocks that need no look at their lines; the byte before them is there, too. */
static size_t plain_blocks(struct smtp_out *s, struct slice data, struct buf *out)
{
    size_t room = buf_room(out);
    bool eight_bit = false; /* known since the message came in */
    size_t n = smtp_plain_blocks(data.ptr, data.len < room ? data.len : room, &eight_bit);
    if (n == 0)
        return 0;
    uint8_t last = data.ptr[n - 1];
    buf_add(out, data.ptr, n);
    s->body_state = last == '\n' ? AT_LINE_START : last == '\r' ? BEHIND_CR : IN_LINE;
    return n;
}

size_t smtp_out_body(struct smtp_out *s, struct slice data, struct buf *out)
{
    size_t whole = data.len;
    if (s->state != SMTP_OUT_S_BODY) /* lost meanwhile: the next step says so */
        return whole;
    while (data.len > 0) {
        size_t plain = data.len < whole ? plain_blocks(s, data, out) : 0;
        if (plain) {
            data = slice_from(data, plain);
            continue;
        }
        bool care =
            s->body_state == BEHIND_CR || (s->body_state == AT_LINE_START && data.ptr[0] == '.');
        bool line_ended = false;
        size_t run = care ? 0 : clean_run(slice_head(data, buf_room(out)), &line_ended);
        if (run == 0) {
            if (!put_byte(s, data.ptr[0], out))
                break;
            data = slice_from(data, 1);
            continue;
        }
        buf_add(out, data.ptr, run);
        s->body_state = line_ended ? AT_LINE_START : IN_LINE;
        data = slice_from(data, run);
    }
    return whole - data.len;
}

bool smtp_out_body_end(struct smtp_out *s, struct buf *out)
{
    if (s->state != SMTP_OUT_S_BODY)
        return true;
    if (buf_room(out) < 5)
        return false;
    if (s->body_state == IN_LINE)
        buf_add_byte(out, '\r');
    if (s->body_state != AT_LINE_START)
        buf_add_byte(out, '\n');
    buf_add_str(out, ".\r\n");
    s->dot_sent = true;
    smtp_out_set_state(s, SMTP_OUT_S_EOD);
    return true;
}
