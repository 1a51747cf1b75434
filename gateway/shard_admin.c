/*
 * gateway/shard_admin.c - what an operator asks of one shard: listing, showing and changing
 * queued messages, sites, connectors.
 *
 * Owns:     a walk over the index for each request under way (malloc'd: this is not the message
 *           path).
 * Runs on:  the shard; the request comes from the control thread and goes back to it.
 * Contract: mail goes on meanwhile: WALK_READS envelopes are read at a time, at most WALK_SLICE
 *           index entries looked at a turn; how far it is can be asked. A message that is being
 *           delivered is changed when its attempt ends.
 * Failure:  an envelope that cannot be read is listed with what the index knows.
 * Bounds:   `limit` messages listed, ADMIN_ROW_MAX bytes each.
 * Tests:    tests/system (queue commands)
 */
#include <assert.h>
#include <stdlib.h>

#include "gateway/base/json.h"
#include "gateway/delivery.h"
#include "gateway/filter.h"

#define WALK_SLICE 512u
#define WALK_READS 64u

#define WALK_WAIT_NS NS_PER_MS /* until copies that are under way are written */

struct walk_slot {
    struct walk *walk;
    struct lane *lane;
    struct queue_msg *m; /* whose envelope is being read; NULL: free */
    struct lane_envelope_read read;
    struct arena arena;
};

struct walk {
    struct shard *shard;
    struct admin_request *r;
    uint32_t lane;
    struct lane_walk at;
    bool begun; /* in that lane */
    uint32_t listed, seen, reading;
    struct walk_slot slots[WALK_READS];
    struct timer timer; /* goes on in the next turn */
    bool over;          /* nothing is left to be looked at */
    bool going;
};

static const char *const state_names[] = {"ready",  "deferred", "held", "unreachable",
                                          "poison", "prepared", "given"};

/* ---- rows ---- */

struct row {
    const struct queue_msg *m;
    const struct envelope *env; /* NULL: not known */
    const char *status;
    struct slice error, connector, site;
    char qid[QID_TEXT_MAX], site_text[400];
    uint64_t now_s;
};

static struct slice row_rcpt(const void *arg, uint32_t i)
{
    const struct row *row = arg;
    return queue_msg_rcpt_is_final(row->m, i) ? slice_of(NULL, 0) : row->env->rcpts[i].mailbox;
}

/* The connector and site that the first recipient still pending would take now. */
static void row_route(struct shard *sh, struct row *row)
{
    const struct envelope *e = row->env;
    for (uint32_t i = 0; i < e->rcpt_count; i++) {
        if (queue_msg_rcpt_is_final(row->m, i))
            continue;
        struct slice domain = slice_after_last(e->rcpts[i].mailbox, '@');
        struct route_query q = {.domain = domain,
                                .receive_connector = e->connector,
                                .size = row->m->body_size,
                                .choice = row->m->qid,
                                .unhealthy = site_unhealthy,
                                .stopped = delivery_connector_disabled,
                                .arg = sh->delivery};
        struct route_answer a;
        route_choose(sh->config->gen->config->routes, &q, &a);
        if (a.verdict != ROUTE_FOUND)
            return;
        const struct config_send_connector *c = sh->config->send[a.connector].conf;
        row->connector = slice_str(c->name);
        if (row->m->state == QUEUE_UNREACHABLE &&
            sh->config->send[a.connector].state == CONNECTOR_SUSPENDED)
            row->status = "suspended"; /* it has a route, and waits for the operator */
        snprintf(row->site_text, sizeof row->site_text, c->mx ? "%s/%.*s" : "%s", c->name,
                 (int)domain.len, (const char *)domain.ptr);
        row->site = slice_str(row->site_text);
        return;
    }
}

static void row_fill(struct shard *sh, struct row *row, const struct queue_msg *m,
                     const struct envelope *env, struct slice error)
{
    *row = (struct row){.m = m, .env = env, .error = error, .now_s = io_wall_ns(sh->io) / NS_PER_S};
    bool busy = m->owner && m->state == QUEUE_READY;
    row->status = busy ? "active" : state_names[m->state];
    qid_text(m->qid, row->qid);
    if (env)
        row_route(sh, row);
}

