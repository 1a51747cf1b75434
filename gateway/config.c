/*
 * gateway/config.c - reads a configuration: text, nodes, table, checks, one immutable tree.
 *
 * Owns:     every configuration it makes, with all its strings, until config_free.
 * Runs on:  the control thread, at start and at reload; the result is read by every thread.
 * Contract: all or nothing: a configuration that is returned has passed every check, and the files
 *           it names have been read. The spool and sockets are never touched.
 * Failure:  NULL and FILE:LINE:COLUMN: message.
 * Bounds:   gateway/limits.h, section configuration.
 * Tests:    tests/unit/test_config.c
 */
#include <stdlib.h>

#include "gateway/config_internal.h"

static struct config *read_all(struct config_tree *tree, const char *name, struct slice text,
                               struct config_reader *r)
{
    r->pool = &tree->pool;
    r->files = &tree->config.files;
    tree->config.path = config_copy(r, r->pool, name, strlen(name));
    if (!tree->config.path)
        return NULL;
    const struct config_node *root = config_document(r, tree->config.path, text);
    if (root && config_bind(r, config_table(), root, &tree->config) &&
        config_check(r, root, &tree->config))
        return &tree->config;
    return NULL;
}

struct config *config_parse(const char *name, struct slice text, struct why *why)
{
    struct config_reader r = {.why = why};
    struct config_tree *tree = calloc(1, sizeof *tree);
    why_clear(why);
    if (!tree) {
        why_set(why, 0, "", "%s:1:1: no memory to read the configuration", name);
        return NULL;
    }
    struct config *c = read_all(tree, name, text, &r);
    config_pool_free(&r.scratch);
    if (!c)
        config_free(&tree->config);
    return c;
}

struct config *config_load(const char *path, struct why *why)
{
    struct config_pool pool = {0};
    struct config_reader r = {.pool = &pool, .why = why};
    struct slice text;
    struct config_place start = {path, 1, 1};
    struct config *c = NULL;
    if (config_read_file(&r, &pool, path, CONFIG_FILE_MAX, start, "", &text))
        c = config_parse(path, text, why);
    config_pool_free(&pool);
    return c;
}

void config_free(struct config *c)
{
    if (!c)
        return;
    struct config_tree *tree = (struct config_tree *)(void *)c;
    route_table_destroy(c->routes);
    config_pool_free(&tree->pool);
    free(tree);
}
