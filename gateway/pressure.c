/*
 * gateway/pressure.c - back pressure: levels with hysteresis from what is left of each resource.
 *
 * Owns:     nothing.
 * Runs on:  any thread.
 * Contract: a level begins below one mark and ends above a higher one, so that it does not flutter.
 * Failure:  none.
 * Bounds:   none.
 * Tests:    tests/unit/test_pressure.c
 */
#include "gateway/pressure.h"

#include "gateway/limits.h"

static const char *const resources[] = {"spool", "disk", "inodes", "memory", "queue"};
static const char *const levels[] = {"normal", "medium", "high"};

const char *pressure_resource_name(enum pressure_resource r)
{
    return resources[r];
}

const char *pressure_level_name(enum pressure_level l)
{
    return levels[l];
}

static uint64_t percent(uint64_t of, unsigned n)
{
    return of / 100 * n + of % 100 * n / 100;
}

struct pressure_rule pressure_rule_of(uint64_t limit)
{
    return (struct pressure_rule){.medium = percent(limit, 20),
                                  .medium_end = percent(limit, 30),
                                  .high = percent(limit, 5),
                                  .high_end = percent(limit, 10)};
}

struct pressure_rule pressure_rule_disk(void)
{
    return (struct pressure_rule){.medium = PRESSURE_DISK_MEDIUM,
                                  .medium_end = PRESSURE_DISK_MEDIUM * 3 / 2,
                                  .high = PRESSURE_DISK_HIGH,
                                  .high_end = PRESSURE_DISK_HIGH * 3};
}

struct pressure_rule pressure_rule_inodes(void)
{
    return (struct pressure_rule){.medium = PRESSURE_INODES_MEDIUM,
                                  .medium_end = PRESSURE_INODES_MEDIUM * 3 / 2,
                                  .high = PRESSURE_INODES_HIGH,
                                  .high_end = PRESSURE_INODES_HIGH * 2};
}

enum pressure_level pressure_update(struct pressure *p, enum pressure_resource r, uint64_t left,
                                    const struct pressure_rule *rule)
{
    enum pressure_level now = p->level[r];

    if (left < rule->high || (now == PRESSURE_HIGH && left < rule->high_end))
        now = PRESSURE_HIGH;
    else if (left < rule->medium || (now != PRESSURE_NORMAL && left < rule->medium_end))
        now = PRESSURE_MEDIUM;
    else
        now = PRESSURE_NORMAL;
    p->level[r] = now;
    return now;
}

enum pressure_level pressure_worst(const struct pressure *p, enum pressure_resource *which)
{
    enum pressure_level worst = PRESSURE_NORMAL;

    for (unsigned r = 0; r < PRESSURE_COUNT; r++)
        if (p->level[r] > worst) {
            worst = p->level[r];
            if (which)
                *which = r;
        }
    return worst;
}
