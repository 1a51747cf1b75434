/*
 * tests/sim/world.c - one run: disasters for a while, then calm, in which all mail must go out in
 * bounded time; then everything is counted.
 *
 * Owns:     struct world.
 * Runs on:  the one thread of a simulation.
 * Contract: the same seed gives the same run, step by step.
 * Failure:  world_fail: the first one counts, and ends the run.
 * Bounds:   CALM_NS of virtual time, STEPS_MAX steps.
 * Tests:    itself
 */
#include <assert.h>
#include <stdlib.h>

#include "tests/sim/world.h"

#define CALM_NS   (1800 * NS_PER_S)
#define OVER_NS   (700 * NS_PER_S)
#define STEPS_MAX 3000000u
#define FD_LIMIT  1024u /* what is made for each descriptor stays small */

enum what {
    DO_SESSION,
    DO_KILL,
    DO_CUT,
    DO_STOP,
    DO_RELOAD,
    DO_JUMP,
    DO_OUTAGE,
    DO_ORDER,
    DO_FAULT
};

struct event {
    uint64_t at_ns;
    enum what what;
};

void world_fail(struct world *w, const char *fmt, ...)
{
    va_list ap;
    if (w->failed)
        return;
    w->failed = true;
    va_start(ap, fmt);
    vsnprintf(w->why, sizeof w->why, fmt, ap);
    va_end(ap);
    TRACE(w, "FAILED: %s", w->why);
}

void world_trace(struct world *w, const char *fmt, ...)
{
    va_list ap;
    uint64_t now = sim_now_ns(w->sim);
    fprintf(w->trace, "%4llu.%06llu ", (unsigned long long)(now / NS_PER_S),
            (unsigned long long)(now % NS_PER_S / NS_PER_US));
    va_start(ap, fmt);
    vfprintf(w->trace, fmt, ap);
    va_end(ap);
    fputc('\n', w->trace);
}

bool world_chance(struct world *w, struct prng *p, uint32_t per_mille)
{
    return prng_below(p, 1000) < per_mille && !w->calm;
}

enum domain_kind world_domain_kind(uint32_t domain)
{
    return domain == 7 ? DOMAIN_NONE : domain % 2 ? DOMAIN_SMART : DOMAIN_MX;
}

void world_domain_name(uint32_t domain, char out[32])
{
    snprintf(out, 32, "d%u.test", domain);
}

/* ---- the plan ---- */

static int by_time(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    return x->at_ns < y->at_ns ? -1 : x->at_ns > y->at_ns;
}

static uint32_t plan_add(struct world *w, struct event *plan, uint32_t n, enum what what,
                         uint32_t count)
{
    uint64_t start = sim_now_ns(w->sim);
    while (count--)
        plan[n++] = (struct event){start + prng_below(&w->plan, w->swarm.chaos_ns), what};
    return n;
}

static uint32_t plan_make(struct world *w, struct event *plan)
{
    const struct swarm *s = &w->swarm;
    uint32_t n = plan_add(w, plan, 0, DO_SESSION, s->sessions);
    n = plan_add(w, plan, n, DO_KILL, s->kills);
    n = plan_add(w, plan, n, DO_CUT, s->cuts);
    n = plan_add(w, plan, n, DO_STOP, s->stops);
    n = plan_add(w, plan, n, DO_RELOAD, s->reloads);
    n = plan_add(w, plan, n, DO_JUMP, s->jumps);
    n = plan_add(w, plan, n, DO_OUTAGE, s->outages);
    n = plan_add(w, plan, n, DO_ORDER, s->operations);
    n = plan_add(w, plan, n, DO_FAULT, s->single_faults);
    qsort(plan, n, sizeof *plan, by_time);
    return n;
}

static void order_draw(struct world *w)
{
    struct prng *p = &w->chaos;
    uint64_t qid = 0;
    if (w->msg_count && prng_below(p, 8))
        qid = w->msgs[prng_below(p, w->msg_count)]->qid;
    else if (w->report_count && prng_below(p, 2))
        qid = w->reports[prng_below(p, w->report_count)].qid;
    if (w->swarm.bulk && prng_below(p, 2))
        gateway_order(w, ADMIN_HOLD, qid);
    else if (qid || prng_below(p, 4) == 0)
        gateway_order(w, (enum admin_change)prng_below(p, 5), qid);
}

