/*
 * gateway/session_io.c - an inbound session's bytes: received buffers, TLS, the wire buffer.
 *
 * Owns:     the list of received buffers a session has not consumed, its decrypted leftovers, its
 *           wire buffer.
 * Runs on:  the shard of the session.
 * Contract: an idle session holds no receive buffer, no plaintext and no wire buffer. Bytes
 *           received in clear are never interpreted inside TLS (FAULTS P6, 37).
 * Failure:  no memory for a wire buffer: the session is closed; a network error closes it hard.
 * Bounds:   HELD_PAUSE received buffers before receiving pauses; SESSION_OUT_BUF_SIZE of replies.
 * Tests:    tests/system (dialogs, interop)
 */
#include "gateway/base/plant.h"
#include "gateway/session.h"

#include <assert.h>
#include <errno.h>

#define HELD_PAUSE      4u
#define OUT_ROOM_MIN    2048u /* to step: a few replies and what TLS adds */
#define OUT_ANSWER_ROOM 1024u /* kept for the answer of an event that waits */

/* ---- input ---- */

static void plain_drop(struct session *s)
{
    if (s->plain)
        slab_free(&s->shard->plain_slab, s->plain);
    s->plain = NULL;
    s->plain_off = s->plain_len = 0;
}

bool session_input_pending(const struct session *s)
{
    return !held_empty(&s->held) || s->plain || (s->tls && tls_pending(s->tls));
}

/* Receiving pauses while a session cannot consume, and goes on when it has. */
static void session_pace(struct session *s)
{
    if (s->eof || s->state >= SESSION_LINGER)
        return;
    if (s->held.count > HELD_PAUSE && !s->recv_paused && io_op_running(&s->recv)) {
        s->recv_paused = true;
        io_cancel(s->shard->io, &s->recv);
    } else if (s->held.count == 0 && !io_op_running(&s->recv)) {
        s->recv_paused = false;
        io_recv(s->shard->io, &s->recv, s->fd);
    }
}

/* ---- output ---- */

static bool wire_need(struct session *s)
{
    if (!s->out) {
        s->out = slab_alloc(&s->shard->out_slab);
        s->out_len = s->out_sent = s->out_in_flight = 0;
    }
    return s->out != NULL;
}

static struct buf wire_tail(struct session *s)
{
    return buf_over(s->out + s->out_len, SESSION_OUT_BUF_SIZE - s->out_len);
}

bool session_out_begin(struct session *s, struct buf *out)
{
    if (!wire_need(s)) {
        s->hard_close = true;
        return false;
    }
    uint32_t room = SESSION_OUT_BUF_SIZE - s->out_len;
    if (room < OUT_ROOM_MIN + OUT_ANSWER_ROOM) {
        s->waits |= SESSION_WAIT_OUT;
        return false;
    }
    if (s->tls)
        *out = buf_over(s->shard->scratch_reply, room - OUT_ANSWER_ROOM);
    else
        *out = wire_tail(s);
    if (s->watch)
        s->watch->out_seen = 0;
    return true;
}

/* The few bytes of an answer that comes later: room was kept for it. */
static void session_out_begin_answer(struct session *s, struct buf *out)
{
    bool ok = wire_need(s);
    if (!ok) {
        s->hard_close = true;
        *out = buf_over(s->shard->scratch_reply, SESSION_OUT_BUF_SIZE);
    } else {
        *out = s->tls ? buf_over(s->shard->scratch_reply, OUT_ANSWER_ROOM) : wire_tail(s);
    }
    if (s->watch)
        s->watch->out_seen = 0;
}

void session_out_end(struct session *s, struct buf *out)
{
    if (s->watch)
        session_watch_out(s, out);
    if (!s->out)
        return;
    if (!s->tls) {
        s->out_len += out->len;
        return;
    }
    struct slice data = buf_slice(out);
    struct buf wire = wire_tail(s);
    struct why why;
    if (data.len && tls_write(s->tls, &data, &wire, &why) != TLS_OK)
        s->hard_close = true;
    s->out_len += wire.len;
}

void session_flush(struct session *s)
{
    if (io_op_running(&s->send) || s->state == SESSION_CLOSING)
        return;
    if (s->out && s->out_len > s->out_sent && !s->hard_close) {
        s->out_in_flight = s->out_len - s->out_sent;
        enum io_end end = s->state != SESSION_LINGER ? IO_END_NONE
                          : session_is_over(s)       ? IO_END_CLOSE
                                                     : IO_END_SHUTDOWN;
        s->end_sent = end == IO_END_SHUTDOWN;
        io_send(s->shard->io, &s->send, s->fd, s->out + s->out_sent, s->out_in_flight, end);
        return;
    }
    if (s->out) {
        slab_free(&s->shard->out_slab, s->out);
        s->out = NULL;
        s->out_len = s->out_sent = 0;
    }
    session_output_done(s);
}

