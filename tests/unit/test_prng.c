/*
 * tests/unit/test_prng.c - gateway/base/prng.c: the seeded generator.
 */
#include <criterion/criterion.h>

#include "gateway/base/prng.h"

Test(prng, gives_the_sequence_of_the_published_algorithm)
{
    /* First outputs of xoshiro256** from the state {1, 2, 3, 4}. */
    static const uint64_t expected[] = {11520u, 0u, 1509978240u, 1215971899390074240u};
    struct prng p = {{1, 2, 3, 4}};

    for (int i = 0; i < 4; i++)
        cr_expect_eq(prng_next(&p), expected[i]);
}

Test(prng, repeats_from_the_same_seed_only)
{
    struct prng a, b, c;
    int same = 0;

    prng_seed(&a, 42);
    prng_seed(&b, 42);
    prng_seed(&c, 43);
    for (int i = 0; i < 100; i++) {
        uint64_t x = prng_next(&a);
        cr_assert_eq(prng_next(&b), x);
        same += prng_next(&c) == x;
    }
    cr_assert_eq(same, 0);
    prng_seed(&a, 0);
    cr_assert_neq(a.s[0] | a.s[1] | a.s[2] | a.s[3], 0);
}

Test(prng, stays_below_its_bound_and_reaches_all_of_it)
{
    struct prng p;
    int hits[7] = {0};

    prng_seed(&p, 5);
    for (int i = 0; i < 7000; i++) {
        uint64_t x = prng_below(&p, 7);
        cr_assert(x < 7);
        hits[x]++;
    }
    for (int i = 0; i < 7; i++)
        cr_expect(hits[i] > 850 && hits[i] < 1150, "%d: %d", i, hits[i]);
    cr_expect_eq(prng_below(&p, 1), 0);
    for (int i = 0; i < 100; i++)
        cr_expect(prng_below(&p, UINT64_MAX) < UINT64_MAX);
}
