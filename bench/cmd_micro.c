/*
 * bench/cmd_micro.c - the micro command: what the gateway's inner parts cost, beside the machine's
 * limits.
 *
 * Owns:     the data that the cases work on.
 * Runs on:  one thread; CPU time is counted, so that other work on the machine weighs less.
 * Contract: the best of MICRO_REPEATS runs of each case: what it costs when nothing disturbs.
 * Failure:  exit 1 when something needed could not be made.
 * Bounds:   --seconds for all cases together.
 * Tests:    tests/system/test_bench_suite.py
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "bench/bench.h"
#include "bench/limits.h"
#include "bench/micro.h"
#include "bench/net.h"
#include "bench/opts.h"
#include "routing/route.h"

#define MICRO_REPEATS 5u
#define MICRO_TEXT    65536u

/* Cycles of the time-stamp counter a nanosecond; 0 where there is none. */
static double ticks_per_ns(void)
{
#if defined(__x86_64__)
    uint64_t begun = bench_clock_ns(), ticks = __rdtsc();
    while (bench_clock_ns() - begun < 20000000u)
        continue;
    uint64_t passed = __rdtsc() - ticks;
    return (double)passed / (double)(bench_clock_ns() - begun);
#else
    return 0;
#endif
}

static char *make_lines(size_t line, size_t *len)
{
    char *text = malloc(MICRO_TEXT + 1024);
    if (text == NULL)
        return NULL;
    size_t at = (size_t)sprintf(text, "Subject: lines\r\n\r\n");
    while (at + line <= MICRO_TEXT) {
        for (size_t i = 0; i + 2 < line; i++)
            text[at + i] = (char)('a' + (at + i) % 26);
        at += line;
        text[at - 2] = '\r';
        text[at - 1] = '\n';
    }
    *len = at + (size_t)sprintf(text + at, ".\r\n");
    return text;
}

static struct route_table *make_routes(void)
{
    static char names[MICRO_SPACES][24];
    static struct route_space spaces[MICRO_SPACES];
    for (uint32_t i = 0; i < MICRO_SPACES; i++) {
        snprintf(names[i], sizeof(names[i]), "*.d%04u.example.com", i % 10000u);
        spaces[i] = (struct route_space){.space = names[i], .cost = 10, .weight = 1};
    }
    const struct route_connector connector = {
        .name = "bench", .enabled = true, .spaces = spaces, .space_count = MICRO_SPACES};
    return route_table_create(&connector, 1);
}

/* An established pair; the certificate is the caller's. */
static bool make_tls(struct micro *m, struct bench_tls_context *server,
                     struct bench_tls_context *client)
{
    if (!bench_tls_start(&m->tls_server, server, NULL) ||
        !bench_tls_start(&m->tls_client, client, NULL))
        return false;
    for (int i = 0; i < 16 && !(m->tls_server.established && m->tls_client.established); i++) {
        struct bench_tls *from = i % 2 ? &m->tls_server : &m->tls_client;
        struct bench_tls *to = i % 2 ? &m->tls_client : &m->tls_server;
        if (!from->established && bench_tls_handshake(from) == BENCH_TLS_FAILED)
            return false;
        bench_buf_add(&to->in, bench_buf_head(&from->out), bench_buf_count(&from->out));
        bench_buf_clear(&from->out);
    }
    return m->tls_server.established && m->tls_client.established;
}

static bool prepare(struct micro *m)
{
    m->from = malloc(MICRO_LARGE);
    m->to = malloc(MICRO_LARGE);
    m->plain = calloc(1, 4096);
    m->short_lines = make_lines(78, &m->short_len);
    m->long_lines = make_lines(998, &m->long_len);
    m->routes = make_routes();
    if (!m->from || !m->to || !m->plain || !m->short_lines || !m->long_lines || !m->routes)
        return false;
    memset(m->from, 'x', MICRO_LARGE);
    memset(m->to, 'y', MICRO_LARGE);
    return true;
}

static void discard(struct micro *m)
{
    bench_tls_free(&m->tls_server);
    bench_tls_free(&m->tls_client);
    route_table_destroy(m->routes);
    free(m->from);
    free(m->to);
    free(m->plain);
    free(m->short_lines);
    free(m->long_lines);
}

/* Nanoseconds of CPU a round, the best of several runs. */
static double measure(struct micro *m, const struct micro_case *c, double seconds)
{
    double best = 0;
    uint64_t rounds = 1, ns = 0;
    for (;;) { /* so many rounds that the clock's own cost does not count */
        uint64_t begun = bench_clock_thread_ns();
        c->run(m, rounds);
        ns = bench_clock_thread_ns() - begun;
        if ((double)ns > seconds * 1e9 / (MICRO_REPEATS * 2) || rounds > (1ull << 40))
            break;
        rounds *= 2;
    }
    for (uint32_t i = 0; i < MICRO_REPEATS; i++) {
        double each = (double)ns / (double)rounds;
        if (i == 0 || each < best)
            best = each;
        uint64_t begun = bench_clock_thread_ns();
        c->run(m, rounds);
        ns = bench_clock_thread_ns() - begun;
    }
    return best;
}

