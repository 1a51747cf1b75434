/*
 * tests/unit/test_lane_compact.c - long-lived messages are copied forward, their old segments go,
 * and nothing that is over comes back.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/base/prng.h"
#include "gateway/limits.h"
#include "tests/unit/lane_kit.h"

#define KEPT 60u

/* One message in forty stays, the others are delivered at once; many segments' worth. */
static void traffic(struct lane_kit *k, uint64_t kept[KEPT])
{
    struct queue_msg *m;

    for (uint32_t i = 0; i < KEPT * 40; i++) {
        struct lane_kit_tx t;
        lane_kit_send(k, &t, i, 25000, 2);
        LANE_KIT_UNTIL(k, t.done);
        if (i % 40) {
            lane_kit_deliver(k, t.qid);
            continue;
        }
        kept[i / 40] = t.qid;
        m = lane_find(k->lane, t.qid);
        lane_defer(k->lane, m, 4000000000, true, SLICE_LIT("450 try later"));
        lane_rcpts_final(k->lane, m, &(uint32_t){1}, 1, RCPT_DELIVERED);
    }
}

static void check_kept(struct lane_kit *k, const uint64_t kept[KEPT])
{
    for (uint32_t i = 0; i < KEPT; i++) {
        struct queue_msg *m = kept[i] ? lane_find(k->lane, kept[i]) : NULL;
        if (!kept[i])
            continue;
        cr_assert_not_null(m);
        cr_assert(m->attempts == 1 && m->rcpt_pending == 1 && m->state == QUEUE_DEFERRED);
        cr_assert_eq(lane_kit_check_body(k, kept[i], (uint64_t)i * 40, 25000, 65536), 0);
    }
}

static void wait_ms(struct lane_kit *k, uint32_t ms)
{
    for (uint32_t i = 0; i < ms / 100; i++)
        lane_kit_settle(k);
}

Test(lane_compact, old_segments_go)
{
    struct lane_kit k;
    uint64_t kept[KEPT];
    uint64_t segments;

    lane_kit_open(&k, NULL);
    traffic(&k, kept);
    for (int i = 0; i < 40 && lane_stats(k.lane)->segments > 5; i++)
        wait_ms(&k, 200);
    segments = lane_stats(k.lane)->segments;
    cr_assert_leq(segments, 6, "%lu segments", segments);
    cr_assert_gt(lane_stats(k.lane)->copied_forward_bytes, 20 * 25000);
    check_kept(&k, kept);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, KEPT);
    cr_assert_eq(k.damaged_count, 0, "%s", k.damaged_what);
    check_kept(&k, kept);
    for (uint32_t i = 0; i < KEPT; i++)
        lane_kit_deliver(&k, kept[i]);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 0);
    lane_kit_end(&k);
}

/* Messages end while they are being copied; a crash at several moments finds exactly those that
 * live. */
Test(lane_compact, messages_end_while_copied)
{
    struct lane_kit k;
    uint64_t kept[KEPT];
    char copy[128], command[400];
    struct prng rng;
    uint32_t left = KEPT;

    prng_seed(&rng, 5);
    lane_kit_open(&k, NULL);
    traffic(&k, kept);
    for (int round = 0; round < 12; round++) {
        for (uint32_t turn = 0; turn < 30; turn++) {
            uint32_t i = (uint32_t)prng_below(&rng, KEPT);
            lane_kit_turn(&k);
            if (kept[i] && turn % 10 == 0) {
                lane_kit_deliver(&k, kept[i]);
                kept[i] = 0;
                left--;
            }
        }
        lane_kit_settle(&k);
        if (round % 4 != 3)
            continue;
        lane_kit_copy(&k, copy);
        lane_kit_close_lane(&k);
        snprintf(command, sizeof command, "rm -rf '%s' && mv '%s' '%s'", k.spool, copy, k.spool);
        cr_assert_eq(system(command), 0);
        lane_kit_reopen(&k);
        cr_assert_eq(k.found_count, left);
        check_kept(&k, kept);
        wait_ms(&k, 500);
    }
    cr_assert_gt(left, 0);
    lane_kit_end(&k);
}

