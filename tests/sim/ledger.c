/*
 * tests/sim/ledger.c - the books of a run: what was promised for each recipient, what became of it,
 * and whether the two fit.
 *
 * Owns:     every message and its recipients.
 * Runs on:  the one thread of a simulation.
 * Contract: P1 nothing acknowledged is lost; P2 nobody gets a message twice unless a reply was lost
 *           or a process died before its record was on disk; what is over never comes back; no
 *           report twice, none for a null sender, none that was not wanted; nothing that was
 *           refused is ever seen.
 * Failure:  world_fail with the message and the recipient.
 * Bounds:   none.
 * Tests:    tests/sim/plants.c: each rule finds a bug planted for it
 */
#include <stdlib.h>

#include "gateway/smtp/smtp.h"
#include "tests/sim/world.h"

struct msg *ledger_msg_new(struct world *w, uint32_t rcpt_count)
{
    struct msg *m = calloc(1, sizeof *m);
    if (w->msg_count == w->msg_cap) {
        w->msg_cap = w->msg_cap ? w->msg_cap * 2 : 64;
        w->msgs = realloc(w->msgs, w->msg_cap * sizeof(struct msg *));
    }
    m->rcpts = calloc(rcpt_count, sizeof *m->rcpts);
    m->rcpt_count = rcpt_count;
    m->id = w->msg_count;
    w->msgs[w->msg_count++] = m;
    w->stats.messages++;
    return m;
}

struct msg *ledger_msg(struct world *w, uint32_t id)
{
    return id < w->msg_count ? w->msgs[id] : NULL;
}

void ledger_address(const struct msg *m, uint32_t i, char out[64])
{
    char domain[32];
    world_domain_name(m->rcpts[i].domain, domain);
    snprintf(out, 64, "r%u.%u@%s", m->id, i, domain);
}

struct rcpt *ledger_rcpt(struct world *w, struct slice mailbox, struct msg **msg)
{
    char text[80];
    uint32_t id, i;
    snprintf(text, sizeof text, "%.*s", (int)mailbox.len, (const char *)mailbox.ptr);
    if (sscanf(text, "r%u.%u@", &id, &i) != 2)
        return NULL;
    struct msg *m = ledger_msg(w, id);
    if (!m || i >= m->rcpt_count)
        return NULL;
    *msg = m;
    return &m->rcpts[i];
}

static uint32_t rcpt_index(const struct msg *m, const struct rcpt *r)
{
    return (uint32_t)(r - m->rcpts);
}

/* ---- next hops ---- */

static void over_again(struct world *w, const struct msg *m, const struct rcpt *r, const char *what)
{
    if (m->removed)
        world_fail(w, "message %u, recipient %u: %s although the operator removed the message",
                   m->id, rcpt_index(m, r), what);
    else if (r->settled)
        world_fail(w, "message %u, recipient %u: %s although its end is on disk", m->id,
                   rcpt_index(m, r), what);
}

void ledger_rcpt_asked(struct world *w, uint32_t epoch, bool left, struct msg *m, struct rcpt *r)
{
    if (epoch == w->gateway.epoch && !left)
        over_again(w, m, r, "offered to a next hop again");
    if (!r->offered)
        world_fail(w, "message %u, recipient %u: RCPT at a next hop, but ours was never accepted",
                   m->id, rcpt_index(m, r));
}

/* Why may a message be there that was not acknowledged? */
static void seen(struct world *w, struct msg *m)
{
    switch (m->fate) {
    case MSG_SENDING:
        if (m->end_sent)
            break;
        world_fail(w, "message %u: delivered, but its end was never sent", m->id);
        break;
    case MSG_REFUSED:
        world_fail(w, "message %u: delivered, but it was refused for good", m->id);
        break;
    case MSG_TURNED_AWAY:
        if (m->epoch == w->gateway.epoch)
            world_fail(w, "message %u: delivered, but its client was told to send it again", m->id);
        break;
    case MSG_UNKNOWN:
    case MSG_ACKED: break;
    }
    m->seen = true;
}

