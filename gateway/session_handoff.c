/*
 * gateway/session_handoff.c - taking over what another gateway has queued: prepared, then ours.
 *
 * Owns:     the state's text while it comes.
 * Runs on:  the shard of the session; ways in with `handoff_accounts` are open on one shard alone,
 *           so that its table of ids is all there is.
 * Contract: 250 to XHANDOFF when the message is durable in state PREPARED, in which it is never
 *           delivered; 250 to XHANDOFF-COMMIT when it is durable that it is ours, or when the id is
 *           not known: then it was, before. docs/handoff.md.
 * Failure:  450 and 452 before anything is promised; a message that is refused stays where it is.
 * Bounds:   HANDOFF_TEXT_MAX for each session that takes one over.
 * Tests:    tests/system/test_handoff.py
 */
#include "gateway/session.h"

#include "gateway/handoff_text.h"
#include "gateway/prepared.h"

struct session_handoff {
    struct slice id;
    uint64_t offer; /* 0: over */
    uint32_t text_len, text_cap;
    uint8_t *text;
    struct handoff_state state;
    /* XHANDOFF-COMMIT */
    struct session_tx *tx;
    struct lane_wait wait;
    struct lane *lane;
    uint64_t qid;
};

static bool account_may(const struct session *s)
{
    const struct config_strings *who = &s->receive->conf->handoff_accounts;
    for (uint32_t i = 0; s->account && i < who->count; i++)
        if (strcmp(who->items[i], s->account) == 0)
            return true;
    return false;
}

static bool may(struct session *s, struct why *why)
{
    if (!account_may(s))
        why_set(why, 550, "5.7.1", "This account may not hand mail over");
    else if (!s->shard->prepared || !prepared_is_ready(s->shard->prepared))
        why_set(why, 450, "4.3.2", "The spool is still being read, try again later");
    else
        return true;
    return false;
}

static struct session_handoff *handoff_new(struct session *s, struct slice id)
{
    struct session_tx *tx = session_tx_new(s);
    struct session_handoff *h = tx ? arena_alloc(&tx->arena, sizeof *h) : NULL;
    if (h) {
        memset(h, 0, sizeof *h);
        list_init(&h->wait.link);
        tx->handoff = h;
        h->tx = tx;
        if (arena_copy(&tx->arena, id, &h->id))
            return h;
    }
    session_tx_drop(s);
    return NULL;
}

/* ---- XHANDOFF ---- */

static void handoff_log(struct session *s, const struct session_tx *tx, enum log_event event,
                        const struct why *why)
{
    struct log_line line;
    char qid[QID_TEXT_MAX];
    log_begin(&line, &s->shard->log, event);
    log_str(&line, "qid", qid_text(tx->lane_tx.qid, qid));
    log_slice(&line, "handoff", tx->handoff->id);
    log_str(&line, "peer", s->account);
    if (tx->handoff->state.env.rcpt_count) {
        log_slice(&line, "origin", tx->handoff->state.env.origin);
        log_slice(&line, "sender", tx->handoff->state.env.sender);
        log_slice(&line, "recipient", tx->handoff->state.env.rcpts[0].mailbox);
    }
    if (why && why->smtp_code)
        log_str(&line, "reason", why->text);
    log_end(&line);
}

static void handoff_durable(struct lane_tx *lt, struct queue_msg *m, const struct why *why)
{
    struct session_tx *tx = container_of(lt, struct session_tx, lane_tx);
    struct session *s = tx->session;
    struct session_handoff *h = tx->handoff;
    struct shard *sh = tx->shard;
    struct why stale = *why;
    char words[64];
    snprintf(words, sizeof words, "prepared %s", sh->gw->instance);
    tx->writing = false;
    s->tx = NULL;
    s->waits &= (uint8_t)~SESSION_WAIT_COMMIT;
    if (why->smtp_code)
        prepared_failed(sh->prepared, h->id, h->offer);
    else if (!prepared_done(sh->prepared, &h->state.env, h->offer, lt->lane, m))
        why_set(&stale, 450, "4.3.0", "Offered again meanwhile");
    else
        metric_add(sh->metrics, M_HANDOFF_PREPARED, 1);
    handoff_log(s, tx, EV_HANDOFF_PREPARED, &stale);
    arena_reset(&tx->arena);
    slab_free(&sh->tx_slab, tx);
    if (s->state == SESSION_OPEN)
        session_answer(s, stale.smtp_code ? &stale : NULL, stale.smtp_code ? NULL : words);
    else
        session_op_ended(s);
}

