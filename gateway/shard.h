/*
 * gateway/shard.h - composition: what one shard owns, and how its parts reach each other.
 * Included
 * by the files of gateway/ only.
 *
 * A shard is one pinned thread with its own io, listeners, sessions, lanes, deliveries and
 * counters. Everything reachable from struct shard is touched by that thread alone; other threads
 * post items (gateway/peers.h).
 */
#ifndef HIKYAKU_SHARD_H
#define HIKYAKU_SHARD_H

#include "gateway/auth/auth.h"
#include "gateway/base/list.h"
#include "gateway/base/prng.h"
#include "gateway/base/slab.h"
#include "gateway/config.h"
#include "gateway/held.h"
#include "gateway/log.h"
#include "gateway/metrics.h"
#include "gateway/peers.h"
#include "gateway/pressure.h"
#include "gateway/protocol.h"
#include "gateway/smtp/smtp_in.h"
#include "gateway/smtp/smtp_out.h"
#include "queue/queue.h"
#include "routing/dns.h"
#include "routing/relay.h"
#include "tls/tls.h"

struct shard;
struct session;
struct delivery;

/* ---- one generation of the configuration, as a shard uses it ---- */

struct shard_receive {
    const struct config_receive_connector *conf;
    struct smtp_in_config smtp;
    struct tls_ctx *tls;         /* NULL: no TLS on this connector */
    enum connector_switch state; /* by the operator */
};

struct shard_send {
    const struct config_send_connector *conf;
    struct smtp_out_config smtp;
    struct tls_ctx *tls;         /* NULL: level none */
    enum connector_switch state; /* by the operator */
};

/* Refcounted within the shard: sessions and connections begun under it keep it. */
struct shard_config {
    struct generation *gen; /* shared by all threads, read only */
    uint32_t refs;
    uint32_t receive_count, send_count;
    struct shard_receive *receive;
    struct shard_send *send;
};

struct shard_config *shard_config_create(struct generation *gen, const uint8_t *ticket_key,
                                         struct why *why);
struct shard_config *shard_config_ref(struct shard_config *c);
/* The last one posts the generation back to the control thread. */
void shard_config_unref(struct shard *s, struct shard_config *c);

/* What the operator switched under `old` stays so. */
void shard_config_keep_switches(struct shard_config *c, const struct shard_config *old);

/* ---- listeners ---- */

struct listener {
    struct io_acceptor acceptor;
    struct shard *shard;
    struct io_addr addr;
    int32_t fd;
    bool stopping;
    struct list link;
};

/* ---- the shard ---- */

struct prepared;    /* what other gateways hand over, gateway/prepared.h */
struct addr_counts; /* sessions by client address, gateway/addr_counts.h */

struct shard {
    uint32_t index;
    struct gateway *gw; /* process-wide and read-only here, except through its atomics */
    struct io *io;
    struct log log;
    struct protocol protocol;
    struct metrics *metrics;
    struct shard_config *config;
    struct shard_config *next_config; /* prepared, waits for the word of the control thread */
    struct list listeners, bound;     /* bound: not accepting yet */
    bool adopting; /* adopted; to be told when listeners that are not wanted have stopped */
    struct prng chance;
    /* sessions */
    struct session **sessions; /* by slot */
    uint32_t *session_generations;
    uint32_t session_free, session_count, session_count_max;
    uint32_t *session_free_slots;
    struct held_table held;
    struct slab session_slab, tx_slab, line_slab, out_slab, plain_slab, arena_slab, account_slab;
    uint8_t *scratch_plain; /* decrypted input of the session being run */
    uint8_t *scratch_reply; /* replies to be encrypted */
    struct addr_counts *addr_counts;
    struct list reap;          /* sessions to be freed at the end of the turn */
    struct list committing;    /* transactions whose sessions wait for the commit, oldest first */
    struct timer commit_timer; /* set while there are any: the oldest may have waited too long */
    uint32_t withdrawn;        /* commits under way of messages that were answered 451 */
    struct auth_cache *auth_cache;
    struct auth_limit *auth_limit;
    struct list auth_running[AUTH_RUNNING_BUCKETS]; /* checks that workers have, by hash */
    uint32_t auth_next_worker;
    /* spool */
    struct lane **lanes;
    uint32_t lane_count, lanes_opened, lanes_recovered, lanes_closed;
    struct lane *write_lane;
    struct pressure pressure;
    enum pressure_level pressure_level; /* the highest of it */
    bool tls_trouble;                   /* it was said that memory for TLS is short */
    bool lane_trouble;                  /* a lane was not well; its recovery is worth a line */
    struct prepared *prepared;
    /* outbound */
    struct dns *dns;
    struct delivery *delivery;
    uint32_t hop_count_max; /* outbound connections that there are descriptors for */
    /* life */
    bool up, draining, stopping, stopped;
    uint64_t drain_force_ns;   /* sessions are cut */
    uint64_t drain_deliver_ns; /* until then deliveries begin */
    uint64_t drain_cut_ns;     /* deliveries under way are cut; 0: new ones still begin */
    struct {
        uint64_t busy_ns, at_ns; /* at the last tick */
        uint32_t lane;           /* of the round that looks at ages */
        uint64_t cursor, oldest_s, older[QUEUE_AGES];
    } look;
    char admin_owner;     /* its address marks messages that an operator's request looks at */
    struct timer tick;    /* once a second: gauges, drain progress */
    struct list unposted; /* items that found a ring full, see shard_post */
};

