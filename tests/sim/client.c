/*
 * tests/sim/client.c - scripted clients: sessions that send mail in every manner the seed draws,
 * and hold every reply against the command it answers.
 *
 * Owns:     its sessions.
 * Runs on:  the one thread of a simulation.
 * Contract: replies come in the order of the commands, one for each, with a code that fits; a
 *           message counts as acknowledged only when its 250 was read.
 * Failure:  world_fail with the command and the reply.
 * Bounds:   the seed's.
 * Tests:    tests/sim/plants.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "gateway/smtp/smtp.h"
#include "tests/sim/world.h"

#define PATIENCE_NS  (200 * NS_PER_S)
#define EXPECTED_MAX 256u
#define COMMANDS_MAX 128u
#define COMMAND_MAX  160u
#define GATEWAY      "10.0.0.1"

enum command {
    C_GREETING,
    C_EHLO,
    C_AUTH,
    C_MAIL,
    C_RCPT,
    C_DATA,
    C_END,
    C_RSET,
    C_NOOP,
    C_VRFY,
    C_BAD,
    C_QUIT
};

static const struct {
    const char *name;
    const char *ok;    /* how a positive reply begins */
    const char *codes; /* others that fit */
} commands[] = {
    [C_GREETING] = {"(greeting)", "220 ", "554"},
    [C_EHLO] = {"EHLO", "250", "451"},
    [C_AUTH] = {"AUTH", "235 2.7.0 ", "454"},
    [C_MAIL] = {"MAIL", "250 2.1.0 ", "451 452 501 503 552 553 550"},
    [C_RCPT] = {"RCPT", "250 2.1.5 ", "450 451 452 501 503 550"},
    [C_DATA] = {"DATA", "354 ", "451 452 503 554"},
    [C_END] = {"(end of data)", "250 2.0.0 ", "451 452 550 552 554"},
    [C_RSET] = {"RSET", "250 2.0.0 ", ""},
    [C_NOOP] = {"NOOP", "250 2.0.0 ", ""},
    [C_VRFY] = {"VRFY", "252 ", ""},
    [C_BAD] = {"(nonsense)", "", "500 501 502"},
    [C_QUIT] = {"QUIT", "221 ", ""},
};

struct client {
    struct peer peer;
    struct list link;
    struct world *w;
    uint32_t messages, sent; /* to be sent, begun */
    bool pipelining, esmtp, greeted, gone, quit_sent;
    bool open; /* a transaction that came to nothing is open on the other side */
    struct msg *m;
    uint32_t taken;     /* recipients answered 250 */
    uint8_t *text;      /* of m */
    uint32_t size_hint; /* 0: no SIZE */
    /* commands not sent yet */
    struct {
        enum command kind;
        uint32_t rcpt;
        char text[COMMAND_MAX];
    } todo[COMMANDS_MAX];
    uint32_t todo_count, todo_at;
    /* replies that are due */
    struct {
        enum command kind;
        uint32_t rcpt;
        struct msg *m;
    } expected[EXPECTED_MAX];
    uint32_t expected_count;
};

static struct client *client_of(struct peer *p)
{
    return container_of(p, struct client, peer);
}

static bool chance(struct client *c, uint32_t per_mille)
{
    return prng_below(&c->w->clients, 1000) < per_mille;
}

/* ---- the end of a session ---- */

static void client_freed(struct peer *p)
{
    struct client *c = client_of(p);
    list_remove(&c->link);
    c->w->clients_open--;
    free(c->text);
    free(c);
}

/* What becomes of a message whose answer will not come any more. */
static void client_forget(struct client *c)
{
    if (c->m && c->m->fate == MSG_SENDING && c->m->end_sent)
        c->m->fate = MSG_UNKNOWN;
    c->w->stats.unknown += c->m && c->m->fate == MSG_UNKNOWN;
    c->m = NULL;
}

static void client_leave(struct client *c)
{
    if (c->gone)
        return;
    c->gone = true;
    client_forget(c);
    peer_drop(&c->peer);
}

static void client_end(struct peer *p, int32_t res)
{
    struct client *c = client_of(p);
    TRACE(c->w, "client %u: connection ends (%d)", c->m ? c->m->id : 0, res);
    client_leave(c);
}

static void client_timer(struct timer *t)
{
    struct client *c = client_of(container_of(t, struct peer, timer));
    TRACE(c->w, "client: out of patience");
    client_leave(c);
}

/* ---- commands ---- */

