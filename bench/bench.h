/*
 * bench/bench.h - the commands of hikyaku-bench and the exit status they share.
 */
#ifndef HIKYAKU_BENCH_BENCH_H
#define HIKYAKU_BENCH_BENCH_H

enum bench_exit {
    BENCH_EXIT_OK = 0,
    BENCH_EXIT_FAILED = 1, /* the run had errors, or the system said no */
    BENCH_EXIT_USAGE = 2   /* wrong use: one line on stderr */
};

/* Each takes the arguments after the command's name in argv[1..] and returns an enum bench_exit. */
int bench_cmd_load(int argc, char **argv);
int bench_cmd_idle(int argc, char **argv);
int bench_cmd_sink(int argc, char **argv);
int bench_cmd_null(int argc, char **argv);
int bench_cmd_tls_handshake(int argc, char **argv);
int bench_cmd_disk(int argc, char **argv);
int bench_cmd_micro(int argc, char **argv);
int bench_cmd_fill(int argc, char **argv);
/* run and compare; does not return when the suite could be started. */
int bench_cmd_suite(int argc, char **argv);

#endif