/* Taken before: why again? */
static void taken_again(struct world *w, struct msg *m, struct rcpt *r)
{
    if (r->logged)
        world_fail(w, "message %u, recipient %u: delivered again although the gateway knew", m->id,
                   rcpt_index(m, r));
    else if (r->taken_epoch != w->gateway.epoch)
        w->stats.dup_crash++;
    else if (r->taken_followed)
        world_fail(w, "message %u, recipient %u: delivered again although the 250 was read", m->id,
                   rcpt_index(m, r));
    else
        w->stats.dup_lost_reply++;
}

void ledger_taken(struct world *w, uint32_t epoch, struct msg *m, struct rcpt *r)
{
    seen(w, m);
    if (epoch != w->gateway.epoch) { /* of a process that died: nobody is there to hear of it */
        w->stats.dup_crash += r->taken > 0;
        w->stats.delivered += r->taken == 0;
        r->taken += r->taken < 255;
        return;
    }
    over_again(w, m, r, "delivered again");
    if (r->taken)
        taken_again(w, m, r);
    else
        w->stats.delivered++;
    r->taken += r->taken < 255;
    r->taken_open = true;
    r->taken_followed = false;
    r->taken_ns = sim_now_ns(w->sim);
    r->taken_epoch = epoch;
}

void ledger_followed(struct world *w, struct msg *m, struct rcpt *r)
{
    (void)w;
    (void)m;
    r->taken_followed = true;
}

/* ---- reports ---- */

static void report_rcpt(struct world *w, struct msg *m, struct rcpt *r, struct slice action,
                        uint64_t id)
{
    uint32_t i = rcpt_index(m, r);
    bool failed = slice_eq(action, SLICE_LIT("failed"));
    if (m->null_sender)
        world_fail(w, "message %u: a report to the null sender", m->id);
    if (r->notify & SMTP_NOTIFY_NEVER)
        world_fail(w, "message %u, recipient %u: reported despite NOTIFY=NEVER", m->id, i);
    if (failed && r->notify && !(r->notify & SMTP_NOTIFY_FAILURE))
        world_fail(w, "message %u, recipient %u: failure reported, not asked for", m->id, i);
    if (slice_eq(action, SLICE_LIT("delayed")) && r->notify && !(r->notify & SMTP_NOTIFY_DELAY))
        world_fail(w, "message %u, recipient %u: delay reported, not asked for", m->id, i);
    if (!r->offered)
        world_fail(w, "message %u, recipient %u: reported, but never accepted", m->id, i);
    seen(w, m);
    if (!failed)
        return;
    if (!r->failed)
        world_fail(w, "message %u, recipient %u: reported as failed, but it did not fail", m->id,
                   i);
    if (r->bounced && r->report != id)
        world_fail(w, "message %u, recipient %u: failure reported twice", m->id, i);
    r->bounced = true;
    r->report = id;
    w->stats.bounced++;
}

static size_t find(struct slice s, const char *what)
{
    const uint8_t *p = s.len ? memmem(s.ptr, s.len, what, strlen(what)) : NULL;
    return p ? (size_t)(p - s.ptr) : s.len;
}

static struct slice until(struct slice s, const char *end)
{
    return slice_head(s, find(s, end));
}

/* FNV-1a of the report's Message-ID: the same report delivered twice has the same. */
static uint64_t report_id(struct slice text)
{
    struct slice id = until(slice_from(text, find(text, "Message-ID: <")), "\r\n");
    uint64_t h = 14695981039346656037ull;
    for (size_t i = 0; i < id.len; i++)
        h = (h ^ id.ptr[i]) * 1099511628211ull;
    return h;
}

void ledger_report(struct world *w, uint32_t about, struct slice text)
{
    static const char field[] = "Final-Recipient: rfc822; ";
    uint64_t id = report_id(text);
    uint32_t named = 0;
    size_t at;
    while ((at = find(text, field)) < text.len) {
        text = slice_from(text, at + sizeof field - 1);
        struct msg *m;
        struct rcpt *r = ledger_rcpt(w, until(text, "\r\n"), &m);
        struct slice action = slice_from(text, find(text, "Action: ") + 8);
        if (!r || m->id != about) {
            world_fail(w, "a report to the sender of message %u is about somebody else", about);
            return;
        }
        report_rcpt(w, m, r, until(action, "\r\n"), id);
        named++;
    }
    if (!named)
        world_fail(w, "a report to the sender of message %u names nobody", about);
}

