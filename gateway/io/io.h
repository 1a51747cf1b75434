/*
 * gateway/io/io.h - the one seam to the world: sockets, files, time, randomness, other threads.
 *
 * gateway/io/uring*.c implements it over io_uring for the product; tests/sim/io_sim.c implements it
 * with a virtual clock, network and disk. They are exchanged at link time.
 *
 * One `struct io` belongs to one thread; only io_post() reaches another one. Rules for every
 * operation:
 *  - The operation is embedded in its owner and must stay where it is until `done` ran (with
 *    IO_MORE clear).
 *  - `done` never runs inside the call that started the operation: completions are queued, then
 *    dispatched by io_turn(). Inside `done` the owner may start the same operation again, or free
 *    itself.
 *  - Results are >= 0, or -errno. Buffers and paths handed in stay valid and unchanged until
 *    `done`.
 *  - A cancelled operation still completes: with -ECANCELED, or with its result if that came first.
 *  - Starting an operation never fails: what cannot be started completes with an error.
 *  - A file descriptor here (`int32_t fd`) is a handle of this backend, not a number of the
 *    process; only the thread that made it can use it.
 */
#ifndef HIKYAKU_IO_H
#define HIKYAKU_IO_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "gateway/base/ring.h"
#include "gateway/base/slice.h"
#include "gateway/base/timer.h"
#include "gateway/base/why.h"

struct io;
struct io_group; /* the threads of one process that can io_post() to each other */
struct io_op;

/* ---- addresses ---- */

struct io_addr {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    };
    socklen_t len; /* 0: no address */
};

#define IO_ADDR_TEXT_MAX 64

/* "192.0.2.1", "2001:db8::1" and a port. False when the text is no address literal. */
bool io_addr_parse(struct io_addr *out, struct slice host, uint16_t port)
    __attribute__((warn_unused_result));
/* "192.0.2.1:25" or "[2001:db8::1]:25"; `with_port` false: the bare address. Returns `text`. */
const char *io_addr_text(const struct io_addr *a, bool with_port, char text[IO_ADDR_TEXT_MAX]);
uint16_t io_addr_port(const struct io_addr *a);
/* The addresses of this machine's interfaces, without ports. Synchronous, for start and reload. */
uint32_t io_interfaces(struct io_addr *out, uint32_t max);

/* ---- life of a thread's io ---- */

struct io_params {
    struct io_group *group; /* may be NULL: a thread that talks to nobody */
    uint32_t peer;          /* this thread's index in the group */
    uint32_t queue_depth;   /* submission entries; 0: IO_QUEUE_DEPTH */
    uint32_t fd_count_max;  /* descriptors this thread may hold */
    uint32_t
        recv_buf_count; /* provided buffers, a power of two; 0: none (a thread without sockets) */
    uint32_t recv_buf_size; /* bytes of each */
    int32_t cpu;            /* pin the calling thread to this CPU; -1: do not */
    bool plain_fds; /* for tests: as on Linux before 6.14, see gateway/io/uring_internal.h */
};

/* The group's rings: one bounded SPSC ring for each ordered pair. NULL: no memory. */
struct io_group *io_group_create(uint32_t peer_count);
void io_group_destroy(struct io_group *g);

/*
 * Called once, very early: can this kernel do what is needed? False fills `why->text` with one line
 * that says what to do (too old, io_uring_disabled, forbidden by seccomp). The caller exits with
 * status 69 (EX_UNAVAILABLE).
 */
bool io_probe(struct why *why) __attribute__((warn_unused_result));

/* Must be called by the thread that will use it. NULL fills `why`. */
struct io *io_create(const struct io_params *params, struct why *why);
/* All operations must be done. */
void io_destroy(struct io *io);

/*
 * One turn of the loop: fire due timers, submit, wait for at least one completion or the next timer
 * (only if `wait`, and no timer fired), dispatch every completion and message that is there, then
 * call the turn-end hook.
 */
void io_turn(struct io *io, bool wait);

/*
 * `hook` runs at the end of every turn, after all completions: there the lane starts a commit of
 * what came together.
 */
void io_on_turn_end(struct io *io, void (*hook)(void *arg), void *arg);

/*
 * What this thread did: for metrics. A turn's time is that outside of a system call that was
 * allowed to wait; what the kernel does for the thread in such a call is not in it.
 */
struct io_stats {
    uint64_t turns, submits, completions, busy_ns, longest_turn_ns;
    uint64_t recv_buf_empty; /* times the kernel found no provided buffer */
    uint64_t enters;         /* system calls that submitted or waited */
    uint32_t
        fd_count_max; /* what is really there: RLIMIT_NOFILE may allow less than was asked for */
    bool fd_shared;   /* among all threads of the process */
};
const struct io_stats *io_stats(const struct io *io);

/* ---- time, chance ---- */

