/*
 * tests/unit/test_lane_lend.c - bytes that are lent to a transaction, and then not there any more.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "queue/lane_internal.h"
#include "tests/unit/lane_kit.h"

/* Appends `first` bytes and lends the next `lent`, which lie in `bytes`. */
static enum lane_append lend(struct lane_kit *k, struct lane_kit_tx *t, size_t first, size_t lent,
                             uint8_t *bytes)
{
    lane_kit_begin(k, t);
    lane_kit_append(k, t, 1, first);
    lane_kit_body(1, first, bytes, lent);
    return lane_tx_lend(&t->tx, slice_of(bytes, lent));
}

static void is_whole(struct lane_kit *k, struct lane_kit_tx *t, size_t len)
{
    LANE_KIT_UNTIL(k, t->done);
    cr_assert_eq(t->code, 0);
    cr_assert_eq(t->msg->body_size, len);
    cr_assert_eq(lane_kit_check_body(k, t->qid, 1, len, 500), 0);
    lane_kit_reopen(k);
    cr_assert_eq(lane_kit_check_body(k, t->qid, 1, len, 500), 0, "from the disk");
}

/* The message ends behind `len` bytes more, and all of it is there. */
static void ends_after(struct lane_kit *k, struct lane_kit_tx *t, size_t len)
{
    len += t->tx.body_size;
    lane_kit_append(k, t, 1, len - t->tx.body_size);
    lane_kit_commit(k, t, 1);
    is_whole(k, t, len);
}

Test(lane_lend, a_message_that_ends_with_it)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    uint8_t bytes[4000];

    lane_kit_open(&k, NULL);
    cr_assert_eq(lend(&k, &t, 200, sizeof bytes, bytes), LANE_APPEND_OK);
    lane_kit_commit(&k, &t, 1);
    memset(bytes, '#', sizeof bytes);
    is_whole(&k, &t, 4200);
    lane_kit_end(&k);
}

Test(lane_lend, what_is_kept_may_go)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    uint8_t bytes[4000];

    lane_kit_open(&k, NULL);
    cr_assert_eq(lend(&k, &t, 200, sizeof bytes, bytes), LANE_APPEND_OK);
    lane_tx_keep(&t.tx);
    lane_tx_keep(&t.tx);
    memset(bytes, '#', sizeof bytes);
    ends_after(&k, &t, 100000);
    lane_kit_end(&k);
}

/* Lent bytes never stand before those that were taken later. */
Test(lane_lend, more_comes_behind_it)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    uint8_t bytes[3][4000];

    lane_kit_open(&k, NULL);
    cr_assert_eq(lend(&k, &t, 200, sizeof bytes[0], bytes[0]), LANE_APPEND_OK);
    lane_kit_body(1, 4200, bytes[1], sizeof bytes[1]);
    cr_assert_eq(lane_tx_lend(&t.tx, slice_of(bytes[1], sizeof bytes[1])), LANE_APPEND_OK);
    lane_kit_append(&k, &t, 1, 77);
    lane_kit_body(1, 8277, bytes[2], sizeof bytes[2]);
    cr_assert_eq(lane_tx_lend(&t.tx, slice_of(bytes[2], sizeof bytes[2])), LANE_APPEND_OK);
    lane_kit_commit(&k, &t, 1);
    memset(bytes, '#', sizeof bytes);
    is_whole(&k, &t, 12277);
    lane_kit_end(&k);
}

/* At each length around the end of a chunk, where what is lent is taken at once. */
Test(lane_lend, at_the_end_of_a_chunk)
{
    for (size_t first = SPOOL_CHUNK_SIZE - 4002; first <= SPOOL_CHUNK_SIZE - 3998; first++) {
        struct lane_kit k;
        struct lane_kit_tx t;
        uint8_t bytes[4000];

        lane_kit_open(&k, NULL);
        cr_assert_eq(lend(&k, &t, first, sizeof bytes, bytes), LANE_APPEND_OK);
        lane_tx_keep(&t.tx);
        memset(bytes, '#', sizeof bytes);
        ends_after(&k, &t, 3);
        lane_kit_end(&k);
    }
}

/* More than both commit buffers hold: the last commits wait, and the lender does not. */
Test(lane_lend, a_commit_that_waits_for_room)
{
    enum { COUNT = 2400, BODY = 4200 };
    struct lane_kit k;
    struct lane_kit_tx *t = calloc(COUNT, sizeof *t);
    uint8_t bytes[BODY - 200];
    int waited = 0;

    lane_kit_open(&k, NULL);
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(lend(&k, &t[i], 200, sizeof bytes, bytes), LANE_APPEND_OK);
        lane_kit_commit(&k, &t[i], 1);
        waited += t[i].tx.pending != NULL;
        memset(bytes, '#', sizeof bytes);
    }
    cr_assert_gt(waited, 0);
    for (int i = 0; i < COUNT; i++) {
        LANE_KIT_UNTIL(&k, t[i].done);
        cr_assert_eq(t[i].code, 0);
    }
    for (int i = 0; i < COUNT; i++)
        cr_assert_eq(lane_kit_check_body(&k, t[i].qid, 1, BODY, 5000), 0);
    free(t);
    lane_kit_end(&k);
}

Test(lane_lend, a_transaction_that_is_dropped)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    uint8_t bytes[4000];

    lane_kit_open(&k, NULL);
    cr_assert_eq(lend(&k, &t, 200, sizeof bytes, bytes), LANE_APPEND_OK);
    lane_tx_abort(&t.tx);
    memset(bytes, '#', sizeof bytes);
    lane_kit_begin(&k, &t); /* with its chunk, again */
    ends_after(&k, &t, 4200);
    lane_kit_end(&k);
}
