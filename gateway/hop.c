/*
 * gateway/hop.c - one outbound connection: from the host's name to QUIT, and the tasks it
 * carries.
 *
 * Owns:     the hop (slab), its timer, its place in the site's lists.
 * Runs on:  the shard of the site.
 * Contract: a task on a hop ends with a verdict for each recipient, or goes back to the site when
 *           nothing of it can have reached the next hop: as the one does whose commands went out
 *           behind another's final dot. Lost after that: deferred and said (dup_possible), never
 *           dropped.
 * Failure:  a host that does not get us to READY is down for the site; others are tried (FAULTS
 *           79, 81, 85).
 * Bounds:   OUT_*_NS per phase; OUT_HOPS_MAX connections; max_messages_per_connection.
 * Tests:    tests/system (next hops, scripted faults)
 */
#include "gateway/base/plant.h"
#include "gateway/delivery.h"

#include <assert.h>

static const uint8_t hop_edges[] = {
    [HOP_RESOLVE] = 1 << HOP_CONNECT | 1 << HOP_CLOSING,
    [HOP_CONNECT] = 1 << HOP_CONNECT | 1 << HOP_SMTP | 1 << HOP_CLOSING,
    [HOP_TLS] = 1 << HOP_SMTP | 1 << HOP_CLOSING,
    [HOP_SMTP] = 1 << HOP_TLS | 1 << HOP_CLOSING,
    [HOP_CLOSING] = 0,
};

void hop_set_state(struct hop *h, enum hop_state state)
{
    assert(h->magic == HOP_MAGIC);
    assert(hop_edges[h->state] & 1u << state);
    h->state = state;
}

/* ---- life ---- */

static void hop_free(struct hop *h)
{
    struct site *s = h->site;
    struct delivery *d = s->delivery;
    hop_io_free(h);
    watch_close(h->watch, h->fd < 0 ? "not connected"
                          : h->eof  ? "the next hop closed"
                                    : "we closed");
    if (h->fd >= 0)
        io_close(hop_io(h), h->fd);
    if (h->tls)
        tls_conn_free(h->tls);
    io_timer_clear(hop_io(h), &h->timer);
    list_remove(&h->link);
    list_remove(&h->run_link);
    d->hop_count--;
    metric_set(d->shard->metrics, M_OUT_OPEN, d->hop_count);
    h->magic = 0;
    slab_free(&d->hop_slab, h);
    s->hop_count--;
    if (!PLANT(PERMIT_LEAK) || h->fd >= 0)
        permit_give(&s->permit);
    site_pump(s);
}

void hops_reap(struct delivery *d)
{
    struct list *l;
    while ((l = list_pop_front(&d->reap)))
        hop_free(container_of(l, struct hop, reap_link));
}

void hop_op_ended(struct hop *h)
{
    if (h->state != HOP_CLOSING || h->reaping || hop_io_busy(h))
        return;
    h->reaping = true;
    list_push_back(&h->site->delivery->reap, &h->reap_link);
}

static void hop_tell(struct hop *h, enum site_outcome outcome)
{
    struct site *s = h->site;
    bool was_down = s->hosts.hosts[h->host].down;
    site_report(&s->hosts, h->host, outcome, io_now_ns(hop_io(h)), &s->delivery->shard->chance);
    if (was_down && !s->hosts.hosts[h->host].down)
        s->delivery->failback = true; /* mail that waits for a second choice comes back */
}

/* The host's account is settled: what this connection tells of its health, and its place among
 * connections_max. */
static void hop_report(struct hop *h, enum site_outcome outcome)
{
    struct site *s = h->site;
    if (h->reported || h->hosts_version != s->hosts_version)
        return;
    h->reported = true;
    hop_tell(h, outcome);
}

/* A message that it took tells as much as a greeting: one connection may be all that there is. */
static void hop_report_taken(struct hop *h)
{
    struct site *s = h->site;
    if (h->hosts_version == s->hosts_version && s->hosts.hosts[h->host].down)
        hop_tell(h, SITE_UP);
}

