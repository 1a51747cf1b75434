/*
 * gateway/bounce.c - the end of an attempt for recipients that failed: a notification to the
 * sender, in one atomic record with their final state.
 *
 * Owns:     struct bounce (in the job's arena), its transaction and buffers while a notification
 *           is written.
 * Runs on:  the shard of the job.
 * Contract: a failed recipient becomes final only together with its durable notification, or when
 *           RFC 3461 wants none (FAULTS 63, 86). Then job_settle goes on.
 *           Of mail without a sender nobody is told but the postmaster; without one it is set
 *           aside as a dead letter (P1).
 * Failure:  the notification cannot be stored: the recipients stay, deferred, and fail again at
 *           the next attempt.
 * Bounds:   one notification at a time per job; the original is read in pieces.
 * Tests:    tests/system (dsn); text: tests/unit/test_dsn.c
 */
#include <assert.h>
#include <stdio.h>

#include "gateway/base/plant.h"
#include "gateway/delivery.h"
#include "gateway/dsn.h"

struct bounce {
    struct job *job;
    uint32_t kind; /* enum dsn_kind that is being written; DSN_KINDS: none left */
    struct lane_tx tx;
    struct arena arena; /* of the notification's own envelope */
    struct envelope env;
    struct envelope_rcpt to;
    struct dsn dsn;
    struct dsn_writer writer;
    char id[33], qid[QID_TEXT_MAX];
    uint32_t *finals; /* recipients that become final with it */
    uint32_t final_count;
    struct dsn_rcpt *rcpts; /* those that the notification names */
    struct lane_read read;
    uint64_t read_offset;
    uint8_t *original, *text;
    uint32_t original_off, original_len;
    bool waiting; /* the lane has no room now */
    bool reading; /* a piece of the original is on its way */
};

#define DSN_KINDS 4u

static void bounce_next(struct bounce *b);
static void bounce_write(struct bounce *b);

static struct shard *bounce_shard(const struct bounce *b)
{
    return b->job->delivery->shard;
}

/* Is this recipient reported (or dropped silently) under this kind? */
static bool bounce_concerns(const struct job *j, uint32_t i, enum dsn_kind kind)
{
    const struct job_rcpt *r = &j->rcpts[i];
    switch (kind) {
    case DSN_FAILED: return r->state == RCPT_FAIL && !r->expired;
    case DSN_EXPIRED: return r->state == RCPT_FAIL && r->expired;
    case DSN_DELAYED: return j->warn && (r->state == RCPT_DEFER || r->state == RCPT_UNREACHED);
    case DSN_RELAYED: return r->state == RCPT_RELAYED;
    }
    return false;
}

static void bounce_rcpt(struct dsn_rcpt *out, const struct job *j, uint32_t i, uint64_t now_ns)
{
    const struct job_verdict *v = j->rcpts[i].verdict ? j->verdicts[j->rcpts[i].verdict - 1] : NULL;
    *out = (struct dsn_rcpt){.mailbox = j->env.rcpts[i].mailbox, .orcpt = j->env.rcpts[i].orcpt};
    if (!v)
        return;
    struct slice remote = slice_str(v->remote);
    size_t space = slice_find(remote, ' ');
    out->host = slice_head(remote, space);
    if (space + 3 < remote.len) /* "host [address]" */
        out->address = slice_of(remote.ptr + space + 2, remote.len - space - 3);
    out->code = remote.len ? v->why.smtp_code : 0; /* our own verdicts are no next hop's reply */
    out->enhanced = slice_str(v->why.enhanced);
    out->text = slice_str(v->why.text);
    out->attempt_wall_ns = now_ns;
}

/*
 * Mail without a sender that fails (a report of somebody's or of ours, which nobody may be sent a
 * report about): the postmaster gets one if there is one, else the message is set aside. An
 * operator who returns it wants it gone.
 */
static bool bounce_is_dead(const struct job *j, uint32_t i, enum dsn_kind kind)
{
    return j->env.sender.len == 0 && (kind == DSN_FAILED || kind == DSN_EXPIRED) &&
           !(j->env.rcpts[i].notify & SMTP_NOTIFY_NEVER) && !j->bounce_asked;
}

