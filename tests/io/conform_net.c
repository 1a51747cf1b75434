/*
 * tests/io/conform_net.c - conformance: connections, their data and their ends.
 */
#include "tests/io/conform_kit.h"

#define MANY (4u << 20)

void conform_echo(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;
    struct io_addr local;

    kit_open(&k, c, 0, 0);
    kit_listen(&k, &l, 1);
    kit_connect(&l, &client, &server);
    if (io_local_addr(k.io, client.fd, &local)) /* not every kernel tells */
        cr_assert_eq(io_addr_port(&local), io_addr_port(&server->peer));
    cr_assert_eq(server->peer.in.sin_addr.s_addr, htonl(INADDR_LOOPBACK));

    kit_receive(&client);
    kit_receive(server);
    for (int round = 0; round < 100; round++) {
        char text[32];
        uint32_t len = (uint32_t)snprintf(text, sizeof text, "round %d\r\n", round);
        size_t client_had = client.got_len, server_had = server->got_len;

        kit_send(&client, text, len);
        KIT_UNTIL(&k, server->got_len == server_had + len);
        cr_assert_eq(memcmp(server->got + server_had, text, len), 0);
        cr_assert_eq(kit_wait(&client.send), (int32_t)len);
        kit_send(server, server->got + server_had, len);
        KIT_UNTIL(&k, client.got_len == client_had + len);
        cr_assert_eq(memcmp(client.got + client_had, text, len), 0);
        cr_assert_eq(kit_wait(&server->send), (int32_t)len);
    }
    kit_send(&client, "", 0);
    cr_assert_eq(kit_wait(&client.send), 0);

    io_shutdown(k.io, client.fd);
    KIT_UNTIL(&k, server->end == 0);
    cr_assert(io_op_running(&client.recv), "one direction ends, the other goes on");
    kit_send(server, "bye", 3);
    KIT_UNTIL(&k, client.got_len >= 3 && memcmp(client.got + client.got_len - 3, "bye", 3) == 0);
    kit_disconnect(server);
    KIT_UNTIL(&k, client.end == 0);
    kit_disconnect(&client);
    kit_unlisten(&l);
    kit_close(&k);
}

/* A kit with a listener; MANY bytes to send, to be freed. */
static uint8_t *open_with_many(struct kit *k, struct kit_listener *l, const struct conform *c,
                               uint32_t conn_max)
{
    uint8_t *data = malloc(MANY);

    kit_open(k, c, 0, 8);
    kit_listen(k, l, conn_max);
    kit_fill(data, MANY, 0);
    return data;
}

void conform_slow_reader(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;
    uint8_t *data = open_with_many(&k, &l, c, 1);

    kit_connect(&l, &client, &server);
    kit_send(&client, data, MANY);
    /* Nobody reads: the kernel's buffers take some, the send must wait. */
    for (int i = 0; i < 50; i++)
        io_turn(k.io, false);
    cr_assert(io_op_running(&client.send.op));
    kit_receive(server);
    KIT_UNTIL(&k, server->got_len == MANY);
    cr_assert_eq(kit_wait(&client.send), (int32_t)MANY);
    cr_assert(kit_holds(server->got, MANY, 0));
    kit_disconnect(&client);
    KIT_UNTIL(&k, server->end == 0);
    kit_disconnect(server);
    kit_unlisten(&l);
    kit_close(&k);
    free(data);
}

/* The end comes behind the last byte, however slowly that is read; the other direction goes on. */
void conform_send_last(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;
    uint8_t *data = open_with_many(&k, &l, c, 4);

    for (int i = 0; i < 2; i++) {
        uint32_t len = i ? MANY : 1;
        kit_connect(&l, &client, &server);
        kit_receive(&client);
        kit_send_last(&client, data, len);
        for (int turns = 0; turns < 20; turns++)
            io_turn(k.io, false);
        kit_receive(server);
        KIT_UNTIL(&k, server->end == 0);
        cr_assert_eq(server->got_len, len);
        cr_assert(kit_holds(server->got, len, 0));
        cr_assert_eq(kit_wait(&client.send), (int32_t)len);
        kit_send(server, "bye", 3);
        KIT_UNTIL(&k, client.got_len == 3);
        kit_send(&client, "x", 1);
        cr_assert_eq(kit_wait(&client.send), -EPIPE);
        kit_disconnect(server);
        KIT_UNTIL(&k, client.end == 0);
        kit_disconnect(&client);
    }
    /* What was held back for the close comes before the end. */
    kit_connect(&l, &client, &server);
    START(&k, io_send(k.io, &client.send.op, client.fd, data, 100, IO_END_CLOSE));
    cr_assert_eq(kit_wait(&client.send), 100);
    kit_disconnect(&client);
    kit_receive(server);
    KIT_UNTIL(&k, server->end == 0);
    cr_assert(server->got_len == 100 && kit_holds(server->got, 100, 0));
    kit_disconnect(server);
    /* One that is cancelled ends nothing. */
    kit_connect(&l, &client, &server);
    kit_send_last(&client, data, MANY);
    for (int i = 0; i < 20; i++)
        io_turn(k.io, false);
    START(&k, io_cancel(k.io, &client.send.op));
    cr_assert_eq(kit_wait(&client.send), -ECANCELED);
    kit_send(&client, "x", 1);
    kit_receive(server);
    KIT_UNTIL(&k, server->got_len > 0 && server->got[server->got_len - 1] == 'x');
    cr_assert_eq(server->end, 1);
    kit_disconnect(&client);
    KIT_UNTIL(&k, server->end == 0);
    kit_disconnect(server);
    kit_unlisten(&l);
    kit_close(&k);
    free(data);
}

