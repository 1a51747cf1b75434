/*
 * gateway/smtp/smtp_in_auth.c - the AUTH command and its exchange (RFC 4954).
 *
 * Owns:     the SASL store behind the line in the lent buffer, while an exchange is under way.
 * Runs on:  the session's shard.
 * Contract: where TLS is missing the secret is not looked at. Secrets are wiped from the machine's
 *           memory as soon as the owner has answered; the input itself is the owner's.
 * Failure:  530 5.7.0 no TLS; 503 5.5.1 twice, in a transaction, before EHLO; 504 5.5.4 mechanism;
 *           501 5.5.2 base64 or message; 501 5.7.0 cancelled; 500 5.5.6 line too long.
 * Bounds:   AUTH_USER_MAX, AUTH_PASSWORD_MAX, SMTP_AUTH_LINE_MAX.
 * Tests:    tests/unit/test_smtp_in_auth.c
 */
#include <assert.h>

#include "gateway/smtp/smtp_in_internal.h"

/* PLAIN's largest message: two names, a password, two NULs. */
#define MESSAGE_MAX (2 * AUTH_USER_MAX + AUTH_PASSWORD_MAX + 2)

void smtp_in_auth_end(struct smtp_in *s)
{
    sasl_server_wipe(&s->sasl);
    if (s->line)
        explicit_bzero(s->line, SMTP_IN_LINE_KEPT);
    s->line_len = 0;
    smtp_in_slot_set(s, SLOT_FREE);
}

uint32_t smtp_in_auth_offered(const struct smtp_in *s)
{
    bool clear_forbidden = s->config->tls_required || s->config->auth_require_tls;
    return clear_forbidden && !s->tls ? 0 : s->config->auth_mechanisms;
}

static void malformed(struct smtp_in *s, struct buf *out)
{
    smtp_in_auth_end(s);
    smtp_in_reply_bad(s, out, 501, "5.5.2", "Malformed authentication response");
}

/* One message of the client, base64 unless there is none. */
static bool exchange(struct smtp_in *s, bool has_response, struct slice text, struct buf *out,
                     struct smtp_in_event *ev)
{
    uint8_t memory[MESSAGE_MAX];
    struct buf message = buf_over(memory, sizeof memory);
    struct slice challenge;
    if (has_response && !base64_decode(text, &message)) {
        explicit_bzero(memory, sizeof memory);
        malformed(s, out);
        return false;
    }
    enum sasl_status status =
        sasl_server_step(&s->sasl, has_response, buf_slice(&message), &challenge, &ev->auth);
    explicit_bzero(memory, sizeof memory);
    switch (status) {
    case SASL_CHALLENGE:
        smtp_in_slot_set(s, SLOT_SASL);
        buf_add_str(out, "334 ");
        if (!base64_encode(challenge, out))
            assert(!"a step begins with room enough");
        buf_add_str(out, "\r\n");
        return false;
    case SASL_CHECK:
        smtp_in_slot_set(s, SLOT_AUTH);
        ev->kind = SMTP_IN_AUTH;
        return true;
    default: malformed(s, out); return false;
    }
}

bool smtp_in_auth_response(struct smtp_in *s, struct slice line, struct buf *out,
                           struct smtp_in_event *ev)
{
    if (slice_eq(line, SLICE_LIT("*"))) {
        smtp_in_auth_end(s);
        smtp_in_reply_idle(s, out, 501, "5.7.0", "Authentication cancelled");
        return false;
    }
    return exchange(s, true, line, out, ev);
}

/* False: refused, before anything secret is looked at. */
static bool allowed(struct smtp_in *s, struct buf *out)
{
    if (s->config->auth_mechanisms == 0)
        smtp_in_reply_bad(s, out, 502, "5.5.1", "AUTH is not offered");
    else if (smtp_in_auth_offered(s) == 0)
        smtp_in_reply_bad(s, out, 530, "5.7.0", "Must issue a STARTTLS command first");
    else if (!s->esmtp)
        smtp_in_reply_bad(s, out, 503, "5.5.1", "Send EHLO first");
    else if (s->authenticated)
        smtp_in_reply_bad(s, out, 503, "5.5.1", "Already authenticated");
    else if (s->in_transaction)
        smtp_in_reply_bad(s, out, 503, "5.5.1", "Not inside a mail transaction");
    else
        return true;
    return false;
}

bool smtp_in_auth_command(struct smtp_in *s, struct slice arg, struct buf *out,
                          struct smtp_in_event *ev)
{
    bool event = false;
    if (allowed(s, out)) {
        size_t space = slice_find(arg, ' ');
        uint32_t mechanism = sasl_mechanism_find(slice_head(arg, space));
        struct slice initial = slice_from(arg, space + 1);
        if (arg.len == 0) {
            smtp_in_reply_bad(s, out, 501, "5.5.4", "AUTH needs a mechanism");
        } else if (!(mechanism & smtp_in_auth_offered(s))) {
            smtp_in_reply_bad(s, out, 504, "5.5.4", "Mechanism is not offered");
        } else {
            assert(s->line);
            sasl_server_start(&s->sasl, (enum sasl_mechanism)mechanism,
                              s->line + SMTP_IN_LINE_KEPT);
            bool empty = slice_eq(initial, SLICE_LIT("="));
            event = exchange(s, initial.len != 0, empty ? slice_of(NULL, 0) : initial, out, ev);
        }
    }
    /* The line may lie in the lent buffer, with the secret; what is refused is wiped as well. */
    if (s->line)
        explicit_bzero(s->line, SMTP_IN_LINE_KEPT);
    return event;
}
