/*
 * queue/read.c - bodies and envelopes from segments, checked by CRC before a byte is handed out.
 *
 *
 * Owns:     the segments' read descriptors and one job a read.
 * Runs on:  the shard that owns the lane.
 * Contract: bytes are given only from records whose CRC was good, record by record, but for those
 *           that never left the memory (lane_body_recent). `done` never runs inside the call.
 * Failure:  -errno; -EBADMSG for damage, which is also told and set aside; -ENOENT when an
 *           extent's segment is missing.
 * Bounds:   READ_FDS_MAX descriptors kept open; one record of memory a read.
 * Tests:    tests/unit/test_lane.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

#define ERROR_HOPS_MAX 16u

enum read_step {
    READ_MESSAGE, /* the whole MESSAGE record */
    READ_LIST,    /* its beginning with the extent list */
    READ_EXTENT,
    READ_ENVELOPE,
    READ_RECORD, /* as it is, for copying */
    READ_ERROR,  /* a state record, for its text */
    READ_WORDS   /* the same, for nothing else */
};

struct read_job {
    struct lane_read *read;
    struct list link;
    struct timer timer;
    struct segment *segment;
    uint64_t qid;
    uint32_t offset, want, filled; /* filled: bytes of `want` that came already */
    struct record_message head;
    struct lane_extent *extents; /* of the pieces from first_extent on */
    uint32_t first_extent, extent_count;
    uint32_t list_segment, list_offset; /* where the list of extents came from */
    uint32_t hops;
    int32_t error;
    uint8_t *bytes;
    uint32_t cap;
};

static void read_step_done(struct lane_read *r, struct slice bytes);

/* ---- descriptors ---- */

static void fd_use(struct segment *s)
{
    if (s->read_users++ == 0)
        list_remove(&s->read_link);
}

static void fd_close_oldest(struct lane *l)
{
    struct list *link = list_pop_front(&l->read_lru);
    struct segment *s;

    if (!link)
        return;
    s = container_of(link, struct segment, read_link);
    io_close(l->io, s->read_fd);
    s->read_fd = -1;
    l->read_fd_count--;
}

static void fd_release(struct lane *l, struct segment *s)
{
    assert(s->read_users > 0);
    if (--s->read_users > 0 || s->read_fd < 0)
        return;
    list_push_back(&l->read_lru, &s->read_link);
    if (l->read_fd_count > READ_FDS_MAX)
        fd_close_oldest(l);
}

void read_forget_segment(struct lane *l, struct segment *s)
{
    assert(s->read_users == 0);
    list_remove(&s->read_link);
    if (s->read_fd >= 0) {
        io_close(l->io, s->read_fd);
        l->read_fd_count--;
    }
    s->read_fd = -1;
    free(s->read_path);
    s->read_path = NULL;
}

/* ---- one read of one record ---- */

static struct read_job *job_of(struct lane_read *r)
{
    return r->scratch;
}

static void finish(struct lane_read *r, int32_t res)
{
    struct read_job *j = job_of(r);
    struct lane *l = r->lane;

    free(j->bytes);
    free(j->extents);
    free(j);
    r->scratch = NULL;
    l->reads_running--;
    r->done(r, res);
    if (l->closing)
        lane_soon(l);
}

static void fail_fire(struct timer *t)
{
    struct read_job *j = container_of(t, struct read_job, timer);

    finish(j->read, j->error);
}

/* Its bytes were still in memory. */
static void memory_fire(struct timer *t)
{
    struct read_job *j = container_of(t, struct read_job, timer);

    read_step_done(j->read, slice_of(j->bytes, j->want));
}

static void fail_later(struct lane_read *r, int32_t error)
{
    struct read_job *j = job_of(r);

    j->error = error;
    j->timer.fire = fail_fire;
    io_timer_set(r->lane->io, &j->timer, io_now_ns(r->lane->io));
}

