/*
 * bench/micro_commit.c - the group commit of a lane on a real file, beside the disk's own write and
 * sync.
 *
 * Owns:     a temporary folder, removed at the end.
 * Runs on:  one thread, and the kernel's workers: CPU time is that of the whole process.
 * Contract: a record is counted when its commit was durable; each batch is one turn of the loop.
 * Failure:  false after a line on stderr.
 * Bounds:   --seconds for all batches together, COMMIT_RECORDS_MAX records each.
 * Tests:    tests/system/test_bench_suite.py (every case runs)
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/micro.h"
#include "bench/net.h"
#include "gateway/limits.h"
#include "queue/queue.h"

#define COMMIT_BYTES       4096u
#define COMMIT_BATCH_MAX   64u
#define COMMIT_RECORDS_MAX 20000u
#define COMMIT_FDS         256u
#define COMMIT_QUEUE       256u

struct commit {
    char folder[512];
    struct io *io;
    struct lane *lane;
    struct commit_tx {
        struct lane_tx tx;
        struct commit *commit;
    } txs[COMMIT_BATCH_MAX];
    uint8_t *body; /* COMMIT_BATCH_MAX records, aligned for direct writes */
    uint64_t open; /* records not durable yet */
    bool opened, closed;
    struct why why;
};

static void tx_done(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    struct commit *c = container_of(tx, struct commit_tx, tx)->commit;
    c->open--;
    if (m != NULL)
        m->owner = c; /* so that it is not due */
    else
        c->why = *why;
}

static void lane_opened(void *arg, struct lane *l, const struct why *why)
{
    struct commit *c = arg;
    (void)l;
    c->opened = true;
    c->why = *why;
}

static void lane_closed(void *arg)
{
    ((struct commit *)arg)->closed = true;
}

static bool open_lane(struct commit *c, enum lane_write_mode mode)
{
    const struct lane_params p = {
        .io = c->io, .spool = c->folder, .mode = mode, .arg = c, .opened = lane_opened};
    c->opened = false;
    c->lane = lane_open(&p);
    while (c->lane != NULL && !c->opened)
        io_turn(c->io, true);
    return c->lane != NULL && c->why.smtp_code == 0;
}

static void close_lane(struct commit *c)
{
    struct queue_msg *m;
    uint64_t cursor = 0;
    while ((m = lane_next(c->lane, &cursor)))
        m->owner = NULL;
    c->closed = false;
    lane_close(c->lane, lane_closed, c);
    while (!c->closed)
        io_turn(c->io, true);
}

/* A batch is appended in one turn and waited for. */
static bool commit_batch(struct commit *c, uint32_t batch)
{
    struct envelope_rcpt to = {.mailbox = SLICE_LIT("user@example.com")};
    const struct envelope env = {.sender = SLICE_LIT("bench@sender.test"),
                                 .client = SLICE_LIT("127.0.0.1"),
                                 .helo = SLICE_LIT("client.test"),
                                 .connector = SLICE_LIT("relay"),
                                 .accepted_wall_ns = io_wall_ns(c->io),
                                 .rcpts = &to,
                                 .rcpt_count = 1};
    for (uint32_t i = 0; i < batch; i++) {
        struct lane_tx *tx = &c->txs[i].tx;
        *tx = (struct lane_tx){.done = tx_done};
        c->txs[i].commit = c;
        if (!lane_tx_begin(c->lane, tx, &c->why))
            return false;
        c->open++;
        if (lane_tx_append(tx, slice_of(c->body, COMMIT_BYTES)) != LANE_APPEND_OK)
            return false;
        lane_tx_commit(tx, &env, NULL, NULL, 0);
    }
    while (c->open > 0) {
        lane_turn_end(c->lane);
        io_turn(c->io, true);
    }
    return c->why.smtp_code == 0;
}

