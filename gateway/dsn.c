/*
 * gateway/dsn.c - delivery status notifications: who gets one, and its parts in their order.
 *
 * Owns:     nothing; the writer's state is the caller's.
 * Runs on:  any thread; pure.
 * Contract: strict CRLF; no line of ours is longer than 998 bytes. Without original_8bit and
 *           original_utf8 the report is 7-bit, whatever addresses and headers hold.
 * Failure:  none; no room means DSN_FLUSH.
 * Bounds:   DSN_HEADERS_MAX, DSN_FULL_MAX, DSN_ROOM_MIN.
 * Tests:    tests/unit/test_dsn.c
 */
#include <assert.h>

#include "gateway/base/plant.h"
#include "gateway/dsn_internal.h"

enum part {
    HEADER,
    TEXT_RCPT,
    TEXT_END,
    STATUS,
    STATUS_RCPT,
    ORIGINAL,
    RETURNED,
    CLOSING,
    WRITTEN
};

enum { LINE_START, LINE_START_CR, IN_LINE };

bool dsn_wanted(uint8_t notify, enum dsn_kind kind, bool sender_empty)
{
    if (PLANT(NOTIFY_IGNORED) && !sender_empty)
        notify = 0;
    if ((sender_empty && !PLANT(NULL_SENDER_DSN)) || (notify & SMTP_NOTIFY_NEVER))
        return false;
    if (notify == 0) /* RFC 3461 section 4.1: failures; delays as the server likes */
        return kind != DSN_RELAYED;
    switch (kind) {
    case DSN_FAILED:
    case DSN_EXPIRED: return notify & SMTP_NOTIFY_FAILURE;
    case DSN_DELAYED: return notify & SMTP_NOTIFY_DELAY;
    case DSN_RELAYED: return notify & SMTP_NOTIFY_SUCCESS;
    }
    return false;
}

void dsn_rcpt_set_reply(struct dsn_rcpt *r, const struct smtp_reply *reply)
{
    r->code = reply->code;
    r->enhanced = slice_str(reply->enhanced);
    r->text = slice_str(reply->text);
}

bool dsn_returns_full(const struct dsn *d)
{
    bool whole = !d->original_utf8 || dsn_is_utf8(d); /* else its header cannot be shown as it is */
    return (d->kind == DSN_FAILED || d->kind == DSN_EXPIRED) && d->ret == SMTP_RET_FULL &&
           d->original_size <= DSN_FULL_MAX && whole;
}

/* A report that needs SMTPUTF8 without need could fail where the original did (FAULTS 89). */
bool dsn_is_utf8(const struct dsn *d)
{
    return d->original_utf8 && slice_has_8bit(d->to);
}

bool dsn_is_8bit(const struct dsn *d)
{
    return dsn_is_utf8(d) || (d->original_8bit && dsn_returns_full(d));
}

const char *dsn_kind_name(enum dsn_kind kind)
{
    static const char *const names[] = {"failed", "expired", "delayed", "relayed"};
    return names[kind];
}

/* ---- third part: the original ---- */

static void put_original(const struct dsn *d, struct buf *out)
{
    bool utf8 = dsn_is_utf8(d), full = dsn_returns_full(d);
    const char *type = full ? (utf8 ? "message/global" : "message/rfc822")
                            : (utf8 ? "message/global-headers" : "text/rfc822-headers");
    dsn_put_part(d, type, dsn_is_8bit(d), out);
}

static void put_closing(const struct dsn *d, struct buf *out)
{
    buf_add_str(out, "\r\n--");
    dsn_put_boundary(d, out);
    buf_add_str(out, "--\r\n");
}

/* Moves the line state over one byte; true: the header section ends with it. */
static bool end_of_headers(struct dsn_writer *w, uint8_t c)
{
    bool ended = w->line_state == LINE_START_CR && c == '\n';
    if (c == '\n')
        w->line_state = LINE_START;
    else
        w->line_state = c == '\r' && w->line_state == LINE_START ? LINE_START_CR : IN_LINE;
    return ended;
}

size_t dsn_original(struct dsn_writer *w, struct slice data, struct buf *out)
{
    if (dsn_original_is_enough(w))
        return data.len;
    if (dsn_returns_full(w->dsn)) {
        struct slice now = slice_head(data, buf_room(out));
        buf_add_slice(out, now);
        w->original_bytes += now.len;
        return now.len;
    }
    bool utf8 = dsn_is_utf8(w->dsn);
    for (size_t i = 0; i < data.len; i++) {
        uint8_t c = data.ptr[i];
        if (w->line_state == LINE_START && w->original_bytes >= DSN_HEADERS_MAX)
            w->original_done = true;
        if (w->original_done)
            return data.len;
        if (buf_room(out) == 0)
            return i;
        buf_add_byte(out, c < 0x80 || utf8 ? c : '?');
        w->original_bytes++;
        if (end_of_headers(w, c))
            w->original_done = true;
    }
    return data.len;
}

bool dsn_original_is_enough(const struct dsn_writer *w)
{
    return w->original_done;
}

void dsn_original_end(struct dsn_writer *w)
{
    assert(w->part == RETURNED);
    w->part = CLOSING;
}

/* ---- all of it ---- */

void dsn_start(struct dsn_writer *w, const struct dsn *dsn)
{
    *w = (struct dsn_writer){.dsn = dsn, .part = HEADER};
}

/* One piece of the part that is due; for parts with a piece a recipient, the next one. */
static void put_piece(struct dsn_writer *w, struct buf *out)
{
    const struct dsn *d = w->dsn;
    switch ((enum part)w->part) {
    case HEADER:
        dsn_put_header(d, out);
        dsn_put_explanation(d, out);
        break;
    case TEXT_RCPT: dsn_put_text_rcpt(d, &d->rcpts[w->rcpt], out); break;
    case TEXT_END: dsn_put_text_end(d, out); break;
    case STATUS: dsn_put_status(d, out); break;
    case STATUS_RCPT: dsn_put_status_rcpt(d, &d->rcpts[w->rcpt], out); break;
    case ORIGINAL: put_original(d, out); break;
    case CLOSING: put_closing(d, out); break;
    default: break;
    }
}

enum dsn_step dsn_write(struct dsn_writer *w, struct buf *out)
{
    assert(out->cap >= DSN_ROOM_MIN);
    for (;;) {
        bool each = w->part == TEXT_RCPT || w->part == STATUS_RCPT;
        uint32_t start = out->len;

        if (w->part == RETURNED)
            return buf_room(out) == 0 ? DSN_FLUSH : DSN_WANT_ORIGINAL;
        if (w->part == WRITTEN)
            return DSN_DONE;
        if (!each || w->rcpt < w->dsn->rcpt_count) {
            put_piece(w, out);
            if (out->overflow) {
                assert(start > 0); /* a piece fits DSN_ROOM_MIN */
                out->len = start;
                out->overflow = false;
                return DSN_FLUSH;
            }
        }
        if (each && w->rcpt + 1 < w->dsn->rcpt_count) {
            w->rcpt++;
        } else {
            w->rcpt = 0;
            w->part++;
        }
    }
}