/* Who is told of it; empty: nobody. Not by a report about mail that he himself did not get. */
static struct slice bounce_postmaster(const struct job *j, uint32_t i)
{
    const struct config *conf = j->delivery->shard->config->gen->config;
    struct slice to = slice_str(conf->postmaster ? conf->postmaster : "");
    return slice_eq_nocase(to, j->env.rcpts[i].mailbox) ? slice_of(NULL, 0) : to;
}

/* Gathers the recipients of this kind. False: no memory. */
static bool bounce_gather(struct bounce *b, enum dsn_kind kind)
{
    struct job *j = b->job;
    uint64_t now_ns = io_wall_ns(bounce_shard(b)->io);
    uint32_t n = j->env.rcpt_count, named = 0;
    b->final_count = 0;
    if (!b->finals)
        b->finals = arena_alloc_large(&j->arena, sizeof *b->finals * n);
    if (!b->rcpts)
        b->rcpts = arena_alloc_large(&j->arena, sizeof *b->rcpts * n);
    if (!b->finals || !b->rcpts)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (!bounce_concerns(j, i, kind) || queue_msg_rcpt_is_final(j->m, i))
            continue;
        bool dead = bounce_is_dead(j, i, kind), tell = dead && bounce_postmaster(j, i).len > 0;
        if (dead && !tell && job_set_aside(j, i))
            continue;
        if (kind != DSN_DELAYED)
            b->finals[b->final_count++] = i;
        if (tell || dsn_wanted(j->env.rcpts[i].notify, kind, j->env.sender.len == 0))
            bounce_rcpt(&b->rcpts[named++], j, i, now_ns);
        else if (kind == DSN_FAILED || kind == DSN_EXPIRED)
            metric_add(bounce_shard(b)->metrics, M_DSN_SUPPRESSED, 1);
    }
    b->dsn.rcpts = b->rcpts;
    b->dsn.rcpt_count = named;
    return true;
}

static void bounce_describe(struct bounce *b, enum dsn_kind kind)
{
    struct job *j = b->job;
    struct shard *sh = bounce_shard(b);
    const struct config *conf = sh->config->gen->config;
    uint8_t random[16];
    io_random(sh->io, random, sizeof random);
    for (int i = 0; i < 16; i++)
        snprintf(b->id + 2 * i, 3, "%02x", random[i]);
    b->dsn.kind = kind;
    b->dsn.hostname = slice_str(conf->hostname);
    b->dsn.id = slice_str(b->id);
    b->dsn.qid = slice_str(qid_text(j->m->qid, b->qid));
    b->dsn.to = j->env.sender.len ? j->env.sender : slice_str(conf->postmaster);
    b->dsn.envid = j->env.envid;
    b->dsn.arrival_wall_ns = j->env.accepted_wall_ns;
    b->dsn.now_wall_ns = io_wall_ns(sh->io);
    b->dsn.retry_until_wall_ns = (j->m->accepted_wall_s + conf->retry.expire_s) * NS_PER_S;
    b->dsn.ret = j->env.flags & ENVELOPE_RET_FULL   ? SMTP_RET_FULL
                 : j->env.flags & ENVELOPE_RET_HDRS ? SMTP_RET_HDRS
                                                    : SMTP_RET_NONE;
    b->dsn.original_8bit = j->env.flags & ENVELOPE_8BIT;
    b->dsn.original_utf8 = j->env.flags & ENVELOPE_SMTPUTF8;
    b->dsn.original_size = j->m->body_size;
}

/* ---- giving up, going on ---- */

static void bounce_release(struct bounce *b)
{
    struct shard *sh = bounce_shard(b);
    if (b->original)
        slab_free(&b->job->delivery->body_slab, b->original);
    if (b->text)
        slab_free(&sh->plain_slab, b->text);
    b->original = b->text = NULL;
}

