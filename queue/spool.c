/*
 * queue/spool.c - the spool directory: its lock, its folders, the lanes that are there.
 *
 * Owns:     nothing but what it hands out.
 * Runs on:  the main thread, at start. Blocks.
 * Contract: one process a spool.
 * Failure:  false or -1, and why->text says what to do about which path.
 * Bounds:   the caller's array; lanes below 1024.
 * Tests:    tests/unit/test_spool.c; format: queue/FORMAT.md section 1
 */
#include <stdlib.h>

#include "queue/lane_internal.h"

bool spool_lock(struct io *io, const char *spool, int *lock, struct why *why)
{
    char path[LANE_PATH_MAX];

    if (snprintf(path, sizeof path, "%s/quarantine", spool) >= (int)sizeof path - 64) {
        why_set(why, 451, "4.3.0", "%s: path too long", spool);
        return false;
    }
    if (!io_mkdir(io, spool, why))
        return false;
    snprintf(path, sizeof path, "%s/lock", spool);
    if (!io_lock(io, path, lock, why))
        return false;
    snprintf(path, sizeof path, "%s/quarantine", spool);
    if (!io_mkdir(io, path, why)) {
        io_unlock(io, *lock);
        return false;
    }
    return true;
}

struct lane_list {
    uint32_t *lanes;
    uint32_t max, count;
};

static bool each_lane(void *arg, const char *name)
{
    struct lane_list *list = arg;
    unsigned long number;
    char *end, again[32];

    if (strncmp(name, "lane-", 5) != 0)
        return true;
    number = strtoul(name + 5, &end, 10);
    if (number >= 1024)
        return true;
    snprintf(again, sizeof again, "lane-%02lu", number);
    if (strcmp(again, name) == 0 && list->count < list->max)
        list->lanes[list->count++] = (uint32_t)number;
    return true;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

int spool_lanes(struct io *io, const char *spool, uint32_t *lanes, uint32_t max, struct why *why)
{
    struct lane_list list = {.lanes = lanes, .max = max};

    if (!io_list_dir(io, spool, each_lane, &list, why))
        return -1;
    qsort(lanes, list.count, sizeof *lanes, by_number);
    return (int)list.count;
}