/* None of its message went out: somebody else may take it. */
static void hop_ahead_back(struct hop *h)
{
    struct task *t = h->ahead;
    h->ahead = NULL;
    if (t)
        site_task_back(t);
}

void hop_close(struct hop *h)
{
    struct site *s = h->site;
    if (h->state == HOP_CLOSING)
        return;
    assert(h->task == NULL);
    hop_set_state(h, HOP_CLOSING);
    hop_ahead_back(h);
    list_remove(&h->idle_link);
    if (!h->ready) {
        h->ready = true;
        s->opening--;
    }
    hop_report(h, SITE_NEUTRAL);
    if (h->hosts_version == s->hosts_version)
        site_release(&s->hosts, h->host);
    else
        s->hosts.connections--;
    if (h->query_running)
        dns_cancel(&h->query);
    h->query_running = false;
    if (io_op_running(&h->connect))
        io_cancel(hop_io(h), &h->connect);
    if (io_op_running(&h->recv))
        io_cancel(hop_io(h), &h->recv);
    if (io_op_running(&h->send))
        io_cancel(hop_io(h), &h->send);
    hop_op_ended(h);
}

void hop_touch(struct hop *h)
{
    h->deadline_ns = io_now_ns(hop_io(h)) + hop_phase_limit_ns(h);
    if (!timer_is_set(&h->timer) || h->timer.deadline_ns > h->deadline_ns)
        io_timer_set(hop_io(h), &h->timer, h->deadline_ns);
}

uint64_t hop_phase_limit_ns(const struct hop *h)
{
    if (h->state == HOP_RESOLVE || h->state == HOP_CONNECT || h->state == HOP_TLS)
        return OUT_CONNECT_NS;
    if (h->quitting)
        return OUT_QUIT_NS;
    if (!h->task && h->ready)
        return OUT_IDLE_KEEP_NS;
    switch (h->smtp.phase) {
    case SMTP_OUT_AT_BANNER: return OUT_GREETING_NS;
    case SMTP_OUT_AT_DATA: return OUT_DATA_INIT_NS;
    case SMTP_OUT_AT_BODY: return OUT_DATA_BLOCK_NS;
    case SMTP_OUT_AT_EOD:
        return h->ahead        ? OUT_AHEAD_NS
               : h->smtp.ahead ? OUT_FINAL_DOT_NS - OUT_AHEAD_NS
                               : OUT_FINAL_DOT_NS;
    default: return OUT_COMMAND_NS;
    }
}

void hop_timer_fired(struct timer *t)
{
    struct hop *h = container_of(t, struct hop, timer);
    struct why why;
    if (h->state == HOP_CLOSING)
        return;
    if (io_now_ns(hop_io(h)) < h->deadline_ns) { /* several moves a message, one look in a while */
        io_timer_set(hop_io(h), &h->timer, h->deadline_ns);
        return;
    }
    if (h->quitting) {
        hop_close(h);
    } else if (io_op_running(&h->connect)) {
        io_cancel(hop_io(h), &h->connect); /* hop_connected goes on with the next address */
    } else if (!h->task && h->ready) {
        hop_quit(h);
    } else if (h->ahead) { /* the answer to the final dot takes long: others may be quicker */
        hop_ahead_back(h);
        hop_touch(h);
        site_pump(h->site);
    } else if (h->state == HOP_SMTP) {
        bool at_eod = h->smtp.phase == SMTP_OUT_AT_EOD;
        smtp_out_lost(&h->smtp, "Timed out waiting for a reply");
        hop_run(h);
        if (h->state == HOP_SMTP) { /* a next hop that does not read: no room to step in */
            why_set(&why, 451, "4.4.2", "Timed out waiting for the next hop to read");
            hop_failed(h, &why, false, at_eod);
        }
    } else {
        why_set(&why, 451, "4.4.1", "Timed out %s",
                h->state == HOP_TLS ? "in the TLS handshake" : "looking up its address");
        hop_failed(h, &why, true, false);
    }
}