static void expect(struct client *c, enum command kind, uint32_t rcpt)
{
    assert(c->expected_count < EXPECTED_MAX);
    c->expected[c->expected_count].kind = kind;
    c->expected[c->expected_count].rcpt = rcpt;
    c->expected[c->expected_count++].m = c->m;
}

__attribute__((format(printf, 4, 5))) static void todo(struct client *c, enum command kind,
                                                       uint32_t rcpt, const char *fmt, ...)
{
    va_list ap;
    assert(c->todo_count < COMMANDS_MAX);
    va_start(ap, fmt);
    vsnprintf(c->todo[c->todo_count].text, COMMAND_MAX, fmt, ap);
    va_end(ap);
    c->todo[c->todo_count].kind = kind;
    c->todo[c->todo_count++].rcpt = rcpt;
}

static void extras(struct client *c)
{
    while (chance(c, c->w->swarm.client.extra) && c->todo_count < COMMANDS_MAX - 60) {
        switch (prng_below(&c->w->clients, 3)) {
        case 0: todo(c, C_NOOP, 0, "NOOP"); break;
        case 1: todo(c, C_VRFY, 0, "VRFY somebody"); break;
        case 2: todo(c, C_BAD, 0, "XYZZY plugh"); break;
        }
    }
}

static uint32_t draw_size(struct client *c)
{
    struct prng *p = &c->w->clients;
    const struct swarm *s = &c->w->swarm;
    if (chance(c, s->client.oversize))
        return (uint32_t)s->message_size_max + 1 + (uint32_t)prng_below(p, 5000);
    if (s->bulk && s->message_size_max > 31000)
        return 4000 + (uint32_t)prng_below(p, 25000);
    switch (prng_below(p, 4 + s->client.size_class)) {
    case 0: return 1 + (uint32_t)prng_below(p, 4);
    case 1:
    case 2:
    case 3: return (uint32_t)prng_below(p, 2000);
    case 4: return (uint32_t)prng_below(p, 20000);
    case 5: return 30000 + (uint32_t)prng_below(p, 6000); /* about one extent */
    default: return (uint32_t)prng_below(p, s->message_size_max - 300);
    }
}

static void draw_rcpt(struct client *c, struct rcpt *r)
{
    static const uint8_t notify[] = {SMTP_NOTIFY_NEVER, SMTP_NOTIFY_FAILURE, SMTP_NOTIFY_DELAY,
                                     SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY,
                                     SMTP_NOTIFY_SUCCESS | SMTP_NOTIFY_FAILURE};
    struct prng *p = &c->w->clients;
    r->domain = (uint8_t)prng_below(p, WORLD_DOMAINS);
    if (chance(c, c->w->swarm.client.doomed))
        r->kind = prng_below(p, 2) ? RK_GONE : RK_SPAM;
    if (chance(c, c->w->swarm.client.notify))
        r->notify = notify[prng_below(p, sizeof notify)];
}

static const char *notify_text(uint8_t n)
{
    switch (n) {
    case 0: return "";
    case SMTP_NOTIFY_NEVER: return " NOTIFY=NEVER";
    case SMTP_NOTIFY_FAILURE: return " NOTIFY=FAILURE";
    case SMTP_NOTIFY_DELAY: return " NOTIFY=DELAY";
    case SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY: return " NOTIFY=FAILURE,DELAY";
    default: return " NOTIFY=SUCCESS,FAILURE";
    }
}

/* MAIL, RCPTs and DATA of the next message. */
static void message_begin(struct client *c)
{
    struct world *w = c->w;
    const struct swarm *s = &w->swarm;
    uint32_t rcpts = 1 + (uint32_t)prng_below(&w->clients, s->client.rcpts_max);
    char from[64] = "", size[32] = "", to[64];
    if (chance(c, s->client.too_many))
        rcpts = s->max_recipients + 1 + (uint32_t)prng_below(&w->clients, 3);
    c->m = ledger_msg_new(w, rcpts);
    c->m->null_sender = chance(c, s->client.null_sender);
    c->m->eight_bit = chance(c, 50);
    if (!c->m->null_sender)
        snprintf(from, sizeof from, "s%u@" WORLD_SENDER_HOST, c->m->id);
    free(c->text);
    c->text = ledger_text(w, c->m, draw_size(c), chance(c, s->client.smuggle));
    c->taken = 0;
    c->sent++;
    if (chance(c, s->client.size_param))
        snprintf(size, sizeof size, " SIZE=%u", c->m->size);
    if (c->open)
        todo(c, C_RSET, 1, "RSET");
    c->open = false;
    todo(c, C_MAIL, 0, "MAIL FROM:<%s>%s", from, size);
    for (uint32_t i = 0; i < rcpts; i++) {
        draw_rcpt(c, &c->m->rcpts[i]);
        ledger_address(c->m, i, to);
        todo(c, C_RCPT, i, "RCPT TO:<%s>%s", to, notify_text(c->m->rcpts[i].notify));
        if (i == 0)
            extras(c);
    }
    if (chance(c, s->client.rset))
        todo(c, C_RSET, 0, "RSET");
    else
        todo(c, C_DATA, 0, "DATA");
}

