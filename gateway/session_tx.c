/*
 * gateway/session_tx.c - one message on its way in: envelope, policy at MAIL and RCPT, body into
 * the lane, commit.
 *
 * Owns:     the transaction (slab), its arena and its lane_tx until the commit; then the delivery
 *           owns the arena.
 * Runs on:  the shard of the session.
 * Contract: 250 is answered from the lane's `done` only. A message that ended well but whose
 *           client is gone is delivered all the same (FAULTS P2 b). One whose client was answered
 *           451 since the disk is slow is removed when it becomes durable after all.
 * Failure:  no room: 452 4.3.1 at MAIL or DATA; a lane that fails while the body comes: 451 at
 *           its end. A disk that does not answer: 451 after a time, and at MAIL and DATA.
 * Bounds:   ENVELOPE_BLOCKS_MAX of envelope; the lane's own limits for the body;
 *           SESSION_COMMIT_WAIT_NS.
 * Tests:    tests/system (dialogs, interop, crash)
 */
#include "gateway/base/plant.h"
#include "gateway/session.h"

#include <assert.h>

#include "gateway/trace.h"

static void session_tx_done(struct lane_tx *lt, struct queue_msg *m, const struct why *why);

/* Is new mail welcome? A disk that let others wait too long does not get more. */
static bool tx_lane_ready(const struct shard *sh, uint64_t size, struct why *why)
{
    if (!sh->write_lane || sh->withdrawn) {
        why_set(why, 451, "4.3.0", "Spool is not ready, try again later");
        return false;
    }
    return lane_has_room(sh->write_lane, size, why);
}

/* ---- MAIL ---- */

static bool tx_fill_session(struct session *s, struct session_tx *tx)
{
    char text[IO_ADDR_TEXT_MAX];
    struct envelope *e = &tx->env;
    io_addr_text(&s->peer, false, text);
    return arena_copy(&tx->arena, slice_str(text), &e->client) &&
           arena_copy(&tx->arena, slice_str(s->smtp.helo), &e->helo) &&
           arena_copy(&tx->arena, slice_str(s->id), &e->session) &&
           arena_copy(&tx->arena, slice_str(s->receive->conf->name), &e->connector) &&
           arena_copy(&tx->arena, slice_str(s->account), &e->account);
}

static bool tx_fill_mail(struct session *s, struct session_tx *tx, const struct smtp_mail *mail)
{
    struct envelope *e = &tx->env;
    e->flags = (mail->smtputf8 ? ENVELOPE_SMTPUTF8 : 0) |
               (mail->ret == SMTP_RET_FULL ? ENVELOPE_RET_FULL : 0) |
               (mail->ret == SMTP_RET_HDRS ? ENVELOPE_RET_HDRS : 0) |
               (s->account ? ENVELOPE_AUTHENTICATED : 0) | (s->tls ? ENVELOPE_TLS : 0);
    tx->declared_size = mail->size;
    return tx_fill_session(s, tx) && arena_copy(&tx->arena, mail->from.mailbox, &e->sender) &&
           arena_copy(&tx->arena, mail->envid, &e->envid);
}

static void tx_log_refused(struct session *s, struct slice sender, struct slice rcpt,
                           const struct why *why)
{
    struct log_line line;
    char text[IO_ADDR_TEXT_MAX];
    log_begin(&line, &s->shard->log, EV_REFUSED);
    log_str(&line, "session", s->id);
    log_str(&line, "connector", s->receive->conf->name);
    log_str(&line, "client", io_addr_text(&s->peer, true, text));
    if (s->account)
        log_str(&line, "account", s->account);
    log_slice(&line, "sender", sender);
    if (rcpt.len)
        log_slice(&line, "recipient", rcpt);
    log_u64(&line, "code", why->smtp_code);
    log_str(&line, "status", why->enhanced);
    log_str(&line, "reason", why->text);
    log_end(&line);
}

struct session_tx *session_tx_new(struct session *s)
{
    struct shard *sh = s->shard;
    session_tx_drop(s);
    struct session_tx *tx = slab_alloc(&sh->tx_slab);
    if (!tx)
        return NULL;
    memset(tx, 0, sizeof *tx);
    tx->session = s;
    tx->shard = sh;
    list_init(&tx->commit_link);
    arena_init(&tx->arena, &sh->arena_slab, ENVELOPE_BLOCKS_MAX);
    s->tx = tx;
    return tx;
}

