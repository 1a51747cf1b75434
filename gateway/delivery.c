/*
 * gateway/delivery.c - jobs: one attempt to deliver one message, from its envelope to its routes.
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
        const struct job_via via = {.send = s->send, .remote = s->last_remote};
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
    j->durable_wall_ns = io_wall_ns(d->shard->io);
    if (!job_rcpts_alloc(j)) {
        job_end(j);
        lane_defer(l, m, lane_wall_s(l) + 60, false, slice_of(NULL, 0));
        return;
    }
    job_begin(j);
}

void delivery_wants_refill(struct delivery *d)
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
        j->durable_wall_ns = env->accepted_wall_ns; /* nearly */
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
