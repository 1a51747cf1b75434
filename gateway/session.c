/*
 * gateway/session.c - an inbound session's life: from accept to the last freed operation.
 *
 * Owns:     the session slots of a shard; each session's state, timers and place in the counts.
 * Runs on:  the shard that accepted the connection.
 * Contract: a session is freed only when no operation of it is in flight and no commit waits for
 *           it; a slot's generation grows at every reuse, so that late answers of workers find
 *           nobody.
 * Failure:  no slot or no memory: 421 4.7.0 where it can be said, and close.
 * Bounds:   SESSION_COUNT_MAX, SESSION_PER_ADDRESS_MAX, SESSION_IDLE_NS, SESSION_DATA_RATE_MIN,
 *           SESSION_LINGER_NS.
 * Tests:    tests/system (dialogs, interop, limits)
 */
#include "gateway/session.h"

#include <assert.h>
#include <stdlib.h>

#include "gateway/addr_counts.h"

static const uint8_t session_edges[] = {
    [SESSION_PROXY] = 1 << SESSION_OPEN | 1 << SESSION_LINGER | 1 << SESSION_CLOSING,
    [SESSION_HANDSHAKE] = 1 << SESSION_OPEN | 1 << SESSION_LINGER | 1 << SESSION_CLOSING,
    [SESSION_OPEN] = 1 << SESSION_HANDSHAKE | 1 << SESSION_LINGER | 1 << SESSION_CLOSING,
    [SESSION_LINGER] = 1 << SESSION_CLOSING,
    [SESSION_CLOSING] = 0,
};

void session_set_state(struct session *s, enum session_state state)
{
    assert(s->magic == SESSION_MAGIC);
    assert(session_edges[s->state] & 1u << state);
    s->state = state;
}

void session_touch(struct session *s)
{
    uint64_t limit =
        s->state == SESSION_HANDSHAKE ? SESSION_TLS_HANDSHAKE_NS : s->receive->conf->idle_ns;
    s->deadline_ns = io_now_ns(s->shard->io) + limit;
}

/* How long a client may bring less than SESSION_DATA_RATE_MIN. */
static uint64_t rate_window_ns(const struct session *s)
{
    uint64_t idle_ns = s->receive->conf->idle_ns;
    return idle_ns < SESSION_DATA_RATE_WINDOW_NS ? idle_ns : SESSION_DATA_RATE_WINDOW_NS;
}

void session_rate_begin(struct session *s)
{
    s->rate_start_ns = io_now_ns(s->shard->io);
    s->rate_bytes = 0;
    uint64_t look_ns = s->rate_start_ns + rate_window_ns(s);
    if (s->timer.deadline_ns > look_ns) /* mostly earlier: set once a window, not a message */
        io_timer_set(s->shard->io, &s->timer, look_ns);
}

void session_forget_account(struct session *s)
{
    if (s->account)
        slab_free(&s->shard->account_slab, s->account);
    s->account = NULL;
    s->user = NULL;
}

/* Gives everything back. */
static void session_free(struct session *s)
{
    struct shard *sh = s->shard;
    session_tx_drop(s);
    session_auth_drop(s);
    session_proxy_free(s);
    session_io_free(s);
    watch_close(s->watch, s->eof ? "the client closed" : "we closed");
    io_close(sh->io, s->fd);
    io_timer_clear(sh->io, &s->timer);
    io_timer_clear(sh->io, &s->delay);
    if (s->tls)
        tls_conn_free(s->tls);
    session_forget_account(s);
    if (s->counted)
        addr_counts_remove(sh->addr_counts, &s->peer);
    struct log_line line;
    log_begin(&line, &sh->log, EV_SESSION_CLOSE);
    log_str(&line, "session", s->id);
    log_u64(&line, "messages", s->smtp.messages);
    log_u64(&line, "commands", s->smtp.commands);
    log_end(&line);
    metric_add(sh->metrics, M_COMMANDS, s->smtp.commands);
    metric_add(sh->metrics, M_SESSIONS, (uint64_t)-1);
    sh->sessions[s->slot] = NULL;
    sh->session_free_slots[sh->session_free++] = s->slot;
    sh->session_count--;
    shard_config_unref(sh, s->config);
    s->magic = 0;
    slab_free(&sh->session_slab, s);
}

void sessions_reap(struct shard *sh)
{
    struct list *l;
    while ((l = list_pop_front(&sh->reap)))
        session_free(container_of(l, struct session, reap_link));
}

