/*
 * tests/unit/test_recovery.c - rows D, S and M of queue/FORMAT.md section 5, on segments made byte
 * by byte. Rows R: test_scan.c.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/base/crc32c.h"
#include "gateway/limits.h"
#include "tests/unit/lane_kit.h"
#include "tests/unit/segment_image.h"

/* An empty spool; the test puts segments there and calls open_again. */
static void empty_spool(struct lane_kit *k)
{
    char command[128];

    lane_kit_open(k, NULL);
    lane_kit_close_lane(k);
    snprintf(command, sizeof command, "rm -rf '%s/lane-00'", k->spool);
    cr_assert_eq(system(command), 0);
}

static bool exists(const struct lane_kit *k, const char *name)
{
    char path[160];
    struct stat st;

    snprintf(path, sizeof path, "%s/%s", k->spool, name);
    return stat(path, &st) == 0;
}

static struct queue_msg *one(struct lane_kit *k, uint64_t qid)
{
    struct queue_msg *m = lane_find(k->lane, qid);

    cr_assert_not_null(m);
    cr_assert_eq(k->found_count, 1);
    return m;
}

/* One segment, written, opened. `sealed`: replay goes through the summary. */
static void open_one(struct lane_kit *k, struct image *im, bool sealed)
{
    if (sealed)
        image_seal(im, true);
    image_write(im, k->spool, im->header.id, "seg");
    lane_kit_reopen(k);
    image_free(im);
}

/* ---- directory ---- */

Test(recovery, d1_new_lane)
{
    struct lane_kit k;

    empty_spool(&k);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 0);
    cr_assert_eq(lane_kit_put(&k, 1, 10, 1), 1);
    lane_kit_end(&k);
}

Test(recovery, d2_unfinished_segment_is_removed)
{
    struct lane_kit k;
    struct image im;

    empty_spool(&k);
    image_begin(&im, 7);
    image_plain(&im, 1);
    image_write(&im, k.spool, 7, "tmp");
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 0);
    cr_assert_eq(k.damaged_count, 0);
    cr_assert_not(exists(&k, "lane-00/00000007.tmp"));
    cr_assert_not(exists(&k, "lane-00/00000007.seg"), "what was put there for a while");
    cr_assert(exists(&k, "lane-00/00000008.seg"), "an id is not used again");
    image_free(&im);
    lane_kit_end(&k);
}

static void put_empty(const struct lane_kit *k, uint32_t id)
{
    char command[200];

    snprintf(command, sizeof command, "mkdir -p '%s/lane-00' && : >'%s/lane-00/%08x.seg'", k->spool,
             k->spool, id);
    cr_assert_eq(system(command), 0);
}

/* Cut off at any point, a start leaves the .tmp, both, or the empty file alone. */
Test(recovery, d2_d11_a_start_that_was_cut_off_goes_on)
{
    for (int tmp = 0; tmp < 2; tmp++) {
        struct lane_kit k;
        struct image im, good;
        empty_spool(&k);
        put_empty(&k, 7);
        image_begin(&im, 7);
        image_plain(&im, 1);
        if (tmp)
            image_write(&im, k.spool, 7, "tmp");
        image_begin(&good, 8);
        image_plain(&good, 6);
        put_empty(&k, 9);
        open_one(&k, &good, false);
        one(&k, 6);
        cr_assert_eq(k.damaged_count, 0, "nothing is missing");
        cr_assert_not(lane_find(k.lane, 6)->uncertain);
        cr_assert_not(exists(&k, "lane-00/00000007.tmp"));
        cr_assert_not(exists(&k, "lane-00/00000007.seg"));
        cr_assert_not(exists(&k, "lane-00/00000009.seg"));
        cr_assert_not(exists(&k, "quarantine/lane-00-00000007.seg"));
        cr_assert(exists(&k, "lane-00/0000000a.seg"), "an id is not used again");
        image_free(&im);
        lane_kit_end(&k);
    }
}

