/*
 * tests/unit/test_lane_attempt.c - attempts across crashes: what a start knows of those that were
 * under way (queue/FORMAT.md section 10).
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/limits.h"
#include "tests/unit/lane_kit.h"

/* The spool as it lies there now is what the next start finds. */
static void crash(struct lane_kit *k)
{
    char copy[128], command[400];

    lane_kit_settle(k);
    lane_kit_copy(k, copy);
    lane_kit_close_lane(k);
    snprintf(command, sizeof command, "rm -rf '%s' && mv '%s' '%s'", k->spool, copy, k->spool);
    cr_assert_eq(system(command), 0);
    lane_kit_reopen(k);
    cr_assert_eq(k->damaged_count, 0, "%s", k->damaged_what);
}

static struct queue_msg *put(struct lane_kit *k, uint64_t seed)
{
    return lane_find(k->lane, lane_kit_put(k, seed, 300, 3));
}

static void expect(struct lane_kit *k, uint64_t qid, unsigned crashes, bool uncertain)
{
    struct queue_msg *m = lane_find(k->lane, qid);

    cr_assert_not_null(m);
    cr_assert_eq((unsigned)m->crashes, crashes, "%u crashes", (unsigned)m->crashes);
    cr_assert_eq(m->uncertain, uncertain);
    cr_assert_eq((int)m->attempt, ATTEMPT_NONE);
}

Test(lane_attempt, steps_are_found_after_a_crash)
{
    struct lane_kit k;
    struct queue_msg *none, *begun, *dot, *ended, *part;
    uint64_t qid[5];

    lane_kit_open(&k, NULL);
    qid[0] = (none = put(&k, 0))->qid;
    qid[1] = (begun = put(&k, 1))->qid;
    qid[2] = (dot = put(&k, 2))->qid;
    qid[3] = (ended = put(&k, 3))->qid;
    qid[4] = (part = put(&k, 4))->qid;
    cr_assert_not(none->careful, "taken by this run");
    lane_attempt(k.lane, begun, ATTEMPT_BEGUN);
    lane_attempt(k.lane, dot, ATTEMPT_BEGUN);
    lane_attempt(k.lane, dot, ATTEMPT_DOT);
    lane_attempt(k.lane, dot, ATTEMPT_BEGUN); /* of another recipient: nothing new */
    lane_attempt(k.lane, ended, ATTEMPT_DOT);
    lane_defer(k.lane, ended, 4000000000, true, SLICE_LIT("450 later"));
    lane_attempt(k.lane, part, ATTEMPT_DOT);
    lane_rcpts_final(k.lane, part, &(uint32_t){1}, 1, RCPT_DELIVERED);
    crash(&k);
    expect(&k, qid[0], 0, false);
    expect(&k, qid[1], 1, false);
    expect(&k, qid[2], 1, true);
    expect(&k, qid[3], 0, false);
    expect(&k, qid[4], 1, true); /* the others' attempt goes on when one recipient is done */
    for (int i = 0; i < 5; i++)
        cr_assert(lane_find(k.lane, qid[i])->careful);
    crash(&k); /* without an attempt between: not counted again */
    expect(&k, qid[1], 1, false);
    expect(&k, qid[2], 1, true);
    lane_kit_end(&k);
}

Test(lane_attempt, crashes_are_counted_until_an_attempt_ends)
{
    struct lane_kit k;
    uint64_t qid;

    lane_kit_open(&k, NULL);
    qid = put(&k, 1)->qid;
    for (unsigned i = 1; i <= 4; i++) {
        lane_attempt(k.lane, lane_find(k.lane, qid), ATTEMPT_BEGUN);
        crash(&k);
        expect(&k, qid, i < QUEUE_CRASHES_MAX ? i : QUEUE_CRASHES_MAX, false);
    }
    lane_set_aside(k.lane, lane_find(k.lane, qid), QUEUE_POISON, SLICE_LIT("set aside"));
    crash(&k);
    expect(&k, qid, 0, false);
    cr_assert_eq((int)lane_find(k.lane, qid)->state, QUEUE_POISON);
    lane_set_state(k.lane, lane_find(k.lane, qid), QUEUE_READY); /* the operator's release */
    lane_attempt(k.lane, lane_find(k.lane, qid), ATTEMPT_BEGUN);
    crash(&k);
    expect(&k, qid, 1, false);
    lane_attempt(k.lane, lane_find(k.lane, qid), ATTEMPT_BEGUN);
    lane_defer(k.lane, lane_find(k.lane, qid), 4000000000, true, SLICE_LIT("450 later"));
    crash(&k);
    expect(&k, qid, 0, false);
    lane_kit_end(&k);
}

