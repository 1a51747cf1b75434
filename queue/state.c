/*
 * queue/state.c - what becomes of a message: recipients final, deferred, held; each a whole
 * snapshot in one record.
 *
 * Owns:     final bits, the stash of records that found no room, messages that are over but still
 *           owned.
 * Runs on:  the shard that owns the lane.
 * Contract: the index changes at once, the record follows with the next commit. A message that is
 *           over leaves the index at once and memory when nobody owns it. While a DSN that ends
 *           recipients of a message waits for its commit, no other state record of that message is
 *           written.
 * Failure:  none to the caller: what cannot be written now is kept by queue id and written from
 *           the index later.
 * Bounds:   one stash entry a change without room; error texts of ERROR_BYTES_MAX.
 * Tests:    tests/unit/test_lane.c
 */
#include <assert.h>
#include <stdlib.h>

#include "gateway/base/plant.h"
#include "queue/lane_internal.h"

static uint32_t words_of(const struct queue_msg *m)
{
    return (m->rcpt_count + 63u) / 64u;
}

bool state_bits_alloc(struct queue_msg *m)
{
    if (m->rcpt_count <= 64)
        return true;
    m->rcpt_final = calloc(words_of(m), sizeof *m->rcpt_final);
    return m->rcpt_final != NULL;
}

void state_bits_free(struct queue_msg *m)
{
    if (m->rcpt_count > 64)
        free(m->rcpt_final);
}

bool state_mark_final(struct queue_msg *m, uint32_t rcpt)
{
    uint64_t *bits = m->rcpt_count > 64 ? m->rcpt_final : &m->rcpt_final_bits;

    assert(rcpt < m->rcpt_count);
    if (queue_msg_rcpt_is_final(m, rcpt))
        return false;
    bits[rcpt / 64] |= 1ull << (rcpt % 64);
    assert(m->rcpt_pending > 0);
    m->rcpt_pending--;
    return true;
}

/* ---- blocks ---- */

static uint32_t pending_with(const struct queue_msg *m, const struct lane_final *f)
{
    uint32_t pending = m->rcpt_pending;

    for (uint32_t i = 0; f && i < f->count; i++)
        if (!queue_msg_rcpt_is_final(m, f->rcpts[i]))
            pending--;
    return pending;
}

uint32_t state_block_size(const struct queue_msg *m, const struct lane_final *f)
{
    struct record_state s = {.final_words = (uint16_t)(pending_with(m, f) ? words_of(m) : 0)};

    return record_state_size(&s);
}

static uint8_t attempt_bits(const struct queue_msg *m)
{
    uint8_t bits = m->attempt == ATTEMPT_NONE ? 0 : RECORD_ATTEMPT_OPEN;

    return m->attempt == ATTEMPT_DOT || m->uncertain ? bits | RECORD_ATTEMPT_DOT : bits;
}

static uint32_t encode_block(struct lane *l, uint8_t *out, const struct queue_msg *m,
                             const struct lane_final *f, uint8_t how, struct slice error)
{
    uint64_t bits[FINAL_WORDS_MAX];
    bool gone = pending_with(m, f) == 0;
    struct record_state s = {.qid = m->qid,
                             .next_attempt_wall_s = m->next_attempt_wall_s,
                             .wall_s = io_wall_ns(l->io) / NS_PER_S,
                             .rcpt_count = m->rcpt_count,
                             .final_words = (uint16_t)(gone ? 0 : words_of(m)),
                             .error_len = (uint16_t)error.len,
                             .attempts = m->attempts,
                             .state = m->state,
                             .warned = m->warned,
                             .attempt = attempt_bits(m),
                             .crashes = m->crashes,
                             .how = how,
                             .gone = gone};

    if (error.len == 0) {
        s.error_segment = m->state_segment;
        s.error_offset = m->state_offset;
    }
    memcpy(bits, queue_msg_bits(m), words_of(m) * 8u);
    for (uint32_t i = 0; f && i < f->count; i++)
        bits[f->rcpts[i] / 64] |= 1ull << (f->rcpts[i] % 64);
    return record_state_encode(out, &s, bits, error);
}

uint32_t state_block(struct lane *l, uint8_t *out, const struct queue_msg *m,
                     const struct lane_final *f, uint8_t how)
{
    return encode_block(l, out, m, f, how, slice_of(NULL, 0));
}

/* ---- appending ---- */

/* False: no room. */
static bool write_state(struct lane *l, struct queue_msg *m, uint8_t type, uint8_t how,
                        struct slice error)
{
    uint32_t size = state_block_size(m, NULL) + record_round8((uint32_t)error.len);
    uint8_t *at = commit_room(l, record_round(RECORD_HEADER_SIZE + size), true);
    uint32_t offset;

    if (!at)
        return false;
    encode_block(l, at + RECORD_HEADER_SIZE, m, NULL, how, error);
    offset = commit_record(l, at, type, m->qid, size);
    if (m->rcpt_pending == 0) {
        segment_depend(&l->segments, l->open, m->segment);
    } else {
        segments_state_moved(&l->segments, m->state_segment, l->open->id, commit_quiet(l));
        m->state_segment = l->open->id;
        m->state_offset = offset;
    }
    return true;
}

