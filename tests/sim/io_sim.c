/*
 * tests/sim/io_sim.c - the simulated backend of io.h: the world, its steps, and a thread's turn.
 *
 * Owns:     the clock, the events to come, the ios that have something to do.
 * Runs on:  the one thread of the simulation.
 * Contract: everything that happens is an event of the world or a turn of an io, and the next one
 *           is drawn from the seed. An io is busy for a while after each turn, so that the others
 *           go on meanwhile as threads of their own would. Failure: wrong use aborts with a line;
 *           waiting for what will never come too. Bounds: memory. Tests: tests/sim/test_io_sim.c,
 *           tests/sim/test_sim_world.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

#define WALL_START_NS (1767225600 * NS_PER_S) /* 2026 */
#define TURN_MIN_NS   300u
#define TURN_MAX_NS   (5 * NS_PER_US)
#define RESULTS_FIRST 256u
#define MIX_A         0x9e3779b97f4a7c15u
#define MIX_B         0xd6e8feb86659fd93u

/* io_create() and its like name no world: this is the one they mean. */
static struct sim *current_sim;

struct sim *sim_current(void)
{
    SIM_CHECK(current_sim, "there is no world: sim_create() comes first");
    return current_sim;
}

void sim_broken(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    fprintf(stderr, "simulator: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    if (current_sim)
        fprintf(stderr, " (seed %llu, step %llu, %.6f s)", (unsigned long long)current_sim->seed,
                (unsigned long long)current_sim->steps, (double)sim_now_ns(current_sim) / 1e9);
    fprintf(stderr, "\n");
    abort();
}

/* ---- the world ---- */

struct sim *sim_create(uint64_t seed)
{
    struct sim *sim = calloc(1, sizeof *sim);

    SIM_CHECK(!current_sim, "one world at a time");
    SIM_CHECK(sim, "no memory");
    sim->seed = seed;
    prng_seed(&sim->prng, seed);
    prng_seed(&sim->harness, prng_next(&sim->prng));
    timer_heap_init(&sim->events);
    list_init(&sim->hosts);
    list_init(&sim->listeners);
    list_init(&sim->free_calls);
    sim->start_ns = NS_PER_S + sim_below(&sim->prng, 1000 * NS_PER_S);
    sim->now_ns = sim->start_ns;
    current_sim = sim;
    return sim;
}

static void host_free(struct sim_host *h)
{
    sim_host_kill(h);
    sim_disk_free(h->disk);
    list_remove(&h->link);
    free(h->addrs);
    free(h->name);
    free(h);
}

void sim_destroy(struct sim *sim)
{
    struct list *l;

    while (!list_empty(&sim->hosts))
        host_free(container_of(sim->hosts.next, struct sim_host, link));
    while ((l = list_pop_front(&sim->free_calls)))
        free(container_of(l, struct sim_call, link));
    while (sim->free_pages) {
        struct sim_page *p = sim->free_pages;
        sim->free_pages = p->next_free;
        free(p);
    }
    timer_heap_destroy(&sim->events);
    free(sim->ready);
    free(sim);
    current_sim = NULL;
}

uint64_t sim_now_ns(const struct sim *sim)
{
    return sim->now_ns;
}

uint64_t sim_steps(const struct sim *sim)
{
    return sim->steps;
}

uint64_t sim_draw(struct sim *sim, uint64_t bound)
{
    return sim_below(&sim->harness, bound);
}

uint64_t sim_trace_hash(const struct sim *sim)
{
    return sim->trace;
}

void sim_trace_to(struct sim *sim, FILE *out)
{
    sim->trace_out = out;
}

void sim_calm(struct sim *sim, bool calm)
{
    sim->calm = calm;
}

void sim_note(struct sim *sim, const struct sim_host *host, const char *what, uint64_t a, int64_t b)
{
    uint64_t x = (sim->now_ns ^ a * MIX_B) + (uint64_t)b * MIX_A + (uint8_t)what[0];

    sim->trace = ((sim->trace << 7 | sim->trace >> 57) ^ x) * MIX_A;
    if (sim->trace_out)
        fprintf(sim->trace_out, "%14.6f %-10s %-14s %llu %lld\n", (double)sim->now_ns / 1e9,
                host ? host->name : "-", what, (unsigned long long)a, (long long)b);
}

/* ---- who has something to do ---- */

static void unready(struct io *io)
{
    struct sim *sim = io->sim;
    struct io *last;

    if (!io->ready_at)
        return;
    last = sim->ready[--sim->ready_count];
    sim->ready[io->ready_at - 1] = last;
    last->ready_at = io->ready_at;
    io->ready_at = 0;
}

static void alarm_at(struct io *io, uint64_t at)
{
    if (!timer_is_set(&io->alarm) || io->alarm.deadline_ns > at)
        timer_heap_set(&io->sim->events, &io->alarm, at);
}

void sim_io_wake(struct io *io)
{
    struct sim *sim = io->sim;

    if (io->in_turn || io->ready_at || io->host->stopped)
        return;
    if (io->busy_until > sim->now_ns) {
        alarm_at(io, io->busy_until);
        return;
    }
    if (sim->ready_count == sim->ready_cap) {
        sim->ready_cap = sim->ready_cap ? 2 * sim->ready_cap : 64;
        sim->ready = realloc(sim->ready, sim->ready_cap * sizeof(struct io *));
        SIM_CHECK(sim->ready, "no memory");
    }
    sim->ready[sim->ready_count++] = io;
    io->ready_at = sim->ready_count;
}

bool sim_io_has_work(const struct io *io)
{
    return io->result_head != io->result_tail || timer_heap_next(&io->timers) <= io->sim->now_ns ||
           sim_group_has(io) || (io->buf_free > 0 && !list_empty(&io->parked));
}

/* After whatever may have changed what this io waits for. */
static void arm(struct io *io)
{
    uint64_t next = timer_heap_next(&io->timers);

    if (io->in_turn || io->ready_at || io->host->stopped)
        return;
    if (sim_io_has_work(io))
        sim_io_wake(io);
    else if (next == SIM_NEVER)
        timer_heap_clear(&io->sim->events, &io->alarm);
    else
        timer_heap_set(&io->sim->events, &io->alarm, next > io->busy_until ? next : io->busy_until);
}

static void alarm_fire(struct timer *t)
{
    arm(container_of(t, struct io, alarm));
}

/* ---- steps ---- */

static bool next_event(struct sim *sim)
{
    uint64_t at = timer_heap_next(&sim->events);
    struct timer *t;

    if (at == SIM_NEVER)
        return false;
    if (at > sim->now_ns)
        sim->now_ns = at;
    t = timer_heap_pop(&sim->events, sim->now_ns);
    t->fire(t);
    return true;
}

bool sim_step(struct sim *sim)
{
    struct io *io;

    sim->steps++;
    if (sim->ready_count == 0)
        return next_event(sim);
    if (timer_heap_next(&sim->events) <= sim->now_ns && (sim->steps & 1))
        return next_event(sim);
    io = sim->ready[sim->ready_count == 1 ? 0 : sim_below(&sim->prng, sim->ready_count)];
    unready(io);
    if (io->runner)
        io->runner(io->runner_arg);
    else
        io_turn(io, false);
    return true;
}

bool sim_run_until(struct sim *sim, uint64_t ns)
{
    for (;;) {
        if (sim->ready_count == 0 && timer_heap_next(&sim->events) > ns) {
            if (ns > sim->now_ns)
                sim->now_ns = ns;
            return timer_heap_next(&sim->events) != SIM_NEVER;
        }
        sim_step(sim);
    }
}

/* ---- the turn ---- */

static void read_clocks(struct io *io)
{
    io->now_ns = io->sim->now_ns;
    io->wall_ns = (uint64_t)((int64_t)(WALL_START_NS + io->now_ns - io->sim->start_ns) +
                             io->host->wall_offset_ns);
}

static bool fire_timers(struct io *io)
{
    uint32_t left = io->timers.count; /* one that sets itself again must not hold the turn */
    bool fired = false;
    struct timer *t;

    while (left-- > 0 && (t = timer_heap_pop(&io->timers, io->now_ns))) {
        fired = true;
        t->fire(t);
    }
    return fired;
}

/* Somebody called io_turn() while this thread was still busy with its last turn. */
static void pass_busy(struct io *io)
{
    struct sim *sim = io->sim;

    while (timer_heap_next(&sim->events) <= io->busy_until)
        next_event(sim);
    if (sim->now_ns < io->busy_until)
        sim->now_ns = io->busy_until;
}

static void wait_for_work(struct io *io)
{
    while (!sim_io_has_work(io) && !io->host->stopped) {
        uint64_t next = timer_heap_next(&io->timers);
        if (next != SIM_NEVER)
            alarm_at(io, next); /* so that the clock goes no further */
        SIM_CHECK(sim_step(io->sim), "io_turn waits for what will never come");
    }
    read_clocks(io);
}

static void dispatch(struct io *io)
{
    uint32_t left = io->result_tail - io->result_head;

    if (left > 1 && sim_chance(io->host, io->host->faults.turn_part))
        left = 1 + (uint32_t)sim_below(&io->sim->prng, left);
    io->stats.completions += left;
    while (left-- > 0)
        sim_dispatch(io, io->results[io->result_head++ & io->result_mask]);
}

static void turn(struct io *io, bool wait)
{
    if (io->busy_until > io->sim->now_ns)
        pass_busy(io);
    if (io->host->stopped)
        return;
    read_clocks(io);
    sim_note(io->sim, io->host, "turn", io->number, io->result_tail - io->result_head);
    if (fire_timers(io))
        wait = false;
    sim_recv_unpark(io);
    if (wait)
        wait_for_work(io);
    if (io->host->stopped)
        return;
    dispatch(io);
    if (io->group)
        sim_group_deliver(io);
    if (io->hook)
        io->hook(io->hook_arg);
}

void io_turn(struct io *io, bool wait)
{
    struct sim *sim = io->sim;
    struct sim_host *before = sim->current;
    uint64_t max = io->host->faults.turn_max_ns, cost;

    SIM_CHECK(!io->in_turn, "io_turn inside a turn of the same io (%s)", io->host->name);
    if (io->host->stopped)
        return;
    unready(io);
    io->in_turn = true;
    sim->current = io->host;
    turn(io, wait);
    cost = sim_delay(sim, TURN_MIN_NS, max ? max : TURN_MAX_NS);
    io->busy_until = sim->now_ns + cost;
    io->stats.turns++;
    io->stats.enters++;
    io->stats.busy_ns += cost;
    if (cost > io->stats.longest_turn_ns)
        io->stats.longest_turn_ns = cost;
    io->in_turn = false;
    sim->current = before;
    arm(io);
}

void io_on_turn_end(struct io *io, void (*hook)(void *arg), void *arg)
{
    io->hook = hook;
    io->hook_arg = arg;
}

const struct io_stats *io_stats(const struct io *io)
{
    return &io->stats;
}

void sim_io_runner(struct io *io, void (*run)(void *arg), void *arg)
{
    io->runner = run;
    io->runner_arg = arg;
}

/* ---- life of an io ---- */

bool io_probe(struct why *why)
{
    why_clear(why);
    return true;
}

struct io *io_create(const struct io_params *params, struct why *why)
{
    struct sim *sim = sim_current();
    struct sim_site *site;
    struct io *io;

    SIM_CHECK(sim->current, "io_create: no host was entered");
    site = sim_site_of(sim->current, SIM_CREATE, __builtin_return_address(0));
    if (sim_site_asked(sim->current, site)) {
        sim_count(site, SIM_OTHER);
        why_set(why, 451, "4.3.1", "out of memory");
        return NULL;
    }
    sim_count(site, SIM_OK);
    io = calloc(1, sizeof *io);
    SIM_CHECK(io && params->fd_count_max > 0, "io_create: no descriptors");
    io->sim = sim;
    io->host = sim->current;
    io->number = sim->io_count++;
    io->alarm.fire = alarm_fire;
    io->group = params->group;
    io->peer = params->peer;
    timer_heap_init(&io->timers);
    list_init(&io->calls);
    list_init(&io->parked);
    list_push_back(&io->host->ios, &io->link);
    io->fd_limit = io->host->fd_limit ? io->host->fd_limit : SIM_FD_SLOTS;
    if (params->fd_count_max < io->fd_limit)
        io->fd_limit = params->fd_count_max;
    io->stats.fd_count_max = io->fd_limit;
    io->results = malloc(RESULTS_FIRST * sizeof *io->results);
    io->result_mask = RESULTS_FIRST - 1;
    prng_seed(&io->prng, prng_next(&sim->prng));
    SIM_CHECK(io->results && sim_recv_create(io, params), "no memory");
    read_clocks(io);
    sim_group_join(io);
    why_clear(why);
    return io;
}

void sim_io_free(struct io *io, bool silent)
{
    SIM_CHECK(!io->in_turn, "%s: its process cannot end inside a turn", io->host->name);
    sim_group_leave(io);
    unready(io);
    timer_heap_clear(&io->sim->events, &io->alarm);
    while (!list_empty(&io->calls)) {
        struct sim_call *c = container_of(io->calls.next, struct sim_call, link);
        if (!c->effect && !c->ended && !silent && !io->host->stopped)
            sim_file_interrupted(c);
        sim_call_free(c);
    }
    for (uint32_t i = 0; i < io->fd_count; i++) {
        struct sim_fd *f = &io->fds[i];
        if (f->kind == SIM_FD_SOCK)
            sim_sock_close(f->sock, silent);
        else if (f->kind == SIM_FD_LISTENER)
            sim_listener_close(f->listener, silent);
        else if (f->kind == SIM_FD_FILE)
            sim_inode_put(io->host->disk, f->node);
    }
    list_remove(&io->link);
    timer_heap_destroy(&io->timers);
    free(io->results);
    free(io->fds);
    free(io->bufs);
    free(io->buf_states);
    free(io->buf_stack);
    free(io);
}

void io_destroy(struct io *io)
{
    SIM_CHECK(io->running == 0, "io_destroy: %u operations are under way", io->running);
    sim_io_free(io, false);
}

struct sim_host *sim_io_host(const struct io *io)
{
    return io->host;
}

/* ---- time, chance ---- */

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_wall_ns(const struct io *io)
{
    return io->wall_ns;
}

void io_timer_set(struct io *io, struct timer *t, uint64_t deadline_ns)
{
    timer_heap_set(&io->timers, t, deadline_ns);
    arm(io);
}

void io_timer_clear(struct io *io, struct timer *t)
{
    timer_heap_clear(&io->timers, t);
}

void io_random(struct io *io, void *out, size_t len)
{
    uint8_t *at = out;

    while (len > 0) {
        uint64_t x = prng_next(&io->prng);
        size_t n = len < sizeof x ? len : sizeof x;
        memcpy(at, &x, n);
        at += n;
        len -= n;
    }
}

uint64_t io_chance(struct io *io, uint64_t bound)
{
    return prng_below(&io->prng, bound);
}