static void outage_draw(struct world *w)
{
    struct machine *m = &w->hop_machines[prng_below(&w->chaos, w->swarm.hosts)];
    if (prng_below(&w->chaos, 3) == 0) {
        nexthop_stop(w, m);
        return;
    }
    m->down = !m->down;
    TRACE(w, "hop %u: network is %s", m->number, m->down ? "down" : "up");
    sim_host_net(m->host, !m->down);
}

/* The next operation of some kind, or one soon after it, fails: so that each place meets it. */
static void fault_draw(struct world *w)
{
    static const struct {
        enum sim_kind kind;
        enum sim_fault fault;
    } faults[] = {{SIM_OPEN, SIM_EIO},        {SIM_OPEN, SIM_NO_FD}, {SIM_READ, SIM_EIO},
                  {SIM_READ, SIM_SHORT},      {SIM_WRITE, SIM_EIO},  {SIM_WRITE, SIM_ENOSPC},
                  {SIM_WRITE, SIM_SHORT},     {SIM_SYNC, SIM_EIO},   {SIM_ALLOCATE, SIM_EIO},
                  {SIM_ALLOCATE, SIM_ENOSPC}, {SIM_UNLINK, SIM_EIO}, {SIM_RENAME, SIM_EIO},
                  {SIM_FILE_SIZE, SIM_EIO},   {SIM_MKDIR, SIM_EIO},  {SIM_LIST_DIR, SIM_EIO},
                  {SIM_DISK_FREE, SIM_EIO},   {SIM_LOCK, SIM_EIO}};
    uint32_t i = (uint32_t)prng_below(&w->chaos, sizeof faults / sizeof *faults);
    uint32_t skip = (uint32_t)prng_below(&w->chaos, prng_below(&w->chaos, 2) ? 4 : 25);
    sim_host_fail_next(w->gateway.host, faults[i].kind, skip, faults[i].fault);
}

static void crash(struct world *w, enum crash how)
{
    w->armed = CRASH_NONE;
    if (!w->gateway.running)
        return;
    if (how == CRASH_KILL)
        gateway_kill(w);
    else
        gateway_cut(w);
}

/* At once, or when the spool is next written to: most of what can go wrong does so there. */
static void crash_draw(struct world *w, enum crash how)
{
    if (prng_below(&w->chaos, 2))
        w->armed = how;
    else
        crash(w, how);
}

static void happen(struct world *w, enum what what)
{
    struct simgw *g = &w->gateway;
    switch (what) {
    case DO_SESSION: client_start(w, &w->client_machine); break;
    case DO_KILL:
    case DO_CUT: crash_draw(w, what == DO_KILL ? CRASH_KILL : CRASH_CUT); break;
    case DO_STOP: gateway_drain(w); break;
    case DO_RELOAD: gateway_reload(w); break;
    case DO_JUMP: {
        int64_t by = (int64_t)prng_below(&w->chaos, 240 * NS_PER_S);
        sim_clock_jump(g->host, prng_below(&w->chaos, 2) ? by : -by);
        break;
    }
    case DO_OUTAGE: outage_draw(w); break;
    case DO_ORDER: order_draw(w); break;
    case DO_FAULT: fault_draw(w); break;
    }
}

/* ---- stepping ---- */

static void wake(struct timer *t)
{
    (void)t; /* the clock stops here: that is all */
}

static bool step(struct world *w)
{
    if (!sim_step(w->sim)) {
        world_fail(w, "nothing will ever happen any more");
        return false;
    }
    gateway_look(w);
    if (w->armed && gateway_writes(w) && prng_below(&w->chaos, 3) == 0)
        crash(w, w->armed);
    w->stats.steps++;
    if (w->stats.steps % 64 == 0 && w->gateway.running)
        gateway_check_limits(w);
    if (w->stats.steps > STEPS_MAX)
        world_fail(w, "%u steps, and no end", STEPS_MAX);
    return !w->failed;
}

/* A process that ended comes back, after a while. */
static void restart(struct world *w)
{
    static const uint32_t counts[] = {1, 2, 3, 4};
    uint32_t shards = w->swarm.shards;
    if (!w->calm && w->swarm.single_faults)
        fault_draw(w);
    if (prng_below(&w->chaos, 3) == 0)
        shards = counts[prng_below(&w->chaos, 4)];
    gateway_start(w, shards);
}

