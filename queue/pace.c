/*
 * queue/pace.c - how much of large bodies goes into one commit: up in small steps while commits are
 * quick, down in larger ones when they are not.
 *
 * Owns:     nothing.
 * Runs on:  any thread.
 * Contract: see pace.h. Commits without bodies never change the bound, only what a small one takes.
 * Failure:  none.
 * Bounds:   COMMIT_EXTENT_MIN to COMMIT_EXTENT_MAX.
 * Tests:    tests/unit/test_pace.c
 */
#include "queue/pace.h"

#include "gateway/limits.h"

#define SMALL_BYTES (128 * KIB)
#define SMOOTH      8u /* the last commit's share in what a small one takes */

void pace_init(struct pace *p)
{
    p->small_ns = 0;
    p->extent_max = COMMIT_EXTENT_MAX / 2;
}

void pace_commit(struct pace *p, uint32_t len, uint32_t extent_bytes, uint64_t ns)
{
    uint64_t aim = 2 * p->small_ns > COMMIT_AIM_NS ? 2 * p->small_ns : COMMIT_AIM_NS;

    if (len <= SMALL_BYTES) {
        p->small_ns = p->small_ns ? p->small_ns - p->small_ns / SMOOTH + ns / SMOOTH : ns;
        return;
    }
    if (extent_bytes == 0)
        return;
    if (ns > aim)
        p->extent_max -= p->extent_max / 4;
    else if (ns < aim - aim / 4 && extent_bytes >= p->extent_max)
        p->extent_max += p->extent_max / 8;
    if (p->extent_max < COMMIT_EXTENT_MIN)
        p->extent_max = COMMIT_EXTENT_MIN;
    if (p->extent_max > COMMIT_EXTENT_MAX)
        p->extent_max = COMMIT_EXTENT_MAX;
}
