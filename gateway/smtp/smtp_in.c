/*
 * gateway/smtp/smtp_in.c - the server side of SMTP: states, steps, answers, replies.
 *
 * Owns:     three machines in one struct: connection, command slot, transaction.
 * Runs on:  the session's shard.
 * Contract: one command is open at a time and every command has one reply, in order. No byte that
 *           a client sent is ever part of a reply. What is behind STARTTLS in the input is not
 *           looked at.
 * Failure:  replies; too many faults: 421 4.7.0 and CLOSE. A step while an answer is due asserts.
 * Bounds:   SMTP_BAD_COMMANDS_MAX, SMTP_NOOP_MAX, SMTP_RCPT_REJECTED_MAX, SMTP_AUTH_FAILED_MAX.
 * Tests:    tests/unit/test_smtp_in.c, tests/fuzz/fuzz_smtp_in.c
 */
#include <assert.h>

#include "gateway/smtp/smtp_in_internal.h"

/* What a step needs at most: the EHLO reply. */
#define REPLY_ROOM 1024u

#define EDGE(state) (1u << (state))

/* ---- the three machines ---- */

static const uint8_t connection_edges[] = {
    [CONNECTION_NEW] = EDGE(CONNECTION_OPEN) | EDGE(CONNECTION_CLOSING),
    [CONNECTION_OPEN] = EDGE(CONNECTION_STARTTLS) | EDGE(CONNECTION_CLOSING),
    [CONNECTION_STARTTLS] = EDGE(CONNECTION_OPEN) | EDGE(CONNECTION_CLOSING),
    [CONNECTION_CLOSING] = EDGE(CONNECTION_CLOSING),
};

static const uint8_t slot_edges[] = {
    [SLOT_FREE] = EDGE(SLOT_FREE) | EDGE(SLOT_SASL) | EDGE(SLOT_AUTH) | EDGE(SLOT_MAIL) |
                  EDGE(SLOT_RCPT) | EDGE(SLOT_DATA) | EDGE(SLOT_END) | EDGE(SLOT_HANDOFF),
    [SLOT_SASL] = EDGE(SLOT_SASL) | EDGE(SLOT_AUTH) | EDGE(SLOT_FREE),
    [SLOT_AUTH] = EDGE(SLOT_FREE),
    [SLOT_MAIL] = EDGE(SLOT_FREE),
    [SLOT_RCPT] = EDGE(SLOT_FREE),
    [SLOT_DATA] = EDGE(SLOT_FREE),
    [SLOT_END] = EDGE(SLOT_FREE),
    [SLOT_HANDOFF] = EDGE(SLOT_FREE),
};

static const uint8_t transaction_edges[] = {
    [TRANSACTION_NONE] = EDGE(TRANSACTION_OPEN),
    [TRANSACTION_OPEN] = EDGE(TRANSACTION_DATA) | EDGE(TRANSACTION_NONE),
    [TRANSACTION_DATA] = EDGE(TRANSACTION_ENDED) | EDGE(TRANSACTION_NONE),
    [TRANSACTION_ENDED] = EDGE(TRANSACTION_NONE),
};

static void edge_take(uint8_t *state, const uint8_t *edges, unsigned to)
{
    assert(edges[*state] & EDGE(to));
    *state = (uint8_t)to;
}

void smtp_in_connection_set(struct smtp_in *s, enum connection_state to)
{
    edge_take(&s->connection, connection_edges, to);
}

void smtp_in_slot_set(struct smtp_in *s, enum slot_state to)
{
    edge_take(&s->slot, slot_edges, to);
}

void smtp_in_transaction_set(struct smtp_in *s, enum transaction_state to)
{
    edge_take(&s->transaction, transaction_edges, to);
    s->in_transaction = to != TRANSACTION_NONE;
}

void smtp_in_transaction_drop(struct smtp_in *s)
{
    if (s->transaction != TRANSACTION_NONE)
        smtp_in_transaction_set(s, TRANSACTION_NONE);
    s->smtputf8 = s->handing = false;
    s->rcpt_count = s->rcpt_seen = 0;
    s->data_bytes = 0;
}

static bool answer_due(const struct smtp_in *s)
{
    return s->slot != SLOT_FREE && s->slot != SLOT_SASL;
}

/* ---- replies ---- */

/* Words of a reply: printable ones only, whatever they were made of. */
static void put_words(struct buf *out, const char *words, size_t len)
{
    uint8_t *to = out->ptr + out->len;
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(words[i] < ' ' || words[i] > '~' ? '?' : words[i]);
    out->len += (uint32_t)len;
}

