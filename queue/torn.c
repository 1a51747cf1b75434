/*
 * queue/torn.c - tells a message whose commit never ended from one that was damaged later.
 *
 * Owns:     the damaged stretches of the batch that a scan is in, and the messages they concern.
 * Runs on:  any thread. No I/O.
 * Contract: a message is suspected only when a damaged stretch holds the place of an extent of it,
 *           and only until a record of a later batch follows: that was written behind the sync.
 * Failure:  more stretches or messages than there is room for: they are not suspected, so they are
 *           there, and told to be damaged when they are read.
 * Bounds:   TORN_STRETCHES_MAX, TORN_SUSPECTS_MAX.
 * Tests:    tests/unit/test_torn.c, tests/sim/test_crash_points.c
 */
#include "queue/torn.h"

void torn_begin(struct torn *t)
{
    *t = (struct torn){.zone = SEGMENT_BLOCK, .end = SEGMENT_BLOCK};
}

void torn_damage(struct torn *t, uint32_t at, uint32_t len)
{
    if (t->bad_count == TORN_STRETCHES_MAX)
        return;
    t->bad[t->bad_count].at = at;
    t->bad[t->bad_count++].end = at + len;
}

static void next_batch(struct torn *t, uint16_t batch)
{
    uint32_t kept = 0;

    t->batch = batch;
    t->zone = t->end;
    t->suspect_count = 0;
    for (uint32_t i = 0; i < t->bad_count; i++)
        if (t->bad[i].at >= t->zone)
            t->bad[kept++] = t->bad[i];
    t->bad_count = kept;
}

static bool is_bad(const struct torn *t, uint32_t at)
{
    for (uint32_t i = 0; i < t->bad_count; i++)
        if (at >= t->bad[i].at && at < t->bad[i].end)
            return true;
    return false;
}

bool torn_record(struct torn *t, uint32_t segment, const struct record_header *h,
                 struct slice payload, uint32_t offset)
{
    struct record_message_view v;

    if (h->batch != t->batch)
        next_batch(t, h->batch);
    t->end = offset + h->length;
    if (t->bad_count == 0 || (h->type != RECORD_MESSAGE && h->type != RECORD_MOVED) ||
        !record_message_decode(payload, &v))
        return false;
    for (uint32_t i = 0; i < v.message.extent_count; i++) {
        struct lane_extent e = record_extent_at(v.extents, i);
        if (e.segment == segment && is_bad(t, e.offset))
            return true;
    }
    return false;
}

void torn_suspect(struct torn *t, uint32_t name)
{
    if (t->suspect_count < TORN_SUSPECTS_MAX)
        t->suspects[t->suspect_count++] = name;
}