/* ---- the gateway's log ---- */

static struct slice field_of(struct slice line, const char *key)
{
    char text[32];
    snprintf(text, sizeof text, "\"%s\":\"", key);
    size_t at = find(line, text);
    return until(slice_from(line, at + strlen(text)), "\"");
}

static uint64_t qid_of(struct slice line, const char *key)
{
    uint64_t qid = 0;
    return qid_parse(field_of(line, key), &qid) ? qid : 0;
}

/* A report whose own delivery ended, or that the operator removed. */
static void report_over(struct world *w, uint64_t qid)
{
    for (uint32_t i = 0; i < w->report_count; i++)
        if (w->reports[i].qid == qid && w->reports[i].about != UINT32_MAX)
            w->msgs[w->reports[i].about]->report_over = true;
}

static uint32_t about_of(struct world *w, uint64_t qid)
{
    for (uint32_t i = 0; i < w->msg_count; i++)
        if (w->msgs[i]->qid == qid)
            return i;
    return UINT32_MAX;
}

bool ledger_knows(const struct world *w, uint64_t qid)
{
    for (uint32_t i = 0; i < w->report_count; i++)
        if (w->reports[i].qid == qid)
            return true;
    for (uint32_t i = 0; i < w->msg_count; i++)
        if (w->msgs[i]->qid == qid)
            return true;
    return false;
}

static void log_report(struct world *w, struct slice line)
{
    char to[80];
    uint32_t about;
    snprintf(to, sizeof to, "%.*s", (int)field_of(line, "recipient").len,
             (const char *)field_of(line, "recipient").ptr);
    if (sscanf(to, "s%u@", &about) != 1 || about >= w->msg_count) {
        world_fail(w, "a report goes to %s", to);
        return;
    }
    if (w->report_count == w->report_cap) {
        w->report_cap = w->report_cap ? w->report_cap * 2 : 64;
        w->reports = realloc(w->reports, w->report_cap * sizeof *w->reports);
    }
    w->reports[w->report_count++] = (struct report_id){qid_of(line, "qid"), about};
}

static void log_operator(struct world *w, struct slice line)
{
    uint64_t qid = qid_of(line, "qid");
    if (!slice_eq(field_of(line, "action"), SLICE_LIT("remove")))
        return;
    report_over(w, qid);
    if (w->removal_count == w->removal_cap) {
        w->removal_cap = w->removal_cap ? w->removal_cap * 2 : 64;
        w->removals = realloc(w->removals, w->removal_cap * sizeof *w->removals);
    }
    w->removals[w->removal_count++] = (struct removal){.qid = qid};
}

static void log_rcpt(struct world *w, uint32_t shard, struct slice event, struct slice line)
{
    struct msg *m;
    struct rcpt *r = ledger_rcpt(w, field_of(line, "recipient"), &m);
    bool failed = slice_eq(event, SLICE_LIT("failed")) || slice_eq(event, SLICE_LIT("expired"));
    bool delivered = slice_eq(event, SLICE_LIT("delivered"));
    if (!r) { /* of a report: what made it may have died before it could say so */
        unsigned long about = strtoul((const char *)field_of(line, "recipient").ptr + 1, NULL, 10);
        if (failed && field_of(line, "sender").len == 0 && about < w->msg_count)
            w->msgs[about]->report_over = true;
        return;
    }
    uint64_t qid = qid_of(line, "qid");
    if (slice_eq(event, SLICE_LIT("accepted")) || !m->qid)
        m->qid = qid;
    else if (m->qid != qid && (failed || delivered))
        world_fail(w, "message %u: has two queue ids", m->id);
    if (failed) {
        r->failed = true;
        w->stats.expired += slice_eq(event, SLICE_LIT("expired"));
    }
    if (delivered) {
        if (!r->taken)
            world_fail(w, "message %u, recipient %u: the log says delivered, but to nobody", m->id,
                       rcpt_index(m, r));
        r->logged = true;
        w->gateway.dirty[shard] = true;
    }
}

