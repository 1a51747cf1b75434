/*
 * tests/sim/sim_cut.c - the simulated disk: what a power cut leaves, and tools to look at a disk.
 *
 * Owns:     nothing of its own.
 * Runs on:  the one thread of the simulation.
 * Contract: the things that a cut decides about are numbered: of each file its unsynced sectors
 *           (or pages) and its size, then the changes of names, in the order in which they came.
 *           Afterwards memory and medium agree.
 * Failure:  none.
 * Bounds:   none.
 * Tests:    tests/sim/test_sim_disk.c
 */
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

#define PATH_BYTES 1024u

/* ---- the cut ---- */

static void sector_keep(struct sim_disk *d, struct sim_slot *s, uint32_t sector, enum sim_fate fate,
                        struct prng *prng)
{
    uint32_t from = sector * SIM_SECTOR, n = SIM_SECTOR, skip = 0;

    if (fate == SIM_TEAR) {
        if (sim_below(prng, 2))
            n = (uint32_t)sim_below(prng, SIM_SECTOR);
        else
            skip = (uint32_t)sim_below(prng, SIM_SECTOR);
    }
    if (s->cache)
        memcpy(sim_page_own(d, &s->durable)->data + from + skip, s->cache->data + from + skip,
               n - skip);
    else
        memset(sim_page_own(d, &s->durable)->data + from + skip, 0, n - skip);
}

/* A torn page: of its sectors some are kept, some not, some torn. */
static enum sim_fate fate_in_page(enum sim_fate page, struct prng *prng)
{
    static const enum sim_fate fates[] = {SIM_DROP, SIM_KEEP, SIM_TEAR};

    return page == SIM_TEAR ? fates[sim_below(prng, 3)] : page;
}

static uint32_t cut_slot(struct sim_disk *d, struct sim_slot *s, const struct sim_cut *cut,
                         uint32_t thing)
{
    enum sim_fate page = SIM_DROP, fate;
    uint8_t dirty = s->dirty;
    bool whole = d->sector == SIM_PAGE;

    if (whole && dirty)
        page = cut->fate(cut->arg, thing++);
    for (uint32_t i = 0; i < SIM_PAGE / SIM_SECTOR; i++) {
        if (!(dirty >> i & 1))
            continue;
        fate = whole ? fate_in_page(page, cut->prng) : cut->fate(cut->arg, thing++);
        if (fate != SIM_DROP)
            sector_keep(d, s, i, fate, cut->prng);
    }
    sim_slot_revert(d, s);
    return thing;
}