static bool row_matches(const struct row *row, const struct filter *f)
{
    const struct envelope *e = row->env;
    uint64_t accepted = row->m->accepted_wall_s;
    struct filter_row fr = {
        .qid = slice_str(row->qid),
        .status = slice_str(row->status),
        .size = row->m->body_size,
        .age_s = row->now_s > accepted ? row->now_s - accepted : 0,
        .retries = row->m->attempts,
    };
    fr.last_error = row->error;
    if (e) {
        fr.sender = e->sender;
        fr.connector = row->connector;
        fr.site = row->site;
        fr.source_ip = e->client;
        fr.account = e->account;
        fr.subject = e->subject;
        fr.rcpt_count = e->rcpt_count;
        fr.rcpt = row_rcpt;
        fr.arg = row;
    }
    return filter_matches(f, &fr);
}

static void json_member(struct buf *b, const char *key, struct slice v)
{
    buf_addf(b, ",\"%s\":", key);
    json_string(b, v, 256);
}

static void row_rcpts(struct buf *b, const struct row *row)
{
    const struct envelope *e = row->env;
    buf_add_str(b, ",\"recipients\":[");
    for (uint32_t i = 0; i < e->rcpt_count && buf_room(b) > 2048; i++) {
        buf_add_str(b, i ? ",{\"address\":" : "{\"address\":");
        json_string(b, e->rcpts[i].mailbox, 256);
        buf_addf(b, ",\"status\":\"%s\"}", queue_msg_rcpt_is_final(row->m, i) ? "done" : "pending");
    }
    buf_add_str(b, "]");
}

static void row_write(struct buf *b, const struct row *row)
{
    const struct queue_msg *m = row->m;
    const struct envelope *e = row->env;
    buf_addf(
        b,
        "{\"qid\":\"%s\",\"status\":\"%s\",\"size\":%llu,\"accepted\":%llu,\"age_s\":%llu,"
        "\"attempts\":%u,"
        "\"recipient_count\":%u,\"pending_count\":%u",
        row->qid, row->status, (unsigned long long)m->body_size,
        (unsigned long long)m->accepted_wall_s,
        (unsigned long long)(row->now_s > m->accepted_wall_s ? row->now_s - m->accepted_wall_s : 0),
        (unsigned)m->attempts, (unsigned)m->rcpt_count, (unsigned)m->rcpt_pending);
    if (m->state == QUEUE_DEFERRED)
        buf_addf(b, ",\"next_attempt\":%llu", (unsigned long long)m->next_attempt_wall_s);
    if (e) {
        json_member(b, "sender", e->sender);
        json_member(b, "subject", e->subject);
        json_member(b, "account", e->account);
        json_member(b, "source_ip", e->client);
        json_member(b, "session", e->session);
        json_member(b, "receive_connector", e->connector);
        json_member(b, "connector", row->connector);
        json_member(b, "site", row->site);
    }
    if (e || row->error.len)
        json_member(b, "last_error", row->error);
    if (e)
        row_rcpts(b, row);
    buf_add_str(b, "}");
}

/* ---- the answer ---- */

bool shard_admin_room(struct admin_request *r, struct buf *b)
{
    if (r->json_cap - r->json_len < ADMIN_ROW_MAX + 2) {
        size_t cap = r->json_cap * 2 + ADMIN_ROW_MAX * 2;
        char *more = realloc(r->json, cap);
        if (!more)
            return false;
        r->json = more;
        r->json_cap = cap;
    }
    if (r->json_len)
        r->json[r->json_len++] = ',';
    *b = buf_over(r->json + r->json_len, ADMIN_ROW_MAX);
    return true;
}

void shard_admin_done(struct shard *s, struct admin_request *r)
{
    struct ring_item item = {.kind = PEER_ADMIN_DONE, .ptr = r};
    shard_post(s, s->gw->control_peer, &item);
}

static void walk_end(struct walk *w)
{
    lane_walk_end(&w->at);
    shard_admin_done(w->shard, w->r);
    free(w);
}

/* ---- changes ---- */

static void log_operator(struct shard *s, const char *qid, enum admin_change change)
{
    static const char *const names[] = {"hold", "release", "retry", "remove", "bounce"};
    struct log_line line;
    log_begin(&line, &s->log, EV_OPERATOR);
    log_str(&line, "qid", qid);
    log_str(&line, "action", names[change]);
    log_end(&line);
}

static void change_active(struct job *j, enum admin_change change)
{
    j->hold_asked |= change == ADMIN_HOLD;
    j->remove_asked |= change == ADMIN_REMOVE;
    j->bounce_asked |= change == ADMIN_BOUNCE;
    if (change == ADMIN_RELEASE || change == ADMIN_RETRY)
        j->hold_asked = false;
}

