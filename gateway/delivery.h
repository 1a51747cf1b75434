/*
 * gateway/delivery.h - composition: from a durable message to the next hop. Included by its own
 * files only.
 *
 *   job    one message with its envelope in memory, from the start of an attempt to its end
 *   task   the recipients of a job that go to one site: what one connection takes at a time
 *   site   one next hop (a send connector; for delivery: mx a connector and a domain): its
 *          hosts, their health, the tasks that wait
 *   hop    one outbound connection of a site
 *
 * delivery.c: jobs (start, route). delivery_outcome.c: what becomes of them. delivery_site.c: sites
 * and their queues. hop_connect.c, hop.c, hop_task.c, hop_io.c: connections. site_permit.c:
 * max_connections over shards. bounce.c: DSNs.
 */
#ifndef HIKYAKU_DELIVERY_H
#define HIKYAKU_DELIVERY_H

#include "gateway/shard.h"
#include "routing/mx.h"
#include "routing/permit.h"
#include "routing/route.h"
#include "routing/site.h"

enum rcpt_state {
    RCPT_PENDING,
    RCPT_IN_TASK,
    RCPT_DONE,     /* final on disk, or about to be */
    RCPT_DEFER,    /* temporary failure in this attempt */
    RCPT_RELAYED,  /* taken by a next hop without DSN although a success report was asked for */
    RCPT_FAIL,     /* permanent failure: a DSN or its suppression makes it final */
    RCPT_DEAD,     /* the same, and nobody to tell: kept for the operator */
    RCPT_UNREACHED /* no connector matches */
};

/* What became of a recipient in this attempt. */
struct job_rcpt {
    uint8_t state;
    bool expired;     /* FAIL because its time was over, with the verdict of the last attempt */
    bool failover;    /* routed to a second choice, since the first is unhealthy */
    uint32_t verdict; /* index into job->verdicts, 0: none */
};

/* Shared by the recipients that met the same fate. */
struct job_verdict {
    struct why why;   /* in the next hop's own words */
    char remote[128]; /* host [address] that said so, or "" */
};

#define JOB_VERDICTS_MAX 64 /* more different answers for one message share the last */

/* By what way a verdict came, for the log. NULL or "": not known. */
struct job_via {
    const struct shard_send *send;
    const char *remote, *tls;
    uint64_t elapsed_ns;
};

struct job {
    struct delivery *delivery;
    struct lane *lane;
    struct queue_msg *m;
    struct arena arena;
    struct envelope env;
    struct slice last_error;       /* of the attempt before this one, or empty */
    struct job_rcpt *rcpts;        /* by index into env.rcpts */
    struct job_verdict **verdicts; /* JOB_VERDICTS_MAX, NULL: none yet; most jobs have none */
    uint32_t verdict_count;
    uint32_t tasks_open;
    uint64_t durable_wall_ns;
    bool warn; /* the sender is to hear of the delay now */
    bool routing, finishing, remove_asked, hold_asked, bounce_asked;
    bool suspect;            /* counts in delivery->suspect_count */
    struct list link;        /* delivery->jobs */
    struct handoff *handoff; /* in the arena: to be given to a peer, no delivery */
    struct lane_envelope_read read;
    struct bounce *bounce;
};

struct task {
    struct job *job;
    struct site *site;
    struct list link; /* site->tasks while it waits */
    struct hop *hop;  /* the connection that works on it */
    bool failover;    /* goes back to its first choice when one recovers (E36) */
    uint32_t rcpt_count;
    uint32_t *rcpts; /* indexes into job->env.rcpts */
    struct smtp_out_rcpt *out_rcpts;
    struct smtp_out_tx tx;
};

enum site_dns { SITE_DNS_NONE, SITE_DNS_ASKED, SITE_DNS_KNOWN };

struct site {
    struct delivery *delivery;
    struct shard_config *config;
    struct shard_send *send;
    uint32_t connector;
    char domain[256]; /* "" for smart hosts */
    struct list link; /* delivery->sites */
    struct site *hash_next, *key_next;
    struct permit_borrower
        permit; /* connections it may have open, of all shards' max_connections */
    struct timer permit_timer;
    struct list tasks;
    uint32_t depth;              /* tasks waiting */
    struct list idle, hops;      /* idle: connections that wait for a task */
    uint32_t hop_count, opening; /* opening: not ready for a task yet */
    struct site_hosts hosts;
    char *host_names[SITE_HOSTS_MAX]; /* config's, or mx.hosts */
    uint16_t host_ports[SITE_HOSTS_MAX];
    struct mx_list *mx;
    enum site_dns dns;
    uint32_t hosts_version; /* grows when the hosts are replaced */
    uint32_t in_clear; /* hosts (bits) whose TLS failed: opportunistic delivery does without for a
                          while */
    uint64_t in_clear_until_ns;
    uint64_t dns_expires_ns;
    struct dns_query query;
    struct timer timer; /* look again at the tasks */
    bool was_unhealthy;
    struct why last_error;
    char last_remote[128];
    uint64_t route_pass; /* of delivery->route_pass: a job being routed has recipients for it... */
    uint32_t route_last; /* ...this one is the last so far */
    uint64_t retry_ns, used_ns;
    uint64_t delivered, deferred;
};

