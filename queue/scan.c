/*
 * queue/scan.c - walks the records of a segment: what is good, what is damaged, where the log
 * ends.
 *
 * Owns:     nothing; the caller brings the bytes.
 * Runs on:  any thread. No I/O.
 * Contract: every good record is given once, in order; every damaged stretch that was ours is told
 *           once.
 * Failure:  none; whatever the bytes are, the walk ends.
 * Bounds:   needs RECORD_BYTES_MAX bytes at once, no more. A search costs one header check for
 *           each 16 bytes.
 * Tests:    tests/unit/test_scan.c; format: queue/FORMAT.md section 5
 */
#include "queue/scan.h"

#include <assert.h>

void scan_begin(struct scan *s, uint32_t segment, uint32_t seed, uint64_t segment_bytes)
{
    *s = (struct scan){.seed = seed,
                       .segment = segment,
                       .end = (uint32_t)segment_bytes,
                       .at = SEGMENT_BLOCK,
                       .expected = (uint64_t)segment << 32};
}

static enum scan_result need(const struct scan *s, uint32_t at, uint32_t len,
                             struct scan_event *out)
{
    out->need_at = at;
    out->need_len = s->end - at < len ? s->end - at : len;
    return SCAN_NEED;
}

/* Bytes of the window from `at` on. */
static struct slice window_from(uint32_t window_at, struct slice window, uint32_t at)
{
    assert(at >= window_at);
    return slice_from(window, at - window_at);
}

static enum scan_result good_record(struct scan *s, const struct record_header *h,
                                    struct slice bytes, struct scan_event *out)
{
    uint32_t at = s->at;

    s->at += h->length;
    s->expected = h->sequence + 1;
    s->last_batch = h->batch;
    if (h->type == 0 || h->type >= RECORD_TYPE_END || h->flags != 0) {
        out->damage_at = at;
        out->damage_len = h->length;
        out->what = "record of unknown type";
        return SCAN_DAMAGED;
    }
    out->header = *h;
    out->offset = at;
    out->payload = slice_of(bytes.ptr + RECORD_HEADER_SIZE, h->length - RECORD_HEADER_SIZE);
    return SCAN_RECORD;
}

/* Found behind damage: the damage is told, the record comes with the next call. */
static enum scan_result resynchronised(struct scan *s, const struct record_header *h,
                                       struct scan_event *out)
{
    s->searching = false;
    out->damage_at = s->bad_at;
    out->damage_len = s->at - s->bad_at;
    if (s->bad_header)
        out->what = "damaged record header";
    else if (h->batch != s->bad_batch)
        out->what = "damaged record";
    else
        out->what = "record of an unfinished or damaged write";
    return SCAN_DAMAGED;
}

static enum scan_result search_over(struct scan *s, struct scan_event *out)
{
    s->at = s->end;
    s->searching = false;
    if (!s->bad_ours)
        return SCAN_END;
    out->damage_at = s->bad_at;
    out->damage_len = s->bad_end - s->bad_at;
    out->what = "unfinished write at the end of the log";
    return SCAN_DAMAGED;
}

/* Bytes that begin no record, since the place of their length is zero: mostly what was never
 * written. */
static uint32_t without_records(struct slice bytes)
{
    uint32_t at = 0, length = 0;

    while (at + 2 * RECORD_HEADER_SIZE <= bytes.len) {
        memcpy(&length, bytes.ptr + at + offsetof(struct record_header, length), sizeof length);
        if (length)
            break;
        at += RECORD_ALIGN;
    }
    return at;
}

static enum scan_result search(struct scan *s, uint32_t window_at, struct slice window,
                               struct scan_event *out)
{
    for (; s->end - s->at >= RECORD_HEADER_SIZE; s->at += RECORD_ALIGN) {
        struct slice bytes = window_from(window_at, window, s->at);
        struct record_header h;
        s->at += without_records(bytes);
        bytes = window_from(window_at, window, s->at);
        if (bytes.len < RECORD_HEADER_SIZE)
            return need(s, s->at, RECORD_HEADER_SIZE, out);
        if (!record_header_check(bytes.ptr, s->seed, s->at, s->end, &h))
            continue;
        switch (record_check(bytes, s->seed, s->at, s->end, &h)) {
        case RECORD_GOOD: return resynchronised(s, &h, out);
        case RECORD_NEED_MORE: return need(s, s->at, h.length, out);
        case RECORD_BAD_PAYLOAD: /* one more damaged record; its length can be trusted */
            s->bad_ours = true;
            s->bad_end = s->at + h.length;
            s->bad_batch = h.batch;
            s->at += h.length - RECORD_ALIGN;
            break;
        case RECORD_BAD_HEADER: break;
        }
    }
    return search_over(s, out);
}

static void begin_search(struct scan *s, const struct record_header *h, struct slice bytes)
{
    s->searching = true;
    s->bad_at = s->at;
    s->bad_header = h == NULL;
    if (h) {
        s->bad_batch = h->batch;
        s->bad_ours = true;
        s->bad_end = s->at + h->length;
        s->at += h->length;
    } else {
        s->bad_ours = record_was_ours(bytes, s->seed, s->at, s->expected);
        s->bad_end = s->end - s->at < SEGMENT_BLOCK ? s->end : s->at + SEGMENT_BLOCK;
        s->at += RECORD_ALIGN;
    }
}

enum scan_result scan_next(struct scan *s, uint32_t window_at, struct slice window,
                           struct scan_event *out)
{
    struct record_header h;
    struct slice bytes;
    uint32_t all = s->end - s->at < RECORD_BYTES_MAX ? s->end - s->at : RECORD_BYTES_MAX;

    if (s->searching)
        return search(s, window_at, window, out);
    if (all < RECORD_HEADER_SIZE)
        return SCAN_END;
    bytes = window_from(window_at, window, s->at);
    if (bytes.len < RECORD_HEADER_SIZE)
        return need(s, s->at, RECORD_HEADER_SIZE, out);
    switch (record_check(bytes, s->seed, s->at, s->end, &h)) {
    case RECORD_GOOD: return good_record(s, &h, bytes, out);
    case RECORD_NEED_MORE: return need(s, s->at, h.length, out);
    case RECORD_BAD_PAYLOAD: begin_search(s, &h, bytes); break;
    case RECORD_BAD_HEADER:
        if (bytes.len < all)
            return need(s, s->at, all, out);
        begin_search(s, NULL, bytes);
        break;
    }
    return search(s, window_at, window, out);
}
