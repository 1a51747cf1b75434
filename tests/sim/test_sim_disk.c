/*
 * tests/sim/test_sim_disk.c - the simulated disk: what a sync keeps, and what a power cut may take.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "tests/sim/sim_internal.h"

#define SECTOR 512u

/* One machine, one thread; operations that wait. */
struct box {
    struct sim *sim;
    struct sim_host *host;
    struct io *io;
    struct io_op op;
    int32_t res;
};

static struct box *waiting; /* whose operation is under way: there is one test in a process */

static void on_done(struct io_op *op, int32_t res, uint32_t flags)
{
    (void)flags;
    cr_assert_eq(op, &waiting->op);
    waiting->res = res;
}

static void box_boot(struct box *b)
{
    struct io_params params = {.fd_count_max = 64, .cpu = -1};
    struct why why;

    sim_host_enter(b->host);
    b->io = io_create(&params, &why);
    b->op = (struct io_op){.done = on_done};
}

static void box_open(struct box *b, uint64_t seed)
{
    *b = (struct box){.sim = sim_create(seed)};
    b->host = sim_host_add(b->sim, "box", "10.0.0.1");
    waiting = b;
    box_boot(b);
}

/* Runs to its end, or until the machine stops. */
static int32_t box_wait(struct box *b)
{
    b->res = -EINPROGRESS;
    while (io_op_running(&b->op) && !sim_host_stopped(b->host))
        io_turn(b->io, true);
    return b->res;
}

#define RUN(b, call, ...)                     \
    ({                                        \
        call((b)->io, &(b)->op, __VA_ARGS__); \
        box_wait(b);                          \
    })

static void cut(struct box *b)
{
    sim_host_power_cut(b->host);
    box_boot(b);
}

static void fill(uint8_t *data, uint32_t len, uint8_t with)
{
    memset(data, with, len);
}

static int32_t open_file(struct box *b, const char *path, uint32_t flags)
{
    int32_t fd = RUN(b, io_open, path, flags);

    cr_assert(fd >= 0, "%s: %d", path, fd);
    return fd;
}

static void sync_root(struct box *b)
{
    int32_t fd = open_file(b, "/", IO_READ | IO_DIR);

    cr_assert_eq(RUN(b, io_sync, fd), 0);
    io_close(b->io, fd);
}

/* A file of `len` bytes `with`, durable. */
static int32_t durable_file(struct box *b, const char *path, uint32_t len, uint8_t with)
{
    static uint8_t data[1 << 16];
    int32_t fd = open_file(b, path, IO_READ | IO_WRITE | IO_CREATE);

    fill(data, len, with);
    cr_assert_eq(RUN(b, io_write_sync, fd, data, len, 0), (int32_t)len);
    sync_root(b);
    return fd;
}

static int64_t look(struct box *b, const char *path, uint8_t *out, uint32_t len)
{
    return sim_host_disk_read(b->host, path, out, len, 0);
}

/* ---- syncs ---- */

Test(sim_disk, what_was_synced_stays)
{
    uint8_t got[10000];
    struct box b;

    for (uint64_t seed = 0; seed < 100; seed++) {
        box_open(&b, seed);
        durable_file(&b, "/a", 9999, 'x');
        for (int i = 0; i < 3; i++) {
            cut(&b);
            cr_assert_eq(look(&b, "/a", got, sizeof got), 9999);
            for (int j = 0; j < 9999; j++)
                cr_assert_eq(got[j], 'x');
        }
        sim_destroy(b.sim);
    }
}

