/*
 * tests/sim/sim_fault.c - chance, faults that are drawn or asked for, and a count of all of them.
 *
 * Owns:     the table of the places that start operations.
 * Runs on:  the one thread of the simulation.
 * Contract: nothing is drawn for a fault whose chance is 0, so that a new kind of fault leaves
 *           old seeds as they were. In calm weather nothing fails.
 * Failure:  more places than SIM_SITES abort.
 * Bounds:   SIM_SITES, SIM_FAIL_SLOTS.
 * Tests:    tests/sim/test_sim_world.c
 */
#include <errno.h>

#include "tests/sim/places.h"
#include "tests/sim/sim_internal.h"

const struct sim_faults sim_faults_none = {0};

uint64_t sim_below(struct prng *p, uint64_t bound)
{
    return (uint64_t)((unsigned __int128)prng_next(p) * bound >> 64);
}

uint64_t sim_delay(struct sim *sim, uint64_t min, uint64_t max)
{
    uint64_t r = prng_next(&sim->prng), range = max > min ? max - min : 0;

    /* Of 16 one is anywhere, the others near the lower end. */
    if ((r & 15) != 0)
        range /= 8;
    return min + (uint64_t)((unsigned __int128)(r & ~15ull) * (range + 1) >> 64);
}

bool sim_chance(struct sim_host *h, uint32_t per_mille)
{
    return per_mille != 0 && !h->sim->calm && sim_below(&h->sim->prng, 1000) < per_mille;
}

void sim_host_faults(struct sim_host *host, const struct sim_faults *faults)
{
    host->faults = *faults;
}

void sim_host_fail_next(struct sim_host *host, enum sim_kind kind, uint32_t skip,
                        enum sim_fault fault)
{
    for (uint32_t i = 0; i < host->fail_count; i++) {
        if (host->fails[i].kind == kind) {
            host->fails[i] = host->fails[--host->fail_count];
            break;
        }
    }
    if (fault == SIM_OK)
        return;
    SIM_CHECK(host->fail_count < SIM_FAIL_SLOTS, "too many faults asked for at once");
    host->fails[host->fail_count++] =
        (struct sim_fail){.kind = (uint8_t)kind, .fault = (uint8_t)fault, .skip = skip};
}

enum sim_fault sim_fail_due(struct sim_host *h, enum sim_kind kind)
{
    for (uint32_t i = 0; i < h->fail_count; i++) {
        enum sim_fault fault = (enum sim_fault)h->fails[i].fault;
        if (h->fails[i].kind != kind)
            continue;
        if (h->fails[i].skip-- > 0)
            return SIM_OK;
        h->fails[i] = h->fails[--h->fail_count];
        return fault;
    }
    return SIM_OK;
}

/* ---- at one place ---- */

const struct sim_place *sim_place_now;

void sim_host_fail_at(struct sim_host *host, const struct sim_fail_at *at)
{
    SIM_CHECK(host->fail_at_count < SIM_FAIL_AT, "too many places asked to fail");
    host->fail_at[host->fail_at_count++] = *at;
}

bool sim_host_failed_at(const struct sim_host *host)
{
    return host->fail_at_count && host->fail_at_hits == host->fail_at_count;
}

enum sim_fault sim_site_fault(struct sim_host *h, const struct sim_site *site)
{
    for (uint32_t i = 0; i < h->fail_at_count && site->place && !h->sim->calm; i++) {
        struct sim_fail_at *at = &h->fail_at[i];
        if (at->place != site->place || at->nth != site->calls)
            continue;
        at->place = NULL;
        return at->fault;
    }
    return SIM_OK;
}

bool sim_site_asked(struct sim_host *h, const struct sim_site *site)
{
    bool asked = sim_site_fault(h, site) != SIM_OK;

    h->fail_at_hits += asked;
    return asked;
}

enum sim_fault sim_call_fault(struct sim_call *c, enum sim_kind kind)
{
    enum sim_fault asked = (enum sim_fault)c->asked;

    if (asked == SIM_OK || c->io->sim->calm || (asked == SIM_LATE && kind == SIM_WRITE))
        return sim_fail_due(c->io->host, kind);
    c->asked = SIM_OK;
    c->io->host->fail_at_hits++;
    return asked;
}

/* ---- counts ---- */

extern const char __executable_start[]; /* given by the linker */

static uint64_t offset_of(const void *address)
{
    return address ? (uint64_t)((uintptr_t)address - (uintptr_t)__executable_start) : 0;
}

struct sim_site *sim_site_of(struct sim_host *h, enum sim_kind kind, const void *from)
{
    struct sim *sim = h->sim;
    const struct sim_place *place = sim_place_now;
    uint64_t offset = offset_of(place ? place : from);
    uint32_t at = (uint32_t)((offset * 31 + (uint32_t)kind) * 2654435761u) % (2 * SIM_SITES);

    for (; sim->site_slots[at]; at = (at + 1) % (2 * SIM_SITES)) {
        struct sim_site *s = &sim->sites[sim->site_slots[at] - 1];
        if (s->offset == offset && s->kind == kind) {
            sim_place_now = NULL;
            s->calls += !sim->calm;
            return s;
        }
    }
    SIM_CHECK(sim->site_count < SIM_SITES, "too many places start operations");
    sim->sites[sim->site_count] =
        (struct sim_site){.place = place, .offset = offset, .kind = kind, .host = h->name};
    sim->site_slots[at] = (uint16_t)++sim->site_count;
    sim->sites[sim->site_count - 1].calls = !sim->calm;
    sim_place_now = NULL;
    return &sim->sites[sim->site_count - 1];
}

void sim_count(struct sim_site *site, enum sim_fault fault)
{
    site->counts[fault]++;
}

enum sim_fault sim_fault_of(int32_t res)
{
    if (res >= 0)
        return SIM_OK;
    switch (-res) {
    case EIO: return SIM_EIO;
    case ENOSPC: return SIM_ENOSPC;
    case ECANCELED: return SIM_CANCELED;
    case EMFILE:
    case ENFILE: return SIM_NO_FD;
    case ECONNRESET:
    case EPIPE: return SIM_RESET;
    case ECONNREFUSED:
    case ENETUNREACH:
    case EHOSTUNREACH: return SIM_REFUSED;
    case ETIMEDOUT: return SIM_TIMEOUT;
    case ENOBUFS: return SIM_NO_BUF;
    default: return SIM_OTHER;
    }
}

uint32_t sim_sites(const struct sim *sim, const struct sim_site **sites)
{
    *sites = sim->sites;
    return sim->site_count;
}

uint64_t sim_fault_counts(const struct sim *sim, enum sim_kind kind, enum sim_fault fault)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < sim->site_count; i++)
        if (sim->sites[i].kind == kind)
            sum += sim->sites[i].counts[fault];
    return sum;
}

const char *sim_kind_name(enum sim_kind kind)
{
    static const char *const names[SIM_KIND_COUNT] = {
        "?",     "accept", "connect",    "recv",     "send",   "poll",   "open",  "read",
        "write", "sync",   "write+sync", "allocate", "unlink", "rename", "size",  "mkdir",
        "list",  "statfs", "lock",       "listen",   "post",   "create", "memory"};
    return kind < SIM_KIND_COUNT ? names[kind] : names[0];
}

const char *sim_fault_name(enum sim_fault fault)
{
    static const char *const names[SIM_FAULT_COUNT] = {
        "ok",      "EIO",     "ENOSPC", "short", "canceled", "no-fd", "reset",
        "refused", "timeout", "no-buf", "stall", "other",    "late"};
    return fault < SIM_FAULT_COUNT ? names[fault] : "?";
}
