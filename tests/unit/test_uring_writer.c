/*
 * tests/unit/test_uring_writer.c - io_write_sync of the io_uring backend: by its thread, and by the
 * ring where the thread or what it needs is not to be had. Linked with --wrap of what each of the
 * two does (Makefile).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "gateway/io/uring_internal.h"
#include "tests/io/conform_kit.h"
#include "tests/unit/soft_limit.h"

enum lacking { LACKS_NOTHING, LACKS_THREAD, LACKS_EVENT, LACKS_NUMBER };

static enum lacking lacking;
static bool plain_fds;
static atomic_uint thread_syncs;
static int32_t pair[2]; /* what the ring said of a write and of the sync linked to it */
static uint32_t pair_count;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __real_eventfd(unsigned value, int flags);
int __wrap_eventfd(unsigned value, int flags);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
void __real_uring_file_next(struct io *io, struct io_op *op, int32_t res, bool first);
void __wrap_uring_file_next(struct io *io, struct io_op *op, int32_t res, bool first);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    return lacking == LACKS_THREAD ? EAGAIN : __real_pthread_create(thread, attr, run, arg);
}

int __wrap_eventfd(unsigned value, int flags)
{
    errno = EMFILE;
    return lacking == LACKS_EVENT ? -1 : __real_eventfd(value, flags);
}

int __wrap_fdatasync(int fd)
{
    atomic_fetch_add(&thread_syncs, 1);
    return __real_fdatasync(fd);
}

void __wrap_uring_file_next(struct io *io, struct io_op *op, int32_t res, bool first)
{
    if (op->kind == URING_WRITE_SYNC && !op->sent) {
        pair[!first] = res;
        pair_count++;
    }
    __real_uring_file_next(io, op, res, first);
}

static struct io *create(const struct io_params *params)
{
    struct io_params p = *params;
    struct why why = {0};
    struct io *io;

    p.plain_fds = plain_fds;
    io = io_create(&p, &why);
    cr_assert_not_null(io, "%s", why.text);
    return io;
}

static void turn(struct io *io)
{
    io_turn(io, true);
}

static struct conform here(char *dir)
{
    cr_assert_not_null(mkdtemp(dir));
    return (struct conform){.create = create, .destroy = io_destroy, .turn = turn, .dir = dir};
}

/* One write and its sync, whoever does it: the result, and whether a sync ran. */
static int32_t write_sync(struct kit *k, int32_t fd, uint32_t len, uint64_t offset, bool *synced)
{
    static uint8_t data[3 * 4096];
    struct kit_op o;
    int32_t res;

    kit_fill(data, sizeof data, 0);
    kit_op_init(k, &o);
    atomic_store(&thread_syncs, 0);
    pair[0] = pair[1] = 1;
    pair_count = 0;
    START(k, io_write_sync(k->io, &o.op, fd, data, len, offset));
    res = kit_wait(&o);
    if (lacking == LACKS_NOTHING) {
        cr_assert_eq(pair_count, 0, "the ring has no part in it");
        *synced = atomic_load(&thread_syncs) == 1;
    } else {
        cr_assert_eq(pair_count, 2, "the ring writes and syncs");
        cr_assert_eq(atomic_load(&thread_syncs), 0);
        cr_assert(pair[1] == 0 || pair[1] == -ECANCELED, "%d", pair[1]);
        *synced = pair[1] == 0;
    }
    return res;
}

/* What fits, what fits in part, what fits no more; and as before when there is room again. */
static void with_a_limit(struct kit *k, int32_t fd)
{
    enum { LEN = 3 * 4096, ROOM = LEN + 100 };
    rlim_t before;
    bool synced;

    cr_assert_eq(write_sync(k, fd, LEN, 0, &synced), LEN);
    cr_assert(synced);
    before = soft_limit(RLIMIT_FSIZE, ROOM);
    cr_assert_eq(write_sync(k, fd, LEN, LEN, &synced), -EIO, "a short write");
    cr_assert_not(synced, "no sync behind a write that failed");
    cr_assert_eq(write_sync(k, fd, LEN, ROOM, &synced), -EFBIG);
    cr_assert_not(synced, "no sync behind a write that failed");
    soft_limit(RLIMIT_FSIZE, before);
    cr_assert_eq(write_sync(k, fd, LEN, LEN, &synced), LEN);
    cr_assert(synced);
}

static void lacks(enum lacking what, bool plain)
{
    char dir[] = "/tmp/hikyaku-writer-XXXXXX", first[256], path[256];
    struct conform c = here(dir);
    rlim_t before = 0;
    struct kit_op o;
    struct kit k;
    int32_t fd, other;

    plain_fds = plain;
    signal(SIGXFSZ, SIG_IGN);
    kit_open(&k, &c, 0, 0);
    other = kit_open_file(&k, kit_path(&k, "first", first), IO_WRITE | IO_CREATE);
    if (what == LACKS_NUMBER) { /* the thread is there, and needs a number for each file */
        kit_op_init(&k, &o);
        START(&k, io_write_sync(k.io, &o.op, other, "x", 1, 0));
        cr_assert_eq(kit_wait(&o), 1);
        before = soft_limit(RLIMIT_NOFILE, 0);
    }
    lacking = what;
    fd = kit_open_file(&k, kit_path(&k, "file", path), IO_WRITE | IO_CREATE);
    cr_assert_geq(fd, 0);
    if (what != LACKS_NUMBER || k.io->direct)
        with_a_limit(&k, fd);
    if (what == LACKS_NUMBER)
        soft_limit(RLIMIT_NOFILE, before);
    lacking = LACKS_NOTHING;
    io_close(k.io, other);
    io_close(k.io, fd);
    kit_close(&k);
    cr_assert_eq(unlink(first), 0);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rmdir(dir), 0);
}

Test(uring_writer, a_thread_writes_and_syncs, .timeout = 30)
{
    lacks(LACKS_NOTHING, true);
}

Test(uring_writer, without_a_thread_the_ring_does, .timeout = 30)
{
    lacks(LACKS_THREAD, false);
    lacks(LACKS_THREAD, true);
}

Test(uring_writer, without_an_event_the_ring_does, .timeout = 30)
{
    lacks(LACKS_EVENT, false);
    lacks(LACKS_EVENT, true);
}

/* Only slots of the ring's table need one; a kernel may have none of these. */
Test(uring_writer, without_a_number_the_ring_does, .timeout = 30)
{
    lacks(LACKS_NUMBER, false);
}

Test(uring_writer, the_ring_keeps_the_contract, .timeout = 60)
{
    char dir[] = "/tmp/hikyaku-writer-XXXXXX", path[256];
    struct conform c = here(dir);

    for (lacking = LACKS_THREAD; lacking <= LACKS_EVENT; lacking++)
        for (int plain = 0; plain < 2; plain++) {
            plain_fds = plain;
            conform_file_write_sync(&c);
        }
    lacking = LACKS_NOTHING;
    snprintf(path, sizeof path, "%s/file", dir);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rmdir(dir), 0);
}