/* ---- tasks ---- */

static bool task_prepare(struct task *t)
{
    struct job *j = t->job;
    if (j->handoff)
        return handoff_prepare(t);
    if (!t->out_rcpts)
        t->out_rcpts = arena_alloc_large(&j->arena, sizeof *t->out_rcpts * t->rcpt_count);
    if (!t->out_rcpts)
        return false;
    for (uint32_t i = 0; i < t->rcpt_count; i++) {
        const struct envelope_rcpt *r = &j->env.rcpts[t->rcpts[i]];
        t->out_rcpts[i] =
            (struct smtp_out_rcpt){.mailbox = r->mailbox, .orcpt = r->orcpt, .notify = r->notify};
    }
    t->tx = (struct smtp_out_tx){
        .sender = j->env.sender,
        .size = j->m->body_size,
        .body_8bit = j->env.flags & ENVELOPE_8BIT,
        .smtputf8 = j->env.flags & ENVELOPE_SMTPUTF8,
        .ret = j->env.flags & ENVELOPE_RET_FULL   ? SMTP_RET_FULL
               : j->env.flags & ENVELOPE_RET_HDRS ? SMTP_RET_HDRS
                                                  : SMTP_RET_NONE,
        .envid = j->env.envid,
        .rcpts = t->out_rcpts,
        .rcpt_count = t->rcpt_count,
    };
    return true;
}

/* ---- noting the attempt (queue/FORMAT.md section 10) ---- */

void hop_begin(struct hop *h)
{
    smtp_out_begin(&h->smtp, &h->task->tx);
    hop_touch(h);
    hop_run(h);
}

static void hop_unnote(struct hop *h)
{
    lane_wait_cancel(&h->noted);
    h->noting = HOP_NOTE_NONE;
    h->dot_noted = false;
}

static void hop_noted(struct lane_wait *w, bool ok)
{
    struct hop *h = container_of(w, struct hop, noted);
    enum hop_noting what = h->noting;
    struct why why;
    h->noting = HOP_NOTE_NONE;
    if (what == HOP_NOTE_GIVEN && ok) {
        handoff_go_on(h);
    } else if (what == HOP_NOTE_BEGIN) { /* deliveries go on also where nothing can be written */
        hop_begin(h);
    } else if (ok) {
        h->dot_noted = true;
        hop_run(h);
    } else {
        why_set(&why, 451, "4.3.0", "The spool cannot be written, so the attempt is not noted");
        hop_failed(h, &why, false, false);
    }
}

void hop_note(struct hop *h, enum hop_noting what)
{
    h->noting = (uint8_t)what;
    h->noted.done = hop_noted;
    lane_when_durable(h->task->job->lane, &h->noted);
}

bool hop_note_dot(struct hop *h)
{
    struct job *j = h->task->job;
    if (j->handoff)
        return true;
    if (h->noting != HOP_NOTE_NONE)
        return false;
    if (h->dot_noted)
        return true;
    lane_attempt(j->lane, j->m, ATTEMPT_DOT);
    h->dot_noted = h->site->send->conf->on_uncertain == CONFIG_UNCERTAIN_RETRY;
    if (!h->dot_noted)
        hop_note(h, HOP_NOTE_DOT);
    return h->dot_noted;
}

static void why_from_reply(struct why *why, const struct smtp_reply *r)
{
    const char *enhanced = r->enhanced;
    if (!enhanced[0])
        enhanced = r->code >= 500 ? "5.0.0" : r->code >= 400 || !r->code ? "4.4.2" : "2.0.0";
    why_say(why, r->code ? r->code : 451, enhanced, slice_str(r->text));
}

static struct job_via hop_via(const struct hop *h, uint64_t elapsed_ns, char tls[TLS_TEXT_MAX])
{
    struct tls_facts facts;
    if (h->tls)
        tls_facts(h->tls, &facts);
    return (struct job_via){.send = h->site->send,
                            .remote = h->remote,
                            .tls = h->tls ? tls_facts_text(&facts, tls) : NULL,
                            .elapsed_ns = elapsed_ns};
}

