/*
 * queue/tx.c - taking a message: chunks become extents as they fill, the rest and the envelope
 * one MESSAGE record.
 *
 * Owns:     the chunk and extent list of each open transaction.
 * Runs on:  the shard that owns the lane.
 * Contract: `done` and `resumed` are never called from inside a lane_tx_* call. A body of any size
 *           needs one chunk of memory.
 * Failure:  451 4.3.0 when the lane cannot write, 452 4.3.1 when there is no room, 552 5.3.4 for
 *           an envelope that no record holds; what is on disk of it already means nothing without
 *           its MESSAGE record.
 * Bounds:   tx_count_max transactions; SPOOL_CHUNK_SIZE + SESSION_RECV_BUF_SIZE each, 8 bytes an
 *           extent.
 * Tests:    tests/unit/test_lane.c, test_lane_lend.c, test_lane_fault.c
 */
#include <assert.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

static void fill_why(struct why *why, uint16_t code)
{
    if (code == 452)
        why_set(why, 452, "4.3.1", "Insufficient system storage");
    else if (code == 552)
        why_set(why, 552, "5.3.4", "Message too big for the spool");
    else
        why_set(why, 451, "4.3.0", "Spool not available, try again later");
}

bool lane_has_room(struct lane *l, uint64_t size_hint, struct why *why)
{
    if (!l->is_open || l->closing || (!l->open && l->paused)) {
        fill_why(why, 451);
        return false;
    }
    if (l->full || lane_room(l, false) < size_hint) {
        fill_why(why, 452);
        return false;
    }
    return true;
}

bool lane_tx_begin(struct lane *l, struct lane_tx *tx, struct why *why)
{
    if (!l->is_open || l->closing || (!l->open && l->paused) || l->qid_next >= QID_SEQUENCE_MASK) {
        fill_why(why, 451);
        return false;
    }
    if ((l->full && !tx->internal) || l->tx_count >= l->p.tx_count_max ||
        l->index.count >= SPOOL_MESSAGES_MAX) {
        fill_why(why, 452);
        return false;
    }
    if (l->open && l->qid_next >= l->open->qid_limit &&
        (!commit_room(l, RECORD_HEADER_SIZE, true) || l->qid_next >= l->open->qid_limit)) {
        fill_why(why, 451); /* the numbers of this segment are used up, the next one is not ready */
        return false;
    }
    tx->qid = (uint64_t)l->p.lane << QID_SEQUENCE_BITS | l->qid_next++;
    tx->lane = l;
    tx->body_size = tx->position = tx->position_before = 0;
    tx->state = TX_OPEN;
    tx->chunk = NULL;
    tx->lent = slice_of(NULL, 0);
    tx->chunk_len = tx->extent_count = tx->extent_cap = tx->first_segment = 0;
    tx->extents = NULL;
    tx->msg = NULL;
    tx->final = NULL;
    tx->pending = NULL;
    tx->arrival = NULL;
    tx->fail_code = 0;
    list_init(&tx->link);
    l->tx_count++;
    return true;
}

static void drop_data(struct lane *l, struct lane_tx *tx)
{
    if (tx->first_segment) {
        struct segment *s = segments_find(&l->segments, tx->first_segment);
        assert(s && s->pins > 0);
        s->pins--;
        tx->first_segment = 0;
    }
    if (tx->chunk)
        slab_free(&l->chunk_slab, tx->chunk);
    tx->chunk = NULL;
    tx->chunk_len = 0;
    tx->lent = slice_of(NULL, 0);
    free(tx->extents);
    tx->extents = NULL;
    tx->extent_count = tx->extent_cap = 0;
    free(tx->pending);
    tx->pending = NULL;
}

/* ---- body ---- */

static bool reach_extent(struct lane_tx *tx)
{
    uint32_t cap = tx->extent_cap ? tx->extent_cap * 2 : 16;
    struct lane_extent *grown;

    if (tx->extent_count < tx->extent_cap)
        return true;
    grown = realloc(tx->extents, cap * sizeof *grown);
    if (!grown)
        return false;
    tx->extents = grown;
    tx->extent_cap = cap;
    return true;
}

/* Writes the first SPOOL_CHUNK_SIZE bytes of the chunk out. */
static enum lane_append flush_extent(struct lane *l, struct lane_tx *tx)
{
    struct record_extent e = {.body_offset = (uint64_t)tx->extent_count * SPOOL_CHUNK_SIZE,
                              .len = SPOOL_CHUNK_SIZE};
    uint8_t *at;

