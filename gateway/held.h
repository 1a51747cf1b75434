/*
 * gateway/held.h - received buffers that a connection has not consumed yet: a list through the
 * shard's table by buffer id.
 */
#ifndef HIKYAKU_HELD_H
#define HIKYAKU_HELD_H

#include "gateway/base/slice.h"
#include "gateway/io/io.h"

struct held_buf {
    const uint8_t *data;
    uint32_t len;
    int32_t next; /* buffer id, -1: last */
};

/* One for each shard: an entry for each provided buffer. */
struct held_table {
    struct io *io;
    struct held_buf *bufs;
    uint32_t count; /* held by anybody */
};

struct held {
    int32_t first, last; /* buffer ids, -1: none */
    uint32_t count;
    uint32_t offset; /* consumed of the first one */
};

static inline void held_init(struct held *h)
{
    *h = (struct held){.first = -1, .last = -1};
}

static inline bool held_empty(const struct held *h)
{
    return h->first < 0;
}

static inline void held_push(struct held_table *t, struct held *h, const struct io_op *op,
                             uint32_t len)
{
    t->bufs[op->buf_id] = (struct held_buf){.data = op->data, .len = len, .next = -1};
    if (h->last >= 0)
        t->bufs[h->last].next = op->buf_id;
    else
        h->first = op->buf_id;
    h->last = op->buf_id;
    h->count++;
    t->count++;
}

static inline void held_pop(struct held_table *t, struct held *h)
{
    int32_t id = h->first;
    h->first = t->bufs[id].next;
    if (h->first < 0)
        h->last = -1;
    h->count--;
    t->count--;
    h->offset = 0;
    io_buf_put(t->io, (uint16_t)id);
}

static inline struct slice held_slice(const struct held_table *t, const struct held *h)
{
    if (held_empty(h))
        return slice_of(NULL, 0);
    const struct held_buf *b = &t->bufs[h->first];
    return slice_of(b->data + h->offset, b->len - h->offset);
}

/* `rest` is what was left of held_slice(). */
static inline void held_consume(struct held_table *t, struct held *h, struct slice rest)
{
    if (held_empty(h))
        return;
    if (rest.len == 0)
        held_pop(t, h);
    else
        h->offset = t->bufs[h->first].len - (uint32_t)rest.len;
}

static inline void held_drop(struct held_table *t, struct held *h)
{
    while (!held_empty(h))
        held_pop(t, h);
}

#endif
