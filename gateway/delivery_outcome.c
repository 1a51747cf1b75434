/*
 * gateway/delivery_outcome.c - what becomes of a job: verdicts, their lines in the log, final
 * records, the time of the next attempt.
 *
 * Owns:     nothing; jobs are delivery.c's.
 * Runs on:  the shard that owns the lane of the message.
 * Contract: a job ends when each of its recipients has a verdict and what is final lies on disk;
 *           then it is scheduled anew, set aside, or gone.
 * Failure:  a record that the lane cannot take: the recipient stays due, and is said to be tried
 *           twice where a next hop took it.
 * Bounds:   JOB_VERDICTS_MAX different answers a message; more share the last one.
 * Tests:    tests/system (retry, expiry, reports), tests/sim
 */
#include "gateway/delivery.h"

#include <assert.h>

/* ---- log ---- */

static void log_word(struct log_line *line, const char *key, const char *value)
{
    if (value && *value)
        log_str(line, key, value);
}

static void job_log_begin(struct job *j, struct log_line *line, enum log_event event, uint32_t rcpt)
{
    char qid[QID_TEXT_MAX];
    log_begin(line, &j->delivery->shard->log, event);
    log_str(line, "qid", qid_text(j->m->qid, qid));
    if (j->env.origin.len)
        log_slice(line, "origin", j->env.origin); /* its queue id where it was accepted */
    log_slice(line, "session", j->env.session);
    log_slice(line, "sender", j->env.sender);
    log_slice(line, "recipient", j->env.rcpts[rcpt].mailbox);
    log_u64(line, "attempt", j->m->attempts + 1);
}

static void job_log(struct job *j, enum log_event event, uint32_t rcpt, const struct why *why,
                    const struct job_via *via)
{
    struct log_line line;
    job_log_begin(j, &line, event, rcpt);
    if (via) {
        log_word(&line, "connector", via->send ? via->send->conf->name : NULL);
        log_word(&line, "remote", via->remote);
        log_word(&line, "tls", via->tls);
    }
    if (why && why->smtp_code) {
        log_u64(&line, "code", why->smtp_code);
        log_str(&line, "status", why->enhanced);
    }
    if (why && why->text[0])
        log_str(&line, "reply", why->text);
    if (via && via->elapsed_ns)
        log_u64(&line, "elapsed_us", via->elapsed_ns / NS_PER_US);
    log_end(&line);
}

/* Which way it goes, and why that one. */
void job_log_routed(struct job *j, uint32_t rcpt, const struct site *s,
                    const struct route_answer *a)
{
    struct log_line line;
    job_log_begin(j, &line, EV_ROUTED, rcpt);
    log_str(&line, "connector", s->send->conf->name);
    if (s->domain[0])
        log_str(&line, "domain", s->domain);
    log_u64(&line, "cost", a->cost);
    if (a->failover)
        log_str(&line, "reason", "the first choice is unhealthy");
    log_end(&line);
}

/* ---- verdicts ---- */

/* Index + 1 of an equal or new verdict; 0 when there is no memory for its words. */
static uint32_t job_verdict(struct job *j, const struct why *why, const char *remote)
{
    for (uint32_t i = 0; i < j->verdict_count; i++) {
        const struct job_verdict *v = j->verdicts[i];
        if (v->why.smtp_code == why->smtp_code && strcmp(v->why.text, why->text) == 0 &&
            strcmp(v->remote, remote) == 0)
            return i + 1;
    }
    if (j->verdict_count == JOB_VERDICTS_MAX)
        return JOB_VERDICTS_MAX;
    if (!j->verdicts)
        j->verdicts = arena_alloc(&j->arena, sizeof *j->verdicts * JOB_VERDICTS_MAX);
    if (!j->verdicts)
        return 0;
    struct job_verdict *v = arena_alloc(&j->arena, sizeof *v);
    if (!v)
        return j->verdict_count;
    v->why = *why;
    snprintf(v->remote, sizeof v->remote, "%s", remote);
    j->verdicts[j->verdict_count++] = v;
    return j->verdict_count;
}

