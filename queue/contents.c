/*
 * queue/contents.c - the two passes over a lane's old segments: what they hold is counted first,
 * then replayed, and told on the way (tell.c).
 *
 * Owns:     the segment at hand, its descriptor, and the window of its bytes.
 * Runs on:  the shard that owns the lane; one operation at a time, a slice of work a turn.
 * Contract: FORMAT.md section 5: segments in order, and records in order, from their summaries or,
 *           where there is none to be used, from a scan (unsealed.c). What is on disk stays as it
 *           is, but for a last batch that is written again.
 * Failure:  an operation is tried RECOVER_TRIES times more; a segment that cannot be read is told
 *           as damaged, and not deleted in this run.
 * Bounds:   RECOVER_WINDOW_BYTES of memory; a summary a turn.
 * Tests:    tests/unit/test_recovery.c, tests/unit/test_recovery_unread.c, tests/unit/test_torn.c,
 *           tests/sim/test_lane_sim.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "queue/recover_internal.h"

/* Of a segment's end: footer and, nearly always, all summaries. */
#define TAIL_BYTES ((uint32_t)MIB)

_Static_assert(TAIL_BYTES <= RECOVER_WINDOW_BYTES && TAIL_BYTES >= SUMMARY_BYTES_MAX + 4096,
               "a window holds a summary");

static void contents_done(struct io_op *op, int32_t res, uint32_t flags);
static void next_segment(struct recover *r);
static void contents_fire(struct timer *t);

void contents_pause(struct recover *r)
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

struct segment *contents_old_segment(struct recover *r)
{
    const struct segments *t = &r->lane->segments;

    while (r->at < t->count && t->items[r->at]->state != SEGMENT_OLD)
        r->at++;
    return r->at < t->count ? t->items[r->at] : NULL;
}

static void next_segment(struct recover *r)
{
    struct lane *l = r->lane;
    struct segment *s = l->closing ? NULL : contents_old_segment(r);

    r->segment = s;
    r->entries_at = r->replayed_to = 0;
    r->tries = 0;
    if (!s) {
        r->at = 0;
        r->pass++;
        if (l->closing)
            r->pass = PASS_TELL;
        contents_pause(r);
    } else if (r->pass == PASS_REPLAY && s->scanned) {
        contents_pause(r);
    } else {
        r->step = CONTENTS_OPEN;
        lane_path(l, s->id, "seg", r->path);
        io_open(l->io, &r->op, r->path, IO_READ);
    }
}

void contents_close(struct recover *r)
{
    if (r->fd >= 0)
        io_close(r->lane->io, r->fd);
    r->fd = -1;
}

void contents_segment_over(struct recover *r)
{
    contents_close(r);
    r->at++;
    next_segment(r);
}

void contents_segment_unread(struct recover *r, int32_t error)
{
    quarantine_tell(r->lane, r->segment->id, r->window_at, strerror(-error));
    r->segment->unread = true;
    if (r->lane->unread_last < r->segment->id)
        r->lane->unread_last = r->segment->id;
    r->segment->scanned = true; /* what was seen of it is replayed */
    r->lane->found_unclosed = true;
    contents_segment_over(r);
}

/* ---- the window ---- */

void contents_read_rest(struct recover *r)
{
    io_read(r->lane->io, &r->op, r->fd, r->window + r->window_len, r->window_want - r->window_len,
            r->window_at + r->window_len);
}

void contents_read(struct recover *r, uint8_t step, uint32_t from, uint32_t len)
{
    r->step = step;
    r->window_at = from;
    r->window_len = 0;
    r->window_want = len;
    contents_read_rest(r);
}

bool contents_is_read(struct recover *r, int32_t res)
{
    r->window_len += (uint32_t)res;
    if (res == 0 || r->window_len == r->window_want)
        return true;
    contents_read_rest(r);
    return false;
}

