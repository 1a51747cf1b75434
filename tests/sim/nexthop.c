/*
 * tests/sim/nexthop.c - scripted next hops: they take mail, refuse it, answer late, in pieces, too
 * long, or not at all, and remember exactly what they took.
 *
 * Owns:     its connections.
 * Runs on:  the one thread of a simulation.
 * Contract: what is promised to the gateway (250 behind the dot, sent or not) is in the books
 *           before the answer leaves; recipients and messages are held against the limits.
 * Failure:  world_fail.
 * Bounds:   the seed's.
 * Tests:    tests/sim/plants.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "gateway/smtp/smtp.h"
#include "tests/sim/world.h"

#define HOP_SIZE_SMALL 3000u
#define HOP_IDLE_NS    (400 * NS_PER_S)

struct taken {
    struct msg *m;
    struct rcpt *r;
};

struct hop_conn {
    struct peer peer;
    struct list link;
    struct world *w;
    struct machine *machine;
    bool pipelining, dsn, size_small, eight_bit;
    bool in_data, quitting, spam, has_sender;
    char sender[80];
    uint32_t messages;
    uint32_t epoch; /* process of the gateway that speaks: as its EHLO says */
    struct taken rcpts[WORLD_RCPTS_MAX * 3];
    uint32_t rcpt_count;
    struct taken before[WORLD_RCPTS_MAX * 3]; /* of the last message taken */
    uint32_t before_count;
    bool ahead_used; /* behind the last dot there was a MAIL: one may leave with it (RFC 2920) */
    bool ahead;      /* this envelope may have left so, earlier than its turn comes */
    uint32_t report_about; /* UINT32_MAX: not to a sender */
    uint8_t *data;
    uint32_t data_len, data_cap;
    /* a reply that is late */
    char late[2048];
    uint32_t late_len;
};

static struct hop_conn *conn_of(struct peer *p)
{
    return container_of(p, struct hop_conn, peer);
}

static bool chance(struct hop_conn *c, uint32_t per_mille)
{
    return world_chance(c->w, &c->w->hops, per_mille);
}

static void conn_freed(struct peer *p)
{
    struct hop_conn *c = conn_of(p);
    list_remove(&c->link);
    free(c->data);
    free(c);
}

static void conn_end(struct peer *p, int32_t res)
{
    struct hop_conn *c = conn_of(p);
    TRACE(c->w, "hop %u: connection ends (%d)", c->machine->number, res);
    peer_drop(p);
}

/* ---- answering ---- */

static void conn_timer(struct timer *t)
{
    struct peer *p = container_of(t, struct peer, timer);
    struct hop_conn *c = conn_of(p);
    if (!c->late_len) {
        peer_drop(p);
        return;
    }
    uint32_t len = c->late_len;
    c->late_len = 0;
    peer_send(p, c->late, len);
    io_timer_set(p->machine->io, &p->timer, io_now_ns(p->machine->io) + HOP_IDLE_NS);
}

/* Sends a reply in the manner that the seed draws. */
__attribute__((format(printf, 2, 3))) static void answer(struct hop_conn *c, const char *fmt, ...)
{
    const struct swarm *s = &c->w->swarm;
    char text[1600], line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (c->peer.closing)
        return;
    TRACE(c->w, "hop %u: -> %s", c->machine->number, line);
    int n;
    if (chance(c, s->hop.multi) && line[3] == ' ')
        n = snprintf(text, sizeof text, "%.3s-first of two lines\r\n%s\r\n", line, line);
    else if (chance(c, s->hop.junk))
        n = snprintf(text, sizeof text, "%s %0*d\r\n", line, 900, 7);
    else
        n = snprintf(text, sizeof text, "%s\r\n", line);
    if (c->late_len || chance(c, s->hop.late)) {
        if (c->late_len + (uint32_t)n <= sizeof c->late) {
            memcpy(c->late + c->late_len, text, (size_t)n);
            c->late_len += (uint32_t)n;
        }
        io_timer_set(c->machine->io, &c->peer.timer,
                     io_now_ns(c->machine->io) + 1 +
                         prng_below(&c->w->hops,
                                    prng_below(&c->w->hops, 10) ? 200 * NS_PER_MS : 30 * NS_PER_S));
        return;
    }
    if (chance(c, s->hop.split)) {
        c->peer.piece_max = 1 + (uint32_t)prng_below(&c->w->hops, (uint64_t)n);
        c->peer.pause_ns = prng_below(&c->w->hops, 50 * NS_PER_MS);
    }
    peer_send(&c->peer, text, (uint32_t)n);
}

