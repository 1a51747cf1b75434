/*
 * gateway/config_bind.c - nodes into structs, by the table: maps, lists, defaults.
 *
 * Owns:     nothing; what is stored belongs to the configuration's pool.
 * Runs on:  the control thread, at start and at reload.
 * Contract: what is absent gets the default of the table, read like anything else. A key that is
 *           not supported yet is refused unless it says what is done anyway.
 * Failure:  FILE:LINE:COLUMN of the key when the key is wrong, of the value when the value is.
 * Bounds:   those of the table.
 * Tests:    tests/unit/test_config_faults.c, tests/unit/test_config.c, tests/fuzz/fuzz_config.c
 */
#include <assert.h>

#include "gateway/config_bind_internal.h"

#define PATH_TEXT_MAX   96
#define KEYS_LISTED_MAX 20u /* a longer list does not help whoever made a mistake */

/* ---- lists of values ---- */

/* Ranges make several networks of one entry, so these lists grow on their own. */
static bool bind_networks(const struct config_slot *s)
{
    struct config_network some[CONFIG_NETWORKS_OF_RANGE_MAX];
    struct config_networks all = {0};
    size_t room = 0;
    struct why why;
    for (uint32_t i = 0; i < s->node->count; i++) {
        const struct config_node *n = s->node->entries[i].value;
        if (n->kind != CONFIG_SCALAR)
            return config_wrong(s, n, "a list of networks");
        uint32_t count = config_network_parse(n->text, some, &why);
        if (!count)
            return config_fail(s->r, n->place, "%s: %s", s->path, why.text);
        if (all.count + count > room) {
            room = room * 2 + count;
            void *more = config_alloc(s->r, s->r->pool, room, sizeof some[0]);
            if (!more)
                return false;
            if (all.count)
                memcpy(more, all.items, all.count * sizeof some[0]);
            all.items = more;
        }
        memcpy(all.items + all.count, some, count * sizeof some[0]);
        all.count += count;
    }
    if (s->key->width)
        *(struct config_networks *)(void *)(s->base + s->key->offset) = all;
    return true;
}

static bool string_of(const struct config_slot *s, const struct config_node *n, char **out)
{
    if (n->kind != CONFIG_SCALAR || n->text[0] == '\0')
        return config_wrong(s, n, "a list of words");
    *out = config_copy(s->r, s->r->pool, n->text, strlen(n->text));
    return *out != NULL;
}

static bool bind_choices(const struct config_slot *s)
{
    uint32_t bits = 0, one = 0;
    for (uint32_t i = 0; i < s->node->count; i++) {
        if (!config_choice_of(s, s->node->entries[i].value, &one))
            return false;
        bits |= one;
    }
    config_store(s, bits);
    return true;
}

static bool bind_list(const struct config_slot *s)
{
    const struct config_node *n = s->node;
    const struct config_key *k = s->key;
    uint32_t max = k->count_max ? k->count_max : CONFIG_LIST_MAX;
    bool texts = k->type == CONFIG_TYPE_STRINGS || k->type == CONFIG_TYPE_PATHS;
    size_t size = k->type == CONFIG_TYPE_ADDRESSES ? sizeof(struct io_addr) : sizeof(uint64_t);
    static_assert(sizeof(char *) == sizeof(uint64_t), "lists of strings have items of this size");
    if (n->kind != CONFIG_LIST)
        return config_wrong(s, n, "a list, such as [a, b]");
    if (n->count > max)
        return config_fail(s->r, n->place, "%s: more than %u entries", s->path, max);
    if (k->type == CONFIG_TYPE_CHOICES)
        return bind_choices(s);
    if (k->type == CONFIG_TYPE_NETWORKS)
        return bind_networks(s);
    char *items = config_alloc(s->r, s->r->pool, n->count, size);
    bool ok = items != NULL;
    for (uint32_t i = 0; ok && i < n->count; i++) {
        const struct config_node *v = n->entries[i].value;
        void *item = items + i * size;
        ok = k->type == CONFIG_TYPE_ADDRESSES ? config_address_of(s, v, item)
             : texts                          ? string_of(s, v, item)
                                              : config_number_of(s, v, item);
    }
    if (!ok || k->width == 0)
        return ok;
    if (texts) {
        struct config_strings *out = (void *)(s->base + k->offset);
        *out = (struct config_strings){(char **)(void *)items, n->count};
    } else {
        *(void **)(void *)(s->base + k->offset) = items;
        *(uint32_t *)(void *)(s->base + k->count_offset) = n->count;
    }
    return true;
}

