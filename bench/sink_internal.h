/*
 * bench/sink_internal.h - a connection of the sink, shared by its files: sink.c (the loop),
 * sink_conn.c (connections), sink_message.c (messages).
 */
#ifndef HIKYAKU_BENCH_SINK_INTERNAL_H
#define HIKYAKU_BENCH_SINK_INTERNAL_H

#include "bench/sink.h"

struct sink_conn {
    int fd;
    struct sink *sink;
    struct bench_smtpd smtpd;
    struct bench_tls tls;
    struct bench_buf pending; /* input behind a delayed reply */
    struct bench_maildir_file file;
    struct bench_audit audit;
    uint64_t active_ns, due_ns;
    uint32_t events; /* what epoll watches */
    bool is_dirty, is_delayed, is_dead, closing, tls_next;
    TAILQ_ENTRY(sink_conn) open_link, dirty_link, delayed_link;
};

/* ---- sink_conn.c ---- */
/* Takes those who wait at a listener. */
void sink_conn_accept(struct sink *s, int listen_fd);
/* There is input. */
void sink_conn_readable(struct sink_conn *c);
/* The delay of its reply is over. */
void sink_conn_resume(struct sink_conn *c);
/* To be flushed at the end of the round: the rest of its output, and what follows from that. */
void sink_conn_dirty(struct sink_conn *c);
void sink_conn_flush(struct sink_conn *c);
/* Closes; the memory goes at the end of the round: an event of this round may still name it. */
void sink_conn_close(struct sink_conn *c);

#endif
