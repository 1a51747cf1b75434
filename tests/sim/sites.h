/*
 * tests/sim/sites.h - what failed at each place of the product that starts an operation, summed
 * over many runs.
 */
#ifndef HIKYAKU_TESTS_SIM_SITES_H
#define HIKYAKU_TESTS_SIM_SITES_H

#include "tests/sim/sim.h"

#define SITES_MAX 512

struct site_table {
    uint32_t count;
    struct {
        const struct sim_place *place; /* NULL: not known */
        uint64_t offset;
        enum sim_kind kind;
        bool gateway; /* made by the machine under test */
        uint64_t counts[SIM_FAULT_COUNT];
    } sites[SITES_MAX];
};

void sites_add(struct site_table *t, const struct sim *sim);
void sites_merge(struct site_table *to, const struct site_table *from);
/* "queue/commit.c:219 commit_start" */
void site_name(const struct sim_place *place, uint64_t offset, char *out, size_t size);
void sites_print(const struct site_table *t, FILE *out);

#endif
