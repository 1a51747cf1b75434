/*
 * queue/recover.c - reads a lane's old segments at start: headers first, then, with mail being
 * accepted already, contents.
 *
 * Owns:     the list of files found, one read window.
 * Runs on:  the shard that owns the lane; one read at a time, a slice of work a turn.
 * Contract: the decision table of FORMAT.md section 5. Changes nothing on disk but: .tmp files
 *           removed, damaged bytes copied to quarantine, segments without a readable header moved
 *           there.
 * Failure:  a format of the future: the lane does not open. A file that cannot be read is told as
 *           damaged and left alone.
 * Bounds:   WINDOW_BYTES of memory; REPLAY_SLICE messages found a turn.
 * Tests:    tests/unit/test_recovery.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "queue/lane_internal.h"
#include "queue/scan.h"

#define WINDOW_BYTES (RECORD_BYTES_MAX + (uint32_t)MIB)
#define READ_TRIES   3u /* more of a read that fails */
#define READ_BYTES   ((uint32_t)MIB)

enum recover_phase {
    RECOVER_OPEN_PARENT,
    RECOVER_SYNC_PARENT,
    RECOVER_OPEN_DIR,
    RECOVER_REMOVE_TMP,
    RECOVER_OPEN_HEADER,
    RECOVER_READ_HEADER,
    RECOVER_MOVE_AWAY,
    RECOVER_OPEN_SEGMENT,
    RECOVER_READ_FOOTER,
    RECOVER_READ_SUMMARY,
    RECOVER_READ_SCAN,
    RECOVER_SYNC_SCANNED,
    RECOVER_TELL, /* by timer */
    RECOVER_OVER
};

struct recover {
    struct lane *lane;
    struct io_op op;
    struct timer timer;
    uint8_t phase;
    bool running; /* op or timer is */
    bool failed;
    uint32_t *ids, *tmps;
    uint32_t id_count, id_cap, tmp_count, tmp_cap;
    uint32_t at; /* into ids, tmps, or the table of segments */
    int32_t fd;
    struct segment *segment;
    struct segment_footer footer;
    uint32_t summary_left, summary_at;
    struct scan scan;
    struct list untold;
    uint8_t *window;
    uint32_t window_at, window_len;
    uint8_t *read_to; /* what is being read: a read may come in parts, or fail once */
    uint32_t read_len, read_got, read_tries;
    uint64_t read_from;
    char path[LANE_PATH_MAX], to[LANE_PATH_MAX];
};

static void recover_done(struct io_op *op, int32_t res, uint32_t flags);
static void next_header(struct recover *r);
static void next_segment(struct recover *r);

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

static void recover_fail(struct recover *r, const char *what, int32_t error)
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

static void tell_slice(struct timer *t);

/* ---- reading ---- */

static void read_submit(struct recover *r)
{
    io_read(r->lane->io, &r->op, r->fd, r->read_to + r->read_got, r->read_len - r->read_got,
            r->read_from + r->read_got);
}

static void recover_read(struct recover *r, enum recover_phase phase, uint8_t *to, uint32_t len,
                         uint64_t from)
{
    r->phase = (uint8_t)phase;
    r->read_to = to;
    r->read_len = len;
    r->read_from = from;
    r->read_got = r->read_tries = 0;
    read_submit(r);
}

/* True: it is tried again. */
static bool open_goes_on(struct recover *r, int32_t res)
{
    if (res >= 0 || res == -ENOENT || r->read_tries++ >= READ_TRIES)
        return false;
    io_open(r->lane->io, &r->op, r->path, IO_READ);
    return true;
}

/*
 * True: it goes on. A part is no end of the file, and a failure may pass: what is given up here is
 * mail that was promised. `res` becomes the bytes there are.
 */
