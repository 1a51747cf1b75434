/*
 * gateway/smtp/smtp_in_handoff.c - XHANDOFF, an extension of our own: another gateway hands over
 * what it has queued (docs/handoff.md).
 *
 * Owns:     nothing; see smtp_in.c.
 * Runs on:  the session's shard.
 * Contract: nothing of it inside a mail transaction, outside of TLS or before AUTH. What the text
 *           behind 354 means is the owner's to find out.
 * Failure:  502 5.5.1 where it is not offered, 501 5.5.4 argument, 503 5.5.1 out of order, 530
 *           5.7.0 without TLS or AUTH.
 * Bounds:   HANDOFF_ID_MAX, HANDOFF_TEXT_MAX.
 * Tests:    tests/unit/test_smtp_in_handoff.c
 */
#include "gateway/smtp/smtp_in_internal.h"

bool smtp_in_handoff_offered(const struct smtp_in *s)
{
    return s->config->handoff && s->tls;
}

/* The value of " name=value"; *arg is advanced behind it. */
static bool take_value(struct slice *arg, struct slice name, struct slice *value)
{
    while (arg->len && arg->ptr[0] == ' ')
        *arg = slice_from(*arg, 1);
    if (!slice_starts_nocase(*arg, name))
        return false;
    *arg = slice_from(*arg, name.len);
    *value = slice_head(*arg, slice_find(*arg, ' '));
    *arg = slice_from(*arg, value->len);
    return value->len > 0;
}

/* Letters, digits and one slash: it goes into logs and back onto the wire. */
static bool is_id(struct slice id)
{
    uint32_t slashes = 0;
    for (size_t i = 0; i < id.len; i++) {
        uint8_t c = ascii_lower(id.ptr[i]);
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        slashes += c == '/';
        if (!plain && c != '/')
            return false;
    }
    return slashes == 1 && id.len <= HANDOFF_ID_MAX;
}

static bool is_due(struct smtp_in *s, struct buf *out)
{
    if (!s->config->handoff)
        smtp_in_reply_bad(s, out, 502, "5.5.1", "Command not implemented");
    else if (!s->tls)
        smtp_in_reply_bad(s, out, 530, "5.7.0", "Must issue a STARTTLS command first");
    else if (!s->authenticated)
        smtp_in_reply_bad(s, out, 530, "5.7.0", "Authentication required");
    else if (s->in_transaction)
        smtp_in_reply_bad(s, out, 503, "5.5.1", "A mail transaction is open");
    else
        return true;
    return false;
}

bool smtp_in_handoff(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    struct slice number;
    uint64_t octets = 0;
    if (!is_due(s, out))
        return false;
    bool good = take_value(&arg, SLICE_LIT("id="), &ev->handoff.id) && is_id(ev->handoff.id) &&
                take_value(&arg, SLICE_LIT("state="), &number) && number.len < 9 && arg.len == 0;
    for (size_t i = 0; good && i < number.len; i++) {
        good = number.ptr[i] >= '0' && number.ptr[i] <= '9';
        octets = octets * 10 + (uint64_t)(number.ptr[i] - '0');
    }
    if (!good || octets == 0 || octets > HANDOFF_TEXT_MAX) {
        smtp_in_reply_bad(s, out, 501, "5.5.4", "Syntax: XHANDOFF id=<id> state=<octets>");
        return false;
    }
    ev->handoff.text_bytes = (uint32_t)octets;
    ev->handoff.to = slice_of(NULL, 0);
    smtp_in_transaction_set(s, TRANSACTION_OPEN);
    s->handing = true;
    smtp_in_slot_set(s, SLOT_DATA);
    ev->kind = SMTP_IN_HANDOFF;
    return true;
}

static bool settle(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev,
                   enum smtp_in_event_kind kind)
{
    if (!is_due(s, out))
        return false;
    if (!take_value(&arg, SLICE_LIT("id="), &ev->handoff.id) || !is_id(ev->handoff.id) ||
        !take_value(&arg, SLICE_LIT("to="), &ev->handoff.to) || arg.len) {
        smtp_in_reply_bad(s, out, 501, "5.5.4", "Syntax: id=<id> to=<instance>");
        return false;
    }
    ev->handoff.text_bytes = 0;
    smtp_in_slot_set(s, SLOT_HANDOFF);
    ev->kind = kind;
    return true;
}

bool smtp_in_handoff_commit(struct smtp_in *s, struct slice arg, struct buf *out,
                            struct smtp_in_event *ev)
{
    return settle(s, arg, out, ev, SMTP_IN_HANDOFF_COMMIT);
}

bool smtp_in_handoff_abort(struct smtp_in *s, struct slice arg, struct buf *out,
                           struct smtp_in_event *ev)
{
    return settle(s, arg, out, ev, SMTP_IN_HANDOFF_ABORT);
}

bool smtp_in_handoff_next(struct smtp_in *s, struct slice arg, struct buf *out,
                          struct smtp_in_event *ev)
{
    struct slice none = SLICE_LIT("-");
    if (!is_due(s, out))
        return false;
    if (!take_value(&arg, SLICE_LIT("from="), &ev->handoff.to) ||
        !take_value(&arg, SLICE_LIT("after="), &ev->handoff.id) || arg.len ||
        !(is_id(ev->handoff.id) || slice_eq(ev->handoff.id, none))) {
        smtp_in_reply_bad(s, out, 501, "5.5.4", "Syntax: from=<instance> after=<id>");
        return false;
    }
    if (slice_eq(ev->handoff.id, none))
        ev->handoff.id = slice_of(NULL, 0);
    ev->handoff.text_bytes = 0;
    smtp_in_slot_set(s, SLOT_HANDOFF);
    ev->kind = SMTP_IN_HANDOFF_NEXT;
    return true;
}
