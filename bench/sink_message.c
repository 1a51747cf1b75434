/*
 * bench/sink_message.c - what the sink does with a message: keeps it, checks it, writes its record.
 *
 * Owns:     nothing; the file and the sums are the connection's, the record the sink's.
 * Runs on:  one thread.
 * Contract: a message has its record before its 250; a record is one line of JSON.
 * Failure:  a message that cannot be kept is counted and refused with 451.
 * Bounds:   those of the conversation.
 * Tests:    tests/unit/test_bench_text.c, tests/unit/test_bench_maildir.c; load runs.
 */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "bench/sink_internal.h"

static void message_begin(void *ctx)
{
    struct sink_conn *c = ctx;
    if (c->sink->maildir != NULL)
        bench_maildir_begin(c->sink->maildir, &c->file);
    if (c->sink->record_fd >= 0)
        bench_audit_begin(&c->audit);
}

static void message_body(void *ctx, const char *data, size_t count)
{
    struct sink_conn *c = ctx;
    if (c->sink->maildir != NULL)
        bench_maildir_add(&c->file, data, count);
    if (c->sink->record_fd >= 0)
        bench_audit_add(&c->audit, &c->sink->crc_table, data, count);
}

static void add_field(struct sink_conn *c, const char *key, const char *field)
{
    size_t count = 0;
    const char *value = bench_audit_field(&c->audit, field, &count);
    bench_buf_printf(&c->sink->record, ",\"%s\":", key);
    if (value != NULL)
        bench_buf_json(&c->sink->record, value, count);
    else
        bench_buf_str(&c->sink->record, "null");
}

static void add_record(struct sink_conn *c)
{
    struct bench_buf *out = &c->sink->record;
    const struct bench_smtpd *s = &c->smtpd;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    bench_buf_printf(out, "{\"time\":%lld.%06ld,\"from\":", (long long)now.tv_sec,
                     now.tv_nsec / 1000);
    bench_buf_json(out, bench_buf_head(&s->from), strlen(bench_buf_head(&s->from)));
    bench_buf_str(out, ",\"rcpts\":[");
    const char *rcpt = bench_buf_head(&s->rcpts);
    for (size_t i = 0; i < s->rcpt_count; i++) {
        bench_buf_str(out, i > 0 ? "," : "");
        bench_buf_json(out, rcpt, strlen(rcpt));
        rcpt += strlen(rcpt) + 1;
    }
    bench_buf_printf(out,
                     "],\"size\":%" PRIu64 ",\"crc32\":\"%08x\",\"body_size\":%" PRIu64
                     ",\"body_crc32\":\"%08x\"",
                     c->audit.size, c->audit.crc32, c->audit.body_size, c->audit.body_crc32);
    add_field(c, "id", "X-Bench-Id");
    add_field(c, "message_id", "Message-ID");
    bench_buf_printf(out, ",\"tls\":%s,\"auth\":", s->tls ? "true" : "false");
    bench_buf_json(out, s->auth_name, strlen(s->auth_name));
    bench_buf_str(out, ",\"file\":");
    if (c->sink->maildir != NULL)
        bench_buf_json(out, c->file.name, strlen(c->file.name));
    else
        bench_buf_str(out, "null");
    bench_buf_str(out, "}\n");
}

static bool message_end(void *ctx)
{
    struct sink_conn *c = ctx;
    struct sink *s = c->sink;
    if (s->maildir != NULL && !bench_maildir_finish(s->maildir, &c->file)) {
        s->totals.store_failed++;
        return false;
    }
    s->totals.messages++;
    s->totals.recipients += c->smtpd.rcpt_count;
    s->totals.bytes += c->smtpd.size;
    if (s->record_fd >= 0)
        add_record(c);
    return true;
}

static void message_abandon(void *ctx)
{
    struct sink_conn *c = ctx;
    c->sink->totals.abandoned++;
    if (c->sink->maildir != NULL)
        bench_maildir_abandon(c->sink->maildir, &c->file);
}

const struct bench_smtpd_hooks sink_hooks = {message_begin, message_body, message_end,
                                             message_abandon};
