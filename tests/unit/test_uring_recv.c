/*
 * tests/unit/test_uring_recv.c - the io_uring backend: receives that fill several buffers at once,
 * and which buffers they take.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/base/prng.h"
#include "gateway/io/uring_internal.h"
#include "gateway/limits.h"
#include "tests/io/conform_kit.h"

#define BUF  1024u
#define HELD 64u

static struct io *create(const struct io_params *params)
{
    struct why why = {0};
    struct io *io = io_create(params, &why);

    cr_assert_not_null(io, "%s", why.text);
    return io;
}

static void turn(struct io *io)
{
    io_turn(io, true);
}

static const struct conform real = {
    .create = create, .destroy = io_destroy, .turn = turn, .dir = "/tmp"};

/* What a connection sends: the test pattern from a place of its own on. */
static uint8_t pattern[512 * 1024];

struct piece {
    const uint8_t *data;
    uint32_t len;
    uint16_t id;
    size_t at;
};

/* Receives, and keeps what it gets until it is put back one by one. */
struct taker {
    struct kit *k;
    struct kit_conn client, *server;
    struct io_op recv;
    struct piece held[HELD];
    uint32_t held_count, calls;
    uint32_t leave_at; /* closes in the call of this number */
    struct prng *puts; /* puts pieces back inside `done` as this says; NULL: none */
    size_t start, sent, got;
    int32_t end; /* 1: still receiving */
};

static void put(struct taker *t, uint32_t i)
{
    struct piece p = t->held[i];

    cr_assert(kit_holds(p.data, p.len, p.at), "nobody else writes to what is held");
    t->held[i] = t->held[--t->held_count];
    io_buf_put(t->k->io, p.id);
}

static void put_all(struct taker *t)
{
    while (t->held_count > 0)
        put(t, t->held_count - 1);
}

static void leave(struct taker *t)
{
    START(t->k, io_cancel(t->k->io, &t->recv));
    START(t->k, io_close(t->k->io, t->server->fd));
    t->server->fd = -1;
}

static void on_take(struct io_op *op, int32_t res, uint32_t flags)
{
    struct taker *t = container_of(op, struct taker, recv);

    if (res <= 0) {
        cr_assert_eq(flags & IO_MORE, 0);
        t->end = res;
        return;
    }
    cr_assert(flags & IO_MORE);
    cr_assert(io_op_running(op));
    cr_assert(kit_holds(op->data, (size_t)res, t->start + t->got));
    cr_assert_lt(t->held_count, HELD);
    t->held[t->held_count++] =
        (struct piece){op->data, (uint32_t)res, op->buf_id, t->start + t->got};
    t->got += (size_t)res;
    if (++t->calls == t->leave_at)
        leave(t);
    while (t->puts && t->held_count > 0 && prng_below(t->puts, 2) == 0)
        put(t, (uint32_t)prng_below(t->puts, t->held_count));
}

static void take(struct kit_listener *l, struct taker *t, size_t start)
{
    *t = (struct taker){.k = l->kit, .recv = {.done = on_take}, .start = start, .end = 1};
    kit_connect(l, &t->client, &t->server);
    START(t->k, io_recv(t->k->io, &t->recv, t->server->fd));
    io_turn(t->k->io, false);
}

static void give(struct taker *t, uint32_t len)
{
    kit_send(&t->client, pattern + t->start + t->sent, len);
    t->sent += len;
}

static void end(struct taker *t)
{
    put_all(t);
    if (t->server->fd >= 0)
        leave(t);
    KIT_UNTIL(t->k, t->end != 1);
    put_all(t); /* what came before the end */
    kit_disconnect(&t->client);
    kit_disconnect(t->server);
}

/* `count` buffers, and receives that fill `bundle` of them. */
static void open_ring(struct kit *k, struct kit_listener *l, uint32_t count, uint32_t bundle)
{
    struct io_params params = {
        .fd_count_max = 256, .recv_buf_count = count, .recv_buf_size = BUF, .cpu = -1};

    kit_fill(pattern, sizeof pattern, 0);
    *k = (struct kit){.c = &real, .io = create(&params)};
    k->io->recv_cap = bundle * BUF;
    kit_listen(k, l, 64);
}

/* Every buffer is there again, once. */
static void close_ring(struct kit *k, struct kit_listener *l)
{
    const struct io *io = k->io;
    bool there[HELD] = {false};

    cr_assert_eq(io->buf_free, io->buf_count);
    for (uint32_t i = 0; i < io->buf_count; i++) {
        uint16_t at = (uint16_t)(io->buf_ring->tail - 1 - i);
        const struct io_uring_buf *buf = &io->buf_ring->bufs[at & (io->buf_count - 1)];
        cr_assert_lt(buf->bid, io->buf_count);
        cr_assert_not(there[buf->bid]);
        there[buf->bid] = true;
        cr_assert_eq(io->buf_places[buf->bid].at, at);
    }
    kit_unlisten(l);
    kit_close(k);
}