/* A file system may leave both names of a file that was being renamed. */
Test(recovery, d2_a_segment_beside_its_tmp_stays)
{
    struct lane_kit k;
    struct image im;

    empty_spool(&k);
    image_begin(&im, 7);
    image_plain(&im, 5);
    image_write(&im, k.spool, 7, "tmp");
    open_one(&k, &im, false);
    one(&k, 5);
    cr_assert(exists(&k, "lane-00/00000007.seg"));
    cr_assert_not(exists(&k, "lane-00/00000007.tmp"));
    lane_kit_end(&k);
}

Test(recovery, d3_d4_one_header_copy_is_enough)
{
    for (int copy = 0; copy < 3; copy++) {
        struct lane_kit k;
        struct image im;
        empty_spool(&k);
        image_begin(&im, 3);
        image_plain(&im, 5);
        if (copy)
            im.bytes[copy == 1 ? 30 : SEGMENT_HEADER_LEN + 30] ^= 1;
        open_one(&k, &im, false);
        one(&k, 5);
        cr_assert_eq(k.damaged_count, copy ? 1 : 0);
        lane_kit_end(&k);
    }
}

Test(recovery, d5_segment_without_header_goes_to_quarantine)
{
    struct lane_kit k;
    struct image im, good;

    empty_spool(&k);
    image_begin(&im, 3);
    image_plain(&im, 5);
    memset(im.bytes, 0, SEGMENT_BLOCK);
    image_write(&im, k.spool, 3, "seg");
    image_begin(&good, 4);
    image_plain(&good, 6);
    open_one(&k, &good, false);
    one(&k, 6);
    cr_assert_eq(k.damaged_count, 1);
    cr_assert(exists(&k, "quarantine/lane-00-00000003.seg"));
    cr_assert_not(exists(&k, "lane-00/00000003.seg"));
    image_free(&im);
    lane_kit_end(&k);
}

static void set_version(struct image *im, uint32_t version)
{
    struct segment_header h;
    uint32_t crc;

    memcpy(&h, im->bytes, sizeof h);
    h.version = version;
    h.crc = 0;
    memcpy(im->bytes, &h, sizeof h);
    crc = crc32c(0, im->bytes, SEGMENT_HEADER_LEN);
    memcpy(im->bytes + 8, &crc, sizeof crc);
    memcpy(im->bytes + SEGMENT_HEADER_LEN, im->bytes, SEGMENT_HEADER_LEN);
}

Test(recovery, d3_the_format_before_is_read)
{
    struct lane_kit k;
    struct image im;
    struct queue_msg *m;

    empty_spool(&k);
    image_begin(&im, 3);
    image_plain(&im, 5);
    image_state(&im, RECORD_DEFER, 5, 1, 0, QUEUE_DEFERRED, 4000000000);
    set_version(&im, 1);
    open_one(&k, &im, true);
    m = one(&k, 5);
    cr_assert(m->state == QUEUE_DEFERRED && m->crashes == 0 && !m->uncertain);
    cr_assert_eq(k.damaged_count, 0);
    lane_kit_end(&k);
}

Test(recovery, d6_newer_format_is_refused_and_not_touched)
{
    struct lane_kit k;
    struct image im;

    empty_spool(&k);
    image_begin(&im, 3);
    image_plain(&im, 5);
    set_version(&im, FORMAT_VERSION + 1);
    image_write(&im, k.spool, 3, "seg");
    lane_kit_start(&k);
    LANE_KIT_UNTIL(&k, k.opened);
    cr_assert_neq(k.opened_why.smtp_code, 0);
    cr_assert_not_null(strstr(k.opened_why.text, "format 4"), "%s", k.opened_why.text);
    lane_kit_close_lane(&k);
    cr_assert(exists(&k, "lane-00/00000003.seg"));
    image_free(&im);
    lane_kit_end(&k);
}