static void session_try_free(struct session *s)
{
    if (s->reaping || io_op_running(&s->recv) || io_op_running(&s->send) ||
        s->waits & SESSION_WAIT_COMMIT)
        return;
    s->reaping = true;
    list_push_back(&s->shard->reap, &s->reap_link);
}

static void session_close_now(struct session *s)
{
    s->hard_close = true;
    if (s->state != SESSION_CLOSING)
        session_set_state(s, SESSION_CLOSING);
    if (io_op_running(&s->recv))
        io_cancel(s->shard->io, &s->recv);
    if (io_op_running(&s->send))
        io_cancel(s->shard->io, &s->send);
    session_try_free(s);
}

bool session_is_over(const struct session *s)
{
    return s->smtp.quit && !s->tls && !s->recv_paused && held_empty(&s->held);
}

/*
 * After the last reply our side is shut down and the peer gets SESSION_LINGER_NS to close, so that
 * a reply is not lost to a reset caused by input that nobody read.
 */
static void session_linger(struct session *s)
{
    session_tx_drop(s);
    if (s->hard_close || s->eof || session_is_over(s)) {
        session_close_now(s);
        return;
    }
    if (!s->end_sent)
        io_shutdown(s->shard->io, s->fd);
    s->deadline_ns = io_now_ns(s->shard->io) + SESSION_LINGER_NS;
    io_timer_set(s->shard->io, &s->timer, s->deadline_ns);
}

void session_finish(struct session *s, bool hard)
{
    s->hard_close |= hard;
    if (s->state == SESSION_CLOSING)
        return;
    if (s->state != SESSION_LINGER) {
        session_set_state(s, SESSION_LINGER);
        session_tls_notify(s);
        s->deadline_ns = io_now_ns(s->shard->io) + SESSION_LAST_REPLY_NS;
        io_timer_set(s->shard->io, &s->timer, s->deadline_ns);
    }
    session_flush(s); /* session_output_done() goes on from there */
}

/* Called by session_io when nothing is left to send, and when an operation ended. */
void session_output_done(struct session *s)
{
    if (s->state == SESSION_LINGER)
        session_linger(s);
}

void session_op_ended(struct session *s)
{
    if (s->state == SESSION_CLOSING)
        session_try_free(s);
    else if (s->state == SESSION_LINGER && s->eof && !io_op_running(&s->send))
        session_close_now(s);
}

void session_abandon(struct session *s, const struct why *why)
{
    if (s->state == SESSION_OPEN && !(s->waits & SESSION_WAIT_COMMIT)) {
        struct buf out;
        if (session_out_begin(s, &out)) {
            smtp_in_shutdown(&s->smtp, &out, why);
            session_out_end(s, &out);
        }
    }
    session_finish(s, s->state != SESSION_OPEN);
}

static void session_timer_fired(struct timer *t)
{
    struct session *s = container_of(t, struct session, timer);
    uint64_t now = io_now_ns(s->shard->io);
    struct why why;
    if (s->state == SESSION_CLOSING)
        return;
    if (now >= s->deadline_ns) {
        if (s->waits & SESSION_WAIT_COMMIT) { /* never inside a message that may become durable */
            s->deadline_ns = now + SESSION_LINGER_NS;
        } else if (s->state == SESSION_PROXY) {
            session_proxy_timeout(s);
            return;
        } else if (s->state != SESSION_OPEN || s->waits & SESSION_WAIT_OUT) {
            s->hard_close = true;
            session_close_now(s);
            return;
        } else {
            why_set(&why, 421, "4.4.2", "Timeout, closing connection");
            session_abandon(s, &why);
            return;
        }
    }
    if (s->waits) { /* we hold it up, or are about to: a new window */
        s->rate_start_ns = now;
        s->rate_bytes = 0;
    }
    if (smtp_in_in_data(&s->smtp) && !s->waits && now - s->rate_start_ns >= rate_window_ns(s)) {
        if (s->rate_bytes < SESSION_DATA_RATE_MIN * (rate_window_ns(s) / NS_PER_S)) {
            why_set(&why, 421, "4.4.2", "Data comes too slowly, closing connection");
            session_abandon(s, &why);
            return;
        }
        s->rate_start_ns = now;
        s->rate_bytes = 0;
    }
    uint64_t next = now + rate_window_ns(s);
    io_timer_set(s->shard->io, t, s->deadline_ns < next ? s->deadline_ns : next);
}

