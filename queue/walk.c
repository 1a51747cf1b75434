/*
 * queue/walk.c - all messages of a lane in the order in which they lie on disk, so that who reads
 * each of them reads forward.
 *
 * Owns:     nothing; the walks are their owners', and known to the lane while they last.
 * Runs on:  the shard that owns the lane. No I/O.
 * Contract: what is there from begin to end is seen exactly once, unless recovery puts it right
 *           meanwhile (FORMAT.md section 5): then it may be missed. Nothing is seen twice: copies
 *           of what lies ahead are not begun while a walk lasts (compact.c), and those of what was
 *           passed lie behind its end.
 * Failure:  none.
 * Bounds:   a step is constant time; leaving a segment costs each walk one comparison a message.
 * Tests:    tests/unit/test_walk.c
 */
#include "queue/lane_internal.h"

static struct queue_msg *message_at(struct list *at)
{
    return container_of(at, struct queue_msg, segment_link);
}

void lane_walk_begin(struct lane *l, struct lane_walk *w)
{
    *w = (struct lane_walk){.at = NULL};
    list_init(&w->link);
    list_push_back(&l->walks, &w->link);
}

void lane_walk_end(struct lane_walk *w)
{
    list_remove(&w->link);
}

/* The list goes on without this message: it is over, or lies elsewhere from here on. */
void walk_unlink(struct lane *l, struct queue_msg *m)
{
    for (struct list *p = l->walks.next; p != &l->walks; p = p->next) {
        struct lane_walk *w = container_of(p, struct lane_walk, link);
        if (w->at == &m->segment_link)
            w->at = m->segment_link.next;
    }
    list_remove(&m->segment_link);
}

bool walk_is_ahead(const struct lane *l, uint32_t segment)
{
    for (const struct list *p = l->walks.next; p != &l->walks; p = p->next)
        if (container_of(p, struct lane_walk, link)->segment <= segment)
            return true;
    return false;
}

void walk_end_all(struct lane *l)
{
    while (list_pop_front(&l->walks))
        ;
}

/* The first segment behind the walk's, or NULL. */
static struct segment *next_segment(const struct lane *l, const struct lane_walk *w)
{
    for (uint32_t i = segments_from(&l->segments, w->segment + 1); i < l->segments.count; i++) {
        struct segment *s = l->segments.items[i];
        if (s->id <= w->end_segment)
            return s;
    }
    return NULL;
}

/* What is appended from here on is not seen. */
static void begin(const struct lane *l, struct lane_walk *w)
{
    uint32_t last = l->segments.count;

    w->begun = true;
    if (l->open) {
        w->end_segment = l->open->id;
        w->end_offset = l->open->tail;
        return;
    }
    while (last > 0 && list_empty(&l->segments.items[last - 1]->messages))
        last--;
    w->end_segment = last ? l->segments.items[last - 1]->id : 0;
    w->end_offset = UINT32_MAX;
}

enum lane_walk_step lane_walk_next(struct lane *l, struct lane_walk *w, struct queue_msg **m)
{
    struct segment *s;

    if (!w->begun) {
        /* Of copies under way nobody knows on which side they will be. */
        if (l->compact.running || l->compact.large.step != LARGE_IDLE)
            return LANE_WALK_LATER;
        begin(l, w);
    }
    s = w->at ? segments_find(&l->segments, w->segment) : NULL;
    for (;;) {
        if (!s) {
            s = next_segment(l, w);
            if (!s)
                return LANE_WALK_OVER;
            w->segment = s->id;
            w->at = s->messages.next;
        }
        if (w->at == &s->messages) {
            w->at = NULL;
            s = NULL;
            continue;
        }
        *m = message_at(w->at);
        w->at = w->at->next;
        if (!((*m)->flags & MSG_HIDDEN) &&
            ((*m)->segment < w->end_segment || (*m)->offset < w->end_offset))
            return LANE_WALK_FOUND;
    }
}
