/*
 * bench/opts.h - command-line options from one table a command: parsing, --help and errors.
 */
#ifndef HIKYAKU_BENCH_OPTS_H
#define HIKYAKU_BENCH_OPTS_H

#include <stddef.h>
#include <stdint.h>

enum bench_opt_kind {
    BENCH_OPT_FLAG,   /* target: bool */
    BENCH_OPT_COUNT,  /* target: uint64_t, within min..max */
    BENCH_OPT_SIZE,   /* target: uint64_t bytes; K, KiB, M, MiB, G, GiB */
    BENCH_OPT_STRING, /* target: const char * */
    BENCH_OPT_CALL,   /* target: passed to call, which returns NULL or what is wrong */
    BENCH_OPT_MAYBE   /* the same; a value only behind =, otherwise call gets NULL */
};

struct bench_opt {
    const char *name; /* with its dashes */
    const char *arg;  /* name of the value in --help; NULL for a flag */
    enum bench_opt_kind kind;
    void *target;
    uint64_t min, max;
    const char *(*call)(void *target, const char *value);
    const char *help;
};

struct bench_opt_table {
    const char *command;
    const char *summary; /* one or several lines, printed above the options */
    const struct bench_opt *opts;
    size_t count;
};

/* -1: go on. Otherwise the exit status: 0 after --help, 2 after one line on stderr. */
int bench_opts_parse(const struct bench_opt_table *table, int argc, char **argv)
    __attribute__((warn_unused_result));

/* Prints "hikyaku-bench COMMAND: message; try --help" and returns BENCH_EXIT_USAGE. */
int bench_opts_error(const struct bench_opt_table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* NULL, or what is wrong with the text. */
const char *bench_opts_size(const char *text, uint64_t *bytes);

#endif
