/*
 * queue/index.h - the live messages of a lane by queue id: linear hashing, one bucket split an
 * insert, so no insert is slow.
 */
#ifndef HIKYAKU_QUEUE_INDEX_H
#define HIKYAKU_QUEUE_INDEX_H

#include "queue/pages.h"
#include "queue/queue.h"

struct index {
    struct pages buckets;
    uint32_t bucket_count; /* in use; the upper ones of a level are split off one by one */
    uint64_t count;
};

bool index_init(struct index *ix) __attribute__((warn_unused_result));
void index_destroy(struct index *ix);
/* The qid must not be there. Never fails: without memory for another bucket, chains grow. */
void index_insert(struct index *ix, struct queue_msg *m);
void index_remove(struct index *ix, struct queue_msg *m);
/* All of them; nothing may come or go meanwhile. */
void index_each(const struct index *ix, void (*each)(struct queue_msg *m));
struct queue_msg *index_find(const struct index *ix, uint64_t qid);
/*
 * The message after `*cursor` (0: the first) in an order of its own; moves the cursor. What stays
 * in the index during a walk is seen exactly once, however many come and go meanwhile.
 */
struct queue_msg *index_next(const struct index *ix, uint64_t *cursor);

#endif
