/*
 * tests/io/conform_random.c - conformance: connections that are opened, used, cancelled and closed
 * in random order over few descriptors and few buffers.
 *
 * Each connection carries the test pattern from byte 0 in both directions, started at a number of
 * its own: so a byte that gets lost, doubled or into another connection is seen at once.
 */
#include "gateway/base/prng.h"
#include "tests/io/conform_kit.h"

#define PAIRS     12u
#define STEPS     6000u
#define PIECE_MAX 30000u

/* One end of a pair. */
struct end {
    struct kit *kit;
    struct io_op recv, send;
    int32_t fd;   /* -1: not there */
    size_t start; /* where the pattern of this direction begins */
    size_t sent, got;
    bool ended; /* the last receive ended by itself: no new one */
    struct end *peer;
    uint8_t *data;
    bool send_cut; /* a send was cancelled: how much of it left is unknown */
};

struct pair {
    struct end ends[2]; /* client, server */
    struct io_op connect;
    bool live;
};

struct storm {
    struct kit k;
    struct io_acceptor acceptor;
    struct io_addr addr;
    int32_t listen_fd;
    bool stopped;
    struct pair pairs[PAIRS];
    int32_t accepted;
    struct pair
        *waiting; /* connecting; one at a time, so that both ends are known to belong together */
    struct prng prng;
    uint64_t bytes;
};

static void on_send(struct io_op *op, int32_t res, uint32_t flags)
{
    struct end *e = container_of(op, struct end, send);

    (void)flags;
    if (res >= 0)
        cr_assert_eq((uint32_t)res, op->len);
    else
        cr_assert(res == -ECANCELED || res == -EPIPE || res == -ECONNRESET, "send: %d", res);
    if (res < 0)
        e->send_cut = true;
    else
        e->sent += (size_t)res;
    free(e->data);
    e->data = NULL;
}

static void on_recv(struct io_op *op, int32_t res, uint32_t flags)
{
    struct end *e = container_of(op, struct end, recv);

    if (res > 0) {
        cr_assert(flags & IO_MORE);
        cr_assert(kit_holds(op->data, (size_t)res, e->peer->start + e->got));
        e->got += (size_t)res;
        io_buf_put(e->kit->io, op->buf_id);
        return;
    }
    cr_assert(res == 0 || res == -ECANCELED || res == -ECONNRESET, "receive: %d", res);
    e->ended = res != -ECANCELED;
    if (res == 0 && e->peer->fd >= 0)
        cr_assert_fail("an end without a close");
}

static void begin(struct storm *s, struct pair *p, int side, int32_t fd)
{
    struct end *e = &p->ends[side];

    *e = (struct end){.kit = &s->k,
                      .recv = {.done = on_recv},
                      .send = {.done = on_send},
                      .fd = fd,
                      .start = (size_t)prng_below(&s->prng, 1 << 20),
                      .peer = &p->ends[!side]};
}

static void both(struct storm *s)
{
    struct pair *p = s->waiting;

    if (!p || s->accepted < 0 || p->ends[0].fd < 0)
        return;
    begin(s, p, 1, s->accepted);
    p->live = true;
    s->accepted = -1;
    s->waiting = NULL;
}

static void on_accept(struct io_acceptor *a, int32_t fd, const struct io_addr *peer)
{
    struct storm *s = container_of(a, struct storm, acceptor);

    (void)peer;
    cr_assert(fd >= 0, "accept: %d", fd);
    cr_assert_eq(s->accepted, -1);
    s->accepted = fd;
    both(s);
}

static void on_stopped(struct io_acceptor *a)
{
    container_of(a, struct storm, acceptor)->stopped = true;
}

static void on_connect(struct io_op *op, int32_t res, uint32_t flags)
{
    struct pair *p = container_of(op, struct pair, connect);

    (void)flags;
    cr_assert(res >= 0, "connect: %d", res);
    p->ends[0].fd = res;
}

static bool end_idle(const struct end *e)
{
    return !io_op_running(&e->recv) && !io_op_running(&e->send);
}

static void end_close(struct storm *s, struct end *e)
{
    START(&s->k, io_cancel(s->k.io, &e->recv));
    START(&s->k, io_cancel(s->k.io, &e->send));
    START(&s->k, io_close(s->k.io, e->fd));
    e->fd = -1;
}

