/*
 * queue/queue.h - one lane of the spool: a log of messages and their state, group commit, recovery,
 * index. Format: queue/FORMAT.md.
 *
 * A lane belongs to one shard; everything here is called on that shard's thread, and completions
 * come from io_turn(). Nothing blocks.
 *
 * Life of a message:
 *   lane_tx_begin -> lane_tx_append* -> lane_tx_commit -> (durable) -> struct queue_msg in the
 * index
 *   -> lane_rcpts_final / lane_defer / lane_hold ... -> all recipients final: gone from the index.
 *
 * Promise: lane_tx_commit's callback says OK only after a sync that covers the message returned
 * success. A failed sync is never repeated on the same segment.
 */
#ifndef HIKYAKU_QUEUE_H
#define HIKYAKU_QUEUE_H

#include "gateway/base/arena.h"
#include "gateway/base/list.h"
#include "gateway/base/why.h"
#include "gateway/io/io.h"
#include "queue/envelope.h"

struct lane;

/* "0123456789ABCDEFG": the queue id as text, case-insensitive base 32 (no I, L, O, U), sortable by
 * lane and time. */
#define QID_TEXT_MAX 16
/* 64 bits: 10 lane, 54 sequence. Never used twice in one spool. 0: none. */
const char *qid_text(uint64_t qid, char text[QID_TEXT_MAX]);
bool qid_parse(struct slice text, uint64_t *qid) __attribute__((warn_unused_result));

enum queue_state {
    QUEUE_READY,       /* waits for a connection, or is being delivered */
    QUEUE_DEFERRED,    /* due at next_attempt */
    QUEUE_HELD,        /* by the operator */
    QUEUE_UNREACHABLE, /* no send connector matches */
    QUEUE_POISON,      /* attempts ended in a crash too often */
    QUEUE_PREPARED,    /* another gateway hands it over and has not said that it is ours: FORMAT.md
                          section 11 */
    QUEUE_GIVEN,       /* handed over: a peer's, as soon as it heard so */
    QUEUE_STATES
};

/* Nothing is tried by itself. */
static inline bool queue_state_rests(enum queue_state state)
{
    return state == QUEUE_HELD || state >= QUEUE_POISON;
}

/* How far the attempt of this run of the process is. */
enum queue_attempt {
    ATTEMPT_NONE,
    ATTEMPT_BEGUN, /* a connection works on it */
    ATTEMPT_DOT    /* a next hop may have all of it */
};

#define QUEUE_CRASHES_MAX 3u /* attempts in a row that ended in a crash; counts no further */

/*
 * A live message (index entry, about 100 bytes). Read by owners, changed only by lane_* calls,
 * except the field `owner`. Freed by the lane when every recipient is final and the record of that
 * was appended - never during a callback that got it; `owner` must be NULL by then.
 */
struct queue_msg {
    uint64_t qid;
    uint64_t body_size; /* bytes of the message as delivered */
    uint64_t accepted_wall_s : 34, state : 3;
    uint64_t warned : 1; /* set by the owner: the sender knows of the delay; kept by lane_defer */
    uint64_t flags : 4, attempts : 16; /* flags: lane's own */
    uint64_t attempt : 2;              /* enum queue_attempt */
    uint64_t crashes : 2;   /* attempts in a row, as found at the start, that ended in a crash */
    uint64_t uncertain : 1; /* found so: a next hop may have got it in an attempt before */
    uint64_t careful : 1;   /* an attempt is to begin only when its record is durable */
    uint64_t next_attempt_wall_s;
    uint32_t segment; /* where the MESSAGE record is; changes when it is copied forward */
    uint32_t offset;
    uint32_t record_size;
    uint16_t rcpt_count, rcpt_pending; /* pending: not final; at most RCPT_COUNT_LIMIT */
    uint32_t schedule_index;           /* position in the lane's schedule + 1; 0: not scheduled */
    uint32_t first_segment;            /* of its first extent; `segment` when it has none */
    uint32_t state_segment, state_offset; /* its newest state record; segment 0: none yet */
    union {
        uint64_t *rcpt_final;     /* bitmap, with more than 64 recipients */
        uint64_t rcpt_final_bits; /* bitmap, with fewer */
    };
    void *owner; /* the delivery that works on it; NULL: nobody */
    struct queue_msg *hash_next;
    struct list segment_link; /* messages of one segment */
};

static inline const uint64_t *queue_msg_bits(const struct queue_msg *m)
{
    return m->rcpt_count > 64 ? m->rcpt_final : &m->rcpt_final_bits;
}

static inline bool queue_msg_rcpt_is_final(const struct queue_msg *m, uint32_t rcpt)
{
    const uint64_t *bits = queue_msg_bits(m);
    return (bits[rcpt / 64] >> (rcpt % 64)) & 1;
}

