/*
 * tests/sim/sim_listen.c - the simulated network: listeners, accepting, connecting.
 *
 * Owns:     listeners and the connections that nobody accepted yet.
 * Runs on:  the one thread of the simulation.
 * Contract: see io.h. Who connects to an address gets one of the listeners there by chance, as
 *           with SO_REUSEPORT. A full backlog makes a connect wait and try again.
 * Failure:  as the kernel would: refused, unreachable, timed out; accepting without descriptors
 *           pauses ACCEPT_PAUSE_NS and goes on.
 * Bounds:   backlog connections a listener.
 * Tests:    tests/sim/test_io_sim.c, tests/sim/test_sim_world.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/places.h"
#include "tests/sim/sim_internal.h"

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define SYN_AGAIN_NS    (1 * NS_PER_S)
#define CALL_NS         (2 * NS_PER_US)

enum connect_phase { CONNECT_BEGIN, CONNECT_SYN, CONNECT_ANSWER };

/* ---- listeners ---- */

static bool any_address(const struct io_addr *a)
{
    static const struct in6_addr any6;

    if (a->sa.sa_family == AF_INET)
        return a->in.sin_addr.s_addr == 0;
    return memcmp(&a->in6.sin6_addr, &any6, sizeof any6) == 0;
}

static bool covers(const struct sim_listener *l, const struct io_addr *a)
{
    return l->addr.sa.sa_family == a->sa.sa_family && io_addr_port(&l->addr) == io_addr_port(a) &&
           (any_address(&l->addr) || any_address(a) || sim_addr_eq(&l->addr, a, false));
}

static bool in_use(const struct sim_host *h, const struct io_addr *a, bool reuse_port)
{
    for (struct list *at = h->sim->listeners.next; at != &h->sim->listeners; at = at->next) {
        const struct sim_listener *l = container_of(at, struct sim_listener, link);
        if (l->host == h && covers(l, a) && !(reuse_port && l->reuse_port))
            return true;
    }
    return false;
}

struct sim_listener *sim_listener_of(struct sim_host *h, const struct io_addr *addr)
{
    struct sim_listener *found = NULL;
    uint32_t count = 0;

    for (struct list *at = h->sim->listeners.next; at != &h->sim->listeners; at = at->next) {
        struct sim_listener *l = container_of(at, struct sim_listener, link);
        if (l->host == h && covers(l, addr) && sim_below(&h->sim->prng, ++count) == 0)
            found = l;
    }
    return found;
}

static const char *listen_problem(struct sim_host *h, const struct io_addr *a, bool reuse_port)
{
    if (!any_address(a) && !sim_host_has(h, a))
        return "this machine does not have the address";
    if (io_addr_port(a) != 0 && in_use(h, a, reuse_port))
        return "another program listens there";
    return NULL;
}

bool io_port_check(const struct io_addr *addr, struct why *why)
{
    char text[IO_ADDR_TEXT_MAX];
    struct sim_host *h = sim_current()->current;
    struct sim_site *site = sim_site_of(h, SIM_LISTEN, __builtin_return_address(0));
    const char *problem =
        sim_site_asked(h, site) ? "another program listens there" : listen_problem(h, addr, false);

    if (problem)
        why_set(why, 451, "4.3.0", "cannot listen on %s: %s", io_addr_text(addr, true, text),
                problem);
    return !problem;
}

bool io_listen(struct io *io, const struct io_addr *addr, const struct io_listen_opts *opts,
               int32_t *fd, struct why *why)
{
    struct sim_site *site = sim_site_of(io->host, SIM_LISTEN, __builtin_return_address(0));
    const char *problem = sim_site_asked(io->host, site)
                              ? "another program listens there"
                              : listen_problem(io->host, addr, opts->reuse_port);
    struct sim_listener *l;
    char text[IO_ADDR_TEXT_MAX];
    int32_t got = problem ? -EADDRINUSE : sim_fd_open(io, SIM_FD_LISTENER);

    sim_count(site, sim_fault_of(got < 0 ? got : 0));
    if (got < 0) {
        why_set(why, 0, "", "cannot listen on %s: %s", io_addr_text(addr, true, text),
                problem ? problem : strerror(-got));
        return false;
    }
    l = calloc(1, sizeof *l);
    SIM_CHECK(l, "no memory");
    *l = (struct sim_listener){.io = io,
                               .host = io->host,
                               .fd = got,
                               .addr = *addr,
                               .reuse_port = opts->reuse_port,
                               .backlog = opts->backlog};
    if (io_addr_port(addr) == 0)
        l->addr.in.sin_port = htons(sim_host_port(io->host)); /* the same place in IPv6 */
    list_init(&l->waiting);
    list_init(&l->accepts);
    list_push_back(&io->sim->listeners, &l->link);
    sim_fd_of(io, got, "listen")->listener = l;
    *fd = got;
    return true;
}

