/*
 * tests/unit/test_slab.c - gateway/base/slab.c: bounded objects.
 */
#include <criterion/criterion.h>
#include <signal.h>

#include "gateway/base/slab.h"

Test(slab, hands_out_distinct_aligned_objects_up_to_its_bound)
{
    enum { COUNT = 5000 };
    static uint32_t *got[COUNT];
    struct slab s;

    slab_init(&s, "test", 100, COUNT); /* 112 bytes each: several chunks */
    cr_assert_eq(s.object_size, 112);
    for (uint32_t i = 0; i < COUNT; i++) {
        got[i] = slab_alloc(&s);
        cr_assert_not_null(got[i]);
        cr_assert_eq((uintptr_t)got[i] % 16, 0);
        for (int j = 0; j < 25; j++)
            got[i][j] = i;
    }
    cr_assert_null(slab_alloc(&s));
    cr_assert_eq(s.used, COUNT);
    for (uint32_t i = 0; i < COUNT; i++)
        for (int j = 0; j < 25; j++)
            cr_assert_eq(got[i][j], i);
    for (uint32_t i = 0; i < COUNT; i++)
        slab_free(&s, got[i]);
    cr_assert_eq(s.used, 0);
    slab_destroy(&s, false);
}

Test(slab, reuses_what_was_freed)
{
    struct slab s;
    void *a, *b;

    slab_init(&s, "test", 64, 2);
    a = slab_alloc(&s);
    b = slab_alloc(&s);
    cr_assert(a && b && !slab_alloc(&s));
    slab_free(&s, a);
    cr_assert_eq(slab_alloc(&s), a);
    cr_assert_eq(s.made, 2);
    slab_free(&s, a);
    slab_free(&s, b);
    slab_destroy(&s, false);
}

Test(slab, aligns_whole_pages_to_pages)
{
    struct slab s;

    slab_init(&s, "pages", 4096, 200);
    for (int i = 0; i < 200; i++)
        cr_assert_eq((uintptr_t)slab_alloc(&s) % 4096, 0);
    slab_destroy(&s, true);
}

Test(slab, takes_objects_larger_than_a_chunk)
{
    struct slab s;
    uint8_t *a, *b;

    slab_init(&s, "large", 3 << 20, 2);
    a = slab_alloc(&s);
    b = slab_alloc(&s);
    cr_assert(a && b);
    a[(3 << 20) - 1] = 1;
    b[(3 << 20) - 1] = 2;
    cr_assert_eq(a[(3 << 20) - 1], 1);
    cr_assert_null(slab_alloc(&s));
    slab_destroy(&s, true);
}

Test(slab, asserts_that_nothing_is_in_use_at_the_end, .signal = SIGABRT)
{
    struct slab s;

    slab_init(&s, "leak", 64, 2);
    if (slab_alloc(&s))
        slab_destroy(&s, false);
}
