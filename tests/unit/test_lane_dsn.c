/*
 * tests/unit/test_lane_dsn.c - a DSN and the finality of what it reports are one: both there or
 * neither, whatever else happens to the message meanwhile.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <sys/resource.h>

#include "gateway/limits.h"
#include "tests/unit/lane_kit.h"

Test(lane_dsn, some_recipients)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    struct queue_msg *m;
    uint64_t qid;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 100, 3);
    m = lane_find(k.lane, qid);
    lane_kit_commit_dsn(&k, &t, m, 1);
    cr_assert_eq(m->rcpt_pending, 3, "not before it is durable");
    LANE_KIT_UNTIL(&k, t.done);
    cr_assert_eq(m->rcpt_pending, 2);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 2);
    cr_assert_not_null(lane_find(k.lane, t.qid));
    m = lane_find(k.lane, qid);
    cr_assert(m->rcpt_pending == 2 && queue_msg_rcpt_is_final(m, 1));
    lane_kit_end(&k);
}

Test(lane_dsn, last_recipient)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    struct queue_msg *m;
    uint64_t qid;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 100, 1);
    m = lane_find(k.lane, qid);
    m->owner = &k;
    lane_kit_commit_dsn(&k, &t, m, 0);
    LANE_KIT_UNTIL(&k, t.done);
    cr_assert_null(lane_find(k.lane, qid));
    lane_kit_settle(&k);
    cr_assert_eq(m->qid, qid, "kept while somebody owns it");
    m->owner = NULL;
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1);
    cr_assert_eq(k.found[0], t.qid);
    lane_kit_end(&k);
}

/* What happens to the message while the DSN waits is written behind it. */
Test(lane_dsn, changes_meanwhile)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    struct queue_msg *m;
    uint64_t qid;
    uint32_t two = 2;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 100, 3);
    m = lane_find(k.lane, qid);
    lane_kit_commit_dsn(&k, &t, m, 0);
    lane_rcpts_final(k.lane, m, &two, 1, RCPT_DELIVERED);
    lane_defer(k.lane, m, 4000000000, true, SLICE_LIT("later"));
    LANE_KIT_UNTIL(&k, t.done);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 2);
    m = lane_find(k.lane, qid);
    cr_assert(m->rcpt_pending == 1 && !queue_msg_rcpt_is_final(m, 1));
    cr_assert(m->state == QUEUE_DEFERRED && m->attempts == 1);
    lane_kit_end(&k);
}

Test(lane_dsn, the_rest_becomes_final_meanwhile)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    struct queue_msg *m;
    uint64_t qid;
    uint32_t one = 1;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 100, 2);
    m = lane_find(k.lane, qid);
    lane_kit_commit_dsn(&k, &t, m, 0);
    lane_rcpts_final(k.lane, m, &one, 1, RCPT_DELIVERED);
    cr_assert_eq(lane_find(k.lane, qid), m);
    LANE_KIT_UNTIL(&k, t.done);
    cr_assert_null(lane_find(k.lane, qid));
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1);
    cr_assert_eq(k.found[0], t.qid);
    lane_kit_end(&k);
}

Test(lane_dsn, removed_meanwhile)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    uint64_t qid;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 100, 2);
    lane_kit_commit_dsn(&k, &t, lane_find(k.lane, qid), 0);
    lane_kit_deliver(&k, qid);
    LANE_KIT_UNTIL(&k, t.done);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1);
    cr_assert_eq(k.found[0], t.qid);
    lane_kit_end(&k);
}

Test(lane_dsn, several_of_one_message_in_one_turn)
{
    enum { COUNT = 5 };
    struct lane_kit k;
    struct lane_kit_tx t[COUNT];
    struct queue_msg *m;
    uint64_t qid;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 100, COUNT + 1);
    m = lane_find(k.lane, qid);
    for (uint32_t i = 0; i < COUNT; i++)
        lane_kit_commit_dsn(&k, &t[i], m, i);
    for (uint32_t i = 0; i < COUNT; i++)
        LANE_KIT_UNTIL(&k, t[i].done);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, COUNT + 1);
    m = lane_find(k.lane, qid);
    cr_assert(m->rcpt_pending == 1 && !queue_msg_rcpt_is_final(m, COUNT));
    lane_kit_end(&k);
}

/* The write fails although its bytes may be on disk: neither the DSN nor the finality are found
 * later. */
Test(lane_dsn, failed_write)
{
    struct rlimit limit = {.rlim_cur = 8192, .rlim_max = RLIM_INFINITY};
    struct lane_kit k;
    struct lane_kit_tx t;
    struct queue_msg *m;
    uint64_t qid;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 100, 2);
    lane_kit_put(&k, 1, 3500, 1); /* the DSN's record will reach over the limit */
    m = lane_find(k.lane, qid);
    cr_assert_lt(m->offset, 8192);
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    lane_kit_commit_dsn(&k, &t, m, 0);
    LANE_KIT_UNTIL(&k, t.done);
    cr_assert_eq(t.code, 451);
    lane_kit_settle(&k);
    limit.rlim_cur = RLIM_INFINITY;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(m->rcpt_pending, 2);
    lane_defer(k.lane, m, 4000000000, true, SLICE_LIT("later"));
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 2);
    m = lane_find(k.lane, qid);
    cr_assert(m->rcpt_pending == 2 && m->attempts == 1);
    lane_kit_end(&k);
}
