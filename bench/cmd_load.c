/*
 * bench/cmd_load.c - the load command: closed-loop sessions that send messages, and what it cost.
 *
 * Owns:     the options of the run.
 * Runs on:  one thread.
 * Contract: stops by itself at --messages, --seconds or a stop signal, whichever comes first; then
 *           BENCH_GRACE_MS for what is in flight.
 * Failure:  exit 1 when a message was refused or lost or a session failed (not with --keep-going).
 * Bounds:   BENCH_SECONDS_DEFAULT without --messages, BENCH_SECONDS_CAP_DEFAULT with it.
 * Tests:    run against null and sink; tests/unit/test_bench_client.c
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/crc32.h"
#include "bench/load_opts.h"
#include "bench/report.h"

struct load_options {
    struct load_opts common;
    uint64_t messages, messages_per_session, seconds, size, rcpt_count, rate;
    bool pipeline, pipeline_deep, json;
    const char *record;
    char run_id[48];
};

static const char summary[] =
    "Closed-loop load: N sessions, each sends the next message when the last one was answered.\n"
    "Open-loop load (--rate): messages are due at fixed times; N sessions at most send them, and\n"
    "'due to 250' counts from the time a message was due, so that a server that stalls is not\n"
    "spared (no coordinated omission).\n"
    "Every message carries its own id (X-Bench-Id: RUN-SESSION-NUMBER). Messages are made of\n"
    "printable lines with CRLF; --size counts header and body. It stops by itself, at --messages\n"
    "or --seconds, whichever comes first (without either: 10 seconds). Exit status 1 when\n"
    "something was refused, lost or failed, unless --keep-going.";

static const char *option_mix(void *target, const char *text)
{
    const struct bench_size_mix **mix = target;
    *mix = bench_size_mix_find(text);
    return *mix != NULL ? NULL : "expected mail or small";
}

static const char *option_fault(void *target, const char *text)
{
    return bench_fault_add(target, text);
}

static int parse(struct load_options *o, struct driver *d, int argc, char **argv)
{
    const struct bench_opt own[] = {
        {"--messages", "TOTAL", BENCH_OPT_COUNT, &o->messages, 0, UINT64_MAX, NULL,
         "stop after this many messages"},
        {"--seconds", "S", BENCH_OPT_COUNT, &o->seconds, 0, BENCH_SECONDS_MAX, NULL,
         "begin no message after this time"},
        {"--messages-per-session", "M", BENCH_OPT_COUNT, &o->messages_per_session, 0, UINT64_MAX,
         NULL, "QUIT and connect again after this many (1); 0: never"},
        {"--size", "BYTES", BENCH_OPT_SIZE, &o->size, BENCH_MESSAGE_SIZE_MIN,
         BENCH_MESSAGE_SIZE_MAX, NULL, "header and body (4KiB)"},
        {"--size-mix", "NAME", BENCH_OPT_CALL, &d->run.mix, 0, 0, option_mix,
         "mail or small: sizes as bench/README.md lists them, instead of --size"},
        {"--rate", "R", BENCH_OPT_COUNT, &o->rate, 0, BENCH_RATE_MAX, NULL,
         "open loop: R messages a second are due, whatever the server does; 0: closed"},
        {"--rcpt-count", "K", BENCH_OPT_COUNT, &o->rcpt_count, 1, BENCH_RCPT_COUNT_MAX, NULL,
         "recipients a message (1)"},
        {"--from", "PATTERN", BENCH_OPT_STRING, &d->run.from, 0, 0, NULL,
         "sender; % becomes the session's number (sender%@bench.test)"},
        {"--to-pattern", "PATTERN", BENCH_OPT_STRING, &d->run.to, 0, 0, NULL,
         "recipients; % becomes a running number (user%@bench.test)"},
        {"--to-count", "N", BENCH_OPT_COUNT, &d->run.to_number_max, 1, UINT64_MAX, NULL,
         "different recipients: the number runs from 0 to N-1 (1000)"},
        {"--pipeline", NULL, BENCH_OPT_FLAG, &o->pipeline, 0, 0, NULL,
         "MAIL, RCPT and DATA in one group"},
        {"--pipeline-deep", NULL, BENCH_OPT_FLAG, &o->pipeline_deep, 0, 0, NULL,
         "and the next envelope right behind the final dot"},
        {"--resume", NULL, BENCH_OPT_FLAG, &d->tls_resume, 0, 0, NULL,
         "resume the TLS session of the last connection"},
        {"--keep-going", NULL, BENCH_OPT_FLAG, &d->keep_going, 0, 0, NULL,
         "connect again after an error; lost messages are begun again under new ids"},
        {"--record", "FILE", BENCH_OPT_STRING, &o->record, 0, 0, NULL,
         "write the id of each acknowledged message, a line each, at once"},
        {"--run-id", "TEXT", BENCH_OPT_STRING, &d->run.run_id, 0, 0, NULL,
         "first part of the ids (time and process)"},
        {"--fault", "KIND=PERCENT", BENCH_OPT_CALL, &d->faults, 0, 0, option_fault,
         "so many connections misbehave with their first message: vanish-mail, vanish-data, "
         "vanish-dot, half-close, slow, long-command, bad-command, long-line, bare-lf; may be "
         "repeated"},
        {"--fault-seed", "N", BENCH_OPT_COUNT, &d->faults.seed, 0, UINT64_MAX, NULL,
         "another choice of those connections (0)"},
        {"--slow-rate", "BYTES", BENCH_OPT_SIZE, &d->faults.slow_bytes, 1, BENCH_MESSAGE_SIZE_MAX,
         NULL, "bytes a second of slow ones (1KiB)"},
        {"--chunk", "BYTES", BENCH_OPT_SIZE, &d->chunk, BENCH_CHUNK_MIN, BENCH_CHUNK_MAX, NULL,
         "of a large body sent at once (256KiB)"},
        {"--json", NULL, BENCH_OPT_FLAG, &o->json, 0, 0, NULL, "one line of JSON on stdout"},
    };
    struct bench_opt rows[LOAD_OPTS_COMMON_COUNT + sizeof(own) / sizeof(own[0])];
    size_t count = load_opts_rows(&o->common, rows);
    memcpy(rows + count, own, sizeof(own));
    const struct bench_opt_table table = {"load", summary, rows,
                                          count + sizeof(own) / sizeof(own[0])};
    int status = bench_opts_parse(&table, argc, argv);
    if (status >= 0)
        return status;
    if (strpbrk(d->run.run_id, " \r\n") != NULL || strlen(d->run.run_id) > 64)
        return bench_opts_error(&table, "--run-id: at most 64 characters without spaces");
    if (d->tls_resume && d->tls_mode == DRIVER_TLS_NONE)
        return bench_opts_error(&table, "--resume needs --tls");
    if (o->rate > 0 && o->pipeline_deep)
        return bench_opts_error(&table, "--rate and --pipeline-deep exclude each other");
    return load_opts_apply(&o->common, &table);
}

static void prepare(struct load_options *o, struct driver *d)
{
    d->run.message_size = d->run.mix != NULL ? bench_size_mix_max(d->run.mix) : o->size;
    d->interval_ns = o->rate > 0 ? 1000000000u / o->rate : 0;
    d->run.rcpt_count = (uint32_t)o->rcpt_count;
    d->run.messages_per_session = o->messages_per_session;
    d->run.claimed_max = o->messages > 0 ? o->messages : UINT64_MAX;
    if (o->seconds == 0)
        o->seconds = o->messages > 0 ? BENCH_SECONDS_CAP_DEFAULT : BENCH_SECONDS_DEFAULT;
    if (o->pipeline)
        d->run.pipeline = BENCH_PIPELINE_ENVELOPE;
    if (o->pipeline_deep)
        d->run.pipeline = BENCH_PIPELINE_DEEP;
}

static void drive(struct driver *d, uint64_t seconds)
{
    uint64_t deadline = bench_clock_ns() + seconds * 1000000000ull;
    while (!driver_finished(d)) {
        uint64_t now = bench_clock_ns();
        if (!d->run.stop && (now >= deadline || bench_stop_requested)) {
            d->run.stop = true;
            deadline = now;
        }
        if (d->run.stop && now > deadline + BENCH_GRACE_MS * 1000000ull)
            return;
        driver_round(d, 50);
    }
}

static int run(struct load_options *o, struct driver *d)
{
    struct bench_buf body = {0};
    struct bench_crc32_table table;
    struct report report = {.driver = d, .has_server = o->common.server_pid > 0};
    pid_t server = (pid_t)o->common.server_pid;
    bench_client_make_body(&d->run, &body);
    bench_crc32_table_init(&table);
    report.body_crc32 = bench_crc32_add(&table, 0, d->run.body, d->run.body_count);
    if (report.has_server && !bench_proc_read(server, &report.before)) {
        fprintf(stderr, "hikyaku-bench load: --server-pid %d: no such process\n", (int)server);
        bench_buf_free(&body);
        return BENCH_EXIT_FAILED;
    }
    int status = BENCH_EXIT_FAILED;
    double cpu = bench_cpu_self_seconds(), wait = bench_proc_self_wait_seconds();
    report.begun_ns = bench_clock_ns();
    if (driver_start(d)) {
        drive(d, o->seconds);
        report.ended_ns = bench_clock_ns();
        report.own_cpu_seconds = bench_cpu_self_seconds() - cpu;
        report.own_wait_seconds = bench_proc_self_wait_seconds() - wait;
        driver_stop(d);
        /* a server that was killed meanwhile has no figures left to read */
        report.has_server = report.has_server && bench_proc_read(server, &report.after);
        if (o->json)
            report_json(&report);
        else
            report_text(&report);
        const struct driver_stats *s = &d->stats;
        bool clean = s->refused == 0 && s->lost == 0 && s->errors[0].count == 0;
        bool some = s->acked > 0 || d->faults.percent_sum == 100; /* of those none need be taken */
        status = !d->record_failed && some && (clean || o->common.driver->keep_going)
                     ? BENCH_EXIT_OK
                     : BENCH_EXIT_FAILED;
    }
    bench_buf_free(&body);
    return status;
}

