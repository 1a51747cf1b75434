/*
 * gateway/base/arena.h - memory of one transaction, freed whole.
 *
 * Blocks come from a slab of the shard (base/slab.h), so an arena never calls malloc after start.
 * An arena that hits block_count_max, or an empty slab, answers NULL: the caller turns that into
 * 452 4.3.1.
 */
#ifndef HIKYAKU_BASE_ARENA_H
#define HIKYAKU_BASE_ARENA_H

#include "gateway/base/slab.h"
#include "gateway/base/slice.h"

struct arena_block;

struct arena {
    struct slab *blocks;      /* where blocks come from and go back to */
    struct arena_block *head; /* newest block; NULL while nothing was allocated */
    uint32_t block_count, block_count_max;
    uint32_t used;             /* bytes used in the newest block */
    struct arena_block *large; /* what no block holds */
};

/* `blocks`: a slab whose objects are the blocks. Takes no memory yet. */
void arena_init(struct arena *a, struct slab *blocks, uint32_t block_count_max);

/* `len` bytes aligned to 8, zeroed; NULL when the bound is hit or len exceeds a block's room. */
void *arena_alloc(struct arena *a, size_t len) __attribute__((warn_unused_result));

/*
 * As arena_alloc, for lengths that a block may not hold, such as an array of all recipients: beyond
 * a block's room it comes from the heap and counts as the blocks it would have taken.
 */
void *arena_alloc_large(struct arena *a, size_t len) __attribute__((warn_unused_result));

/* A copy of `s` in the arena. On failure returns false and leaves *out alone. */
bool arena_copy(struct arena *a, struct slice s, struct slice *out)
    __attribute__((warn_unused_result));

/* Gives every block back. The arena may be used again. */
void arena_reset(struct arena *a);

/* Hands all memory from one arena to another, empty one; `from` is empty afterwards. */
void arena_move(struct arena *to, struct arena *from);

/* The most bytes one arena_alloc can give with blocks of this slab. */
size_t arena_alloc_max(const struct arena *a);

#endif