/* A stop beside a disk that takes nothing: what was told of this message may not last. */
static void log_unwritten(struct world *w, struct slice line)
{
    static const char reason[] = "The disk did not take";
    uint32_t id = about_of(w, qid_of(line, "qid"));
    if (id != UINT32_MAX && find(line, reason) < line.len)
        w->msgs[id]->unwritten = true;
}

void ledger_log(struct world *w, uint32_t shard, struct slice line)
{
    struct slice event = field_of(line, "event");
    TRACE(w, "log: %.*s", (int)line.len, (const char *)line.ptr);
    if (slice_eq(event, SLICE_LIT("dup_possible")))
        log_unwritten(w, line);
    else if (slice_eq(event, SLICE_LIT("dsn")))
        log_report(w, line);
    else if (slice_eq(event, SLICE_LIT("operator")))
        log_operator(w, line);
    else if (find(line, "\"recipient\":") < line.len)
        log_rcpt(w, shard, event, line);
}

/* ---- durable, or gone with the process ---- */

static uint32_t shard_of(const struct world *w, uint64_t qid)
{
    return (uint32_t)(qid >> 54) % w->gateway.gw.shard_count;
}

bool ledger_settle(struct world *w, uint32_t shard)
{
    bool all = true;
    for (uint32_t i = 0; i < w->msg_count; i++) {
        struct msg *m = w->msgs[i];
        if (!m->qid || m->unwritten || shard_of(w, m->qid) != shard)
            continue;
        for (uint32_t k = 0, at = 0; k < m->rcpt_count; k++) {
            struct rcpt *r = &m->rcpts[k];
            if (r->logged && !r->settled)
                all &= r->settled = gateway_is_final(w, m->qid, at);
            at += r->offered;
        }
    }
    for (uint32_t i = 0; i < w->removal_count;) {
        struct removal *r = &w->removals[i];
        if (shard_of(w, r->qid) != shard || gateway_has(w, r->qid)) {
            i++;
            continue;
        }
        uint32_t id = about_of(w, r->qid);
        if (id != UINT32_MAX && w->msgs[id]->unwritten) {
            i++;
            continue;
        }
        if (id != UINT32_MAX && !w->msgs[id]->removed) {
            w->msgs[id]->removed = true;
            w->stats.removed++;
            TRACE(w, "message %u is removed for good", id);
        }
        *r = w->removals[--w->removal_count];
    }
    return all;
}

void ledger_crash(struct world *w)
{
    for (uint32_t i = 0; i < w->msg_count; i++) {
        w->msgs[i]->unwritten = false;
        for (uint32_t k = 0; k < w->msgs[i]->rcpt_count; k++)
            if (!w->msgs[i]->rcpts[k].settled)
                w->msgs[i]->rcpts[k].logged = false;
    }
    for (uint32_t i = 0; i < w->removal_count; i++) {
        uint32_t id = about_of(w, w->removals[i].qid);
        if (id != UINT32_MAX)
            w->msgs[id]->removed_maybe = true;
    }
    w->removal_count = 0;
}

/* ---- the end ---- */

static bool rcpt_is_kept(struct world *w, const struct msg *m, const struct rcpt *r)
{
    if (r->taken || m->removed || m->removed_maybe || r->bounced)
        return true;
    if (!r->failed)
        return false;
    bool wanted = !m->null_sender && !(r->notify & SMTP_NOTIFY_NEVER) &&
                  (!r->notify || r->notify & SMTP_NOTIFY_FAILURE);
    w->stats.suppressed += !wanted;
    return !wanted || m->report_over;
}

void ledger_final(struct world *w)
{
    for (uint32_t i = 0; i < w->msg_count && !w->failed; i++) {
        const struct msg *m = w->msgs[i];
        if (m->fate != MSG_ACKED && !m->seen)
            continue;
        for (uint32_t k = 0; k < m->rcpt_count; k++)
            if (m->rcpts[k].offered && !rcpt_is_kept(w, m, &m->rcpts[k]))
                world_fail(w, "message %u, recipient %u: %s, and lost", m->id, k,
                           m->fate == MSG_ACKED ? "acknowledged" : "delivered to others");
    }
}
