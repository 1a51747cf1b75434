/*
 * queue/read_internal.h - one read from segments, shared by its files: read.c gets records,
 * read_body.c puts a body together from them, read_envelope.c decodes envelopes.
 */
#ifndef HIKYAKU_QUEUE_READ_INTERNAL_H
#define HIKYAKU_QUEUE_READ_INTERNAL_H

#include "queue/lane_internal.h"

/* From the call of a read to its `done`. */
struct read_job {
    struct lane_read *read;
    struct list link;   /* segment->read_waiters */
    struct timer timer; /* what needs no disk: for the next turn */
    uint64_t qid;
    /* the fetch under way, or the last one */
    void (*got)(struct lane_read *r, struct slice bytes);
    struct segment *segment;
    uint32_t offset, want, filled; /* filled: bytes of `want` that came already */
    int32_t result;                /* told by the timer */
    uint8_t *bytes;
    uint32_t cap;
    /* read_body.c */
    struct record_message head;
    struct lane_extent *extents; /* of the pieces from first_extent on */
    uint32_t first_extent, extent_count;
    uint32_t list_segment, list_offset; /* where the list of extents came from */
    /* read_envelope.c */
    uint32_t hops;
    struct arena *words_arena; /* NULL: the words are the caller's to free */
};

/* Begins a read of what belongs to `qid`, with no bytes yet; `m`: NULL where it is not looked at.
 */
void read_begin(struct lane *l, struct queue_msg *m, uint64_t qid, struct lane_read *r);
/*
 * Reads `want` bytes at `offset` of a segment, for `got`, which is never called from here. It may
 * get fewer: of a file that was cut, or a record that is whole in memory.
 */
void read_fetch(struct lane_read *r, void (*got)(struct lane_read *r, struct slice bytes),
                uint32_t segment, uint32_t offset, uint32_t want);
/* The payload of a whole good record of this job's message, or an empty slice. */
struct slice read_payload(const struct read_job *j, struct slice bytes, struct record_header *h);
/* Ends the read: r->done gets `res`, now or with the next turn. */
void read_finish(struct lane_read *r, int32_t res);
void read_finish_later(struct lane_read *r, int32_t res);
/* Ends it with -EBADMSG; what was fetched is told and set aside. */
void read_damaged(struct lane_read *r);

#endif
