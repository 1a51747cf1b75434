/*
 * tests/sim/sites.c - the table of places and faults.
 *
 * Owns:     nothing.
 * Runs on:  the main thread.
 * Contract: a place is an offset in the program, so tables of one program can be added up.
 * Failure:  more places than SITES_MAX are left out.
 * Bounds:   SITES_MAX places.
 * Tests:    none of its own
 */
#include "tests/sim/sites.h"

#include <string.h>

#include "tests/sim/places.h"

static uint32_t row_of(struct site_table *t, uint64_t offset, enum sim_kind kind)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (t->sites[i].offset == offset && t->sites[i].kind == kind)
            return i;
    if (t->count == SITES_MAX)
        return SITES_MAX;
    t->sites[t->count].offset = offset;
    t->sites[t->count].kind = kind;
    return t->count++;
}

void sites_add(struct site_table *t, const struct sim *sim)
{
    const struct sim_site *sites;
    uint32_t count = sim_sites(sim, &sites);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = row_of(t, sites[i].offset, sites[i].kind);
        if (at == SITES_MAX)
            return;
        t->sites[at].place = sites[i].place;
        t->sites[at].gateway |= strcmp(sites[i].host, "gateway") == 0;
        for (int k = 0; k < SIM_FAULT_COUNT; k++)
            t->sites[at].counts[k] += sites[i].counts[k];
    }
}

void sites_merge(struct site_table *to, const struct site_table *from)
{
    for (uint32_t i = 0; i < from->count; i++) {
        uint32_t at = row_of(to, from->sites[i].offset, from->sites[i].kind);
        if (at == SITES_MAX)
            return;
        to->sites[at].place = from->sites[i].place;
        to->sites[at].gateway |= from->sites[i].gateway;
        for (int k = 0; k < SIM_FAULT_COUNT; k++)
            to->sites[at].counts[k] += from->sites[i].counts[k];
    }
}

void site_name(const struct sim_place *place, uint64_t offset, char *out, size_t size)
{
    if (place)
        snprintf(out, size, "%s:%u %s", place->file, place->line, place->function);
    else
        snprintf(out, size, "the simulator's own, 0x%llx", (unsigned long long)offset);
}

void sites_print(const struct site_table *t, FILE *out)
{
    char name[256];
    fprintf(out, "%-46s %-10s", "place", "operation");
    for (int k = 0; k < SIM_FAULT_COUNT; k++)
        fprintf(out, " %8s", sim_fault_name((enum sim_fault)k));
    fputc('\n', out);
    for (uint32_t i = 0; i < t->count; i++) {
        if (!t->sites[i].gateway)
            continue;
        site_name(t->sites[i].place, t->sites[i].offset, name, sizeof name);
        fprintf(out, "%-46s %-10s", name, sim_kind_name(t->sites[i].kind));
        for (int k = 0; k < SIM_FAULT_COUNT; k++)
            fprintf(out, " %8llu", (unsigned long long)t->sites[i].counts[k]);
        fputc('\n', out);
    }
}
