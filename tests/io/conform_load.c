/*
 * tests/io/conform_load.c - conformance: many connections, and what runs out.
 */
#include "tests/io/conform_kit.h"

void conform_many_connections(const struct conform *c)
{
    enum { COUNT = 3000 };
    static struct kit_conn clients[COUNT];
    static struct kit_op connects[COUNT];
    static char texts[COUNT][16];
    struct kit k;
    struct kit_listener l;

    kit_open(&k, c, 2 * COUNT + 8, 0);
    kit_listen(&k, &l, COUNT);
    for (int i = 0; i < COUNT; i++) {
        kit_op_init(&k, &connects[i]);
        START(&k, io_connect(k.io, &connects[i].op, &l.addr, NULL));
    }
    for (int i = 0; i < COUNT; i++) {
        int32_t fd = kit_wait(&connects[i]);
        cr_assert(fd >= 0, "connection %d: %d", i, fd);
        kit_conn_init(&k, &clients[i], fd);
        kit_receive(&clients[i]);
    }
    KIT_UNTIL(&k, l.conn_count == COUNT);
    for (int i = 0; i < COUNT; i++) {
        kit_receive(&l.conns[i]);
        snprintf(texts[i], sizeof texts[i], "c %d", i);
        kit_send(&clients[i], texts[i], 16);
    }
    for (int i = 0; i < COUNT; i++) { /* each server sends back what it got */
        KIT_UNTIL(&k, l.conns[i].got_len == 16);
        kit_send(&l.conns[i], l.conns[i].got, 16);
    }
    for (int i = 0; i < COUNT; i++) {
        KIT_UNTIL(&k, clients[i].got_len == 16);
        cr_assert_eq(memcmp(clients[i].got, texts[i], 16), 0, "nobody else's bytes");
    }
    for (int i = 0; i < COUNT; i++)
        kit_disconnect(&clients[i]);
    for (int i = 0; i < COUNT; i++) {
        KIT_UNTIL(&k, l.conns[i].end == 0);
        kit_disconnect(&l.conns[i]);
    }
    kit_unlisten(&l);
    kit_close(&k);
}