void sim_listener_close(struct sim_listener *l, bool silent)
{
    struct list *at;

    while ((at = list_pop_front(&l->waiting)))
        sim_sock_close(container_of(at, struct sim_sock, waiting), silent);
    while ((at = list_pop_front(&l->accepts)))
        continue;
    list_remove(&l->link);
    free(l);
}

bool io_local_addr(struct io *io, int32_t fd, struct io_addr *out)
{
    struct sim_fd *f = sim_fd_of(io, fd, "io_local_addr");

    if (!f || (f->kind != SIM_FD_SOCK && f->kind != SIM_FD_LISTENER))
        return false;
    *out = f->kind == SIM_FD_SOCK ? f->sock->local : f->listener->addr;
    return true;
}

/* ---- accepting ---- */

static void accept_match(struct sim_listener *l)
{
    while (!list_empty(&l->waiting) && !list_empty(&l->accepts)) {
        struct sim_call *c = container_of(l->accepts.next, struct sim_call, wait);
        struct sim_sock *s = container_of(l->waiting.next, struct sim_sock, waiting);
        struct sim_host *h = l->host;
        enum sim_fault fault = sim_call_fault(c, SIM_ACCEPT);
        int32_t fd;
        if (fault != SIM_OK || sim_chance(h, h->faults.accept_error))
            fd = fault == SIM_OTHER ? -ECONNABORTED : -EMFILE;
        else
            fd = sim_fd_open(l->io, SIM_FD_SOCK);
        if (fd >= 0) {
            list_remove(&s->waiting);
            l->waiting_count--;
            s->io = l->io;
            s->fd = fd;
            sim_fd_of(l->io, fd, "accept")->sock = s;
            c->op->net.addr = s->remote;
        }
        sim_call_end(c, fd);
    }
}

void sim_listener_offer(struct sim_listener *l, struct sim_sock *s)
{
    list_push_back(&l->waiting, &s->waiting);
    l->waiting_count++;
    accept_match(l);
}

static void accept_fire(struct timer *t)
{
    struct sim_call *c = container_of(t, struct sim_call, timer);
    struct sim_listener *l = sim_fd_held(c->io, c->fd)->listener;

    list_push_back(&l->accepts, &c->wait);
    accept_match(l);
}

static struct io_acceptor *acceptor_of(const struct io_op *op)
{
    return (struct io_acceptor *)(void *)op->next; /* nobody else uses it */
}

static void accept_arm(struct io_acceptor *a, struct io_op *op)
{
    struct sim_call *c;

    a->running++;
    sim_place_now = (const struct sim_place *)op->offset;
    c = sim_call_start_fd(a->io, op, SIM_ACCEPT, a->listen_fd, SIM_FD_LISTENER,
                          (const void *)(uintptr_t)a->on_accept);
    if (c)
        sim_call_at(c, sim_delay(a->io->sim, 0, CALL_NS), accept_fire);
}

static void accept_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct io_acceptor *a = acceptor_of(op);

    (void)flags;
    a->running--;
    if (res >= 0) {
        a->on_accept(a, res, &op->net.addr);
    } else if (res != -ECANCELED && !a->stopping && !timer_is_set(&a->pause)) {
        io_timer_set(a->io, &a->pause, io_now_ns(a->io) + ACCEPT_PAUSE_NS);
        a->on_accept(a, res, NULL);
    }
    if (!a->stopping && !timer_is_set(&a->pause) && !io_op_running(op))
        accept_arm(a, op);
    else if (a->stopping && a->running == 0)
        a->on_stopped(a);
}

static void accept_resume(struct timer *t)
{
    struct io_acceptor *a = container_of(t, struct io_acceptor, pause);

    for (uint32_t i = 0; i < IO_ACCEPT_SLOTS; i++)
        if (!io_op_running(&a->slots[i]))
            accept_arm(a, &a->slots[i]);
}

void io_accept_start(struct io *io, struct io_acceptor *a, int32_t listen_fd)
{
    const struct sim_place *place = sim_place_now;

    sim_place_now = NULL;
    a->io = io;
    a->listen_fd = listen_fd;
    a->stopping = false;
    a->running = 0;
    a->pause = (struct timer){.fire = accept_resume};
    for (uint32_t i = 0; i < IO_ACCEPT_SLOTS; i++) {
        a->slots[i] = (struct io_op){
            .done = accept_done, .next = (struct io_op *)(void *)a, .offset = (uintptr_t)place};
        accept_arm(a, &a->slots[i]);
    }
}

void io_accept_stop(struct io *io, struct io_acceptor *a)
{
    SIM_CHECK(!a->stopping, "io_accept_stop: twice (%s)", io->host->name);
    a->stopping = true;
    io_timer_clear(io, &a->pause);
    if (a->running == 0) { /* pausing: one slot that ends at once makes the callback come later */
        a->running = 1;
        sim_call_end(sim_call_start(io, &a->slots[0], SIM_ACCEPT, NULL), -ECANCELED);
        return;
    }
    for (uint32_t i = 0; i < IO_ACCEPT_SLOTS; i++)
        io_cancel(io, &a->slots[i]);
}

/* ---- connecting ---- */

static void connect_fire(struct timer *t);