Test(recovery, d7_header_of_another_file)
{
    struct lane_kit k;
    struct image im;

    empty_spool(&k);
    image_begin(&im, 3);
    image_plain(&im, 5);
    image_write(&im, k.spool, 9, "seg");
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 0);
    cr_assert_eq(k.damaged_count, 1);
    cr_assert(exists(&k, "quarantine/lane-00-00000009.seg"));
    image_free(&im);
    lane_kit_end(&k);
}

Test(recovery, d8_lane_copied_in)
{
    struct lane_kit k;
    struct envelope env;
    struct queue_msg *m;
    uint64_t qid;
    char command[200];

    empty_spool(&k);
    lane_kit_reopen(&k);
    qid = lane_kit_put(&k, 1, 500, 1);
    lane_kit_close_lane(&k);
    snprintf(command, sizeof command, "mv '%s/lane-00' '%s/lane-05'", k.spool, k.spool);
    cr_assert_eq(system(command), 0);
    k.params.lane = 5;
    lane_kit_reopen(&k);
    qid |= 5ull << QID_SEQUENCE_BITS; /* lane-00 of this machine may have the old number */
    m = one(&k, qid);
    cr_assert_eq(lane_kit_check_body(&k, qid, 1, 500, 500), 0);
    cr_assert(lane_kit_envelope(&k, qid, &env, NULL));
    cr_assert_eq(lane_kit_put(&k, 2, 10, 1) >> 54, 5);
    lane_defer(k.lane, m, 4000000000, true, SLICE_LIT("later"));
    lane_kit_reopen(&k); /* the record has the new number, the message the old one */
    cr_assert_eq(k.found_count, 2);
    m = lane_find(k.lane, qid);
    cr_assert(m && m->state == QUEUE_DEFERRED && m->attempts == 1);
    lane_kit_deliver(&k, qid);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1);
    cr_assert_null(lane_find(k.lane, qid));
    lane_kit_end(&k);
}

Test(recovery, d9_other_names_are_left_alone)
{
    struct lane_kit k;
    char command[300];

    empty_spool(&k);
    snprintf(command, sizeof command,
             "cd '%s' && mkdir lane-00 && cd lane-00 && touch README 00000001.SEG 1.seg "
             "0000000g.seg 00000001.seg.bak",
             k.spool);
    cr_assert_eq(system(command), 0);
    lane_kit_reopen(&k);
    cr_assert_eq(k.damaged_count, 0);
    cr_assert(exists(&k, "lane-00/README") && exists(&k, "lane-00/00000001.SEG") &&
              exists(&k, "lane-00/1.seg") && exists(&k, "lane-00/0000000g.seg") &&
              exists(&k, "lane-00/00000001.seg.bak"));
    lane_kit_end(&k);
}

/* ---- segments ---- */

Test(recovery, s1_summary_is_enough)
{
    struct lane_kit k;
    struct image im;
    uint32_t at;

    empty_spool(&k);
    image_begin(&im, 3);
    image_plain(&im, 5);
    at = image_plain(&im, 6);
    image_tombstone(&im, 5);
    image_seal(&im, true);
    im.bytes[at + 100] ^= 1; /* a body is not looked at */
    image_write(&im, k.spool, 3, "seg");
    lane_kit_reopen(&k);
    one(&k, 6);
    cr_assert_eq(k.damaged_count, 0);
    cr_assert_eq(lane_kit_check_body(&k, 6, 0, 100, 100), -EBADMSG, "but when it is read");
    cr_assert_eq(k.damaged_count, 1);
    lane_kit_settle(&k);
    cr_assert_eq(system("true"), 0);
    image_free(&im);
    lane_kit_end(&k);
}

Test(recovery, s2_damaged_summary)
{
    struct lane_kit k;
    struct image im;
    uint32_t at;

    empty_spool(&k);
    image_begin(&im, 3);
    image_plain(&im, 5);
    image_plain(&im, 6);
    image_tombstone(&im, 5);
    at = image_seal(&im, true);
    im.bytes[at + 40] ^= 1;
    open_one(&k, &im, false);
    one(&k, 6);
    cr_assert_geq(k.damaged_count, 1);
    lane_kit_end(&k);
}

