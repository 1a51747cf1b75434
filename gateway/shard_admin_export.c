/*
 * gateway/shard_admin_export.c - the bytes of one queued message, for the operator.
 *
 * Owns:     one read at a time of a request (malloc'd: this is not the message path).
 * Runs on:  the shard; the request comes from the control thread and goes back to it.
 * Contract: the message as a next hop would get it. It belongs to the reader meanwhile, so that
 *           nobody delivers or removes it under the read.
 * Failure:  r->why: it is being delivered, too large, or damaged.
 * Bounds:   EXPORT_MAX bytes, EXPORT_CHUNK a read.
 * Tests:    tests/system/test_export.py
 */
#include <errno.h>
#include <stdlib.h>

#include "gateway/delivery.h"

#define EXPORT_CHUNK (1024 * KIB)

struct export
{
    struct shard *shard;
    struct admin_request *r;
    struct lane *lane;
    struct queue_msg *m;
    struct lane_read read;
};

static void export_end(struct export *x)
{
    struct shard *s = x->shard;
    struct queue_msg *m = x->m;
    m->owner = NULL;
    if (m->state == QUEUE_READY && !m->schedule_index && !s->stopping)
        delivery_due(s->delivery, x->lane, m); /* it fell due meanwhile */
    shard_admin_done(s, x->r);
    free(x);
}

static void export_next(struct export *x)
{
    uint64_t left = x->m->body_size - x->r->json_len;
    uint32_t len = (uint32_t)(left < EXPORT_CHUNK ? left : EXPORT_CHUNK);
    if (len == 0)
        export_end(x);
    else
        lane_body_read(x->lane, x->m, &x->read, x->r->json_len, x->r->json + x->r->json_len, len);
}

static void export_read(struct lane_read *read, int32_t res)
{
    struct export *x = container_of(read, struct export, read);
    if (res > 0) {
        x->r->json_len += (uint32_t)res;
        export_next(x);
        return;
    }
    why_set(&x->r->why, 451, "4.3.0", "the message cannot be read: %s",
            res == -EBADMSG ? "it is damaged" : strerror(res ? -res : EIO));
    export_end(x);
}

static void export_start(struct shard *s, struct admin_request *r, struct lane *l,
                         struct queue_msg *m)
{
    struct export *x = m->owner || m->body_size > EXPORT_MAX ? NULL : calloc(1, sizeof *x);
    r->matched = 1;
    if (x && (r->json = malloc(m->body_size + 1))) {
        *x = (struct export){.shard = s, .r = r, .lane = l, .m = m};
        x->read.done = export_read;
        m->owner = &s->admin_owner;
        export_next(x);
        return;
    }
    free(x);
    why_set(&r->why, 451, "4.3.0",
            m->owner                    ? "it is being worked on now: hold it, or try again"
            : m->body_size > EXPORT_MAX ? "it is too large to be exported"
                                        : "out of memory");
    shard_admin_done(s, r);
}

void shard_admin_export(struct shard *s, struct admin_request *r)
{
    for (uint32_t i = 0; i < s->lane_count; i++) {
        struct queue_msg *m = lane_find(s->lanes[i], r->qid);
        if (m) {
            export_start(s, r, s->lanes[i], m);
            return;
        }
    }
    shard_admin_done(s, r);
}
