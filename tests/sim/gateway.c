/*
 * tests/sim/gateway.c - the gateway inside a simulation: its shards and password workers as they
 * are, and in the place of the control thread a short one that starts, reloads, drains and asks.
 *
 * Owns:     one process of the gateway after the other, on one machine.
 * Runs on:  the one thread of a simulation.
 * Contract: what goes between control and shards are the product's own messages (gateway/peers.h).
 *           Left out: signals, admin HTTP, the log's writer thread (the rings are emptied here).
 * Failure:  a start that fails ends the process, as in the product.
 * Bounds:   WORLD_SHARDS_MAX shards.
 * Tests:    itself
 */
#include <assert.h>
#include <stdlib.h>

#include "gateway/auth_worker.h"
#include "gateway/delivery.h"
#include "queue/lane_internal.h"
#include "tests/sim/world.h"

#define SPOOL "/spool"
/* "secret", hashed in a moment. */
#define USERS "user:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"

/* ---- configuration ---- */

static void config_text(const struct world *w, bool all_routes, struct buf *out)
{
    const struct swarm *s = &w->swarm;
    const struct simgw *g = &w->gateway;
    buf_addf(out,
             "hostname: gw%u.test\nshards: %u\n"
             "spool: {path: " SPOOL ", max_size: %lluMiB, min_free: 0, write: %s}\n"
             "admin: {socket: \"\"}\nlog: {level: info}\ndns: {servers: [10.9.9.9]}\n"
             "receive_connectors:\n  - name: in\n    bind: [\"10.0.0.1:25\"]\n"
             "    tls: {mode: none}\n    relay: {networks: [10.0.0.0/8]}\n"
             "    max_message_size: %llu\n    max_recipients: %u\n",
             g->epoch, g->gw.shard_count,
             (unsigned long long)(g->gw.shard_count * SPOOL_SHARD_BYTES_MIN / MIB),
             s->buffered ? "buffered" : "direct", (unsigned long long)s->message_size_max,
             s->max_recipients);
    if (s->client.auth)
        buf_addf(out, "    auth: {required: false, require_tls: false, mechanisms: [PLAIN]}\n"
                      "    sender_identity: off\nusers: {file: /dev/null}\n");
    static const char limits[] = "    tls: {level: none}\n    max_connections: %u\n"
                                 "    max_messages_per_connection: %u\n"
                                 "    max_recipients_per_message: %u\n";
    buf_addf(out,
             "send_connectors:\n  - name: internet\n    delivery: mx\n"
             "    address_spaces: [sender.test, d0.test, d2.test, d4.test, d7.test%s]\n"
             "    mx_allow_networks: [10.0.0.0/8]\n",
             all_routes ? ", d6.test" : "");
    buf_addf(out, limits, s->max_connections, s->messages_per_connection, s->rcpts_per_message);
    buf_addf(out, "  - name: smart\n    delivery: smart_hosts\n"
                  "    address_spaces: [d1.test, {space: d3.test, cost: 5}]\n"
                  "    smart_hosts: [{host: \"[10.0.2.1]\"}");
    if (s->hosts > 1)
        buf_addf(out, ", {host: h1.test, priority: 2}");
    buf_addf(out, "]\n");
    buf_addf(out, limits, s->max_connections, s->messages_per_connection, s->rcpts_per_message);
    buf_addf(out,
             "  - name: second\n    delivery: smart_hosts\n"
             "    address_spaces: [d5.test, {space: d3.test, cost: 20}]\n"
             "    smart_hosts: [{host: h%u.test, weight: 3}]\n",
             s->hosts - 1);
    buf_addf(out, limits, s->max_connections, s->messages_per_connection, s->rcpts_per_message);
    buf_addf(out, "retry: {intervals: [1s, 2s, 5s], expire: %us, warn_after: %us}\n", s->expire_s,
             s->warn_after_s);
    assert(!out->overflow);
}

