/*
 * gateway/base/ring.h - bounded lock-free rings between two threads (one producer, one consumer).
 *
 * ring_msg: fixed-size values. ring_bytes: variable-size lines (logs). Neither blocks: a full ring
 * answers false and the producer decides (keep and retry, or count a drop).
 */
#ifndef HIKYAKU_BASE_RING_H
#define HIKYAKU_BASE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What threads say to each other: values, or a handle {shard, slot, generation}; `ptr` only where
 * ownership moves.
 */
struct ring_item {
    uint32_t kind;
    uint32_t from; /* index of the sending peer */
    uint64_t a, b, c, d;
    void *ptr; /* owned by the receiver from now on, or NULL */
};

struct ring_msg;
struct ring_msg *ring_msg_create(
    uint32_t capacity); /* rounded up to a power of two; NULL: no memory */
void ring_msg_destroy(struct ring_msg *r);
bool ring_msg_push(struct ring_msg *r, const struct ring_item *item)
    __attribute__((warn_unused_result));
bool ring_msg_pop(struct ring_msg *r, struct ring_item *item) __attribute__((warn_unused_result));
/*
 * True when the consumer had emptied the ring before the last push: only then a wake-up is needed.
 */
bool ring_msg_was_empty(const struct ring_msg *r);

struct ring_bytes;
struct ring_bytes *ring_bytes_create(uint32_t capacity);
void ring_bytes_destroy(struct ring_bytes *r);
/* All of it or nothing. */
bool ring_bytes_write(struct ring_bytes *r, const void *data, uint32_t len)
    __attribute__((warn_unused_result));
/* Up to `len` bytes, 0 when empty. */
uint32_t ring_bytes_read(struct ring_bytes *r, void *data, uint32_t len);
bool ring_bytes_empty(const struct ring_bytes *r);

#endif
