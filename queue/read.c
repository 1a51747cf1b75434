/*
 * queue/read.c - records of segments, from disk or while they are still in memory; who asks knows
 * what they are.
 *
 * Owns:     the segments' read descriptors and one job a read.
 * Runs on:  the shard that owns the lane.
 * Contract: what comes from a disk is checked by CRC before a byte of it is handed out. `done` of
 *           who reads never runs inside the call.
 * Failure:  -errno; -EBADMSG for damage, which is also told and set aside; -ENOENT when the segment
 *           is gone.
 * Bounds:   READ_FDS_MAX descriptors kept open; one record of memory a read.
 * Tests:    tests/unit/test_lane.c, tests/unit/test_lane_fault.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "queue/read_internal.h"

/* ---- descriptors ---- */

static void fd_use(struct segment *s)
{
    if (s->read_users++ == 0)
        list_remove(&s->read_link);
}

static void fd_close_oldest(struct lane *l)
{
    struct list *link = list_pop_front(&l->read_lru);
    struct segment *s;

    if (!link)
        return;
    s = container_of(link, struct segment, read_link);
    io_close(l->io, s->read_fd);
    s->read_fd = -1;
    l->read_fd_count--;
}

static void fd_release(struct lane *l, struct segment *s)
{
    assert(s->read_users > 0);
    if (--s->read_users > 0 || s->read_fd < 0)
        return;
    list_push_back(&l->read_lru, &s->read_link);
    if (l->read_fd_count > READ_FDS_MAX)
        fd_close_oldest(l);
}

void read_forget_segment(struct lane *l, struct segment *s)
{
    assert(s->read_users == 0);
    list_remove(&s->read_link);
    if (s->read_fd >= 0) {
        io_close(l->io, s->read_fd);
        l->read_fd_count--;
    }
    s->read_fd = -1;
    free(s->read_path);
    s->read_path = NULL;
}

/* ---- the beginning and the end of a read ---- */

void read_begin(struct lane *l, struct queue_msg *m, uint64_t qid, struct lane_read *r)
{
    struct read_job *j = calloc(1, sizeof *j);

    assert(j); /* a few hundred bytes */
    j->read = r;
    j->qid = qid;
    r->lane = l;
    r->msg = m;
    r->buf = NULL;
    r->got = 0;
    r->job = j;
    l->reads_running++;
}

void read_finish(struct lane_read *r, int32_t res)
{
    struct read_job *j = r->job;
    struct lane *l = r->lane;

    free(j->bytes);
    free(j->extents);
    free(j);
    r->job = NULL;
    l->reads_running--;
    r->done(r, res);
    if (l->closing)
        lane_soon(l);
}

static void finish_fire(struct timer *t)
{
    struct read_job *j = container_of(t, struct read_job, timer);

    read_finish(j->read, j->result);
}

void read_finish_later(struct lane_read *r, int32_t res)
{
    struct read_job *j = r->job;

    j->result = res;
    j->timer.fire = finish_fire;
    io_timer_set(r->lane->io, &j->timer, io_now_ns(r->lane->io));
}

void read_damaged(struct lane_read *r)
{
    struct read_job *j = r->job;

    quarantine_region(r->lane, j->segment, j->offset, j->want, "record damaged on disk");
    read_finish(r, -EBADMSG);
}

/* ---- one record ---- */

/* Its bytes were still in memory. */
static void memory_fire(struct timer *t)
{
    struct read_job *j = container_of(t, struct read_job, timer);

    j->got(j->read, slice_of(j->bytes, j->want));
}

static void submit(struct lane_read *r);

static void read_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct lane_read *r = container_of(op, struct lane_read, op);
    struct read_job *j = r->job;

    (void)flags;
    if (res > 0) {
        j->filled += (uint32_t)res;
        if (j->filled < j->want) { /* cut short; at the end of the file the next one gives 0 */
            submit(r);
            return;
        }
    }
    fd_release(r->lane, j->segment);
    if (res < 0)
        read_finish(r, res);
    else
        j->got(r, slice_of(j->bytes, j->filled));
}

