/*
 * gateway/hop_io.c - an outbound connection's bytes: replies in, commands and bodies out, TLS
 * between.
 *
 * Owns:     the hop's received buffers, wire buffer and body buffer.
 * Runs on:  the shard of the hop.
 * Contract: a connection without a task holds no buffer. A body that cannot be read is never
 *           ended with a dot (FAULTS 58).
 * Failure:  network errors become smtp_out_lost; unreadable bodies close the connection and
 *           defer.
 * Bounds:   OUT_WIRE_BUF_SIZE, OUT_BODY_READ_SIZE for each hop with something to send.
 * Tests:    tests/system (next hops)
 */
#include "gateway/base/plant.h"
#include "gateway/delivery.h"

#include <string.h>

#define OUT_ROOM_MIN 4096u /* to step or to add body bytes */
#define TLS_ROOM     512u  /* what TLS may add to a piece of scratch */
#define TLS_PIECE    8192u /* plaintext encrypted at a time */
#define HELD_MAX     32u   /* received buffers that are not looked at, because we wait to send */

static struct shard *hop_shard(const struct hop *h)
{
    return h->site->delivery->shard;
}

/* ---- output ---- */

static bool wire_need(struct hop *h)
{
    if (!h->out) {
        h->out = slab_alloc(&h->site->delivery->wire_slab);
        h->out_len = h->out_sent = h->out_in_flight = 0;
    }
    return h->out != NULL;
}

static struct buf wire_tail(struct hop *h)
{
    return buf_over(h->out + h->out_len, OUT_WIRE_BUF_SIZE - h->out_len);
}

static void hop_local_failure(struct hop *h, const char *text)
{
    struct why why;
    why_set(&why, 451, "4.3.0", "%s", text);
    hop_failed(h, &why, false, false);
}

/* Room for protocol bytes, or scratch to be encrypted. False: the wire buffer is full, flush first.
 */
static bool hop_out_begin(struct hop *h, struct buf *out)
{
    if (!wire_need(h)) {
        hop_local_failure(h, "Out of memory");
        return false;
    }
    uint32_t room = OUT_WIRE_BUF_SIZE - h->out_len;
    if (room < OUT_ROOM_MIN + TLS_ROOM)
        return false;
    if (!h->tls) {
        *out = wire_tail(h);
        return true;
    }
    room -= TLS_ROOM;
    *out = buf_over(hop_shard(h)->scratch_reply, room < TLS_PIECE ? room : TLS_PIECE);
    return true;
}

static bool hop_out_end(struct hop *h, struct buf *out)
{
    struct slice data = buf_slice(out);
    struct why why;
    if (h->watch)
        hop_watch_bytes(h, true, data);
    if (!h->tls) {
        h->out_len += out->len;
        return true;
    }
    if (data.len == 0)
        return true;
    struct buf wire = wire_tail(h);
    enum tls_status st = tls_write(h->tls, &data, &wire, &why);
    h->out_len += wire.len;
    if (st == TLS_OK)
        return true;
    smtp_out_lost(&h->smtp, "TLS failed while sending");
    return false;
}

void hop_flush(struct hop *h)
{
    if (io_op_running(&h->send) || h->state == HOP_CLOSING || !h->out)
        return;
    if (h->out_len > h->out_sent) {
        h->out_in_flight = h->out_len - h->out_sent;
        io_send(hop_shard(h)->io, &h->send, h->fd, h->out + h->out_sent, h->out_in_flight,
                IO_END_NONE);
    } else if (!h->sending_body) {
        slab_free(&h->site->delivery->wire_slab, h->out);
        h->out = NULL;
    }
}

static void hop_send_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct hop *h = container_of(op, struct hop, send);
    (void)flags;
    if (h->state == HOP_CLOSING) {
        hop_op_ended(h);
        return;
    }
    if (res < 0) {
        h->eof = true;
        h->out_sent = h->out_len; /* what is left cannot be sent */
        if (h->held.count == 0 && h->state == HOP_SMTP)
            smtp_out_lost(&h->smtp, strerror(-res));
    } else {
        h->out_sent += h->out_in_flight;
    }
    h->out_in_flight = 0;
    if (h->out_sent == h->out_len)
        h->out_sent = h->out_len = 0;
    hop_touch(h);
    hop_run(h);
}

/* ---- body ---- */

static void hop_body_release(struct hop *h)
{
    h->sending_body = false;
    if (h->body)
        slab_free(&h->site->delivery->body_slab, h->body);
    h->body = NULL;
}