static bool measure_lane(struct commit *c, uint32_t batch, double seconds,
                         struct micro_commit_result *r)
{
    uint64_t begun = bench_clock_ns(), now, records = 0;
    double cpu = bench_cpu_self_seconds();
    do {
        if (!commit_batch(c, batch))
            return false;
        records += batch;
        now = bench_clock_ns();
    } while ((double)(now - begun) < seconds * 1e9 && records < COMMIT_RECORDS_MAX);
    r->ns = (double)(now - begun) / (double)records;
    r->cpu_ns = (bench_cpu_self_seconds() - cpu) * 1e9 / (double)records;
    return true;
}

/* The same bytes in one write and one sync each time, nothing else: the limit. */
static bool measure_disk(struct commit *c, uint32_t batch, double seconds,
                         struct micro_commit_result *r)
{
    char path[600];
    size_t size = (size_t)batch * COMMIT_BYTES;
    uint64_t records = 0, most = COMMIT_RECORDS_MAX;
    snprintf(path, sizeof(path), "%s/disk", c->folder);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_DIRECT, 0600);
    if (fd < 0) /* not every file system takes direct writes */
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    (void)!fallocate(fd, 0, 0, (off_t)(most + batch) * COMMIT_BYTES);
    bool good = fsync(fd) == 0;
    uint64_t begun = bench_clock_ns(), now = begun;
    while (good && (double)(now - begun) < seconds * 1e9 && records < most) {
        good = pwrite(fd, c->body, size, (off_t)(records * COMMIT_BYTES)) == (ssize_t)size &&
               fdatasync(fd) == 0;
        records += batch;
        now = bench_clock_ns();
    }
    r->disk_ns = (double)(now - begun) / (double)records;
    close(fd);
    unlink(path);
    return good;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info, (void)kind, (void)at;
    return remove(path);
}

static bool measure_all(struct commit *c, double seconds, struct micro_commit_result *results)
{
    const struct io_params params = {
        .fd_count_max = COMMIT_FDS, .queue_depth = COMMIT_QUEUE, .cpu = -1};
    int lock = -1;
    c->io = io_create(&params, &c->why);
    if (c->io == NULL || !spool_lock(c->io, c->folder, &lock, &c->why))
        return false;
    bool opened = open_lane(c, LANE_WRITE_DIRECT) || open_lane(c, LANE_WRITE_BUFFERED);
    bool good = opened;
    double each = seconds / (2 * MICRO_COMMITS);
    for (uint32_t i = 0; i < MICRO_COMMITS && good; i++)
        good = measure_lane(c, results[i].batch, each, &results[i]) &&
               measure_disk(c, results[i].batch, each, &results[i]);
    if (opened && c->open == 0)
        close_lane(c);
    io_unlock(c->io, lock);
    if (good)
        io_destroy(c->io);
    return good;
}

bool micro_commit(const char *dir, double seconds, struct micro_commit_result *results)
{
    struct commit *c = calloc(1, sizeof(*c));
    bool good = c != NULL;
    if (good && snprintf(c->folder, sizeof(c->folder), "%s/hikyaku-micro-XXXXXX", dir) >=
                    (int)sizeof(c->folder))
        good = false;
    good = good && mkdtemp(c->folder) != NULL;
    if (!good) {
        fprintf(stderr, "hikyaku-bench micro: --dir %s: %s\n", dir, strerror(errno));
        free(c);
        return false;
    }
    c->body = aligned_alloc(COMMIT_BYTES, (size_t)COMMIT_BATCH_MAX * COMMIT_BYTES);
    if (c->body != NULL)
        memset(c->body, 'x', (size_t)COMMIT_BATCH_MAX * COMMIT_BYTES);
    good = c->body != NULL && measure_all(c, seconds, results);
    if (!good)
        fprintf(stderr, "hikyaku-bench micro: commit in %s: %s\n", dir, c->why.text);
    nftw(c->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(c->body);
    free(c);
    return good;
}
