/*
 * gateway/session_event.c - performs what the SMTP machine asks for: policy, AUTH, TLS, the
 * message.
 *
 * Owns:     nothing of its own.
 * Runs on:  the shard of the session.
 * Contract: an event marked (answer) in smtp_in.h is answered exactly once, now or later; later
 *           means that a bit of enum session_wait is set until then.
 * Failure:  AUTH workers all busy: 454 4.7.0. A wrong password is answered late, later each time
 *           (FAULTS 46).
 * Bounds:   AUTH_FAIL_DELAY_NS per failure; AUTH_QUEUE_MAX by the ring to the worker.
 * Tests:    tests/system (dialogs, auth)
 */
#include "gateway/session.h"

#include <stdlib.h>

#define AUTH_FAIL_DELAY_NS NS_PER_S
#define RCPT_FAIL_FREE     10u /* refused recipients before each further one is answered late */
#define RCPT_FAIL_DELAY_NS (NS_PER_S / 2)

/* ---- answers held back ---- */

static void session_answer_late(struct session *s, const struct why *why, uint64_t delay_ns)
{
    s->delayed = *why;
    s->waits |= SESSION_WAIT_DELAY;
    io_timer_set(s->shard->io, &s->delay, io_now_ns(s->shard->io) + delay_ns);
}

void session_delay_fired(struct timer *t)
{
    struct session *s = container_of(t, struct session, delay);
    if (s->state != SESSION_OPEN || !(s->waits & SESSION_WAIT_DELAY))
        return;
    s->waits &= (uint8_t)~SESSION_WAIT_DELAY;
    session_answer(s, &s->delayed, NULL);
}

/* ---- AUTH ---- */

static void session_auth_log(struct session *s, enum log_event event, struct slice account)
{
    struct log_line line;
    char text[IO_ADDR_TEXT_MAX];
    log_begin(&line, &s->shard->log, event);
    log_str(&line, "session", s->id);
    log_str(&line, "connector", s->receive->conf->name);
    log_str(&line, "client", io_addr_text(&s->peer, true, text));
    log_slice(&line, "account", account);
    log_end(&line);
}

static bool session_auth_accept(struct session *s, struct slice account)
{
    if (!s->account)
        s->account = slab_alloc(&s->shard->account_slab);
    if (!s->account)
        return false;
    size_t len = account.len < AUTH_USER_MAX ? account.len : AUTH_USER_MAX;
    memcpy(s->account, account.ptr, len);
    s->account[len] = '\0';
    metric_add(s->shard->metrics, M_AUTH_OK, 1);
    session_auth_log(s, EV_AUTH_OK, account);
    return true;
}

static void why_auth_unavailable(struct why *why)
{
    why_set(why, 454, "4.7.0", "Temporary authentication failure");
}

static void session_auth(struct session *s, const struct sasl_credentials *c, struct buf *out)
{
    struct shard *sh = s->shard;
    const struct users *users = s->config->gen->users;
    struct why why;
    /* Acting for another account is not offered: an authzid must name the account itself. */
    bool other = c->authzid.len && !slice_eq_nocase(c->authzid, c->authcid);
    s->user = users && !other ? users_find(users, c->authcid) : NULL;
    bool usable = s->user && !s->user->disabled;
    const char *hash = usable ? s->user->hash : users ? users_dummy_hash(users) : NULL;
    if (usable &&
        auth_cache_knows(sh->auth_cache, s->user->name, hash, c->password, io_now_ns(sh->io))) {
        metric_add(sh->metrics, M_AUTH_CACHED, 1);
        bool ok = session_auth_accept(s, s->user->name);
        why_auth_unavailable(&why);
        smtp_in_answer(&s->smtp, out, ok ? NULL : &why, NULL);
        return;
    }
    struct auth_check *check = auth_check_create(c->authcid, hash, c->password);
    struct ring_item item = {.kind = PEER_AUTH, .ptr = check};
    if (check) {
        check->session = (uint64_t)s->slot << 32 | s->generation;
        check->shard = sh->index;
        uint32_t worker = sh->gw->first_worker_peer + sh->auth_next_worker++ % sh->gw->worker_count;
        if (io_post(sh->io, worker, &item)) {
            s->waits |= SESSION_WAIT_AUTH;
            return;
        }
        auth_check_free(check);
    }
    why_auth_unavailable(&why);
    smtp_in_answer(&s->smtp, out, &why, NULL);
}