void conform_buffers_run_out(const struct conform *c)
{
    enum { COUNT = 8, LEN = 40000 };
    struct kit k;
    struct kit_listener l;
    struct kit_conn clients[COUNT], *server;
    uint8_t *data = malloc(LEN);
    uint32_t held = 0;

    kit_open(&k, c, 0, 4);
    kit_listen(&k, &l, COUNT);
    kit_fill(data, LEN, 0);
    for (int i = 0; i < COUNT; i++) {
        kit_connect(&l, &clients[i], &server);
        server->hold = true;
        kit_receive(server);
        kit_send(&clients[i], data, LEN);
    }
    for (int i = 0; i < 100; i++)
        io_turn(k.io, false);
    for (int i = 0; i < COUNT; i++) {
        held += l.conns[i].held_count;
        cr_assert_eq(l.conns[i].end, 1, "running out of buffers ends no receive");
    }
    cr_assert_eq(held, 4);
    cr_assert_gt(io_stats(k.io)->recv_buf_empty, 0u);
    for (int i = 0; i < COUNT; i++) {
        while (l.conns[i].got_len < LEN) {
            for (int j = 0; j < COUNT; j++)
                kit_release(&l.conns[j]);
            c->turn(k.io);
        }
        cr_assert(kit_holds(l.conns[i].got, LEN, 0));
        l.conns[i].hold = false;
        kit_release(&l.conns[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        kit_disconnect(&clients[i]);
        KIT_UNTIL(&k, l.conns[i].end == 0);
        kit_disconnect(&l.conns[i]);
    }
    kit_unlisten(&l);
    kit_close(&k);
    free(data);
}

void conform_parked_receive_is_cancelled(const struct conform *c)
{
    enum { COUNT = 4 };
    struct kit k;
    struct kit_listener l;
    struct kit_conn clients[COUNT], *server, *holder = NULL;

    kit_open(&k, c, 0, 1);
    kit_listen(&k, &l, COUNT);
    for (int i = 0; i < COUNT; i++) {
        kit_connect(&l, &clients[i], &server);
        server->hold = true;
        kit_receive(server);
        kit_send(&clients[i], "hello", 5);
    }
    for (int i = 0; i < 100; i++)
        io_turn(k.io, false);
    for (int i = 0; i < COUNT; i++) {
        if (l.conns[i].held_count > 0) {
            cr_assert_null(holder, "there is one buffer only");
            holder = &l.conns[i];
            continue;
        }
        START(&k, io_cancel(k.io, &l.conns[i].recv));
    }
    cr_assert_not_null(holder);
    for (int i = 0; i < COUNT; i++) {
        if (&l.conns[i] == holder)
            continue;
        KIT_UNTIL(&k, l.conns[i].end == -ECANCELED);
        cr_assert_eq(l.conns[i].got_len, 0);
    }
    kit_release(holder);
    for (int i = 0; i < COUNT; i++) {
        l.conns[i].hold = false;
        if (&l.conns[i] != holder)
            kit_receive(&l.conns[i]);
        KIT_UNTIL(&k, l.conns[i].got_len == 5);
        kit_disconnect(&clients[i]);
        KIT_UNTIL(&k, l.conns[i].end == 0);
        kit_disconnect(&l.conns[i]);
    }
    kit_unlisten(&l);
    kit_close(&k);
}

void conform_descriptors_come_back(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;

    kit_open(&k, c, 8, 0);
    kit_listen(&k, &l, 300);
    for (int i = 0; i < 300; i++) {
        kit_connect(&l, &client, &server);
        kit_receive(&client);
        if (i % 2) {
            kit_disconnect(server);
            KIT_UNTIL(&k, client.end == 0);
        } else {
            io_close(k.io, server->fd);
        }
        kit_disconnect(&client);
    }
    kit_unlisten(&l);
    kit_close(&k);
}

void conform_descriptors_run_out(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn clients[3], *server;
    struct kit_op o;
    int32_t last;

    kit_open(&k, c, 8, 0); /* the listener, three pairs, one more */
    kit_listen(&k, &l, 10);
    for (int i = 0; i < 3; i++)
        kit_connect(&l, &clients[i], &server);
    kit_op_init(&k, &o);
    START(&k, io_connect(k.io, &o.op, &l.addr, NULL));
    last = kit_wait(&o);
    cr_assert(last >= 0);
    KIT_UNTIL(&k, l.errors > 0);
    cr_assert(l.last_error == -ENFILE || l.last_error == -EMFILE);
    cr_assert_eq(l.errors, 1, "told once a pause");
    START(&k, io_connect(k.io, &o.op, &l.addr, NULL));
    cr_assert_eq(kit_wait(&o), -ENFILE);

    io_close(k.io, last);
    kit_disconnect(&clients[0]);
    kit_disconnect(&l.conns[0]);
    START(&k, io_connect(k.io, &o.op, &l.addr, NULL));
    last = kit_wait(&o);
    cr_assert(last >= 0);
    KIT_UNTIL(&k, l.conn_count > 3);
    io_close(k.io, last);
    kit_disconnect(&clients[1]);
    kit_disconnect(&clients[2]);
    for (uint32_t i = 1; i < l.conn_count; i++)
        kit_disconnect(&l.conns[i]);
    kit_unlisten(&l);
    kit_close(&k);
}

static void nothing(struct timer *t)
{
    (void)t;
}

/* More connections than descriptors, until every slot of the acceptor has failed. */
void conform_accept_pauses(const struct conform *c)
{
    enum { COUNT = 60, ROOM = 4 };
    struct kit k, other;
    struct kit_listener l;
    struct kit_op connects[COUNT];
    struct timer late = {.fire = nothing};

    kit_open(&k, c, ROOM + 1, 0);
    kit_open(&other, c, 0, 0);
    for (int round = 0; round < 2; round++) {
        uint64_t start = io_now_ns(k.io);
        kit_listen(&k, &l, ROOM);
        for (int i = 0; i < COUNT; i++) {
            kit_op_init(&other, &connects[i]);
            START(&other, io_connect(other.io, &connects[i].op, &l.addr, NULL));
        }
        for (int i = 0; i < 100; i++) {
            io_turn(other.io, false);
            io_turn(k.io, false);
        }
        cr_assert_eq(l.conn_count, ROOM);
        cr_assert_geq(l.errors, 1);
        cr_assert_leq(l.errors, 1 + (io_now_ns(k.io) - start) / (50 * NS_PER_MS), "once a pause");
        cr_assert(l.last_error == -ENFILE || l.last_error == -EMFILE);
        if (round == 1) { /* and once more after it, since nothing got better */
            uint64_t told = l.errors;
            KIT_UNTIL(&k, l.errors > told);
            cr_assert_geq(io_now_ns(k.io) - start, told * 50 * NS_PER_MS);
        }
        while (l.conn_count > 0)
            io_close(k.io, l.conns[--l.conn_count].fd);
        kit_unlisten(&l); /* while it pauses */
        for (int i = 0; i < COUNT; i++)
            if (kit_wait(&connects[i]) >= 0)
                io_close(other.io, connects[i].res);
        io_turn(other.io, false);
        /* Nothing of it wakes up after the pause. */
        io_timer_set(k.io, &late, io_now_ns(k.io) + 150 * NS_PER_MS);
        KIT_UNTIL(&k, !timer_is_set(&late));
    }
    kit_close(&other);
    kit_close(&k);
}

/* Descriptors are reused while cancelled receives still end: nobody may hear what is meant for
 * another. */
void conform_close_after_cancel(const struct conform *c)
{
    enum { COUNT = 200 };
    static struct kit_conn clients[COUNT];
    static char texts[COUNT][16];
    struct kit k;
    struct kit_listener l;
    struct kit_conn *server;

    kit_open(&k, c, 16, 0);
    kit_listen(&k, &l, COUNT);
    for (int i = 0; i < COUNT; i++) {
        kit_connect(&l, &clients[i], &server);
        snprintf(texts[i], sizeof texts[i], "m %d", i);
        kit_receive(server);
        kit_receive(&clients[i]);
        kit_send(&clients[i], texts[i], 16);
        for (int turns = 0; turns < i % 3; turns++)
            io_turn(k.io, false);
        /* All at once, and on to the next without waiting. */
        START(&k, io_cancel(k.io, &server->recv));
        START(&k, io_close(k.io, server->fd));
        START(&k, io_cancel(k.io, &clients[i].send.op));
        START(&k, io_cancel(k.io, &clients[i].recv));
        START(&k, io_close(k.io, clients[i].fd));
        clients[i].fd = server->fd = -1;
    }
    for (int i = 0; i < COUNT; i++) {
        kit_disconnect(&clients[i]);
        cr_assert_eq(clients[i].send.done_count, 1);
        cr_assert_eq(clients[i].got_len, 0);
        KIT_UNTIL(&k, !io_op_running(&l.conns[i].recv));
        cr_assert_leq(l.conns[i].got_len, 16u);
        if (l.conns[i].got_len > 0)
            cr_assert_eq(memcmp(l.conns[i].got, texts[i], l.conns[i].got_len), 0);
        kit_disconnect(&l.conns[i]);
    }
    kit_unlisten(&l);
    kit_close(&k);
}
