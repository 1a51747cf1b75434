/*
 * gateway/shard.c - one shard from birth to drain: its parts, its loop, what other threads ask of
 * it.
 *
 * Owns:     everything below struct shard.
 * Runs on:  its own pinned thread.
 * Contract: listeners accept only after every lane is open; a new configuration is prepared whole
 *           (contexts made, ports bound) before any shard adopts it; a drain ends with every lane
 *           closed.
 * Failure:  whatever fails at start is told to the control thread, which ends the process with
 *           one line.
 * Bounds:   gateway/limits.h; DRAIN_FORCE_NS for sessions in a message, then they are cut
 *           (nothing of them was acknowledged).
 * Tests:    tests/system (start, reload, drain)
 */
#include "gateway/shard_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "gateway/addr_counts.h"
#include "gateway/auth/auth_limit.h"
#include "gateway/prepared.h"

#define TICK_NS        NS_PER_S
#define DRAIN_TICK_NS  (100 * NS_PER_MS)
#define DRAIN_FORCE_NS (30 * NS_PER_S)

struct unposted {
    struct list link;
    uint32_t to;
    struct ring_item item;
};

/* ---- talking to other threads ---- */

void shard_post(struct shard *s, uint32_t to, const struct ring_item *item)
{
    if (list_empty(&s->unposted) && io_post(s->io, to, item))
        return;
    struct unposted *u = malloc(sizeof *u); /* rare: the other side is behind */
    if (!u)
        abort(); /* control items must not be lost */
    u->to = to;
    u->item = *item;
    list_push_back(&s->unposted, &u->link);
}

static void shard_post_again(struct shard *s)
{
    while (!list_empty(&s->unposted)) {
        struct unposted *u = container_of(s->unposted.next, struct unposted, link);
        if (!io_post(s->io, u->to, &u->item))
            return;
        list_remove(&u->link);
        free(u);
    }
}

void shard_tell(struct shard *s, uint32_t kind, uint64_t a, bool ok, const struct why *why)
{
    struct ring_item item = {.kind = kind, .a = a, .b = ok};
    if (!ok) {
        struct why *copy = malloc(sizeof *copy);
        if (copy)
            *copy = *why;
        item.ptr = copy;
    }
    shard_post(s, s->gw->control_peer, &item);
}

/* ---- reload ---- */

/* A reload is over here when what it dropped is closed, so that its answer can be relied on. */
void shard_config_adopted(struct shard *s)
{
    const struct ring_item item = {.kind = PEER_CONFIG_ADOPTED};
    if (!s->adopting)
        return;
    for (struct list *p = s->listeners.next; p != &s->listeners; p = p->next)
        if (container_of(p, struct listener, link)->stopping)
            return;
    s->adopting = false;
    shard_post(s, s->gw->control_peer, &item);
}

static void shard_config_prepare(struct shard *s, struct generation *gen)
{
    struct why why;
    why_clear(&why);
    s->next_config = shard_config_create(gen, s->gw->ticket_key, &why);
    bool ok =
        s->next_config && shard_listeners_bind(s, s->next_config, &s->listeners, &s->bound, &why);
    shard_tell(s, PEER_CONFIG_READY, gen->number, ok, &why);
    struct ring_item released = {.kind = PEER_CONFIG_RELEASED, .ptr = gen};
    if (!s->next_config)
        shard_post(s, s->gw->control_peer, &released);
}

static void shard_config_commit(struct shard *s, bool adopt)
{
    struct shard_config *next = s->next_config, *old = s->config;
    s->next_config = NULL;
    if (!adopt) {
        shard_listeners_discard(s, &s->bound);
        if (next)
            shard_config_unref(s, next);
        return;
    }
    shard_config_keep_switches(next, old);
    s->config = next;
    tls_memory_limit(next->gen->config->tls_memory_max);
    s->log.level = next->gen->config->log.level;
    shard_listeners_start(s, &s->bound);
    shard_listeners_stop(s, next); /* also what was disabled since it was bound */
    delivery_config_changed(s->delivery);
    shard_config_unref(s, old);
    s->adopting = true;
    shard_config_adopted(s);
}

/* ---- drain ---- */

static void shard_lane_closed(void *arg)
{
    struct shard *s = arg;
    if (++s->lanes_closed == s->lanes_opened)
        s->stopped = true;
}

