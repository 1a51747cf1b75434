/*
 * tests/unit/test_lane_error.c - the last error of a deferred message is found wherever its record
 * lies: in a batch that fills, that is written, that is kept in memory, or on disk alone.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/limits.h"
#include "tests/unit/lane_kit.h"

#define COUNT 40u

static void direct(struct lane_params *p)
{
    p->mode = LANE_WRITE_DIRECT;
}

static void expect_errors(struct lane_kit *k, const uint64_t qid[COUNT], const char *when)
{
    for (uint32_t i = 0; i < COUNT; i++) {
        struct envelope env;
        char error[600], want[64];
        snprintf(want, sizeof want, "451 4.4.1 %u: Connection refused", i);
        cr_assert(lane_kit_envelope(k, qid[i], &env, error));
        cr_assert_str_eq(error, want, "message %u, %s", i, when);
    }
}

static void defer_all(struct lane_kit *k, const uint64_t qid[COUNT])
{
    for (uint32_t i = 0; i < COUNT; i++) {
        char error[64];
        snprintf(error, sizeof error, "451 4.4.1 %u: Connection refused", i);
        lane_defer(k->lane, lane_find(k->lane, qid[i]), 4000000000, true, slice_str(error));
    }
}

static void run(void (*edit)(struct lane_params *p))
{
    struct lane_kit k;
    uint64_t qid[COUNT];

    lane_kit_open(&k, edit);
    for (uint32_t i = 0; i < COUNT; i++)
        qid[i] = lane_kit_put(&k, i, 300, 1);
    lane_kit_settle(&k);
    defer_all(&k, qid);
    expect_errors(&k, qid, "at once");
    lane_kit_settle(&k);
    expect_errors(&k, qid, "written");
    for (uint32_t i = 0; i < COUNT; i++)
        lane_set_state(k.lane, lane_find(k.lane, qid[i]), QUEUE_HELD);
    expect_errors(&k, qid, "held at once");
    lane_kit_settle(&k);
    expect_errors(&k, qid, "held");
    lane_kit_reopen(&k);
    expect_errors(&k, qid, "after a start");
    lane_kit_end(&k);
}

Test(lane_error, of_many_in_one_commit)
{
    run(NULL);
}

Test(lane_error, of_many_in_one_commit_direct)
{
    run(direct);
}