int bench_cmd_load(int argc, char **argv)
{
    struct driver *d = calloc(1, sizeof(*d));
    struct load_options o = {.messages_per_session = 1, .size = 4096, .rcpt_count = 1};
    if (d == NULL)
        return BENCH_EXIT_FAILED;
    o.common = (struct load_opts){.driver = d, .sessions = 1, .timeout_s = 30};
    d->record_fd = -1;
    d->faults.slow_bytes = 1024;
    d->chunk = BENCH_CHUNK_MAX;
    snprintf(o.run_id, sizeof(o.run_id), "%llx.%x", (unsigned long long)time(NULL),
             (unsigned)getpid());
    d->run = (struct bench_client_run){.run_id = o.run_id,
                                       .helo = "client.bench.test",
                                       .from = "sender%@bench.test",
                                       .to = "user%@bench.test",
                                       .to_number_max = 1000};
    int status = parse(&o, d, argc, argv);
    if (status >= 0)
        goto out;
    prepare(&o, d);
    if (o.record != NULL) {
        d->record_fd = open(o.record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (d->record_fd < 0) {
            fprintf(stderr, "hikyaku-bench load: --record %s: %s\n", o.record, strerror(errno));
            status = BENCH_EXIT_FAILED;
            goto out;
        }
    }
    bench_stop_install();
    status = run(&o, d);
    if (d->record_fd >= 0)
        close(d->record_fd);
out:
    bench_tls_context_free(d->tls);
    free(d);
    return status;
}