void session_tx_mail(struct session *s, const struct smtp_mail *mail, struct why *why)
{
    struct shard *sh = s->shard;
    const struct config_receive_connector *conf = s->receive->conf;
    if (conf->sender_identity_enforce && s->account) {
        const struct user *u = s->user;
        if (!relay_sender_may(slice_str(s->account), u ? u->senders : NULL, u ? u->sender_count : 0,
                              mail->from.mailbox, why)) {
            tx_log_refused(s, mail->from.mailbox, slice_of(NULL, 0), why);
            return;
        }
    }
    if (sh->pressure_level == PRESSURE_HIGH) {
        metric_add(sh->metrics, M_PRESSURE_REFUSED, 1);
        why_set(why, 452, "4.3.1", "Insufficient system resources, try again later");
        return;
    }
    if (!tx_lane_ready(sh, mail->size, why))
        return;
    struct session_tx *tx = session_tx_new(s);
    if (tx) {
        if (tx_fill_mail(s, tx, mail))
            return;
        session_tx_drop(s);
    }
    why_set(why, 452, "4.3.1", "Out of memory, try again later");
}

/* ---- RCPT ---- */

static bool tx_add_rcpt(struct session *s, const struct smtp_rcpt *rcpt)
{
    struct session_tx *tx = s->tx;
    struct tx_rcpt *r = arena_alloc(&tx->arena, sizeof *r);
    if (!r)
        return false;
    struct slice mailbox = rcpt->to.mailbox;
    char whole[SMTP_PATH_MAX + 2];
    if (rcpt->to.domain.len == 0) { /* <Postmaster>, RFC 5321 section 4.5.1: ours */
        const struct config *conf = s->config->gen->config;
        snprintf(whole, sizeof whole, "%.*s@%s", (int)mailbox.len, (const char *)mailbox.ptr,
                 conf->hostname);
        mailbox = slice_str(conf->postmaster ? conf->postmaster : whole);
    }
    if (!arena_copy(&tx->arena, mailbox, &r->rcpt.mailbox) ||
        !arena_copy(&tx->arena, rcpt->orcpt, &r->rcpt.orcpt))
        return false;
    r->rcpt.notify = rcpt->notify;
    if (tx->last)
        tx->last->next = r;
    else
        tx->first = r;
    tx->last = r;
    tx->env.rcpt_count++;
    return true;
}

/* E21: the send connector that would take this domain says that anybody may send to it. */
static bool tx_connector_allows(struct session *s, struct slice domain)
{
    const struct config *conf = s->config->gen->config;
    struct route_query q = {.domain = domain,
                            .receive_connector = slice_str(s->receive->conf->name)};
    struct route_answer a;
    route_choose(conf->routes, &q, &a);
    return a.verdict == ROUTE_FOUND && conf->send[a.connector].allow_relay;
}

void session_tx_rcpt(struct session *s, const struct smtp_rcpt *rcpt, struct why *why)
{
    const struct config_receive_connector *conf = s->receive->conf;
    if (!s->tx) {
        why_set(why, 452, "4.3.1", "Out of memory, try again later");
        return;
    }
    bool postmaster = rcpt->to.domain.len == 0;
    bool known = s->account && conf->relay.authenticated;
    struct relay_query q = {
        .authenticated = known,
        .network_may_relay =
            !s->peer_is_proxy && config_networks_match(&conf->relay.networks, &s->peer),
        .accepted = s->config->gen->accepted,
        .recipients = s->config->gen->recipients,
        .rcpt_local = rcpt->to.local,
        .rcpt_domain = rcpt->to.domain,
        .connector_allows = !known && !postmaster && tx_connector_allows(s, rcpt->to.domain),
    };
    if (!postmaster && !relay_may(&q, why)) {
        tx_log_refused(s, s->tx->env.sender, rcpt->to.mailbox, why);
        return;
    }
    if (!tx_add_rcpt(s, rcpt))
        why_set(why, 452, "4.5.3", "Too many recipients");
}

/* ---- DATA ---- */