/* Monotonic, read once a turn. */
uint64_t io_now_ns(const struct io *io);
/* Seconds and nanoseconds since 1970, may jump. Read once a turn. */
uint64_t io_wall_ns(const struct io *io);
/* Unpredictable bytes. */
void io_random(struct io *io, void *out, size_t len);
/* Seeded from io_random: choices and jitter. */
uint64_t io_chance(struct io *io, uint64_t bound);

/* Timers fire at the start of a turn; t->fire is set by the owner. */
void io_timer_set(struct io *io, struct timer *t, uint64_t deadline_ns);
void io_timer_clear(struct io *io, struct timer *t);

/* ---- operations ---- */

#define IO_MORE 1u /* this operation will complete again */

struct io_op {
    void (*done)(struct io_op *op, int32_t res, uint32_t flags); /* set by the owner */
    /*
     * Filled for receive completions with res > 0: the bytes, valid until io_buf_put(io, buf_id).
     */
    const uint8_t *data;
    uint16_t buf_id;
    /* Everything below belongs to the backend. */
    uint8_t kind, state;
    uint32_t flags;
    int32_t fd, res;
    uint32_t len, sent;
    uint64_t offset;
    void *ptr;
    struct io_op *next;
    union {
        struct {
            struct io_addr addr, from;
        } net;
        struct {
            const char *path, *path2;
            uint64_t size;
        } file;
    };
};

/* Asks for a running operation to end; no effect on one that is not running. */
void io_cancel(struct io *io, struct io_op *op);
/* True from the start until the last `done` began. */
bool io_op_running(const struct io_op *op);

/* ---- sockets ---- */

struct io_listen_opts {
    int backlog;
    bool reuse_port; /* one listener per shard on the same address */
    bool v6_only;
};

/*
 * Could we listen there? Binds without SO_REUSEPORT and lets go again, with the same patience as
 * io_listen. Synchronous, at start.
 */
bool io_port_check(const struct io_addr *addr, struct why *why) __attribute__((warn_unused_result));

/*
 * Synchronous (start and reload only). `why->text` names the address and the reason, in words. An
 * address in use is tried for up to 200 ms: what a killed process leaves goes away by then.
 */
bool io_listen(struct io *io, const struct io_addr *addr, const struct io_listen_opts *opts,
               int32_t *fd, struct why *why) __attribute__((warn_unused_result));

/*
 * Accepts until cancelled. `on_accept` gets a connected fd and the peer's address, or fd = -errno
 * with addr NULL (EMFILE and the like; the acceptor goes on by itself after a pause). `on_stopped`
 * runs once after io_accept_stop, when nothing of it is in flight any more; the listening fd is
 * still open then. Kept as several single accepts in flight, because a multishot accept cannot tell
 * each peer's address.
 */
#define IO_ACCEPT_SLOTS 16
struct io_acceptor {
    void (*on_accept)(struct io_acceptor *a, int32_t fd, const struct io_addr *peer);
    void (*on_stopped)(struct io_acceptor *a);
    int32_t listen_fd;
    /* What a connection is sent before it is closed when no descriptor is left for it; NULL:
     * nothing. Where that is not possible it waits in the backlog, or is closed. */
    const char *busy;
    /* backend */
    struct io *io;
    bool stopping, full;
    uint32_t running;
    struct timer pause;
    struct io_op slots[IO_ACCEPT_SLOTS];
};
void io_accept_start(struct io *io, struct io_acceptor *a, int32_t listen_fd);
void io_accept_stop(struct io *io, struct io_acceptor *a);

/*
 * A TCP connection, TCP_NODELAY set. `from`: source address or NULL. Result: the new fd. Time
 * limits are the caller's (timer + io_cancel).
 */
void io_connect(struct io *io, struct io_op *op, const struct io_addr *to,
                const struct io_addr *from);

/*
 * Multishot receive into provided buffers: each completion with res > 0 carries op->data/op->buf_id
 * and must be answered with io_buf_put, then or later. res 0: the peer closed. -ENOBUFS never
 * reaches the owner: the backend waits for a buffer and goes on. Ends (IO_MORE clear) on close,
 * error or cancel. At most one receive per fd.
 */
void io_recv(struct io *io, struct io_op *op, int32_t fd);
void io_buf_put(struct io *io, uint16_t buf_id);

/* What comes behind the last byte of a send. */
enum io_end {
    IO_END_NONE, /* more bytes, now or later */
    /* io_shutdown as soon as all has been sent: the end travels with the last bytes, in one
     * segment. A send that fails or is cancelled shuts down nothing. */
    IO_END_SHUTDOWN,
    /* The caller's io_close, at once: the kernel may hold back the last bytes until then (a fifth
     * of a second at most), and they travel with the end. */
    IO_END_CLOSE
};

