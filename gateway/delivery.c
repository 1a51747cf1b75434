/*
 * gateway/delivery.c - jobs: one attempt to deliver one message, from routing to the record of
 * its outcome.
 *
 * Owns:     jobs and their arenas; the backlog of queue ids that wait for a job.
 * Runs on:  the shard that owns the lane of the message.
 * Contract: every recipient of an attempt ends as final on disk, deferred with a time, held, or
 *           unreachable. While a job lives, queue_msg.owner points to it.
 * Failure:  no memory for a job: the message waits in the backlog; an unreadable envelope: poison
 *           queue and an event.
 * Bounds:   JOBS_ACTIVE_MAX jobs, of which ENVELOPE_READS_MAX wait for their envelope;
 *           JOB_VERDICTS_MAX different answers a message.
 * Tests:    tests/system (interop, routing, retry, crash), tests/sim/test_deep_start.c
 */
#include "gateway/delivery.h"

#include <assert.h>
#include <stdlib.h>

#include "gateway/backlog.h"

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
        log_word(&line, "connector", via->connector);
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
static void job_log_routed(struct job *j, uint32_t rcpt, const struct site *s,
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

void job_rcpt_done(struct job *j, uint32_t rcpt, enum rcpt_state state, const struct why *why,
                   const struct job_via *via)
{
    const char *remote = via && via->remote ? via->remote : "";
    struct metrics *metrics = j->delivery->shard->metrics;
    struct job_rcpt *r = &j->rcpts[rcpt];
    assert(r->state == RCPT_IN_TASK || r->state == RCPT_PENDING);
    r->state = (uint8_t)state;
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

/* ---- routing ---- */

bool delivery_connector_disabled(void *arg, uint32_t connector)
{
    struct delivery *d = arg;
    return d->shard->config->send[connector].state == CONNECTOR_DISABLED;
}

static void job_route_choose(const struct job *j, uint32_t rcpt, struct route_answer *a)
{
    struct delivery *d = j->delivery;
    struct route_query q = {
        .domain = slice_after_last(j->env.rcpts[rcpt].mailbox, '@'),
        .receive_connector = j->env.connector,
        .size = j->m->body_size,
        .choice = j->m->qid,
        .unhealthy = site_unhealthy,
        .stopped = delivery_connector_disabled,
        .arg = d,
    };
    route_choose(d->shard->config->gen->config->routes, &q, a);
}

struct site *job_route_rcpt(struct job *j, uint32_t rcpt)
{
    struct delivery *d = j->delivery;
    struct shard_config *c = d->shard->config;
    struct slice domain = slice_after_last(j->env.rcpts[rcpt].mailbox, '@');
    struct route_answer a;
    struct why why;
    job_route_choose(j, rcpt, &a);
    if (a.verdict == ROUTE_NONE) {
        why_set(&why, 450, "4.4.0", "No send connector takes this recipient");
        job_rcpt_done(j, rcpt, RCPT_UNREACHED, &why, NULL);
        return NULL;
    }
    if (a.verdict == ROUTE_TOO_LARGE) {
        why_set(&why, 552, "5.3.4", "Message is too large for every send connector that matches");
        job_rcpt_done(j, rcpt, RCPT_FAIL, &why, NULL);
        return NULL;
    }
    if (c->send[a.connector].state == CONNECTOR_SUSPENDED) { /* routed again when it resumes */
        why_set(&why, 450, "4.3.2", "Send connector %s is suspended by the operator",
                c->send[a.connector].conf->name);
        job_rcpt_done(j, rcpt, RCPT_UNREACHED, &why, NULL);
        return NULL;
    }
    j->rcpts[rcpt].failover = a.failover;
    bool mx = c->send[a.connector].conf->mx;
    struct site *s = site_get(d, c, a.connector, mx ? domain : slice_of(NULL, 0));
    if (!s) {
        why_set(&why, 451, "4.3.1", "Too many different next hops at once");
        job_rcpt_done(j, rcpt, RCPT_DEFER, &why, NULL);
    } else if (site_is_unhealthy(&s->hosts, io_now_ns(d->shard->io)) && s->hop_count == 0) {
        const struct job_via via = {.connector = s->send->conf->name, .remote = s->last_remote};
        job_rcpt_done(j, rcpt, RCPT_DEFER, &s->last_error, &via);
        s->deferred++;
        return NULL;
    }
    if (s)
        job_log_routed(j, rcpt, s, &a);
    return s;
}

/* ---- begin ---- */

/*
 * A crash cut an attempt off behind its final dot. True: a connector that would take it now is to
 * hold such mail. Else it is said that there may be a second copy.
 */
static bool job_is_to_be_held(const struct job *j)
{
    const struct shard *sh = j->delivery->shard;
    for (uint32_t i = 0; i < j->env.rcpt_count; i++) {
        struct route_answer a;
        if (j->rcpts[i].state != RCPT_PENDING)
            continue;
        job_route_choose(j, i, &a);
        if (a.verdict == ROUTE_FOUND &&
            sh->config->send[a.connector].conf->on_uncertain == CONFIG_UNCERTAIN_HOLD)
            return true;
    }
    return false;
}

static void job_uncertain(struct job *j, bool held)
{
    static const char words[] = "May have been delivered before: a crash or damage hides it";
    struct shard *sh = j->delivery->shard;
    struct lane *l = j->lane;
    struct queue_msg *m = j->m;
    struct log_line line;
    char qid[QID_TEXT_MAX];
    log_begin(&line, &sh->log, held ? EV_HELD : EV_DUP_POSSIBLE);
    log_str(&line, "qid", qid_text(m->qid, qid));
    log_slice(&line, "sender", j->env.sender);
    log_str(&line, "reason", words);
    log_end(&line);
    if (!held) {
        metric_add(sh->metrics, M_DUP_POSSIBLE, 1);
        return;
    }
    job_end(j);
    lane_set_aside(l, m, QUEUE_HELD, slice_str(words));
}

void delivery_unwritten(void *arg, struct lane *l, uint64_t qid)
{
    struct shard *sh = arg;
    struct log_line line;
    char text[QID_TEXT_MAX];
    (void)l;
    metric_add(sh->metrics, M_DUP_POSSIBLE, 1);
    log_begin(&line, &sh->log, EV_DUP_POSSIBLE);
    log_str(&line, "qid", qid_text(qid, text));
    log_str(&line, "reason", "The disk did not take its last changes before the stop");
    log_end(&line);
}

/* The envelope is in memory: mark what is done already, route the rest. */
static void job_begin(struct job *j)
{
    assert(j->env.rcpt_count == j->m->rcpt_count);
    for (uint32_t i = 0; i < j->env.rcpt_count; i++)
        j->rcpts[i].state = queue_msg_rcpt_is_final(j->m, i) ? RCPT_DONE : RCPT_PENDING;
    if (j->remove_asked || j->bounce_asked || j->hold_asked) {
        job_finish(j);
        return;
    }
    if (j->m->uncertain) {
        bool held = job_is_to_be_held(j);
        job_uncertain(j, held);
        if (held)
            return;
    }
    job_route(j);
}

/* One crash more during an attempt, and it is set aside. */
static bool is_suspect(const struct queue_msg *m)
{
    return m->crashes + 1u >= QUEUE_CRASHES_MAX;
}

struct job *job_create_bare(struct delivery *d)
{
    struct job *j = d->job_count < JOBS_ACTIVE_MAX ? slab_alloc(&d->job_slab) : NULL;
    if (!j)
        return NULL;
    memset(j, 0, sizeof *j);
    j->delivery = d;
    arena_init(&j->arena, &d->shard->arena_slab, ENVELOPE_BLOCKS_MAX * 2);
    list_push_back(&d->jobs, &j->link);
    d->job_count++;
    metric_set(d->shard->metrics, M_JOBS, d->job_count);
    return j;
}

struct job *job_create(struct delivery *d, struct lane *l, struct queue_msg *m)
{
    struct job *j = job_create_bare(d);
    if (!j)
        return NULL;
    j->lane = l;
    j->m = m;
    assert(m->owner == NULL);
    m->owner = j;
    j->suspect = is_suspect(m);
    d->suspect_count += j->suspect;
    return j;
}

static bool job_rcpts_alloc(struct job *j)
{
    j->rcpts = arena_alloc_large(&j->arena, sizeof *j->rcpts * j->env.rcpt_count);
    return j->rcpts != NULL;
}

void delivery_accept(struct delivery *d, struct lane *l, struct queue_msg *m, struct arena *arena,
                     const struct envelope *env)
{
    struct job *j = d->draining ? NULL : job_create(d, l, m);
    if (!j) {
        if (!backlog_push(d->backlog, m->qid))
            lane_defer(l, m, lane_wall_s(l) + 60, false, slice_of(NULL, 0));
        return;
    }
    arena_move(&j->arena, arena);
    j->env = *env;
    if (!job_rcpts_alloc(j)) {
        job_end(j);
        lane_defer(l, m, lane_wall_s(l) + 60, false, slice_of(NULL, 0));
        return;
    }
    job_begin(j);
}

static void delivery_wants_refill(struct delivery *d)
{
    bool more = !backlog_empty(d->backlog) ||
                (!backlog_empty(d->suspects) && d->suspect_count < SUSPECTS_ACTIVE_MAX);
    d->refill = more && d->job_count < JOBS_ACTIVE_MAX && d->read_count < ENVELOPE_READS_MAX;
}

static void job_envelope_read(struct lane_envelope_read *r, const struct envelope *env,
                              struct slice error, const struct why *why)
{
    struct job *j = container_of(r, struct job, read);
    struct shard *sh = j->delivery->shard;
    struct log_line line;
    char qid[QID_TEXT_MAX];
    j->delivery->read_count--;
    delivery_wants_refill(j->delivery);
    if (env) {
        j->env = *env;
        j->last_error = error;
        if (job_rcpts_alloc(j)) {
            job_begin(j);
            return;
        }
    }
    struct lane *l = j->lane;
    struct queue_msg *m = j->m;
    bool damaged = !env && r->damaged;
    log_begin(&line, &sh->log, damaged ? EV_POISON : EV_DAMAGED);
    log_str(&line, "qid", qid_text(m->qid, qid));
    log_str(&line, "reason", env ? "out of memory" : why->text);
    log_end(&line);
    job_end(j);
    if (!damaged) { /* memory, or a disk that may yet give its bytes */
        lane_defer(l, m, lane_wall_s(l) + 60, false, slice_of(NULL, 0));
        return;
    }
    metric_add(sh->metrics, M_POISONED, 1);
    lane_set_aside(l, m, QUEUE_POISON, slice_str(why->text));
}

static void job_read(struct job *j)
{
    j->delivery->read_count++;
    j->read.done = job_envelope_read;
    lane_envelope_read(j->lane, j->m, &j->read, &j->arena);
}

/*
 * With a deep queue thousands are due at once. The first of them are on their way while the rest
 * wait to be read: what a connection hears is not to come behind them all.
 */
void delivery_due(struct delivery *d, struct lane *l, struct queue_msg *m)
{
    if (m->owner)
        return;
    bool later = is_suspect(m) && d->suspect_count >= SUSPECTS_ACTIVE_MAX;
    bool now = !later && !d->draining && d->read_count < ENVELOPE_READS_MAX;
    struct job *j = now ? job_create(d, l, m) : NULL;
    if (j)
        job_read(j);
    else if (!backlog_push(later ? d->suspects : d->backlog, m->qid))
        lane_defer(l, m, lane_wall_s(l) + 60, false, slice_of(NULL, 0));
}

void delivery_operate(struct delivery *d, struct lane *l, struct queue_msg *m, bool remove)
{
    uint32_t all[64];
    if (remove &&
        m->rcpt_count <= 64) { /* no envelope needed: also while the spool or memory is full */
        uint32_t count = 0;
        for (uint32_t i = 0; i < m->rcpt_count; i++)
            if (!queue_msg_rcpt_is_final(m, i))
                all[count++] = i;
        lane_rcpts_final(l, m, all, count, RCPT_REMOVED);
        return;
    }
    struct job *j = d->draining ? NULL : job_create(d, l, m);
    if (!j)
        return;
    j->remove_asked = remove;
    j->bounce_asked = !remove;
    job_read(j);
}

static bool delivery_next(struct delivery *d, uint64_t *qid)
{
    if (d->suspect_count < SUSPECTS_ACTIVE_MAX && backlog_pop(d->suspects, qid))
        return true;
    return backlog_pop(d->backlog, qid);
}

/* Jobs ended: messages from the backlog may begin. */
static void delivery_refill(struct delivery *d)
{
    uint64_t qid;
    uint32_t room = JOBS_ACTIVE_MAX - d->job_count; /* what comes back for want of memory waits */
    while (!d->draining && room-- > 0 && d->read_count < ENVELOPE_READS_MAX &&
           delivery_next(d, &qid)) {
        for (uint32_t i = 0; i < d->shard->lane_count; i++) {
            struct queue_msg *m = lane_find(d->shard->lanes[i], qid);
            if (m && m->owner == &d->shard->admin_owner && !m->schedule_index) {
                if (!backlog_push(d->backlog, qid)) /* looked at by an operator just now */
                    lane_defer(d->shard->lanes[i], m, lane_wall_s(d->shard->lanes[i]) + 60, false,
                               slice_of(NULL, 0));
                break;
            }
            if (m && !m->owner && !m->schedule_index &&
                !queue_state_rests((enum queue_state)m->state)) {
                delivery_due(d, d->shard->lanes[i], m);
                break;
            }
        }
    }
    delivery_wants_refill(d);
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

/* ---- life ---- */

struct delivery *delivery_create(struct shard *s)
{
    struct delivery *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->shard = s;
    list_init(&d->jobs);
    list_init(&d->sites);
    list_init(&d->reap);
    list_init(&d->run_queue);
    d->backlog = backlog_create();
    d->suspects = backlog_create();
    slab_init(&d->job_slab, "jobs", sizeof(struct job), JOBS_ACTIVE_MAX);
    slab_init(&d->task_slab, "tasks", sizeof(struct task), JOBS_ACTIVE_MAX * 4);
    slab_init(&d->site_slab, "sites", sizeof(struct site), SITE_COUNT_MAX);
    slab_init(&d->hop_slab, "hops", sizeof(struct hop), OUT_HOPS_MAX);
    slab_init(&d->wire_slab, "outbound buffers", OUT_WIRE_BUF_SIZE, OUT_HOPS_MAX);
    slab_init(&d->body_slab, "body buffers", OUT_BODY_READ_SIZE, OUT_HOPS_MAX);
    slab_init(&d->mx_slab, "MX lists", sizeof(struct mx_list), SITE_COUNT_MAX);
    if (!d->backlog || !d->suspects) {
        free(d);
        return NULL;
    }
    return d;
}

void delivery_turn_end(struct delivery *d)
{
    hops_reap(d);
    handoff_more(d);
    if (d->failback) {
        d->failback = false;
        sites_failback(d);
    }
    if (d->refill) {
        d->refill = false;
        delivery_refill(d);
    }
}

void delivery_tick(struct delivery *d)
{
    sites_sweep(d);
    homes_sweep(d, false);
    handoff_tick(d);
}

uint64_t delivery_work(const struct delivery *d)
{
    return (uint64_t)d->job_count + !backlog_empty(d->backlog) + handoff_left(d);
}

bool delivery_drain(struct delivery *d, bool force)
{
    d->draining = true;
    d->handoff.on = false;
    sites_drain(d, force);
    return d->job_count == 0 && d->hop_count == 0;
}

void delivery_destroy(struct delivery *d)
{
    io_timer_clear(d->shard->io, &d->reroute);
    sites_destroy(d);
    homes_sweep(d, true);
    backlog_destroy(d->backlog);
    backlog_destroy(d->suspects);
    slab_destroy(&d->job_slab, false);
    slab_destroy(&d->task_slab, false);
    slab_destroy(&d->hop_slab, false);
    slab_destroy(&d->wire_slab, false);
    slab_destroy(&d->body_slab, false);
    slab_destroy(&d->site_slab, false);
    slab_destroy(&d->mx_slab, false);
    free(d);
}
