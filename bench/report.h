/*
 * bench/report.h - the results of a load run, for people and as JSON.
 */
#ifndef HIKYAKU_BENCH_REPORT_H
#define HIKYAKU_BENCH_REPORT_H

#include "bench/driver.h"
#include "bench/proc.h"

/* Above this share of one core, running or waiting for the core, the generator and not the server
 * may have set the rate. */
#define REPORT_GENERATOR_LIMIT 0.95

struct report {
    const struct driver *driver;
    uint64_t begun_ns, ended_ns;
    double own_cpu_seconds, own_wait_seconds;
    bool has_server;
    struct bench_proc_usage before, after;
    uint32_t body_crc32; /* of the body every message carried */
};

double report_seconds(const struct report *r);   /* until the last acknowledgement */
double report_own_share(const struct report *r); /* of one core: running */
double report_own_wait(const struct report *r);  /* of the time: ready to run, without a core */
bool report_own_limit(const struct report *r);
void report_text(const struct report *r);
void report_json(const struct report *r);

#endif
