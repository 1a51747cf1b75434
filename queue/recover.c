/*
 * queue/recover.c - finds a lane's old segments at start and reads their headers; contents.c goes
 * on when mail is accepted already.
 *
 * Owns:     the list of files found, one read window.
 * Runs on:  the shard that owns the lane; one read at a time.
 * Contract: the decision table of FORMAT.md section 5. Changes nothing on disk but: .tmp files
 *           (leftover.c) and empty segments removed, damaged bytes copied to quarantine, segments
 *           without a readable header moved there.
 * Failure:  a format of the future: the lane does not open. A file that cannot be read is told as
 *           damaged and left alone.
 * Bounds:   RECOVER_WINDOW_BYTES of memory.
 * Tests:    tests/unit/test_recovery.c
 */
#include <errno.h>
#include <stdlib.h>

#include "queue/recover_internal.h"

static void recover_done(struct io_op *op, int32_t res, uint32_t flags);
static void next_header(struct recover *r);

/* ---- what is there ---- */

static bool push_id(uint32_t **ids, uint32_t *count, uint32_t *cap, uint32_t id)
{
    if (*count == *cap) {
        uint32_t more = *cap ? *cap * 2 : 64;
        uint32_t *grown = realloc(*ids, more * sizeof *grown);
        if (!grown)
            return false;
        *ids = grown;
        *cap = more;
    }
    (*ids)[(*count)++] = id;
    return true;
}

/* 8 lower-case hex digits and the suffix, nothing else. */
static bool parse_name(const char *name, const char *suffix, uint32_t *id)
{
    char again[32];
    char *end;
    unsigned long value = strtoul(name, &end, 16);

    if (end != name + 8 || value == 0 || value >= UINT32_MAX)
        return false;
    snprintf(again, sizeof again, "%08lx.%s", value, suffix);
    *id = (uint32_t)value;
    return strcmp(again, name) == 0;
}

