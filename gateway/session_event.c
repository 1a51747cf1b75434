/*
 * gateway/session_event.c - performs what the SMTP machine asks for: policy, TLS, the message.
 *
 * Owns:     nothing of its own.
 * Runs on:  the shard of the session.
 * Contract: an event marked (answer) in smtp_in.h is answered exactly once, now or later; later
 *           means that a bit of enum session_wait is set until then.
 * Failure:  of policy: the reply says so. Refused recipients are answered late after
 *           RCPT_FAIL_FREE of them (FAULTS 49).
 * Tests:    tests/system (dialogs, auth)
 */
#include "gateway/session.h"

#include <stdlib.h>

#define RCPT_FAIL_FREE     10u /* refused recipients before each further one is answered late */
#define RCPT_FAIL_DELAY_NS (NS_PER_S / 2)

/* ---- answers held back ---- */

void session_answer_late(struct session *s, const struct why *why, uint64_t delay_ns)
{
    s->delayed = *why;
    s->waits |= SESSION_WAIT_DELAY;
    io_timer_set(s->shard->io, &s->delay, io_now_ns(s->shard->io) + delay_ns);
}

void session_delay_fired(struct timer *t)
{
    struct session *s = container_of(t, struct session, delay);
    if (s->state != SESSION_OPEN)
        return;
    if (s->waits & SESSION_WAIT_TURN) {
        session_auth_turn(s);
        return;
    }
    if (!(s->waits & SESSION_WAIT_DELAY))
        return;
    s->waits &= (uint8_t)~SESSION_WAIT_DELAY;
    session_answer(s, &s->delayed, NULL);
}

/* ---- events ---- */

static void session_rcpt(struct session *s, const struct smtp_rcpt *rcpt, struct buf *out)
{
    struct why why;
    why_clear(&why);
    session_tx_rcpt(s, rcpt, &why);
    if (why.smtp_code >= 500) {
        metric_add(s->shard->metrics, M_RCPT_REJECTED, 1);
        session_count(s, RS_RCPT_REJECTED, 1);
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
        if (s->watch)
            watch_note(s->watch, slice_of(NULL, 0), "plaintext behind STARTTLS: closed");
        metric_add(s->shard->metrics, M_TLS_FAILED, 1);
        session_count(s, RS_TLS_FAILED, 1);
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
        if (why.smtp_code == 0 && s->shard->pressure_level == PRESSURE_MEDIUM) {
            metric_add(s->shard->metrics, M_PRESSURE_DELAYED, 1);
            session_answer_late(s, &why, s->config->gen->config->back_pressure.delay_ns);
            break;
        }
        smtp_in_answer(&s->smtp, out, &why, NULL);
        break;
    case SMTP_IN_RCPT: session_rcpt(s, &ev->rcpt, out); break;
    case SMTP_IN_DATA:
        session_tx_data(s, &why);
        session_rate_begin(s);
        smtp_in_answer(&s->smtp, out, &why, NULL);
        break;
    case SMTP_IN_HANDOFF:
        session_handoff(s, &ev->handoff, &why);
        session_rate_begin(s);
        smtp_in_answer(&s->smtp, out, &why, NULL);
        break;
    case SMTP_IN_HANDOFF_COMMIT:
    case SMTP_IN_HANDOFF_ABORT:
        if (session_handoff_settle(s, &ev->handoff, ev->kind == SMTP_IN_HANDOFF_COMMIT, &why))
            smtp_in_answer(&s->smtp, out, &why, NULL);
        break;
    case SMTP_IN_HANDOFF_NEXT: {
        char words[HANDOFF_ID_MAX + 32];
        session_handoff_next(s, &ev->handoff, words, &why);
        smtp_in_answer(&s->smtp, out, &why, words);
        break;
    }
    case SMTP_IN_BODY:
        if (s->smtp.handing)
            session_handoff_body(s, ev->body);
        else
            session_tx_body(s, ev->body);
        break;
    case SMTP_IN_HEADERS_END:
        if (!s->smtp.handing)
            session_tx_headers(s, &ev->headers);
        break;
    case SMTP_IN_END:
        if (s->smtp.handing)
            session_handoff_end(s);
        else
            session_tx_end(s);
        break;
    case SMTP_IN_DATA_BAD:
        metric_add(s->shard->metrics, M_REJECTED, 1);
        session_count(s, RS_REJECTED, 1);
        session_tx_refused(s);
        session_tx_drop(s);
        break;
    case SMTP_IN_RESET: session_tx_drop(s); break;
    case SMTP_IN_LINE:
    case SMTP_IN_NEED_INPUT:
    case SMTP_IN_FLUSH:
    case SMTP_IN_CLOSE: break; /* session_step sees to them */
    }
}
