/*
 * queue/lane.c - one lane: opening, closing, the schedule's timer, and looking at what is there.
 *
 * Owns:     struct lane and all its parts.
 * Runs on:  the shard that owns the lane.
 * Contract: `opened` once, then mail is accepted; `recovered` once; callbacks never run inside a
 *           call of the owner, only from io_turn or lane_turn_end.
 * Failure:  a lane that cannot be made tells why through `opened`; it is still to be closed.
 * Bounds:   DUE_PER_TURN_MAX due messages a turn; SPOOL_MESSAGES_MAX messages.
 * Tests:    tests/unit/test_lane.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "queue/lane_internal.h"

void lane_path(const struct lane *l, uint32_t segment, const char *suffix, char out[LANE_PATH_MAX])
{
    int n = snprintf(out, LANE_PATH_MAX, "%s/%08x.%s", l->dir, segment, suffix);

    assert(n > 0 && n < (int)LANE_PATH_MAX);
}

uint32_t lane_number(const struct lane *l)
{
    return l->p.lane;
}

enum lane_health lane_health(const struct lane *l)
{
    return l->health;
}

/* ---- messages and their times ---- */

void lane_msg_live(struct lane *l, struct queue_msg *m)
{
    index_insert(&l->index, m);
    segments_own(&l->segments, m);
    l->stats.messages++;
    l->stats.bytes += m->body_size;
    l->stats.by_state[m->state]++;
}

void lane_msg_free(struct lane *l, struct queue_msg *m)
{
    uint64_t batch = commit_quiet(l);

    assert(!m->schedule_index);
    segments_disown(&l->segments, m);
    segments_cover(&l->segments, m->first_segment, m->segment, -1, batch);
    segments_state_moved(&l->segments, m->state_segment, 0, batch);
    walk_unlink(l, m);
    state_bits_free(m);
    slab_free(&l->msg_slab, m);
}

static uint64_t lane_wall_ns(const struct lane *l)
{
    return l->opened_wall_ns + (io_now_ns(l->io) - l->opened_ns);
}

uint64_t lane_wall_s(const struct lane *l)
{
    return lane_wall_ns(l) / NS_PER_S;
}

void lane_due_arm(struct lane *l)
{
    struct queue_msg *m = schedule_first(&l->schedule);
    uint64_t wall_ns = lane_wall_ns(l), delay_s;

    if (!m) {
        io_timer_clear(l->io, &l->due_timer);
        return;
    }
    if (m->next_attempt_wall_s <= wall_ns / NS_PER_S) {
        io_timer_set(l->io, &l->due_timer, io_now_ns(l->io));
        return;
    }
    delay_s = m->next_attempt_wall_s - wall_ns / NS_PER_S;
    if (delay_s > SCHEDULE_CHECK_S)
        delay_s = SCHEDULE_CHECK_S;
    io_timer_set(l->io, &l->due_timer, io_now_ns(l->io) + delay_s * NS_PER_S - wall_ns % NS_PER_S);
}

void lane_due_fire(struct timer *t)
{
    struct lane *l = container_of(t, struct lane, due_timer);
    uint64_t wall_s = lane_wall_s(l);
    struct queue_msg *m;

    for (uint32_t i = 0; i < DUE_PER_TURN_MAX && !l->closing; i++) {
        m = schedule_pop(&l->schedule, wall_s);
        if (!m)
            break;
        if (m->owner) {
            m->next_attempt_wall_s = wall_s + DUE_BUSY_S;
            schedule_set(&l->schedule, m);
        } else if (l->p.due) {
            l->p.due(l->p.arg, l, m);
        }
    }
    if (!l->closing)
        lane_due_arm(l);
}

struct queue_msg *lane_find(struct lane *l, uint64_t qid)
{
    struct queue_msg *m = index_find(&l->index, qid);

    return m && !(m->flags & MSG_HIDDEN) ? m : NULL;
}

struct queue_msg *lane_next(struct lane *l, uint64_t *cursor)
{
    struct queue_msg *m;

    do {
        m = index_next(&l->index, cursor);
    } while (m && m->flags & MSG_HIDDEN);
    return m;
}

const struct lane_stats *lane_stats(const struct lane *l)
{
    struct lane_stats *stats = (struct lane_stats *)&l->stats;

    stats->segments = l->segments.count;
    stats->segment_bytes = lane_files_bytes(l);
    return stats;
}

