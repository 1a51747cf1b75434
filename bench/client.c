/*
 * bench/client.c - one client session as a step function: each reply makes the next commands.
 *
 * Owns:     the commands not yet sent; the body is shared by all sessions.
 * Runs on:  the one thread of the load.
 * Contract: every message has an id of its own (X-Bench-Id: run-session-number), never used twice;
 *           ACKED exactly once for each message whose end of data got 2xx.
 * Failure:  a refused message is counted and the session goes on; a refused session is an ERROR.
 * Bounds:   run->rcpt_count, run->messages_per_session, run->claimed_max.
 * Tests:    tests/unit/test_bench_client.c
 */
#include "bench/client.h"

#include <inttypes.h>
#include <string.h>

#include "bench/base64.h"

#define BENCH_LINE_BYTES 78u /* of the body, with CRLF */

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

/* Where the next command goes: behind a body that still waits, if there is one. */
static struct bench_buf *out(struct bench_client *c)
{
    return c->body_left > 0 || bench_buf_count(&c->tail) > 0 ? &c->tail : &c->head;
}

/* The pattern with each % replaced by the number. */
static void put_pattern(struct bench_buf *into, const char *pattern, uint64_t number)
{
    const char *percent;
    while ((percent = strchr(pattern, '%')) != NULL) {
        bench_buf_add(into, pattern, (size_t)(percent - pattern));
        bench_buf_printf(into, "%" PRIu64, number);
        pattern = percent + 1;
    }
    bench_buf_str(into, pattern);
}

static void put_mail(struct bench_client *c)
{
    struct bench_buf *to = out(c);
    bench_buf_str(to, "MAIL FROM:<");
    put_pattern(to, c->run->from, c->session);
    bench_buf_str(to, ">\r\n");
    c->rcpts_sent = 0;
    c->envelope_sent = true;
}

static void put_rcpt(struct bench_client *c)
{
    struct bench_buf *to = out(c);
    bench_buf_str(to, "RCPT TO:<");
    put_pattern(to, c->run->to, c->run->rcpt_number++ % c->run->to_number_max);
    bench_buf_str(to, ">\r\n");
    c->rcpts_sent++;
}

