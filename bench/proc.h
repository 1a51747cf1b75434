/*
 * bench/proc.h - CPU time and memory of a server's processes, from /proc.
 */
#ifndef HIKYAKU_BENCH_PROC_H
#define HIKYAKU_BENCH_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct bench_proc_usage {
    unsigned process_count;
    double cpu_seconds; /* user and system, of the living and of children that were waited for */
    uint64_t rss_bytes;
    uint64_t pss_bytes; /* 0 where smaps_rollup cannot be read */
    uint64_t switches;  /* context switches of all threads that live, voluntary and not */
};

/* The process and all its descendants. False: there is no such process. */
bool bench_proc_read(pid_t root, struct bench_proc_usage *u) __attribute__((warn_unused_result));

/* Seconds so far that this process was ready to run but had no core; 0 where it is not known. */
double bench_proc_self_wait_seconds(void);

#endif