static void step_to(struct world *w, uint64_t until_ns)
{
    struct machine *op = &w->operator_machine;
    uint64_t again_ns = 0;
    while (!w->failed && sim_now_ns(w->sim) < until_ns) {
        if (!w->gateway.running) {
            if (!again_ns)
                again_ns = sim_now_ns(w->sim) + prng_below(&w->chaos, 2 * NS_PER_S);
            if (sim_now_ns(w->sim) >= again_ns) {
                again_ns = 0;
                restart(w);
            }
        }
        io_timer_set(op->io, &w->wake, again_ns && again_ns < until_ns ? again_ns : until_ns);
        if (!step(w))
            return;
    }
}

/* ---- phases ---- */

static void chaos(struct world *w)
{
    struct event plan[512];
    uint64_t end = sim_now_ns(w->sim) + w->swarm.chaos_ns;
    uint32_t count = plan_make(w, plan);
    for (uint32_t i = 0; i < count && !w->failed; i++) {
        step_to(w, plan[i].at_ns);
        if (!w->failed)
            happen(w, plan[i].what);
    }
    step_to(w, end);
}

static void calm_begin(struct world *w)
{
    TRACE(w, "calm");
    w->calm = true;
    w->armed = CRASH_NONE;
    sim_calm(w->sim, true);
    for (int kind = 1; kind < SIM_KIND_COUNT; kind++)
        sim_host_fail_next(w->gateway.host, (enum sim_kind)kind, 0, SIM_OK);
    sim_host_disk_limit(w->gateway.host, 1 * GIB, UINT64_MAX);
    for (uint32_t i = 0; i < w->swarm.hosts; i++)
        sim_host_net(w->hop_machines[i].host, true);
}

static bool quiet(struct world *w)
{
    struct simgw *g = &w->gateway;
    if (!gateway_up(w) || g->draining || w->clients_open || gateway_queued(w) || g->asks || g->next)
        return false;
    for (uint32_t i = 0; i < g->gw.shard_count; i++)
        for (uint32_t k = 0; k < g->shards[i]->lane_count; k++)
            if (lane_health(g->shards[i]->lanes[k]) != LANE_OK)
                return false;
    return true;
}

/*
 * All mail goes out by itself, in bounded time; but what the operator or crashes set aside must be
 * let go once, and what is set aside again is a dead letter, and returned. A write that a crash
 * tore and that could not be read at the start after it is kept as damaged, since it might have
 * been acknowledged: where it was not, only the operator can end it.
 */
static void calm(struct world *w)
{
    uint64_t end = sim_now_ns(w->sim) + CALM_NS, next = 0;
    calm_begin(w);
    while (!w->failed && !quiet(w)) {
        uint64_t now = sim_now_ns(w->sim);
        if (now >= end) {
            world_fail(w, "after %llu s of calm %llu messages are still queued (%u sessions)",
                       (unsigned long long)(CALM_NS / NS_PER_S),
                       (unsigned long long)gateway_queued(w), w->clients_open);
            return;
        }
        if (now >= next && gateway_up(w)) {
            bool dead = next && gateway_queued(w) && gateway_held(w) == gateway_queued(w);
            if (!next)
                gateway_reload(w);
            gateway_order(w, dead ? ADMIN_BOUNCE : ADMIN_RELEASE, 0);
            if (next)
                gateway_remove_stray(w);
            next = now + 60 * NS_PER_S;
        }
        step_to(w, now + NS_PER_S);
    }
}

/* Stops, and starts once more: nothing may have been kept, nothing may come back. */
static void finish(struct world *w)
{
    uint64_t end = sim_now_ns(w->sim) + OVER_NS;
    step_to(w, sim_now_ns(w->sim) + 20 * NS_PER_S); /* idle connections and permits end */
    while (!w->failed && gateway_busy(w) && sim_now_ns(w->sim) < end)
        step_to(w, sim_now_ns(w->sim) + 10 * NS_PER_S); /* what fell silent has its time limit */
    if (w->failed)
        return;
    gateway_check_empty(w);
    gateway_drain(w);
    while (!w->failed && w->gateway.running)
        step(w);
    if (w->failed)
        return;
    if (gateway_start(w, w->swarm.shards)) {
        step_to(w, sim_now_ns(w->sim) + 3 * NS_PER_S);
        if (!w->failed && (!gateway_up(w) || gateway_queued(w)))
            world_fail(w, "%llu messages are there after a clean stop",
                       (unsigned long long)gateway_queued(w));
    } else {
        world_fail(w, "does not start after a clean stop");
    }
}

