/*
 * gateway/io/uring_file.c - the io_uring backend: files.
 *
 * Owns:     the statx buffers of io_file_size.
 * Runs on:  the thread of the io; what would block runs on the kernel's own workers.
 * Contract: see io.h. io_write_sync goes to the writer (uring_writer.c), or is a write linked to a
 *           sync: two completions of the kernel, one of the owner.
 * Failure:  results of the kernel. A short write breaks the link, so the sync did not happen: -EIO.
 * Bounds:   URING_STATX_MAX sizes asked for at once.
 * Tests:    tests/unit/test_uring.c
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "gateway/io/uring_internal.h"

#define FILE_MODE 0600

/* After the prep functions of liburing: they clear the flags. */
static void on_fd(const struct io *io, struct io_uring_sqe *sqe, const struct io_op *op)
{
    sqe->flags |= uring_fd_flag(io);
    uring_tag(sqe, op, URING_OP);
}

static int open_mode(uint32_t flags)
{
    int mode = (flags & IO_WRITE) ? ((flags & IO_READ) ? O_RDWR : O_WRONLY) : O_RDONLY;

    mode |= (flags & IO_CREATE) ? O_CREAT : 0;
    mode |= (flags & IO_EXCL) ? O_EXCL : 0;
    mode |= (flags & IO_DIRECT) ? O_DIRECT : 0;
    mode |= (flags & IO_DSYNC) ? O_DSYNC : 0;
    mode |= (flags & IO_DIR) ? O_DIRECTORY : 0;
    mode |= (flags & IO_TRUNC) ? O_TRUNC : 0;
    return mode;
}

void io_open(struct io *io, struct io_op *op, const char *path, uint32_t open_flags)
{
    struct io_uring_sqe *sqe;

    uring_op_start(io, op, URING_OPEN);
    op->len =
        ((open_flags & IO_DIR) ? URING_FD_DIR : 0) | ((open_flags & IO_DSYNC) ? URING_FD_DSYNC : 0);
    sqe = uring_sqe(io);
    /* A slot is closed with its ring; O_CLOEXEC would be refused. */
    io_uring_prep_openat(sqe, AT_FDCWD, path, open_mode(open_flags) | (io->direct ? 0 : O_CLOEXEC),
                         FILE_MODE);
    sqe->file_index = io->direct ? IORING_FILE_INDEX_ALLOC : 0;
    uring_tag(sqe, op, URING_OP);
}

void io_read(struct io *io, struct io_op *op, int32_t fd, void *buf, uint32_t len, uint64_t offset)
{
    struct io_uring_sqe *sqe;

    if (!uring_op_start_fd(io, op, URING_READ, fd))
        return;
    sqe = uring_sqe(io);
    io_uring_prep_read(sqe, fd, buf, len, offset);
    on_fd(io, sqe, op);
}

void io_write(struct io *io, struct io_op *op, int32_t fd, const void *buf, uint32_t len,
              uint64_t offset)
{
    struct io_uring_sqe *sqe;

    if (!uring_op_start_fd(io, op, URING_WRITE, fd))
        return;
    sqe = uring_sqe(io);
    io_uring_prep_write(sqe, fd, buf, len, offset);
    on_fd(io, sqe, op);
}

/* fdatasync is not promised to cover the entries of a directory. */
static unsigned sync_flags(const struct io *io, int32_t fd)
{
    return (io->fds[fd].flags & URING_FD_DIR) ? 0 : IORING_FSYNC_DATASYNC;
}

void io_sync(struct io *io, struct io_op *op, int32_t fd)
{
    struct io_uring_sqe *sqe;

    if (!uring_op_start_fd(io, op, URING_SYNC, fd))
        return;
    sqe = uring_sqe(io);
    io_uring_prep_fsync(sqe, fd, sync_flags(io, fd));
    on_fd(io, sqe, op);
}