void smtp_in_reply(struct buf *out, unsigned code, const char *enhanced, const char *text)
{
    /* "550 " + "5.7.60 " + text + CRLF within SMTP_REPLY_LINE_MAX */
    size_t status = strlen(enhanced), said = strnlen(text, SMTP_REPLY_LINE_MAX - 32);
    if (buf_room(out) < 4 + status + 1 + said + 2) {
        out->overflow = true;
        return;
    }
    buf_add_number(out, code, 3);
    buf_add_byte(out, ' ');
    if (status) {
        put_words(out, enhanced, status);
        buf_add_byte(out, ' ');
    }
    put_words(out, text, said);
    buf_add_str(out, "\r\n");
}

void smtp_in_reply_close(struct smtp_in *s, struct buf *out, unsigned code, const char *enhanced,
                         const char *text)
{
    smtp_in_reply(out, code, enhanced, text);
    smtp_in_connection_set(s, CONNECTION_CLOSING);
}

static void reply_counted(struct smtp_in *s, struct buf *out, uint32_t *count, uint32_t max,
                          const struct why *why)
{
    if (why->smtp_code == 421 || ++*count > max)
        smtp_in_reply_close(s, out, 421, why->smtp_code == 421 ? why->enhanced : "4.7.0",
                            why->smtp_code == 421 ? why->text : "Too many errors");
    else
        smtp_in_reply(out, why->smtp_code, why->enhanced, why->text);
}

void smtp_in_reply_bad(struct smtp_in *s, struct buf *out, unsigned code, const char *enhanced,
                       const char *text)
{
    struct why why;
    why_set(&why, (uint16_t)code, enhanced, "%s", text);
    reply_counted(s, out, &s->bad_commands, SMTP_BAD_COMMANDS_MAX, &why);
}

void smtp_in_reply_idle(struct smtp_in *s, struct buf *out, unsigned code, const char *enhanced,
                        const char *text)
{
    if (++s->idle_commands > SMTP_NOOP_MAX)
        smtp_in_reply_close(s, out, 421, "4.7.0", "Too many commands without a message");
    else
        smtp_in_reply(out, code, enhanced, text);
}

void smtp_in_reply_rcpt(struct smtp_in *s, struct buf *out, const struct why *why)
{
    uint32_t temporary = 0; /* only lasting refusals speak of harvesting */
    reply_counted(s, out, why->smtp_code >= 500 ? &s->rcpt_rejected : &temporary,
                  SMTP_RCPT_REJECTED_MAX, why);
}

/* ---- life ---- */

void smtp_in_init(struct smtp_in *s, const struct smtp_in_config *config, bool tls)
{
    *s = (struct smtp_in){.config = config, .tls = tls};
}

void smtp_in_greet(struct smtp_in *s, struct buf *out, const struct why *why)
{
    if (why && why->smtp_code) {
        smtp_in_reply_close(s, out, why->smtp_code, why->enhanced, why->text);
        return;
    }
    smtp_in_connection_set(s, CONNECTION_OPEN);
    buf_add_str(out, "220 ");
    buf_add_slice(out, s->config->fqdn);
    buf_add_str(out, " ESMTP\r\n");
}

bool smtp_in_wants_line(const struct smtp_in *s)
{
    return s->line_wanted;
}

void smtp_in_lend_line(struct smtp_in *s, uint8_t *line)
{
    assert(!s->line && line);
    s->line = line;
    s->line_wanted = false;
}

uint8_t *smtp_in_take_line(struct smtp_in *s)
{
    uint8_t *line = s->line;
    if (!line || s->line_len || s->slot == SLOT_SASL || s->slot == SLOT_AUTH)
        return NULL;
    s->line = NULL;
    return line;
}

uint8_t *smtp_in_abandon(struct smtp_in *s)
{
    uint8_t *line = s->line;
    if (line)
        explicit_bzero(line, SMTP_AUTH_LINE_MAX);
    s->line = NULL;
    s->line_len = 0;
    return line;
}

void smtp_in_tls_started(struct smtp_in *s)
{
    smtp_in_connection_set(s, CONNECTION_OPEN);
    smtp_in_transaction_drop(s);
    s->tls = true;
    s->authenticated = s->esmtp = false;
    s->helo[0] = '\0';
}

