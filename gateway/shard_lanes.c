/*
 * gateway/shard_lanes.c - the lanes of the spool that a shard has, and what they tell it.
 *
 * Owns:     the table of lanes; a lane frees itself when it is closed.
 * Runs on:  the shard's thread.
 * Contract: a shard writes to the lane of its own number only. Lanes that a start with more shards
 *           left behind are adopted by number, read and emptied.
 * Failure:  a lane that cannot be opened: told to the control thread, which ends the process.
 * Bounds:   LANE_COUNT_MAX lanes.
 * Tests:    tests/system (start, crash), tests/sim
 */
#include "gateway/shard_internal.h"

#include <stdlib.h>

#include "gateway/base/plant.h"
#include "gateway/prepared.h"

static void shard_up_if_ready(struct shard *s)
{
    if (s->lanes_opened < s->lane_count || s->up)
        return;
    s->up = true;
    shard_listeners_start(s, &s->bound);
    shard_tell(s, PEER_SHARD_UP, s->index, true, NULL);
}

static void lane_opened(void *arg, struct lane *l, const struct why *why)
{
    struct shard *s = arg;
    (void)l;
    s->lanes_opened++;
    if (why && why->smtp_code)
        shard_tell(s, PEER_SHARD_UP, s->index, false, why);
    else
        shard_up_if_ready(s);
}

/* Its attempts ended in a crash too often, or it may be delivered: queue/FORMAT.md section 10. */
static void lane_found(void *arg, struct lane *l, struct queue_msg *m)
{
    static const char words[] = "Set aside: its last attempts ended in a crash of the gateway";
    struct shard *s = arg;
    struct log_line line;
    char qid[QID_TEXT_MAX];
    if (m->uncertain)
        metric_add(s->metrics, M_UNCERTAIN, 1);
    if (m->crashes)
        metric_add(s->metrics, M_CRASHED, 1);
    if (m->state == QUEUE_PREPARED)
        prepared_found(s->prepared, l, m);
    if (m->crashes < QUEUE_CRASHES_MAX || m->state >= QUEUE_POISON)
        return;
    log_begin(&line, &s->log, EV_POISON);
    log_str(&line, "qid", qid_text(m->qid, qid));
    log_u64(&line, "crashes", m->crashes);
    log_str(&line, "reason", words);
    log_end(&line);
    metric_add(s->metrics, M_POISONED, 1);
    lane_set_aside(l, m, QUEUE_POISON, slice_str(words));
}

static void lane_recovered(void *arg, struct lane *l)
{
    struct shard *s = arg;
    struct log_line line;
    s->lanes_recovered++;
    log_begin(&line, &s->log, EV_RECOVERED);
    log_u64(&line, "messages", lane_stats(l)->recovered);
    log_u64(&line, "damaged", lane_stats(l)->damaged);
    log_end(&line);
    if (s->lanes_recovered == s->lane_count)
        delivery_config_changed(
            s->delivery); /* the configuration may have changed while we were down */
}

static void lane_due(void *arg, struct lane *l, struct queue_msg *m)
{
    struct shard *s = arg;
    delivery_due(s->delivery, l, m);
}

static void lane_health_changed(void *arg, struct lane *l, enum lane_health h,
                                const struct why *why)
{
    static const char *const names[] = {"recovering", "ok", "degraded", "full", "stopped"};
    struct shard *s = arg;
    struct log_line line;
    (void)l;
    if (h == LANE_OK && !s->lane_trouble)
        return; /* the usual end of recovery */
    s->lane_trouble = h != LANE_OK;
    log_begin(&line, &s->log, EV_LANE);
    log_str(&line, "health", names[h]);
    if (why)
        log_str(&line, "reason", why->text);
    log_end(&line);
}

static void lane_damaged(void *arg, struct lane *l, uint32_t segment, uint64_t offset,
                         const char *what)
{
    struct shard *s = arg;
    struct log_line line;
    (void)l;
    log_begin(&line, &s->log, EV_DAMAGED);
    log_u64(&line, "segment", segment);
    log_u64(&line, "offset", offset);
    log_str(&line, "reason", what);
    log_end(&line);
}

static struct lane *shard_lane_open(struct shard *s, uint32_t number)
{
    const struct config *conf = s->config->gen->config;
    /* An adopted lane takes no mail. */
    bool fills = number == s->index && io_disk_in_place(s->io, conf->spool.path);
    struct lane_params p = {
        .io = s->io,
        .spool = conf->spool.path,
        .lane = number,
        .segment_bytes = s->gw->segment_bytes,
        .bytes_max = conf->spool.bytes_max / s->gw->shard_count,
        .disk_free_min = conf->spool.disk_free_min,
        .mode =
            conf->spool.write == CONFIG_WRITE_BUFFERED ? LANE_WRITE_BUFFERED : LANE_WRITE_DIRECT,
        .arg = s,
        .opened = lane_opened,
        .found = lane_found,
        .recovered = lane_recovered,
        .due = lane_due,
        .close_wait_ns = SPOOL_CLOSE_WAIT_NS,
        .zero_fill = fills ? s->gw->shard_count : 0,
        .unwritten = delivery_unwritten,
        .health = lane_health_changed,
        .damaged = lane_damaged,
    };
    return lane_open(&p);
}

/* Lane i is this shard's own; lanes of a time with more shards are adopted, dealt out by number. */
bool shard_lanes_open(struct shard *s, struct why *why)
{
    uint32_t numbers[LANE_COUNT_MAX];
    int found =
        spool_lanes(s->io, s->config->gen->config->spool.path, numbers, LANE_COUNT_MAX, why);
    if (found < 0)
        return false;
    s->lanes = calloc((size_t)found + 1, sizeof *s->lanes);
    if (s->lanes && (s->lanes[0] = shard_lane_open(s, s->index)))
        s->lane_count = 1;
    for (int i = 0; s->lanes && s->lane_count && i < found; i++) {
        if (numbers[i] % s->gw->shard_count != s->index || numbers[i] == s->index ||
            PLANT(NO_ADOPTION))
            continue;
        if (!(s->lanes[s->lane_count] = shard_lane_open(s, numbers[i]))) {
            s->lane_count = 0;
            break;
        }
        s->lane_count++;
    }
    if (s->lanes && s->lane_count) {
        s->write_lane = s->lanes[0];
        return true;
    }
    why_set(why, 451, "4.3.1", "out of memory for the spool's lanes");
    return false;
}