Test(recovery, s3_no_footer)
{
    struct lane_kit k;
    struct image im;

    empty_spool(&k);
    image_begin(&im, 3);
    image_plain(&im, 5);
    image_plain(&im, 6);
    image_tombstone(&im, 5);
    image_seal(&im, false);
    open_one(&k, &im, false);
    one(&k, 6);
    cr_assert_eq(k.damaged_count, 0);
    lane_kit_end(&k);
}

Test(recovery, s4_open_tail_and_s5_empty)
{
    struct lane_kit k;
    struct image im;

    empty_spool(&k);
    image_begin(&im, 2);
    image_write(&im, k.spool, 2, "seg");
    image_free(&im);
    image_begin(&im, 3);
    image_plain(&im, 6);
    open_one(&k, &im, false);
    one(&k, 6);
    lane_kit_settle(&k);
    cr_assert_not(exists(&k, "lane-00/00000002.seg"), "the empty one is used again or removed");
    cr_assert(exists(&k, "lane-00/00000003.seg"));
    lane_kit_end(&k);
}

Test(recovery, damaged_bytes_are_copied_to_quarantine)
{
    struct lane_kit k;
    struct image im;
    uint32_t at;
    char name[80];

    empty_spool(&k);
    image_begin(&im, 3);
    at = image_plain(&im, 5);
    im.batch++;
    image_plain(&im, 6);
    im.bytes[at + 50] ^= 1;
    open_one(&k, &im, false);
    one(&k, 6);
    cr_assert_eq(k.damaged_count, 1);
    cr_assert_str_eq(k.damaged_what, "damaged record");
    lane_kit_settle(&k);
    snprintf(name, sizeof name, "quarantine/lane-00-00000003-%08x.bin", at);
    cr_assert(exists(&k, name));
    lane_kit_end(&k);
}

/* ---- records: each both from a scan and from a summary
 * ------------------------------------------- */

#define BOTH_WAYS for (int sealed = 0; sealed < 2; sealed++)

Test(recovery, m1_message)
{
    BOTH_WAYS
    {
        struct lane_kit k;
        struct image im;
        struct queue_msg *m;
        empty_spool(&k);
        image_begin(&im, 3);
        image_plain(&im, 5);
        open_one(&k, &im, sealed);
        m = one(&k, 5);
        cr_assert(m->state == QUEUE_READY && m->rcpt_pending == 1 && m->body_size == 100 &&
                  m->attempts == 0 && m->accepted_wall_s == 1700000000);
        LANE_KIT_UNTIL(&k, k.due_count == 1);
        lane_kit_end(&k);
    }
}

Test(recovery, m2_m4_newer_copy_counts)
{
    BOTH_WAYS
    {
        struct lane_kit k;
        struct image im;
        uint8_t block[128];
        uint32_t len = image_state_block(block, 5, 2, 1, QUEUE_HELD, 7);
        struct queue_msg *m;
        empty_spool(&k);
        image_begin(&im, 3);
        image_message(&im, &(struct image_message){.qid = 5, .rcpt_count = 2});
        if (sealed)
            image_seal(&im, true);
        image_write(&im, k.spool, 3, "seg");
        image_free(&im);
        image_begin(&im, 4);
        image_message(&im, &(struct image_message){
                               .qid = 5, .rcpt_count = 2, .state_block = block, .state_len = len});
        open_one(&k, &im, sealed);
        m = one(&k, 5);
        cr_assert(m->segment == 4 && m->state == QUEUE_HELD && m->rcpt_pending == 1);
        lane_kit_settle(&k);
        cr_assert_not(exists(&k, "lane-00/00000003.seg"), "nobody needs the older copy");
        lane_kit_end(&k);
    }
}

