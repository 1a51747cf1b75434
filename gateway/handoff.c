/*
 * gateway/handoff.c - gives what is queued to other gateways when this one stops (docs/handoff.md).
 *
 * Owns:     which messages are offered to whom; each is a job with one task for a peer's site.
 * Runs on:  the shard of the delivery.
 * Contract: a message is GIVEN, durably, before its peer hears that it is the peer's, and is never
 *           delivered here from then on; it goes when the peer has confirmed. What is offered to a
 *           peer and not given may be delivered here: a peer delivers nothing that is not given.
 * Failure:  whatever fails is offered, or confirmed, again: at once to the same peer, then to
 *           others; after a start too. What nobody takes stays in the spool.
 * Bounds:   HANDOFF_ACTIVE_MAX messages at a time, handoff.timeout.
 * Tests:    tests/system/test_handoff.py, tests/handoff
 */
#include "gateway/handoff_text.h"

#include <assert.h>

#include "gateway/handoff_job.h"

#define PASS_PAUSE_NS     NS_PER_S /* between two looks at what nobody took */
#define IDLE_PASSES_MAX   30u      /* so many in a row without a message given: it is over */
#define VISITS_A_TURN     256u
#define COMMIT_VISITS     20000u /* a second, for what an earlier life gave away */
#define HANDOFF_WORDS_MAX 200u

static const char prepared_word[] = "prepared ";

/* ---- log ---- */

static void handoff_log(const struct job *j, const struct hop *hop, enum log_event event,
                        const struct why *why)
{
    struct log_line line;
    char qid[QID_TEXT_MAX];
    log_begin(&line, &j->delivery->shard->log, event);
    log_str(&line, "qid", qid_text(j->m->qid, qid));
    log_str(&line, "handoff", j->handoff->id);
    log_slice(&line, "session", j->env.session);
    log_slice(&line, "sender", j->env.sender);
    if (j->env.rcpt_count)
        log_slice(&line, "recipient", j->env.rcpts[0].mailbox);
    log_str(&line, "remote", hop->remote);
    if (why) {
        log_u64(&line, "code", why->smtp_code);
        log_str(&line, "reply", why->text);
    }
    log_end(&line);
}

/* ---- what is sent ---- */

struct slice handoff_text(const struct job *j)
{
    return j->handoff->text;
}

static uint32_t flags_of(const struct job *j)
{
    uint32_t flags = j->env.flags & ~(uint32_t)(ENVELOPE_WAS_HELD | ENVELOPE_WAS_POISON);
    if (j->m->state == QUEUE_HELD)
        flags |= ENVELOPE_WAS_HELD;
    if (j->m->state == QUEUE_POISON)
        flags |= ENVELOPE_WAS_POISON;
    return flags;
}

/* Only the recipients that are left go along. */
static bool make_state(struct job *j, struct handoff_state *h, char origin[QID_TEXT_MAX])
{
    const struct queue_msg *m = j->m;
    h->env = j->env;
    h->env.flags = flags_of(j);
    h->env.handoff = slice_str(j->handoff->id);
    if (!h->env.origin.len)
        h->env.origin = slice_str(qid_text(m->qid, origin));
    h->env.rcpts = arena_alloc_large(&j->arena, sizeof *h->env.rcpts * m->rcpt_pending);
    h->env.rcpt_count = 0;
    if (!h->env.rcpts)
        return false;
    for (uint32_t i = 0; i < j->env.rcpt_count; i++)
        if (!queue_msg_rcpt_is_final(m, i))
            h->env.rcpts[h->env.rcpt_count++] = j->env.rcpts[i];
    assert(h->env.rcpt_count == m->rcpt_pending);
    bool waits = m->state == QUEUE_DEFERRED; /* a route is something that the peer may have */
    h->arrival = (struct lane_arrival){.next_attempt_wall_s = waits ? m->next_attempt_wall_s : 0,
                                       .attempts = (uint16_t)m->attempts,
                                       .warned = m->warned,
                                       .uncertain = m->uncertain};
    return true;
}

static bool make_text(struct job *j)
{
    struct handoff_state h;
    char origin[QID_TEXT_MAX];
    if (!make_state(j, &h, origin))
        return false;
    size_t size = handoff_state_size(&h), text_size = handoff_text_size(size);
    uint8_t *bytes = arena_alloc_large(&j->arena, size);
    uint8_t *text = arena_alloc_large(&j->arena, text_size);
    struct buf b = buf_over(bytes, size), t = buf_over(text, text_size);
    if (!bytes || !text || text_size > HANDOFF_TEXT_MAX || !handoff_state_encode(&h, &b) ||
        !handoff_text_encode(buf_slice(&b), &t))
        return false;
    j->handoff->text = buf_slice(&t);
    return true;
}

