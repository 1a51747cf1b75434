/*
 * gateway/io/uring_writer.c - the io_uring backend: a thread that writes and syncs, one batch at a
 * time.
 *
 * Owns:     the thread, its event, numbers of the process for the files it writes.
 * Runs on:  the thread of the io, but writer_main() and what it calls.
 * Contract: the sync begins when the write has ended, whatever the thread of the io does then: as
 *           a linked pair of the ring it would begin only when that thread enters the kernel and
 *           has taken what came before. One job at a time: a second one is for the ring.
 * Failure:  without a thread, an event or a number: false, and the ring does it. Results as of the
 *           ring: the first error, a short write -EIO; no sync behind a write that failed.
 * Bounds:   one thread for each io that writes so, one job.
 * Tests:    tests/unit/test_uring_writer.c, test_uring.c (also under ThreadSanitizer)
 */
#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gateway/io/uring_internal.h"
#include "gateway/limits.h"

enum writer_state {
    WRITER_IDLE,
    WRITER_WORK, /* the job is the thread's */
    WRITER_DONE, /* its result is there */
    WRITER_STOP
};

struct uring_writer {
    _Atomic uint32_t state; /* enum writer_state */
    pthread_t thread;
    int event;
    struct io_op *op;
    int number;
    const uint8_t *buf;
    uint32_t len;
    uint64_t offset;
    int32_t res;
};

/* As struct sched_attr of the kernel, version 0. */
struct writer_sched {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

/*
 * It runs for some microseconds at a time, between waits for the disk: with a short slice it is
 * given the processor at once (Linux 6.12; older ones refuse or ignore it).
 */
static void take_short_slice(void)
{
    struct writer_sched s = {.size = sizeof s};

    if (syscall(SYS_sched_getattr, 0, &s, sizeof s, 0) < 0)
        return;
    s.size = sizeof s;
    s.flags = 0;
    s.runtime_ns = WRITER_SLICE_NS;
    (void)syscall(SYS_sched_setattr, 0, &s, 0);
}

static int32_t write_and_sync(const struct uring_writer *w)
{
    ssize_t n = pwrite(w->number, w->buf, w->len, (off_t)w->offset);

    if (n < 0)
        return -errno;
    if ((uint32_t)n != w->len)
        return -EIO;
    return fdatasync(w->number) < 0 ? -errno : (int32_t)w->len;
}

static void *writer_main(void *arg)
{
    struct uring_writer *w = arg;
    const uint64_t one = 1;

    take_short_slice();
    for (;;) {
        uint32_t state = atomic_load(&w->state);
        if (state == WRITER_STOP)
            return NULL;
        if (state != WRITER_WORK) {
            (void)syscall(SYS_futex, &w->state, FUTEX_WAIT_PRIVATE, state, NULL, NULL, 0);
            continue;
        }
        w->res = write_and_sync(w);
        atomic_store(&w->state, WRITER_DONE);
        if (write(w->event, &one, sizeof one) != (ssize_t)sizeof one)
            abort(); /* whoever waits would wait for ever */
    }
}

static void tell(struct uring_writer *w, enum writer_state state)
{
    atomic_store(&w->state, state);
    (void)syscall(SYS_futex, &w->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void uring_writer_woke(struct io *io)
{
    struct io_uring_sqe *sqe = uring_sqe(io);

    io_uring_prep_read(sqe, io->writer->event, &io->writer_word, sizeof io->writer_word, 0);
    uring_tag(sqe, NULL, URING_WRITER);
}

static struct uring_writer *writer_create(void)
{
    struct uring_writer *w = calloc(1, sizeof *w);

    if (!w)
        return NULL;
    atomic_init(&w->state, WRITER_IDLE);
    w->event = eventfd(0, EFD_CLOEXEC);
    if (w->event >= 0 && pthread_create(&w->thread, NULL, writer_main, w) == 0)
        return w;
    if (w->event >= 0)
        close(w->event);
    free(w);
    return NULL;
}

/* A number of the process for a slot of the ring's table; -1: none. */
static int number_of(struct io *io, int32_t fd)
{
    struct io_uring_sqe *sqe;
    int32_t r;

    if (!io->direct)
        return fd;
    if (io->fds[fd].number)
        return io->fds[fd].number;
    sqe = uring_sqe(io);
    io_uring_prep_rw(URING_OP_FIXED_FD_INSTALL, sqe, fd, NULL, 0, 0);
    sqe->flags |= uring_fd_flag(io);
    r = uring_call(io, sqe);
    if (r <= 0)
        return -1;
    io->fds[fd].number = r;
    return r;
}

bool uring_writer_start(struct io *io, struct io_op *op, int32_t fd, const void *buf, uint32_t len,
                        uint64_t offset)
{
    struct uring_writer *w = io->writer;
    int number;

    if (io->writer_refused || (io->fds[fd].flags & URING_FD_DIR))
        return false;
    if (!w) {
        w = io->writer = writer_create();
        io->writer_refused = !w;
        if (!w)
            return false;
        uring_writer_woke(io);
    }
    if (atomic_load(&w->state) != WRITER_IDLE)
        return false;
    number = number_of(io, fd);
    if (number < 0)
        return false;
    w->op = op;
    w->number = number;
    w->buf = buf;
    w->len = len;
    w->offset = offset;
    tell(w, WRITER_WORK);
    return true;
}

void uring_writer_poll(struct io *io)
{
    struct uring_writer *w = io->writer;

    if (atomic_load(&w->state) != WRITER_DONE)
        return;
    uring_event_add(io, (uintptr_t)w->op | URING_OP, w->res, 0);
    atomic_store(&w->state, WRITER_IDLE);
}

void uring_writer_end(struct io *io)
{
    struct uring_writer *w = io->writer;

    if (!w)
        return;
    assert(atomic_load(&w->state) == WRITER_IDLE);
    tell(w, WRITER_STOP);
    pthread_join(w->thread, NULL);
    close(w->event);
    free(w);
    io->writer = NULL;
}
