/*
 * tests/sim/sim_file.c - the simulated backend: operations on files.
 *
 * Owns:     nothing of its own.
 * Runs on:  the one thread of the simulation.
 * Contract: an operation has its effect at one moment between its start and its completion; a
 *           sync covers what had its effect before the sync was started. A write and sync has two
 *           effects. Failure: drawn, asked for, or the disk's own: a full disk, a wrong name,
 *           misaligned direct access. Bounds: none. Tests: tests/sim/test_io_sim.c,
 *           tests/sim/test_sim_disk.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

#define DISK_MIN_NS  (20 * NS_PER_US)
#define DISK_MAX_NS  (200 * NS_PER_US)
#define DIRECT_ALIGN 4096u
#define DIR_SIZE     4096u

enum file_phase { PHASE_EFFECT, PHASE_SYNC };

static void file_fire(struct timer *t);

static void schedule(struct sim_call *c)
{
    struct sim_host *h = c->io->host;
    const struct sim_faults *f = &h->faults;
    uint64_t delay = f->disk_max_ns ? sim_delay(h->sim, f->disk_min_ns, f->disk_max_ns)
                                    : sim_delay(h->sim, DISK_MIN_NS, DISK_MAX_NS);

    if (sim_chance(h, f->stall)) {
        delay += sim_below(&h->sim->prng, f->stall_ns + 1);
        sim_count(c->site, SIM_STALL);
    }
    sim_call_at(c, delay, file_fire);
}

bool sim_disk_op(struct sim_host *h)
{
    if (h->stopped)
        return false;
    if (h->stop_before && h->disk_ops + 1 == h->stop_before) {
        h->stopped = true;
        sim_note(h->sim, h, "stopped", h->stop_before, 0);
        return false;
    }
    h->disk_ops++;
    if (h->look)
        h->look(h->look_arg, h->disk_ops);
    return true;
}

/* ---- faults ---- */

static int32_t error_of(enum sim_fault fault)
{
    switch (fault) {
    case SIM_ENOSPC: return -ENOSPC;
    case SIM_NO_FD: return -ENFILE;
    case SIM_CANCELED: return -ECANCELED;
    case SIM_OTHER: return -ENOMEM;
    default: return -EIO;
    }
}

/* One of the errors that such an operation may meet. */
static enum sim_fault any_error(struct sim_host *h, bool grows, bool opens)
{
    switch (sim_below(&h->sim->prng, 4)) {
    case 0: return grows ? SIM_ENOSPC : SIM_EIO;
    case 1: return opens ? SIM_NO_FD : SIM_EIO;
    case 2: return SIM_OTHER;
    default: return SIM_EIO;
    }
}

static struct sim_fd *file_of(const struct sim_call *c)
{
    return sim_fd_held(c->io, c->fd);
}

/* What this effect ends in: asked for, else drawn; SIM_OK: nothing in its way. */
static enum sim_fault fault_of(struct sim_call *c, enum sim_kind kind)
{
    struct sim_host *h = c->io->host;
    const struct sim_faults *f = &h->faults;
    enum sim_fault asked = sim_call_fault(c, kind);