/* What a connection waits to see noted on disk. */
enum hop_noting { HOP_NOTE_NONE, HOP_NOTE_BEGIN, HOP_NOTE_DOT, HOP_NOTE_GIVEN };

enum hop_state { HOP_RESOLVE, HOP_CONNECT, HOP_TLS, HOP_SMTP, HOP_CLOSING };

struct hop {
    uint32_t magic;
    struct site *site;
    enum hop_state state;
    uint32_t host;
    char name[256]; /* the host's: the site's list may be replaced meanwhile */
    uint16_t port;
    struct list link, idle_link, reap_link, run_link;
    int32_t fd;
    struct io_addr addrs[DNS_ADDR_MAX];
    uint32_t addr_count, addr_next;
    struct dns_query query;
    bool query_running, reported, ready, in_run, quitting, reaping, lost;
    /* A failure that waits for a read of the body to end: the message must live until then. */
    bool failing, fail_down, fail_data_sent;
    struct why fail_why;
    bool in_clear;          /* opportunistic TLS failed here before: this connection does without */
    uint32_t hosts_version; /* of site->hosts when it was opened */
    struct io_op connect, recv, send;
    struct timer timer; /* set to deadline_ns, or to before it */
    uint64_t deadline_ns;
    struct tls_conn *tls;
    struct smtp_out smtp;
    struct smtp_out_config smtp_config;
    struct task *task;
    struct task *ahead; /* the next one: its commands went out behind the final dot */
    struct lane_wait noted;
    uint8_t noting; /* enum hop_noting */
    bool dot_noted; /* of this task: its final dot may go out */
    uint32_t messages;
    uint32_t rcpts_taken;           /* recipients accepted in this transaction */
    uint64_t task_start_ns, dot_ns; /* dot_ns: when the last final dot went out */
    bool quick;                     /* the last final dot was answered within OUT_AHEAD_NS */
    /* input */
    struct held held;
    bool eof;
    uint8_t *plain; /* decrypted but not consumed, NULL: none */
    uint32_t plain_off, plain_len;
    /* output */
    uint8_t *out;
    uint32_t out_sent, out_len, out_in_flight;
    /* body */
    bool sending_body;
    struct lane_read read;
    bool read_running;
    uint8_t *body;
    uint32_t body_off, body_len;
    uint64_t body_read;  /* bytes of the message read so far */
    struct slice text;   /* goes before the message: of a hand-off */
    char remote[128];    /* "host [address]" for logs and DSNs */
    struct watch *watch; /* for the protocol log, NULL: none */
};

#define HOP_MAGIC    0x40d0be11u
#define SITE_BUCKETS 4096u

struct delivery {
    struct shard *shard;
    struct list jobs;
    uint32_t job_count, read_count; /* read_count: jobs whose envelope is being read */
    uint64_t route_pass;            /* jobs routed so far */
    struct list sites;
    uint32_t site_count;
    struct site *site_hash[SITE_BUCKETS], *site_keys[SITE_BUCKETS];
    struct home *homes[SITE_BUCKETS]; /* gateway/site_permit.c */
    uint32_t home_count;
    struct slab job_slab, task_slab, site_slab, hop_slab, wire_slab, body_slab, mx_slab;
    struct backlog *backlog;  /* queue ids that wait for a job */
    struct backlog *suspects; /* those whose next crash would set them aside */
    uint32_t suspect_count;   /* with a job */
    struct list reap;         /* hops to be freed at the end of the turn */
    struct list run_queue;    /* hops to be run after the one that runs: runs never nest */
    bool run_active;
    struct timer reroute; /* goes through the messages without a route */
    uint32_t reroute_lane;
    uint64_t reroute_cursor;
    bool draining, refill, failback; /* failback: a next hop recovered */
    struct {
        bool on, over; /* on: draining, but for peers */
        uint64_t until_ns, next_pass_ns;
        uint32_t lane, idle_passes;
        uint64_t cursor, pass, given;      /* given: in this pass */
        uint32_t active;                   /* jobs */
        uint64_t sweep_due, sweep_running; /* bits: peers to be asked what they have prepared */
        uint64_t sweep_ns;                 /* not before */
        bool sweep_asked, met;             /* once at least; in this drain */
        bool ask;                          /* who is who is not known well enough */
        char instances[HANDOFF_PEERS_MAX][INSTANCE_LEN + 1]; /* by place in handoff.peers */
        uint32_t commit_lane; /* where those of an earlier life are looked for */
        uint64_t commit_cursor;
    } handoff;
    uint32_t hop_count;
    uint64_t hop_serial; /* of those that were logged */
};

