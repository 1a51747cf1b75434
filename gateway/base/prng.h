/*
 * gateway/base/prng.h - a small seeded generator (xoshiro256**) for choices, jitter and simulation.
 * Not for secrets.
 */
#ifndef HIKYAKU_BASE_PRNG_H
#define HIKYAKU_BASE_PRNG_H

#include <stdint.h>

struct prng {
    uint64_t s[4];
};

void prng_seed(struct prng *p, uint64_t seed);
uint64_t prng_next(struct prng *p);
/* Uniform in [0, bound); bound > 0. */
uint64_t prng_below(struct prng *p, uint64_t bound);

#endif
