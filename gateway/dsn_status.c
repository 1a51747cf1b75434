/*
 * gateway/dsn_status.c - the second part of a report: for programs (RFC 3464, RFC 6533).
 *
 * Owns:     nothing.
 * Runs on:  any thread; pure.
 * Contract: a field whose value is not known is left out; a status code is one of RFC 3463.
 * Failure:  no room: out->overflow.
 * Bounds:   SMTP_ORCPT_MAX, SMTP_ENVID_MAX.
 * Tests:    tests/unit/test_dsn.c
 */
#include "gateway/dsn_internal.h"

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
    dsn_put_text(d, type, 16, out);
    buf_add_str(out, "; ");
    dsn_put_text(d, buf_slice(&decoded), SMTP_ORCPT_MAX, out);
}

static void put_field(const struct dsn *d, const char *name, struct slice value, size_t max,
                      struct buf *out)
{
    if (value.len == 0)
        return;
    buf_add_str(out, name);
    dsn_put_text(d, value, max, out);
    buf_add_str(out, "\r\n");
}

static void put_date_field(const char *name, uint64_t wall_ns, struct buf *out)
{
    if (wall_ns == 0)
        return;
    buf_add_str(out, name);
    dsn_put_date(wall_ns, out);
    buf_add_str(out, "\r\n");
}

void dsn_put_status(const struct dsn *d, struct buf *out)
{
    bool utf8 = dsn_is_utf8(d);
    dsn_put_part(d, utf8 ? "message/global-delivery-status" : "message/delivery-status", utf8, out);
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
        dsn_put_mailbox(d, mailbox, out);
}

void dsn_put_status_rcpt(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out)
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
            dsn_put_text(d, r->host, SMTP_DOMAIN_MAX, out);
        else {
            buf_add_str(out, "[");
            dsn_put_text(d, r->address, 64, out);
            buf_add_str(out, "]");
        }
        buf_add_str(out, "\r\n");
    }
    if (r->code || r->text.len > 0) {
        buf_add_str(out, r->code ? "Diagnostic-Code: smtp; " : "Diagnostic-Code: X-Hikyaku; ");
        dsn_put_words(d, r, out);
        buf_add_str(out, "\r\n");
    }
    put_date_field("Last-Attempt-Date: ", r->attempt_wall_ns, out);
    if (d->kind == DSN_DELAYED)
        put_date_field("Will-Retry-Until: ", d->retry_until_wall_ns, out);
}
