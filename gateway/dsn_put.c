/*
 * gateway/dsn_put.c - the pieces that all parts of a report are made of.
 *
 * Owns:     nothing.
 * Runs on:  any thread; pure.
 * Contract: what others said can neither end a field nor a part: one line, 7-bit unless the report
 *           is in UTF-8.
 * Failure:  no room: out->overflow.
 * Bounds:   DSN_TEXT_MAX of another host's words.
 * Tests:    tests/unit/test_dsn.c
 */
#include "gateway/dsn_internal.h"
#include "gateway/trace.h"

void dsn_put_text(const struct dsn *d, struct slice s, size_t max, struct buf *out)
{
    bool utf8 = dsn_is_utf8(d) && smtp_utf8_valid(s);
    if (s.len > max)
        for (s.len = max; utf8 && s.len > 0 && (s.ptr[s.len] & 0xc0) == 0x80; s.len--)
            ; /* not inside a character */
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        bool plain = (c >= 0x20 && c < 0x7f) || (c >= 0x80 && utf8);
        buf_add_byte(out, plain ? c : '?');
    }
}

void dsn_put_mailbox(const struct dsn *d, struct slice mailbox, struct buf *out)
{
    dsn_put_text(d, mailbox, SMTP_PATH_MAX + 2, out);
}

void dsn_put_date(uint64_t wall_ns, struct buf *out)
{
    if (!trace_date_write(wall_ns, out))
        out->overflow = true;
}

void dsn_put_words(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out)
{
    uint8_t text[DSN_TEXT_MAX + 32];
    struct buf words = buf_over(text, sizeof text);
    if (r->code)
        buf_addf(&words, "%u ", r->code);
    if (r->code && r->enhanced.len > 0) {
        buf_add_slice(&words, slice_head(r->enhanced, 12));
        buf_add_byte(&words, ' ');
    }
    buf_add_slice(&words, slice_head(r->text, DSN_TEXT_MAX));
    while (words.len > 0 && words.ptr[words.len - 1] == ' ')
        words.len--;
    dsn_put_text(d, buf_slice(&words), DSN_TEXT_MAX, out);
}

void dsn_put_boundary(const struct dsn *d, struct buf *out)
{
    buf_add_str(out, "hikyaku.");
    dsn_put_text(d, d->id, 48, out);
}

void dsn_put_part(const struct dsn *d, const char *type, bool eightbit, struct buf *out)
{
    buf_add_str(out, "\r\n--");
    dsn_put_boundary(d, out);
    buf_add_str(out, "\r\nContent-Type: ");
    buf_add_str(out, type);
    if (eightbit)
        buf_add_str(out, "\r\nContent-Transfer-Encoding: 8bit");
    buf_add_str(out, "\r\n\r\n");
}
