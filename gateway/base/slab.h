/*
 * gateway/base/slab.h - objects of one size, counted and bounded.
 *
 * All memory is taken in chunks on demand up to object_count_max and never handed back to the
 * system; chunks are mmap'd (so untouched memory costs nothing). Freed objects are poisoned in
 * debug and sanitizer builds. One thread only.
 */
#ifndef HIKYAKU_BASE_SLAB_H
#define HIKYAKU_BASE_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slab {
    const char *name;
    size_t object_size; /* rounded up to 16 */
    uint32_t object_count_max;
    uint32_t used; /* objects handed out now */
    uint32_t made; /* objects carved out of chunks so far */
    void *free_list;
    void *chunks;
};

/* Reserves nothing yet. `name` must stay valid. */
void slab_init(struct slab *s, const char *name, size_t object_size, uint32_t object_count_max);

/* One object, content undefined; NULL when object_count_max are in use. */
void *slab_alloc(struct slab *s) __attribute__((warn_unused_result));
void slab_free(struct slab *s, void *object);

/* Unmaps everything. Asserts that nothing is in use unless `leak_ok`. */
void slab_destroy(struct slab *s, bool leak_ok);

#endif