static void change_message(struct walk *w, struct lane *l, struct queue_msg *m)
{
    struct shard *s = w->shard;
    char qid[QID_TEXT_MAX];
    log_operator(s, qid_text(m->qid, qid), w->r->change);
    if (m->owner) {
        change_active(m->owner, w->r->change);
        return;
    }
    switch (w->r->change) {
    case ADMIN_HOLD:
        if (m->state < QUEUE_PREPARED) /* those are not ours to deliver anyhow */
            lane_set_state(l, m, QUEUE_HELD);
        break;
    case ADMIN_RELEASE:
        if (queue_state_rests((enum queue_state)m->state))
            lane_set_state(l, m, QUEUE_READY);
        break;
    case ADMIN_RETRY:
        if (!queue_state_rests((enum queue_state)m->state))
            lane_set_state(l, m, QUEUE_READY);
        break;
    case ADMIN_REMOVE:
    case ADMIN_BOUNCE: delivery_operate(s->delivery, l, m, w->r->change == ADMIN_REMOVE); break;
    }
}

/* ---- the walk ---- */

static void walk_go(struct walk *w);

/* One message with all that can be known of it. */
static void walk_visit(struct walk *w, struct lane *l, struct queue_msg *m,
                       const struct envelope *env, struct slice error)
{
    struct admin_request *r = w->r;
    struct row row;
    struct buf b;
    row_fill(w->shard, &row, m, env, error);
    if (r->filter && !row_matches(&row, r->filter))
        return;
    r->matched++;
    if (r->op == ADMIN_QUEUE_CHANGE) {
        change_message(w, l, m);
    } else if (w->listed < r->limit && shard_admin_room(r, &b)) {
        row_write(&b, &row);
        r->json_len += b.len;
        w->listed++;
    }
}

static void walk_envelope(struct lane_envelope_read *read, const struct envelope *env,
                          struct slice error, const struct why *why)
{
    struct walk_slot *slot = container_of(read, struct walk_slot, read);
    struct walk *w = slot->walk;
    struct queue_msg *m = slot->m;
    slot->m = NULL;
    m->owner = NULL;
    walk_visit(w, slot->lane, m, env, env ? error : slice_str(why->text));
    arena_reset(&slot->arena);
    w->reading--;
    walk_go(w);
}

static void walk_read(struct walk *w, struct lane *l, struct queue_msg *m)
{
    struct walk_slot *slot = w->slots;
    while (slot->m)
        slot++;
    slot->walk = w;
    slot->lane = l;
    slot->m = m;
    m->owner = &w->shard->admin_owner;
    slot->read.done = walk_envelope;
    w->reading++;
    lane_envelope_read(l, m, &slot->read, &slot->arena);
}

static void walk_message(struct walk *w, struct lane *l, struct queue_msg *m)
{
    struct admin_request *r = w->r;
    bool list = r->op != ADMIN_QUEUE_CHANGE && w->listed < r->limit;
    struct slice none = slice_of(NULL, 0);
    w->seen++;
    if (m->owner == &w->shard->admin_owner)
        return; /* another walk looks at it right now */
    struct job *j = m->owner;
    if (j && (j->env.rcpt_count || !list)) {
        walk_visit(w, l, m, j->env.rcpt_count ? &j->env : NULL, j->last_error);
        return;
    }
    bool index_knows = !filter_needs_envelope(r->filter) && m->state != QUEUE_UNREACHABLE;
    if (j || (!list && index_knows)) {
        walk_visit(w, l, m, NULL, none);
        return;
    }
    struct row row; /* what the index alone can tell may already rule it out */
    row_fill(w->shard, &row, m, NULL, none);
    if (!r->filter || !index_knows || row_matches(&row, r->filter))
        walk_read(w, l, m);
}

static void walk_timer(struct timer *t)
{
    walk_go(container_of(t, struct walk, timer));
}

/* The next message; NULL: not in this turn, or there is none. */
static struct queue_msg *walk_next(struct walk *w)
{
    struct shard *s = w->shard;
    struct queue_msg *m;
    for (; w->lane < s->lane_count; w->lane++) { /* of a shard that stops there is none */
        if (!w->begun)
            lane_walk_begin(s->lanes[w->lane], &w->at);
        w->begun = true;
        switch (lane_walk_next(s->lanes[w->lane], &w->at, &m)) {
        case LANE_WALK_FOUND: return m;
        case LANE_WALK_LATER: return NULL;
        case LANE_WALK_OVER: break;
        }
        lane_walk_end(&w->at);
        w->begun = false;
    }
    w->over = true;
    return NULL;
}