static void shard_drain_step(struct shard *s)
{
    uint64_t now = io_now_ns(s->io);
    sessions_drain(s, now >= s->drain_force_ns);
    uint64_t work = s->session_count + delivery_work(s->delivery);
    metric_set(s->metrics, M_DRAIN_WORK, work);
    if (!s->drain_cut_ns && work && now < s->drain_deliver_ns)
        return;
    if (!s->drain_cut_ns && delivery_handoff(s->delivery, s->session_count == 0)) {
        metric_set(s->metrics, M_DRAIN_PHASE, DRAIN_HANDING_OVER);
        return;
    }
    metric_set(s->metrics, M_DRAIN_PHASE, DRAIN_ENDING);
    if (!s->drain_cut_ns) {
        s->drain_cut_ns = now + DRAIN_FORCE_NS;
        atomic_fetch_add(&s->gw->shards_delivered, 1);
    }
    bool delivered = delivery_drain(s->delivery, now >= s->drain_cut_ns);
    if (s->session_count || !delivered || s->stopping || !list_empty(&s->listeners) ||
        atomic_load(&s->gw->shards_delivered) < s->gw->shard_count) /* others borrow permits here */
        return;
    s->stopping = true;
    uint32_t count = s->lane_count;
    s->lane_count = 0; /* a lane frees itself when it is closed: nobody may look at it any more */
    s->write_lane = NULL;
    for (uint32_t i = 0; i < count; i++)
        lane_close(s->lanes[i], shard_lane_closed, s);
}

static void shard_drain(struct shard *s)
{
    if (s->draining)
        return;
    s->draining = true;
    s->drain_force_ns = io_now_ns(s->io) + DRAIN_FORCE_NS;
    s->drain_deliver_ns = io_now_ns(s->io) + s->config->gen->config->drain.deliveries_ns;
    metric_set(s->metrics, M_DRAIN_PHASE, DRAIN_FINISHING);
    shard_listeners_discard(s, &s->bound);
    shard_listeners_stop(s, NULL);
    shard_drain_step(s);
    io_timer_set(s->io, &s->tick, io_now_ns(s->io) + DRAIN_TICK_NS);
}

/* ---- the loop ---- */

static void shard_tick(struct timer *t)
{
    struct shard *s = container_of(t, struct shard, tick);
    if (!s->stopping) {
        shard_gauges(s);
        shard_pressure(s);
    }
    shard_tls_trouble(s);
    protocol_tick(s);
    sessions_relieve(s);
    delivery_tick(s->delivery);
    if (s->draining)
        shard_drain_step(s);
    io_timer_set(s->io, t, io_now_ns(s->io) + (s->draining ? DRAIN_TICK_NS : TICK_NS));
}

static void shard_turn_end(void *arg)
{
    struct shard *s = arg;
    sessions_reap(s);
    if (s->delivery)
        delivery_turn_end(s->delivery);
    for (uint32_t i = 0; i < s->lane_count; i++)
        lane_turn_end(s->lanes[i]);
    if (!list_empty(&s->unposted))
        shard_post_again(s);
}

static void shard_message(void *arg, const struct ring_item *item)
{
    struct shard *s = arg;
    if (s->stopped) { /* what it would concern is gone */
        if (item->kind == PEER_PROTOCOL)
            free(item->ptr);
        return;
    }
    switch (item->kind) {
    case PEER_AUTH_DONE: session_auth_done(s, item->ptr); break;
    case PEER_CONFIG: shard_config_prepare(s, item->ptr); break;
    case PEER_CONFIG_COMMIT: shard_config_commit(s, item->a); break;
    case PEER_ADMIN: shard_admin_request(s, item->ptr); break;
    case PEER_PERMIT_STATE:
    case PEER_PERMIT_GRANT: delivery_permit_message(s->delivery, item); break;
    case PEER_DRAIN: shard_drain(s); break;
    case PEER_PROTOCOL: protocol_retarget(s, item->ptr); break;
    default: assert(!"unknown item"); break;
    }
}