Test(sim_disk, a_cut_keeps_drops_and_tears_sectors)
{
    static uint8_t data[8 * SECTOR], got[8 * SECTOR];
    uint32_t kept = 0, dropped = 0, torn = 0, all = 0, none = 0;
    struct box b;

    for (uint64_t seed = 0; seed < 300; seed++) {
        uint32_t here = 0;
        int32_t fd;
        box_open(&b, seed);
        fd = durable_file(&b, "/a", sizeof data, 'o');
        fill(data, sizeof data, 'n');
        cr_assert_eq(RUN(&b, io_write, fd, data, sizeof data, 0), (int32_t)sizeof data);
        cr_assert_eq(sim_host_unsynced_count(b.host), 8);
        cut(&b);
        cr_assert_eq(sim_host_unsynced_count(b.host), 0);
        cr_assert_eq(look(&b, "/a", got, sizeof got), (int64_t)sizeof got);
        for (int s = 0; s < 8; s++) {
            uint32_t fresh = 0;
            for (uint32_t i = 0; i < SECTOR; i++)
                fresh += got[s * SECTOR + i] == 'n';
            kept += fresh == SECTOR;
            dropped += fresh == 0;
            torn += fresh > 0 && fresh < SECTOR;
            here += fresh == SECTOR;
        }
        all += here == 8;
        none += here == 0;
        sim_destroy(b.sim);
    }
    cr_assert(kept > 500 && dropped > 500 && torn > 100 && all > 10 && none > 10);
}

Test(sim_disk, every_subset_of_sectors_can_be_had)
{
    static uint8_t data[4096], got[8192];
    struct sim_disk *saved;
    struct box b;
    int32_t fd;

    box_open(&b, 1);
    fd = durable_file(&b, "/a", 8192, 'o');
    fill(data, sizeof data, 'n');
    cr_assert_eq(RUN(&b, io_write, fd, data, 3 * SECTOR, 3584), 3 * SECTOR);
    cr_assert_eq(RUN(&b, io_write, fd, data, 100, 0), 100);
    sim_host_kill(b.host);
    saved = sim_host_disk_save(b.host);
    cr_assert_eq(sim_host_unsynced_count(b.host), 4);
    for (uint64_t mask = 0; mask < 16; mask++) {
        sim_host_disk_load(b.host, saved);
        sim_host_power_cut_subset(b.host, mask);
        cr_assert_eq(look(&b, "/a", got, sizeof got), 8192);
        cr_assert_eq(got[0], mask & 1 ? 'n' : 'o');
        cr_assert_eq(got[100], 'o');
        for (uint32_t s = 0; s < 3; s++)
            for (uint32_t i = 0; i < SECTOR; i++)
                cr_assert_eq(got[3584 + s * SECTOR + i], mask >> (s + 1) & 1 ? 'n' : 'o');
    }
    sim_host_disk_load(b.host, saved);
    sim_host_sector(b.host, 4096);
    cr_assert_eq(sim_host_unsynced_count(b.host), 2, "as pages");
    sim_disk_free(saved);
    sim_destroy(b.sim);
}

Test(sim_disk, a_sync_covers_what_came_before_it)
{
    static uint8_t data[SECTOR];
    uint8_t got[2 * SECTOR];
    uint32_t covered = 0, lost = 0;

    for (uint64_t seed = 0; seed < 200; seed++) {
        struct box b;
        int32_t fd;
        box_open(&b, seed);
        fd = durable_file(&b, "/a", 2 * SECTOR, 'o');
        fill(data, sizeof data, 'n');
        cr_assert_eq(RUN(&b, io_write, fd, data, SECTOR, 0), SECTOR);
        cr_assert_eq(RUN(&b, io_sync, fd), 0);
        cr_assert_eq(RUN(&b, io_write, fd, data, SECTOR, SECTOR), SECTOR);
        cut(&b);
        cr_assert_eq(look(&b, "/a", got, sizeof got), 2 * SECTOR);
        covered += got[0] == 'n' && got[SECTOR - 1] == 'n';
        lost += got[2 * SECTOR - 1] == 'o';
        sim_destroy(b.sim);
    }
    cr_assert_eq(covered, 200u);
    cr_assert(lost > 20);
}

static void count_done(struct io_op *op, int32_t res, uint32_t flags)
{
    (void)flags;
    cr_assert(res >= 0);
    op->offset = 1;
}

