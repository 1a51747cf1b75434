/*
 * gateway/smtp/smtp_in_line.c - cuts the input into command lines.
 *
 * Owns:     the partial line in the lent buffer.
 * Runs on:  the session's shard.
 * Contract: only CRLF ends a line, however the input is cut. A line that is too long, or has a
 *           bare CR or LF or a NUL, is reported once and then discarded up to its CRLF: no byte
 *           of it is ever parsed.
 * Failure:  see enum line_result.
 * Bounds:   SMTP_COMMAND_LINE_MAX; SMTP_AUTH_LINE_MAX in AUTH; SMTP_LINE_DISCARD_MAX.
 * Tests:    tests/unit/test_smtp_in.c, tests/fuzz/fuzz_smtp_in.c
 */
#include <assert.h>

#include "gateway/smtp/smtp_in_internal.h"

/* The first bytes of the line decide: AUTH may carry an initial response (RFC 4954 section 4). */
static bool is_auth(const struct smtp_in *s, struct slice in)
{
    static const uint8_t verb[4] = {'a', 'u', 't', 'h'};
    if (s->slot == SLOT_SASL)
        return true;
    for (uint32_t i = 0; i < sizeof verb; i++) {
        if (i >= s->line_len + in.len)
            return false;
        uint8_t c = i < s->line_len ? s->line[i] : in.ptr[i - s->line_len];
        if (ascii_lower(c) != verb[i])
            return false;
    }
    return true;
}

static void take(struct slice *in, size_t n)
{
    *in = slice_from(*in, n);
}

/* Appends to the partial line; what SMTP_IN_LINE_KEPT cannot hold is counted only. */
static void keep(struct smtp_in *s, struct slice *in, size_t n)
{
    size_t room = s->line_len < SMTP_IN_LINE_KEPT ? SMTP_IN_LINE_KEPT - s->line_len : 0;
    if (room)
        memcpy(s->line + s->line_len, in->ptr, n < room ? n : room);
    s->line_cr = in->ptr[n - 1] == '\r';
    s->line_len += (uint32_t)n;
    take(in, n);
}

static enum line_result start_discarding(struct smtp_in *s, struct slice *in, size_t n,
                                         enum line_result result)
{
    s->line_cr = in->ptr[n - 1] == '\r';
    s->discarded = s->line_len + (uint32_t)n;
    s->line_discarding = true;
    if (s->line)
        explicit_bzero(s->line, s->line_len < SMTP_IN_LINE_KEPT ? s->line_len : SMTP_IN_LINE_KEPT);
    s->line_len = 0;
    take(in, n);
    return result;
}

/* True: the CRLF has come. */
static bool discard(struct smtp_in *s, struct slice *in)
{
    while (in->len) {
        size_t lf = slice_find(*in, '\n'), n = lf < in->len ? lf + 1 : in->len;
        bool cr = lf ? in->ptr[lf - 1] == '\r' : s->line_cr;
        bool found = lf < in->len;
        s->line_cr = in->ptr[n - 1] == '\r';
        s->discarded += (uint32_t)(n < SMTP_LINE_DISCARD_MAX ? n : SMTP_LINE_DISCARD_MAX);
        take(in, n);
        if (s->discarded > SMTP_LINE_DISCARD_MAX)
            return false;
        if (found && cr) {
            s->line_discarding = false;
            return true;
        }
    }
    return false;
}

enum line_result smtp_in_line_next(struct smtp_in *s, struct slice *in, struct slice *line)
{
    s->line_wanted = false;
    if (s->line_discarding && !discard(s, in))
        return s->discarded > SMTP_LINE_DISCARD_MAX ? LINE_FLOOD : LINE_NONE;
    if (in->len == 0)
        return LINE_NONE;
    bool auth = is_auth(s, *in);
    size_t limit = auth ? SMTP_AUTH_LINE_MAX : SMTP_COMMAND_LINE_MAX;
    /* The limit is known only once the verb is there: a line kept so far may not be past it. */
    assert(s->line_len < limit);
    size_t room = limit - s->line_len;
    struct slice window = slice_head(*in, room);
    size_t lf = slice_find(window, '\n');
    if (lf == window.len) {
        if (in->len >= room)
            return start_discarding(s, in, room, LINE_TOO_LONG);
        if (!s->line)
            s->line_wanted = true;
        else
            keep(s, in, in->len);
        return LINE_NONE;
    }
    if (lf ? in->ptr[lf - 1] != '\r' : !(s->line_len && s->line_cr))
        return start_discarding(s, in, lf + 1, LINE_NOT_CRLF);
    size_t len = s->line_len + lf - 1;
    if (s->line_len == 0 && !(auth && s->slot == SLOT_FREE && !s->line)) {
        *line = slice_head(*in, len);
        take(in, lf + 1);
    } else if (!s->line) { /* an AUTH exchange needs its store */
        s->line_wanted = true;
        return LINE_NONE;
    } else {
        keep(s, in, lf + 1);
        *line = slice_of(s->line, len);
        s->line_len = 0;
    }
    *line = slice_head(*line, SMTP_IN_LINE_KEPT);
    if (slice_find(*line, '\r') < line->len || slice_find(*line, '\0') < line->len)
        return LINE_NOT_CRLF;
    return LINE_READY;
}
