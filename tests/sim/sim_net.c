/*
 * tests/sim/sim_net.c - the simulated network: connections and the packets under way on them.
 *
 * Owns:     sockets; packets until they are received.
 * Runs on:  the one thread of the simulation.
 * Contract: the bytes of one direction arrive in order and once, in pieces cut anywhere, as long
 *           as the connection lives. Closing with unread data resets; a closed or restarted peer
 *           answers data with a reset; a cut network holds back, a vanished peer is silent.
 * Failure:  as TCP tells it: -ECONNRESET once, then -EPIPE; -ETIMEDOUT after SIM_SILENCE_NS.
 * Bounds:   window bytes a direction.
 * Tests:    tests/sim/test_io_sim.c, tests/sim/test_sim_world.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

#define NET_MIN_NS   (20 * NS_PER_US)
#define NET_MAX_NS   (300 * NS_PER_US)
#define WINDOW_MAX   (256 * KIB)
#define SEND_NS      (2 * NS_PER_US)
#define PIECE_GAP_NS (2 * NS_PER_MS)

uint64_t sim_net_delay(struct sim_host *h)
{
    const struct sim_faults *f = &h->faults;

    if (f->net_max_ns == 0)
        return sim_delay(h->sim, NET_MIN_NS, NET_MAX_NS);
    return sim_delay(h->sim, f->net_min_ns, f->net_max_ns);
}

/* ---- packets ---- */

static void packets_free(struct sim_packet **first, struct sim_packet ***last)
{
    while (*first) {
        struct sim_packet *p = *first;
        *first = p->next;
        free(p);
    }
    *last = first;
}

/* The connection is over on this side; what arrived can still be read. */
void sim_sock_break(struct sim_sock *s, int32_t error)
{
    struct sim_call *send = s->send;

    if (s->broken)
        return;
    s->broken = true;
    s->error = s->fin_in ? -EPIPE : error;
    packets_free(&s->flight, &s->flight_last);
    timer_heap_clear(&s->sim->events, &s->arrive);
    timer_heap_clear(&s->sim->events, &s->give_up);
    if (send) {
        s->error = 0;
        sim_call_end(send, s->fin_in ? -EPIPE : error);
        if (s->recv && !s->fin_in)
            s->error = error;
    }
    sim_recv_kick(s);
}

static bool unreachable(const struct sim_sock *s)
{
    return s->host->net_down || (s->peer && s->peer->host->net_down) || s->host->stopped;
}

static void packet_arrived(struct sim_sock *s, struct sim_packet *p)
{
    switch ((enum sim_packet_kind)p->kind) {
    case SIM_PACKET_DATA:
        p->next = NULL;
        *s->here_last = p;
        s->here_last = &p->next;
        return;
    case SIM_PACKET_FIN: s->fin_in = true; break;
    case SIM_PACKET_RST: sim_sock_break(s, -ECONNRESET); break;
    }
    free(p);
}

static void arrive_fire(struct timer *t)
{
    struct sim_sock *s = container_of(t, struct sim_sock, arrive);
    struct sim *sim = s->sim;

    if (s->silent)
        return;
    if (unreachable(s)) {
        timer_heap_set(&sim->events, t, sim->now_ns + sim_delay(sim, SIM_RTO_NS, 8 * SIM_RTO_NS));
        return;
    }
    while (s->flight && s->flight->at <= sim->now_ns) {
        struct sim_packet *p = s->flight;
        s->flight = p->next;
        if (!s->flight)
            s->flight_last = &s->flight;
        packet_arrived(s, p);
    }
    if (s->flight)
        timer_heap_set(&sim->events, t, s->flight->at);
    sim_recv_kick(s);
}

void sim_sock_packet(struct sim_sock *to, enum sim_packet_kind kind, const void *data, uint32_t len)
{
    struct sim_packet *p;
    uint64_t at;

    if (to->broken)
        return;
    p = malloc(sizeof *p + len);
    SIM_CHECK(p, "no memory");
    at = to->sim->now_ns + sim_net_delay(to->host);
    if (at < to->last_at)
        at = to->last_at;
    to->last_at = at;
    *p = (struct sim_packet){.at = at, .len = len, .kind = (uint8_t)kind};
    if (len)
        memcpy(p->data, data, len);
    to->queued += len;
    *to->flight_last = p;
    to->flight_last = &p->next;
    if (!timer_is_set(&to->arrive))
        timer_heap_set(&to->sim->events, &to->arrive, to->flight->at);
}