enum lane_health {
    LANE_RECOVERING, /* old messages are being read; new mail is accepted already once lane_open's
                        `opened` ran */
    LANE_OK,
    LANE_DEGRADED, /* the last commit failed, a new segment is being tried */
    LANE_FULL,     /* no room: 452 4.3.1; deliveries go on */
    LANE_STOPPED   /* two commits failed in a row: 451 4.3.0; deliveries go on */
};

/* Both write, then sync the data. DIRECT writes past the page cache in whole blocks of 4096; where
 * the file system does not take that, the lane goes on as BUFFERED. */
enum lane_write_mode { LANE_WRITE_BUFFERED, LANE_WRITE_DIRECT };

struct lane_params {
    struct io *io;
    const char *spool;      /* the spool directory; the lane makes lane-NN below it */
    uint32_t lane;          /* number, below 1024 */
    uint64_t segment_bytes; /* 0: SEGMENT_BYTES_DEFAULT. Below 8 MiB: for tests of small messages */
    uint64_t bytes_max;     /* of this lane's segments; more: LANE_FULL */
    uint64_t disk_free_min; /* of the file system; less: LANE_FULL */
    enum lane_write_mode mode;
    uint32_t tx_count_max;  /* 0: SPOOL_TX_MAX */
    uint32_t early_bytes;   /* written though nobody waits; 0: COMMIT_EARLY_BYTES (tests: less) */
    uint64_t close_wait_ns; /* lane_close tries so long to write what found no room */
    /* A spare segment is written full of zeros while there is little to do, so that its commits
     * change no metadata: for file systems that write in place. 0: not; n: so many lanes do this on
     * one disk, each at the n-th part of the pace. */
    uint32_t zero_fill;
    void *arg;
    /* The lane may take new messages (or could not be made: `why`). */
    void (*opened)(void *arg, struct lane *l, const struct why *why);
    /* One live message found by recovery, before `recovered`. */
    void (*found)(void *arg, struct lane *l, struct queue_msg *m);
    /* All old segments are read. */
    void (*recovered)(void *arg, struct lane *l);
    /* A message is due (state DEFERRED or READY whose time has come); it was taken off the
     * schedule. */
    void (*due)(void *arg, struct lane *l, struct queue_msg *m);
    /* Health changed; `why` has the cause in words. */
    void (*health)(void *arg, struct lane *l, enum lane_health h, const struct why *why);
    /* Closed without: the last changes of this message are not on disk; the next start finds it as
     * it was before. Inside lane_close's work, before its `closed`. */
    void (*unwritten)(void *arg, struct lane *l, uint64_t qid);
    /* A damaged record was set aside in spool/quarantine. */
    void (*damaged)(void *arg, struct lane *l, uint32_t segment, uint64_t offset, const char *what);
};

/* NULL: no memory. Progress is told by callbacks. The spool directory is locked by the caller
 * (spool_lock). */
struct lane *lane_open(const struct lane_params *p);
/*
 * Stops: refuses new transactions, commits what is appended - for close_wait_ns it tries again
 * where the disk does not take it - and seals the segment; then `closed`. Open
 * transactions must be aborted before; messages stay on disk, their owners must be NULL.
 */
void lane_close(struct lane *l, void (*closed)(void *arg), void *arg);

/* One process a spool: takes spool/lock. Also makes the directories. False fills `why`.
 * Synchronous, at start. */
bool spool_lock(struct io *io, const char *spool, int *lock, struct why *why)
    __attribute__((warn_unused_result));
/* Numbers of the lanes that are there, for adoption at start. Returns the count, or -1 and `why`.
 * Synchronous. */
int spool_lanes(struct io *io, const char *spool, uint32_t *lanes, uint32_t max, struct why *why);

enum lane_health lane_health(const struct lane *l);
/* Of lane_params. */
uint32_t lane_number(const struct lane *l);

/* ---- taking a message ---- */

enum lane_append { LANE_APPEND_OK, LANE_APPEND_WAIT, LANE_APPEND_FAILED };

/* What a message that another gateway hands over has behind it. */
struct lane_arrival {
    uint64_t next_attempt_wall_s;
    uint16_t attempts;
    bool warned, uncertain;
};

