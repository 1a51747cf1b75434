/*
 * tests/unit/test_lane_recent.c - records are read from the commit buffers while they lie there.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "queue/lane_internal.h"
#include "tests/unit/lane_kit.h"

static bool is_record(struct slice bytes, const struct queue_msg *m)
{
    struct record_header h;

    if (bytes.len < RECORD_HEADER_SIZE)
        return false;
    memcpy(&h, bytes.ptr, sizeof h);
    return h.qid == m->qid && h.type == RECORD_MESSAGE && h.length == m->record_size;
}

Test(lane_recent, a_record_until_its_buffer_is_used_again)
{
    struct lane_kit k;
    struct queue_msg *m;
    struct slice got;
    uint64_t qid, later;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 3000, 1);
    m = lane_find(k.lane, qid);
    got = commit_recent(k.lane, m->segment, m->offset, m->record_size);
    cr_assert_eq(got.len, m->record_size);
    cr_assert(is_record(got, m));
    got = commit_recent(k.lane, m->segment, m->offset, 10000000);
    cr_assert_geq(got.len, m->record_size, "as much as there is");
    cr_assert(is_record(got, m));
    got = commit_recent(k.lane, m->segment, m->offset + m->record_size - 16, 16);
    cr_assert_eq(got.len, 16);
    cr_assert_eq(commit_recent(k.lane, m->segment + 1, m->offset, 16).len, 0, "another segment");
    cr_assert_eq(commit_recent(k.lane, m->segment, m->offset + (64u << 20), 16).len, 0);
    for (uint32_t i = 0; i < COMMIT_BATCHES; i++)
        later = lane_kit_put(&k, 2 + i, 100, 1);
    cr_assert_eq(commit_recent(k.lane, m->segment, m->offset, 16).len, 0, "its buffer has others");
    cr_assert_eq(lane_kit_check_body(&k, qid, 1, 3000, 500), 0, "from the disk");
    m = lane_find(k.lane, later);
    cr_assert(is_record(commit_recent(k.lane, m->segment, m->offset, m->record_size), m));
    lane_kit_end(&k);
}

/* What was committed just now is there without a read; what is large or from before a start is not.
 */
Test(lane_recent, bodies_are_there_without_a_read)
{
    struct lane_kit k;
    uint8_t want[4096];
    uint64_t small, large, qid = 0;

    lane_kit_open(&k, NULL);
    small = lane_kit_put(&k, 1, sizeof want, 3);
    large = lane_kit_put(&k, 2, SPOOL_CHUNK_SIZE + 1, 1);
    lane_kit_body(1, 0, want, sizeof want);
    struct queue_msg *m = lane_find(k.lane, small);
    struct slice body = lane_body_recent(k.lane, m);
    cr_assert(slice_eq(body, slice_of(want, sizeof want)));
    cr_assert_eq(lane_body_recent(k.lane, lane_find(k.lane, large)).len, 0);
    struct queue_msg other = *m;
    other.qid++;
    cr_assert_eq(lane_body_recent(k.lane, &other).len, 0, "another message's");
    other = *m;
    other.offset += 16;
    cr_assert_eq(lane_body_recent(k.lane, &other).len, 0, "no record");
    /* the buffers of commits are used again: then it is the right one, or none */
    for (uint32_t i = 0; i < COMMIT_BATCHES; i++) {
        qid = lane_kit_put(&k, 10 + i, sizeof want, 1);
        body = lane_body_recent(k.lane, m);
        cr_assert(body.len == 0 || slice_eq(body, slice_of(want, sizeof want)));
    }
    cr_assert_eq(body.len, 0);
    cr_assert_eq(lane_body_recent(k.lane, lane_find(k.lane, qid)).len, sizeof want);
    lane_kit_reopen(&k);
    cr_assert_eq(lane_body_recent(k.lane, lane_find(k.lane, small)).len, 0);
    cr_assert_eq(lane_kit_check_body(&k, small, 1, sizeof want, 65536), 0);
    lane_kit_end(&k);
}

/* Not durable yet: what state it has can be read all the same. */
Test(lane_recent, a_state_that_is_not_written_yet)
{
    struct lane_kit k;
    struct queue_msg *m;
    struct slice got;
    struct record_header h;

    lane_kit_open(&k, NULL);
    m = lane_find(k.lane, lane_kit_put(&k, 1, 100, 1));
    lane_kit_settle(&k);
    lane_defer(k.lane, m, 4000000000, true, SLICE_LIT("450 later"));
    got = commit_recent(k.lane, m->state_segment, m->state_offset, 4096);
    cr_assert_geq(got.len, RECORD_HEADER_SIZE);
    memcpy(&h, got.ptr, sizeof h);
    cr_assert(h.type == RECORD_DEFER && h.qid == m->qid && h.length <= got.len);
    lane_kit_end(&k);
}