static void session_send_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct session *s = container_of(op, struct session, send);
    (void)flags;
    if (s->state == SESSION_CLOSING) {
        session_op_ended(s);
        return;
    }
    if (res < 0) {
        s->eof = true;
        session_finish(s, true);
        return;
    }
    s->out_sent += s->out_in_flight;
    s->out_in_flight = 0;
    if (s->out_sent == s->out_len) {
        s->out_sent = s->out_len = 0;
        s->waits &= (uint8_t)~SESSION_WAIT_OUT;
    }
    if (s->state == SESSION_OPEN)
        session_touch(s);
    if (s->state == SESSION_LINGER)
        session_flush(s);
    else
        session_resume(s);
}

void session_tls_notify(struct session *s)
{
    if (!s->tls || s->tls_notified || s->hard_close || s->eof || !wire_need(s))
        return;
    struct buf wire = wire_tail(s);
    s->tls_notified = true;
    tls_close(s->tls, &wire);
    s->out_len += wire.len;
}

/* ---- TLS ---- */

static void session_tls_failed(struct session *s, const struct why *why)
{
    struct log_line line;
    char text[IO_ADDR_TEXT_MAX];
    log_begin(&line, &s->shard->log, EV_TLS_FAILED);
    log_str(&line, "session", s->id);
    log_str(&line, "connector", s->receive->conf->name);
    log_str(&line, "client", io_addr_text(&s->peer, true, text));
    log_str(&line, "reason", why->text);
    log_end(&line);
    metric_add(s->shard->metrics, M_TLS_FAILED, 1);
    session_count(s, RS_TLS_FAILED, 1);
    if (s->watch)
        watch_note(s->watch, slice_str(why->text), "TLS failed");
    s->tls_notified = true; /* the alert is in the wire buffer */
    session_finish(s, false);
}

static void session_handshake_done(struct session *s)
{
    struct tls_facts facts;
    tls_facts(s->tls, &facts);
    metric_add(s->shard->metrics, M_TLS_HANDSHAKES, 1);
    session_count(s, facts.resumed ? RS_TLS_RESUMED : RS_TLS, 1);
    if (facts.resumed)
        metric_add(s->shard->metrics, M_TLS_RESUMED, 1);
    if (s->watch)
        watch_tls(s->watch, s->tls);
    session_set_state(s, SESSION_OPEN);
    session_touch(s);
    if (s->implicit_tls_pending) {
        s->implicit_tls_pending = false;
        session_greet(s, NULL);
    } else {
        smtp_in_tls_started(&s->smtp);
        session_forget_account(s); /* RFC 3207 section 4.2: what was known in clear is forgotten */
    }
}

static void session_handshake(struct session *s)
{
    struct why why;
    while (s->state == SESSION_HANDSHAKE) {
        if (!wire_need(s)) {
            session_finish(s, true);
            return;
        }
        struct slice in = held_slice(&s->shard->held, &s->held);
        struct buf wire = wire_tail(s);
        enum tls_status st = tls_handshake(s->tls, &in, &wire, &why);
        s->out_len += wire.len;
        held_consume(&s->shard->held, &s->held, in);
        if (st == TLS_OK) {
            session_handshake_done(s);
        } else if (st == TLS_WANT_IN && !held_empty(&s->held)) {
            continue;
        } else if (st == TLS_WANT_IN || st == TLS_WANT_OUT) {
            break; /* session_send_done comes back */
        } else {
            session_tls_failed(s, &why);
            return;
        }
    }
    if (s->state == SESSION_HANDSHAKE && s->eof && held_empty(&s->held))
        session_finish(s, true);
    else if (s->state == SESSION_HANDSHAKE)
        session_flush(s);
}

void session_tls_begin(struct session *s)
{
    s->implicit_tls_pending = s->receive->conf->tls.mode == CONFIG_TLS_IMPLICIT;
    s->tls = tls_server_conn(s->receive->tls);
    session_set_state(s, SESSION_HANDSHAKE);
    if (!s->tls) {
        session_finish(s, true);
        return;
    }
    session_touch(s); /* for all of the handshake, however its bytes come (FAULTS 39) */
    io_timer_set(s->shard->io, &s->timer, s->deadline_ns);
}

