/*
 * gateway/backlog.c - queue ids that wait for a delivery job.
 *
 * Owns:     one array used as a ring, doubled when full.
 * Runs on:  the shard that made it.
 * Contract: first in, first out.
 * Failure:  no memory to grow: push answers false and nothing changes.
 * Bounds:   8 bytes a message of the queue.
 * Tests:    tests/unit/test_backlog.c
 */
#include "gateway/backlog.h"

#include <stdlib.h>

#define BACKLOG_FIRST 1024u

struct backlog {
    uint64_t *ids;
    uint64_t capacity, head, count;
};

struct backlog *backlog_create(void)
{
    return calloc(1, sizeof(struct backlog));
}

void backlog_destroy(struct backlog *b)
{
    free(b->ids);
    free(b);
}

static bool backlog_grow(struct backlog *b)
{
    uint64_t capacity = b->capacity ? b->capacity * 2 : BACKLOG_FIRST;
    uint64_t *ids = malloc(capacity * sizeof *ids);
    if (!ids)
        return false;
    for (uint64_t i = 0; i < b->count; i++)
        ids[i] = b->ids[(b->head + i) & (b->capacity - 1)];
    free(b->ids);
    b->ids = ids;
    b->capacity = capacity;
    b->head = 0;
    return true;
}

bool backlog_push(struct backlog *b, uint64_t qid)
{
    if (b->count == b->capacity && !backlog_grow(b))
        return false;
    b->ids[(b->head + b->count++) & (b->capacity - 1)] = qid;
    return true;
}

bool backlog_pop(struct backlog *b, uint64_t *qid)
{
    if (b->count == 0)
        return false;
    *qid = b->ids[b->head];
    b->head = (b->head + 1) & (b->capacity - 1);
    b->count--;
    return true;
}

bool backlog_empty(const struct backlog *b)
{
    return b->count == 0;
}