static void text_send(struct client *c)
{
    const uint8_t *t = c->text;
    uint32_t n = c->m->size, from = 0;
    bool line_start = true;
    for (uint32_t i = 0; i < n; i++) {
        if (line_start && t[i] == '.') {
            peer_send(&c->peer, t + from, i - from);
            peer_send(&c->peer, ".", 1);
            from = i;
        }
        line_start = i > 0 && t[i] == '\n' && t[i - 1] == '\r';
    }
    peer_send(&c->peer, t + from, n - from);
    c->peer.mark_at = c->peer.sent + c->peer.out_len + 3;
    c->peer.mark = &c->m->end_sent;
    peer_send(&c->peer, ".\r\n", 3);
    expect(c, C_END, 0);
}

static void client_go(struct client *c)
{
    if (c->gone || !c->greeted)
        return;
    if (c->todo_at == c->todo_count && c->expected_count == 0) {
        c->todo_at = c->todo_count = 0;
        if (c->sent < c->messages) {
            extras(c);
            message_begin(c);
        } else if (!c->quit_sent) {
            c->quit_sent = true;
            if (chance(c, c->w->swarm.client.no_quit)) {
                client_leave(c);
                return;
            }
            todo(c, C_QUIT, 0, "QUIT");
        }
    }
    while (c->todo_at < c->todo_count && (c->pipelining || c->expected_count == 0)) {
        uint32_t i = c->todo_at++;
        expect(c, c->todo[i].kind, c->todo[i].rcpt);
        TRACE(c->w, "client: %s", c->todo[i].text);
        peer_sendf(&c->peer, "%s\r\n", c->todo[i].text);
    }
}

/* ---- replies ---- */

static void client_wrong(struct client *c, enum command kind, struct slice line)
{
    world_fail(c->w, "client: %s was answered \"%.*s\"", commands[kind].name, (int)line.len,
               (const char *)line.ptr);
}

static void message_over(struct client *c, struct msg *m)
{
    if (c->m == m)
        c->m = NULL;
}

static void end_answered(struct client *c, struct msg *m, bool ok, unsigned code, struct slice line)
{
    struct world *w = c->w;
    uint64_t qid = 0;
    if (ok) {
        m->fate = MSG_ACKED;
        m->acked_ns = sim_now_ns(w->sim);
        w->stats.acked++;
        if (!qid_parse(slice_from(line, 10), &qid))
            world_fail(w, "message %u: 250 without a queue id", m->id);
        else if (m->qid && m->qid != qid)
            world_fail(w, "message %u: acknowledged under another's queue id", m->id);
        m->qid = qid;
        w->stats.rcpts += c->taken;
        TRACE(w, "message %u is acknowledged", m->id);
    } else {
        m->fate = code >= 500 ? MSG_REFUSED : MSG_TURNED_AWAY;
        w->stats.refused++;
        TRACE(w, "message %u is refused: %.*s", m->id, (int)line.len, (const char *)line.ptr);
    }
    m->epoch = w->gateway.epoch;
    message_over(c, m);
}

static void answered(struct client *c, enum command kind, uint32_t rcpt, struct msg *m, bool ok,
                     unsigned code, struct slice line)
{
    switch (kind) {
    case C_GREETING:
        if (!ok) {
            client_leave(c);
            return;
        }
        c->greeted = true;
        bool helo = chance(c, c->w->swarm.client.helo);
        c->pipelining &= !helo;
        c->esmtp = !helo;
        todo(c, C_EHLO, 0, helo ? "HELO client.test" : "EHLO client.test");
        break;
    case C_EHLO:
        if (c->esmtp && c->w->swarm.client.auth && chance(c, c->w->swarm.client.auth))
            todo(c, C_AUTH, 0, "AUTH PLAIN %s", "AHVzZXIAc2VjcmV0"); /* user, secret */
        break;
    case C_RCPT:
        m->rcpts[rcpt].offered = ok;
        c->taken += ok;
        break;
    case C_RSET:
        if (rcpt == 0)
            message_over(c, m);
        break;
    case C_DATA:
        if (ok)
            text_send(c);
        else
            message_over(c, m);
        c->open = !ok;
        break;
    case C_END: end_answered(c, m, ok, code, line); break;
    case C_QUIT: client_leave(c); break;
    default: break;
    }
}