/*
 * The connector of this address that takes this client: the first one whose remote rules let it in
 * (E4, E14). When none does, *refused is the first that is bound here.
 */
static const struct shard_receive *session_connector(const struct shard_config *c,
                                                     const struct io_addr *bind,
                                                     const struct io_addr *peer,
                                                     const struct shard_receive **refused)
{
    *refused = NULL;
    for (uint32_t i = 0; i < c->receive_count; i++) {
        const struct config_receive_connector *conf = c->receive[i].conf;
        if (!config_receive_bound(conf, bind))
            continue;
        if (!conf->proxy.required && config_networks_match(&conf->remote.allow, peer) &&
            !config_networks_match(&conf->remote.deny, peer))
            return &c->receive[i];
        if (!*refused)
            *refused = &c->receive[i];
    }
    return NULL;
}

void session_slabs_init(struct shard *s)
{
    slab_init(&s->session_slab, "sessions", sizeof(struct session), s->session_count_max);
    slab_init(&s->tx_slab, "transactions", sizeof(struct session_tx), s->session_count_max);
    list_init(&s->committing);
    s->commit_timer.fire = session_commit_late;
}

static struct session *session_create(struct shard *sh, const struct shard_receive *rc, int32_t fd,
                                      const struct io_addr *peer)
{
    struct session *s = sh->session_free ? slab_alloc(&sh->session_slab) : NULL;
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    s->magic = SESSION_MAGIC;
    s->slot = sh->session_free_slots[--sh->session_free];
    s->generation = ++sh->session_generations[s->slot];
    sh->sessions[s->slot] = s;
    sh->session_count++;
    s->shard = sh;
    s->config = shard_config_ref(sh->config);
    s->receive = rc;
    s->fd = fd;
    s->peer = *peer;
    s->timer.fire = session_timer_fired;
    s->delay.fire = session_delay_fired;
    struct buf id = buf_over(s->id, sizeof s->id - 1);
    buf_add_hex(&id, sh->index, 2);
    buf_add_hex(&id, s->generation, 8);
    buf_add_hex(&id, s->slot, 6);
    list_init(&s->auth_link);
    session_io_init(s);
    metric_add(sh->metrics, M_SESSIONS, 1);
    metric_add(sh->metrics, M_SESSIONS_TOTAL, 1);
    return s;
}

/* Why this client may not have a session now; false: it may. */
static bool session_refusal(struct session *s, bool allowed, struct why *why)
{
    struct shard *sh = s->shard;
    if (!allowed) {
        why_set(why, 554, "5.7.1", "Your address is not allowed to connect");
        return true;
    }
    if (sh->draining) {
        why_set(why, 421, "4.3.2", "Service is shutting down");
        return true;
    }
    bool implicit = s->receive->conf->tls.mode == CONFIG_TLS_IMPLICIT;
    if (implicit && shard_tls_is_short(sh)) {
        why_set(why, 421, "4.3.1", "No memory for TLS, try again later");
        return true;
    }
    if (s->receive->state != CONNECTOR_ON) {
        why_set(why, 421, "4.3.2", "Service is not available now, try again later");
        return true;
    }
    uint32_t count = addr_counts_add(sh->addr_counts, &s->peer);
    s->counted = count > 0;
    if (count == 0 || count > SESSION_PER_ADDRESS_MAX || sh->session_free < SESSION_REFUSE_ROOM) {
        why_set(why, 421, "4.7.0", "Too many connections, try again later");
        return true;
    }
    return false;
}

static void session_log_open(struct session *s, const struct why *why)
{
    struct log_line line;
    char text[IO_ADDR_TEXT_MAX];
    log_begin(&line, &s->shard->log, why ? EV_SESSION_REFUSED : EV_SESSION_OPEN);
    log_str(&line, "session", s->id);
    log_str(&line, "connector", s->receive->conf->name);
    log_str(&line, "client", io_addr_text(&s->peer, true, text));
    if (why)
        log_str(&line, "reason", why->text);
    log_end(&line);
    if (why)
        metric_add(s->shard->metrics, M_SESSIONS_REFUSED, 1);
    session_count(s, why ? RS_SESSIONS_REFUSED : RS_SESSIONS, 1);
}