static bool read_goes_on(struct recover *r, int32_t *res)
{
    if (*res > 0)
        r->read_got += (uint32_t)*res;
    if ((*res > 0 && r->read_got < r->read_len) || (*res < 0 && r->read_tries++ < READ_TRIES)) {
        read_submit(r);
        return true;
    }
    if (*res >= 0)
        *res = (int32_t)r->read_got;
    return false;
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
    r->timer.fire = tell_slice;
    list_init(&r->untold);
    r->window = malloc(WINDOW_BYTES);
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

static void next_tmp(struct recover *r)
{
    if (r->at == r->tmp_count) {
        r->at = 0;
        next_header(r);
        return;
    }
    r->phase = RECOVER_REMOVE_TMP;
    lane_path(r->lane, r->tmps[r->at++], "tmp", r->path);
    io_unlink(r->lane->io, &r->op, r->path);
}

static void next_header(struct recover *r)
{
    struct lane *l = r->lane;

    if (l->closing || r->at == r->id_count) {
        r->running = false;
        r->at = 0;
        if (l->closing)
            lane_soon(l);
        else
            prepare_kick(l); /* goes on in recover_contents */
        return;
    }
    r->phase = RECOVER_OPEN_HEADER;
    r->read_tries = 0;
    lane_path(l, r->ids[r->at], "seg", r->path);
    io_open(l->io, &r->op, r->path, IO_READ);
}

static void move_away(struct recover *r)
{
    struct lane *l = r->lane;

    r->phase = RECOVER_MOVE_AWAY;
    snprintf(r->to, sizeof r->to, "%s/quarantine/lane-%02u-%08x.seg", l->spool, l->p.lane,
             r->ids[r->at]);
    quarantine_tell(l, r->ids[r->at], 0, "segment without a readable header");
    io_rename(l->io, &r->op, r->path, r->to);
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

static void header_read(struct recover *r, int32_t res)
{
    struct lane *l = r->lane;
    struct segment_header h;

    switch (segment_header_decode(slice_of(r->window, res > 0 ? (uint32_t)res : 0), &h)) {
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

/* ---- contents ---- */

static void wait_turn(struct recover *r)
{
    r->phase = RECOVER_TELL;
    io_timer_set(r->lane->io, &r->timer, io_now_ns(r->lane->io));
}

void recover_contents(struct lane *l)
{
    struct recover *r = l->recover;

    assert(!r->running && r->at == 0);
    r->running = true;
    next_segment(r);
}

static void next_segment(struct recover *r)
{
    struct lane *l = r->lane;
    struct segments *t = &l->segments;

    while (r->at < t->count && t->items[r->at]->state != SEGMENT_OLD)
        r->at++;
    if (l->closing || r->at == t->count) {
        r->at = 0;
        r->segment = NULL;
        wait_turn(r);
        return;
    }
    r->segment = t->items[r->at];
    r->phase = RECOVER_OPEN_SEGMENT;
    r->read_tries = 0;
    lane_path(l, r->segment->id, "seg", r->path);
    io_open(l->io, &r->op, r->path, IO_READ);
}

/*
 * What a killed process wrote and did not sync can be read, but a power cut would still take it: it
 * must be on disk before anything is decided by it - mail delivered, or older copies removed.
 */
static void scan_over(struct recover *r)
{
    r->phase = RECOVER_SYNC_SCANNED;
    io_sync(r->lane->io, &r->op, r->fd);
}

static void segment_over(struct recover *r)
{
    io_close(r->lane->io, r->fd);
    r->fd = -1;
    r->at++;
    next_segment(r);
}

static void read_window(struct recover *r, enum recover_phase phase, uint32_t from, uint32_t len)
{
    r->window_at = from;
    r->window_len = 0;
    recover_read(r, phase, r->window, len, from);
}

static void begin_scan(struct recover *r)
{
    struct segment *s = r->segment;

    scan_begin(&r->scan, s->id, s->seed, s->bytes);
    read_window(r, RECOVER_READ_SCAN, SEGMENT_BLOCK, READ_BYTES);
}

static bool apply(struct recover *r, const struct record_digest *d)
{
    switch (replay_record(r->lane, r->segment, d)) {
    case REPLAY_OK: break;
    case REPLAY_DAMAGED:
        quarantine_tell(r->lane, r->segment->id, d->offset, "record contradicts its message");
        break;
    case REPLAY_NO_MEMORY: return false;
    }
    return true;
}

static void next_summary(struct recover *r)
{
    if (r->summary_left == 0) {
        segment_over(r);
        return;
    }
    read_window(r, RECOVER_READ_SUMMARY, r->summary_at,
                SUMMARY_BYTES_MAX + RECORD_HEADER_SIZE + RECORD_ALIGN);
}

static bool summary_is_good(struct slice payload)
{
    struct record_digest d;
    uint32_t used;

    /* The zeros that fill the record up are shorter than an entry. */
    while (payload.len >= sizeof(struct summary_entry)) {
        if (!summary_entry_decode(payload, &d, &used))
            return false;
        payload = slice_from(payload, used);
    }
    return true;
}

static void summary_read(struct recover *r, int32_t res)
{
    struct segment *s = r->segment;
    struct slice bytes = slice_of(r->window, res > 0 ? (uint32_t)res : 0), payload;
    struct record_header h;
    struct record_digest d;
    uint32_t used;

    payload = slice_from(bytes, RECORD_HEADER_SIZE);
    if (record_check(bytes, s->seed, r->summary_at, s->bytes, &h) != RECORD_GOOD ||
        h.type != RECORD_SUMMARY ||
        !summary_is_good(slice_head(payload, h.length - RECORD_HEADER_SIZE))) {
        quarantine_tell(r->lane, s->id, r->summary_at, "summary of a segment");
        begin_scan(r); /* replaying again what was replayed changes nothing */
        return;
    }
    payload = slice_head(payload, h.length - RECORD_HEADER_SIZE);
    while (payload.len >= sizeof(struct summary_entry)) {
        bool good = summary_entry_decode(payload, &d, &used);
        assert(good);
        if (!apply(r, &d)) {
            recover_fail(r, "", 0);
            return;
        }
        payload = slice_from(payload, used);
    }
    r->summary_at += h.length;
    r->summary_left--;
    next_summary(r);
}

static void footer_read(struct recover *r, int32_t res)
{
    struct segment *s = r->segment;
    uint32_t at = (uint32_t)s->bytes - SEGMENT_BLOCK;

    if (res == (int32_t)SEGMENT_BLOCK &&
        segment_footer_decode(slice_of(r->window, SEGMENT_BLOCK), s->seed, at, &r->footer)) {
        r->lane->found_unclosed = r->footer.closed != 1;
        s->tail = r->footer.data_end;
        r->summary_left = r->footer.summary_count;
        r->summary_at = r->footer.summary_offset;
        next_summary(r);
        return;
    }
    begin_scan(r);
}

/* More bytes from `need_at` on: keeps what is there already. */
static void scan_more(struct recover *r, const struct scan_event *e)
{
    uint32_t keep = r->window_at + r->window_len - e->need_at, want;

    assert(e->need_at >= r->window_at);
    if (e->need_at > r->window_at + r->window_len)
        keep = 0;
    memmove(r->window, r->window + (e->need_at - r->window_at), keep);
    r->window_at = e->need_at;
    r->window_len = keep;
    want = e->need_len > keep ? e->need_len - keep : 0;
    if (want < READ_BYTES)
        want = READ_BYTES;
    if (want > WINDOW_BYTES - keep)
        want = WINDOW_BYTES - keep;
    recover_read(r, RECOVER_READ_SCAN, r->window + keep, want, r->window_at + keep);
}

/* Goes through what is in the window. */
static void scan_window(struct recover *r)
{
    for (;;) {
        struct scan_event e = {0};
        struct record_digest d;
        switch (scan_next(&r->scan, r->window_at, slice_of(r->window, r->window_len), &e)) {
        case SCAN_RECORD:
            r->lane->found_unclosed = true;
            r->segment->tail = e.offset + e.header.length;
            if (!record_digest_of(&e.header, e.payload, e.offset, &d)) {
                quarantine_region(r->lane, r->segment, e.offset, e.header.length,
                                  "record that makes no sense");
            } else if (!apply(r, &d)) {
                recover_fail(r, "", 0);
                return;
            }
            break;
        case SCAN_DAMAGED:
            quarantine_region(r->lane, r->segment, e.damage_at, e.damage_len, e.what);
            break;
        case SCAN_NEED: scan_more(r, &e); return;
        case SCAN_END: scan_over(r); return;
        }
    }
}

static void scan_read(struct recover *r, int32_t res)
{
    uint32_t room = WINDOW_BYTES - r->window_len;

    if (res < 0) { /* what cannot be read: as if the log ended there */
        quarantine_tell(r->lane, r->segment->id, r->window_at + r->window_len, strerror(-res));
        r->segment->pins++; /* nobody knows what is in it: nothing from here on is removed */
        segment_over(r);
        return;
    }
    if (res == 0) { /* the file is shorter than its segment: zeros */
        uint32_t zeros = room < READ_BYTES ? room : READ_BYTES;
        memset(r->window + r->window_len, 0, zeros);
        res = (int32_t)zeros;
    }
    r->window_len += (uint32_t)res;
    scan_window(r);
}

/* ---- telling ---- */

static void tell_one(struct lane *l, struct segment *s, struct queue_msg *m)
{
    list_push_back(&s->messages, &m->segment_link);
    m->flags &= (uint8_t)~MSG_HIDDEN;
    if (m->attempt != ATTEMPT_NONE && l->found_unclosed && m->crashes < QUEUE_CRASHES_MAX)
        m->crashes++;
    m->attempt = ATTEMPT_NONE;
    m->careful = l->found_unclosed;
    l->stats.messages++;
    l->stats.bytes += m->body_size;
    l->stats.by_state[m->state]++;
    l->stats.recovered++;
    if (l->p.found)
        l->p.found(l->p.arg, l, m);
    if (!(m->flags & MSG_DOOMED) && !m->owner && !m->schedule_index &&
        (m->state == QUEUE_READY || m->state == QUEUE_DEFERRED || m->state == QUEUE_UNREACHABLE))
        schedule_set(&l->schedule, m);
}

static void recover_over(struct recover *r)
{
    struct lane *l = r->lane;

    r->phase = RECOVER_OVER;
    r->running = false;
    free(r->window);
    r->window = NULL;
    l->recovering = false;
    lane_due_arm(l);
    lane_health_update(l);
    if (l->p.recovered)
        l->p.recovered(l->p.arg, l);
    reap_kick(l);
    lane_soon(l);
}

static void tell_slice(struct timer *t)
{
    struct recover *r = container_of(t, struct recover, timer);
    struct lane *l = r->lane;
    struct segments *table = &l->segments;
    uint32_t left = REPLAY_SLICE;

    if (l->closing) {
        r->running = false;
        r->phase = RECOVER_OVER;
        lane_soon(l);
        return;
    }
    while (left) {
        struct list *link = list_pop_front(&r->untold);
        if (link) {
            tell_one(l, r->segment, container_of(link, struct queue_msg, segment_link));
            left--;
            continue;
        }
        while (r->at < table->count && table->items[r->at]->state != SEGMENT_OLD)
            r->at++;
        if (r->at == table->count) {
            recover_over(r);
            return;
        }
        r->segment = table->items[r->at++];
        r->segment->state = SEGMENT_SEALED;
        while ((link = list_pop_front(&r->segment->messages)) != NULL)
            list_push_back(&r->untold, link);
    }
    lane_due_arm(l);
    wait_turn(r);
}

/* ---- the operation ---- */

static void opened_or_read(struct recover *r, int32_t res)
{
    struct lane *l = r->lane;

    switch ((enum recover_phase)r->phase) {
    case RECOVER_OPEN_HEADER:
        if (open_goes_on(r, res))
            return;
        if (res < 0) {
            quarantine_tell(l, r->ids[r->at], 0, strerror(-res));
            r->at++;
            next_header(r);
            return;
        }
        r->fd = res;
        recover_read(r, RECOVER_READ_HEADER, r->window, SEGMENT_BLOCK, 0);
        return;
    case RECOVER_READ_HEADER:
        io_close(l->io, r->fd);
        r->fd = -1;
        if (res < 0) {
            quarantine_tell(l, r->ids[r->at], 0, strerror(-res));
            r->at++;
            next_header(r);
            return;
        }
        header_read(r, res);
        return;
    case RECOVER_OPEN_SEGMENT:
        if (open_goes_on(r, res))
            return;
        if (res < 0) {
            r->segment->pins++; /* as in scan_read */
            quarantine_tell(l, r->segment->id, 0, strerror(-res));
            r->at++;
            next_segment(r);
            return;
        }
        r->fd = res;
        read_window(r, RECOVER_READ_FOOTER, (uint32_t)r->segment->bytes - SEGMENT_BLOCK,
                    SEGMENT_BLOCK);
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
        next_tmp(r);
        break;
    case RECOVER_REMOVE_TMP: next_tmp(r); break;
    case RECOVER_MOVE_AWAY:
        r->at++;
        next_header(r);
        break;
    case RECOVER_READ_FOOTER:
        if (!read_goes_on(r, &res))
            footer_read(r, res);
        break;
    case RECOVER_READ_SUMMARY:
        if (!read_goes_on(r, &res))
            summary_read(r, res);
        break;
    case RECOVER_READ_SCAN:
        if (!read_goes_on(r, &res))
            scan_read(r, res);
        break;
    case RECOVER_READ_HEADER:
        if (!read_goes_on(r, &res))
            opened_or_read(r, res);
        break;
    case RECOVER_SYNC_SCANNED:
        if (res < 0) {
            quarantine_tell(l, r->segment->id, 0, strerror(-res));
            r->segment->pins++; /* as in scan_read: its older copies are needed */
        }
        segment_over(r);
        break;
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
    free(r);
    l->recover = NULL;
}
