/*
 * queue/contents.c - what is in a lane's old segments: counted first, then replayed, and every
 * message told as soon as no record to come can contradict what is known of it.
 *
 * Owns:     the census of records, the entries of segments without a usable summary.
 * Runs on:  the shard that owns the lane; one read at a time, a slice of work a turn.
 * Contract: FORMAT.md section 5: segments in order, records in order; a message is told once,
 *           behind its last record. Nothing on disk is changed; damaged bytes are copied, the last
 *           batch of a segment without a summary is written again as it is.
 * Failure:  a segment that cannot be read is told as damaged, and not deleted in this run.
 * Bounds:   a window of memory, entries of unsealed segments; REPLAY_SLICE entries a turn.
 * Tests:    tests/unit/test_recovery.c, tests/unit/test_recovery_early.c, tests/sim/test_lane_sim.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "queue/recover_internal.h"

#define READ_BYTES ((uint32_t)MIB)
/* Of a segment's end: footer and, nearly always, all summaries. */
#define TAIL_BYTES ((uint32_t)MIB)

_Static_assert(TAIL_BYTES <= RECOVER_WINDOW_BYTES && TAIL_BYTES >= SUMMARY_BYTES_MAX + 4096,
               "a window holds a summary");

static void contents_done(struct io_op *op, int32_t res, uint32_t flags);
static void next_segment(struct recover *r);
static void contents_fire(struct timer *t);

static void pause_turn(struct recover *r)
{
    r->step = CONTENTS_PAUSE;
    io_timer_set(r->lane->io, &r->timer, io_now_ns(r->lane->io));
}

void recover_contents(struct lane *l)
{
    struct recover *r = l->recover;

    assert(!r->running && r->at == 0);
    r->running = true;
    r->phase = RECOVER_CONTENTS;
    r->op.done = contents_done;
    r->timer.fire = contents_fire;
    r->pass = PASS_COUNT;
    next_segment(r);
}

/* ---- segments ---- */

/* The next old one, if there is one. */
static struct segment *old_segment(struct recover *r)
{
    const struct segments *t = &r->lane->segments;

    while (r->at < t->count && t->items[r->at]->state != SEGMENT_OLD)
        r->at++;
    return r->at < t->count ? t->items[r->at] : NULL;
}

static void next_segment(struct recover *r)
{
    struct lane *l = r->lane;
    struct segment *s = l->closing ? NULL : old_segment(r);

    r->segment = s;
    r->entries_at = r->replayed_to = 0;
    r->tries = 0;
    if (!s) {
        r->at = 0;
        r->pass++;
        if (l->closing)
            r->pass = PASS_TELL;
        pause_turn(r);
    } else if (r->pass == PASS_REPLAY && s->scanned) {
        pause_turn(r);
    } else {
        r->step = CONTENTS_OPEN;
        lane_path(l, s->id, "seg", r->path);
        io_open(l->io, &r->op, r->path, IO_READ);
    }
}

static void close_file(struct recover *r)
{
    if (r->fd >= 0)
        io_close(r->lane->io, r->fd);
    r->fd = -1;
}

static void segment_over(struct recover *r)
{
    close_file(r);
    r->at++;
    next_segment(r);
}

/* What it holds is not all known: it stays as it is, for another start or for people. */
static void segment_unread(struct recover *r, int32_t error)
{
    quarantine_tell(r->lane, r->segment->id, r->window_at, strerror(-error));
    r->segment->unread = true;
    if (r->lane->unread_last < r->segment->id)
        r->lane->unread_last = r->segment->id;
    r->segment->scanned = true; /* what was seen of it is replayed */
    r->lane->found_unclosed = true;
    segment_over(r);
}

static void read_window(struct recover *r, uint8_t step, uint32_t from, uint32_t len)
{
    r->step = step;
    r->window_at = from;
    r->window_len = 0;
    r->window_want = len;
    io_read(r->lane->io, &r->op, r->fd, r->window, len, from);
}

/* ---- entries ---- */

/* Something of a message, other than its MESSAGE, is to come. */
static void count_entry(struct recover *r, const struct record_digest *d)
{
    struct record_state_view v;
    uint32_t used;

    if (d->final_block.len && record_state_decode(d->final_block, &v, &used))
        census_add(&r->census, lane_qid(r->lane, v.state.qid));
    if (d->type && d->type != RECORD_MESSAGE)
        census_add(&r->census, lane_qid(r->lane, d->qid));
}

