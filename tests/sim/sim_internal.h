/*
 * tests/sim/sim_internal.h - what the files of the simulated backend share. Only they, and tests of
 * the simulator itself, include it.
 *
 * The way of an operation: io_*() takes a struct sim_call for it and sets its timer; when that
 * fires (an event of the world) the operation has its effect, and its result goes into the queue of
 * its io; a turn of that io takes it from there and calls `done`. So no effect and no `done` ever
 * happens inside a call, and the order of everything is the order of the events.
 */
#ifndef HIKYAKU_TESTS_SIM_SIM_INTERNAL_H
#define HIKYAKU_TESTS_SIM_SIM_INTERNAL_H

#include "gateway/base/list.h"
#include "gateway/base/prng.h"
#include "gateway/base/slab.h"
#include "gateway/base/timer.h"
#include "gateway/limits.h"
#include "tests/sim/sim.h"

#define SIM_PAGE       4096u
#define SIM_SECTOR     512u
#define SIM_SITES      1024u /* a power of two; more places than that start operations: abort */
#define SIM_FAIL_SLOTS 24u
#define SIM_FAIL_AT    2u
#define SIM_NEVER      UINT64_MAX

/* Says what its user did wrong, and aborts. */
#define SIM_CHECK(ok, ...)           \
    do {                             \
        if (!(ok))                   \
            sim_broken(__VA_ARGS__); \
    } while (0)