static void end_send(struct storm *s, struct end *e)
{
    uint32_t len = (uint32_t)prng_below(&s->prng, PIECE_MAX);

    if (io_op_running(&e->send) || e->send_cut)
        return;
    e->data = malloc(len + 1);
    kit_fill(e->data, len, e->start + e->sent);
    s->bytes += len;
    START(&s->k, io_send(s->k.io, &e->send, e->fd, e->data, len, IO_END_NONE));
}

static void connect_pair(struct storm *s, struct pair *p)
{
    if (s->waiting || io_op_running(&p->connect) || !end_idle(&p->ends[0]) ||
        !end_idle(&p->ends[1]))
        return;
    begin(s, p, 0, -1);
    p->connect = (struct io_op){.done = on_connect};
    s->waiting = p;
    START(&s->k, io_connect(s->k.io, &p->connect, &s->addr, NULL));
}

static void step(struct storm *s)
{
    struct pair *p = &s->pairs[prng_below(&s->prng, PAIRS)];
    struct end *e = &p->ends[prng_below(&s->prng, 2)];

    both(s);
    if (!p->live) {
        connect_pair(s, p);
        return;
    }
    if (e->fd < 0) {
        p->live = e->peer->fd >= 0;
        if (prng_below(&s->prng, 4) == 0 && p->live)
            end_close(s, e->peer);
        return;
    }
    switch (prng_below(&s->prng, 12)) {
    case 0:
    case 1:
    case 2:
    case 3: end_send(s, e); break;
    case 4:
    case 5:
    case 6:
        if (!io_op_running(&e->recv) && !e->ended)
            START(&s->k, io_recv(s->k.io, &e->recv, e->fd));
        break;
    case 7: START(&s->k, io_cancel(s->k.io, &e->recv)); break;
    case 8:
        if (prng_below(&s->prng, 4) == 0)
            START(&s->k, io_cancel(s->k.io, &e->send));
        break;
    case 9:
        if (prng_below(&s->prng, 3) == 0)
            end_close(s, e);
        break;
    default: break;
    }
}

static void finish(struct storm *s)
{
    KIT_UNTIL(&s->k, (both(s), !s->waiting));
    for (uint32_t i = 0; i < PAIRS; i++)
        for (int side = 0; side < 2; side++)
            if (s->pairs[i].ends[side].fd >= 0)
                end_close(s, &s->pairs[i].ends[side]);
    for (uint32_t i = 0; i < PAIRS; i++)
        for (int side = 0; side < 2; side++)
            KIT_UNTIL(&s->k, end_idle(&s->pairs[i].ends[side]));
    START(&s->k, io_accept_stop(s->k.io, &s->acceptor));
    KIT_UNTIL(&s->k, s->stopped);
    io_close(s->k.io, s->listen_fd);
    kit_close(&s->k);
}

void conform_random(const struct conform *c)
{
    struct io_listen_opts opts = {.backlog = 100};
    struct storm *s = calloc(1, sizeof *s);
    struct why why = {0};

    for (uint64_t seed = 1; seed <= 4; seed++) {
        *s = (struct storm){.accepted = -1,
                            .acceptor = {.on_accept = on_accept, .on_stopped = on_stopped}};
        prng_seed(&s->prng, seed);
        kit_open(&s->k, c, 2 * PAIRS + 4, 1u << prng_below(&s->prng, 5));
        for (uint32_t i = 0; i < PAIRS; i++) {
            begin(s, &s->pairs[i], 0, -1);
            begin(s, &s->pairs[i], 1, -1);
        }
        cr_assert(io_addr_parse(&s->addr, SLICE_LIT("127.0.0.1"), 0));
        cr_assert(io_listen(s->k.io, &s->addr, &opts, &s->listen_fd, &why), "%s", why.text);
        cr_assert(io_local_addr(s->k.io, s->listen_fd, &s->addr));
        START(&s->k, io_accept_start(s->k.io, &s->acceptor, s->listen_fd));
        for (uint32_t i = 0; i < STEPS; i++) {
            step(s);
            if (prng_below(&s->prng, 3) == 0)
                io_turn(s->k.io, false);
        }
        cr_assert_gt(s->bytes, 1000000u, "the storm was a calm");
        finish(s);
    }
    free(s);
}