static void damaged(struct lane_read *r)
{
    struct read_job *j = job_of(r);

    quarantine_region(r->lane, j->segment, j->offset, j->want, "record damaged on disk");
    finish(r, -EBADMSG);
}

static void submit(struct lane_read *r);

static void read_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct lane_read *r = container_of(op, struct lane_read, op);
    struct read_job *j = job_of(r);

    (void)flags;
    if (res > 0) {
        j->filled += (uint32_t)res;
        if (j->filled < j->want) { /* cut short; at the end of the file the next one gives 0 */
            submit(r);
            return;
        }
    }
    fd_release(r->lane, j->segment);
    if (res < 0)
        finish(r, res);
    else
        read_step_done(r, slice_of(j->bytes, j->filled));
}

static void submit(struct lane_read *r)
{
    struct read_job *j = job_of(r);

    r->op.done = read_done;
    io_read(r->lane->io, &r->op, j->segment->read_fd, j->bytes + j->filled, j->want - j->filled,
            j->offset + j->filled);
}

static void segment_opened(struct io_op *op, int32_t res, uint32_t flags)
{
    struct segment *s = container_of(op, struct segment, read_op);
    struct lane *l = s->lane;
    struct list *link;

    (void)flags;
    s->read_opening = false;
    if (res >= 0) {
        s->read_fd = res;
        l->read_fd_count++;
    }
    while ((link = list_pop_front(&s->read_waiters)) != NULL) {
        struct read_job *j = container_of(link, struct read_job, link);
        if (res >= 0) {
            submit(j->read);
        } else {
            fd_release(l, s);
            fail_later(j->read, res);
        }
    }
}

/* Reads `want` bytes at `offset` of a segment; read_step_done gets them. */
static void fetch(struct lane_read *r, uint32_t segment, uint32_t offset, uint32_t want)
{
    struct read_job *j = job_of(r);
    struct lane *l = r->lane;
    struct segment *s = segments_find(&l->segments, segment);
    struct slice recent = commit_recent(l, segment, offset, want);

    if (want > j->cap) {
        free(j->bytes);
        j->bytes = malloc(want);
        j->cap = j->bytes ? want : 0;
    }
    j->segment = s;
    j->offset = offset;
    j->want = want;
    j->filled = 0;
    if (s && s->headless) { /* its seed is not known */
        fail_later(r, -EIO);
        return;
    }
    if (!s || !j->bytes || s->state == SEGMENT_DYING) {
        fail_later(r, s && s->state != SEGMENT_DYING ? -ENOMEM : -ENOENT);
        return;
    }
    if (recent.len) {
        j->want = (uint32_t)recent.len;
        memcpy(j->bytes, recent.ptr, recent.len);
        j->timer.fire = memory_fire;
        io_timer_set(l->io, &j->timer, io_now_ns(l->io));
        return;
    }
    fd_use(s);
    if (s->read_fd >= 0) {
        submit(r);
        return;
    }
    list_push_back(&s->read_waiters, &j->link);
    if (s->read_opening)
        return;
    if (!s->read_path) {
        s->read_path = malloc(LANE_PATH_MAX);
        assert(s->read_path);
        lane_path(l, s->id, "seg", s->read_path);
    }
    s->read_opening = true;
    s->read_op.done = segment_opened;
    io_open(l->io, &s->read_op, s->read_path, IO_READ);
}

/* The payload of a whole good record of this type and message, or an empty slice. */
static struct slice good_payload(const struct read_job *j, struct slice bytes, uint64_t qid,
                                 struct record_header *h)
{
    if (record_check(bytes, j->segment->seed, j->offset, j->segment->bytes, h) != RECORD_GOOD ||
        ((h->qid ^ qid) & QID_SEQUENCE_MASK)) /* a lane copied in has another's numbers */
        return slice_of(NULL, 0);
    return slice_of(bytes.ptr + RECORD_HEADER_SIZE, h->length - RECORD_HEADER_SIZE);
}