void sim_broken(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- disk ---- */

struct sim_page {
    uint32_t refs;
    struct sim_page *next_free;
    _Alignas(64) uint8_t data[SIM_PAGE];
};

/* What a page of a file is now, and what a power cut would leave of it; NULL: zeros. */
struct sim_slot {
    struct sim_page *cache, *durable;
    uint64_t seq;   /* of the last write */
    uint8_t dirty;  /* a bit a sector: differs, and the next sync makes it durable */
    bool lost;      /* some sectors differ that no sync will write */
    bool allocated; /* counts as used */
    bool listed;    /* in dirty_pages */
};

struct sim_dentry {
    char *name;
    uint32_t hash;
    struct sim_inode *now, *durable;
};

struct sim_inode {
    uint32_t index; /* in disk->inodes */
    uint32_t refs;  /* names, durable names, changes, descriptors */
    bool is_dir;
    /* a file */
    uint64_t size, durable_size, size_seq;
    bool size_lost;
    struct sim_slot *slots;
    uint32_t slot_count;
    uint32_t *dirty_pages, dirty_count, dirty_cap;
    uint32_t syncing;  /* syncs under way */
    uint64_t sync_seq; /* of the newest of them */
    uint64_t used_pages;
    /* a directory */
    struct sim_dentry *entries;
    uint32_t entry_count, entry_cap;
    struct sim_inode *parent; /* the root's: itself */
};

/* A change of names: `node` gets name `to` in `to_dir` (or none), and loses `from` in `from_dir`.
 */
struct sim_change {
    uint64_t seq;
    struct sim_inode *node, *from_dir, *to_dir; /* a dir may be NULL */
    char *from, *to;
    bool from_synced, to_synced, lost;
};

struct sim_disk {
    struct sim *sim;
    uint64_t bytes_max, inodes_max, bytes_used, seq;
    uint32_t sector;
    struct sim_inode **inodes; /* [0] is the root */
    uint32_t inode_count, inode_cap;
    struct sim_change *changes;
    uint32_t change_count, change_cap;
};

/* sim_disk.c: files */
struct sim_disk *sim_disk_create(struct sim *sim);
struct sim_disk *sim_disk_copy(const struct sim_disk *from);
struct sim_inode *sim_inode_create(struct sim_disk *d, bool is_dir);
void sim_inode_put(struct sim_disk *d, struct sim_inode *node);
uint32_t sim_inode_read(const struct sim_inode *node, void *buf, uint32_t len, uint64_t offset);
/* Bytes written (fewer when the disk is full), or -ENOSPC. */
int32_t sim_inode_write(struct sim_disk *d, struct sim_inode *node, const void *buf, uint32_t len,
                        uint64_t offset);
int32_t sim_inode_allocate(struct sim_disk *d, struct sim_inode *node, uint64_t offset,
                           uint64_t len);
void sim_inode_truncate(struct sim_disk *d, struct sim_inode *node);
/* What was written up to `seq` is durable; the size becomes `size`. */
void sim_inode_commit(struct sim_disk *d, struct sim_inode *node, uint64_t seq, uint64_t size);
/* The sync failed: what it covered is durable, or never will be. */
void sim_inode_lose(struct sim_disk *d, struct sim_inode *node, uint64_t seq, struct prng *prng);
void sim_slot_revert(struct sim_disk *d, struct sim_slot *s);
void sim_slot_settle(struct sim_disk *d, struct sim_slot *s, uint8_t sectors);
struct sim_page *sim_page_own(struct sim_disk *d, struct sim_page **page);
void sim_page_put(struct sim *sim, struct sim_page *p);

/* sim_dir.c: names. 0 or -errno; `node` NULL where there is none. */
int32_t sim_dir_find(struct sim_disk *d, const char *path, struct sim_inode **dir,
                     const char **name, struct sim_inode **node);
struct sim_dentry *sim_dir_entry(struct sim_inode *dir, const char *name);
void sim_dir_link(struct sim_disk *d, struct sim_inode *dir, const char *name,
                  struct sim_inode *node);
void sim_dir_unlink(struct sim_disk *d, struct sim_inode *dir, const char *name);
void sim_dir_rename(struct sim_disk *d, struct sim_inode *from_dir, const char *from,
                    struct sim_inode *to_dir, const char *to);
void sim_dir_commit(struct sim_disk *d, struct sim_inode *dir, uint64_t seq);
void sim_dir_lose(struct sim_disk *d, struct sim_inode *dir, uint64_t seq, struct prng *prng);
/* Applies change i to what is durable; the list is emptied by the caller. */
void sim_change_apply(struct sim_disk *d, struct sim_change *c);
void sim_change_free(struct sim_disk *d, struct sim_change *c);

/* sim_cut.c */
enum sim_fate { SIM_DROP, SIM_KEEP, SIM_TEAR };
struct sim_cut {
    enum sim_fate (*fate)(void *arg, uint32_t thing);
    void *arg;
    struct prng *prng;
};
void sim_disk_cut(struct sim_disk *d, const struct sim_cut *cut);
uint32_t sim_disk_unsynced(const struct sim_disk *d);

/* ---- network ---- */

enum sim_packet_kind { SIM_PACKET_DATA, SIM_PACKET_FIN, SIM_PACKET_RST };
struct sim_packet {
    struct sim_packet *next;
    uint64_t at;
    uint32_t len, used;
    uint8_t kind;
    uint8_t data[];
};

struct sim_sock {
    struct sim *sim;
    struct sim_host *host;
    struct io *io; /* NULL: not accepted yet */
    int32_t fd;
    struct sim_sock *peer; /* NULL: the other end is closed */
    struct io_addr local, remote;
    /* what comes in */
    struct sim_packet *flight, **flight_last, *here, **here_last;
    uint32_t queued; /* bytes of both */
    uint32_t window;
    uint64_t last_at;
    struct timer arrive;
    struct timer give_up; /* nobody answers any more */
    bool fin_in, fin_out, broken, silent, told, recv_part;
    int32_t error; /* to be told once */
    struct sim_call *recv, *send;
    struct list parked;  /* of the io: no buffer */
    struct list waiting; /* of the listener: not accepted yet */
};

struct sim_listener {
    struct io *io;
    struct sim_host *host;
    int32_t fd;
    struct io_addr addr;
    bool reuse_port;
    int backlog;
    uint32_t waiting_count;
    struct list waiting; /* sockets */
    struct list accepts; /* calls */
    struct list link;    /* of the world */
};

/* ---- operations ---- */

enum sim_fd_kind { SIM_FD_NONE, SIM_FD_FILE, SIM_FD_SOCK, SIM_FD_LISTENER, SIM_FD_OPENING };

struct sim_fd {
    uint8_t kind;
    bool closing;
    uint16_t generation;
    uint32_t busy; /* operations that name it */
    uint32_t open_flags;
    union {
        struct sim_inode *node;
        struct sim_sock *sock;
        struct sim_listener *listener;
        uint32_t next_free;
    };
};
#define SIM_FD_SLOT_BITS   17
#define SIM_FD_SLOTS       (1u << SIM_FD_SLOT_BITS)
#define SIM_FD_GENERATIONS (1u << (31 - SIM_FD_SLOT_BITS))

enum sim_state { SIM_IDLE, SIM_RUNNING };

/* Bits of io_op.flags. */
#define SIM_CANCELLED 1u

struct sim_call {
    struct timer timer;
    struct io_op *op;
    struct io *io;
    struct sim_site *site;
    struct list link;           /* all of the io */
    struct list wait;           /* accepts of a listener */
    uint8_t kind, phase, asked; /* the fault that was asked for at its place */
    bool effect;                /* it had its effect: too late to cancel */
    bool part;                  /* a send: in pieces */
    bool last;                  /* a send: the end of our side follows */
    bool ended;                 /* its last result is in the queue */
    int32_t fd, res;
    uint32_t open_flags, len, sent, sum;
    uint64_t offset, seq, size;
    void *buf;
    const char *path, *path2;
    struct sim_sock *sock;
    struct io_addr to, from;
};

struct sim_result {
    struct sim_call *call;
    const uint8_t *data;
    int32_t res;
    uint32_t flags;
    uint16_t buf_id;
};

enum sim_buf_state { SIM_BUF_FREE, SIM_BUF_FILLED, SIM_BUF_HELD };
struct sim_buf {
    uint32_t len;
    uint8_t state;
};

struct sim_fail {
    uint8_t kind, fault;
    uint32_t skip;
};

struct sim_lock {
    char *path;
    int id;
    struct list link;
};

struct sim_host {
    struct sim *sim;
    char *name;
    struct io_addr *addrs;
    uint32_t addr_count;
    uint16_t next_port;
    int64_t wall_offset_ns;
    struct sim_disk *disk;
    struct sim_faults faults;
    struct sim_fail fails[SIM_FAIL_SLOTS];
    uint32_t fail_count;
    struct sim_fail_at fail_at[SIM_FAIL_AT];
    uint32_t fail_at_count, fail_at_hits;
    bool no_direct, in_place;
    uint32_t fd_limit; /* 0: SIM_FD_SLOTS */
    uint64_t disk_ops, stop_before;
    void (*look)(void *arg, uint64_t n);
    void *look_arg;
    bool stopped, net_down;
    struct list ios, locks, link;
    int next_lock;
};

struct io {
    struct sim *sim;
    struct sim_host *host;
    struct list link; /* of the host */
    uint32_t number;
    uint64_t now_ns, wall_ns, busy_until;
    struct timer alarm;
    uint32_t ready_at; /* place in sim->ready + 1; 0: not in it */
    bool in_turn;
    struct timer_heap timers;
    struct io_stats stats;
    struct list calls;
    uint32_t running;

    struct sim_result *results;
    uint32_t result_head, result_tail, result_mask;

    struct sim_fd *fds;
    uint32_t fd_count, fd_cap, fd_used, fd_limit, fd_free; /* fd_free: slot + 1 */

    uint8_t *bufs;
    struct sim_buf *buf_states;
    uint16_t *buf_stack;
    uint32_t buf_count, buf_size, buf_free;
    struct list parked; /* sockets whose receive waits for a buffer */

    void (*hook)(void *arg);
    void *hook_arg;
    void (*handler)(void *arg, const struct ring_item *item);
    void *handler_arg;
    void (*runner)(void *arg);
    void *runner_arg;
    struct io_group *group;
    uint32_t peer;
    struct prng prng;
};

struct sim {
    uint64_t now_ns, start_ns, steps, trace, seed;
    struct prng prng, harness;
    struct timer_heap events;
    struct io **ready;
    uint32_t ready_count, ready_cap;
    struct list hosts, listeners;
    struct sim_host *current;
    uint32_t io_count;
    bool calm;
    FILE *trace_out;
    struct list free_calls;
    struct sim_page *free_pages;
    struct sim_site sites[SIM_SITES];
    uint16_t site_slots[2 * SIM_SITES]; /* hash: index + 1 */
    uint32_t site_count;
};

/* ---- io_sim.c ---- */
struct sim *sim_current(void);
/* There may be something to do for this io. */
void sim_io_wake(struct io *io);
bool sim_io_has_work(const struct io *io);
void sim_note(struct sim *sim, const struct sim_host *host, const char *what, uint64_t a,
              int64_t b);

/* ---- sim_fault.c ---- */
uint64_t sim_below(struct prng *p, uint64_t bound);
/* In [min, max], more often near min. */
uint64_t sim_delay(struct sim *sim, uint64_t min, uint64_t max);
bool sim_chance(struct sim_host *h, uint32_t per_mille);
/* SIM_OK unless a directed fault of this kind is due. */
enum sim_fault sim_fail_due(struct sim_host *h, enum sim_kind kind);
/* Of a call that starts now. */
struct sim_site *sim_site_of(struct sim_host *h, enum sim_kind kind, const void *from);
/* What was asked for this call at its place; SIM_OK: nothing. */
enum sim_fault sim_site_fault(struct sim_host *h, const struct sim_site *site);
/* For calls that are over at once: this one fails. */
bool sim_site_asked(struct sim_host *h, const struct sim_site *site);
/* Of an operation: what was asked for at its place, or for the next one of this kind. */
enum sim_fault sim_call_fault(struct sim_call *c, enum sim_kind kind);
void sim_count(struct sim_site *site, enum sim_fault fault);
/* The fault that this result is counted as. */
enum sim_fault sim_fault_of(int32_t res);

/* ---- sim_op.c ---- */
struct sim_call *sim_call_start(struct io *io, struct io_op *op, enum sim_kind kind,
                                const void *from);
/* Also checks and holds the descriptor; NULL: it is none, the operation will complete so. */
struct sim_call *sim_call_start_fd(struct io *io, struct io_op *op, enum sim_kind kind, int32_t fd,
                                   enum sim_fd_kind fd_kind, const void *from);
void sim_call_at(struct sim_call *c, uint64_t delay_ns, void (*fire)(struct timer *t));
void sim_call_end(struct sim_call *c, int32_t res);
void sim_call_data(struct sim_call *c, int32_t res, const uint8_t *data, uint16_t buf_id);
void sim_dispatch(struct io *io, struct sim_result r);
void sim_call_free(struct sim_call *c);
uint32_t sim_sum(const void *data, size_t len);
void sim_call_check(const struct sim_call *c);

/* ---- sim_fd.c ---- */
/* -ENFILE when there is none. */
int32_t sim_fd_open(struct io *io, enum sim_fd_kind kind);
/* NULL: never was one. One that is closed already: aborts. */
struct sim_fd *sim_fd_of(struct io *io, int32_t fd, const char *what);
/* Of an operation that holds it: it may have been closed by its owner in the meantime. */
struct sim_fd *sim_fd_held(struct io *io, int32_t fd);
void sim_fd_hold(struct io *io, int32_t fd);
void sim_fd_release(struct io *io, int32_t fd);
void sim_fd_destroy(struct io *io);

/* ---- sim_net.c, sim_listen.c, sim_recv.c ---- */
#define SIM_RTO_NS     (200 * NS_PER_MS)
#define SIM_CONNECT_NS (130 * NS_PER_S) /* no answer to a connect: -ETIMEDOUT */
#define SIM_SILENCE_NS (924 * NS_PER_S) /* no answer to data: -ETIMEDOUT */
uint64_t sim_net_delay(struct sim_host *h);
/* A connect that ends without a result. */
void sim_connect_undo(struct sim_call *c);
struct sim_sock *sim_sock_create(struct sim_host *h);
void sim_sock_pair(struct sim_sock *a, struct sim_sock *b);
/* The owner closes it, or its process died; `silent`: or its machine. */
void sim_sock_close(struct sim_sock *s, bool silent);
void sim_sock_packet(struct sim_sock *to, enum sim_packet_kind kind, const void *data,
                     uint32_t len);
void sim_sock_reset(struct sim_sock *s);
void sim_sock_break(struct sim_sock *s, int32_t error);
void sim_sock_vanish(struct sim_sock *s);
void sim_send_kick(struct sim_sock *s, uint64_t delay_ns);
void sim_recv_kick(struct sim_sock *s);
bool sim_recv_create(struct io *io, const struct io_params *params);
/* Hands buffers that came back to those who wait. */
void sim_recv_unpark(struct io *io);
bool sim_addr_eq(const struct io_addr *a, const struct io_addr *b, bool with_port);
struct sim_host *sim_host_of(struct sim *sim, const struct io_addr *addr, struct sim_host *from);
bool sim_host_has(const struct sim_host *h, const struct io_addr *addr);
uint16_t sim_host_port(struct sim_host *h);
/* The address that it speaks to `to` from; its port is 0. */
void sim_host_source(struct sim_host *h, const struct io_addr *to, struct io_addr *out);
struct sim_listener *sim_listener_of(struct sim_host *h, const struct io_addr *addr);
void sim_listener_offer(struct sim_listener *l, struct sim_sock *s);
void sim_listener_close(struct sim_listener *l, bool silent);

/* ---- sim_file.c ---- */
/* An effect on the disk is about to happen; false: the host stops here. */
bool sim_disk_op(struct sim_host *h);
/* What was under way when the process died: it happened, in part, or not. */
void sim_file_interrupted(struct sim_call *c);

/* ---- sim_group.c ---- */
void sim_group_join(struct io *io);
void sim_group_leave(struct io *io);
bool sim_group_has(const struct io *io);
void sim_group_deliver(struct io *io);

/* ---- sim_host.c ---- */
void sim_io_free(struct io *io, bool silent);

#endif
