/*
 * gateway/dsn.c - the text of delivery status notifications.
 *
 * Owns:     nothing; the writer's state is the caller's.
 * Runs on:  any thread; pure.
 * Contract: strict CRLF; no line of ours is longer than 998 bytes; what others said can neither
 *           end a field nor a part. Without original_8bit and original_utf8 the report is 7-bit,
 *           whatever addresses and headers hold.
 * Failure:  none; no room means DSN_FLUSH.
 * Bounds:   DSN_TEXT_MAX of another host's words, DSN_HEADERS_MAX, DSN_FULL_MAX, DSN_ROOM_MIN.
 * Tests:    tests/unit/test_dsn.c
 */
#include "gateway/dsn.h"

#include <assert.h>

#include "gateway/base/plant.h"
#include "gateway/trace.h"

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

/* ---- bytes that others chose ---- */

/* One line of text: what could break it, and 8-bit where it is not allowed, becomes '?'. */
static void put_text(const struct dsn *d, struct slice s, size_t max, struct buf *out)
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

static void put_mailbox(const struct dsn *d, struct slice mailbox, struct buf *out)
{
    put_text(d, mailbox, SMTP_PATH_MAX + 2, out);
}

static void put_date(uint64_t wall_ns, struct buf *out)
{
    if (!trace_date_write(wall_ns, out))
        out->overflow = true;
}

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* ORCPT as an address field: "rfc822;a+2Bb@c" is "rfc822; a+b@c" (RFC 3464 section 2.3.1). Other
 * types stay encoded. */
static void put_orcpt(const struct dsn *d, struct slice orcpt, struct buf *out)
{
    uint8_t text[SMTP_ORCPT_MAX];
    struct buf decoded = buf_over(text, sizeof text);
    size_t type_len = slice_find(orcpt, ';');
    struct slice type = slice_head(orcpt, type_len), address = slice_from(orcpt, type_len + 1);
    bool xtext = slice_eq_nocase(type, SLICE_LIT("rfc822"));

    for (size_t i = 0; i < address.len; i++) {
        const uint8_t *p = address.ptr + i;
        bool coded = xtext && p[0] == '+' && i + 2 < address.len && hex_digit(p[1]) >= 0 &&
                     hex_digit(p[2]) >= 0;
        buf_add_byte(&decoded, coded ? (uint8_t)(hex_digit(p[1]) * 16 + hex_digit(p[2])) : p[0]);
        i += coded ? 2 : 0;
    }
    put_text(d, type, 16, out);
    buf_add_str(out, "; ");
    put_text(d, buf_slice(&decoded), SMTP_ORCPT_MAX, out);
}

/* "550 5.1.1 No such user", as far as it was said. */
static void put_words(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out)
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
    put_text(d, buf_slice(&words), DSN_TEXT_MAX, out);
}

/* ---- first part: for people ---- */

static void put_boundary(const struct dsn *d, struct buf *out)
{
    buf_add_str(out, "hikyaku.");
    put_text(d, d->id, 48, out);
}

static void open_part(const struct dsn *d, const char *type, bool eightbit, struct buf *out)
{
    buf_add_str(out, "\r\n--");
    put_boundary(d, out);
    buf_add_str(out, "\r\nContent-Type: ");
    buf_add_str(out, type);
    if (eightbit)
        buf_add_str(out, "\r\nContent-Transfer-Encoding: 8bit");
    buf_add_str(out, "\r\n\r\n");
}

const char *dsn_kind_name(enum dsn_kind kind)
{
    static const char *const names[] = {"failed", "expired", "delayed", "relayed"};
    return names[kind];
}

const char *dsn_subject(const struct dsn *d)
{
    static const char *const subjects[] = {
        "Undeliverable: your message could not be delivered",
        "Undeliverable: your message could not be delivered in time",
        "Delayed: your message is not delivered yet", "Relayed: your message was passed on"};
    return subjects[d->kind];
}