void io_write_sync(struct io *io, struct io_op *op, int32_t fd, const void *buf, uint32_t len,
                   uint64_t offset)
{
    struct io_uring_sqe *write, *sync;

    assert(len <= INT32_MAX);
    if (!uring_op_start_fd(io, op, URING_WRITE_SYNC, fd)) {
        op->flags |= URING_HALF_DONE;
        return;
    }
    op->len = len;
    if (io->fds[fd].flags & URING_FD_DSYNC) {
        op->flags |= URING_HALF_DONE;
        write = uring_sqe(io);
        io_uring_prep_write(write, fd, buf, len, offset);
        on_fd(io, write, op);
        op->sent = 1; /* the only completion is the write's */
        return;
    }
    if (uring_writer_start(io, op, fd, buf, len, offset)) {
        op->flags |= URING_HALF_DONE;
        op->sent = 1;
        return;
    }
    uring_sqe_pair(io, &write, &sync);
    io_uring_prep_write(write, fd, buf, len, offset);
    write->flags |= uring_fd_flag(io) | IOSQE_IO_LINK;
    uring_tag(write, op, URING_OP_FIRST);
    io_uring_prep_fsync(sync, fd, sync_flags(io, fd));
    on_fd(io, sync, op);
}

/* Collects both results in op->res: 0 while all is well, or the first error. */
static void write_sync_next(struct io *io, struct io_op *op, int32_t res, bool write)
{
    if (write && res >= 0 && (uint32_t)res != op->len)
        res = -EIO;
    /* The write's error counts; a sync cancelled because of it tells nothing. */
    if (res < 0 && (write || op->res == 0))
        op->res = res;
    if (!(op->flags & URING_HALF_DONE)) {
        op->flags |= URING_HALF_DONE;
        return;
    }
    uring_op_end(io, op, op->res < 0 ? op->res : (int32_t)op->len);
}

void io_allocate(struct io *io, struct io_op *op, int32_t fd, uint64_t offset, uint64_t len)
{
    struct io_uring_sqe *sqe;

    if (!uring_op_start_fd(io, op, URING_ALLOCATE, fd))
        return;
    sqe = uring_sqe(io);
    io_uring_prep_fallocate(sqe, fd, 0, (off_t)offset, (off_t)len);
    on_fd(io, sqe, op);
}

void io_unlink(struct io *io, struct io_op *op, const char *path)
{
    struct io_uring_sqe *sqe;

    uring_op_start(io, op, URING_UNLINK);
    sqe = uring_sqe(io);
    io_uring_prep_unlinkat(sqe, AT_FDCWD, path, 0);
    uring_tag(sqe, op, URING_OP);
}

void io_rename(struct io *io, struct io_op *op, const char *from, const char *to)
{
    struct io_uring_sqe *sqe;

    uring_op_start(io, op, URING_RENAME);
    sqe = uring_sqe(io);
    io_uring_prep_renameat(sqe, AT_FDCWD, from, AT_FDCWD, to, 0);
    uring_tag(sqe, op, URING_OP);
}

void io_file_size(struct io *io, struct io_op *op, const char *path)
{
    struct io_uring_sqe *sqe;

    uring_op_start(io, op, URING_FILE_SIZE);
    op->file.size = 0;
    op->ptr = slab_alloc(&io->statx);
    if (!op->ptr) {
        uring_op_fail(io, op, -ENOMEM);
        return;
    }
    sqe = uring_sqe(io);
    io_uring_prep_statx(sqe, AT_FDCWD, path, 0, STATX_SIZE, op->ptr);
    uring_tag(sqe, op, URING_OP);
}

void uring_file_next(struct io *io, struct io_op *op, int32_t res, bool first)
{
    switch ((enum uring_kind)op->kind) {
    case URING_OPEN:
        if (res >= 0)
            res = uring_fd_adopt(io, res, op->len);
        break;
    case URING_WRITE_SYNC: write_sync_next(io, op, res, first || op->sent); return;
    case URING_FILE_SIZE:
        if (op->ptr) {
            if (res >= 0)
                op->file.size = ((struct statx *)op->ptr)->stx_size;
            slab_free(&io->statx, op->ptr);
            op->ptr = NULL;
        }
        break;
    default: break;
    }
    uring_op_end(io, op, res);
}