bool handoff_prepare(struct task *t)
{
    struct job *j = t->job;
    struct handoff *h = j->handoff;
    int len = 0;
    if (h->sweep)
        return handoff_sweep_prepare(t);
    if (j->m->state == QUEUE_GIVEN) {
        len = snprintf(h->command, sizeof h->command, "XHANDOFF-COMMIT id=%s to=%s", h->id, h->to);
        t->tx = (struct smtp_out_tx){.command = slice_of(h->command, (size_t)len)};
        return true;
    }
    if (!h->text.len && !make_text(j))
        return false;
    len = snprintf(h->command, sizeof h->command, "XHANDOFF id=%s state=%zu", h->id, h->text.len);
    t->tx = (struct smtp_out_tx){.size = j->m->body_size,
                                 .command = slice_of(h->command, (size_t)len),
                                 .command_body = true};
    return true;
}

/* ---- replies ---- */

/* Peer and spool in 64 bits: 40 are the letters of its instance, 24 come of ours. */
static uint64_t given_mark(const struct shard *sh, const char *to)
{
    static const char letters[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint64_t mark = 0;
    uint32_t own = 2166136261u;
    for (uint32_t i = 0; i < INSTANCE_LEN; i++) {
        const char *at = strchr(letters, to[i]);
        mark = mark << 5 | (at && *at ? (uint64_t)(at - letters) : 0);
        own = (own ^ (uint8_t)sh->gw->instance[i]) * 16777619u;
    }
    return mark << 24 | (own & 0xffffff);
}

void handoff_peer_is(struct delivery *d, uint32_t connector, const char *instance)
{
    const struct config *conf = d->shard->config->gen->config;
    for (uint32_t i = 0; i < conf->handoff.peers.count && i < HANDOFF_PEERS_MAX; i++)
        if (conf->handoff.connectors[i] == connector)
            snprintf(d->handoff.instances[i], sizeof d->handoff.instances[i], "%s", instance);
}

/* "prepared k7f3q2mz": durable there, by the instance of that name. */
static bool take_prepared(struct job *j, const struct hop *hop, const struct why *why)
{
    struct handoff *h = j->handoff;
    char words[HANDOFF_WORDS_MAX];
    size_t skip = strlen(prepared_word);
    if (why->smtp_code != 250 || strncmp(why->text, prepared_word, skip) != 0 ||
        strlen(why->text + skip) != INSTANCE_LEN)
        return false;
    memcpy(h->to, why->text + skip, INSTANCE_LEN + 1);
    snprintf(words, sizeof words, "Given to %s %s %s", hop->site->send->conf->name, h->to, h->id);
    handoff_peer_is(j->delivery, h->connector, h->to);
    lane_give(j->lane, j->m, given_mark(j->delivery->shard, h->to), slice_str(words));
    return true;
}

static void confirmed(struct job *j)
{
    uint32_t some[256], count = 0, left = j->m->rcpt_pending;
    for (uint32_t i = 0; left && i < j->env.rcpt_count; i++) {
        if (queue_msg_rcpt_is_final(j->m, i))
            continue;
        some[count++] = i;
        left--;
        if (left && count < 256)
            continue;
        job_final_rcpts(j, some, count, RCPT_HANDED);
        count = 0;
    }
}

bool handoff_replied(struct hop *h, const struct why *why)
{
    struct job *j = h->task->job;
    struct delivery *d = j->delivery;
    if (j->handoff->sweep)
        return handoff_sweep_replied(h, why);
    if (j->m->state != QUEUE_GIVEN) {
        if (take_prepared(j, h, why)) {
            hop_note(h, HOP_NOTE_GIVEN);
            return false;
        }
        handoff_log(j, h, EV_HANDOFF_FAILED, why);
        return true;
    }
    if (why->smtp_code / 100 != 2) {
        handoff_log(j, h, EV_HANDOFF_FAILED, why);
        return true;
    }
    metric_add(d->shard->metrics, M_HANDOFF_GIVEN, 1);
    d->handoff.given++;
    handoff_log(j, h, EV_HANDOFF_GIVEN, NULL);
    confirmed(j);
    return true;
}

void handoff_go_on(struct hop *h)
{
    bool ok = handoff_prepare(h->task);
    assert(ok); /* needs no memory any more */
    (void)ok;
    hop_begin(h);
}

void handoff_task_done(struct job *j)
{
    struct delivery *d = j->delivery;
    assert(j->tasks_open == 0);
    if (j->handoff && j->handoff->sweep)
        handoff_sweep_done(j);
    if (j->m)
        metric_add(d->shard->metrics, M_HANDOFF_FAILED, 1);
    d->handoff.active--;
    job_end(j);
}

/* ---- to whom ---- */

bool handoff_peer_is_up(struct delivery *d, uint32_t connector)
{
    struct shard_config *c = d->shard->config;
    struct site *s = site_find(d, c, connector, slice_of(NULL, 0));
    return c->send[connector].state == CONNECTOR_ON &&
           !(s && site_is_unhealthy(&s->hosts, io_now_ns(d->shard->io)));
}

/* The same for a message at every first try: where it was prepared before, it is found. */
static bool choose_peer(struct delivery *d, uint64_t qid, uint32_t *connector)
{
    const struct config *conf = d->shard->config->gen->config;
    uint64_t first = ((qid * 0x9e3779b97f4a7c15ull) >> 33) + d->handoff.pass;
    for (uint32_t i = 0; i < conf->handoff.peers.count; i++) {
        *connector = conf->handoff.connectors[(first + i) % conf->handoff.peers.count];
        if (handoff_peer_is_up(d, *connector))
            return true;
    }
    return false;
}

/* Which peer is that? False: it has not said its name yet, or the spool was renamed since: then the
 * id is another one, and the operator decides. */
static bool find_owner(struct job *j)
{
    struct delivery *d = j->delivery;
    const struct config *conf = d->shard->config->gen->config;
    struct handoff *h = j->handoff;
    for (uint32_t i = 0; i < conf->handoff.peers.count; i++) {
        snprintf(h->to, sizeof h->to, "%s", d->handoff.instances[i]);
        h->connector = conf->handoff.connectors[i];
        if (h->to[0] && given_mark(d->shard, h->to) == j->m->next_attempt_wall_s)
            return handoff_peer_is_up(d, h->connector);
    }
    d->handoff.ask = true;
    return false;
}

static void handoff_read(struct lane_envelope_read *r, const struct envelope *env,
                         struct slice error, const struct why *why)
{
    struct job *j = container_of(r, struct job, read);
    struct delivery *d = j->delivery;
    struct site *s = NULL;
    char qid[QID_TEXT_MAX];
    (void)why;
    if (env && j->m) {
        j->env = *env;
        j->last_error = error;
        snprintf(j->handoff->id, sizeof j->handoff->id, "%s/%s", d->shard->gw->instance,
                 qid_text(j->m->qid, qid));
        bool known = j->m->state == QUEUE_GIVEN ? find_owner(j)
                                                : choose_peer(d, j->m->qid, &j->handoff->connector);
        if (known)
            s = site_get(d, d->shard->config, j->handoff->connector, slice_of(NULL, 0));
    }
    if (!s || !site_enqueue(s, j, NULL, 0))
        handoff_task_done(j);
}

static void offer(struct delivery *d, struct lane *l, struct queue_msg *m)
{
    struct job *j = job_create(d, l, m);
    if (!j)
        return;
    d->handoff.active++;
    j->handoff = arena_alloc(&j->arena, sizeof *j->handoff);
    if (!j->handoff) {
        handoff_task_done(j);
        return;
    }
    memset(j->handoff, 0, sizeof *j->handoff);
    j->read.done = handoff_read;
    lane_envelope_read(l, m, &j->read, &j->arena);
}

/* ---- going through the queue ---- */

static bool any_peer(struct delivery *d)
{
    const struct config *conf = d->shard->config->gen->config;
    for (uint32_t i = 0; i < conf->handoff.peers.count; i++)
        if (handoff_peer_is_up(d, conf->handoff.connectors[i]))
            return true;
    return false;
}

/* There is an end to our time: peers that are down are asked again soon. */
static void peers_due(struct delivery *d)
{
    const struct config *conf = d->shard->config->gen->config;
    uint64_t now = io_now_ns(d->shard->io);
    for (uint32_t i = 0; i < conf->handoff.peers.count; i++) {
        struct site *s =
            site_find(d, d->shard->config, conf->handoff.connectors[i], slice_of(NULL, 0));
        for (uint32_t k = 0; s && k < s->hosts.count; k++)
            if (s->hosts.hosts[k].retry_ns > now + PASS_PAUSE_NS)
                s->hosts.hosts[k].retry_ns = now + PASS_PAUSE_NS;
    }
}

static void pass_ended(struct delivery *d)
{
    peers_due(d);
    d->handoff.next_pass_ns = io_now_ns(d->shard->io) + PASS_PAUSE_NS;
    d->handoff.idle_passes = d->handoff.given || d->handoff.active ? 0 : d->handoff.idle_passes + 1;
    d->handoff.given = 0;
    d->handoff.met = d->handoff.met && !d->handoff.ask;
    d->handoff.ask = false;
    d->handoff.lane = 0;
    d->handoff.cursor = 0;
    d->handoff.pass++;
}

void handoff_more(struct delivery *d)
{
    struct shard *sh = d->shard;
    if (!d->handoff.on || !d->handoff.met || d->handoff.sweep_running ||
        d->handoff.active >= HANDOFF_ACTIVE_MAX || io_now_ns(sh->io) < d->handoff.next_pass_ns)
        return;
    if (!any_peer(d)) {
        pass_ended(d);
        return;
    }
    for (uint32_t n = 0; n < VISITS_A_TURN && d->handoff.active < HANDOFF_ACTIVE_MAX; n++) {
        if (d->handoff.lane >= sh->lane_count) {
            pass_ended(d);
            return;
        }
        struct lane *l = sh->lanes[d->handoff.lane];
        struct queue_msg *m = lane_next(l, &d->handoff.cursor);
        if (!m) {
            d->handoff.lane++;
            d->handoff.cursor = 0;
        } else if (!m->owner && m->state != QUEUE_PREPARED) {
            offer(d, l, m);
        }
    }
}

void handoff_tick(struct delivery *d)
{
    struct shard *sh = d->shard;
    uint64_t given = 0;
    if (!d->draining)
        handoff_sweep(d);
    for (uint32_t i = 0; i < sh->lane_count; i++)
        given += lane_stats(sh->lanes[i])->by_state[QUEUE_GIVEN];
    if (!given || d->draining)
        return;
    for (uint32_t n = 0; n < COMMIT_VISITS && d->handoff.active < HANDOFF_ACTIVE_MAX; n++) {
        if (d->handoff.commit_lane >= sh->lane_count) {
            d->handoff.commit_lane = 0;
            d->handoff.commit_cursor = 0;
            return;
        }
        struct lane *l = sh->lanes[d->handoff.commit_lane];
        struct queue_msg *m = lane_next(l, &d->handoff.commit_cursor);
        if (!m) {
            d->handoff.commit_lane++;
            d->handoff.commit_cursor = 0;
        } else if (!m->owner && m->state == QUEUE_GIVEN) {
            offer(d, l, m);
        }
    }
}

uint64_t handoff_left(const struct delivery *d)
{
    const struct shard *sh = d->shard;
    uint64_t left = 0;
    for (uint32_t i = 0; d->handoff.on && i < sh->lane_count; i++) {
        const struct lane_stats *s = lane_stats(sh->lanes[i]);
        left += s->messages - s->by_state[QUEUE_PREPARED];
    }
    return left;
}

bool site_is_drained(const struct site *s)
{
    return s->delivery->draining && !(s->delivery->handoff.on && s->send->conf->handoff);
}

bool delivery_handoff(struct delivery *d, bool sessions_over)
{
    struct shard *sh = d->shard;
    const struct config *conf = sh->config->gen->config;
    uint64_t now = io_now_ns(sh->io);
    if (conf->handoff.peers.count == 0 || d->handoff.over)
        return false;
    if (!d->handoff.on) {
        d->draining = d->handoff.on = true;
        d->handoff.until_ns = now + conf->handoff.timeout_ns;
        d->handoff.sweep_due = handoff_all_peers(conf);
    }
    sites_drain(d, false);
    if (!d->handoff.met && !d->handoff.active && sh->lanes_recovered == sh->lane_count) {
        d->handoff.met = true; /* takes back what is left from before, and hears who is who */
        d->handoff.sweep_ns = 0;
        handoff_sweep(d);
        d->handoff.sweep_due = handoff_all_peers(conf);
        d->handoff.sweep_ns = 0;
    }
    if (d->handoff.met)
        handoff_more(d);
    bool none = handoff_left(d) == 0 && d->handoff.active == 0 && sessions_over &&
                sh->lanes_recovered == sh->lane_count;
    if (none && d->handoff.sweep_due && !d->handoff.sweep_running)
        handoff_sweep(d); /* what was offered and given to somebody else: once */
    none = none && !d->handoff.sweep_running;
    if (!none && now < d->handoff.until_ns && d->handoff.idle_passes < IDLE_PASSES_MAX)
        return true;
    d->handoff.on = false;
    d->handoff.over = true;
    return false;
}
