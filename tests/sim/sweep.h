/*
 * tests/sim/sweep.h - each kind of fault at each place of the product that starts an operation, in
 * runs in which nothing else of the gateway's fails.
 */
#ifndef HIKYAKU_TESTS_SIM_SWEEP_H
#define HIKYAKU_TESTS_SIM_SWEEP_H

#include "tests/sim/run.h"

/*
 * Looks with `seeds` seeds from `first` on which places they come by, and how often; then runs
 * those again in which one call fails. Prints a table. Exit status: 1 when a run failed, or a fault
 * never happened at a place where it can.
 */
int sweep_run(const struct run_options *o, struct run_results *results, uint64_t first,
              uint64_t seeds);

#endif
