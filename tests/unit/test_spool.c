/*
 * tests/unit/test_spool.c - the spool directory, its lock, the lanes found.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/queue.h"

static struct io *make_io(void)
{
    struct io_params params = {.fd_count_max = 16, .queue_depth = 16, .cpu = -1};
    struct why why;
    struct io *io = io_create(&params, &why);

    cr_assert_not_null(io, "%s", why.text);
    return io;
}

Test(spool, second_lock_is_refused)
{
    char dir[64] = "/tmp/hikyaku-spool-XXXXXX", spool[96], command[128];
    struct io *io = make_io();
    struct why why;
    int lock, other;

    cr_assert_not_null(mkdtemp(dir));
    snprintf(spool, sizeof spool, "%s/spool", dir);
    cr_assert(spool_lock(io, spool, &lock, &why), "%s", why.text);
    cr_assert_not(spool_lock(io, spool, &other, &why));
    cr_assert_neq(why.text[0], '\0');
    io_unlock(io, lock);
    cr_assert(spool_lock(io, spool, &lock, &why), "%s", why.text);
    io_unlock(io, lock);
    io_destroy(io);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    cr_assert_eq(system(command), 0);
}

Test(spool, unusable_path)
{
    struct io *io = make_io();
    struct why why;
    uint32_t lanes[4];
    int lock;

    cr_assert_not(spool_lock(io, "/proc/no/such", &lock, &why));
    cr_assert_not_null(strstr(why.text, "/proc/no/such"), "%s", why.text);
    cr_assert_eq(spool_lanes(io, "/proc/no/such", lanes, 4, &why), -1);
    io_destroy(io);
}

Test(spool, lanes_by_number_and_nothing_else)
{
    char dir[64] = "/tmp/hikyaku-spool-XXXXXX", command[256];
    struct io *io = make_io();
    uint32_t lanes[8];
    struct why why;

    cr_assert_not_null(mkdtemp(dir));
    snprintf(command, sizeof command,
             "cd '%s' && mkdir lane-07 lane-00 lane-123 lane-1024 lane-7 lane-x lanes lane-", dir);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(spool_lanes(io, dir, lanes, 8, &why), 3);
    cr_assert(lanes[0] == 0 && lanes[1] == 7 && lanes[2] == 123);
    cr_assert_eq(spool_lanes(io, dir, lanes, 2, &why), 2, "bounded");
    io_destroy(io);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    cr_assert_eq(system(command), 0);
}
