/*
 * tests/unit/test_lane_handoff.c - messages that come from another gateway, and that go to one:
 * queue/FORMAT.md section 11.
 */
#include <criterion/criterion.h>

#include "tests/unit/lane_kit.h"

static const struct lane_arrival arrival = {
    .next_attempt_wall_s = 4000000000, .attempts = 3, .warned = true, .uncertain = true};

static uint64_t prepare(struct lane_kit *k, size_t body_len)
{
    struct lane_kit_tx t;
    lane_kit_begin(k, &t);
    t.tx.arrival = &arrival;
    lane_kit_append(k, &t, 5, body_len);
    lane_kit_commit(k, &t, 70);
    LANE_KIT_UNTIL(k, t.done);
    cr_assert_eq(t.code, 0);
    return t.qid;
}

static void assert_prepared(struct lane_kit *k, uint64_t qid, size_t body_len)
{
    struct queue_msg *m = lane_find(k->lane, qid);
    cr_assert_not_null(m);
    cr_assert_eq(m->state, QUEUE_PREPARED);
    cr_assert_eq(m->attempts, 3);
    cr_assert(m->warned && m->uncertain && m->rcpt_pending == 70 && !m->schedule_index);
    cr_assert_eq(m->next_attempt_wall_s, 4000000000);
    cr_assert_eq(lane_kit_check_body(k, qid, 5, body_len, 65536), 0);
    cr_assert_eq(k->due_count, 0);
    cr_assert_eq(k->damaged_count, 0, "%s", k->damaged_what);
}

/* Small ones and such with extents, before and after a start. */
Test(lane_handoff, prepared_is_durable_and_never_due)
{
    static const size_t sizes[] = {10, 300000};
    struct lane_kit k;
    uint64_t qid[2];
    lane_kit_open(&k, NULL);
    for (int i = 0; i < 2; i++)
        qid[i] = prepare(&k, sizes[i]);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2; i++)
            assert_prepared(&k, qid[i], sizes[i]);
        cr_assert_eq(lane_stats(k.lane)->by_state[QUEUE_PREPARED], 2);
        lane_kit_reopen(&k);
    }
    lane_kit_end(&k);
}

Test(lane_handoff, taken_keeps_the_time_of_the_next_attempt)
{
    struct lane_kit k;
    struct queue_msg *m;
    uint64_t qid;
    lane_kit_open(&k, NULL);
    qid = prepare(&k, 10);
    m = lane_find(k.lane, qid);
    lane_prepared_taken(k.lane, m, QUEUE_READY);
    cr_assert(m->state == QUEUE_READY && m->attempts == 3 && m->uncertain && !m->schedule_index);
    lane_prepared_go(k.lane, qid);
    cr_assert(m->schedule_index);
    lane_kit_reopen(&k);
    m = lane_find(k.lane, qid);
    cr_assert(m->state == QUEUE_READY && m->attempts == 3 && m->warned && m->uncertain);
    cr_assert_eq(m->next_attempt_wall_s, 4000000000);
    cr_assert_eq(k.due_count, 0);
    lane_kit_end(&k);
}

Test(lane_handoff, taken_may_rest)
{
    struct lane_kit k;
    uint64_t qid;
    lane_kit_open(&k, NULL);
    qid = prepare(&k, 10);
    lane_prepared_taken(k.lane, lane_find(k.lane, qid), QUEUE_HELD);
    lane_prepared_go(k.lane, qid);
    lane_kit_reopen(&k);
    cr_assert_eq(lane_find(k.lane, qid)->state, QUEUE_HELD);
    cr_assert_eq(k.due_count, 0);
    lane_kit_end(&k);
}

Test(lane_handoff, given_rests_with_the_name_of_its_owner)
{
    struct lane_kit k;
    struct envelope env;
    char error[600];
    uint64_t qid;
    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 5000, 2);
    lane_set_aside(k.lane, lane_find(k.lane, qid), QUEUE_GIVEN, SLICE_LIT("Given to p i a/1"));
    lane_kit_reopen(&k);
    cr_assert_eq(lane_find(k.lane, qid)->state, QUEUE_GIVEN);
    cr_assert(lane_kit_envelope(&k, qid, &env, error));
    cr_assert_str_eq(error, "Given to p i a/1");
    cr_assert(queue_state_rests(QUEUE_GIVEN) && queue_state_rests(QUEUE_PREPARED) &&
              queue_state_rests(QUEUE_HELD) && queue_state_rests(QUEUE_POISON));
    cr_assert_not(queue_state_rests(QUEUE_READY) || queue_state_rests(QUEUE_DEFERRED) ||
                  queue_state_rests(QUEUE_UNREACHABLE));
    lane_kit_end(&k);
}