void smtp_in_shutdown(struct smtp_in *s, struct buf *out, const struct why *why)
{
    if (s->connection == CONNECTION_CLOSING)
        return;
    /* A reply in place of an answer that is due would speak of the wrong thing. */
    if (!answer_due(s) && s->connection != CONNECTION_STARTTLS &&
        buf_room(out) > SMTP_REPLY_LINE_MAX)
        smtp_in_reply(out, 421, why->enhanced, why->text);
    if (s->slot == SLOT_SASL || s->slot == SLOT_AUTH)
        smtp_in_auth_end(s);
    smtp_in_slot_set(s, SLOT_FREE);
    smtp_in_connection_set(s, CONNECTION_CLOSING);
}

bool smtp_in_is_idle(const struct smtp_in *s)
{
    return s->connection == CONNECTION_OPEN && s->slot == SLOT_FREE &&
           s->transaction == TRANSACTION_NONE && s->line_len == 0 && !s->line_discarding &&
           s->chunk_left == 0;
}

bool smtp_in_is_closing(const struct smtp_in *s)
{
    return s->connection == CONNECTION_CLOSING;
}

bool smtp_in_in_data(const struct smtp_in *s)
{
    return s->transaction == TRANSACTION_DATA;
}

enum smtp_in_reading smtp_in_reading(const struct smtp_in *s)
{
    if (s->transaction == TRANSACTION_DATA || s->chunk_left)
        return SMTP_IN_READS_CONTENT;
    return s->slot == SLOT_SASL ? SMTP_IN_READS_SECRET : SMTP_IN_READS_LINE;
}

bool smtp_in_at_line(const struct smtp_in *s)
{
    return s->line_len == 0 && !s->line_discarding;
}

/* ---- steps ---- */

static void data_end(struct smtp_in *s, struct buf *out, struct smtp_in_event *ev)
{
    struct why why;
    smtp_in_transaction_set(s, TRANSACTION_ENDED);
    if (smtp_data_verdict(&s->data, &why)) {
        smtp_in_slot_set(s, SLOT_END);
        ev->kind = SMTP_IN_END;
        return;
    }
    smtp_in_reply_bad(s, out, why.smtp_code, why.enhanced, why.text);
    smtp_in_transaction_drop(s);
    ev->kind = SMTP_IN_DATA_BAD;
}

static void step_data(struct smtp_in *s, struct slice *in, struct buf *out,
                      struct smtp_in_event *ev)
{
    enum smtp_data_kind kind = smtp_data_step(&s->data, in, &ev->body);
    s->data_bytes = s->data.bytes;
    switch (kind) {
    case SMTP_DATA_NEED_INPUT: ev->kind = SMTP_IN_NEED_INPUT; return;
    case SMTP_DATA_BODY: ev->kind = SMTP_IN_BODY; return;
    case SMTP_DATA_HEADERS_END:
        ev->kind = SMTP_IN_HEADERS_END;
        ev->headers = s->data.headers;
        return;
    case SMTP_DATA_END: data_end(s, out, ev); return;
    }
}

/* The first byte that a client sends: a TLS handshake record where SMTP is due (RFC 8446
 * section 5.1) has no line end to wait for. */
static bool is_tls_hello(const struct smtp_in *s, struct slice in)
{
    return s->commands == 0 && s->line_len == 0 && !s->line_discarding && in.len &&
           in.ptr[0] == 0x16;
}

static void chunk_skip(struct smtp_in *s, struct slice *in)
{
    size_t n = s->chunk_left < in->len ? (size_t)s->chunk_left : in->len;
    s->chunk_left -= n;
    *in = slice_from(*in, n);
}

/* True when *ev is to be given to the owner. */
static bool step_line(struct smtp_in *s, struct slice *in, struct buf *out,
                      struct smtp_in_event *ev)
{
    struct slice line;
    if (s->chunk_left && in->len) {
        chunk_skip(s, in);
        if (s->lines)
            return false;
    }
    if (is_tls_hello(s, *in)) {
        smtp_in_reply_close(s, out, 421, "4.7.0", "This is an SMTP service");
        return false;
    }
    enum line_result result = smtp_in_line_next(s, in, &line);
    bool sasl = s->slot == SLOT_SASL;
    if (sasl && result != LINE_READY && result != LINE_NONE)
        smtp_in_auth_end(s);
    switch (result) {
    case LINE_NONE: ev->kind = SMTP_IN_NEED_INPUT; return true;
    case LINE_FLOOD: smtp_in_reply_close(s, out, 421, "4.7.0", "Line too long"); return false;
    case LINE_TOO_LONG:
        s->commands++;
        smtp_in_reply_bad(s, out, 500, s->discarded >= SMTP_AUTH_LINE_MAX ? "5.5.6" : "5.5.2",
                          "Line too long");
        return false;
    case LINE_NOT_CRLF:
        s->commands++;
        smtp_in_reply_bad(s, out, 500, "5.5.2", "Bare CR, bare LF or NUL: only CRLF ends a line");
        return false;
    case LINE_READY: break;
    }
    if (sasl)
        return smtp_in_auth_response(s, line, out, ev);
    s->commands++;
    return smtp_in_command(s, line, out, ev);
}

