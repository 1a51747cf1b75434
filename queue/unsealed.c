/*
 * queue/unsealed.c - an old segment without a usable summary: scanned for its records, which are
 * kept, and replayed from there when its turn comes.
 *
 * Owns:     the entries of such segments, from the scan until they are replayed.
 * Runs on:  the shard that owns the lane; one operation at a time, a slice of work a turn.
 * Contract: FORMAT.md section 5, rows R1 to R10 and M15. Damaged bytes are copied to quarantine;
 *           the last batch is written again as it is, and synced, before anything is decided by it.
 * Failure:  what cannot be read or written: contents_segment_unread. No memory: recovery is over.
 * Bounds:   a window of memory; the entries of unsealed segments; REPLAY_SLICE entries a turn.
 * Tests:    tests/unit/test_recovery.c, tests/unit/test_torn.c, tests/sim/test_lane_sim.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "queue/recover_internal.h"

/* ---- what a scan finds ---- */

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
        tell_count(r, &d);
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

/* ---- the last batch ---- */

/*
 * What a killed process wrote and did not sync can be read, but a power cut would still take it: it
 * must be on disk before anything is decided by it - mail delivered, or older copies removed. Its
 * last sync may have failed, and then the next one would write nothing: so the last batch is
 * written again as it is. Those before it were synced with success.
 */
static void rewrite_begin(struct recover *r)
{
    contents_close(r);
    r->step = CONTENTS_REOPEN;
    io_open(r->lane->io, &r->op, r->path, IO_READ | IO_WRITE);
}

/* Goes on behind what was written again. */
static void rewrite_next(struct recover *r, uint32_t from)
{
    if (from < r->torn.end) {
        uint32_t left = r->torn.end - from;
        contents_read(r, CONTENTS_REREAD, from,
                      left < RECOVER_READ_BYTES ? left : RECOVER_READ_BYTES);
        return;
    }
    r->step = CONTENTS_SYNC;
    io_sync(r->lane->io, &r->op, r->fd);
}

static void rewrite_window(struct recover *r)
{
    r->step = CONTENTS_REWRITE;
    io_write(r->lane->io, &r->op, r->fd, r->window, r->window_len, r->window_at);
}

/* ---- the scan ---- */

/* Reads `want` bytes behind what is in the window. */
static void scan_submit(struct recover *r, uint32_t want)
{
    r->step = CONTENTS_SCAN;
    r->window_want = r->window_len + want;
    contents_read_rest(r);
}

/* More bytes from `need_at` on: keeps what is there already. */
static void scan_more(struct recover *r, const struct scan_event *e)
{
    uint32_t end = r->window_at + r->window_len;
    uint32_t keep = e->need_at < end ? end - e->need_at : 0;
    uint32_t want = e->need_len > keep ? e->need_len - keep : 0;

    assert(e->need_at >= r->window_at);
    if (keep)
        memmove(r->window, r->window + (e->need_at - r->window_at), keep);
    r->window_at = e->need_at;
    r->window_len = keep;
    if (want < RECOVER_READ_BYTES)
        want = RECOVER_READ_BYTES;
    if (want > RECOVER_WINDOW_BYTES - keep)
        want = RECOVER_WINDOW_BYTES - keep;
    scan_submit(r, want);
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
                rewrite_begin(r);
            } else { /* its summary was good when it was counted */
                contents_close(r);
                contents_pause(r);
            }
            return;
        }
    }
}

static void scan_read(struct recover *r, int32_t res)
{
    uint32_t room = RECOVER_WINDOW_BYTES - r->window_len;

    if (res == 0) { /* the file is shorter than its segment: zeros */
        uint32_t zeros = room < RECOVER_READ_BYTES ? room : RECOVER_READ_BYTES;
        memset(r->window + r->window_len, 0, zeros);
        res = (int32_t)zeros;
    }
    r->window_len += (uint32_t)res;
    scan_window(r);
}

void unsealed_begin(struct recover *r)
{
    struct segment *s = r->segment;

    s->entries_len = 0;
    s->scanned = true;
    scan_begin(&r->scan, s->id, s->seed, s->bytes);
    torn_begin(&r->torn);
    r->window_at = SEGMENT_BLOCK;
    r->window_len = 0;
    scan_submit(r, RECOVER_READ_BYTES);
}

void unsealed_done(struct recover *r, int32_t res)
{
    switch ((enum contents_step)r->step) {
    case CONTENTS_SCAN: scan_read(r, res); break;
    case CONTENTS_REOPEN:
        r->fd = res;
        rewrite_next(r, r->torn.zone > SEGMENT_BLOCK ? r->torn.zone : SEGMENT_BLOCK);
        break;
    case CONTENTS_REREAD:
        if (contents_is_read(r, res))
            rewrite_window(r);
        break;
    case CONTENTS_REWRITE:
        if (res == 0)
            contents_segment_unread(r, -EIO);
        else
            rewrite_next(r, r->window_at + (uint32_t)res);
        break;
    case CONTENTS_SYNC: contents_segment_over(r); break;
    default: assert(!"one of unsealed.c's steps");
    }
}

void unsealed_again(struct recover *r)
{
    if (r->step == CONTENTS_REOPEN)
        io_open(r->lane->io, &r->op, r->path, IO_READ | IO_WRITE);
    else if (r->step == CONTENTS_REWRITE)
        rewrite_window(r);
    else
        contents_read_rest(r);
}

/* ---- replaying ---- */

void unsealed_replay(struct recover *r)
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
        if (!tell_replay(r, &d))
            return;
    }
    lane_due_arm(r->lane);
    if (r->entries_at < s->entries_len) {
        contents_pause(r);
        return;
    }
    free(s->entries);
    s->entries = NULL;
    contents_segment_over(r);
}
