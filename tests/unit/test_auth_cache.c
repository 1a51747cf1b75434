/*
 * tests/unit/test_auth_cache.c - the cache of verified passwords: what hits, what misses, what
 * goes.
 */
#include <criterion/criterion.h>

#include "gateway/auth/auth.h"
#include "gateway/limits.h"

static const uint8_t key[32] = "thirty-two bytes of a random key";

#define ALICE SLICE_LIT("alice")
#define GOOD  SLICE_LIT("secret")

Test(auth_cache, hit_and_miss)
{
    struct auth_cache *c = auth_cache_create(1024, key);
    cr_assert_not(auth_cache_knows(c, ALICE, "$h1", GOOD, 1));
    auth_cache_add(c, ALICE, "$h1", GOOD, 1, 100);
    cr_assert(auth_cache_knows(c, ALICE, "$h1", GOOD, 1));
    cr_assert(auth_cache_knows(c, SLICE_LIT("Alice"), "$h1", GOOD, 2));
    cr_assert_not(auth_cache_knows(c, SLICE_LIT("bob"), "$h1", GOOD, 2));
    cr_assert_not(auth_cache_knows(c, ALICE, "$h2", GOOD, 2), "a changed hash must miss");
    cr_assert_not(auth_cache_knows(c, ALICE, "$h1", SLICE_LIT("Secret"), 2));
    cr_assert_not(auth_cache_knows(c, ALICE, "$h1", SLICE_LIT(""), 2));
    auth_cache_destroy(c);
}

/* The borders between the fields count: ("ab", "c") is not ("a", "bc"). */
Test(auth_cache, fields_do_not_run_together)
{
    struct auth_cache *c = auth_cache_create(1024, key);
    auth_cache_add(c, SLICE_LIT("ab"), "c", SLICE_LIT("d"), 1, 100);
    cr_assert_not(auth_cache_knows(c, SLICE_LIT("a"), "bc", SLICE_LIT("d"), 1));
    cr_assert_not(auth_cache_knows(c, SLICE_LIT("ab"), "", SLICE_LIT("cd"), 1));
    cr_assert_not(auth_cache_knows(c, SLICE_LIT("abc"), "", SLICE_LIT("d"), 1));
    auth_cache_destroy(c);
}

Test(auth_cache, time_runs_out)
{
    struct auth_cache *c = auth_cache_create(1024, key);
    auth_cache_add(c, ALICE, "$h", GOOD, 1000, 100);
    cr_assert(auth_cache_knows(c, ALICE, "$h", GOOD, 1099));
    cr_assert_not(auth_cache_knows(c, ALICE, "$h", GOOD, 1100));
    auth_cache_add(c, ALICE, "$h", GOOD, 1100, 100); /* and again */
    cr_assert(auth_cache_knows(c, ALICE, "$h", GOOD, 1199));
    auth_cache_add(c, ALICE, "$h", GOOD, 1150, 100); /* longer, in place */
    cr_assert(auth_cache_knows(c, ALICE, "$h", GOOD, 1249));
    auth_cache_add(c, SLICE_LIT("bob"), "$h", GOOD, 1, 0);
    cr_assert_not(auth_cache_knows(c, SLICE_LIT("bob"), "$h", GOOD, 1));
    auth_cache_destroy(c);
}

/* Keys differ between processes: what one knows is noise to another. */
Test(auth_cache, another_key)
{
    static const uint8_t other[32] = {1};
    struct auth_cache *c = auth_cache_create(4, key), *d = auth_cache_create(4, other);
    auth_cache_add(c, ALICE, "$h", GOOD, 1, 100);
    cr_assert_not(auth_cache_knows(d, ALICE, "$h", GOOD, 1));
    auth_cache_destroy(c);
    auth_cache_destroy(d);
    auth_cache_destroy(NULL);
}

/* A full cache keeps taking in new ones and forgets the oldest of a set; it never grows. */
Test(auth_cache, full)
{
    struct auth_cache *c = auth_cache_create(64, key);
    uint32_t known = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%u", i);
        auth_cache_add(c, slice_str(name), "$h", GOOD, i, 100000);
        cr_assert(auth_cache_knows(c, slice_str(name), "$h", GOOD, i), "the newest is there");
    }
    for (uint32_t i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%u", i);
        known += auth_cache_knows(c, slice_str(name), "$h", GOOD, 1000);
    }
    cr_assert_eq(known, 64);
    auth_cache_destroy(c);
}

/* In one set (4 entries) the oldest goes first. */
Test(auth_cache, the_oldest_goes)
{
    struct auth_cache *c = auth_cache_create(4, key);
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    for (uint32_t i = 0; i < 5; i++)
        auth_cache_add(c, slice_str(names[i]), "$h", GOOD, i + 1, 1000);
    cr_assert_not(auth_cache_knows(c, SLICE_LIT("a"), "$h", GOOD, 10));
    for (uint32_t i = 1; i < 5; i++)
        cr_assert(auth_cache_knows(c, slice_str(names[i]), "$h", GOOD, 10));
    auth_cache_destroy(c);
}

Test(auth_cache, names_past_the_limit)
{
    uint8_t name[AUTH_USER_MAX + 1] = {0};
    struct auth_cache *c = auth_cache_create(4, key);
    auth_cache_add(c, slice_of(name, sizeof name), "$h", GOOD, 1, 100);
    cr_assert_not(auth_cache_knows(c, slice_of(name, sizeof name), "$h", GOOD, 1));
    auth_cache_destroy(c);
}