static struct generation *generation_new(struct world *w, bool all_routes)
{
    char text[4096];
    struct buf b = buf_over(text, sizeof text);
    struct generation *g = calloc(1, sizeof *g);
    struct why why;
    config_text(w, all_routes, &b);
    g->number = ++w->gateway.generations;
    g->config = config_parse("sim.yaml", buf_slice(&b), &why);
    if (!g->config) {
        fprintf(stderr, "%s\n", why.text);
        abort();
    }
    g->config->generation = g->number;
    if (w->swarm.client.auth) {
        g->users = users_parse("users", SLICE_LIT(USERS), &why);
        assert(g->users);
    }
    g->accepted = relay_domains_create();
    g->shards_holding = w->gateway.gw.shard_count;
    return g;
}

static void generation_drop(struct generation *g)
{
    users_free(g->users);
    relay_domains_destroy(g->accepted);
    config_free(g->config);
    free(g);
}

/* ---- control's messages ---- */

static void control_all(struct simgw *g, const struct ring_item *item)
{
    for (uint32_t i = 0; i < g->gw.shard_count; i++)
        while (!io_post(g->io, i, item))
            ;
}

static void ready(struct simgw *g, const struct ring_item *item)
{
    if (!item->b) {
        g->refusals++;
        free(item->ptr);
    }
    if (++g->answers < g->gw.shard_count)
        return;
    struct ring_item commit = {.kind = PEER_CONFIG_COMMIT, .a = g->refusals == 0};
    control_all(g, &commit);
    if (g->refusals == 0) {
        g->current = g->next;
        g->w->stats.reloads++;
    }
    g->next = NULL;
}

static void asked(struct simgw *g, struct admin_request *r)
{
    g->asks--;
    free(r->json);
    free(r);
}

static void control_message(void *arg, const struct ring_item *item)
{
    struct simgw *g = arg;
    struct generation *old = item->ptr;
    switch (item->kind) {
    case PEER_SHARD_UP:
        g->failed |= !item->b;
        g->shards_up += item->b;
        free(item->ptr);
        break;
    case PEER_CONFIG_READY: ready(g, item); break;
    case PEER_CONFIG_RELEASED:
        if (--old->shards_holding == 0 && old != g->current && old != g->next)
            generation_drop(old);
        break;
    case PEER_CONFIG_ADOPTED: break;
    case PEER_ADMIN_DONE: asked(g, item->ptr); break;
    case PEER_SHARD_DOWN: g->shards_down++; break;
    default: assert(!"unknown item"); break;
    }
}

/* ---- start ---- */

static void gateway_memory(struct simgw *g)
{
    struct gateway *gw = &g->gw;
    gw->worker_count = AUTH_WORKERS;
    gw->control_peer = gw->shard_count;
    gw->first_worker_peer = gw->shard_count + 1;
    gw->peer_count = gw->shard_count + 1 + gw->worker_count;
    gw->group = io_group_create(gw->peer_count);
    gw->log_rings = calloc(gw->peer_count, sizeof *gw->log_rings);
    gw->metrics = aligned_alloc(64, (sizeof *gw->metrics * gw->shard_count + 63) / 64 * 64);
    memset(gw->metrics, 0, sizeof *gw->metrics * gw->shard_count);
    for (uint32_t i = 0; i <= gw->shard_count; i++)
        gw->log_rings[i] = ring_bytes_create(LOG_RING_BYTES);
    gw->segment_bytes = g->w->swarm.segment_bytes;
}

static bool gateway_threads(struct simgw *g)
{
    struct gateway *gw = &g->gw;
    for (uint32_t i = 0; i < gw->worker_count; i++) {
        g->worker_starts[i] =
            (struct auth_worker_start){.group = gw->group, .peer = gw->first_worker_peer + i};
        g->workers[i] = auth_worker_create(&g->worker_starts[i]);
        if (!g->workers[i])
            return false;
    }
    for (uint32_t i = 0; i < gw->shard_count; i++) {
        g->starts[i] = (struct shard_start){.gw = gw, .index = i, .generation = g->current};
        g->shards[i] = shard_create(&g->starts[i]);
        if (!g->shards[i])
            return false;
    }
    return true;
}

