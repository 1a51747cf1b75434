/*
 * gateway/io/uring_internal.h - what the files of the io_uring backend share. Nobody else includes
 * it.
 *
 * The way of an operation: io_*() marks it running and fills a submission entry whose user_data is
 * the address of the operation; io_turn() enters the kernel, moves all completion entries to a
 * queue of its own, and hands them one by one to uring_dispatch(), which calls `done`. What is
 * refused before it reaches the kernel goes into the same queue.
 *
 * A descriptor is a slot of the ring's file table, so it costs no number of the process. It is
 * given back only when no operation that names it is left: so no late completion, and no worker of
 * the kernel, ever meets its next user. Before Linux 6.13 a slot given back kept its file open for
 * as long as any older operation of the ring was under way; there, descriptors are numbers of the
 * process.
 *
 * A listener is always a number of the process, closed in the call that closes it: who is told
 * afterwards that it is gone may rely on that. A slot lives as long as the ring, which the kernel
 * takes apart some time after its process has ended; until then a dead process would listen.
 */
#ifndef HIKYAKU_IO_URING_INTERNAL_H
#define HIKYAKU_IO_URING_INTERNAL_H

#include <liburing.h>

#include "gateway/base/list.h"
#include "gateway/base/prng.h"
#include "gateway/base/slab.h"
#include "gateway/io/io.h"

/* Newer than the headers of the oldest liburing supported. */
#define URING_FEAT_RW_ATTR        (1u << 16) /* Linux 6.14 */
#define URING_OP_FIXED_FD_INSTALL 54         /* Linux 6.8 */

#define URING_SETUP_FLAGS                                                                \
    (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | \
     IORING_SETUP_TASKRUN_FLAG)

/* The low bits of user_data say what an entry is for; operations are aligned to 8. */
enum uring_tag {
    URING_OP,       /* a struct io_op */
    URING_OP_FIRST, /* the write of a write-and-sync */
    URING_SHUTDOWN, /* the upper bits are a descriptor */
    URING_CLOSE,    /* the same */
    URING_CALL,     /* the one synchronous call under way */
    URING_IGNORE,   /* nobody waits for it: cancels, wake-ups */
    URING_WRITER,   /* the writer is done */
    URING_TAG_MASK = 7
};

enum uring_kind {
    URING_ACCEPT = 1,
    URING_CONNECT,
    URING_RECV,
    URING_SEND,
    URING_POLL,
    URING_OPEN,
    URING_READ,
    URING_WRITE,
    URING_SYNC,
    URING_WRITE_SYNC,
    URING_ALLOCATE,
    URING_UNLINK,
    URING_RENAME,
    URING_FILE_SIZE
};

enum uring_state {
    URING_IDLE,
    URING_RUNNING,
    URING_PARKED, /* a receive that waits for a buffer */
    URING_QUEUED  /* a receive that waits for its turn */
};

/* Bits of io_op.flags. */
#define URING_CANCELLED  1u
#define URING_HALF_DONE  2u  /* one of the two completions of a write-and-sync came */
#define URING_CONNECTING 4u  /* the descriptor is there */
#define URING_REFUSED    8u  /* accepted, told and closed for want of descriptors */
#define URING_LAST       16u /* a send that is followed by the end of our side */
#define URING_MORE       32u /* a send that is followed by a close */
#define URING_TO_TURNS   64u /* a multishot receive that was told to end and go on in turns */

/* Bits of uring_fd.flags. */
#define URING_FD_OPEN      1u
#define URING_FD_CLOSING   2u /* closed by its owner, given back when nothing runs on it any more */
#define URING_FD_DIR       4u
#define URING_FD_DSYNC     8u
#define URING_FD_SENDING   16u
#define URING_FD_RECEIVING 32u
#define URING_FD_LISTENER  64u
#define URING_FD_RECV_CUT  128u /* the receive, or the send, under way was cancelled */
#define URING_FD_SEND_CUT  256u
#define URING_FD_UPLOAD    512u /* its reads came in turns before */

struct uring_fd {
    uint32_t flags;
    uint32_t busy;       /* operations that name it */
    int32_t number;      /* of the process, for the writer or a listener; 0: none */
    uint32_t full_reads; /* receives in a row that filled their buffers */
};

/* Receives that wait, first come first served. */
struct uring_line {
    struct io_op *first, **last;
};

struct uring_event {
    uint64_t user_data;
    int32_t res;
    uint32_t flags;
};

/* Where a buffer was offered last. */
struct uring_place {
    uint16_t at;   /* position in the ring */
    uint16_t next; /* id of the buffer that was offered next */
};

#define URING_RANDOM_BLOCK 4096u
#define URING_STATX_MAX    1024u /* io_file_size at once; more: -ENOMEM */

struct io {
    struct io_uring ring;
    uint64_t now_ns, wall_ns;
    struct timer_heap timers;
    struct io_stats stats;

    /* Completions to be dispatched: a queue that grows when it must. */
    struct uring_event *events;
    uint32_t event_head, event_tail, event_mask;
    uint32_t running; /* operations started and not done */