/* A write that has its effect while the sync is under way is not covered by it. */
Test(sim_disk, a_write_beside_a_sync_is_not_covered)
{
    static uint8_t data[SECTOR];
    uint8_t got[2 * SECTOR];
    uint32_t after = 0, lost = 0;

    fill(data, sizeof data, 'n');
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct io_op sync = {.done = count_done}, write = {.done = count_done};
        struct box b;
        int32_t fd;
        box_open(&b, seed);
        fd = durable_file(&b, "/a", 2 * SECTOR, 'o');
        io_sync(b.io, &sync, fd);
        io_write(b.io, &write, fd, data, SECTOR, seed % 2 ? 0 : SECTOR);
        while (io_op_running(&sync) || io_op_running(&write))
            io_turn(b.io, true);
        after += sim_host_unsynced_count(b.host) == 1;
        cut(&b);
        cr_assert_eq(look(&b, "/a", got, sizeof got), 2 * SECTOR);
        lost += got[seed % 2 ? 0 : SECTOR] == 'o';
        sim_destroy(b.sim);
    }
    cr_assert_eq(after, 300u);
    cr_assert_gt(lost, 50u);
}

Test(sim_disk, a_failed_sync_loses_and_the_next_succeeds)
{
    static uint8_t data[4 * SECTOR], got[4 * SECTOR];
    uint32_t gone = 0, there = 0, stale = 0;

    for (uint64_t seed = 0; seed < 200; seed++) {
        struct box b;
        int32_t fd;
        box_open(&b, seed);
        fd = durable_file(&b, "/a", sizeof data, 'o');
        fill(data, sizeof data, 'n');
        cr_assert_eq(RUN(&b, io_write, fd, data, sizeof data, 0), (int32_t)sizeof data);
        sim_host_fail_next(b.host, SIM_SYNC, 0, SIM_EIO);
        cr_assert_eq(RUN(&b, io_sync, fd), -EIO);
        cr_assert_eq(sim_host_unsynced_count(b.host), 0, "marked clean");
        cr_assert_eq(RUN(&b, io_sync, fd), 0, "and yet:");
        cr_assert_eq(RUN(&b, io_read, fd, got, sizeof got, 0), (int32_t)sizeof got);
        stale += memchr(got, 'o', sizeof got) != NULL;
        sim_host_power_cut_subset(b.host, UINT64_MAX);
        cr_assert_eq(look(&b, "/a", got, sizeof got), (int64_t)sizeof got);
        gone += memchr(got, 'o', sizeof got) != NULL;
        there += memchr(got, 'n', sizeof got) != NULL;
        sim_destroy(b.sim);
    }
    cr_assert(gone > 150 && there > 30 && stale > 50, "%u %u %u", gone, there, stale);
}

Test(sim_disk, what_is_written_again_after_a_failed_sync_counts)
{
    static uint8_t data[4 * SECTOR], got[4 * SECTOR];

    for (uint64_t seed = 0; seed < 100; seed++) {
        struct box b;
        int32_t fd;
        box_open(&b, seed);
        fd = durable_file(&b, "/a", sizeof data, 'o');
        fill(data, sizeof data, 'n');
        cr_assert_eq(RUN(&b, io_write, fd, data, sizeof data, 0), (int32_t)sizeof data);
        sim_host_fail_next(b.host, SIM_SYNC, 0, SIM_EIO);
        cr_assert_eq(RUN(&b, io_sync, fd), -EIO);
        fill(data, sizeof data, 'm');
        cr_assert_eq(RUN(&b, io_write_sync, fd, data, 2 * SECTOR, SECTOR), 2 * SECTOR);
        cut(&b);
        cr_assert_eq(look(&b, "/a", got, sizeof got), (int64_t)sizeof got);
        for (uint32_t i = SECTOR; i < 3 * SECTOR; i++)
            cr_assert_eq(got[i], 'm');
        sim_destroy(b.sim);
    }
}

