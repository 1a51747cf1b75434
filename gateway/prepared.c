/*
 * gateway/prepared.c - messages handed over to this shard and not yet ours, by id.
 *
 * Owns:     the table; the messages are the lane's.
 * Runs on:  the shard.
 * Contract: of one id at most one durable message is kept, that of the newest offer, so that what a
 *           source changed between two offers counts.
 * Failure:  a message whose envelope cannot be read stays PREPARED, for the operator.
 * Bounds:   HANDOFF_PREPARED_MAX.
 * Tests:    tests/system/test_handoff.py
 */
#include "gateway/prepared.h"

#include <stdlib.h>

#include "gateway/backlog.h"

#define BUCKETS 1024u

struct entry {
    struct entry *next;
    uint64_t offer, qid; /* qid 0: on its way */
    struct lane *lane;
    enum queue_state state; /* when it is ours */
    uint32_t id_len;
    uint8_t id[HANDOFF_ID_MAX];
};

struct prepared {
    struct shard *shard;
    struct entry *buckets[BUCKETS];
    uint32_t count;
    uint64_t offers;
    struct backlog *unread; /* found, and their ids are not known yet */
    bool reading;
    struct queue_msg *m; /* being read */
    struct lane *lane;
    struct lane_envelope_read read;
    struct arena arena;
};

/* ---- the table ---- */

static struct entry **entry_at(struct prepared *p, struct slice id)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < id.len; i++)
        h = (h ^ id.ptr[i]) * 16777619u;
    struct entry **at = &p->buckets[h % BUCKETS];
    while (*at && !slice_eq(slice_of((*at)->id, (*at)->id_len), id))
        at = &(*at)->next;
    return at;
}

static struct entry *entry_get(struct prepared *p, struct slice id)
{
    struct entry **at = entry_at(p, id);
    if (*at || p->count >= HANDOFF_PREPARED_MAX || id.len > HANDOFF_ID_MAX)
        return *at;
    struct entry *e = calloc(1, sizeof *e); /* hand-offs are rare; this is not the way of mail */
    if (!e)
        return NULL;
    e->id_len = (uint32_t)id.len;
    memcpy(e->id, id.ptr, id.len);
    *at = e;
    p->count++;
    return e;
}

static void entry_drop(struct prepared *p, struct entry **at)
{
    struct entry *e = *at;
    *at = e->next;
    p->count--;
    free(e);
}

void prepared_remove(struct lane *l, struct queue_msg *m)
{
    uint32_t some[64];
    uint32_t total = m->rcpt_count;
    for (uint32_t i = 0, count = 0; i < total; i++) {
        some[count++] = i;
        if (count < 64 && i + 1 < total)
            continue;
        lane_rcpts_final(l, m, some, count, RCPT_REMOVED);
        count = 0;
    }
}

static struct queue_msg *entry_message(const struct entry *e)
{
    struct queue_msg *m = e->qid ? lane_find(e->lane, e->qid) : NULL;
    return m && m->state == QUEUE_PREPARED ? m : NULL;
}

static void entry_set(struct entry *e, const struct envelope *env, struct lane *l,
                      struct queue_msg *m)
{
    struct queue_msg *older = entry_message(e);
    if (older)
        prepared_remove(e->lane, older);
    e->lane = l;
    e->qid = m->qid;
    e->state = env->flags & ENVELOPE_WAS_POISON ? QUEUE_POISON
               : env->flags & ENVELOPE_WAS_HELD ? QUEUE_HELD
                                                : QUEUE_READY;
}

uint64_t prepared_offer(struct prepared *p, struct slice id)
{
    struct entry *e = entry_get(p, id);
    if (!e)
        return 0;
    e->offer = ++p->offers;
    return e->offer;
}

bool prepared_done(struct prepared *p, const struct envelope *env, uint64_t offer, struct lane *l,
                   struct queue_msg *m)
{
    struct entry *e = *entry_at(p, env->handoff);
    if (!e || e->offer != offer) {
        prepared_remove(l, m);
        return false;
    }
    entry_set(e, env, l, m);
    return true;
}