void session_refuse(struct session *s, const struct why *why, bool receiving)
{
    bool implicit = s->receive->conf->tls.mode == CONFIG_TLS_IMPLICIT;
    session_log_open(s, why);
    session_watch_begin(s);
    s->state = SESSION_OPEN;
    if (!implicit)
        session_greet(s, why);
    if (s->state == SESSION_CLOSING)
        return;
    if (!receiving)
        session_io_start(s);
    session_finish(s, implicit); /* in TLS nobody could read the line */
}

void session_begin(struct session *s, bool allowed, bool receiving)
{
    bool implicit = s->receive->conf->tls.mode == CONFIG_TLS_IMPLICIT;
    struct why why;
    smtp_in_init(&s->smtp, &s->receive->smtp, implicit);
    if (session_refusal(s, allowed, &why)) {
        session_refuse(s, &why, receiving);
        return;
    }
    session_log_open(s, NULL);
    session_watch_begin(s);
    s->state = SESSION_OPEN;
    if (implicit)
        session_tls_begin(s);
    else
        session_greet(s, NULL);
    if (s->state == SESSION_CLOSING)
        return;
    session_touch(s);
    io_timer_set(s->shard->io, &s->timer, s->deadline_ns);
    if (!receiving)
        session_io_start(s);
}

void session_accept(struct listener *l, int32_t fd, const struct io_addr *peer)
{
    const struct shard_config *c = l->shard->config;
    const struct shard_receive *refused, *rc = session_connector(c, &l->addr, peer, &refused);
    const struct shard_receive *proxied = session_proxy_connector(c, &l->addr, peer);
    struct session *s = NULL;
    if (proxied || rc || refused)
        s = session_create(l->shard, proxied ? proxied : rc ? rc : refused, fd, peer);
    if (!s) {
        metric_add(l->shard->metrics, M_SESSIONS_REFUSED, 1);
        io_close(l->shard->io, fd);
        return;
    }
    if (!proxied || l->shard->draining) {
        session_begin(s, proxied || rc, false);
    } else if (session_proxy_await(s, &l->addr)) {
        io_timer_set(l->shard->io, &s->timer, s->deadline_ns);
        session_io_start(s);
    } else {
        session_close_now(s);
    }
}

const struct shard_receive *shard_session_receive(const struct shard *s, uint32_t slot)
{
    const struct session *session = s->sessions[slot];
    return session ? session->receive : NULL;
}

void session_drain(struct session *s)
{
    struct why why;
    why_set(&why, 421, "4.3.2", "Service is shutting down");
    if (s->state == SESSION_PROXY)
        session_refuse(s, &why, true);
    else
        session_abandon(s, &why);
}

/* A peer that does not read its last reply does not hold up the end. */
static void session_linger_no_longer(struct session *s, bool force)
{
    uint64_t limit = io_now_ns(s->shard->io) + SESSION_LINGER_NS;
    if (!force || s->deadline_ns <= limit)
        return;
    s->deadline_ns = limit;
    io_timer_set(s->shard->io, &s->timer, limit);
}

void sessions_drain(struct shard *sh, bool force)
{
    for (uint32_t i = 0; i < sh->session_count_max; i++) {
        struct session *s = sh->sessions[i];
        if (!s || s->state == SESSION_CLOSING)
            continue;
        if (s->state == SESSION_LINGER) {
            session_linger_no_longer(s, force);
            continue;
        }
        if (s->waits & SESSION_WAIT_COMMIT)
            continue; /* answered soon, and told at its next command */
        if (force || s->state <= SESSION_HANDSHAKE || s->waits & SESSION_WAIT_TURN ||
            (smtp_in_is_idle(&s->smtp) && !s->waits && !session_input_pending(s)))
            session_drain(s);
    }
}

/*
 * The shard's receive buffers run short: whoever sends on without reading our replies, or while a
 * refusal is held back, gives its own back. Nobody else has to wait for them (FAULTS P5, 47).
 */
void sessions_relieve(struct shard *sh)
{
    if (sh->held.count < SESSION_RECV_BUF_COUNT / 2)
        return;
    for (uint32_t i = 0; i < sh->session_count_max; i++) {
        struct session *s = sh->sessions[i];
        if (!s || s->state == SESSION_CLOSING || s->held.count < 2 ||
            !(s->waits & (SESSION_WAIT_OUT | SESSION_WAIT_DELAY | SESSION_WAIT_TURN)))
            continue;
        held_drop(&sh->held, &s->held);
        session_tx_drop(s);
        session_close_now(s);
    }
}