enum smtp_in_event_kind smtp_in_step(struct smtp_in *s, struct slice *in, struct buf *out,
                                     struct smtp_in_event *ev)
{
    assert(!answer_due(s));
    for (;;) {
        if (buf_room(out) < REPLY_ROOM) {
            ev->kind = SMTP_IN_FLUSH;
            return ev->kind;
        }
        switch (s->connection) {
        case CONNECTION_CLOSING: ev->kind = SMTP_IN_CLOSE; return ev->kind;
        case CONNECTION_OPEN: break;
        default: assert(!"a step before the greeting or in a handshake");
        }
        if (s->transaction == TRANSACTION_DATA) {
            step_data(s, in, out, ev);
        } else if (!step_line(s, in, out, ev)) {
            if (!s->lines)
                continue;
            ev->kind = SMTP_IN_LINE;
        }
        return ev->kind;
    }
}

/* ---- answers ---- */

static void answer_auth(struct smtp_in *s, struct buf *out, const struct why *why)
{
    smtp_in_auth_end(s);
    if (!why) {
        s->authenticated = true;
        smtp_in_reply(out, 235, "2.7.0", "Authentication successful");
    } else if (why->smtp_code == 421) {
        smtp_in_reply_close(s, out, 421, why->enhanced, why->text);
    } else if (why->smtp_code < 500) {
        smtp_in_reply_idle(s, out, why->smtp_code, why->enhanced, why->text);
    } else {
        smtp_in_reply(out, why->smtp_code, why->enhanced, why->text);
        if (++s->auth_failed >= SMTP_AUTH_FAILED_MAX)
            smtp_in_reply_close(s, out, 421, "4.7.0", "Too many failed authentications");
    }
}

static void answer_end(struct smtp_in *s, struct buf *out, const struct why *why,
                       const char *detail)
{
    smtp_in_transaction_drop(s);
    if (!why) {
        smtp_in_reply(out, 250, "2.0.0", detail ? detail : "Ok");
        s->messages++;
        s->bad_commands = s->idle_commands = 0;
    } else if (why->smtp_code == 421) {
        smtp_in_reply_close(s, out, 421, why->enhanced, why->text);
    } else {
        smtp_in_reply(out, why->smtp_code, why->enhanced, why->text);
    }
}

/* MAIL, DATA: a refusal brings no message nearer. */
static void answer_refused(struct smtp_in *s, struct buf *out, const struct why *why)
{
    if (why->smtp_code == 421)
        smtp_in_reply_close(s, out, 421, why->enhanced, why->text);
    else
        smtp_in_reply_idle(s, out, why->smtp_code, why->enhanced, why->text);
}

void smtp_in_answer(struct smtp_in *s, struct buf *out, const struct why *why, const char *detail)
{
    assert(answer_due(s));
    enum slot_state slot = (enum slot_state)s->slot;
    if (why && why->smtp_code == 0)
        why = NULL;
    if (slot == SLOT_AUTH) {
        answer_auth(s, out, why);
        return;
    }
    smtp_in_slot_set(s, SLOT_FREE);
    if (slot == SLOT_HANDOFF) {
        smtp_in_reply(out, why ? why->smtp_code : 250, why ? why->enhanced : "2.0.0",
                      why      ? why->text
                      : detail ? detail
                               : "Ok");
    } else if (slot == SLOT_END) {
        answer_end(s, out, why, detail);
    } else if (slot == SLOT_RCPT) {
        if (why) {
            smtp_in_reply_rcpt(s, out, why);
            return;
        }
        s->rcpt_count++;
        smtp_in_reply(out, 250, "2.1.5", "Recipient ok");
    } else if (why) {
        if (slot == SLOT_MAIL || s->handing)
            smtp_in_transaction_drop(s);
        answer_refused(s, out, why);
    } else if (slot == SLOT_MAIL) {
        smtp_in_transaction_set(s, TRANSACTION_OPEN);
        smtp_in_reply(out, 250, "2.1.0", "Sender ok");
    } else {
        smtp_in_transaction_set(s, TRANSACTION_DATA);
        smtp_data_start(&s->data, s->handing ? 0 : s->config->message_size_max);
        s->data_bytes = 0;
        smtp_in_reply(out, 354, "", "Start mail input; end with <CRLF>.<CRLF>");
    }
}