void session_auth_result(struct session *s, const struct auth_check *check)
{
    struct shard *sh = s->shard;
    struct why why;
    s->waits &= (uint8_t)~SESSION_WAIT_AUTH;
    if (check->ok && s->user && !s->user->disabled) {
        auth_cache_add(sh->auth_cache, s->user->name, check->hash, slice_str(check->password),
                       io_now_ns(sh->io), AUTH_CACHE_NS);
        bool ok = session_auth_accept(s, s->user->name);
        why_auth_unavailable(&why);
        session_answer(s, ok ? NULL : &why, NULL);
        return;
    }
    if (check->failed) {
        why_auth_unavailable(&why);
        session_answer(s, &why, NULL);
        return;
    }
    metric_add(sh->metrics, M_AUTH_FAILED, 1);
    session_auth_log(s, EV_AUTH_FAILED, s->user ? s->user->name : slice_str("(unknown)"));
    s->user = NULL;
    why_set(&why, 535, "5.7.8", "Authentication credentials invalid");
    session_answer_late(s, &why, ++s->auth_failures * AUTH_FAIL_DELAY_NS);
}

/* ---- events ---- */

static void session_rcpt(struct session *s, const struct smtp_rcpt *rcpt, struct buf *out)
{
    struct why why;
    why_clear(&why);
    session_tx_rcpt(s, rcpt, &why);
    if (why.smtp_code >= 500) {
        metric_add(s->shard->metrics, M_RCPT_REJECTED, 1);
        if (s->smtp.rcpt_rejected >= RCPT_FAIL_FREE) {
            session_answer_late(s, &why, RCPT_FAIL_DELAY_NS);
            return;
        }
    }
    smtp_in_answer(&s->smtp, out, &why, NULL);
}

static void session_starttls(struct session *s, struct slice rest)
{
    if (rest.len || s->held.count > 1) { /* FAULTS 37: what was sent in clear is never run in TLS */
        struct log_line line;
        log_begin(&line, &s->shard->log, EV_TLS_FAILED);
        log_str(&line, "session", s->id);
        log_str(&line, "reason", "plaintext behind STARTTLS");
        log_end(&line);
        metric_add(s->shard->metrics, M_TLS_FAILED, 1);
        session_finish(s, true);
        return;
    }
    session_tx_drop(s);
    session_tls_begin(s);
}

void session_event(struct session *s, struct smtp_in_event *ev, struct slice rest, struct buf *out)
{
    struct why why;
    why_clear(&why);
    switch (ev->kind) {
    case SMTP_IN_STARTTLS: session_starttls(s, rest); break;
    case SMTP_IN_AUTH: session_auth(s, &ev->auth, out); break;
    case SMTP_IN_MAIL:
        session_tx_mail(s, &ev->mail, &why);
        smtp_in_answer(&s->smtp, out, &why, NULL);
        break;
    case SMTP_IN_RCPT: session_rcpt(s, &ev->rcpt, out); break;
    case SMTP_IN_DATA:
        session_tx_data(s, &why);
        s->rate_start_ns = io_now_ns(s->shard->io);
        s->rate_bytes = 0;
        smtp_in_answer(&s->smtp, out, &why, NULL);
        break;
    case SMTP_IN_BODY: session_tx_body(s, ev->body); break;
    case SMTP_IN_HEADERS_END: session_tx_headers(s, &ev->headers); break;
    case SMTP_IN_END: session_tx_end(s); break;
    case SMTP_IN_DATA_BAD:
        metric_add(s->shard->metrics, M_REJECTED, 1);
        session_tx_refused(s);
        session_tx_drop(s);
        break;
    case SMTP_IN_RESET: session_tx_drop(s); break;
    case SMTP_IN_NEED_INPUT:
    case SMTP_IN_FLUSH:
    case SMTP_IN_CLOSE: break; /* session_step sees to them */
    }
}