/* The notification could not be stored: its recipients wait for the next attempt. */
static void bounce_failed(struct bounce *b, const char *text)
{
    struct job *j = b->job;
    struct log_line line;
    log_begin(&line, &bounce_shard(b)->log, EV_WARNING);
    log_str(&line, "qid", b->qid);
    log_str(&line, "reason", "a notification could not be stored, its recipients are kept");
    log_str(&line, "error", text);
    log_end(&line);
    if (b->dsn.kind == DSN_RELAYED && b->final_count) /* they are delivered, told or not */
        job_final_rcpts(j, b->finals, b->final_count, RCPT_DELIVERED);
    for (uint32_t i = 0; i < b->final_count && b->dsn.kind != DSN_RELAYED; i++)
        j->rcpts[b->finals[i]].state = RCPT_DEFER;
    bounce_release(b);
    arena_reset(&b->arena);
    bounce_next(b);
}

static void bounce_done(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    struct bounce *b = container_of(tx, struct bounce, tx);
    struct job *j = b->job;
    struct shard *sh = bounce_shard(b);
    struct log_line line;
    char qid[QID_TEXT_MAX];
    if (why->smtp_code) {
        bounce_failed(b, why->text);
        return;
    }
    metric_add(sh->metrics, M_DSN, 1);
    log_begin(&line, &sh->log, EV_DSN);
    log_str(&line, "qid", qid_text(m->qid, qid));
    log_str(&line, "about", b->qid);
    log_str(&line, "kind", dsn_kind_name(b->dsn.kind));
    log_slice(&line, "session", b->env.session);
    log_slice(&line, "recipient", b->env.rcpts[0].mailbox);
    log_end(&line);
    bounce_release(b);
    if (PLANT(DSN_APART) && b->final_count)
        job_final_rcpts(j, b->finals, b->final_count, RCPT_FAILED);
    if (b->dsn.kind == DSN_DELAYED)
        j->m->warned = 1;                  /* written with the next attempt's time */
    if (j->m && j->m->rcpt_pending == 0) { /* they were the last: the lane frees it */
        j->m->owner = NULL;
        j->m = NULL;
    }
    delivery_accept(j->delivery, j->lane, m, &b->arena, &b->env);
    arena_reset(&b->arena); /* left where it was when the notification waits in the backlog */
    bounce_next(b);
}

/* ---- writing ---- */

static bool bounce_envelope(struct bounce *b)
{
    struct job *j = b->job;
    struct envelope *e = &b->env;
    arena_init(&b->arena, &bounce_shard(b)->arena_slab, 4);
    *e = (struct envelope){.flags = ENVELOPE_DSN | (dsn_is_8bit(&b->dsn) ? ENVELOPE_8BIT : 0) |
                                    (dsn_is_utf8(&b->dsn) ? ENVELOPE_SMTPUTF8 : 0),
                           .subject = slice_str(dsn_subject(&b->dsn)),
                           .accepted_wall_ns = b->dsn.now_wall_ns,
                           .rcpt_count = 1};
    e->rcpts = arena_alloc(&b->arena, sizeof *e->rcpts);
    return e->rcpts && arena_copy(&b->arena, b->dsn.to, &e->rcpts->mailbox) &&
           arena_copy(&b->arena, j->env.connector, &e->connector) &&
           arena_copy(&b->arena, j->env.session, &e->session);
}

/* The message stays the job's until the commit is over: nobody else may begin with it meanwhile. */
static void bounce_commit(struct bounce *b)
{
    if (PLANT(DSN_APART))
        lane_tx_commit(&b->tx, &b->env, NULL, NULL, 0);
    else
        lane_tx_commit(&b->tx, &b->env, b->final_count ? b->job->m : NULL, b->finals,
                       b->final_count);
}

static void bounce_read_done(struct lane_read *r, int32_t res)
{
    struct bounce *b = container_of(r, struct bounce, read);
    b->reading = false;
    b->original_off = 0;
    b->original_len = res > 0 ? (uint32_t)res : 0;
    b->read_offset += b->original_len;
    if (res <= 0) /* what cannot be read does not keep the sender from being told */
        dsn_original_end(&b->writer);
    if (!b->waiting)
        bounce_write(b);
}