/* A slice; goes on with the next turn, or when an envelope has come. */
static void walk_slice(struct walk *w)
{
    struct queue_msg *m;
    for (uint32_t n = 0; !w->over && n < WALK_SLICE && w->reading < WALK_READS; n++) {
        m = walk_next(w);
        if (!m)
            break;
        walk_message(w, w->shard->lanes[w->lane], m);
    }
}

static void walk_go(struct walk *w)
{
    struct shard *s = w->shard;
    if (w->going) /* further up */
        return;
    w->going = true;
    if (!timer_is_set(&w->timer))
        walk_slice(w);
    w->going = false;
    atomic_store_explicit(&w->r->seen, w->seen, memory_order_relaxed);
    if (w->over && w->reading == 0) {
        io_timer_clear(s->io, &w->timer);
        walk_end(w);
    } else if (!w->over && w->reading < WALK_READS && !timer_is_set(&w->timer)) {
        io_timer_set(s->io, &w->timer, io_now_ns(s->io) + (w->at.begun ? 0 : WALK_WAIT_NS));
    }
}

static void walk_one(struct walk *w)
{
    struct shard *s = w->shard;
    w->over = true;
    for (uint32_t i = 0; i < s->lane_count; i++) {
        struct queue_msg *m = lane_find(s->lanes[i], w->r->qid);
        if (!m)
            continue;
        walk_message(w, s->lanes[i], m);
        break;
    }
    if (w->reading == 0)
        walk_end(w);
}

static void walk_start(struct shard *s, struct admin_request *r)
{
    struct walk *w = calloc(1, sizeof *w);
    if (!w) {
        shard_admin_done(s, r);
        return;
    }
    w->shard = s;
    w->r = r;
    w->timer.fire = walk_timer;
    list_init(&w->at.link);
    for (uint32_t i = 0; i < WALK_READS; i++)
        arena_init(&w->slots[i].arena, &s->arena_slab, ENVELOPE_BLOCKS_MAX);
    if (r->qid)
        walk_one(w);
    else
        walk_go(w);
}

/* ---- sites, connectors ---- */

static void site_write(struct buf *b, const struct site *s)
{
    uint64_t now = io_now_ns(s->delivery->shard->io);
    bool down = site_is_down(s);
    buf_add_str(b, "{\"connector\":");
    json_string(b, slice_str(s->send->conf->name), 256);
    json_member(b, "domain", slice_str(s->domain));
    buf_addf(b,
             ",\"state\":\"%s\",\"waiting\":%u,\"connections\":%u,\"delivered\":%llu,\"deferred\":%"
             "llu,\"retry_in_s\":%llu",
             down                    ? "down"
             : s->hop_count          ? "active"
             : list_empty(&s->tasks) ? "idle"
                                     : "waiting",
             s->depth, s->hop_count, (unsigned long long)s->delivered,
             (unsigned long long)s->deferred,
             (unsigned long long)(down && s->retry_ns > now ? (s->retry_ns - now) / NS_PER_S : 0));
    json_member(b, "remote", slice_str(s->last_remote));
    json_member(b, "last_error", slice_str(s->last_error.text));
    buf_addf(b, ",\"last_code\":%u}", s->last_error.smtp_code);
}

static void sites_list(struct shard *s, struct admin_request *r)
{
    struct delivery *d = s->delivery;
    struct buf b;
    for (struct list *p = d->sites.next; p != &d->sites; p = p->next) {
        const struct site *site = container_of(p, struct site, link);
        r->matched++;
        if (r->matched > r->limit || !shard_admin_room(r, &b))
            continue;
        site_write(&b, site);
        r->json_len += b.len;
    }
    shard_admin_done(s, r);
}

void shard_admin_request(struct shard *s, struct admin_request *r)
{
    if (s->stopping) { /* its lanes are going */
        shard_admin_done(s, r);
        return;
    }
    switch (r->op) {
    case ADMIN_QUEUE_LIST:
    case ADMIN_QUEUE_SHOW:
    case ADMIN_QUEUE_CHANGE: walk_start(s, r); break;
    case ADMIN_QUEUE_SITES: sites_list(s, r); break;
    case ADMIN_QUEUE_EXPORT: shard_admin_export(s, r); break;
    case ADMIN_CONNECTOR: shard_admin_connector(s, r); break;
    case ADMIN_CONNECTORS: shard_admin_connectors(s, r); break;
    case ADMIN_ROUTE: shard_admin_route(s, r); break;
    case ADMIN_NOTHING: shard_admin_done(s, r); break;
    }
}
