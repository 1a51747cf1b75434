/*
 * tests/unit/test_recovery_unread.c - segments that cannot be read for one start and can at the
 * next: row D10 of queue/FORMAT.md section 5. A directory in the file's place gives an error at
 * every read.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/limits.h"
#include "tests/unit/lane_kit.h"
#include "tests/unit/segment_image.h"

static void run(const char *format, const struct lane_kit *k, uint32_t id)
{
    char command[300];

    snprintf(command, sizeof command, format, k->spool, id);
    cr_assert_eq(system(command), 0, "%s", command);
}

static void hide(const struct lane_kit *k, uint32_t id)
{
    run("cd '%s/lane-00' && f=%08x.seg && mv $f ../hidden && mkdir $f", k, id);
}

static void show(const struct lane_kit *k, uint32_t id)
{
    run("cd '%s/lane-00' && f=%08x.seg && rmdir $f && mv ../hidden $f", k, id);
}

static bool exists(const struct lane_kit *k, uint32_t id)
{
    char path[160];
    struct stat st;

    snprintf(path, sizeof path, "%s/lane-00/%08x.seg", k->spool, id);
    return stat(path, &st) == 0;
}

static void empty_spool(struct lane_kit *k)
{
    lane_kit_open(k, NULL);
    lane_kit_close_lane(k);
    run("rm -rf '%s/lane-00' # %u", k, 0);
}

static void put(const struct lane_kit *k, struct image *im, bool sealed)
{
    if (sealed)
        image_seal(im, true);
    image_write(im, k->spool, im->header.id, "seg");
    image_free(im);
}

/* Traffic that makes and empties segments, so that all that may go goes. */
static void traffic(struct lane_kit *k)
{
    for (uint32_t i = 0; i < 12; i++)
        lane_kit_deliver(k, lane_kit_put(k, i, 2 * MIB, 1));
    lane_kit_settle(k);
    lane_kit_settle(k);
}

/* What ends, and what tells of, the messages of a segment that was not read is kept for them. */
Test(recovery_unread, tombstones_and_states_wait)
{
    struct lane_kit k;
    struct image im;
    struct queue_msg *m;

    empty_spool(&k);
    image_begin(&im, 3);
    image_plain(&im, 5);
    image_message(&im, &(struct image_message){.qid = 7, .rcpt_count = 2});
    put(&k, &im, true);
    image_begin(&im, 4);
    image_tombstone(&im, 5);
    image_state(&im, RECORD_DEFER, 7, 2, 1, QUEUE_DEFERRED, 4000000000);
    image_plain(&im, 9);
    put(&k, &im, true);
    hide(&k, 3);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1);
    cr_assert_eq(k.damaged_count, 1, "it is told");
    cr_assert_not(lane_find(k.lane, 9)->uncertain, "nothing that was not read is younger");
    lane_kit_deliver(&k, 9);
    traffic(&k);
    cr_assert(exists(&k, 4));
    lane_kit_close_lane(&k);
    show(&k, 3);
    lane_kit_reopen(&k);
    cr_assert_eq(k.damaged_count, 0);
    cr_assert_eq(k.found_count, 1);
    cr_assert_null(lane_find(k.lane, 5), "it was removed");
    m = lane_find(k.lane, 7);
    cr_assert(m && m->state == QUEUE_DEFERRED && m->rcpt_pending == 1);
    lane_kit_deliver(&k, 7);
    traffic(&k);
    cr_assert_not(exists(&k, 3));
    cr_assert_not(exists(&k, 4));
    lane_kit_end(&k);
}

/* The segment that was not read may have said that an older message was delivered. */
Test(recovery_unread, older_messages_are_uncertain)
{
    struct lane_kit k;
    struct image im;

    empty_spool(&k);
    image_begin(&im, 3);
    image_plain(&im, 5);
    image_plain(&im, 6);
    put(&k, &im, true);
    image_begin(&im, 4);
    image_tombstone(&im, 5);
    put(&k, &im, true);
    image_begin(&im, 5);
    image_plain(&im, 9);
    image_state(&im, RECORD_DEFER, 6, 1, 0, QUEUE_DEFERRED, 4000000000);
    put(&k, &im, false);
    hide(&k, 4);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 3);
    cr_assert(lane_find(k.lane, 5)->uncertain);
    cr_assert_not(lane_find(k.lane, 6)->uncertain, "its newest state is younger");
    cr_assert_not(lane_find(k.lane, 9)->uncertain);
    lane_kit_close_lane(&k);
    show(&k, 4);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 2);
    cr_assert_null(lane_find(k.lane, 5));
    lane_kit_end(&k);
}

/* Its queue ids may be above all that are known. */
Test(recovery_unread, its_queue_ids_are_not_given_out_again)
{
    struct lane_kit k;
    struct image im;
    uint64_t last = 9 * QID_BLOCK - 1, fresh;

    empty_spool(&k);
    image_begin(&im, 3);
    image_plain(&im, 5);
    put(&k, &im, true);
    image_begin(&im, 9);
    image_plain(&im, last);
    put(&k, &im, false);
    hide(&k, 9);
    lane_kit_reopen(&k);
    fresh = lane_kit_put(&k, 1, 500, 1);
    cr_assert_gt(fresh, last);
    lane_kit_close_lane(&k);
    show(&k, 9);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 3);
    cr_assert_not_null(lane_find(k.lane, last));
    cr_assert_eq(lane_kit_check_body(&k, fresh, 1, 500, 500), 0);
    lane_kit_end(&k);
}

/* A part of a body there: not damaged, only not to be had now. */
Test(recovery_unread, a_body_there_is_not_told_to_be_damaged)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    uint32_t first;

    empty_spool(&k);
    lane_kit_reopen(&k);
    lane_kit_begin(&k, &t);
    lane_kit_append(&k, &t, 1, 200000);
    for (int i = 0; i < 3; i++)
        lane_kit_put(&k, 2, 3 * MIB, 1);
    lane_kit_commit(&k, &t, 1);
    LANE_KIT_UNTIL(&k, t.done);
    first = t.msg->first_segment;
    cr_assert_neq(first, t.msg->segment);
    lane_kit_close_lane(&k);
    hide(&k, first);
    lane_kit_reopen(&k);
    cr_assert_eq(lane_kit_check_body(&k, t.qid, 1, 200000, 65536), -EIO);
    lane_kit_close_lane(&k);
    show(&k, first);
    lane_kit_reopen(&k);
    cr_assert_eq(lane_kit_check_body(&k, t.qid, 1, 200000, 65536), 0);
    lane_kit_end(&k);
}
