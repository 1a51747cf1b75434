/*
 * tests/sim/sim.h - a simulated world behind gateway/io/io.h: clock, network, disks, faults.
 *
 * Linked instead of gateway/io/uring*.c. Everything follows from one 64-bit seed, in one real
 * thread: machines (hosts) with their own disks and addresses, on each one process of any number of
 * ios (shards, control, helpers; or a scripted client or next hop). tests/sim/README.md says what
 * is modelled, and what is not.
 *
 * Wrong use of io.h aborts with a line that names the call: an operation started while it runs, a
 * buffer or path that changes under way, a descriptor used after its close, a receive buffer given
 * back twice, two receives or sends on a descriptor, a misaligned direct write is -EINVAL.
 *
 * The ends of what a killed process owned are not cleaned up: its objects leak, its ios are freed.
 */
#ifndef HIKYAKU_TESTS_SIM_SIM_H
#define HIKYAKU_TESTS_SIM_SIM_H

#include <stdio.h>

#include "gateway/io/io.h"

struct sim;
struct sim_host;

/* ---- the world ---- */

/*
 * The world is also remembered as the current one: io_create() and the like have no other way to
 * find it. One world at a time.
 */
struct sim *sim_create(uint64_t seed);
void sim_destroy(struct sim *sim);

/*
 * Runs one thing: a turn of a randomly chosen io that has something ready, or else moves the clock
 * to the next event and lets it happen. False when nothing will ever happen any more.
 */
bool sim_step(struct sim *sim);
/* Steps until the clock shows `ns` (it then does); false when nothing would happen after it. */
bool sim_run_until(struct sim *sim, uint64_t ns);
uint64_t sim_now_ns(const struct sim *sim);
uint64_t sim_steps(const struct sim *sim);
/* A number in [0, bound) for the harness, from a stream of its own. */
uint64_t sim_draw(struct sim *sim, uint64_t bound);
/* Of all that happened so far: equal for equal seeds. */
uint64_t sim_trace_hash(const struct sim *sim);
/* Every step, operation and fault as a line; NULL: no more. */
void sim_trace_to(struct sim *sim, FILE *out);

/*
 * What sim_step does to turn this io; without it: io_turn(io, false). `run` must turn the io once.
 * For owners that do more than io_turn in their loop.
 */
void sim_io_runner(struct io *io, void (*run)(void *arg), void *arg);
struct sim_host *sim_io_host(const struct io *io);

/* ---- hosts ---- */

/* `name` is for people. `address`: text of its first; 127.0.0.0/8 and ::1 are everybody's. */
struct sim_host *sim_host_add(struct sim *sim, const char *name, const char *address);
void sim_host_address(struct sim_host *host, const char *address);
/*
 * Calls without an io to tell (io_create, io_group_create, io_port_check, io_lock(NULL, ...))
 * belong to this host. While an io is turned, its host is the current one.
 */
void sim_host_enter(struct sim_host *host);
const char *sim_host_name(const struct sim_host *host);
/* The wall clock of this host jumps. */
void sim_clock_jump(struct sim_host *host, int64_t by_ns);

/*
 * The process dies: its ios, operations, sockets and locks are gone. Peers see a FIN, or a reset
 * where data was not read. What was under way on the disk happens or does not; what happened stays
 * (the page cache lives). Not from inside a turn of this host.
 */
void sim_host_kill(struct sim_host *host);
/*
 * The machine dies: peers hear nothing any more until they speak to it again (then: a reset, once
 * it is up). Of what no sync covered each sector is kept, dropped or torn, each change of a
 * directory and each size kept or dropped. The machine is up again at once; it just runs nothing.
 */
void sim_host_power_cut(struct sim_host *host);
/*
 * The network of this host: down, nothing arrives or leaves (what is sent waits, as TCP would send
 * it again); up again, it goes on.
 */
void sim_host_net(struct sim_host *host, bool up);
bool sim_host_has_process(const struct sim_host *host); /* any io */
/* The other end of this connection is closed: what is still read was sent before. */
bool sim_peer_is_gone(struct io *io, int32_t fd);

/* ---- crash points ---- */

/*
 * Effects on the disk, numbered from 1: a write, a sync, a creation, rename, removal, truncation,
 * allocation, a directory made.
 */
