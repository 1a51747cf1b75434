/*
 * gateway/control_drain.c - the beginning of the end: not ready first, then the shards drain.
 *
 * Owns:     the time between the two.
 * Runs on:  the control thread.
 * Contract: /readyz says 503 from the first moment. For drain.accept the listeners stay open, since
 *           load balancers go on sending for as long as they have not noticed; who asks at a
 *           terminal (SIGINT) does not wait, and ends a wait that was begun.
 * Failure:  cannot fail.
 * Bounds:   one drain a life.
 * Tests:    tests/system/test_drain.py, test_rolling.py
 */
#include "gateway/control_internal.h"

static void drain_begin(struct control *c)
{
    struct ring_item item = {.kind = PEER_DRAIN};
    c->drain_begun = true;
    io_timer_clear(c->io, &c->drain_timer);
    control_post_shards(c, &item);
    control_notify("STOPPING=1\nSTATUS=Finishing sessions and deliveries under way");
}

static void drain_waited(struct timer *t)
{
    drain_begin(container_of(t, struct control, drain_timer));
}

void control_drain(struct control *c, bool at_once)
{
    uint64_t accept_ns = at_once ? 0 : c->current->config->drain.accept_ns;
    struct log_line line;
    if (c->state == CONTROL_DRAINING) {
        if (at_once && !c->drain_begun)
            drain_begin(c);
        return;
    }
    c->state = CONTROL_DRAINING;
    atomic_store(&c->gw.draining, true);
    log_begin(&line, &c->log, EV_STOP);
    log_str(&line, "reason", "asked to stop: sessions finish, deliveries under way end");
    if (accept_ns)
        log_u64(&line, "accepting_s", accept_ns / NS_PER_S);
    log_end(&line);
    if (!accept_ns) {
        drain_begin(c);
        return;
    }
    control_notify("STOPPING=1\nSTATUS=Not ready, still accepting connections");
    c->drain_timer.fire = drain_waited;
    io_timer_set(c->io, &c->drain_timer, io_now_ns(c->io) + accept_ns);
}

enum drain_phase control_drain_phase(const struct control *c)
{
    uint64_t least = DRAIN_ENDING;
    if (c->state == CONTROL_STOPPED)
        return DRAIN_ENDING;
    if (c->state != CONTROL_DRAINING)
        return DRAIN_NONE;
    if (!c->drain_begun)
        return DRAIN_ACCEPTING;
    for (uint32_t i = 0; i < c->gw.shard_count; i++) {
        uint64_t phase = metric_get(&c->gw.metrics[i], M_DRAIN_PHASE);
        least = phase < least ? phase : least;
    }
    return least < DRAIN_FINISHING ? DRAIN_FINISHING : (enum drain_phase)least;
}

const char *drain_phase_name(enum drain_phase phase)
{
    static const char *const names[] = {"none", "accepting", "finishing", "handing-over", "ending"};
    return names[phase];
}