    if (!reach_extent(tx))
        return LANE_APPEND_FAILED;
    at = commit_room_extent(l, EXTENT_RECORD_BYTES, tx->internal);
    if (!at)
        return commit_is_hopeless(l) ? LANE_APPEND_FAILED : LANE_APPEND_WAIT;
    memcpy(at + RECORD_HEADER_SIZE, &e, sizeof e);
    memcpy(at + RECORD_HEADER_SIZE + sizeof e, tx->chunk, SPOOL_CHUNK_SIZE);
    tx->extents[tx->extent_count].segment = l->open->id;
    tx->extents[tx->extent_count].offset =
        commit_record(l, at, RECORD_EXTENT, tx->qid, (uint32_t)sizeof e + SPOOL_CHUNK_SIZE);
    if (tx->position != commit_number(l)) {
        tx->position_before = tx->position;
        tx->position = commit_number(l);
    }
    if (tx->extent_count++ == 0) {
        tx->first_segment = l->open->id;
        l->open->pins++;
    }
    list_remove(&tx->link);
    list_push_back(&l->extent_txs, &tx->link);
    tx->chunk_len -= SPOOL_CHUNK_SIZE;
    memmove(tx->chunk, tx->chunk + SPOOL_CHUNK_SIZE, tx->chunk_len);
    return LANE_APPEND_OK;
}

static void give_up(struct lane *l, struct lane_tx *tx)
{
    tx->fail_code = l->open ? 452 : 451;
    tx->state = TX_FAILED;
    list_remove(&tx->link);
    drop_data(l, tx);
}

void lane_tx_keep(struct lane_tx *tx)
{
    if (!tx->lent.len)
        return;
    memcpy(tx->chunk + tx->chunk_len, tx->lent.ptr, tx->lent.len);
    tx->chunk_len += (uint32_t)tx->lent.len;
    tx->lent = slice_of(NULL, 0);
}

enum lane_append lane_tx_lend(struct lane_tx *tx, struct slice data)
{
    if (tx->state != TX_OPEN || !tx->chunk || tx->lent.len ||
        tx->chunk_len + data.len > SPOOL_CHUNK_SIZE)
        return lane_tx_append(tx, data);
    tx->lent = data;
    tx->body_size += data.len;
    return LANE_APPEND_OK;
}

enum lane_append lane_tx_append(struct lane_tx *tx, struct slice data)
{
    struct lane *l = tx->lane;
    enum lane_append result;

    lane_tx_keep(tx);

    assert(data.len <= SESSION_RECV_BUF_SIZE);
    if (tx->state == TX_FAILED)
        return LANE_APPEND_FAILED;
    assert(tx->state == TX_OPEN);
    if (data.len == 0)
        return LANE_APPEND_OK;
    if (!tx->chunk) {
        tx->chunk = slab_alloc(&l->chunk_slab);
        if (!tx->chunk) {
            give_up(l, tx);
            return LANE_APPEND_FAILED;
        }
    }
    assert(tx->chunk_len <= SPOOL_CHUNK_SIZE);
    memcpy(tx->chunk + tx->chunk_len, data.ptr, data.len);
    tx->chunk_len += (uint32_t)data.len;
    tx->body_size += data.len;
    if (tx->chunk_len <= SPOOL_CHUNK_SIZE)
        return LANE_APPEND_OK;
    result = commit_awaited(l) ? LANE_APPEND_WAIT : flush_extent(l, tx);
    if (result == LANE_APPEND_WAIT) {
        tx->state = TX_WAIT_EXTENT;
        list_remove(&tx->link);
        list_push_back(&l->waiting_extents, &tx->link);
    } else if (result == LANE_APPEND_FAILED) {
        give_up(l, tx);
    }
    return result;
}

void lane_tx_abort(struct lane_tx *tx)
{
    assert(tx->state == TX_OPEN || tx->state == TX_WAIT_EXTENT || tx->state == TX_FAILED);
    list_remove(&tx->link);
    drop_data(tx->lane, tx);
    tx->state = TX_NONE;
    tx->lane->tx_count--;
    if (tx->lane->closing)
        lane_soon(tx->lane);
}

/* ---- commit ---- */

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
    drop_data(l, tx);
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

