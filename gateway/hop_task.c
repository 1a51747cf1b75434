/*
 * gateway/hop_task.c - the tasks that an outbound connection carries: each from its beginning to
 * its verdicts, and then the next.
 *
 * Owns:     hop.task, hop.ahead, and what waits for the lane to note an attempt.
 * Runs on:  the shard of the site.
 * Contract: a task ends with a verdict for each of its recipients, or goes back to the site when
 *           nothing of it can have reached the next hop: as the one does whose commands went out
 *           behind another's final dot. What has to be durable before it is said is noted first
 *           (queue/FORMAT.md section 10).
 * Failure:  an attempt that cannot be noted where that matters: the task is deferred. No memory for
 *           a transaction: the same, and QUIT.
 * Bounds:   one task, and one ahead of its turn; max_messages_per_connection.
 * Tests:    tests/system/test_delivery.py, test_attempts.py, tests/sim
 */
#include <assert.h>

#include "gateway/hop_internal.h"

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

/* ---- verdicts ---- */

void hop_why(struct why *why, const struct smtp_reply *r)
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

void hop_task_end(struct hop *h, const struct why *why, uint64_t elapsed_ns)
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

/* Too many at once (452 after others were taken): the rest goes in a transaction of its own. */
void hop_rcpt(struct hop *h, const struct smtp_out_event *ev)
{
    struct task *t = h->task;
    struct job *j = t->job;
    uint32_t rcpt = t->rcpts[ev->rcpt];
    struct why why;
    if (ev->reply.code < 300) {
        h->rcpts_taken++;
        return;
    }
    hop_why(&why, &ev->reply);
    if (ev->reply.code == 452 && h->rcpts_taken > 0) {
        j->rcpts[rcpt].state = RCPT_PENDING;
        return;
    }
    char tls[TLS_TEXT_MAX];
    const struct job_via via = hop_via(h, 0, tls);
    job_rcpt_done(j, rcpt, ev->reply.code < 500 ? RCPT_DEFER : RCPT_FAIL, &why, &via);
}

void hop_tx_done(struct hop *h, const struct smtp_out_event *ev)
{
    struct why why;
    struct site *s = h->site;
    hop_why(&why, &ev->reply);
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

/* ---- one task after the other ---- */

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

void hop_task_back(struct hop *h)
{
    struct task *t = h->task;
    h->task = NULL;
    hop_unnote(h);
    site_task_back(t);
}

void hop_ahead_back(struct hop *h)
{
    struct task *t = h->ahead;
    h->ahead = NULL;
    if (t)
        site_task_back(t);
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

void hop_next(struct hop *h)
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