void lane_turn_end(struct lane *l)
{
    if (!l->is_open)
        return;
    state_free_doomed(l);
    if (l->stash_count || commit_awaited(l))
        commit_progress(l);
    commit_kick(l);
    commit_roll_early(l);
    reap_look(l);
    compact_kick(l);
    lane_health_update(l);
    lane_health_tell(l);
}

/* ---- life ---- */

void lane_soon(struct lane *l)
{
    if (!timer_is_set(&l->soon_timer))
        io_timer_set(l->io, &l->soon_timer, io_now_ns(l->io));
}

static void soon_fire(struct timer *t)
{
    struct lane *l = container_of(t, struct lane, soon_timer);

    if (l->open_why.smtp_code && !l->is_open && !l->open_told) {
        l->open_told = true;
        if (l->p.opened)
            l->p.opened(l->p.arg, l, &l->open_why);
    }
    tx_report_failing(l);
    durable_check(l);
    if (l->closing)
        lane_close_step(l);
    else
        lane_turn_end(l);
}

void lane_opened(struct lane *l)
{
    struct why why;

    why_clear(&why);
    if (l->closing)
        return;
    if (!l->open && l->segments.count == 0) {
        why_set(&l->open_why, 452, "4.3.1", "%s: no segment can be made: %s", l->dir,
                lane_error_words(l));
        lane_open_failed(l);
        return;
    }
    l->is_open = true;
    lane_health_update(l);
    if (l->p.opened)
        l->p.opened(l->p.arg, l, &why);
    recover_contents(l);
}

void lane_open_failed(struct lane *l)
{
    assert(l->open_why.smtp_code);
    lane_soon(l);
}

static bool lane_memory(struct lane *l)
{
    for (uint32_t i = 0; i < COMMIT_BATCHES; i++) {
        l->batch[i].data = aligned_alloc(SEGMENT_BLOCK, COMMIT_BUF_SIZE + 2 * SEGMENT_BLOCK);
        list_init(&l->batch[i].waiters);
        if (!l->batch[i].data)
            return false;
    }
    l->seal.block = aligned_alloc(SEGMENT_BLOCK, SEGMENT_BLOCK);
    slab_init(&l->msg_slab, "queued messages", sizeof(struct queue_msg), SPOOL_MESSAGES_MAX);
    slab_init(&l->chunk_slab, "spool chunks", SPOOL_CHUNK_SIZE + SESSION_RECV_BUF_SIZE,
              l->p.tx_count_max);
    return l->seal.block && prepare_init(l) && fill_init(l) && index_init(&l->index);
}

static void lane_free(struct lane *l)
{
    recover_destroy(l);
    walk_end_all(l);
    if (l->msg_slab.name) {
        slab_destroy(&l->msg_slab, true);
        slab_destroy(&l->chunk_slab, true);
    }
    index_destroy(&l->index);
    schedule_destroy(&l->schedule);
    segments_destroy(&l->segments);
    for (uint32_t i = 0; i < COMMIT_BATCHES; i++)
        free(l->batch[i].data);
    for (int i = 0; i < 2; i++)
        free(l->summary[i].data);
    free(l->seal.block);
    free(l->prepare.block);
    free(l->fill.zeros);
    large_free(l);
    free(l->stash);
    free(l->spool);
    free(l);
}

static void lane_lists(struct lane *l)
{
    list_init(&l->doomed);
    list_init(&l->walks);
    list_init(&l->waiting);
    list_init(&l->waiting_extents);
    list_init(&l->extent_txs);
    list_init(&l->failing);
    list_init(&l->durable_waits);
    list_init(&l->read_lru);
    l->state_timer.fire = commit_state_timer;
    l->prepare_timer.fire = prepare_timer_fire;
    l->soon_timer.fire = soon_fire;
    l->due_timer.fire = lane_due_fire;
}

struct lane *lane_open(const struct lane_params *p)
{
    struct lane *l = calloc(1, sizeof *l);

