/*
 * tests/sim/sim_sync.c - the simulated backend: the synchronous calls, and polls of raw
 * descriptors.
 *
 * Owns:     locks of a host's process; polls that wait.
 * Runs on:  the one thread of the simulation.
 * Contract: see io.h. A directory is listed in an order that nobody should count on. Polls are
 *           never ready by themselves.
 * Failure:  drawn or asked for; `why` names the path.
 * Bounds:   none.
 * Tests:    tests/sim/test_io_sim.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

static struct sim_host *host_of(const struct io *io)
{
    return io ? io->host : sim_current()->current;
}

/* 0, or the error that this call ends in. */
static int32_t call_fault(struct sim_host *h, enum sim_kind kind, const void *from)
{
    struct sim_site *site = sim_site_of(h, kind, from);
    bool asked = sim_site_asked(h, site);
    bool fails = asked || sim_fail_due(h, kind) != SIM_OK || sim_chance(h, h->faults.call_error);

    sim_count(site, fails ? SIM_EIO : SIM_OK);
    return fails ? -EIO : 0;
}

static bool refuse(struct why *why, const char *what, const char *path, int32_t error)
{
    why_set(why, 0, "", "cannot %s %s: %s", what, path, strerror(-error));
    return false;
}

bool io_mkdir(struct io *io, const char *path, struct why *why)
{
    struct sim_host *h = host_of(io);
    struct sim_inode *dir, *node;
    const char *name;
    int32_t res = call_fault(h, SIM_MKDIR, __builtin_return_address(0));

    if (res == 0)
        res = sim_dir_find(h->disk, path, &dir, &name, &node);
    if (res == 0 && node)
        res = node->is_dir ? 0 : -ENOTDIR;
    else if (res == 0 && h->disk->inode_count >= h->disk->inodes_max)
        res = -ENOSPC;
    else if (res == 0 && sim_disk_op(h))
        sim_dir_link(h->disk, dir, name, sim_inode_create(h->disk, true));
    return res == 0 || refuse(why, "make the directory", path, res);
}

static char **names_of(struct sim_host *h, const struct sim_inode *dir, uint32_t *count)
{
    char **names = malloc((dir->entry_count + 1) * sizeof *names);

    SIM_CHECK(names, "no memory");
    *count = 0;
    for (uint32_t i = 0; i < dir->entry_count; i++) {
        uint32_t at;
        if (!dir->entries[i].now)
            continue;
        at = (uint32_t)sim_below(&h->sim->prng, *count + 1);
        names[*count] = names[at];
        names[at] = strdup(dir->entries[i].name);
        ++*count;
    }
    return names;
}

bool io_list_dir(struct io *io, const char *path, bool (*each)(void *arg, const char *name),
                 void *arg, struct why *why)
{
    struct sim_host *h = host_of(io);
    struct sim_inode *dir, *node = NULL;
    const char *name;
    char **names;
    uint32_t count;
    bool more = true;
    int32_t res = call_fault(h, SIM_LIST_DIR, __builtin_return_address(0));

    if (res == 0)
        res = sim_dir_find(h->disk, path, &dir, &name, &node);
    if (res == 0 && (!node || !node->is_dir))
        res = node ? -ENOTDIR : -ENOENT;
    if (res < 0)
        return refuse(why, "read the directory", path, res);
    names = names_of(h, node, &count);
    for (uint32_t i = 0; i < count; i++) {
        more = more && each(arg, names[i]);
        free(names[i]);
    }
    free(names);
    return true;
}

bool io_disk_free(struct io *io, const char *path, uint64_t *free_bytes, uint64_t *total_bytes,
                  uint64_t *free_inodes)
{
    struct sim_host *h = host_of(io);
    struct sim_disk *d = h->disk;
    struct sim_inode *dir, *node = NULL;
    const char *name;

    if (call_fault(h, SIM_DISK_FREE, __builtin_return_address(0)) < 0 ||
        sim_dir_find(d, path, &dir, &name, &node) < 0 || !node)
        return false;
    *total_bytes = d->bytes_max;
    *free_bytes = d->bytes_max > d->bytes_used ? d->bytes_max - d->bytes_used : 0;
    *free_inodes = d->inodes_max == UINT64_MAX      ? UINT64_MAX
                   : d->inodes_max > d->inode_count ? d->inodes_max - d->inode_count
                                                    : 0;
    return true;
}

bool io_disk_in_place(struct io *io, const char *path)
{
    (void)path;
    return host_of(io)->in_place;
}

bool io_memory(struct io *io, uint64_t *resident_bytes, uint64_t *total_bytes)
{
    struct sim_site *site = sim_site_of(io->host, SIM_MEMORY, __builtin_return_address(0));
    bool asked = sim_site_asked(io->host, site);

    sim_count(site, asked ? SIM_OTHER : SIM_OK);
    if (asked)
        return false;
    *resident_bytes = 64ull << 20; /* plenty is left: what is short is tested without a simulator */
    *total_bytes = 1ull << 40;
    return true;
}

/* ---- locks ---- */

bool io_lock(struct io *io, const char *path, int *lock, struct why *why)
{
    struct sim_host *h = host_of(io);
    struct sim_inode *dir, *node;
    const char *name;
    struct sim_lock *l;
    int32_t res = call_fault(h, SIM_LOCK, __builtin_return_address(0));

    if (res == 0)
        res = sim_dir_find(h->disk, path, &dir, &name, &node);
    if (res < 0)
        return refuse(why, "open the lock", path, res);
    for (struct list *at = h->locks.next; at != &h->locks; at = at->next) {
        if (strcmp(container_of(at, struct sim_lock, link)->path, path) != 0)
            continue;
        why_set(why, 0, "", "%s is locked by another process", path);
        return false;
    }
    if (!node && sim_disk_op(h))
        sim_dir_link(h->disk, dir, name, sim_inode_create(h->disk, false));
    l = malloc(sizeof *l);
    SIM_CHECK(l, "no memory");
    *l = (struct sim_lock){.path = strdup(path), .id = ++h->next_lock};
    list_push_back(&h->locks, &l->link);
    *lock = l->id;
    return true;
}

void io_unlock(struct io *io, int lock)
{
    struct sim_host *h = host_of(io);

    for (struct list *at = h->locks.next; at != &h->locks; at = at->next) {
        struct sim_lock *l = container_of(at, struct sim_lock, link);
        if (l->id != lock)
            continue;
        list_remove(&l->link);
        free(l->path);
        free(l);
        return;
    }
    sim_broken("io_unlock: no such lock (%s)", h->name);
}

/* ---- polls ---- */

void io_poll_raw(struct io *io, struct io_op *op, int raw_fd, uint32_t poll_events)
{
    struct sim_call *c = sim_call_start(io, op, SIM_POLL, __builtin_return_address(0));

    c->offset = (uint64_t)raw_fd;
    c->len = poll_events;
}

void sim_poll_raw_ready(struct sim_host *host, int raw_fd, uint32_t revents)
{
    for (struct list *l = host->ios.next; l != &host->ios; l = l->next) {
        struct io *io = container_of(l, struct io, link);
        for (struct list *at = io->calls.next; at != &io->calls; at = at->next) {
            struct sim_call *c = container_of(at, struct sim_call, link);
            if (c->kind == SIM_POLL && c->offset == (uint64_t)raw_fd && !c->ended)
                sim_call_end(c, (int32_t)revents);
        }
    }
}
