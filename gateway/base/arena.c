/*
 * gateway/base/arena.c - memory of one transaction: bump allocation in slab blocks, freed whole.
 *
 * Owns:     the chain of blocks taken from the slab; nothing else.
 * Runs on:  the thread of the slab.
 * Contract: memory is zeroed, aligned to 8 and stays put until arena_reset.
 * Failure:  NULL when the block bound or the slab is exhausted, or a request exceeds a block.
 * Bounds:   block_count_max blocks. What does not fit the newest block wastes the rest of it.
 * Tests:    tests/unit/test_arena.c
 */
#include "gateway/base/arena.h"

#include <assert.h>
#include <stdlib.h>

#define ARENA_ALIGN 8u

struct arena_block {
    struct arena_block *next; /* older */
    uint32_t block_count;     /* large ones: what they count as */
    uint8_t room[] __attribute__((aligned(16)));
};

void arena_init(struct arena *a, struct slab *blocks, uint32_t block_count_max)
{
    assert(blocks->object_size > sizeof(struct arena_block));
    *a = (struct arena){.blocks = blocks, .block_count_max = block_count_max};
}

size_t arena_alloc_max(const struct arena *a)
{
    return (a->blocks->object_size - sizeof(struct arena_block)) & ~(size_t)(ARENA_ALIGN - 1);
}

static bool arena_grow(struct arena *a)
{
    struct arena_block *block;

    if (a->block_count >= a->block_count_max)
        return false;
    block = slab_alloc(a->blocks);
    if (!block)
        return false;
    block->next = a->head;
    a->head = block;
    a->block_count++;
    a->used = 0;
    return true;
}

void *arena_alloc(struct arena *a, size_t len)
{
    size_t max = arena_alloc_max(a);
    uint8_t *p;

    if (len > max)
        return NULL;
    len = (len + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if ((!a->head || max - a->used < len) && !arena_grow(a))
        return NULL;
    p = a->head->room + a->used;
    a->used += (uint32_t)len;
    assert(a->used <= max);
    memset(p, 0, len);
    return p;
}

void *arena_alloc_large(struct arena *a, size_t len)
{
    size_t max = arena_alloc_max(a);
    size_t blocks = (len + max - 1) / max;
    struct arena_block *block;

    if (len <= max)
        return arena_alloc(a, len);
    if (blocks > a->block_count_max - a->block_count)
        return NULL;
    block = calloc(1, sizeof *block + len);
    if (!block)
        return NULL;
    block->next = a->large;
    block->block_count = (uint32_t)blocks;
    a->large = block;
    a->block_count += (uint32_t)blocks;
    return block->room;
}

bool arena_copy(struct arena *a, struct slice s, struct slice *out)
{
    uint8_t *p = arena_alloc(a, s.len);

    if (!p)
        return false;
    if (s.len)
        memcpy(p, s.ptr, s.len);
    *out = slice_of(p, s.len);
    return true;
}

void arena_reset(struct arena *a)
{
    struct arena_block *block = a->head;

    while (block) {
        struct arena_block *next = block->next;
        slab_free(a->blocks, block);
        assert(a->block_count > 0);
        a->block_count--;
        block = next;
    }
    while (a->large) {
        block = a->large;
        a->large = block->next;
        a->block_count -= block->block_count;
        free(block);
    }
    assert(a->block_count == 0);
    a->head = NULL;
    a->used = 0;
}

void arena_move(struct arena *to, struct arena *from)
{
    assert(!to->head && !to->large && to->blocks == from->blocks);
    to->head = from->head;
    to->large = from->large;
    to->block_count = from->block_count;
    to->used = from->used;
    from->head = NULL;
    from->large = NULL;
    from->block_count = 0;
    from->used = 0;
}