/* Embedded in the session. */
struct lane_tx {
    uint64_t qid;       /* given by lane_tx_begin */
    uint64_t body_size; /* appended so far */
    bool internal; /* set by the owner before begin: a DSN of ours; may use the room kept in reserve
                    */
    /* Set by the owner before lane_tx_commit, and kept until `done`: the message is PREPARED and
     * has this behind it. NULL: a new one, READY. */
    const struct lane_arrival *arrival;
    /* Set by the owner before begin. `resumed`: after LANE_APPEND_WAIT there is room again. `done`:
     * the commit's outcome; on success why->smtp_code is 0 and `m` is the new message. */
    void (*resumed)(struct lane_tx *tx);
    void (*done)(struct lane_tx *tx, struct queue_msg *m, const struct why *why);
    /* lane's own */
    struct lane *lane;
    uint8_t state;
    uint8_t *chunk;
    uint32_t chunk_len, extent_count, extent_cap;
    struct slice lent; /* the caller's bytes behind those of the chunk */
    struct lane_extent *extents;
    uint64_t position, position_before; /* the last two batches that have extents of it; two are
                                           not durable at most */
    struct list link;
    uint32_t first_segment;
    struct queue_msg *msg;        /* made at commit, in the index when durable */
    struct lane_final *final;     /* other message's recipients that become final with it */
    struct lane_pending *pending; /* a commit that waits for room */
    uint16_t fail_code;
};

/* Room for one more message of about size_hint bytes (0: unknown)? False fills `why` (452 4.3.1,
 * 451 4.3.0). For MAIL and DATA. */
bool lane_has_room(struct lane *l, uint64_t size_hint, struct why *why)
    __attribute__((warn_unused_result));

bool lane_tx_begin(struct lane *l, struct lane_tx *tx, struct why *why)
    __attribute__((warn_unused_result));
/*
 * Takes all of `data` (at most SESSION_RECV_BUF_SIZE bytes a call). WAIT: taken, but append no more
 * before `resumed`. FAILED: the lane cannot take it (why through lane_tx_commit later, or abort
 * now).
 */
enum lane_append lane_tx_append(struct lane_tx *tx, struct slice data);
/*
 * The same for bytes that the caller leaves where they are until lane_tx_keep, lane_tx_commit or
 * lane_tx_abort: a message that ends with them is spared a copy.
 */
enum lane_append lane_tx_lend(struct lane_tx *tx, struct slice data);
/* Takes a copy of what was lent; nothing where nothing is. */
void lane_tx_keep(struct lane_tx *tx);
/*
 * Ends the message. `env` is encoded before this returns. `done` comes later, never from inside.
 * `final_of`/`final_rcpts` (may be NULL/0): recipients of another message of this lane that become
 * final in the same atomic record - a DSN and the failure it reports (FAULTS 63). For one message
 * one at a time: the record of the next must know what the last one made final.
 */
void lane_tx_commit(struct lane_tx *tx, const struct envelope *env, struct queue_msg *final_of,
                    const uint32_t *final_rcpts, uint32_t final_rcpt_count);
/* Drops an uncommitted transaction; not allowed after lane_tx_commit. */
void lane_tx_abort(struct lane_tx *tx);

/* ---- changing a message's state ---- */
/* All append a record that becomes durable with the next commit (started by lane_turn_end); the
 * index changes at once. They never fail: room is reserved. */

/* These recipients are done (delivered, bounced, removed: `how` is for the record only). When none
 * is pending the message goes. */
enum rcpt_final_how {
    RCPT_DELIVERED = 1,
    RCPT_FAILED = 2,
    RCPT_EXPIRED = 3,
    RCPT_REMOVED = 4,
    RCPT_HANDED = 5 /* a peer has it */
};
void lane_rcpts_final(struct lane *l, struct queue_msg *m, const uint32_t *rcpts, uint32_t count,
                      enum rcpt_final_how how);
/*
 * The schedule's clock: the wall clock of when the lane was opened and the time since then, so that
 * a step of the wall clock moves no attempt (FAULTS 68).
 */
uint64_t lane_wall_s(const struct lane *l);
/* Next attempt at `wall_s` of the schedule's clock; attempts grows by one if `counted`. `error`:
 * the last error in words, kept on disk. */
void lane_defer(struct lane *l, struct queue_msg *m, uint64_t wall_s, bool counted,
                struct slice error);
/* The same for a message without a route: UNREACHABLE, looked at again at `wall_s`. */
void lane_defer_unreachable(struct lane *l, struct queue_msg *m, uint64_t wall_s,
                            struct slice error);
/* READY (due now, `due` is called soon), HELD, UNREACHABLE, POISON. */
void lane_set_state(struct lane *l, struct queue_msg *m, enum queue_state state);

/* The same with words that stand as the last error. */
void lane_set_aside(struct lane *l, struct queue_msg *m, enum queue_state state,
                    struct slice error);
/* GIVEN; `to`, whom, is kept where its next attempt would be, also when it is copied forward. The
 * words are for people, and may get lost. */
void lane_give(struct lane *l, struct queue_msg *m, uint64_t to, struct slice words);
/*
 * PREPARED ends: it is ours from now on. HELD and POISON rest; READY and DEFERRED: its next attempt
 * is due when it was due where it comes from.
 */
