/*
 * gateway/config_reload.c - two configurations compared; can a running gateway go on with the
 * other.
 *
 * Owns:     nothing.
 * Runs on:  the control thread, at reload.
 * Contract: the table says which keys need a restart; each of them must be the same in both.
 * Failure:  false, and the name of the first that differs.
 * Bounds:   none.
 * Tests:    tests/unit/test_config.c
 */
#include "gateway/config_internal.h"

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Lists behind a pointer and a count: item by item. */
static bool same_list(const struct config_key *k, const char *a, const char *b)
{
    const char *all = *(const char *const *)(const void *)(a + k->offset);
    const char *others = *(const char *const *)(const void *)(b + k->offset);
    uint32_t count = *(const uint32_t *)(const void *)(a + k->count_offset);
    bool same = count == *(const uint32_t *)(const void *)(b + k->count_offset);
    for (uint32_t i = 0; same && i < count; i++) {
        const void *x = all + i * k->item_size, *y = others + i * k->item_size;
        same = k->type == CONFIG_TYPE_ADDRESSES ? config_address_same(x, y)
               : k->type == CONFIG_TYPE_ITEMS   ? config_same(k->keys, x, y) == NULL
                                                : memcmp(x, y, k->item_size) == 0;
    }
    return same;
}

static bool same_networks(const struct config_networks *a, const struct config_networks *b)
{
    bool same = a->count == b->count;
    for (uint32_t i = 0; same && i < a->count; i++)
        same = a->items[i].bits == b->items[i].bits &&
               config_network_covers(&a->items[i], &b->items[i]);
    return same;
}

static bool same_strings(const struct config_strings *a, const struct config_strings *b)
{
    bool same = a->count == b->count;
    for (uint32_t i = 0; same && i < a->count; i++)
        same = same_text(a->items[i], b->items[i]);
    return same;
}

static bool same_value(const struct config_key *k, const char *a, const char *b)
{
    const void *x = a + k->offset, *y = b + k->offset;
    if (k->type == CONFIG_TYPE_GROUP)
        return config_same(k->keys, a, b) == NULL;
    if (k->width == 0)
        return true;
    switch (k->type) {
    case CONFIG_TYPE_STRING:
    case CONFIG_TYPE_PATH:
    case CONFIG_TYPE_NAME:
    case CONFIG_TYPE_SPACE:
    case CONFIG_TYPE_DOMAIN: return same_text(*(char *const *)x, *(char *const *)y);
    case CONFIG_TYPE_ADDRESS: return config_address_same(x, y);
    case CONFIG_TYPE_NETWORKS: return same_networks(x, y);
    case CONFIG_TYPE_STRINGS: return same_strings(x, y);
    case CONFIG_TYPE_ADDRESSES:
    case CONFIG_TYPE_TIMES:
    case CONFIG_TYPE_ITEMS: return same_list(k, a, b);
    default: return memcmp(x, y, k->width) == 0; /* numbers */
    }
}

const struct config_key *config_same(const struct config_keys *keys, const void *a, const void *b)
{
    for (uint32_t i = 0; i < keys->count; i++)
        if (!same_value(&keys->items[i], a, b))
            return &keys->items[i];
    return NULL;
}

static bool same_map(const struct config_keys *keys, const char *prefix, const struct config *now,
                     const struct config *next, struct why *why)
{
    char path[96];
    for (uint32_t i = 0; i < keys->count; i++) {
        const struct config_key *k = &keys->items[i];
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", k->name);
        if (k->type == CONFIG_TYPE_GROUP && !same_map(k->keys, path, now, next, why))
            return false;
        if (k->restart && !same_value(k, (const char *)now, (const char *)next)) {
            why_set(why, 0, "", "%s: a change of %s needs a restart", next->path, path);
            return false;
        }
    }
    return true;
}

bool config_reload_possible(const struct config *now, const struct config *next, struct why *why)
{
    return same_map(config_table(), "", now, next, why);
}
