/*
 * gateway/smtp/reply.c - a server's replies, parsed byte by byte, whatever the server does.
 *
 * Owns:     the parser's state; the reply is the caller's.
 * Runs on:  any thread; no I/O, no clock, no memory of its own.
 * Contract: the outcome does not depend on how the input is cut. Only CRLF ends a line.
 * Failure:  a bare CR or LF, a NUL, a code outside 200 to 599, codes that differ within a reply,
 *           a bound hit: BAD, once and for all.
 * Bounds:   SMTP_OUT_REPLY_LINE_MAX, SMTP_OUT_REPLY_LINES_MAX, SMTP_OUT_REPLY_BYTES_MAX; kept:
 *           SMTP_OUT_REPLY_KEPT_MAX.
 * Tests:    tests/unit/test_reply.c, tests/fuzz/fuzz_reply.c
 */
#include "gateway/smtp/reply.h"

enum { AT_LINE_START, AT_CODE, AT_SEPARATOR, AT_TEXT, AT_LF, AT_BAD };

static const char JOINT[] = " / ";

void smtp_reply_start(struct smtp_reply_parser *p, struct smtp_reply *reply)
{
    p->state = AT_LINE_START;
    p->last = false;
    p->line_count = p->line_len = 0;
    p->code = p->line_code = p->text_len = 0;
    p->line_bytes = p->reply_bytes = 0;
    reply->code = 0;
    reply->enhanced[0] = reply->text[0] = '\0';
}

bool smtp_reply_is_partial(const struct smtp_reply_parser *p)
{
    return p->reply_bytes > 0 && !(p->last && p->state == AT_LINE_START);
}

void smtp_reply_set_local(struct smtp_reply *reply, const char *enhanced, const char *text)
{
    reply->code = 0;
    slice_text(slice_str(enhanced), reply->enhanced, sizeof reply->enhanced);
    slice_text(slice_str(text), reply->text, sizeof reply->text);
}

void smtp_reply_write(const struct smtp_reply *reply, struct buf *out)
{
    const char *space = "";
    if (reply->code) {
        buf_addf(out, "%u", reply->code);
        space = " ";
    }
    if (reply->enhanced[0]) {
        buf_addf(out, "%s%s", space, reply->enhanced);
        space = " ";
    }
    if (reply->text[0])
        buf_addf(out, "%s%s", space, reply->text);
}

static enum smtp_parse bad(struct smtp_reply_parser *p, struct smtp_reply *reply, const char *what)
{
    p->state = AT_BAD;
    smtp_reply_set_local(reply, "4.5.0", what);
    return SMTP_PARSE_BAD;
}

static size_t digits(struct slice s, size_t from)
{
    size_t n = 0;
    while (from + n < s.len && s.ptr[from + n] >= '0' && s.ptr[from + n] <= '9')
        n++;
    return n;
}

/* Length of "5.1.1" at the start of `s` (RFC 3463 section 2), when the class is `klass`; 0: there
 * is none. */
static size_t enhanced_len(struct slice s, uint8_t klass)
{
    if (s.len < 5 || s.ptr[0] != klass || s.ptr[1] != '.')
        return 0;
    size_t subject = digits(s, 2);
    if (subject < 1 || subject > 3 || 2 + subject >= s.len || s.ptr[2 + subject] != '.')
        return 0;
    size_t detail = digits(s, 3 + subject);
    if (detail < 1 || detail > 3)
        return 0;
    size_t len = 3 + subject + detail;
    return len == s.len || s.ptr[len] == ' ' ? len : 0;
}

/* The line's text joins the reply's, without an enhanced status that is already told. */
static void keep_text(struct smtp_reply_parser *p, struct smtp_reply *reply)
{
    struct slice s = slice_of(p->line, p->line_len);
    size_t n = enhanced_len(s, (uint8_t)('0' + p->code / 100));
    if (n > 0 && p->line_count == 1)
        slice_text(slice_head(s, n), reply->enhanced, sizeof reply->enhanced);
    if (n > 0 && slice_eq(slice_head(s, n), slice_str(reply->enhanced)))
        s = slice_from(s, n < s.len ? n + 1 : n);

    struct buf text = buf_over(reply->text, SMTP_OUT_REPLY_KEPT_MAX);
    text.len = p->text_len;
    if (text.len > 0 && s.len > 0)
        buf_add_str(&text, JOINT);
    size_t room = text.overflow ? 0 : buf_room(&text);
    s = slice_head(s, room);
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i] == '\t' ? ' ' : s.ptr[i];
        text.ptr[text.len++] = c >= 0x20 && c < 0x7f ? c : '?';
    }
    p->text_len = (uint16_t)text.len;
    reply->text[text.len] = '\0';
}

