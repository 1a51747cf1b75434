/*
 * tests/unit/test_lane_direct.c - direct writes: whole blocks, and the way back to the page cache
 * where a file system does not take them. Linked with --wrap=io_write_sync.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/limits.h"
#include "tests/unit/lane_kit.h"

#define BLOCK 4096u

void __real_io_write_sync(struct io *io, struct io_op *op, int32_t fd, const void *buf,
                          uint32_t len, uint64_t offset);
void __wrap_io_write_sync(struct io *io, struct io_op *op, int32_t fd, const void *buf,
                          uint32_t len, uint64_t offset);

static unsigned refuse, calls;
static bool all_whole;

/* The first `refuse` writes are as a file system that wants other blocks sees them: -EINVAL. */
void __wrap_io_write_sync(struct io *io, struct io_op *op, int32_t fd, const void *buf,
                          uint32_t len, uint64_t offset)
{
    calls++;
    all_whole = all_whole && len % BLOCK == 0 && offset % BLOCK == 0 && (uintptr_t)buf % BLOCK == 0;
    if (refuse && refuse--)
        len = 100;
    __real_io_write_sync(io, op, fd, buf, len, offset);
}

static void direct(struct lane_params *p)
{
    p->mode = LANE_WRITE_DIRECT;
}

static void a_few_messages(struct lane_kit *k, uint64_t qid[3])
{
    for (uint64_t i = 0; i < 3; i++)
        qid[i] = lane_kit_put(k, i, 300 + i * 40000, 1);
    lane_kit_settle(k);
}

static void still_there(struct lane_kit *k, const uint64_t qid[3])
{
    cr_assert_eq(k->found_count, 3);
    cr_assert_eq(k->damaged_count, 0, "%s", k->damaged_what);
    for (uint64_t i = 0; i < 3; i++)
        cr_assert_eq(lane_kit_check_body(k, qid[i], i, 300 + i * 40000, 10000), 0);
}

Test(lane_direct, whole_blocks)
{
    struct lane_kit k;
    uint64_t qid[3];

    calls = refuse = 0;
    all_whole = true;
    lane_kit_open(&k, direct);
    a_few_messages(&k, qid);
    cr_assert(all_whole && calls >= 4);
    cr_assert_eq(lane_stats(k.lane)->appended_bytes % BLOCK, 0);
    lane_kit_reopen(&k);
    still_there(&k, qid);
    lane_kit_end(&k);
}

Test(lane_direct, refused_goes_through_the_page_cache)
{
    struct lane_kit k;
    uint64_t qid[3];

    calls = 0;
    refuse = 1;
    lane_kit_open(&k, direct);
    cr_assert_eq(refuse, 0);
    cr_assert_eq(lane_health(k.lane), LANE_OK);
    a_few_messages(&k, qid);
    cr_assert_neq(lane_stats(k.lane)->appended_bytes % BLOCK, 0, "nothing is filled up");
    cr_assert_eq(lane_stats(k.lane)->sync_failed, 0);
    lane_kit_reopen(&k);
    still_there(&k, qid);
    lane_kit_end(&k);
}