/* ---- stepping ---- */

void session_greet(struct session *s, const struct why *why)
{
    struct buf out;
    if (!session_out_begin(s, &out)) { /* without a greeting there is no session */
        session_finish(s, true);
        return;
    }
    smtp_in_greet(&s->smtp, &out, why);
    session_out_end(s, &out);
}

/* Decrypts into the shard's scratch until there is plaintext. False: there is none now. */
static bool session_decrypt(struct session *s, struct slice *in)
{
    struct why why;
    for (;;) {
        struct slice cipher = held_slice(&s->shard->held, &s->held);
        struct buf plain = buf_over(s->shard->scratch_plain, SESSION_RECV_BUF_SIZE);
        if (!wire_need(s)) {
            session_finish(s, true);
            return false;
        }
        struct buf wire = wire_tail(s);
        enum tls_status st = tls_read(s->tls, &cipher, &wire, &plain, &why);
        s->out_len += wire.len;
        held_consume(&s->shard->held, &s->held, cipher);
        if (plain.len) {
            *in = buf_slice(&plain);
            return true;
        }
        if (st == TLS_WANT_IN && !held_empty(&s->held))
            continue;
        if (st == TLS_WANT_OUT) {
            s->waits |= SESSION_WAIT_OUT;
        } else if (st == TLS_CLOSED) { /* what is behind it is nobody's (FAULTS 27) */
            s->eof = true;
            held_drop(&s->shard->held, &s->held);
        } else if (st == TLS_FAILED) {
            session_tls_failed(s, &why);
        }
        return false;
    }
}

/* What the next step sees. An empty slice also lets the machine give out events that it still has.
 */
static bool session_input(struct session *s, struct slice *in)
{
    if (s->plain) {
        *in = slice_of(s->plain + s->plain_off, s->plain_len - s->plain_off);
        return true;
    }
    if (s->tls)
        return session_decrypt(s, in);
    *in = held_slice(&s->shard->held, &s->held);
    return in->len > 0;
}

static void session_consume(struct session *s, struct slice rest)
{
    if (s->plain) {
        s->plain_off = s->plain_len - (uint32_t)rest.len;
        if (rest.len == 0)
            plain_drop(s);
    } else if (!s->tls) {
        held_consume(&s->shard->held, &s->held, rest);
    } else if (rest.len) { /* the scratch is needed by others: keep the rest */
        s->plain = slab_alloc(&s->shard->plain_slab);
        if (!s->plain) {
            s->hard_close = true;
            return;
        }
        memcpy(s->plain, rest.ptr, rest.len);
        s->plain_off = 0;
        s->plain_len = (uint32_t)rest.len;
    }
}

/* A partial line is kept in a lent buffer, and only then. */
static bool session_lend_line(struct session *s)
{
    uint8_t *line = slab_alloc(&s->shard->line_slab);
    struct why why;
    if (line) {
        smtp_in_lend_line(&s->smtp, line);
        return true;
    }
    why_set(&why, 421, "4.3.2", "Out of memory, try again later");
    session_abandon(s, &why);
    return false;
}

/* Steps over one piece of input. True: there may be more to do. */
static bool session_step(struct session *s)
{
    struct smtp_in_event ev;
    enum smtp_in_event_kind kind = SMTP_IN_NEED_INPUT;
    struct slice in = slice_of(NULL, 0);
    struct buf out;
    if (smtp_in_is_closing(&s->smtp)) { /* a 421 that was answered late, for instance */
        session_finish(s, false);
        return false;
    }
    if (!session_out_begin(s, &out) || !session_input(s, &in))
        return false;
    if (s->smtp.commands == 0 && session_proxy_forged(s, in)) {
        session_finish(s, true);
        return false;
    }
    bool was_tls = s->tls != NULL;
    while (s->state == SESSION_OPEN && !s->waits) {
        const struct slice before = in;
        enum smtp_in_reading what = s->watch ? smtp_in_reading(&s->smtp) : SMTP_IN_READS_LINE;
        kind = smtp_in_step(&s->smtp, &in, &out, &ev);
        if (s->watch) {
            session_watch_read(s, what, before, in);
            session_watch_out(s, &out);
        }
        if (kind == SMTP_IN_NEED_INPUT || kind == SMTP_IN_FLUSH || kind == SMTP_IN_CLOSE)
            break;
        session_event(s, &ev, in, &out);
    }
    session_tx_keep(s);
    if (s->state == SESSION_CLOSING || s->state == SESSION_LINGER)
        return false;
    if (was_tls == (s->tls != NULL))
        session_consume(s, in);
    else
        held_consume(&s->shard->held, &s->held,
                     slice_of(NULL, 0)); /* STARTTLS: nothing may be behind it */
    if (was_tls || !s->tls)
        session_out_end(s, &out);
    else
        s->out_len += out.len; /* the 220 goes out in clear, and was seen */
    if (kind == SMTP_IN_CLOSE) {
        session_finish(s, false);
        return false;
    }
    if (kind == SMTP_IN_FLUSH)
        s->waits |= SESSION_WAIT_OUT;
    if (kind == SMTP_IN_NEED_INPUT && smtp_in_wants_line(&s->smtp))
        return session_lend_line(s);
    return s->state == SESSION_OPEN && !s->hard_close;
}

