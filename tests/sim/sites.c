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

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t place(struct site_table *t, uint64_t offset, uint64_t done, enum sim_kind kind)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (t->sites[i].offset == offset && t->sites[i].kind == kind && t->sites[i].done == done)
            return i;
    if (t->count == SITES_MAX)
        return SITES_MAX;
    t->sites[t->count].offset = offset;
    t->sites[t->count].done = done;
    t->sites[t->count].kind = kind;
    return t->count++;
}

void sites_add(struct site_table *t, const struct sim *sim)
{
    const struct sim_site *sites;
    uint32_t count = sim_sites(sim, &sites);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = place(t, sites[i].offset, sites[i].done, sites[i].kind);
        if (at == SITES_MAX)
            return;
        t->sites[at].gateway |= strcmp(sites[i].host, "gateway") == 0;
        for (int k = 0; k < SIM_FAULT_COUNT; k++)
            t->sites[at].counts[k] += sites[i].counts[k];
    }
}

void sites_merge(struct site_table *to, const struct site_table *from)
{
    for (uint32_t i = 0; i < from->count; i++) {
        uint32_t at = place(to, from->sites[i].offset, from->sites[i].done, from->sites[i].kind);
        if (at == SITES_MAX)
            return;
        to->sites[at].gateway |= from->sites[i].gateway;
        for (int k = 0; k < SIM_FAULT_COUNT; k++)
            to->sites[at].counts[k] += from->sites[i].counts[k];
    }
}

/* "queue/commit.c:186 commit_start" */
static void name_of(uint64_t offset, char *out, size_t size)
{
    char self[PATH_MAX] = "", command[PATH_MAX + 64], function[128] = "", file[512] = "";
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    snprintf(out, size, "0x%llx", (unsigned long long)offset);
    if (n <= 0)
        return;
    snprintf(command, sizeof command, "addr2line -f -e '%s' 0x%llx 2>/dev/null", self,
             (unsigned long long)(offset - 1));
    FILE *f = popen(command, "r");
    if (!f)
        return;
    if (fscanf(f, "%127s %511s", function, file) == 2) {
        const char *at = strstr(file, "gateway/");
        at = at ? at : strstr(file, "queue/");
        at = at ? at : strstr(file, "routing/");
        snprintf(out, size, "%.200s %.100s", at ? at : file, function);
    }
    pclose(f);
}

void sites_print(const struct site_table *t, FILE *out)
{
    char name[512];
    fprintf(out, "%-66s %-10s", "place", "operation");
    for (int k = 0; k < SIM_FAULT_COUNT; k++)
        fprintf(out, " %8s", sim_fault_name((enum sim_fault)k));
    fputc('\n', out);
    for (uint32_t i = 0; i < t->count; i++) {
        if (!t->sites[i].gateway)
            continue;
        name_of(t->sites[i].offset, name, sizeof name);
        if (t->sites[i].done) { /* calls at the end of a function hide it: its callback does not */
            size_t len = strlen(name);
            char done[320], *space;
            name_of(t->sites[i].done + 1, done, sizeof done);
            space = strchr(done, ' ');
            snprintf(name + len, sizeof name - len, " > %.100s", space ? space + 1 : done);
        }
        fprintf(out, "%-66s %-10s", name, sim_kind_name(t->sites[i].kind));
        for (int k = 0; k < SIM_FAULT_COUNT; k++)
            fprintf(out, " %8llu", (unsigned long long)t->sites[i].counts[k]);
        fputc('\n', out);
    }
}