/* ---- lists of maps ---- */

/* A scalar that stands for {item_key: scalar}. */
static struct config_node *item_of(const struct config_slot *s, struct config_node *scalar)
{
    struct config_node *map = config_node_new(s->r, CONFIG_MAP, scalar->place);
    struct config_node *key = config_node_new(s->r, CONFIG_SCALAR, scalar->place);
    if (!map || !key || !config_node_room(s->r, map, 1))
        return NULL;
    key->text = config_copy(s->r, &s->r->scratch, s->key->item_key, strlen(s->key->item_key));
    map->entries[map->count++] = (struct config_entry){key, scalar};
    return key->text ? map : NULL;
}

/* "a;b" as a list of a and b. Each part keeps the place of the text, as far as that is known. */
static struct config_node *split(const struct config_slot *s, const struct config_node *n)
{
    struct config_node *list = config_node_new(s->r, CONFIG_LIST, n->place);
    if (!list || !config_node_room(s->r, list, (uint32_t)strlen(n->text) + 1))
        return NULL;
    for (const char *p = n->text; *p;) {
        const char *end = strchrnul(p, s->key->separator);
        const char *from = p, *to = end;
        while (from < to && *from == ' ')
            from++;
        while (to > from && to[-1] == ' ')
            to--;
        struct config_node *part = config_node_new(s->r, CONFIG_SCALAR, n->place);
        if (!part)
            return NULL;
        part->quoted = true;
        part->text = config_copy(s->r, &s->r->scratch, from, (size_t)(to - from));
        if (!part->text)
            return NULL;
        list->entries[list->count++].value = part;
        p = *end ? end + 1 : end;
    }
    return list;
}

static bool bind_items(const struct config_slot *s)
{
    const struct config_key *k = s->key;
    const struct config_node *n = s->node;
    if (n->kind == CONFIG_SCALAR && k->separator && !(n = split(s, n)))
        return false;
    if (n->kind != CONFIG_LIST)
        return config_wrong(s, n, k->separator ? "a list, or one text with ';' between" : "a list");
    if (n->count > k->count_max)
        return config_fail(s->r, n->place, "%s: more than %u entries", s->path, k->count_max);
    char *items = config_alloc(s->r, s->r->pool, n->count, k->item_size);
    if (!items)
        return false;
    for (uint32_t i = 0; i < n->count; i++) {
        struct config_node *item = n->entries[i].value;
        if (item->kind == CONFIG_SCALAR && k->item_key && !(item = item_of(s, item)))
            return false;
        if (item->kind != CONFIG_MAP)
            return config_fail(s->r, item->place, "%s: expected a map, such as {%s: ...}", s->path,
                               k->keys->items[0].name);
        if (!config_bind(s->r, k->keys, item, items + i * k->item_size))
            return false;
    }
    *(void **)(void *)(s->base + k->offset) = items;
    *(uint32_t *)(void *)(s->base + k->count_offset) = n->count;
    return true;
}

/* ---- maps ---- */

static bool bind_map(struct config_reader *r, const struct config_keys *keys,
                     const struct config_node *map, void *base, const char *prefix);

/* Does an unsupported key ask for nothing but what is done anyway? */
static bool asks_nothing(const struct config_slot *s)
{
    const struct config_node *n = s->node;
    bool yes = true;
    if (n->kind != CONFIG_SCALAR)
        return n->count == 0;
    if (s->key->type == CONFIG_TYPE_BOOL)
        return config_bool_parse(n->text, &yes) && !yes;
    return n->text[0] == '\0' && n->quoted;
}

