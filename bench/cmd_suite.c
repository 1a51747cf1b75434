/*
 * bench/cmd_suite.c - run and compare: hands over to the suite of scenarios (bench/suite).
 *
 * Owns:     nothing.
 * Runs on:  the main thread, which becomes python3.
 * Contract: the suite lies beside the build folder, or where make install put it;
 *           HIKYAKU_BENCH_SUITE names another place. HIKYAKU_BUILD tells it what to measure.
 * Failure:  one line on stderr and exit 1 when the suite or python3 cannot be found.
 * Bounds:   none.
 * Tests:    tests/system/test_bench_suite.py
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"

#ifndef HIKYAKU_SHARE
#define HIKYAKU_SHARE "/usr/local/share/hikyaku"
#endif

#define SUITE_ARGUMENTS_MAX 256

/* Where the program lies, without its name. */
static bool own_folder(char *folder, size_t size)
{
    ssize_t count = readlink("/proc/self/exe", folder, size - 1);
    if (count <= 0)
        return false;
    folder[count] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash != NULL)
        *slash = '\0';
    return slash != NULL;
}

static bool find_suite(const char *folder, char *path, size_t size)
{
    const char *const places[] = {"%s/../bench/suite/main.py", "%s/../../bench/suite/main.py"};
    const char *named = getenv("HIKYAKU_BENCH_SUITE");
    if (named != NULL) {
        snprintf(path, size, "%s/main.py", named);
        return access(path, R_OK) == 0;
    }
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(path, size, places[i], folder);
        if (access(path, R_OK) == 0)
            return true;
    }
    snprintf(path, size, "%s", HIKYAKU_SHARE "/bench/suite/main.py");
    return access(path, R_OK) == 0;
}

int bench_cmd_suite(int argc, char **argv)
{
    char folder[PATH_MAX / 2], path[PATH_MAX];
    char *words[SUITE_ARGUMENTS_MAX] = {(char *)"python3", path};
    if (!own_folder(folder, sizeof(folder)) || !find_suite(folder, path, sizeof(path))) {
        fprintf(stderr, "hikyaku-bench: the suite was not found; set HIKYAKU_BENCH_SUITE to the "
                        "folder bench/suite of the source\n");
        return BENCH_EXIT_FAILED;
    }
    if (argc + 2 >= SUITE_ARGUMENTS_MAX) {
        fprintf(stderr, "hikyaku-bench: too many words\n");
        return BENCH_EXIT_USAGE;
    }
    memcpy(words + 2, argv, (size_t)argc * sizeof(*argv));
    setenv("HIKYAKU_BUILD", folder, 0);
    execvp(words[0], words);
    fprintf(stderr, "hikyaku-bench: python3: %s; the suite needs python3 3.11 or newer\n",
            strerror(errno));
    return BENCH_EXIT_FAILED;
}
