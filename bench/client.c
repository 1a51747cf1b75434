/*
 * bench/client.c - one client session as a step function: each reply makes the next commands.
 *
 * Owns:     the commands not yet sent; the body is shared by all sessions.
 * Runs on:  the one thread of the load.
 * Contract: every message has an id of its own (X-Bench-Id: run-session-number), never used twice;
 *           ACKED exactly once for each message whose end of data got 2xx.
 * Failure:  a refused message is counted and the session goes on; a refused session is an ERROR.
 * Bounds:   run->messages_per_session, run->claimed_max.
 * Tests:    tests/unit/test_bench_client.c
 */
#include <string.h>

#include "bench/client_internal.h"

static const char *const state_names[BENCH_CLIENT_STATE_COUNT] = {
    "banner", "ehlo", "starttls", "tls",  "auth", "mail", "rcpt",
    "data",   "eod",  "rset",     "hold", "wait", "quit", "fault"};

const char *bench_client_state_name(enum bench_client_state state)
{
    return state_names[state];
}

void bench_client_begin(struct bench_client *c, struct bench_client_run *run, uint32_t session)
{
    struct bench_buf head = c->head, tail = c->tail;
    uint64_t message = c->message, claim = c->claim;
    bool ahead = c->claimed_ahead;
    bench_buf_clear(&head);
    bench_buf_clear(&tail);
    *c = (struct bench_client){.run = run,
                               .session = session,
                               .message = message,
                               .claim = claim,
                               .claimed_ahead = ahead,
                               .head = head,
                               .tail = tail};
}

void bench_client_free(struct bench_client *c)
{
    bench_buf_free(&c->head);
    bench_buf_free(&c->tail);
}

bool bench_client_has_output(const struct bench_client *c)
{
    return c->body_left > 0 || bench_buf_count(&c->head) > 0 || bench_buf_count(&c->tail) > 0;
}

void bench_client_sent(struct bench_client *c, size_t count)
{
    size_t part = bench_buf_count(&c->head) < count ? bench_buf_count(&c->head) : count;
    bench_buf_consume(&c->head, part);
    count -= part;
    part = c->body_left < count ? c->body_left : count;
    c->body += part;
    c->body_left -= part;
    bench_buf_consume(&c->tail, count - part);
}

size_t bench_client_take(struct bench_client *c, char *data, size_t size)
{
    const struct {
        const char *data;
        size_t count;
    } parts[] = {{bench_buf_head(&c->head), bench_buf_count(&c->head)},
                 {c->body, c->body_left},
                 {bench_buf_head(&c->tail), bench_buf_count(&c->tail)}};
    size_t at = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        size_t count = parts[i].count < size - at ? parts[i].count : size - at;
        if (count > 0)
            memcpy(data + at, parts[i].data, count);
        at += count;
    }
    bench_client_sent(c, at);
    return at;
}

bool bench_client_dot_follows(const struct bench_client *c)
{
    return c->body + c->body_left == c->run->body + c->run->body_count &&
           bench_buf_count(&c->tail) == 3;
}

bool bench_client_in_fault(const struct bench_client *c)
{
    return c->fault_begun && c->message_count == 1;
}

enum claim { CLAIM_TAKEN, CLAIM_NOT_DUE, CLAIM_END };

/* Takes one message off the run's account; END: the session should end. */
static enum claim claim(struct bench_client *c)
{
    struct bench_client_run *run = c->run;
    if (c->claimed_ahead) {
        c->claimed_ahead = false;
        c->message_count++;
        return CLAIM_TAKEN;
    }
    if (run->stop || run->claimed >= run->claimed_max)
        return CLAIM_END;
    if (c->fault == BENCH_FAULT_HALF_CLOSE && c->fault_begun) /* nothing can be sent any more */
        return CLAIM_END;
    if (run->messages_per_session > 0 && c->message_count >= run->messages_per_session)
        return CLAIM_END;
    if (run->open_loop && run->claimed >= run->due)
        return CLAIM_NOT_DUE;
    c->claim = run->claimed++;
    c->message_count++;
    return CLAIM_TAKEN;
}

