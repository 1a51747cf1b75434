/*
 * gateway/peers.h - the threads of the process and what they say to each other.
 *
 * Peers 0 .. shard_count-1 are shards, then the control thread, then the AUTH workers.
 */
#ifndef HIKYAKU_PEERS_H
#define HIKYAKU_PEERS_H

#include <pthread.h>
#include <stdatomic.h>

#include "gateway/auth/auth.h"
#include "gateway/config.h"
#include "gateway/io/io.h"
#include "gateway/limits.h"
#include "gateway/metrics.h"
#include "gateway/switches.h"
#include "routing/relay.h"

/* One configuration with what is derived from it once for all threads. Immutable while shards hold
 * it. */
struct generation {
    uint64_t number;
    uint64_t seen; /* sum of config_file_seen of all that was read */
    struct config *config;
    struct users *users; /* NULL: nobody */
    struct relay_domains *accepted;
    struct relay_recipients *recipients;
    struct io_addr *interfaces; /* of this machine */
    uint32_t interface_count;
    struct switches switches; /* as they were when it was read; changes come by ADMIN_CONNECTOR */
    uint32_t shards_holding;  /* control thread only */
};

enum peer_item {
    PEER_CONFIG = 1,    /* control -> shard: ptr = struct generation to adopt */
    PEER_CONFIG_READY,  /* shard -> control: a = generation number, b = 1 adopted / 0 refused, ptr =
                           struct why (malloc) when refused */
    PEER_CONFIG_COMMIT, /* control -> shard: a = 1 adopt what was prepared, 0 drop it */
    PEER_CONFIG_ADOPTED,  /* shard -> control: new sessions are under it, what it dropped is shut
                           */
    PEER_CONFIG_RELEASED, /* shard -> control: ptr = struct generation no longer used here */
    PEER_SHARD_UP,    /* shard -> control: listeners open, lanes accept; b = 0: failed, ptr = struct
                         why (malloc) */
    PEER_DRAIN,       /* control -> shard: stop accepting, finish; a = 1: force */
    PEER_SHARD_DOWN,  /* shard -> control: everything is on disk, the thread ends */
    PEER_AUTH,        /* shard -> worker: ptr = struct auth_check */
    PEER_AUTH_DONE,   /* worker -> shard: the same */
    PEER_WORKER_STOP, /* control -> worker */
    PEER_ADMIN,       /* control -> shard: ptr = struct admin_request */
    PEER_PERMIT_STATE, /* shard -> shard: a, b, c as permit_pack made them (routing/permit.h) */
    PEER_PERMIT_GRANT, /* the same, back */
    PEER_ADMIN_DONE,   /* shard -> control: the same */
    PEER_PROTOCOL      /* control -> shard: ptr = struct protocol_targets (malloc) */
};

/* What the operator asks of every shard (or of one); answered by filling `out` with JSON. */
enum admin_op {
    ADMIN_QUEUE_LIST,
    ADMIN_QUEUE_SHOW,
    ADMIN_QUEUE_SITES,
    ADMIN_QUEUE_EXPORT, /* the message's bytes in `json` */
    ADMIN_QUEUE_CHANGE, /* hold, release, retry, remove, bounce, by qid or filter */
    ADMIN_CONNECTOR,    /* suspend, resume, enable, disable: `connector`, `kind`, `state` */
    ADMIN_CONNECTORS,   /* what each connector does: `counts` */
    ADMIN_NOTHING,      /* answered when all that was posted before is done */
    ADMIN_ROUTE         /* explain: `address`, `connector` (a receive connector), `size` */
};

enum admin_change { ADMIN_HOLD, ADMIN_RELEASE, ADMIN_RETRY, ADMIN_REMOVE, ADMIN_BOUNCE };

struct filter; /* gateway/filter.h */

/* Of one connector on one shard. */
struct connector_counts {
    uint64_t sessions;                  /* receive */
    uint64_t connections, waiting;      /* send: connections open; recipients' tasks waiting */
    uint64_t delivered, deferred;       /* send: recipients, by the sites known now */
    uint64_t sites, sites_down;         /* send */
    char last_error[WHY_TEXT_MAX + 32]; /* send: of a site that is down, else of any; or "" */
};

/* Made by the control thread, filled by one shard, given back. Memory is malloc'd: this is not the
 * message path. */
struct admin_request {
    enum admin_op op;
    enum admin_change change;
    uint64_t id;                 /* which HTTP request waits */
    uint64_t qid;                /* 0: by filter */
    const struct filter *filter; /* NULL: everything; owned by the asker */
    uint32_t limit;
    char connector[128];
    enum connector_kind kind;
    enum connector_switch state;
    char address[SMTP_PATH_MAX + 1];
    uint64_t size;
    /* result */
    struct why why;                  /* smtp_code 0: done */
    uint64_t generation;             /* of the configuration that `counts` follows */
    struct connector_counts *counts; /* receive connectors, then send connectors; malloc'd */
    uint64_t decision;               /* route: the same on shards that choose alike */
    bool site_known;                 /* route: this shard has tried the next hop lately */
    uint64_t matched;                /* messages that the request met here */
    _Atomic uint64_t seen;           /* looked at so far; for others to read meanwhile */
    char *json;                      /* array elements without brackets, malloc'd, or NULL */
    size_t json_len, json_cap;
    /* the shard's own while it works */
    void *work;
    /* control thread: who gets it back */
    void (*done)(void *arg, struct admin_request *r);
    void *done_arg;
};

/* How far stopping is: the metric drain_phase. A shard has those from FINISHING on. */
enum drain_phase {
    DRAIN_NONE,
    DRAIN_ACCEPTING,    /* not ready, listeners open: drain.accept */
    DRAIN_FINISHING,    /* sessions end between messages, deliveries go on: drain.deliveries */
    DRAIN_HANDING_OVER, /* peers are given what is left */
    DRAIN_ENDING        /* what is under way ends */
};

struct gateway {
    uint32_t shard_count, worker_count;
    uint32_t control_peer, first_worker_peer, peer_count;
    struct io_group *group;
    struct ring_bytes **log_rings;      /* one a peer */
    struct ring_bytes **protocol_rings; /* one a shard; NULL: log.protocol is not set */
    struct metrics *metrics;            /* one a shard */
    uint64_t start_wall_ns;
    char instance[INSTANCE_LEN + 1]; /* of the spool; stands in Received lines */
    uint64_t segment_bytes; /* of new segments; 0: SEGMENT_BYTES_DEFAULT. Set by tests only */
    uint8_t auth_cache_key[32], ticket_key[48];
    atomic_bool draining;          /* asked to stop: takes over no mail of peers any more */
    atomic_uint shards_delivered;  /* of a drain: begin no delivery any more, need no permits */
    bool pin;                      /* threads to CPUs */
    int32_t cpus[SHARD_COUNT_MAX]; /* CPUs this process may use, in order */
    pthread_t *threads;
};

#endif