void lane_prepared_taken(struct lane *l, struct queue_msg *m, enum queue_state state);
/* That is durable: its next attempt may begin. */
void lane_prepared_go(struct lane *l, uint64_t qid);
/*
 * An attempt begins, or its final dot is about to be sent: so that a start after a crash knows.
 * Goes out with the next commit; every other change of state ends the attempt, but for recipients
 * that become final while others are left. Nothing happens when that much was said before.
 */
void lane_attempt(struct lane *l, struct queue_msg *m, enum queue_attempt step);

/* Embedded in the owner. */
struct lane_wait {
    /* All that was said when the wait began is durable; not ok: the lane cannot write. */
    void (*done)(struct lane_wait *w, bool ok);
    struct list link; /* lane's own, from here on */
    uint64_t batch;
};
/* `done` comes later, never from inside. */
void lane_when_durable(struct lane *l, struct lane_wait *w);
/* `done` will not come. Also when it came already, or never was asked for (list_init'ed link). */
void lane_wait_cancel(struct lane_wait *w);

/* Starts a commit if there is something to write and none is under way. Call at the end of each
 * turn. */
void lane_turn_end(struct lane *l);

/* ---- reading back ---- */

struct read_job;
struct lane_read {
    struct io_op op;
    void (*done)(struct lane_read *r,
                 int32_t res); /* bytes read (as asked), or -errno; -EBADMSG: damaged (CRC) */
    /* lane's own */
    struct lane *lane;
    struct queue_msg *msg;
    uint64_t offset;
    uint8_t *buf;
    uint32_t len, got;
    struct read_job *job;
};

/* `len` body bytes from `offset` into buf; res is len unless the body ends before. The message must
 * stay alive (owner set). */
void lane_body_read(struct lane *l, struct queue_msg *m, struct lane_read *r, uint64_t offset,
                    void *buf, uint32_t len);

/*
 * The whole body where it is in memory from its commit, to be used before anything else is asked of
 * the lane; its checksum, which is for what a disk gives back, is not looked at. Empty: it is to be
 * read.
 */
struct slice lane_body_recent(const struct lane *l, const struct queue_msg *m);

struct lane_envelope_read {
    struct lane_read read;
    /* `env` is valid while `arena` is not reset; NULL with why set: damaged or unreadable. `error`:
     * the last error in words, or empty. */
    void (*done)(struct lane_envelope_read *r, const struct envelope *env, struct slice error,
                 const struct why *why);
    struct arena *arena;
    struct envelope env;
    bool damaged; /* without `env`: reading it again will not help */
};
/* Reads and decodes the envelope into `arena` (the owner's). */
void lane_envelope_read(struct lane *l, struct queue_msg *m, struct lane_envelope_read *r,
                        struct arena *arena);

/* ---- looking at it ---- */

struct queue_msg *lane_find(struct lane *l, uint64_t qid);
/* Walks the index in slices: `*cursor` 0 to begin; NULL at the end. Messages that come or go
 * meanwhile may be seen or not, never twice. */
struct queue_msg *lane_next(struct lane *l, uint64_t *cursor);

/*
 * The same in the order on disk, for who reads what it finds: from begin to end, in slices. Copying
 * forward waits for it, so it is to end. Does not outlive the lane: lane_close ends it.
 */
struct lane_walk {
    struct list link; /* lane's own, all of it */
    struct list *at;  /* the message after the last one, or its segment's list; NULL: none */
    uint32_t segment, end_segment, end_offset;
    bool begun;
};
enum lane_walk_step {
    LANE_WALK_FOUND,
    LANE_WALK_LATER, /* not now: in another turn, soon */
    LANE_WALK_OVER
};
void lane_walk_begin(struct lane *l, struct lane_walk *w);
/* FOUND: `*m`. What came since the first call is not seen. */
enum lane_walk_step lane_walk_next(struct lane *l, struct lane_walk *w, struct queue_msg **m)
    __attribute__((warn_unused_result));
void lane_walk_end(struct lane_walk *w);

struct lane_stats {
    uint64_t messages, bytes; /* live now */
    uint64_t by_state[QUEUE_STATES];
    uint64_t segments, segment_bytes;
    uint64_t appended_bytes, body_bytes, commits, syncs, sync_ns_total, sync_failed,
        commit_waiters_max;
    uint64_t damaged, recovered, copied_forward_bytes;
    uint64_t uploads_cut; /* transactions that gave way because room was short */
};
const struct lane_stats *lane_stats(const struct lane *l);

/* What is left for new mail, apart from what is kept for changes of state. */
struct lane_space {
    uint64_t spool_left, spool_limit; /* of bytes_max; limit 0: there is none */
    uint64_t disk_left;               /* above disk_free_min; UINT64_MAX: not known */
    uint64_t inodes_left;
};
void lane_space(struct lane *l, struct lane_space *out);

#endif
