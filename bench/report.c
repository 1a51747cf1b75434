/*
 * bench/report.c - prints what a load run measured.
 *
 * Owns:     nothing.
 * Runs on:  the main thread, after the run.
 * Contract: figures without their conditions are not printed: the generator's own share of a core
 *           is always beside them.
 * Failure:  none.
 * Bounds:   none.
 * Tests:    by hand; tests/unit/test_bench_hist.c for the quantiles.
 */
#include "bench/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const double quantiles[] = {0.5, 0.9, 0.99, 0.999, 0.9999};
static const char *const quantile_names[] = {"p50", "p90", "p99", "p99_9", "p99_99"};
#define QUANTILE_COUNT (sizeof(quantiles) / sizeof(quantiles[0]))

double report_seconds(const struct report *r)
{
    const struct driver_stats *s = &r->driver->stats;
    uint64_t end = s->last_acked_ns > r->begun_ns ? s->last_acked_ns : r->ended_ns;
    return (double)(end - r->begun_ns) / 1e9;
}

double report_own_share(const struct report *r)
{
    double wall = (double)(r->ended_ns - r->begun_ns) / 1e9;
    return wall > 0 ? r->own_cpu_seconds / wall : 0;
}

double report_own_wait(const struct report *r)
{
    double wall = (double)(r->ended_ns - r->begun_ns) / 1e9;
    return wall > 0 ? r->own_wait_seconds / wall : 0;
}

bool report_own_limit(const struct report *r)
{
    return r->driver->stats.acked > 0 &&
           report_own_share(r) + report_own_wait(r) > REPORT_GENERATOR_LIMIT;
}

static double per_second(const struct report *r, uint64_t count)
{
    double seconds = report_seconds(r);
    return seconds > 0 ? (double)count / seconds : 0;
}

static double server_cpu(const struct report *r)
{
    return r->after.cpu_seconds - r->before.cpu_seconds;
}

static double server_cpu_us(const struct report *r)
{
    uint64_t acked = r->driver->stats.acked;
    return acked > 0 ? server_cpu(r) * 1e6 / (double)acked : 0;
}

static void text_hist(const char *name, const struct bench_hist *h)
{
    if (h->count == 0)
        return;
    printf("%-18s", name);
    for (size_t i = 0; i < QUANTILE_COUNT; i++)
        printf(" %s %.3f", quantile_names[i], (double)bench_hist_quantile(h, quantiles[i]) / 1e6);
    printf(" max %.3f mean %.3f ms (%" PRIu64 ")\n", (double)h->max / 1e6, bench_hist_mean(h) / 1e6,
           h->count);
}

static void text_counters(const char *title, const struct driver_counter *c, size_t size)
{
    for (size_t i = 0; i < size && c[i].count > 0; i++)
        printf("%-18s %" PRIu64 " x %s\n", title, c[i].count, c[i].name);
}

static void text_faults(const struct driver_stats *s)
{
    for (int i = 1; i < BENCH_FAULT_COUNT; i++) {
        const struct driver_fault *f = &s->faults[i];
        if (f->begun > 0)
            printf("fault              %" PRIu64 " x %s: %" PRIu64 " accepted, %" PRIu64
                   " refused, %" PRIu64 " cut by the server\n",
                   f->begun, bench_fault_name((enum bench_fault)i), f->accepted, f->refused,
                   f->cut);
    }
}

static void json_faults(struct bench_buf *out, const struct driver_stats *s)
{
    const char *comma = "";
    bench_buf_str(out, ",\"faults\":{");
    for (int i = 1; i < BENCH_FAULT_COUNT; i++) {
        const struct driver_fault *f = &s->faults[i];
        if (f->begun == 0)
            continue;
        bench_buf_printf(out,
                         "%s\"%s\":{\"begun\":%" PRIu64 ",\"accepted\":%" PRIu64
                         ",\"refused\":%" PRIu64 ",\"cut\":%" PRIu64 "}",
                         comma, bench_fault_name((enum bench_fault)i), f->begun, f->accepted,
                         f->refused, f->cut);
        comma = ",";
    }
    bench_buf_str(out, "}");
}

void report_text(const struct report *r)
{
    const struct driver_stats *s = &r->driver->stats;
    printf("messages           %" PRIu64 " acknowledged, %" PRIu64 " refused, %" PRIu64
           " lost in %.3f s\n",
           s->acked, s->refused, s->lost, report_seconds(r));
    printf("rate               %.0f messages/s, %.1f MB/s sent\n", per_second(r, s->acked),
           per_second(r, s->bytes_sent) / 1e6);
    printf("connections        %" PRIu64 " (%.0f/s), %" PRIu64 " failed\n", s->connections,
           per_second(r, s->connections), s->connections_failed);
    if (s->tls_handshakes > 0)
        printf("tls                %" PRIu64 " handshakes (%.0f/s), %" PRIu64 " resumed, %s\n",
               s->tls_handshakes, per_second(r, s->tls_handshakes), s->tls_resumed,
               r->driver->tls_text);
    text_hist("end of data to 250", &s->eod_ns);
    text_hist("session", &s->session_ns);
    text_hist("connect to MAIL", &s->setup_ns);
    text_hist("due to 250", &s->open_ns);
    if (r->has_server) {
        printf("server             %.2f s CPU, %.1f us a message", server_cpu(r), server_cpu_us(r));
        if (s->connections > 0)
            printf(", %.1f us a session", server_cpu(r) * 1e6 / (double)s->connections);
        printf("; %u processes, RSS %.1f MiB\n", r->after.process_count,
               (double)r->after.rss_bytes / 1048576.0);
    }
    printf("generator          %.0f %% of a core, %.0f %% waiting for one%s\n",
           report_own_share(r) * 100, report_own_wait(r) * 100,
           report_own_limit(r) ? ": IT WAS THE LIMIT; trust CPU per message, not the rate" : "");
    text_counters("refused", s->refusals, DRIVER_REFUSAL_KINDS);
    text_counters("error", s->errors, DRIVER_ERROR_KINDS);
    text_faults(s);
}

