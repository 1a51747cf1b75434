/*
 * tests/sim/sim_recv.c - the simulated backend: receiving into provided buffers.
 *
 * Owns:     the receive buffers of an io; receives parked for want of one.
 * Runs on:  the one thread of the simulation.
 * Contract: a buffer belongs to the owner of the receive from `done` until io_buf_put, and is
 *           overwritten then, so that who still looks at it sees nonsense.
 * Failure:  no buffer left: receives are parked. Giving one back that is not held: aborts.
 * Bounds:   recv_buf_count buffers of recv_buf_size.
 * Tests:    tests/sim/test_io_sim.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

#define POISON   0xdb
#define AGAIN_NS (50 * NS_PER_US)
#define RECV_NS  (1 * NS_PER_US)

bool sim_recv_create(struct io *io, const struct io_params *params)
{
    uint32_t count = params->recv_buf_count;

    SIM_CHECK((count & (count - 1)) == 0 && count <= 32768, "io_create: recv_buf_count");
    if (count == 0)
        return true;
    io->buf_count = io->buf_free = count;
    io->buf_size = params->recv_buf_size;
    io->bufs = malloc((size_t)count * io->buf_size);
    io->buf_states = calloc(count, sizeof *io->buf_states);
    io->buf_stack = malloc(count * sizeof *io->buf_stack);
    for (uint32_t i = 0; io->buf_stack && i < count; i++)
        io->buf_stack[i] = (uint16_t)(count - 1 - i);
    return io->bufs && io->buf_states && io->buf_stack;
}

void io_buf_put(struct io *io, uint16_t buf_id)
{
    struct sim_buf *b = &io->buf_states[buf_id];

    SIM_CHECK(buf_id < io->buf_count && b->state == SIM_BUF_HELD,
              "io_buf_put: buffer %u is not held (%s)", buf_id, io->host->name);
    memset(io->bufs + (size_t)buf_id * io->buf_size, POISON, b->len);
    b->state = SIM_BUF_FREE;
    io->buf_stack[io->buf_free++] = buf_id;
    if (!list_empty(&io->parked))
        sim_io_wake(io); /* the turn hands it on */
}

void sim_recv_unpark(struct io *io)
{
    for (uint32_t n = io->buf_free; n > 0 && !list_empty(&io->parked); n--) {
        struct sim_sock *s = container_of(io->parked.next, struct sim_sock, parked);
        list_remove(&s->parked);
        sim_recv_kick(s);
    }
}

/* Copies what is there, up to `max` bytes. */
static uint32_t take(struct sim_sock *s, uint8_t *out, uint32_t max)
{
    uint32_t got = 0;

    while (s->here && got < max) {
        struct sim_packet *p = s->here;
        uint32_t n = p->len - p->used < max - got ? p->len - p->used : max - got;
        memcpy(out + got, p->data + p->used, n);
        p->used += n;
        got += n;
        if (p->used == p->len) {
            s->here = p->next;
            if (!s->here)
                s->here_last = &s->here;
            free(p);
        }
    }
    s->queued -= got;
    return got;
}

static void park(struct sim_sock *s)
{
    struct io *io = s->io;

    io->stats.recv_buf_empty++;
    sim_count(s->recv->site, SIM_NO_BUF);
    list_push_back(&io->parked, &s->parked);
}

static void deliver(struct sim_sock *s)
{
    struct io *io = s->io;
    uint16_t id = io->buf_stack[--io->buf_free];
    uint8_t *buf = io->bufs + (size_t)id * io->buf_size;
    uint32_t max = io->buf_size, n;

    if (s->recv_part || sim_chance(s->host, s->host->faults.recv_short)) {
        s->recv_part = false;
        max = 1 + (uint32_t)sim_below(&s->sim->prng, max);
        sim_count(s->recv->site, SIM_SHORT);
    }
    n = take(s, buf, max);
    io->buf_states[id] = (struct sim_buf){.len = n, .state = SIM_BUF_FILLED};
    sim_call_data(s->recv, (int32_t)n, buf, id);
    if (s->peer)
        sim_send_kick(s->peer, sim_net_delay(s->host));
}

static void recv_fire(struct timer *t)
{
    struct sim_call *c = container_of(t, struct sim_call, timer);

    if (c->sock && c->sock->recv == c)
        sim_recv_kick(c->sock);
}

/* True: nothing more now. */
static bool recv_fault(struct sim_sock *s)
{
    struct sim_host *h = s->host;
    enum sim_fault fault = sim_call_fault(s->recv, SIM_RECV);

    if (fault == SIM_CANCELED) {
        sim_call_end(s->recv, -ECANCELED);
        return true;
    }
    s->recv_part |= fault == SIM_SHORT;
    if (fault == SIM_RESET || sim_chance(h, h->faults.reset)) {
        sim_sock_reset(s);
        return true;
    }
    if (fault == SIM_TIMEOUT || sim_chance(h, h->faults.vanish)) {
        sim_count(s->recv->site, SIM_TIMEOUT);
        sim_sock_vanish(s);
    }
    if (s->io->buf_free == 0 || fault == SIM_NO_BUF || sim_chance(h, h->faults.buf_none)) {
        bool free_ones = s->io->buf_free > 0;
        park(s);
        if (free_ones)
            sim_io_wake(s->io);
        return true;
    }
    if (sim_chance(h, h->faults.recv_again) && !(s->recv->op->flags & SIM_CANCELLED)) {
        sim_count(s->recv->site, SIM_OTHER);
        sim_call_at(s->recv, sim_delay(s->sim, 0, AGAIN_NS), recv_fire);
        return true;
    }
    return false;
}

void sim_recv_kick(struct sim_sock *s)
{
    struct sim_call *c = s->recv;

    if (!c || !list_empty(&s->parked))
        return;
    if (timer_is_set(&c->timer) && c->timer.fire == recv_fire)
        return;
    while (s->here) {
        if (recv_fault(s) || s->recv != c)
            return;
        deliver(s);
    }
    if (s->broken) {
        int32_t error = s->error == -EPIPE ? 0 : s->error;
        s->error = 0;
        sim_call_end(c, error);
    } else if (s->fin_in) {
        sim_call_end(c, 0);
    }
}

void io_recv(struct io *io, struct io_op *op, int32_t fd)
{
    struct sim_call *c =
        sim_call_start_fd(io, op, SIM_RECV, fd, SIM_FD_SOCK, __builtin_return_address(0));

    if (!c)
        return;
    c->sock = sim_fd_of(io, fd, "recv")->sock;
    SIM_CHECK(!c->sock->recv, "recv: one is under way on this descriptor (%s)", io->host->name);
    c->sock->recv = c;
    if (io->buf_count == 0)
        sim_call_end(c, -EINVAL);
    else
        sim_call_at(c, sim_delay(io->sim, 0, RECV_NS), recv_fire);
}