/* ---- sockets ---- */

static void give_up_fire(struct timer *t)
{
    sim_sock_break(container_of(t, struct sim_sock, give_up), -ETIMEDOUT);
}

struct sim_sock *sim_sock_create(struct sim_host *h)
{
    struct sim_sock *s = calloc(1, sizeof *s);
    uint32_t max = h->faults.window_max ? h->faults.window_max : WINDOW_MAX;

    SIM_CHECK(s, "no memory");
    s->sim = h->sim;
    s->host = h;
    s->fd = -1;
    s->window = max / 4 + (uint32_t)sim_below(&h->sim->prng, max - max / 4) + 1;
    s->flight_last = &s->flight;
    s->here_last = &s->here;
    s->arrive.fire = arrive_fire;
    s->give_up.fire = give_up_fire;
    list_init(&s->parked);
    list_init(&s->waiting);
    return s;
}

void sim_sock_pair(struct sim_sock *a, struct sim_sock *b)
{
    a->peer = b;
    b->peer = a;
}

/* Nothing is heard of the other end any more. */
static void fall_silent(struct sim_sock *s)
{
    s->silent = true;
    packets_free(&s->flight, &s->flight_last);
    timer_heap_clear(&s->sim->events, &s->arrive);
}

void sim_sock_vanish(struct sim_sock *s)
{
    fall_silent(s);
    if (s->peer)
        fall_silent(s->peer);
}

void sim_sock_reset(struct sim_sock *s)
{
    struct sim_sock *peer = s->peer;

    if (peer && !s->silent)
        sim_sock_packet(peer, SIM_PACKET_RST, NULL, 0);
    sim_sock_break(s, -ECONNRESET);
}

static bool has_unread(const struct sim_sock *s)
{
    if (s->here)
        return true;
    for (const struct sim_packet *p = s->flight; p; p = p->next)
        if (p->kind == SIM_PACKET_DATA)
            return true;
    return false;
}

void sim_sock_close(struct sim_sock *s, bool silent)
{
    struct sim_sock *peer = s->peer;

    if (peer) {
        peer->peer = NULL;
        if (!silent && !s->silent && !s->broken) {
            if (has_unread(s))
                sim_sock_packet(peer, SIM_PACKET_RST, NULL, 0);
            else if (!s->fin_out)
                sim_sock_packet(peer, SIM_PACKET_FIN, NULL, 0);
        }
        sim_send_kick(peer, 0);
    }
    if (s->recv)
        s->recv->sock = NULL;
    if (s->send)
        s->send->sock = NULL;
    list_remove(&s->parked);
    list_remove(&s->waiting);
    timer_heap_clear(&s->sim->events, &s->arrive);
    timer_heap_clear(&s->sim->events, &s->give_up);
    packets_free(&s->flight, &s->flight_last);
    packets_free(&s->here, &s->here_last);
    free(s);
}

/* ---- sending ---- */

/* Hands bytes to the network: in one piece, or in several, cut anywhere. */
static void transmit(struct sim_sock *s, const uint8_t *data, uint32_t len)
{
    struct sim_host *h = s->host;

    if (len == 0)
        return;
    if (s->silent) {
        if (!timer_is_set(&s->give_up))
            timer_heap_set(&s->sim->events, &s->give_up, s->sim->now_ns + SIM_SILENCE_NS);
        if (s->peer)
            s->peer->queued += len; /* until the window is full */
        return;
    }
    if (!s->peer) { /* closed, or its machine was started again */
        if (!s->told)
            sim_sock_packet(s, SIM_PACKET_RST, NULL, 0);
        s->told = true;
        return;
    }
    while (len > 0) {
        uint32_t n = len;
        if (len > 1 && (s->send->part || sim_chance(h, h->faults.send_split))) {
            s->send->part = false;
            n = 1 + (uint32_t)sim_below(&s->sim->prng, len - 1);
            sim_sock_packet(s->peer, SIM_PACKET_DATA, data, n);
            s->peer->last_at += sim_below(&s->sim->prng, PIECE_GAP_NS);
            sim_count(s->send->site, SIM_SHORT);
        } else {
            sim_sock_packet(s->peer, SIM_PACKET_DATA, data, n);
        }
        data += n;
        len -= n;
    }
}