/*
 * Sends all of it (short sends are continued) or fails. Result: len. At most one send per fd at a
 * time.
 */
void io_send(struct io *io, struct io_op *op, int32_t fd, const void *data, uint32_t len,
             enum io_end end);

/* No more will be sent (FIN). Fire and forget. */
void io_shutdown(struct io *io, int32_t fd);

/*
 * Gives the descriptor back. Operations on it must be done or cancelled before; needs no op. A
 * listener without operations is closed when this returns: nobody can connect any more.
 */
void io_close(struct io *io, int32_t fd);

/*
 * The local address of a listener (also the port that 0 became), or of a connection. Synchronous,
 * and a few system calls for a connection: call it once.
 */
bool io_local_addr(struct io *io, int32_t fd, struct io_addr *out);

/* ---- descriptors of libraries (libunbound, libmicrohttpd, signalfd, inotify) ---- */

/* One shot: completes with the poll(2) revents. `raw_fd` is a number of the process. */
void io_poll_raw(struct io *io, struct io_op *op, int raw_fd, uint32_t poll_events);

/* ---- files ---- */

enum io_open_flags {
    IO_READ = 1,
    IO_WRITE = 2,
    IO_CREATE = 4, /* mode 0600 */
    IO_EXCL = 8,
    IO_DIRECT = 16, /* O_DIRECT: buffers, offsets and lengths aligned to 4096 */
    IO_DSYNC = 32,  /* every write is durable when it completes */
    IO_DIR = 64,    /* a directory, for io_sync */
    IO_TRUNC = 128
};

void io_open(struct io *io, struct io_op *op, const char *path,
             uint32_t open_flags); /* result: fd */
/* May be short; the result tells. */
void io_read(struct io *io, struct io_op *op, int32_t fd, void *buf, uint32_t len, uint64_t offset);
void io_write(struct io *io, struct io_op *op, int32_t fd, const void *buf, uint32_t len,
              uint64_t offset);
/*
 * Data and the metadata needed to read it back are durable (fdatasync; on a directory: its
 * entries).
 */
void io_sync(struct io *io, struct io_op *op, int32_t fd);
/*
 * Write, and when all of it was written, sync: one completion, result len, or -errno of the first
 * that failed (a short write: -EIO).
 */
void io_write_sync(struct io *io, struct io_op *op, int32_t fd, const void *buf, uint32_t len,
                   uint64_t offset);
/* Reserves blocks and sets the size. */
void io_allocate(struct io *io, struct io_op *op, int32_t fd, uint64_t offset, uint64_t len);
void io_unlink(struct io *io, struct io_op *op, const char *path);
void io_rename(struct io *io, struct io_op *op, const char *from, const char *to);
/* Result 0 and op->file.size. */
void io_file_size(struct io *io, struct io_op *op, const char *path);

/* Synchronous; for start, reload and slow paths only. */
bool io_mkdir(struct io *io, const char *path, struct why *why)
    __attribute__((warn_unused_result)); /* exists: true; parents are not made */
/* Calls `each` for every entry but . and ..; stops early when it returns false. */
bool io_list_dir(struct io *io, const char *path, bool (*each)(void *arg, const char *name),
                 void *arg, struct why *why) __attribute__((warn_unused_result));
/* Free and total bytes of the file system, free inodes (UINT64_MAX: it has no such bound). */
bool io_disk_free(struct io *io, const char *path, uint64_t *free_bytes, uint64_t *total_bytes,
                  uint64_t *free_inodes) __attribute__((warn_unused_result));
/* Known of its file system (ext4, XFS): a block that was written once is written over in its place,
 * so that a later sync of it changes no metadata. */
bool io_disk_in_place(struct io *io, const char *path) __attribute__((warn_unused_result));
/* Memory of this process that is resident, and what it may have: the machine's, or its control
 * group's where that is less. */
bool io_memory(struct io *io, uint64_t *resident_bytes, uint64_t *total_bytes)
    __attribute__((warn_unused_result));
/*
 * An exclusive lock that ends with the process (or with io_unlock); false when another process
 * holds it. The file is made if it is not there.
 */
bool io_lock(struct io *io, const char *path, int *lock, struct why *why)
    __attribute__((warn_unused_result));
void io_unlock(struct io *io, int lock);

/* ---- other threads ---- */

/* `handler` gets every item posted to this thread. Set before the first turn. */
void io_on_message(struct io *io, void (*handler)(void *arg, const struct ring_item *item),
                   void *arg);

/*
 * Hands an item to peer `to` and wakes it (MSG_RING, with the sender's next turn). False: its ring
 * is full; the caller keeps the item and tries again on a later turn. Items of one sender arrive in
 * order. item->from is filled in. What is posted to a peer that has no io yet waits for it.
 */
bool io_post(struct io *io, uint32_t to, const struct ring_item *item)
    __attribute__((warn_unused_result));

#endif