Test(sim_disk, dsync_and_write_sync_are_durable)
{
    static _Alignas(4096) uint8_t data[4096];
    uint8_t got[3 * 4096];

    for (uint64_t seed = 0; seed < 50; seed++) {
        struct box b;
        int32_t fd;
        box_open(&b, seed);
        durable_file(&b, "/a", 1, 'o');
        fd = open_file(&b, "/a", IO_WRITE | IO_DIRECT | IO_DSYNC);
        fill(data, sizeof data, 'd');
        cr_assert_eq(RUN(&b, io_write, fd, data, 4096, 0), 4096);
        cr_assert_eq(RUN(&b, io_write_sync, fd, data, 4096, 4096), 4096);
        cr_assert_eq(RUN(&b, io_write, fd, data, 100, 8192), -EINVAL, "not aligned");
        cr_assert_eq(RUN(&b, io_write, fd, data + 8, 4088, 8192), -EINVAL);
        cr_assert_eq(RUN(&b, io_write, fd, data, 4096, 512), -EINVAL);
        cr_assert_eq(sim_host_unsynced_count(b.host), 0);
        cut(&b);
        cr_assert_eq(look(&b, "/a", got, sizeof got), 8192);
        cr_assert_eq(memcmp(got, data, 4096), 0);
        cr_assert_eq(memcmp(got + 4096, data, 4096), 0);
        sim_destroy(b.sim);
    }
}

/* ---- what is under way ---- */

Test(sim_disk, a_write_under_way_is_there_in_part_or_not)
{
    static uint8_t data[8 * SECTOR], got[8 * SECTOR];
    uint32_t none = 0, some = 0, killed = 0;

    fill(data, sizeof data, 'n');
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct box b;
        int32_t fd;
        box_open(&b, seed);
        fd = durable_file(&b, "/a", sizeof data, 'o');
        io_write(b.io, &b.op, fd, data, sizeof data, 0);
        if (seed % 2)
            cut(&b);
        else
            sim_host_kill(b.host);
        cr_assert_eq(look(&b, "/a", got, sizeof got), (int64_t)sizeof got);
        none += !memchr(got, 'n', sizeof got);
        some += memchr(got, 'n', sizeof got) && memchr(got, 'o', sizeof got);
        killed += seed % 2 == 0 && memchr(got, 'n', sizeof got);
        sim_destroy(b.sim);
    }
    cr_assert(none > 50 && some > 30 && killed > 20, "%u %u %u", none, some, killed);
}

Test(sim_disk, a_killed_process_loses_nothing_it_wrote)
{
    uint8_t got[100];
    struct box b;
    int32_t fd;

    box_open(&b, 3);
    fd = open_file(&b, "/new", IO_WRITE | IO_CREATE);
    cr_assert_eq(RUN(&b, io_write, fd, "hello", 5, 0), 5);
    sim_host_kill(b.host);
    cr_assert_not(sim_host_has_process(b.host));
    cr_assert_eq(look(&b, "/new", got, sizeof got), 5);
    cr_assert_eq(sim_host_unsynced_count(b.host), 3, "a name, a sector, a size");
    sim_host_power_cut_subset(b.host, 0);
    cr_assert_eq(look(&b, "/new", got, sizeof got), -1);
    sim_destroy(b.sim);
}

/* ---- names ---- */

struct counts {
    uint32_t a, b, both, none;
};

static void count_names(struct box *b, struct counts *n)
{
    uint8_t got[8];
    bool a = look(b, "/a", got, 1) >= 0, c = look(b, "/b", got, 1) >= 0;

    n->both += a && c;
    n->none += !a && !c;
    n->a += a && !c;
    n->b += c && !a;
}

