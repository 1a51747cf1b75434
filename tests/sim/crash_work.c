/*
 * tests/sim/crash_work.c - a lane at work on a simulated disk, and a point before each effect.
 *
 * Owns:     the lane and its io while it runs; the points and their disks.
 * Runs on:  the one thread of the simulation.
 * Contract: a point has the disk as a crash before that effect would find it, and the books as
 *           they were then: what was promised until then, and not more.
 * Failure:  aborts: without faults every step succeeds.
 * Bounds:   CRASH_POINTS_MAX, CRASH_MESSAGES_MAX.
 * Tests:    tests/sim/test_crash_points.c
 */
#include <assert.h>
#include <stdlib.h>

#include "gateway/limits.h"
#include "tests/sim/crash_kit.h"

#define SPOOL   "/spool"
#define TICK_NS (20 * NS_PER_MS)
#define FILL_NS (200 * NS_PER_MS) /* two segments */
#define PART_NS (2 * NS_PER_MS)   /* a write, mostly */

/* ---- a lane that somebody turns ---- */

static void on_opened(void *arg, struct lane *l, const struct why *why)
{
    struct crash_lane *k = arg;

    (void)l;
    k->opened = true;
    k->why = *why;
}

static void on_found(void *arg, struct lane *l, struct queue_msg *m)
{
    struct crash_lane *k = arg;

    (void)l;
    if (k->found)
        k->found(k, m);
}

static void on_recovered(void *arg, struct lane *l)
{
    (void)l;
    ((struct crash_lane *)arg)->recovered = true;
}

static void on_damaged(void *arg, struct lane *l, uint32_t segment, uint64_t offset,
                       const char *what)
{
    (void)l;
    (void)segment;
    (void)offset;
    (void)what;
    ((struct crash_lane *)arg)->damaged++;
}

static void on_closed(void *arg)
{
    ((struct crash_lane *)arg)->closed = true;
}

static void on_tick(struct timer *t)
{
    (void)t; /* only ends the wait */
}

void crash_lane_turn(struct crash_lane *k)
{
    k->tick.fire = on_tick;
    io_timer_set(k->io, &k->tick, io_now_ns(k->io) + TICK_NS);
    if (k->lane)
        lane_turn_end(k->lane);
    io_turn(k->io, true);
}

void crash_lane_idle(struct crash_lane *k, uint64_t ns)
{
    uint64_t until = io_now_ns(k->io) + ns;

    while (io_now_ns(k->io) < until)
        crash_lane_turn(k);
}

static bool lane_start(struct crash_lane *k, enum lane_write_mode mode)
{
    struct lane_params p = {.io = k->io,
                            .spool = SPOOL,
                            .segment_bytes = 256 * KIB,
                            .mode = mode,
                            .tx_count_max = 16,
                            .arg = k,
                            .opened = on_opened,
                            .found = on_found,
                            .recovered = on_recovered,
                            .damaged = on_damaged};

    if (k->edit)
        k->edit(&p);
    k->opened = k->recovered = k->closed = false;
    k->lane = lane_open(&p);
    assert(k->lane);
    while (!k->opened)
        crash_lane_turn(k);
    if (k->why.smtp_code != 0)
        return false;
    while (!k->recovered)
        crash_lane_turn(k);
    return true;
}

bool crash_lane_open(struct crash_lane *k, enum lane_write_mode mode)
{
    struct io_params params = {.fd_count_max = 64, .cpu = -1};

    k->io = io_create(&params, &k->why);
    return spool_lock(k->io, SPOOL, &k->lock, &k->why) && lane_start(k, mode);
}

void crash_lane_close(struct crash_lane *k, bool lane_only)
{
    lane_close(k->lane, on_closed, k);
    while (!k->closed)
        crash_lane_turn(k);
    k->lane = NULL;
    if (lane_only)
        return;
    io_timer_clear(k->io, &k->tick);
    io_unlock(k->io, k->lock);
    io_destroy(k->io);
    k->io = NULL;
}

