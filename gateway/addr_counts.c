/*
 * gateway/addr_counts.c - sessions by client address: open addressing with linear probing.
 *
 * Owns:     one table, never grown.
 * Runs on:  the shard that made it.
 * Contract: an address that has no session takes no room.
 * Failure:  a full table answers 0: the caller refuses the session (421).
 * Bounds:   twice as many cells as addresses.
 * Tests:    tests/unit/test_addr_counts.c
 */
#include "gateway/addr_counts.h"

#include <stdlib.h>

struct cell {
    uint8_t key[16];
    uint32_t count; /* 0: free */
};

struct addr_counts {
    uint32_t mask, used, max;
    struct cell cells[];
};

struct addr_counts *addr_counts_create(uint32_t addresses)
{
    uint32_t size = 16;
    while (size < addresses * 2)
        size *= 2;
    struct addr_counts *c = calloc(1, sizeof *c + size * sizeof *c->cells);
    if (c) {
        c->mask = size - 1;
        c->max = addresses;
    }
    return c;
}

void addr_counts_destroy(struct addr_counts *c)
{
    free(c);
}

static void key_of(const struct io_addr *a, uint8_t key[16])
{
    memset(key, 0, 16);
    if (a->sa.sa_family == AF_INET6) {
        memcpy(key, &a->in6.sin6_addr, 8); /* the /64 */
        key[15] = 6;
    } else {
        memcpy(key, &a->in.sin_addr, 4);
        key[15] = 4;
    }
}

static uint32_t home_of(const struct addr_counts *c, const uint8_t key[16])
{
    uint64_t h = 14695981039346656037ull;
    for (int i = 0; i < 16; i++)
        h = (h ^ key[i]) * 1099511628211ull;
    return (uint32_t)(h ^ h >> 32) & c->mask;
}

static struct cell *find(struct addr_counts *c, const uint8_t key[16])
{
    uint32_t i = home_of(c, key);
    while (c->cells[i].count && memcmp(c->cells[i].key, key, 16) != 0)
        i = (i + 1) & c->mask;
    return &c->cells[i];
}

uint32_t addr_counts_add(struct addr_counts *c, const struct io_addr *a)
{
    uint8_t key[16];
    key_of(a, key);
    struct cell *cell = find(c, key);
    if (cell->count == 0) {
        if (c->used == c->max)
            return 0;
        memcpy(cell->key, key, 16);
        c->used++;
    }
    return ++cell->count;
}

void addr_counts_remove(struct addr_counts *c, const struct io_addr *a)
{
    uint8_t key[16];
    key_of(a, key);
    struct cell *cell = find(c, key);
    if (cell->count == 0 || --cell->count > 0)
        return;
    c->used--;
    /* Close the gap: every cell of the run that may move into it does (no tombstones to collect).
     */
    uint32_t gap = (uint32_t)(cell - c->cells), i = gap;
    for (;;) {
        i = (i + 1) & c->mask;
        if (c->cells[i].count == 0)
            return;
        uint32_t home = home_of(c, c->cells[i].key);
        if (((i - home) & c->mask) >= ((i - gap) & c->mask)) {
            c->cells[gap] = c->cells[i];
            c->cells[i].count = 0;
            gap = i;
        }
    }
}