static void job_count(const struct job *j, enum rcpt_state state, const struct shard_send *send)
{
    const struct shard *sh = j->delivery->shard;
    struct send_series *series = &sh->metrics->send[send->conf->series];
    uint64_t now = io_wall_ns(sh->io), accepted = j->env.accepted_wall_ns;
    series_add(&series->count[state == RCPT_DONE    ? SS_DELIVERED
                              : state == RCPT_DEFER ? SS_DEFERRED
                                                    : SS_FAILED],
               1);
    if (state == RCPT_DONE)
        histogram_add(&series->total, now > accepted ? now - accepted : 0);
}

void job_rcpt_done(struct job *j, uint32_t rcpt, enum rcpt_state state, const struct why *why,
                   const struct job_via *via)
{
    const char *remote = via && via->remote ? via->remote : "";
    struct metrics *metrics = j->delivery->shard->metrics;
    struct job_rcpt *r = &j->rcpts[rcpt];
    assert(r->state == RCPT_IN_TASK || r->state == RCPT_PENDING);
    r->state = (uint8_t)state;
    if (via && via->send)
        job_count(j, state, via->send);
    switch (state) {
    case RCPT_DONE:
        metric_add(metrics, M_DELIVERED, 1);
        job_log(j, EV_DELIVERED, rcpt, why, via);
        return;
    case RCPT_DEFER:
        metric_add(metrics, M_DEFERRED, 1);
        job_log(j, EV_DEFERRED, rcpt, why, via);
        break;
    case RCPT_FAIL:
        metric_add(metrics, M_FAILED, 1);
        job_log(j, EV_FAILED, rcpt, why, via);
        break;
    case RCPT_UNREACHED: job_log(j, EV_UNREACHABLE, rcpt, why, NULL); break;
    default: break;
    }
    r->verdict = job_verdict(j, why, remote);
}

void job_rcpt_relayed(struct job *j, uint32_t rcpt, const struct why *why, const char *remote)
{
    assert(j->rcpts[rcpt].state == RCPT_DONE);
    j->rcpts[rcpt].state = RCPT_RELAYED;
    j->rcpts[rcpt].verdict = job_verdict(j, why, remote);
}

/* ---- end ---- */

/* Writes those of them that are delivered as final; others of the job are not yet. */
static void job_final_done(struct job *j, const uint32_t *rcpts, uint32_t count)
{
    uint32_t batch[256], done = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (j->rcpts[rcpts[i]].state == RCPT_DONE && !queue_msg_rcpt_is_final(j->m, rcpts[i]))
            batch[done++] = rcpts[i];
        if (done == sizeof batch / sizeof *batch || (done && i + 1 == count)) {
            job_final_rcpts(j, batch, done, RCPT_DELIVERED);
            done = 0;
        }
    }
}

void job_task_done(struct task *t)
{
    struct job *j = t->job;
    t->site->used_ns = io_now_ns(j->delivery->shard->io);
    assert(j->tasks_open > 0);
    j->tasks_open--;
    const uint32_t *rcpts = t->rcpts; /* in the job's arena */
    uint32_t count = t->rcpt_count;
    slab_free(&j->delivery->task_slab, t);
    if (j->handoff) {
        handoff_task_done(j);
        return;
    }
    if (j->tasks_open > 0) /* may take long: what is delivered is not kept in memory */
        job_final_done(j, rcpts, count);
    if (j->tasks_open > 0 || j->routing)
        return;
    bool pending = job_has(j, RCPT_PENDING);
    if (pending)
        job_final(j, RCPT_DONE, RCPT_DELIVERED);
    if (pending && !j->remove_asked && !j->hold_asked && !j->bounce_asked && !j->delivery->draining)
        job_route(
            j); /* sent back: too many recipients at once, or the route is to be chosen again */
    else
        job_finish(j);
}

void job_final_rcpts(struct job *j, const uint32_t *rcpts, uint32_t count, enum rcpt_final_how how)
{
    struct queue_msg *m = j->m;
    if (m->rcpt_pending == count) { /* the last ones: the lane frees the message */
        m->owner = NULL;
        j->m = NULL;
    }
    lane_rcpts_final(j->lane, m, rcpts, count, how);
}