struct flush {
    struct lane_wait wait;
    bool done;
};

static void on_flushed(struct lane_wait *w, bool ok)
{
    assert(ok);
    container_of(w, struct flush, wait)->done = true;
}

void crash_lane_flush(struct crash_lane *k)
{
    struct flush f = {.wait = {.done = on_flushed}};

    lane_when_durable(k->lane, &f.wait);
    while (!f.done)
        crash_lane_turn(k);
}

uint8_t crash_byte(uint32_t message, uint64_t i)
{
    return (uint8_t)((i * 131 + (i >> 8) * 17 + (i >> 16)) ^ (message + 1) * 59);
}

/* ---- the work ---- */

struct crash_tx {
    struct lane_tx tx;
    struct worker *worker;
    uint32_t index; /* in the books */
    bool done, resumed;
};

/* What is durable once this wait ends. */
struct crash_wait {
    struct lane_wait wait;
    struct worker *worker;
    struct crash_books books;
    bool done;
};

struct worker {
    struct crash_lane k;
    struct crash_run *run;
    struct crash_books books;
    struct crash_tx txs[CRASH_MESSAGES_MAX];
    struct crash_wait waits[CRASH_STEPS_MAX + 1];
    uint32_t wait_count;
    struct sim_host *host;
};

static void look(void *arg, uint64_t n)
{
    struct worker *w = arg;
    struct crash_point *p = &w->run->points[w->run->point_count];

    assert(w->run->point_count < CRASH_POINTS_MAX);
    *p = (struct crash_point){.effect = n, .disk = sim_host_disk_save(w->host), .books = w->books};
    w->run->point_count++;
}

static void on_resumed(struct lane_tx *tx)
{
    container_of(tx, struct crash_tx, tx)->resumed = true;
}

static void on_done(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    struct crash_tx *t = container_of(tx, struct crash_tx, tx);
    struct crash_entry *e = &t->worker->books.entries[t->index];

    t->done = true;
    e->acked = m != NULL;
    e->failed = m == NULL;
    assert((m != NULL) == (why->smtp_code == 0));
    if (e->parent >= 0 && m)
        t->worker->books.entries[e->parent].durable |= 1u << e->parent_rcpt;
}

static void take_message(struct worker *w, uint32_t size, uint16_t rcpts, struct queue_msg *parent,
                         int parent_index, uint32_t parent_rcpt)
{
    uint32_t index = w->books.count++;
    struct crash_tx *t = &w->txs[index];
    struct envelope_rcpt to[2] = {{.mailbox = SLICE_LIT("a@example.org")},
                                  {.mailbox = SLICE_LIT("b@example.org")}};
    struct envelope env = {.sender = parent ? SLICE_LIT("") : SLICE_LIT("sender@example.com"),
                           .flags = parent ? ENVELOPE_DSN : 0,
                           .accepted_wall_ns = io_wall_ns(w->k.io),
                           .rcpts = to,
                           .rcpt_count = rcpts};
    struct crash_entry *e = &w->books.entries[index];
    uint8_t piece[4096];
    struct why why;

    *t = (struct crash_tx){.tx = {.resumed = on_resumed, .done = on_done, .internal = parent},
                           .worker = w,
                           .index = index};
    assert(lane_tx_begin(w->k.lane, &t->tx, &why));
    *e = (struct crash_entry){.qid = t->tx.qid,
                              .size = size,
                              .rcpts = rcpts,
                              .states = {QUEUE_READY},
                              .state_count = 1,
                              .parent = parent_index,
                              .parent_rcpt = parent_rcpt};
    for (uint32_t at = 0; at < size;) {
        uint32_t n = size - at < sizeof piece ? size - at : sizeof piece;
        for (uint32_t i = 0; i < n; i++)
            piece[i] = crash_byte(index, at + i);
        t->resumed = false;
        if (lane_tx_append(&t->tx, slice_of(piece, n)) == LANE_APPEND_WAIT)
            while (!t->resumed)
                crash_lane_turn(&w->k);
        if (w->run->work->parts)
            crash_lane_idle(&w->k, PART_NS);
        at += n;
    }
    if (parent)
        w->books.entries[parent_index].asked |= 1u << parent_rcpt;
    lane_tx_commit(&t->tx, &env, parent, &parent_rcpt, parent ? 1 : 0);
}

