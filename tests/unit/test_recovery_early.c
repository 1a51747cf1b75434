/*
 * tests/unit/test_recovery_early.c - a message is found at a start as soon as no record to come can
 * contradict what is known of it, not earlier (FORMAT.md section 5).
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/unit/lane_kit.h"
#include "tests/unit/segment_image.h"

enum { PLAIN = 11, REMOVED, HELD, MOVED, SECOND, REPORTED, REPORT };

static void empty_spool(struct lane_kit *k)
{
    char command[160];

    lane_kit_open(k, NULL);
    lane_kit_close_lane(k);
    snprintf(command, sizeof command, "rm -rf '%s/lane-00'", k->spool);
    cr_assert_eq(system(command), 0);
}

static void finish(struct lane_kit *k, struct image *im, bool sealed)
{
    if (sealed)
        image_seal(im, true);
    image_write(im, k->spool, im->header.id, "seg");
    image_free(im);
}

/* Three segments whose records speak of each other. `sealed`: bit i for segment i + 1. */
static void write_spool(struct lane_kit *k, unsigned sealed)
{
    uint8_t block[256];
    struct image_message moved = {.qid = MOVED, .rcpt_count = 1, .body = SLICE_LIT("moved")};
    struct image_message report = {.qid = REPORT, .rcpt_count = 1, .body = SLICE_LIT("report")};
    struct image im;

    image_begin(&im, 1);
    image_plain(&im, PLAIN);
    image_plain(&im, REMOVED);
    image_plain(&im, HELD);
    image_plain(&im, MOVED);
    image_plain(&im, REPORTED);
    finish(k, &im, sealed & 1);
    image_begin(&im, 2);
    image_plain(&im, SECOND);
    image_state(&im, RECORD_DEFER, HELD, 1, 0, QUEUE_DEFERRED, 5);
    moved.state_len = image_state_block(block, MOVED, 1, 0, QUEUE_DEFERRED, 4000000000);
    moved.state_block = block;
    image_message(&im, &moved);
    finish(k, &im, sealed & 2);
    image_begin(&im, 3);
    image_tombstone(&im, REMOVED);
    image_state(&im, RECORD_STATE, HELD, 1, 0, QUEUE_HELD, 0);
    report.final_len = image_state_block(block, REPORTED, 1, 1, QUEUE_READY, 0);
    report.final_block = block;
    image_message(&im, &report);
    finish(k, &im, sealed & 4);
}

static void expect_order(struct lane_kit *k)
{
    static const uint64_t order[] = {PLAIN, SECOND, MOVED, HELD, REPORT};

    cr_assert_eq(k->found_count, 5);
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(k->found[i], order[i], "%u: %lu", i, k->found[i]);
    cr_assert_eq(k->damaged_count, 0, "%s", k->damaged_what);
}

Test(recovery_early, found_with_the_last_record)
{
    for (unsigned sealed = 0; sealed < 8; sealed++) {
        struct lane_kit k;
        empty_spool(&k);
        write_spool(&k, sealed);
        lane_kit_reopen(&k);
        expect_order(&k);
        cr_assert_eq((int)lane_find(k.lane, HELD)->state, QUEUE_HELD);
        cr_assert_eq((int)lane_find(k.lane, MOVED)->state, QUEUE_DEFERRED);
        lane_kit_end(&k);
    }
}

static void deliver_at_once(struct lane_kit *k, struct queue_msg *m)
{
    lane_rcpts_final(k->lane, m, &(uint32_t){0}, 1, RCPT_DELIVERED);
}

/* What was found may end while older records are still being read, and does not come back. */
Test(recovery_early, ends_while_the_rest_is_read)
{
    for (unsigned sealed = 0; sealed < 8; sealed++) {
        struct lane_kit k;
        empty_spool(&k);
        write_spool(&k, sealed);
        k.on_found = deliver_at_once;
        lane_kit_reopen(&k);
        expect_order(&k);
        cr_assert_eq(lane_stats(k.lane)->messages, 0);
        k.on_found = NULL;
        lane_kit_settle(&k);
        lane_kit_reopen(&k);
        cr_assert_eq(k.found_count, 0);
        cr_assert_eq(k.damaged_count, 0, "%s", k.damaged_what);
        lane_kit_end(&k);
    }
}

/* A damaged summary costs time, not messages. */
Test(recovery_early, damaged_summary)
{
    struct lane_kit k;
    struct image im;
    uint32_t at;

    empty_spool(&k);
    write_spool(&k, 7);
    image_begin(&im, 4);
    for (uint64_t qid = 100; qid < 110; qid++)
        image_plain(&im, qid);
    image_state(&im, RECORD_STATE, 105, 1, 0, QUEUE_HELD, 0);
    at = image_seal(&im, true);
    im.bytes[at + 100] ^= 1;
    image_write(&im, k.spool, 4, "seg");
    image_free(&im);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 15);
    cr_assert_geq(k.damaged_count, 1);
    cr_assert_eq((int)lane_find(k.lane, 105)->state, QUEUE_HELD);
    lane_kit_end(&k);
}
