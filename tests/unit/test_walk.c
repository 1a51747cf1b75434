/*
 * tests/unit/test_walk.c - all messages in the order on disk, each once, whatever ends or is copied
 * meanwhile.
 */
#include <criterion/criterion.h>

#include "gateway/limits.h"
#include "tests/unit/lane_kit.h"

#define COUNT 240u /* some segments' worth */
#define BODY  8000u

struct seen {
    uint64_t qids[COUNT + 1];
    uint32_t count;
    uint64_t place; /* of the last one */
    bool in_order;
};

static bool has(const struct seen *s, uint64_t qid)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (s->qids[i] == qid)
            return true;
    return false;
}

/* At most `max` steps. True: the walk is over. */
static bool walk(struct lane_kit *k, struct lane_walk *w, struct seen *s, uint32_t max)
{
    struct queue_msg *m;

    while (max--) {
        enum lane_walk_step step = lane_walk_next(k->lane, w, &m);
        if (step == LANE_WALK_OVER)
            return true;
        if (step == LANE_WALK_LATER) {
            lane_kit_turn(k);
            continue;
        }
        uint64_t place = (uint64_t)m->segment << 32 | m->offset;
        s->in_order = s->in_order && place > s->place;
        s->place = place;
        cr_assert_lt(s->count, COUNT + 1, "more than there are");
        cr_assert(!has(s, m->qid), "twice");
        s->qids[s->count++] = m->qid;
    }
    return false;
}

static void small_segments(struct lane_params *p)
{
    p->segment_bytes = SEGMENT_BYTES_MIN;
}

static void fill(struct lane_kit *k, uint64_t qids[COUNT])
{
    for (uint32_t i = 0; i < COUNT; i++) {
        qids[i] = lane_kit_put(k, i, BODY, 1);
        lane_defer(k->lane, lane_find(k->lane, qids[i]), 4000000000, true, SLICE_LIT(""));
    }
    lane_kit_settle(k);
}

Test(walk, all_in_the_order_on_disk)
{
    struct lane_kit k;
    uint64_t qids[COUNT];
    struct seen s = {.in_order = true};
    struct lane_walk w;

    lane_kit_open(&k, small_segments);
    fill(&k, qids);
    cr_assert_gt(lane_stats(k.lane)->segments, 3);
    lane_walk_begin(k.lane, &w);
    cr_assert(!walk(&k, &w, &s, 10));
    lane_kit_put(&k, COUNT, BODY, 1); /* came later: not seen */
    cr_assert(walk(&k, &w, &s, 2 * COUNT));
    lane_walk_end(&w);
    cr_assert(s.in_order);
    cr_assert_eq(s.count, COUNT);
    lane_kit_reopen(&k);
    s = (struct seen){.in_order = true};
    lane_walk_begin(k.lane, &w);
    cr_assert(walk(&k, &w, &s, 2 * COUNT));
    lane_walk_end(&w);
    cr_assert(s.in_order);
    cr_assert_eq(s.count, COUNT + 1);
    lane_kit_end(&k);
}

Test(walk, what_ends_meanwhile)
{
    struct lane_kit k;
    uint64_t qids[COUNT];
    struct seen s = {.in_order = true};
    struct lane_walk w, other;

    lane_kit_open(&k, small_segments);
    fill(&k, qids);
    lane_walk_begin(k.lane, &w);
    lane_walk_begin(k.lane, &other);
    lane_walk_end(&other);
    cr_assert(!walk(&k, &w, &s, 20));
    for (uint32_t i = 10; i < 30; i++) /* passed ones, the one it stands at, and those behind */
        lane_kit_deliver(&k, qids[i]);
    lane_kit_settle(&k);
    cr_assert(!walk(&k, &w, &s, 100));
    for (uint32_t i = 0; i < COUNT - 20; i++) /* whole segments go */
        if (i < 10 || i >= 30)
            lane_kit_deliver(&k, qids[i]);
    lane_kit_settle(&k);
    cr_assert(walk(&k, &w, &s, 2 * COUNT));
    lane_walk_end(&w);
    cr_assert(s.in_order);
    for (uint32_t i = 0; i < COUNT; i++)
        if (i < 20 || (i >= 30 && i < 130) || i >= COUNT - 20)
            cr_assert(has(&s, qids[i]), "%u", i);
    cr_assert_eq(s.count, 20 + 100 + 20);
    lane_kit_end(&k);
}

/* Copies of what was passed lie behind its end; what lies ahead is not copied before it came by. */
Test(walk, what_is_copied_meanwhile)
{
    struct lane_kit k;
    uint64_t qids[COUNT];
    struct seen s = {0};
    struct lane_walk w;

    lane_kit_open(&k, small_segments);
    fill(&k, qids);
    for (uint32_t i = 0; i < COUNT; i++)
        if (i % 6)
            lane_kit_deliver(&k, qids[i]);
    lane_walk_begin(k.lane, &w);
    for (uint32_t step = 1; !walk(&k, &w, &s, 1); step++)
        for (uint32_t i = 0; step == 10 && i < 200; i++) /* a look for what to copy: every second */
            if (lane_stats(k.lane)->copied_forward_bytes == 0)
                lane_kit_settle(&k);
    lane_walk_end(&w);
    cr_assert_eq(s.count, COUNT / 6);
    for (uint32_t i = 0; i < COUNT; i += 6)
        cr_assert(has(&s, qids[i]), "%u", i);
    cr_assert_gt(lane_stats(k.lane)->copied_forward_bytes, 0, "what it had passed may be");
    lane_kit_end(&k);
}

Test(walk, a_lane_that_closes_ends_it)
{
    struct lane_kit k;
    struct lane_walk w;
    struct queue_msg *m;

    lane_kit_open(&k, NULL);
    lane_kit_put(&k, 1, BODY, 1);
    lane_walk_begin(k.lane, &w);
    cr_assert_eq(lane_walk_next(k.lane, &w, &m), LANE_WALK_FOUND);
    lane_kit_close_lane(&k);
    lane_walk_end(&w); /* knows of no lane any more */
    lane_kit_start(&k);
    LANE_KIT_UNTIL(&k, k.recovered);
    lane_kit_end(&k);
}