static void tx_appended(struct session *s, enum lane_append did)
{
    switch (did) {
    case LANE_APPEND_OK: break;
    case LANE_APPEND_WAIT: s->waits |= SESSION_WAIT_ROOM; break;
    case LANE_APPEND_FAILED: s->tx->failed = true; break;
    }
}

void session_tx_append(struct session *s, struct slice data)
{
    struct session_tx *tx = s->tx;
    if (!tx->failed)
        tx_appended(s, lane_tx_append(&tx->lane_tx, data));
}

static void tx_append_received(struct session *s)
{
    uint8_t text[2048];
    char qid[QID_TEXT_MAX], client[IO_ADDR_TEXT_MAX];
    struct buf b = buf_over(text, sizeof text);
    struct tls_facts facts = {0};
    if (s->tls)
        tls_facts(s->tls, &facts);
    struct trace_received r = {
        .helo = slice_str(s->smtp.helo),
        .client = slice_str(io_addr_text(&s->peer, false, client)),
        .fqdn = slice_str(s->receive->conf->fqdn),
        .id = slice_str(qid_text(s->tx->lane_tx.qid, qid)),
        .instance = slice_str(s->shard->gw->instance),
        .esmtp = s->smtp.esmtp,
        .tls = s->tls != NULL,
        .authenticated = s->account != NULL,
        .smtputf8 = s->tx->env.flags & ENVELOPE_SMTPUTF8,
        .tls_version = slice_str(facts.version),
        .tls_cipher = slice_str(facts.cipher),
        .tls_bits = facts.bits,
        .wall_ns = s->tx->env.accepted_wall_ns,
    };
    bool ok = trace_received_write(&r, &b);
    assert(ok);
    (void)ok;
    session_tx_append(s, buf_slice(&b));
}

void session_tx_data(struct session *s, struct why *why)
{
    struct session_tx *tx = s->tx;
    if (!tx) {
        why_set(why, 451, "4.3.0", "Spool is not ready, try again later");
        return;
    }
    if (!tx_lane_ready(s->shard, tx->declared_size, why))
        return;
    tx->lane_tx.resumed = session_tx_resumed;
    tx->lane_tx.done = session_tx_done;
    if (!lane_tx_begin(s->shard->write_lane, &tx->lane_tx, why))
        return;
    tx->writing = true;
    tx->env.accepted_wall_ns = io_wall_ns(s->shard->io);
    tx_append_received(s);
}

/* Date and Message-ID are the submission server's to add (RFC 6409 section 8). */
void session_tx_headers(struct session *s, const struct smtp_in_headers *h)
{
    uint8_t text[1024];
    char qid[QID_TEXT_MAX];
    struct buf b = buf_over(text, sizeof text);
    bool ok = true;
    if (!s->tx || !s->tx->writing)
        return;
    if (!arena_copy(&s->tx->arena, slice_of(h->subject, h->subject_len), &s->tx->env.subject))
        s->tx->env.subject = slice_of(NULL, 0); /* only operators look at it */
    if (!arena_copy(&s->tx->arena, slice_of(h->id, h->id_len), &s->tx->message_id))
        s->tx->message_id = slice_of(NULL, 0);
    if (s->receive->smtp.submission) {
        if (!h->date)
            ok = trace_date_line(s->tx->env.accepted_wall_ns, &b);
        if (!h->message_id)
            ok = ok && trace_message_id_line(slice_str(qid_text(s->tx->lane_tx.qid, qid)),
                                             slice_str(s->config->gen->config->hostname), &b);
        assert(ok);
    }
    if (h->no_blank_line &&
        (b.len || h->field_count == 0)) /* else the bytes go on as they came (P4) */
        buf_add_str(&b, "\r\n");
    if (b.len)
        session_tx_append(s, buf_slice(&b));
}

void session_tx_body(struct session *s, struct slice body)
{
    struct session_tx *tx = s->tx;
    if (!tx || !tx->writing)
        return;
    /* What decides how the message can be sent on is what is in it, not what was declared. */
    if (s->smtp.data.eight_bit)
        tx->env.flags |= ENVELOPE_8BIT;
    /* A short piece may lie in the machine (smtp_data.held), a longer one lies in the input. */
    if (!tx->failed && body.len > SMTP_FIELD_NAME_MAX)
        tx_appended(s, lane_tx_lend(&tx->lane_tx, body));
    else
        session_tx_append(s, body);
}