/* Bytes of the original for the writer, now or when they are read. */
static void bounce_original(struct bounce *b, struct buf *out)
{
    struct queue_msg *m = b->job->m;
    if (b->original_off < b->original_len && !dsn_original_is_enough(&b->writer)) {
        struct slice data =
            slice_of(b->original + b->original_off, b->original_len - b->original_off);
        b->original_off += (uint32_t)dsn_original(&b->writer, data, out);
        return;
    }
    uint64_t left = m->body_size - b->read_offset;
    if (left == 0 || dsn_original_is_enough(&b->writer)) {
        dsn_original_end(&b->writer);
        return;
    }
    b->reading = true;
    b->read.done = bounce_read_done;
    lane_body_read(b->job->lane, m, &b->read, b->read_offset, b->original,
                   left < OUT_BODY_READ_SIZE ? (uint32_t)left : OUT_BODY_READ_SIZE);
}

static void bounce_write(struct bounce *b)
{
    enum dsn_step step = DSN_FLUSH;
    while (step != DSN_DONE) {
        struct buf out = buf_over(b->text, SESSION_RECV_BUF_SIZE);
        step = dsn_write(&b->writer, &out);
        if (step == DSN_WANT_ORIGINAL)
            bounce_original(b, &out);
        enum lane_append did = out.len ? lane_tx_append(&b->tx, buf_slice(&out)) : LANE_APPEND_OK;
        b->waiting = did == LANE_APPEND_WAIT && step != DSN_DONE;
        if (b->waiting || b->reading)
            return; /* bounce_resumed, bounce_read_done: the later of the two goes on */
    }
    bounce_commit(b);
}

static void bounce_resumed(struct lane_tx *tx)
{
    struct bounce *b = container_of(tx, struct bounce, tx);
    if (!b->waiting)
        return;
    b->waiting = false;
    if (!b->reading)
        bounce_write(b);
}

static void bounce_begin(struct bounce *b, enum dsn_kind kind)
{
    struct job *j = b->job;
    struct why why;
    bounce_describe(b, kind);
    b->original = slab_alloc(&j->delivery->body_slab);
    b->text = slab_alloc(&bounce_shard(b)->plain_slab);
    b->read_offset = b->original_off = b->original_len = 0;
    memset(&b->tx, 0, sizeof b->tx);
    b->tx.done = bounce_done;
    b->tx.resumed = bounce_resumed;
    b->tx.internal = true;
    if (!b->original || !b->text || !bounce_envelope(b)) {
        bounce_failed(b, "out of memory");
        return;
    }
    if (!lane_tx_begin(j->lane, &b->tx, &why)) {
        bounce_failed(b, why.text);
        return;
    }
    dsn_start(&b->writer, &b->dsn);
    bounce_write(b);
}

/* The next kind that concerns somebody; none left: the job settles. */
static void bounce_next(struct bounce *b)
{
    struct job *j = b->job;
    while (j->m && b->kind < DSN_KINDS) {
        enum dsn_kind kind = (enum dsn_kind)b->kind++;
        if (!bounce_gather(b, kind)) {
            b->final_count = 0;
            break;
        }
        if (b->dsn.rcpt_count) {
            bounce_begin(b, kind);
            return;
        }
        if (kind == DSN_DELAYED && j->warn)
            j->m->warned = 1; /* nobody wants to know: not asked again */
        if (b->final_count)
            job_final_rcpts(j, b->finals, b->final_count,
                            kind == DSN_EXPIRED  ? RCPT_EXPIRED
                            : kind == DSN_FAILED ? RCPT_FAILED
                                                 : RCPT_DELIVERED);
    }
    job_settle(j);
}

void bounce_start(struct job *j)
{
    bool any = j->warn;
    for (uint32_t i = 0; i < j->env.rcpt_count && !any; i++)
        any = j->rcpts[i].state == RCPT_FAIL || j->rcpts[i].state == RCPT_RELAYED;
    struct bounce *b = any ? arena_alloc_large(&j->arena, sizeof *b) : NULL;
    if (!b) {
        for (uint32_t i = 0; any && i < j->env.rcpt_count;
             i++) /* no memory: they fail again next time */
            if (j->rcpts[i].state == RCPT_FAIL)
                j->rcpts[i].state = RCPT_DEFER;
        if (any)
            job_final(j, RCPT_RELAYED, RCPT_DELIVERED);
        job_settle(j);
        return;
    }
    b->job = j;
    j->bounce = b;
    bounce_next(b);
}
