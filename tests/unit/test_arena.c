/*
 * tests/unit/test_arena.c - gateway/base/arena.c: memory of a transaction.
 */
#include <criterion/criterion.h>

#include "gateway/base/arena.h"

static void fixture(struct slab *blocks, struct arena *a)
{
    slab_init(blocks, "test blocks", 256, 8);
    arena_init(a, blocks, 4);
}

Test(arena, gives_zeroed_aligned_memory_that_does_not_overlap)
{
    struct slab blocks;
    struct arena a;
    uint8_t *got[40];

    fixture(&blocks, &a);
    for (int round = 0; round < 2; round++) { /* the second round gets used blocks */
        for (int i = 0; i < 40; i++) {
            got[i] = arena_alloc(&a, 17);
            cr_assert_not_null(got[i]);
            cr_assert_eq((uintptr_t)got[i] % 8, 0);
            for (int j = 0; j < 17; j++)
                cr_assert_eq(got[i][j], 0);
            memset(got[i], i + 1, 17);
        }
        for (int i = 0; i < 40; i++)
            cr_assert(got[i][0] == i + 1 && got[i][16] == i + 1);
        cr_assert_eq(blocks.used, 4);
        cr_assert_null(arena_alloc(&a, 17), "the block bound holds");
        arena_reset(&a);
        cr_assert_eq(blocks.used, 0);
    }
    slab_destroy(&blocks, false);
}

Test(arena, bounds_one_allocation_by_a_block)
{
    struct slab blocks;
    struct arena a;
    size_t max;

    fixture(&blocks, &a);
    max = arena_alloc_max(&a);
    cr_assert(max > 200 && max < 256);
    cr_assert_not_null(arena_alloc(&a, max));
    cr_assert_eq(blocks.used, 1);
    cr_assert_null(arena_alloc(&a, max + 1));
    cr_assert_null(arena_alloc(&a, SIZE_MAX));
    cr_assert_eq(blocks.used, 1, "a refused allocation takes no block");
    cr_assert_not_null(arena_alloc(&a, 0));
    arena_reset(&a);
    slab_destroy(&blocks, false);
}

Test(arena, answers_null_when_the_slab_is_empty)
{
    struct slab blocks;
    struct arena a, b;
    void *p;

    fixture(&blocks, &a);
    arena_init(&b, &blocks, 100);
    for (int i = 0; i < 8; i++) {
        p = arena_alloc(&b, 200);
        cr_assert_not_null(p);
    }
    p = arena_alloc(&a, 1);
    cr_assert_null(p);
    arena_reset(&b);
    p = arena_alloc(&a, 1);
    cr_assert_not_null(p);
    arena_reset(&a);
    slab_destroy(&blocks, false);
}

Test(arena, copies_slices)
{
    struct slab blocks;
    struct arena a;
    struct slice out = SLICE_LIT("unchanged");
    uint8_t large[300] = {0};

    fixture(&blocks, &a);
    cr_assert(arena_copy(&a, SLICE_LIT("hello"), &out));
    cr_assert(slice_eq(out, SLICE_LIT("hello")));
    cr_assert(arena_copy(&a, slice_of(NULL, 0), &out));
    cr_assert_eq(out.len, 0);
    out = SLICE_LIT("unchanged");
    cr_assert_not(arena_copy(&a, slice_of(large, sizeof large), &out));
    cr_assert(slice_eq(out, SLICE_LIT("unchanged")));
    arena_reset(&a);
    slab_destroy(&blocks, false);
}

Test(arena, moves_all_memory_to_another)
{
    struct slab blocks;
    struct arena a, b;
    struct slice s, t;

    fixture(&blocks, &a);
    arena_init(&b, &blocks, 4);
    cr_assert(arena_copy(&a, SLICE_LIT("stays"), &s));
    arena_move(&b, &a);
    cr_assert_null(a.head);
    cr_assert(arena_copy(&a, SLICE_LIT("other"), &t));
    arena_reset(&a);
    cr_assert(slice_eq(s, SLICE_LIT("stays")));
    cr_assert(arena_copy(&b, SLICE_LIT("more"), &t));
    cr_assert_eq(blocks.used, 1, "goes on in the block it was given");
    arena_reset(&b);
    slab_destroy(&blocks, false);
}
