/*
 * queue/quarantine.c - damaged bytes are told, counted and copied to spool/quarantine.
 *
 * Owns:     one small job a copy, until it is done.
 * Runs on:  the shard that owns the lane.
 * Contract: the segment itself is not touched; the same damage found again is written to the same
 *           file.
 * Failure:  a copy that cannot be made is given up; the damage was told already.
 * Bounds:   QUARANTINE_JOBS_MAX copies at a time, RECORD_BYTES_MAX bytes each; more are only told.
 * Tests:    tests/unit/test_recovery.c
 */
#include <stdlib.h>

#include "queue/lane_internal.h"

#define QUARANTINE_JOBS_MAX 16u

enum quarantine_step { QUARANTINE_OPEN, QUARANTINE_READ, QUARANTINE_CREATE, QUARANTINE_WRITE };

struct quarantine {
    struct lane *lane;
    struct io_op op;
    uint8_t step;
    int32_t fd;
    uint32_t offset, len;
    uint8_t *bytes;
    char from[LANE_PATH_MAX], to[LANE_PATH_MAX];
};

void quarantine_tell(struct lane *l, uint32_t segment, uint64_t offset, const char *what)
{
    l->stats.damaged++;
    if (l->p.damaged)
        l->p.damaged(l->p.arg, l, segment, offset, what);
}

static void quarantine_end(struct quarantine *q)
{
    struct lane *l = q->lane;

    if (q->fd >= 0)
        io_close(l->io, q->fd);
    free(q->bytes);
    free(q);
    l->quarantine_running--;
    if (l->closing)
        lane_soon(l);
}

static void quarantine_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct quarantine *q = container_of(op, struct quarantine, op);
    struct io *io = q->lane->io;

    (void)flags;
    if (res < 0) {
        quarantine_end(q);
        return;
    }
    switch ((enum quarantine_step)q->step) {
    case QUARANTINE_OPEN:
        q->fd = res;
        q->step = QUARANTINE_READ;
        io_read(io, op, q->fd, q->bytes, q->len, q->offset);
        break;
    case QUARANTINE_READ:
        io_close(io, q->fd);
        q->fd = -1;
        q->len = (uint32_t)res;
        q->step = QUARANTINE_CREATE;
        io_open(io, op, q->to, IO_WRITE | IO_CREATE | IO_TRUNC);
        break;
    case QUARANTINE_CREATE:
        q->fd = res;
        q->step = QUARANTINE_WRITE;
        io_write_sync(io, op, q->fd, q->bytes, q->len, 0);
        break;
    case QUARANTINE_WRITE: quarantine_end(q); break;
    }
}

void quarantine_region(struct lane *l, const struct segment *s, uint32_t offset, uint32_t len,
                       const char *what)
{
    quarantine_tell(l, s->id, offset, what);
    quarantine_copy(l, s, offset, len);
}

void quarantine_copy(struct lane *l, const struct segment *s, uint32_t offset, uint32_t len)
{
    struct quarantine *q;

    if (l->quarantine_running >= QUARANTINE_JOBS_MAX)
        return;
    q = calloc(1, sizeof *q);
    if (!q)
        return;
    q->lane = l;
    q->fd = -1;
    q->op.done = quarantine_done;
    q->offset = offset;
    q->len = len < RECORD_BYTES_MAX ? len : RECORD_BYTES_MAX;
    q->bytes = malloc(q->len);
    l->quarantine_running++;
    if (!q->bytes) {
        quarantine_end(q);
        return;
    }
    lane_path(l, s->id, "seg", q->from);
    snprintf(q->to, sizeof q->to, "%s/quarantine/lane-%02u-%08x-%08x.bin", l->spool, l->p.lane,
             s->id, offset);
    q->step = QUARANTINE_OPEN;
    io_open(l->io, &q->op, q->from, IO_READ);
}