bool gateway_start(struct world *w, uint32_t shards)
{
    struct simgw *g = &w->gateway;
    struct why why;
    TRACE(w, "gateway: starts with %u shards", shards);
    sim_host_enter(g->host);
    memset(&g->gw, 0, sizeof g->gw);
    memset(g->shards, 0, sizeof g->shards);
    memset(g->dirty, 0, sizeof g->dirty);
    g->epoch++;
    g->running = true;
    g->draining = g->failed = false;
    g->answers = g->refusals = g->shards_up = g->shards_down = g->asks = 0;
    g->next = NULL;
    w->stats.starts++;
    g->gw.shard_count = shards;
    gateway_memory(g);
    g->current = generation_new(w, w->calm || prng_below(&w->chaos, 2));
    struct io_params p = {.group = g->gw.group,
                          .peer = g->gw.control_peer,
                          .queue_depth = 256,
                          .fd_count_max = 64,
                          .cpu = -1};
    g->io = io_create(&p, &why);
    if (g->io)
        io_on_message(g->io, control_message, g);
    if (g->io && io_port_check(&g->current->config->receive[0].bind[0], &why) &&
        spool_lock(g->io, SPOOL, &g->lock, &why) && gateway_threads(g))
        return true;
    w->stats.start_failed++;
    TRACE(w, "gateway: did not start");
    gateway_kill(w);
    return false;
}

bool gateway_up(const struct world *w)
{
    const struct simgw *g = &w->gateway;
    return g->running && g->shards_up == g->gw.shard_count;
}

/* ---- lines ---- */

static void lines_read(struct world *w, uint32_t ring)
{
    static char text[LOG_LINE_MAX * 2];
    static uint32_t len;
    struct ring_bytes *r = w->gateway.gw.log_rings[ring];
    uint32_t n;
    len = 0;
    while ((n = ring_bytes_read(r, text + len, (uint32_t)sizeof text - len)) > 0) {
        len += n;
        char *from = text, *nl;
        while ((nl = memchr(from, '\n', len - (size_t)(from - text)))) {
            ledger_log(w, ring, slice_of(from + 1, (size_t)(nl - from) - 1));
            from = nl + 1;
        }
        len -= (uint32_t)(from - text);
        memmove(text, from, len);
    }
}

static bool shard_is_quiet(const struct shard *s)
{
    for (uint32_t i = 0; i < s->lane_count; i++) {
        const struct lane *l = s->lanes[i];
        if (!commit_idle(l) || l->stash_count || commit_awaited(l))
            return false;
    }
    return true;
}

/* ---- end ---- */

static void gateway_free(struct world *w)
{
    struct simgw *g = &w->gateway;
    for (uint32_t i = 0; i < g->gw.worker_count; i++)
        auth_worker_destroy(g->workers[i]);
    io_unlock(g->io, g->lock);
    io_destroy(g->io);
    io_group_destroy(g->gw.group);
    generation_drop(g->current);
    for (uint32_t i = 0; i <= g->gw.shard_count; i++)
        ring_bytes_destroy(g->gw.log_rings[i]);
    free(g->gw.log_rings);
    free(g->gw.metrics);
    g->running = false;
    ledger_crash(w); /* the last words that a full or broken disk did not take are lost */
    w->stats.drains++;
    TRACE(w, "gateway: stopped");
}

void gateway_look(struct world *w)
{
    struct simgw *g = &w->gateway;
    if (!g->running)
        return;
    for (uint32_t i = 0; i < g->gw.shard_count; i++) {
        if (!ring_bytes_empty(g->gw.log_rings[i]))
            lines_read(w, i);
        struct shard *s = g->shards[i];
        if (!s)
            continue;
        if ((g->dirty[i] || w->removal_count) && !s->stopping && shard_is_quiet(s)) {
            g->dirty[i] = !ledger_settle(w, i);
        }
        if (s->stopped) {
            (void)ledger_settle(w, i); /* its lanes are closed: what it did not name is on disk */
            sim_host_enter(g->host);
            shard_destroy(s);
            g->shards[i] = NULL;
        }
    }
    if (g->failed) {
        w->stats.start_failed++;
        gateway_kill(w);
    } else if (g->shards_down == g->gw.shard_count) {
        gateway_free(w);
    }
}

