/*
 * queue/tx.c - taking a message: its body, of which chunks become extents as they fill, and its
 * failure.
 *
 * Owns:     the chunk and extent list of each open transaction.
 * Runs on:  the shard that owns the lane.
 * Contract: `done` and `resumed` are never called from inside a lane_tx_* call. A body of any size
 *           needs one chunk of memory.
 * Failure:  451 4.3.0 when the lane cannot write, 452 4.3.1 when there is no room; what is on disk
 *           of it already means nothing without its MESSAGE record (tx_commit.c).
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

void tx_drop_data(struct lane *l, struct lane_tx *tx)
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
    tx_drop_data(l, tx);
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
    tx_drop_data(tx->lane, tx);
    tx->state = TX_NONE;
    tx->lane->tx_count--;
    if (tx->lane->closing)
        lane_soon(tx->lane);
}

bool tx_retry(struct lane *l, struct lane_tx *tx)
{
    if (tx->state == TX_WAIT_COMMIT)
        return tx_commit_retry(l, tx);
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
    tx_drop_data(l, tx);
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