/* Writes the recipients in `state` of this attempt as final. */
void job_final(struct job *j, enum rcpt_state state, enum rcpt_final_how how)
{
    uint32_t batch[256], count = 0;
    for (uint32_t i = 0; j->m && i < j->env.rcpt_count; i++) {
        if (j->rcpts[i].state != state || queue_msg_rcpt_is_final(j->m, i))
            continue;
        batch[count++] = i;
        if (count == sizeof batch / sizeof *batch) {
            job_final_rcpts(j, batch, count, how);
            count = 0;
        }
    }
    if (count)
        job_final_rcpts(j, batch, count, how);
}

bool job_has(const struct job *j, enum rcpt_state state)
{
    for (uint32_t i = 0; i < j->env.rcpt_count; i++)
        if (j->rcpts[i].state == state && !queue_msg_rcpt_is_final(j->m, i))
            return true;
    return false;
}

/*
 * Older than that by the wall clock and by its attempts: neither a clock that jumps nor a long stop
 * of the gateway makes mail old (FAULTS 68). Attempts take time, too: three quarters are enough.
 */
static bool job_is_older(const struct job *j, uint64_t limit_s)
{
    const struct shard *sh = j->delivery->shard;
    const struct config *conf = sh->config->gen->config;
    uint64_t waited_s = retry_waited_s(conf->retry.intervals_s, conf->retry.interval_count,
                                       (uint32_t)j->m->attempts);
    return io_wall_ns(sh->io) / NS_PER_S >= j->m->accepted_wall_s + limit_s &&
           waited_s >= limit_s - limit_s / 4;
}

static bool job_is_over_age(const struct job *j)
{
    return job_is_older(j, j->delivery->shard->config->gen->config->retry.expire_s);
}

/*
 * Given up at the end of an attempt, never before one: a clock that jumps or a long stop of the
 * gateway costs no message its try, and the report has the next hop's last words (E32).
 */
static void job_expire(struct job *j)
{
    struct metrics *metrics = j->delivery->shard->metrics;
    for (uint32_t i = 0; i < j->env.rcpt_count; i++) {
        struct job_rcpt *r = &j->rcpts[i];
        if (r->state != RCPT_DEFER && r->state != RCPT_UNREACHED)
            continue;
        const struct job_verdict *v = r->verdict ? j->verdicts[r->verdict - 1] : NULL;
        r->state = RCPT_FAIL;
        r->expired = true;
        metric_add(metrics, M_EXPIRED, 1);
        const struct job_via via = {.remote = v ? v->remote : ""};
        job_log(j, EV_EXPIRED, i, v ? &v->why : NULL, &via);
    }
}

/* Has the sender been told of the delay, or is it not late enough yet (E39)? */
static bool job_warned(const struct job *j)
{
    const struct shard *sh = j->delivery->shard;
    const struct config *conf = sh->config->gen->config;
    return j->m->warned || conf->retry.warn_after_s == 0 ||
           !job_is_older(j, conf->retry.warn_after_s);
}

/* The attempt is over: DSN first if one is due (it comes back here through bounce.c), then the next
 * time. */
void job_finish(struct job *j)
{
    struct shard *sh = j->delivery->shard;
    if (j->finishing)
        return;
    j->finishing = true;
    if (j->remove_asked) {
        for (uint32_t i = 0; i < j->env.rcpt_count; i++)
            j->rcpts[i].state = RCPT_DONE;
        job_final(j, RCPT_DONE, RCPT_REMOVED);
        job_end(j);
        return;
    }
    job_final(j, RCPT_DONE, RCPT_DELIVERED);
    if (!j->m) {
        job_end(j);
        return;
    }
    if (j->bounce_asked) {
        struct why why;
        why_set(&why, 550, "5.7.0", "Returned by the operator of %s",
                sh->config->gen->config->hostname);
        for (uint32_t i = 0; i < j->env.rcpt_count; i++)
            if (j->rcpts[i].state != RCPT_DONE && j->rcpts[i].state != RCPT_FAIL) {
                j->rcpts[i].state = RCPT_PENDING;
                job_rcpt_done(j, i, RCPT_FAIL, &why, NULL);
            }
    }
    if (job_is_over_age(j) && !j->hold_asked && !j->delivery->draining)
        job_expire(j);
    j->warn = !job_warned(j) && (job_has(j, RCPT_DEFER) || job_has(j, RCPT_UNREACHED));
    bounce_start(j);
}