void session_tx_keep(struct session *s)
{
    if (s->tx && s->tx->writing)
        lane_tx_keep(&s->tx->lane_tx);
}

void session_tx_resumed(struct lane_tx *lt)
{
    struct session *s = container_of(lt, struct session_tx, lane_tx)->session;
    s->waits &= (uint8_t)~SESSION_WAIT_ROOM;
    session_resume(s);
}

/* ---- end of data ---- */

static bool tx_rcpts_to_array(struct session_tx *tx)
{
    struct envelope *e = &tx->env;
    if (e->rcpt_count == 1) {
        e->rcpts = &tx->first->rcpt;
        return true;
    }
    e->rcpts = arena_alloc_large(&tx->arena, sizeof *e->rcpts * e->rcpt_count);
    if (!e->rcpts)
        return false;
    uint32_t i = 0;
    for (struct tx_rcpt *r = tx->first; r; r = r->next)
        e->rcpts[i++] = r->rcpt;
    return true;
}

void session_tx_end(struct session *s)
{
    struct session_tx *tx = s->tx;
    struct why why;
    if (!tx || !tx->writing || !tx_rcpts_to_array(tx)) {
        why_set(&why, 451, "4.3.0", "Message could not be stored, try again later");
        s->waits |= SESSION_WAIT_DELAY; /* answered at once, but not from inside the event */
        s->delayed = why;
        io_timer_set(s->shard->io, &s->delay, io_now_ns(s->shard->io));
        session_tx_drop(s);
        return;
    }
    tx->data_end_ns = io_now_ns(s->shard->io);
    s->waits |= SESSION_WAIT_COMMIT;
    list_push_back(&s->shard->committing, &tx->commit_link);
    if (!timer_is_set(&s->shard->commit_timer))
        io_timer_set(s->shard->io, &s->shard->commit_timer,
                     tx->data_end_ns + SESSION_COMMIT_WAIT_NS);
    lane_tx_commit(&tx->lane_tx, &tx->env, NULL, NULL, 0);
}

/* How it came: in TLS or not. */
static void tx_log_tls(struct session *s, struct log_line *line)
{
    struct tls_facts facts;
    char text[TLS_TEXT_MAX];
    if (!s->tls)
        return;
    tls_facts(s->tls, &facts);
    log_str(line, "tls", tls_facts_text(&facts, text));
}

static void tx_log_accepted(struct session *s, const struct session_tx *tx, const char *qid,
                            const struct queue_msg *m)
{
    struct log_line line;
    log_begin(&line, &s->shard->log, EV_ACCEPTED);
    log_str(&line, "qid", qid);
    log_str(&line, "session", s->id);
    log_slice(&line, "connector", tx->env.connector);
    log_slice(&line, "client", tx->env.client);
    if (s->account)
        log_str(&line, "account", s->account);
    log_slice(&line, "sender", tx->env.sender);
    log_slice(&line, "recipient", tx->env.rcpts[0].mailbox);
    log_u64(&line, "recipients", tx->env.rcpt_count);
    log_u64(&line, "size", m->body_size);
    if (tx->message_id.len)
        log_slice(&line, "message_id", tx->message_id);
    tx_log_tls(s, &line);
    log_u64(&line, "durable_us", (io_now_ns(s->shard->io) - tx->data_end_ns) / NS_PER_US);
    log_end(&line);
}

/*
 * FAULTS 61: the client hears 451 and will try again, so that this copy is not to be delivered. The
 * commit cannot be called back; what becomes of it is settled when it ends. A client that is gone
 * heard nothing: its message stays.
 */
static void tx_withdraw(struct session_tx *tx)
{
    struct session *s = tx->session;
    struct why why;
    assert(s); /* withdrawn ones are in the list no more */
    list_remove(&tx->commit_link);
    if (s->state != SESSION_OPEN)
        return;
    why_set(&why, 451, "4.3.0", "Spool does not answer, try again later");
    metric_add(tx->shard->metrics, M_REJECTED, 1);
    session_count(s, RS_REJECTED, 1);
    tx_log_refused(s, tx->env.sender, slice_of(NULL, 0), &why);
    tx->session = NULL;
    tx->shard->withdrawn++;
    s->tx = NULL;
    s->waits &= (uint8_t)~SESSION_WAIT_COMMIT;
    session_answer(s, &why, NULL);
}

