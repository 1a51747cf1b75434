/*
 * queue/read_envelope.c - a message's envelope, and the words of its last error.
 *
 * Owns:     nothing; the envelope is in the caller's arena.
 * Runs on:  the shard that owns the lane.
 * Contract: an envelope comes from a record whose CRC was good. The words are a convenience:
 *           whatever goes wrong with them, the message is good.
 * Failure:  no envelope, and why; `damaged` where reading it again will not help.
 * Bounds:   ERROR_HOPS_MAX records are looked at for the words.
 * Tests:    tests/unit/test_lane.c, tests/unit/test_lane_error.c
 */
#include <errno.h>
#include <stdlib.h>

#include "queue/read_internal.h"

#define ERROR_HOPS_MAX 16u

static void words_got(struct lane_read *r, struct slice bytes);

/* ---- words of an error ---- */

/* They go where the envelope is, or to a caller who frees them. */
static void words_end(struct lane_read *r, struct slice words)
{
    struct arena *arena = r->job->words_arena;

    if (words.len) {
        r->buf = arena ? arena_alloc(arena, words.len) : malloc(words.len);
        if (r->buf)
            memcpy(r->buf, words.ptr, words.len);
    }
    read_finish(r, r->buf ? (int32_t)words.len : 0);
}

/* A state record has them, or says which older one does. */
static void words_fetch(struct lane_read *r, uint32_t segment, uint32_t offset)
{
    struct segment *s = segment ? segments_find(&r->lane->segments, segment) : NULL;

    if (!s || s->state == SEGMENT_DYING || offset < SEGMENT_BLOCK || offset >= s->bytes ||
        r->job->hops++ == ERROR_HOPS_MAX) {
        words_end(r, slice_of(NULL, 0));
        return;
    }
    read_fetch(r, words_got, segment, offset,
               record_round(RECORD_HEADER_SIZE + sizeof(struct record_state) +
                            FINAL_WORDS_MAX * 8u + ERROR_BYTES_MAX));
}

static void words_got(struct lane_read *r, struct slice bytes)
{
    struct record_header h;
    struct record_state_view v;
    struct record_message_view moved;
    struct slice payload = read_payload(r->job, bytes, &h);
    uint32_t used;

    if (payload.len && h.type == RECORD_MOVED && record_message_decode(payload, &moved))
        payload = moved.state_block;
    if (payload.len == 0 || h.type == RECORD_MESSAGE || !record_state_decode(payload, &v, &used))
        words_end(r, slice_of(NULL, 0));
    else if (v.error.len)
        words_end(r, v.error);
    else
        words_fetch(r, v.state.error_segment, v.state.error_offset);
}

void read_words(struct lane *l, struct queue_msg *m, struct lane_read *r)
{
    read_begin(l, NULL, m->qid, r);
    words_fetch(r, m->state_segment, m->state_offset);
}

/* ---- envelopes ---- */

static void envelope_failed(struct lane_read *r, int32_t res)
{
    struct lane_envelope_read *e = container_of(r, struct lane_envelope_read, read);
    struct why why;

    why_clear(&why);
    e->damaged = res == -EBADMSG;
    if (e->damaged)
        why_set(&why, 451, "4.3.0", "the envelope is damaged on disk");
    else
        why_set(&why, 451, "4.3.0", "the envelope cannot be read: %s", strerror(-res));
    e->done(e, NULL, slice_of(NULL, 0), &why);
}

/* `res`: bytes of the last error's words, or why there are none, which does not matter. */
static void envelope_done(struct lane_read *r, int32_t res)
{
    struct lane_envelope_read *e = container_of(r, struct lane_envelope_read, read);
    struct why why;

    why_clear(&why);
    e->done(e, &e->env, slice_of(r->buf, res > 0 ? (uint32_t)res : 0), &why);
}

static void envelope_got(struct lane_read *r, struct slice bytes)
{
    struct lane_envelope_read *e = container_of(r, struct lane_envelope_read, read);
    struct record_header h;
    struct record_message_view v;
    struct slice payload = read_payload(r->job, bytes, &h);
    uint8_t *copy;

    if (payload.len == 0 || !record_message_decode(payload, &v)) {
        read_damaged(r);
        return;
    }
    copy = arena_alloc_large(e->arena, v.envelope.len);
    if (copy)
        memcpy(copy, v.envelope.ptr, v.envelope.len);
    if (!copy || !envelope_decode(slice_of(copy, v.envelope.len), e->arena, &e->env)) {
        read_finish(r, -ENOMEM); /* what has a good CRC is an envelope */
        return;
    }
    r->done = envelope_done;
    r->job->words_arena = e->arena;
    words_fetch(r, r->msg->state_segment, r->msg->state_offset);
}

void lane_envelope_read(struct lane *l, struct queue_msg *m, struct lane_envelope_read *e,
                        struct arena *arena)
{
    struct lane_read *r = &e->read;

    e->arena = arena;
    e->damaged = false;
    r->done = envelope_failed;
    read_begin(l, m, m->qid, r);
    read_fetch(r, envelope_got, m->segment, m->offset, m->record_size);
}
