/*
 * queue/lane_room.c - how much mail a lane has room for, and its health.
 *
 * Owns:     the lane's view of the disk (looked at once a second), its health and what was told.
 * Runs on:  the shard that owns the lane.
 * Contract: room is what new mail may take: free segments, and files that may still be made within
 *           spool.max_size and the free space that is kept. Full begins below a sixteenth of a
 *           segment and ends at a quarter: it does not flutter.
 * Failure:  a disk that cannot be asked counts as having room; writing then tells.
 * Bounds:   lane_reserve bytes are kept for states and reports.
 * Tests:    tests/unit/test_lane.c, test_lane_fault.c
 */
#include "queue/lane_internal.h"

uint64_t lane_files_bytes(const struct lane *l)
{
    uint64_t files = l->segments.count + l->stock_count + (l->prepare.segment != NULL);

    return files * l->p.segment_bytes;
}

static uint64_t growth_by_size(const struct lane *l)
{
    if (!l->p.bytes_max)
        return UINT64_MAX;
    return l->p.bytes_max > lane_files_bytes(l) ? l->p.bytes_max - lane_files_bytes(l) : 0;
}

static uint64_t growth_by_disk(struct lane *l)
{
    uint64_t now = io_now_ns(l->io), total;

    if (!l->disk_checked_ns || now - l->disk_checked_ns > NS_PER_S) {
        l->disk_checked_ns = now ? now : 1;
        if (!io_disk_free(l->io, l->dir, &l->disk_free_bytes, &total, &l->disk_inodes))
            l->disk_free_bytes = l->disk_inodes = UINT64_MAX;
    }
    if (l->disk_free_bytes == UINT64_MAX)
        return UINT64_MAX;
    return l->disk_free_bytes > l->p.disk_free_min ? l->disk_free_bytes - l->p.disk_free_min : 0;
}

static uint64_t growth_bytes(struct lane *l)
{
    uint64_t by_size = growth_by_size(l), by_disk = growth_by_disk(l);

    if (l->prepare.error || l->disk_inodes < LANE_INODES_MIN)
        return 0;
    if (by_disk < by_size)
        by_size = by_disk;
    return by_size - by_size % l->p.segment_bytes;
}

bool lane_may_grow(struct lane *l)
{
    return growth_bytes(l) > 0;
}

uint64_t lane_reserve(const struct lane *l)
{
    uint64_t quarter = l->p.segment_bytes / 4;

    return quarter < SPOOL_RESERVE_BYTES ? quarter : SPOOL_RESERVE_BYTES;
}

/* In segments that are there already. */
static uint64_t room_at_hand(const struct lane *l)
{
    uint64_t room = l->stock_count * l->p.segment_bytes;

    if (l->open) {
        uint64_t used = l->open->tail + summary_bytes(l->open_summary, 0) + 3 * SEGMENT_BLOCK;
        room += used < l->open->bytes ? l->open->bytes - used : 0;
    }
    if (l->spare)
        room += l->p.segment_bytes;
    if (l->prepare.segment)
        room += l->p.segment_bytes;
    return room;
}

uint64_t lane_room(struct lane *l, bool internal)
{
    uint64_t room = growth_bytes(l), reserve = internal ? 0 : lane_reserve(l);

    room += room_at_hand(l);
    return room > reserve ? room - reserve : 0;
}

void lane_space(struct lane *l, struct lane_space *out)
{
    uint64_t by_size = growth_by_size(l), reserve = lane_reserve(l), left = room_at_hand(l);

    out->spool_limit = l->p.bytes_max;
    if (by_size != UINT64_MAX)
        left += by_size - by_size % l->p.segment_bytes;
    out->spool_left = left > reserve ? left - reserve : 0;
    out->disk_left = growth_by_disk(l);
    out->inodes_left = l->disk_inodes;
}

const char *lane_error_words(const struct lane *l)
{
    return l->last_error < 0 ? strerror(-l->last_error) : "no error known";
}

void lane_health_update(struct lane *l)
{
    uint64_t room = lane_room(l, false);

    if (l->full ? room >= l->p.segment_bytes / 4 : room < l->p.segment_bytes / 16)
        l->full = !l->full;
    if (!l->is_open)
        return;
    if (!l->open && l->paused)
        l->health = LANE_STOPPED;
    else if (l->full)
        l->health = LANE_FULL;
    else if (l->failed_in_row)
        l->health = LANE_DEGRADED;
    else
        l->health = l->recovering ? LANE_RECOVERING : LANE_OK;
}

void lane_health_tell(struct lane *l)
{
    if (l->health == l->health_told)
        return;
    l->health_told = l->health;
    switch (l->health) {
    case LANE_STOPPED:
        why_set(&l->health_why, 451, "4.3.0", "%s: writing fails: %s", l->dir, lane_error_words(l));
        break;
    case LANE_DEGRADED:
        why_set(&l->health_why, 451, "4.3.0", "%s: a write failed: %s", l->dir,
                lane_error_words(l));
        break;
    case LANE_FULL:
        why_set(&l->health_why, 452, "4.3.1", "%s: no room for another segment%s%s", l->dir,
                l->prepare.error ? ": " : "", l->prepare.error ? lane_error_words(l) : "");
        break;
    case LANE_RECOVERING:
    case LANE_OK: why_clear(&l->health_why); break;
    }
    if (l->p.health)
        l->p.health(l->p.arg, l, l->health, &l->health_why);
}