/* Every recipient of the task that has no verdict yet gets this one, and the task ends. */
static void hop_task_end(struct hop *h, const struct why *why, uint64_t elapsed_ns)
{
    struct task *t = h->task;
    struct job *j = t->job;
    enum rcpt_state state = why->smtp_code < 300   ? RCPT_DONE
                            : why->smtp_code < 500 ? RCPT_DEFER
                                                   : RCPT_FAIL;
    char tls[TLS_TEXT_MAX];
    const struct job_via via = hop_via(h, elapsed_ns, tls);
    histogram_add(&site_series(h->site)->attempt, io_now_ns(hop_io(h)) - h->task_start_ns);
    for (uint32_t i = 0; i < t->rcpt_count; i++) {
        if (j->rcpts[t->rcpts[i]].state != RCPT_IN_TASK)
            continue;
        job_rcpt_done(j, t->rcpts[i], state, why, &via);
        if (state == RCPT_DONE) {
            h->site->delivered++;
            if (j->env.rcpts[t->rcpts[i]].notify & SMTP_NOTIFY_SUCCESS && !h->smtp.dsn)
                job_rcpt_relayed(j, t->rcpts[i], why, h->remote);
        } else {
            h->site->deferred += state == RCPT_DEFER;
        }
    }
    h->task = NULL;
    hop_unnote(h);
    job_task_done(t);
}

/* Of a first attempt: how long the message waited for it. */
static void hop_count_first(struct hop *h, const struct job *j)
{
    uint64_t now = io_wall_ns(hop_io(h));
    if (j->m && !j->handoff && j->m->attempts == 0)
        histogram_add(&site_series(h->site)->first,
                      now > j->durable_wall_ns ? now - j->durable_wall_ns : 0);
}

static void hop_note_message(struct hop *h, const struct task *t)
{
    char qid[QID_TEXT_MAX];
    if (h->watch && t->job->m)
        watch_note(h->watch, slice_str(qid_text(t->job->m->qid, qid)), "message");
}

void hop_take(struct hop *h, struct task *t)
{
    struct why why;
    assert(!h->task && t);
    h->task = t;
    t->hop = h;
    h->task_start_ns = io_now_ns(hop_io(h));
    if (!task_prepare(t)) {
        why_set(&why, 451, "4.3.1", "Out of memory");
        hop_task_end(h, &why, 0);
        hop_quit(h);
        return;
    }
    h->messages++;
    hop_count_first(h, t->job);
    if (!h->smtp.ahead)
        hop_note_message(h, t);
    if (t->job->handoff) {
        if (t->job->m && t->job->m->state == QUEUE_GIVEN)
            hop_note(h, HOP_NOTE_GIVEN);
        else
            hop_begin(h);
        return;
    }
    lane_attempt(t->job->lane, t->job->m, ATTEMPT_BEGUN);
    if (t->job->m->careful)
        hop_note(h, HOP_NOTE_BEGIN);
    else
        hop_begin(h);
}

/* It takes no more tasks. */
static bool hop_is_over(const struct hop *h)
{
    const struct site *s = h->site;
    uint32_t max = s->send->conf->messages_per_connection_max;
    return (max && h->messages >= max) || site_is_drained(s) || permit_is_over(&s->permit) ||
           site_is_over(s) ||
           (h->hosts_version == s->hosts_version &&
            site_has_better(&s->hosts, h->host, io_now_ns(hop_io(h))));
}

/*
 * Only where the server was quick: a task whose commands are out waits for this connection, while
 * others may be free before it. And only a task that needs no care: suspects are counted, and one
 * that was found after a crash begins when its attempt is durable (queue/FORMAT.md section 10).
 */