uint64_t sim_host_disk_ops(const struct sim_host *host);
/*
 * Stops the host just before effect number `n` (all that is done so far was told to its owners as
 * far as it could). A stopped host does nothing any more: its ios are not turned (io_turn returns
 * at once); kill it or cut its power. 0: never.
 */
void sim_host_stop_before(struct sim_host *host, uint64_t n);
bool sim_host_stopped(const struct sim_host *host);
/*
 * `look` runs just before every effect, with its number: to save the disk as a crash there would
 * leave it, and go on. It must not touch the world otherwise. NULL: nobody looks.
 */
void sim_host_on_disk_op(struct sim_host *host, void (*look)(void *arg, uint64_t n), void *arg);
/* Size of what is kept or lost as one: 512 (default) or 4096. */
void sim_host_sector(struct sim_host *host, uint32_t bytes);
/* Things that a power cut may keep or drop: sectors, sizes, changes of directories. */
uint32_t sim_host_unsynced_count(const struct sim_host *host);
/* As sim_host_power_cut, but thing i is kept if bit i is set (from 64 on: as bit 63), none torn. */
void sim_host_power_cut_subset(struct sim_host *host, uint64_t keep);

/* ---- disks ---- */

/* Bytes and inodes; beyond: -ENOSPC. Default: 1 GiB, no bound of inodes. */
void sim_host_disk_limit(struct sim_host *host, uint64_t bytes, uint64_t inodes);
/* Of all names and bytes, as a process would see them now. */
uint64_t sim_host_disk_hash(const struct sim_host *host);
/* Every file (not directory), in the order of its path; stops when `each` returns false. */
void sim_host_disk_list(const struct sim_host *host,
                        bool (*each)(void *arg, const char *path, uint64_t size), void *arg);
/* -1: no such file; else what was read. */
int64_t sim_host_disk_read(const struct sim_host *host, const char *path, void *buf, uint32_t len,
                           uint64_t offset);
/* Bit rot: the bytes on the medium and in memory change. False: no such byte. */
bool sim_host_disk_flip(struct sim_host *host, const char *path, uint64_t offset, uint8_t mask);
/* Makes or replaces a whole file, durably (configuration, certificates). Directories are made. */
void sim_host_disk_put(struct sim_host *host, const char *path, const void *data, size_t len);
/* A copy of the disk as it is, what is not synced included; cheap: pages are shared. */
struct sim_disk *sim_host_disk_save(struct sim_host *host);
/* The host must have no process. The copy stays. */
void sim_host_disk_load(struct sim_host *host, const struct sim_disk *saved);
void sim_disk_free(struct sim_disk *saved);
/* Descriptors of each io, as ulimit -n. */
void sim_host_fd_limit(struct sim_host *host, uint32_t count);
/* False: its file system knows no O_DIRECT (-EINVAL). */
void sim_host_disk_direct(struct sim_host *host, bool direct);
/* What io_disk_in_place says (at first: false). */
void sim_host_disk_in_place(struct sim_host *host, bool in_place);

/* ---- faults ---- */

/* Chances per mille; times in ns. All 0 (the default, sim_faults_none): nothing ever fails. */
struct sim_faults {
    /* disk */
    uint16_t read_short, read_eio;
    uint16_t write_short, write_eio, write_enospc;
    uint16_t sync_eio;     /* what it covered may be lost; the next one succeeds */
    uint16_t dir_sync_eio; /* the same, of directories alone */
    uint16_t sync_lie;     /* says 0 and does nothing: no correct program survives it */
    uint16_t allocate_enospc, allocate_eio;
    uint16_t open_error, unlink_error, rename_error, size_error; /* EIO, EMFILE, ENOSPC, ... */
    uint16_t call_error; /* io_mkdir, io_list_dir, io_lock, io_disk_free */
    uint16_t stall;      /* an operation takes up to stall_ns */
    uint64_t stall_ns;
    uint64_t disk_min_ns, disk_max_ns; /* 0, 0: 20 to 200 us */