/* The descriptor was there from the start, as a socket is. */
static void connect_end(struct sim_call *c, int32_t res)
{
    struct sim_fd *f;

    if (res < 0) {
        f = sim_fd_held(c->io, c->fd);
        f->kind = SIM_FD_OPENING; /* no socket to close */
        io_close(c->io, c->fd);
        sim_fd_release(c->io, c->fd);
    } else {
        sim_fd_release(c->io, c->fd);
    }
    c->fd = -1;
    sim_call_end(c, res);
}

void sim_connect_undo(struct sim_call *c)
{
    if (c->fd < 0)
        return;
    if (c->phase == CONNECT_ANSWER) {
        sim_sock_close(sim_fd_held(c->io, c->fd)->sock, false);
        c->sock = NULL;
    }
    sim_fd_held(c->io, c->fd)->kind = SIM_FD_OPENING;
    io_close(c->io, c->fd);
    sim_fd_release(c->io, c->fd);
    c->fd = -1;
}

/* The other machine hears of it; false: no answer yet. */
static bool connect_reach(struct sim_call *c)
{
    struct sim_host *from = c->io->host, *to = sim_host_of(from->sim, &c->to, from);
    struct sim_listener *l;
    struct sim_sock *client, *server;

    if (from->net_down || (to && (to->net_down || to->stopped)))
        return false;
    if (!to || !(l = sim_listener_of(to, &c->to))) {
        c->res = to ? -ECONNREFUSED : -EHOSTUNREACH;
        return true;
    }
    if (l->waiting_count > (uint32_t)l->backlog)
        return false;
    client = sim_sock_create(from);
    server = sim_sock_create(to);
    client->io = c->io;
    client->fd = c->fd;
    client->local = server->remote = c->from;
    client->remote = server->local = c->to;
    sim_sock_pair(client, server);
    sim_fd_held(c->io, c->fd)->sock = client;
    sim_fd_held(c->io, c->fd)->kind = SIM_FD_SOCK;
    sim_listener_offer(l, server);
    c->phase = CONNECT_ANSWER;
    return true;
}

static void connect_begin(struct sim_call *c)
{
    struct sim_host *h = c->io->host;
    enum sim_fault fault = sim_call_fault(c, SIM_CONNECT);

    if (fault == SIM_CANCELED) {
        sim_call_end(c, -ECANCELED);
        return;
    }
    c->fd = fault == SIM_NO_FD || sim_chance(h, h->faults.fd_none)
                ? -ENFILE
                : sim_fd_open(c->io, SIM_FD_OPENING);
    if (c->fd < 0) {
        int32_t res = c->fd;
        c->fd = -1;
        sim_call_end(c, res);
        return;
    }
    sim_fd_hold(c->io, c->fd);
    c->size = h->sim->now_ns;
    c->phase = CONNECT_SYN;
    if (fault == SIM_REFUSED || sim_chance(h, h->faults.connect_refused))
        c->res = -ECONNREFUSED;
    else if (fault == SIM_OTHER || sim_chance(h, h->faults.connect_error))
        c->res = sim_below(&h->sim->prng, 2) ? -ENETUNREACH : -EADDRNOTAVAIL;
    else if (fault == SIM_TIMEOUT || sim_chance(h, h->faults.connect_timeout))
        c->res = -ETIMEDOUT;
    sim_call_at(c, c->res == -ETIMEDOUT ? SIM_CONNECT_NS : sim_net_delay(h), connect_fire);
}

static void connect_fire(struct timer *t)
{
    struct sim_call *c = container_of(t, struct sim_call, timer);
    struct sim_host *h = c->io->host;

    switch ((enum connect_phase)c->phase) {
    case CONNECT_BEGIN: connect_begin(c); return;
    case CONNECT_SYN:
        if (c->res == 0 && !connect_reach(c)) {
            if (h->sim->now_ns - c->size < SIM_CONNECT_NS) {
                sim_call_at(c, SYN_AGAIN_NS, connect_fire);
                return;
            }
            c->res = -ETIMEDOUT;
        }
        if (c->res < 0)
            connect_end(c, c->res);
        else
            sim_call_at(c, sim_net_delay(h), connect_fire);
        return;
    case CONNECT_ANSWER: connect_end(c, c->fd); return;
    }
}

void io_connect(struct io *io, struct io_op *op, const struct io_addr *to,
                const struct io_addr *from)
{
    struct sim_call *c = sim_call_start(io, op, SIM_CONNECT, __builtin_return_address(0));
    struct sim_host *h = io->host;

    c->to = *to;
    op->net.addr = *to;
    if (from && from->len != 0)
        c->from = *from;
    else
        sim_host_source(h, to, &c->from);
    if (!sim_host_has(h, &c->from)) {
        sim_call_end(c, -EADDRNOTAVAIL);
        return;
    }
    if (io_addr_port(&c->from) == 0)
        c->from.in.sin_port = htons(sim_host_port(h));
    sim_call_at(c, sim_delay(io->sim, 0, CALL_NS), connect_fire);
}
