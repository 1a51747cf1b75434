/*
 * queue/torn.h - messages of a commit that never ended: FORMAT.md section 5, row M15. No I/O.
 */
#ifndef HIKYAKU_QUEUE_TORN_H
#define HIKYAKU_QUEUE_TORN_H

#include "queue/record.h"

#define TORN_STRETCHES_MAX 64u
#define TORN_SUSPECTS_MAX  256u

struct torn {
    uint16_t batch; /* of the last good record */
    uint32_t zone;  /* end of the batch before: what is damaged behind it may be of this one */
    uint32_t end;   /* of the last good record */
    struct {
        uint32_t at, end;
    } bad[TORN_STRETCHES_MAX];
    uint32_t bad_count;
    uint32_t suspects[TORN_SUSPECTS_MAX]; /* the caller's names for messages of this batch */
    uint32_t suspect_count;
};

void torn_begin(struct torn *t);
/* What the scan tells, in its order. */
void torn_damage(struct torn *t, uint32_t at, uint32_t len);
/* True: a MESSAGE, and what is damaged of its own batch may be an extent of it. */
bool torn_record(struct torn *t, uint32_t segment, const struct record_header *h,
                 struct slice payload, uint32_t offset) __attribute__((warn_unused_result));
/* The caller's name for it; forgotten when a later batch shows that this one was durable. */
void torn_suspect(struct torn *t, uint32_t name);

#endif
