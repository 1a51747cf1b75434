/*
 * bench/cmd_disk.c - the disk command: what an append and a sync cost, the floor of a spool.
 *
 * Owns:     one file in --dir, removed at the end.
 * Runs on:  one thread.
 * Contract: each figure is for records of 4 KiB, a batch of them in one write and one sync;
 *           "io_uring" is the gateway's own way there, io_write_sync and a turn of its loop. With
 *           --rate single records are due at that rate, and a time counts from when one was due:
 *           what stops the whole machine for a moment is seen by all that were due then.
 * Failure:  exit 1 with the call that failed; a way this file system refuses (O_DIRECT) is skipped.
 * Bounds:   --seconds for each of the cases, --file-size on disk.
 * Tests:    tests/system/test_bench.py
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/hist.h"
#include "bench/limits.h"
#include "bench/net.h"
#include "bench/opts.h"
#include "gateway/io/io.h"

#define DISK_RECORD    4096u
#define DISK_BATCH_MAX 64u
#define NS_A_SECOND    1000000000ull

struct disk_way {
    const char *name;
    int flags;        /* of open, beside O_RDWR */
    bool preallocate; /* and write before, so that a sync moves no metadata */
    bool sync;        /* fdatasync after each write */
    bool by_ring;     /* through gateway/io/io.h; then flags is O_DIRECT or 0 */
};

static const struct disk_way ways[] = {
    {"growing file, fdatasync", 0, false, true, false},
    {"preallocated, fdatasync", 0, true, true, false},
    {"preallocated, O_DIRECT|O_DSYNC", O_DIRECT | O_DSYNC, true, false, false},
    {"preallocated, io_uring", 0, true, true, true},
    {"preallocated, io_uring, O_DIRECT", O_DIRECT, true, true, true},
};
static const unsigned batches[] = {1, 16, 64};

struct disk {
    char path[4200];
    uint64_t file_size, seconds, rate;
    bool json, first;
    char *data;
    struct io *io;
    struct ring_op {
        struct io_op op;
        bool over;
        int32_t res;
    } op;
};

static bool fail(const struct disk *d, const char *call)
{
    fprintf(stderr, "hikyaku-bench disk: %s %s: %s\n", call, d->path, strerror(errno));
    return false;
}

static void ring_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct ring_op *o = (struct ring_op *)op;
    (void)flags;
    o->over = true;
    o->res = res;
}

static int32_t ring_wait(struct disk *d)
{
    for (d->op.over = false; !d->op.over;)
        io_turn(d->io, true);
    if (d->op.res < 0)
        errno = -d->op.res;
    return d->op.res;
}

static int way_open(struct disk *d, const struct disk_way *way)
{
    if (!way->by_ring)
        return open(d->path, O_RDWR | O_CLOEXEC | way->flags);
    d->op.op.done = ring_done;
    io_open(d->io, &d->op.op, d->path, IO_WRITE | (way->flags & O_DIRECT ? IO_DIRECT : 0));
    return ring_wait(d);
}

static void way_close(struct disk *d, const struct disk_way *way, int fd)
{
    if (way->by_ring)
        io_close(d->io, fd);
    else
        close(fd);
}

static bool way_write(struct disk *d, const struct disk_way *way, int fd, size_t count, uint64_t at)
{
    if (way->by_ring) {
        io_write_sync(d->io, &d->op.op, fd, d->data, (uint32_t)count, at);
        return ring_wait(d) == (int32_t)count || fail(d, "write");
    }
    if (pwrite(fd, d->data, count, (off_t)at) != (ssize_t)count)
        return fail(d, "write");
    return !way->sync || fdatasync(fd) == 0 || fail(d, "fdatasync");
}

static bool fill(const struct disk *d, int fd)
{
    if (fallocate(fd, 0, 0, (off_t)d->file_size) != 0 && errno != EOPNOTSUPP)
        return fail(d, "fallocate");
    for (uint64_t at = 0; at < d->file_size; at += DISK_RECORD * DISK_BATCH_MAX) {
        if (pwrite(fd, d->data, DISK_RECORD * DISK_BATCH_MAX, (off_t)at) < 0)
            return fail(d, "write");
    }
    return fsync(fd) == 0 || fail(d, "fsync");
}

static void print_case(struct disk *d, const struct disk_way *way, unsigned batch,
                       const struct bench_hist *h, double seconds)
{
    double syncs = (double)h->count / seconds;
    double p50 = (double)bench_hist_quantile(h, 0.5) / 1e3;
    double p99 = (double)bench_hist_quantile(h, 0.99) / 1e3;
    if (d->json)
        printf("%s{\"way\":\"%s\",\"batch\":%u,\"syncs_per_second\":%.1f"
               ",\"appends_per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}",
               d->first ? "[" : ",", way->name, batch, syncs, syncs * batch, p50, p99,
               (double)h->max / 1e3);
    else
        printf("%-32s %3u x 4 KiB  %8.0f syncs/s  %9.0f appends/s  %7.1f MB/s  p50 %.0f us  "
               "p99 %.0f us  max %.0f us\n",
               way->name, batch, syncs, syncs * batch, syncs * batch * DISK_RECORD / 1e6, p50, p99,
               (double)h->max / 1e3);
    d->first = false;
    fflush(stdout);
}

