/*
 * tests/unit/test_lane_large.c - messages with extents are copied forward: dead segments go, no
 * crash and no failure loses one or brings one back.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gateway/base/prng.h"
#include "gateway/limits.h"
#include "queue/lane_internal.h"
#include "tests/unit/lane_kit.h"

#define KEPT 24u
#define BODY 100000u

static void small_segments(struct lane_params *p)
{
    p->segment_bytes = MIB;
}

/* Mail that comes and goes: about `segments` segments of it. */
static void passing(struct lane_kit *k, uint32_t segments)
{
    struct lane_kit_tx t[11];

    for (uint32_t i = 0; i < segments * 3; i++) {
        for (uint32_t n = 0; n < 11; n++)
            lane_kit_send(k, &t[n], n, 30000, 1);
        for (uint32_t n = 0; n < 11; n++) {
            LANE_KIT_UNTIL(k, t[n].done);
            lane_kit_deliver(k, t[n].qid);
        }
    }
}

/* In every second segment a message of BODY bytes stays. */
static void traffic(struct lane_kit *k, uint64_t kept[KEPT])
{
    for (uint32_t i = 0; i < KEPT; i++) {
        struct queue_msg *m;
        kept[i] = lane_kit_put(k, i, BODY, 2);
        m = lane_find(k->lane, kept[i]);
        lane_defer(k->lane, m, 4000000000, true, SLICE_LIT("450 try later"));
        lane_rcpts_final(k->lane, m, &(uint32_t){1}, 1, RCPT_DELIVERED);
        passing(k, 2);
    }
}

static uint32_t check_kept(struct lane_kit *k, const uint64_t kept[KEPT])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < KEPT; i++) {
        struct queue_msg *m = kept[i] ? lane_find(k->lane, kept[i]) : NULL;
        if (!kept[i])
            continue;
        cr_assert_not_null(m, "message %u", i);
        cr_assert(m->attempts == 1 && m->rcpt_pending == 1 && m->state == QUEUE_DEFERRED);
        cr_assert_eq(lane_kit_check_body(k, kept[i], i, BODY, 300000), 0);
        count++;
    }
    return count;
}

static uint64_t settled_segments(struct lane_kit *k, uint64_t enough)
{
    for (int i = 0; i < 100 && lane_stats(k->lane)->segments > enough; i++)
        lane_kit_settle(k);
    return lane_stats(k->lane)->segments;
}

/* The bound of space: without copying each message would hold a segment of its own. */
Test(lane_large, one_message_does_not_hold_a_segment)
{
    struct lane_kit k;
    uint64_t kept[KEPT], segments, live = KEPT * (uint64_t)BODY;

    lane_kit_open(&k, small_segments);
    traffic(&k, kept);
    segments = settled_segments(&k, 6);
    cr_assert_leq(segments * MIB, 2 * live + 2 * MIB, "%lu segments", segments);
    cr_assert_gt(lane_stats(k.lane)->copied_forward_bytes, 10 * BODY);
    cr_assert_lt(lane_stats(k.lane)->copied_forward_bytes, 6 * live);
    cr_assert_eq(check_kept(&k, kept), KEPT);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, KEPT);
    cr_assert_eq(k.damaged_count, 0, "%s", k.damaged_what);
    cr_assert_eq(check_kept(&k, kept), KEPT);
    for (uint32_t i = 0; i < KEPT; i++)
        lane_kit_deliver(&k, kept[i]);
    passing(&k, 2);
    cr_assert_leq(settled_segments(&k, 4), 4);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 0);
    lane_kit_end(&k);
}

/* A slow upload: its few extents lie in, and hold, dozens of segments. */
Test(lane_large, extents_far_apart_are_brought_together)
{
    struct lane_kit k;
    struct lane_kit_tx t;

    lane_kit_open(&k, small_segments);
    lane_kit_begin(&k, &t);
    for (uint32_t i = 0; i < 10; i++) {
        lane_kit_append(&k, &t, 1, 40000);
        passing(&k, 3);
    }
    lane_kit_commit(&k, &t, 1);
    LANE_KIT_UNTIL(&k, t.done);
    cr_assert_eq(t.code, 0);
    cr_assert_geq(t.msg->segment - t.msg->first_segment, 20);
    cr_assert_geq(lane_stats(k.lane)->segments, 20);
    passing(&k, 2);
    cr_assert_leq(settled_segments(&k, 5), 5);
    cr_assert_eq(lane_kit_check_body(&k, t.qid, 1, 400000, 65536), 0);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1);
    cr_assert_eq(lane_kit_check_body(&k, t.qid, 1, 400000, 65536), 0);
    lane_kit_end(&k);
}

/* Messages end while they are being copied; a crash at several moments finds those that live, once
 * and whole. */
