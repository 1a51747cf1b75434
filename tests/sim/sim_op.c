/*
 * tests/sim/sim_op.c - the simulated backend: operations from start to last completion.
 *
 * Owns:     the calls that operations under way have, pooled; the results of an io.
 * Runs on:  the one thread of the simulation.
 * Contract: an operation is idle before its last `done` begins; results of one operation keep
 *           their order, those of different ones may change places.
 * Failure:  wrong use of an operation aborts.
 * Bounds:   memory.
 * Tests:    tests/sim/test_io_sim.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

#define SUM_FACTOR     0x9e3779b97f4a7c15u
#define CANCEL_NS      (3 * NS_PER_US)
#define CANCEL_LATE_NS (20 * NS_PER_MS)

/* ---- calls ---- */

static struct sim_call *call_take(struct io *io)
{
    struct list *l = list_pop_front(&io->sim->free_calls);
    struct sim_call *c = l ? container_of(l, struct sim_call, link) : malloc(sizeof *c);

    SIM_CHECK(c, "no memory");
    *c = (struct sim_call){.io = io, .fd = -1};
    list_push_back(&io->calls, &c->link);
    list_init(&c->wait);
    return c;
}

void sim_call_free(struct sim_call *c)
{
    timer_heap_clear(&c->io->sim->events, &c->timer);
    list_remove(&c->wait);
    list_remove(&c->link);
    list_push_front(&c->io->sim->free_calls, &c->link);
}

struct sim_call *sim_call_start(struct io *io, struct io_op *op, enum sim_kind kind,
                                const void *from)
{
    struct sim_call *c;

    SIM_CHECK(op->state == SIM_IDLE, "%s: the operation is running already (%s)",
              sim_kind_name(kind), io->host->name);
    SIM_CHECK(op->done, "%s: no `done`", sim_kind_name(kind));
    c = call_take(io);
    c->op = op;
    c->kind = (uint8_t)kind;
    c->site = sim_site_of(io->host, kind, from);
    c->asked = (uint8_t)sim_site_fault(io->host, c->site);
    op->kind = (uint8_t)kind;
    op->state = SIM_RUNNING;
    op->flags = 0;
    op->fd = -1;
    op->res = 0;
    op->sent = 0;
    op->ptr = c;
    io->running++;
    io->stats.submits++;
    return c;
}

struct sim_call *sim_call_start_fd(struct io *io, struct io_op *op, enum sim_kind kind, int32_t fd,
                                   enum sim_fd_kind fd_kind, const void *from)
{
    struct sim_call *c = sim_call_start(io, op, kind, from);
    struct sim_fd *f = sim_fd_of(io, fd, sim_kind_name(kind));

    if (!f || f->kind != fd_kind) {
        sim_call_end(c, !f ? -EBADF : fd_kind == SIM_FD_FILE ? -EINVAL : -ENOTSOCK);
        return NULL;
    }
    op->fd = c->fd = fd;
    sim_fd_hold(io, fd);
    return c;
}

void sim_call_at(struct sim_call *c, uint64_t delay_ns, void (*fire)(struct timer *t))
{
    c->timer.fire = fire;
    timer_heap_set(&c->io->sim->events, &c->timer, c->io->sim->now_ns + delay_ns);
}

/* Four lanes, since it runs over every byte that is written or sent, twice. */
uint32_t sim_sum(const void *data, size_t len)
{
    uint64_t lanes[4] = {1, 2, 3, 4}, word, sum = len;
    const uint8_t *at = data;

    for (; len >= sizeof lanes; len -= sizeof lanes) {
        for (int i = 0; i < 4; i++, at += sizeof word) {
            memcpy(&word, at, sizeof word);
            lanes[i] = (lanes[i] ^ word) * SUM_FACTOR;
        }
    }
    while (len > 0) {
        size_t n = len < sizeof word ? len : sizeof word;
        word = 0;
        memcpy(&word, at, n);
        sum = (sum ^ word) * SUM_FACTOR;
        at += n;
        len -= n;
    }
    for (int i = 0; i < 4; i++)
        sum = ((sum << 13 | sum >> 51) ^ lanes[i]) * SUM_FACTOR;
    return (uint32_t)(sum >> 32);
}

static uint32_t call_sum(const struct sim_call *c)
{
    if (c->path)
        return sim_sum(c->path, strlen(c->path)) ^
               (c->path2 ? sim_sum(c->path2, strlen(c->path2)) << 1 : 0);
    return sim_sum(c->buf, c->len);
}

void sim_call_check(const struct sim_call *c)
{
    if (!c->path && c->fd < 0)
        return; /* refused at its start */
    if (c->path || c->kind == SIM_WRITE || c->kind == SIM_WRITE_SYNC || c->kind == SIM_SEND)
        SIM_CHECK(call_sum(c) == c->sum, "%s: its %s changed while it was under way (%s)",
                  sim_kind_name((enum sim_kind)c->kind), c->path ? "path" : "buffer",
                  c->io->host->name);
}