/* ---- summaries ---- */

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
        contents_segment_over(r);
    else if (r->summary_at >= r->window_at && r->summary_at + need <= r->window_at + r->window_len)
        summary_read(r);
    else
        contents_read(r, CONTENTS_SUMMARY, r->summary_at,
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

/* Of the SUMMARY record that is next: its header and its entries. False: it is damaged. */
static bool summary_check(const struct recover *r, struct record_header *h, struct slice *entries)
{
    const struct segment *s = r->segment;
    struct slice bytes =
        slice_from(slice_of(r->window, r->window_len), r->summary_at - r->window_at);

    if (record_check(bytes, s->seed, r->summary_at, s->bytes, h) != RECORD_GOOD ||
        h->type != RECORD_SUMMARY)
        return false;
    *entries = slice_from(slice_head(bytes, h->length), RECORD_HEADER_SIZE);
    return summary_is_good(*entries);
}

static void summary_read(struct recover *r)
{
    struct record_header h;
    struct record_digest d;
    struct slice entries;
    uint32_t used;

    if (!summary_check(r, &h, &entries)) {
        quarantine_tell(r->lane, r->segment->id, r->summary_at, "summary of a segment");
        /* Counted twice: told a little later. Replayed: goes on behind replayed_to. */
        unsealed_begin(r);
        return;
    }
    while (entries.len >= sizeof(struct summary_entry)) {
        bool good = summary_entry_decode(entries, &d, &used);
        assert(good);
        if (r->pass == PASS_COUNT)
            tell_count(r, &d);
        else if (!tell_replay(r, &d))
            return;
        entries = slice_from(entries, used);
    }
    r->summary_at += h.length;
    r->summary_left--;
    if (r->pass == PASS_COUNT) {
        next_summary(r);
        return;
    }
    lane_due_arm(r->lane);
    contents_pause(r);
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
        unsealed_begin(r);
        return;
    }
    r->lane->found_unclosed = f.closed != 1;
    s->tail = f.data_end;
    s->summary_offset = f.summary_offset;
    s->summary_count = f.summary_count;
    begin_summaries(r);
}

/* ---- turns ---- */

static void contents_over(struct recover *r)
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

static void contents_fire(struct timer *t)
{
    struct recover *r = container_of(t, struct recover, timer);
    struct lane *l = r->lane;

    if (l->closing) {
        contents_close(r);
        r->running = false;
        r->phase = RECOVER_OVER;
        lane_soon(l);
    } else if (r->pass == PASS_TELL) {
        if (tell_rest(r)) {
            contents_over(r);
        } else {
            lane_due_arm(l);
            contents_pause(r);
        }
    } else if (r->segment && r->segment->scanned) {
        unsealed_replay(r);
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

    contents_read(r, CONTENTS_FOOTER, (uint32_t)bytes - len, len);
}

static void opened(struct recover *r, int32_t res)
{
    r->window_at = r->window_len = 0;
    r->fd = res;
    if (r->pass == PASS_COUNT) {
        read_end(r);
        return;
    }
    r->sealed = true; /* else it was scanned when it was counted, and is not read again */
    begin_summaries(r);
}

/* What is given up here is mail that was promised, and a failure may pass. True: tried again. */
static bool contents_again(struct recover *r, int32_t res)
{
    if (r->step == CONTENTS_SYNC || res == -ENOENT || r->tries++ >= RECOVER_TRIES)
        return false;
    if (r->step == CONTENTS_OPEN)
        io_open(r->lane->io, &r->op, r->path, IO_READ);
    else if (r->step < CONTENTS_SCAN)
        contents_read_rest(r);
    else
        unsealed_again(r);
    return true;
}

static void contents_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct recover *r = container_of(op, struct recover, op);

    (void)flags;
    if (res < 0) {
        if (!contents_again(r, res))
            contents_segment_unread(r, res);
        return;
    }
    r->tries = 0;
    switch ((enum contents_step)r->step) {
    case CONTENTS_OPEN: opened(r, res); break;
    case CONTENTS_FOOTER:
        if (contents_is_read(r, res))
            footer_read(r);
        break;
    case CONTENTS_SUMMARY:
        if (contents_is_read(r, res))
            summary_read(r);
        break;
    case CONTENTS_PAUSE: break;
    default: unsealed_done(r, res); break;
    }
}
