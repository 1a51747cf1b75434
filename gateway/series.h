/*
 * gateway/series.h - what is counted for each connector, and how long things take. Part of struct
 * metrics: only the shard writes, others read at any time.
 *
 * Label cost is bounded: SERIES_CONNECTORS_MAX names of each kind have series of their own, given
 * out in the order in which configurations bring them; all others share "other". Names stay for the
 * life of the process, so that a reload leaves counters as they are.
 */
#ifndef HIKYAKU_SERIES_H
#define HIKYAKU_SERIES_H

#include <stdatomic.h>
#include <stdint.h>

#include "gateway/limits.h"

struct config;

#define SERIES_OTHER 0u /* the place of all that have none */
#define SERIES_SLOTS (SERIES_CONNECTORS_MAX + 1)

/* ---- counters: id, metric, outcome, help (the first of a metric counts) ---- */

#define RECEIVE_SERIES(X)                                                           \
    X(RS_SESSIONS, "receive_sessions_total", "accepted", "Inbound sessions.")       \
    X(RS_SESSIONS_REFUSED, "receive_sessions_total", "refused", "")                 \
    X(RS_ACCEPTED, "receive_messages_total", "accepted",                            \
      "Messages that came in: durable and answered 250, or refused.")               \
    X(RS_REJECTED, "receive_messages_total", "refused", "")                         \
    X(RS_RCPT, "receive_recipients_total", "accepted",                              \
      "Recipients of messages that were accepted, or refused at RCPT.")             \
    X(RS_RCPT_REJECTED, "receive_recipients_total", "refused", "")                  \
    X(RS_TLS, "receive_tls_handshakes_total", "full", "Inbound TLS handshakes.")    \
    X(RS_TLS_RESUMED, "receive_tls_handshakes_total", "resumed", "")                \
    X(RS_TLS_FAILED, "receive_tls_handshakes_total", "failed", "")                  \
    X(RS_AUTH_OK, "receive_auth_total", "succeeded", "Authentications by clients.") \
    X(RS_AUTH_FAILED, "receive_auth_total", "failed", "")

#define SEND_SERIES(X)                                                                       \
    X(SS_DELIVERED, "send_recipients_total", "delivered",                                    \
      "Recipients by what became of them in an attempt.")                                    \
    X(SS_DEFERRED, "send_recipients_total", "deferred", "")                                  \
    X(SS_FAILED, "send_recipients_total", "failed", "")                                      \
    X(SS_READY, "send_connections_total", "ready",                                           \
      "Outbound connections that got as far as a transaction, or did not.")                  \
    X(SS_CONNECT_FAILED, "send_connections_total", "failed", "")                             \
    X(SS_TLS, "send_tls_total", "full",                                                      \
      "Outbound TLS handshakes; clear: connections that came to a transaction without TLS.") \
    X(SS_TLS_RESUMED, "send_tls_total", "resumed", "")                                       \
    X(SS_TLS_FAILED, "send_tls_total", "failed", "")                                         \
    X(SS_CLEAR, "send_tls_total", "clear", "")

enum receive_count {
#define X(id, name, outcome, help) id,
    RECEIVE_SERIES(X)
#undef X
        RECEIVE_COUNTS
};

enum send_count {
#define X(id, name, outcome, help) id,
    SEND_SERIES(X)
#undef X
        SEND_COUNTS
};

/* ---- histograms ---- */

#define HISTOGRAM_BUCKETS 19u /* and one for what is longer than all of them */

/* Upper bounds, in microseconds. */
extern const uint64_t histogram_bound_us[HISTOGRAM_BUCKETS];

struct histogram {
    _Atomic uint64_t bucket[HISTOGRAM_BUCKETS + 1]; /* not cumulative */
    _Atomic uint64_t sum_ns;
};

void histogram_add(struct histogram *h, uint64_t ns);

/* ---- of one connector on one shard ---- */

struct receive_series {
    _Atomic uint64_t count[RECEIVE_COUNTS];
    struct histogram durable; /* from the end of data to durable */
};

struct send_series {
    _Atomic uint64_t count[SEND_COUNTS];
    struct histogram first;   /* from durable to the first attempt */
    struct histogram attempt; /* one message on a connection */
    struct histogram total;   /* from accepted to delivered, each recipient */
};

static inline void series_add(_Atomic uint64_t *count, uint64_t by)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

/* ---- names: the control thread's ---- */

enum site_class { SITE_CLASS_SMART_HOST, SITE_CLASS_MX, SITE_CLASS_PEER };
const char *site_class_name(enum site_class c);

struct series_names {
    uint32_t receive_count, send_count; /* from slot 1 on */
    char receive[SERIES_SLOTS][CONFIG_NAME_MAX + 1], send[SERIES_SLOTS][CONFIG_NAME_MAX + 1];
    enum site_class send_class[SERIES_SLOTS]; /* as in the newest configuration */
};

/* Gives each connector of `c` its place, before shards see it. */
void series_assign(struct series_names *names, struct config *c);

#endif