static void hop_body_read_done(struct lane_read *r, int32_t res)
{
    struct hop *h = container_of(r, struct hop, read);
    h->read_running = false;
    if (h->state == HOP_CLOSING) {
        hop_op_ended(h);
        return;
    }
    if (h->failing) {
        struct why why = h->fail_why;
        h->failing = false;
        hop_failed(h, &why, h->fail_down, h->fail_data_sent);
        return;
    }
    uint64_t left = h->task->job->m->body_size - h->body_read;
    if (res <= 0 || (uint64_t)res > left) {
        struct log_line line;
        char qid[QID_TEXT_MAX];
        log_begin(&line, &hop_shard(h)->log, EV_DAMAGED);
        log_str(&line, "qid", qid_text(h->task->job->m->qid, qid));
        log_str(&line, "reason", res < 0 ? strerror(-res) : "body is shorter than recorded");
        log_end(&line);
        hop_local_failure(h, "Stored message could not be read");
        return;
    }
    h->body_off = 0;
    h->body_len = (uint32_t)res;
    h->body_read += (uint64_t)res;
    hop_run(h);
}

static struct queue_msg *hop_message(const struct hop *h)
{
    const struct job *j = h->task->job;
    if (PLANT(OTHER_BODY)) {
        const struct job *first = container_of(j->delivery->jobs.next, struct job, link);
        if (first->lane == j->lane && first->m && first->m->body_size > j->m->body_size)
            return first->m;
    }
    return j->m;
}

static void hop_body_read(struct hop *h)
{
    struct job *j = h->task->job;
    struct queue_msg *m = hop_message(h);
    uint64_t left = j->m->body_size - h->body_read;
    if (!h->body && !(h->body = slab_alloc(&h->site->delivery->body_slab))) {
        hop_local_failure(h, "Out of memory");
        return;
    }
    h->read_running = true;
    h->read.done = hop_body_read_done;
    lane_body_read(j->lane, m, &h->read, h->body_read, h->body,
                   left < OUT_BODY_READ_SIZE ? (uint32_t)left : OUT_BODY_READ_SIZE);
}

/* A young message, straight from the lane's memory to the wire, as far as there is room. */
static void hop_body_from_memory(struct hop *h)
{
    struct slice body = lane_body_recent(h->task->job->lane, hop_message(h));
    struct buf out;
    if (body.len > h->task->job->m->body_size)
        body.len = 0;
    while (body.len && hop_out_begin(h, &out)) {
        size_t taken = smtp_out_body(&h->smtp, body, &out);
        body = slice_from(body, taken);
        h->body_read += taken;
        if (!hop_out_end(h, &out))
            return;
    }
}

void hop_body_begin(struct hop *h)
{
    h->sending_body = true;
    h->body_off = h->body_len = 0;
    h->body_read = 0;
    h->text = h->task->job->handoff ? handoff_text(h->task->job) : slice_of(NULL, 0);
    if (h->text.len == 0)
        hop_body_from_memory(h);
    if (h->state == HOP_SMTP && h->body_read < h->task->job->m->body_size)
        hop_body_read(h);
}

/* Moves body bytes to the wire. True: something changed and more may be done now. */
static bool hop_body_pump(struct hop *h)
{
    struct buf out;
    if (h->read_running || !hop_out_begin(h, &out))
        return false;
    if (h->text.len) {
        h->text = slice_from(h->text, smtp_out_body(&h->smtp, h->text, &out));
        return hop_out_end(h, &out);
    }
    if (h->body_off < h->body_len) {
        struct slice data = slice_of(h->body + h->body_off, h->body_len - h->body_off);
        h->body_off += (uint32_t)smtp_out_body(&h->smtp, data, &out);
        return hop_out_end(h, &out);
    }
    if (h->body_read < h->task->job->m->body_size) {
        hop_body_read(h);
        return false;
    }
    if (!hop_note_dot(h))
        return false;
    bool ended = smtp_out_body_end(&h->smtp, &out);
    bool sent = hop_out_end(h, &out);
    if (ended)
        hop_body_release(h);
    if (ended && sent)
        hop_dot_sent(h);
    return ended && sent;
}

/* ---- input ---- */