/* A line of count bytes with its CRLF, that begins with text. */
static void put_long(struct bench_buf *to, const char *text, size_t count)
{
    static const char fill[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    size_t at = strlen(text) + 2;
    bench_buf_str(to, text);
    while (at < count) {
        size_t part = count - at < sizeof(fill) - 1 ? count - at : sizeof(fill) - 1;
        bench_buf_add(to, fill, part);
        at += part;
    }
    bench_buf_str(to, "\r\n");
}

/* True: a command goes before the envelope, and its reply is waited for. */
static bool put_bad_command(struct bench_client *c)
{
    if (c->fault_begun)
        return false;
    if (c->fault == BENCH_FAULT_LONG_COMMAND)
        put_long(out(c), "NOOP ", BENCH_FAULT_COMMAND_BYTES);
    else if (c->fault == BENCH_FAULT_BAD_COMMAND)
        bench_buf_str(out(c), "FETCH 1 (FLAGS)\r\n");
    else
        return false;
    c->fault_begun = true;
    c->state = BENCH_CLIENT_FAULT;
    return true;
}

bool bench_client_in_fault(const struct bench_client *c)
{
    return c->fault_begun && c->message_count == 1;
}

static void put_envelope(struct bench_client *c)
{
    if (put_bad_command(c))
        return;
    put_mail(c);
    if (c->run->pipeline == BENCH_PIPELINE_OFF)
        return;
    while (c->rcpts_sent < c->run->rcpt_count)
        put_rcpt(c);
    bench_buf_str(out(c), "DATA\r\n");
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
    bench_buf_str(out(c), "QUIT\r\n");
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
    case CLAIM_TAKEN: put_envelope(c); break;
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

static void put_auth(struct bench_client *c)
{
    struct bench_buf plain = {0};
    bench_buf_add(&plain, "", 1);
    bench_buf_str(&plain, c->run->auth_user);
    bench_buf_add(&plain, "", 1);
    bench_buf_str(&plain, c->run->auth_password);
    bench_buf_str(out(c), "AUTH PLAIN ");
    bench_base64_encode(out(c), bench_buf_head(&plain), bench_buf_count(&plain));
    bench_buf_str(out(c), "\r\n");
    bench_buf_free(&plain);
    c->state = BENCH_CLIENT_AUTH;
}

static void put_ehlo(struct bench_client *c)
{
    bench_buf_printf(out(c), "EHLO %s\r\n", c->run->helo);
    c->state = BENCH_CLIENT_EHLO;
}

static enum bench_client_event on_ehlo(struct bench_client *c, const struct bench_reply *r)
{
    if (c->run->starttls && !c->tls) {
        if (!bench_reply_has_keyword(r, "STARTTLS", NULL))
            return error(c, "STARTTLS not offered");
        bench_buf_str(out(c), "STARTTLS\r\n");
        c->state = BENCH_CLIENT_STARTTLS;
        return BENCH_CLIENT_NONE;
    }
    if (c->run->pipeline != BENCH_PIPELINE_OFF && !bench_reply_has_keyword(r, "PIPELINING", NULL))
        return error(c, "PIPELINING not offered");
    if (c->run->auth_user != NULL) {
        if (!bench_reply_has_keyword(r, "AUTH", "PLAIN"))
            return error(c, "AUTH PLAIN not offered");
        put_auth(c);
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
        put_ehlo(c);
}

static const struct bench_size_mix mixes[] = {
    {"mail",
     {{2048, 12}, {6144, 26}, {16384, 24}, {40960, 18}, {98304, 12}, {327680, 6}, {2097152, 2}}},
    {"small", {{1024, 20}, {2048, 30}, {4096, 30}, {8192, 20}}},
};

const struct bench_size_mix *bench_size_mix_find(const char *name)
{
    for (size_t i = 0; i < sizeof(mixes) / sizeof(mixes[0]); i++)
        if (strcmp(mixes[i].name, name) == 0)
            return &mixes[i];
    return NULL;
}

uint64_t bench_size_mix_max(const struct bench_size_mix *mix)
{
    uint64_t most = 0;
    for (size_t i = 0; i < sizeof(mix->parts) / sizeof(mix->parts[0]); i++)
        if (mix->parts[i].bytes > most)
            most = mix->parts[i].bytes;
    return most;
}

/* How much of the shared body this message takes: all, or as many whole lines as the mix says. */
static size_t body_count(struct bench_client_run *run, size_t header)
{
    if (run->mix == NULL || run->body_count < BENCH_LINE_BYTES)
        return run->body_count;
    run->mix_random = run->mix_random * 1664525u + 1013904223u;
    uint32_t chance = (run->mix_random >> 16) % 100;
    size_t i = 0;
    while (chance >= run->mix->parts[i].percent)
        chance -= run->mix->parts[i++].percent;
    size_t bytes = run->mix->parts[i].bytes;
    bytes = bytes > header + BENCH_LINE_BYTES ? bytes - header : BENCH_LINE_BYTES;
    bytes -= bytes % BENCH_LINE_BYTES;
    return bytes < run->body_count ? bytes : run->body_count - run->body_count % BENCH_LINE_BYTES;
}

/* What goes wrong in a first message, behind its header. False: the message has no end. */
static bool put_fault(struct bench_client *c)
{
    if (c->message_count != 1)
        return true;
    switch (c->fault) {
    case BENCH_FAULT_VANISH_DATA: c->body_left /= 2; break;
    case BENCH_FAULT_LONG_LINE: put_long(&c->head, "long: ", BENCH_FAULT_LINE_BYTES); break;
    case BENCH_FAULT_BARE_LF: bench_buf_str(&c->head, "ends without CR\nand goes on\r\n"); break;
    case BENCH_FAULT_VANISH_DOT:
    case BENCH_FAULT_HALF_CLOSE:
    case BENCH_FAULT_SLOW: break;
    case BENCH_FAULT_NONE:
    case BENCH_FAULT_VANISH_MAIL:
    case BENCH_FAULT_LONG_COMMAND:
    case BENCH_FAULT_BAD_COMMAND:
    case BENCH_FAULT_COUNT: return true;
    }
    c->fault_begun = true;
    c->vanish_when_sent = c->fault == BENCH_FAULT_VANISH_DATA || c->fault == BENCH_FAULT_VANISH_DOT;
    c->shut_when_sent = c->fault == BENCH_FAULT_HALF_CLOSE;
    return c->fault != BENCH_FAULT_VANISH_DATA;
}

/* Header with this message's id, then the shared body and the dot. */
static void put_message(struct bench_client *c)
{
    struct bench_buf *to = &c->head;
    uint64_t number = c->message++;
    c->acked_message = number;
    bench_buf_str(to, "From: <");
    put_pattern(to, c->run->from, c->session);
    bench_buf_printf(to,
                     ">\r\nX-Bench-Id: %s-%" PRIu32 "-%" PRIu64 "\r\nMessage-ID: <%s.%" PRIu32
                     ".%" PRIu64 "@bench.test>\r\nSubject: load\r\n\r\n",
                     c->run->run_id, c->session, number, c->run->run_id, c->session, number);
    c->body = c->run->body;
    c->body_left = body_count(c->run, bench_buf_count(to));
    bool whole = put_fault(c);
    if (whole)
        bench_buf_str(&c->tail, ".\r\n");
    c->dot_sent = whole;
    c->envelope_sent = false;
    c->state = BENCH_CLIENT_EOD;
    c->acked_claim = c->claim;
    if (c->fault == BENCH_FAULT_NONE && c->run->pipeline == BENCH_PIPELINE_DEEP &&
        claim(c) == CLAIM_TAKEN)
        put_envelope(c);
}

static enum bench_client_event refused(struct bench_client *c, bool reset)
{
    c->envelope_sent = false;
    if (reset) {
        bench_buf_str(out(c), "RSET\r\n");
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
        put_rcpt(c);
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
            put_rcpt(c);
        return BENCH_CLIENT_NONE;
    }
    if (c->run->pipeline == BENCH_PIPELINE_OFF) {
        if (c->rcpts_accepted == 0)
            return refused(c, true);
        bench_buf_str(out(c), "DATA\r\n");
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
    bench_buf_str(out(c), ".\r\n");
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
        put_ehlo(c);
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
        put_envelope(c);
        return BENCH_CLIENT_FAULTED;
    case BENCH_CLIENT_TLS:
    case BENCH_CLIENT_HOLD:
    case BENCH_CLIENT_WAIT:
    case BENCH_CLIENT_STATE_COUNT: break;
    }
    return error(c, "reply that nothing asked for");
}

void bench_client_make_body(struct bench_client_run *run, struct bench_buf *into)
{
    static const char alphabet[] =
        "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 ";
    struct bench_client sample = {.run = run};
    struct bench_client_run plain = *run;
    plain.pipeline = BENCH_PIPELINE_OFF;
    plain.mix = NULL;
    sample.run = &plain;
    put_message(&sample);
    uint64_t header = bench_buf_count(&sample.head), left = 2;
    bench_client_free(&sample);
    if (run->message_size > header + left)
        left = run->message_size - header;
    uint32_t random = 1;
    while (left > 0) {
        uint64_t text = left - 2;
        if (left > BENCH_LINE_BYTES)
            text = left >= BENCH_LINE_BYTES + 2 ? BENCH_LINE_BYTES - 2 : left - 4;
        for (uint64_t i = 0; i < text; i++) {
            random = random * 1664525u + 1013904223u;
            char c = alphabet[(random >> 16) % (sizeof(alphabet) - 1)];
            bench_buf_add(into, &c, 1);
        }
        bench_buf_str(into, "\r\n");
        left -= text + 2;
    }
    bench_buf_str(into, ".\r\n");
    run->body = bench_buf_head(into);
    run->body_count = bench_buf_count(into) - 3;
}
