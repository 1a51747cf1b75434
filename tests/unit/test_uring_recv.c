/*
 * tests/unit/test_uring_recv.c - the io_uring backend: whose turn it is to receive, and that
 * every buffer comes back.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

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
    uint32_t held_count;
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

static void open_ring(struct kit *k, struct kit_listener *l, uint32_t count)
{
    struct io_params params = {
        .fd_count_max = 256, .recv_buf_count = count, .recv_buf_size = BUF, .cpu = -1};

    kit_fill(pattern, sizeof pattern, 0);
    *k = (struct kit){.c = &real, .io = create(&params)};
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
    }
    kit_unlisten(l);
    kit_close(k);
}

/* Uploads that have nothing to send just now stand before those that have: the loop may not sleep
 * while there are buffers and somebody was not asked yet. */
Test(uring_recv, an_idle_upload_does_not_stop_the_turns_of_others, .timeout = 60)
{
    enum { UPLOADS = 40 };
    static struct taker t[UPLOADS];
    struct kit k;
    struct kit_listener l;

    open_ring(&k, &l, 4);
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
