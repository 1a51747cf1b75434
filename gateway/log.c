/*
 * gateway/log.c - one event, one JSON line, into the thread's own ring.
 *
 * Owns:     nothing; a line lives on its maker's stack until log_end copies it into the ring.
 * Runs on:  any thread, each with its own struct log.
 * Contract: a line is whole or not there at all; strings are escaped, so that no peer can forge a
 *           line or a field.
 * Failure:  full ring: the line is dropped and counted (FAULTS 69).
 * Bounds:   LOG_LINE_MAX a line; a field that does not fit is cut and "cut":true is added.
 * Tests:    tests/unit/test_log.c
 */
#include "gateway/log.h"

#include <time.h>

#include "gateway/base/json.h"

#define LINE_RESERVE 32u   /* for ,"cut":true}\n and the head of the ring entry */
#define VALUE_MAX    1024u /* bytes of one string value */

static const struct {
    enum log_level level;
    bool track;
    const char *name;
} events[] = {
#define X(id, level, track, name) [id] = {level, track, name},
    LOG_EVENTS(X)
#undef X
};

static const char *const level_names[] = {"error", "warning", "info", "debug"};

const char *log_event_name(enum log_event e)
{
    return events[e].name;
}

/* Date and time of day are the same for all lines of a second. */
void log_time(struct log *log, struct buf *out)
{
    uint64_t wall = log->wall_ns ? log->wall_ns(log->arg) : 0;
    time_t sec = (time_t)(wall / NS_PER_S);
    struct tm tm;
    if (!log->second_text[0] || log->second != (uint64_t)sec) {
        log->second = (uint64_t)sec;
        gmtime_r(&sec, &tm);
        strftime(log->second_text, sizeof log->second_text, "%Y-%m-%dT%H:%M:%S", &tm);
    }
    buf_add_str(out, log->second_text);
    buf_add_byte(out, '.');
    buf_add_number(out, wall % NS_PER_S / NS_PER_US, 6);
}

void log_begin(struct log_line *l, struct log *log, enum log_event event)
{
    bool shown = events[event].level <= log->level, tracked = events[event].track;
    l->log = log->ring && (shown || (tracked && log->tracking)) ? log : NULL;
    if (!l->log)
        return;
    l->event = event;
    l->buf = buf_over(l->bytes, sizeof l->bytes);
    /* The first byte tells the writer where the line goes; it is not put out. */
    buf_add_byte(&l->buf, !tracked ? LOG_SHOWN : shown ? LOG_BOTH : LOG_TRACKED);
    buf_add_str(&l->buf, "{\"time\":\"");
    log_time(log, &l->buf);
    buf_add_str(&l->buf, "Z\",\"level\":\"");
    buf_add_str(&l->buf, level_names[events[event].level]);
    buf_add_str(&l->buf, "\",\"event\":\"");
    buf_add_str(&l->buf, events[event].name);
    buf_add_byte(&l->buf, '"');
    if (log->shard == LOG_NO_SHARD)
        return;
    buf_add_str(&l->buf, ",\"shard\":");
    buf_add_number(&l->buf, log->shard, 1);
}

static bool field(struct log_line *l, const char *key)
{
    if (!l->log)
        return false;
    if (buf_room(&l->buf) < strlen(key) + 2 * LINE_RESERVE) {
        l->buf.overflow = true;
        return false;
    }
    buf_add_str(&l->buf, ",\"");
    buf_add_str(&l->buf, key);
    buf_add_str(&l->buf, "\":");
    return true;
}

void log_slice(struct log_line *l, const char *key, struct slice v)
{
    if (!field(l, key))
        return;
    if (!json_string(&l->buf, slice_head(v, VALUE_MAX), LINE_RESERVE) || v.len > VALUE_MAX)
        l->buf.overflow = true;
}

void log_str(struct log_line *l, const char *key, const char *v)
{
    log_slice(l, key, slice_str(v));
}

void log_u64(struct log_line *l, const char *key, uint64_t v)
{
    if (field(l, key))
        buf_add_number(&l->buf, v, 1);
}

void log_bool(struct log_line *l, const char *key, bool v)
{
    if (field(l, key))
        buf_add_str(&l->buf, v ? "true" : "false");
}

void log_end(struct log_line *l)
{
    if (!l->log)
        return;
    if (l->buf.overflow)
        buf_add_str(&l->buf, ",\"cut\":true");
    buf_add_str(&l->buf, "}\n");
    if (!ring_bytes_write(l->log->ring, l->buf.ptr, l->buf.len))
        l->log->dropped++;
}
