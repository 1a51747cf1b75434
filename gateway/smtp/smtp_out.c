/*
 * gateway/smtp/smtp_out.c - the client side of SMTP: states, steps and what they tell the owner.
 *
 * Owns:     the state of one connection and of the transaction on it.
 * Runs on:  any thread; no I/O, no clock, no memory of its own, no log.
 * Contract: replies are matched to commands in order; what the server says unasked is an error
 *           (FAULTS 83). Nothing learned in clear is believed inside TLS (RFC 3207 section 4.2).
 * Failure:  SMTP_OUT_FAILED once, then SMTP_OUT_CLOSED for ever. A transaction's outcome that was
 *           known before is told before.
 * Bounds:   SMTP_OUT_* in gateway/limits.h.
 * Tests:    tests/unit/test_smtp_out.c, tests/unit/test_smtp_out_faults.c, tests/fuzz/fuzz_reply.c
 */
#include "gateway/smtp/smtp_out.h"

#include <assert.h>

#include "gateway/smtp/smtp_out_internal.h"

#define S(name) (1u << SMTP_OUT_S_##name)

static const uint32_t EDGES[] = {
    [SMTP_OUT_S_BANNER] = S(EHLO) | S(HELO) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_EHLO] = S(HELO) | S(STARTTLS) | S(AUTH) | S(READY) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_HELO] = S(READY) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_STARTTLS] = S(TLS) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_TLS] = S(EHLO) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_AUTH] = S(READY) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_READY] = S(RSET) | S(ENVELOPE) | S(QUIT) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_RSET] = S(ENVELOPE) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_ENVELOPE] = S(READY) | S(BODY) | S(EMPTY_DOT) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_BODY] = S(EOD) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_EMPTY_DOT] = S(READY) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_EOD] = S(READY) | S(LOST) | S(CLOSED),
    [SMTP_OUT_S_QUIT] = S(CLOSED),
    [SMTP_OUT_S_LOST] = S(CLOSED),
    [SMTP_OUT_S_CLOSED] = 0,
};

bool smtp_out_edge_allowed(enum smtp_out_state from, enum smtp_out_state to)
{
    return (EDGES[from] >> to) & 1;
}

void smtp_out_set_phase(struct smtp_out *s)
{
    static const uint8_t phases[] = {
        [SMTP_OUT_S_BANNER] = SMTP_OUT_AT_BANNER,  [SMTP_OUT_S_EHLO] = SMTP_OUT_AT_EHLO,
        [SMTP_OUT_S_HELO] = SMTP_OUT_AT_EHLO,      [SMTP_OUT_S_STARTTLS] = SMTP_OUT_AT_STARTTLS,
        [SMTP_OUT_S_TLS] = SMTP_OUT_AT_STARTTLS,   [SMTP_OUT_S_AUTH] = SMTP_OUT_AT_AUTH,
        [SMTP_OUT_S_READY] = SMTP_OUT_AT_IDLE,     [SMTP_OUT_S_RSET] = SMTP_OUT_AT_MAIL,
        [SMTP_OUT_S_ENVELOPE] = SMTP_OUT_AT_MAIL,  [SMTP_OUT_S_BODY] = SMTP_OUT_AT_BODY,
        [SMTP_OUT_S_EMPTY_DOT] = SMTP_OUT_AT_DATA, [SMTP_OUT_S_EOD] = SMTP_OUT_AT_EOD,
        [SMTP_OUT_S_QUIT] = SMTP_OUT_AT_QUIT,
    };
    if (s->state >= SMTP_OUT_S_LOST)
        return; /* stays where it was lost */
    s->phase = (enum smtp_out_phase)phases[s->state];
    if (s->state == SMTP_OUT_S_ENVELOPE && s->answered > 0)
        s->phase = s->answered > s->tx->rcpt_count ? SMTP_OUT_AT_DATA : SMTP_OUT_AT_RCPT;
}

void smtp_out_set_state(struct smtp_out *s, enum smtp_out_state to)
{
    assert(smtp_out_edge_allowed((enum smtp_out_state)s->state, to));
    s->state = (uint8_t)to;
    s->asked = false;
    smtp_out_set_phase(s);
}

void smtp_out_init(struct smtp_out *s, const struct smtp_out_config *config, bool implicit_tls)
{
    memset(s, 0, sizeof *s);
    s->config = config;
    s->tls = implicit_tls;
    s->state = SMTP_OUT_S_BANNER;
    smtp_reply_start(&s->parser, &s->last);
    smtp_out_set_phase(s);
}

void smtp_out_fail(struct smtp_out *s, enum smtp_out_phase phase)
{
    s->fail_phase = s->decided ? SMTP_OUT_AT_IDLE : phase;
    s->fail_data_sent = s->state == SMTP_OUT_S_EOD && s->last.code == 0;
    if (s->decided)
        s->tx_done = true;
    smtp_out_set_state(s, SMTP_OUT_S_LOST);
}

void smtp_out_fail_local(struct smtp_out *s, enum smtp_out_phase phase, const char *enhanced,
                         const char *text)
{
    smtp_reply_set_local(&s->last, enhanced, text);
    smtp_out_fail(s, phase);
}

void smtp_out_lost(struct smtp_out *s, const char *text)
{
    if (s->state == SMTP_OUT_S_LOST || s->state == SMTP_OUT_S_CLOSED)
        return;
    if (s->state == SMTP_OUT_S_QUIT) /* nobody needs the answer (FAULTS 81) */
        smtp_out_set_state(s, SMTP_OUT_S_CLOSED);
    else
        smtp_out_fail_local(s, s->phase, "4.4.2", text);
}

