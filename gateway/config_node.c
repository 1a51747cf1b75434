/*
 * gateway/config_node.c - memory, nodes and messages of one reading of the configuration.
 *
 * Owns:     pools: every allocation of a reading or of a configuration, freed whole.
 * Runs on:  the control thread, at start and at reload.
 * Contract: memory is wiped before it is given back, since some of it holds keys and passwords. The
 *           first error of a reading is the one that is told.
 * Failure:  no memory: the reader has failed, and says so.
 * Bounds:   CONFIG_NODES_MAX nodes.
 * Tests:    tests/unit/test_config.c
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "gateway/config_internal.h"

struct config_block {
    struct config_block *next;
    size_t size;
    max_align_t data[];
};

void config_pool_free(struct config_pool *p)
{
    for (struct config_block *b = p->blocks, *next; b; b = next) {
        next = b->next;
        explicit_bzero(b->data, b->size);
        free(b);
    }
    p->blocks = NULL;
}

void *config_alloc(struct config_reader *r, struct config_pool *p, size_t count, size_t size)
{
    struct config_block *b = NULL;
    if (size == 0 || count <= (SIZE_MAX - sizeof *b) / size)
        b = calloc(1, sizeof *b + count * size);
    if (!b) {
        if (!r->failed)
            why_set(r->why, 0, "", "no memory to read the configuration");
        r->failed = true;
        return NULL;
    }
    b->size = count * size;
    b->next = p->blocks;
    p->blocks = b;
    return b->data;
}

char *config_copy(struct config_reader *r, struct config_pool *p, const char *text, size_t len)
{
    char *copy = config_alloc(r, p, len + 1, 1);
    if (copy && len)
        memcpy(copy, text, len);
    return copy;
}

bool config_fail(struct config_reader *r, struct config_place at, const char *fmt, ...)
{
    char text[WHY_TEXT_MAX];
    va_list ap;
    if (r->failed)
        return false;
    r->failed = true;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    why_set(r->why, 0, "", "%s:%u:%u: %s", at.file, at.line, at.column, text);
    return false;
}

struct config_node *config_node_new(struct config_reader *r, enum config_kind kind,
                                    struct config_place at)
{
    if (++r->node_count > CONFIG_NODES_MAX) {
        config_fail(r, at, "more than %u keys and values", CONFIG_NODES_MAX);
        return NULL;
    }
    struct config_node *n = config_alloc(r, &r->scratch, 1, sizeof *n);
    if (n) {
        n->kind = kind;
        n->place = at;
    }
    return n;
}

bool config_node_room(struct config_reader *r, struct config_node *n, uint32_t count)
{
    struct config_entry *entries =
        config_alloc(r, &r->scratch, (size_t)n->count + count, sizeof *entries);
    if (!entries)
        return false;
    if (n->count)
        memcpy(entries, n->entries, n->count * sizeof *entries);
    n->entries = entries;
    return true;
}

struct config_node *config_node_get(const struct config_node *map, const char *key)
{
    if (map->kind == CONFIG_MAP)
        for (uint32_t i = 0; i < map->count; i++)
            if (strcmp(map->entries[i].key->text, key) == 0)
                return map->entries[i].value;
    return NULL;
}

const struct config_node *config_node_near(const struct config_node *map, const char *path)
{
    char key[CONFIG_NAME_MAX];
    while (*path) {
        size_t len = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)len, path);
        const struct config_node *n = config_node_get(map, key);
        if (!n)
            break;
        map = n;
        path += len + (path[len] == '.');
    }
    return map;
}

/* ---- files ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        h = (h ^ (v >> (i * 8) & 0xff)) * 1099511628211ull;
    return h;
}

uint64_t config_file_seen(const char *path)
{
    uint64_t h = 14695981039346656037ull;
    struct stat st;
    if (stat(path, &st) != 0)
        return mix(h, (uint64_t)errno);
    h = mix(mix(h, st.st_dev), st.st_ino);
    return mix(mix(mix(h, (uint64_t)st.st_size), (uint64_t)st.st_mtim.tv_sec),
               (uint64_t)st.st_mtim.tv_nsec);
}

static bool config_note_file(struct config_reader *r, const char *path)
{
    struct config_file *f;
    if (!r->files)
        return true;
    f = config_alloc(r, r->pool, 1, sizeof *f);
    if (!f || !(f->path = config_copy(r, r->pool, path, strlen(path))))
        return false;
    f->seen = config_file_seen(path);
    f->next = *r->files;
    *r->files = f;
    return true;
}

bool config_read_file(struct config_reader *r, struct config_pool *pool, const char *path,
                      uint64_t size_max, struct config_place at, const char *what,
                      struct slice *out)
{
    if (!config_note_file(r, path))
        return false;
    FILE *f = fopen(path, "re");
    if (!f)
        return config_fail(r, at, "%scannot read %s: %s", what, path, strerror(errno));
    /* Read first, then copied: the size of a pipe or of a file below /proc is not known before. */
    size_t size = 0, room = 4096, got = 1;
    char *text = malloc(room + 1);
    errno = 0;
    while (text && got && size <= size_max) {
        got = fread(text + size, 1, room - size, f);
        size += got;
        if (size == room) {
            char *more = malloc(room * 2 + 1);
            if (more)
                memcpy(more, text, size);
            explicit_bzero(text, size);
            free(text);
            text = more;
            room *= 2;
        }
    }
    bool ok = text != NULL;
    if (!ok)
        config_fail(r, at, "%sno memory to read %s", what, path);
    else if (ferror(f))
        ok = config_fail(r, at, "%scannot read %s: %s", what, path, strerror(errno));
    else if (size > size_max)
        ok = config_fail(r, at, "%s%s is larger than %llu KiB", what, path,
                         (unsigned long long)(size_max / KIB));
    fclose(f);
    char *copy = ok ? config_copy(r, pool, text, size) : NULL;
    if (text)
        explicit_bzero(text, size);
    free(text);
    *out = slice_of(copy, copy ? size : 0);
    return copy != NULL;
}

char *config_path(struct config_reader *r, struct config_pool *pool, const struct config_node *n)
{
    const char *slash = strrchr(n->place.file, '/');
    if (n->text[0] == '/' || !slash)
        return config_copy(r, pool, n->text, strlen(n->text));
    size_t folder = (size_t)(slash - n->place.file) + 1, len = strlen(n->text);
    char *path = config_alloc(r, pool, folder + len + 1, 1);
    if (path) {
        memcpy(path, n->place.file, folder);
        memcpy(path + folder, n->text, len);
    }
    return path;
}