    if (!l)
        return NULL;
    l->p = *p;
    l->io = p->io;
    l->opened_ns = io_now_ns(l->io);
    l->opened_wall_ns = io_wall_ns(l->io);
    l->dir_fd = -1;
    l->spool = strdup(p->spool);
    if (!l->p.segment_bytes)
        l->p.segment_bytes = SEGMENT_BYTES_DEFAULT;
    if (l->p.early_bytes == 0)
        l->p.early_bytes = COMMIT_EARLY_BYTES;
    if (!l->p.tx_count_max)
        l->p.tx_count_max = SPOOL_TX_MAX;
    assert(p->lane < 1024 && l->p.segment_bytes % SEGMENT_BLOCK == 0 &&
           l->p.segment_bytes >= SEGMENT_BYTES_MIN && l->p.segment_bytes < UINT32_MAX);
    lane_lists(l);
    pace_init(&l->pace);
    l->qid_next = 1;
    l->segment_next = 1;
    l->batch_next = 1;
    l->health = l->health_told = LANE_RECOVERING;
    l->recovering = true;
    if (!l->spool || !lane_memory(l) ||
        snprintf(l->dir, sizeof l->dir, "%s/lane-%02u", p->spool, p->lane) >=
            (int)sizeof l->dir - 32) {
        lane_free(l);
        return NULL;
    }
    l->filling = &l->batch[0];
    l->filling->number = l->batch_next++;
    recover_start(l);
    return l;
}

void lane_close(struct lane *l, void (*closed)(void *arg), void *arg)
{
    assert(!l->closing);
    l->closing = true;
    l->closed = closed;
    l->closed_arg = arg;
    l->close_until_ns = io_now_ns(l->io) + l->p.close_wait_ns;
    io_timer_clear(l->io, &l->due_timer);
    io_timer_clear(l->io, &l->prepare_timer);
    lane_soon(l);
}

/* What was said of these messages is only known here. True: the disk may still take it. */
static bool wait_for_disk(struct lane *l)
{
    if (!l->is_open || l->stash_count == 0)
        return false;
    if (io_now_ns(l->io) < l->close_until_ns) {
        if (!timer_is_set(&l->prepare_timer) && !l->prepare.segment)
            io_timer_set(l->io, &l->prepare_timer,
                         io_now_ns(l->io) + (l->paused ? 0 : PREPARE_RETRY_NS));
        return true;
    }
    for (uint32_t i = 0; l->p.unwritten && i < l->stash_count; i++)
        l->p.unwritten(l->p.arg, l, l->stash[i].qid);
    l->stash_count = 0;
    return false;
}

static void free_bits(struct queue_msg *m)
{
    state_bits_free(m);
}

/* The slab goes whole; only what hangs on a message is looked for. */
static void free_messages(struct lane *l)
{
    index_each(&l->index, free_bits);
    while (!list_empty(&l->doomed))
        lane_msg_free(l, container_of(l->doomed.next, struct queue_msg, segment_link));
}

static void close_files(struct lane *l)
{
    for (uint32_t i = 0; i < l->segments.count; i++) {
        struct segment *s = l->segments.items[i];
        read_forget_segment(l, s);
        if (s->write_fd >= 0)
            io_close(l->io, s->write_fd);
    }
    if (l->dir_fd >= 0)
        io_close(l->io, l->dir_fd);
}

/* Goes on with closing as soon as what it waits for is over. */
void lane_close_step(struct lane *l)
{
    void (*closed)(void *arg) = l->closed;
    void *arg = l->closed_arg;

    if (!list_empty(&l->failing))
        return; /* their soon_timer brings us back */
    if (l->is_open && (l->stash_count || commit_awaited(l)))
        commit_progress(l);
    if (!list_empty(&l->failing))
        return;
    commit_kick(l);
    if (!commit_idle(l) || l->seal.segment || l->prepare.segment || l->fill.running ||
        l->reap.running || l->reads_running || l->quarantine_running || !recover_stopped(l) ||
        l->tx_count)
        return;
    if (wait_for_disk(l))
        return;
    if (l->open && l->open->state == SEGMENT_OPEN) {
        struct segment *s = l->open;
        s->state = SEGMENT_CLOSING;
        l->open = NULL;
        l->open_summary->busy = true;
        l->seal.closed = true;
        seal_start(l, s, l->open_summary);
        if (l->seal.segment)
            return;
    }
    io_timer_clear(l->io, &l->soon_timer);
    io_timer_clear(l->io, &l->state_timer);
    io_timer_clear(l->io, &l->prepare_timer);
    io_timer_clear(l->io, &l->due_timer);
    io_timer_clear(l->io, &l->fill.timer);
    free_messages(l);
    close_files(l);
    lane_free(l);
    if (closed)
        closed(arg);
}