/* ---- bodies ---- */

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
    r->step = READ_MESSAGE;
    fetch(r, r->msg->segment, r->msg->offset, r->msg->record_size);
}

static void fetch_list(struct lane_read *r)
{
    struct read_job *j = job_of(r);
    struct queue_msg *m = r->msg;
    uint64_t list = RECORD_HEADER_SIZE + sizeof(struct record_message) + 2 * 4096 +
                    ((r->offset + r->len) / SPOOL_CHUNK_SIZE + 1) * sizeof(struct lane_extent);

    j->list_segment = m->segment;
    j->list_offset = m->offset;
    r->step = READ_LIST;
    fetch(r, m->segment, m->offset, list < m->record_size ? (uint32_t)list : m->record_size);
}

/* The message was copied forward meanwhile, and the segment with the old extent is gone. */
static bool moved_away(const struct lane_read *r, struct lane_extent e)
{
    const struct read_job *j = r->scratch;
    const struct segment *s = segments_find(&r->lane->segments, e.segment);

    return (!s || s->state == SEGMENT_DYING) &&
           (r->msg->segment != j->list_segment || r->msg->offset != j->list_offset);
}

/* What comes next: an extent, the tail, or the end. */
static void next_piece(struct lane_read *r)
{
    struct read_job *j = job_of(r);
    uint64_t at = r->offset + r->got;
    uint64_t index = at / SPOOL_CHUNK_SIZE;
    struct lane_extent e;

    if (r->got == r->len) {
        finish(r, (int32_t)r->got);
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
    r->step = READ_EXTENT;
    fetch(r, e.segment, e.offset, EXTENT_RECORD_BYTES);
}

/* Keeps the part of the extent list that this read needs. */
static bool keep_extents(struct lane_read *r, struct slice list, uint32_t count)
{
    struct read_job *j = job_of(r);
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
static void list_read(struct lane_read *r, struct slice bytes)
{
    struct read_job *j = job_of(r);
    struct slice payload = slice_from(bytes, RECORD_HEADER_SIZE);
    struct record_header h;

    if (bytes.len < RECORD_HEADER_SIZE ||
        !record_header_check(bytes.ptr, j->segment->seed, j->offset, j->segment->bytes, &h) ||
        ((h.qid ^ j->qid) & QID_SEQUENCE_MASK) || !record_message_head(payload, &j->head)) {
        damaged(r);
        return;
    }
    if (j->head.chunk != SPOOL_CHUNK_SIZE ||
        !keep_extents(r, slice_from(payload, record_message_extents_at(&j->head)),
                      j->head.extent_count)) {
        finish(r, j->head.chunk != SPOOL_CHUNK_SIZE ? -ENOTSUP : -ENOMEM);
        return;
    }
    next_piece(r);
}

static void extent_read(struct lane_read *r, struct slice bytes)
{
    struct read_job *j = job_of(r);
    struct record_header h;
    struct record_extent_view v;
    struct slice payload = good_payload(j, bytes, j->qid, &h);
    uint64_t at = r->offset + r->got;

    if (payload.len == 0 || h.type != RECORD_EXTENT || !record_extent_decode(payload, &v) ||
        v.extent.body_offset != at - at % SPOOL_CHUNK_SIZE || v.body.len != SPOOL_CHUNK_SIZE) {
        damaged(r);
        return;
    }
    copy_part(r, v.body, v.extent.body_offset);
    next_piece(r);
}

static void message_read(struct lane_read *r, struct slice bytes)
{
    struct read_job *j = job_of(r);
    struct record_header h;
    struct record_message_view v;
    struct slice payload = good_payload(j, bytes, j->qid, &h);

    if (payload.len == 0 || !record_message_decode(payload, &v)) {
        damaged(r);
        return;
    }
    copy_part(r, v.tail, (uint64_t)v.message.extent_count * v.message.chunk);
    finish(r, (int32_t)r->got);
}

static void begin(struct lane *l, struct queue_msg *m, uint64_t qid, struct lane_read *r)
{
    struct read_job *j = calloc(1, sizeof *j);

    r->lane = l;
    r->msg = m;
    r->got = 0;
    r->scratch = j;
    assert(j); /* a few hundred bytes */
    j->read = r;
    j->qid = qid;
    l->reads_running++;
}

void lane_body_read(struct lane *l, struct queue_msg *m, struct lane_read *r, uint64_t offset,
                    void *buf, uint32_t len)
{
    if (offset > m->body_size)
        offset = m->body_size;
    if (len > m->body_size - offset)
        len = (uint32_t)(m->body_size - offset);
    r->offset = offset;
    r->buf = buf;
    r->len = len;
    begin(l, m, m->qid, r);
    if (len == 0) {
        fail_later(r, 0);
        return;
    }
    if (m->body_size <= SPOOL_CHUNK_SIZE) { /* has no extents */
        fetch_message(r);
        return;
    }
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

/* ---- records ---- */

static void whole_read(struct lane_read *r, struct slice bytes)
{
    struct read_job *j = job_of(r);
    struct record_header h;

    if (good_payload(j, bytes, j->qid, &h).len == 0) {
        damaged(r);
        return;
    }
    r->buf = j->bytes;
    j->bytes = NULL;
    finish(r, (int32_t)h.length);
}

void read_message_record(struct lane *l, struct queue_msg *m, struct lane_read *r)
{
    begin(l, m, m->qid, r);
    r->buf = NULL;
    r->step = READ_RECORD;
    fetch(r, m->segment, m->offset, m->record_size);
}

void read_extent_record(struct lane *l, uint64_t qid, struct lane_extent e, struct lane_read *r)
{
    begin(l, NULL, qid, r);
    r->buf = NULL;
    r->step = READ_RECORD;
    fetch(r, e.segment, e.offset, EXTENT_RECORD_BYTES);
}

/* ---- envelopes ---- */

static void envelope_finish(struct lane_envelope_read *e, struct slice error, const char *failed)
{
    struct lane_read *r = &e->read;
    struct read_job *j = job_of(r);
    struct lane *l = r->lane;
    struct why why;

    why_clear(&why);
    if (failed)
        why_set(&why, 451, "4.3.0", "%s", failed);
    free(j->bytes);
    free(j->extents);
    free(j);
    r->scratch = NULL;
    l->reads_running--;
    e->done(e, failed ? NULL : &e->env, error, &why);
    if (l->closing)
        lane_soon(l);
}

/* All ways in which a read fails end here for an envelope. */
static void envelope_failed(struct lane_read *r, int32_t res)
{
    struct lane_envelope_read *e = container_of(r, struct lane_envelope_read, read);
    struct why why;

    why_clear(&why);
    if (r->step == READ_ERROR) {
        e->done(e, &e->env, slice_of(NULL, 0), &why);
        return;
    }
    e->damaged = res == -EBADMSG;
    if (e->damaged)
        why_set(&why, 451, "4.3.0", "the envelope is damaged on disk");
    else
        why_set(&why, 451, "4.3.0", "the envelope cannot be read: %s", strerror(-res));
    e->done(e, NULL, slice_of(NULL, 0), &why);
}

/* The words are a convenience: whatever goes wrong with them, the message is good. */
static void words_finish(struct lane_read *r, struct slice words)
{
    if (r->step == READ_WORDS) {
        r->buf = words.len ? malloc(words.len) : NULL;
        if (r->buf)
            memcpy(r->buf, words.ptr, words.len);
        finish(r, r->buf ? (int32_t)words.len : 0);
    } else {
        struct lane_envelope_read *e = container_of(r, struct lane_envelope_read, read);
        struct slice text = slice_of(NULL, 0);
        if (words.len && !arena_copy(e->arena, words, &text))
            text = slice_of(NULL, 0);
        envelope_finish(e, text, NULL);
    }
}

/* `step`: READ_ERROR or READ_WORDS. */
static void fetch_error(struct lane_read *r, uint8_t step, uint32_t segment, uint32_t offset)
{
    struct segment *s = segment ? segments_find(&r->lane->segments, segment) : NULL;

    r->step = step;
    if (!s || s->state == SEGMENT_DYING || offset < SEGMENT_BLOCK || offset >= s->bytes ||
        job_of(r)->hops++ == ERROR_HOPS_MAX) {
        words_finish(r, slice_of(NULL, 0));
        return;
    }
    fetch(r, segment, offset,
          record_round(RECORD_HEADER_SIZE + sizeof(struct record_state) + FINAL_WORDS_MAX * 8u +
                       ERROR_BYTES_MAX));
}

static void envelope_read(struct lane_read *r, struct slice bytes)
{
    struct lane_envelope_read *e = container_of(r, struct lane_envelope_read, read);
    struct read_job *j = job_of(r);
    struct record_header h;
    struct record_message_view v;
    struct slice payload = good_payload(j, bytes, j->qid, &h);
    uint8_t *copy;

    if (payload.len == 0 || !record_message_decode(payload, &v)) {
        damaged(r);
        return;
    }
    copy = arena_alloc_large(e->arena, v.envelope.len);
    if (copy)
        memcpy(copy, v.envelope.ptr, v.envelope.len);
    if (!copy || !envelope_decode(slice_of(copy, v.envelope.len), e->arena, &e->env)) {
        envelope_finish(e, slice_of(NULL, 0), "no memory for the envelope, or it is not one");
        return;
    }
    fetch_error(r, READ_ERROR, r->msg->state_segment, r->msg->state_offset);
}

static void error_read(struct lane_read *r, struct slice bytes)
{
    struct read_job *j = job_of(r);
    struct record_header h = {0};
    struct record_state_view v;
    struct record_message_view moved;
    struct slice payload = slice_of(NULL, 0);
    uint32_t used;

    if (j->segment)
        payload = good_payload(j, bytes, j->qid, &h);
    if (payload.len && h.type == RECORD_MOVED && record_message_decode(payload, &moved))
        payload = moved.state_block;
    if (payload.len == 0 || h.type == RECORD_MESSAGE || !record_state_decode(payload, &v, &used))
        words_finish(r, slice_of(NULL, 0));
    else if (v.error.len)
        words_finish(r, v.error);
    else
        fetch_error(r, r->step, v.state.error_segment, v.state.error_offset);
}

void read_words(struct lane *l, struct queue_msg *m, struct lane_read *r)
{
    begin(l, NULL, m->qid, r);
    r->buf = NULL;
    fetch_error(r, READ_WORDS, m->state_segment, m->state_offset);
}

void lane_envelope_read(struct lane *l, struct queue_msg *m, struct lane_envelope_read *e,
                        struct arena *arena)
{
    struct lane_read *r = &e->read;

    e->arena = arena;
    e->damaged = false;
    r->done = envelope_failed;
    begin(l, m, m->qid, r);
    r->step = READ_ENVELOPE;
    fetch(r, m->segment, m->offset, m->record_size);
}

static void read_step_done(struct lane_read *r, struct slice bytes)
{
    switch ((enum read_step)r->step) {
    case READ_MESSAGE: message_read(r, bytes); break;
    case READ_LIST: list_read(r, bytes); break;
    case READ_EXTENT: extent_read(r, bytes); break;
    case READ_ENVELOPE: envelope_read(r, bytes); break;
    case READ_RECORD: whole_read(r, bytes); break;
    case READ_ERROR:
    case READ_WORDS: error_read(r, bytes); break;
    }
}