Test(uring_recv, a_bundle_is_cut_into_its_buffers, .timeout = 60)
{
    struct kit k;
    struct kit_listener l;
    struct taker t;

    for (uint32_t bundle = 1; bundle <= 8; bundle++) {
        open_ring(&k, &l, 64, bundle);
        take(&l, &t, 5 * bundle);
        for (uint32_t len = 1; len < 6 * BUF; len += 311) {
            give(&t, len);
            KIT_UNTIL(&k, t.got == t.sent && t.client.send.done_count > 0);
            KIT_UNTIL(&k, !io_op_running(&t.client.send.op));
            put_all(&t);
        }
        if (k.io->recv_cap && bundle > 1) /* before Linux 6.17 there are none */
            cr_assert_lt(k.io->stats.completions, t.calls + 20, "else this test shows nothing");
        end(&t);
        close_ring(&k, &l);
    }
}

Test(uring_recv, a_ring_has_bundles_of_a_quarter_at_most)
{
    for (uint32_t count = 1; count <= 64; count *= 2) {
        struct io_params params = {
            .fd_count_max = 8, .recv_buf_count = count, .recv_buf_size = BUF, .cpu = -1};
        struct io *io = create(&params);
        cr_assert_eq(io->recv_cap,
                     count / RECV_BULK_SPARE >= RECV_BUNDLE ? RECV_BUNDLE * BUF : BUF);
        io_destroy(io);
    }
}

/* A kernel shortens the entry of a buffer at times, and leaves it so when nothing comes then. */
Test(uring_recv, a_buffer_is_as_long_as_its_entry_says, .timeout = 60)
{
    struct kit k;
    struct kit_listener l;
    struct taker t;

    open_ring(&k, &l, 16, 4);
    k.io->buf_ring->bufs[0].len = 100;
    k.io->buf_ring->bufs[5].len = 1;
    take(&l, &t, 0);
    for (int i = 0; i < 20; i++) {
        give(&t, 3500);
        KIT_UNTIL(&k, t.got == t.sent && !io_op_running(&t.client.send.op));
        put_all(&t);
    }
    end(&t);
    close_ring(&k, &l);
}

/* Who leaves in the middle still gets the rest, to put it back. */
Test(uring_recv, closed_in_the_middle_of_a_bundle, .timeout = 60)
{
    struct kit k;
    struct kit_listener l;
    struct taker t, other;

    for (uint32_t at = 1; at <= 4; at++) {
        open_ring(&k, &l, 16, 4);
        take(&l, &t, 3);
        take(&l, &other, 70000);
        t.leave_at = at;
        give(&t, 4 * BUF);
        KIT_UNTIL(&k, t.end != 1);
        cr_assert_eq(t.end, -ECANCELED);
        cr_assert_geq(t.calls, at);
        if (k.io->recv_cap)
            cr_assert_eq(t.got, 4 * BUF, "one completion brought it");
        cr_assert_eq(k.io->buf_free, 16 - t.held_count);
        for (uint32_t i = 0; t.held_count > 0; i++) /* neither in order nor against it */
            put(&t, i % t.held_count);
        end(&t);
        for (int i = 0; i < 20; i++) {
            give(&other, 5000);
            KIT_UNTIL(&k, other.got == other.sent && !io_op_running(&other.client.send.op));
            put_all(&other);
        }
        end(&other);
        close_ring(&k, &l);
    }
}

/* Pauses in the middle of a bundle lose nothing: the rest comes before the end is told. */
Test(uring_recv, cancelled_in_the_middle_of_a_bundle_and_started_again, .timeout = 60)
{
    struct kit k;
    struct kit_listener l;
    struct taker t;

    open_ring(&k, &l, 16, 4);
    take(&l, &t, 3);
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t calls = t.calls;
        give(&t, 4 * BUF - 17 * i);
        KIT_UNTIL(&k, t.calls > calls);
        START(&k, io_cancel(k.io, &t.recv));
        KIT_UNTIL(&k, t.end != 1);
        cr_assert_eq(t.end, -ECANCELED);
        put_all(&t);
        t.end = 1;
        START(&k, io_recv(k.io, &t.recv, t.server->fd));
        KIT_UNTIL(&k, t.got == t.sent && !io_op_running(&t.client.send.op));
        put_all(&t);
    }
    end(&t);
    close_ring(&k, &l);
}

/* Few buffers, many bundles: returned in any order, inside `done` and later, none is ever given to
 * two, and each byte comes to its place. */