void conform_close_with_data(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;
    uint8_t data[30000];

    kit_open(&k, c, 0, 0);
    kit_listen(&k, &l, 1);
    kit_connect(&l, &client, &server);
    kit_fill(data, sizeof data, 5);
    kit_send(&client, data, sizeof data);
    cr_assert_eq(kit_wait(&client.send), (int32_t)sizeof data);
    kit_disconnect(&client); /* what was sent still arrives, then the end */
    kit_receive(server);
    KIT_UNTIL(&k, server->end <= 0);
    cr_assert_eq(server->end, 0);
    cr_assert_eq(server->got_len, sizeof data);
    cr_assert(kit_holds(server->got, sizeof data, 5));
    kit_disconnect(server);
    kit_unlisten(&l);
    kit_close(&k);
}

/* Closing with data that was not read tells the peer that it got lost. */
void conform_reset(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;

    kit_open(&k, c, 0, 0);
    kit_listen(&k, &l, 1);
    kit_connect(&l, &client, &server);
    kit_send(&client, "unread", 6);
    cr_assert_eq(kit_wait(&client.send), 6);
    kit_receive(&client);
    for (int i = 0; i < 10; i++)
        io_turn(k.io, false);
    kit_disconnect(server);
    KIT_UNTIL(&k, client.end <= 0);
    cr_assert_eq(client.end, -ECONNRESET);
    kit_send(&client, "more", 4);
    cr_assert_eq(kit_wait(&client.send), -EPIPE);
    kit_disconnect(&client);
    kit_unlisten(&l);
    kit_close(&k);
}

void conform_connect_errors(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct kit_op o;

    kit_open(&k, c, 0, 0);
    kit_listen(&k, &l, 1);
    kit_unlisten(&l); /* its port is now nobody's */
    for (int i = 0; i < 3; i++)
        io_turn(k.io, false);
    kit_op_init(&k, &o);
    for (int i = 0; i < 300; i++) { /* more often than there are descriptors */
        START(&k, io_connect(k.io, &o.op, &l.addr, NULL));
        cr_assert_eq(kit_wait(&o), -ECONNREFUSED);
    }
    kit_close(&k);
}

void conform_source_address(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct io_addr from;
    struct kit_op o;
    int32_t fd;

    kit_open(&k, c, 0, 0);
    kit_listen(&k, &l, 1);
    cr_assert(io_addr_parse(&from, SLICE_LIT("127.0.0.9"), 0));
    kit_op_init(&k, &o);
    START(&k, io_connect(k.io, &o.op, &l.addr, &from));
    fd = kit_wait(&o);
    cr_assert(fd >= 0);
    KIT_UNTIL(&k, l.conn_count == 1);
    cr_assert_eq(l.conns[0].peer.in.sin_addr.s_addr, from.in.sin_addr.s_addr);
    io_close(k.io, fd);
    io_close(k.io, l.conns[0].fd);

    cr_assert(io_addr_parse(&from, SLICE_LIT("192.0.2.7"), 0)); /* not ours */
    START(&k, io_connect(k.io, &o.op, &l.addr, &from));
    cr_assert_eq(kit_wait(&o), -EADDRNOTAVAIL);
    kit_unlisten(&l);
    kit_close(&k);
}

void conform_bad_fd(const struct conform *c)
{
    struct kit k;
    struct kit_op o;
    char byte = 0;
    static const int32_t bad[] = {-1, 7, 100000};

    kit_open(&k, c, 0, 0);
    kit_op_init(&k, &o);
    for (int i = 0; i < 3; i++) {
        START(&k, io_send(k.io, &o.op, bad[i], "x", 1, IO_END_NONE));
        cr_assert_eq(kit_wait(&o), -EBADF);
        START(&k, io_recv(k.io, &o.op, bad[i]));
        cr_assert_eq(kit_wait(&o), -EBADF);
        START(&k, io_read(k.io, &o.op, bad[i], &byte, 1, 0));
        cr_assert_eq(kit_wait(&o), -EBADF);
        START(&k, io_write_sync(k.io, &o.op, bad[i], &byte, 1, 0));
        cr_assert_eq(kit_wait(&o), -EBADF);
        START(&k, io_sync(k.io, &o.op, bad[i]));
        cr_assert_eq(kit_wait(&o), -EBADF);
    }
    kit_close(&k);
}