bool state_again(struct lane *l, struct queue_msg *m, struct slice error)
{
    assert(m->rcpt_pending > 0 && !(m->flags & (MSG_DOOMED | MSG_LOCKED)));
    return write_state(l, m, RECORD_STATE, 0, error);
}

/* Its record waits for the DSN's commit; who waits for the record waits as long. */
static void mark_dirty(struct lane *l, struct queue_msg *m)
{
    l->dirty_count += !(m->flags & MSG_DIRTY);
    m->flags |= MSG_DIRTY;
}

/* True when there is a record to be written now. */
static bool unlock(struct lane *l, struct queue_msg *m)
{
    bool dirty = m->flags & MSG_DIRTY;

    assert(l->dirty_count >= dirty);
    l->dirty_count -= dirty;
    m->flags &= (uint8_t) ~(MSG_LOCKED | MSG_DIRTY);
    return dirty;
}

void state_append(struct lane *l, struct queue_msg *m, uint8_t type, uint8_t how,
                  struct slice error)
{
    bool gone = m->rcpt_pending == 0;

    assert(!(m->flags & MSG_DOOMED));
    if (!gone && m->flags & MSG_LOCKED) {
        mark_dirty(l, m);
        return;
    }
    if (!(PLANT(REMOVED_IN_MEMORY) && how == RCPT_REMOVED) && !write_state(l, m, type, how, error))
        state_stash(l, m->qid, gone, m->segment);
    if (gone)
        state_over(l, m);
}

void state_over(struct lane *l, struct queue_msg *m)
{
    schedule_clear(&l->schedule, m);
    index_remove(&l->index, m);
    l->stats.messages--;
    l->stats.bytes -= m->body_size;
    l->stats.by_state[m->state]--;
    m->flags |= MSG_DOOMED;
    walk_unlink(l, m);
    list_push_back(&l->doomed, &m->segment_link);
}

void state_free_doomed(struct lane *l)
{
    struct list *link = l->doomed.next;

    while (link != &l->doomed) {
        struct queue_msg *m = container_of(link, struct queue_msg, segment_link);
        link = link->next;
        if (!m->owner && !(m->flags & MSG_LOCKED))
            lane_msg_free(l, m);
    }
}

void lane_rcpts_final(struct lane *l, struct queue_msg *m, const uint32_t *rcpts, uint32_t count,
                      enum rcpt_final_how how)
{
    uint32_t fresh = 0;

    if (m->flags & MSG_DOOMED)
        return;
    for (uint32_t i = 0; i < count; i++)
        fresh += state_mark_final(m, rcpts[i]);
    if (fresh)
        state_append(l, m, RECORD_RCPT_FINAL, (uint8_t)how, slice_of(NULL, 0));
}

/* The attempt ended in an orderly way, or the operator had a look. */
static void attempt_over(struct queue_msg *m)
{
    m->attempt = ATTEMPT_NONE;
    m->crashes = 0;
    m->uncertain = m->careful = 0;
}

void lane_attempt(struct lane *l, struct queue_msg *m, enum queue_attempt step)
{
    assert(step != ATTEMPT_NONE);
    if (m->flags & MSG_DOOMED || m->attempt >= step)
        return;
    m->attempt = step;
    m->uncertain = 0;
    state_append(l, m, RECORD_ATTEMPT, 0, slice_of(NULL, 0));
}

static void change_state(struct lane *l, struct queue_msg *m, enum queue_state state)
{
    attempt_over(m);
    l->stats.by_state[m->state]--;
    l->stats.by_state[state]++;
    m->state = state;
}

static void defer(struct lane *l, struct queue_msg *m, enum queue_state state, uint64_t wall_s,
                  bool counted, struct slice error)
{
    if (m->flags & MSG_DOOMED)
        return;
    change_state(l, m, state);
    m->next_attempt_wall_s = wall_s;
    if (counted && m->attempts < UINT16_MAX)
        m->attempts++;
    if (PLANT(LOSE_RCPT) && m->rcpt_pending > 1)
        state_mark_final(m, m->rcpt_count - 1u);
    schedule_set(&l->schedule, m);
    lane_due_arm(l);
    state_append(l, m, RECORD_DEFER, 0, slice_head(error, ERROR_BYTES_MAX));
}

void lane_defer(struct lane *l, struct queue_msg *m, uint64_t wall_s, bool counted,
                struct slice error)
{
    defer(l, m, QUEUE_DEFERRED, wall_s, counted, error);
}

void lane_defer_unreachable(struct lane *l, struct queue_msg *m, uint64_t wall_s,
                            struct slice error)
{
    defer(l, m, QUEUE_UNREACHABLE, wall_s, true, error);
}

void lane_set_state(struct lane *l, struct queue_msg *m, enum queue_state state)
{
    lane_set_aside(l, m, state, slice_of(NULL, 0));
}

