/*
 * bench/hist.h - latency histogram with a bounded relative error, in the manner of HdrHistogram.
 *
 * Values are unsigned nanoseconds (any unit works). A value is kept to within 1/128 of itself, so
 * that p99.9 of a microsecond and of a minute are both meaningful in one fixed array.
 */
#ifndef HIKYAKU_BENCH_HIST_H
#define HIKYAKU_BENCH_HIST_H

#include <stdint.h>

#define BENCH_HIST_SUB_BITS  7u
#define BENCH_HIST_SUB_COUNT (1u << BENCH_HIST_SUB_BITS)
/* Below 2 * SUB_COUNT one slot a value; above, SUB_COUNT slots for each power of two. */
#define BENCH_HIST_SLOT_COUNT ((64u - BENCH_HIST_SUB_BITS + 1u) * BENCH_HIST_SUB_COUNT)

struct bench_hist {
    uint64_t count;
    uint64_t min;
    uint64_t max;
    double sum;
    uint64_t slots[BENCH_HIST_SLOT_COUNT];
};

void bench_hist_init(struct bench_hist *h);
void bench_hist_record(struct bench_hist *h, uint64_t value);
void bench_hist_merge(struct bench_hist *into, const struct bench_hist *from);
/* The largest value equivalent to the one at the quantile (0 < q <= 1), never above the true max;
 * 0 for an empty histogram. */
uint64_t bench_hist_quantile(const struct bench_hist *h, double q);
double bench_hist_mean(const struct bench_hist *h);

/* Slot of a value and the highest value that falls into a slot: exposed for the tests. */
uint32_t bench_hist_slot(uint64_t value);
uint64_t bench_hist_slot_value_max(uint32_t slot);

#endif
