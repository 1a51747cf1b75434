/*
 * routing/dns_event.c - libunbound's sockets and timers, waited for by the shard's own loop.
 *
 * Owns:     one struct dns_event for each event libunbound made; one struct dns_poll for each poll
 *           under way. A poll outlives its event: libunbound may free the event and close its
 *           socket at any moment, the kernel lets go of the poll a little later.
 * Runs on:  the shard; callbacks run from io_turn.
 * Contract: as libevent's: without UB_EV_PERSIST an event fires once; with it, until deleted, its
 *           timeout starting anew each time it fires.
 * Failure:  no memory: libunbound is told so and fails the lookup.
 * Bounds:   as many events as libunbound has sockets and timers (DNS_SOCKETS_MAX and its TCP
 *           share).
 * Tests:    tests/unit/test_dns.c
 */
#include "routing/dns_event.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/time.h>

#include "gateway/limits.h"

struct dns_event;

/* In the heap on its own, because the shard's loop owns it until the poll has ended. */
struct dns_poll {
    struct io_op op;
    struct dns_event *event; /* NULL: nobody waits for it any more */
    int fd;
    short bits;
    bool dispatching;
};

struct dns_loop {
    struct ub_event_base base; /* first: libunbound hands it back */
    struct io *io;
    struct dns_event *dispatching; /* NULL again when its callback freed it */
    uint32_t event_count;
};

struct dns_event {
    struct ub_event ub; /* first: libunbound hands it back */
    struct dns_loop *loop;
    int fd;
    short bits;
    bool active;
    void (*cb)(int fd, short bits, void *arg);
    void *arg;
    uint64_t timeout_ns; /* 0: none */
    struct timer timer;
    struct dns_poll *poll;
};

#define CONTAINER(type, member, ptr) ((type *)((char *)(ptr)-offsetof(type, member)))

static void event_poll_done(struct io_op *op, int32_t res, uint32_t flags);

static struct dns_event *event_of(struct ub_event *ub)
{
    assert(ub->magic == UB_EVENT_MAGIC);
    return (struct dns_event *)ub;
}

static uint64_t timeval_ns(const struct timeval *tv)
{
    uint64_t ns = (uint64_t)tv->tv_sec * NS_PER_S + (uint64_t)tv->tv_usec * NS_PER_US;
    return ns ? ns : 1;
}

static void poll_start(struct io *io, struct dns_poll *p)
{
    uint32_t mask = (p->bits & UB_EV_READ ? POLLIN : 0u) | (p->bits & UB_EV_WRITE ? POLLOUT : 0u);
    io_poll_raw(io, &p->op, p->fd, mask);
}

static void event_poll_drop(struct dns_event *ev)
{
    struct dns_poll *p = ev->poll;

    if (!p)
        return;
    ev->poll = NULL;
    p->event = NULL;
    if (!p->dispatching)
        io_cancel(ev->loop->io, &p->op);
}

/*
 * A poll for what the event wants now. One that is being dispatched goes on by itself afterwards.
 */
static bool event_poll_arm(struct dns_event *ev)
{
    short wanted = ev->bits & (UB_EV_READ | UB_EV_WRITE);

    if (ev->poll && (ev->poll->dispatching || (ev->poll->fd == ev->fd && ev->poll->bits == wanted)))
        return true;
    event_poll_drop(ev);
    if (ev->fd < 0 || !wanted)
        return true;
    struct dns_poll *p = calloc(1, sizeof *p);
    if (!p)
        return false;
    p->op.done = event_poll_done;
    p->event = ev;
    p->fd = ev->fd;
    p->bits = wanted;
    ev->poll = p;
    poll_start(ev->loop->io, p);
    return true;
}

static void event_stop(struct dns_event *ev)
{
    ev->active = false;
    event_poll_drop(ev);
    io_timer_clear(ev->loop->io, &ev->timer);
}

/* Calls libunbound. The event may be gone afterwards: true when it is still there. */
static bool event_fire(struct dns_event *ev, short fired)
{
    struct dns_loop *l = ev->loop;

    if (!(ev->bits & UB_EV_PERSIST))
        event_stop(ev);
    else if (ev->timeout_ns)
        io_timer_set(l->io, &ev->timer, io_now_ns(l->io) + ev->timeout_ns);
    assert(!l->dispatching);
    l->dispatching = ev;
    ev->cb(ev->fd, fired, ev->arg);
    bool alive = l->dispatching == ev;
    l->dispatching = NULL;
    return alive;
}

static void event_timer_fired(struct timer *t)
{
    struct dns_event *ev = CONTAINER(struct dns_event, timer, t);

    if (ev->active)
        (void)event_fire(ev, UB_EV_TIMEOUT);
}

static void event_poll_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct dns_poll *p = CONTAINER(struct dns_poll, op, op);
    struct dns_event *ev = p->event;

    (void)flags;
    if (!ev || res == -ECANCELED) {
        if (ev)
            ev->poll = NULL;
        free(p);
        return;
    }
    /*
     * A poll that failed wakes libunbound as well: its own read or write then says what is wrong.
     */
    uint32_t ready = res < 0 ? POLLERR : (uint32_t)res;
    short fired = 0;
    if (ready & (POLLIN | POLLHUP | POLLERR | POLLNVAL))
        fired |= UB_EV_READ;
    if (ready & (POLLOUT | POLLHUP | POLLERR | POLLNVAL))
        fired |= UB_EV_WRITE;
    fired &= p->bits;
    struct io *io = ev->loop->io;
    p->dispatching = true;
    bool alive = ev->active && fired ? event_fire(ev, fired) : true;
    p->dispatching = false;
    if (alive && p->event == ev && ev->active && ev->fd >= 0 &&
        (ev->bits & (UB_EV_READ | UB_EV_WRITE))) {
        p->fd = ev->fd;
        p->bits = ev->bits & (UB_EV_READ | UB_EV_WRITE);
        poll_start(io, p);
        return;
    }
    if (alive && p->event == ev)
        ev->poll = NULL;
    free(p);
}

