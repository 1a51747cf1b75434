/*
 * gateway/shard_pressure.c - how full things are: a shard's gauges, back pressure, memory of TLS.
 *
 * Owns:     nothing; struct shard keeps the levels.
 * Runs on:  the shard's thread, once a second.
 * Contract: looks, compares, says changes; what follows from a level is up to who asks for it.
 * Failure:  what cannot be measured counts as plenty.
 * Bounds:   a fixed list of resources; QUEUE_AGE_SLICE_MAX messages looked at a second.
 * Tests:    tests/unit/test_pressure.c, tests/system/test_pressure.py
 */
#include "gateway/shard_internal.h"

/* ---- gauges ---- */

const uint32_t queue_ages_s[QUEUE_AGES] = {300, 3600, 14400, 86400};

static void shard_utilisation(struct shard *s, uint64_t busy_ns)
{
    uint64_t now = io_now_ns(s->io), passed = now - s->look.at_ns;
    uint64_t busy = busy_ns - s->look.busy_ns;
    if (s->look.at_ns && passed) /* a turn that is longer than a second counts when it is over */
        metric_set(s->metrics, M_UTILISATION_NS,
                   busy < passed ? (uint64_t)((double)busy / (double)passed * 1e9) : NS_PER_S);
    s->look.busy_ns = busy_ns;
    s->look.at_ns = now;
}

static void shard_ages_told(struct shard *s)
{
    atomic_store_explicit(&s->metrics->queue_oldest_s, s->look.oldest_s, memory_order_relaxed);
    for (uint32_t k = 0; k < QUEUE_AGES; k++) {
        atomic_store_explicit(&s->metrics->queue_older[k], s->look.older[k], memory_order_relaxed);
        s->look.older[k] = 0;
    }
    s->look.oldest_s = 0;
    s->look.lane = 0;
    s->look.cursor = 0;
}

/* A slice of the queue; what a whole round has found is told at its end. */
static void shard_ages(struct shard *s)
{
    uint64_t now_s = io_wall_ns(s->io) / NS_PER_S;
    uint64_t slice = metric_get(s->metrics, M_QUEUE_MESSAGES) / 60;
    slice = slice < QUEUE_AGE_SLICE_MIN   ? QUEUE_AGE_SLICE_MIN
            : slice > QUEUE_AGE_SLICE_MAX ? QUEUE_AGE_SLICE_MAX
                                          : slice;
    while (slice-- > 0 && s->look.lane < s->lane_count) {
        const struct queue_msg *m = lane_next(s->lanes[s->look.lane], &s->look.cursor);
        if (!m) {
            s->look.lane++;
            s->look.cursor = 0;
            continue;
        }
        uint64_t at_s = m->accepted_wall_s;
        if (!s->look.oldest_s || at_s < s->look.oldest_s)
            s->look.oldest_s = at_s;
        for (uint32_t k = 0; k < QUEUE_AGES; k++)
            s->look.older[k] += now_s > at_s + queue_ages_s[k];
    }
    if (s->look.lane >= s->lane_count)
        shard_ages_told(s);
}

