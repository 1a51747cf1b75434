/*
 * queue/summary.c - collects the entries of a segment's SUMMARY records while it is being filled.
 *
 *
 * Owns:     the bytes of the summary, laid out as they will be written.
 * Runs on:  the shard that owns the lane. No I/O.
 * Contract: entries in the order of the records; a SUMMARY record holds whole entries,
 *           SUMMARY_BYTES_MAX at most.
 * Failure:  no memory: `lost`, the segment is closed without a summary and scanned at the next
 *           start.
 * Bounds:   less than the records it speaks of.
 * Tests:    tests/unit/test_lane.c
 */
#include <assert.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

void summary_begin(struct summary *s)
{
    s->len = 0;
    s->record_at = 0;
    s->record_count = 0;
    s->lost = false;
}

/* Each record's end is rounded, so every one but the last may cost RECORD_ALIGN more than its
 * entries. */
uint32_t summary_bytes(const struct summary *s, uint32_t entry)
{
    return record_round(s->len + (uint64_t)entry + 2 * RECORD_HEADER_SIZE + 2 * RECORD_ALIGN);
}

static bool summary_reach(struct summary *s, uint32_t len)
{
    uint32_t cap = s->cap ? s->cap : (uint32_t)(256 * KIB);
    uint8_t *grown;

    while (cap < len)
        cap *= 2;
    if (cap == s->cap)
        return true;
    grown = aligned_alloc(SEGMENT_BLOCK, cap);
    if (!grown)
        return false;
    if (s->len)
        memcpy(grown, s->data, s->len);
    free(s->data);
    s->data = grown;
    s->cap = cap;
    return true;
}

void summary_add(struct summary *s, const struct record_digest *d)
{
    uint32_t size = summary_entry_size(d);
    bool fresh = s->record_count == 0 || s->len - s->record_at + size > SUMMARY_BYTES_MAX;

    if (size == 0 || s->lost)
        return;
    assert(size + RECORD_HEADER_SIZE <= SUMMARY_BYTES_MAX);
    if (!summary_reach(s, s->len + size + RECORD_HEADER_SIZE + RECORD_ALIGN + SEGMENT_BLOCK)) {
        s->lost = true;
        return;
    }
    if (fresh) {
        uint32_t at = record_round(s->len);
        struct record_header *h = (struct record_header *)(s->data + s->record_at);
        if (s->record_count) { /* the length of the one before, for the seal */
            h->length = s->len - s->record_at;
            memset(s->data + s->len, 0, at - s->len);
        }
        s->record_at = at;
        s->len = at + RECORD_HEADER_SIZE;
        s->record_count++;
    }
    summary_entry_encode(s->data + s->len, d);
    s->len += size;
    ((struct record_header *)(s->data + s->record_at))->length = s->len - s->record_at;
}