Test(uring_recv, buffers_return_in_any_order, .timeout = 120)
{
    enum { TAKERS = 6, STEPS = 4000, LEN_MAX = 6000 };
    static struct taker t[TAKERS];
    struct kit k;
    struct kit_listener l;
    struct prng prng;

    for (uint32_t round = 0; round < 4; round++) {
        prng_seed(&prng, round);
        open_ring(&k, &l, round % 2 ? 8 : 16, 2 + round);
        for (uint32_t i = 0; i < TAKERS; i++) {
            take(&l, &t[i], 4099u * i);
            t[i].puts = &prng;
        }
        for (uint32_t step = 0; step < STEPS; step++) {
            struct taker *one = &t[prng_below(&prng, TAKERS)];
            uint32_t len = 1 + (uint32_t)prng_below(&prng, LEN_MAX);
            if (!io_op_running(&one->client.send.op) &&
                one->start + one->sent + len < sizeof pattern && prng_below(&prng, 3) == 0)
                give(one, len);
            if (one->held_count > 0)
                put(one, (uint32_t)prng_below(&prng, one->held_count));
            if (prng_below(&prng, 2) == 0)
                io_turn(k.io, false);
        }
        for (uint32_t i = 0; i < TAKERS; i++)
            while (t[i].got < t[i].sent || io_op_running(&t[i].client.send.op)) {
                for (uint32_t j = 0; j < TAKERS; j++)
                    put_all(&t[j]);
                turn(k.io);
            }
        for (uint32_t i = 0; i < TAKERS; i++)
            put_all(&t[i]);
        for (uint32_t i = 0; i < TAKERS; i++)
            end(&t[i]);
        close_ring(&k, &l);
    }
}

/* An upload holds all but the spare ones; those go by single buffers. */
Test(uring_recv, scarce_buffers_are_not_taken_by_bundles, .timeout = 60)
{
    enum { COUNT = 16, SPARE = COUNT / RECV_BULK_SPARE };
    struct kit k;
    struct kit_listener l;
    struct taker rich, poor;
    uint64_t completions;

    open_ring(&k, &l, COUNT, 4);
    take(&l, &rich, 0);
    for (int i = 0; i < COUNT - SPARE; i++) {
        give(&rich, BUF);
        KIT_UNTIL(&k, rich.got == rich.sent && !io_op_running(&rich.client.send.op));
    }
    cr_assert_eq(k.io->buf_free, SPARE);
    give(&rich, 4 * BUF);
    take(&l, &poor, 40000);
    completions = k.io->stats.completions;
    give(&poor, SPARE * BUF);
    KIT_UNTIL(&k, poor.got == poor.sent);
    cr_assert_lt(rich.got, rich.sent, "the spare ones are not for uploads");
    cr_assert_eq(poor.calls, SPARE);
    if (k.io->recv_cap)
        cr_assert_geq(k.io->stats.completions - completions, SPARE);
    put_all(&poor);
    put_all(&rich);
    KIT_UNTIL(&k, rich.got == rich.sent && !io_op_running(&rich.client.send.op));
    end(&rich);
    end(&poor);
    close_ring(&k, &l);
}

/* Who once filled buffer after buffer gets no more bundles: short commands beside it wait less. */
Test(uring_recv, an_upload_gets_no_bundles, .timeout = 60)
{
    struct kit k;
    struct kit_listener l;
    struct taker t;
    uint32_t lens[] = {2 * RECV_BULK_AFTER * BUF, 100, 4 * BUF};

    open_ring(&k, &l, 64, 4);
    take(&l, &t, 0);
    for (int i = 0; i < 3; i++) {
        uint64_t completions = k.io->stats.completions;
        uint32_t calls = t.calls;
        give(&t, lens[i]);
        KIT_UNTIL(&k, t.got == t.sent && !io_op_running(&t.client.send.op));
        put_all(&t);
        if (k.io->recv_cap && i == 2)
            cr_assert_geq(k.io->stats.completions - completions, t.calls - calls);
    }
    end(&t);
    close_ring(&k, &l);
}

/* Uploads that have nothing to send just now stand before those that have: the loop may not sleep
 * while there are buffers and somebody was not asked yet. */
Test(uring_recv, an_idle_upload_does_not_stop_the_turns_of_others, .timeout = 60)
{
    enum { UPLOADS = 40 };
    static struct taker t[UPLOADS];
    struct kit k;
    struct kit_listener l;

    open_ring(&k, &l, 4, 1);
    for (uint32_t i = 0; i < UPLOADS; i++)
        take(&l, &t[i], i);
    for (uint32_t i = 0; i < UPLOADS; i++)
        give(&t[i], (RECV_BULK_AFTER + 1) * BUF);
    for (uint32_t i = 0; i < UPLOADS; i++)
        while (t[i].got < t[i].sent || io_op_running(&t[i].client.send.op)) {
            for (uint32_t j = 0; j < UPLOADS; j++)
                put_all(&t[j]);
            turn(k.io);
        }
    for (uint32_t i = UPLOADS; i-- > 0;) {
        put_all(&t[i]);
        give(&t[i], BUF);
        KIT_UNTIL(&k, t[i].got == t[i].sent && !io_op_running(&t[i].client.send.op));
        put_all(&t[i]);
    }
    for (uint32_t i = 0; i < UPLOADS; i++)
        end(&t[i]);
    close_ring(&k, &l);
}