static bool bind_value(const struct config_slot *s)
{
    if (s->node->kind == CONFIG_SCALAR && s->node->text[0] == '\0' && !s->node->quoted)
        return config_fail(s->r, s->node->place, "%s: no value; give one or leave the key out",
                           s->path);
    switch (s->key->type) {
    case CONFIG_TYPE_GROUP:
        if (s->node->kind != CONFIG_MAP)
            return config_fail(s->r, s->node->place, "%s: expected a map, such as {%s: ...}",
                               s->path, s->key->keys->items[0].name);
        return bind_map(s->r, s->key->keys, s->node, s->base, s->path);
    case CONFIG_TYPE_ITEMS: return bind_items(s);
    case CONFIG_TYPE_CHOICES:
    case CONFIG_TYPE_ADDRESSES:
    case CONFIG_TYPE_NETWORKS:
    case CONFIG_TYPE_STRINGS:
    case CONFIG_TYPE_PATHS:
    case CONFIG_TYPE_TIMES: return bind_list(s);
    default: return config_bind_scalar(s);
    }
}

/* The default as a node at the place of the map that lacks the key. */
static struct config_node *standard_node(struct config_reader *r, const struct config_key *k,
                                         struct config_place at)
{
    if (k->type == CONFIG_TYPE_GROUP)
        return config_node_new(r, CONFIG_MAP, at);
    if (k->standard[0] == '[' && k->standard[1] != ']')
        return config_yaml(r, at.file, slice_str(k->standard));
    struct config_node *n =
        config_node_new(r, k->standard[0] == '[' ? CONFIG_LIST : CONFIG_SCALAR, at);
    if (!n)
        return NULL;
    n->quoted = k->standard[0] == '"';
    size_t len = strlen(k->standard);
    n->text = config_copy(r, &r->scratch, k->standard + n->quoted, len - 2 * n->quoted);
    return n->text ? n : NULL;
}

static bool bind_key(const struct config_slot *slot, const struct config_node *map,
                     const struct config_node *key)
{
    struct config_slot s = *slot;
    if (!s.node) {
        if (!s.key->standard && s.key->type != CONFIG_TYPE_GROUP)
            return config_fail(s.r, map->place, "%s is missing", s.path);
        if (s.key->unsupported)
            return true;
        s.node = standard_node(s.r, s.key, map->place);
        return s.node && bind_value(&s);
    }
    if (s.key->unsupported)
        return asks_nothing(&s) || config_fail(s.r, key->place, "%s is not supported yet", s.path);
    return bind_value(&s);
}

static const char *key_word(const void *arg, uint32_t i)
{
    return ((const struct config_keys *)arg)->items[i].name;
}

static bool unknown(struct config_reader *r, const struct config_keys *keys,
                    const struct config_node *key, const char *prefix)
{
    char text[300];
    struct buf b = buf_over(text, sizeof text - 1);
    const char *near = config_nearest(key->text, key_word, keys, keys->count);
    if (near)
        buf_addf(&b, "; did you mean %s?", near);
    for (uint32_t i = 0; !near && keys->count <= KEYS_LISTED_MAX && i < keys->count; i++)
        buf_addf(&b, "%s%s", i ? ", " : "; known here: ", keys->items[i].name);
    text[b.len] = '\0';
    return config_fail(r, key->place, "unknown key %s%s%.64s%s", prefix, *prefix ? "." : "",
                       key->text, text);
}

static bool check_known(struct config_reader *r, const struct config_keys *keys,
                        const struct config_node *map, const char *prefix)
{
    for (uint32_t i = 0; i < map->count; i++) {
        const struct config_node *key = map->entries[i].key;
        bool known = false;
        for (uint32_t k = 0; k < keys->count && !known; k++)
            known = strcmp(keys->items[k].name, key->text) == 0;
        if (known)
            continue;
        return unknown(r, keys, key, prefix);
    }
    return true;
}

static bool bind_map(struct config_reader *r, const struct config_keys *keys,
                     const struct config_node *map, void *base, const char *prefix)
{
    char path[PATH_TEXT_MAX];
    if (!check_known(r, keys, map, prefix))
        return false;
    for (uint32_t i = 0; i < keys->count; i++) {
        const struct config_key *k = &keys->items[i];
        const struct config_node *key = NULL, *value = NULL;
        for (uint32_t e = 0; e < map->count && !value; e++)
            if (strcmp(map->entries[e].key->text, k->name) == 0) {
                key = map->entries[e].key;
                value = map->entries[e].value;
            }
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", k->name);
        struct config_slot s = {r, k, value, base, path};
        if (!bind_key(&s, map, key))
            return false;
    }
    return true;
}

bool config_bind(struct config_reader *r, const struct config_keys *keys,
                 const struct config_node *map, void *base)
{
    return bind_map(r, keys, map, base, "");
}