/* ---- its steps ---- */

/* The oldest message that was accepted and is not over; it is waited for. */
static struct queue_msg *target(struct worker *w, uint32_t *index)
{
    for (uint32_t i = 0; i < w->books.count; i++) {
        const struct crash_entry *e = &w->books.entries[i];
        if (e->asked == (1u << e->rcpts) - 1)
            continue;
        while (!w->txs[i].done)
            crash_lane_turn(&w->k);
        *index = i;
        return lane_find(w->k.lane, e->qid);
    }
    return NULL;
}

static void state_asked(struct crash_entry *e, enum queue_state state)
{
    e->states[e->state_count++] = (uint8_t)state;
}

/* One report of a message at a time (queue.h). */
static void wait_for_reports(struct worker *w, int parent)
{
    for (uint32_t i = 0; i < w->books.count; i++)
        while (w->books.entries[i].parent == parent && !w->txs[i].done)
            crash_lane_turn(&w->k);
}

static void change(struct worker *w, enum crash_step step)
{
    uint32_t index, rcpt = 0;
    struct queue_msg *m = target(w, &index);
    struct crash_entry *e = &w->books.entries[index];
    uint64_t soon = io_wall_ns(w->k.io) / NS_PER_S + 3600;

    assert(m);
    while (e->asked >> rcpt & 1)
        rcpt++;
    switch (step) {
    case CRASH_DELIVER_ONE:
    case CRASH_DELIVER_ALL:
        for (; rcpt < e->rcpts; rcpt++) {
            e->asked |= 1u << rcpt;
            lane_rcpts_final(w->k.lane, m, &rcpt, 1, RCPT_DELIVERED);
            if (step == CRASH_DELIVER_ONE)
                break;
        }
        break;
    case CRASH_DEFER:
        state_asked(e, QUEUE_DEFERRED);
        lane_defer(w->k.lane, m, soon, true, SLICE_LIT("451 later"));
        break;
    case CRASH_HOLD:
        state_asked(e, QUEUE_HELD);
        lane_set_state(w->k.lane, m, QUEUE_HELD);
        break;
    case CRASH_RELEASE:
        state_asked(e, QUEUE_READY);
        lane_set_state(w->k.lane, m, QUEUE_READY);
        break;
    case CRASH_ATTEMPT: lane_attempt(w->k.lane, m, ATTEMPT_DOT); break;
    case CRASH_BOUNCE:
        wait_for_reports(w, (int)index);
        take_message(w, CRASH_SMALL / 2, 1, m, (int)index, rcpt);
        break;
    default: assert(!"no change");
    }
}

static void on_durable(struct lane_wait *lw, bool ok)
{
    struct crash_wait *c = container_of(lw, struct crash_wait, wait);

    assert(ok);
    c->done = true;
    for (uint32_t i = 0; i < c->books.count; i++) {
        struct crash_entry *now = &c->worker->books.entries[i];
        const struct crash_entry *then = &c->books.entries[i];
        now->durable |= then->asked;
        if (now->state_durable < then->state_count - 1)
            now->state_durable = (uint8_t)(then->state_count - 1);
    }
}

static void note_durable(struct worker *w)
{
    struct crash_wait *c = &w->waits[w->wait_count++];

    *c = (struct crash_wait){.wait = {.done = on_durable}, .worker = w, .books = w->books};
    lane_when_durable(w->k.lane, &c->wait);
}

static void wait_for_all(struct worker *w)
{
    for (uint32_t i = 0; i < w->books.count; i++)
        while (!w->txs[i].done)
            crash_lane_turn(&w->k);
    for (uint32_t i = 0; i < w->wait_count; i++)
        while (!w->waits[i].done)
            crash_lane_turn(&w->k);
}