/* ---- results ---- */

static void results_grow(struct io *io)
{
    uint32_t count = io->result_tail - io->result_head;
    struct sim_result *more = malloc((size_t)count * 2 * sizeof *more);

    SIM_CHECK(more, "no memory");
    for (uint32_t i = 0; i < count; i++)
        more[i] = io->results[(io->result_head + i) & io->result_mask];
    free(io->results);
    io->results = more;
    io->result_mask = count * 2 - 1;
    io->result_head = 0;
    io->result_tail = count;
}

static void result_add(struct io *io, struct sim_result r)
{
    if (io->result_tail - io->result_head > io->result_mask)
        results_grow(io);
    io->results[io->result_tail++ & io->result_mask] = r;
    for (uint32_t i = io->result_tail - 1; i != io->result_head; i--) {
        struct sim_result *last = &io->results[i & io->result_mask];
        struct sim_result *other = &io->results[(i - 1) & io->result_mask], swap;
        if (other->call == last->call || !sim_chance(io->host, io->host->faults.reorder))
            break;
        swap = *last;
        *last = *other;
        *other = swap;
    }
    sim_io_wake(io);
}

void sim_call_end(struct sim_call *c, int32_t res)
{
    SIM_CHECK(!c->ended, "simulator: a call ends twice");
    c->ended = true;
    c->res = res;
    timer_heap_clear(&c->io->sim->events, &c->timer);
    list_remove(&c->wait);
    if (c->sock) {
        if (c->sock->recv == c)
            c->sock->recv = NULL;
        else if (c->sock->send == c)
            c->sock->send = NULL;
        c->sock = NULL;
    }
    sim_count(c->site, sim_fault_of(res));
    sim_note(c->io->sim, c->io->host, sim_kind_name((enum sim_kind)c->kind), c->len, res);
    result_add(c->io, (struct sim_result){.call = c, .res = res});
}

void sim_call_data(struct sim_call *c, int32_t res, const uint8_t *data, uint16_t buf_id)
{
    sim_count(c->site, SIM_OK);
    sim_note(c->io->sim, c->io->host, "received", c->io->number, res);
    result_add(c->io, (struct sim_result){
                          .call = c, .res = res, .data = data, .buf_id = buf_id, .flags = IO_MORE});
}

void sim_dispatch(struct io *io, struct sim_result r)
{
    struct sim_call *c = r.call;
    struct io_op *op = c->op;

    SIM_CHECK(op->state == SIM_RUNNING && op->ptr == c,
              "%s: the operation was overwritten while it ran (%s)",
              sim_kind_name((enum sim_kind)c->kind), io->host->name);
    if (r.flags & IO_MORE) {
        io->buf_states[r.buf_id].state = SIM_BUF_HELD;
        op->data = r.data;
        op->buf_id = r.buf_id;
        op->done(op, r.res, IO_MORE);
        return;
    }
    sim_call_check(c);
    if (c->fd >= 0)
        sim_fd_release(io, c->fd);
    sim_call_free(c);
    op->state = SIM_IDLE;
    op->ptr = NULL;
    io->running--;
    op->done(op, r.res, 0);
}

/* ---- the end that is asked for ---- */

bool io_op_running(const struct io_op *op)
{
    return op->state != SIM_IDLE;
}

/* A receive may have ended by itself in the meantime; what has begun on the disk goes on. */
static void cancel_fire(struct timer *t)
{
    struct sim_call *c = container_of(t, struct sim_call, timer);

    if (c->ended)
        return;
    if (c->sock && c->sock->recv == c)
        list_remove(&c->sock->parked);
    if (c->kind == SIM_CONNECT)
        sim_connect_undo(c);
    sim_call_end(c, -ECANCELED);
}

void io_cancel(struct io *io, struct io_op *op)
{
    struct sim_host *h = io->host;
    struct sim_call *c = op->ptr;
    uint64_t delay = sim_delay(io->sim, 0, CANCEL_NS);

    if (op->state == SIM_IDLE || (op->flags & SIM_CANCELLED))
        return;
    SIM_CHECK(c->op == op && c->io == io, "io_cancel: not an operation of this io");
    op->flags |= SIM_CANCELLED;
    if (c->ended || c->effect)
        return;
    if (sim_chance(h, h->faults.cancel_late))
        delay = sim_delay(io->sim, 0, CANCEL_LATE_NS);
    /* The effect on the disk comes first: then it is too late. */
    if (c->kind >= SIM_OPEN && c->timer.deadline_ns <= io->sim->now_ns + delay)
        return;
    sim_call_at(c, delay, cancel_fire);
}
