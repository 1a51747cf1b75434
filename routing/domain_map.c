/*
 * routing/domain_map.c - patterns of domains, found by suffix in time that does not depend on how
 * many there are.
 *
 * Owns:     copies of the patterns; an open-addressed table of them, at most half full.
 * Runs on:  built by one thread; read by any once nothing is added any more.
 * Contract: a walk yields exactly the patterns that match, each once, most specific first.
 * Failure:  no memory: NULL from domain_map_slot, the map stays as it was.
 * Bounds:   a lookup reads the name once, from its end, and probes once a label; names over 255
 *           octets match only "*".
 * Tests:    tests/unit/test_domain.c
 */
#include <assert.h>
#include <stdlib.h>

#include "routing/domain.h"

#define DOMAIN_MAP_SIZE_MIN 64u
#define DOMAIN_HASH_START   2166136261u
#define DOMAIN_HASH_PRIME   16777619u

enum domain_walk_stage { WALK_EXACT, WALK_SUFFIX, WALK_ALL, WALK_DONE };

struct domain_entry {
    char *name; /* without "*."; NULL: free */
    uint32_t hash, value;
    uint16_t len;
    bool below; /* "*.name" */
};

struct domain_map {
    struct domain_entry *entries;
    uint32_t size, count; /* size: a power of two */
    uint32_t all;         /* value of "*" */
};

struct domain_map *domain_map_create(void)
{
    struct domain_map *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->size = DOMAIN_MAP_SIZE_MIN;
    m->all = DOMAIN_MAP_NONE;
    m->entries = calloc(m->size, sizeof *m->entries);
    if (!m->entries) {
        free(m);
        return NULL;
    }
    return m;
}

void domain_map_destroy(struct domain_map *m)
{
    if (!m)
        return;
    for (uint32_t i = 0; i < m->size; i++)
        free(m->entries[i].name);
    free(m->entries);
    free(m);
}

/* Runs from the end of the name, so that the hash of every suffix is met on the way. */
static uint32_t domain_hash_step(uint32_t hash, uint8_t c)
{
    return (hash ^ ascii_lower(c)) * DOMAIN_HASH_PRIME;
}

static uint32_t domain_hash_mix(uint32_t hash, bool below)
{
    hash ^= below ? 0x9e3779b9u : 0;
    hash ^= hash >> 15;
    return hash * 0x85ebca6bu;
}

/* The entry of this name, or the free one where it belongs. */
static struct domain_entry *domain_map_probe(const struct domain_map *m, struct slice name,
                                             uint32_t hash, bool below)
{
    for (uint32_t i = domain_hash_mix(hash, below) >> 7;; i++) {
        struct domain_entry *e = &m->entries[i & (m->size - 1)];
        if (!e->name)
            return e;
        if (e->hash == hash && e->below == below && e->len == name.len &&
            slice_eq_nocase(slice_of(e->name, e->len), name))
            return e;
    }
}

static bool domain_map_grow(struct domain_map *m)
{
    struct domain_map bigger = {.size = m->size * 2, .count = m->count, .all = m->all};

    bigger.entries = calloc(bigger.size, sizeof *bigger.entries);
    if (!bigger.entries)
        return false;
    for (uint32_t i = 0; i < m->size; i++) {
        const struct domain_entry *e = &m->entries[i];
        if (e->name)
            *domain_map_probe(&bigger, slice_of(e->name, e->len), e->hash, e->below) = *e;
    }
    free(m->entries);
    *m = bigger;
    return true;
}

uint32_t *domain_map_slot(struct domain_map *m, struct slice pattern)
{
    bool below = pattern.len > 2 && pattern.ptr[0] == '*' && pattern.ptr[1] == '.';
    struct slice name = below ? slice_from(pattern, 2) : pattern;
    uint32_t hash = DOMAIN_HASH_START;

    if (slice_eq(pattern, SLICE_LIT("*")))
        return &m->all;
    if (name.len == 0 || name.len >= DOMAIN_TEXT_MAX)
        return NULL;
    for (size_t i = name.len; i-- > 0;)
        hash = domain_hash_step(hash, name.ptr[i]);
    struct domain_entry *e = domain_map_probe(m, name, hash, below);
    if (e->name)
        return &e->value;
    if ((m->count + 1) * 2 > m->size) {
        if (!domain_map_grow(m))
            return NULL;
        e = domain_map_probe(m, name, hash, below);
    }
    char *copy = malloc(name.len + 1);
    if (!copy)
        return NULL;
    memcpy(copy, name.ptr, name.len);
    copy[name.len] = '\0';
    *e = (struct domain_entry){copy, hash, DOMAIN_MAP_NONE, (uint16_t)name.len, below};
    m->count++;
    assert(m->count * 2 <= m->size);
    return &e->value;
}

void domain_walk_start(struct domain_walk *w, const struct domain_map *m, struct slice domain)
{
    uint32_t hash = DOMAIN_HASH_START;

    if (domain.len && domain.ptr[domain.len - 1] == '.')
        domain.len--;
    w->map = m;
    w->domain = domain;
    w->left = 0;
    w->stage = WALK_EXACT;
    if (domain.len == 0 || domain.len >= DOMAIN_TEXT_MAX) {
        w->stage = WALK_ALL;
        return;
    }
    for (size_t i = domain.len; i-- > 0;) {
        hash = domain_hash_step(hash, domain.ptr[i]);
        if ((i == 0 || domain.ptr[i - 1] == '.') && w->left < DOMAIN_LABELS_MAX) {
            w->hashes[w->left] = hash;
            w->offsets[w->left++] = (uint8_t)i;
        }
    }
}

bool domain_walk_next(struct domain_walk *w, uint32_t *value)
{
    if (w->stage == WALK_EXACT) {
        w->stage = WALK_SUFFIX;
        const struct domain_entry *e =
            domain_map_probe(w->map, w->domain, w->hashes[w->left - 1], false);
        if (e->name) {
            *value = e->value;
            return true;
        }
    }
    while (w->stage == WALK_SUFFIX) {
        if (w->left == 0) {
            w->stage = WALK_ALL;
            break;
        }
        uint32_t i = --w->left;
        const struct domain_entry *e =
            domain_map_probe(w->map, slice_from(w->domain, w->offsets[i]), w->hashes[i], true);
        if (e->name) {
            *value = e->value;
            return true;
        }
    }
    if (w->stage == WALK_ALL) {
        w->stage = WALK_DONE;
        *value = w->map->all;
        return *value != DOMAIN_MAP_NONE;
    }
    return false;
}
