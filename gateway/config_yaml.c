/*
 * gateway/config_yaml.c - YAML into nodes that know their place; ${ENV}; includes.
 *
 * By libyaml's document interface: libcyaml 1.3, which Debian 12 has, binds YAML to structs well
 * but cannot give line and column to a check made after the parsing, and every message here has
 * them.
 *
 * Owns:     nothing; nodes belong to the reader.
 * Runs on:  the control thread, at start and at reload.
 * Contract: every node has file, line and column. No key twice in a map; across includes maps are
 *           merged, lists joined, and a value given twice is an error that names both places.
 * Failure:  FILE:LINE:COLUMN and the reason.
 * Bounds:   CONFIG_FILE_MAX, CONFIG_INCLUDES_MAX, CONFIG_INCLUDE_DEPTH_MAX, CONFIG_DEPTH_MAX,
 *           CONFIG_NODES_MAX (aliases count each time they are used), CONFIG_TEXT_MAX.
 * Tests:    tests/unit/test_config_faults.c, test_config.c, tests/fuzz/fuzz_config.c
 */
#include <stdlib.h>
#include <yaml.h>

#include "gateway/config_internal.h"

struct config_source {
    struct config_reader *r;
    yaml_document_t *doc;
    const char *file;
    struct slice text;
};

static struct config_place place_of(const struct config_source *s, yaml_mark_t mark)
{
    return (struct config_place){s->file, (uint32_t)mark.line + 1, (uint32_t)mark.column + 1};
}

/* ---- ${ENV} ---- */

/* `len` bytes behind "${": a name, up to "}". 0: it is none. */
static size_t env_name(const char *text, char name[CONFIG_NAME_MAX + 1])
{
    size_t len = 0;
    while ((text[len] >= 'A' && text[len] <= 'Z') || (text[len] >= 'a' && text[len] <= 'z') ||
           text[len] == '_' || (len && text[len] >= '0' && text[len] <= '9'))
        len++;
    if (len == 0 || len > CONFIG_NAME_MAX || text[len] != '}')
        return 0;
    memcpy(name, text, len);
    name[len] = '\0';
    return len;
}

static bool has_control(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)text[i] < 0x20 || text[i] == 0x7f)
            return true;
    return false;
}

/* "${NAME}" becomes the variable's value, "$${" a plain "${". */
static char *expand(struct config_source *s, const char *text, size_t len, struct config_place at)
{
    char out[CONFIG_TEXT_MAX], name[CONFIG_NAME_MAX + 1];
    struct buf b = buf_over(out, sizeof out);
    if (has_control(text, len)) {
        config_fail(s->r, at, "a value must be one line without control characters");
        return NULL;
    }
    for (size_t i = 0; i < len;) {
        if (strncmp(text + i, "$${", 3) == 0) {
            buf_add_str(&b, "${");
            i += 3;
        } else if (strncmp(text + i, "${", 2) == 0) {
            size_t got = env_name(text + i + 2, name);
            const char *value = got ? getenv(name) : NULL;
            if (!got)
                config_fail(s->r, at, "after ${ comes a name and }; for a plain ${ write $${");
            else if (!value)
                config_fail(s->r, at, "the environment has no variable %s", name);
            else if (has_control(value, strlen(value)))
                config_fail(s->r, at, "the variable %s has control characters", name);
            if (!value || s->r->failed)
                return NULL;
            buf_add_str(&b, value);
            i += got + 3;
        } else {
            buf_add_byte(&b, (uint8_t)text[i++]);
        }
    }
    if (b.overflow) {
        config_fail(s->r, at, "a value has %u bytes at most", CONFIG_TEXT_MAX);
        return NULL;
    }
    return config_copy(s->r, &s->r->scratch, out, b.len);
}

/* ---- from libyaml's nodes ---- */

static struct config_node *node_of(struct config_source *s, int index, uint32_t depth);

