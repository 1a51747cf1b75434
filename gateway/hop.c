/*
 * gateway/hop.c - one outbound connection: its life, its limits of time, and what it tells of its
 * host's health.
 *
 * Owns:     the hop (slab), its timer, its place in the site's lists.
 * Runs on:  the shard of the site.
 * Contract: a host hears of each connection once, up, down or neither. When a connection fails its
 *           task gets its verdict: deferred, and said (dup_possible) when it was lost behind the
 *           final dot; never dropped.
 * Failure:  a host that does not get us to READY is down for the site; others are tried (FAULTS
 *           79, 81, 85).
 * Bounds:   OUT_*_NS per phase; OUT_HOPS_MAX connections.
 * Tests:    tests/system/test_hop_faults.py, test_next_hops.py, test_delivery.py, tests/sim
 */
#include <assert.h>

#include "gateway/base/plant.h"
#include "gateway/hop_internal.h"

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

/* Once, and nothing where the site's hosts were replaced meanwhile. */
static void hop_report(struct hop *h, enum site_outcome outcome)
{
    struct site *s = h->site;
    if (h->reported || h->hosts_version != s->hosts_version)
        return;
    h->reported = true;
    hop_tell(h, outcome);
}

void hop_report_taken(struct hop *h)
{
    struct site *s = h->site;
    if (h->hosts_version == s->hosts_version && s->hosts.hosts[h->host].down)
        hop_tell(h, SITE_UP);
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

static uint64_t hop_phase_limit_ns(const struct hop *h)
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

void hop_touch(struct hop *h)
{
    h->deadline_ns = io_now_ns(hop_io(h)) + hop_phase_limit_ns(h);
    if (!timer_is_set(&h->timer) || h->timer.deadline_ns > h->deadline_ns)
        io_timer_set(hop_io(h), &h->timer, h->deadline_ns);
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

void hop_quit(struct hop *h)
{
    list_remove(&h->idle_link);
    if (h->quitting || h->state != HOP_SMTP)
        return;
    h->quitting = true;
    hop_send_quit(h);
    hop_touch(h);
}

/* ---- the end, and what leads to it ---- */

/* Opportunistic TLS that fails is not worth losing the mail for: the host is asked again without
 * (FAULTS 79). */
static bool hop_retry_in_clear(struct hop *h)
{
    struct site *s = h->site;
    if (h->in_clear || s->send->smtp.tls != SMTP_OUT_TLS_OPPORTUNISTIC ||
        s->send->smtp.auth_mechanism || /* no password in clear for somebody who breaks our TLS */
        h->hosts_version != s->hosts_version)
        return false;
    s->in_clear |= 1u << h->host;
    s->in_clear_until_ns = io_now_ns(hop_io(h)) + OUT_IN_CLEAR_NS;
    return true;
}

/* Lost behind the final dot: the next hop may have the message, or not. */
static void hop_uncertain(struct hop *h, const struct why *why)
{
    struct shard *sh = h->site->delivery->shard;
    struct job *j = h->task->job;
    bool hold = h->site->send->conf->on_uncertain == CONFIG_UNCERTAIN_HOLD;
    struct log_line line;
    char qid[QID_TEXT_MAX];
    log_begin(&line, &sh->log, hold ? EV_HELD : EV_DUP_POSSIBLE);
    log_str(&line, "qid", qid_text(j->m->qid, qid));
    log_str(&line, "remote", h->remote);
    log_str(&line, "reply", why->text);
    log_end(&line);
    metric_add(sh->metrics, M_DUP_POSSIBLE, 1);
    j->hold_asked |= hold;
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
        if (h->state == HOP_TLS)
            series_add(&site_series(s)->count[SS_TLS_FAILED], 1);
        if (in_tls && hop_retry_in_clear(h))
            host_is_down = false;
    }
    if (host_is_down)
        hop_report(h, SITE_DOWN);
    if (h->task) {
        if (data_sent && !h->task->job->handoff)
            hop_uncertain(h, &kept);
        if (PLANT(EAGER_FINAL) && data_sent)
            kept.smtp_code = 250;
        hop_task_end(h, &kept, 0);
    }
    hop_close(h);
}

/* ---- events ---- */

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
    hop_why(&why, &ev->reply);
    why.smtp_code = ev->reply.code; /* 0: lost, not refused */
    if (early && why.smtp_code >= 500)
        why.smtp_code = 451; /* the host's fault or ours, never the message's (FAULTS 85) */
    /* A kept connection that the next hop closed meanwhile is not this message's fault. Only behind
     * a message that got through or was refused, so that there is an end to it. */
    bool lost = ev->reply.code == 0 || ev->reply.code == 421;
    if (h->task && h->messages > 1 && lost && !h->read_running &&
        (ev->phase == SMTP_OUT_AT_MAIL || ev->phase == SMTP_OUT_AT_IDLE))
        hop_task_back(h);
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
