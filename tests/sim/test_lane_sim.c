/*
 * A lane of the spool on the simulated disk: what must survive kills, power cuts and reads that
 * fail, each in the one order of events in which it once did not.
 */
#include <criterion/criterion.h>

#include "gateway/limits.h"
#include "queue/queue.h"
#include "tests/sim/sim.h"

struct rig {
    struct sim *sim;
    struct sim_host *host;
    struct io *io;
    struct lane *lane;
    bool opened, recovered, committed;
    uint32_t found, due_count;
    uint64_t qid;
};

static void opened(void *arg, struct lane *l, const struct why *why)
{
    struct rig *r = arg;
    (void)l;
    cr_assert(!why || why->smtp_code == 0, "%s", why->text);
    r->opened = true;
}

static void found(void *arg, struct lane *l, struct queue_msg *m)
{
    struct rig *r = arg;
    (void)l;
    (void)m;
    r->found++;
}

static void recovered(void *arg, struct lane *l)
{
    struct rig *r = arg;
    (void)l;
    r->recovered = true;
}

static void due(void *arg, struct lane *l, struct queue_msg *m)
{
    struct rig *r = arg;
    (void)l;
    (void)m;
    r->due_count++;
}

static void turn_end(void *arg)
{
    struct rig *r = arg;
    lane_turn_end(r->lane);
}

/* Starts the process; returns the messages it finds. */
static uint32_t start(struct rig *r)
{
    struct io_params p = {.fd_count_max = 64, .cpu = -1};
    struct why why;
    sim_host_enter(r->host);
    r->io = io_create(&p, &why);
    cr_assert(r->io);
    r->opened = r->recovered = false;
    r->found = 0;
    struct lane_params lp = {.io = r->io,
                             .spool = "/spool",
                             .lane = 0,
                             .segment_bytes = SEGMENT_BYTES_MIN,
                             .bytes_max = 64 * MIB,
                             .mode = LANE_WRITE_DIRECT,
                             .arg = r,
                             .opened = opened,
                             .found = found,
                             .recovered = recovered,
                             .due = due};
    r->lane = lane_open(&lp);
    cr_assert(r->lane);
    io_on_turn_end(r->io, turn_end, r);
    while (!r->opened || !r->recovered)
        cr_assert(sim_step(r->sim));
    return r->found;
}

static void make(struct rig *r, uint64_t seed)
{
    *r = (struct rig){.sim = sim_create(seed)};
    r->host = sim_host_add(r->sim, "host", "10.0.0.1");
    sim_host_disk_put(r->host, "/spool/README", "", 0);
    cr_assert_eq(start(r), 0);
}

struct taking {
    struct lane_tx tx;
    struct rig *rig;
};

static void taken(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    struct taking *t = (struct taking *)tx;
    cr_assert(m && why->smtp_code == 0, "%s", why->text);
    t->rig->committed = true;
    t->rig->qid = m->qid;
}

static void begin_message(struct rig *r, struct taking *t)
{
    struct envelope_rcpt to = {.mailbox = SLICE_LIT("you@example.com")};
    struct envelope env = {.rcpt_count = 1, .rcpts = &to, .sender = SLICE_LIT("me@example.com")};
    struct why why;
    *t = (struct taking){.rig = r};
    t->tx.done = taken;
    r->committed = false;
    cr_assert(lane_tx_begin(r->lane, &t->tx, &why));
    cr_assert_eq(lane_tx_append(&t->tx, SLICE_LIT("Subject: x\r\n\r\nbody\r\n")), LANE_APPEND_OK);
    lane_tx_commit(&t->tx, &env, NULL, NULL, 0);
    lane_turn_end(r->lane);
}

static void message(struct rig *r)
{
    struct taking t;
    begin_message(r, &t);
    while (!r->committed)
        cr_assert(sim_step(r->sim));
}

/*
 * A killed process had written a message and not synced it. Its successor reads it, and may deliver
 * it or delete older copies for it: then no power cut may take it away again.
 */
