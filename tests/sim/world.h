/*
 * tests/sim/world.h - one simulated run of the whole gateway: its shards, scripted clients and next
 * hops, an operator, disasters, and the books that every message is held against.
 *
 * Everything follows from one seed. Included by the files of tests/sim/ that make up the run; the
 * world below it (clock, network, disks) is tests/sim/sim.h. tests/sim/README.md tells the whole.
 */
#ifndef HIKYAKU_TESTS_SIM_WORLD_H
#define HIKYAKU_TESTS_SIM_WORLD_H

#include "gateway/auth_worker.h"
#include "gateway/base/list.h"
#include "gateway/base/prng.h"
#include "gateway/shard.h"
#include "tests/sim/sim.h"

#define WORLD_HOSTS_MAX   4u  /* machines that take mail */
#define WORLD_DOMAINS     8u  /* d0.test .. d7.test, see world_domain_kind */
#define WORLD_RCPTS_MAX   40u /* of one message */
#define WORLD_SHARDS_MAX  4u
#define WORLD_SENDER_HOST "sender.test"

struct world;

/* ---- what this seed is about (swarm.c) ---- */

/* Chances per mille, unless said otherwise. */
struct swarm {
    uint32_t shards, hosts;
    uint32_t sessions; /* of clients, in all */
    uint64_t chaos_ns; /* how long disasters may happen */
    uint64_t segment_bytes;
    bool buffered; /* spool.write */
    uint32_t max_connections, messages_per_connection, rcpts_per_message;
    uint32_t max_recipients;
    uint64_t message_size_max;
    uint64_t disk_bytes; /* 0: as much as wanted */
    uint32_t expire_s, warn_after_s;
    struct {
        uint32_t messages_max, rcpts_max, size_class;
        uint16_t pipelining, size_param, notify, null_sender, abort, slow, smuggle, extra, rset,
            too_many, oversize, helo, no_quit, late_quit, wrong, doomed, auth;
    } client;
    struct {
        uint16_t no_pipelining, no_dsn, no_size, r4xx, r5xx, r421, close, vanish, late, split, junk,
            multi, early;
    } hop;
    struct {
        uint16_t servfail, silent, nxdomain, bogus, null_mx;
    } dns;
    uint32_t kills, cuts, stops, reloads, jumps, outages, operations, single_faults;
    bool no_direct, in_place; /* what the file system can */
    bool junk;                /* a segment that nobody can read is there from the start */
    bool bulk; /* much mail of some size, some of it held: segments fill, die and are emptied */
    struct sim_faults disk_and_net; /* of the gateway's machine */
    struct sim_faults peers;        /* of the others */
};
void swarm_draw(struct swarm *s, struct prng *p);
void swarm_print(const struct swarm *s, FILE *out);

/* ---- the books (ledger.c) ---- */

enum msg_fate {
    MSG_SENDING,    /* the end of data was not sent */
    MSG_UNKNOWN,    /* it was sent whole; the answer was not seen */
    MSG_ACKED,      /* 250: it is the gateway's now */
    MSG_REFUSED,    /* refused for good: nobody may ever see it */
    MSG_TURNED_AWAY /* 4xx at its end; may only turn up where a crash lies between */
};

enum rcpt_kind {
    RK_NORMAL,
    RK_GONE, /* every next hop says 550 at RCPT */
    RK_SPAM, /* 554 after the data, for the whole transaction */
    RK_ROUTE /* no next hop at all: NXDOMAIN */
};

/* One recipient of one message. */
struct rcpt {
    bool offered; /* RCPT was answered 250 */
    uint8_t domain, kind, notify;
    uint8_t taken;       /* times a next hop said 250 to a message with it */
    bool taken_open;     /* of the last one: the gateway has not been seen to know it */
    bool taken_followed; /* the same connection went on after our 250: it was read */
    bool logged;         /* the gateway says delivered, maybe not on disk yet */
    bool settled;        /* its end is on disk */
    bool failed;         /* the gateway said failed or expired, at least once */
    bool bounced;        /* a report of its failure arrived */
    uint64_t report;     /* which one */
    uint64_t taken_ns;
    uint32_t taken_epoch; /* process of the gateway at the last one */
};

