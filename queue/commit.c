/*
 * queue/commit.c - group commit: many appended records, one durable write.
 *
 * Owns:     the commit buffers, the tail of the open segment, the waiters of each batch.
 * Runs on:  the shard that owns the lane, never another.
 * Contract: a waiter hears OK only after the sync that covers it returned 0; batches reach a
 *           segment one at a time, in order. With nobody writing, a batch somebody waits for is
 *           written at the end of the turn. Buffers with nothing but parts of bodies are written
 *           without a sync, and are of one batch with what follows.
 * Failure:  write or sync error: the segment is left as it stands (commit_fail.c). A sync is never
 *           retried on the same segment.
 * Bounds:   COMMIT_BATCHES buffers of COMMIT_BUF_SIZE, COMMIT_WAITERS_MAX waiters a batch,
 *           COMMIT_STATE_NS of delay, COMMIT_UNSYNCED_MAX bytes without a sync.
 * Tests:    tests/unit/test_lane.c; format: queue/FORMAT.md section 4
 */
#include <assert.h>
#include <errno.h>

#include "gateway/base/plant.h"
#include "queue/lane_internal.h"

#define ENTRY_BYTES_MAX 8192u /* more than any summary entry */
#define FETCH_AHEAD_MAX 8192u
#define CACHE_LINE      64u

_Static_assert(RECORD_BYTES_MAX + COMMIT_RESERVE < COMMIT_BUF_SIZE, "a batch holds any record");

uint64_t commit_number(const struct lane *l)
{
    return l->filling->number;
}

bool commit_has_begun(const struct lane *l)
{
    return l->filling->len || l->unsynced;
}

uint64_t commit_quiet(const struct lane *l)
{
    if (l->stash_count)
        return UINT64_MAX;
    if (commit_has_begun(l))
        return l->filling->number;
    return l->writing ? l->writing->number : l->batch_durable;
}

bool commit_idle(const struct lane *l)
{
    return !l->writing && !commit_has_begun(l);
}

struct slice commit_recent(const struct lane *l, uint32_t segment, uint32_t offset, uint32_t len)
{
    for (uint32_t i = 0; i < COMMIT_BATCHES; i++) {
        const struct batch *b = &l->batch[i];
        bool here = b->kept == segment ||
                    ((b == l->filling || b == l->writing) && b->len && b->segment->id == segment);
        if (here && offset >= b->base && offset - b->base < b->len) {
            uint32_t left = b->len - (offset - b->base);
            return slice_of(b->data + (offset - b->base), len < left ? len : left);
        }
    }
    return slice_of(NULL, 0);
}

static void buffer_begin(struct lane *l, struct batch *b, uint64_t number)
{
    assert(list_empty(&b->waiters));
    b->len = b->extent_bytes = 0;
    b->segment = NULL;
    b->waiter_count = 0;
    b->closed = b->urgent = b->part = false;
    b->kept = 0;
    b->number = number;
    l->filling = b;
}

void commit_batch_begin(struct lane *l, struct batch *b)
{
    l->unsynced = 0;
    buffer_begin(l, b, l->batch_next++);
}

bool commit_awaited(const struct lane *l)
{
    return !list_empty(&l->waiting) || !list_empty(&l->waiting_extents);
}

/* ---- filling ---- */

static bool segment_fits(const struct lane *l, uint32_t len, bool state)
{
    const struct segment *s = l->open;
    uint32_t entry = len < ENTRY_BYTES_MAX ? len : ENTRY_BYTES_MAX;
    uint64_t end = (uint64_t)s->tail + len + summary_bytes(l->open_summary, entry) +
                   2 * SEGMENT_BLOCK + SEGMENT_BLOCK; /* filling of a direct write, footer */

    if (!state && commit_is_hopeless(l))
        end += lane_reserve(l);
    return end <= s->bytes && l->qid_next <= s->qid_limit;
}

