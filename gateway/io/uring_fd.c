/*
 * gateway/io/uring_fd.c - the io_uring backend: descriptors.
 *
 * Owns:     the table of descriptors: what is open, and how many operations name it.
 * Runs on:  the thread of the io.
 * Contract: a descriptor that is closed while operations name it is given back to the kernel when
 *           the last of them has completed; a listener at once, others with the next turn.
 *           Descriptors are slots of the ring's table, or numbers of the process on kernels where a
 *           slot does not close at once (uring_internal.h).
 * Failure:  past fd_limit: -ENFILE. Closing one that is not open, or whose receive or send
 *           goes on without having been cancelled: asserted.
 * Bounds:   fd_limit descriptors; numbers of the process below FD_NUMBER_MAX.
 * Tests:    tests/unit/test_uring.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gateway/io/uring_internal.h"

#define FD_NUMBER_MAX (1u << 20)

/* Raises the soft limit to what is wanted, if the hard limit allows it. Returns what holds now. */
static uint32_t raise_limit(uint32_t wanted)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return wanted;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur < wanted ? (uint32_t)limit.rlim_cur : wanted;
}

bool uring_fd_create(struct io *io, const struct io_params *params, struct why *why)
{
    uint32_t count = params->fd_count_max;
    int r;

    assert(count > 0);
    io->direct = !params->plain_fds && (io->features & URING_FEAT_RW_ATTR) != 0;
    if (io->direct) {
        /* The kernel allows a table no larger than RLIMIT_NOFILE. */
        io->fd_count = io->fd_limit = raise_limit(count);
        r = io_uring_register_files_sparse(&io->ring, io->fd_count);
        if (r < 0) {
            why_set(why, 0, "", "cannot have %u descriptors: %s (LimitNOFILE=, ulimit -n)",
                    io->fd_count, strerror(-r));
            return false;
        }
    } else {
        /* Numbers are shared by all threads, so any of them may turn up here. */
        io->fd_count = raise_limit(FD_NUMBER_MAX);
        io->fd_limit = count < io->fd_count ? count : io->fd_count;
    }
    io->stats.fd_count_max = io->fd_limit;
    io->stats.fd_shared = !io->direct;
    io->fds = calloc(io->fd_count, sizeof *io->fds);
    return io->fds != NULL;
}

int32_t uring_fd_adopt(struct io *io, int32_t fd, uint32_t flags)
{
    assert(fd >= 0);
    if (!io->direct && (io->fd_used >= io->fd_limit || (uint32_t)fd >= io->fd_count)) {
        close(fd);
        return -ENFILE;
    }
    assert((uint32_t)fd < io->fd_count);
    assert(io->fds[fd].flags == 0 && io->fds[fd].busy == 0);
    io->fds[fd].flags = URING_FD_OPEN | flags;
    io->fd_used++;
    return fd;
}

void uring_fd_hold(struct io *io, int32_t fd)
{
    assert(fd >= 0 && (uint32_t)fd < io->fd_count && (io->fds[fd].flags & URING_FD_OPEN));
    io->fds[fd].busy++;
}

static void fd_give_back(struct io *io, int32_t fd)
{
    struct io_uring_sqe *sqe;
    bool listener = io->fds[fd].flags & URING_FD_LISTENER;

    if (listener || io->fds[fd].number)
        close(io->fds[fd].number);
    io->fds[fd] = (struct uring_fd){0};
    io->fd_used--;
    if (listener && !io->direct)
        return;
    sqe = uring_sqe(io);
    if (io->direct)
        io_uring_prep_close_direct(sqe, (unsigned)fd);
    else
        io_uring_prep_close(sqe, fd);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = (uint64_t)fd << 3 | URING_CLOSE;
}

void uring_fd_release(struct io *io, int32_t fd)
{
    assert(io->fds[fd].busy > 0);
    if (--io->fds[fd].busy == 0 && (io->fds[fd].flags & URING_FD_CLOSING))
        fd_give_back(io, fd);
}

void io_close(struct io *io, int32_t fd)
{
    assert(fd >= 0 && (uint32_t)fd < io->fd_count);
    assert((io->fds[fd].flags & (URING_FD_OPEN | URING_FD_CLOSING)) == URING_FD_OPEN);
    /* One that goes on would keep the descriptor, and its connection, for ever. */
    assert(!(io->fds[fd].flags & URING_FD_RECEIVING) || (io->fds[fd].flags & URING_FD_RECV_CUT));
    assert(!(io->fds[fd].flags & URING_FD_SENDING) || (io->fds[fd].flags & URING_FD_SEND_CUT));
    io->fds[fd].flags |= URING_FD_CLOSING;
    if (io->fds[fd].busy == 0)
        fd_give_back(io, fd);
}
