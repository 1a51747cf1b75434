/*
 * tests/io/conform_cancel.c - conformance: operations that are asked to end.
 */
#include "tests/io/conform_kit.h"

void conform_cancel_receive(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;
    uint8_t data[20000];

    kit_open(&k, c, 0, 0);
    kit_listen(&k, &l, 1);
    kit_connect(&l, &client, &server);
    for (int turns = 0; turns < 3; turns++) { /* before it started, just started, waiting */
        kit_receive(server);
        for (int i = 0; i < turns; i++)
            io_turn(k.io, false);
        START(&k, io_cancel(k.io, &server->recv));
        START(&k, io_cancel(k.io, &server->recv));
        cr_assert(io_op_running(&server->recv));
        KIT_UNTIL(&k, !io_op_running(&server->recv));
        cr_assert_eq(server->end, -ECANCELED);
    }
    /* With data on the way: what was not delivered before the end comes with the next receive. */
    kit_fill(data, sizeof data, 0);
    kit_send(&client, data, sizeof data);
    for (int turns = 0; turns < 4; turns++) {
        kit_receive(server);
        for (int i = 0; i < turns; i++)
            io_turn(k.io, false);
        START(&k, io_cancel(k.io, &server->recv));
        KIT_UNTIL(&k, !io_op_running(&server->recv));
    }
    kit_receive(server);
    KIT_UNTIL(&k, server->got_len == sizeof data);
    cr_assert(kit_holds(server->got, sizeof data, 0));
    cr_assert_eq(kit_wait(&client.send), (int32_t)sizeof data);
    kit_disconnect(server);
    kit_disconnect(&client);
    kit_unlisten(&l);
    kit_close(&k);
}

void conform_cancel_send(const struct conform *c)
{
    enum { LEN = 8 << 20 };
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;
    uint8_t *data = calloc(1, LEN);

    kit_open(&k, c, 0, 0);
    kit_listen(&k, &l, 1);
    kit_connect(&l, &client, &server);
    for (int i = 0; i < 3; i++) { /* nobody reads */
        kit_send(&client, data, LEN);
        for (int turns = 0; turns < 20 * i; turns++)
            io_turn(k.io, false);
        cr_assert(io_op_running(&client.send.op));
        START(&k, io_cancel(k.io, &client.send.op));
        cr_assert_eq(kit_wait(&client.send), -ECANCELED);
    }
    kit_disconnect(&client);
    kit_disconnect(server);
    kit_unlisten(&l);
    kit_close(&k);
    free(data);
}

void conform_cancel_connect(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_op o;
    int32_t fd;

    kit_open(&k, c, 16, 0);
    kit_listen(&k, &l, 100);
    kit_op_init(&k, &o);
    for (int i = 0; i < 60; i++) { /* more often than there are descriptors */
        START(&k, io_connect(k.io, &o.op, &l.addr, NULL));
        for (int turns = 0; turns < i % 3; turns++)
            io_turn(k.io, false);
        START(&k, io_cancel(k.io, &o.op));
        fd = kit_wait(&o);
        if (fd >= 0)
            io_close(k.io, fd);
        else
            cr_assert_eq(fd, -ECANCELED);
        while (l.conn_count > 0)
            io_close(k.io, l.conns[--l.conn_count].fd);
    }
    kit_unlisten(&l);
    while (l.conn_count > 0)
        cr_assert_fail("accepted after the last turn");
    kit_close(&k);
}

void conform_cancel_idle(const struct conform *c)
{
    struct kit k;
    struct kit_op o;

    kit_open(&k, c, 0, 0);
    kit_op_init(&k, &o);
    START(&k, io_cancel(k.io, &o.op));
    io_turn(k.io, false);
    cr_assert_eq(o.done_count, 0);
    cr_assert_not(io_op_running(&o.op));
    kit_close(&k);
}

/* One of each that names a file; what was opened is closed again. */
static void start_file(struct kit *k, struct kit_op *o, int which, int32_t fd, const char *path,
                       const char *other)
{
    static uint8_t data[5000];

    switch (which) {
    case 0: io_write(k->io, &o->op, fd, data, sizeof data, 0); break;
    case 1: io_write_sync(k->io, &o->op, fd, data, sizeof data, 0); break;
    case 2: io_sync(k->io, &o->op, fd); break;
    case 3: io_allocate(k->io, &o->op, fd, 0, 20000); break;
    case 4: io_open(k->io, &o->op, path, IO_READ); break;
    case 5: io_file_size(k->io, &o->op, path); break;
    default: io_rename(k->io, &o->op, path, other); break;
    }
}

/* Ends once: with its result, or as if it had never been. */
void conform_cancel_file(const struct conform *c)
{
    enum { ROUNDS = 350, KINDS = 7 };
    char path[256], other[256];
    struct kit k;
    struct kit_op o;
    int32_t fd;

    kit_open(&k, c, 8, 0); /* an open that is lost would soon be missed */
    fd = kit_open_file(&k, kit_path(&k, "file", path), IO_READ | IO_WRITE | IO_CREATE);
    cr_assert(fd >= 0);
    kit_path(&k, "other", other);
    for (int i = 0; i < ROUNDS; i++) {
        int which = i % KINDS;
        int32_t res;
        kit_op_init(&k, &o);
        START(&k, start_file(&k, &o, which, fd, path, other));
        for (int turns = 0; turns < i / KINDS % 3; turns++)
            io_turn(k.io, false);
        START(&k, io_cancel(k.io, &o.op));
        START(&k, io_cancel(k.io, &o.op));
        res = kit_wait(&o);
        cr_assert_eq(o.done_count, 1);
        if (which < 2)
            cr_assert(res == 5000 || res == -ECANCELED, "%d: %d", which, res);
        else
            cr_assert(res == 0 || res == -ECANCELED || (which == 4 && res > 0), "%d: %d", which,
                      res);
        if (which == 4 && res >= 0)
            io_close(k.io, res);
        if (which == 6 && res == 0) { /* and back */
            START(&k, io_rename(k.io, &o.op, other, path));
            cr_assert_eq(kit_wait(&o), 0);
        }
    }
    for (int turns = 0; turns < 10; turns++) /* nothing more comes of it */
        io_turn(k.io, false);
    io_close(k.io, fd);
    kit_close(&k);
}

void conform_accept_stop(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;

    kit_open(&k, c, 0, 0);
    kit_listen(&k, &l, 10);
    for (int i = 0; i < 4; i++) {
        if (i % 2) {
            kit_connect(&l, &client, &server);
            kit_disconnect(&client);
            kit_disconnect(server);
        }
        START(&k, io_accept_stop(k.io, &l.acceptor));
        cr_assert_not(l.stopped);
        KIT_UNTIL(&k, l.stopped);
        for (int turns = 0; turns < 5; turns++)
            io_turn(k.io, false); /* a second on_stopped would fail here */
        l.stopped = false;
        START(&k, io_accept_start(k.io, &l.acceptor, l.fd));
    }
    kit_connect(&l, &client, &server);
    kit_disconnect(&client);
    kit_disconnect(server);
    kit_unlisten(&l);
    kit_close(&k);
}
