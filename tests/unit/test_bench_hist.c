/*
 * tests/unit/test_bench_hist.c - the latency histogram: slots, bounds, quantiles.
 *
 * Owns:     nothing.
 * Runs on:  the test's process.
 * Contract: each test fails when bench/hist.c breaks its promise of 1/128.
 * Failure:  Criterion reports it.
 * Bounds:   none.
 * Tests:    bench/hist.c
 */
#include <criterion/criterion.h>

#include "bench/hist.h"

static struct bench_hist histogram, other;

Test(bench_hist, every_value_lies_in_its_slot)
{
    for (unsigned shift = 0; shift < 64; shift++) {
        for (int64_t near = -2; near <= 2; near++) {
            uint64_t value = (1ull << shift) + (uint64_t)near;
            uint32_t slot = bench_hist_slot(value);
            cr_assert_lt(slot, BENCH_HIST_SLOT_COUNT);
            cr_assert_geq(bench_hist_slot_value_max(slot), value);
            if (slot > 0)
                cr_assert_lt(bench_hist_slot_value_max(slot - 1), value);
        }
    }
    cr_assert_lt(bench_hist_slot(UINT64_MAX), BENCH_HIST_SLOT_COUNT);
    cr_assert_eq(bench_hist_slot_value_max(bench_hist_slot(UINT64_MAX)), UINT64_MAX);
}

Test(bench_hist, slots_join_without_a_gap)
{
    for (uint32_t slot = 0; slot + 1 < BENCH_HIST_SLOT_COUNT; slot++)
        cr_assert_eq(bench_hist_slot(bench_hist_slot_value_max(slot) + 1), slot + 1);
}

Test(bench_hist, quantiles_are_within_a_part_in_128)
{
    bench_hist_init(&histogram);
    for (uint64_t value = 1; value <= 100000; value++)
        bench_hist_record(&histogram, value * 1000);
    const double quantiles[] = {0.001, 0.5, 0.9, 0.99, 0.999};
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        double exact = quantiles[i] * 100000 * 1000;
        double got = (double)bench_hist_quantile(&histogram, quantiles[i]);
        cr_assert_geq(got, exact - 1000);
        cr_assert_leq(got, (exact + 1000) * (1 + 1.0 / 128));
    }
    cr_assert_eq(bench_hist_quantile(&histogram, 1.0), 100000 * 1000);
    cr_assert_float_eq(bench_hist_mean(&histogram), 50000.5 * 1000, 1);
    cr_assert_eq(histogram.min, 1000);
}

Test(bench_hist, empty_and_single)
{
    bench_hist_init(&histogram);
    cr_assert_eq(bench_hist_quantile(&histogram, 0.5), 0);
    bench_hist_record(&histogram, 123456789);
    cr_assert_eq(bench_hist_quantile(&histogram, 0.001), 123456789);
    cr_assert_eq(bench_hist_quantile(&histogram, 0.999), 123456789);
}

Test(bench_hist, merge_is_the_same_as_recording_both)
{
    bench_hist_init(&histogram);
    bench_hist_init(&other);
    for (uint64_t i = 0; i < 1000; i++) {
        bench_hist_record(&histogram, i);
        bench_hist_record(&other, i * 1000000);
    }
    bench_hist_merge(&histogram, &other);
    cr_assert_eq(histogram.count, 2000);
    cr_assert_eq(histogram.max, 999000000);
    cr_assert_eq(bench_hist_quantile(&histogram, 0.5), 999);
}