/* The next segment becomes the open one. The batch that fills must be empty. */
static void switch_segment(struct lane *l, struct summary *summary)
{
    struct segment *old = l->open;
    struct summary *old_summary = l->open_summary;

    assert(l->spare && l->filling->len == 0 && !summary->busy && !l->fill.running);
    l->open = l->spare;
    l->spare = NULL;
    l->open->state = SEGMENT_OPEN;
    l->open_summary = summary;
    summary_begin(summary);
    prepare_kick(l);
    if (!old)
        return;
    old->state = SEGMENT_CLOSING;
    old_summary->busy = true;
    if (!l->writing || l->writing->segment != old)
        seal_start(l, old, old_summary);
}

/* False: not now. */
static bool roll(struct lane *l)
{
    struct summary *other = &l->summary[l->open_summary == &l->summary[0]];

    if (!l->spare) {
        prepare_kick(l);
        return false;
    }
    if (other->busy || l->fill.running)
        return false;
    if (commit_has_begun(l)) {
        l->filling->closed = true;
        if (l->writing)
            return false;
        commit_kick(l);
    }
    switch_segment(l, other);
    return true;
}

void commit_roll_early(struct lane *l)
{
    if (l->filling->len == 0 && fill_wants_roll(l))
        (void)roll(l);
}

uint8_t *commit_room(struct lane *l, uint32_t len, bool state)
{
    struct batch *b;

    if (!l->open)
        return NULL;
    if (!segment_fits(l, len, state) && (!roll(l) || !segment_fits(l, len, state)))
        return NULL;
    b = l->filling;
    if (b->closed || b->len + len + (state ? 0 : COMMIT_RESERVE) > COMMIT_BUF_SIZE ||
        b->waiter_count >= COMMIT_WAITERS_MAX) {
        if (l->writing)
            return NULL;
        b->closed = true;
        commit_kick(l);
        b = l->filling;
    }
    if (b->len == 0) {
        b->segment = l->open;
        b->base = l->open->tail;
    }
    assert(b->segment == l->open && b->base + b->len == l->open->tail);
    return b->data + b->len;
}

/* A sync that many messages share is worth more bytes; where a write has none, it may be short. */
static uint32_t extent_max(const struct lane *l)
{
    if (l->p.mode == LANE_WRITE_DIRECT && l->filling->waiter_count < COMMIT_SHARED_MIN)
        return COMMIT_PART_BYTES;
    return l->pace.extent_max;
}

uint8_t *commit_room_extent(struct lane *l, uint32_t len, bool state)
{
    uint8_t *at;

    if (l->filling->extent_bytes >= extent_max(l)) {
        if (l->writing)
            return NULL;
        commit_kick(l);
    }
    at = commit_room(l, len, state);
    if (at)
        l->filling->extent_bytes += len;
    return at;
}

/*
 * The next record is often as long as this one, and what it is written to left the cache with the
 * commit before: fetched now, it is there when its bytes come.
 */
static void fetch_ahead(const struct batch *b, uint32_t len)
{
    uint32_t end = b->len + (len < FETCH_AHEAD_MAX ? len : FETCH_AHEAD_MAX);

    for (uint32_t i = b->len; i < end && i < COMMIT_BUF_SIZE; i += CACHE_LINE)
        __builtin_prefetch(b->data + i, 1, 2);
}

uint32_t commit_record(struct lane *l, uint8_t *at, uint8_t type, uint64_t qid,
                       uint32_t payload_len)
{
    struct batch *b = l->filling;
    struct segment *s = b->segment;
    struct record_header h = {.type = type, .batch = (uint16_t)b->number, .qid = qid};
    uint32_t offset = b->base + b->len;
    struct record_digest digest;
    bool good;

    assert(at == b->data + b->len && s == l->open);
    h.sequence = (uint64_t)s->id << 32 | s->record_index++;
    record_seal(at, payload_len, &h, s->seed, offset);
    memcpy(&h, at, sizeof h);
    good = record_digest_of(&h, slice_of(at + RECORD_HEADER_SIZE, h.length - RECORD_HEADER_SIZE),
                            offset, &digest);
    assert(good);
    summary_add(l->open_summary, &digest);
    b->len += h.length;
    s->tail += h.length;
    l->stats.appended_bytes += h.length;
    fetch_ahead(b, h.length);
    return offset;
}

