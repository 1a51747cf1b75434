/*
 * queue/restate.c - writes the newest state of messages again that is all that keeps a segment.
 *
 * Owns:     one message on its way; a walk over the index, a slice a turn.
 * Runs on:  the shard that owns the lane, beside its traffic.
 * Contract: the state is written as it is, with the last error's words, as any change of it is:
 *           the old record counts until the new one is durable.
 * Failure:  a segment whose words cannot be read stays; what finds no room is seen by a later walk.
 * Bounds:   a walk every RESTATE_CHECK_NS and more, RESTATE_STEPS messages a turn, one read at a
 *           time; of a segment at most as many records as are smaller than it.
 * Tests:    tests/unit/test_lane_compact.c; rule: queue/FORMAT.md section 7
 */
#include <stdlib.h>

#include "queue/lane_internal.h"

#define RESTATE_CHECK_NS     (2 * NS_PER_S)
#define RESTATE_PAUSE_NS     (10 * NS_PER_US) /* more, for each message in the index */
#define RESTATE_STEPS        256u
#define RESTATE_RECORD_BYTES 1024u /* more than a state record, its words and its summary entry */

static bool worth_it(const struct segment *s)
{
    return (s->state == SEGMENT_SEALED || s->state == SEGMENT_FAILED) && !s->live &&
           s->state_live && s->state_live <= s->bytes / RESTATE_RECORD_BYTES && !s->unreadable &&
           !s->unread;
}

/* The segments that this walk is about. */
static bool mark(struct lane *l)
{
    bool any = false;

    for (uint32_t i = 0; i < l->segments.count; i++) {
        struct segment *s = l->segments.items[i];
        s->restate = worth_it(s);
        any = any || s->restate;
    }
    return any;
}

static void words_read(struct lane_read *read, int32_t res)
{
    struct restate *r = container_of(read, struct restate, read);
    struct lane *l = read->lane;
    struct queue_msg *m = index_find(&l->index, r->qid);
    struct segment *s = segments_find(&l->segments, r->segment);

    r->reading = false;
    if (res < 0 && s)
        s->unreadable = true;
    if (res >= 0 && m && m->state_segment == r->segment && m->state_offset == r->offset &&
        !(m->flags & MSG_LOCKED) && !l->closing && !l->stash_count &&
        !state_again(l, m, slice_of(read->buf, (size_t)res)))
        r->walking = false; /* no room now */
    free(read->buf);
    read->buf = NULL;
}

/* False: not one that this walk is about. */
static bool restate(struct lane *l, struct queue_msg *m)
{
    struct restate *r = &l->restate;
    struct segment *s = segments_find(&l->segments, m->state_segment);

    if (!s || !s->restate || s->unreadable || m->flags & MSG_LOCKED)
        return false;
    r->qid = m->qid;
    r->segment = m->state_segment;
    r->offset = m->state_offset;
    r->reading = true;
    r->read.done = words_read;
    read_words(l, m, &r->read);
    return true;
}

void restate_kick(struct lane *l, bool may)
{
    struct restate *r = &l->restate;

    if (r->reading || !may)
        return;
    if (!r->walking) {
        if (io_now_ns(l->io) < r->next_check_ns)
            return;
        r->next_check_ns = io_now_ns(l->io) + RESTATE_CHECK_NS + l->index.count * RESTATE_PAUSE_NS;
        if (!compact_is_wanted(l) || !mark(l))
            return;
        r->walking = true;
        r->cursor = 0;
    }
    for (uint32_t i = 0; i < RESTATE_STEPS; i++) {
        struct queue_msg *m = index_next(&l->index, &r->cursor);
        if (!m) {
            r->walking = false;
            return;
        }
        if (restate(l, m))
            return;
    }
}