/* The process is gone; what it allocated is not looked at again. */
static void gateway_gone(struct world *w)
{
    struct simgw *g = &w->gateway;
    for (uint32_t i = 0; i < g->gw.shard_count; i++)
        lines_read(w, i);
    g->running = false;
    ledger_crash(w);
}

void gateway_kill(struct world *w)
{
    TRACE(w, "gateway: killed");
    w->stats.kills++;
    sim_host_kill(w->gateway.host);
    gateway_gone(w);
}

void gateway_cut(struct world *w)
{
    TRACE(w, "gateway: power cut");
    w->stats.cuts++;
    sim_host_power_cut(w->gateway.host);
    gateway_gone(w);
}

/* ---- what an operator does ---- */

void gateway_drain(struct world *w)
{
    struct simgw *g = &w->gateway;
    struct ring_item item = {.kind = PEER_DRAIN};
    if (!gateway_up(w) || g->draining)
        return;
    TRACE(w, "gateway: drain");
    g->draining = true;
    atomic_store(&g->gw.draining, true);
    control_all(g, &item);
}

void gateway_reload(struct world *w)
{
    struct simgw *g = &w->gateway;
    if (!gateway_up(w) || g->draining || g->next)
        return;
    TRACE(w, "gateway: reload");
    g->answers = g->refusals = 0;
    g->next = generation_new(w, w->calm || prng_below(&w->chaos, 2));
    struct ring_item item = {.kind = PEER_CONFIG, .ptr = g->next};
    control_all(g, &item);
}

void gateway_order(struct world *w, enum admin_change change, uint64_t qid)
{
    struct simgw *g = &w->gateway;
    if (!gateway_up(w))
        return;
    TRACE(w, "operator: order %d for %llx", (int)change, (unsigned long long)qid);
    w->stats.orders++;
    for (uint32_t i = 0; i < g->gw.shard_count; i++) {
        struct admin_request *r = calloc(1, sizeof *r);
        *r = (struct admin_request){
            .op = ADMIN_QUEUE_CHANGE, .change = change, .qid = qid, .limit = 1000};
        struct ring_item item = {.kind = PEER_ADMIN, .ptr = r};
        g->asks++;
        while (!io_post(g->io, i, &item))
            ;
    }
}

/* ---- looking inside ---- */

bool gateway_writes(const struct world *w)
{
    const struct simgw *g = &w->gateway;
    for (uint32_t i = 0; g->running && i < g->gw.shard_count; i++)
        for (uint32_t k = 0; g->shards[i] && k < g->shards[i]->lane_count; k++)
            if (g->shards[i]->lanes[k]->writing)
                return true;
    return false;
}

uint64_t gateway_queued(const struct world *w)
{
    const struct simgw *g = &w->gateway;
    uint64_t sum = 0;
    for (uint32_t i = 0; g->running && i < g->gw.shard_count; i++)
        for (uint32_t k = 0; g->shards[i] && k < g->shards[i]->lane_count; k++)
            sum += lane_stats(g->shards[i]->lanes[k])->messages;
    return sum;
}

uint64_t gateway_held(const struct world *w)
{
    const struct simgw *g = &w->gateway;
    uint64_t sum = 0;
    for (uint32_t i = 0; g->running && i < g->gw.shard_count; i++)
        for (uint32_t k = 0; g->shards[i] && k < g->shards[i]->lane_count; k++)
            sum += lane_stats(g->shards[i]->lanes[k])->by_state[QUEUE_HELD];
    return sum;
}