    if (asked != SIM_OK)
        return asked;
    switch (kind) {
    case SIM_READ:
        return sim_chance(h, f->read_eio)     ? SIM_EIO
               : sim_chance(h, f->read_short) ? SIM_SHORT
                                              : SIM_OK;
    case SIM_WRITE:
        return sim_chance(h, f->write_eio)      ? SIM_EIO
               : sim_chance(h, f->write_enospc) ? SIM_ENOSPC
               : sim_chance(h, f->write_short)  ? SIM_SHORT
                                                : SIM_OK;
    case SIM_SYNC:
        return sim_chance(h, f->sync_eio)                                   ? SIM_EIO
               : file_of(c)->node->is_dir && sim_chance(h, f->dir_sync_eio) ? SIM_EIO
                                                                            : SIM_OK;
    case SIM_ALLOCATE:
        return sim_chance(h, f->allocate_enospc) ? SIM_ENOSPC
               : sim_chance(h, f->allocate_eio)  ? SIM_EIO
                                                 : SIM_OK;
    case SIM_OPEN:
        return sim_chance(h, f->open_error) ? any_error(h, c->open_flags & IO_CREATE, true)
                                            : SIM_OK;
    case SIM_UNLINK: return sim_chance(h, f->unlink_error) ? any_error(h, false, false) : SIM_OK;
    case SIM_RENAME: return sim_chance(h, f->rename_error) ? any_error(h, true, false) : SIM_OK;
    case SIM_FILE_SIZE: return sim_chance(h, f->size_error) ? any_error(h, false, false) : SIM_OK;
    default: return SIM_OK;
    }
}

/* ---- effects; false: the host stopped before it ---- */

static bool misaligned(const struct sim_call *c)
{
    return (c->open_flags & IO_DIRECT) &&
           (((uintptr_t)c->buf | c->offset | c->len) & (DIRECT_ALIGN - 1)) != 0;
}

static uint32_t part_of(struct sim_call *c, uint32_t len)
{
    uint32_t n = (uint32_t)sim_below(&c->io->sim->prng, len);

    return (c->open_flags & IO_DIRECT) ? n / SIM_SECTOR * SIM_SECTOR : n;
}

static void effect_read(struct sim_call *c, struct sim_inode *node)
{
    enum sim_fault fault = misaligned(c) ? SIM_OK : fault_of(c, SIM_READ);
    int32_t res;

    if (!(c->open_flags & IO_READ)) {
        res = -EBADF;
    } else if (misaligned(c)) {
        res = -EINVAL;
    } else if (fault != SIM_OK && fault != SIM_SHORT) {
        res = error_of(fault);
    } else {
        res = (int32_t)sim_inode_read(node, c->buf, c->len, c->offset);
        if (fault == SIM_SHORT && res > 1) {
            sim_count(c->site, SIM_SHORT);
            res = 1 + (int32_t)part_of(c, (uint32_t)res - 1);
        }
    }
    sim_call_end(c, res);
}

/* The result of writing, also when only a part of it got there. */
static int32_t write_now(struct sim_call *c, struct sim_inode *node)
{
    struct sim_disk *d = c->io->host->disk;
    enum sim_fault fault;
    int32_t res;

    if (!(c->open_flags & IO_WRITE))
        return -EBADF;
    if (misaligned(c))
        return -EINVAL;
    if (c->len == 0)
        return 0;
    fault = fault_of(c, SIM_WRITE);
    if (fault == SIM_SHORT) {
        uint32_t part = part_of(c, c->len);
        sim_count(c->site, SIM_SHORT);
        return part ? sim_inode_write(d, node, c->buf, part, c->offset) : -ENOSPC;
    }
    if (fault == SIM_EIO) { /* some of it may be there */
        uint32_t part = part_of(c, c->len);
        if (part)
            (void)sim_inode_write(d, node, c->buf, part, c->offset);
        return -EIO;
    }
    if (fault != SIM_OK)
        return error_of(fault);
    res = sim_inode_write(d, node, c->buf, c->len, c->offset);
    if (res > 0 && (uint32_t)res < c->len)
        sim_count(c->site, SIM_SHORT);
    return res;
}

static void sync_begin(struct sim_call *c, struct sim_inode *node)
{
    struct sim_disk *d = c->io->host->disk;

    c->seq = d->seq;
    c->size = node->size;
    node->syncing++;
    node->sync_seq = c->seq;
}