static bool hop_input(struct hop *h, struct slice *in)
{
    struct shard *sh = hop_shard(h);
    struct why why;
    if (h->plain) {
        *in = slice_of(h->plain + h->plain_off, h->plain_len - h->plain_off);
        return true;
    }
    if (!h->tls) {
        *in = held_slice(&sh->held, &h->held);
        return in->len > 0;
    }
    while (wire_need(h)) {
        struct slice cipher = held_slice(&sh->held, &h->held);
        struct buf plain = buf_over(sh->scratch_plain, SESSION_RECV_BUF_SIZE), wire = wire_tail(h);
        enum tls_status st = tls_read(h->tls, &cipher, &wire, &plain, &why);
        h->out_len += wire.len;
        held_consume(&sh->held, &h->held, cipher);
        if (plain.len) {
            *in = buf_slice(&plain);
            return true;
        }
        if (st == TLS_FAILED)
            smtp_out_lost(&h->smtp, why.text);
        if (st == TLS_CLOSED)
            h->eof = true;
        if (st != TLS_WANT_IN || held_empty(&h->held))
            return false;
    }
    return false;
}

static void plain_drop(struct hop *h)
{
    if (h->plain)
        slab_free(&hop_shard(h)->plain_slab, h->plain);
    h->plain = NULL;
}

/* Keeps what the machine did not take. */
static void hop_consume(struct hop *h, bool was_tls, struct slice rest)
{
    struct shard *sh = hop_shard(h);
    if (!was_tls) {
        held_consume(&sh->held, &h->held, h->tls ? slice_of(NULL, 0) : rest);
    } else if (h->plain) {
        h->plain_off = h->plain_len - (uint32_t)rest.len;
        if (rest.len == 0)
            plain_drop(h);
    } else if (rest.len) {
        h->plain = slab_alloc(&sh->plain_slab);
        if (!h->plain) {
            smtp_out_lost(&h->smtp, "Out of memory");
            return;
        }
        memcpy(h->plain, rest.ptr, rest.len);
        h->plain_off = 0;
        h->plain_len = (uint32_t)rest.len;
    }
}

/* One step of the protocol. True: step again. */
static bool hop_step(struct hop *h)
{
    struct smtp_out_event ev;
    struct buf out;
    if (!hop_out_begin(h, &out))
        return false;
    struct slice in = slice_of(NULL, 0);
    bool more = hop_input(h, &in);
    bool was_tls = h->tls != NULL, again = true;
    if (!more && h->eof && !h->lost) {
        h->lost = true;
        smtp_out_lost(&h->smtp, "The next hop closed the connection");
    }
    while (h->state == HOP_SMTP && !h->failing) {
        const struct slice before = in;
        enum smtp_out_event_kind kind = smtp_out_step(&h->smtp, &in, &out, &ev);
        if (h->watch)
            hop_watch_bytes(h, false, slice_head(before, before.len - in.len));
        if (kind == SMTP_OUT_NEED_INPUT || kind == SMTP_OUT_FLUSH) {
            again = more && kind == SMTP_OUT_NEED_INPUT;
            break;
        }
        if (kind == SMTP_OUT_STARTTLS && (in.len || h->held.count > 1)) { /* FAULTS 80 */
            hop_local_failure(h, "The next hop sent plaintext behind its answer to STARTTLS");
            return false;
        }
        if (!hop_out_end(h, &out)) /* an event may want to write too */
            again = true;
        hop_event(h, &ev);
        if (h->state == HOP_CLOSING || !hop_out_begin(h, &out)) {
            again = h->state == HOP_SMTP;
            out = buf_over(NULL, 0);
            break;
        }
        if (kind == SMTP_OUT_SEND_BODY)
            break;
    }
    if (h->state == HOP_CLOSING || h->failing)
        return false;
    hop_consume(h, was_tls, in);
    if (h->state == HOP_SMTP)
        hop_out_end(h, &out);
    return again && h->state == HOP_SMTP;
}

static void hop_run_one(struct hop *h)
{
    if (h->failing)
        return;
    if (h->state == HOP_TLS)
        hop_handshake(h);
    bool more = h->state == HOP_SMTP;
    enum smtp_out_phase phase = h->smtp.phase;
    uint32_t answered = h->smtp.answered;
    while (more && !h->failing) {
        more = hop_step(h);
        while (h->state == HOP_SMTP && h->sending_body && !h->failing && hop_body_pump(h))
            more = true;
        if (h->state == HOP_TLS) { /* STARTTLS was answered just now: our hello is due */
            hop_handshake(h);
            more = h->state == HOP_SMTP;
        }
    }
    /* Whole replies earn more time, bytes do not (FAULTS 84). */
    if (h->state == HOP_SMTP && (h->smtp.phase != phase || h->smtp.answered != answered))
        hop_touch(h);
    hop_flush(h);
}

