/*
 * gateway/dsn_text.c - the header of a report, and its first part: for people.
 *
 * Owns:     nothing.
 * Runs on:  any thread; pure.
 * Contract: says in a few lines whose words they are, and what comes next.
 * Failure:  no room: out->overflow.
 * Bounds:   lines of 76 columns, but for names and words that are longer.
 * Tests:    tests/unit/test_dsn.c
 */
#include "gateway/dsn_internal.h"

const char *dsn_subject(const struct dsn *d)
{
    static const char *const subjects[] = {
        "Undeliverable: your message could not be delivered",
        "Undeliverable: your message could not be delivered in time",
        "Delayed: your message is not delivered yet", "Relayed: your message was passed on"};
    return subjects[d->kind];
}

void dsn_put_header(const struct dsn *d, struct buf *out)
{
    buf_add_str(out, "From: Mail Delivery System <MAILER-DAEMON@");
    dsn_put_text(d, d->hostname, SMTP_DOMAIN_MAX, out);
    buf_add_str(out, ">\r\nTo: <");
    dsn_put_mailbox(d, d->to, out);
    buf_add_str(out, ">\r\nSubject: ");
    buf_add_str(out, dsn_subject(d));
    buf_add_str(out, "\r\nDate: ");
    dsn_put_date(d->now_wall_ns, out);
    buf_add_str(out, "\r\nMessage-ID: <");
    dsn_put_text(d, d->id, 48, out);
    buf_add_str(out, "@");
    dsn_put_text(d, d->hostname, SMTP_DOMAIN_MAX, out);
    buf_add_str(out,
                ">\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
                "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"");
    dsn_put_boundary(d, out);
    buf_add_str(out, "\"\r\n");
    if (dsn_is_8bit(d))
        buf_add_str(out, "Content-Transfer-Encoding: 8bit\r\n");
    buf_add_str(out, "\r\nThis is a delivery report in MIME format.\r\n");
}

void dsn_put_explanation(const struct dsn *d, struct buf *out)
{
    static const char *const what[] = {
        "could not be delivered to:\r\n", "could not be delivered in the time allowed to:\r\n",
        "has not been delivered yet to:\r\n",
        "was passed on to a system that does not confirm deliveries, for:\r\n"};
    bool utf8 = dsn_is_utf8(d);

    dsn_put_part(d, utf8 ? "text/plain; charset=utf-8" : "text/plain; charset=us-ascii", utf8, out);
    buf_add_str(out, "This is the mail gateway ");
    dsn_put_text(d, d->hostname, SMTP_DOMAIN_MAX, out);
    buf_add_str(out, ".\r\n\r\nYour message of ");
    dsn_put_date(d->arrival_wall_ns, out);
    buf_add_str(out, "\r\n");
    buf_add_str(out, what[d->kind]);
}

static void put_host(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out)
{
    dsn_put_text(d, r->host.len > 0 ? r->host : r->address, SMTP_DOMAIN_MAX, out);
    if (r->host.len > 0 && r->address.len > 0) {
        buf_add_str(out, " [");
        dsn_put_text(d, r->address, 64, out);
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

void dsn_put_text_rcpt(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out)
{
    uint8_t text[DSN_TEXT_MAX];
    struct buf words = buf_over(text, sizeof text);
    bool host = r->host.len > 0 || r->address.len > 0;

    buf_add_str(out, "\r\n    <");
    dsn_put_mailbox(d, r->mailbox, out);
    buf_add_str(out, ">\r\n        ");
    if (host)
        put_host(d, r, out);
    else
        buf_add_str(out, "the gateway");
    buf_add_str(out, r->code && host ? " said" : " reports");
    if (r->attempt_wall_ns) {
        buf_add_str(out, " on ");
        dsn_put_date(r->attempt_wall_ns, out);
    }
    buf_add_str(out, ":");
    dsn_put_words(d, r, &words);
    put_wrapped(buf_slice(&words), out);
}

void dsn_put_text_end(const struct dsn *d, struct buf *out)
{
    static const char *const next[] = {"It will not be tried again.", "It will not be tried again.",
                                       "You need not send it again: it is still being tried",
                                       "Whether it reaches its recipients will not be reported."};
    buf_add_str(out, "\r\n");
    buf_add_str(out, next[d->kind]);
    if (d->kind == DSN_DELAYED) {
        if (d->retry_until_wall_ns) {
            buf_add_str(out, " until\r\n");
            dsn_put_date(d->retry_until_wall_ns, out);
        }
        buf_add_str(out, ".");
    }
    buf_add_str(out, dsn_returns_full(d) ? " The message follows below.\r\n"
                                         : " The headers of the message follow below.\r\n");
    if (d->qid.len > 0) {
        buf_add_str(out, "\r\nIf you ask your administrator about it, give this number: ");
        dsn_put_text(d, d->qid, 64, out);
        buf_add_str(out, "\r\n");
    }
}