static void tell_one(struct recover *r, struct queue_msg *m)
{
    struct lane *l = r->lane;

    assert(m->flags & MSG_HIDDEN && r->hidden > 0);
    r->hidden--;
    if (m->flags & MSG_ENDED) {
        index_remove(&l->index, m);
        lane_msg_free(l, m);
        return;
    }
    m->flags &= (uint8_t)~MSG_HIDDEN;
    if (m->attempt != ATTEMPT_NONE && l->found_unclosed && m->crashes < QUEUE_CRASHES_MAX)
        m->crashes++;
    m->attempt = ATTEMPT_NONE;
    if (m->segment <= l->unread_last && m->state_segment <= l->unread_last)
        m->uncertain = 1; /* what could not be read may have said that it was delivered */
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

static void tell_if_complete(struct recover *r, uint32_t left, struct queue_msg *m)
{
    if (left == 0 && m && m->flags & MSG_HIDDEN)
        tell_one(r, m);
}

/* A record of the other message whose end a report brings. */
static void take_final(struct recover *r, const struct record_digest *d)
{
    struct record_state_view v;
    uint32_t used;

    if (d->final_block.len && record_state_decode(d->final_block, &v, &used)) {
        uint64_t qid = lane_qid(r->lane, v.state.qid);
        tell_if_complete(r, census_take(&r->census, qid), index_find(&r->lane->index, qid));
    }
}

/* False: no memory, recovery is over. */
static bool replay_entry(struct recover *r, const struct record_digest *d)
{
    struct lane *l = r->lane;
    struct queue_msg *m = NULL;
    uint64_t before = l->index.count, qid = lane_qid(l, d->qid);

    if (d->offset <= r->replayed_to || d->type == 0)
        return true;
    r->replayed_to = d->offset;
    switch (replay_record(l, r->segment, d, &m)) {
    case REPLAY_OK: break;
    case REPLAY_DAMAGED:
        quarantine_tell(l, r->segment->id, d->offset, "record contradicts its message");
        break;
    case REPLAY_NO_MEMORY: recover_fail(r, "", 0); return false;
    }
    r->hidden += l->index.count - before;
    take_final(r, d);
    tell_if_complete(
        r, d->type == RECORD_MESSAGE ? census_left(&r->census, qid) : census_take(&r->census, qid),
        m);
    return true;
}

/* ---- summaries ---- */

static void scan_submit(struct recover *r, uint32_t want)
{
    r->step = CONTENTS_SCAN;
    r->scan_want = want;
    io_read(r->lane->io, &r->op, r->fd, r->window + r->window_len, want,
            r->window_at + r->window_len);
}

static void begin_scan(struct recover *r)
{
    struct segment *s = r->segment;

    s->entries_len = 0;
    s->scanned = true;
    scan_begin(&r->scan, s->id, s->seed, s->bytes);
    torn_begin(&r->torn);
    r->window_at = SEGMENT_BLOCK;
    r->window_len = 0;
    r->window_want = READ_BYTES;
    scan_submit(r, READ_BYTES);
}

static uint32_t to_the_end(const struct segment *s, uint32_t from, uint32_t max)
{
    uint64_t left = from < s->bytes ? s->bytes - from : 0;

    return left < max ? (uint32_t)left : max;
}

static void summary_read(struct recover *r);

static void next_summary(struct recover *r)
{
    uint32_t need = to_the_end(r->segment, r->summary_at,
                               SUMMARY_BYTES_MAX + RECORD_HEADER_SIZE + RECORD_ALIGN);

    if (r->summary_left == 0)
        segment_over(r);
    else if (r->summary_at >= r->window_at && r->summary_at + need <= r->window_at + r->window_len)
        summary_read(r);
    else
        read_window(r, CONTENTS_SUMMARY, r->summary_at,
                    to_the_end(r->segment, r->summary_at, TAIL_BYTES));
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

static void summary_read(struct recover *r)
{
    struct segment *s = r->segment;
    struct slice bytes =
                     slice_from(slice_of(r->window, r->window_len), r->summary_at - r->window_at),
                 payload;
    struct record_header h;
    struct record_digest d;
    uint32_t used;

    payload = slice_from(bytes, RECORD_HEADER_SIZE);
    if (record_check(bytes, s->seed, r->summary_at, s->bytes, &h) != RECORD_GOOD ||
        h.type != RECORD_SUMMARY ||
        !summary_is_good(slice_head(payload, h.length - RECORD_HEADER_SIZE))) {
        quarantine_tell(r->lane, s->id, r->summary_at, "summary of a segment");
        begin_scan(
            r); /* counted twice: told a little later. Replayed: goes on behind replayed_to */
        return;
    }
    payload = slice_head(payload, h.length - RECORD_HEADER_SIZE);
    while (payload.len >= sizeof(struct summary_entry)) {
        bool good = summary_entry_decode(payload, &d, &used);
        assert(good);
        if (r->pass == PASS_COUNT)
            count_entry(r, &d);
        else if (!replay_entry(r, &d))
            return;
        payload = slice_from(payload, used);
    }
    r->summary_at += h.length;
    r->summary_left--;
    if (r->pass == PASS_COUNT) {
        next_summary(r);
        return;
    }
    lane_due_arm(r->lane);
    pause_turn(r);
}

static void begin_summaries(struct recover *r)
{
    r->summary_at = r->segment->summary_offset;
    r->summary_left = r->segment->summary_count;
    next_summary(r);
}

static void footer_read(struct recover *r)
{
    struct segment *s = r->segment;
    uint32_t at = (uint32_t)s->bytes - SEGMENT_BLOCK;
    struct slice block = slice_from(slice_of(r->window, r->window_len), at - r->window_at);
    struct segment_footer f;

    r->sealed = segment_footer_decode(block, s->seed, at, &f);
    if (!r->sealed) {
        begin_scan(r);
        return;
    }
    r->lane->found_unclosed = f.closed != 1;
    s->tail = f.data_end;
    s->summary_offset = f.summary_offset;
    s->summary_count = f.summary_count;
    begin_summaries(r);
}

/* ---- scanning ---- */

/* Keeps what recovery wants to know of the record, as a summary would. */
static bool keep_entry(struct segment *s, const struct record_digest *d)
{
    uint32_t size = summary_entry_size(d);

    if (size == 0)
        return true;
    if (s->entries_len + size > s->entries_cap) {
        uint32_t cap = s->entries_cap ? s->entries_cap * 2 : 64 * 1024;
        uint8_t *grown = realloc(s->entries, cap);
        if (!grown)
            return false;
        s->entries = grown;
        s->entries_cap = cap;
    }
    summary_entry_encode(s->entries + s->entries_len, d);
    s->entries_len += size;
    return true;
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
    if (want > RECOVER_WINDOW_BYTES - keep)
        want = RECOVER_WINDOW_BYTES - keep;
    scan_submit(r, want);
}

static bool scan_record(struct recover *r, const struct scan_event *e)
{
    struct segment *s = r->segment;
    struct record_digest d;
    uint32_t entry = s->entries_len;
    bool suspect = torn_record(&r->torn, s->id, &e->header, e->payload, e->offset);

    s->tail = e->offset + e->header.length;
    r->lane->found_unclosed = true;
    if (!record_digest_of(&e->header, e->payload, e->offset, &d)) {
        quarantine_region(r->lane, s, e->offset, e->header.length, "record that makes no sense");
        return true;
    }
    if (!keep_entry(s, &d)) {
        recover_fail(r, "", 0);
        return false;
    }
    if (suspect)
        torn_suspect(&r->torn, entry);
    if (r->pass == PASS_COUNT)
        count_entry(r, &d);
    return true;
}

/* Messages of a commit that never ended are not there (FORMAT.md M15). Their damage was told; who
 * wants to look at them finds the records in quarantine. */
static void drop_torn(struct recover *r)
{
    struct segment *s = r->segment;

    for (uint32_t i = 0; !r->sealed && i < r->torn.suspect_count; i++) {
        struct summary_entry e;
        memcpy(&e, s->entries + r->torn.suspects[i], sizeof e);
        e.type = 0;
        memcpy(s->entries + r->torn.suspects[i], &e, sizeof e);
        quarantine_copy(r->lane, s, e.offset, e.record_length);
    }
}

/* Goes on behind what was written again. */
static void rewrite_next(struct recover *r, uint32_t from)
{
    if (from < r->torn.end) {
        uint32_t left = r->torn.end - from;
        read_window(r, CONTENTS_REREAD, from, left < READ_BYTES ? left : READ_BYTES);
        return;
    }
    r->step = CONTENTS_SYNC;
    io_sync(r->lane->io, &r->op, r->fd);
}

static void rewrite_submit(struct recover *r)
{
    r->step = CONTENTS_REWRITE;
    io_write(r->lane->io, &r->op, r->fd, r->window, r->window_len, r->window_at);
}

/*
 * What a killed process wrote and did not sync can be read, but a power cut would still take it: it
 * must be on disk before anything is decided by it - mail delivered, or older copies removed. Its
 * last sync may have failed, and then the next one would write nothing: so the last batch is
 * written again as it is. Those before it were synced with success.
 */
static void scan_sync(struct recover *r)
{
    close_file(r);
    r->step = CONTENTS_REOPEN;
    io_open(r->lane->io, &r->op, r->path, IO_READ | IO_WRITE);
}

/* Goes through what is in the window. */
static void scan_window(struct recover *r)
{
    for (;;) {
        struct scan_event e = {0};
        switch (scan_next(&r->scan, r->window_at, slice_of(r->window, r->window_len), &e)) {
        case SCAN_RECORD:
            if (!scan_record(r, &e))
                return;
            break;
        case SCAN_DAMAGED:
            torn_damage(&r->torn, e.damage_at, e.damage_len);
            quarantine_region(r->lane, r->segment, e.damage_at, e.damage_len, e.what);
            break;
        case SCAN_NEED: scan_more(r, &e); return;
        case SCAN_END:
            drop_torn(r);
            if (r->pass == PASS_COUNT) {
                scan_sync(r);
            } else { /* its summary was good when it was counted */
                close_file(r);
                pause_turn(r);
            }
            return;
        }
    }
}

static void scan_read(struct recover *r, int32_t res)
{
    uint32_t room = RECOVER_WINDOW_BYTES - r->window_len;

    if (res == 0) { /* the file is shorter than its segment: zeros */
        uint32_t zeros = room < READ_BYTES ? room : READ_BYTES;
        memset(r->window + r->window_len, 0, zeros);
        res = (int32_t)zeros;
    }
    r->window_len += (uint32_t)res;
    scan_window(r);
}

/* ---- slices ---- */

/* Replays a slice of what a scan kept. */
static void replay_slice(struct recover *r)
{
    struct segment *s = r->segment;
    struct record_digest d;
    uint32_t used;

    for (uint32_t n = 0; n < REPLAY_SLICE && r->entries_at < s->entries_len; n++) {
        struct slice rest = slice_of(s->entries + r->entries_at, s->entries_len - r->entries_at);
        struct summary_entry e;
        memcpy(&e, rest.ptr, sizeof e);
        if (e.type == 0) { /* dropped */
            r->entries_at += e.entry_length;
            continue;
        }
        bool good = summary_entry_decode(rest, &d, &used);
        assert(good);
        r->entries_at += used;
        if (!replay_entry(r, &d))
            return;
    }
    lane_due_arm(r->lane);
    if (r->entries_at < s->entries_len) {
        pause_turn(r);
        return;
    }
    free(s->entries);
    s->entries = NULL;
    segment_over(r);
}

static void recover_over(struct recover *r)
{
    struct lane *l = r->lane;

    r->phase = RECOVER_OVER;
    r->running = false;
    free(r->window);
    r->window = NULL;
    census_free(&r->census);
    l->recovering = false;
    lane_due_arm(l);
    lane_health_update(l);
    if (l->p.recovered)
        l->p.recovered(l->p.arg, l);
    reap_kick(l);
    lane_soon(l);
}

/* Those whose records were not as counted. */
static void tell_slice(struct recover *r)
{
    struct lane *l = r->lane;
    uint32_t left = REPLAY_SLICE;

    while (left) {
        struct list *link = list_pop_front(&r->untold);
        if (link) {
            struct queue_msg *m = container_of(link, struct queue_msg, segment_link);
            list_push_back(&r->segment->messages, link);
            if (m->flags & MSG_HIDDEN)
                tell_one(r, m);
            left--;
            continue;
        }
        r->segment = old_segment(r);
        if (!r->segment) {
            assert(r->hidden == 0);
            recover_over(r);
            return;
        }
        r->at++;
        r->segment->state = SEGMENT_SEALED;
        if (r->hidden == 0)
            continue;
        while (!list_empty(&r->segment->messages)) {
            link = r->segment->messages.next;
            walk_unlink(l, container_of(link, struct queue_msg, segment_link));
            list_push_back(&r->untold, link);
        }
    }
    lane_due_arm(l);
    pause_turn(r);
}

static void contents_fire(struct timer *t)
{
    struct recover *r = container_of(t, struct recover, timer);
    struct lane *l = r->lane;

    if (l->closing) {
        close_file(r);
        r->running = false;
        r->phase = RECOVER_OVER;
        lane_soon(l);
    } else if (r->pass == PASS_TELL) {
        tell_slice(r);
    } else if (r->segment && r->segment->scanned) {
        replay_slice(r);
    } else if (r->segment) {
        next_summary(r);
    } else {
        next_segment(r);
    }
}

/* ---- the operation ---- */

static void read_end(struct recover *r)
{
    uint64_t bytes = r->segment->bytes;
    uint32_t len = bytes < TAIL_BYTES ? (uint32_t)bytes : TAIL_BYTES;

    read_window(r, CONTENTS_FOOTER, (uint32_t)bytes - len, len);
}

static void opened(struct recover *r, int32_t res)
{
    r->window_at = r->window_len = 0;
    r->fd = res;
    if (r->pass == PASS_REPLAY)
        begin_summaries(r);
    else
        read_end(r);
}

/* What is given up here is mail that was promised, and a failure may pass. True: tried again. */
static bool contents_again(struct recover *r, int32_t res)
{
    if (r->step == CONTENTS_SYNC || res == -ENOENT || r->tries++ >= RECOVER_TRIES)
        return false;
    if (r->step == CONTENTS_OPEN || r->step == CONTENTS_REOPEN)
        io_open(r->lane->io, &r->op, r->path,
                r->step == CONTENTS_OPEN ? IO_READ : IO_READ | IO_WRITE);
    else if (r->step == CONTENTS_SCAN)
        scan_submit(r, r->scan_want);
    else if (r->step == CONTENTS_REWRITE)
        rewrite_submit(r);
    else
        io_read(r->lane->io, &r->op, r->fd, r->window + r->window_len,
                r->window_want - r->window_len, r->window_at + r->window_len);
    return true;
}

/* Also when cut short: the rest is read before anybody looks. True: it is all there. */
static bool window_read(struct recover *r, int32_t res)
{
    r->window_len += (uint32_t)res;
    if (res == 0 || r->window_len == r->window_want)
        return true;
    io_read(r->lane->io, &r->op, r->fd, r->window + r->window_len, r->window_want - r->window_len,
            r->window_at + r->window_len);
    return false;
}

static void contents_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct recover *r = container_of(op, struct recover, op);

    (void)flags;
    if (res < 0) {
        if (!contents_again(r, res))
            segment_unread(r, res);
        return;
    }
    if (r->step != CONTENTS_REWRITE || res > 0)
        r->tries = 0;
    switch ((enum contents_step)r->step) {
    case CONTENTS_OPEN: opened(r, res); break;
    case CONTENTS_FOOTER:
        if (window_read(r, res))
            footer_read(r);
        break;
    case CONTENTS_SUMMARY:
        if (window_read(r, res))
            summary_read(r);
        break;
    case CONTENTS_SCAN: scan_read(r, res); break;
    case CONTENTS_REOPEN:
        r->fd = res;
        rewrite_next(r, r->torn.zone > SEGMENT_BLOCK ? r->torn.zone : SEGMENT_BLOCK);
        break;
    case CONTENTS_REREAD:
        if (window_read(r, res))
            rewrite_submit(r);
        break;
    case CONTENTS_REWRITE:
        if (res == 0)
            segment_unread(r, -EIO);
        else
            rewrite_next(r, r->window_at + (uint32_t)res);
        break;
    case CONTENTS_SYNC: segment_over(r); break;
    case CONTENTS_PAUSE: break;
    }
}
