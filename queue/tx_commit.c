/*
 * queue/tx_commit.c - taking a message: its end, when envelope and the rest of the body become one
 * MESSAGE record.
 *
 * Owns:     nothing; the transaction is its owner's until `done`.
 * Runs on:  the shard that owns the lane.
 * Contract: everything that may run out is taken before the record is written. What is lent
 *           (lane_tx_lend) is copied into the commit buffer, or kept where there is no room yet.
 * Failure:  as tx.c; 552 5.3.4 for an envelope that no record holds.
 * Bounds:   one record of at most RECORD_BYTES_MAX.
 * Tests:    tests/unit/test_lane.c, test_lane_lend.c, test_lane_fault.c
 */
#include <assert.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

/* Everything that may run out is taken before anything is promised. 0, or the code to fail with. */
static uint16_t take_memory(struct lane *l, struct lane_tx *tx, const struct envelope *env)
{
    struct queue_msg *m;

    if (!schedule_reserve(&l->schedule, l->index.count + l->tx_count))
        return 452;
    m = slab_alloc(&l->msg_slab);
    if (!m)
        return 452;
    *m = (struct queue_msg){.qid = tx->qid,
                            .body_size = tx->body_size,
                            .accepted_wall_s = env->accepted_wall_ns / NS_PER_S,
                            .state = QUEUE_READY,
                            .rcpt_count = (uint16_t)env->rcpt_count,
                            .rcpt_pending = (uint16_t)env->rcpt_count};
    list_init(&m->segment_link);
    if (!state_bits_alloc(m)) {
        slab_free(&l->msg_slab, m);
        return 452;
    }
    if (tx->arrival) {
        m->state = QUEUE_PREPARED;
        m->attempts = tx->arrival->attempts;
        m->next_attempt_wall_s = tx->arrival->next_attempt_wall_s;
        m->warned = tx->arrival->warned;
        m->uncertain = tx->arrival->uncertain;
    }
    tx->msg = m;
    return 0;
}

static uint16_t take_final(struct lane_tx *tx, struct queue_msg *parent, const uint32_t *rcpts,
                           uint32_t count)
{
    if (!parent || count == 0)
        return 0;
    tx->final = malloc(sizeof *tx->final + count * sizeof *rcpts);
    if (!tx->final)
        return 452;
    tx->final->parent = parent;
    tx->final->count = count;
    memcpy(tx->final->rcpts, rcpts, count * sizeof *rcpts);
    return 0;
}

/* The part behind the fixed head: state blocks, extents, envelope, tail. */
static bool fill_message(struct lane *l, struct lane_tx *tx, uint8_t *payload,
                         const struct record_message *head, const struct envelope *env)
{
    uint8_t *p = payload + sizeof *head;
    struct buf out;

    memcpy(payload, head, sizeof *head);
    if (tx->final)
        p += state_block(l, p, tx->final->parent, tx->final, RCPT_FAILED);
    if (head->state_len)
        p += state_block(l, p, tx->msg, NULL, 0);
    if (tx->extent_count)
        memcpy(p, tx->extents, tx->extent_count * sizeof *tx->extents);
    p += tx->extent_count * sizeof *tx->extents;
    if (env) {
        out = buf_over(p, head->envelope_len);
        if (!envelope_encode(env, &out) || out.len != head->envelope_len)
            return false;
    } else {
        memcpy(p, tx->pending->envelope, head->envelope_len);
    }
    p += head->envelope_len;
    if (tx->chunk_len)
        memcpy(p, tx->chunk, tx->chunk_len);
    if (tx->lent.len)
        memcpy(p + tx->chunk_len, tx->lent.ptr, tx->lent.len);
    return true;
}

