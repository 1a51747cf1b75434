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
    bool opened, refused, recovered, committed;
    uint32_t found, due_count;
    uint64_t qid;
};

static void opened(void *arg, struct lane *l, const struct why *why)
{
    struct rig *r = arg;
    (void)l;
    r->refused = why && why->smtp_code != 0;
    r->opened = !r->refused;
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

/* Starts the process. False: the lane cannot be opened, or the host stopped. */
static bool try_start(struct rig *r)
{
    struct io_params p = {.fd_count_max = 64, .cpu = -1};
    struct why why;
    sim_host_enter(r->host);
    r->io = io_create(&p, &why);
    cr_assert(r->io);
    r->opened = r->recovered = r->refused = false;
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
    while (!r->refused && (!r->opened || !r->recovered) && !sim_host_stopped(r->host))
        cr_assert(sim_step(r->sim));
    return r->opened && r->recovered;
}

/* Returns the messages it finds. */
static uint32_t start(struct rig *r)
{
    cr_assert(try_start(r));
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

/* ---- messages with extents that are copied forward ---- */

#define LARGE_KEPT 8u
#define LARGE_MAX  200000u

static uint8_t large_byte(uint32_t message, uint32_t at)
{
    return (uint8_t)(message * 31 + at % 251);
}

static void sent(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    struct taking *t = (struct taking *)tx;
    (void)why; /* 451 where a commit failed */
    t->rig->committed = true;
    t->rig->qid = m ? m->qid : 0;
}

static void resumed(struct lane_tx *tx)
{
    ((struct taking *)tx)->rig->committed = true;
}

/* False: the lane cannot take it now. */
static bool large_message(struct rig *r, uint32_t message, uint32_t len)
{
    struct envelope_rcpt to = {.mailbox = SLICE_LIT("you@example.com")};
    struct envelope env = {.rcpt_count = 1, .rcpts = &to, .sender = SLICE_LIT("me@example.com")};
    struct taking t = {.rig = r};
    struct why why;
    uint8_t bytes[10000];
    t.tx.done = sent;
    t.tx.resumed = resumed;
    if (!lane_tx_begin(r->lane, &t.tx, &why))
        return false;
    for (uint32_t at = 0; at < len; at += sizeof bytes) {
        for (uint32_t i = 0; i < sizeof bytes; i++)
            bytes[i] = large_byte(message, at + i);
        r->committed = false;
        if (lane_tx_append(&t.tx, slice_of(bytes, sizeof bytes)) == LANE_APPEND_WAIT)
            while (!r->committed)
                cr_assert(sim_step(r->sim));
    }
    r->committed = false;
    lane_tx_commit(&t.tx, &env, NULL, NULL, 0);
    lane_turn_end(r->lane);
    while (!r->committed)
        cr_assert(sim_step(r->sim));
    return r->qid != 0;
}

/* Mail that comes and goes, about `segments` segments of it. */
static void passing(struct rig *r, uint32_t segments)
{
    for (uint32_t i = 0; i < segments * 10; i++) {
        struct queue_msg *m = large_message(r, 99, 30000) ? lane_find(r->lane, r->qid) : NULL;
        if (m)
            lane_rcpts_final(r->lane, m, &(uint32_t){0}, 1, RCPT_DELIVERED);
        else
            (void)sim_run_until(r->sim, sim_now_ns(r->sim) + NS_PER_S);
    }
}

struct large {
    uint64_t qid;
    uint32_t size;
};

static void large_read(struct lane_read *r, int32_t res)
{
    struct rig *rig = r->msg->owner;
    cr_assert_eq(res, (int32_t)r->msg->body_size, "%d", res);
    rig->committed = true;
}

static void check_large(struct rig *r, uint32_t message, const struct large *large)
{
    static uint8_t got[LARGE_MAX];
    struct queue_msg *m = lane_find(r->lane, large->qid);
    struct lane_read read = {.done = large_read};
    cr_assert(m && m->body_size == large->size, "message %u", message);
    m->owner = r;
    r->committed = false;
    lane_body_read(r->lane, m, &read, 0, got, sizeof got);
    while (!r->committed)
        cr_assert(sim_step(r->sim));
    m->owner = NULL;
    for (uint32_t i = 0; i < large->size; i++)
        cr_assert_eq(got[i], large_byte(message, i), "message %u at %u", message, i);
}

struct tick {
    struct timer timer;
    bool fired;
};

static void tick(struct timer *t)
{
    ((struct tick *)t)->fired = true;
}

/* A shard turns now and then also when nothing comes. */
static void idle(struct rig *r, uint32_t seconds)
{
    for (uint32_t i = 0; i < seconds * 20; i++) {
        struct tick t = {.timer.fire = tick};
        io_timer_set(r->io, &t.timer, io_now_ns(r->io) + NS_PER_S / 20);
        while (!t.fired && !sim_host_stopped(r->host))
            cr_assert(sim_step(r->sim));
        if (sim_host_stopped(r->host))
            return;
    }
}

/* Mail whose end, or whose refusal, was not durable yet. */
static void end_others(struct rig *r, const struct large kept[LARGE_KEPT])
{
    struct queue_msg *m;
    uint64_t cursor = 0;
    while ((m = lane_next(r->lane, &cursor)) != NULL) {
        bool known = false;
        for (uint32_t i = 0; i < LARGE_KEPT; i++)
            known |= kept[i].qid == m->qid;
        if (!known)
            lane_rcpts_final(r->lane, m, &(uint32_t){0}, 1, RCPT_DELIVERED);
    }
}

/* Commits fail, the process is killed, the power is cut while they are copied. */
static void copy_large(uint64_t seed, bool faults)
{
    struct rig r;
    struct large kept[LARGE_KEPT];
    uint64_t copied = 0, live = 0;
    make(&r, seed);
    for (uint32_t i = 0; i < LARGE_KEPT; i++) {
        kept[i].size = 40000 + (uint32_t)sim_draw(r.sim, 5) * 40000;
        cr_assert(large_message(&r, i, kept[i].size));
        kept[i].qid = r.qid;
        live += kept[i].size;
        passing(&r, 1);
    }
    for (uint32_t round = 0; round < 6; round++) {
        if (faults)
            sim_host_fail_next(r.host, SIM_WRITE_SYNC, (uint32_t)sim_draw(r.sim, 40), SIM_EIO);
        for (uint32_t i = 0; i < 4; i++) {
            passing(&r, (uint32_t)sim_draw(r.sim, 2));
            idle(&r, (uint32_t)sim_draw(r.sim, 2));
        }
        copied += lane_stats(r.lane)->copied_forward_bytes;
        if (!faults || sim_draw(r.sim, 2))
            continue;
        copied = 0;
        if (sim_draw(r.sim, 2))
            sim_host_power_cut(r.host);
        else
            sim_host_kill(r.host);
        sim_host_fail_next(r.host, SIM_WRITE_SYNC, 0, SIM_OK);
        (void)start(&r);
        end_others(&r, kept);
        for (uint32_t i = 0; i < LARGE_KEPT; i++)
            check_large(&r, i, &kept[i]);
    }
    sim_host_fail_next(r.host, SIM_WRITE_SYNC, 0, SIM_OK);
    idle(&r, 5);
    passing(&r, 3);
    for (uint32_t i = 0; i < LARGE_KEPT; i++)
        check_large(&r, i, &kept[i]);
    cr_assert(faults || copied > 100000);
    cr_assert_leq(lane_stats(r.lane)->segments, 2 * live / SEGMENT_BYTES_MIN + 5,
                  "seed %u: %u segments", (unsigned)seed, (unsigned)lane_stats(r.lane)->segments);
    sim_destroy(r.sim);
}

Test(lane_sim, large_messages_are_copied_whole)
{
    for (uint64_t seed = 500; seed < 503; seed++)
        copy_large(seed, false);
}

/* Also when the commit of the copy's place fails, and a start would find it all the same. */
Test(lane_sim, a_failed_copy_of_a_large_message_loses_nothing)
{
    for (uint64_t seed = 600; seed < 615; seed++)
        copy_large(seed, true);
}

/* ---- folder syncs that fail, and forget ---- */

static bool file_there(const struct rig *r, uint32_t id, const char *suffix)
{
    char path[64], byte;
    snprintf(path, sizeof path, "/spool/lane-00/%08x.%s", id, suffix);
    return sim_host_disk_read(r->host, path, &byte, 1, 0) >= 0;
}

struct single {
    struct io_op op;
    int32_t res;
    bool done;
};

static void single_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct single *s = container_of(op, struct single, op);
    (void)flags;
    s->res = res;
    s->done = true;
}

static int32_t single_wait(struct rig *r, struct single *s)
{
    while (!s->done)
        cr_assert(sim_step(r->sim));
    s->done = false;
    return s->res;
}

/* What the reaper does with a dead segment, in a process whose sync of the folder fails. */
static void forget_rename(struct rig *r, uint32_t id)
{
    struct io_params p = {.fd_count_max = 64, .cpu = -1};
    struct single s = {.op.done = single_done};
    struct why why;
    char from[64], to[64];
    snprintf(from, sizeof from, "/spool/lane-00/%08x.seg", id);
    snprintf(to, sizeof to, "/spool/lane-00/%08x.tmp", id);
    sim_host_enter(r->host);
    struct io *io = io_create(&p, &why);
    cr_assert(io);
    io_open(io, &s.op, "/spool/lane-00", IO_READ | IO_DIR);
    int32_t fd = single_wait(r, &s);
    cr_assert_geq(fd, 0);
    io_rename(io, &s.op, from, to);
    cr_assert_eq(single_wait(r, &s), 0);
    sim_host_fail_next(r->host, SIM_SYNC, 0, SIM_EIO);
    io_sync(io, &s.op, fd);
    cr_assert_lt(single_wait(r, &s), 0);
    sim_host_kill(r->host);
}

static void deliver(struct rig *r, uint64_t qid)
{
    struct queue_msg *m = lane_find(r->lane, qid);
    cr_assert(m);
    lane_rcpts_final(r->lane, m, &(uint32_t){0}, 1, RCPT_DELIVERED);
}

/*
 * A process that is killed leaves a message in segment 1 and one in another, and the end of both in
 * that other, all durable. Returns that other.
 */
static uint32_t end_apart(struct rig *r, uint64_t ended[2])
{
    message(r);
    ended[0] = r->qid;
    passing(r, 1);
    message(r);
    ended[1] = r->qid;
    idle(r, 1);
    uint32_t last = lane_find(r->lane, ended[1])->segment;
    cr_assert(lane_find(r->lane, ended[0])->segment == 1 && last > 1);
    sim_host_stop_before(r->host, sim_host_disk_ops(r->host) + 3); /* behind the write, the sync */
    deliver(r, ended[0]);
    deliver(r, ended[1]);
    lane_turn_end(r->lane);
    idle(r, 1);
    cr_assert(sim_host_stopped(r->host));
    sim_host_kill(r->host);
    sim_host_stop_before(r->host, 0);
    cr_assert(file_there(r, 1, "seg") && file_there(r, last, "seg"));
    return last;
}

/*
 * The file of a dead segment is called .tmp, and on disk .seg for good. A start must not let the
 * segment go in which its message ended: the message would be back after a power cut. Also when
 * that start itself is killed at any of its effects.
 */
Test(lane_sim, a_dead_segment_does_not_come_back)
{
    for (uint64_t seed = 700; seed < 740; seed++) {
        struct rig r;
        make(&r, seed);
        uint64_t ended[2];
        uint32_t last = end_apart(&r, ended);
        forget_rename(&r, 1);
        cr_assert(file_there(&r, 1, "tmp"));
        for (uint64_t n = 1; seed % 2 && n < 16; n++) {
            sim_host_stop_before(r.host, sim_host_disk_ops(r.host) + n);
            if (try_start(&r))
                break;
            sim_host_kill(r.host);
        }
        sim_host_stop_before(r.host, 0);
        if (sim_host_has_process(r.host))
            sim_host_kill(r.host);
        cr_assert_eq(start(&r), 0);
        cr_assert_not(file_there(&r, 1, "tmp"));
        passing(&r, 5);
        idle(&r, 1);
        cr_assert_not(file_there(&r, last, "seg"), "what was ended there is gone");
        sim_host_power_cut_subset(r.host, 0);
        (void)start(&r);
        cr_assert_null(lane_find(r.lane, ended[0]), "seed %u", (unsigned)seed);
        cr_assert_null(lane_find(r.lane, ended[1]), "seed %u", (unsigned)seed);
        sim_destroy(r.sim);
    }
}

struct ended {
    struct lane_wait wait;
    bool done, ok;
};

static void ended_durable(struct lane_wait *w, bool ok)
{
    struct ended *e = container_of(w, struct ended, wait);
    e->done = true;
    e->ok = ok;
}

#define LIVES 16u

/* Delivers it; `over` is set when that is on disk. */
static void end_one(struct rig *r, uint64_t *live, bool *over)
{
    struct ended e = {.wait.done = ended_durable};
    deliver(r, *live);
    lane_when_durable(r->lane, &e.wait);
    lane_turn_end(r->lane);
    while (!e.done)
        cr_assert(sim_step(r->sim));
    *over = e.ok;
}

static void start_at_last(struct rig *r, bool cut)
{
    do {
        if (cut)
            sim_host_power_cut(r->host);
        else
            sim_host_kill(r->host);
    } while (!try_start(r));
}

/* What was taken is there, what is over is not, however many folder syncs failed on the way. */
Test(lane_sim, folder_syncs_that_fail_lose_nothing_and_bring_nothing_back)
{
    static const struct sim_faults faults = {.dir_sync_eio = 400};
    for (uint64_t seed = 800; seed < 830; seed++) {
        struct rig r;
        uint64_t qids[LIVES * 4] = {0};
        bool over[LIVES * 4] = {0}, asked[LIVES * 4] = {0};
        uint32_t count = 0;
        make(&r, seed);
        sim_host_faults(r.host, &faults);
        for (uint32_t round = 0; round < 12; round++) {
            for (uint32_t i = 0; i < 4 && count < LIVES * 4; i++) {
                if (large_message(&r, count, 20000))
                    qids[count++] = r.qid;
                passing(&r, 1);
            }
            for (uint32_t i = 0; i < 3; i++) {
                uint32_t which = (uint32_t)sim_draw(r.sim, count + 1);
                if (which == count || asked[which])
                    continue;
                asked[which] = true;
                end_one(&r, &qids[which], &over[which]);
            }
            passing(&r, (uint32_t)sim_draw(r.sim, 4));
            start_at_last(&r, sim_draw(r.sim, 2));
            for (uint32_t i = 0; i < count; i++) {
                bool there = lane_find(r.lane, qids[i]) != NULL;
                cr_assert(there || asked[i], "seed %u: message %u is lost", (unsigned)seed, i);
                cr_assert(!there || !over[i], "seed %u: message %u is back", (unsigned)seed, i);
                asked[i] = !there;
            }
        }
        sim_destroy(r.sim);
    }
}

/* ---- states that are written again ---- */

#define STATES 8u

struct noted {
    uint64_t qid, wall_s;
    bool durable;
};

static void note_attempt(struct rig *r, struct noted *n, uint64_t wall_s)
{
    struct ended e = {.wait.done = ended_durable};
    struct queue_msg *m = lane_find(r->lane, n->qid);
    cr_assert(m);
    lane_defer(r->lane, m, wall_s, true, SLICE_LIT("451 later"));
    lane_when_durable(r->lane, &e.wait);
    lane_turn_end(r->lane);
    while (!e.done)
        cr_assert(sim_step(r->sim));
    n->wall_s = wall_s;
    n->durable = e.ok;
}

static void check_noted(struct rig *r, struct noted noted[STATES], uint64_t seed)
{
    for (uint32_t i = 0; i < STATES; i++) {
        struct queue_msg *m = lane_find(r->lane, noted[i].qid);
        cr_assert(m, "seed %u: message %u is lost", (unsigned)seed, i);
        if (noted[i].durable)
            cr_assert_eq(m->next_attempt_wall_s, noted[i].wall_s, "seed %u: message %u",
                         (unsigned)seed, i);
    }
}

/* Each note lies in a segment of mail that is over; commits fail, the process dies. */
static void write_states_again(uint64_t seed, bool faults)
{
    struct rig r;
    struct noted noted[STATES] = {{0}};
    make(&r, seed);
    for (uint32_t i = 0; i < STATES; i++) {
        cr_assert(large_message(&r, i, 30000));
        noted[i].qid = r.qid;
    }
    for (uint32_t round = 0; round < 24; round++) {
        passing(&r, 1);
        note_attempt(&r, &noted[round % STATES], 4000000000 + round);
        if (faults)
            sim_host_fail_next(r.host, SIM_WRITE_SYNC, (uint32_t)sim_draw(r.sim, 20), SIM_EIO);
        idle(&r, (uint32_t)sim_draw(r.sim, 4));
        if (!faults || sim_draw(r.sim, 3))
            continue;
        start_at_last(&r, sim_draw(r.sim, 2));
        sim_host_fail_next(r.host, SIM_WRITE_SYNC, 0, SIM_OK);
        check_noted(&r, noted, seed);
    }
    sim_host_fail_next(r.host, SIM_WRITE_SYNC, 0, SIM_OK);
    idle(&r, 10);
    check_noted(&r, noted, seed);
    cr_assert_leq(lane_stats(r.lane)->segments, 6, "seed %u: %u segments", (unsigned)seed,
                  (unsigned)lane_stats(r.lane)->segments);
    sim_destroy(r.sim);
}

Test(lane_sim, states_that_are_written_again_stay_the_same)
{
    for (uint64_t seed = 900; seed < 930; seed++)
        write_states_again(seed, seed % 3);
}

/*
 * The sync of a message's end fails, and the process dies before it can say so elsewhere. Its
 * successor reads that end in memory, and may believe it only if it lasts.
 */
Test(lane_sim, what_a_failed_sync_left_in_memory_is_written_again)
{
    uint32_t believed = 0;
    for (uint64_t seed = 1000; seed < 1060; seed++) {
        struct rig r;
        make(&r, seed);
        message(&r);
        uint64_t qid = r.qid;
        message(&r); /* keeps their segment */
        idle(&r, 1);
        sim_host_fail_next(r.host, SIM_SYNC, 0, SIM_EIO);
        sim_host_stop_before(r.host, sim_host_disk_ops(r.host) + 3);
        deliver(&r, qid);
        idle(&r, 1);
        cr_assert(sim_host_stopped(r.host));
        sim_host_kill(r.host);
        sim_host_stop_before(r.host, 0);
        uint32_t found_first = start(&r);
        idle(&r, 1);
        sim_host_power_cut_subset(r.host, 0);
        cr_assert_eq(start(&r), found_first, "seed %u", (unsigned)seed);
        believed += found_first == 1;
        sim_destroy(r.sim);
    }
    cr_assert_gt(believed, 10);
}
