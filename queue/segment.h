/*
 * queue/segment.h - the segments of a lane in memory: who needs them, and when one may go
 * (FORMAT.md section 7). No I/O.
 */
#ifndef HIKYAKU_QUEUE_SEGMENT_H
#define HIKYAKU_QUEUE_SEGMENT_H

#include "gateway/base/list.h"
#include "queue/queue.h"
#include "queue/record.h"

enum segment_state {
    SEGMENT_OPEN,    /* is being appended to */
    SEGMENT_CLOSING, /* full; its last batch or its summary is being written */
    SEGMENT_SEALED,
    SEGMENT_FAILED, /* a write or sync failed: as it stands */
    SEGMENT_OLD,    /* of an earlier run, not yet read by recovery */
    SEGMENT_DYING   /* being removed */
};

struct segment {
    uint32_t id;
    uint8_t state; /* enum segment_state */
    uint32_t seed;
    uint64_t bytes; /* of the file */
    uint64_t qid_limit;
    uint64_t written;      /* so far its blocks are there, and were not only allocated */
    uint32_t tail;         /* where the next record goes */
    uint32_t record_index; /* of the next record */
    uint32_t live;         /* messages whose [first_segment, segment] holds it */
    uint32_t state_live;   /* messages whose newest state record is here */
    uint64_t live_bytes;   /* of MESSAGE records of live messages, and a share of their extents */
    uint32_t own;          /* live messages whose MESSAGE record is here */
    uint32_t large;        /* those of them that have extents */
    uint32_t pins;         /* open transactions whose first extent is here */
    uint64_t quiet_batch;  /* the batch whose records made it less needed must be durable */
    uint32_t *deps;        /* ids of segments that must be gone before this one may go, ascending */
    uint32_t dep_count, dep_cap;
    bool deps_all;        /* no memory for the list: all older ones */
    bool held;            /* scratch of compact.c */
    bool restate;         /* scratch of restate.c */
    bool unreadable;      /* a record in it is damaged: not emptied by copying */
    bool unread;          /* not all of it is known: nothing from it on is deleted in this run */
    bool headless;        /* not even its header: only its place in the order is known */
    bool strays;          /* may hold copies that no one knows of: nothing younger goes before it */
    struct list messages; /* struct queue_msg by segment_link; those with extents in older segments
                             first */
    /* while it is read at start */
    uint8_t *entries; /* of a segment that had to be scanned: as in a summary */
    uint32_t entries_len, entries_cap;
    uint32_t summary_offset, summary_count;
    bool scanned;
    /* files, lane's own */
    int32_t write_fd, read_fd;
    uint32_t read_users;
    bool read_opening;
    struct list read_link;    /* least recently used first */
    struct list read_waiters; /* struct lane_read by its link */
    struct io_op read_op;
    char *read_path;
    struct lane *lane;
};

struct segments {
    struct segment **items; /* ascending ids */
    uint32_t count, cap;
};

/* A new one with nothing in it, not yet in a table. NULL: no memory. */
struct segment *segment_create(uint32_t id, uint64_t bytes);
void segment_destroy(struct segment *s);

/* False: no memory. */
bool segments_add(struct segments *t, struct segment *s) __attribute__((warn_unused_result));
struct segment *segments_find(const struct segments *t, uint32_t id);
/* The place in `items` of the first with at least this id; t->count: there is none. */
uint32_t segments_from(const struct segments *t, uint32_t id);
void segments_destroy(struct segments *t);

/* A message came (+1) or went (-1): all segments from first to last. `batch`: the batch that says
 * so. */
void segments_cover(struct segments *t, uint32_t first, uint32_t last, int change, uint64_t batch);
/* The newest state record moved from one segment to another; 0: from or to nowhere. */
void segments_state_moved(struct segments *t, uint32_t from, uint32_t to, uint64_t batch);
/* A live message's place is known: into the list and the counters of its segment and of those that
 * may have its extents. */
void segments_own(const struct segments *t, struct queue_msg *m);
/* It is no longer there; the caller takes it off its list. */
void segments_disown(const struct segments *t, const struct queue_msg *m);
/* Bytes of its EXTENT records. */
uint64_t segment_extent_bytes(const struct queue_msg *m);
/* `s` has a record that voids something in segment `on`. */
void segment_depend(const struct segments *t, struct segment *s, uint32_t on);
/* `s` takes over all that `from` depends on. */
void segment_depend_like(const struct segments *t, struct segment *s, const struct segment *from);
/* What was to be quiet with a batch of at least `from` is so with `to` only. */
void segments_requiet(struct segments *t, uint64_t from, uint64_t to);
/* It is durably gone: drops it, frees it, and every dependence on it. */
void segments_forget(struct segments *t, struct segment *s);
/* The first segment from position `*at` on that may go, or NULL; `*at` moves behind it. */
struct segment *segments_next_dead(const struct segments *t, uint32_t *at, uint64_t durable_batch);

#endif
