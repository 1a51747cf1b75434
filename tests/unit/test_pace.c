/*
 * tests/unit/test_pace.c - how much of large bodies goes into one commit.
 */
#include <criterion/criterion.h>

#include "gateway/limits.h"
#include "queue/pace.h"

#define MESSAGES (200 * KIB)

/* A disk that takes `fixed` for each commit and `per_mib` for its bytes, always asked for all. */
static void run(struct pace *p, uint64_t fixed, uint64_t per_mib, int commits)
{
    for (int i = 0; i < commits; i++) {
        uint32_t extents = p->extent_max, len = extents + MESSAGES;
        pace_commit(p, len, extents, fixed + len * per_mib / MIB);
        if (i % 16 == 0)
            pace_commit(p, 8 * KIB, 0, fixed);
    }
}

Test(pace, a_quick_disk_gets_as_much_as_there_is)
{
    struct pace p;

    pace_init(&p);
    run(&p, NS_PER_MS / 10, NS_PER_MS * 3 / 4, 100);
    cr_assert_eq(p.extent_max, COMMIT_EXTENT_MAX);
}

Test(pace, a_slow_disk_gets_little_so_that_messages_wait_shortly)
{
    struct pace p;

    pace_init(&p);
    run(&p, NS_PER_MS, 5 * NS_PER_MS, 100);
    cr_assert_eq(p.extent_max, COMMIT_EXTENT_MIN);
}

/* Were less put in, no commit would be much shorter: each costs a wait whatever is in it. */
Test(pace, a_disk_that_is_slow_to_sync_gets_much_at_a_time)
{
    struct pace p;

    pace_init(&p);
    run(&p, 20 * NS_PER_MS, 5 * NS_PER_MS, 100);
    cr_assert_geq(p.extent_max, COMMIT_EXTENT_MAX / 2);
}

Test(pace, it_follows_a_disk_that_changes)
{
    struct pace p;

    pace_init(&p);
    run(&p, NS_PER_MS / 10, NS_PER_MS / 2, 100);
    run(&p, NS_PER_MS / 10, 20 * NS_PER_MS, 30);
    cr_assert_eq(p.extent_max, COMMIT_EXTENT_MIN);
    run(&p, NS_PER_MS / 10, NS_PER_MS / 2, 100);
    cr_assert_eq(p.extent_max, COMMIT_EXTENT_MAX);
}

Test(pace, commits_without_bodies_leave_it_alone)
{
    struct pace p;

    pace_init(&p);
    for (int i = 0; i < 100; i++)
        pace_commit(&p, 2 * MIB, 0, NS_PER_S);
    cr_assert_eq(p.extent_max, COMMIT_EXTENT_MAX / 2);
}
