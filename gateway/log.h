/*
 * gateway/log.h - events: one table of ids, levels and texts; lines go into the thread's own ring
 * and a writer thread puts them out. Never blocks.
 *
 * The same events feed the JSON log, the tracking log (TRACK events) and metrics. Message text is
 * never logged, credentials never reach this module.
 */
#ifndef HIKYAKU_LOG_H
#define HIKYAKU_LOG_H

#include "gateway/base/buf.h"
#include "gateway/base/ring.h"
#include "gateway/base/why.h"
#include "gateway/limits.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* id, level, goes to the tracking log, name in the log */
#define LOG_EVENTS(X)                                           \
    X(EV_START, LOG_INFO, false, "start")                       \
    X(EV_STOP, LOG_INFO, false, "stop")                         \
    X(EV_RELOAD, LOG_INFO, false, "reload")                     \
    X(EV_RELOAD_FAILED, LOG_ERROR, false, "reload-failed")      \
    X(EV_LISTEN, LOG_INFO, false, "listen")                     \
    X(EV_WARNING, LOG_WARNING, false, "warning")                \
    X(EV_LANE, LOG_WARNING, false, "lane")                      \
    X(EV_DAMAGED, LOG_ERROR, false, "damaged-record")           \
    X(EV_RECOVERED, LOG_INFO, false, "recovered")               \
    X(EV_SESSION_OPEN, LOG_DEBUG, false, "session-open")        \
    X(EV_PROXIED, LOG_DEBUG, false, "proxied")                  \
    X(EV_SESSION_CLOSE, LOG_DEBUG, false, "session-close")      \
    X(EV_SESSION_REFUSED, LOG_INFO, false, "session-refused")   \
    X(EV_TLS_FAILED, LOG_INFO, false, "tls-failed")             \
    X(EV_AUTH_OK, LOG_DEBUG, false, "auth-ok")                  \
    X(EV_AUTH_FAILED, LOG_WARNING, false, "auth-failed")        \
    X(EV_REFUSED, LOG_INFO, true, "refused")                    \
    X(EV_ACCEPTED, LOG_INFO, true, "accepted")                  \
    X(EV_ROUTED, LOG_DEBUG, true, "routed")                     \
    X(EV_UNREACHABLE, LOG_WARNING, true, "unreachable")         \
    X(EV_DELIVERED, LOG_INFO, true, "delivered")                \
    X(EV_DEFERRED, LOG_INFO, true, "deferred")                  \
    X(EV_FAILED, LOG_WARNING, true, "failed")                   \
    X(EV_EXPIRED, LOG_WARNING, true, "expired")                 \
    X(EV_DSN, LOG_INFO, true, "dsn")                            \
    X(EV_WITHDRAWN, LOG_WARNING, true, "withdrawn")             \
    X(EV_DUP_POSSIBLE, LOG_WARNING, true, "dup_possible")       \
    X(EV_HELD, LOG_WARNING, true, "held")                       \
    X(EV_POISON, LOG_ERROR, true, "poison")                     \
    X(EV_OPERATOR, LOG_INFO, true, "operator")                  \
    X(EV_HANDOFF_PREPARED, LOG_DEBUG, true, "handoff-prepared") \
    X(EV_HANDOFF_TAKEN, LOG_INFO, true, "handoff-taken")        \
    X(EV_HANDOFF_DROPPED, LOG_INFO, true, "handoff-dropped")    \
    X(EV_HANDOFF_GIVEN, LOG_INFO, true, "handoff-given")        \
    X(EV_HANDOFF_FAILED, LOG_WARNING, true, "handoff-failed")   \
    X(EV_PRESSURE, LOG_WARNING, false, "pressure")              \
    X(EV_SITE_DOWN, LOG_WARNING, false, "site-down")            \
    X(EV_SITE_UP, LOG_INFO, false, "site-up")

/* First byte of a line in a ring: standard error, the tracking log, or both; the protocol log of
 * connections that came in, or went out. */
#define LOG_SHOWN   'L'
#define LOG_TRACKED 't'
#define LOG_BOTH    'T'
#define LOG_RECEIVE 'r'
#define LOG_SEND    's'

enum log_event {
#define X(id, level, track, name) id,
    LOG_EVENTS(X)
#undef X
        LOG_EVENT_COUNT
};

/* A thread that is no shard; its lines name none. */
#define LOG_NO_SHARD UINT32_MAX

/* One thread's end. */
struct log {
    struct ring_bytes *ring; /* NULL: nowhere */
    enum log_level level;
    bool tracking;    /* there is a tracking log: its events are made at any level */
    uint64_t dropped; /* lines that found the ring full */
    uint64_t (*wall_ns)(void *arg);
    void *arg;
    uint32_t shard;
    uint64_t second;      /* the one that second_text is about */
    char second_text[20]; /* 2026-11-22T03:46:02, or "" */
};

/* A line under construction, on the caller's stack. Fields are JSON-escaped; what does not fit is
 * cut and the line says so. */
struct log_line {
    struct log *log; /* NULL: the event is below the level and everything is skipped */
    enum log_event event;
    struct buf buf;
    uint8_t bytes[LOG_LINE_MAX];
};

const char *log_event_name(enum log_event e);
/* "2026-11-22T03:46:02.123456", now. */
void log_time(struct log *log, struct buf *out);
void log_begin(struct log_line *l, struct log *log, enum log_event event);
void log_slice(struct log_line *l, const char *key, struct slice value);
void log_str(struct log_line *l, const char *key, const char *value);
void log_u64(struct log_line *l, const char *key, uint64_t value);
void log_bool(struct log_line *l, const char *key, bool value);
void log_end(struct log_line *l);

/* The writer thread: drains every ring to stderr (JSON or text), the tracking file and the protocol
 * logs; reopens files after log_writer_reopen. */
struct log_writer;
struct log_writer_params {
    bool json;
    const char *tracking;                     /* path or NULL */
    uint64_t tracking_bytes, tracking_keep_s; /* 0: never rotated; never removed */
    struct ring_bytes **rings;
    uint32_t ring_count;
    const char *protocol; /* folder of receive.log and send.log, or NULL; made if it is not there */
    uint64_t protocol_bytes, protocol_keep_s;
    uint64_t protocol_folder_bytes; /* of all packed ones */
    struct ring_bytes **protocol_rings;
    uint32_t protocol_ring_count;
};
struct log_writer *log_writer_start(const struct log_writer_params *p, struct why *why);
void log_writer_reopen(struct log_writer *w);
/* Drains everything, ends the thread. */
void log_writer_stop(struct log_writer *w);

#endif
