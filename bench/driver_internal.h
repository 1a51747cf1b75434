/*
 * bench/driver_internal.h - what the two halves of the driver share: rounds and sessions' bytes.
 */
#ifndef HIKYAKU_BENCH_DRIVER_INTERNAL_H
#define HIKYAKU_BENCH_DRIVER_INTERNAL_H

#include "bench/driver.h"

enum driver_stage {
    DRIVER_NONE,       /* no connection, nothing under way */
    DRIVER_CONNECTING, /* until the kernel says connected */
    DRIVER_OPEN,
    DRIVER_CLOSING /* given back, operations still under way */
};

/* Where a session goes when its last operation has ended. */
enum driver_after { DRIVER_AFTER_NOTHING, DRIVER_AFTER_WAIT, DRIVER_AFTER_BACKOFF };

struct driver_session {
    struct driver *driver;
    uint32_t index;
    int32_t fd; /* -1: none */
    enum driver_stage stage;
    enum driver_after after;
    bool up, fault_counted;
    bool idle; /* in the driver's list of those without a message */
    uint64_t begun_ns, dot_ns, active_ns, due_ns;
    uint64_t sent_ns, sent_turn; /* when, and in which turn, the send under way was begun */
    uint64_t connection_count;
    struct timer slow; /* a slow sender's next piece */
    uint64_t finished; /* messages of this connection that were answered */
    struct io_op connect, recv, send;
    struct bench_client client;
    struct bench_reply reply;
    struct bench_tls tls;
    struct bench_tls_session *ticket;
    struct bench_buf wire; /* what the send under way reads, if it is not the shared body */
    size_t body_in_flight; /* bytes of the shared body that the send under way reads */
    TAILQ_ENTRY(driver_session) link;
};

/* ---- driver.c: the life of a session ---- */
bool driver_wants_more(const struct driver *d);
/* The connection was lost: its messages are lost too; new ones may be begun for them. */
void driver_session_fail(struct driver *d, struct driver_session *s, const char *why);
/* A fault on purpose: the session closes without a word, and begins again. */
void driver_session_vanish(struct driver *d, struct driver_session *s);
/* After the last completion of a session that was closed. */
void driver_session_ended(struct driver *d, struct driver_session *s);
/* What a reply means. False: the session is gone. */
bool driver_session_reply(struct driver *d, struct driver_session *s);

/* ---- driver_io.c: bytes ---- */
void driver_io_init(struct driver *d, struct driver_session *s);
void driver_io_connect(struct driver *d, struct driver_session *s);
/* Gives the descriptor back and asks what is under way to end. True: something is. */
bool driver_io_close(struct driver *d, struct driver_session *s);
bool driver_tls_begin(struct driver *d, struct driver_session *s);
/* Sends what the session has to say, if no send is under way. */
void driver_io_flush(struct driver *d, struct driver_session *s);
/* After input, or a message begun: a new dot is timed when it is handed to the kernel. */
void driver_io_go_on(struct driver *d, struct driver_session *s);

#endif