Test(lane_sim, what_recovery_tells_is_on_disk)
{
    struct rig r;
    struct taking t;
    make(&r, 1);
    message(&r);
    (void)sim_run_until(r.sim, sim_now_ns(r.sim) + NS_PER_S);    /* the next segment is ready */
    sim_host_stop_before(r.host, sim_host_disk_ops(r.host) + 2); /* the write, then its sync */
    begin_message(&r, &t);
    while (!sim_host_stopped(r.host))
        cr_assert(sim_step(r.sim));
    cr_assert(!r.committed);
    sim_host_kill(r.host);
    sim_host_stop_before(r.host, 0);
    cr_assert_eq(start(&r), 2, "the page cache outlives a process");
    sim_host_power_cut_subset(r.host, 0);
    cr_assert_eq(start(&r), 2, "and what was told is there after a power cut");
    sim_destroy(r.sim);
}

static void failing(enum sim_kind kind, enum sim_fault fault)
{
    for (uint32_t skip = 0; skip < 8; skip++) {
        struct rig r;
        make(&r, 2 + skip);
        message(&r);
        message(&r);
        sim_host_kill(r.host);
        sim_host_fail_next(r.host, kind, skip, fault);
        cr_assert_eq(start(&r), 2, "%s %u: %s", sim_kind_name(kind), skip, sim_fault_name(fault));
        sim_destroy(r.sim);
    }
}

Test(lane_sim, a_read_that_fails_once_loses_nothing)
{
    failing(SIM_READ, SIM_EIO);
}

Test(lane_sim, a_read_cut_short_loses_nothing)
{
    failing(SIM_READ, SIM_SHORT);
}

/* FAULTS 68: the retry comes as long after the failure as was meant, whatever the clock shows. */
static void clock_steps(int64_t by_s)
{
    struct rig r;
    make(&r, 40);
    message(&r);
    struct queue_msg *m = lane_find(r.lane, r.qid);
    cr_assert(m);
    lane_defer(r.lane, m, lane_wall_s(r.lane) + 600, true, SLICE_LIT("later"));
    r.due_count = 0;
    (void)sim_run_until(r.sim, sim_now_ns(r.sim) + 60 * NS_PER_S);
    sim_clock_jump(r.host, by_s * (int64_t)NS_PER_S);
    (void)sim_run_until(r.sim, sim_now_ns(r.sim) + 500 * NS_PER_S);
    cr_assert_eq(r.due_count, 0, "not before its time, after a step of %lld s", (long long)by_s);
    (void)sim_run_until(r.sim, sim_now_ns(r.sim) + 100 * NS_PER_S);
    cr_assert_eq(r.due_count, 1, "in time, after a step of %lld s", (long long)by_s);
    sim_destroy(r.sim);
}

Test(lane_sim, f68_a_clock_step_moves_no_retry)
{
    clock_steps(0);
    clock_steps(5 * 86400);
    clock_steps(-3600);
}

static void refused(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    struct taking *t = (struct taking *)tx;
    (void)m;
    cr_assert(why->smtp_code >= 400);
    t->rig->committed = true;
}

/*
 * A report ends its message in one record. When that commit fails, the record may be on disk all
 * the same: the message is not over, and its sender knows nothing yet.
 */
Test(lane_sim, a_report_that_failed_ends_nothing)
{
    for (uint64_t seed = 100; seed < 130; seed++) {
        struct rig r;
        struct taking t = {.rig = &r};
        struct envelope_rcpt to = {.mailbox = SLICE_LIT("me@example.com")};
        struct envelope env = {.rcpt_count = 1, .rcpts = &to};
        struct why why;
        uint64_t cursor = 0;
        uint32_t first = 0;
        make(&r, seed);
        message(&r);
        (void)sim_run_until(r.sim, sim_now_ns(r.sim) + NS_PER_S); /* no other write is under way */
        struct queue_msg *m = lane_next(r.lane, &cursor);
        m->owner = &r;
        t.tx.done = refused;
        t.tx.internal = true;
        r.committed = false;
        cr_assert(lane_tx_begin(r.lane, &t.tx, &why));
        cr_assert_eq(lane_tx_append(&t.tx, SLICE_LIT("failed\r\n")), LANE_APPEND_OK);
        sim_host_fail_next(r.host, SIM_SYNC, 0, SIM_EIO);
        lane_tx_commit(&t.tx, &env, m, &first, 1);
        lane_turn_end(r.lane);
        while (!r.committed)
            cr_assert(sim_step(r.sim));
        m->owner = NULL;
        (void)sim_run_until(r.sim, sim_now_ns(r.sim) + NS_PER_S);
        sim_host_kill(r.host);
        cr_assert_eq(start(&r), 1, "seed %u", (unsigned)seed);
        sim_destroy(r.sim);
    }
}
