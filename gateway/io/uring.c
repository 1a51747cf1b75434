/*
 * gateway/io/uring.c - the io_uring backend of io.h: life of a thread's ring, and its turn.
 *
 * Owns:     the ring, the queue of completions, the thread's clock and timers.
 * Runs on:  the thread that created it (SINGLE_ISSUER); DEFER_TASKRUN: the kernel works for it only
 *           inside io_turn().
 * Contract: one io_uring_enter a turn submits and waits. All completion entries are taken off the
 *           ring first and dispatched after, so `done` never runs inside a call that started an
 *           operation.
 * Failure:  io_create says why. A ring that the kernel will not serve any more aborts: nothing
 *           could be told to anybody.
 * Bounds:   queue_depth entries not yet submitted (more: submitted at once); completions: what the
 *           kernel holds.
 * Tests:    tests/unit/test_uring.c
 */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "gateway/io/uring_internal.h"
#include "gateway/limits.h"

#define SUBMIT_TRIES     1000
#define CQ_PER_SQ        4u
#define QUEUE_DEPTH_MIN  8u    /* a link needs two entries */
#define EVENT_QUEUE_SIZE 4096u /* to begin with */

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void read_clocks(struct io *io)
{
    io->now_ns = clock_ns(CLOCK_MONOTONIC);
    io->wall_ns = clock_ns(CLOCK_REALTIME);
}

/* ---- life ---- */

static bool pin(int32_t cpu, struct why *why)
{
    cpu_set_t set;

    if (cpu < 0)
        return true;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) == 0)
        return true;
    why_set(why, 0, "", "cannot run on processor %d: %s", cpu, strerror(errno));
    return false;
}

static bool create_ring(struct io *io, const struct io_params *params, struct why *why)
{
    unsigned wanted = params->queue_depth ? params->queue_depth : IO_QUEUE_DEPTH;
    unsigned depth = wanted < QUEUE_DEPTH_MIN ? QUEUE_DEPTH_MIN : wanted;
    struct io_uring_params p = {
        .flags = URING_SETUP_FLAGS | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
        .cq_entries = depth * CQ_PER_SQ,
    };
    int r = io_uring_queue_init_params(depth, &io->ring, &p);

    if (r < 0) {
        why_set(why, 0, "", "cannot create an io_uring: %s", strerror(-r));
        return false;
    }
    io->features = p.features;
    /* Saves looking the ring up at every enter; not needed to work. */
    (void)io_uring_register_ring_fd(&io->ring);
    return true;
}

static bool create_parts(struct io *io, const struct io_params *params, struct why *why)
{
    uint64_t seed;

    io->events = malloc(EVENT_QUEUE_SIZE * sizeof *io->events);
    io->event_mask = EVENT_QUEUE_SIZE - 1;
    if (!io->events || !uring_fd_create(io, params, why) || !uring_recv_create(io, params, why))
        return false;
    io_random(io, &seed, sizeof seed);
    prng_seed(&io->prng, seed);
    return true;
}

struct io *io_create(const struct io_params *params, struct why *why)
{
    struct io *io = calloc(1, sizeof *io);

    why_set(why, 0, "", "out of memory");
    if (!io)
        return NULL;
    if (!pin(params->cpu, why) || !create_ring(io, params, why)) {
        free(io);
        return NULL;
    }
    io->group = params->group;
    io->peer = params->peer;
    io->random_used = URING_RANDOM_BLOCK;
    io->parked.last = &io->parked.first;
    io->queued.last = &io->queued.first;
    io->spare = -1;
    timer_heap_init(&io->timers);
    slab_init(&io->statx, "file sizes", sizeof(struct statx), URING_STATX_MAX);
    if (!create_parts(io, params, why)) {
        io_destroy(io);
        return NULL;
    }
    read_clocks(io);
    uring_group_join(io);
    why_clear(why);
    return io;
}

void io_destroy(struct io *io)
{
    assert(io->running == 0);
    uring_group_leave(io);
    (void)io_uring_submit(&io->ring); /* closes that wait */
    io_uring_queue_exit(&io->ring);
    uring_writer_end(io);
    uring_recv_destroy(io);
    if (io->spare >= 0)
        close(io->spare);
    slab_destroy(&io->statx, false);
    timer_heap_destroy(&io->timers);
    explicit_bzero(io->random, sizeof io->random);
    free(io->fds);
    free(io->events);
    free(io);
}

/* ---- submission ---- */

static void submit(struct io *io)
{
    for (int i = 0; i < SUBMIT_TRIES; i++) {
        int r = io_uring_submit(&io->ring);
        io->stats.enters++;
        if (r > 0) {
            io->stats.submits += (uint64_t)r;
            return;
        }
        /* Out of memory for requests, or completions must be taken first: let the kernel work. */
        (void)io_uring_get_events(&io->ring);
    }
    abort();
}

struct io_uring_sqe *uring_sqe(struct io *io)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);

    if (!sqe) {
        submit(io);
        sqe = io_uring_get_sqe(&io->ring);
        assert(sqe);
    }
    memset(sqe, 0, sizeof *sqe);
    return sqe;
}

void uring_sqe_pair(struct io *io, struct io_uring_sqe **first, struct io_uring_sqe **second)
{
    if (io_uring_sq_space_left(&io->ring) < 2)
        submit(io);
    *first = uring_sqe(io);
    *second = uring_sqe(io);
}

void uring_tag(struct io_uring_sqe *sqe, const void *op, enum uring_tag tag)
{
    assert(((uintptr_t)op & URING_TAG_MASK) == 0);
    sqe->user_data = (uintptr_t)op | tag;
}