struct shard_start {
    struct gateway *gw;
    uint32_t index;
    struct generation *generation;
    atomic_bool dead; /* the shard could not even make its io; `failed` says why */
    struct why failed;
};

/* Thread entry: makes the shard, runs until told to stop. `arg` is struct shard_start, kept by the
 * caller. */
void *shard_thread(void *arg);
/*
 * The parts of shard_thread, for a thread that turns several shards: create, io_turn(s->io) until
 * s->stopped, destroy. NULL: start->failed says why, and the control thread was told.
 */
struct shard *shard_create(struct shard_start *start);
void shard_destroy(struct shard *s);

/* So much of tls_memory is taken that no handshake is to begin; what is left is for those that are
 * open. */
bool shard_tls_is_short(const struct shard *s);

/* Posts, or keeps the item and posts it on a later turn. Never lost. */
void shard_post(struct shard *s, uint32_t to, const struct ring_item *item);

/* ---- sessions (session*.c) ---- */

void session_slabs_init(struct shard *s);
void session_accept(struct listener *l, int32_t fd, const struct io_addr *peer);
/* The receive connector of the session in this slot, or NULL. */
const struct shard_receive *shard_session_receive(const struct shard *s, uint32_t slot);
void session_auth_done(struct shard *s, struct auth_check *check);
/* Frees the sessions that ended in this turn. */
void sessions_reap(struct shard *s);
/* Tells every session to finish: idle ones now, others after their command or message (421 4.3.2).
 * `force`: at once. */
void sessions_drain(struct shard *s, bool force);
/* Once a second: closes those that hoard receive buffers when there are few. */
void sessions_relieve(struct shard *s);

/* Whom the operator watches has changed (gateway/protocol.c). */
void sessions_watch(struct shard *s);
void delivery_watch(struct delivery *d);

/* ---- delivery (delivery*.c) ---- */

struct delivery *delivery_create(struct shard *s);
void delivery_destroy(struct delivery *d);
/* A new durable message. Takes the arena (moved out of) and the envelope in it. */
void delivery_accept(struct delivery *d, struct lane *l, struct queue_msg *m, struct arena *arena,
                     const struct envelope *env);
/* A message from the schedule or from recovery. */
void delivery_due(struct delivery *d, struct lane *l, struct queue_msg *m);
/* The operator's removal or return of a message that nobody works on. */
void delivery_operate(struct delivery *d, struct lane *l, struct queue_msg *m, bool remove);
/* Messages without a route are tried again under the new configuration; sites of the old one are
 * left to run dry. */
void delivery_config_changed(struct delivery *d);
/* No new attempts; connections finish what they do. True when nothing is under way. */
bool delivery_drain(struct delivery *d, bool force);
/* Of struct lane_params; `arg` is the shard. */
void delivery_unwritten(void *arg, struct lane *l, uint64_t qid);
/*
 * Deliveries of a drain are over: peers are given what is left. `sessions_over`: nothing new comes.
 * False: that is over, or there are no peers.
 */
bool delivery_handoff(struct delivery *d, bool sessions_over);
/* Messages being delivered, due or to be handed over; idle connections do not count. */
uint64_t delivery_work(const struct delivery *d);
/* What waits for the end of a turn: freed connections, jobs from the backlog. */
void delivery_turn_end(struct delivery *d);
/* PEER_PERMIT_STATE, PEER_PERMIT_GRANT. */
void delivery_permit_message(struct delivery *d, const struct ring_item *item);
/* Once a second. */
void delivery_tick(struct delivery *d);

/* ---- admin requests (shard_admin.c) ---- */

void shard_admin_request(struct shard *s, struct admin_request *r);
/* The answer is complete. */
void shard_admin_done(struct shard *s, struct admin_request *r);
/* Room in r->json for one more element of up to ADMIN_ROW_MAX bytes, with its comma. False: no
 * memory. */
#define ADMIN_ROW_MAX 65536u
bool shard_admin_room(struct admin_request *r, struct buf *b) __attribute__((warn_unused_result));
/* shard_admin_export.c */
void shard_admin_export(struct shard *s, struct admin_request *r);
/* shard_admin_connector.c */
void shard_admin_connector(struct shard *s, struct admin_request *r);
void shard_admin_connectors(struct shard *s, struct admin_request *r);
void shard_admin_route(struct shard *s, struct admin_request *r);

/* Opens and closes listeners as the configuration and its switches want it. False: `why`. */
bool shard_listeners_update(struct shard *s, struct why *why) __attribute__((warn_unused_result));

#endif