/* ---- the table of an event ---- */

static void vmt_add_bits(struct ub_event *ub, short bits)
{
    event_of(ub)->bits |= bits;
}

static void vmt_del_bits(struct ub_event *ub, short bits)
{
    event_of(ub)->bits &= (short)~bits;
}

static void vmt_set_fd(struct ub_event *ub, int fd)
{
    event_of(ub)->fd = fd;
}

static void vmt_free(struct ub_event *ub)
{
    struct dns_event *ev = event_of(ub);

    event_stop(ev);
    if (ev->loop->dispatching == ev)
        ev->loop->dispatching = NULL;
    assert(ev->loop->event_count > 0);
    ev->loop->event_count--;
    free(ev);
}

static int vmt_add(struct ub_event *ub, struct timeval *tv)
{
    struct dns_event *ev = event_of(ub);

    ev->active = true;
    ev->timeout_ns = tv ? timeval_ns(tv) : 0;
    if (tv)
        io_timer_set(ev->loop->io, &ev->timer, io_now_ns(ev->loop->io) + ev->timeout_ns);
    else
        io_timer_clear(ev->loop->io, &ev->timer);
    if (event_poll_arm(ev))
        return 0;
    event_stop(ev);
    return -1;
}

static int vmt_del(struct ub_event *ub)
{
    event_stop(event_of(ub));
    return 0;
}

static int vmt_add_timer(struct ub_event *ub, struct ub_event_base *base,
                         void (*cb)(int, short, void *), void *arg, struct timeval *tv)
{
    struct dns_event *ev = event_of(ub);

    assert((struct ub_event_base *)ev->loop == base);
    ev->cb = cb;
    ev->arg = arg;
    return vmt_add(ub, tv);
}

static int vmt_add_signal(struct ub_event *ub, struct timeval *tv)
{
    (void)ub, (void)tv;
    return -1;
}

static int vmt_del_signal(struct ub_event *ub)
{
    (void)ub;
    return -1;
}

static void vmt_unregister_wsaevent(struct ub_event *ub)
{
    (void)ub;
}

static void vmt_tcp_wouldblock(struct ub_event *ub, int bit)
{
    (void)ub, (void)bit;
}

/* libunbound's pointer to the table is not const; nobody writes through it. */
static const struct ub_event_vmt event_vmt = {vmt_add_bits,
                                              vmt_del_bits,
                                              vmt_set_fd,
                                              vmt_free,
                                              vmt_add,
                                              vmt_del,
                                              vmt_add_timer,
                                              vmt_del,
                                              vmt_add_signal,
                                              vmt_del_signal,
                                              vmt_unregister_wsaevent,
                                              vmt_tcp_wouldblock};

/* ---- the table of the base ---- */

static struct ub_event *base_new_event(struct ub_event_base *base, int fd, short bits,
                                       void (*cb)(int, short, void *), void *arg)
{
    struct dns_event *ev = calloc(1, sizeof *ev);

    if (!ev)
        return NULL;
    ev->ub.magic = UB_EVENT_MAGIC;
    ev->ub.vmt = (struct ub_event_vmt *)&event_vmt;
    ev->loop = (struct dns_loop *)base;
    ev->fd = fd;
    ev->bits = bits;
    ev->cb = cb;
    ev->arg = arg;
    ev->timer.fire = event_timer_fired;
    ev->loop->event_count++;
    return &ev->ub;
}

/* The rest of the table is never called when lookups are started with ub_resolve_event. */
static void base_free(struct ub_event_base *base)
{
    (void)base;
}

static int base_dispatch(struct ub_event_base *base)
{
    (void)base;
    return -1;
}

static int base_loopexit(struct ub_event_base *base, struct timeval *tv)
{
    (void)base, (void)tv;
    return -1;
}

static struct ub_event *base_new_signal(struct ub_event_base *base, int fd,
                                        void (*cb)(int, short, void *), void *arg)
{
    (void)base, (void)fd, (void)cb, (void)arg;
    return NULL;
}

static struct ub_event *base_register_wsaevent(struct ub_event_base *base, void *wsaevent,
                                               void (*cb)(int, short, void *), void *arg)
{
    (void)base, (void)wsaevent, (void)cb, (void)arg;
    return NULL;
}

static const struct ub_event_base_vmt base_vmt = {base_free,       base_dispatch,
                                                  base_loopexit,   base_new_event,
                                                  base_new_signal, base_register_wsaevent};

struct dns_loop *dns_loop_create(struct io *io)
{
    struct dns_loop *l = calloc(1, sizeof *l);

    if (!l)
        return NULL;
    l->base.magic = UB_EVENT_MAGIC;
    l->base.vmt = (struct ub_event_base_vmt *)&base_vmt;
    l->io = io;
    return l;
}

struct ub_event_base *dns_loop_base(struct dns_loop *l)
{
    return &l->base;
}

void dns_loop_destroy(struct dns_loop *l)
{
    if (!l)
        return;
    assert(l->event_count == 0 && !l->dispatching);
    free(l);
}