/* `env` NULL: from tx->pending. False: no room now. */
static bool write_message(struct lane *l, struct lane_tx *tx, struct record_message *head,
                          const struct envelope *env)
{
    struct queue_msg *m = tx->msg;
    uint32_t size;
    uint8_t *at;
    bool good;

    if (tx->final && tx->final->parent->flags & MSG_LOCKED)
        return false;
    head->final_len = tx->final ? state_block_size(tx->final->parent, tx->final) : 0;
    head->state_len = tx->arrival ? state_block_size(m, NULL) : 0;
    size = record_message_size(head);
    at = commit_room(l, record_round(RECORD_HEADER_SIZE + size), tx->internal);
    if (!at)
        return false;
    head->first_segment = tx->extent_count ? tx->first_segment : l->open->id;
    good = fill_message(l, tx, at + RECORD_HEADER_SIZE, head, env);
    assert(good);
    m->segment = l->open->id;
    m->offset = commit_record(l, at, tx->arrival ? RECORD_MOVED : RECORD_MESSAGE, tx->qid, size);
    m->record_size = record_round(RECORD_HEADER_SIZE + size);
    m->first_segment = head->first_segment;
    segments_cover(&l->segments, m->first_segment, m->segment, 1, 0);
    if (tx->final)
        tx->final->parent->flags |= MSG_LOCKED;
    size = tx->extent_count; /* whether it has any matters until it is durable */
    tx_drop_data(l, tx);
    tx->extent_count = size;
    tx->state = TX_COMMITTED;
    list_remove(&tx->link);
    list_push_back(&l->filling->waiters, &tx->link);
    l->filling->waiter_count++;
    return true;
}

static bool make_pending(struct lane_tx *tx, const struct record_message *head,
                         const struct envelope *env)
{
    struct buf out;

    tx->pending = malloc(sizeof *tx->pending + head->envelope_len);
    if (!tx->pending)
        return false;
    tx->pending->head = *head;
    tx->pending->envelope_len = head->envelope_len;
    out = buf_over(tx->pending->envelope, head->envelope_len);
    return envelope_encode(env, &out);
}

void lane_tx_commit(struct lane_tx *tx, const struct envelope *env, struct queue_msg *final_of,
                    const uint32_t *final_rcpts, uint32_t final_rcpt_count)
{
    struct lane *l = tx->lane;
    struct record_message head = {.body_size = tx->body_size,
                                  .accepted_wall_s = env->accepted_wall_ns / NS_PER_S,
                                  .rcpt_count = env->rcpt_count,
                                  .envelope_len = (uint32_t)envelope_encoded_size(env),
                                  .extent_count = tx->extent_count,
                                  .chunk = SPOOL_CHUNK_SIZE,
                                  .tail_len = tx->chunk_len + (uint32_t)tx->lent.len};
    uint16_t code = tx->state == TX_FAILED ? tx->fail_code : 0;

    assert(env->rcpt_count > 0 && env->rcpt_count <= RCPT_COUNT_LIMIT);
    assert(tx->state == TX_OPEN || tx->state == TX_WAIT_EXTENT || tx->state == TX_FAILED);
    list_remove(&tx->link);
    if (!code &&
        record_message_size(&head) + (uint64_t)FINAL_WORDS_MAX * 8 + 4096 > RECORD_BYTES_MAX)
        code = 552;
    if (!code && record_message_size(&head) == 0)
        code = 552;
    if (!code)
        code = take_memory(l, tx, env);
    if (!code)
        code = take_final(tx, final_of, final_rcpts, final_rcpt_count);
    if (!code && list_empty(&l->waiting) && write_message(l, tx, &head, env))
        return;
    if (!code && commit_is_hopeless(l))
        code = l->open ? 452 : 451;
    lane_tx_keep(tx);
    if (!code && !make_pending(tx, &head, env))
        code = 452;
    if (code) {
        tx_fail(l, tx, code);
        return;
    }
    tx->state = TX_WAIT_COMMIT;
    list_push_back(&l->waiting, &tx->link);
}

bool tx_commit_retry(struct lane *l, struct lane_tx *tx)
{
    struct record_message head = tx->pending->head;

    if (write_message(l, tx, &head, NULL))
        return true;
    if (!commit_is_hopeless(l))
        return false;
    tx_fail(l, tx, l->open ? 452 : 451);
    return true;
}

void tx_durable(struct lane *l, struct lane_tx *tx)
{
    struct queue_msg *m = tx->msg;
    struct why why;

    why_clear(&why);
    lane_msg_live(l, m);
    if (tx->arrival) { /* its record has its state */
        m->state_segment = m->segment;
        m->state_offset = m->offset;
        segments_state_moved(&l->segments, 0, m->segment, commit_quiet(l));
    }
    l->stats.body_bytes += m->body_size;
    if (tx->final)
        state_final_applied(l, tx->final, m);
    free(tx->final);
    tx->final = NULL;
    tx->msg = NULL;
    tx->state = TX_NONE;
    l->tx_count--;
    tx->done(tx, m, &why);
    if (!(m->flags & MSG_DOOMED) && m->state == QUEUE_READY && !m->owner && !m->schedule_index) {
        m->next_attempt_wall_s = lane_wall_s(l);
        schedule_set(&l->schedule, m);
        lane_due_arm(l);
    }
}