Test(recovery, m3_moved_alone)
{
    BOTH_WAYS
    {
        struct lane_kit k;
        struct image im;
        uint8_t block[128];
        uint32_t len = image_state_block(block, 5, 3, 4, QUEUE_UNREACHABLE, 7);
        struct queue_msg *m;
        empty_spool(&k);
        image_begin(&im, 4);
        image_message(&im, &(struct image_message){
                               .qid = 5, .rcpt_count = 3, .state_block = block, .state_len = len});
        open_one(&k, &im, sealed);
        m = one(&k, 5);
        cr_assert(m->state == QUEUE_UNREACHABLE && m->rcpt_pending == 2 && m->attempts == 4);
        cr_assert(queue_msg_rcpt_is_final(m, 2));
        lane_kit_end(&k);
    }
}

Test(recovery, m5_newest_state_counts)
{
    BOTH_WAYS
    {
        struct lane_kit k;
        struct image im;
        struct queue_msg *m;
        empty_spool(&k);
        image_begin(&im, 3);
        image_message(&im, &(struct image_message){.qid = 5, .rcpt_count = 3});
        image_state(&im, RECORD_DEFER, 5, 3, 1, QUEUE_DEFERRED, 4000000000);
        image_state(&im, RECORD_RCPT_FINAL, 5, 3, 3, QUEUE_DEFERRED, 4100000000);
        open_one(&k, &im, sealed);
        m = one(&k, 5);
        cr_assert(m->state == QUEUE_DEFERRED && m->next_attempt_wall_s == 4100000000 &&
                  m->rcpt_pending == 1 && m->attempts == 4 && m->schedule_index == 1);
        cr_assert_eq(k.due_count, 0);
        lane_kit_end(&k);
    }
}

Test(recovery, m6_m8_state_of_an_unknown_message)
{
    BOTH_WAYS
    {
        struct lane_kit k;
        struct image im;
        empty_spool(&k);
        image_begin(&im, 3);
        image_state(&im, RECORD_DEFER, 9, 3, 1, QUEUE_DEFERRED, 1);
        image_tombstone(&im, 10);
        image_plain(&im, 5);
        open_one(&k, &im, sealed);
        one(&k, 5);
        cr_assert_eq(k.damaged_count, 0);
        lane_kit_end(&k);
    }
}

Test(recovery, m7_tombstone_and_its_dependence)
{
    BOTH_WAYS
    {
        struct lane_kit k;
        struct image im;
        empty_spool(&k);
        image_begin(&im, 3);
        image_plain(&im, 5);
        image_plain(&im, 6);
        if (sealed)
            image_seal(&im, true);
        image_write(&im, k.spool, 3, "seg");
        image_free(&im);
        image_begin(&im, 4);
        image_tombstone(&im, 5);
        open_one(&k, &im, sealed);
        one(&k, 6);
        lane_kit_settle(&k);
        cr_assert(exists(&k, "lane-00/00000003.seg"));
        cr_assert(exists(&k, "lane-00/00000004.seg"), "its tombstone is still needed");
        lane_kit_deliver(&k, 6);
        lane_kit_settle(&k);
        cr_assert_not(exists(&k, "lane-00/00000003.seg"));
        cr_assert_not(exists(&k, "lane-00/00000004.seg"));
        lane_kit_reopen(&k);
        cr_assert_eq(k.found_count, 0);
        lane_kit_end(&k);
    }
}

Test(recovery, m9_state_of_another_shape)
{
    BOTH_WAYS
    {
        struct lane_kit k;
        struct image im;
        empty_spool(&k);
        image_begin(&im, 3);
        image_message(&im, &(struct image_message){.qid = 5, .rcpt_count = 3});
        image_state(&im, RECORD_DEFER, 5, 4, 1, QUEUE_DEFERRED, 1);
        open_one(&k, &im, sealed);
        cr_assert_eq(one(&k, 5)->rcpt_pending, 3);
        cr_assert_eq(k.damaged_count, 1);
        lane_kit_end(&k);
    }
}