void session_run(struct session *s)
{
    if (s->in_run || s->state != SESSION_OPEN)
        return;
    s->in_run = true;
    s->smtp.tls_short = shard_tls_is_short(s->shard);
    while (s->state == SESSION_OPEN && !s->waits && !s->hard_close && session_step(s))
        ;
    s->in_run = false;
    uint8_t *line = smtp_in_take_line(&s->smtp);
    if (line)
        slab_free(&s->shard->line_slab, line);
    if (s->state == SESSION_OPEN && s->hard_close)
        session_finish(s, true);
    else if (s->state == SESSION_OPEN && s->eof && !s->waits && !session_input_pending(s))
        session_finish(s, false); /* a client may close its side and still read its replies */
    else if (s->state == SESSION_OPEN && s->shard->draining && smtp_in_is_idle(&s->smtp) &&
             !s->waits && !session_input_pending(s))
        session_drain(s);
    else if (s->state == SESSION_HANDSHAKE || s->state == SESSION_OPEN)
        session_flush(s);
}

void session_resume(struct session *s)
{
    if (s->state == SESSION_PROXY)
        session_proxy_input(s);
    if (s->state == SESSION_HANDSHAKE)
        session_handshake(s);
    if (s->state == SESSION_OPEN)
        session_run(s);
    session_pace(s);
}

void session_answer(struct session *s, const struct why *why, const char *detail)
{
    struct buf out;
    session_out_begin_answer(s, &out);
    smtp_in_answer(&s->smtp, &out, why, detail);
    if (PLANT(ANSWER_TWICE) && detail)
        buf_addf(&out, "250 2.0.0 %s\r\n", detail);
    session_out_end(s, &out);
    session_resume(s);
}

static void session_recv_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct session *s = container_of(op, struct session, recv);
    (void)flags;
    if (res > 0) {
        metric_add(s->shard->metrics, M_BYTES_IN, (uint64_t)res);
        s->rate_bytes += (uint64_t)res;
        if (s->state >= SESSION_LINGER) {
            io_buf_put(s->shard->io, op->buf_id);
        } else {
            held_push(&s->shard->held, &s->held, op, (uint32_t)res);
            if (smtp_in_in_data(&s->smtp)) /* its rate is watched */
                session_touch(s);
        }
    } else if (res != -ECANCELED || !s->recv_paused) {
        s->eof = true;
        s->hard_close |= res < 0;
    }
    if (s->state >= SESSION_LINGER) {
        session_op_ended(s);
        return;
    }
    if (s->eof && s->waits & SESSION_WAIT_TURN) { /* nobody waits for the answer any more */
        session_finish(s, true);
        return;
    }
    uint64_t commands = s->smtp.commands;
    session_resume(s);
    if (s->state == SESSION_OPEN && s->smtp.commands != commands)
        session_touch(s); /* bytes alone are no progress (FAULTS 47) */
}

void session_io_init(struct session *s)
{
    s->recv.done = session_recv_done;
    s->send.done = session_send_done;
    held_init(&s->held);
}

void session_io_start(struct session *s)
{
    io_recv(s->shard->io, &s->recv, s->fd);
    session_flush(s);
}

void session_io_free(struct session *s)
{
    held_drop(&s->shard->held, &s->held);
    plain_drop(s);
    if (s->out)
        slab_free(&s->shard->out_slab, s->out);
    s->out = NULL;
    uint8_t *line = smtp_in_abandon(&s->smtp);
    if (line)
        slab_free(&s->shard->line_slab, line);
}
