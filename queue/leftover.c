/*
 * queue/leftover.c - what a start does about .tmp files: it makes sure that the segments which had
 * these names before cannot come back, then removes them.
 *
 * Owns:     the empty files that it puts under the old names, until they are removed again.
 * Runs on:  the shard that owns the lane; one operation at a time.
 * Contract: a .tmp file is removed only when an empty .seg of its id, or nothing, is on disk,
 *           whatever became of the rename that made it (FORMAT.md section 7). A .seg that has
 *           records is not touched.
 * Failure:  tried RECOVER_TRIES times more; then the file stays for the next start, and nothing
 *           younger than its id is deleted in this run.
 * Bounds:   one file a leftover: a reaper's round, its stock and the file that was being prepared.
 * Tests:    tests/unit/test_recovery.c, tests/sim/test_lane_sim.c
 */
#include <errno.h>

#include "queue/recover_internal.h"

enum leftover_step {
    LEFTOVER_PUT,   /* an empty file under the old name */
    LEFTOVER_CLEAR, /* one is there: of a round before, or of another start */
    LEFTOVER_ROOM,  /* none can be made: the .tmp itself gives way */
    LEFTOVER_SYNC,
    LEFTOVER_SEG, /* both names are removed */
    LEFTOVER_TMP
};

static void remove_name(struct recover *r, uint8_t step, const char *suffix)
{
    r->step = step;
    lane_path(r->lane, r->tmps[r->at], suffix, r->path);
    io_unlink(r->lane->io, &r->op, r->path);
}

/* Its old name is in use: then the leftover is nobody's, and only its own name is to go. */
static bool has_segment(const struct recover *r)
{
    return segments_find(&r->lane->segments, r->tmps[r->at]) != NULL;
}

/* The next one gets its empty file; behind the last, the directory is synced. */
static void put_next(struct recover *r)
{
    struct lane *l = r->lane;

    while (r->at < r->tmp_count && has_segment(r))
        r->at++;
    if (r->at == r->tmp_count) {
        r->step = LEFTOVER_SYNC;
        io_sync(l->io, &r->op, l->dir_fd);
        return;
    }
    r->step = LEFTOVER_PUT;
    lane_path(l, r->tmps[r->at], "seg", r->path);
    io_open(l->io, &r->op, r->path, IO_WRITE | IO_CREATE | IO_EXCL);
}

static void remove_next(struct recover *r)
{
    if (r->at == r->tmp_count || r->lane->closing)
        recover_headers_over(r);
    else
        remove_name(r, has_segment(r) ? LEFTOVER_TMP : LEFTOVER_SEG,
                    has_segment(r) ? "tmp" : "seg");
}

/*
 * Nobody knows whether the segment is on disk still. What ended its messages is kept, as for one
 * that cannot be read; the .tmp tells the next start.
 */
static void give_up(struct recover *r)
{
    for (r->at = 0; r->at < r->tmp_count; r->at++)
        if (!has_segment(r) &&
            !recover_hold_place(r, r->tmps[r->at], "segment that may not be gone"))
            return;
    recover_headers_over(r);
}

/* All over again: what a failed sync forgot is only written when it is done anew. */
static void again(struct recover *r)
{
    r->at = 0;
    r->cleared = r->made_room = false;
    if (r->lane->closing)
        recover_headers_over(r);
    else if (r->tries++ < RECOVER_TRIES)
        put_next(r);
    else
        give_up(r);
}

static void put_done(struct recover *r, int32_t res)
{
    if (res >= 0) {
        io_close(r->lane->io, res);
        r->cleared = r->made_room = false;
        r->at++;
        put_next(r);
    } else if (res == -EEXIST && !r->cleared) {
        r->cleared = true;
        remove_name(r, LEFTOVER_CLEAR, "seg");
    } else if ((res == -ENOSPC || res == -EDQUOT) && !r->made_room) {
        r->made_room = true;
        remove_name(r, LEFTOVER_ROOM, "tmp");
    } else {
        again(r);
    }
}

void leftover_start(struct recover *r)
{
    r->at = r->tries = 0;
    r->cleared = r->made_room = false;
    r->phase = RECOVER_LEFTOVER;
    if (r->tmp_count == 0)
        recover_headers_over(r);
    else
        put_next(r);
}

void leftover_done(struct recover *r, int32_t res)
{
    switch ((enum leftover_step)r->step) {
    case LEFTOVER_PUT: put_done(r, res); break;
    case LEFTOVER_CLEAR:
    case LEFTOVER_ROOM: put_next(r); break;
    case LEFTOVER_SYNC:
        if (res < 0) {
            again(r);
            return;
        }
        r->at = 0;
        remove_next(r);
        break;
    case LEFTOVER_SEG: remove_name(r, LEFTOVER_TMP, "tmp"); break;
    case LEFTOVER_TMP:
        r->at++;
        remove_next(r);
        break;
    }
}
