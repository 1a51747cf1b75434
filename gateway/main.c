/*
 * gateway/main.c - the command line of hikyaku.
 *
 * Owns:     nothing.
 * Runs on:  the main thread.
 * Contract: INTERFACES.md section 2: exit 0 done, 1 failed, 2 wrong use or broken configuration,
 *           69 no io_uring.
 * Failure:  one line on stderr.
 * Bounds:   none.
 * Tests:    tests/system (start)
 */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/base/path.h"
#include "gateway/config.h"
#include "gateway/control.h"

#ifndef HIKYAKU_VERSION
#define HIKYAKU_VERSION "unknown"
#endif

static const char usage[] =
    "usage: hikyaku --config FILE            run the gateway\n"
    "       hikyaku --config FILE --check    validate the configuration: exit 0, or 2 and "
    "FILE:LINE:COLUMN: message\n"
    "       hikyaku --demo DIR               run with the embedded default configuration below DIR "
    "(see make run)\n"
    "       hikyaku --print-defaults         every key with its default and its meaning, as YAML\n"
    "       hikyaku --print-reference        the same as a reference page, in Markdown\n"
    "       hikyaku --version\n"
    "SIGTERM drains and stops, SIGHUP reloads the configuration and reopens the logs.\n";

int main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"demo", required_argument, NULL, 'd'},
                                            {"print-defaults", no_argument, NULL, 'p'},
                                            {"print-reference", no_argument, NULL, 'r'},
                                            {"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    struct control_options o = {0};
    bool check = false;
    int opt;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case 'c': o.config_path = optarg; break;
        case 'k': check = true; break;
        case 'd': o.demo_dir = optarg; break;
        case 'p': config_print_defaults(stdout); return 0;
        case 'r': config_print_reference(stdout); return 0;
        case 'V': printf("hikyaku %s\n", HIKYAKU_VERSION); return 0;
        case 'h': fputs(usage, stdout); return 0;
        default: return EXIT_CONFIG;
        }
    }
    if (optind < argc || !o.config_path == !o.demo_dir) {
        fputs("hikyaku: give either --config FILE or --demo DIR (hikyaku --help tells more)\n",
              stderr);
        return EXIT_CONFIG;
    }
    if (check && o.demo_dir) {
        fputs("hikyaku: --check takes --config FILE\n", stderr);
        return EXIT_CONFIG;
    }
    if (check)
        return control_check(o.config_path);
    char path[PATH_MAX];
    if (o.config_path && path_from_root(o.config_path, path, sizeof path))
        o.config_path = path;
    return control_run(&o);
}
