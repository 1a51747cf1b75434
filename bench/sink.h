/*
 * bench/sink.h - the sink's event loop: connections, TLS, messages kept or counted.
 */
#ifndef HIKYAKU_BENCH_SINK_H
#define HIKYAKU_BENCH_SINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "bench/audit.h"
#include "bench/limits.h"
#include "bench/maildir.h"
#include "bench/net.h"
#include "bench/smtpd.h"
#include "bench/tls.h"

struct sink_totals {
    uint64_t connections, connections_open, connections_open_max;
    uint64_t messages, recipients, bytes;
    uint64_t abandoned; /* data begun, never kept */
    uint64_t dropped;   /* connections closed by a rule */
    uint64_t tls_handshakes, tls_resumed, tls_failed;
    uint64_t store_failed;
};

struct sink_conn;
TAILQ_HEAD(sink_conn_list, sink_conn);

struct sink {
    /* set by the command */
    struct bench_addr binds[BENCH_LISTENER_COUNT_MAX];
    size_t bind_count;
    struct bench_smtpd_config config;
    struct bench_tls_context *tls; /* NULL: none */
    bool tls_implicit;
    struct bench_maildir *maildir; /* NULL: messages are counted and thrown away */
    int record_fd;                 /* -1: none */
    uint64_t rate_bytes;           /* read a second; 0: no limit */
    uint64_t idle_timeout_ms, stats_every_ms, stop_after_ms, stop_after_messages; /* 0: never */
    /* the loop's own */
    int epoll_fd;
    int listen_fds[BENCH_LISTENER_COUNT_MAX];
    struct sink_conn_list open, dirty, delayed, dead;
    struct bench_buf record;
    struct bench_crc32_table crc_table;
    struct sink_totals totals;
    uint64_t started_ns, now_ns;
    uint64_t read_ns; /* with rate_bytes: nothing is read before */
    bool record_failed;
    char io[BENCH_IO_SIZE];
    char plain[BENCH_IO_SIZE];
};

/* Opens the listeners and says so on stdout; false after a line on stderr. */
bool sink_start(struct sink *s);
/* Serves until a stop signal or a limit. */
void sink_run(struct sink *s);
void sink_stop(struct sink *s);
/* Totals as one line of JSON on stdout. */
void sink_print_totals(const struct sink *s);

extern const struct bench_smtpd_hooks sink_hooks;

#endif
