/*
 * queue/lane_internal.h - what the files of a lane share: its parts, and who calls whom.
 *
 *   lane.c     life, times and lookups of it all; lane_room.c how much fits, and its health
 *   tx.c       takes messages, tx_commit.c ends them -> commit_room
 *   state.c    changes their state      -> commit_room, or the stash when there is none
 *   commit.c   batches, one write and one sync each, waiters; rolls to the next segment;
 *              commit_fail.c when one fails; durable.c those who wait for all of it
 *   prepare.c  makes or recycles segments ahead, fill.c writes zeros into them; reap.c removes dead
 *              ones; seal.c writes summaries;
 *              compact.c copies old messages forward, large.c those with extents, restate.c states
 *   recover.c  finds old segments at start; leftover.c removes what is none; contents.c reads them,
 *              unsealed.c those without a summary; replay.c decides what a record means, tell.c
 *              when a message may be told of, census.c counts the records to come
 *   torn.c     messages of a commit that never ended
 *   read.c     gets records, read_body.c bodies, read_envelope.c envelopes; quarantine.c sets
 *              damaged bytes aside
 *   walk.c     all messages in the order on disk
 */
#ifndef HIKYAKU_QUEUE_LANE_INTERNAL_H
#define HIKYAKU_QUEUE_LANE_INTERNAL_H

#include "queue/index.h"
#include "queue/pace.h"
#include "queue/queue.h"
#include "queue/record.h"
#include "queue/schedule.h"
#include "queue/segment.h"

#define LANE_PATH_MAX        512u
#define LANE_INODES_MIN      16u /* fewer are free: no new segment */
#define COMMIT_BATCHES       8u  /* one fills, one is written, the others may be read from */
#define COMMIT_RESERVE       (COMMIT_BUF_SIZE / 8) /* of a buffer, for state records */
#define COMMIT_EARLY_BYTES   (COMMIT_BUF_SIZE / 4) /* written although nobody waits yet */
#define COMMIT_STATE_NS      (50 * NS_PER_MS)      /* a state record nobody waits for */
#define PREPARE_RETRY_NS     (1 * NS_PER_S)
#define PREPARE_RETRY_NS_MAX (30 * NS_PER_S)
#define DUE_PER_TURN_MAX     256u
#define DUE_BUSY_S           1u  /* a due message that somebody works on is looked at again */
#define SCHEDULE_CHECK_S     60u /* the wall clock may have been set */
#define READ_FDS_MAX         64u
#define REAP_BATCH           32u
#define REAP_CHECK_NS        (10 * NS_PER_MS) /* a look over all segments */
#define RECYCLE_STOCK_MAX    2u
#define COMPACT_SLOTS        16u
#define COMPACT_OWED_MAX     16u
#define REPLAY_SLICE         2048u /* records, or found messages, a turn */

/* queue_msg.flags */
enum {
    MSG_HIDDEN = 1,       /* recovery has not told of it yet */
    MSG_LOCKED = 2,       /* a DSN that ends some of its recipients waits for its commit */
    MSG_DIRTY = 4,        /* changed while locked */
    MSG_DOOMED = 8,       /* over; freed when nobody owns it */
    MSG_ENDED = MSG_DIRTY /* while HIDDEN: a report ended it; a later state takes that back */
};

enum tx_state {
    TX_NONE,
    TX_OPEN,
    TX_WAIT_EXTENT, /* has a full chunk and no room */
    TX_WAIT_COMMIT, /* `pending` has no room */
    TX_COMMITTED,   /* in a batch */
    TX_FAILED,      /* something of it is lost; the owner does not know yet */
    TX_FAILING      /* `done` is about to be called */
};

struct lane_pending {
    struct record_message head;
    size_t envelope_len;
    uint8_t envelope[];
};

struct lane_final {
    struct queue_msg *parent;
    uint32_t count;
    uint32_t rcpts[];
};

/* A buffer, and where it is the last of its batch, its waiters. */
struct batch {
    uint8_t *data;
    uint32_t len, base;    /* base: offset in the segment */
    uint32_t extent_bytes; /* of len: parts of bodies */
    struct segment *segment;
    uint64_t number;
    uint32_t kept;       /* written, still whole in memory: id of its segment, else 0 */
    struct list waiters; /* struct lane_tx */
    uint32_t waiter_count;
    bool closed; /* takes no more */
    bool urgent; /* the state timer ran out */
    bool part;   /* written without a sync: the next buffer is of the same batch */
};