Test(sim_disk, a_name_needs_a_sync_of_its_directory)
{
    struct counts made = {0}, synced = {0};

    for (uint64_t seed = 0; seed < 100; seed++) {
        struct box b;
        int32_t fd;
        box_open(&b, seed);
        fd = open_file(&b, "/a", IO_WRITE | IO_CREATE);
        cr_assert_eq(RUN(&b, io_write_sync, fd, "x", 1, 0), 1);
        cut(&b);
        count_names(&b, &made);
        sim_destroy(b.sim);
        box_open(&b, seed);
        durable_file(&b, "/a", 1, 'x');
        cut(&b);
        count_names(&b, &synced);
        sim_destroy(b.sim);
    }
    cr_assert(made.a > 20 && made.none > 20, "%u %u", made.a, made.none);
    cr_assert_eq(synced.a, 100u);
}

Test(sim_disk, a_rename_and_a_removal_need_one_too)
{
    struct counts moved = {0}, removed = {0}, moved_synced = {0}, removed_synced = {0};

    for (uint64_t seed = 0; seed < 400; seed++) {
        struct counts *n;
        struct box b;
        box_open(&b, seed);
        durable_file(&b, "/a", 1, 'x');
        if (seed % 4 < 2)
            cr_assert_eq(RUN(&b, io_rename, "/a", "/b"), 0);
        else
            cr_assert_eq(RUN(&b, io_unlink, "/a"), 0);
        if (seed % 2)
            sync_root(&b);
        cut(&b);
        n = seed % 4 == 0   ? &moved
            : seed % 4 == 1 ? &moved_synced
            : seed % 4 == 2 ? &removed
                            : &removed_synced;
        count_names(&b, n);
        sim_destroy(b.sim);
    }
    cr_assert(moved.a > 20 && moved.b > 20 && moved.both == 0 && moved.none == 0);
    cr_assert(removed.a > 20 && removed.none > 20);
    cr_assert_eq(moved_synced.b, 100u);
    cr_assert_eq(removed_synced.none, 100u);
}

Test(sim_disk, a_replaced_file_is_one_or_the_other)
{
    uint32_t old = 0, fresh = 0;

    for (uint64_t seed = 0; seed < 100; seed++) {
        uint8_t got[8];
        struct box b;
        box_open(&b, seed);
        durable_file(&b, "/a", 1, 'o');
        durable_file(&b, "/b", 1, 'n');
        cr_assert_eq(RUN(&b, io_rename, "/b", "/a"), 0);
        cut(&b);
        cr_assert_eq(look(&b, "/a", got, sizeof got), 1);
        old += got[0] == 'o';
        fresh += got[0] == 'n';
        cr_assert_eq(look(&b, "/b", got + 1, 1), got[0] == 'n' ? -1 : 1);
        sim_destroy(b.sim);
    }
    cr_assert(old > 20 && fresh > 20 && old + fresh == 100);
}

Test(sim_disk, a_directory_made_can_vanish_with_all_in_it)
{
    uint32_t gone = 0, there = 0;

    for (uint64_t seed = 0; seed < 100; seed++) {
        struct why why;
        uint8_t got[8];
        struct box b;
        int32_t fd;
        box_open(&b, seed);
        cr_assert(io_mkdir(b.io, "/d", &why));
        fd = open_file(&b, "/d/f", IO_WRITE | IO_CREATE);
        cr_assert_eq(RUN(&b, io_write_sync, fd, "x", 1, 0), 1);
        io_close(b.io, fd);
        fd = open_file(&b, "/d", IO_READ | IO_DIR);
        cr_assert_eq(RUN(&b, io_sync, fd), 0);
        if (seed % 2)
            sync_root(&b);
        cut(&b);
        if (seed % 2) {
            cr_assert_eq(look(&b, "/d/f", got, sizeof got), 1);
        } else if (look(&b, "/d/f", got, sizeof got) == 1) {
            there++;
        } else {
            gone++;
            cr_assert_eq(RUN(&b, io_unlink, "/d/f"), -ENOENT);
        }
        sim_destroy(b.sim);
    }
    cr_assert(gone > 10 && there > 10, "%u %u", gone, there);
}

