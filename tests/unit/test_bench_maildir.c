/*
 * tests/unit/test_bench_maildir.c - the sink's Maildir on a real file system.
 *
 * Owns:     a folder under /tmp, removed at the end of each test.
 * Runs on:  the test's process.
 * Contract: each test fails when a message lies where it should not, or with other bytes.
 * Failure:  Criterion reports it.
 * Bounds:   none.
 * Tests:    bench/maildir.c
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/maildir.h"

static char folder[64];
static struct bench_maildir maildir;
static struct bench_maildir_file file;

static void setup(void)
{
    snprintf(folder, sizeof(folder), "/tmp/test_bench_maildir.XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_null(bench_maildir_open(&maildir, folder));
}

static void teardown(void)
{
    static const char *const names[] = {"tmp", "new", "cur", ""};
    char path[128];
    bench_maildir_close(&maildir);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        cr_expect_eq(rmdir(path), 0, "%s", path);
    }
}

static bool exists(const char *where)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s/%s", folder, where, file.name);
    return access(path, F_OK) == 0;
}

Test(bench_maildir, a_finished_message_lies_in_new_with_its_bytes, .init = setup, .fini = teardown)
{
    char path[512], text[64];
    bench_maildir_begin(&maildir, &file);
    bench_maildir_add(&file, "a\r\n", 3);
    bench_maildir_add(&file, "b\0c", 3);
    cr_assert(exists("tmp"));
    cr_assert_not(exists("new"));
    cr_assert(bench_maildir_finish(&maildir, &file));
    cr_assert_not(exists("tmp"));
    snprintf(path, sizeof(path), "%s/new/%s", folder, file.name);
    int fd = open(path, O_RDONLY);
    cr_assert_eq(read(fd, text, sizeof(text)), 6);
    cr_assert_eq(memcmp(text, "a\r\nb\0c", 6), 0);
    close(fd);
    unlink(path);
}

Test(bench_maildir, an_abandoned_message_leaves_nothing, .init = setup, .fini = teardown)
{
    bench_maildir_begin(&maildir, &file);
    bench_maildir_add(&file, "a", 1);
    bench_maildir_abandon(&maildir, &file);
    cr_assert_not(exists("tmp"));
    cr_assert_not(exists("new"));
}

Test(bench_maildir, names_differ, .init = setup, .fini = teardown)
{
    struct bench_maildir_file other;
    bench_maildir_begin(&maildir, &file);
    bench_maildir_begin(&maildir, &other);
    cr_assert_str_neq(file.name, other.name);
    bench_maildir_abandon(&maildir, &file);
    bench_maildir_abandon(&maildir, &other);
}

Test(bench_maildir, a_write_that_fails_is_told_at_the_end, .init = setup, .fini = teardown)
{
    char path[512];
    bench_maildir_begin(&maildir, &file);
    snprintf(path, sizeof(path), "%s/tmp/%s", folder, file.name);
    close(file.fd);
    file.fd = open(path, O_RDONLY); /* it can be synced, but not written */
    bench_maildir_add(&file, "a", 1);
    cr_assert_not(bench_maildir_finish(&maildir, &file));
    cr_assert_not(exists("tmp"));
    cr_assert_not(exists("new"));
}

Test(bench_maildir, a_folder_that_cannot_be_made_is_said)
{
    cr_assert_not_null(bench_maildir_open(&maildir, "/proc/none/maildir"));
}