void hop_dot_sent(struct hop *h)
{
    struct site *s = h->site;
    struct task *t = site_first_task(s);
    h->dot_ns = io_now_ns(hop_io(h));
    if (!t || !h->quick || !h->smtp.pipelining || hop_is_over(h) || t->job->handoff ||
        h->task->job->handoff || t->job->suspect || t->job->m->careful)
        return;
    t = site_next_task(s);
    hop_note_message(h, t);
    if (!task_prepare(t) || !hop_send_ahead(h, &t->tx)) {
        site_task_back(t);
        return;
    }
    h->ahead = t;
    t->hop = h;
    lane_attempt(t->job->lane, t->job->m, ATTEMPT_BEGUN);
}

/* Ready for a task: the next one, a short wait for one, or QUIT. */
static void hop_next(struct hop *h)
{
    struct site *s = h->site;
    struct task *t = h->ahead;
    if (hop_is_over(h) || (h->smtp.ahead && !t)) {
        hop_quit(h);
    } else if (t) {
        h->ahead = NULL;
        hop_take(h, t);
    } else if ((t = site_next_task(s))) {
        hop_take(h, t);
    } else {
        list_push_back(&s->idle, &h->idle_link);
        hop_touch(h);
    }
}

void hop_quit(struct hop *h)
{
    list_remove(&h->idle_link);
    if (h->quitting || h->state != HOP_SMTP)
        return;
    h->quitting = true;
    hop_send_quit(h);
    hop_touch(h);
}

/* ---- events ---- */

/* Opportunistic TLS that fails is not worth losing the mail for: the host is asked again without
 * (FAULTS 79). */
static bool hop_retry_in_clear(struct hop *h, bool in_tls)
{
    struct site *s = h->site;
    if (!in_tls || h->in_clear || s->send->smtp.tls != SMTP_OUT_TLS_OPPORTUNISTIC ||
        s->send->smtp.auth_mechanism || /* no password in clear for somebody who breaks our TLS */
        h->hosts_version != s->hosts_version)
        return false;
    s->in_clear |= 1u << h->host;
    s->in_clear_until_ns = io_now_ns(hop_io(h)) + 600 * NS_PER_S;
    return true;
}

void hop_failed(struct hop *h, const struct why *why, bool host_is_down, bool data_sent)
{
    struct site *s = h->site;
    struct shard *sh = s->delivery->shard;
    struct why kept = *why;
    bool in_tls = h->state == HOP_TLS || h->smtp.phase == SMTP_OUT_AT_STARTTLS;
    if (h->state == HOP_CLOSING || h->failing)
        return;
    if (h->read_running) { /* hop_body_read_done comes back here */
        h->failing = true;
        h->fail_why = *why;
        h->fail_down = host_is_down;
        h->fail_data_sent = data_sent;
        return;
    }
    if (kept.smtp_code == 0)
        kept.smtp_code = 451;
    site_note_error(s, &kept, h->remote);
    if (h->watch)
        watch_note(h->watch, slice_str(kept.text), "failed");
    if (!h->ready) {
        metric_add(sh->metrics, M_OUT_CONNECT_FAILED, 1);
        series_add(&site_series(s)->count[SS_CONNECT_FAILED], 1);
        if (in_tls && h->state == HOP_TLS)
            series_add(&site_series(s)->count[SS_TLS_FAILED], 1);
        if (hop_retry_in_clear(h, in_tls && h->state != HOP_CONNECT))
            host_is_down = false;
    }
    if (host_is_down)
        hop_report(h, SITE_DOWN);
    if (h->task) {
        if (data_sent && !h->task->job->handoff) {
            struct log_line line;
            char qid[QID_TEXT_MAX];
            bool hold = s->send->conf->on_uncertain == CONFIG_UNCERTAIN_HOLD;
            log_begin(&line, &sh->log, hold ? EV_HELD : EV_DUP_POSSIBLE);
            log_str(&line, "qid", qid_text(h->task->job->m->qid, qid));
            log_str(&line, "remote", h->remote);
            log_str(&line, "reply", kept.text);
            log_end(&line);
            metric_add(sh->metrics, M_DUP_POSSIBLE, 1);
            h->task->job->hold_asked |= hold;
        }
        if (PLANT(EAGER_FINAL) && data_sent)
            kept.smtp_code = 250;
        hop_task_end(h, &kept, 0);
    }
    hop_close(h);
}

