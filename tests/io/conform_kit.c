/*
 * tests/io/conform_kit.c - operations, connections and waiting, as the conformance tests use them.
 */
#include "tests/io/conform_kit.h"

#define BUF_SIZE 4096u

void kit_open(struct kit *k, const struct conform *c, uint32_t fd_count, uint32_t buf_count)
{
    struct io_params params = {
        .fd_count_max = fd_count ? fd_count : 256,
        .queue_depth = 64, /* small, so that it runs full */
        .recv_buf_count = buf_count ? buf_count : 64,
        .recv_buf_size = BUF_SIZE,
        .cpu = -1,
    };
    *k = (struct kit){.c = c, .io = c->create(&params)};
    cr_assert_not_null(k->io);
}

void kit_close(struct kit *k)
{
    k->c->destroy(k->io);
}

static void op_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct kit_op *o = container_of(op, struct kit_op, op);

    cr_assert_eq(o->kit->starting, 0, "completed inside the call that started something");
    cr_assert_eq(flags & IO_MORE, 0);
    cr_assert_not(io_op_running(op));
    o->res = res;
    o->done_count++;
}

void kit_op_init(struct kit *k, struct kit_op *o)
{
    *o = (struct kit_op){.op = {.done = op_done}, .kit = k};
}

int32_t kit_wait(struct kit_op *o)
{
    KIT_UNTIL(o->kit, !io_op_running(&o->op));
    return o->res;
}

/* ---- connections ---- */

static void on_receive(struct io_op *op, int32_t res, uint32_t flags)
{
    struct kit_conn *conn = container_of(op, struct kit_conn, recv);

    cr_assert_eq(conn->kit->starting, 0, "completed inside the call that started something");
    if (res <= 0) {
        cr_assert_eq(flags & IO_MORE, 0);
        cr_assert_neq(res, -ENOBUFS);
        conn->end = res;
        return;
    }
    cr_assert(flags & IO_MORE);
    while (conn->got_cap - conn->got_len < (size_t)res) {
        conn->got_cap = conn->got_cap ? conn->got_cap * 2 : 256;
        conn->got = realloc(conn->got, conn->got_cap);
    }
    memcpy(conn->got + conn->got_len, op->data, (size_t)res);
    conn->got_len += (size_t)res;
    if (conn->hold) {
        cr_assert_lt(conn->held_count, 64u);
        conn->held[conn->held_count++] = op->buf_id;
    } else {
        io_buf_put(conn->kit->io, op->buf_id);
    }
}

void kit_conn_init(struct kit *k, struct kit_conn *conn, int32_t fd)
{
    *conn = (struct kit_conn){.kit = k, .fd = fd, .end = 1, .recv = {.done = on_receive}};
    kit_op_init(k, &conn->send);
}

void kit_receive(struct kit_conn *conn)
{
    conn->end = 1;
    START(conn->kit, io_recv(conn->kit->io, &conn->recv, conn->fd));
}

void kit_send(struct kit_conn *conn, const void *data, uint32_t len)
{
    START(conn->kit, io_send(conn->kit->io, &conn->send.op, conn->fd, data, len, IO_END_NONE));
}

void kit_send_last(struct kit_conn *conn, const void *data, uint32_t len)
{
    START(conn->kit, io_send(conn->kit->io, &conn->send.op, conn->fd, data, len, IO_END_SHUTDOWN));
}

void kit_release(struct kit_conn *conn)
{
    while (conn->held_count > 0)
        io_buf_put(conn->kit->io, conn->held[--conn->held_count]);
}

void kit_disconnect(struct kit_conn *conn)
{
    struct kit *k = conn->kit;

    kit_release(conn);
    conn->hold = false;
    START(k, io_cancel(k->io, &conn->recv));
    START(k, io_cancel(k->io, &conn->send.op));
    if (conn->fd >= 0)
        START(k, io_close(k->io, conn->fd));
    conn->fd = -1;
    KIT_UNTIL(k, !io_op_running(&conn->recv) && !io_op_running(&conn->send.op));
    free(conn->got);
    conn->got = NULL;
}

/* ---- listening ---- */

static void on_accept(struct io_acceptor *a, int32_t fd, const struct io_addr *peer)
{
    struct kit_listener *l = container_of(a, struct kit_listener, acceptor);

    cr_assert_eq(l->kit->starting, 0, "accepted inside the call that started something");
    cr_assert_not(l->stopped);
    if (fd < 0) {
        cr_assert_null(peer);
        l->errors++;
        l->last_error = fd;
        return;
    }
    cr_assert_lt(l->conn_count, l->conn_max);
    kit_conn_init(l->kit, &l->conns[l->conn_count], fd);
    l->conns[l->conn_count++].peer = *peer;
}

static void on_stopped(struct io_acceptor *a)
{
    struct kit_listener *l = container_of(a, struct kit_listener, acceptor);

    cr_assert_eq(l->kit->starting, 0, "stopped inside the call that asked for it");
    cr_assert_not(l->stopped);
    l->stopped = true;
}

void kit_listen(struct kit *k, struct kit_listener *l, uint32_t conn_max)
{
    struct io_listen_opts opts = {.backlog = 4096, .reuse_port = true};
    struct io_addr any;
    struct why why = {0};

    *l = (struct kit_listener){.kit = k,
                               .acceptor = {.on_accept = on_accept, .on_stopped = on_stopped},
                               .conns = calloc(conn_max, sizeof *l->conns),
                               .conn_max = conn_max};
    cr_assert(io_addr_parse(&any, SLICE_LIT("127.0.0.1"), 0));
    cr_assert(io_listen(k->io, &any, &opts, &l->fd, &why), "%s", why.text);
    cr_assert(io_local_addr(k->io, l->fd, &l->addr));
    cr_assert_neq(io_addr_port(&l->addr), 0);
    START(k, io_accept_start(k->io, &l->acceptor, l->fd));
}

void kit_unlisten(struct kit_listener *l)
{
    if (!l->acceptor.stopping)
        START(l->kit, io_accept_stop(l->kit->io, &l->acceptor));
    KIT_UNTIL(l->kit, l->stopped);
    io_close(l->kit->io, l->fd);
    free(l->conns);
}

void kit_connect(struct kit_listener *l, struct kit_conn *client, struct kit_conn **server)
{
    struct kit *k = l->kit;
    uint32_t before = l->conn_count;
    struct kit_op o;
    int32_t fd;

    kit_op_init(k, &o);
    START(k, io_connect(k->io, &o.op, &l->addr, NULL));
    fd = kit_wait(&o);
    cr_assert(fd >= 0, "connect: %d", fd);
    KIT_UNTIL(k, l->conn_count > before);
    kit_conn_init(k, client, fd);
    *server = &l->conns[before];
}

/* ---- files, bytes ---- */

const char *kit_path(const struct kit *k, const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", k->c->dir, name);
    return path;
}

int32_t kit_open_file(struct kit *k, const char *path, uint32_t flags)
{
    struct kit_op o;

    kit_op_init(k, &o);
    START(k, io_open(k->io, &o.op, path, flags));
    return kit_wait(&o);
}

uint8_t kit_byte(size_t i)
{
    return (uint8_t)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

void kit_fill(uint8_t *data, size_t len, size_t from)
{
    for (size_t i = 0; i < len; i++)
        data[i] = kit_byte(from + i);
}

bool kit_holds(const uint8_t *data, size_t len, size_t from)
{
    for (size_t i = 0; i < len; i++)
        if (data[i] != kit_byte(from + i))
            return false;
    return true;
}