static enum smtp_out_event_kind tell_tx_done(struct smtp_out *s, struct smtp_out_event *ev)
{
    s->tx_done = s->decided = false;
    s->tx = NULL;
    ev->phase = s->result_phase;
    ev->data_sent = s->dot_sent;
    ev->reply = s->result;
    return ev->kind = SMTP_OUT_TX_DONE;
}

static enum smtp_out_event_kind tell_failed(struct smtp_out *s, struct smtp_out_event *ev)
{
    ev->phase = s->fail_phase;
    ev->data_sent = s->fail_data_sent;
    ev->reply = s->last;
    smtp_out_set_state(s, SMTP_OUT_S_CLOSED);
    return ev->kind = SMTP_OUT_FAILED;
}

/* Consumes input up to the end of one line. NEED_INPUT: nothing to tell yet. */
static enum smtp_out_event_kind receive(struct smtp_out *s, struct slice *in,
                                        struct smtp_out_event *ev)
{
    if (!smtp_reply_is_partial(&s->parser))
        smtp_reply_start(&s->parser, &s->last);
    switch (smtp_reply_parse(&s->parser, in, &s->last)) {
    case SMTP_PARSE_NEED_MORE: break;
    case SMTP_PARSE_BAD:
        if (s->state == SMTP_OUT_S_QUIT)
            smtp_out_set_state(s, SMTP_OUT_S_CLOSED);
        else
            smtp_out_fail(s, s->phase);
        break;
    case SMTP_PARSE_DONE:
        if (s->state == SMTP_OUT_S_EHLO && s->asked && s->last.code == 250 &&
            s->parser.line_count > 1)
            smtp_out_learn(s, slice_of(s->parser.line, s->parser.line_len));
        if (s->parser.last)
            return smtp_out_take_reply(s, *in, ev);
        break;
    }
    return SMTP_OUT_NEED_INPUT;
}

enum smtp_out_event_kind smtp_out_step(struct smtp_out *s, struct slice *in, struct buf *out,
                                       struct smtp_out_event *ev)
{
    assert(out->cap >= SMTP_OUT_ROOM_MIN);
    ev->kind = SMTP_OUT_NEED_INPUT;
    ev->phase = s->phase;
    ev->rcpt = 0;
    ev->data_sent = false;
    smtp_reply_set_local(&ev->reply, "", "");
    for (;;) {
        if (s->tx_done)
            return tell_tx_done(s, ev);
        if (s->state == SMTP_OUT_S_LOST)
            return tell_failed(s, ev);
        if (s->state == SMTP_OUT_S_CLOSED)
            return ev->kind = SMTP_OUT_CLOSED;
        if (s->state == SMTP_OUT_S_TLS)
            return ev->kind; /* what comes now belongs to the handshake */
        if (in->len > 0) {
            ev->kind = receive(s, in, ev);
            if (ev->kind != SMTP_OUT_RCPT)
                ev->phase = s->phase;
            if (ev->kind != SMTP_OUT_NEED_INPUT)
                return ev->kind;
            continue;
        }
        /* Half a reply that was not asked for must not pass as the answer to what is sent next. */
        if (!smtp_reply_is_partial(&s->parser) && !smtp_out_send_next(s, out))
            return ev->kind = SMTP_OUT_FLUSH;
        if (s->state == SMTP_OUT_S_LOST)
            continue;
        return ev->kind;
    }
}

void smtp_out_tls_started(struct smtp_out *s)
{
    s->tls = true;
    smtp_out_forget(s);
    smtp_out_set_state(s, SMTP_OUT_S_EHLO);
}

void smtp_out_begin(struct smtp_out *s, const struct smtp_out_tx *tx)
{
    if (s->state == SMTP_OUT_S_LOST || s->state == SMTP_OUT_S_CLOSED)
        return; /* the next step says so */
    assert(smtp_out_is_ready(s));
    assert(tx->rcpt_count > 0 || tx->command.len > 0);
    assert(tx->command.len < SMTP_OUT_COMMAND_MAX - 2);
    assert(!s->ahead || (s->ahead == tx && !s->rset_due));
    s->tx = tx;
    s->sent = s->ahead ? tx->rcpt_count + 2 : 0;
    s->answered = s->rcpt_accepted = 0;
    s->dot_sent = s->decided = false;
    s->body_state = 0;
    if (s->ahead) {
        s->ahead = NULL;
        smtp_out_set_state(s, SMTP_OUT_S_ENVELOPE);
        return;
    }
    if (smtp_out_tx_refused(s, tx, &s->result)) {
        s->result_phase = SMTP_OUT_AT_MAIL;
        s->tx_done = true;
        return;
    }
    smtp_out_set_state(s, s->rset_due ? SMTP_OUT_S_RSET : SMTP_OUT_S_ENVELOPE);
}

void smtp_out_quit(struct smtp_out *s, struct buf *out)
{
    if (s->state == SMTP_OUT_S_CLOSED)
        return;
    if (smtp_out_is_ready(s) && !s->ahead && !smtp_reply_is_partial(&s->parser) &&
        buf_room(out) >= 6) {
        buf_add_str(out, "QUIT\r\n");
        smtp_out_set_state(s, SMTP_OUT_S_QUIT);
    } else {
        smtp_out_set_state(s, SMTP_OUT_S_CLOSED);
    }
}

bool smtp_out_is_ready(const struct smtp_out *s)
{
    return s->state == SMTP_OUT_S_READY && !s->tx_done;
}
