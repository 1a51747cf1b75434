/*
 * gateway/base/prng.c - xoshiro256** (Blackman and Vigna, 2018), seeded through SplitMix64.
 *
 * Owns:     nothing; the state is the caller's.
 * Runs on:  the thread of the state.
 * Contract: the same seed gives the same numbers on every machine. Not for secrets.
 * Failure:  none.
 * Bounds:   none.
 * Tests:    tests/unit/test_prng.c
 */
#include "gateway/base/prng.h"

#include <assert.h>

/* Spreads a small seed over the state, and never makes it all zeros. */
static uint64_t splitmix64(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void prng_seed(struct prng *p, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        p->s[i] = splitmix64(&seed);
}

static uint64_t rotate_left(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

uint64_t prng_next(struct prng *p)
{
    uint64_t *s = p->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t prng_below(struct prng *p, uint64_t bound)
{
    uint64_t unfair, x;

    assert(bound > 0);
    /* 2^64 mod bound values at the bottom would favour some results: draw again. */
    unfair = (0 - bound) % bound;
    do
        x = prng_next(p);
    while (x < unfair);
    return x % bound;
}