/*
 * Takes the completion entries that are there off the ring. Only those: asking the kernel for more
 * here, as io_uring_peek_batch_cqe does, costs an enter for a few entries, again and again.
 */
static void reap(struct io *io)
{
    struct io_uring_cqe *cqe;
    unsigned head;
    uint32_t n = 0;

    io_uring_for_each_cqe(&io->ring, head, cqe)
    {
        if ((cqe->user_data & URING_TAG_MASK) == URING_CALL) {
            io->call_res = cqe->res;
            io->call_running = false;
        } else {
            uring_event_add(io, cqe->user_data, cqe->res, cqe->flags);
        }
        n++;
    }
    io_uring_cq_advance(&io->ring, n);
    io->stats.completions += n;
    if (io->writer)
        uring_writer_poll(io);
}

int32_t uring_call(struct io *io, struct io_uring_sqe *sqe)
{
    assert(!io->call_running);
    io->call_running = true;
    uring_tag(sqe, NULL, URING_CALL);
    while (io->call_running) {
        int r = io_uring_submit_and_wait(&io->ring, 1);
        io->stats.enters++;
        io->stats.submits += r > 0 ? (uint64_t)r : 0;
        reap(io);
    }
    return io->call_res;
}

/* ---- the turn ---- */

/* True when one fired. */
static bool fire_timers(struct io *io)
{
    /*
     * Not more than were set at the start: one that sets itself again to a time gone by must not
     * hold the turn.
     */
    uint32_t left = io->timers.count;
    bool fired = false;
    struct timer *t;

    while (left-- > 0 && (t = timer_heap_pop(&io->timers, io->now_ns))) {
        fired = true;
        t->fire(t);
    }
    return fired;
}

static bool kernel_has_work(const struct io *io)
{
    unsigned flags = IO_URING_READ_ONCE(*io->ring.sq.kflags);

    return io_uring_sq_ready(&io->ring) > 0 ||
           (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

/*
 * Submits, lets the kernel work, and sleeps until something comes or the next timer is due.
 * Returns ns slept.
 */
static uint64_t enter(struct io *io, bool sleep)
{
    uint64_t next = timer_heap_next(&io->timers), before;
    unsigned ready = io_uring_sq_ready(&io->ring);
    int r;

    before = clock_ns(CLOCK_MONOTONIC);
    sleep = sleep && next > before && io_uring_cq_ready(&io->ring) == 0;
    if (!sleep && !kernel_has_work(io))
        return 0;
    if (sleep) {
        struct __kernel_timespec ts = {
            .tv_sec = (long long)((next - before) / NS_PER_S),
            .tv_nsec = (long long)((next - before) % NS_PER_S),
        };
        struct io_uring_cqe *cqe;
        r = io_uring_submit_and_wait_timeout(&io->ring, &cqe, 1, next == UINT64_MAX ? NULL : &ts,
                                             NULL);
    } else {
        r = io_uring_submit_and_get_events(&io->ring);
    }
    assert(r >= 0 || r == -ETIME || r == -EINTR || r == -EAGAIN || r == -EBUSY);
    io->stats.enters++;
    io->stats.submits += ready - io_uring_sq_ready(&io->ring);
    if (!sleep)
        return 0;
    read_clocks(io);
    return io->now_ns - before;
}

void io_turn(struct io *io, bool wait)
{
    uint64_t start, slept, busy;
    uint32_t left;

    read_clocks(io);
    start = io->now_ns;
    /* The end of the turn belongs to what a timer did: it must not be slept over. */
    if (fire_timers(io))
        wait = false;
    if (uring_recv_restart(io) || io->event_head != io->event_tail)
        wait = false;
    if (io->group && wait)
        wait = uring_group_sleep(io);
    slept = enter(io, wait);
    if (io->group)
        uring_group_awake(io);

    reap(io);
    /* What is refused from here on waits for the next turn, which then does not sleep. */
    left = io->event_tail - io->event_head;
    while (left-- > 0)
        uring_dispatch(io, io->events[io->event_head++ & io->event_mask]);
    if (io->group)
        uring_group_deliver(io);
    if (io->hook)
        io->hook(io->hook_arg);

    busy = clock_ns(CLOCK_MONOTONIC) - start - slept;
    io->stats.turns++;
    io->stats.busy_ns += busy;
    if (busy > io->stats.longest_turn_ns)
        io->stats.longest_turn_ns = busy;
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
}

void io_timer_clear(struct io *io, struct timer *t)
{
    timer_heap_clear(&io->timers, t);
}

static void random_fill(uint8_t *out, size_t len)
{
    while (len > 0) {
        ssize_t n = getrandom(out, len, 0);
        if (n < 0 && errno != EINTR)
            abort(); /* going on with bytes that can be guessed is worse */
        if (n > 0) {
            out += n;
            len -= (size_t)n;
        }
    }
}

void io_random(struct io *io, void *out, size_t len)
{
    if (len > URING_RANDOM_BLOCK / 4) {
        random_fill(out, len);
        return;
    }
    if (URING_RANDOM_BLOCK - io->random_used < len) {
        random_fill(io->random, URING_RANDOM_BLOCK);
        io->random_used = 0;
    }
    memcpy(out, io->random + io->random_used, len);
    explicit_bzero(io->random + io->random_used, len);
    io->random_used += (uint32_t)len;
}

uint64_t io_chance(struct io *io, uint64_t bound)
{
    return prng_below(&io->prng, bound);
}
