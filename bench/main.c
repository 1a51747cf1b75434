/*
 * bench/main.c - hikyaku-bench: finds the command and runs it.
 *
 * Owns:     nothing.
 * Runs on:  one thread.
 * Contract: exit 0 done, 1 the run had errors, 2 wrong use with one line on stderr.
 * Failure:  an unknown command names the ones there are.
 * Bounds:   none.
 * Tests:    tests/unit/test_bench_*.c for the pieces; bench/README.md for the commands.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"load", bench_cmd_load, "closed-loop load: sessions that send messages"},
    {"idle", bench_cmd_idle, "open sessions, hold them, measure the server's memory"},
    {"sink", bench_cmd_sink, "a next hop: counts, or writes a Maildir; scripted behaviour"},
    {"null", bench_cmd_null, "the null server: holds the conversation, keeps nothing"},
    {"tls-handshake", bench_cmd_tls_handshake, "raw wolfSSL handshakes a second, in memory"},
    {"disk", bench_cmd_disk, "appends and syncs a second on this disk"},
    {"micro", bench_cmd_micro, "parser, dots, checksums, records, routing, one at a time"},
    {"fill", bench_cmd_fill, "a spool with many queued messages, to be measured with"},
    {"run", bench_cmd_suite, "the suite: scenarios, measured in turn, and their report"},
    {"compare", bench_cmd_suite, "two results of run: what changed by more than noise"},
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *to)
{
    fprintf(to, "usage: hikyaku-bench COMMAND [OPTION...]   (COMMAND --help lists its options)\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(to, "  %-14s %s\n", commands[i].name, commands[i].help);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a peer that went away is an error return, not a death */
    if (argc < 2) {
        fprintf(stderr, "hikyaku-bench: no command; try hikyaku-bench --help\n");
        return BENCH_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return BENCH_EXIT_OK;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "hikyaku-bench: unknown command '%s'; try hikyaku-bench --help\n", argv[1]);
    return BENCH_EXIT_USAGE;
}