void gateway_remove_stray(struct world *w)
{
    const struct simgw *g = &w->gateway;
    for (uint32_t i = 0; g->running && i < g->gw.shard_count; i++)
        for (uint32_t k = 0; g->shards[i] && k < g->shards[i]->lane_count; k++) {
            uint64_t cursor = 0;
            const struct queue_msg *m;
            while ((m = lane_next(g->shards[i]->lanes[k], &cursor)))
                if (m->state == QUEUE_POISON && !ledger_knows(w, m->qid))
                    gateway_order(w, ADMIN_REMOVE, m->qid);
        }
}

static const struct queue_msg *gateway_find(const struct world *w, uint64_t qid)
{
    const struct simgw *g = &w->gateway;
    const struct queue_msg *m = NULL;
    for (uint32_t i = 0; g->running && i < g->gw.shard_count; i++)
        for (uint32_t k = 0; !m && g->shards[i] && k < g->shards[i]->lane_count; k++)
            m = lane_find(g->shards[i]->lanes[k], qid);
    return m;
}

bool gateway_has(const struct world *w, uint64_t qid)
{
    return gateway_find(w, qid) != NULL;
}

bool gateway_is_final(const struct world *w, uint64_t qid, uint32_t rcpt)
{
    const struct queue_msg *m = gateway_find(w, qid);
    return !m || queue_msg_rcpt_is_final(m, rcpt);
}

bool gateway_busy(const struct world *w)
{
    const struct simgw *g = &w->gateway;
    for (uint32_t i = 0; g->running && i < g->gw.shard_count; i++)
        if (g->shards[i] && (g->shards[i]->session_count || g->shards[i]->delivery->hop_count))
            return true;
    return false;
}

static void check_slab(struct world *w, const struct slab *s)
{
    if (s->used)
        world_fail(w, "%u of \"%s\" are never given back", s->used, s->name);
}

void gateway_check_empty(struct world *w)
{
    const struct simgw *g = &w->gateway;
    for (uint32_t i = 0; i < g->gw.shard_count; i++) {
        const struct shard *s = g->shards[i];
        const struct delivery *d = s->delivery;
        const struct slab *const slabs[] = {&s->session_slab, &s->tx_slab,    &s->line_slab,
                                            &s->out_slab,     &s->plain_slab, &s->arena_slab,
                                            &s->account_slab, &d->job_slab,   &d->task_slab,
                                            &d->hop_slab,     &d->wire_slab,  &d->body_slab};
        for (size_t k = 0; k < sizeof slabs / sizeof *slabs; k++)
            check_slab(w, slabs[k]);
        for (uint32_t k = 0; k < s->lane_count; k++) {
            check_slab(w, &s->lanes[k]->msg_slab);
            check_slab(w, &s->lanes[k]->chunk_slab);
        }
        if (s->session_count || d->job_count || d->hop_count)
            world_fail(w, "shard %u: %u sessions, %u jobs, %u connections are left", i,
                       s->session_count, d->job_count, d->hop_count);
    }
}

/* Connections that one site has on all shards together. */
void gateway_check_limits(struct world *w)
{
    const struct simgw *g = &w->gateway;
    for (uint32_t i = 0; i < g->gw.shard_count; i++) {
        const struct delivery *d = g->shards[i] ? g->shards[i]->delivery : NULL;
        for (struct list *p = d ? d->sites.next : NULL; p && p != &d->sites; p = p->next) {
            const struct site *s = container_of(p, struct site, link);
            uint32_t sum = 0;
            if (s->permit.used != s->hop_count)
                world_fail(w, "%u permits are in use for %u connections", s->permit.used,
                           s->hop_count);
            for (uint32_t k = 0; k < g->gw.shard_count; k++) {
                const struct delivery *o = g->shards[k] ? g->shards[k]->delivery : NULL;
                for (struct list *q = o ? o->sites.next : NULL; q && q != &o->sites; q = q->next) {
                    const struct site *t = container_of(q, struct site, link);
                    if (t->permit.key == s->permit.key)
                        sum += t->hop_count;
                }
            }
            if (sum > w->swarm.max_connections)
                world_fail(w, "%u connections to %s at once, %u are allowed", sum,
                           s->domain[0] ? s->domain : s->send->conf->name,
                           w->swarm.max_connections);
        }
    }
}
