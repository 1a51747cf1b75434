/*
 * Tests of log files that are set aside: gateway/log_file.c.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "gateway/log_file.h"
#include "tests/unit/soft_limit.h"

static char dir[] = "/tmp/hikyaku-log-XXXXXX", path[64];
static struct log_file file;

static void begin(void)
{
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/t.jsonl", dir);
    file = (struct log_file){.path = strdup(path), .fd = -1};
}

static uint32_t files(bool remove)
{
    DIR *d = opendir(dir);
    char name[512];
    uint32_t count = 0;

    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') {
            snprintf(name, sizeof name, "%s/%s", dir, e->d_name);
            count++;
            if (remove)
                unlink(name);
        }
    closedir(d);
    return count;
}

static void end(void)
{
    log_file_close(&file);
    files(true);
    rmdir(dir);
    strcpy(dir + sizeof dir - 7, "XXXXXX");
}

TestSuite(log_file, .init = begin, .fini = end);

static void put(const char *text)
{
    log_file_write(&file, text, strlen(text));
}

static void holds(const char *text)
{
    char got[512] = {0};
    FILE *f = fopen(path, "re");

    cr_assert(f);
    got[fread(got, 1, sizeof got - 1, f)] = '\0';
    fclose(f);
    cr_assert_str_eq(got, text, "%s", got);
}

Test(log_file, half_a_line_of_an_earlier_life_is_ended)
{
    FILE *f = fopen(path, "we");

    fputs("one\ntw", f);
    fclose(f);
    cr_assert(log_file_open(&file));
    holds("one\ntw");
    put("three\n");
    put("four\n");
    holds("one\ntw\nthree\nfour\n");
    log_file_reopen(&file);
    put("five\n");
    holds("one\ntw\nthree\nfour\nfive\n");
}

Test(log_file, half_a_line_on_a_full_disk_is_ended)
{
    rlim_t before;

    signal(SIGXFSZ, SIG_IGN);
    cr_assert(log_file_open(&file));
    before = soft_limit(RLIMIT_FSIZE, 6);
    put("one\ntwo\n");
    put("three\n");
    soft_limit(RLIMIT_FSIZE, 8);
    put("four\n");
    soft_limit(RLIMIT_FSIZE, before);
    holds("one\ntw\nf");
    put("five\n");
    put("six\n");
    holds("one\ntw\nf\nfive\nsix\n");
    before = soft_limit(RLIMIT_FSIZE, 18); /* full at the end of a line */
    put("seven\n");
    soft_limit(RLIMIT_FSIZE, before);
    put("eight\n");
    holds("one\ntw\nf\nfive\nsix\neight\n");
}

Test(log_file, one_that_is_long_enough_is_set_aside)
{
    file.bytes_max = 10;
    file.head = "head\n";
    cr_assert(log_file_open(&file));
    put("one\n");
    cr_assert_not(log_file_rotate(&file));
    put("two\n");
    cr_assert(log_file_rotate(&file));
    holds("head\n");
    cr_assert_eq(files(false), 2);
    put("three\n");
    holds("head\nthree\n");
}

/* What a kill between the two names left behind holds nothing. */
Test(log_file, the_next_one_of_an_earlier_life_is_begun_anew)
{
    char next[80];

    snprintf(next, sizeof next, "%s.new", path);
    FILE *f = fopen(next, "we");
    fputs("old\n", f);
    fclose(f);
    file.bytes_max = 4;
    file.head = "head\n";
    cr_assert(log_file_open(&file));
    put("one\n");
    cr_assert(log_file_rotate(&file));
    holds("head\n");
    cr_assert_eq(files(false), 2);
}

/* Somebody moved it away: there is nothing to be set aside, and what is open goes on. */
Test(log_file, one_that_has_no_name_is_not_set_aside)
{
    file.bytes_max = 4;
    cr_assert(log_file_open(&file));
    put("one\n");
    unlink(path);
    cr_assert_not(log_file_rotate(&file));
    cr_assert_eq(files(false), 0);
    put("two\n");
    log_file_reopen(&file);
    put("three\n");
    holds("three\n");
}

Test(log_file, without_a_descriptor_for_a_new_one_the_old_one_goes_on)
{
    rlim_t before;
    int names = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    char events[512];

    file.bytes_max = 4;
    cr_assert(log_file_open(&file));
    put("one\n");
    cr_assert_geq(inotify_add_watch(names, dir, IN_MOVE), 0);
    before = soft_limit(RLIMIT_NOFILE, 0);
    cr_assert_not(log_file_rotate(&file));
    cr_assert_eq(read(names, events, sizeof events), -1, "the packer would have taken it");
    put("two\n");
    close(names);
    soft_limit(RLIMIT_NOFILE, before);
    cr_assert_eq(files(false), 1);
    holds("one\ntwo\n");
    cr_assert(log_file_rotate(&file));
    cr_assert_eq(files(false), 2);
    holds("");
}