void lane_set_aside(struct lane *l, struct queue_msg *m, enum queue_state state, struct slice error)
{
    if (m->flags & MSG_DOOMED)
        return;
    change_state(l, m, state);
    if (state == QUEUE_READY) {
        m->next_attempt_wall_s = lane_wall_s(l);
        schedule_set(&l->schedule, m);
        lane_due_arm(l);
    } else {
        schedule_clear(&l->schedule, m);
    }
    state_append(l, m, RECORD_STATE, 0, slice_head(error, ERROR_BYTES_MAX));
}

void lane_give(struct lane *l, struct queue_msg *m, uint64_t to, struct slice words)
{
    m->next_attempt_wall_s = to;
    lane_set_aside(l, m, QUEUE_GIVEN, words);
}

void lane_prepared_taken(struct lane *l, struct queue_msg *m, enum queue_state state)
{
    bool uncertain = m->uncertain;

    if (m->flags & MSG_DOOMED)
        return;
    assert(m->state == QUEUE_PREPARED);
    change_state(l, m, state);
    m->uncertain = uncertain;
    state_append(l, m, RECORD_STATE, 0, slice_of(NULL, 0));
}

void lane_prepared_go(struct lane *l, uint64_t qid)
{
    struct queue_msg *m = index_find(&l->index, qid);

    bool rests = !m || queue_state_rests((enum queue_state)m->state);

    if (rests || m->owner || m->schedule_index)
        return;
    schedule_set(&l->schedule, m);
    lane_due_arm(l);
}

/* ---- a DSN and what it reports ---- */

void state_final_applied(struct lane *l, struct lane_final *f, const struct queue_msg *dsn)
{
    struct queue_msg *m = f->parent;
    bool dirty = unlock(l, m);

    if (m->flags & MSG_DOOMED)
        return;
    for (uint32_t i = 0; i < f->count; i++)
        state_mark_final(m, f->rcpts[i]);
    if (dirty) {
        state_append(l, m, RECORD_RCPT_FINAL, RCPT_FAILED, slice_of(NULL, 0));
    } else if (m->rcpt_pending == 0) {
        struct segment *s = segments_find(&l->segments, dsn->segment);
        segment_depend(&l->segments, s, m->segment);
        state_over(l, m);
    } else {
        segments_state_moved(&l->segments, m->state_segment, dsn->segment, commit_quiet(l));
        m->state_segment = dsn->segment;
        m->state_offset = dsn->offset;
    }
}

void state_final_failed(struct lane *l, struct lane_final *f)
{
    struct queue_msg *m = f->parent;

    /* Its block may be on disk: the truth is written behind it. */
    (void)unlock(l, m);
    if (!(m->flags & MSG_DOOMED))
        state_stash(l, m->qid, false, 0);
}

/* ---- stash ---- */

void state_stash(struct lane *l, uint64_t qid, bool gone, uint32_t segment)
{
    if (PLANT(FORGET_STASH))
        return;
    if (l->stash_count == l->stash_cap) {
        uint32_t cap = l->stash_cap ? l->stash_cap * 2 : 256;
        struct stashed *grown = realloc(l->stash, cap * sizeof *grown);
        assert(grown); /* a tombstone must not be forgotten */
        l->stash = grown;
        l->stash_cap = cap;
    }
    l->stash[l->stash_count++] = (struct stashed){.qid = qid, .segment = segment, .gone = gone};
}

static bool write_tombstone(struct lane *l, const struct stashed *e)
{
    struct record_state s = {.qid = e->qid, .gone = 1, .wall_s = io_wall_ns(l->io) / NS_PER_S};
    uint8_t *at = commit_room(l, record_round(RECORD_HEADER_SIZE + sizeof s), true);
    struct segment *from = segments_find(&l->segments, e->segment);

    if (!at)
        return false;
    record_state_encode(at + RECORD_HEADER_SIZE, &s, NULL, slice_of(NULL, 0));
    commit_record(l, at, RECORD_RCPT_FINAL, e->qid, sizeof s);
    segment_depend(&l->segments, l->open, e->segment);
    if (from && from->state == SEGMENT_FAILED)
        segment_depend_like(&l->segments, l->open, from);
    return true;
}

static bool write_stashed(struct lane *l, const struct stashed *e)
{
    struct queue_msg *m;

    if (e->gone)
        return write_tombstone(l, e);
    m = index_find(&l->index, e->qid);
    if (!m)
        return true;
    if (m->flags & MSG_LOCKED) {
        mark_dirty(l, m);
        return true;
    }
    return write_state(l, m, RECORD_STATE, 0, slice_of(NULL, 0));
}

bool state_unstash(struct lane *l)
{
    uint32_t done = 0;

    while (done < l->stash_count && write_stashed(l, &l->stash[done]))
        done++;
    l->stash_count -= done;
    if (l->stash_count)
        memmove(l->stash, l->stash + done, l->stash_count * sizeof *l->stash);
    if (l->stash_count == 0)
        segments_requiet(&l->segments, UINT64_MAX, commit_quiet(l));
    return l->stash_count == 0;
}
