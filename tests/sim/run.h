/*
 * tests/sim/run.h - runs of the simulation, each in a process of its own, several at a time.
 */
#ifndef HIKYAKU_TESTS_SIM_RUN_H
#define HIKYAKU_TESTS_SIM_RUN_H

#include "tests/sim/sites.h"
#include "tests/sim/world.h"

#define RUN_JOBS_MAX   64
#define RUN_PLACES_MAX 128u

/* What one run does, as in struct world. */
struct run_job {
    uint64_t seed;
    bool bare;
    struct sim_fail_at at[2];
};

/* What it leaves behind, in memory that is shared. */
struct run_result {
    struct world_stats stats; /* of all runs in this slot */
    struct site_table sites;  /* the same */
    char why[1024];
    uint64_t hash;
    bool failed;
    bool hit;                       /* what was asked for came */
    uint32_t calls[RUN_PLACES_MAX]; /* of each place, before it was calm */
};

struct run_options {
    uint64_t jobs;
    bool trace, steps;
    bool quiet; /* nothing is told of failed runs */
};

/*
 * `next` gives the next job (false: no more), `over` gets each result, in the order in which they
 * come. `slots`: a result for each of `jobs`.
 */
struct run_results {
    struct run_result *slots[RUN_JOBS_MAX];
};
struct run_user {
    bool (*next)(void *arg, struct run_job *job);
    void (*over)(void *arg, const struct run_job *job, const struct run_result *r);
    void *arg;
};
void run_results_make(struct run_results *r, uint64_t jobs);
void run_all(const struct run_options *o, struct run_results *results, const struct run_user *user);

void world_stats_add(struct world_stats *to, const struct world_stats *from);

/* All places of the product in this program. */
uint32_t run_places(const struct sim_place **places);

#endif
