/*
 * tests/sim/test_fill.c - zeros into spare segments: which ones, when they are used, and what a
 * disk that fails leaves of it.
 */
#include <criterion/criterion.h>

#include "gateway/limits.h"
#include "queue/lane_internal.h"
#include "tests/sim/crash_kit.h"

#define FILLED_NS NS_PER_S /* a segment is long full then */

struct filling {
    struct sim *sim;
    struct sim_host *host;
    struct crash_lane k;
    void (*edit)(struct lane_params *p);
    uint32_t found;
};

static void fills(struct lane_params *p)
{
    p->zero_fill = 1;
}

static void fills_in_short_room(struct lane_params *p)
{
    p->zero_fill = 1;
    p->bytes_max = 6 * p->segment_bytes;
}

static void fills_larger(struct lane_params *p)
{
    p->zero_fill = 1;
    p->segment_bytes = MIB;
}

static void found(struct crash_lane *k, struct queue_msg *m)
{
    (void)m;
    container_of(k, struct filling, k)->found++;
}

static void start(struct filling *f, enum lane_write_mode mode)
{
    f->found = 0;
    f->k = (struct crash_lane){.found = found, .edit = f->edit};
    sim_host_enter(f->host);
    cr_assert(crash_lane_open(&f->k, mode), "%s", f->k.why.text);
}

static void make(struct filling *f, uint64_t seed, void (*edit)(struct lane_params *p))
{
    *f = (struct filling){.sim = sim_create(seed), .edit = edit};
    f->host = sim_host_add(f->sim, "host", "10.0.0.1");
}

static struct lane *begin(struct filling *f, uint64_t seed, void (*edit)(struct lane_params *p))
{
    make(f, seed, edit);
    start(f, LANE_WRITE_DIRECT);
    return f->k.lane;
}

static void end(struct filling *f)
{
    crash_lane_close(&f->k, false);
    sim_destroy(f->sim);
}

struct taking {
    struct lane_tx tx;
    bool done;
    uint64_t qid;
};

static void taken(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    struct taking *t = container_of(tx, struct taking, tx);

    cr_assert(m && why->smtp_code == 0, "%s", why->text);
    t->done = true;
    t->qid = m->qid;
}

static uint64_t message(struct filling *f)
{
    struct envelope_rcpt to = {.mailbox = SLICE_LIT("you@example.com")};
    struct envelope env = {.rcpt_count = 1, .rcpts = &to, .sender = SLICE_LIT("me@example.com")};
    struct taking t = {.tx = {.done = taken}};
    struct why why;
    uint8_t body[3000];

    memset(body, 'x', sizeof body);
    cr_assert(lane_tx_begin(f->k.lane, &t.tx, &why), "%s", why.text);
    cr_assert_eq(lane_tx_append(&t.tx, slice_of(body, sizeof body)), LANE_APPEND_OK);
    lane_tx_commit(&t.tx, &env, NULL, NULL, 0);
    while (!t.done)
        crash_lane_turn(&f->k);
    return t.qid;
}

static void deliver(struct filling *f, uint64_t qid)
{
    lane_rcpts_final(f->k.lane, lane_find(f->k.lane, qid), &(uint32_t){0}, 1, RCPT_DELIVERED);
}

static bool is_full(const struct segment *s)
{
    return s && s->written == s->bytes;
}

Test(fill, an_idle_lane_goes_on_to_a_full_segment)
{
    struct filling f;
    struct lane *l;

    l = begin(&f, 1, fills);
    cr_assert(l->open->id == 1 && !is_full(l->open), "a start waits for nothing");
    uint64_t first = message(&f);
    crash_lane_idle(&f.k, FILLED_NS);
    cr_assert(l->open->id == 2 && is_full(l->open));
    cr_assert(l->spare->id == 3 && is_full(l->spare));
    message(&f);
    cr_assert(l->open->id == 2);
    deliver(&f, first);
    crash_lane_idle(&f.k, FILLED_NS);
    cr_assert_eq(l->stock_count, 1, "the first segment is dead, and used again");
    cr_assert_lt(l->stock_written[0], l->p.segment_bytes / 2);
    crash_lane_close(&f.k, false);
    start(&f, LANE_WRITE_DIRECT);
    cr_assert_eq(f.found, 1);
    end(&f);
}

static void fills_with_others(struct lane_params *p)
{
    p->zero_fill = 8;
    p->segment_bytes = MIB;
}

/* The disk is given no more to write than by one lane. */
Test(fill, lanes_of_one_disk_share_the_pace)
{
    struct filling f;
    struct lane *l;

    l = begin(&f, 8, fills_with_others);
    crash_lane_idle(&f.k, 400 * NS_PER_MS); /* room for two pieces; alone: full by then */
    cr_assert(l->open->id == 1 && l->spare->written > SEGMENT_BLOCK);
    cr_assert_leq(l->spare->written, SEGMENT_BLOCK + 2 * 256 * KIB);
    crash_lane_idle(&f.k, FILLED_NS);
    cr_assert(l->open->id == 2 && is_full(l->open));
    end(&f);
}

/* Commits one behind the other: nothing is filled beside them, and no segment is left early. */
Test(fill, a_busy_lane_does_without)
{
    struct filling f;
    struct lane *l;

    l = begin(&f, 2, fills);
    for (int i = 0; i < 300; i++) { /* several segments */
        message(&f);
        if (l->open->id == 1)
            cr_assert(!l->spare || l->spare->written < 2 * l->open->tail + 64 * KIB);
    }
    cr_assert_geq(l->open->id, 4);
    crash_lane_close(&f.k, false);
    start(&f, LANE_WRITE_DIRECT);
    cr_assert_eq(f.found, 300);
    end(&f);
}