/* A stop in good order counts for nothing, but a dot without its answer stays what it is. */
Test(lane_attempt, a_clean_stop_is_no_crash)
{
    struct lane_kit k;
    uint64_t begun, dot;

    lane_kit_open(&k, NULL);
    begun = put(&k, 1)->qid;
    dot = put(&k, 2)->qid;
    lane_attempt(k.lane, lane_find(k.lane, begun), ATTEMPT_BEGUN);
    lane_attempt(k.lane, lane_find(k.lane, dot), ATTEMPT_DOT);
    lane_kit_reopen(&k);
    expect(&k, begun, 0, false);
    expect(&k, dot, 0, true);
    cr_assert_not(lane_find(k.lane, dot)->careful);
    lane_kit_reopen(&k);
    expect(&k, dot, 0, true);
    lane_attempt(k.lane, lane_find(k.lane, dot), ATTEMPT_BEGUN);
    cr_assert_not(lane_find(k.lane, dot)->uncertain, "an attempt after it, and it was said");
    lane_kit_end(&k);
}

struct waiter {
    struct lane_wait wait;
    bool done, ok;
};

static void waited(struct lane_wait *w, bool ok)
{
    struct waiter *x = container_of(w, struct waiter, wait);

    cr_assert_not(x->done);
    x->done = true;
    x->ok = ok;
}

Test(lane_attempt, waits_until_it_is_durable)
{
    struct lane_kit k;
    struct waiter a = {.wait = {.done = waited}}, b = a, c = a;
    struct queue_msg *m;
    uint64_t qid, commits;

    lane_kit_open(&k, NULL);
    m = put(&k, 1);
    qid = m->qid;
    lane_kit_settle(&k);
    commits = lane_stats(k.lane)->commits;
    lane_attempt(k.lane, m, ATTEMPT_BEGUN);
    lane_when_durable(k.lane, &a.wait);
    lane_when_durable(k.lane, &c.wait);
    lane_wait_cancel(&c.wait);
    cr_assert_not(a.done);
    LANE_KIT_UNTIL(&k, a.done);
    cr_assert(a.ok && !c.done);
    cr_assert_eq(lane_stats(k.lane)->commits, commits + 1);
    lane_when_durable(k.lane, &b.wait); /* nothing is open: soon */
    cr_assert_not(b.done);
    LANE_KIT_UNTIL(&k, b.done);
    cr_assert(b.ok);
    cr_assert_eq(lane_stats(k.lane)->commits, commits + 1, "no sync of its own");
    crash(&k);
    expect(&k, qid, 1, false);
    lane_kit_end(&k);
}

/* The error of the attempt before is found behind the records of this one. */
Test(lane_attempt, keeps_the_last_error)
{
    struct lane_kit k;
    struct envelope env;
    struct queue_msg *m;
    char error[600];
    uint64_t qid;

    lane_kit_open(&k, NULL);
    m = put(&k, 1);
    qid = m->qid;
    lane_defer(k.lane, m, 4000000000, true, SLICE_LIT("450 later"));
    lane_attempt(k.lane, m, ATTEMPT_BEGUN);
    lane_attempt(k.lane, m, ATTEMPT_DOT);
    lane_rcpts_final(k.lane, m, &(uint32_t){1}, 1, RCPT_DELIVERED);
    lane_rcpts_final(k.lane, m, &(uint32_t){2}, 1, RCPT_DELIVERED);
    crash(&k);
    lane_set_state(k.lane, lane_find(k.lane, qid), QUEUE_HELD);
    cr_assert(lane_kit_envelope(&k, qid, &env, error));
    cr_assert_str_eq(error, "450 later");
    lane_kit_end(&k);
}