Test(lane_large, messages_end_while_copied)
{
    struct lane_kit k;
    uint64_t kept[KEPT];
    char copy[128], command[400];
    struct prng rng;
    uint32_t left = KEPT;

    prng_seed(&rng, 7);
    lane_kit_open(&k, small_segments);
    traffic(&k, kept);
    for (int round = 0; round < 6; round++) {
        for (uint32_t turn = 0; turn < 40; turn++) {
            uint32_t i = (uint32_t)prng_below(&rng, KEPT);
            lane_kit_turn(&k);
            if (kept[i] && turn % 20 == 0) {
                lane_kit_deliver(&k, kept[i]);
                kept[i] = 0;
                left--;
            }
        }
        lane_kit_put(&k, 1, 10, 1); /* behind the ends, so that they are durable */
        left++;
        lane_kit_copy(&k, copy);
        lane_kit_close_lane(&k);
        snprintf(command, sizeof command, "rm -rf '%s' && mv '%s' '%s'", k.spool, copy, k.spool);
        cr_assert_eq(system(command), 0);
        lane_kit_reopen(&k);
        cr_assert_eq(k.found_count, left);
        cr_assert_eq(check_kept(&k, kept), left - (uint32_t)round - 1);
    }
    cr_assert_gt(left, 6);
    lane_kit_end(&k);
}

struct reader {
    struct lane_read read;
    bool done;
    int32_t res;
};

static void read_done(struct lane_read *r, int32_t res)
{
    struct reader *b = container_of(r, struct reader, read);

    b->done = true;
    b->res = res;
}

/* One that is being delivered is copied all the same, and its reader notices nothing. */
Test(lane_large, a_reader_follows_the_copy)
{
    static uint8_t got[MIB], want[MIB];
    struct lane_kit k;
    struct lane_kit_tx t;
    struct queue_msg *m;
    uint32_t before, reads = 0, across = 0;

    lane_kit_open(&k, small_segments);
    lane_kit_begin(&k, &t);
    for (uint32_t i = 0; i < 8; i++) {
        lane_kit_append(&k, &t, 5, sizeof got / 8);
        passing(&k, 1);
    }
    lane_kit_commit(&k, &t, 1);
    LANE_KIT_UNTIL(&k, t.done);
    lane_kit_body(5, 0, want, sizeof want);
    m = t.msg;
    m->owner = &k;
    before = m->segment;
    while (m->segment == before || lane_stats(k.lane)->segments > 5) {
        struct reader b = {.read = {.done = read_done}};
        uint32_t from = m->segment;
        memset(got, 0, sizeof got);
        lane_body_read(k.lane, m, &b.read, 0, got, sizeof got);
        LANE_KIT_UNTIL(&k, b.done);
        cr_assert_eq(b.res, (int32_t)sizeof got);
        cr_assert_eq(memcmp(got, want, sizeof got), 0);
        across += from != m->segment;
        cr_assert_lt(++reads, 100000u);
    }
    cr_assert_geq(across, 1, "a read was under way");
    m->owner = NULL;
    lane_kit_end(&k);
}

static void file_limit(uint64_t bytes)
{
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};

    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* Commits fail while messages are copied, again and again. */
Test(lane_large, failed_commits_lose_no_message)
{
    struct lane_kit k;
    uint64_t kept[KEPT];
    struct prng rng;

    prng_seed(&rng, 11);
    lane_kit_open(&k, small_segments);
    traffic(&k, kept);
    for (int round = 0; round < 12; round++) {
        file_limit(20000 + prng_below(&rng, 900000));
        for (uint32_t turn = 0; turn < 30; turn++)
            lane_kit_turn(&k);
        file_limit(RLIM_INFINITY);
        LANE_KIT_UNTIL(&k, lane_health(k.lane) == LANE_OK);
        if (round % 4 == 3) {
            lane_kit_settle(&k);
            lane_kit_reopen(&k);
            cr_assert_eq(k.found_count, KEPT);
        }
        cr_assert_eq(check_kept(&k, kept), KEPT);
    }
    cr_assert_leq(settled_segments(&k, 8), 8);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, KEPT);
    cr_assert_eq(check_kept(&k, kept), KEPT);
    lane_kit_end(&k);
}

/* A MOVED that is on disk or not, nobody knows: its extents stay until something younger than it
 * says where the message is. */
Test(lane_large, extents_of_a_failed_copy_are_kept)
{
    struct lane_kit k;
    uint64_t kept[KEPT];
    const struct compact *c;
    struct compact_owed owed;

    lane_kit_open(&k, small_segments);
    c = &k.lane->compact;
    traffic(&k, kept);
    LANE_KIT_UNTIL(&k, c->large.step == LARGE_MOVED);
    cr_assert_leq(c->large.position, k.lane->batch_durable, "its extents are durable");
    file_limit(100);
    LANE_KIT_UNTIL(&k, c->owed_count == 1);
    owed = c->owed[0];
    file_limit(RLIM_INFINITY);
    for (uint32_t i = 0; c->owed_count; i++) {
        if (lane_find(k.lane, owed.qid)->segment < owed.last) {
            cr_assert_not_null(segments_find(&k.lane->segments, owed.first));
            cr_assert_not_null(segments_find(&k.lane->segments, owed.last));
        }
        lane_kit_turn(&k);
        cr_assert_lt(i, 2000000u);
    }
    cr_assert_gt(lane_find(k.lane, owed.qid)->segment, owed.last);
    cr_assert_leq(settled_segments(&k, 8), 8);
    cr_assert_eq(check_kept(&k, kept), KEPT);
    lane_kit_reopen(&k);
    cr_assert_eq(check_kept(&k, kept), KEPT);
    lane_kit_end(&k);
}