/* A failure of this command by the seed. True: answered. */
static bool fails(struct hop_conn *c, const char *what)
{
    const struct swarm *s = &c->w->swarm;
    if (chance(c, s->hop.close)) {
        TRACE(c->w, "hop %u: closes at %s", c->machine->number, what);
        peer_drop(&c->peer);
    } else if (chance(c, s->hop.r421)) {
        answer(c, "421 4.3.2 Shutting down");
        c->quitting = true;
    } else if (chance(c, s->hop.r4xx)) {
        answer(c, "45%d 4.7.1 Not now (%s)", (int)prng_below(&c->w->hops, 3), what);
    } else if (chance(c, s->hop.r5xx)) {
        answer(c, "55%d 5.7.1 Never (%s)", (int)prng_below(&c->w->hops, 5), what);
    } else {
        return false;
    }
    return true;
}

static void reset_tx(struct hop_conn *c)
{
    c->rcpt_count = 0;
    c->has_sender = c->spam = false;
    c->report_about = UINT32_MAX;
}

/* ---- commands ---- */

static void cmd_ehlo(struct hop_conn *c, struct slice name, bool esmtp)
{
    reset_tx(c);
    c->epoch = name.len > 2 ? (uint32_t)strtoul((const char *)name.ptr + 2, NULL, 10) : 0;
    if (fails(c, "EHLO"))
        return;
    if (!esmtp) {
        c->pipelining = c->dsn = c->eight_bit = c->size_small = false;
        answer(c, "250 hop.test");
        return;
    }
    peer_sendf(&c->peer, "250-hop.test\r\n%s%s%s%s", c->pipelining ? "250-PIPELINING\r\n" : "",
               c->dsn ? "250-DSN\r\n" : "", c->eight_bit ? "250-8BITMIME\r\n" : "",
               c->size_small ? "250-SIZE 3000\r\n" : "250-SIZE\r\n");
    answer(c, "250 ENHANCEDSTATUSCODES");
}

static struct slice path_of(struct slice line)
{
    size_t from = slice_find(line, '<') + 1;
    struct slice rest = slice_from(line, from);
    return slice_head(rest, slice_find(rest, '>'));
}

static void cmd_mail(struct hop_conn *c, struct slice line)
{
    struct slice path = path_of(line);
    if (c->has_sender) {
        world_fail(c->w, "hop: MAIL inside a transaction");
        return;
    }
    if (c->messages >= c->w->swarm.messages_per_connection)
        world_fail(c->w, "hop: more than %u messages in a connection", c->messages);
    c->messages++;
    if (fails(c, "MAIL"))
        return;
    if (c->size_small && !c->w->calm && memmem(line.ptr, line.len, "SIZE=", 5)) {
        const char *at = (const char *)memmem(line.ptr, line.len, "SIZE=", 5) + 5;
        if (strtoul(at, NULL, 10) > HOP_SIZE_SMALL) {
            answer(c, "552 5.3.4 Too large");
            return;
        }
    }
    c->has_sender = true;
    snprintf(c->sender, sizeof c->sender, "%.*s", (int)path.len, (const char *)path.ptr);
    answer(c, "250 2.1.0 Ok");
}

/* Is this what its client said? */
static void sender_fits(struct hop_conn *c, const struct msg *m)
{
    char want[80] = "";
    if (!m->null_sender)
        snprintf(want, sizeof want, "s%u@" WORLD_SENDER_HOST, m->id);
    if (strcmp(want, c->sender) != 0)
        world_fail(c->w, "message %u: sender is <%s> at the next hop, was <%s>", m->id, c->sender,
                   want);
}

static void rcpt_report(struct hop_conn *c, struct slice path)
{
    char text[80];
    uint32_t about;
    snprintf(text, sizeof text, "%.*s", (int)path.len, (const char *)path.ptr);
    if (sscanf(text, "s%u@" WORLD_SENDER_HOST, &about) != 1 || c->sender[0] ||
        !ledger_msg(c->w, about)) {
        world_fail(c->w, "hop: RCPT TO:<%s> from <%s>", text, c->sender);
        return;
    }
    if (fails(c, "RCPT of a report"))
        return;
    c->report_about = about;
    answer(c, "250 2.1.5 Ok");
}