/* A state record that found no room, written when there is. */
struct stashed {
    uint64_t qid;
    uint32_t segment; /* gone: where its older copy may be */
    bool gone;
};

struct summary {
    uint8_t *data;
    uint32_t len, cap;
    uint32_t record_at; /* the SUMMARY record being filled */
    uint32_t record_count;
    bool lost; /* no memory: the segment is sealed without one */
    bool busy;
};

/* A file being made ready to be the next segment. */
struct prepare {
    struct io_op op;
    struct segment *segment; /* NULL: idle */
    int32_t fd;
    uint8_t step;
    bool recycled;
    int32_t error;
    uint8_t *block; /* SEGMENT_BLOCK, aligned */
    char path[LANE_PATH_MAX], final_path[LANE_PATH_MAX];
};

/* Zeros that go into the spare. */
struct spare_fill {
    struct io_op op;
    struct timer timer;
    bool running, syncing;
    bool given_up;     /* the segment `id` */
    uint32_t id;       /* of the segment that was last written to */
    uint32_t len;      /* of the write under way */
    uint32_t unsynced; /* bytes */
    uint8_t *zeros;    /* FILL_BYTES, aligned */
};

struct seal {
    struct io_op op;
    struct segment *segment; /* NULL: idle */
    struct summary *summary;
    uint32_t at;
    uint8_t step;
    bool closed; /* by lane_close */
    uint8_t *block;
};

struct reap {
    struct io_op op;
    bool running;
    uint8_t step;
    uint64_t next_check_ns;
    uint32_t count, next;
    struct segment *dead[REAP_BATCH];
    bool keep[REAP_BATCH]; /* to be recycled */
    char path[LANE_PATH_MAX], to[LANE_PATH_MAX];
};

/* A message being copied forward; qid 0: free. */
struct compact_slot {
    struct lane_read read;
    uint64_t qid, batch;
    uint32_t from, from_offset, to_first, to, to_offset, to_size; /* to_first: of its extents */
    uint32_t state_segment, state_offset;                         /* when the copy was made */
    bool reading;
};

enum large_step {
    LARGE_IDLE,
    LARGE_RECORD, /* its MESSAGE record is being read */
    LARGE_READ,   /* an extent is */
    LARGE_APPEND, /* the extent waits for room */
    LARGE_SYNC,   /* all extents are appended, and to be durable before the MOVED */
    LARGE_MOVED   /* the MOVED is in a batch */
};

/* A message with extents being copied forward. */
struct compact_large {
    struct compact_slot slot;
    uint8_t step;            /* enum large_step */
    bool stop;               /* when the read under way is done */
    uint8_t *record, *bytes; /* its MESSAGE record; the EXTENT record in hand */
    struct record_message_view view;
    struct lane_extent *extents;        /* the new ones */
    uint32_t count;                     /* of those */
    uint64_t position, position_before; /* as in struct lane_tx */
};

/*
 * A MOVED with extents whose batch failed: it may be on disk, and a start would believe it. Its
 * extents are kept until something younger says where the message is, or that it is over.
 */
struct compact_owed {
    uint64_t qid;
    uint32_t first, last;
    bool stuck; /* the message cannot be read: until the next start */
};

struct compact {
    struct compact_slot slots[COMPACT_SLOTS];
    struct compact_large large;
    struct compact_owed owed[COMPACT_OWED_MAX];
    uint32_t owed_count;
    uint32_t running;
    uint32_t from;   /* the segment being emptied, 0: none */
    uint32_t passed; /* nothing of it could be moved at the last look */
    bool blocker;    /* `from` is emptied for those that wait for it, however much of it is live */
    uint64_t next_check_ns;
};

/* The newest state of messages written again, see restate.c. */
struct restate {
    struct lane_read read;
    uint64_t qid, cursor, next_check_ns;
    uint32_t segment, offset; /* where the state was when its words were asked for */
    bool walking, reading;
};

struct recover;

struct lane {
    struct lane_params p;
    struct io *io;
    char *spool;
    char dir[LANE_PATH_MAX];
    int32_t dir_fd;
    enum lane_health health, health_told;
    struct why health_why;
    bool is_open, closing, recovering, open_told;
    uint64_t opened_ns, opened_wall_ns; /* see lane_wall_s */
    struct why open_why;                /* code set: the lane could not be opened */
    bool full;

    struct slab msg_slab, chunk_slab;
    struct index index;
    struct schedule schedule;
    struct segments segments;
    struct list doomed;
    struct list walks; /* struct lane_walk */
    struct lane_stats stats;