static struct config_node *scalar_of(struct config_source *s, const yaml_node_t *y)
{
    struct config_node *n = config_node_new(s->r, CONFIG_SCALAR, place_of(s, y->start_mark));
    if (!n)
        return NULL;
    n->quoted = y->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    n->text = expand(s, (const char *)y->data.scalar.value, y->data.scalar.length, n->place);
    if (n->text) /* long values weigh as much as several: an alias may repeat one many times */
        s->r->node_count += (uint32_t)(strlen(n->text) / CONFIG_TEXT_NODE);
    return n->text ? n : NULL;
}

static struct config_node *list_of(struct config_source *s, const yaml_node_t *y, uint32_t depth)
{
    struct config_node *n = config_node_new(s->r, CONFIG_LIST, place_of(s, y->start_mark));
    const yaml_node_item_t *item = y->data.sequence.items.start;
    ptrdiff_t count = y->data.sequence.items.top - item;
    if (!n || !config_node_room(s->r, n, (uint32_t)count))
        return NULL;
    for (; count > 0; count--, item++) {
        struct config_node *value = node_of(s, *item, depth + 1);
        if (!value)
            return NULL;
        n->entries[n->count++].value = value;
    }
    return n;
}

static struct config_node *map_of(struct config_source *s, const yaml_node_t *y, uint32_t depth)
{
    struct config_node *n = config_node_new(s->r, CONFIG_MAP, place_of(s, y->start_mark));
    const yaml_node_pair_t *pair = y->data.mapping.pairs.start;
    ptrdiff_t count = y->data.mapping.pairs.top - pair;
    if (!n || !config_node_room(s->r, n, (uint32_t)count))
        return NULL;
    for (; count > 0; count--, pair++) {
        struct config_node *key = node_of(s, pair->key, depth + 1);
        if (!key)
            return NULL;
        if (key->kind != CONFIG_SCALAR) {
            config_fail(s->r, key->place, "a key must be a word");
            return NULL;
        }
        struct config_node *value = node_of(s, pair->value, depth + 1), *first;
        if (!value)
            return NULL;
        /* Maps are short, since their keys come from the table: comparing all with all is fine. */
        if (n->count == CONFIG_KEYS_MAX)
            config_fail(s->r, key->place, "more than %u keys in one map", CONFIG_KEYS_MAX);
        else if ((first = config_node_get(n, key->text)))
            config_fail(s->r, key->place, "%.64s is already given at line %u", key->text,
                        first->place.line);
        if (s->r->failed)
            return NULL;
        n->entries[n->count++] = (struct config_entry){key, value};
    }
    return n;
}

static struct config_node *node_of(struct config_source *s, int index, uint32_t depth)
{
    const yaml_node_t *y = yaml_document_get_node(s->doc, index);
    const char *tag = y && y->tag ? (const char *)y->tag : "";
    struct config_place at = place_of(s, y ? y->start_mark : (yaml_mark_t){0});
    if (depth > CONFIG_DEPTH_MAX) {
        config_fail(s->r, at, "maps and lists go deeper than %u", CONFIG_DEPTH_MAX);
        return NULL;
    }
    if (!y || (strcmp(tag, YAML_STR_TAG) != 0 && strcmp(tag, YAML_SEQ_TAG) != 0 &&
               strcmp(tag, YAML_MAP_TAG) != 0)) {
        config_fail(s->r, at, "tags such as %.64s are not used here", tag);
        return NULL;
    }
    switch (y->type) {
    case YAML_SEQUENCE_NODE: return list_of(s, y, depth);
    case YAML_MAPPING_NODE: return map_of(s, y, depth);
    default: return scalar_of(s, y);
    }
}

/* ---- one file ---- */