struct msg {
    uint32_t id;
    enum msg_fate fate;
    uint32_t epoch; /* process of the gateway that answered its end */
    bool null_sender, eight_bit;
    bool end_sent;  /* the last byte of its end left the client */
    bool seen;      /* some next hop got a part of it: it was accepted */
    bool removed;   /* by the operator, and that is on disk */
    bool unwritten; /* the process that stops said that the disk does not have its last changes */
    bool removed_maybe; /* asked for, and the process died before it was known to be */
    bool report_over;   /* its report could not be delivered, or was removed */
    uint8_t sender_domain;
    uint64_t qid;       /* 0: not known */
    uint32_t size, crc; /* of what the client sent, dots undone */
    uint32_t rcpt_count;
    struct rcpt *rcpts;
    uint64_t acked_ns;
};

struct msg *ledger_msg_new(struct world *w, uint32_t rcpt_count);
struct msg *ledger_msg(struct world *w, uint32_t id);
/* Of "r12.3@...": NULL when there is none. */
struct rcpt *ledger_rcpt(struct world *w, struct slice mailbox, struct msg **msg);
/* The gateway said that it accepted a message of this id, or made a report of it. */
bool ledger_knows(const struct world *w, uint64_t qid);
/* A line of the gateway's log. */
void ledger_log(struct world *w, uint32_t shard, struct slice line);
/* What this shard wrote so far is on disk. False: something it told of is not written yet. */
bool ledger_settle(struct world *w, uint32_t shard);
/* The gateway's process ended without a drain. */
void ledger_crash(struct world *w);
/*
 * A next hop was asked to take this recipient, by this process of the gateway: what one said that
 * died may arrive late, and so (`left`) may what was said on a connection that it has ended, or
 * with the end of the message before.
 */
void ledger_rcpt_asked(struct world *w, uint32_t epoch, bool left, struct msg *m, struct rcpt *r);
/* It took the message for it. */
void ledger_taken(struct world *w, uint32_t epoch, struct msg *m, struct rcpt *r);
/* The connection went on behind that. */
void ledger_followed(struct world *w, struct msg *m, struct rcpt *r);
/* A whole message at its dot, before it is answered. `text`: as received, dots undone. False: it is
 * a report. */
bool ledger_body(struct world *w, const struct msg *m, struct slice text);
/* A report (DSN) was taken. */
void ledger_report(struct world *w, uint32_t about, struct slice text);
/* At the end: every promise kept? */
void ledger_final(struct world *w);
/* The address of recipient `i`. */
void ledger_address(const struct msg *m, uint32_t i, char out[64]);
/* The bytes that a client sends for `m` (without dots doubled), malloc'd. Sets size and crc. */
uint8_t *ledger_text(struct world *w, struct msg *m, uint32_t size, bool smuggle);

/* ---- connections of scripted peers (peer.c) ---- */

struct machine { /* one that runs scripted peers */
    struct world *w;
    struct sim_host *host;
    struct io *io;
    struct io_acceptor acceptor;
    struct io_addr addr;
    uint32_t number;
    bool down;
};

/* One connection. Owners embed it and give the callbacks. */
struct peer {
    struct machine *machine;
    int32_t fd;
    struct io_op connect, recv, send;
    struct timer timer;
    uint8_t *in, *out, *sending;
    uint32_t in_len, in_cap, out_len, out_cap, sending_len;
    uint64_t sent;      /* bytes handed over */
    uint64_t cut_after; /* the connection is dropped when so many are sent; 0: never */
    uint32_t piece_max; /* bytes a send; 0: all */
    uint64_t pause_ns;  /* between pieces */
    bool *mark;         /* set when `mark_at` bytes are handed over */
    uint64_t mark_at;
    bool paused, eof, closing, shut;
    struct timer pause;
    void (*on_input)(struct peer *p);             /* p->in has more */
    void (*on_open)(struct peer *p, int32_t res); /* of peer_connect */
    void (*on_end)(struct peer *p, int32_t res);  /* the other side closed, or an error */
    void (*on_freed)(struct peer *p);             /* nothing runs any more */
};