static void print(const struct micro_case *c, double ns, double ticks, bool json, bool last)
{
    double mb = c->bytes ? (double)c->bytes / ns * 1e3 : 0;
    double cycles = c->bytes ? ns * ticks / (double)c->bytes : ns * ticks;
    if (json)
        printf("{\"name\":\"%s\",\"ns\":%.2f,\"mb_per_second\":%.0f,\"cycles%s\":%.3f}%s", c->name,
               ns, mb, c->bytes ? "_per_byte" : "", cycles, last ? "]\n" : ",");
    else if (c->bytes)
        printf("%-12s %10.0f MB/s %8.3f cycles/byte   %s\n", c->name, mb, cycles, c->what);
    else
        printf("%-12s %10.1f ns   %8.0f cycles        %s\n", c->name, ns, cycles, c->what);
}

static bool commits(const char *dir, double seconds, bool json)
{
    struct micro_commit_result results[MICRO_COMMITS] = {
        {.batch = 1}, {.batch = 16}, {.batch = 64}};
    if (!micro_commit(dir, seconds, results))
        return false;
    for (size_t i = 0; i < MICRO_COMMITS; i++) {
        const struct micro_commit_result *r = &results[i];
        if (json)
            printf("{\"name\":\"commit-%u\",\"ns\":%.0f,\"cpu_ns\":%.0f,\"disk_ns\":%.0f},",
                   r->batch, r->ns, r->cpu_ns, r->disk_ns);
        else
            printf("commit-%-5u %10.1f us, CPU %.1f us a record of 4 KiB, %u a commit; "
                   "the disk's write and sync alone %.1f us\n",
                   r->batch, r->ns / 1e3, r->cpu_ns / 1e3, r->batch, r->disk_ns / 1e3);
    }
    return true;
}

static const char summary[] =
    "What the gateway does for each byte or command, one part at a time on one core, beside the\n"
    "machine's limits (memcpy in the cache and in memory). CPU time, the best of several runs.\n"
    "Records made durable in a lane (commit-1, -16, -64 a batch): wall and CPU time, beside the\n"
    "disk's own write and sync in --dir. --certificate and --key add TLS records.";

int bench_cmd_micro(int argc, char **argv)
{
    static struct micro m;
    const char *certificate = NULL, *key = NULL, *why = NULL, *dir = ".";
    uint64_t seconds = 4;
    bool json = false;
    const struct bench_opt opts[] = {
        {"--certificate", "FILE", BENCH_OPT_STRING, &certificate, 0, 0, NULL, "PEM"},
        {"--key", "FILE", BENCH_OPT_STRING, &key, 0, 0, NULL, "PEM"},
        {"--dir", "DIR", BENCH_OPT_STRING, &dir, 0, 0, NULL,
         "on the disk that commits are measured on (.)"},
        {"--seconds", "N", BENCH_OPT_COUNT, &seconds, 1, BENCH_SECONDS_MAX, NULL,
         "for all cases together (4)"},
        {"--json", NULL, BENCH_OPT_FLAG, &json, 0, 0, NULL, "a JSON array on stdout"}};
    const struct bench_opt_table table = {"micro", summary, opts, sizeof(opts) / sizeof(opts[0])};
    int status = bench_opts_parse(&table, argc, argv);
    if (status >= 0)
        return status;
    if ((certificate == NULL) != (key == NULL))
        return bench_opts_error(&table, "--certificate and --key come together");
    struct bench_tls_context *server = NULL, *client = NULL;
    bool tls = certificate != NULL;
    if (tls) {
        server = bench_tls_server(certificate, key, &why);
        client = server != NULL ? bench_tls_client("1.3", &why) : NULL;
    }
    status = BENCH_EXIT_FAILED;
    if (!prepare(&m) || (tls && (client == NULL || !make_tls(&m, server, client)))) {
        fprintf(stderr, "hikyaku-bench micro: %s\n", why != NULL ? why : "no memory");
    } else {
        size_t count = micro_case_count - !tls; /* TLS is the last */
        double ticks = ticks_per_ns(), each = (double)seconds / (double)(count + MICRO_COMMITS);
        fputs(json ? "[" : "", stdout);
        bool good = commits(dir, each * MICRO_COMMITS, json);
        for (size_t i = 0; i < count; i++)
            print(&micro_cases[i], measure(&m, &micro_cases[i], each), ticks, json, i + 1 == count);
        status = m.sum != 0 && good ? BENCH_EXIT_OK : BENCH_EXIT_FAILED;
    }
    discard(&m);
    bench_tls_context_free(client);
    bench_tls_context_free(server);
    return status;
}