static void submit(struct lane_read *r)
{
    struct read_job *j = r->job;

    r->op.done = read_done;
    io_read(r->lane->io, &r->op, j->segment->read_fd, j->bytes + j->filled, j->want - j->filled,
            j->offset + j->filled);
}

static void segment_opened(struct io_op *op, int32_t res, uint32_t flags)
{
    struct segment *s = container_of(op, struct segment, read_op);
    struct lane *l = s->lane;
    struct list *link;

    (void)flags;
    s->read_opening = false;
    if (res >= 0) {
        s->read_fd = res;
        l->read_fd_count++;
    }
    while ((link = list_pop_front(&s->read_waiters)) != NULL) {
        struct read_job *j = container_of(link, struct read_job, link);
        if (res >= 0) {
            submit(j->read);
        } else {
            fd_release(l, s);
            read_finish_later(j->read, res);
        }
    }
}

/* The descriptor of `s` is opened for the first who waits for it. */
static void fd_open(struct lane *l, struct segment *s, struct read_job *j)
{
    list_push_back(&s->read_waiters, &j->link);
    if (s->read_opening)
        return;
    if (!s->read_path) {
        s->read_path = malloc(LANE_PATH_MAX);
        assert(s->read_path);
        lane_path(l, s->id, "seg", s->read_path);
    }
    s->read_opening = true;
    s->read_op.done = segment_opened;
    io_open(l->io, &s->read_op, s->read_path, IO_READ);
}

static bool make_room(struct read_job *j, uint32_t want)
{
    if (want > j->cap) {
        free(j->bytes);
        j->bytes = malloc(want);
        j->cap = j->bytes ? want : 0;
    }
    return j->bytes;
}

void read_fetch(struct lane_read *r, void (*got)(struct lane_read *r, struct slice bytes),
                uint32_t segment, uint32_t offset, uint32_t want)
{
    struct read_job *j = r->job;
    struct lane *l = r->lane;
    struct segment *s = segments_find(&l->segments, segment);
    struct slice recent = commit_recent(l, segment, offset, want);

    j->got = got;
    j->segment = s;
    j->offset = offset;
    j->want = want;
    j->filled = 0;
    if (s && s->headless) { /* its seed is not known */
        read_finish_later(r, -EIO);
    } else if (!s || s->state == SEGMENT_DYING) {
        read_finish_later(r, -ENOENT);
    } else if (!make_room(j, want)) {
        read_finish_later(r, -ENOMEM);
    } else if (recent.len) {
        j->want = (uint32_t)recent.len;
        memcpy(j->bytes, recent.ptr, recent.len);
        j->timer.fire = memory_fire;
        io_timer_set(l->io, &j->timer, io_now_ns(l->io));
    } else {
        fd_use(s);
        if (s->read_fd >= 0)
            submit(r);
        else
            fd_open(l, s, j);
    }
}

struct slice read_payload(const struct read_job *j, struct slice bytes, struct record_header *h)
{
    if (record_check(bytes, j->segment->seed, j->offset, j->segment->bytes, h) != RECORD_GOOD ||
        ((h->qid ^ j->qid) & QID_SEQUENCE_MASK)) /* a lane copied in has another's numbers */
        return slice_of(NULL, 0);
    return slice_of(bytes.ptr + RECORD_HEADER_SIZE, h->length - RECORD_HEADER_SIZE);
}

/* ---- records as they are, for copying ---- */

static void record_got(struct lane_read *r, struct slice bytes)
{
    struct read_job *j = r->job;
    struct record_header h;

    if (read_payload(j, bytes, &h).len == 0) {
        read_damaged(r);
        return;
    }
    r->buf = j->bytes;
    j->bytes = NULL;
    read_finish(r, (int32_t)h.length);
}

void read_message_record(struct lane *l, struct queue_msg *m, struct lane_read *r)
{
    read_begin(l, m, m->qid, r);
    read_fetch(r, record_got, m->segment, m->offset, m->record_size);
}

void read_extent_record(struct lane *l, uint64_t qid, struct lane_extent e, struct lane_read *r)
{
    read_begin(l, NULL, qid, r);
    read_fetch(r, record_got, e.segment, e.offset, EXTENT_RECORD_BYTES);
}