/* All is freed but the way to other threads. */
static void shard_message_late(void *arg, const struct ring_item *item)
{
    struct shard *s = arg;
    struct ring_item back = {.kind = PEER_ADMIN_DONE, .ptr = item->ptr};
    if (item->kind == PEER_AUTH_DONE)
        auth_check_free(item->ptr);
    else if (item->kind == PEER_ADMIN)
        shard_post(s, s->gw->control_peer, &back);
    else if (item->kind == PEER_PROTOCOL)
        free(item->ptr);
}

static uint64_t shard_wall(void *arg)
{
    return io_wall_ns(arg);
}

/*
 * What RLIMIT_NOFILE does not allow is not begun, so that who comes too many is told (421) instead
 * of failing somewhere inside (FAULTS 51).
 */
static void shard_share_descriptors(struct shard *s)
{
    const struct io_stats *io = io_stats(s->io);
    uint32_t have = io->fd_count_max;
    s->session_count_max = SESSION_COUNT_MAX;
    s->hop_count_max = OUT_HOPS_MAX;
    if (have >= FD_WANTED)
        return;
    if (io->fd_shared)
        have /= s->gw->shard_count;
    uint32_t quarter = have > FD_OTHER + 4 * FD_SHARE_MIN ? (have - FD_OTHER) / 4 : FD_SHARE_MIN;
    s->session_count_max = 3 * quarter < SESSION_COUNT_MAX ? 3 * quarter : SESSION_COUNT_MAX;
    s->hop_count_max = quarter < OUT_HOPS_MAX ? quarter : OUT_HOPS_MAX;
    struct log_line line;
    log_begin(&line, &s->log, EV_WARNING);
    log_str(&line, "reason", "few descriptors are allowed: raise LimitNOFILE=, ulimit -n");
    log_u64(&line, "sessions", s->session_count_max - SESSION_REFUSE_ROOM);
    log_u64(&line, "outbound", s->hop_count_max);
    log_end(&line);
}

static bool shard_memory(struct shard *s)
{
    uint32_t max = s->session_count_max;
    s->sessions = calloc(max, sizeof(struct session *));
    s->session_generations = calloc(max, sizeof *s->session_generations);
    s->session_free_slots = calloc(max, sizeof *s->session_free_slots);
    s->held.bufs = calloc(SESSION_RECV_BUF_COUNT, sizeof *s->held.bufs);
    s->scratch_plain = malloc(SESSION_RECV_BUF_SIZE);
    s->scratch_reply = malloc(SESSION_OUT_BUF_SIZE);
    s->addr_counts = addr_counts_create(max);
    s->auth_cache = auth_cache_create(AUTH_CACHE_ENTRIES, s->gw->auth_cache_key);
    s->auth_limit = auth_limit_create(AUTH_LIMIT_ENTRIES, s->gw->auth_cache_key);
    for (uint32_t i = 0; i < AUTH_RUNNING_BUCKETS; i++)
        list_init(&s->auth_running[i]);
    if (!s->sessions || !s->session_generations || !s->session_free_slots || !s->held.bufs ||
        !s->scratch_plain || !s->scratch_reply || !s->addr_counts || !s->auth_cache ||
        !s->auth_limit)
        return false;
    for (uint32_t i = 0; i < max; i++)
        s->session_free_slots[i] = max - 1 - i;
    s->session_free = max;
    s->held.io = s->io;
    session_slabs_init(s);
    slab_init(&s->line_slab, "lines", SMTP_AUTH_LINE_MAX, max);
    slab_init(&s->out_slab, "replies", SESSION_OUT_BUF_SIZE, max);
    slab_init(&s->plain_slab, "plaintext", SESSION_RECV_BUF_SIZE, max);
    slab_init(&s->arena_slab, "envelopes", ARENA_BLOCK_SIZE, ARENA_BLOCKS_MAX);
    slab_init(&s->account_slab, "accounts", AUTH_USER_MAX + 1, max);
    return true;
}