Test(sim_disk, a_file_that_is_open_outlives_its_name)
{
    uint8_t got[8];
    struct box b;
    int32_t fd;

    box_open(&b, 1);
    fd = durable_file(&b, "/a", 3, 'x');
    cr_assert_eq(RUN(&b, io_unlink, "/a"), 0);
    sync_root(&b);
    cr_assert_eq(RUN(&b, io_read, fd, got, 3, 0), 3);
    cr_assert_eq(b.host->disk->bytes_used, 4096u);
    io_close(b.io, fd);
    cr_assert_eq(b.host->disk->bytes_used, 0u, "and its room comes back with the last descriptor");
    sim_destroy(b.sim);
}

/* ---- sizes ---- */

Test(sim_disk, a_size_needs_a_sync)
{
    uint32_t small = 0, large = 0, zeros = 0, full = 0;

    for (uint64_t seed = 0; seed < 200; seed++) {
        static uint8_t data[SECTOR], got[3 * SECTOR];
        struct box b;
        int64_t n;
        int32_t fd;
        box_open(&b, seed);
        fd = durable_file(&b, "/a", SECTOR, 'o');
        fill(data, sizeof data, 'n');
        cr_assert_eq(RUN(&b, io_write, fd, data, SECTOR, SECTOR), SECTOR);
        cut(&b);
        n = look(&b, "/a", got, sizeof got);
        cr_assert(n == SECTOR || n == 2 * SECTOR);
        cr_assert_eq(got[0], 'o');
        small += n == SECTOR;
        large += n == 2 * SECTOR;
        zeros += n == 2 * SECTOR && got[SECTOR] == 0 && got[2 * SECTOR - 1] == 0;
        full += n == 2 * SECTOR && got[SECTOR] == 'n' && got[2 * SECTOR - 1] == 'n';
        if (n == SECTOR) { /* what lay behind the end does not come back with the room */
            fd = open_file(&b, "/a", IO_WRITE | IO_READ);
            cr_assert_eq(RUN(&b, io_allocate, fd, 0, 3 * SECTOR), 0);
            cr_assert_eq(RUN(&b, io_read, fd, got, SECTOR, SECTOR), SECTOR);
            cr_assert_eq(got[0] | got[SECTOR - 1], 0);
        }
        sim_destroy(b.sim);
    }
    cr_assert(small > 30 && large > 30 && zeros > 10 && full > 10);
}

Test(sim_disk, a_truncation_needs_a_sync)
{
    uint32_t old = 0, gone = 0;

    for (uint64_t seed = 0; seed < 100; seed++) {
        uint8_t got[8];
        struct box b;
        int64_t n;
        box_open(&b, seed);
        durable_file(&b, "/a", 5, 'o');
        open_file(&b, "/a", IO_WRITE | IO_TRUNC);
        cut(&b);
        n = look(&b, "/a", got, sizeof got);
        cr_assert(n == 0 || n == 5);
        old += n == 5;
        gone += n == 0;
        sim_destroy(b.sim);
    }
    cr_assert(old > 20 && gone > 20);
}