/* What is counted for the site's connector. */
static inline struct send_series *site_series(const struct site *s)
{
    return &s->delivery->shard->metrics->send[s->send->conf->series];
}

/* delivery.c */
/* For route_choose: has the operator disabled it? */
bool delivery_connector_disabled(void *arg, uint32_t connector);
/* Starts what was asked for, if there is room for a job. */
void job_task_done(struct task *t);
/* Notes what became of a recipient; `via` may be NULL. Final states go to disk at once. */
void job_rcpt_done(struct job *j, uint32_t rcpt, enum rcpt_state state, const struct why *why,
                   const struct job_via *via);
/* A recipient just DONE wants a success report, and the next hop gives none. */
void job_rcpt_relayed(struct job *j, uint32_t rcpt, const struct why *why, const char *remote);
void job_finish(struct job *j);
/* The attempt is over and written down: memory goes back. */
void job_end(struct job *j);
/* What is left after DSNs: wait for the next attempt, for a route, or for the operator. Ends the
 * job. */
void job_settle(struct job *j);
/* Recipients of this state of this attempt become final on disk. j->m is NULL afterwards when they
 * were the last. */
void job_final(struct job *j, enum rcpt_state state, enum rcpt_final_how how);
/* The same for a list of recipients. */
void job_final_rcpts(struct job *j, const uint32_t *rcpts, uint32_t count, enum rcpt_final_how how);
bool job_has(const struct job *j, enum rcpt_state state);
/* A failed recipient becomes a dead letter. False: there are too many of them already. */
bool job_set_aside(struct job *j, uint32_t rcpt) __attribute__((warn_unused_result));
/* The site that takes this recipient; NULL: it has its verdict. */
struct site *job_route_rcpt(struct job *j, uint32_t rcpt);

/* A job for `m`, which nobody owns. NULL: no memory. */
struct job *job_create(struct delivery *d, struct lane *l, struct queue_msg *m);

/* handoff.c */
/* The task's transaction: what it says and sends. */
bool handoff_prepare(struct task *t);
/* Its state as text, which goes before the message. */
struct slice handoff_text(const struct job *j);
/* Its reply, but where the job goes on with the same connection: then false. */
bool handoff_replied(struct hop *h, const struct why *why) __attribute__((warn_unused_result));
/* That it is given is durable: says so to the peer. */
void handoff_go_on(struct hop *h);
/* Its task ended, in whatever way. */
void handoff_task_done(struct job *j);
/* Once a second: confirms what an earlier life gave away. */
void handoff_tick(struct delivery *d);
/* For the end of a turn: more messages are offered as others are done. */
void handoff_more(struct delivery *d);
uint64_t handoff_left(const struct delivery *d);
/* handoff_sweep.c: takes back what peers have prepared for us and nobody gives them any more. */
struct job *job_create_bare(struct delivery *d);
void handoff_sweep(struct delivery *d);
bool handoff_sweep_prepare(struct task *t);
bool handoff_sweep_replied(struct hop *h, const struct why *why)
    __attribute__((warn_unused_result));
void handoff_sweep_done(struct job *j);
/* Does this site take tasks no more, because the gateway stops? */
bool site_is_drained(const struct site *s);

/* delivery_route.c */
/* Routes every recipient that is PENDING again, for instance because a site became unhealthy. */
void job_route(struct job *j);

/* delivery_site.c */
struct site *site_get(struct delivery *d, struct shard_config *c, uint32_t connector,
                      struct slice domain);
/* The one that is there, or NULL. */
struct site *site_find(struct delivery *d, struct shard_config *c, uint32_t connector,
                       struct slice domain);
