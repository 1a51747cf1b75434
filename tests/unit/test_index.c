/*
 * tests/unit/test_index.c - messages by queue id, and walks while it changes.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/base/prng.h"
#include "queue/index.h"

#define COUNT 20000u

Test(index, finds_what_is_there)
{
    struct queue_msg *m = calloc(COUNT, sizeof *m);
    struct index ix;

    cr_assert(index_init(&ix));
    for (uint32_t i = 0; i < COUNT; i++) {
        m[i].qid = (uint64_t)(i % 4) << 54 | (i + 1);
        cr_assert_null(index_find(&ix, m[i].qid));
        index_insert(&ix, &m[i]);
    }
    cr_assert_eq(ix.count, COUNT);
    for (uint32_t i = 0; i < COUNT; i += 2)
        index_remove(&ix, &m[i]);
    for (uint32_t i = 0; i < COUNT; i++)
        cr_assert_eq(index_find(&ix, m[i].qid), i % 2 ? &m[i] : NULL);
    cr_assert_eq(ix.count, COUNT / 2);
    index_destroy(&ix);
    free(m);
}

/* While others come and go, what stays is seen exactly once and nothing is seen twice. */
Test(index, walk_sees_what_stays_exactly_once)
{
    struct queue_msg *m = calloc(3 * COUNT, sizeof *m);
    uint8_t *seen = calloc(3 * COUNT, 1);
    struct index ix;
    struct prng rng;
    uint64_t cursor = 0;
    uint32_t coming = COUNT, step = 0;

    prng_seed(&rng, 7);
    cr_assert(index_init(&ix));
    for (uint32_t i = 0; i < 3 * COUNT; i++)
        m[i].qid = i + 1;
    for (uint32_t i = 0; i < COUNT; i++)
        index_insert(&ix, &m[i]);
    for (struct queue_msg *x; (x = index_next(&ix, &cursor)) != NULL; step++) {
        uint32_t gone = (uint32_t)prng_below(&rng, COUNT) | 1; /* only odd ones go */
        cr_assert_eq(seen[x->qid - 1]++, 0, "twice: %lu", x->qid);
        if (coming < 3 * COUNT)
            index_insert(&ix, &m[coming++]);
        if (gone < COUNT && index_find(&ix, gone + 1) == &m[gone])
            index_remove(&ix, &m[gone]);
    }
    for (uint32_t i = 0; i < COUNT; i += 2)
        cr_assert_eq(seen[i], 1, "%u", i);
    cr_assert_null(index_next(&ix, &cursor));
    index_destroy(&ix);
    free(seen);
    free(m);
}

Test(index, empty)
{
    struct index ix;
    uint64_t cursor = 0;

    cr_assert(index_init(&ix));
    cr_assert_null(index_find(&ix, 1));
    cr_assert_null(index_next(&ix, &cursor));
    index_destroy(&ix);
}
