/*
 * bench/hist.c - log-linear histogram: exact below 256, then 128 slots for each power of two.
 *
 * Owns:     nothing; the caller owns the struct.
 * Runs on:  the one thread of the command.
 * Contract: a quantile is at most 1/128 above the true value and never above the maximum.
 * Failure:  none: every 64-bit value has a slot.
 * Bounds:   BENCH_HIST_SLOT_COUNT slots.
 * Tests:    tests/unit/test_bench_hist.c
 */
#include "bench/hist.h"

#include <string.h>

void bench_hist_init(struct bench_hist *h)
{
    memset(h, 0, sizeof(*h));
    h->min = UINT64_MAX;
}

uint32_t bench_hist_slot(uint64_t value)
{
    if (value < 2 * BENCH_HIST_SUB_COUNT)
        return (uint32_t)value;
    uint32_t top = 63u - (uint32_t)__builtin_clzll(value);
    uint32_t shift = top - BENCH_HIST_SUB_BITS;
    uint32_t sub = (uint32_t)(value >> shift) & (BENCH_HIST_SUB_COUNT - 1);
    return (shift + 1) * BENCH_HIST_SUB_COUNT + sub;
}

uint64_t bench_hist_slot_value_max(uint32_t slot)
{
    if (slot < 2 * BENCH_HIST_SUB_COUNT)
        return slot;
    uint32_t shift = slot / BENCH_HIST_SUB_COUNT - 1;
    uint64_t sub = slot % BENCH_HIST_SUB_COUNT;
    uint64_t low = (BENCH_HIST_SUB_COUNT + sub) << shift;
    return low + ((1ull << shift) - 1);
}

void bench_hist_record(struct bench_hist *h, uint64_t value)
{
    h->slots[bench_hist_slot(value)]++;
    h->count++;
    h->sum += (double)value;
    if (value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
}

void bench_hist_merge(struct bench_hist *into, const struct bench_hist *from)
{
    for (uint32_t i = 0; i < BENCH_HIST_SLOT_COUNT; i++)
        into->slots[i] += from->slots[i];
    into->count += from->count;
    into->sum += from->sum;
    if (from->min < into->min)
        into->min = from->min;
    if (from->max > into->max)
        into->max = from->max;
}

uint64_t bench_hist_quantile(const struct bench_hist *h, double q)
{
    if (h->count == 0)
        return 0;
    double exact = q * (double)h->count;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact)
        rank++;
    if (rank < 1)
        rank = 1;
    if (rank > h->count)
        rank = h->count;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < BENCH_HIST_SLOT_COUNT; i++) {
        seen += h->slots[i];
        if (seen >= rank) {
            uint64_t value = bench_hist_slot_value_max(i);
            return value < h->max ? value : h->max;
        }
    }
    return h->max;
}

double bench_hist_mean(const struct bench_hist *h)
{
    return h->count > 0 ? h->sum / (double)h->count : 0.0;
}
