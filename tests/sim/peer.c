/*
 * tests/sim/peer.c - connections of scripted clients and next hops, over the same io.h as the
 * gateway's own.
 *
 * Owns:     the buffers of a connection, until on_freed.
 * Runs on:  the one thread of a simulation.
 * Contract: input is kept until consumed; output goes out in order, in pieces and with pauses where
 *           the script wants it, and is cut at any byte.
 * Failure:  on_end, once.
 * Bounds:   none; scripts are small.
 * Tests:    tests/sim (every run)
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/world.h"

void machine_start(struct world *w, struct machine *m, const char *name, const char *address)
{
    struct io_params p = {
        .fd_count_max = 4096, .recv_buf_count = 256, .recv_buf_size = 4096, .cpu = -1};
    struct why why;
    m->w = w;
    m->host = sim_host_add(w->sim, name, address);
    sim_host_enter(m->host);
    m->io = io_create(&p, &why);
    bool ok = m->io && io_addr_parse(&m->addr, slice_str(address), 25);
    assert(ok);
    (void)ok;
}

static void peer_maybe_freed(struct peer *p)
{
    if (!p->closing || io_op_running(&p->connect) || io_op_running(&p->recv) ||
        io_op_running(&p->send))
        return;
    if (p->fd >= 0)
        io_close(p->machine->io, p->fd);
    p->fd = -1;
    free(p->in);
    free(p->out);
    free(p->sending);
    p->in = p->out = p->sending = NULL;
    p->on_freed(p);
}

void peer_drop(struct peer *p)
{
    struct io *io = p->machine->io;
    if (p->closing)
        return;
    p->closing = true;
    io_timer_clear(io, &p->timer);
    io_timer_clear(io, &p->pause);
    if (io_op_running(&p->connect))
        io_cancel(io, &p->connect);
    if (io_op_running(&p->recv))
        io_cancel(io, &p->recv);
    if (io_op_running(&p->send))
        io_cancel(io, &p->send);
    /* Freed by the pause timer, so that the caller may still look at it. */
    io_timer_set(io, &p->pause, io_now_ns(io));
}

/* ---- sending ---- */

static void peer_flush(struct peer *p)
{
    uint32_t len = p->out_len;
    if (p->closing || p->fd < 0 || io_op_running(&p->send) || p->paused || len == 0)
        return;
    if (p->piece_max && len > p->piece_max)
        len = p->piece_max;
    if (p->cut_after && p->sent + len > p->cut_after)
        len = (uint32_t)(p->cut_after - p->sent);
    if (len == 0)
        return;
    p->sending = realloc(p->sending, len);
    memcpy(p->sending, p->out, len);
    memmove(p->out, p->out + len, p->out_len - len);
    p->out_len -= len;
    p->sending_len = len;
    p->sent += len;
    if (p->mark && p->sent >= p->mark_at) {
        *p->mark = true;
        p->mark = NULL;
    }
    io_send(p->machine->io, &p->send, p->fd, p->sending, len, IO_END_NONE);
}

static void peer_sent(struct io_op *op, int32_t res, uint32_t flags)
{
    struct peer *p = container_of(op, struct peer, send);
    (void)flags;
    if (p->closing)
        return;
    if (res < 0) {
        p->on_end(p, res);
        return;
    }
    if (p->cut_after && p->sent >= p->cut_after) {
        p->on_end(p, -ECANCELED);
        return;
    }
    if (p->pause_ns && p->out_len) {
        p->paused = true;
        io_timer_set(p->machine->io, &p->pause, io_now_ns(p->machine->io) + p->pause_ns);
        return;
    }
    peer_flush(p);
}

static void peer_pause_over(struct timer *t)
{
    struct peer *p = container_of(t, struct peer, pause);
    if (p->closing) {
        if (io_op_running(&p->connect) || io_op_running(&p->recv) || io_op_running(&p->send))
            io_timer_set(p->machine->io, t, io_now_ns(p->machine->io) + NS_PER_MS);
        else
            peer_maybe_freed(p);
        return;
    }
    p->paused = false;
    peer_flush(p);
}

void peer_send(struct peer *p, const void *data, uint32_t len)
{
    if (p->closing)
        return;
    if (p->out_len + len > p->out_cap) {
        p->out_cap = (p->out_len + len) * 2;
        p->out = realloc(p->out, p->out_cap);
    }
    memcpy(p->out + p->out_len, data, len);
    p->out_len += len;
    peer_flush(p);
}

void peer_sendf(struct peer *p, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < sizeof text);
    peer_send(p, text, (uint32_t)n);
}

bool peer_idle(const struct peer *p)
{
    return p->out_len == 0 && !io_op_running(&p->send);
}

/* ---- receiving ---- */

static void peer_received(struct io_op *op, int32_t res, uint32_t flags)
{
    struct peer *p = container_of(op, struct peer, recv);
    (void)flags;
    if (res > 0) {
        if (!p->closing) {
            if (p->in_len + (uint32_t)res > p->in_cap) {
                p->in_cap = (p->in_len + (uint32_t)res) * 2;
                p->in = realloc(p->in, p->in_cap);
            }
            memcpy(p->in + p->in_len, op->data, (uint32_t)res);
            p->in_len += (uint32_t)res;
        }
        io_buf_put(p->machine->io, op->buf_id);
        if (!p->closing)
            p->on_input(p);
        return;
    }
    if (p->closing)
        return;
    p->eof = true;
    p->on_end(p, res);
}

void peer_consume(struct peer *p, uint32_t len)
{
    assert(len <= p->in_len);
    memmove(p->in, p->in + len, p->in_len - len);
    p->in_len -= len;
}

static void peer_connected(struct io_op *op, int32_t res, uint32_t flags)
{
    struct peer *p = container_of(op, struct peer, connect);
    (void)flags;
    if (res >= 0)
        p->fd = res;
    if (p->closing)
        return;
    if (res >= 0)
        io_recv(p->machine->io, &p->recv, p->fd);
    p->on_open(p, res);
}

void peer_init(struct peer *p, struct machine *m)
{
    memset(p, 0, sizeof *p);
    p->machine = m;
    p->fd = -1;
    p->connect.done = peer_connected;
    p->recv.done = peer_received;
    p->send.done = peer_sent;
    p->pause.fire = peer_pause_over;
}

void peer_connect(struct peer *p, const struct io_addr *to)
{
    io_connect(p->machine->io, &p->connect, to, NULL);
}

void peer_attach(struct peer *p, int32_t fd)
{
    p->fd = fd;
    io_recv(p->machine->io, &p->recv, fd);
}