Test(recovery, m10_dsn_and_what_it_reports_are_one)
{
    BOTH_WAYS
    {
        struct lane_kit k;
        struct image im;
        uint8_t block[128];
        uint32_t len;
        empty_spool(&k);
        image_begin(&im, 3);
        image_plain(&im, 5);
        image_message(&im, &(struct image_message){.qid = 6, .rcpt_count = 2});
        len = image_state_block(block, 5, 1, 1, 0, 0); /* 5 is over */
        image_message(&im, &(struct image_message){
                               .qid = 7, .rcpt_count = 1, .final_block = block, .final_len = len});
        len = image_state_block(block, 6, 2, 2, 0, 0); /* one of two */
        image_message(&im, &(struct image_message){
                               .qid = 8, .rcpt_count = 1, .final_block = block, .final_len = len});
        open_one(&k, &im, sealed);
        cr_assert_eq(k.found_count, 3);
        cr_assert_null(lane_find(k.lane, 5));
        cr_assert_eq(lane_find(k.lane, 6)->rcpt_pending, 1);
        cr_assert(queue_msg_rcpt_is_final(lane_find(k.lane, 6), 1));
        cr_assert_not_null(lane_find(k.lane, 7));
        cr_assert_not_null(lane_find(k.lane, 8));
        lane_kit_end(&k);
    }
}

Test(recovery, m11_message_without_recipients)
{
    struct lane_kit k;
    struct image im;

    empty_spool(&k);
    image_begin(&im, 3);
    image_message(&im, &(struct image_message){.qid = 5, .rcpt_count = 0});
    image_plain(&im, 6);
    open_one(&k, &im, false);
    one(&k, 6);
    cr_assert_eq(k.damaged_count, 1);
    lane_kit_end(&k);
}

Test(recovery, m12_other_records_mean_nothing)
{
    BOTH_WAYS
    {
        struct lane_kit k;
        struct image im;
        struct record_extent e = {.len = 0};
        empty_spool(&k);
        image_begin(&im, 3);
        image_record(&im, RECORD_EXTENT, 5, &e, sizeof e);
        image_record(&im, RECORD_NOTE, 0, "hello", 5);
        image_record(&im, RECORD_PAD, 0, "", 0);
        image_plain(&im, 6);
        open_one(&k, &im, sealed);
        one(&k, 6);
        cr_assert_eq(k.damaged_count, 0);
        lane_kit_end(&k);
    }
}

Test(recovery, m13_missing_extents)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    uint32_t first;
    char path[128];

    empty_spool(&k);
    lane_kit_reopen(&k);
    lane_kit_begin(&k, &t);
    lane_kit_append(&k, &t, 1, 200000);
    for (int i = 0; i < 3; i++) /* so that the end lies in another segment */
        lane_kit_put(&k, 2, 3 * MIB, 1);
    lane_kit_commit(&k, &t, 1);
    LANE_KIT_UNTIL(&k, t.done);
    first = t.msg->first_segment;
    cr_assert_neq(first, t.msg->segment);
    lane_kit_close_lane(&k);
    snprintf(path, sizeof path, "%s/lane-00/%08x.seg", k.spool, first);
    cr_assert_eq(unlink(path), 0);
    lane_kit_reopen(&k);
    cr_assert_not_null(lane_find(k.lane, t.qid));
    cr_assert_lt(lane_kit_check_body(&k, t.qid, 1, 200000, 65536), 0);
    lane_kit_end(&k);
}

/* Numbers go on above everything ever used, even when all messages are gone. */
Test(recovery, queue_ids_are_never_used_twice)
{
    struct lane_kit k;
    uint64_t last = 0;

    empty_spool(&k);
    for (int round = 0; round < 4; round++) {
        uint64_t qid;
        lane_kit_reopen(&k);
        cr_assert_eq(k.found_count, 0);
        qid = lane_kit_put(&k, 1, 10, 1);
        cr_assert_gt(qid, last);
        last = qid;
        lane_kit_deliver(&k, qid);
        lane_kit_settle(&k);
    }
    lane_kit_end(&k);
}
