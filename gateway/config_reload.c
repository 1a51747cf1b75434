/*
 * gateway/config_reload.c - two configurations compared; can a running gateway go on with the
 * other.
 *
 * Owns:     nothing.
 * Runs on:  the control thread, at reload.
 * Contract: the table says which keys need a restart; each of them must be the same in both.
 * Failure:  false, and the name of the first that differs.
 * Bounds:   DIFF_ITEMS_MAX items of a list are told apart by name.
 * Tests:    tests/unit/test_config.c
 */
#include "gateway/config_internal.h"

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* What the checks put beside the keys: the port of a smart host, the contents of a certificate. */
static bool same_derived(const struct config_key *k, const void *a, const void *b)
{
    if (strcmp(k->name, "smart_hosts") == 0) {
        const struct config_smart_host *x = a, *y = b;
        return x->port == y->port && x->literal == y->literal;
    }
    if (strcmp(k->name, "certificates") == 0) {
        const struct config_certificate *x = a, *y = b;
        return x->certificate_len == y->certificate_len && x->key_len == y->key_len &&
               memcmp(x->certificate_pem, y->certificate_pem, x->certificate_len) == 0 &&
               memcmp(x->key_pem, y->key_pem, x->key_len) == 0;
    }
    return true;
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
               : k->type == CONFIG_TYPE_ITEMS
                   ? config_same(k->keys, x, y) == NULL && same_derived(k, x, y)
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

/* ---- every difference ---- */

#define DIFF_ITEMS_MAX 2000u

struct diff {
    void (*each)(void *arg, const char *key, const char *what, bool restart);
    void *arg;
};

static void diff_keys(const struct diff *d, const struct config_keys *keys, const char *prefix,
                      const char *a, const char *b);

/* The key that items of a list are known by; NULL: they have no name. */
static const struct config_key *item_name(const struct config_keys *keys)
{
    for (uint32_t i = 0; i < keys->count; i++)
        if (keys->items[i].type == CONFIG_TYPE_NAME ||
            (keys->items[i].type == CONFIG_TYPE_DOMAIN && keys->items[i].width && i == 0))
            return &keys->items[i];
    return NULL;
}

static const char *item_at(const struct config_key *k, const char *base, uint32_t i)
{
    return *(const char *const *)(const void *)(base + k->offset) + i * k->item_size;
}

static const char *item_text(const struct config_key *name, const char *item)
{
    return *(const char *const *)(const void *)(item + name->offset);
}

static const char *item_find(const struct config_key *k, const struct config_key *name,
                             const char *base, const char *text)
{
    uint32_t count = *(const uint32_t *)(const void *)(base + k->count_offset);
    for (uint32_t i = 0; i < count; i++)
        if (same_text(item_text(name, item_at(k, base, i)), text))
            return item_at(k, base, i);
    return NULL;
}

/* Items of `a`: those that `b` lacks are `gone`; with `deeper`, the others key by key. */
static void diff_items(const struct diff *d, const struct config_key *k, const char *path,
                       const char *a, const char *b, const char *gone, bool deeper)
{
    const struct config_key *name = item_name(k->keys);
    uint32_t count = *(const uint32_t *)(const void *)(a + k->count_offset);
    char text[512];
    for (uint32_t i = 0; i < count; i++) {
        const char *item = item_at(k, a, i), *other = item_find(k, name, b, item_text(name, item));
        snprintf(text, sizeof text, "%s[%s]", path, item_text(name, item));
        if (!other)
            d->each(d->arg, text, gone, k->restart);
        else if (deeper)
            diff_keys(d, k->keys, text, item, other);
    }
}

static void diff_key(const struct diff *d, const struct config_key *k, const char *path,
                     const char *a, const char *b)
{
    if (same_value(k, a, b))
        return;
    bool few = k->type == CONFIG_TYPE_ITEMS &&
               *(const uint32_t *)(const void *)(a + k->count_offset) <= DIFF_ITEMS_MAX &&
               *(const uint32_t *)(const void *)(b + k->count_offset) <= DIFF_ITEMS_MAX;
    if (few && item_name(k->keys)) {
        diff_items(d, k, path, a, b, "removed", true);
        diff_items(d, k, path, b, a, "added", false);
    } else {
        d->each(d->arg, path, "changed", k->restart);
    }
}

static void diff_keys(const struct diff *d, const struct config_keys *keys, const char *prefix,
                      const char *a, const char *b)
{
    char path[512];
    for (uint32_t i = 0; i < keys->count; i++) {
        const struct config_key *k = &keys->items[i];
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", k->name);
        if (k->type == CONFIG_TYPE_GROUP)
            diff_keys(d, k->keys, path, a, b);
        else if (k->width)
            diff_key(d, k, path, a, b);
    }
}

void config_diff(const struct config *now, const struct config *next,
                 void (*each)(void *arg, const char *key, const char *what, bool restart),
                 void *arg)
{
    const struct diff d = {each, arg};
    diff_keys(&d, config_table(), "", (const char *)now, (const char *)next);
}