static void cmd_rcpt(struct hop_conn *c, struct slice line)
{
    struct slice path = path_of(line);
    struct msg *m;
    struct rcpt *r = ledger_rcpt(c->w, path, &m);
    if (!c->has_sender) {
        answer(c, "503 5.5.1 MAIL first");
        return;
    }
    if (!r) {
        rcpt_report(c, path);
        return;
    }
    /* Sent ahead and given to another connection since: this one will be closed. */
    bool early = c->ahead || sim_peer_is_gone(c->machine->io, c->peer.fd);
    ledger_rcpt_asked(c->w, c->epoch, early, m, r);
    sender_fits(c, m);
    if (c->rcpt_count >= c->w->swarm.rcpts_per_message)
        world_fail(c->w, "hop: more than %u recipients in a transaction", c->rcpt_count);
    if (c->rcpt_count && c->rcpts[0].m != m)
        world_fail(c->w, "hop: recipients of messages %u and %u in one transaction",
                   c->rcpts[0].m->id, m->id);
    if (r->kind == RK_GONE) {
        answer(c, "550 5.1.1 No such user");
        return;
    }
    if (fails(c, "RCPT"))
        return;
    if (chance(c, c->w->swarm.hop.early) && c->rcpt_count) {
        answer(c, "452 4.5.3 Too many recipients");
        return;
    }
    c->spam |= r->kind == RK_SPAM;
    c->rcpts[c->rcpt_count++] = (struct taken){m, r};
    answer(c, "250 2.1.5 Ok");
}

static void cmd_data(struct hop_conn *c)
{
    if (!c->rcpt_count && c->report_about == UINT32_MAX) {
        answer(c, "554 5.5.1 No valid recipients");
        return;
    }
    if (fails(c, "DATA"))
        return;
    c->in_data = true;
    c->data_len = 0;
    answer(c, "354 Go on");
}

/* The client has read our answer to the last message. */
static void followed(struct hop_conn *c)
{
    for (uint32_t i = 0; i < c->before_count; i++)
        ledger_followed(c->w, c->before[i].m, c->before[i].r);
    c->before_count = 0;
}

/* Behind a dot the next envelope may follow unasked; a second one, and all else, not. */
static bool proves_reading(struct hop_conn *c, struct slice line)
{
    if (slice_starts_nocase(line, SLICE_LIT("MAIL FROM:"))) {
        c->ahead = c->pipelining && !c->ahead_used;
        c->ahead_used = true;
        return !c->ahead;
    }
    return !c->ahead || !(slice_starts_nocase(line, SLICE_LIT("RCPT TO:")) ||
                          slice_eq_nocase(line, SLICE_LIT("DATA")));
}

static void command(struct hop_conn *c, struct slice line)
{
    struct world *w = c->w;
    TRACE(w, "hop %u: <- %.*s", c->machine->number, (int)line.len, (const char *)line.ptr);
    if (proves_reading(c, line))
        followed(c);
    if (slice_starts_nocase(line, SLICE_LIT("EHLO ")))
        cmd_ehlo(c, slice_from(line, 5), true);
    else if (slice_starts_nocase(line, SLICE_LIT("HELO ")))
        cmd_ehlo(c, slice_from(line, 5), false);
    else if (slice_starts_nocase(line, SLICE_LIT("MAIL FROM:")))
        cmd_mail(c, line);
    else if (slice_starts_nocase(line, SLICE_LIT("RCPT TO:")))
        cmd_rcpt(c, line);
    else if (slice_eq_nocase(line, SLICE_LIT("DATA")))
        cmd_data(c);
    else if (slice_eq_nocase(line, SLICE_LIT("RSET"))) {
        reset_tx(c);
        answer(c, "250 2.0.0 Ok");
    } else if (slice_eq_nocase(line, SLICE_LIT("QUIT"))) {
        answer(c, "221 2.0.0 Bye");
        c->quitting = true;
    } else {
        world_fail(w, "hop: a command like no other: %.*s", (int)line.len, (const char *)line.ptr);
    }
}

/* ---- the message ---- */

static void take(struct hop_conn *c, struct slice text)
{
    for (uint32_t i = 0; i < c->rcpt_count; i++)
        ledger_taken(c->w, c->epoch, c->rcpts[i].m, c->rcpts[i].r);
    if (c->report_about != UINT32_MAX)
        ledger_report(c->w, c->report_about, text);
    memcpy(c->before, c->rcpts, c->rcpt_count * sizeof c->rcpts[0]);
    c->before_count = c->rcpt_count;
}

static void data_end(struct hop_conn *c)
{
    const struct swarm *s = &c->w->swarm;
    struct slice text = slice_of(c->data, c->data_len);
    struct msg *m = c->rcpt_count ? c->rcpts[0].m : NULL;
    bool ours = ledger_body(c->w, m, text);
    c->in_data = c->ahead_used = false;
    TRACE(c->w, "hop %u: the end of %s %d", c->machine->number, ours ? "message" : "a report about",
          m ? (int)m->id : (int)c->report_about);
    if (c->spam) {
        answer(c, "554 5.7.1 Looks like spam");
    } else if (chance(c, s->hop.vanish)) {
        if (prng_below(&c->w->hops, 2)) { /* taken, but the answer gets lost */
            take(c, text);
            TRACE(c->w, "hop %u: takes it and vanishes", c->machine->number);
        }
        peer_drop(&c->peer);
    } else if (!fails(c, "the dot")) {
        take(c, text);
        answer(c, "250 2.0.0 Taken");
    }
    reset_tx(c);
}