bool commit_is_hopeless(const struct lane *l)
{
    if (!l->open)
        return l->paused || (l->closing && !l->spare && !l->prepare.segment);
    return !l->spare && !l->prepare.segment && !l->stock_count && !l->reap.running &&
           !lane_may_grow((struct lane *)l);
}

/* After failures, or at the first start: the prepared segment is opened, and tried at once. */
void commit_open_segment(struct lane *l)
{
    static const char trial[] = "trial after a failed write";
    uint8_t *at;

    if (l->open || l->paused)
        return;
    if (!l->spare) {
        prepare_kick(l);
        return;
    }
    if (l->fill.running) /* its end brings us back */
        return;
    l->open = NULL;
    switch_segment(l, l->summary[0].busy ? &l->summary[1] : &l->summary[0]);
    if (l->failed_in_row) {
        at = commit_room(l, record_round(RECORD_HEADER_SIZE + sizeof trial), true);
        assert(at);
        memcpy(at + RECORD_HEADER_SIZE, trial, sizeof trial);
        commit_record(l, at, RECORD_NOTE, 0, sizeof trial);
        l->filling->urgent = true;
    }
    commit_progress(l);
    commit_kick(l);
}

/* ---- writing ---- */

static void pad_direct(struct lane *l)
{
    struct batch *b = l->filling;
    uint32_t over = (b->base + b->len) % SEGMENT_BLOCK;
    uint32_t len = over ? SEGMENT_BLOCK - over : 0;

    if (len == 0)
        return;
    if (len < RECORD_HEADER_SIZE)
        len += SEGMENT_BLOCK;
    memset(b->data + b->len, 0, len);
    commit_record(l, b->data + b->len, RECORD_PAD, 0, len - RECORD_HEADER_SIZE);
}

static void commit_done(struct io_op *op, int32_t res, uint32_t flags);

/* Nothing in it but parts of bodies, for which nobody waits: the sync of what follows covers it. */
static bool is_part(const struct lane *l, const struct batch *b)
{
    return l->p.mode == LANE_WRITE_DIRECT && b->len > 0 && b->len == b->extent_bytes &&
           !b->urgent && !b->closed && !l->closing && l->unsynced + b->len <= COMMIT_UNSYNCED_MAX;
}

static void start_part(struct lane *l, struct batch *b)
{
    b->part = true;
    l->unsynced += b->len;
    buffer_begin(l, &l->batch[(size_t)(b - l->batch + 1) % COMMIT_BATCHES], b->number);
    io_write(l->io, &l->commit_op, b->segment->write_fd, b->data, b->len, b->base);
}

static void start_rest(struct lane *l, struct batch *b)
{
    io_timer_clear(l->io, &l->state_timer);
    commit_batch_begin(l, &l->batch[(size_t)(b - l->batch + 1) % COMMIT_BATCHES]);
    if (b->len == 0)
        io_sync(l->io, &l->commit_op, b->segment->write_fd);
    else if (PLANT(ANSWER_BEFORE_SYNC))
        io_write(l->io, &l->commit_op, b->segment->write_fd, b->data, b->len, b->base);
    else
        io_write_sync(l->io, &l->commit_op, b->segment->write_fd, b->data, b->len, b->base);
}