    uint64_t qid_next;   /* sequence part */
    bool found_unclosed; /* the run before this one did not end in lane_close */
    uint32_t segment_next;
    uint32_t unread_last; /* the youngest segment that could not be read, 0: none */

    /* commit.c */
    struct segment *open; /* NULL: none; state goes to the stash */
    struct batch batch[COMMIT_BATCHES];
    struct batch *filling, *writing;
    uint64_t batch_next, batch_durable;
    uint32_t unsynced; /* bytes of the batch that fills, in buffers before this one */
    struct io_op commit_op;
    uint64_t commit_started_ns;
    struct pace pace;
    uint32_t failed_in_row;
    bool paused; /* stopped: no segment is opened before prepare_timer fires */
    int32_t last_error;
    struct timer state_timer;
    /* struct lane_tx that found no room, first come first served: messages, then parts of bodies */
    struct list waiting, waiting_extents;
    struct list extent_txs;    /* open ones with extents */
    struct list failing;       /* their `done` is called by soon_timer */
    struct list durable_waits; /* struct lane_wait */
    struct timer soon_timer;
    struct stashed *stash;
    uint32_t stash_count, stash_cap;
    uint32_t dirty_count; /* messages with MSG_DIRTY */
    struct summary summary[2];
    struct summary *open_summary;

    /* prepare.c, fill.c, seal.c, reap.c */
    struct segment *spare; /* ready to be opened */
    struct prepare prepare;
    struct spare_fill fill;
    struct timer prepare_timer;
    uint64_t prepare_pause_ns;
    uint64_t disk_free_bytes, disk_inodes, disk_checked_ns;
    struct seal seal;
    struct reap reap;
    struct compact compact;
    struct restate restate;
    uint32_t stock[RECYCLE_STOCK_MAX];         /* ids of .tmp files to be used again */
    uint64_t stock_written[RECYCLE_STOCK_MAX]; /* struct segment.written of each */
    uint32_t stock_count;

    struct recover *recover;
    struct timer due_timer;
    struct list read_lru; /* struct segment with an open read_fd and no user */
    uint32_t read_fd_count, reads_running, quarantine_running;
    uint32_t tx_count;

    void (*closed)(void *arg);
    void *closed_arg;
    uint64_t close_until_ns; /* what is stashed is told to be unwritten then */
};

/* ---- lane.c ---- */
/*
 * The id under which this lane keeps what a record calls `qid`: a lane that was copied in brings
 * the number of another (FORMAT.md D8).
 */
static inline uint64_t lane_qid(const struct lane *l, uint64_t qid)
{
    return (uint64_t)l->p.lane << QID_SEQUENCE_BITS | (qid & QID_SEQUENCE_MASK);
}
void lane_path(const struct lane *l, uint32_t segment, const char *suffix, char out[LANE_PATH_MAX]);
void lane_close_step(struct lane *l);
void lane_soon(struct lane *l);
/* There is a segment, or none can be had: the lane takes part from now on. */
void lane_opened(struct lane *l);
/* l->open_why is set: tells the owner soon. */
void lane_open_failed(struct lane *l);
/* Into index and counters; the memory was reserved. */
void lane_msg_live(struct lane *l, struct queue_msg *m);
void lane_msg_free(struct lane *l, struct queue_msg *m);
void lane_due_arm(struct lane *l);
void lane_due_fire(struct timer *t);

/* ---- lane_room.c ---- */
void lane_health_update(struct lane *l);
void lane_health_tell(struct lane *l);
/* Bytes that new mail may still take, the reserve not counted. */
uint64_t lane_room(struct lane *l, bool internal);
uint64_t lane_reserve(const struct lane *l);
/* May another segment file be made? */
bool lane_may_grow(struct lane *l);
/* Of all segment files, those in stock or being made too. */
uint64_t lane_files_bytes(const struct lane *l);
/* What the last failure was. */
const char *lane_error_words(const struct lane *l);

/* ---- commit.c ---- */
/*
 * Room for a record of `len` bytes (rounded by the caller) in the batch that fills; NULL: not now.
 * `state` may use what is kept for state records. The record must be finished with commit_record
 * before anything else happens.
 */
uint8_t *commit_room(struct lane *l, uint32_t len, bool state) __attribute__((warn_unused_result));
/*
 * The same for a part of a body, for which nobody waits yet: it gets no room where
 * COMMIT_PART_BYTES of such parts are in the buffer, or where many messages share it or none is
 * written without a sync, as many as pace.h says. So a message beside large ones waits for a short
 * write, and for one more.
 */