    struct uring_fd *fds;
    uint32_t fd_count; /* entries of fds */
    uint32_t fd_used, fd_limit;
    bool direct; /* descriptors are slots of the ring's table */
    int spare;   /* else: a number kept for refusing connections when there is none left, or -1 */
    uint32_t features;

    struct io_uring_buf_ring *buf_ring;
    uint8_t *bufs;
    struct uring_place *buf_places; /* by buffer id */
    uint16_t buf_last;              /* offered last */
    uint32_t buf_count, buf_size;
    uint32_t recv_cap; /* bytes of a receive before others have their turn; 0: the kernel's own */
    uint32_t buf_free; /* not held by an owner */
    struct uring_line parked, queued;

    void (*hook)(void *arg);
    void *hook_arg;
    void (*handler)(void *arg, const struct ring_item *item);
    void *handler_arg;
    struct io_group *group;
    uint32_t peer;

    struct uring_writer *writer; /* NULL: none yet */
    bool writer_refused;         /* there is none to be had */
    uint64_t writer_word;        /* what its event says */

    struct slab statx;
    struct prng prng;
    uint32_t random_used;
    uint8_t random[URING_RANDOM_BLOCK];
    int32_t call_res;
    bool call_running;
};

/* ---- uring.c ---- */
/* A cleared submission entry; submits when there is none left. */
struct io_uring_sqe *uring_sqe(struct io *io);
/* Two entries that reach the kernel together, for a link. */
void uring_sqe_pair(struct io *io, struct io_uring_sqe **first, struct io_uring_sqe **second);
void uring_tag(struct io_uring_sqe *sqe, const void *op, enum uring_tag tag);
/* Submits one entry and waits for it; other completions keep until the next dispatch. */
int32_t uring_call(struct io *io, struct io_uring_sqe *sqe);

/* ---- uring_op.c ---- */
void uring_event_add(struct io *io, uint64_t user_data, int32_t res, uint32_t flags);
void uring_dispatch(struct io *io, struct uring_event e);
void uring_op_start(struct io *io, struct io_op *op, enum uring_kind kind);
/* Also holds the descriptor; false: it is not open, and the operation will complete with -EBADF. */
bool uring_op_start_fd(struct io *io, struct io_op *op, enum uring_kind kind, int32_t fd);
/* Lets the next dispatch complete an operation that the kernel does not know. */
void uring_op_fail(struct io *io, struct io_op *op, int32_t res);
/* The last `done`; the operation may be gone afterwards. */
void uring_op_end(struct io *io, struct io_op *op, int32_t res);
/* Asks the kernel to end what it does for the operation under this tag. */
void uring_op_cancel(struct io *io, const struct io_op *op, enum uring_tag tag);

/* ---- uring_fd.c ---- */
bool uring_fd_create(struct io *io, const struct io_params *params, struct why *why);
/* Takes what the kernel opened into the table; -ENFILE, and it is closed, past fd_limit. */
int32_t uring_fd_adopt(struct io *io, int32_t fd, uint32_t flags);
void uring_fd_hold(struct io *io, int32_t fd);
void uring_fd_release(struct io *io, int32_t fd);
/* What sqe->flags must have for an entry that names a descriptor. */
static inline uint8_t uring_fd_flag(const struct io *io)
{
    return io->direct ? IOSQE_FIXED_FILE : 0;
}

/* ---- uring_accept.c, uring_net.c, uring_recv.c, uring_file.c: what comes next after a completion
 * ---- */
void uring_accept_next(struct io *io, struct io_op *op, int32_t res);
void uring_connect_next(struct io *io, struct io_op *op, int32_t res);
void uring_send_next(struct io *io, struct io_op *op, int32_t res);
void uring_recv_next(struct io *io, struct io_op *op, int32_t res, uint32_t flags);
void uring_recv_unpark(struct io *io, struct io_op *op);
/* Starts receives that wait, as many as there are buffers and turns. True: more could start at
 * once. */
bool uring_recv_restart(struct io *io);
bool uring_recv_create(struct io *io, const struct io_params *params, struct why *why);
void uring_recv_destroy(struct io *io);
void uring_file_next(struct io *io, struct io_op *op, int32_t res, bool first);

/* ---- uring_writer.c ---- */
/* Hands a write-and-sync over; false: it is busy, or cannot be had. */
bool uring_writer_start(struct io *io, struct io_op *op, int32_t fd, const void *buf, uint32_t len,
                        uint64_t offset);
/* Takes what it has done into the queue of completions. */
void uring_writer_poll(struct io *io);
/* Its event was read. */
void uring_writer_woke(struct io *io);
/* The ring is gone. */
void uring_writer_end(struct io *io);

/* ---- uring_group.c ---- */
void uring_group_join(struct io *io);
void uring_group_leave(struct io *io);
/* Says that this thread may sleep; false: there are messages, it must not. */
bool uring_group_sleep(struct io *io);
void uring_group_awake(struct io *io);
void uring_group_deliver(struct io *io);

/* ---- uring_probe.c ---- */
/*
 * One line of advice for a refused io_uring_setup; `disabled`: the sysctl, -1 when it cannot be
 * read.
 */
void uring_advise(int error, int disabled, const char *release, struct why *why);

#endif