    /* network: of the host that calls */
    uint16_t send_split; /* a send arrives in pieces, cut at any byte */
    uint16_t recv_short; /* one completion gets a part of what is there, at least a byte */
    uint16_t recv_again; /* the multishot receive ends early and must be armed again (unseen) */
    uint16_t buf_none;   /* no receive buffer just now, though there are */
    uint16_t reset;      /* of a send or a delivery: the connection is reset */
    uint16_t vanish;     /* of a send or a delivery: from now on silence */
    uint16_t connect_refused, connect_timeout, connect_error;
    uint16_t accept_error;           /* EMFILE */
    uint16_t fd_none;                /* ENFILE on connect */
    uint64_t net_min_ns, net_max_ns; /* one way; 0, 0: 20 to 300 us */
    uint32_t window_max;             /* bytes under way in one direction; 0: 256 KiB */

    /* threads */
    uint16_t reorder;     /* completions of different operations change places */
    uint16_t turn_part;   /* a turn sees only some of the completions that are there */
    uint16_t cancel_late; /* a cancelled operation goes on for a while */
    uint16_t post_full;   /* io_post says that the ring is full */
    uint64_t turn_max_ns; /* a turn takes up to this; 0: 5 us */
};
extern const struct sim_faults sim_faults_none;
void sim_host_faults(struct sim_host *host, const struct sim_faults *faults);
/* True: no fault any more on any host (times stay), stalled and cut networks go on. */
void sim_calm(struct sim *sim, bool calm);

/* The next operation of this kind on the host ends so, once: 0 for no more. For directed tests. */
enum sim_kind {
    SIM_ACCEPT = 1,
    SIM_CONNECT,
    SIM_RECV,
    SIM_SEND,
    SIM_POLL,
    SIM_OPEN,
    SIM_READ,
    SIM_WRITE,
    SIM_SYNC,
    SIM_WRITE_SYNC,
    SIM_ALLOCATE,
    SIM_UNLINK,
    SIM_RENAME,
    SIM_FILE_SIZE,
    SIM_MKDIR,
    SIM_LIST_DIR,
    SIM_DISK_FREE,
    SIM_LOCK,
    SIM_LISTEN,
    SIM_POST,
    SIM_CREATE,
    SIM_MEMORY,
    SIM_KIND_COUNT
};
enum sim_fault {
    SIM_OK,
    SIM_EIO,
    SIM_ENOSPC,
    SIM_SHORT,
    SIM_CANCELED,
    SIM_NO_FD,   /* EMFILE, ENFILE */
    SIM_RESET,   /* ECONNRESET, EPIPE */
    SIM_REFUSED, /* ECONNREFUSED, unreachable */
    SIM_TIMEOUT, /* ETIMEDOUT, or silence */
    SIM_NO_BUF,  /* no receive buffer, ring full */
    SIM_STALL,
    SIM_OTHER,
    SIM_LATE, /* of a write and sync: written, and the sync fails with EIO */
    SIM_FAULT_COUNT
};
void sim_host_fail_next(struct sim_host *host, enum sim_kind kind, uint32_t skip,
                        enum sim_fault fault);

/*
 * Call number `nth` (from 1) at this place of the product on the host ends so. In calm weather it
 * is neither counted nor fails. Up to two places.
 */
struct sim_place;
struct sim_fail_at {
    const struct sim_place *place; /* NULL: nothing */
    uint64_t nth;
    enum sim_fault fault;
};
void sim_host_fail_at(struct sim_host *host, const struct sim_fail_at *at);
/* All that was asked for so came, and failed. */
bool sim_host_failed_at(const struct sim_host *host);

/*
 * What happened at each place that starts an operation. `place`: in files of the product that were
 * compiled with tests/sim/places.h. Otherwise `offset`: of the return address from the start of the
 * program (addr2line -e PROGRAM), the same in each run of it.
 */
struct sim_site {
    const struct sim_place *place;
    uint64_t offset, calls; /* before it was calm */
    enum sim_kind kind;
    const char *host; /* the first one that came by */
    uint64_t counts[SIM_FAULT_COUNT];
};
const char *sim_kind_name(enum sim_kind kind);
const char *sim_fault_name(enum sim_fault fault);
/* All sites so far, in the order of their first use. */
uint32_t sim_sites(const struct sim *sim, const struct sim_site **sites);
/* Faults of one kind, all sites together. */
uint64_t sim_fault_counts(const struct sim *sim, enum sim_kind kind, enum sim_fault fault);

/* Completes the polls of this number on this host with `revents`, now. */
void sim_poll_raw_ready(struct sim_host *host, int raw_fd, uint32_t revents);

#endif