void session_commit_late(struct timer *t)
{
    struct shard *sh = container_of(t, struct shard, commit_timer);
    uint64_t now = io_now_ns(sh->io);
    while (!list_empty(&sh->committing)) {
        struct session_tx *tx = container_of(sh->committing.next, struct session_tx, commit_link);
        uint64_t due = tx->data_end_ns + SESSION_COMMIT_WAIT_NS;
        if (due > now) {
            io_timer_set(sh->io, t, due);
            return;
        }
        tx_withdraw(tx);
    }
}

static void tx_withdrawn_done(struct session_tx *tx, struct queue_msg *m)
{
    uint32_t rcpts[64];
    struct log_line line;
    char qid[QID_TEXT_MAX];
    tx->shard->withdrawn--;
    for (uint32_t i = 0, count = 0; m && i < tx->env.rcpt_count; i++) {
        rcpts[count++] = i;
        if (count < 64 && i + 1 < tx->env.rcpt_count)
            continue;
        lane_rcpts_final(tx->lane_tx.lane, m, rcpts, count, RCPT_REMOVED);
        count = 0;
    }
    log_begin(&line, &tx->shard->log, EV_WITHDRAWN);
    log_str(&line, "qid", qid_text(tx->lane_tx.qid, qid));
    log_slice(&line, "sender", tx->env.sender);
    log_u64(&line, "durable_us", m ? (io_now_ns(tx->shard->io) - tx->data_end_ns) / NS_PER_US : 0);
    log_end(&line);
    arena_reset(&tx->arena);
    slab_free(&tx->shard->tx_slab, tx);
}

static void session_tx_done(struct lane_tx *lt, struct queue_msg *m, const struct why *why)
{
    struct session_tx *tx = container_of(lt, struct session_tx, lane_tx);
    struct session *s = tx->session;
    struct shard *sh = tx->shard;
    char qid[QID_TEXT_MAX];
    if (!s) {
        tx_withdrawn_done(tx, m);
        return;
    }
    list_remove(&tx->commit_link);
    qid_text(lt->qid, qid);
    tx->writing = false;
    s->tx = NULL;
    s->waits &= (uint8_t)~SESSION_WAIT_COMMIT;
    if (why->smtp_code == 0) {
        metric_add(sh->metrics, M_ACCEPTED, 1);
        metric_add(sh->metrics, M_ACCEPTED_RCPTS, tx->env.rcpt_count);
        session_count(s, RS_ACCEPTED, 1);
        session_count(s, RS_RCPT, tx->env.rcpt_count);
        histogram_add(&sh->metrics->receive[s->receive->conf->series].durable,
                      io_now_ns(sh->io) - tx->data_end_ns);
        tx_log_accepted(s, tx, qid, m);
        delivery_accept(sh->delivery, lt->lane, m, &tx->arena, &tx->env);
    } else {
        metric_add(sh->metrics, M_REJECTED, 1);
        session_count(s, RS_REJECTED, 1);
        tx_log_refused(s, tx->env.sender, slice_of(NULL, 0), why);
    }
    arena_reset(&tx->arena);
    slab_free(&sh->tx_slab, tx);
    if (s->state == SESSION_OPEN)
        session_answer(s, why->smtp_code ? why : NULL, why->smtp_code ? NULL : qid);
    else
        session_op_ended(s);
}

void session_tx_refused(struct session *s)
{
    struct why why;
    if (!s->tx)
        return;
    why_set(&why, 550, "5.6.0", "message refused after its end, see the session's reply");
    tx_log_refused(s, s->tx->env.sender, slice_of(NULL, 0), &why);
}

void session_tx_drop(struct session *s)
{
    struct session_tx *tx = s->tx;
    if (!tx || s->waits & SESSION_WAIT_COMMIT)
        return;
    if (tx->writing)
        lane_tx_abort(&tx->lane_tx);
    if (tx->handoff)
        session_handoff_dropped(tx);
    s->waits &= (uint8_t)~SESSION_WAIT_ROOM;
    if (PLANT(SESSION_LEAK) && tx->writing)
        return;
    arena_reset(&tx->arena);
    slab_free(&s->shard->tx_slab, tx);
    s->tx = NULL;
}
