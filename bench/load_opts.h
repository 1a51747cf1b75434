/*
 * bench/load_opts.h - what load and idle have in common: where to connect, how, as whom.
 */
#ifndef HIKYAKU_BENCH_LOAD_OPTS_H
#define HIKYAKU_BENCH_LOAD_OPTS_H

#include "bench/driver.h"
#include "bench/opts.h"

struct load_opts {
    struct driver *driver;
    char user[128], password[256];
    const char *tls_version;
    uint64_t sessions, source_ips, timeout_s, server_pid, connecting;
};

#define LOAD_OPTS_COMMON_COUNT 11u

/* Writes the common rows to rows; count of them. */
size_t load_opts_rows(struct load_opts *o, struct bench_opt *rows);
/* After parsing: -1, or an exit status. Fills in the driver and makes its TLS context. */
int load_opts_apply(struct load_opts *o, const struct bench_opt_table *table);

#endif