/* Where libyaml stopped. A fault of encoding has an offset only. */
static void yaml_fail(struct config_source *s, const yaml_parser_t *p)
{
    struct config_place at = place_of(s, p->problem_mark);
    if (p->error == YAML_READER_ERROR) {
        at.line = at.column = 1;
        for (size_t i = 0; i < p->problem_offset && i < s->text.len; i++) {
            uint8_t c = s->text.ptr[i];
            at.column += (c & 0xc0) != 0x80;
            if (c == '\n') {
                at.line++;
                at.column = 1;
            }
        }
    }
    config_fail(s->r, at, "%s%s%s", p->problem ? p->problem : "not YAML", p->context ? ", " : "",
                p->context ? p->context : "");
}

static bool has_anchor(const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT: return e->data.scalar.anchor != NULL;
    case YAML_SEQUENCE_START_EVENT: return e->data.sequence_start.anchor != NULL;
    case YAML_MAPPING_START_EVENT: return e->data.mapping_start.anchor != NULL;
    default: return false;
    }
}

/*
 * Reads the text once, event by event, before libyaml builds a document of it: deep nesting and
 * many anchors cost it time that grows with the square of their number (a minute for 200 KiB of
 * `{a: `), so it never gets to see more than the bounds.
 */
static bool yaml_is_tame(struct config_source *s, yaml_parser_t *p)
{
    uint32_t depth = 0, anchors = 0;
    yaml_event_type_t type = YAML_NO_EVENT;
    while (type != YAML_STREAM_END_EVENT && !s->r->failed) {
        yaml_event_t e;
        if (!yaml_parser_parse(p, &e)) {
            yaml_fail(s, p);
            return false;
        }
        type = e.type;
        depth += type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT;
        depth -= type == YAML_SEQUENCE_END_EVENT || type == YAML_MAPPING_END_EVENT;
        anchors += has_anchor(&e);
        if (depth > CONFIG_DEPTH_MAX)
            config_fail(s->r, place_of(s, e.start_mark), "maps and lists go deeper than %u",
                        CONFIG_DEPTH_MAX);
        else if (anchors > CONFIG_ANCHORS_MAX)
            config_fail(s->r, place_of(s, e.start_mark), "more than %u anchors",
                        CONFIG_ANCHORS_MAX);
        yaml_event_delete(&e);
    }
    return !s->r->failed;
}

