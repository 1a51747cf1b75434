/*
 * queue/index.c - the live messages of a lane by queue id.
 *
 * Owns:     the buckets; messages belong to the lane.
 * Runs on:  the shard that owns the lane.
 * Contract: insert, remove and find take constant time, with no pause when the table grows (linear
 *           hashing). index_next walks in the order of the bit-reversed hash: a bucket is a range
 *           of it and a split halves a range, so a walk neither repeats nor misses what stays.
 * Failure:  no memory for another bucket: chains become longer.
 * Bounds:   a bucket pointer a message.
 * Tests:    tests/unit/test_index.c
 */
#include "queue/index.h"

#include <assert.h>

/* A bijection: no two queue ids share a hash. */
static uint64_t hash_of(uint64_t qid)
{
    uint64_t x = qid + 0x9e3779b97f4a7c15ull;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint64_t reversed(uint64_t x)
{
    x = (x >> 1 & 0x5555555555555555ull) | (x & 0x5555555555555555ull) << 1;
    x = (x >> 2 & 0x3333333333333333ull) | (x & 0x3333333333333333ull) << 2;
    x = (x >> 4 & 0x0f0f0f0f0f0f0f0full) | (x & 0x0f0f0f0f0f0f0f0full) << 4;
    return __builtin_bswap64(x);
}

static uint32_t level_of(const struct index *ix)
{
    return 31u - (uint32_t)__builtin_clz(ix->bucket_count);
}

static uint32_t bucket_of(const struct index *ix, uint64_t hash)
{
    uint32_t level = level_of(ix);
    uint64_t b = hash & ((2ull << level) - 1);

    return (uint32_t)(b < ix->bucket_count ? b : b & ((1ull << level) - 1));
}

static struct queue_msg **chain(const struct index *ix, uint32_t bucket)
{
    return (struct queue_msg **)pages_at(&ix->buckets, bucket);
}

bool index_init(struct index *ix)
{
    *ix = (struct index){.bucket_count = 1};
    return pages_reach(&ix->buckets, 0);
}

void index_destroy(struct index *ix)
{
    pages_free(&ix->buckets);
}

static void split_one(struct index *ix)
{
    uint32_t fresh = ix->bucket_count;
    uint32_t level = level_of(ix);
    struct queue_msg **from, *m;

    if (fresh >= 1u << 30 || !pages_reach(&ix->buckets, fresh))
        return;
    from = chain(ix, fresh - (1u << level));
    ix->bucket_count++;
    /* The bucket that is split next: its message lies anywhere in memory, and is here by then. */
    __builtin_prefetch(*chain(ix, fresh + 1 - (1u << level_of(ix))));
    m = *from;
    *from = NULL;
    while (m) {
        struct queue_msg *next = m->hash_next;
        struct queue_msg **to = chain(ix, bucket_of(ix, hash_of(m->qid)));
        assert(to == from || to == chain(ix, fresh));
        m->hash_next = *to;
        *to = m;
        m = next;
    }
}

void index_insert(struct index *ix, struct queue_msg *m)
{
    struct queue_msg **to;

    assert(m->qid !=
           0); /* that it is not there yet is the caller's word: looking costs a cache miss */
    if (ix->count >= ix->bucket_count)
        split_one(ix);
    to = chain(ix, bucket_of(ix, hash_of(m->qid)));
    m->hash_next = *to;
    *to = m;
    ix->count++;
}

void index_remove(struct index *ix, struct queue_msg *m)
{
    struct queue_msg **at = chain(ix, bucket_of(ix, hash_of(m->qid)));

    while (*at && *at != m)
        at = &(*at)->hash_next;
    assert(*at == m);
    *at = m->hash_next;
    m->hash_next = NULL;
    ix->count--;
}

void index_each(const struct index *ix, void (*each)(struct queue_msg *m))
{
    for (uint32_t i = 0; i < ix->bucket_count; i++)
        for (struct queue_msg *m = *chain(ix, i); m; m = m->hash_next)
            each(m);
}

struct queue_msg *index_find(const struct index *ix, uint64_t qid)
{
    struct queue_msg *m = *chain(ix, bucket_of(ix, hash_of(qid)));

    while (m && m->qid != qid)
        m = m->hash_next;
    return m;
}

/* The position behind the bucket's range; 0: it was the last. */
static uint64_t range_end(const struct index *ix, uint32_t bucket)
{
    uint32_t level = level_of(ix);
    bool split = bucket >= 1u << level || bucket < ix->bucket_count - (1u << level);
    uint32_t depth = level + split;

    return depth == 0 ? 0 : reversed(bucket) + (1ull << (64 - depth));
}

struct queue_msg *index_next(const struct index *ix, uint64_t *cursor)
{
    uint64_t from = *cursor; /* positions below it were seen */

    if (from == UINT64_MAX)
        return NULL;
    for (;;) {
        uint32_t bucket = bucket_of(ix, reversed(from));
        struct queue_msg *best = NULL;
        uint64_t best_at = 0;
        for (struct queue_msg *m = *chain(ix, bucket); m; m = m->hash_next) {
            uint64_t at = reversed(hash_of(m->qid));
            if (at >= from && (!best || at < best_at)) {
                best = m;
                best_at = at;
            }
        }
        if (best) {
            *cursor = best_at + (best_at < UINT64_MAX);
            return best;
        }
        from = range_end(ix, bucket);
        if (from == 0) {
            *cursor = UINT64_MAX;
            return NULL;
        }
    }
}
