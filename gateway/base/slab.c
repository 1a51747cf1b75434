/*
 * gateway/base/slab.c - objects of one size, counted and bounded.
 *
 * Owns:     mmap'd chunks; each ends in a header that links it to the one before.
 * Runs on:  one thread.
 * Contract: objects are aligned to 16, and to a page when their size is a multiple of a page.
 * Failure:  NULL at object_count_max, or when the system has no memory.
 * Bounds:   object_count_max objects; chunks of CHUNK_BYTES or one object.
 *           Sanitizer builds fill freed objects and forbid access to them, and tell the leak
 *           checker to look for pointers in chunks.
 * Tests:    tests/unit/test_slab.c
 */
#include "gateway/base/slab.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include "gateway/base/sanitizers.h"

#ifdef SANITIZES_ADDRESS
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#define SLAB_POISON 1
#else
#define ASAN_POISON_MEMORY_REGION(p, n)     ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define __lsan_register_root_region(p, n)   ((void)(p), (void)(n))
#define __lsan_unregister_root_region(p, n) ((void)(p), (void)(n))
#endif
#if defined(HIKYAKU_DEBUG) || defined(__SANITIZE_THREAD__)
#define SLAB_POISON 1
#endif

#define CHUNK_BYTES         (256u * 1024)
#define POPULATE_OBJECT_MAX 4096u
#define FREED_BYTE          0xdb

struct slab_chunk {
    struct slab_chunk *older;
    uint8_t *base;
    size_t map_len;
};

struct slab_free_link {
    struct slab_free_link *next;
};

void slab_init(struct slab *s, const char *name, size_t object_size, uint32_t object_count_max)
{
    assert(object_size > 0);
    *s = (struct slab){
        .name = name,
        .object_size = (object_size + 15) & ~(size_t)15,
        .object_count_max = object_count_max,
    };
}

static uint32_t slab_chunk_objects(const struct slab *s)
{
    size_t n = (CHUNK_BYTES - sizeof(struct slab_chunk)) / s->object_size;

    if (n == 0)
        n = 1;
    return n < s->object_count_max ? (uint32_t)n : s->object_count_max;
}

static bool slab_add_chunk(struct slab *s)
{
    size_t objects = slab_chunk_objects(s);
    size_t len = objects * s->object_size + sizeof(struct slab_chunk);
    struct slab_chunk *chunk;
    /* Small objects fill every page of a chunk soon: one call for all of them costs a quarter of a
     * fault for each. Of large ones a part may never be touched. */
    int populate = s->object_size <= POPULATE_OBJECT_MAX ? MAP_POPULATE : 0;
    uint8_t *base =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | populate, -1, 0);

    if (base == MAP_FAILED)
        return false;
    __lsan_register_root_region(base, len);
    /* At the end, so that objects of whole pages lie on pages. */
    chunk = (struct slab_chunk *)(void *)(base + objects * s->object_size);
    *chunk = (struct slab_chunk){.older = s->chunks, .base = base, .map_len = len};
    s->chunks = chunk;
    return true;
}

void *slab_alloc(struct slab *s)
{
    struct slab_free_link *link = s->free_list;
    uint8_t *object;
    uint32_t at;

    if (link) {
        ASAN_UNPOISON_MEMORY_REGION(link, s->object_size);
        s->free_list = link->next;
        __builtin_prefetch(link->next, 1); /* for the next time: it is cold by then */
        s->used++;
        return link;
    }
    if (s->made == s->object_count_max)
        return NULL;
    at = s->made % slab_chunk_objects(s);
    if (at == 0 && !slab_add_chunk(s))
        return NULL;
    object = ((struct slab_chunk *)s->chunks)->base + at * s->object_size;
    s->made++;
    s->used++;
    assert(s->used == s->made);
    return object;
}

void slab_free(struct slab *s, void *object)
{
    struct slab_free_link *link = object;

    assert(object && ((uintptr_t)object & 15) == 0);
    assert(s->used > 0);
#ifdef SLAB_POISON
    memset(object, FREED_BYTE, s->object_size);
#endif
    link->next = s->free_list;
    s->free_list = link;
    s->used--;
    ASAN_POISON_MEMORY_REGION(object, s->object_size);
}

void slab_destroy(struct slab *s, bool leak_ok)
{
    struct slab_chunk *chunk = s->chunks;

    assert(leak_ok || s->used == 0);
    while (chunk) {
        struct slab_chunk *older = chunk->older;
        uint8_t *base = chunk->base;
        size_t len = chunk->map_len;
        ASAN_UNPOISON_MEMORY_REGION(base, len);
        __lsan_unregister_root_region(base, len);
        munmap(base, len);
        chunk = older;
    }
    s->chunks = s->free_list = NULL;
    s->used = s->made = 0;
}
