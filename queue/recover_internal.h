/*
 * queue/recover_internal.h - one recovery, shared by its files: recover.c finds the files and reads
 * their headers, leftover.c removes what is no segment, contents.c reads what is in them,
 * unsealed.c scans those without a usable summary, tell.c knows when a message may be told of.
 */
#ifndef HIKYAKU_QUEUE_RECOVER_INTERNAL_H
#define HIKYAKU_QUEUE_RECOVER_INTERNAL_H

#include "queue/census.h"
#include "queue/lane_internal.h"
#include "queue/scan.h"
#include "queue/torn.h"

#define RECOVER_TRIES        3u /* more of an open or a read that fails */
#define RECOVER_READ_BYTES   ((uint32_t)MIB)
#define RECOVER_WINDOW_BYTES (RECORD_BYTES_MAX + (uint32_t)MIB)

enum recover_phase {
    RECOVER_OPEN_PARENT,
    RECOVER_SYNC_PARENT,
    RECOVER_OPEN_DIR,
    RECOVER_OPEN_HEADER,
    RECOVER_READ_HEADER,
    RECOVER_MOVE_AWAY, /* or removed, when it is empty */
    RECOVER_LEFTOVER,  /* see leftover.c */
    RECOVER_CONTENTS,  /* see enum contents_step */
    RECOVER_OVER
};

enum contents_step {
    CONTENTS_PAUSE, /* by timer */
    CONTENTS_OPEN,
    CONTENTS_FOOTER,
    CONTENTS_SUMMARY,
    /* unsealed.c */
    CONTENTS_SCAN,
    CONTENTS_REOPEN, /* for writing */
    CONTENTS_REREAD, /* the last batch */
    CONTENTS_REWRITE,
    CONTENTS_SYNC
};

enum contents_pass {
    PASS_COUNT,  /* which messages have records behind their MESSAGE */
    PASS_REPLAY, /* all records in order; a message is told when its last one was */
    PASS_TELL    /* what is left */
};

struct recover {
    struct lane *lane;
    struct io_op op;
    struct timer timer;
    uint8_t phase, step, pass;
    bool running; /* op or timer is */
    bool failed;
    uint32_t *ids, *tmps;
    uint32_t id_count, id_cap, tmp_count, tmp_cap;
    uint32_t at; /* into ids, tmps, or the table of segments */
    int32_t fd;
    /* contents */
    struct segment *segment;
    struct census census;
    uint64_t hidden; /* messages not told yet */
    uint32_t summary_left, summary_at;
    uint32_t entries_at;  /* in segment->entries */
    uint32_t replayed_to; /* offset in the segment: entries up to it were replayed */
    struct scan scan;
    struct torn torn;
    bool sealed; /* the segment has a footer: all of it was durable */
    struct list untold;
    uint8_t *window;
    uint32_t window_at, window_len, window_want;
    uint32_t tries; /* of what failed last */
    bool cleared, made_room;
    char path[LANE_PATH_MAX], to[LANE_PATH_MAX];
};

/* No memory, or a format of the future: recovery ends here. */
void recover_fail(struct recover *r, const char *what, int32_t error);
/* A place in the table for a segment of which nothing is known; `reason` is told. False: failed. */
bool recover_hold_place(struct recover *r, uint32_t id, const char *reason);
/* All segments are in the table, the leftovers gone: the lane can open. */
void recover_headers_over(struct recover *r);

/* ---- leftover.c ---- */
void leftover_start(struct recover *r);
void leftover_done(struct recover *r, int32_t res);

/* ---- contents.c ---- */
/* Goes on with the next turn. */
void contents_pause(struct recover *r);
/* The old segment at r->at or the first behind it, NULL: there is none. */
struct segment *contents_old_segment(struct recover *r);
/* `len` bytes from `from` on into the window, which `step` looks at. */
void contents_read(struct recover *r, uint8_t step, uint32_t from, uint32_t len);
/* What the window still lacks of window_want. */
void contents_read_rest(struct recover *r);
/* A read ended. False: it was cut short, and the rest is read before anybody looks. */
bool contents_is_read(struct recover *r, int32_t res) __attribute__((warn_unused_result));
void contents_close(struct recover *r);
/* On to the next segment. */
void contents_segment_over(struct recover *r);
/* What it holds is not all known: it stays as it is, for another start or for people. */
void contents_segment_unread(struct recover *r, int32_t error);

/* ---- unsealed.c ---- */
/* Scans the segment, which is open; its records are counted in the pass that counts. */
void unsealed_begin(struct recover *r);
/* A step of the scan ended well, or failed and is tried again. */
void unsealed_done(struct recover *r, int32_t res);
void unsealed_again(struct recover *r);
/* Replays a slice of what the scan kept. */
void unsealed_replay(struct recover *r);

/* ---- tell.c ---- */
/* Something of a message, other than its MESSAGE, is to come. */
void tell_count(struct recover *r, const struct record_digest *d);
/* The record's turn has come. False: no memory, recovery is over. */
bool tell_replay(struct recover *r, const struct record_digest *d)
    __attribute__((warn_unused_result));
/* A slice of those whose records were not as counted. True: all are told. */
bool tell_rest(struct recover *r) __attribute__((warn_unused_result));

#endif