/* A segment that was full of records is not filled when it is used again. */
Test(fill, a_recycled_segment_is_full)
{
    struct filling f;
    struct lane *l;
    uint32_t id;

    l = begin(&f, 3, fills_larger);
    for (int i = 0; i < 3000 && !(l->spare && l->prepare.recycled); i++)
        deliver(&f, message(&f));
    cr_assert(l->spare && l->prepare.recycled);
    cr_assert(is_full(l->spare));
    id = l->fill.id;
    crash_lane_idle(&f.k, FILLED_NS);
    cr_assert_eq(l->fill.id, id, "nothing was written to it");
    end(&f);
}

Test(fill, nothing_through_the_page_cache_nor_unasked)
{
    struct filling f;

    make(&f, 4, fills);
    start(&f, LANE_WRITE_BUFFERED);
    crash_lane_idle(&f.k, FILLED_NS);
    cr_assert(f.k.lane->open->id == 1 && f.k.lane->spare->written == SEGMENT_BLOCK);
    end(&f);
    make(&f, 5, NULL);
    start(&f, LANE_WRITE_DIRECT);
    crash_lane_idle(&f.k, FILLED_NS);
    cr_assert(f.k.lane->open->id == 1 && f.k.lane->spare->written == SEGMENT_BLOCK);
    end(&f);
}

/* Segments that one must be careful with are used to their end. */
Test(fill, short_of_room_no_segment_is_left_early)
{
    struct filling f;
    struct lane *l;

    l = begin(&f, 6, fills_in_short_room);
    message(&f);
    crash_lane_idle(&f.k, FILLED_NS);
    cr_assert(l->open->id == 1 && is_full(l->spare));
    while (l->open->id == 1)
        message(&f);
    cr_assert(is_full(l->open) && lane_health(l) == LANE_OK);
    end(&f);
}

/* A full disk, a bad block: the spare is used as far as it is. */
static void write_fails(enum sim_fault fault)
{
    struct filling f;
    struct lane *l;

    l = begin(&f, 7, fills_larger);
    while (!l->spare)
        crash_lane_turn(&f.k);
    sim_host_fail_next(f.host, SIM_WRITE, 1, fault);
    crash_lane_idle(&f.k, FILLED_NS);
    cr_assert(l->open->id == 1 && l->spare->id == 2, "%s", sim_fault_name(fault));
    cr_assert_eq(l->spare->written, SEGMENT_BLOCK + 256 * KIB);
    cr_assert_eq(l->stats.sync_failed, 0);
    while (l->open->id == 1)
        message(&f);
    crash_lane_idle(&f.k, FILLED_NS);
    cr_assert(l->open->id == 3 && is_full(l->open), "and the next one is filled again");
    end(&f);
}

Test(fill, a_write_that_fails)
{
    write_fails(SIM_EIO);
    write_fails(SIM_ENOSPC);
    write_fails(SIM_SHORT);
}

/* What that sync covered may be lost, and no later one would tell: nothing is appended to it. */
Test(fill, a_sync_that_fails)
{
    struct filling f;
    struct lane *l;
    uint32_t kept = 0;

    l = begin(&f, 8, fills);
    while (!l->spare)
        crash_lane_turn(&f.k);
    sim_host_fail_next(f.host, SIM_SYNC, 0, SIM_EIO);
    while (l->stats.sync_failed == 0)
        crash_lane_turn(&f.k);
    cr_assert(!l->spare && l->fill.id == 2);
    for (; kept < 10; kept++) /* mail goes on meanwhile */
        message(&f);
    cr_assert_eq(l->open->id, 1);
    cr_assert_eq(lane_health(l), LANE_OK);
    crash_lane_idle(&f.k, 5 * NS_PER_S);
    cr_assert(l->open->id == 1 && l->spare->id == 3 && l->spare->written == SEGMENT_BLOCK);
    cr_assert_null(segments_find(&l->segments, 2), "it is gone");
    for (; l->open->id == 1; kept++)
        message(&f);
    cr_assert_eq(l->open->id, 3);
    sim_host_power_cut_subset(f.host, 0);
    start(&f, LANE_WRITE_DIRECT);
    cr_assert_eq(f.found, kept);
    end(&f);
}

/* The lane is closed, or runs full, while zeros are under way. */
Test(fill, the_end_of_a_write_is_waited_for)
{
    static const struct sim_faults slow = {.disk_min_ns = 2 * NS_PER_MS,
                                           .disk_max_ns = 9 * NS_PER_MS};

    for (uint64_t seed = 20; seed < 40; seed++) {
        struct filling f;
        uint32_t count = 0;
        make(&f, seed, fills);
        sim_host_faults(f.host, &slow);
        start(&f, LANE_WRITE_DIRECT);
        for (; f.k.lane->open->id < 4 && count < 400; count++) {
            message(&f);
            if (count % 8 == seed % 8)
                crash_lane_idle(&f.k, 25 * NS_PER_MS);
        }
        while (seed % 2 && !f.k.lane->fill.running && !is_full(f.k.lane->spare))
            crash_lane_turn(&f.k);
        crash_lane_close(&f.k, false);
        start(&f, LANE_WRITE_DIRECT);
        cr_assert_eq(f.found, count, "seed %u", (unsigned)seed);
        end(&f);
    }
}