static int32_t sync_end(struct sim_call *c, struct sim_inode *node)
{
    struct sim_disk *d = c->io->host->disk;
    enum sim_fault fault = fault_of(c, SIM_SYNC);

    node->syncing -= node->syncing > 0;
    if (fault == SIM_OK && sim_chance(c->io->host, c->io->host->faults.sync_lie))
        return 0;
    if (fault == SIM_OK) {
        if (node->is_dir)
            sim_dir_commit(d, node, c->seq);
        else
            sim_inode_commit(d, node, c->seq, c->size);
        return 0;
    }
    if (fault != SIM_CANCELED) {
        if (node->is_dir)
            sim_dir_lose(d, node, c->seq, &d->sim->prng);
        else
            sim_inode_lose(d, node, c->seq, &d->sim->prng);
    }
    return error_of(fault);
}

static void effect_write(struct sim_call *c, struct sim_inode *node)
{
    bool sync = c->kind == SIM_WRITE_SYNC;
    int32_t res = write_now(c, node);

    if (c->open_flags & IO_DSYNC) {
        if (res > 0) {
            struct sim_disk *d = c->io->host->disk;
            sync_begin(c, node);
            node->syncing--;
            sim_inode_commit(d, node, d->seq, node->size);
        }
    } else if (sync && res == (int32_t)c->len) {
        sync_begin(c, node);
        c->phase = PHASE_SYNC;
        schedule(c);
        return;
    }
    if (sync && res >= 0 && (uint32_t)res != c->len)
        res = -EIO;
    sim_call_end(c, res);
}

static void effect_allocate(struct sim_call *c, struct sim_inode *node)
{
    enum sim_fault fault = fault_of(c, SIM_ALLOCATE);
    int32_t res;

    if (!(c->open_flags & IO_WRITE))
        res = -EBADF;
    else if (fault != SIM_OK)
        res = error_of(fault);
    else
        res = sim_inode_allocate(c->io->host->disk, node, c->offset, c->size);
    sim_call_end(c, res);
}

static int32_t create(struct sim_disk *d, struct sim_inode *dir, const char *name,
                      struct sim_inode **node)
{
    if (d->inode_count >= d->inodes_max)
        return -ENOSPC;
    *node = sim_inode_create(d, false);
    sim_dir_link(d, dir, name, *node);
    return 0;
}

static int32_t open_now(struct sim_call *c)
{
    struct sim_disk *d = c->io->host->disk;
    uint32_t flags = c->open_flags;
    struct sim_inode *dir, *node;
    const char *name;
    int32_t res = sim_dir_find(d, c->path, &dir, &name, &node);
    struct sim_fd *f;

    if (res < 0)
        return res;
    if (node && (flags & IO_CREATE) && (flags & IO_EXCL))
        return -EEXIST;
    if (!node && !(flags & IO_CREATE))
        return -ENOENT;
    if (node && node->is_dir && (flags & (IO_WRITE | IO_CREATE)))
        return -EISDIR;
    if (node && !node->is_dir && (flags & IO_DIR))
        return -ENOTDIR;
    if (c->io->fd_used >= c->io->fd_limit)
        return -ENFILE;
    if (!node && (res = create(d, dir, name, &node)) < 0)
        return res;
    if ((flags & IO_DIRECT) && c->io->host->no_direct)
        return -EINVAL;
    if ((flags & IO_TRUNC) && node->size > 0)
        sim_inode_truncate(d, node);
    res = sim_fd_open(c->io, SIM_FD_FILE);
    f = sim_fd_of(c->io, res, "open");
    f->node = node;
    f->open_flags = flags & (IO_WRITE | IO_READ) ? flags : flags | IO_READ;
    node->refs++;
    return res;
}

static void effect_open(struct sim_call *c)
{
    enum sim_fault fault = fault_of(c, SIM_OPEN);

    sim_call_end(c, fault != SIM_OK ? error_of(fault) : open_now(c));
}

static int32_t unlink_now(struct sim_call *c)
{
    struct sim_disk *d = c->io->host->disk;
    struct sim_inode *dir, *node;
    const char *name;
    int32_t res = sim_dir_find(d, c->path, &dir, &name, &node);

    if (res < 0 || !node)
        return res < 0 ? res : -ENOENT;
    if (node->is_dir)
        return -EISDIR;
    sim_dir_unlink(d, dir, name);
    return 0;
}

