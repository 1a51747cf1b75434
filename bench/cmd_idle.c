/*
 * bench/cmd_idle.c - the idle command: open sessions, hold them, read the server's memory.
 *
 * Owns:     the options of the run.
 * Runs on:  one thread.
 * Contract: memory is read before the first session, once all are up, and again after the hold.
 * Failure:  exit 1 when fewer sessions than asked for came up or stayed.
 * Bounds:   --hold, and --timeout a session on its way up; IDLE_CONNECTING at once by default, so
 *           that the server's backlog is not what is measured.
 * Tests:    run against sink; tests/unit/test_bench_client.c (hold)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/load_opts.h"
#include "bench/proc.h"

#define IDLE_CONNECTING 128u
#define IDLE_SETTLE_MS  1000u

struct idle_result {
    uint32_t up, stayed;
    double setup_seconds;
    struct bench_proc_usage before, filled, held;
};

static const char summary[] = "Opens N sessions, goes through EHLO, TLS and AUTH as asked, holds "
                              "them and reads the server's\n"
                              "memory from /proc: bytes a session are (all up - before) / N. Run "
                              "it against a freshly started\n"
                              "server, and again with another N, to see what is fixed cost.";

static double per_session(const struct idle_result *r, uint64_t before, uint64_t after)
{
    return r->up > 0 ? ((double)after - (double)before) / (double)r->up : 0;
}

static void print_result(const struct idle_result *r, const struct driver *d, bool json,
                         bool server)
{
    double rss = per_session(r, r->before.rss_bytes, r->filled.rss_bytes);
    double pss = per_session(r, r->before.pss_bytes, r->filled.pss_bytes);
    double cpu = r->held.cpu_seconds - r->filled.cpu_seconds;
    if (json) {
        printf("{\"sessions\":%u,\"up\":%u,\"stayed\":%u,\"setup_seconds\":%.3f", d->session_count,
               r->up, r->stayed, r->setup_seconds);
        if (server)
            printf(",\"rss_before\":%" PRIu64 ",\"rss_up\":%" PRIu64 ",\"rss_held\":%" PRIu64
                   ",\"rss_per_session\":%.0f,\"pss_per_session\":%.0f"
                   ",\"cpu_seconds_held\":%.3f",
                   r->before.rss_bytes, r->filled.rss_bytes, r->held.rss_bytes, rss, pss, cpu);
        printf("}\n");
        return;
    }
    printf("sessions           %u of %u up in %.2f s, %u still up after the hold\n", r->up,
           d->session_count, r->setup_seconds, r->stayed);
    if (d->tls_text[0] != '\0')
        printf("tls                %s\n", d->tls_text);
    if (server)
        printf("server memory      %.2f KiB a session (PSS %.2f); RSS %.1f MiB before, %.1f MiB "
               "all up, %.1f MiB after the hold; %u processes\n"
               "server CPU         %.2f s while idle\n",
               rss / 1024, pss / 1024, (double)r->before.rss_bytes / 1048576.0,
               (double)r->filled.rss_bytes / 1048576.0, (double)r->held.rss_bytes / 1048576.0,
               r->held.process_count, cpu);
    for (size_t i = 0; i < DRIVER_ERROR_KINDS && d->stats.errors[i].count > 0; i++)
        printf("error              %" PRIu64 " x %s\n", d->stats.errors[i].count,
               d->stats.errors[i].name);
}

static void rounds_for(struct driver *d, uint64_t ms)
{
    uint64_t end = bench_clock_ns() + ms * 1000000ull;
    while (!bench_stop_requested && bench_clock_ns() < end)
        driver_round(d, 50);
}

static void fill(struct driver *d)
{
    /* sessions that fail do not come back, so this ends: each has its timeout */
    while (!bench_stop_requested &&
           (d->connecting_count > 0 || !TAILQ_EMPTY(&d->waiting) || !TAILQ_EMPTY(&d->backoff)))
        driver_round(d, 50);
}

static int measure(struct driver *d, pid_t server, uint64_t hold_s, bool json)
{
    struct idle_result r = {0};
    if (server > 0 && !bench_proc_read(server, &r.before)) {
        fprintf(stderr, "hikyaku-bench idle: --server-pid %d: no such process\n", (int)server);
        return BENCH_EXIT_FAILED;
    }
    if (!driver_start(d))
        return BENCH_EXIT_FAILED;
    uint64_t begun = bench_clock_ns();
    fill(d);
    r.setup_seconds = (double)(bench_clock_ns() - begun) / 1e9;
    rounds_for(d, IDLE_SETTLE_MS);
    r.up = d->ready_count;
    bool read = server > 0 && bench_proc_read(server, &r.filled);
    rounds_for(d, hold_s * 1000);
    r.stayed = d->ready_count;
    read = read && bench_proc_read(server, &r.held);
    d->run.stop = true;
    driver_quit_held(d);
    uint64_t grace_end = bench_clock_ns() + BENCH_GRACE_MS * 1000000ull;
    while (!driver_finished(d) && bench_clock_ns() < grace_end)
        driver_round(d, 50);
    print_result(&r, d, json, read);
    driver_stop(d);
    return r.stayed == d->session_count && (read || server == 0) ? BENCH_EXIT_OK
                                                                 : BENCH_EXIT_FAILED;
}

int bench_cmd_idle(int argc, char **argv)
{
    struct driver *d = calloc(1, sizeof(*d));
    uint64_t hold_s = BENCH_SECONDS_DEFAULT;
    bool json = false;
    if (d == NULL)
        return BENCH_EXIT_FAILED;
    struct load_opts common = {
        .driver = d, .sessions = 1000, .timeout_s = 30, .connecting = IDLE_CONNECTING};
    d->record_fd = -1;
    d->run = (struct bench_client_run){.helo = "client.bench.test", .hold = true};
    struct bench_opt rows[LOAD_OPTS_COMMON_COUNT + 2];
    size_t count = load_opts_rows(&common, rows);
    rows[count++] =
        (struct bench_opt){"--hold",          "SECONDS", BENCH_OPT_COUNT,         &hold_s, 0,
                           BENCH_SECONDS_MAX, NULL,      "hold the sessions (10)"};
    rows[count++] = (struct bench_opt){
        "--json", NULL, BENCH_OPT_FLAG, &json, 0, 0, NULL, "one line of JSON on stdout"};
    const struct bench_opt_table table = {"idle", summary, rows, count};
    int status = bench_opts_parse(&table, argc, argv);
    if (status < 0)
        status = load_opts_apply(&common, &table);
    if (status < 0) {
        bench_stop_install();
        status = measure(d, (pid_t)common.server_pid, hold_s, json);
    }
    bench_tls_context_free(d->tls);
    free(d);
    return status;
}
