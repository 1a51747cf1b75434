/*
 * queue/read_body.c - bodies of messages: extent by extent, then the tail in the MESSAGE record.
 *
 * Owns:     nothing; read.c's job keeps where a body's pieces are.
 * Runs on:  the shard that owns the lane.
 * Contract: a byte is given only from a record whose CRC was good, but for a body that never left
 *           the memory (lane_body_recent). A message that is copied forward meanwhile is followed.
 * Failure:  -EBADMSG for damage; -ENOTSUP for extents of another size; else as read.c.
 * Bounds:   one record of memory, and the extents of the bytes that were asked for.
 * Tests:    tests/unit/test_lane.c, tests/unit/test_lane_large.c, tests/unit/test_lane_recent.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "queue/read_internal.h"

static void message_got(struct lane_read *r, struct slice bytes);
static void list_got(struct lane_read *r, struct slice bytes);
static void extent_got(struct lane_read *r, struct slice bytes);

static void copy_part(struct lane_read *r, struct slice body, uint64_t body_at)
{
    uint64_t from = r->offset + r->got - body_at;
    size_t n = body.len > from ? body.len - (size_t)from : 0;

    if (n > r->len - r->got)
        n = r->len - r->got;
    if (n)
        memcpy(r->buf + r->got, body.ptr + from, n);
    r->got += (uint32_t)n;
}

static void fetch_message(struct lane_read *r)
{
    read_fetch(r, message_got, r->msg->segment, r->msg->offset, r->msg->record_size);
}

static void fetch_list(struct lane_read *r)
{
    struct read_job *j = r->job;
    struct queue_msg *m = r->msg;
    uint64_t list = RECORD_HEADER_SIZE + sizeof(struct record_message) + 2 * 4096 +
                    ((r->offset + r->len) / SPOOL_CHUNK_SIZE + 1) * sizeof(struct lane_extent);

    j->list_segment = m->segment;
    j->list_offset = m->offset;
    read_fetch(r, list_got, m->segment, m->offset,
               list < m->record_size ? (uint32_t)list : m->record_size);
}

/* The message was copied forward meanwhile, and the segment with the old extent is gone. */
static bool moved_away(const struct lane_read *r, struct lane_extent e)
{
    const struct read_job *j = r->job;
    const struct segment *s = segments_find(&r->lane->segments, e.segment);

    return (!s || s->state == SEGMENT_DYING) &&
           (r->msg->segment != j->list_segment || r->msg->offset != j->list_offset);
}

/* What comes next: an extent, the tail, or the end. */
static void next_piece(struct lane_read *r)
{
    struct read_job *j = r->job;
    uint64_t at = r->offset + r->got;
    uint64_t index = at / SPOOL_CHUNK_SIZE;
    struct lane_extent e;

    if (r->got == r->len) {
        read_finish(r, (int32_t)r->got);
        return;
    }
    if (index >= j->head.extent_count) {
        fetch_message(r);
        return;
    }
    assert(index >= j->first_extent && index < j->first_extent + j->extent_count);
    e = j->extents[index - j->first_extent];
    if (moved_away(r, e)) {
        free(j->extents);
        j->extents = NULL;
        fetch_list(r);
        return;
    }
    read_fetch(r, extent_got, e.segment, e.offset, EXTENT_RECORD_BYTES);
}

/* Keeps the part of the extent list that this read needs. */
static bool keep_extents(struct lane_read *r, struct slice list, uint32_t count)
{
    struct read_job *j = r->job;
    uint64_t first = r->offset / SPOOL_CHUNK_SIZE;
    uint64_t end = (r->offset + r->len + SPOOL_CHUNK_SIZE - 1) / SPOOL_CHUNK_SIZE;

    if (end > count)
        end = count;
    if (first >= end)
        return true;
    if (end * sizeof *j->extents > list.len)
        return false;
    j->first_extent = (uint32_t)first;
    j->extent_count = (uint32_t)(end - first);
    j->extents = malloc(j->extent_count * sizeof *j->extents);
    if (!j->extents)
        return false;
    for (uint32_t i = 0; i < j->extent_count; i++)
        j->extents[i] = record_extent_at(list, j->first_extent + i);
    return true;
}