void prepared_failed(struct prepared *p, struct slice id, uint64_t offer)
{
    struct entry **at = entry_at(p, id);
    if (*at && (*at)->offer == offer && (*at)->qid == 0)
        entry_drop(p, at);
}

struct queue_msg *prepared_take(struct prepared *p, struct slice id, struct lane **l,
                                enum queue_state *state)
{
    struct entry **at = entry_at(p, id);
    if (!*at)
        return NULL;
    struct queue_msg *m = entry_message(*at);
    *l = (*at)->lane;
    *state = (*at)->state;
    entry_drop(p, at);
    return m;
}

static bool is_before(struct slice a, struct slice b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return order ? order < 0 : a.len < b.len;
}

bool prepared_next(const struct prepared *p, struct slice instance, struct slice after,
                   char id[HANDOFF_ID_MAX + 1])
{
    struct slice best = slice_of(NULL, 0);
    for (uint32_t i = 0; i < BUCKETS; i++)
        for (const struct entry *e = p->buckets[i]; e; e = e->next) {
            struct slice its = slice_of(e->id, e->id_len);
            if (e->qid && slice_eq(slice_head(its, slice_find(its, '/')), instance) &&
                (!after.len || is_before(after, its)) && (!best.len || is_before(its, best)))
                best = its;
        }
    snprintf(id, HANDOFF_ID_MAX + 1, "%.*s", (int)best.len, (const char *)best.ptr);
    return best.len > 0;
}

/* ---- what an earlier life prepared ---- */

static void read_next(struct prepared *p);

static void read_done(struct lane_envelope_read *r, const struct envelope *env, struct slice error,
                      const struct why *why)
{
    struct prepared *p = container_of(r, struct prepared, read);
    struct queue_msg *m = p->m;
    (void)error;
    (void)why;
    p->reading = false;
    m->owner = NULL;
    struct entry *e = env && env->handoff.len ? entry_get(p, env->handoff) : NULL;
    if (e && m->state == QUEUE_PREPARED) {
        if (e->qid < m->qid) /* the newer offer counts; of one that came meanwhile, that one */
            entry_set(e, env, p->lane, m);
        else
            prepared_remove(p->lane, m);
    }
    arena_reset(&p->arena);
    read_next(p);
}

static void read_next(struct prepared *p)
{
    uint64_t qid;
    while (!p->reading && backlog_pop(p->unread, &qid))
        for (uint32_t i = 0; i < p->shard->lane_count; i++) {
            struct lane *l = p->shard->lanes[i];
            struct queue_msg *m = lane_find(l, qid);
            if (!m || m->owner || m->state != QUEUE_PREPARED)
                continue;
            p->reading = true;
            p->m = m;
            p->lane = l;
            m->owner = &p->shard->admin_owner; /* nobody else's for the moment */
            p->read.done = read_done;
            lane_envelope_read(l, m, &p->read, &p->arena);
            break;
        }
}

void prepared_found(struct prepared *p, struct lane *l, struct queue_msg *m)
{
    (void)l;
    if (backlog_push(p->unread, m->qid))
        read_next(p);
}

bool prepared_is_ready(const struct prepared *p)
{
    return p->shard->lanes_recovered == p->shard->lane_count && !p->reading &&
           backlog_empty(p->unread);
}

/* ---- life ---- */

struct prepared *prepared_create(struct shard *s)
{
    struct prepared *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->shard = s;
    p->unread = backlog_create();
    arena_init(&p->arena, &s->arena_slab, ENVELOPE_BLOCKS_MAX * 2);
    if (p->unread)
        return p;
    free(p);
    return NULL;
}

void prepared_destroy(struct prepared *p)
{
    for (uint32_t i = 0; i < BUCKETS; i++)
        while (p->buckets[i])
            entry_drop(p, &p->buckets[i]);
    backlog_destroy(p->unread);
    arena_reset(&p->arena);
    free(p);
}