/* A refused recipient. Too many at once (452 after others were taken): the rest goes in a
 * transaction of its own. */
static void hop_rcpt(struct hop *h, const struct smtp_out_event *ev)
{
    struct task *t = h->task;
    struct job *j = t->job;
    uint32_t rcpt = t->rcpts[ev->rcpt];
    struct why why;
    if (ev->reply.code < 300) {
        h->rcpts_taken++;
        return;
    }
    why_from_reply(&why, &ev->reply);
    if (ev->reply.code == 452 && h->rcpts_taken > 0) {
        j->rcpts[rcpt].state = RCPT_PENDING;
        return;
    }
    char tls[TLS_TEXT_MAX];
    const struct job_via via = hop_via(h, 0, tls);
    job_rcpt_done(j, rcpt, ev->reply.code < 500 ? RCPT_DEFER : RCPT_FAIL, &why, &via);
}

static void hop_tx_done(struct hop *h, const struct smtp_out_event *ev)
{
    struct why why;
    struct site *s = h->site;
    why_from_reply(&why, &ev->reply);
    if (why.smtp_code >= 400)
        site_note_error(s, &why, h->remote);
    else
        hop_report_taken(h);
    h->quick = ev->phase == SMTP_OUT_AT_EOD && io_now_ns(hop_io(h)) - h->dot_ns < OUT_AHEAD_NS;
    if (h->task->job->handoff && !handoff_replied(h, &why))
        return;
    hop_task_end(h, &why, io_now_ns(hop_io(h)) - h->task_start_ns);
    h->rcpts_taken = 0;
    if (h->state == HOP_SMTP && !h->quitting)
        hop_next(h);
}

static void hop_ready(struct hop *h)
{
    if (!h->ready) {
        h->ready = true;
        h->site->opening--;
        series_add(&site_series(h->site)->count[SS_READY], 1);
        if (!h->tls)
            series_add(&site_series(h->site)->count[SS_CLEAR], 1);
        hop_report(h, SITE_UP);
    }
    if (!h->task && list_empty(&h->idle_link))
        hop_next(h);
}

static void hop_smtp_failed(struct hop *h, const struct smtp_out_event *ev)
{
    struct why why;
    bool early = ev->phase <= SMTP_OUT_AT_AUTH;
    why_from_reply(&why, &ev->reply);
    why.smtp_code = ev->reply.code; /* 0: lost, not refused */
    if (early && why.smtp_code >= 500)
        why.smtp_code = 451; /* the host's fault or ours, never the message's (FAULTS 85) */
    /* A kept connection that the next hop closed meanwhile is not this message's fault. Only behind
     * a message that got through or was refused, so that there is an end to it. */
    bool lost = ev->reply.code == 0 || ev->reply.code == 421;
    if (h->task && h->messages > 1 && lost && !h->read_running &&
        (ev->phase == SMTP_OUT_AT_MAIL || ev->phase == SMTP_OUT_AT_IDLE)) {
        struct task *t = h->task;
        h->task = NULL;
        hop_unnote(h);
        site_task_back(t);
    }
    hop_failed(h, &why, early || ev->reply.code == 421, ev->data_sent);
}

void hop_event(struct hop *h, struct smtp_out_event *ev)
{
    switch (ev->kind) {
    case SMTP_OUT_STARTTLS: hop_tls_begin(h); break;
    case SMTP_OUT_READY: hop_ready(h); break;
    case SMTP_OUT_RCPT: hop_rcpt(h, ev); break;
    case SMTP_OUT_SEND_BODY: hop_body_begin(h); break;
    case SMTP_OUT_TX_DONE: hop_tx_done(h, ev); break;
    case SMTP_OUT_FAILED: hop_smtp_failed(h, ev); break;
    case SMTP_OUT_CLOSED: hop_close(h); break;
    case SMTP_OUT_NEED_INPUT:
    case SMTP_OUT_FLUSH: break;
    }
}