void dns_sim_world(struct world *w);
void machine_start(struct world *w, struct machine *m, const char *name, const char *address);
void peer_init(struct peer *p, struct machine *m);
void peer_connect(struct peer *p, const struct io_addr *to);
void peer_attach(struct peer *p, int32_t fd);
void peer_send(struct peer *p, const void *data, uint32_t len);
void peer_sendf(struct peer *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void peer_consume(struct peer *p, uint32_t len);
/* Now, whatever is left to be sent. on_freed comes later. */
void peer_drop(struct peer *p);
bool peer_idle(const struct peer *p);

/* ---- clients (client.c), next hops (nexthop.c), names (dns_sim.c) ---- */

void client_start(struct world *w, struct machine *m);
/* No more patience: all that are left give up. */
void clients_hurry(struct world *w);
void nexthop_start(struct world *w, struct machine *m);
void nexthop_stop(struct world *w, struct machine *m);
/* A domain's hosts, for dns_sim.c. */
enum domain_kind { DOMAIN_MX, DOMAIN_SMART, DOMAIN_NONE };
enum domain_kind world_domain_kind(uint32_t domain);
void world_domain_name(uint32_t domain, char out[32]);

/* ---- the gateway (gateway.c) ---- */

struct simgw {
    struct world *w;
    struct sim_host *host;
    bool running, draining;
    uint32_t epoch; /* grows with every process */
    struct gateway gw;
    struct io *io; /* control's */
    struct generation *current, *next;
    uint32_t answers, refusals, shards_up, shards_down;
    bool failed; /* could not start */
    struct shard_start starts[WORLD_SHARDS_MAX];
    struct shard *shards[WORLD_SHARDS_MAX];
    struct auth_worker *workers[AUTH_WORKERS];
    struct auth_worker_start worker_starts[AUTH_WORKERS];
    bool dirty[WORLD_SHARDS_MAX]; /* something was told that is not known to be on disk */
    uint64_t generations;
    int lock;
    uint32_t asks;
};

bool gateway_start(struct world *w, uint32_t shards);
/* After every step: rings of lines emptied, shards that stopped freed. */
void gateway_look(struct world *w);
void gateway_died(struct world *w);
void gateway_kill(struct world *w);
void gateway_cut(struct world *w);
void gateway_drain(struct world *w);
void gateway_reload(struct world *w);
/* An operator's order; qid 0: for every message. */
void gateway_order(struct world *w, enum admin_change change, uint64_t qid);
/* A lane is being written to. */
bool gateway_writes(const struct world *w);
bool gateway_up(const struct world *w);
uint64_t gateway_queued(const struct world *w);
uint64_t gateway_held(const struct world *w);
/* The operator removes what lies in the poison queue and was never accepted. */
void gateway_remove_stray(struct world *w);
/* Nothing that sessions and deliveries use is still in use. */
void gateway_check_empty(struct world *w);
/* Sessions or outbound connections. */
bool gateway_busy(const struct world *w);
/* Limits that hold over all shards. */
void gateway_check_limits(struct world *w);
bool gateway_has(const struct world *w, uint64_t qid);
/* Is this recipient (counted among those accepted) over, as the spool's index has it? */
bool gateway_is_final(const struct world *w, uint64_t qid, uint32_t rcpt);

/* ---- the world (world.c) ---- */

struct world_stats {
    uint64_t seeds, steps, virtual_ns, cpu_ns;
    uint64_t sessions, messages, acked, refused, unknown, rcpts, delivered, bounced, removed;
    uint64_t dup_lost_reply, dup_crash, starts, start_failed, kills, cuts, drains, reloads, orders;
    uint64_t expired, suppressed, fullness;
};

struct world {
    uint64_t seed;
    bool bare; /* no I/O of the gateway fails, but for what is asked for next */
    struct sim_fail_at fail_at[2];
    struct sim *sim;
    struct swarm swarm;
    struct prng plan, clients, hops, names, chaos;
    struct machine client_machine, operator_machine, hop_machines[WORLD_HOSTS_MAX];
    struct simgw gateway;
    struct timer wake;
    bool calm, over;
    enum crash { CRASH_NONE, CRASH_KILL, CRASH_CUT } armed; /* at the next write of the spool */
    bool failed;
    char why[1024];
    FILE *trace;
    bool trace_steps;
    struct msg **msgs;
    uint32_t msg_count, msg_cap;
    struct list client_list, hop_list;
    uint32_t clients_open;
    struct world_stats stats;
    struct removal {
        uint64_t qid;
        bool answered;
    } * removals;
    uint32_t removal_count, removal_cap;
    struct report_id {
        uint64_t qid;
        uint32_t about;
    } * reports;
    uint32_t report_count, report_cap;
};

/* Runs the seed to its end. False: w->why. */
bool world_run(struct world *w);
void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void world_trace(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define TRACE(w, ...)                    \
    do {                                 \
        if ((w)->trace)                  \
            world_trace(w, __VA_ARGS__); \
    } while (0)
/* True with a chance of `per_mille`; never while it is calm. */
bool world_chance(struct world *w, struct prng *p, uint32_t per_mille);

#endif