void shard_gauges(struct shard *s)
{
    enum { GAUGES = 18 };
    struct metrics *m = s->metrics;
    const struct io_stats *io = io_stats(s->io);
    uint64_t sum[GAUGES] = {0};
    enum lane_health worst = LANE_RECOVERING;
    for (uint32_t i = 0; i < s->lane_count; i++) {
        const struct lane_stats *l = lane_stats(s->lanes[i]);
        const uint64_t add[GAUGES] = {l->messages,
                                      l->bytes,
                                      l->by_state[QUEUE_DEFERRED],
                                      l->by_state[QUEUE_HELD],
                                      l->by_state[QUEUE_UNREACHABLE],
                                      l->by_state[QUEUE_POISON],
                                      l->segments,
                                      l->segment_bytes,
                                      l->appended_bytes,
                                      l->commits,
                                      l->sync_ns_total,
                                      l->sync_failed,
                                      l->body_bytes,
                                      l->copied_forward_bytes,
                                      l->uploads_cut,
                                      l->damaged,
                                      l->by_state[QUEUE_PREPARED],
                                      l->by_state[QUEUE_GIVEN]};
        for (int k = 0; k < GAUGES; k++)
            sum[k] += add[k];
        enum lane_health h = lane_health(s->lanes[i]);
        worst = h > worst ? h : worst;
    }
    static const enum metric ids[GAUGES] = {
        M_QUEUE_MESSAGES,    M_QUEUE_BYTES,   M_QUEUE_DEFERRED,    M_QUEUE_HELD,
        M_QUEUE_UNREACHABLE, M_QUEUE_POISON,  M_SPOOL_SEGMENTS,    M_SPOOL_BYTES,
        M_SPOOL_WRITTEN,     M_SPOOL_COMMITS, M_SPOOL_SYNC_NS,     M_SPOOL_SYNC_FAILED,
        M_SPOOL_BODY,        M_SPOOL_COPIED,  M_SPOOL_UPLOADS_CUT, M_SPOOL_DAMAGED,
        M_QUEUE_PREPARED,    M_QUEUE_GIVEN};
    for (int k = 0; k < GAUGES; k++)
        metric_set(m, ids[k], sum[k]);
    metric_set(m, M_SPOOL_HEALTH, s->withdrawn ? LANE_STOPPED : worst);
    metric_set(m, M_TURNS, io->turns);
    metric_set(m, M_ENTERS, io->enters);
    metric_set(m, M_BUSY_NS, io->busy_ns);
    metric_set(m, M_TURN_MAX_NS, io->longest_turn_ns);
    metric_set(m, M_RECV_BUF_EMPTY, io->recv_buf_empty);
    metric_set(m, M_LOG_DROPPED, s->log.dropped);
    metric_set(m, M_TLS_MEMORY, tls_memory());
    shard_utilisation(s, io->busy_ns);
    shard_ages(s);
}

/* ---- back pressure ---- */

static void shard_pressure_note(struct shard *s, enum pressure_resource r, uint64_t left,
                                const struct pressure_rule *rule)
{
    enum pressure_level before = s->pressure.level[r];
    enum pressure_level now = pressure_update(&s->pressure, r, left, rule);
    struct log_line line;
    metric_set(s->metrics, M_PRESSURE_SPOOL + r, now);
    if (now == before)
        return;
    log_begin(&line, &s->log, EV_PRESSURE);
    log_str(&line, "resource", pressure_resource_name(r));
    log_str(&line, "from", pressure_level_name(before));
    log_str(&line, "to", pressure_level_name(now));
    log_u64(&line, "left", left);
    log_end(&line);
}

/* Looks at every resource; what has no limit is always normal. */
void shard_pressure(struct shard *s)
{
    const struct config *conf = s->config->gen->config;
    uint64_t resident, total, queued = 0, limit = conf->back_pressure.memory_bytes;
    struct pressure_rule rule = {0};
    struct lane_space space;
    if (!s->write_lane)
        return;
    lane_space(s->write_lane, &space);
    if (space.spool_limit)
        rule = pressure_rule_of(space.spool_limit);
    shard_pressure_note(s, PRESSURE_SPOOL, space.spool_left, &rule);
    rule = pressure_rule_disk();
    shard_pressure_note(s, PRESSURE_DISK, space.disk_left, &rule);
    rule = pressure_rule_inodes();
    shard_pressure_note(s, PRESSURE_INODES, space.inodes_left, &rule);
    if (io_memory(s->io, &resident, &total)) {
        limit = limit ? limit : total / 4 * 3;
        rule = pressure_rule_of(limit);
        shard_pressure_note(s, PRESSURE_MEMORY, limit > resident ? limit - resident : 0, &rule);
    }
    for (uint32_t i = 0; i < s->gw->shard_count; i++)
        queued += metric_get(&s->gw->metrics[i], M_QUEUE_MESSAGES);
    limit = conf->back_pressure.queue_messages;
    rule = limit ? pressure_rule_of(limit) : (struct pressure_rule){0};
    shard_pressure_note(s, PRESSURE_QUEUE, limit > queued ? limit - queued : 0, &rule);
    s->pressure_level = pressure_worst(&s->pressure, NULL);
}

/* ---- memory of TLS ---- */

bool shard_tls_is_short(const struct shard *s)
{
    uint64_t max = s->config->gen->config->tls_memory_max;
    return tls_memory() > max - max / 8;
}

void shard_tls_trouble(struct shard *s)
{
    bool trouble = shard_tls_is_short(s);
    if (trouble && !s->tls_trouble) {
        struct log_line line;
        log_begin(&line, &s->log, EV_WARNING);
        log_str(&line, "reason", "tls_memory is used up: new sessions get no TLS (454, 421)");
        log_u64(&line, "bytes", tls_memory());
        log_end(&line);
    }
    s->tls_trouble = trouble;
}