bool job_set_aside(struct job *j, uint32_t rcpt)
{
    if (lane_stats(j->lane)->by_state[QUEUE_HELD] >= DEAD_LETTERS_MAX)
        return false;
    j->rcpts[rcpt].state = RCPT_DEAD;
    return true;
}

/* The first one's words. */
static struct slice job_words(const struct job *j, enum rcpt_state state, enum rcpt_state also)
{
    uint32_t v = 0;
    for (uint32_t i = 0; i < j->env.rcpt_count && !v; i++)
        if (j->rcpts[i].state == state || j->rcpts[i].state == also)
            v = j->rcpts[i].verdict;
    return v ? slice_str(j->verdicts[v - 1]->why.text) : slice_of(NULL, 0);
}

static void job_dead_letter(struct job *j)
{
    struct shard *sh = j->delivery->shard;
    struct queue_msg *m = j->m;
    struct slice reply = job_words(j, RCPT_DEAD, RCPT_DEAD);
    char text[SMTP_OUT_REPLY_KEPT_MAX], qid[QID_TEXT_MAX];
    struct log_line line;
    snprintf(text, sizeof text, "Dead letter, without a sender to tell: %.*s", (int)reply.len,
             (const char *)reply.ptr);
    log_begin(&line, &sh->log, EV_HELD);
    log_str(&line, "qid", qid_text(m->qid, qid));
    log_str(&line, "sender", "");
    log_str(&line, "reason", text);
    log_end(&line);
    metric_add(sh->metrics, M_DEAD_LETTERS, 1);
    m->owner = NULL;
    lane_set_aside(j->lane, m, QUEUE_HELD, slice_str(text));
}

/* What is left after DSNs: wait for the next attempt, for a route, or for the operator. */
void job_settle(struct job *j)
{
    struct shard *sh = j->delivery->shard;
    const struct config *conf = sh->config->gen->config;
    struct queue_msg *m = j->m;
    struct lane *l = j->lane;
    if (m && j->remove_asked) { /* while a notification was written */
        for (uint32_t i = 0; i < j->env.rcpt_count; i++)
            j->rcpts[i].state = RCPT_DONE;
        job_final(j, RCPT_DONE, RCPT_REMOVED);
    } else if (m && j->delivery->draining && !j->hold_asked && !job_has(j, RCPT_DEFER) &&
               !job_has(j, RCPT_UNREACHED) && !job_has(j, RCPT_DEAD)) {
        m->owner = NULL; /* not tried: its turn comes at once after the next start */
    } else if (m) {
        bool defer = job_has(j, RCPT_DEFER) || job_has(j, RCPT_PENDING);
        bool unreached = job_has(j, RCPT_UNREACHED);
        struct slice error = job_words(j, RCPT_DEFER, RCPT_UNREACHED);
        uint64_t delay = retry_delay_s(conf->retry.intervals_s, conf->retry.interval_count,
                                       m->attempts + 1u, &sh->chance);
        uint64_t now_s = io_wall_ns(sh->io) / NS_PER_S;
        uint64_t end_s = m->accepted_wall_s + conf->retry.expire_s;
        if (end_s > now_s && end_s < now_s + delay)
            delay = end_s - now_s; /* the last attempt */
        uint64_t next_s = lane_wall_s(l) + delay;
        m->owner = NULL;
        if (unreached && !defer)
            lane_defer_unreachable(l, m, next_s, error);
        else if (defer)
            lane_defer(l, m, next_s, true, error);
        else if (job_has(j, RCPT_DEAD)) /* beside others it is tried with them again */
            job_dead_letter(j);
        if (j->hold_asked && m->state != QUEUE_HELD)
            lane_set_state(l, m, QUEUE_HELD);
    }
    j->m = NULL;
    job_end(j);
}

void job_end(struct job *j)
{
    struct delivery *d = j->delivery;
    assert(j->tasks_open == 0);
    if (j->m)
        j->m->owner = NULL;
    arena_reset(&j->arena);
    list_remove(&j->link);
    d->job_count--;
    d->suspect_count -= j->suspect;
    metric_set(d->shard->metrics, M_JOBS, d->job_count);
    slab_free(&d->job_slab, j);
    delivery_wants_refill(d); /* at the end of the turn, so that ends and begins do not nest */
}
