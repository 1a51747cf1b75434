/*
 * tests/unit/test_torn.c - row M15 of queue/FORMAT.md section 5: a message whose commit never ended
 * is not there; one that was damaged later is there, and told.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/limits.h"
#include "queue/torn.h"
#include "tests/unit/lane_kit.h"

#define BODY 100000u

static void flip(const struct lane_kit *k, uint32_t segment, uint32_t offset)
{
    char path[128];
    uint8_t byte;
    int fd;

    snprintf(path, sizeof path, "%s/lane-00/%08x.seg", k->spool, segment);
    fd = open(path, O_RDWR);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pread(fd, &byte, 1, offset), 1);
    byte ^= 1;
    cr_assert_eq(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

static void crash(struct lane_kit *k)
{
    char copy[128], command[400];

    lane_kit_copy(k, copy);
    lane_kit_close_lane(k);
    snprintf(command, sizeof command, "rm -rf '%s' && mv '%s' '%s'", k->spool, copy, k->spool);
    cr_assert_eq(system(command), 0);
}

enum after { NOTHING, ANOTHER_COMMIT, A_FOOTER };

/* `back`: where in front of the MESSAGE record a byte is damaged. */
static void damaged_extent(enum after after, uint32_t back)
{
    struct lane_kit k;
    uint64_t other, qid;
    uint32_t segment, offset;

    lane_kit_open(&k, NULL);
    other = lane_kit_put(&k, 1, 500, 1);
    lane_kit_settle(&k);
    qid = lane_kit_put(&k, 2, BODY, 1);
    segment = lane_find(k.lane, qid)->segment;
    offset = lane_find(k.lane, qid)->offset;
    if (after == ANOTHER_COMMIT) {
        lane_kit_settle(&k);
        lane_kit_put(&k, 3, 500, 1);
    }
    if (after == A_FOOTER)
        lane_kit_close_lane(&k);
    else
        crash(&k);
    flip(&k, segment, offset - back);
    lane_kit_reopen(&k);
    cr_assert_not_null(lane_find(k.lane, other));
    if (after == NOTHING) {
        cr_assert_null(lane_find(k.lane, qid));
        cr_assert_eq(k.damaged_count, 1, "that bytes are damaged is told");
        lane_kit_reopen(&k);
        cr_assert_null(lane_find(k.lane, qid), "nor at the next start");
    } else {
        cr_assert_not_null(lane_find(k.lane, qid));
        cr_assert_eq(lane_kit_check_body(&k, qid, 2, BODY, 65536), -EBADMSG);
    }
    lane_kit_end(&k);
}

Test(torn, m15_payload_of_the_last_commit)
{
    damaged_extent(NOTHING, 1000);
}

Test(torn, m15_header_of_the_last_commit)
{
    damaged_extent(NOTHING, EXTENT_RECORD_BYTES - 5);
}

/* The first record of the batch: its header would say which. */
Test(torn, m15_where_the_last_commit_begins)
{
    damaged_extent(NOTHING, 3 * EXTENT_RECORD_BYTES - 5);
}

Test(torn, a_later_commit_shows_that_it_was_durable)
{
    damaged_extent(ANOTHER_COMMIT, 1000);
    damaged_extent(ANOTHER_COMMIT, 3 * EXTENT_RECORD_BYTES - 5);
}

Test(torn, a_footer_shows_it_too)
{
    damaged_extent(A_FOOTER, 1000);
}

static uint32_t summary_segment, summary_at;

static void flip_summary(struct lane_kit *k, struct queue_msg *m)
{
    (void)m;
    if (summary_at)
        flip(k, summary_segment, summary_at + RECORD_HEADER_SIZE);
    summary_at = 0;
}

/*
 * The summary could be read when the records were counted and cannot when they are replayed, and
 * the segment counted last has no footer: that says nothing of this one.
 */
Test(torn, a_footer_shows_it_where_the_summary_fails_later)
{
    struct lane_kit k;
    struct queue_msg *m;
    uint64_t qid, last;

    lane_kit_open(&k, NULL);
    lane_kit_put(&k, 1, 500, 1);
    lane_kit_reopen(&k);
    qid = lane_kit_put(&k, 2, BODY, 1);
    m = lane_find(k.lane, qid);
    summary_segment = m->segment;
    summary_at = m->offset + m->record_size;
    flip(&k, m->segment, m->offset - 1000);
    lane_kit_reopen(&k);
    last = lane_kit_put(&k, 3, 500, 1);
    crash(&k);
    k.on_found = flip_summary;
    lane_kit_reopen(&k);
    cr_assert_eq(k.damaged_count, 3, "summary, extent, and what was the summary to a scan");
    cr_assert_not_null(lane_find(k.lane, last));
    cr_assert_not_null(lane_find(k.lane, qid));
    cr_assert_eq(lane_kit_check_body(&k, qid, 2, BODY, 65536), -EBADMSG);
    lane_kit_end(&k);
}

/* More damage than is kept in mind: nothing is dropped for what is not known. */
Test(torn, too_much_to_remember)
{
    struct torn t;

    torn_begin(&t);
    for (uint32_t i = 0; i < 2 * TORN_STRETCHES_MAX; i++)
        torn_damage(&t, SEGMENT_BLOCK + i * 64, 32);
    cr_assert_eq(t.bad_count, TORN_STRETCHES_MAX);
    for (uint32_t i = 0; i < 2 * TORN_SUSPECTS_MAX; i++)
        torn_suspect(&t, i);
    cr_assert_eq(t.suspect_count, TORN_SUSPECTS_MAX);
}