bool site_enqueue(struct site *s, struct job *j, const uint32_t *rcpts, uint32_t count);
void site_pump(struct site *s);
/* For route_choose: are all its hosts down? */
bool site_unhealthy(void *arg, uint32_t connector, struct slice domain);
/* For people: all its hosts failed and none has greeted since, be a pause over or not (site-down in
 * the log, until site-up). */
bool site_is_down(const struct site *s);
void site_note_error(struct site *s, const struct why *why, const char *remote);
/* Mail for this site's domain can never be delivered: every waiting task fails. */
void site_give_up(struct site *s, const struct why *why);
/* A host of delivery: mx is ourselves: it and what is no better is left out from now on (FAULTS
 * 74). When nobody is left every waiting task fails, and *why says so. */
void site_drop_self(struct site *s, uint32_t host, struct why *why);
/* Takes a waiting task for a connection that is ready; NULL: none. */
struct task *site_next_task(struct site *s);
/* The one that it would be, left where it is. */
struct task *site_first_task(const struct site *s);
/* Takes no more tasks: its configuration was replaced, or its connector suspended. */
bool site_is_over(const struct site *s);
/* A task whose connection failed before anything of it can have arrived goes back to the front, or
 * to routing when the site is over. */
void site_task_back(struct task *t);
/* Unused sites go; called once in a while. */
void sites_sweep(struct delivery *d);
/* A next hop recovered: mail that waits for a second choice is routed again. */
void sites_failback(struct delivery *d);
void sites_drain(struct delivery *d, bool force);
void sites_config_changed(struct delivery *d);
void sites_destroy(struct delivery *d);

/* site_permit.c */
uint64_t site_key(const struct shard_config *c, uint32_t connector, struct slice domain);
void site_permit_init(struct site *s);
void site_permit_end(struct site *s);
/* Says to the site's home what changed; call after every change of s->permit. */
void site_permit_poll(struct site *s);
void homes_sweep(struct delivery *d, bool all);

/* hop_watch.c */
/* A connection that is to `peer` (NULL: not known yet): is it to be logged? */
void hop_watch_begin(struct hop *h, const struct io_addr *peer);
/* Bytes of the dialog or of a body, sent or read. */
void hop_watch_bytes(struct hop *h, bool sent, struct slice bytes);

/* hop_connect.c, hop.c, hop_task.c */
/* Opens a connection to a host of the site. False: no memory. */
bool hop_open(struct site *s, uint32_t host);
/* The time of its phase is over. */
void hop_timer_fired(struct timer *t);
void hop_take(struct hop *h, struct task *t);
/* Says what the task's transaction says. */
void hop_begin(struct hop *h);
/* The final dot went out: the next task's commands follow it, where that may be. */
void hop_dot_sent(struct hop *h);
/* Goes on when what was said to the lane is durable. */
void hop_note(struct hop *h, enum hop_noting what);
void hop_quit(struct hop *h);
/* The attempt of its task is noted, or begins to be; true: its final dot may be sent now. */
bool hop_note_dot(struct hop *h);
/* At once; its task must be gone. */
void hop_close(struct hop *h);
void hop_op_ended(struct hop *h);
void hop_touch(struct hop *h);
void hops_reap(struct delivery *d);
/* The connection is of no use any more: reports health, gives its task its verdict. */
void hop_failed(struct hop *h, const struct why *why, bool host_is_down, bool data_sent);
void hop_set_state(struct hop *h, enum hop_state state);
void hop_event(struct hop *h, struct smtp_out_event *ev);

/* hop_io.c */
void hop_io_init(struct hop *h);
void hop_io_connected(struct hop *h);
void hop_run(struct hop *h);
void hop_flush(struct hop *h);
void hop_tls_begin(struct hop *h);
void hop_handshake(struct hop *h);
void hop_send_quit(struct hop *h);
/* The commands of the next transaction, into the same send as the final dot. False: they wait. */
bool hop_send_ahead(struct hop *h, const struct smtp_out_tx *tx)
    __attribute__((warn_unused_result));
void hop_body_begin(struct hop *h);
void hop_io_free(struct hop *h);
bool hop_io_busy(const struct hop *h);

/* bounce.c */
/* Makes the DSN that the job's failed recipients call for (or notes its suppression), then job_end.
 */
void bounce_start(struct job *j);

static inline struct io *hop_io(const struct hop *h)
{
    return h->site->delivery->shard->io;
}

/* delivery_outcome.c: the way that was chosen for a recipient. */
void job_log_routed(struct job *j, uint32_t rcpt, const struct site *s,
                    const struct route_answer *a);
/* delivery.c: a job has ended; one that waits may have its place. */
void delivery_wants_refill(struct delivery *d);

#endif