void session_handoff(struct session *s, const struct smtp_in_handoff *ev, struct why *why)
{
    struct shard *sh = s->shard;
    if (!may(s, why))
        return;
    if (sh->pressure_level == PRESSURE_HIGH || atomic_load(&sh->gw->draining)) {
        why_set(why, 452, "4.3.1", "Insufficient system resources, try again later");
        return;
    }
    if (!sh->write_lane || !lane_has_room(sh->write_lane, 0, why)) {
        if (!why->smtp_code)
            why_set(why, 451, "4.3.0", "Spool is not ready, try again later");
        return;
    }
    struct session_handoff *h = handoff_new(s, ev->id);
    struct session_tx *tx = s->tx;
    why_set(why, 452, "4.3.1", "Out of memory, try again later");
    if (!h)
        return;
    h->text = arena_alloc_large(&tx->arena, ev->text_bytes);
    h->text_cap = ev->text_bytes;
    h->offer = h->text ? prepared_offer(sh->prepared, h->id) : 0;
    if (!h->offer) {
        session_tx_drop(s);
        return;
    }
    why_clear(why);
    tx->lane_tx.resumed = session_tx_resumed;
    tx->lane_tx.done = handoff_durable;
    if (lane_tx_begin(sh->write_lane, &tx->lane_tx, why))
        tx->writing = true;
    else
        session_tx_drop(s);
}

void session_handoff_body(struct session *s, struct slice body)
{
    struct session_handoff *h = s->tx ? s->tx->handoff : NULL;
    if (!h || !s->tx->writing)
        return;
    struct slice text = slice_head(body, h->text_cap - h->text_len);
    if (text.len)
        memcpy(h->text + h->text_len, text.ptr, text.len);
    h->text_len += (uint32_t)text.len;
    body = slice_from(body, text.len);
    if (body.len)
        session_tx_append(s, body);
}

static bool handoff_read_state(struct session_tx *tx)
{
    struct session_handoff *h = tx->handoff;
    size_t room = (size_t)h->text_cap / 4 * 3 + 3;
    uint8_t *bytes = arena_alloc_large(&tx->arena, room);
    struct buf b = buf_over(bytes, room);
    if (!bytes || h->text_len != h->text_cap || tx->lane_tx.body_size == 0 ||
        !handoff_text_decode(slice_of(h->text, h->text_len), &b) ||
        !handoff_state_decode(buf_slice(&b), &tx->arena, &h->state))
        return false;
    h->state.env.handoff = h->id;
    return true;
}

void session_handoff_end(struct session *s)
{
    struct session_tx *tx = s->tx;
    struct why why;
    if (!tx || !tx->writing || tx->failed || !handoff_read_state(tx)) {
        bool local = tx && tx->failed;
        why_set(&why, local ? 451 : 554, local ? "4.3.0" : "5.5.4",
                local ? "Message could not be stored, try again later"
                      : "The state of the message cannot be read");
        session_tx_drop(s);
        session_answer_late(s, &why, 0); /* at once, but not from inside the event */
        return;
    }
    s->waits |= SESSION_WAIT_COMMIT;
    tx->lane_tx.arrival = &tx->handoff->state.arrival;
    lane_tx_commit(&tx->lane_tx, &tx->handoff->state.env, NULL, NULL, 0);
}