bool tx_retry(struct lane *l, struct lane_tx *tx)
{
    if (tx->state == TX_WAIT_COMMIT) {
        struct record_message head = tx->pending->head;
        if (write_message(l, tx, &head, NULL))
            return true;
        if (!commit_is_hopeless(l))
            return false;
        tx_fail(l, tx, l->open ? 452 : 451);
        return true;
    }
    assert(tx->state == TX_WAIT_EXTENT);
    switch (flush_extent(l, tx)) {
    case LANE_APPEND_WAIT: return false;
    case LANE_APPEND_OK: tx->state = TX_OPEN; break;
    case LANE_APPEND_FAILED: give_up(l, tx); break;
    }
    /* Not from here: tx_retry also runs inside lane_turn_end and lane_tx_* of others. */
    list_remove(&tx->link);
    list_push_back(&l->failing, &tx->link);
    lane_soon(l);
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

/* ---- failure ---- */

void tx_fail(struct lane *l, struct lane_tx *tx, uint16_t code)
{
    struct queue_msg *m = tx->msg;

    if (m && tx->state == TX_COMMITTED)
        segments_cover(&l->segments, m->first_segment, m->segment, -1, commit_quiet(l));
    if (m) {
        state_bits_free(m);
        slab_free(&l->msg_slab, m);
    }
    tx->msg = NULL;
    if (tx->final && tx->state == TX_COMMITTED)
        state_final_failed(l, tx->final);
    free(tx->final);
    tx->final = NULL;
    drop_data(l, tx);
    tx->state = TX_FAILING;
    tx->fail_code = code;
    list_remove(&tx->link);
    list_push_back(&l->failing, &tx->link);
    lane_soon(l);
}

static void fail_in_list(struct lane *l, struct list *head, uint64_t batch)
{
    struct list *link = head->next;

    while (link != head) {
        struct lane_tx *tx = container_of(link, struct lane_tx, link);
        bool waits = tx->state == TX_WAIT_EXTENT;
        link = link->next;
        if (!tx_has_bytes_in(tx, batch))
            continue;
        if (tx->state == TX_WAIT_COMMIT) {
            tx_fail(l, tx, 451);
            continue;
        }
        if (tx->state != TX_OPEN && !waits)
            continue;
        if (head == &l->failing)
            waits = true; /* it waits for its `resumed` */
        give_up(l, tx);
        tx->fail_code = 451;
        if (waits) {
            list_push_back(&l->failing, &tx->link);
            lane_soon(l);
        }
    }
}

void tx_fail_extents(struct lane *l, uint64_t batch)
{
    fail_in_list(l, &l->extent_txs, batch);
    fail_in_list(l, &l->waiting, batch);
    fail_in_list(l, &l->failing, batch);
}

void tx_report_failing(struct lane *l)
{
    struct list *link, last = {&last, &last};

    /* What is added meanwhile is told the next time. */
    list_push_back(&l->failing, &last);
    while ((link = list_pop_front(&l->failing)) != &last) {
        struct lane_tx *tx = container_of(link, struct lane_tx, link);
        struct why why;
        if (tx->state != TX_FAILING) {
            if (tx->state == TX_OPEN && tx->extent_count)
                list_push_back(&l->extent_txs, &tx->link);
            if (tx->resumed)
                tx->resumed(tx);
            continue;
        }
        fill_why(&why, tx->fail_code);
        tx->state = TX_NONE;
        l->tx_count--;
        tx->done(tx, NULL, &why);
    }
}

/* ---- slow uploads ---- */

/*
 * An open transaction keeps every segment from its first extent on, so one slow upload beside fast
 * traffic could fill the spool with dead segments. When less than a quarter of the lane is left,
 * the oldest one that keeps more than a quarter gives way: its client hears 452 and sends again.
 */
void tx_relieve(struct lane *l)
{
    uint64_t quarter = l->p.bytes_max ? l->p.bytes_max / 4 : SPOOL_PINNED_BYTES_MAX;
    struct lane_tx *oldest = NULL;
    uint32_t kept = 0;

    if (list_empty(&l->extent_txs) || !l->open || l->recovering || lane_room(l, false) >= quarter)
        return;
    for (struct list *p = l->extent_txs.next; p != &l->extent_txs; p = p->next) {
        struct lane_tx *tx = container_of(p, struct lane_tx, link);
        if (tx->first_segment && (!oldest || tx->first_segment < oldest->first_segment))
            oldest = tx;
    }
    for (uint32_t i = l->segments.count; oldest && i-- > 0;)
        kept += l->segments.items[i]->id >= oldest->first_segment;
    if (!oldest || kept < 3 || kept * l->p.segment_bytes <= quarter)
        return;
    give_up(l, oldest);
    oldest->fail_code = 452;
    l->stats.uploads_cut++;
    reap_kick(l);
}