/* Waits until the next append is due, at once or as --rate says; its time, of bench_clock_ns. */
static uint64_t due(const struct disk *d, uint64_t begun, uint64_t done, uint64_t now)
{
    uint64_t at = d->rate ? begun + done * NS_A_SECOND / d->rate : now;
    const struct timespec t = {(time_t)(at / NS_A_SECOND), (long)(at % NS_A_SECOND)};

    if (at > now)
        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    return at;
}

static bool write_case(struct disk *d, const struct disk_way *way, unsigned batch, int fd)
{
    struct bench_hist h;
    size_t count = (size_t)batch * DISK_RECORD;
    uint64_t at = 0, begun = bench_clock_ns(), now = begun, end = begun + d->seconds * NS_A_SECOND;
    bench_hist_init(&h);
    while (now < end && !bench_stop_requested) {
        uint64_t from = due(d, begun, h.count, now);
        if (!way_write(d, way, fd, count, at))
            return false;
        now = bench_clock_ns();
        bench_hist_record(&h, now - from);
        at += count;
        if (at + count > d->file_size) {
            at = 0;
            if (!way->preallocate && ftruncate(fd, 0) != 0)
                return fail(d, "ftruncate");
        }
    }
    print_case(d, way, batch, &h, (double)(now - begun) / 1e9);
    return true;
}

static bool run_way(struct disk *d, const struct disk_way *way)
{
    size_t cases = d->rate ? 1 : sizeof(batches) / sizeof(batches[0]);

    for (size_t i = 0; i < cases && !bench_stop_requested; i++) {
        int fd = open(d->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
            return fail(d, "open");
        bool good = !way->preallocate || fill(d, fd);
        close(fd);
        if (!good)
            return false;
        fd = way_open(d, way);
        if (fd < 0 && errno == EINVAL) {
            fprintf(stderr, "hikyaku-bench disk: %s: not possible here, skipped\n", way->name);
            return true;
        }
        if (fd < 0)
            return fail(d, "open");
        good = write_case(d, way, batches[i], fd);
        way_close(d, way, fd);
        if (!good)
            return false;
    }
    return true;
}

int bench_cmd_disk(int argc, char **argv)
{
    struct disk d = {.file_size = 64u << 20, .seconds = 1, .first = true};
    const char *dir = NULL;
    const struct bench_opt opts[] = {
        {"--dir", "DIR", BENCH_OPT_STRING, &dir, 0, 0, NULL, "on the disk to measure"},
        {"--seconds", "N", BENCH_OPT_COUNT, &d.seconds, 1, 600, NULL, "for each of 15 cases (1)"},
        {"--rate", "N", BENCH_OPT_COUNT, &d.rate, 1, 1000000, NULL,
         "single records, due so many times a second"},
        {"--file-size", "BYTES", BENCH_OPT_SIZE, &d.file_size, 1u << 20, 1ull << 40, NULL,
         "of the test file (64MiB)"},
        {"--json", NULL, BENCH_OPT_FLAG, &d.json, 0, 0, NULL, "a JSON array on stdout"},
    };
    const struct bench_opt_table table = {
        "disk",
        "Appends of 4 KiB records in batches of 1, 16 and 64, each batch one write and one sync.",
        opts, sizeof(opts) / sizeof(opts[0])};
    int status = bench_opts_parse(&table, argc, argv);
    if (status >= 0)
        return status;
    if (dir == NULL || strlen(dir) > 4096)
        return bench_opts_error(&table, "--dir DIR is needed");
    snprintf(d.path, sizeof(d.path), "%s/hikyaku-bench-disk.%ld", dir, (long)getpid());
    d.file_size -= d.file_size % (DISK_RECORD * DISK_BATCH_MAX);
    d.data = aligned_alloc(4096, (size_t)DISK_RECORD * DISK_BATCH_MAX);
    if (d.data == NULL)
        return BENCH_EXIT_FAILED;
    memset(d.data, 'x', (size_t)DISK_RECORD * DISK_BATCH_MAX);
    bench_stop_install();
    const struct io_params params = {.fd_count_max = 16, .cpu = -1};
    struct why why = {0};
    d.io = io_create(&params, &why);
    if (!d.io)
        fprintf(stderr, "hikyaku-bench disk: %s\n", why.text);
    bool good = d.io != NULL;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]) && good; i++)
        good = run_way(&d, &ways[i]);
    if (d.json && !d.first)
        printf("]\n");
    unlink(d.path);
    if (d.io)
        io_destroy(d.io);
    free(d.data);
    return good ? BENCH_EXIT_OK : BENCH_EXIT_FAILED;
}