static void data_line(struct hop_conn *c, const uint8_t *line, uint32_t len)
{
    followed(c); /* our 354 came behind that answer */
    if (len == 3 && line[0] == '.') {
        data_end(c);
        return;
    }
    if (line[0] == '.') {
        line++;
        len--;
    }
    if (c->data_len + len > c->data_cap) {
        c->data_cap = (c->data_len + len) * 2;
        c->data = realloc(c->data, c->data_cap);
    }
    memcpy(c->data + c->data_len, line, len);
    c->data_len += len;
}

static void conn_input(struct peer *p)
{
    struct hop_conn *c = conn_of(p);
    uint32_t at = 0;
    if (!c->late_len)
        io_timer_set(p->machine->io, &p->timer, io_now_ns(p->machine->io) + HOP_IDLE_NS);
    while (!p->closing && !c->quitting) {
        const uint8_t *from = p->in + at;
        const uint8_t *nl = at < p->in_len ? memchr(from, '\n', p->in_len - at) : NULL;
        if (!nl)
            break;
        uint32_t len = (uint32_t)(nl - from) + 1;
        at += len;
        if (len < 2 || from[len - 2] != '\r') {
            world_fail(c->w, "hop: a line that ends in a bare LF");
            return;
        }
        if (c->in_data)
            data_line(c, from, len);
        else
            command(c, slice_of(from, len - 2));
    }
    peer_consume(p, at);
    if (c->quitting && !c->late_len && !p->closing && !p->shut) {
        p->shut = true; /* the other side closes when it has read it; else the timer */
        io_timer_set(p->machine->io, &p->timer, io_now_ns(p->machine->io) + NS_PER_S);
    }
}

/* ---- life ---- */

static void hop_accept(struct io_acceptor *a, int32_t fd, const struct io_addr *from)
{
    struct machine *m = container_of(a, struct machine, acceptor);
    struct world *w = m->w;
    if (fd < 0)
        return;
    (void)from;
    struct hop_conn *c = calloc(1, sizeof *c);
    c->w = w;
    c->machine = m;
    c->report_about = UINT32_MAX;
    c->ahead_used = true;
    peer_init(&c->peer, m);
    c->peer.on_input = conn_input;
    c->peer.on_end = conn_end;
    c->peer.on_freed = conn_freed;
    c->peer.timer.fire = conn_timer;
    c->pipelining = !chance(c, w->swarm.hop.no_pipelining);
    c->dsn = !chance(c, w->swarm.hop.no_dsn);
    c->eight_bit = !chance(c, w->swarm.hop.no_dsn / 4);
    c->size_small = chance(c, w->swarm.hop.no_size);
    list_push_back(&w->hop_list, &c->link);
    peer_attach(&c->peer, fd);
    io_timer_set(m->io, &c->peer.timer, io_now_ns(m->io) + HOP_IDLE_NS);
    if (chance(c, w->swarm.hop.close)) {
        peer_drop(&c->peer);
    } else if (chance(c, w->swarm.hop.r421)) {
        answer(c, "554 5.3.2 Not today");
        c->quitting = true;
    } else {
        answer(c, "220 hop.test ESMTP");
    }
}

static void hop_stopped(struct io_acceptor *a)
{
    struct machine *m = container_of(a, struct machine, acceptor);
    io_close(m->io, a->listen_fd);
}

void nexthop_start(struct world *w, struct machine *m)
{
    const struct io_listen_opts opts = {.backlog = 100};
    struct why why;
    int32_t fd;
    (void)w;
    m->acceptor.on_accept = hop_accept;
    m->acceptor.on_stopped = hop_stopped;
    bool ok = io_listen(m->io, &m->addr, &opts, &fd, &why);
    assert(ok);
    (void)ok;
    io_accept_start(m->io, &m->acceptor, fd);
}

/* Every connection is dropped, as if the program had died. */
void nexthop_stop(struct world *w, struct machine *m)
{
    for (struct list *l = w->hop_list.next, *next; l != &w->hop_list; l = next) {
        struct hop_conn *c = container_of(l, struct hop_conn, link);
        next = l->next;
        if (c->machine == m)
            peer_drop(&c->peer);
    }
}