static bool each_file(void *arg, const char *name)
{
    struct recover *r = arg;
    uint32_t id;

    if (parse_name(name, "seg", &id))
        r->failed = r->failed || !push_id(&r->ids, &r->id_count, &r->id_cap, id);
    else if (parse_name(name, "tmp", &id))
        r->failed = r->failed || !push_id(&r->tmps, &r->tmp_count, &r->tmp_cap, id);
    return true;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

void recover_fail(struct recover *r, const char *what, int32_t error)
{
    struct lane *l = r->lane;

    r->running = false;
    r->failed = true;
    r->phase = RECOVER_OVER;
    if (!l->open_why.smtp_code)
        why_set(&l->open_why, 451, "4.3.0", "%s: %s: %s", l->dir, what,
                error < 0 ? strerror(-error) : "no memory");
    lane_open_failed(l);
}

/*
 * The directories may be new, and what is in them is only as durable as their own entries: first
 * the spool's parent is synced, where that is allowed, then the spool.
 */
static void sync_parent(struct recover *r)
{
    struct lane *l = r->lane;

    if (r->at == 2) {
        r->at = 0;
        r->phase = RECOVER_OPEN_DIR;
        io_open(l->io, &r->op, l->dir, IO_READ | IO_DIR);
        return;
    }
    snprintf(r->path, sizeof r->path, r->at == 0 ? "%s/.." : "%s", l->spool);
    r->phase = RECOVER_OPEN_PARENT;
    io_open(l->io, &r->op, r->path, IO_READ | IO_DIR);
}

static void parent_done(struct recover *r, int32_t res)
{
    struct lane *l = r->lane;

    if (res < 0 && r->at == 1) {
        recover_fail(r, "the spool directory cannot be synced", res);
        return;
    }
    if (r->phase == RECOVER_OPEN_PARENT && res >= 0) {
        r->fd = res;
        r->phase = RECOVER_SYNC_PARENT;
        io_sync(l->io, &r->op, r->fd);
        return;
    }
    if (r->fd >= 0)
        io_close(l->io, r->fd);
    r->fd = -1;
    r->at++;
    sync_parent(r);
}

void recover_start(struct lane *l)
{
    struct recover *r = calloc(1, sizeof *r);
    struct why why;

    l->recover = r;
    if (!r) {
        why_set(&l->open_why, 451, "4.3.0", "%s: no memory", l->dir);
        lane_open_failed(l);
        return;
    }
    r->lane = l;
    r->fd = -1;
    r->op.done = recover_done;
    list_init(&r->untold);
    r->window = malloc(RECOVER_WINDOW_BYTES);
    if (!r->window || !io_mkdir(l->io, l->dir, &why) ||
        !io_list_dir(l->io, l->dir, each_file, r, &why) || r->failed) {
        if (r->window && !r->failed)
            why_set(&l->open_why, 451, "4.3.0", "%s", why.text);
        recover_fail(r, "cannot be read", 0);
        return;
    }
    if (r->id_count) {
        qsort(r->ids, r->id_count, sizeof *r->ids, ascending);
        l->segment_next = r->ids[r->id_count - 1] + 1;
    }
    for (uint32_t i = 0; i < r->tmp_count; i++)
        if (r->tmps[i] >= l->segment_next)
            l->segment_next = r->tmps[i] + 1;
    r->running = true;
    sync_parent(r);
}

/* ---- headers ---- */

void recover_headers_over(struct recover *r)
{
    struct lane *l = r->lane;

    r->running = false;
    r->at = 0;
    if (l->closing)
        lane_soon(l);
    else
        prepare_kick(l); /* goes on in recover_contents */
}

static void next_header(struct recover *r)
{
    struct lane *l = r->lane;

    if (l->closing || r->at == r->id_count) {
        if (l->closing)
            recover_headers_over(r);
        else
            leftover_start(r);
        return;
    }
    r->phase = RECOVER_OPEN_HEADER;
    r->tries = 0;
    lane_path(l, r->ids[r->at], "seg", r->path);
    io_open(l->io, &r->op, r->path, IO_READ);
}

/*
 * The limit of this segment's queue ids is not known: each segment's is at most QID_BLOCK and what
 * was under way above the one before. So none is given out twice, should the file be read again.
 */
static void pass_unknown_limit(struct recover *r)
{
    uint32_t before = r->at ? r->ids[r->at - 1] : 0;

    r->lane->qid_next += (uint64_t)(r->ids[r->at] - before) * 2 * QID_BLOCK;
}

/*
 * Nothing of it is known but its place: its messages, and what ends those of others, may be back at
 * the next start. So it stays in the table, and holds what is younger.
 */
bool recover_hold_place(struct recover *r, uint32_t id, const char *reason)
{
    struct lane *l = r->lane;
    struct segment *s = segment_create(id, l->p.segment_bytes);

    quarantine_tell(l, id, 0, reason);
    if (!s || !segments_add(&l->segments, s)) {
        if (s)
            segment_destroy(s);
        recover_fail(r, "", 0);
        return false;
    }
    s->lane = l;
    s->state = SEGMENT_SEALED;
    s->unread = s->headless = true;
    return true;
}

static void unreadable_header(struct recover *r, int32_t error)
{
    struct lane *l = r->lane;

    if (!recover_hold_place(r, r->ids[r->at], strerror(-error)))
        return;
    l->unread_last = r->ids[r->at];
    l->found_unclosed = true;
    pass_unknown_limit(r);
    r->at++;
    next_header(r);
}

static void move_away(struct recover *r)
{
    struct lane *l = r->lane;

    pass_unknown_limit(r);
    l->unread_last = r->ids[r->at];

    r->phase = RECOVER_MOVE_AWAY;
    snprintf(r->to, sizeof r->to, "%s/quarantine/lane-%02u-%08x.seg", l->spool, l->p.lane,
             r->ids[r->at]);
    quarantine_tell(l, r->ids[r->at], 0, "segment without a readable header");
    io_rename(l->io, &r->op, r->path, r->to);
}

/* It stood for a segment that is gone (leftover.c), or should have: it says nothing. */
static void remove_empty(struct recover *r)
{
    r->phase = RECOVER_MOVE_AWAY;
    io_unlink(r->lane->io, &r->op, r->path);
}

static bool take_header(struct recover *r, const struct segment_header *h)
{
    struct lane *l = r->lane;
    struct segment *s = segment_create(h->id, h->segment_bytes);

    if (!s || !segments_add(&l->segments, s))
        return false;
    s->lane = l;
    s->state = SEGMENT_OLD;
    s->seed = segment_seed(h->salt, h->id, h->lane);
    s->qid_limit = h->qid_limit;
    if (l->qid_next < h->qid_limit)
        l->qid_next = h->qid_limit;
    return true;
}

static void header_read(struct recover *r)
{
    struct lane *l = r->lane;
    struct segment_header h;

    switch (segment_header_decode(slice_of(r->window, r->window_len), &h)) {
    case SEGMENT_HEADER_FUTURE:
        why_set(&l->open_why, 451, "4.3.0",
                "%s: written by a newer version (format %u, this one knows %u)", r->path, h.version,
                FORMAT_VERSION);
        recover_fail(r, "", 0);
        return;
    case SEGMENT_HEADER_ONE_COPY:
        quarantine_tell(l, r->ids[r->at], 0, "one copy of the segment header");
        /* fall through */
    case SEGMENT_HEADER_GOOD:
        if (h.id == r->ids[r->at]) {
            if (!take_header(r, &h)) {
                recover_fail(r, "", 0);
                return;
            }
            r->at++;
            next_header(r);
            return;
        }
        break;
    case SEGMENT_HEADER_BAD: break;
    }
    move_away(r);
}

/* ---- the operation ---- */

/* A failure may pass, and without its header a segment is not there. True: tried again. */
static bool header_again(struct recover *r, int32_t res)
{
    if (res >= 0 || res == -ENOENT || r->tries++ >= RECOVER_TRIES)
        return false;
    if (r->phase == RECOVER_OPEN_HEADER)
        io_open(r->lane->io, &r->op, r->path, IO_READ);
    else
        io_read(r->lane->io, &r->op, r->fd, r->window + r->window_len,
                SEGMENT_BLOCK - r->window_len, r->window_len);
    return true;
}

static void opened_or_read(struct recover *r, int32_t res)
{
    struct lane *l = r->lane;

    switch ((enum recover_phase)r->phase) {
    case RECOVER_OPEN_HEADER:
        if (header_again(r, res))
            return;
        if (res < 0) {
            unreadable_header(r, res);
            return;
        }
        r->fd = res;
        r->window_len = 0;
        r->phase = RECOVER_READ_HEADER;
        io_read(l->io, &r->op, r->fd, r->window, SEGMENT_BLOCK, 0);
        return;
    case RECOVER_READ_HEADER:
        if (header_again(r, res))
            return;
        r->window_len += res > 0 ? (uint32_t)res : 0;
        if (res > 0 && r->window_len < SEGMENT_BLOCK) { /* cut short */
            io_read(l->io, &r->op, r->fd, r->window + r->window_len, SEGMENT_BLOCK - r->window_len,
                    r->window_len);
            return;
        }
        io_close(l->io, r->fd);
        r->fd = -1;
        if (res < 0) {
            unreadable_header(r, res);
            return;
        }
        if (r->window_len == 0)
            remove_empty(r);
        else
            header_read(r);
        return;
    default: return;
    }
}

static void recover_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct recover *r = container_of(op, struct recover, op);
    struct lane *l = r->lane;

    (void)flags;
    switch ((enum recover_phase)r->phase) {
    case RECOVER_OPEN_PARENT:
    case RECOVER_SYNC_PARENT: parent_done(r, res); break;
    case RECOVER_OPEN_DIR:
        if (res < 0) {
            recover_fail(r, "cannot be opened", res);
            return;
        }
        l->dir_fd = res;
        next_header(r);
        break;
    case RECOVER_MOVE_AWAY:
        r->at++;
        next_header(r);
        break;
    case RECOVER_LEFTOVER: leftover_done(r, res); break;
    default: opened_or_read(r, res); break;
    }
}

bool recover_stopped(const struct lane *l)
{
    return !l->recover || !l->recover->running;
}

void recover_destroy(struct lane *l)
{
    struct recover *r = l->recover;

    if (!r)
        return;
    if (r->fd >= 0)
        io_close(l->io, r->fd);
    free(r->ids);
    free(r->tmps);
    free(r->window);
    census_free(&r->census);
    free(r);
    l->recover = NULL;
}
