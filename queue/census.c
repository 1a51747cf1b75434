/*
 * queue/census.c - counts, by queue id, the records that recovery has yet to replay.
 *
 * Owns:     one hash table while old segments are read.
 * Runs on:  the shard that owns the lane. No I/O.
 * Contract: census_left is 0 only when every census_add was taken.
 * Failure:  no memory: `lost`, from then on never 0.
 * Bounds:   24 bytes at most for a message that has a record behind its MESSAGE.
 * Tests:    tests/unit/test_census.c
 */
#include "queue/census.h"

#include <stdlib.h>

#define CENSUS_SLOTS_MIN 1024u

static uint32_t slot_of(const struct census *c, uint64_t qid)
{
    uint64_t x = qid * 0x9e3779b97f4a7c15ull;
    uint32_t at = (uint32_t)(x >> 32) & (c->slots - 1);

    while (c->qids[at] && c->qids[at] != qid)
        at = (at + 1) & (c->slots - 1);
    return at;
}

void census_free(struct census *c)
{
    free(c->qids);
    free(c->left);
    *c = (struct census){0};
}

static bool grow(struct census *c)
{
    struct census next = {.slots = c->slots ? c->slots * 2 : CENSUS_SLOTS_MIN, .used = c->used};

    next.qids = calloc(next.slots, sizeof *next.qids);
    next.left = calloc(next.slots, sizeof *next.left);
    if (!next.qids || !next.left) {
        census_free(&next);
        return false;
    }
    for (uint32_t i = 0; i < c->slots; i++) {
        uint32_t at;
        if (!c->qids[i])
            continue;
        at = slot_of(&next, c->qids[i]);
        next.qids[at] = c->qids[i];
        next.left[at] = c->left[i];
    }
    census_free(c);
    *c = next;
    return true;
}

void census_add(struct census *c, uint64_t qid)
{
    uint32_t at;

    if (c->lost)
        return;
    if (c->used >= c->slots / 2 && !grow(c)) {
        census_free(c);
        c->lost = true;
        return;
    }
    at = slot_of(c, qid);
    if (!c->qids[at]) {
        c->qids[at] = qid;
        c->used++;
    }
    c->left[at]++;
}

uint32_t census_take(struct census *c, uint64_t qid)
{
    uint32_t at;

    if (c->lost)
        return 1;
    at = c->slots ? slot_of(c, qid) : 0;
    if (!c->slots || !c->qids[at] || c->left[at] == 0)
        return 0;
    return --c->left[at];
}

uint32_t census_left(const struct census *c, uint64_t qid)
{
    uint32_t at;

    if (c->lost)
        return 1;
    at = c->slots ? slot_of(c, qid) : 0;
    return c->slots && c->qids[at] ? c->left[at] : 0;
}