bool bench_client_claim(struct bench_client *c, struct bench_client_run *run)
{
    if (run->stop || run->claimed >= run->claimed_max ||
        (run->open_loop && run->claimed >= run->due))
        return false;
    c->claim = run->claimed++;
    c->claimed_ahead = true;
    return true;
}

static void quit(struct bench_client *c)
{
    bench_buf_str(client_out(c), "QUIT\r\n");
    c->state = BENCH_CLIENT_QUIT;
}

void bench_client_quit(struct bench_client *c)
{
    quit(c);
}

/* Between two messages. */
static void next_message(struct bench_client *c)
{
    c->rcpts_answered = 0;
    c->rcpts_accepted = 0;
    c->envelope_refused = false;
    c->state = BENCH_CLIENT_MAIL;
    if (c->envelope_sent)
        return; /* deep pipelining: it is under way */
    switch (claim(c)) {
    case CLAIM_TAKEN: client_put_envelope(c); break;
    case CLAIM_NOT_DUE: c->state = BENCH_CLIENT_WAIT; break;
    case CLAIM_END: quit(c); break;
    }
}

bool bench_client_go(struct bench_client *c)
{
    next_message(c);
    return c->state != BENCH_CLIENT_WAIT;
}

static enum bench_client_event error(struct bench_client *c, const char *text)
{
    c->error = text;
    return BENCH_CLIENT_ERROR;
}

static enum bench_client_event session_up(struct bench_client *c)
{
    if (c->run->hold) {
        c->state = BENCH_CLIENT_HOLD;
        return BENCH_CLIENT_READY;
    }
    next_message(c);
    return BENCH_CLIENT_NONE;
}

static enum bench_client_event on_ehlo(struct bench_client *c, const struct bench_reply *r)
{
    if (c->run->starttls && !c->tls) {
        if (!bench_reply_has_keyword(r, "STARTTLS", NULL))
            return error(c, "STARTTLS not offered");
        bench_buf_str(client_out(c), "STARTTLS\r\n");
        c->state = BENCH_CLIENT_STARTTLS;
        return BENCH_CLIENT_NONE;
    }
    if (c->run->pipeline != BENCH_PIPELINE_OFF && !bench_reply_has_keyword(r, "PIPELINING", NULL))
        return error(c, "PIPELINING not offered");
    if (c->run->auth_user != NULL) {
        if (!bench_reply_has_keyword(r, "AUTH", "PLAIN"))
            return error(c, "AUTH PLAIN not offered");
        client_put_auth(c);
        return BENCH_CLIENT_NONE;
    }
    return session_up(c);
}

void bench_client_tls_up(struct bench_client *c, bool implicit)
{
    c->tls = true;
    if (implicit)
        c->state = BENCH_CLIENT_BANNER;
    else
        client_put_ehlo(c);
}

/* Header with this message's id, then the shared body and the dot. */
static void put_message(struct bench_client *c)
{
    struct bench_buf *to = &c->head;
    uint64_t number = c->message++;
    c->acked_message = number;
    client_put_header(to, c->run, c->session, number);
    c->body = c->run->body;
    c->body_left = client_body_count(c->run, bench_buf_count(to));
    bool whole = client_put_fault(c);
    if (whole)
        bench_buf_str(&c->tail, ".\r\n");
    c->dot_sent = whole;
    c->envelope_sent = false;
    c->state = BENCH_CLIENT_EOD;
    c->acked_claim = c->claim;
    if (c->fault == BENCH_FAULT_NONE && c->run->pipeline == BENCH_PIPELINE_DEEP &&
        claim(c) == CLAIM_TAKEN)
        client_put_envelope(c);
}

static enum bench_client_event refused(struct bench_client *c, bool reset)
{
    c->envelope_sent = false;
    if (reset) {
        bench_buf_str(client_out(c), "RSET\r\n");
        c->state = BENCH_CLIENT_RSET;
    } else {
        next_message(c);
    }
    return BENCH_CLIENT_REFUSED;
}

