/*
 * gateway/metrics.h - counters of one shard. One table makes the enum, the Prometheus names and
 * the
 * help texts.
 *
 * Only the shard writes its counters; others may read them at any time (relaxed atomics, no
 * lock).
 * Values of one scrape need not be of one instant.
 */
#ifndef HIKYAKU_METRICS_H
#define HIKYAKU_METRICS_H

#include "gateway/series.h"

/* id, name without the hikyaku_ prefix, type, help. What is called seconds is counted in
 * nanoseconds. */
#define METRICS(X)                                                                                 \
    X(M_SESSIONS_TOTAL, "sessions_total", "counter", "Inbound connections accepted.")              \
    X(M_SESSIONS, "sessions", "gauge", "Inbound connections open now.")                            \
    X(M_SESSIONS_REFUSED, "sessions_refused_total", "counter",                                     \
      "Inbound connections refused by connection control or limits.")                              \
    X(M_PROXY_HEADERS, "proxy_headers_total", "counter", "PROXY headers that told a client.")      \
    X(M_PROXY_REFUSED, "proxy_headers_refused_total", "counter",                                   \
      "PROXY headers that were malformed, missing, late or from a stranger.")                      \
    X(M_TLS_HANDSHAKES, "tls_handshakes_total", "counter", "Inbound TLS handshakes completed.")    \
    X(M_TLS_RESUMED, "tls_resumed_total", "counter", "Inbound TLS handshakes that resumed.")       \
    X(M_TLS_FAILED, "tls_handshakes_failed_total", "counter", "Inbound TLS handshakes failed.")    \
    X(M_AUTH_OK, "auth_succeeded_total", "counter", "Successful authentications.")                 \
    X(M_AUTH_FAILED, "auth_failed_total", "counter", "Failed authentications.")                    \
    X(M_AUTH_CACHED, "auth_cached_total", "counter",                                               \
      "Successful authentications answered from the cache of verified passwords.")                 \
    X(M_AUTH_MERGED, "auth_merged_total", "counter",                                               \
      "Passwords that waited for the check of the same one for another session.")                  \
    X(M_AUTH_LIMITED, "auth_limited_total", "counter",                                             \
      "Authentications refused unseen after too many failures.")                                   \
    X(M_COMMANDS, "commands_total", "counter", "SMTP commands received.")                          \
    X(M_BYTES_IN, "received_bytes_total", "counter", "Bytes received from clients.")               \
    X(M_ACCEPTED, "messages_accepted_total", "counter", "Messages made durable and answered 250.") \
    X(M_ACCEPTED_RCPTS, "recipients_accepted_total", "counter", "Recipients of those messages.")   \
    X(M_REJECTED, "messages_rejected_total", "counter", "Messages refused at or after DATA.")      \
    X(M_RCPT_REJECTED, "recipients_rejected_total", "counter", "Recipients refused at RCPT.")      \
    X(M_DELIVERED, "recipients_delivered_total", "counter", "Recipients taken by a next hop.")     \
    X(M_DEFERRED, "deliveries_deferred_total", "counter",                                          \
      "Recipients whose attempt ended in a temporary failure.")                                    \
    X(M_FAILED, "recipients_failed_total", "counter", "Recipients that failed for good.")          \
    X(M_EXPIRED, "recipients_expired_total", "counter", "Recipients given up after retry.expire.") \
    X(M_DUP_POSSIBLE, "deliveries_dup_possible_total", "counter",                                  \
      "Attempts lost after the final dot: the next hop may have the message.")                     \
    X(M_UNCERTAIN, "deliveries_uncertain_total", "counter",                                        \
      "Messages found at a start whose attempt was cut off behind the final dot.")                 \
    X(M_CRASHED, "deliveries_crashed_total", "counter",                                            \
      "Messages found at a start whose attempt was cut off by a crash.")                           \
    X(M_POISONED, "messages_set_aside_total", "counter",                                           \
      "Messages put into the poison queue: unreadable, or tried when the process crashed, again "  \
      "and again.")                                                                                \
    X(M_DSN, "dsn_total", "counter", "Delivery status notifications made.")                        \
    X(M_DSN_SUPPRESSED, "dsn_suppressed_total", "counter",                                         \
      "Failures that no notification may be sent for (null sender, NOTIFY).")                      \
    X(M_DEAD_LETTERS, "dead_letters_total", "counter",                                             \
      "Failed messages without a sender that were set aside (queue_held).")                        \
    X(M_OUT_CONNECTS, "outbound_connections_total", "counter", "Outbound connections begun.")      \
    X(M_OUT_CONNECT_FAILED, "outbound_connections_failed_total", "counter",                        \
      "Outbound connections that did not get as far as a transaction.")                            \
    X(M_OUT_OPEN, "outbound_connections", "gauge", "Outbound connections open now.")               \
    X(M_JOBS, "delivery_jobs", "gauge", "Messages with their envelope in memory.")                 \
    X(M_DRAIN_WORK, "drain_work", "gauge",                                                         \
      "While draining: sessions and messages being delivered that are left.")                      \
    X(M_DRAIN_PHASE, "drain_phase", "gauge",                                                       \
      "Stopping: 0 not asked to, 1 not ready but accepting, 2 sessions and deliveries go on, 3 "   \
      "giving the queue to peers, 4 ending.")                                                      \
    X(M_SITES, "sites", "gauge", "Next hops known now.")                                           \
    X(M_QUEUE_MESSAGES, "queue_messages", "gauge", "Messages in the queue.")                       \
    X(M_QUEUE_BYTES, "queue_bytes", "gauge", "Bytes of the messages in the queue.")                \
    X(M_QUEUE_DEFERRED, "queue_deferred", "gauge", "Queued messages that wait for a retry.")       \
    X(M_QUEUE_HELD, "queue_held", "gauge", "Queued messages held by the operator.")                \
    X(M_QUEUE_UNREACHABLE, "queue_unreachable", "gauge", "Queued messages without a route.")       \
    X(M_QUEUE_POISON, "queue_poison", "gauge", "Queued messages set aside after crashes.")         \
    X(M_QUEUE_PREPARED, "queue_prepared", "gauge",                                                 \
      "Messages that a gateway hands over to this one and has not said to be its own.")            \
    X(M_QUEUE_GIVEN, "queue_given", "gauge",                                                       \
      "Messages handed over, whose new owner has not confirmed yet.")                              \
    X(M_HANDOFF_GIVEN, "handoff_given_total", "counter", "Messages handed over to peers.")         \
    X(M_HANDOFF_FAILED, "handoff_failed_total", "counter",                                         \
      "Offers to peers and confirmations that came to nothing, to be tried again.")                \
    X(M_HANDOFF_PREPARED, "handoff_prepared_total", "counter",                                     \
      "Offers of other gateways that were made durable.")                                          \
    X(M_HANDOFF_TAKEN, "handoff_taken_total", "counter", "Messages taken over.")                   \
    X(M_SPOOL_SEGMENTS, "spool_segments", "gauge", "Segment files.")                               \
    X(M_SPOOL_BYTES, "spool_bytes", "gauge", "Bytes of the segment files.")                        \
    X(M_SPOOL_WRITTEN, "spool_written_bytes_total", "counter", "Bytes appended to the log.")       \
    X(M_SPOOL_BODY, "spool_body_bytes_total", "counter", "Bytes of the messages made durable.")    \
    X(M_SPOOL_COPIED, "spool_copied_bytes_total", "counter",                                       \
      "Bytes of records copied forward out of segments that were mostly dead.")                    \
    X(M_SPOOL_UPLOADS_CUT, "spool_uploads_cut_total", "counter",                                   \
      "Uploads answered 452 because they kept the room of a full spool from being used again.")    \
    X(M_SPOOL_COMMITS, "spool_commits_total", "counter", "Commits: one write and one sync each.")  \
    X(M_SPOOL_SYNC_NS, "spool_sync_seconds_total", "counter",                                      \
      "Time from the start of a commit's write to the end of its sync.")                           \
    X(M_SPOOL_SYNC_FAILED, "spool_sync_failed_total", "counter", "Writes or syncs that failed.")   \
    X(M_SPOOL_DAMAGED, "spool_damaged_records_total", "counter", "Records found damaged.")         \
    X(M_SPOOL_HEALTH, "spool_health", "gauge",                                                     \
      "Worst lane: 0 recovering, 1 ok, 2 degraded, 3 full, 4 stopped.")                            \
    X(M_PRESSURE_SPOOL, "pressure_spool", "gauge",                                                 \
      "Back pressure by spool.max_size: 0 normal, 1 medium, 2 high.")                              \
    X(M_PRESSURE_DISK, "pressure_disk", "gauge", "Back pressure by spool.min_free.")               \
    X(M_PRESSURE_INODES, "pressure_inodes", "gauge", "Back pressure by the disk's inodes.")        \
    X(M_PRESSURE_MEMORY, "pressure_memory", "gauge", "Back pressure by resident memory.")          \
    X(M_PRESSURE_QUEUE, "pressure_queue", "gauge",                                                 \
      "Back pressure by back_pressure.queue_messages.")                                            \
    X(M_PRESSURE_DELAYED, "pressure_delayed_total", "counter",                                     \
      "Answers to MAIL that back pressure delayed.")                                               \
    X(M_PRESSURE_REFUSED, "pressure_refused_total", "counter",                                     \
      "MAIL commands that back pressure refused.")                                                 \
    X(M_LOG_DROPPED, "log_dropped_total", "counter",                                               \
      "Log lines dropped because the ring was full.")                                              \
    X(M_PROTOCOL_DROPPED, "protocol_log_dropped_total", "counter",                                 \
      "Lines of the protocol log dropped because it could not keep up.")                           \
    X(M_TURNS, "loop_turns_total", "counter", "Turns of the event loop.")                          \
    X(M_ENTERS, "loop_enters_total", "counter",                                                    \
      "System calls of the event loop: work handed to the kernel, or waited for.")                 \
    X(M_BUSY_NS, "loop_busy_seconds_total", "counter", "Time spent in turns, waiting excluded.")   \
    X(M_UTILISATION_NS, "shard_utilisation_ratio", "gauge",                                        \
      "Busy part of the last second, 0 to 1, of each shard.")                                      \
    X(M_TURN_MAX_NS, "loop_turn_longest_seconds", "gauge", "Longest turn since the start.")        \
    X(M_RECV_BUF_EMPTY, "receive_buffers_exhausted_total", "counter",                              \
      "Times a receive waited for a buffer.")                                                      \
    X(M_TLS_MEMORY, "tls_memory_bytes", "gauge", "Heap held by TLS.")

enum metric {
#define X(id, name, type, help) id,
    METRICS(X)
#undef X
        METRIC_COUNT
};

#define QUEUE_AGES 4u
extern const uint32_t queue_ages_s[QUEUE_AGES];

struct metrics {
    _Atomic uint64_t value[METRIC_COUNT];
    struct receive_series receive[SERIES_SLOTS];
    struct send_series send[SERIES_SLOTS];
    _Atomic uint64_t queue_oldest_s;          /* when it was accepted; 0: none */
    _Atomic uint64_t queue_older[QUEUE_AGES]; /* messages older than queue_ages_s */
};

static inline uint64_t metric_get(const struct metrics *m, enum metric id)
{
    return atomic_load_explicit(&m->value[id], memory_order_relaxed);
}

static inline void metric_set(struct metrics *m, enum metric id, uint64_t value)
{
    atomic_store_explicit(&m->value[id], value, memory_order_relaxed);
}

/* One writer: a load and a store, no locked instruction. `by` may be "negative". */
static inline void metric_add(struct metrics *m, enum metric id, uint64_t by)
{
    metric_set(m, id, metric_get(m, id) + by);
}

#endif