static bool code_fits(enum command kind, unsigned code)
{
    char text[8];
    snprintf(text, sizeof text, "%u", code);
    return code == 421 || (code && strstr(commands[kind].codes, text));
}

/* The last line of a reply. */
static void reply(struct client *c, struct slice line)
{
    unsigned code = (unsigned)strtoul((const char *)line.ptr, NULL, 10);
    TRACE(c->w, "client: <- %.*s", (int)line.len, (const char *)line.ptr);
    if (code == 421) { /* whatever it answers, or nothing: the end */
        if (c->expected_count && c->expected[0].kind == C_END && c->expected[0].m)
            c->expected[0].m->fate = MSG_TURNED_AWAY, c->expected[0].m->epoch = c->w->gateway.epoch;
        client_leave(c);
        return;
    }
    if (!c->expected_count) {
        world_fail(c->w, "client: a reply to nothing: %.*s", (int)line.len, (const char *)line.ptr);
        return;
    }
    enum command kind = c->expected[0].kind;
    uint32_t rcpt = c->expected[0].rcpt;
    struct msg *m = c->expected[0].m;
    memmove(c->expected, c->expected + 1, --c->expected_count * sizeof c->expected[0]);
    const char *want = commands[kind].ok;
    bool ok = *want && line.len >= strlen(want) && memcmp(line.ptr, want, strlen(want)) == 0;
    if (!ok && !code_fits(kind, code)) {
        client_wrong(c, kind, line);
        return;
    }
    answered(c, kind, rcpt, m, ok, code, line);
}

static void client_input(struct peer *p)
{
    struct client *c = client_of(p);
    const uint8_t *nl;
    io_timer_set(p->machine->io, &p->timer, io_now_ns(p->machine->io) + PATIENCE_NS);
    while (!c->gone && p->in_len && (nl = memchr(p->in, '\n', p->in_len))) {
        uint32_t len = (uint32_t)(nl - p->in) + 1;
        char text[600];
        if (len < 6 || p->in[len - 2] != '\r' || len > sizeof text) {
            world_fail(c->w, "client: a reply line of %u bytes, or without CRLF", len);
            return;
        }
        memcpy(text, p->in, len - 2);
        text[len - 2] = '\0';
        peer_consume(p, len);
        if (text[3] == ' ')
            reply(c, slice_of(text, len - 2));
        else if (text[3] != '-')
            world_fail(c->w, "client: a reply line without code: %s", text);
    }
    client_go(c);
}

static void client_open(struct peer *p, int32_t res)
{
    struct client *c = client_of(p);
    if (res < 0) {
        client_leave(c);
        return;
    }
    expect(c, C_GREETING, 0);
    io_timer_set(p->machine->io, &p->timer, io_now_ns(p->machine->io) + PATIENCE_NS);
}

/* ---- life ---- */

void client_start(struct world *w, struct machine *m)
{
    struct client *c = calloc(1, sizeof *c);
    struct prng *p = &w->clients;
    struct io_addr to;
    bool ok = io_addr_parse(&to, slice_str(GATEWAY), 25);
    assert(ok);
    (void)ok;
    c->w = w;
    peer_init(&c->peer, m);
    c->peer.on_input = client_input;
    c->peer.on_open = client_open;
    c->peer.on_end = client_end;
    c->peer.on_freed = client_freed;
    c->peer.timer.fire = client_timer;
    c->messages = 1 + (uint32_t)prng_below(p, w->swarm.client.messages_max);
    c->pipelining = chance(c, w->swarm.client.pipelining);
    if (!w->calm && chance(c, w->swarm.client.abort))
        c->peer.cut_after = 1 + prng_below(p, prng_below(p, 2) ? 400 : 20000);
    if (!w->calm && chance(c, w->swarm.client.slow)) {
        c->peer.piece_max = 1 + (uint32_t)prng_below(p, 3000);
        c->peer.pause_ns = prng_below(p, 20 * NS_PER_MS);
    }
    list_push_back(&w->client_list, &c->link);
    w->clients_open++;
    w->stats.sessions++;
    peer_connect(&c->peer, &to);
}

void clients_hurry(struct world *w)
{
    for (struct list *l = w->client_list.next, *next; l != &w->client_list; l = next) {
        next = l->next;
        client_leave(container_of(l, struct client, link));
    }
}