void session_handoff_dropped(struct session_tx *tx)
{
    struct session_handoff *h = tx->handoff;
    if (h->offer)
        prepared_failed(tx->shard->prepared, h->id, h->offer);
    h->offer = 0;
}

/* ---- XHANDOFF-COMMIT, XHANDOFF-ABORT, XHANDOFF-NEXT ---- */

static void handoff_settled(struct lane_wait *w, bool ok)
{
    struct session_handoff *h = container_of(w, struct session_handoff, wait);
    struct session_tx *tx = h->tx;
    struct session *s = tx->session;
    struct shard *sh = tx->shard;
    struct why why;
    why_clear(&why);
    if (!ok)
        why_set(&why, 451, "4.3.0", "Spool cannot be written, try again later");
    if (h->lane)
        lane_prepared_go(h->lane, h->qid);
    s->tx = NULL;
    s->waits &= (uint8_t)~SESSION_WAIT_COMMIT;
    arena_reset(&tx->arena);
    slab_free(&sh->tx_slab, tx);
    if (s->state == SESSION_OPEN)
        session_answer(s, &why, NULL);
    else
        session_op_ended(s);
}

/* A log line for the one and only moment in which the owner changes. */
static void settled_log(struct session *s, const struct session_handoff *h, enum log_event event)
{
    struct log_line line;
    char qid[QID_TEXT_MAX];
    log_begin(&line, &s->shard->log, event);
    log_str(&line, "qid", qid_text(h->qid, qid));
    log_slice(&line, "handoff", h->id);
    log_str(&line, "peer", s->account);
    log_end(&line);
}

static void settle(struct session *s, struct session_handoff *h, struct queue_msg *m, bool take,
                   enum queue_state state)
{
    h->qid = m->qid;
    settled_log(s, h, take ? EV_HANDOFF_TAKEN : EV_HANDOFF_DROPPED);
    if (!take) {
        prepared_remove(h->lane, m);
        return;
    }
    metric_add(s->shard->metrics, M_HANDOFF_TAKEN, 1);
    if (state == QUEUE_READY && m->next_attempt_wall_s > lane_wall_s(h->lane))
        state = QUEUE_DEFERRED;
    lane_prepared_taken(h->lane, m, state);
}

/* True: *why is the answer. False: it comes when the change is durable. */
bool session_handoff_settle(struct session *s, const struct smtp_in_handoff *ev, bool take,
                            struct why *why)
{
    if (!may(s, why))
        return true;
    if (!slice_eq(ev->to, slice_str(s->shard->gw->instance))) {
        why_set(why, 450, "4.3.0", "Prepared by another instance than this one, %s",
                s->shard->gw->instance);
        return true;
    }
    struct session_handoff *h = handoff_new(s, ev->id);
    if (!h) {
        why_set(why, 452, "4.3.1", "Out of memory, try again later");
        return true;
    }
    enum queue_state state;
    struct queue_msg *m = prepared_take(s->shard->prepared, h->id, &h->lane, &state);
    if (m)
        settle(s, h, m, take, state);
    else
        h->lane = NULL; /* it was settled before, and that may not be durable yet */
    s->waits |= SESSION_WAIT_COMMIT;
    h->wait.done = handoff_settled;
    lane_when_durable(h->lane ? h->lane : s->shard->write_lane, &h->wait);
    return false;
}

void session_handoff_next(struct session *s, const struct smtp_in_handoff *ev,
                          char words[HANDOFF_ID_MAX + 32], struct why *why)
{
    char id[HANDOFF_ID_MAX + 1];
    snprintf(words, HANDOFF_ID_MAX + 32, "none of %s", s->shard->gw->instance);
    if (may(s, why) && prepared_next(s->shard->prepared, ev->to, ev->id, id))
        snprintf(words, HANDOFF_ID_MAX + 32, "prepared %s of %s", id, s->shard->gw->instance);
}