uint8_t *commit_room_extent(struct lane *l, uint32_t len, bool state)
    __attribute__((warn_unused_result));
/* Somebody has found no room. */
bool commit_awaited(const struct lane *l);
/* Seals the record at `at` (from commit_room), gives it its sequence, notes it for the summary.
 * Returns its offset. */
uint32_t commit_record(struct lane *l, uint8_t *at, uint8_t type, uint64_t qid,
                       uint32_t payload_len);
/* Nothing will come free without help: do not wait. */
bool commit_is_hopeless(const struct lane *l);
void commit_kick(struct lane *l);
void commit_progress(struct lane *l); /* waiting transactions, stash */
void commit_open_segment(struct lane *l);
/* Goes on to a spare that is filled, from a segment that is not. */
void commit_roll_early(struct lane *l);
/* The batch that says what changes now; a stashed record has none yet. */
uint64_t commit_quiet(const struct lane *l);
void commit_state_timer(struct timer *t);
/*
 * These bytes of a segment, when a batch that lies in memory has them, be it durable or not; else
 * an empty slice. A record never spans batches: fewer than asked for are still all of the record.
 */
struct slice commit_recent(const struct lane *l, uint32_t segment, uint32_t offset, uint32_t len);
uint64_t commit_number(const struct lane *l); /* of the batch that takes the next record */
bool commit_idle(const struct lane *l);
/* Something of the batch that fills is in memory, or written and not synced. */
bool commit_has_begun(const struct lane *l);
/* The batch that fills is empty and new, in this buffer. */
void commit_batch_begin(struct lane *l, struct batch *b);

/* ---- commit_fail.c ---- */
/* `b` was written or synced with the error `res`, and is no longer l->writing. */
void commit_failed(struct lane *l, struct batch *b, int32_t res);

/* ---- durable.c ---- */
/* Waits for what is in this batch go on waiting: it failed and is written again. */
void durable_requeue(struct lane *l, uint64_t batch);
/* Tells those whose batch is durable, or can never be. */
void durable_check(struct lane *l);

/* ---- summary.c ---- */
void summary_begin(struct summary *s);
void summary_add(struct summary *s, const struct record_digest *d);
/* Bytes on disk with one more entry of `entry` bytes. */
uint32_t summary_bytes(const struct summary *s, uint32_t entry);

/* ---- tx.c ---- */
/* Tries again for one that waits. False: still no room. */
bool tx_retry(struct lane *l, struct lane_tx *tx);
static inline bool tx_has_bytes_in(const struct lane_tx *tx, uint64_t batch)
{
    return tx->extent_count && (tx->position == batch || tx->position_before == batch);
}
/* Tells the owner later that it failed. */
void tx_fail(struct lane *l, struct lane_tx *tx, uint16_t code);
/* Open transactions with extents in this batch. */
void tx_fail_extents(struct lane *l, uint64_t batch);
void tx_report_failing(struct lane *l);
/* Gives back what it holds of the body: memory, and the first segment. */
void tx_drop_data(struct lane *l, struct lane_tx *tx);
/* Room is short: an upload that keeps too many segments from going gives way. */
void tx_relieve(struct lane *l);

/* ---- tx_commit.c ---- */
/* tx_retry for one whose record had no room. */
bool tx_commit_retry(struct lane *l, struct lane_tx *tx);
/* The batch with its record is synced: the message is there, and its owner hears it. */
void tx_durable(struct lane *l, struct lane_tx *tx);

/* ---- state.c ---- */
void state_append(struct lane *l, struct queue_msg *m, uint8_t type, uint8_t how,
                  struct slice error);
/* Writes the block for `m` into `out` with these recipients final as well; returns its size. */
uint32_t state_block_size(const struct queue_msg *m, const struct lane_final *f);
uint32_t state_block(struct lane *l, uint8_t *out, const struct queue_msg *m,
                     const struct lane_final *f, uint8_t how);
/* The index after a DSN in that record became durable, or failed. */
void state_final_applied(struct lane *l, struct lane_final *f, const struct queue_msg *dsn);
void state_final_failed(struct lane *l, struct lane_final *f);
/* The state as it is, once more. False: no room. */
bool state_again(struct lane *l, struct queue_msg *m, struct slice error)
    __attribute__((warn_unused_result));
void state_stash(struct lane *l, uint64_t qid, bool gone, uint32_t segment);
/* False: no room for all. */
bool state_unstash(struct lane *l);
bool state_mark_final(struct queue_msg *m, uint32_t rcpt);
void state_over(struct lane *l, struct queue_msg *m);
void state_free_doomed(struct lane *l);
bool state_bits_alloc(struct queue_msg *m);
void state_bits_free(struct queue_msg *m);

