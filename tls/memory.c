/*
 * tls/memory.c - wolfSSL's memory: counted and bounded for each thread.
 *
 * Owns:     one counter and one bound per thread.
 * Runs on:  every thread that uses TLS; nothing is shared between them.
 * Contract: wolfSSL's allocator hooks carry no argument that could lead to a shard, so the counters
 *           are thread-local: the one exception to "no globals" here. Sizes are those the allocator
 *           really gave. Memory freed by another thread than took it (a context handed over) lowers
 *           that thread's counter, which stops at 0.
 * Failure:  past the bound an allocation answers NULL; wolfSSL turns that into MEMORY_E.
 * Bounds:   tls_memory_limit.
 * Tests:    tests/unit/test_tls.c
 */
#include <malloc.h>
#include <stdlib.h>

#include "tls/internal.h"

static _Thread_local uint64_t memory_used;
static _Thread_local uint64_t memory_max; /* 0: none */

static void taken_off(size_t size)
{
    memory_used -= size < memory_used ? size : memory_used;
}

void *tls_memory_alloc(size_t size)
{
    if (memory_max && memory_used + size > memory_max)
        return NULL;
    void *p = malloc(size);
    if (p)
        memory_used += malloc_usable_size(p);
    return p;
}

void tls_memory_free(void *p)
{
    if (!p)
        return;
    taken_off(malloc_usable_size(p));
    free(p);
}

void *tls_memory_realloc(void *p, size_t size)
{
    size_t before = p ? malloc_usable_size(p) : 0;
    if (size == 0) {
        tls_memory_free(p);
        return NULL;
    }
    if (size > before && memory_max && memory_used + (size - before) > memory_max)
        return NULL;
    void *q = realloc(p, size);
    if (q) {
        taken_off(before);
        memory_used += malloc_usable_size(q);
    }
    return q;
}

uint64_t tls_memory(void)
{
    return memory_used;
}

void tls_memory_limit(uint64_t bytes)
{
    memory_max = bytes;
}
