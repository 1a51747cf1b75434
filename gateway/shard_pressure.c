/*
 * gateway/shard_pressure.c - looks at what a shard may run out of, once a second.
 *
 * Owns:     the levels in struct shard.
 * Runs on:  the shard.
 * Contract: a level changes with hysteresis (gateway/pressure.c), and that is logged.
 * Failure:  what cannot be known is normal.
 * Bounds:   none.
 * Tests:    tests/system/test_pressure.py
 */
#include "gateway/shard.h"

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