/* ---- fill.c ---- */
bool fill_init(struct lane *l) __attribute__((warn_unused_result));
/* `written` of a segment that is used again, of which so much was. */
uint64_t fill_recycled(const struct lane *l, uint64_t written);
/* There is a spare. */
void fill_kick(struct lane *l);
/* The open segment has few records and is not filled; the spare is. */
bool fill_wants_roll(struct lane *l);

/* ---- prepare.c, seal.c, reap.c ---- */
bool prepare_init(struct lane *l);
void prepare_kick(struct lane *l);
void prepare_timer_fire(struct timer *t);
/* The timer, behind a pause that grows. */
void prepare_later(struct lane *l);
void seal_start(struct lane *l, struct segment *s, struct summary *summary);
void reap_kick(struct lane *l);
/* The same, now and then: for the end of every turn. */
void reap_look(struct lane *l);
/*
 * Each of the two renames and syncs the directory while the other does not: a sync that fails may
 * forget, for good, what others renamed before it, and their own would say nothing of it.
 */
bool reap_is_naming(const struct lane *l);
bool prepare_is_naming(const struct lane *l);
/* The reaper is through with names. */
void prepare_go_on(struct lane *l);

/* ---- compact.c ---- */
void compact_kick(struct lane *l);
/* The batch ended: what was copied with it counts, or not. */
void compact_batch(struct lane *l, uint64_t batch, bool durable);
/* Appends the MOVED record; extents as many as the message has. False: no room. */
bool compact_append(struct lane *l, struct compact_slot *slot, struct queue_msg *m,
                    const struct record_message_view *v, const struct lane_extent *extents);
/* The copy is durable: the message is there now. */
void compact_moved(struct lane *l, const struct compact_slot *slot);

/* Less than a half of the segments' bytes is live. */
bool compact_is_wanted(const struct lane *l);

/* ---- restate.c ---- */
/* Goes on with it; `may` is false while nothing is to be written. */
void restate_kick(struct lane *l, bool may);

/* ---- large.c ---- */
/* A message with extents in `s` is copied forward, unless one is already. False: there is none. */
bool large_start(struct lane *l, struct segment *s);
/* The same for one of `owed`. */
void large_owed(struct lane *l);
/* Goes on with it; `may` is false while nothing is to be copied. */
void large_kick(struct lane *l, bool may);
void large_batch(struct lane *l, uint64_t batch, bool durable);
void large_free(struct lane *l);

/* ---- walk.c ---- */
/* Out of its segment's list. */
void walk_unlink(struct lane *l, struct queue_msg *m);
/* Is this segment still to be seen by a walk? */
bool walk_is_ahead(const struct lane *l, uint32_t segment);
void walk_end_all(struct lane *l);

/* ---- recover.c, replay.c ---- */
void recover_start(struct lane *l);
/* The lane is open; now the old segments are read. */
void recover_contents(struct lane *l);
bool recover_stopped(const struct lane *l);
void recover_destroy(struct lane *l);
enum replay_result { REPLAY_OK, REPLAY_DAMAGED, REPLAY_NO_MEMORY };
/* `touched`: the message that the record is about, when it lives behind it and was not told yet. */
enum replay_result replay_record(struct lane *l, struct segment *s, const struct record_digest *d,
                                 struct queue_msg **touched);

/* ---- read.c, read_envelope.c, quarantine.c ---- */
/* The whole record, checked: `done` gets its length and r->buf, which the caller frees. */
void read_message_record(struct lane *l, struct queue_msg *m, struct lane_read *r);
void read_extent_record(struct lane *l, uint64_t qid, struct lane_extent e, struct lane_read *r);
/* The last error in words, or nothing: `done` gets their length and r->buf, which the caller
 * frees; inside the call where there is nothing to be read. */
void read_words(struct lane *l, struct queue_msg *m, struct lane_read *r);
void read_forget_segment(struct lane *l, struct segment *s);
/* Counts and tells. */
void quarantine_tell(struct lane *l, uint32_t segment, uint64_t offset, const char *what);
/* Copies the bytes to spool/quarantine. */
void quarantine_copy(struct lane *l, const struct segment *s, uint32_t offset, uint32_t len);
/* Tells, and copies them. */
void quarantine_region(struct lane *l, const struct segment *s, uint32_t offset, uint32_t len,
                       const char *what);

#endif