static bool shard_init(struct shard *s, struct generation *gen, struct why *why)
{
    struct gateway *gw = s->gw;
    struct io_params p = {
        .group = gw->group,
        .peer = s->index,
        .fd_count_max = FD_WANTED,
        .recv_buf_count = SESSION_RECV_BUF_COUNT,
        .recv_buf_size = SESSION_RECV_BUF_SIZE,
        .cpu = gw->shard_count > 1 || gw->pin ? gw->cpus[s->index] : -1,
    };
    s->io = io_create(&p, why);
    if (!s->io)
        return false;
    io_on_message(s->io, shard_message, s);
    s->log = (struct log){.ring = gw->log_rings[s->index],
                          .level = gen->config->log.level,
                          .tracking = gen->config->log.tracking != NULL,
                          .wall_ns = shard_wall,
                          .arg = s->io,
                          .shard = s->index};
    protocol_init(s, gw->protocol_rings ? gw->protocol_rings[s->index] : NULL);
    shard_share_descriptors(s);
    uint64_t seed;
    io_random(s->io, &seed, sizeof seed);
    prng_seed(&s->chance, seed);
    tls_memory_limit(gen->config->tls_memory_max);
    s->config = shard_config_create(gen, gw->ticket_key, why);
    if (!s->config)
        return false;
    why_set(why, 451, "4.3.1", "out of memory");
    s->delivery = delivery_create(s);
    if (!shard_memory(s) || !s->delivery || !(s->prepared = prepared_create(s)))
        return false;
    struct dns_params dns = {.io = s->io,
                             .servers = gen->config->dns.servers,
                             .server_count = gen->config->dns.server_count,
                             .dnssec = gen->config->dns.dnssec,
                             .timeout_ns = gen->config->dns.timeout_ns};
    s->dns = dns_create(&dns, why);
    if (!s->dns || !shard_listeners_bind(s, s->config, &s->listeners, &s->bound, why))
        return false;
    s->tick.fire = shard_tick;
    io_on_turn_end(s->io, shard_turn_end, s);
    return shard_lanes_open(s, why);
}

static void shard_free(struct shard *s)
{
    io_timer_clear(s->io, &s->tick);
    io_timer_clear(s->io, &s->commit_timer);
    prepared_destroy(s->prepared);
    delivery_destroy(s->delivery);
    s->delivery = NULL; /* turns still end */
    dns_destroy(s->dns);
    shard_config_unref(s, s->config);
    auth_cache_destroy(s->auth_cache);
    auth_limit_destroy(s->auth_limit);
    addr_counts_destroy(s->addr_counts);
    protocol_destroy(s);
    slab_destroy(&s->session_slab, false);
    slab_destroy(&s->tx_slab, false);
    slab_destroy(&s->line_slab, false);
    slab_destroy(&s->out_slab, false);
    slab_destroy(&s->plain_slab, false);
    slab_destroy(&s->arena_slab, false);
    slab_destroy(&s->account_slab, false);
    free(s->lanes);
    free(s->sessions);
    free(s->session_generations);
    free(s->session_free_slots);
    free(s->held.bufs);
    free(s->scratch_plain);
    free(s->scratch_reply);
}

struct shard *shard_create(struct shard_start *start)
{
    struct shard *s = calloc(1, sizeof *s);
    struct why why;
    if (!s)
        abort();
    s->gw = start->gw;
    s->index = start->index;
    s->metrics = &s->gw->metrics[s->index];
    list_init(&s->listeners);
    list_init(&s->bound);
    list_init(&s->unposted);
    list_init(&s->reap);
    if (!shard_init(s, start->generation, &why)) {
        start->failed = why;
        if (s->io)
            shard_tell(s, PEER_SHARD_UP, s->index, false, &why);
        else
            atomic_store(&start->dead,
                         true); /* nothing to post with: the control thread looks at this */
        return NULL;            /* the process ends */
    }
    io_timer_set(s->io, &s->tick, io_now_ns(s->io) + TICK_NS);
    return s;
}

void shard_destroy(struct shard *s)
{
    io_on_turn_end(s->io, NULL, NULL);
    io_on_message(s->io, shard_message_late, s);
    shard_free(s);
    shard_tell(s, PEER_SHARD_DOWN, s->index, true, NULL);
    do { /* the wake-up leaves with a turn */
        shard_post_again(s);
        io_turn(s->io, false);
    } while (!list_empty(&s->unposted));
    io_destroy(s->io);
    free(s);
}

void *shard_thread(void *arg)
{
    struct shard *s = shard_create(arg);
    if (!s)
        return NULL;
    while (!s->stopped)
        io_turn(s->io, true);
    shard_destroy(s);
    return NULL;
}