static int32_t rename_now(struct sim_call *c)
{
    struct sim_disk *d = c->io->host->disk;
    struct sim_inode *from_dir, *from, *to_dir, *to;
    const char *from_name, *to_name;
    int32_t res = sim_dir_find(d, c->path, &from_dir, &from_name, &from);

    if (res == 0)
        res = sim_dir_find(d, c->path2, &to_dir, &to_name, &to);
    if (res < 0 || !from)
        return res < 0 ? res : -ENOENT;
    if (!from_dir || !to_dir)
        return -EBUSY;
    if (to && to->is_dir != from->is_dir)
        return to->is_dir ? -EISDIR : -ENOTDIR;
    if (to && to->is_dir)
        return -ENOTEMPTY;
    sim_dir_rename(d, from_dir, from_name, to_dir, to_name);
    return 0;
}

static int32_t size_now(struct sim_call *c)
{
    struct sim_inode *dir, *node;
    const char *name;
    int32_t res = sim_dir_find(c->io->host->disk, c->path, &dir, &name, &node);

    if (res < 0 || !node)
        return res < 0 ? res : -ENOENT;
    c->op->file.size = node->is_dir ? DIR_SIZE : node->size;
    return 0;
}

static void effect_name(struct sim_call *c)
{
    enum sim_kind kind = (enum sim_kind)c->kind;
    enum sim_fault fault = fault_of(c, kind);

    if (fault != SIM_OK)
        sim_call_end(c, error_of(fault));
    else
        sim_call_end(c, kind == SIM_UNLINK   ? unlink_now(c)
                        : kind == SIM_RENAME ? rename_now(c)
                                             : size_now(c));
}

static bool changes_disk(const struct sim_call *c)
{
    switch ((enum sim_kind)c->kind) {
    case SIM_READ:
    case SIM_FILE_SIZE: return false;
    case SIM_OPEN: return (c->open_flags & (IO_CREATE | IO_TRUNC)) != 0;
    default: return true;
    }
}

static void file_fire(struct timer *t)
{
    struct sim_call *c = container_of(t, struct sim_call, timer);

    if (changes_disk(c) && !sim_disk_op(c->io->host))
        return;
    if (c->path)
        sim_call_check(c);
    switch ((enum sim_kind)c->kind) {
    case SIM_OPEN: effect_open(c); return;
    case SIM_READ: effect_read(c, file_of(c)->node); return;
    case SIM_WRITE_SYNC:
        if (c->phase == PHASE_SYNC) {
            int32_t res = sync_end(c, file_of(c)->node);
            sim_call_end(c, res < 0 ? res : (int32_t)c->len);
            return;
        }
        /* fall through */
    case SIM_WRITE: effect_write(c, file_of(c)->node); return;
    case SIM_SYNC: sim_call_end(c, sync_end(c, file_of(c)->node)); return;
    case SIM_ALLOCATE: effect_allocate(c, file_of(c)->node); return;
    default: effect_name(c); return;
    }
}

void sim_file_interrupted(struct sim_call *c)
{
    struct prng *prng = &c->io->sim->prng;
    struct sim_disk *d = c->io->host->disk;

    if (sim_below(prng, 2) || !timer_is_set(&c->timer))
        return;
    switch ((enum sim_kind)c->kind) {
    case SIM_WRITE:
    case SIM_WRITE_SYNC:
        if (c->phase == PHASE_EFFECT && (c->open_flags & IO_WRITE) && c->len && !misaligned(c))
            (void)sim_inode_write(d, file_of(c)->node, c->buf,
                                  1 + (uint32_t)sim_below(prng, c->len), c->offset);
        return;
    case SIM_ALLOCATE:
        if (c->open_flags & IO_WRITE)
            (void)sim_inode_allocate(d, file_of(c)->node, c->offset, c->size);
        return;
    case SIM_UNLINK: (void)unlink_now(c); return;
    case SIM_RENAME: (void)rename_now(c); return;
    case SIM_OPEN: (void)open_now(c); return;
    default: return;
    }
}