Test(sim_disk, room_and_inodes_run_out)
{
    static uint8_t data[3 * 4096];
    uint64_t free_bytes, total, inodes;
    struct box b;
    int32_t fd;

    box_open(&b, 1);
    sim_host_disk_limit(b.host, 4 * 4096, 3);
    fd = open_file(&b, "/a", IO_WRITE | IO_CREATE);
    cr_assert_eq(RUN(&b, io_allocate, fd, 0, 5 * 4096), -ENOSPC);
    cr_assert_eq(RUN(&b, io_write, fd, data, sizeof data, 0), (int32_t)sizeof data);
    cr_assert_eq(RUN(&b, io_write, fd, data, sizeof data, sizeof data), 4096, "short");
    cr_assert_eq(RUN(&b, io_write, fd, data, 1, 4 * 4096), -ENOSPC);
    cr_assert_eq(RUN(&b, io_write_sync, fd, data, 4097, 3 * 4096), -EIO, "short");
    cr_assert_eq(RUN(&b, io_write_sync, fd, data, 10, 0), 10, "room that is there");
    cr_assert(io_disk_free(b.io, "/", &free_bytes, &total, &inodes));
    cr_assert(free_bytes == 0 && total == 4 * 4096 && inodes == 1);
    open_file(&b, "/b", IO_WRITE | IO_CREATE);
    cr_assert_eq(RUN(&b, io_open, "/c", IO_WRITE | IO_CREATE), -ENOSPC);
    io_close(b.io, fd);
    cr_assert_eq(RUN(&b, io_unlink, "/a"), 0);
    sync_root(&b);
    cr_assert(io_disk_free(b.io, "/", &free_bytes, &total, &inodes));
    cr_assert_eq(free_bytes, 4u * 4096);
    sim_destroy(b.sim);
}

/* ---- tools ---- */

Test(sim_disk, it_stops_before_an_effect)
{
    static const uint32_t left[] = {0, 1, 3, 3, 3, 1, 0};
    uint8_t got[8];
    struct box b;

    /* create, write, (nothing), sync, sync of the directory: what is unsynced before each */
    for (uint64_t n = 1; n <= 4; n++) {
        int32_t fd;
        box_open(&b, 1);
        sim_host_stop_before(b.host, n);
        fd = RUN(&b, io_open, "/a", IO_WRITE | IO_CREATE);
        if (fd >= 0 && RUN(&b, io_write, fd, "x", 1, 0) == 1 && RUN(&b, io_sync, fd) == 0) {
            fd = RUN(&b, io_open, "/", IO_READ | IO_DIR);
            (void)RUN(&b, io_sync, fd);
        }
        cr_assert(sim_host_stopped(b.host));
        cr_assert_eq(sim_host_disk_ops(b.host), n - 1);
        cr_assert_eq(sim_host_unsynced_count(b.host), n == 4 ? 1u : left[n - 1]);
        io_turn(b.io, true); /* comes back */
        cut(&b);
        cr_assert_not(sim_host_stopped(b.host));
        if (n == 1)
            cr_assert_eq(look(&b, "/a", got, 1), -1);
        sim_destroy(b.sim);
    }
}

Test(sim_disk, bits_rot_and_saved_disks_do_not_change)
{
    struct sim_disk *saved;
    uint64_t before;
    uint8_t got[8192];
    struct box b;

    box_open(&b, 1);
    durable_file(&b, "/a", 5000, 'a');
    sim_host_disk_put(b.host, "/etc/deep/config", "hello", 5);
    cr_assert_eq(look(&b, "/etc/deep/config", got, sizeof got), 5);
    before = sim_host_disk_hash(b.host);
    sim_host_kill(b.host);
    saved = sim_host_disk_save(b.host);
    cr_assert(sim_host_disk_flip(b.host, "/a", 4999, 1));
    cr_assert_not(sim_host_disk_flip(b.host, "/a", 5000, 1));
    cr_assert_not(sim_host_disk_flip(b.host, "/none", 0, 1));
    cr_assert_neq(sim_host_disk_hash(b.host), before);
    cr_assert_eq(look(&b, "/a", got, sizeof got), 5000);
    cr_assert_eq(got[4999], 'a' ^ 1);
    sim_host_power_cut(b.host);
    cr_assert_eq(look(&b, "/a", got, sizeof got), 5000);
    cr_assert_eq(got[4999], 'a' ^ 1, "on the medium as well");
    sim_host_disk_load(b.host, saved);
    cr_assert_eq(sim_host_disk_hash(b.host), before);
    sim_host_power_cut(b.host);
    cr_assert_eq(sim_host_disk_hash(b.host), before, "what is put there is durable");
    sim_disk_free(saved);
    sim_destroy(b.sim);
}