static void fills(struct lane_params *p)
{
    p->zero_fill = 1;
}

static void parts(struct lane_params *p)
{
    p->early_bytes = 1;
}

static void do_step(struct worker *w, enum crash_step step, enum lane_write_mode mode)
{
    switch (step) {
    case CRASH_ACCEPT_SMALL: take_message(w, CRASH_SMALL, 2, NULL, -1, 0); break;
    case CRASH_ACCEPT_LARGE: take_message(w, CRASH_LARGE, 2, NULL, -1, 0); break;
    case CRASH_REOPEN:
        wait_for_all(w);
        crash_lane_close(&w->k, true);
        if (!lane_start(&w->k, mode))
            assert(!"the lane does not open again");
        return;
    case CRASH_FILL:
        crash_lane_idle(&w->k, FILL_NS);
        assert(lane_stats(w->k.lane)->segments == 3); /* it went on to the one that was filled */
        return;
    default: change(w, step);
    }
    note_durable(w);
}

void crash_run_work(struct crash_run *run, struct sim *sim)
{
    const struct crash_work *work = run->work;
    struct worker *w = calloc(1, sizeof *w);

    assert(w);
    w->run = run;
    w->host = sim_host_add(sim, "worker", "10.1.0.1");
    sim_host_faults(w->host, &work->faults);
    sim_host_enter(w->host);
    sim_host_on_disk_op(w->host, look, w);
    w->k.edit = work->fill ? fills : work->parts ? parts : NULL;
    if (!crash_lane_open(&w->k, work->mode))
        assert(!"the lane does not open");
    for (uint32_t i = 0; i < work->step_count; i++) {
        do_step(w, work->steps[i], work->mode);
        if (!work->together)
            wait_for_all(w);
    }
    wait_for_all(w);
    crash_lane_close(&w->k, false);
    look(w, sim_host_disk_ops(w->host) + 1); /* behind the last one, too */
    sim_host_on_disk_op(w->host, NULL, NULL);
    free(w);
}

void crash_run_free(struct crash_run *run)
{
    for (uint32_t i = 0; i < run->point_count; i++)
        sim_disk_free(run->points[i].disk);
    run->point_count = 0;
}

/* ---- words ---- */

bool crash_work_makes_sense(const struct crash_work *work)
{
    uint32_t left[CRASH_MESSAGES_MAX] = {0}, count = 0, at;

    for (uint32_t i = 0; i < work->step_count; i++) {
        enum crash_step step = work->steps[i];
        if (step == CRASH_ACCEPT_SMALL || step == CRASH_ACCEPT_LARGE) {
            left[count++] = 2;
            continue;
        }
        if (step == CRASH_REOPEN || step == CRASH_FILL)
            continue;
        for (at = 0; at < count && left[at] == 0; at++)
            continue;
        if (at == count)
            return false;
        if (step == CRASH_DELIVER_ALL)
            left[at] = 0;
        else if (step == CRASH_DELIVER_ONE || step == CRASH_BOUNCE)
            left[at]--;
        if (step == CRASH_BOUNCE)
            left[count++] = 1;
    }
    return true;
}

const char *crash_work_text(const struct crash_work *work, char text[200])
{
    static const char *const names[CRASH_STEP_COUNT + 1] = {
        "accept",  "accept large", "deliver one", "deliver all", "defer", "hold",
        "release", "bounce",       "attempt",     "reopen",      "fill"};
    size_t len = 0;

    for (uint32_t i = 0; i < work->step_count; i++)
        len +=
            (size_t)snprintf(text + len, 200 - len, "%s%s", i ? ", " : "", names[work->steps[i]]);
    snprintf(
        text + len, 200 - len, " (%s, %s, seed %llu)", work->together ? "together" : "one by one",
        work->mode == LANE_WRITE_DIRECT ? "direct" : "buffered", (unsigned long long)work->seed);
    return text;
}
