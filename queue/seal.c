/*
 * queue/seal.c - closes a full segment: SUMMARY records, then the footer that points at them.
 *
 * Owns:     the summary it is given, until it is written.
 * Runs on:  the shard that owns the lane.
 * Contract: the footer is written only after the summary's sync; nothing but the speed of recovery
 *           depends on either.
 * Failure:  the segment stays as it is, without a footer; recovery scans it.
 * Bounds:   one at a time; two writes and syncs a segment.
 * Tests:    tests/unit/test_lane.c, tests/unit/test_recovery.c; format: queue/FORMAT.md section 2
 */
#include <assert.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

enum seal_step { SEAL_SUMMARY, SEAL_FOOTER };

static void seal_done(struct io_op *op, int32_t res, uint32_t flags);

static void seal_end(struct lane *l, enum segment_state state)
{
    struct segment *s = l->seal.segment;

    s->state = (uint8_t)state;
    if (s->write_fd >= 0)
        io_close(l->io, s->write_fd);
    s->write_fd = -1;
    l->seal.summary->busy = false;
    l->seal.segment = NULL;
    reap_kick(l);
    commit_progress(l);
    lane_soon(l);
}

static void write_footer(struct lane *l)
{
    struct segment *s = l->seal.segment;
    struct summary *summary = l->seal.summary;
    uint32_t at = (uint32_t)s->bytes - SEGMENT_BLOCK;
    struct segment_footer f = {.summary_offset = s->tail,
                               .summary_count = summary->record_count,
                               .data_end = s->tail,
                               .record_count = s->record_index,
                               .closed = l->seal.closed};

    segment_footer_encode(&f, s->seed, at, l->seal.block);
    l->seal.step = SEAL_FOOTER;
    io_write_sync(l->io, &l->seal.op, s->write_fd, l->seal.block, SEGMENT_BLOCK, at);
}

/* Gives every SUMMARY record its header and CRCs. */
static uint32_t finish_summary(struct lane *l)
{
    struct segment *s = l->seal.segment;
    struct summary *summary = l->seal.summary;
    uint32_t at = 0, index = s->record_index, len = record_round(summary->len);

    for (uint32_t i = 0; i < summary->record_count; i++) {
        struct record_header *h = (struct record_header *)(summary->data + at);
        struct record_header fields = {.type = RECORD_SUMMARY,
                                       .batch = (uint16_t)l->batch_next,
                                       .sequence = (uint64_t)s->id << 32 | index++};
        uint32_t length = h->length;
        record_seal(summary->data + at, length - RECORD_HEADER_SIZE, &fields, s->seed,
                    s->tail + at);
        at += record_round(length);
    }
    assert(at == len);
    if (l->p.mode == LANE_WRITE_DIRECT) { /* there is room for a block behind it */
        uint32_t whole = (len + SEGMENT_BLOCK - 1) & ~(SEGMENT_BLOCK - 1);
        memset(summary->data + len, 0, whole - len);
        len = whole;
    }
    assert((uint64_t)s->tail + len + SEGMENT_BLOCK <= s->bytes);
    return len;
}

void seal_start(struct lane *l, struct segment *s, struct summary *summary)
{
    uint32_t len;

    assert(!l->seal.segment && s->state == SEGMENT_CLOSING);
    l->seal.segment = s;
    l->seal.summary = summary;
    l->seal.op.done = seal_done;
    if (summary->lost) {
        seal_end(l, SEGMENT_SEALED);
        return;
    }
    if (summary->record_count == 0) {
        write_footer(l);
        return;
    }
    len = finish_summary(l);
    l->seal.step = SEAL_SUMMARY;
    if (s->written < s->tail + len)
        s->written = s->tail + len;
    io_write_sync(l->io, &l->seal.op, s->write_fd, summary->data, len, s->tail);
}

static void seal_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct lane *l = container_of(op, struct lane, seal.op);

    (void)flags;
    l->stats.syncs++;
    if (res < 0) {
        l->stats.sync_failed++;
        seal_end(l, SEGMENT_FAILED);
    } else if (l->seal.step == SEAL_SUMMARY) {
        write_footer(l);
    } else {
        seal_end(l, SEGMENT_SEALED);
    }
}
