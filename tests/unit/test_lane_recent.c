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