static bool parser_start(struct config_source *s, yaml_parser_t *p)
{
    if (!yaml_parser_initialize(p))
        return config_fail(s->r, (struct config_place){s->file, 1, 1},
                           "no memory to read the configuration");
    yaml_parser_set_encoding(p, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(p, s->text.ptr ? s->text.ptr : (const uint8_t *)"", s->text.len);
    return true;
}

static struct config_node *yaml_root(struct config_source *s, yaml_parser_t *p)
{
    yaml_document_t second;
    const yaml_node_t *root = yaml_document_get_root_node(s->doc);
    struct config_place start = {s->file, 1, 1};
    if (!root)
        return config_node_new(s->r, CONFIG_MAP, start);
    struct config_node *n = node_of(s, 1, 0);
    if (!n)
        return NULL;
    if (!yaml_parser_load(p, &second)) {
        yaml_fail(s, p);
        return NULL;
    }
    root = yaml_document_get_root_node(&second);
    if (root)
        config_fail(s->r, place_of(s, root->start_mark), "a second document begins here");
    yaml_document_delete(&second);
    return s->r->failed ? NULL : n;
}

struct config_node *config_yaml(struct config_reader *r, const char *file, struct slice text)
{
    yaml_parser_t p;
    yaml_document_t doc;
    struct config_source s = {r, &doc, file, text};
    struct config_node *n = NULL;
    struct config_place start = {file, 1, 1};
    if (text.len > CONFIG_FILE_MAX) {
        config_fail(r, start, "larger than %llu KiB", CONFIG_FILE_MAX / KIB);
        return NULL;
    }
    if (!parser_start(&s, &p))
        return NULL;
    bool tame = yaml_is_tame(&s, &p);
    yaml_parser_delete(&p);
    if (!tame || !parser_start(&s, &p))
        return NULL;
    if (yaml_parser_load(&p, &doc)) {
        n = yaml_root(&s, &p);
        yaml_document_delete(&doc);
    } else {
        yaml_fail(&s, &p);
    }
    yaml_parser_delete(&p);
    return n;
}

/* ---- includes ---- */

static struct config_node *include_of(struct config_reader *r, struct config_node *map)
{
    for (uint32_t i = 0; map->kind == CONFIG_MAP && i < map->count; i++)
        if (strcmp(map->entries[i].key->text, "include") == 0) {
            struct config_node *n = map->entries[i].value;
            memmove(&map->entries[i], &map->entries[i + 1],
                    (map->count - i - 1) * sizeof map->entries[0]);
            map->count--;
            bool fits = n->kind != CONFIG_MAP;
            for (uint32_t k = 0; fits && n->kind == CONFIG_LIST && k < n->count; k++)
                fits = n->entries[k].value->kind == CONFIG_SCALAR;
            if (!fits)
                config_fail(r, n->place, "include: expected a file, or a list of files");
            return n;
        }
    return NULL;
}

static bool merge(struct config_reader *r, struct config_node *to, const struct config_node *from)
{
    if (from->count && !config_node_room(r, to, from->count))
        return false;
    for (uint32_t i = 0; i < from->count; i++) {
        const struct config_entry *e = &from->entries[i];
        struct config_node *mine = e->key ? config_node_get(to, e->key->text) : NULL;
        if (!mine) {
            to->entries[to->count++] = *e;
        } else if (mine->kind == CONFIG_SCALAR || mine->kind != e->value->kind) {
            return config_fail(r, e->key->place, "%.64s is already given at %s:%u:%u", e->key->text,
                               mine->place.file, mine->place.line, mine->place.column);
        } else if (!merge(r, mine, e->value)) {
            return false;
        }
    }
    return true;
}

static struct config_node *document(struct config_reader *r, const char *file, struct slice text,
                                    uint32_t depth);

static bool include(struct config_reader *r, struct config_node *to, const struct config_node *name,
                    uint32_t depth)
{
    struct slice text;
    if (name->text[0] == '\0')
        return config_fail(r, name->place, "include: expected a file, or a list of files");
    if (depth >= CONFIG_INCLUDE_DEPTH_MAX)
        return config_fail(r, name->place,
                           "includes go deeper than %u; does a file include itself?",
                           CONFIG_INCLUDE_DEPTH_MAX);
    if (++r->file_count > CONFIG_INCLUDES_MAX)
        return config_fail(r, name->place, "more than %u included files", CONFIG_INCLUDES_MAX);
    /* The name stays in places of nodes, whose messages may come late; it lives with the
     * configuration. */
    char *path = config_path(r, r->pool, name);
    if (!path ||
        !config_read_file(r, &r->scratch, path, CONFIG_FILE_MAX, name->place, "include: ", &text))
        return false;
    struct config_node *n = document(r, path, text, depth + 1);
    return n && merge(r, to, n);
}

static struct config_node *document(struct config_reader *r, const char *file, struct slice text,
                                    uint32_t depth)
{
    struct config_node *n = config_yaml(r, file, text);
    if (!n)
        return NULL;
    if (n->kind != CONFIG_MAP) {
        config_fail(r, n->place, "expected keys and values, such as hostname: mail.example.com");
        return NULL;
    }
    struct config_node *names = include_of(r, n);
    if (names && names->kind == CONFIG_SCALAR && !r->failed)
        include(r, n, names, depth);
    for (uint32_t i = 0; names && !r->failed && i < names->count; i++)
        include(r, n, names->entries[i].value, depth);
    return r->failed ? NULL : n;
}

struct config_node *config_document(struct config_reader *r, const char *file, struct slice text)
{
    return document(r, file, text, 0);
}