static void commit_start(struct lane *l)
{
    struct batch *b = l->filling;
    bool part = is_part(l, b);

    assert(!l->writing && commit_has_begun(l));
    if (b->len == 0) {
        b->segment = l->open;
        b->base = l->open->tail;
    }
    assert(b->segment->state == SEGMENT_OPEN);
    if (l->p.mode == LANE_WRITE_DIRECT)
        pad_direct(l);
    l->writing = b;
    l->commit_started_ns = io_now_ns(l->io);
    l->commit_op.done = commit_done;
    if (part)
        start_part(l, b);
    else
        start_rest(l, b);
}

void commit_kick(struct lane *l)
{
    struct batch *b = l->filling;

    if (l->writing || !commit_has_begun(l))
        return;
    if (b->waiter_count || b->urgent || b->closed || l->closing || b->len >= l->p.early_bytes ||
        (b->len && commit_awaited(l)))
        commit_start(l);
    else if (!timer_is_set(&l->state_timer))
        io_timer_set(l->io, &l->state_timer, io_now_ns(l->io) + COMMIT_STATE_NS);
}

void commit_state_timer(struct timer *t)
{
    struct lane *l = container_of(t, struct lane, state_timer);

    l->filling->urgent = true;
    commit_kick(l);
}

/* ---- the end of a write ---- */

void commit_progress(struct lane *l)
{
    if (l->stash_count && !state_unstash(l) && l->open)
        return;
    while (commit_awaited(l)) {
        struct list *first = list_empty(&l->waiting) ? &l->waiting_extents : &l->waiting;
        if (!tx_retry(l, container_of(first->next, struct lane_tx, link)))
            break;
    }
}

/* A callback may start the next commit, which takes this batch again: so the waiters leave it
 * first. */
static void take_waiters(struct batch *b, struct list *out)
{
    list_init(out);
    if (list_empty(&b->waiters))
        return;
    *out = b->waiters;
    out->next->prev = out->prev->next = out;
    list_init(&b->waiters);
}

static void batch_succeeded(struct lane *l, struct batch *b)
{
    struct segment *s = b->segment;
    struct list ready, *link;

    l->batch_durable = b->number;
    l->failed_in_row = 0;
    if (l->stats.commit_waiters_max < b->waiter_count)
        l->stats.commit_waiters_max = b->waiter_count;
    if (s != l->open) {
        assert(s->state == SEGMENT_CLOSING);
        seal_start(l, s, &l->summary[l->open_summary == &l->summary[0]]);
    }
    compact_batch(l, b->number, true);
    take_waiters(b, &ready);
    while ((link = list_pop_front(&ready)) != NULL)
        tx_durable(l, container_of(link, struct lane_tx, link));
}

static void buffer_written(struct lane *l, struct batch *b)
{
    struct segment *s = b->segment;

    if (b->len)
        pace_commit(&l->pace, b->len, b->extent_bytes, io_now_ns(l->io) - l->commit_started_ns);
    b->kept = s->id;
    if (s->written < (uint64_t)b->base + b->len)
        s->written = (uint64_t)b->base + b->len;
}

static void commit_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct lane *l = container_of(op, struct lane, commit_op);
    struct batch *b = l->writing;

    (void)flags;
    if (PLANT(RETRY_SYNC) && res == -EIO) {
        io_sync(l->io, op, b->segment->write_fd);
        return;
    }
    if ((PLANT(RETRY_SYNC) && res == 0) || (PLANT(SHORT_WRITE) && res == -EIO))
        res = (int32_t)b->len;
    l->writing = NULL;
    if (res == (int32_t)b->len)
        buffer_written(l, b);
    if (!b->part) {
        l->stats.commits++;
        l->stats.syncs++;
        l->stats.sync_ns_total += io_now_ns(l->io) - l->commit_started_ns;
    }
    if (res != (int32_t)b->len)
        commit_failed(l, b, res);
    else if (!b->part)
        batch_succeeded(l, b);
    lane_health_update(l);
    commit_progress(l);
    lane_soon(l);
}