static void json_hist(struct bench_buf *out, const char *name, const struct bench_hist *h)
{
    bench_buf_printf(out, ",\"%s\":{\"count\":%" PRIu64, name, h->count);
    for (size_t i = 0; i < QUANTILE_COUNT; i++)
        bench_buf_printf(out, ",\"%s\":%.3f", quantile_names[i],
                         (double)bench_hist_quantile(h, quantiles[i]) / 1e6);
    bench_buf_printf(out, ",\"max\":%.3f,\"mean\":%.3f}", (double)h->max / 1e6,
                     bench_hist_mean(h) / 1e6);
}

static void json_counters(struct bench_buf *out, const char *name, const struct driver_counter *c,
                          size_t size)
{
    bench_buf_printf(out, ",\"%s\":{", name);
    for (size_t i = 0; i < size && c[i].count > 0; i++) {
        bench_buf_str(out, i > 0 ? "," : "");
        bench_buf_json(out, c[i].name, strlen(c[i].name));
        bench_buf_printf(out, ":%" PRIu64, c[i].count);
    }
    bench_buf_str(out, "}");
}

void report_json(const struct report *r)
{
    const struct driver *d = r->driver;
    const struct driver_stats *s = &d->stats;
    struct bench_buf out = {0};
    bench_buf_str(&out, "{\"run\":");
    bench_buf_json(&out, d->run.run_id, strlen(d->run.run_id));
    bench_buf_printf(&out,
                     ",\"sessions\":%u,\"messages_per_session\":%" PRIu64 ",\"size\":%" PRIu64
                     ",\"pipeline\":%d,\"body_crc32\":\"%08x\""
                     ",\"seconds\":%.6f,\"acked\":%" PRIu64 ",\"refused\":%" PRIu64
                     ",\"lost\":%" PRIu64 ",\"rcpts_acked\":%" PRIu64
                     ",\"messages_per_second\":%.1f,\"bytes_sent\":%" PRIu64,
                     d->session_count, d->run.messages_per_session, d->run.message_size,
                     (int)d->run.pipeline, r->body_crc32, report_seconds(r), s->acked, s->refused,
                     s->lost, s->rcpts_acked, per_second(r, s->acked), s->bytes_sent);
    bench_buf_printf(&out,
                     ",\"connections\":%" PRIu64 ",\"connections_failed\":%" PRIu64
                     ",\"connections_per_second\":%.1f,\"tls_handshakes\":%" PRIu64
                     ",\"tls_resumed\":%" PRIu64 ",\"tls\":",
                     s->connections, s->connections_failed, per_second(r, s->connections),
                     s->tls_handshakes, s->tls_resumed);
    bench_buf_json(&out, d->tls_text, strlen(d->tls_text));
    json_hist(&out, "eod_ms", &s->eod_ns);
    json_hist(&out, "session_ms", &s->session_ns);
    json_hist(&out, "setup_ms", &s->setup_ns);
    json_hist(&out, "open_ms", &s->open_ns);
    if (r->has_server)
        bench_buf_printf(&out,
                         ",\"server\":{\"cpu_seconds\":%.3f,\"cpu_us_per_message\":%.2f"
                         ",\"processes\":%u,\"rss_bytes\":%" PRIu64 ",\"pss_bytes\":%" PRIu64
                         ",\"switches\":%" PRId64 "}",
                         server_cpu(r), server_cpu_us(r), r->after.process_count,
                         r->after.rss_bytes, r->after.pss_bytes,
                         (int64_t)(r->after.switches - r->before.switches));
    bench_buf_printf(&out,
                     ",\"generator_share\":%.3f,\"generator_wait\":%.3f"
                     ",\"generator_was_limit\":%s",
                     report_own_share(r), report_own_wait(r),
                     report_own_limit(r) ? "true" : "false");
    json_counters(&out, "refusals", s->refusals, DRIVER_REFUSAL_KINDS);
    json_counters(&out, "errors", s->errors, DRIVER_ERROR_KINDS);
    json_faults(&out, s);
    bench_buf_str(&out, "}\n");
    fwrite(bench_buf_head(&out), 1, bench_buf_count(&out), stdout);
    fflush(stdout);
    bench_buf_free(&out);
}
