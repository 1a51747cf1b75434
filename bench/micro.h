/*
 * bench/micro.h - the parts of the gateway that run for each byte or command, one at a time.
 */
#ifndef HIKYAKU_BENCH_MICRO_H
#define HIKYAKU_BENCH_MICRO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/tls.h"

/* What the cases work on; made once. */
struct micro {
    uint8_t *from, *to; /* MICRO_LARGE bytes each: far beyond the caches */
    char *short_lines;  /* 64 KiB of lines of 78 bytes, and the final dot */
    char *long_lines;   /* 64 KiB of lines of 998 bytes */
    size_t short_len, long_len;
    struct route_table *routes; /* MICRO_SPACES address spaces */
    struct bench_tls tls_server, tls_client;
    char *plain;
    uint64_t sum; /* so that no work can be left out by the compiler */
};

#define MICRO_LARGE  (64u << 20)
#define MICRO_SPACES 10000u

struct micro_case {
    const char *name, *what;
    uint64_t bytes; /* of one round; 0: rounds are what counts */
    void (*run)(struct micro *m, uint64_t rounds);
};

/* Group commit of records of 4 KiB; batch is set by the caller, at most 64. */
#define MICRO_COMMITS 3u
struct micro_commit_result {
    uint32_t batch; /* records a commit */
    double ns;      /* wall time a record, durable */
    double cpu_ns;  /* of the whole process, the kernel's workers too */
    double disk_ns; /* wall time a record of one write and one sync a batch: the limit */
};
/* Measures in a temporary folder below dir; false after a line on stderr. */
bool micro_commit(const char *dir, double seconds, struct micro_commit_result *results);

extern const struct micro_case micro_cases[];
extern const size_t micro_case_count;

#endif