/* Times, order and pieces stay: none of them is a failure. */
static struct sim_faults no_failures(const struct sim_faults *f)
{
    return (struct sim_faults){.disk_min_ns = f->disk_min_ns,
                               .disk_max_ns = f->disk_max_ns,
                               .send_split = f->send_split,
                               .recv_short = f->recv_short,
                               .net_min_ns = f->net_min_ns,
                               .net_max_ns = f->net_max_ns,
                               .window_max = f->window_max,
                               .reorder = f->reorder,
                               .turn_part = f->turn_part,
                               .cancel_late = f->cancel_late,
                               .stall = f->stall,
                               .stall_ns = f->stall_ns};
}

static void bare(struct swarm *s)
{
    s->disk_and_net = no_failures(&s->disk_and_net);
    s->peers = no_failures(&s->peers);
    s->single_faults = 0;
    s->disk_bytes = 0;
}

static void world_make(struct world *w)
{
    char name[16], address[32];
    struct prng p;
    prng_seed(&p, w->seed);
    prng_seed(&w->plan, prng_next(&p));
    prng_seed(&w->clients, prng_next(&p));
    prng_seed(&w->hops, prng_next(&p));
    prng_seed(&w->names, prng_next(&p));
    prng_seed(&w->chaos, prng_next(&p));
    swarm_draw(&w->swarm, &p);
    if (w->bare)
        bare(&w->swarm);
    w->sim = sim_create(w->seed);
    if (w->trace_steps)
        sim_trace_to(w->sim, w->trace);
    list_init(&w->client_list);
    list_init(&w->hop_list);
    w->wake.fire = wake;
    dns_sim_world(w);
    w->gateway.w = w;
    w->gateway.host = sim_host_add(w->sim, "gateway", "10.0.0.1");
    machine_start(w, &w->operator_machine, "operator", "10.0.3.1");
    machine_start(w, &w->client_machine, "clients", "10.0.1.1");
    sim_host_faults(w->client_machine.host, &w->swarm.peers);
    for (uint32_t i = 0; i < w->swarm.hosts; i++) {
        snprintf(name, sizeof name, "h%u", i);
        snprintf(address, sizeof address, "10.0.2.%u", i + 1);
        machine_start(w, &w->hop_machines[i], name, address);
        w->hop_machines[i].number = i;
        sim_host_faults(w->hop_machines[i].host, &w->swarm.peers);
        nexthop_start(w, &w->hop_machines[i]);
    }
    sim_host_disk_put(w->gateway.host, "/spool/README", "", 0);
    sim_host_faults(w->gateway.host, &w->swarm.disk_and_net);
    sim_host_fd_limit(w->gateway.host, FD_LIMIT);
    sim_host_disk_direct(w->gateway.host, !w->swarm.no_direct);
    sim_host_disk_in_place(w->gateway.host, w->swarm.in_place);
    if (w->swarm.junk)
        sim_host_disk_put(w->gateway.host, "/spool/lane-00/00000003.seg", "not a segment", 13);
    for (size_t i = 0; i < sizeof w->fail_at / sizeof *w->fail_at; i++)
        if (w->fail_at[i].place)
            sim_host_fail_at(w->gateway.host, &w->fail_at[i]);
    if (w->swarm.disk_bytes)
        sim_host_disk_limit(w->gateway.host, w->swarm.disk_bytes, UINT64_MAX);
}

bool world_run(struct world *w)
{
    world_make(w);
    if (!gateway_start(w, w->swarm.shards) && w->failed)
        return false;
    chaos(w);
    if (!w->failed)
        calm(w);
    if (!w->failed)
        finish(w);
    if (!w->failed)
        ledger_final(w);
    w->stats.virtual_ns = sim_now_ns(w->sim);
    w->stats.seeds = 1;
    return !w->failed;
}