static void small_segments(struct lane_params *p)
{
    p->segment_bytes = MIB;
}

/* In nearly every segment mail ends that was accepted in the one before: so each waits for the one
 * before, and all of them for the first. That one is full of mail for a host that is down. */
Test(lane_compact, a_full_segment_does_not_hold_all_others)
{
    struct lane_kit k;
    uint64_t kept[30], last = 0;

    lane_kit_open(&k, small_segments);
    for (uint32_t i = 0; i < 30; i++) {
        kept[i] = lane_kit_put(&k, i, 30000, 1);
        lane_defer(k.lane, lane_find(k.lane, kept[i]), 4000000000, true, SLICE_LIT("450 later"));
    }
    for (uint32_t i = 0; i < 160; i++) {
        struct lane_kit_tx t[8];
        for (uint32_t n = 0; n < 8; n++)
            lane_kit_send(&k, &t[n], n, 30000, 1);
        if (last)
            lane_kit_deliver(&k, last);
        for (uint32_t n = 0; n < 8; n++) {
            LANE_KIT_UNTIL(&k, t[n].done);
            if (n < 7)
                lane_kit_deliver(&k, t[n].qid);
        }
        last = t[7].qid;
    }
    for (int i = 0; i < 100 && lane_stats(k.lane)->segments > 8; i++)
        lane_kit_settle(&k);
    cr_assert_leq(lane_stats(k.lane)->segments, 8, "%lu segments", lane_stats(k.lane)->segments);
    cr_assert_leq(lane_stats(k.lane)->copied_forward_bytes, 10 * 30 * 30000);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 31);
    for (uint32_t i = 0; i < 30; i++)
        cr_assert_eq(lane_kit_check_body(&k, kept[i], i, 30000, 65536), 0);
    lane_kit_end(&k);
}

/* Other mail passes, each message ends in the segment that it came in; next attempts at the kept
 * ones are noted all along. */
static void retry_among_others(struct lane_kit *k, const uint64_t kept[30])
{
    for (uint32_t i = 0; i < 30; i++) {
        char words[64];
        for (uint32_t n = 0; n < 12; n++)
            lane_kit_deliver(k, lane_kit_put(k, n, 30000, 1));
        snprintf(words, sizeof words, "451 4.4.1 %u: Connection refused", i);
        lane_defer(k->lane, lane_find(k->lane, kept[i]), 4000000000, true, slice_str(words));
    }
}

static void check_states(struct lane_kit *k, const uint64_t kept[30])
{
    for (uint32_t i = 0; i < 30; i++) {
        struct queue_msg *m = lane_find(k->lane, kept[i]);
        struct envelope env;
        char error[600], want[64];
        snprintf(want, sizeof want, "451 4.4.1 %u: Connection refused", i);
        cr_assert(m && m->state == QUEUE_DEFERRED && m->attempts == 1);
        cr_assert_eq(m->next_attempt_wall_s, 4000000000);
        cr_assert(lane_kit_envelope(k, kept[i], &env, error));
        cr_assert_str_eq(error, want, "message %u: %s", i, error);
    }
}

/* A full segment of mail for a host that is down: notes of failed attempts are all that keeps the
 * segments which they are in. */
Test(lane_compact, a_state_does_not_hold_a_segment)
{
    struct lane_kit k;
    uint64_t kept[30];

    lane_kit_open(&k, small_segments);
    for (uint32_t i = 0; i < 30; i++)
        kept[i] = lane_kit_put(&k, i, 30000, 1);
    retry_among_others(&k, kept);
    for (int i = 0; i < 200 && lane_stats(k.lane)->segments > 5; i++)
        lane_kit_settle(&k);
    cr_assert_leq(lane_stats(k.lane)->segments, 5, "%lu segments", lane_stats(k.lane)->segments);
    check_states(&k, kept);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 30);
    cr_assert_eq(k.damaged_count, 0, "%s", k.damaged_what);
    check_states(&k, kept);
    lane_kit_end(&k);
}