/* ---- io.h ---- */

static struct sim_call *start_path(struct io *io, struct io_op *op, enum sim_kind kind,
                                   const char *path, const char *path2, const void *from)
{
    struct sim_call *c = sim_call_start(io, op, kind, from);

    c->path = path;
    c->path2 = path2;
    c->sum = sim_sum(path, strlen(path)) ^ (path2 ? sim_sum(path2, strlen(path2)) << 1 : 0);
    return c;
}

void io_open(struct io *io, struct io_op *op, const char *path, uint32_t open_flags)
{
    struct sim_call *c = start_path(io, op, SIM_OPEN, path, NULL, __builtin_return_address(0));

    c->open_flags = open_flags;
    schedule(c);
}

static void start_data(struct io *io, struct io_op *op, enum sim_kind kind, int32_t fd,
                       const void *buf, uint32_t len, uint64_t offset, const void *from)
{
    struct sim_call *c = sim_call_start_fd(io, op, kind, fd, SIM_FD_FILE, from);

    SIM_CHECK(len <= INT32_MAX, "%s: too long", sim_kind_name(kind));
    op->len = len;
    if (!c)
        return;
    c->open_flags = file_of(c)->open_flags;
    c->buf = (void *)(uintptr_t)buf;
    c->len = len;
    c->offset = offset;
    if (kind != SIM_READ)
        c->sum = sim_sum(buf, len);
    if (file_of(c)->node->is_dir)
        sim_call_end(c, kind == SIM_READ ? -EISDIR : -EBADF);
    else
        schedule(c);
}

void io_read(struct io *io, struct io_op *op, int32_t fd, void *buf, uint32_t len, uint64_t offset)
{
    start_data(io, op, SIM_READ, fd, buf, len, offset, __builtin_return_address(0));
}

void io_write(struct io *io, struct io_op *op, int32_t fd, const void *buf, uint32_t len,
              uint64_t offset)
{
    start_data(io, op, SIM_WRITE, fd, buf, len, offset, __builtin_return_address(0));
}

void io_write_sync(struct io *io, struct io_op *op, int32_t fd, const void *buf, uint32_t len,
                   uint64_t offset)
{
    start_data(io, op, SIM_WRITE_SYNC, fd, buf, len, offset, __builtin_return_address(0));
}

void io_sync(struct io *io, struct io_op *op, int32_t fd)
{
    struct sim_call *c =
        sim_call_start_fd(io, op, SIM_SYNC, fd, SIM_FD_FILE, __builtin_return_address(0));

    if (!c)
        return;
    sync_begin(c, file_of(c)->node);
    schedule(c);
}

void io_allocate(struct io *io, struct io_op *op, int32_t fd, uint64_t offset, uint64_t len)
{
    struct sim_call *c =
        sim_call_start_fd(io, op, SIM_ALLOCATE, fd, SIM_FD_FILE, __builtin_return_address(0));

    if (!c)
        return;
    c->open_flags = file_of(c)->open_flags;
    c->offset = offset;
    c->size = len;
    schedule(c);
}

void io_unlink(struct io *io, struct io_op *op, const char *path)
{
    schedule(start_path(io, op, SIM_UNLINK, path, NULL, __builtin_return_address(0)));
}

void io_rename(struct io *io, struct io_op *op, const char *from, const char *to)
{
    schedule(start_path(io, op, SIM_RENAME, from, to, __builtin_return_address(0)));
}

void io_file_size(struct io *io, struct io_op *op, const char *path)
{
    struct sim_call *c = start_path(io, op, SIM_FILE_SIZE, path, NULL, __builtin_return_address(0));

    op->file.size = 0;
    schedule(c);
}
