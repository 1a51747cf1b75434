/*
 * queue/scan.h - walks the records of a segment without a usable summary: FORMAT.md section 5, rows
 * R1 to R10. No I/O.
 */
#ifndef HIKYAKU_QUEUE_SCAN_H
#define HIKYAKU_QUEUE_SCAN_H

#include "queue/record.h"

struct scan {
    uint32_t seed, segment;
    uint32_t end; /* where records cannot be: the segment's size */
    /* its own */
    uint32_t at;       /* next byte to look at */
    uint64_t expected; /* next sequence */
    bool searching;
    uint32_t bad_at;  /* where the damage begins */
    uint32_t bad_end; /* what is known to belong to it */
    bool bad_header, bad_ours;
    uint16_t bad_batch, last_batch;
};

enum scan_result {
    SCAN_RECORD,  /* `header` and `payload` */
    SCAN_DAMAGED, /* `damage_at`, `damage_len`, `what` */
    SCAN_NEED, /* call again with bytes from `need_at` on, at least `need_len` of them or up to the
                  end */
    SCAN_END
};

struct scan_event {
    struct record_header header;
    struct slice payload; /* in the window */
    uint32_t offset;
    uint32_t damage_at, damage_len;
    const char *what;
    uint32_t need_at, need_len;
};

void scan_begin(struct scan *s, uint32_t segment, uint32_t seed, uint64_t segment_bytes);
/*
 * One step. `window` are the segment's bytes from `window_at` on, which must not lie behind the
 * last need_at (4096 before the first); bytes that a file shorter than the segment lacks count as
 * zeros.
 */
enum scan_result scan_next(struct scan *s, uint32_t window_at, struct slice window,
                           struct scan_event *out);

#endif