static enum smtp_parse end_line(struct smtp_reply_parser *p, struct smtp_reply *reply)
{
    if (++p->line_count > SMTP_OUT_REPLY_LINES_MAX)
        return bad(p, reply, "the server's reply has too many lines");
    if (p->line_count == 1)
        p->code = p->line_code;
    else if (p->line_code != p->code)
        return bad(p, reply, "the lines of the server's reply have different codes");
    reply->code = p->code;
    keep_text(p, reply);
    p->state = AT_LINE_START;
    return SMTP_PARSE_DONE;
}

static void start_line(struct smtp_reply_parser *p)
{
    p->line_len = p->line_bytes = 0;
    p->line_code = 0;
    p->last = false;
    p->state = AT_CODE;
}

static enum smtp_parse take_code(struct smtp_reply_parser *p, uint8_t c, struct smtp_reply *reply)
{
    bool first = p->line_bytes == 1;
    if (c < (first ? '2' : '0') || c > (first ? '5' : '9'))
        return bad(p, reply, "the server sent something that is no SMTP reply");
    p->line_code = (uint16_t)(p->line_code * 10 + (c - '0'));
    if (p->line_bytes == 3)
        p->state = AT_SEPARATOR;
    return SMTP_PARSE_NEED_MORE;
}

static enum smtp_parse take_text(struct smtp_reply_parser *p, uint8_t c, struct smtp_reply *reply)
{
    if (c == '\r') {
        p->state = AT_LF;
        return SMTP_PARSE_NEED_MORE;
    }
    if (c == '\n' || c == '\0')
        return bad(p, reply, "the server's reply has a bare line feed or a NUL");
    if (p->line_len < sizeof p->line)
        p->line[p->line_len++] = c;
    return SMTP_PARSE_NEED_MORE;
}

static enum smtp_parse take(struct smtp_reply_parser *p, uint8_t c, struct smtp_reply *reply)
{
    if (p->state == AT_BAD)
        return SMTP_PARSE_BAD;
    if (p->state == AT_LINE_START)
        start_line(p);
    if (++p->reply_bytes > SMTP_OUT_REPLY_BYTES_MAX)
        return bad(p, reply, "the server's reply is too long");
    if (++p->line_bytes > SMTP_OUT_REPLY_LINE_MAX)
        return bad(p, reply, "a line of the server's reply is too long");
    switch (p->state) {
    case AT_CODE: return take_code(p, c, reply);
    case AT_SEPARATOR:
        if (c != ' ' && c != '-' && c != '\r')
            return bad(p, reply, "the server sent something that is no SMTP reply");
        p->last = c != '-'; /* a code alone is a last line: RFC 5321 section 4.2 */
        p->state = c == '\r' ? AT_LF : AT_TEXT;
        return SMTP_PARSE_NEED_MORE;
    case AT_TEXT: return take_text(p, c, reply);
    default:
        if (c != '\n')
            return bad(p, reply, "the server's reply has a bare carriage return");
        return end_line(p, reply);
    }
}

/* The words of a line in one piece, as far as none of them needs a look and no bound is near. */
static void take_words(struct smtp_reply_parser *p, struct slice *in)
{
    size_t n = 0, max = sizeof p->line - p->line_len;
    if (p->state != AT_TEXT || p->line_bytes + max > SMTP_OUT_REPLY_LINE_MAX ||
        p->reply_bytes + max > SMTP_OUT_REPLY_BYTES_MAX)
        return;
    max = in->len < max ? in->len : max;
    while (n < max && in->ptr[n] != '\r' && in->ptr[n] != '\n' && in->ptr[n] != '\0')
        n++;
    memcpy(p->line + p->line_len, in->ptr, n);
    p->line_len += (uint32_t)n;
    p->line_bytes += (uint32_t)n;
    p->reply_bytes += (uint32_t)n;
    *in = slice_from(*in, n);
}

enum smtp_parse smtp_reply_parse(struct smtp_reply_parser *p, struct slice *in,
                                 struct smtp_reply *reply)
{
    while (in->len > 0) {
        take_words(p, in);
        if (in->len == 0)
            break;
        uint8_t c = in->ptr[0];
        *in = slice_from(*in, 1);
        enum smtp_parse got = take(p, c, reply);
        if (got != SMTP_PARSE_NEED_MORE)
            return got;
    }
    return p->state == AT_BAD ? SMTP_PARSE_BAD : SMTP_PARSE_NEED_MORE;
}