static bool send_fault(struct sim_sock *s, struct sim_call *c)
{
    struct sim_host *h = s->host;
    enum sim_fault fault = sim_call_fault(c, SIM_SEND);

    if (fault == SIM_CANCELED) {
        transmit(s, c->buf, (uint32_t)sim_below(&s->sim->prng, c->len + 1));
        sim_call_end(c, -ECANCELED);
        return true;
    }
    c->part = fault == SIM_SHORT;
    if (fault == SIM_TIMEOUT || sim_chance(h, h->faults.vanish)) {
        sim_count(c->site, SIM_TIMEOUT);
        sim_sock_vanish(s);
    } else if (fault == SIM_RESET || sim_chance(h, h->faults.reset)) {
        /* Some of it may have left. */
        transmit(s, c->buf, (uint32_t)sim_below(&s->sim->prng, c->len + 1));
        sim_sock_reset(s);
        return true;
    }
    return false;
}

static void sock_shutdown(struct sim_sock *s)
{
    s->fin_out = true;
    if (s->peer && !s->silent)
        sim_sock_packet(s->peer, SIM_PACKET_FIN, NULL, 0);
}

static void send_fire(struct timer *t)
{
    struct sim_call *c = container_of(t, struct sim_call, timer);
    struct sim_sock *s = c->sock;
    uint32_t n = c->len - c->sent;

    if (s->broken || s->fin_out) {
        int32_t error = s->error ? s->error : -EPIPE;
        s->error = 0;
        sim_call_end(c, error);
        return;
    }
    if (c->sent == 0 && c->len > 0 && send_fault(s, c))
        return;
    if (s->peer) {
        uint32_t room = s->peer->window > s->peer->queued ? s->peer->window - s->peer->queued : 0;
        n = n < room ? n : room;
    }
    transmit(s, (const uint8_t *)c->buf + c->sent, n);
    c->sent += n;
    if (c->sent < c->len)
        return;
    if (c->last)
        sock_shutdown(s);
    sim_call_end(c, (int32_t)c->len);
}

void sim_send_kick(struct sim_sock *s, uint64_t delay_ns)
{
    if (s->send && !timer_is_set(&s->send->timer) && !(s->send->op->flags & SIM_CANCELLED))
        sim_call_at(s->send, delay_ns, send_fire);
}

void io_send(struct io *io, struct io_op *op, int32_t fd, const void *data, uint32_t len,
             enum io_end end)
{
    struct sim_call *c =
        sim_call_start_fd(io, op, SIM_SEND, fd, SIM_FD_SOCK, __builtin_return_address(0));

    op->len = len;
    if (!c)
        return;
    c->sock = sim_fd_of(io, fd, "send")->sock;
    SIM_CHECK(!c->sock->send, "send: one is under way on this descriptor (%s)", io->host->name);
    c->sock->send = c;
    c->buf = (void *)(uintptr_t)data;
    c->len = len;
    c->last = end == IO_END_SHUTDOWN;
    c->sum = sim_sum(data, len);
    sim_call_at(c, sim_delay(io->sim, 0, SEND_NS), send_fire);
}

bool sim_peer_is_gone(struct io *io, int32_t fd)
{
    const struct sim_fd *f = sim_fd_held(io, fd);

    SIM_CHECK(f && f->kind == SIM_FD_SOCK, "not a connection (%s)", io->host->name);
    return !f->sock->peer;
}

void io_shutdown(struct io *io, int32_t fd)
{
    struct sim_fd *f = sim_fd_of(io, fd, "io_shutdown");

    SIM_CHECK(f && f->kind == SIM_FD_SOCK, "io_shutdown: not a connection (%s)", io->host->name);
    if (f->sock->fin_out || f->sock->broken)
        return;
    sock_shutdown(f->sock);
    sim_send_kick(f->sock, 0);
}