static void put_header(const struct dsn *d, struct buf *out)
{
    buf_add_str(out, "From: Mail Delivery System <MAILER-DAEMON@");
    put_text(d, d->hostname, SMTP_DOMAIN_MAX, out);
    buf_add_str(out, ">\r\nTo: <");
    put_mailbox(d, d->to, out);
    buf_add_str(out, ">\r\nSubject: ");
    buf_add_str(out, dsn_subject(d));
    buf_add_str(out, "\r\nDate: ");
    put_date(d->now_wall_ns, out);
    buf_add_str(out, "\r\nMessage-ID: <");
    put_text(d, d->id, 48, out);
    buf_add_str(out, "@");
    put_text(d, d->hostname, SMTP_DOMAIN_MAX, out);
    buf_add_str(out,
                ">\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
                "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"");
    put_boundary(d, out);
    buf_add_str(out, "\"\r\n");
    if (dsn_is_8bit(d))
        buf_add_str(out, "Content-Transfer-Encoding: 8bit\r\n");
    buf_add_str(out, "\r\nThis is a delivery report in MIME format.\r\n");
}

static void put_explanation(const struct dsn *d, struct buf *out)
{
    static const char *const what[] = {
        "could not be delivered to:\r\n", "could not be delivered in the time allowed to:\r\n",
        "has not been delivered yet to:\r\n",
        "was passed on to a system that does not confirm deliveries, for:\r\n"};
    bool utf8 = dsn_is_utf8(d);

    open_part(d, utf8 ? "text/plain; charset=utf-8" : "text/plain; charset=us-ascii", utf8, out);
    buf_add_str(out, "This is the mail gateway ");
    put_text(d, d->hostname, SMTP_DOMAIN_MAX, out);
    buf_add_str(out, ".\r\n\r\nYour message of ");
    put_date(d->arrival_wall_ns, out);
    buf_add_str(out, "\r\n");
    buf_add_str(out, what[d->kind]);
}

static void put_host(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out)
{
    put_text(d, r->host.len > 0 ? r->host : r->address, SMTP_DOMAIN_MAX, out);
    if (r->host.len > 0 && r->address.len > 0) {
        buf_add_str(out, " [");
        put_text(d, r->address, 64, out);
        buf_add_str(out, "]");
    }
}

/* Words in lines of up to 76 columns, each with a margin of eight. */
static void put_wrapped(struct slice words, struct buf *out)
{
    size_t column = 0;
    while (words.len > 0) {
        size_t len = slice_find(words, ' ');
        if (column == 0 || column + 1 + len > 76) {
            buf_add_str(out, "\r\n        ");
            column = 8;
        } else {
            buf_add_byte(out, ' ');
            column++;
        }
        buf_add(out, words.ptr, len);
        column += len;
        words = slice_from(words, len + 1);
    }
    buf_add_str(out, "\r\n");
}

static void put_text_rcpt(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out)
{
    uint8_t text[DSN_TEXT_MAX];
    struct buf words = buf_over(text, sizeof text);
    bool host = r->host.len > 0 || r->address.len > 0;

    buf_add_str(out, "\r\n    <");
    put_mailbox(d, r->mailbox, out);
    buf_add_str(out, ">\r\n        ");
    if (host)
        put_host(d, r, out);
    else
        buf_add_str(out, "the gateway");
    buf_add_str(out, r->code && host ? " said" : " reports");
    if (r->attempt_wall_ns) {
        buf_add_str(out, " on ");
        put_date(r->attempt_wall_ns, out);
    }
    buf_add_str(out, ":");
    put_words(d, r, &words);
    put_wrapped(buf_slice(&words), out);
}

static void put_text_end(const struct dsn *d, struct buf *out)
{
    static const char *const next[] = {"It will not be tried again.", "It will not be tried again.",
                                       "You need not send it again: it is still being tried",
                                       "Whether it reaches its recipients will not be reported."};
    buf_add_str(out, "\r\n");
    buf_add_str(out, next[d->kind]);
    if (d->kind == DSN_DELAYED) {
        if (d->retry_until_wall_ns) {
            buf_add_str(out, " until\r\n");
            put_date(d->retry_until_wall_ns, out);
        }
        buf_add_str(out, ".");
    }
    buf_add_str(out, dsn_returns_full(d) ? " The message follows below.\r\n"
                                         : " The headers of the message follow below.\r\n");
    if (d->qid.len > 0) {
        buf_add_str(out, "\r\nIf you ask your administrator about it, give this number: ");
        put_text(d, d->qid, 64, out);
        buf_add_str(out, "\r\n");
    }
}

/* ---- second part: for programs (RFC 3464) ---- */

static void put_field(const struct dsn *d, const char *name, struct slice value, size_t max,
                      struct buf *out)
{
    if (value.len == 0)
        return;
    buf_add_str(out, name);
    put_text(d, value, max, out);
    buf_add_str(out, "\r\n");
}

static void put_date_field(const char *name, uint64_t wall_ns, struct buf *out)
{
    if (wall_ns == 0)
        return;
    buf_add_str(out, name);
    put_date(wall_ns, out);
    buf_add_str(out, "\r\n");
}

static void put_status(const struct dsn *d, struct buf *out)
{
    bool utf8 = dsn_is_utf8(d);
    open_part(d, utf8 ? "message/global-delivery-status" : "message/delivery-status", utf8, out);
    put_field(d, "Reporting-MTA: dns; ", d->hostname, SMTP_DOMAIN_MAX, out);
    put_field(d, "X-Hikyaku-Queue-Id: ", d->qid, 64, out);
    put_field(d, "Original-Envelope-Id: ", d->envid, SMTP_ENVID_MAX, out);
    put_date_field("Arrival-Date: ", d->arrival_wall_ns, out);
}

/* "5.1.1" (RFC 3463): three numbers, the first of `classes`. */
static bool is_status(struct slice s, const char *classes)
{
    if (s.len < 5 || s.len > 9 || !strchr(classes, s.ptr[0]) || s.ptr[1] != '.')
        return false;
    size_t dots = 0;
    for (size_t i = 1; i < s.len; i++) {
        bool dot = s.ptr[i] == '.';
        if ((!dot && (s.ptr[i] < '0' || s.ptr[i] > '9')) || (dot && s.ptr[i - 1] == '.'))
            return false;
        dots += dot;
    }
    return dots == 2 && s.ptr[s.len - 1] != '.';
}

static struct slice status_of(const struct dsn *d, const struct dsn_rcpt *r)
{
    switch (d->kind) {
    case DSN_RELAYED: return SLICE_LIT("2.1.9"); /* relayed to a system that is silent */
    case DSN_EXPIRED: return SLICE_LIT("4.4.7"); /* delivery time expired */
    case DSN_DELAYED: return is_status(r->enhanced, "4") ? r->enhanced : SLICE_LIT("4.0.0");
    default: return is_status(r->enhanced, "45") ? r->enhanced : SLICE_LIT("5.0.0");
    }
}

/* RFC 6533 section 3, utf-8-addr-xtext: in a report that is 7-bit, characters stand as \x{HEX}. */
static void put_mailbox_xtext(struct slice m, struct buf *out)
{
    for (size_t i = 0; i < m.len;) {
        uint8_t c = m.ptr[i];
        size_t n = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
        uint32_t code = n == 1 ? c : c & (0x7fu >> n);
        for (size_t k = 1; k < n; k++)
            code = code << 6 | (m.ptr[i + k] & 0x3f);
        if (n == 1 && c != '\\' && c != '+' && c != '=')
            buf_add_byte(out, c);
        else
            buf_addf(out, "\\x{%X}", code);
        i += n;
    }
}

static void put_final_recipient(const struct dsn *d, struct slice mailbox, struct buf *out)
{
    bool wide = slice_has_8bit(mailbox) && smtp_utf8_valid(mailbox);
    buf_add_str(out, wide ? "Final-Recipient: utf-8; " : "Final-Recipient: rfc822; ");
    if (wide && !dsn_is_utf8(d))
        put_mailbox_xtext(mailbox, out);
    else
        put_mailbox(d, mailbox, out);
}

static void put_status_rcpt(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out)
{
    static const char *const actions[] = {"failed", "failed", "delayed", "relayed"};
    bool host = r->host.len > 0 || r->address.len > 0;

    buf_add_str(out, "\r\n");
    if (r->orcpt.len > 0) {
        buf_add_str(out, "Original-Recipient: ");
        put_orcpt(d, r->orcpt, out);
        buf_add_str(out, "\r\n");
    }
    put_final_recipient(d, r->mailbox, out);
    buf_add_str(out, "\r\nAction: ");
    buf_add_str(out, actions[d->kind]);
    buf_add_str(out, "\r\n");
    put_field(d, "Status: ", status_of(d, r), 12, out);
    if (host) {
        buf_add_str(out, "Remote-MTA: dns; ");
        if (r->host.len > 0)
            put_text(d, r->host, SMTP_DOMAIN_MAX, out);
        else {
            buf_add_str(out, "[");
            put_text(d, r->address, 64, out);
            buf_add_str(out, "]");
        }
        buf_add_str(out, "\r\n");
    }
    if (r->code || r->text.len > 0) {
        buf_add_str(out, r->code ? "Diagnostic-Code: smtp; " : "Diagnostic-Code: X-Hikyaku; ");
        put_words(d, r, out);
        buf_add_str(out, "\r\n");
    }
    put_date_field("Last-Attempt-Date: ", r->attempt_wall_ns, out);
    if (d->kind == DSN_DELAYED)
        put_date_field("Will-Retry-Until: ", d->retry_until_wall_ns, out);
}

/* ---- third part: the original ---- */

static void put_original(const struct dsn *d, struct buf *out)
{
    bool utf8 = dsn_is_utf8(d), full = dsn_returns_full(d);
    const char *type = full ? (utf8 ? "message/global" : "message/rfc822")
                            : (utf8 ? "message/global-headers" : "text/rfc822-headers");
    open_part(d, type, dsn_is_8bit(d), out);
}

static void put_closing(const struct dsn *d, struct buf *out)
{
    buf_add_str(out, "\r\n--");
    put_boundary(d, out);
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
        put_header(d, out);
        put_explanation(d, out);
        break;
    case TEXT_RCPT: put_text_rcpt(d, &d->rcpts[w->rcpt], out); break;
    case TEXT_END: put_text_end(d, out); break;
    case STATUS: put_status(d, out); break;
    case STATUS_RCPT: put_status_rcpt(d, &d->rcpts[w->rcpt], out); break;
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