static int compare_pages(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static uint32_t cut_file(struct sim_disk *d, struct sim_inode *node, const struct sim_cut *cut,
                         uint32_t thing)
{
    if (node->dirty_count > 0)
        qsort(node->dirty_pages, node->dirty_count, sizeof *node->dirty_pages, compare_pages);
    for (uint32_t i = 0; i < node->dirty_count; i++) {
        struct sim_slot *s = &node->slots[node->dirty_pages[i]];
        thing = cut_slot(d, s, cut, thing);
        s->listed = false;
    }
    node->dirty_count = 0;
    for (uint32_t i = 0; i < node->slot_count; i++)
        if (node->slots[i].lost)
            sim_slot_revert(d, &node->slots[i]);
    if (node->size != node->durable_size && cut->fate(cut->arg, thing++) != SIM_DROP)
        node->durable_size = node->size;
    node->size = node->durable_size;
    node->size_lost = false;
    node->syncing = 0;
    return thing;
}

/* Bytes past the end are not there when the file grows again. */
static void cut_tail(struct sim_disk *d, struct sim_inode *node)
{
    uint64_t pages = (node->size + SIM_PAGE - 1) / SIM_PAGE;
    uint32_t in = (uint32_t)(node->size % SIM_PAGE);

    for (uint64_t i = pages; i < node->slot_count; i++) {
        struct sim_slot *s = &node->slots[i];
        sim_page_put(d->sim, s->durable);
        s->durable = NULL;
        sim_slot_revert(d, s);
        if (s->allocated) {
            s->allocated = false;
            node->used_pages--;
            d->bytes_used -= SIM_PAGE;
        }
    }
    if (in && pages - 1 < node->slot_count && node->slots[pages - 1].durable) {
        struct sim_slot *s = &node->slots[pages - 1];
        sim_page_put(d->sim, s->cache);
        s->cache = NULL;
        memset(sim_page_own(d, &s->durable)->data + in, 0, SIM_PAGE - in);
        sim_slot_revert(d, s);
    }
}

static void names_as_durable(struct sim_disk *d, struct sim_inode *dir)
{
    for (uint32_t i = dir->entry_count; i-- > 0;) {
        struct sim_dentry *e = &dir->entries[i];
        struct sim_inode *old = e->now;
        e->now = e->durable;
        if (e->now)
            e->now->refs++;
        if (old)
            sim_inode_put(d, old);
        if (!e->now) {
            free(e->name);
            *e = dir->entries[--dir->entry_count];
        }
    }
}

void sim_disk_cut(struct sim_disk *d, const struct sim_cut *cut)
{
    uint32_t thing = 0;

    for (uint32_t i = 0; i < d->inode_count; i++)
        if (!d->inodes[i]->is_dir)
            thing = cut_file(d, d->inodes[i], cut, thing);
    for (uint32_t i = 0; i < d->change_count; i++)
        if (cut->fate(cut->arg, thing++) != SIM_DROP)
            sim_change_apply(d, &d->changes[i]);
    for (uint32_t i = 0; i < d->inode_count; i++) { /* held, so that none goes meanwhile */
        d->inodes[i]->refs++;
        if (!d->inodes[i]->is_dir)
            cut_tail(d, d->inodes[i]);
    }
    for (uint32_t i = 0; i < d->inode_count; i++)
        if (d->inodes[i]->is_dir)
            names_as_durable(d, d->inodes[i]);
    while (d->change_count > 0)
        sim_change_free(d, &d->changes[--d->change_count]);
    for (uint32_t i = d->inode_count; i-- > 0;)
        sim_inode_put(d, d->inodes[i]);
}

uint32_t sim_disk_unsynced(const struct sim_disk *d)
{
    uint32_t things = d->change_count;

    for (uint32_t i = 0; i < d->inode_count; i++) {
        const struct sim_inode *node = d->inodes[i];
        for (uint32_t j = 0; j < node->dirty_count; j++) {
            uint8_t dirty = node->slots[node->dirty_pages[j]].dirty;
            things += d->sector == SIM_PAGE ? dirty != 0 : (uint32_t)__builtin_popcount(dirty);
        }
        things += !node->is_dir && node->size != node->durable_size;
    }
    return things;
}

/* ---- looking at it ---- */

struct visit {
    bool (*each)(void *arg, const char *path, uint64_t size);
    void *arg;
    char path[PATH_BYTES];
};

static int compare_entries(const void *a, const void *b)
{
    return strcmp((*(const struct sim_dentry *const *)a)->name,
                  (*(const struct sim_dentry *const *)b)->name);
}

static bool visit_dir(const struct sim_inode *dir, struct visit *v, size_t len)
{
    const struct sim_dentry **order = malloc((dir->entry_count + 1) * sizeof *order);
    bool more = true;

    for (uint32_t i = 0; i < dir->entry_count; i++)
        order[i] = &dir->entries[i];
    qsort(order, dir->entry_count, sizeof *order, compare_entries);
    for (uint32_t i = 0; more && i < dir->entry_count; i++) {
        const struct sim_inode *node = order[i]->now;
        int n = snprintf(v->path + len, sizeof v->path - len, "/%s", order[i]->name);
        SIM_CHECK(n > 0 && len + (size_t)n < sizeof v->path, "simulator: a path is too long");
        if (node && node->is_dir)
            more = visit_dir(node, v, len + (size_t)n);
        else if (node)
            more = v->each(v->arg, v->path, node->size);
    }
    free(order);
    return more;
}

void sim_host_disk_list(const struct sim_host *host,
                        bool (*each)(void *arg, const char *path, uint64_t size), void *arg)
{
    struct visit v = {.each = each, .arg = arg};

    visit_dir(host->disk->inodes[0], &v, 0);
}

static struct sim_inode *file_of(const struct sim_host *host, const char *path)
{
    struct sim_inode *dir, *node;
    const char *name;

    if (sim_dir_find(host->disk, path, &dir, &name, &node) < 0 || !node || node->is_dir)
        return NULL;
    return node;
}

int64_t sim_host_disk_read(const struct sim_host *host, const char *path, void *buf, uint32_t len,
                           uint64_t offset)
{
    const struct sim_inode *node = file_of(host, path);

    return node ? (int64_t)sim_inode_read(node, buf, len, offset) : -1;
}

struct hashing {
    const struct sim_host *host;
    uint64_t hash;
    uint32_t zeros; /* the sum of a page that holds nothing else */
};

static void hash_in(struct hashing *h, uint64_t x)
{
    h->hash = ((h->hash << 9 | h->hash >> 55) ^ x) * 0x9e3779b97f4a7c15u;
}

static bool hash_file(void *arg, const char *path, uint64_t size)
{
    struct hashing *h = arg;
    const struct sim_inode *node = file_of(h->host, path);

    hash_in(h, sim_sum(path, strlen(path)) ^ size << 32);
    for (uint32_t i = 0; i < node->slot_count && (uint64_t)i * SIM_PAGE < size; i++) {
        uint64_t left = size - (uint64_t)i * SIM_PAGE;
        uint32_t sum;
        if (!node->slots[i].cache)
            continue;
        sum = sim_sum(node->slots[i].cache->data, left < SIM_PAGE ? left : SIM_PAGE);
        if (left < SIM_PAGE || sum != h->zeros)
            hash_in(h, (uint64_t)i << 32 | sum);
    }
    return true;
}

uint64_t sim_host_disk_hash(const struct sim_host *host)
{
    static const uint8_t zeros[SIM_PAGE];
    struct hashing h = {.host = host, .zeros = sim_sum(zeros, SIM_PAGE)};

    sim_host_disk_list(host, hash_file, &h);
    return h.hash;
}

bool sim_host_disk_flip(struct sim_host *host, const char *path, uint64_t offset, uint8_t mask)
{
    struct sim_inode *node = file_of(host, path);
    struct sim_slot *s;

    if (!node || offset >= node->size)
        return false;
    if (offset / SIM_PAGE >= node->slot_count) {
        uint8_t zero = 0; /* a hole: there are bytes now */
        if (sim_inode_write(host->disk, node, &zero, 1, offset) != 1)
            return false;
        sim_inode_commit(host->disk, node, SIM_NEVER, node->size);
    }
    s = &node->slots[offset / SIM_PAGE];
    if (s->durable == s->cache) {
        sim_page_put(host->disk->sim, s->durable);
        s->durable = NULL;
        sim_page_own(host->disk, &s->cache)->data[offset % SIM_PAGE] ^= mask;
        s->durable = s->cache;
        if (s->durable)
            s->durable->refs++;
        return true;
    }
    sim_page_own(host->disk, &s->cache)->data[offset % SIM_PAGE] ^= mask;
    sim_page_own(host->disk, &s->durable)->data[offset % SIM_PAGE] ^= mask;
    return true;
}

static struct sim_inode *make_dirs(struct sim_disk *d, const char *path, char *name, size_t room)
{
    struct sim_inode *dir = d->inodes[0];

    for (;;) {
        struct sim_dentry *e;
        size_t len;
        while (*path == '/')
            path++;
        len = strcspn(path, "/");
        SIM_CHECK(len > 0 && len < room, "simulator: no name in a path");
        memcpy(name, path, len);
        name[len] = '\0';
        if (path[len] == '\0')
            return dir;
        e = sim_dir_entry(dir, name);
        if (!e || !e->now) {
            struct sim_inode *node = sim_inode_create(d, true);
            sim_dir_link(d, dir, name, node);
            sim_dir_commit(d, dir, SIM_NEVER);
            e = sim_dir_entry(dir, name);
        }
        dir = e->now;
        path += len;
    }
}

void sim_host_disk_put(struct sim_host *host, const char *path, const void *data, size_t len)
{
    struct sim_disk *d = host->disk;
    char name[PATH_BYTES];
    struct sim_inode *dir = make_dirs(d, path, name, sizeof name);
    struct sim_dentry *e = sim_dir_entry(dir, name);
    struct sim_inode *node;

    if (!e || !e->now)
        sim_dir_link(d, dir, name, sim_inode_create(d, false));
    node = sim_dir_entry(dir, name)->now;
    sim_inode_truncate(d, node);
    SIM_CHECK(len == 0 || sim_inode_write(d, node, data, (uint32_t)len, 0) == (int32_t)len,
              "%s: does not fit", path);
    sim_inode_commit(d, node, SIM_NEVER, node->size);
    sim_dir_commit(d, dir, SIM_NEVER);
}

void sim_host_fd_limit(struct sim_host *host, uint32_t count)
{
    host->fd_limit = count;
}

void sim_host_disk_direct(struct sim_host *host, bool direct)
{
    host->no_direct = !direct;
}

void sim_host_disk_in_place(struct sim_host *host, bool in_place)
{
    host->in_place = in_place;
}

void sim_host_disk_limit(struct sim_host *host, uint64_t bytes, uint64_t inodes)
{
    host->disk->bytes_max = bytes;
    host->disk->inodes_max = inodes;
}

struct sim_disk *sim_host_disk_save(struct sim_host *host)
{
    return sim_disk_copy(host->disk);
}

void sim_host_disk_load(struct sim_host *host, const struct sim_disk *saved)
{
    SIM_CHECK(!sim_host_has_process(host), "%s: a process uses the disk", host->name);
    sim_disk_free(host->disk);
    host->disk = sim_disk_copy(saved);
}