void conform_listen_errors(const struct conform *c)
{
    struct kit k;
    struct kit_listener l;
    struct io_listen_opts opts = {.backlog = 5};
    struct io_addr addr;
    struct why why = {0};
    int32_t fd;

    kit_open(&k, c, 0, 0);
    kit_listen(&k, &l, 1);
    cr_assert_not(io_listen(k.io, &l.addr, &opts, &fd, &why));
    cr_assert_not_null(strstr(why.text, "127.0.0.1:"), "%s", why.text);
    cr_assert_not_null(strstr(why.text, "another program"), "%s", why.text);
    cr_assert(io_addr_parse(&addr, SLICE_LIT("192.0.2.1"), 0));
    cr_assert_not(io_listen(k.io, &addr, &opts, &fd, &why));
    cr_assert_not_null(strstr(why.text, "192.0.2.1:0"), "%s", why.text);
    kit_unlisten(&l);
    kit_close(&k);
}

/* Who is told that a listener is closed may rely on it, before another turn of its owner. */
void conform_listener_ends(const struct conform *c)
{
    struct kit k, other;
    struct kit_listener l, second;
    struct kit_op o;
    struct io_addr addr;
    struct io_listen_opts opts = {.backlog = 5};
    struct why why = {0};
    int32_t fd;

    kit_open(&k, c, 0, 0);
    kit_open(&other, c, 0, 0);
    for (int round = 0; round < 20; round++) {
        kit_listen(&k, &l, 1);
        kit_listen(&k, &second, 1);
        addr = l.addr;
        kit_unlisten(&l);
        kit_op_init(&other, &o);
        START(&other, io_connect(other.io, &o.op, &addr, NULL));
        cr_assert_eq(kit_wait(&o), -ECONNREFUSED, "round %d", round);
        cr_assert(io_listen(other.io, &addr, &opts, &fd, &why), "%s", why.text);
        cr_assert(io_local_addr(other.io, fd, &addr));
        cr_assert_eq(io_addr_port(&addr), io_addr_port(&l.addr));
        io_close(other.io, fd); /* one that never accepted */
        kit_op_init(&other, &o);
        START(&other, io_connect(other.io, &o.op, &addr, NULL));
        cr_assert_eq(kit_wait(&o), -ECONNREFUSED, "round %d", round);
        kit_unlisten(&second);
    }
    kit_close(&other);
    kit_close(&k);
}

/* Several listeners on an address: each connection comes to one of them. */
void conform_reuse_port(const struct conform *c)
{
    enum { COUNT = 40 };
    struct io_listen_opts opts = {.backlog = 100, .reuse_port = true};
    struct kit k;
    struct kit_listener one, two;
    struct kit_op ops[COUNT];
    struct why why = {0};
    int32_t fd;

    kit_open(&k, c, 0, 0);
    kit_listen(&k, &one, COUNT);
    two = (struct kit_listener){.kit = &k,
                                .acceptor = one.acceptor,
                                .conns = calloc(COUNT, sizeof *two.conns),
                                .conn_max = COUNT};
    cr_assert(io_listen(k.io, &one.addr, &opts, &two.fd, &why), "%s", why.text);
    START(&k, io_accept_start(k.io, &two.acceptor, two.fd));
    opts.reuse_port = false;
    cr_assert_not(io_listen(k.io, &one.addr, &opts, &fd, &why), "not for one that will not share");
    for (int i = 0; i < COUNT; i++) {
        kit_op_init(&k, &ops[i]);
        START(&k, io_connect(k.io, &ops[i].op, &one.addr, NULL));
    }
    for (int i = 0; i < COUNT; i++)
        cr_assert(kit_wait(&ops[i]) >= 0, "%d", ops[i].res);
    KIT_UNTIL(&k, one.conn_count + two.conn_count == COUNT);
    cr_assert(one.conn_count > 0 && two.conn_count > 0);
    for (int i = 0; i < COUNT; i++)
        io_close(k.io, ops[i].res);
    for (uint32_t i = 0; i < one.conn_count; i++)
        io_close(k.io, one.conns[i].fd);
    for (uint32_t i = 0; i < two.conn_count; i++)
        io_close(k.io, two.conns[i].fd);
    kit_unlisten(&one);
    kit_unlisten(&two);
    kit_close(&k);
}
