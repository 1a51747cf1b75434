/*
 * tests/sim/sim_dir.c - the simulated disk: names, now and after a power cut.
 *
 * Owns:     the entries of directories; changes that no sync of their directory covers yet.
 * Runs on:  the one thread of the simulation.
 * Contract: a change of names is durable once the directory was synced after it; a rename between
 *           two directories, once both were. Syncing a file says nothing of its name.
 * Failure:  -ENOENT, -ENOTDIR.
 * Bounds:   memory.
 * Tests:    tests/sim/test_sim_disk.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

/* ---- entries ---- */

static uint32_t name_hash(const char *name, size_t len)
{
    return sim_sum(name, len);
}

static struct sim_dentry *entry_find(struct sim_inode *dir, const char *name, size_t len)
{
    uint32_t hash = name_hash(name, len);

    for (uint32_t i = 0; i < dir->entry_count; i++) {
        struct sim_dentry *e = &dir->entries[i];
        if (e->hash == hash && strncmp(e->name, name, len) == 0 && e->name[len] == '\0')
            return e;
    }
    return NULL;
}

struct sim_dentry *sim_dir_entry(struct sim_inode *dir, const char *name)
{
    return entry_find(dir, name, strlen(name));
}

static struct sim_dentry *entry_make(struct sim_inode *dir, const char *name)
{
    struct sim_dentry *e = sim_dir_entry(dir, name);

    if (e)
        return e;
    if (dir->entry_count == dir->entry_cap) {
        dir->entry_cap = dir->entry_cap ? 2 * dir->entry_cap : 8;
        dir->entries = realloc(dir->entries, dir->entry_cap * sizeof *dir->entries);
        SIM_CHECK(dir->entries, "no memory");
    }
    e = &dir->entries[dir->entry_count++];
    *e = (struct sim_dentry){.name = strdup(name), .hash = name_hash(name, strlen(name))};
    return e;
}

static void entry_drop_if_empty(struct sim_inode *dir, const char *name)
{
    struct sim_dentry *e = sim_dir_entry(dir, name);

    if (!e || e->now || e->durable)
        return;
    free(e->name);
    *e = dir->entries[--dir->entry_count];
}

static void point(struct sim_disk *d, struct sim_inode **at, struct sim_inode *node)
{
    struct sim_inode *old = *at;

    if (node)
        node->refs++;
    *at = node;
    if (old)
        sim_inode_put(d, old);
}

int32_t sim_dir_find(struct sim_disk *d, const char *path, struct sim_inode **dir,
                     const char **name, struct sim_inode **node)
{
    struct sim_inode *at = d->inodes[0];

    *dir = NULL;
    *name = "";
    for (;;) {
        size_t len;
        struct sim_dentry *e;
        while (*path == '/')
            path++;
        if (*path == '\0') {
            *node = at;
            return 0;
        }
        len = strcspn(path, "/");
        if (!at)
            return -ENOENT;
        if (!at->is_dir)
            return -ENOTDIR;
        if (path[0] == '.' && (len == 1 || (len == 2 && path[1] == '.'))) {
            at = len == 2 ? at->parent : at;
            *dir = NULL; /* no name to change */
        } else {
            e = entry_find(at, path, len);
            *dir = at;
            *name = path;
            at = e ? e->now : NULL;
        }
        path += len;
    }
}

/* ---- changes ---- */

static struct sim_change *change_add(struct sim_disk *d, struct sim_inode *node,
                                     struct sim_inode *from_dir, const char *from,
                                     struct sim_inode *to_dir, const char *to)
{
    struct sim_change *c;

    if (d->change_count == d->change_cap) {
        d->change_cap = d->change_cap ? 2 * d->change_cap : 16;
        d->changes = realloc(d->changes, d->change_cap * sizeof *d->changes);
        SIM_CHECK(d->changes, "no memory");
    }
    c = &d->changes[d->change_count++];
    *c = (struct sim_change){.seq = ++d->seq,
                             .node = node,
                             .from_dir = from_dir,
                             .to_dir = to_dir,
                             .from = from ? strdup(from) : NULL,
                             .to = to ? strdup(to) : NULL,
                             .from_synced = !from_dir,
                             .to_synced = !to_dir};
    node->refs++;
    if (from_dir)
        from_dir->refs++;
    if (to_dir)
        to_dir->refs++;
    return c;
}

void sim_change_free(struct sim_disk *d, struct sim_change *c)
{
    if (c->from_dir)
        entry_drop_if_empty(c->from_dir, c->from);
    if (c->to_dir)
        entry_drop_if_empty(c->to_dir, c->to);
    if (c->from_dir)
        sim_inode_put(d, c->from_dir);
    if (c->to_dir)
        sim_inode_put(d, c->to_dir);
    sim_inode_put(d, c->node);
    free(c->from);
    free(c->to);
}

void sim_dir_link(struct sim_disk *d, struct sim_inode *dir, const char *name,
                  struct sim_inode *node)
{
    if (node->is_dir)
        node->parent = dir;
    change_add(d, node, NULL, NULL, dir, name);
    point(d, &entry_make(dir, name)->now, node);
}

void sim_dir_unlink(struct sim_disk *d, struct sim_inode *dir, const char *name)
{
    struct sim_dentry *e = sim_dir_entry(dir, name);

    change_add(d, e->now, dir, name, NULL, NULL);
    point(d, &e->now, NULL);
    entry_drop_if_empty(dir, name);
}

void sim_dir_rename(struct sim_disk *d, struct sim_inode *from_dir, const char *from,
                    struct sim_inode *to_dir, const char *to)
{
    struct sim_inode *node = sim_dir_entry(from_dir, from)->now;

    if (from_dir == to_dir && strcmp(from, to) == 0)
        return;
    if (node->is_dir)
        node->parent = to_dir;
    change_add(d, node, from_dir, from, to_dir, to);
    point(d, &entry_make(to_dir, to)->now, node);
    point(d, &sim_dir_entry(from_dir, from)->now, NULL);
}

void sim_change_apply(struct sim_disk *d, struct sim_change *c)
{
    if (c->from_dir) {
        struct sim_dentry *e = entry_make(c->from_dir, c->from);
        if (e->durable == c->node)
            point(d, &e->durable, NULL);
    }
    if (c->to_dir)
        point(d, &entry_make(c->to_dir, c->to)->durable, c->node);
}

void sim_dir_commit(struct sim_disk *d, struct sim_inode *dir, uint64_t seq)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < d->change_count; i++) {
        struct sim_change *c = &d->changes[i];
        if (c->seq <= seq && !c->lost) {
            c->from_synced |= c->from_dir == dir;
            c->to_synced |= c->to_dir == dir;
            if (c->from_synced && c->to_synced) {
                sim_change_apply(d, c);
                sim_change_free(d, c);
                continue;
            }
        }
        d->changes[kept++] = *c;
    }
    d->change_count = kept;
}

/*
 * A directory that was made stays to be written by the next sync: the process that finds it after a
 * restart could not know otherwise, nor do anything about it.
 */
void sim_dir_lose(struct sim_disk *d, struct sim_inode *dir, uint64_t seq, struct prng *prng)
{
    for (uint32_t i = 0; i < d->change_count; i++) {
        struct sim_change *c = &d->changes[i];
        if (c->seq <= seq && (c->from_dir == dir || c->to_dir == dir))
            c->lost |= sim_below(prng, 2) != 0 && !(c->node && c->node->is_dir);
    }
}