/* The beginning of the MESSAGE record of a large message. Its extents check themselves. */
static void list_got(struct lane_read *r, struct slice bytes)
{
    struct read_job *j = r->job;
    struct slice payload = slice_from(bytes, RECORD_HEADER_SIZE);
    struct record_header h;

    if (bytes.len < RECORD_HEADER_SIZE ||
        !record_header_check(bytes.ptr, j->segment->seed, j->offset, j->segment->bytes, &h) ||
        ((h.qid ^ j->qid) & QID_SEQUENCE_MASK) || !record_message_head(payload, &j->head)) {
        read_damaged(r);
        return;
    }
    if (j->head.chunk != SPOOL_CHUNK_SIZE ||
        !keep_extents(r, slice_from(payload, record_message_extents_at(&j->head)),
                      j->head.extent_count)) {
        read_finish(r, j->head.chunk != SPOOL_CHUNK_SIZE ? -ENOTSUP : -ENOMEM);
        return;
    }
    next_piece(r);
}

static void extent_got(struct lane_read *r, struct slice bytes)
{
    struct read_job *j = r->job;
    struct record_header h;
    struct record_extent_view v;
    struct slice payload = read_payload(j, bytes, &h);
    uint64_t at = r->offset + r->got;

    if (payload.len == 0 || h.type != RECORD_EXTENT || !record_extent_decode(payload, &v) ||
        v.extent.body_offset != at - at % SPOOL_CHUNK_SIZE || v.body.len != SPOOL_CHUNK_SIZE) {
        read_damaged(r);
        return;
    }
    copy_part(r, v.body, v.extent.body_offset);
    next_piece(r);
}

static void message_got(struct lane_read *r, struct slice bytes)
{
    struct read_job *j = r->job;
    struct record_header h;
    struct record_message_view v;
    struct slice payload = read_payload(j, bytes, &h);

    if (payload.len == 0 || !record_message_decode(payload, &v)) {
        read_damaged(r);
        return;
    }
    copy_part(r, v.tail, (uint64_t)v.message.extent_count * v.message.chunk);
    read_finish(r, (int32_t)r->got);
}

void lane_body_read(struct lane *l, struct queue_msg *m, struct lane_read *r, uint64_t offset,
                    void *buf, uint32_t len)
{
    if (offset > m->body_size)
        offset = m->body_size;
    if (len > m->body_size - offset)
        len = (uint32_t)(m->body_size - offset);
    r->offset = offset;
    read_begin(l, m, m->qid, r);
    r->buf = buf;
    r->len = len;
    if (len == 0)
        read_finish_later(r, 0);
    else if (m->body_size <= SPOOL_CHUNK_SIZE) /* has no extents */
        fetch_message(r);
    else
        fetch_list(r);
}

struct slice lane_body_recent(const struct lane *l, const struct queue_msg *m)
{
    const struct segment *s = segments_find(&l->segments, m->segment);
    struct slice bytes = commit_recent(l, m->segment, m->offset, m->record_size);
    struct record_header h;
    struct record_message_view v;

    if (!s || s->headless || s->state == SEGMENT_DYING || bytes.len < RECORD_HEADER_SIZE ||
        !record_header_check(bytes.ptr, s->seed, m->offset, s->bytes, &h) || h.length > bytes.len ||
        ((h.qid ^ m->qid) & QID_SEQUENCE_MASK) ||
        !record_message_decode(
            slice_of(bytes.ptr + RECORD_HEADER_SIZE, h.length - RECORD_HEADER_SIZE), &v) ||
        v.message.extent_count || v.tail.len != m->body_size)
        return slice_of(NULL, 0);
    return v.tail;
}