void hop_run(struct hop *h)
{
    struct delivery *d = h->site->delivery;
    struct list *next;
    if (list_empty(&h->run_link))
        list_push_back(&d->run_queue, &h->run_link);
    if (d->run_active) /* the shard's scratch is in use further up: this one's turn comes after it
                        */
        return;
    d->run_active = true;
    while ((next = list_pop_front(&d->run_queue)))
        hop_run_one(container_of(next, struct hop, run_link));
    d->run_active = false;
}

static void hop_recv_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct hop *h = container_of(op, struct hop, recv);
    (void)flags;
    if (h->state == HOP_CLOSING || (h->failing && res > 0)) {
        if (res > 0)
            io_buf_put(hop_shard(h)->io, op->buf_id);
        hop_op_ended(h);
        return;
    }
    if (res > 0)
        held_push(&hop_shard(h)->held, &h->held, op, (uint32_t)res);
    else
        h->eof = true;
    hop_run(h);
    if (h->held.count > HELD_MAX && h->state != HOP_CLOSING) { /* FAULTS 83: the buffers are the
                                                                  shard's */
        struct why why;
        why_set(&why, 451, "4.5.0", "The next hop talks without listening");
        hop_failed(h, &why, true, h->smtp.phase == SMTP_OUT_AT_EOD);
    }
}

/* ---- TLS ---- */

void hop_tls_begin(struct hop *h)
{
    const struct config_send_connector *conf = h->site->send->conf;
    const char *name = conf->tls.name ? conf->tls.name : h->name;
    h->tls = tls_client_conn(h->site->send->tls, name);
    if (!h->tls) {
        hop_local_failure(h, "Out of memory for TLS");
        return;
    }
    hop_set_state(h, HOP_TLS);
    hop_touch(h);
}

static void hop_count_tls(struct hop *h)
{
    struct tls_facts facts;
    tls_facts(h->tls, &facts);
    series_add(&site_series(h->site)->count[facts.resumed ? SS_TLS_RESUMED : SS_TLS], 1);
}

void hop_handshake(struct hop *h)
{
    struct shard *sh = hop_shard(h);
    struct why why;
    while (h->state == HOP_TLS && wire_need(h)) {
        struct slice in = held_slice(&sh->held, &h->held);
        struct buf wire = wire_tail(h);
        enum tls_status st = tls_handshake(h->tls, &in, &wire, &why);
        h->out_len += wire.len;
        held_consume(&sh->held, &h->held, in);
        if (st == TLS_OK) {
            hop_count_tls(h);
            if (h->watch)
                watch_tls(h->watch, h->tls);
            hop_set_state(h, HOP_SMTP);
            smtp_out_tls_started(&h->smtp);
            hop_touch(h);
            return;
        }
        if (st == TLS_WANT_IN && !held_empty(&h->held))
            continue;
        if (st == TLS_WANT_OUT || (st == TLS_WANT_IN && !h->eof))
            return;
        if (st == TLS_WANT_IN)
            why_set(&why, 0, "", "the next hop closed the connection");
        struct why failed;
        why_set(&failed, 451, "4.7.5", "TLS handshake failed: %s", why.text);
        hop_failed(h, &failed, true, false);
    }
}

/* ---- life ---- */

bool hop_send_ahead(struct hop *h, const struct smtp_out_tx *tx)
{
    struct buf out;
    return hop_out_begin(h, &out) && smtp_out_ahead(&h->smtp, tx, &out) && hop_out_end(h, &out);
}

void hop_send_quit(struct hop *h)
{
    struct buf out;
    if (!hop_out_begin(h, &out)) {
        hop_close(h);
        return;
    }
    smtp_out_quit(&h->smtp, &out);
    hop_out_end(h, &out);
    hop_run(h);
}

void hop_io_init(struct hop *h)
{
    held_init(&h->held);
    h->recv.done = hop_recv_done;
    h->send.done = hop_send_done;
}

void hop_io_connected(struct hop *h)
{
    io_recv(hop_shard(h)->io, &h->recv, h->fd);
}

bool hop_io_busy(const struct hop *h)
{
    return io_op_running(&h->connect) || io_op_running(&h->recv) || io_op_running(&h->send) ||
           h->read_running;
}

void hop_io_free(struct hop *h)
{
    held_drop(&hop_shard(h)->held, &h->held);
    hop_body_release(h);
    plain_drop(h);
    if (h->out)
        slab_free(&h->site->delivery->wire_slab, h->out);
    h->out = NULL;
}