static enum bench_client_event on_mail(struct bench_client *c, bool good)
{
    if (c->fault == BENCH_FAULT_VANISH_MAIL && c->message_count == 1) {
        c->fault_begun = true;
        return BENCH_CLIENT_VANISH;
    }
    if (c->run->pipeline == BENCH_PIPELINE_OFF) {
        if (!good)
            return refused(c, true);
        client_put_rcpt(c);
    } else {
        c->envelope_refused = !good; /* its RCPT and DATA are answered all the same */
    }
    c->state = BENCH_CLIENT_RCPT;
    return BENCH_CLIENT_NONE;
}

static enum bench_client_event on_rcpt(struct bench_client *c, bool good)
{
    c->rcpts_answered++;
    c->rcpts_accepted += good;
    if (c->rcpts_answered < c->run->rcpt_count) {
        if (c->run->pipeline == BENCH_PIPELINE_OFF)
            client_put_rcpt(c);
        return BENCH_CLIENT_NONE;
    }
    if (c->run->pipeline == BENCH_PIPELINE_OFF) {
        if (c->rcpts_accepted == 0)
            return refused(c, true);
        bench_buf_str(client_out(c), "DATA\r\n");
    }
    c->state = BENCH_CLIENT_DATA;
    return BENCH_CLIENT_NONE;
}

static enum bench_client_event on_data(struct bench_client *c, int code)
{
    bool wanted = c->rcpts_accepted > 0 && !c->envelope_refused;
    if (code != 354)
        return refused(c, true);
    if (wanted) {
        put_message(c);
        return BENCH_CLIENT_NONE;
    }
    /* RFC 2920 section 3.1: 354 without a valid recipient is answered with an empty message */
    bench_buf_str(client_out(c), ".\r\n");
    c->body_sent_empty = true;
    c->envelope_sent = false;
    c->state = BENCH_CLIENT_EOD;
    return BENCH_CLIENT_NONE;
}

static enum bench_client_event on_eod(struct bench_client *c, bool good)
{
    bool empty = c->body_sent_empty;
    c->body_sent_empty = false;
    c->dot_sent = false;
    c->rcpts_acked = c->rcpts_accepted;
    next_message(c);
    return good && !empty ? BENCH_CLIENT_ACKED : BENCH_CLIENT_REFUSED;
}

enum bench_client_event bench_client_reply(struct bench_client *c, const struct bench_reply *r)
{
    bool good = r->code < 400;
    c->last_code = r->code;
    if (r->code == 421)
        return error(c, "421 from the server");
    switch (c->state) {
    case BENCH_CLIENT_BANNER:
        if (!good)
            return error(c, "refused at the banner");
        client_put_ehlo(c);
        return BENCH_CLIENT_NONE;
    case BENCH_CLIENT_EHLO: return good ? on_ehlo(c, r) : error(c, "EHLO refused");
    case BENCH_CLIENT_STARTTLS:
        c->state = BENCH_CLIENT_TLS;
        return good ? BENCH_CLIENT_WANT_TLS : error(c, "STARTTLS refused");
    case BENCH_CLIENT_AUTH: return good ? session_up(c) : error(c, "AUTH refused");
    case BENCH_CLIENT_MAIL: return on_mail(c, good);
    case BENCH_CLIENT_RCPT: return on_rcpt(c, good);
    case BENCH_CLIENT_DATA: return on_data(c, r->code);
    case BENCH_CLIENT_EOD: return on_eod(c, good);
    case BENCH_CLIENT_RSET: next_message(c); return BENCH_CLIENT_NONE;
    case BENCH_CLIENT_QUIT: return BENCH_CLIENT_DONE;
    case BENCH_CLIENT_FAULT:
        c->state = BENCH_CLIENT_MAIL;
        client_put_envelope(c);
        return BENCH_CLIENT_FAULTED;
    case BENCH_CLIENT_TLS:
    case BENCH_CLIENT_HOLD:
    case BENCH_CLIENT_WAIT:
    case BENCH_CLIENT_STATE_COUNT: break;
    }
    return error(c, "reply that nothing asked for");
}
