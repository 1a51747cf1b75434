/*
 * bench/driver.h - many client sessions on one thread, over io_uring (gateway/io/io.h): connects,
 * reads, writes, TLS, latencies.
 */
#ifndef HIKYAKU_BENCH_DRIVER_H
#define HIKYAKU_BENCH_DRIVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "bench/client.h"
#include "bench/hist.h"
#include "bench/limits.h"
#include "bench/net.h"
#include "bench/tls.h"
#include "gateway/io/io.h"

#define DRIVER_ERROR_KINDS   32u
#define DRIVER_REFUSAL_KINDS 32u

enum driver_tls { DRIVER_TLS_NONE, DRIVER_TLS_STARTTLS, DRIVER_TLS_IMPLICIT };

/* Counts by name: what went wrong, how often. */
struct driver_counter {
    char name[64];
    uint64_t count;
};

/* What came of the messages that went wrong on purpose. Those that the client gave up have no
 * answer. */
struct driver_fault {
    uint64_t begun, accepted, refused, cut; /* cut: by the server, or no answer in time */
};

struct driver_stats {
    uint64_t acked, refused, lost; /* lost: no answer to the end of data, or cut before it */
    uint64_t rcpts_acked;
    uint64_t connections, connections_failed;
    uint64_t tls_handshakes, tls_resumed;
    uint64_t bytes_sent;
    struct bench_hist eod_ns;     /* last byte of the dot handed over .. reply read */
    struct bench_hist session_ns; /* connect .. QUIT answered */
    struct bench_hist setup_ns;   /* connect .. first MAIL, or held */
    struct bench_hist open_ns;    /* open loop: due .. acknowledged, a wait for a session too */
    struct driver_counter errors[DRIVER_ERROR_KINDS];
    struct driver_counter refusals[DRIVER_REFUSAL_KINDS];
    struct driver_fault faults[BENCH_FAULT_COUNT];
    uint64_t first_ns, last_acked_ns;
};

struct driver_session;
TAILQ_HEAD(driver_session_list, driver_session);

struct driver {
    /* set by the command */
    struct bench_client_run run;
    struct bench_addr to;
    uint32_t session_count;
    unsigned source_ip_count; /* 0: the kernel chooses */
    enum driver_tls tls_mode;
    struct bench_tls_context *tls;
    const char *tls_name; /* SNI, or NULL */
    bool tls_resume;
    bool keep_going;         /* reconnect after an error */
    uint32_t connecting_max; /* sessions that may be on their way up at once */
    uint64_t timeout_ms;
    struct bench_fault_plan faults;
    uint64_t chunk;       /* bytes of a body that one send takes at most */
    uint64_t interval_ns; /* open loop: a message is due this often; 0: closed loop */
    int record_fd;        /* -1: none */
    /* the driver's own */
    struct driver_session *sessions;
    struct driver_session_list waiting; /* to connect now */
    struct driver_session_list backoff; /* to connect later, ordered by time */
    struct driver_session_list idle;    /* open loop: up, without a message */
    uint32_t active_count;              /* with a connection, or with one that is ending */
    uint32_t connecting_count, ready_count;
    bool record_failed;
    struct io *io;
    struct timer tick; /* ends a round that waits */
    uint64_t swept_ns;
    struct driver_stats stats;
    struct bench_buf record;
    char tls_text[96]; /* version and cipher of the first connection */
    char plain[BENCH_IO_SIZE];
};

/* False after a line on stderr. All sessions are waiting to connect. */
bool driver_start(struct driver *d) __attribute__((warn_unused_result));
/* One round: events, timers, records. wait_ms bounds the wait. */
void driver_round(struct driver *d, int wait_ms);
/* No session has a connection and none wants one. */
bool driver_finished(const struct driver *d);
/* Held sessions say QUIT. */
void driver_quit_held(struct driver *d);
/* Cuts what is open, counts it lost. */
void driver_stop(struct driver *d);

#endif
