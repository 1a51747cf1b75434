/*
 * bench/sink_conn.c - one connection of the sink: bytes in, through TLS, to the conversation, and
 * its replies out.
 *
 * Owns:     the connections.
 * Runs on:  one thread.
 * Contract: replies are made as input comes and sent when the round's records are written
 *           (sink_conn_flush). Nothing is read while a reply is delayed.
 * Failure:  a connection's error closes it and is counted.
 * Bounds:   the limit of open files; BENCH_IO_SIZE a read.
 * Tests:    tests/unit/test_bench_smtpd.c for the conversation; load runs against it.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench/sink_internal.h"

#define SINK_ACCEPT_BATCH 64

static void conn_watch(struct sink_conn *c, uint32_t events)
{
    if (c->events == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(c->sink->epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    c->events = events;
}

void sink_conn_close(struct sink_conn *c)
{
    struct sink *s = c->sink;
    if (c->is_dead)
        return;
    c->is_dead = true;
    close(c->fd);
    s->totals.connections_open--;
    TAILQ_REMOVE(&s->open, c, open_link);
    if (c->is_dirty)
        TAILQ_REMOVE(&s->dirty, c, dirty_link);
    if (c->is_delayed)
        TAILQ_REMOVE(&s->delayed, c, delayed_link);
    bench_smtpd_free(&c->smtpd);
    bench_tls_free(&c->tls);
    bench_buf_free(&c->pending);
    bench_audit_free(&c->audit);
    TAILQ_INSERT_TAIL(&s->dead, c, open_link);
}

void sink_conn_dirty(struct sink_conn *c)
{
    if (c->is_dirty)
        return;
    c->is_dirty = true;
    TAILQ_INSERT_TAIL(&c->sink->dirty, c, dirty_link);
}

/* Into the list of delayed connections, which is ordered by due time. */
static void conn_delay(struct sink_conn *c)
{
    struct sink *s = c->sink;
    struct sink_conn *before = TAILQ_LAST(&s->delayed, sink_conn_list);
    c->due_ns = s->now_ns + (uint64_t)c->smtpd.delay_ms * 1000000ull;
    while (before != NULL && before->due_ns > c->due_ns)
        before = TAILQ_PREV(before, sink_conn_list, delayed_link);
    if (before != NULL)
        TAILQ_INSERT_AFTER(&s->delayed, before, c, delayed_link);
    else
        TAILQ_INSERT_HEAD(&s->delayed, c, delayed_link);
    c->is_delayed = true;
}

static void conn_apply(struct sink_conn *c, enum bench_smtpd_result result)
{
    switch (result) {
    case BENCH_SMTPD_MORE: break;
    case BENCH_SMTPD_DELAY: conn_delay(c); break;
    case BENCH_SMTPD_STARTTLS:
        bench_buf_clear(&c->pending); /* sent in the clear behind STARTTLS: never used */
        c->tls_next = true;
        break;
    case BENCH_SMTPD_CLOSE: c->closing = true; break;
    case BENCH_SMTPD_DROP:
        c->sink->totals.dropped++;
        sink_conn_close(c);
        return;
    }
    sink_conn_dirty(c);
}

static void conn_input(struct sink_conn *c, const char *data, size_t count)
{
    size_t used = 0;
    if (c->closing || c->tls_next)
        return;
    if (c->is_delayed) {
        bench_buf_add(&c->pending, data, count);
        return;
    }
    enum bench_smtpd_result result = bench_smtpd_feed(&c->smtpd, data, count, &used);
    if (result == BENCH_SMTPD_DELAY)
        bench_buf_add(&c->pending, data + used, count - used);
    conn_apply(c, result);
}

void sink_conn_resume(struct sink_conn *c)
{
    TAILQ_REMOVE(&c->sink->delayed, c, delayed_link);
    c->is_delayed = false;
    conn_apply(c, bench_smtpd_resume(&c->smtpd));
    size_t count = bench_buf_count(&c->pending);
    if (c->is_dead || c->is_delayed || count == 0)
        return;
    struct bench_buf pending = c->pending;
    c->pending = (struct bench_buf){0};
    conn_input(c, bench_buf_head(&pending), count);
    bench_buf_free(&pending);
}

/* Decrypts what came and feeds it. */
static void conn_tls_input(struct sink_conn *c)
{
    struct sink *s = c->sink;
    if (!c->tls.established) {
        enum bench_tls_result result = bench_tls_handshake(&c->tls);
        sink_conn_dirty(c);
        if (result == BENCH_TLS_WANT)
            return;
        if (result != BENCH_TLS_OK) {
            s->totals.tls_failed++;
            c->closing = true; /* the alert is still sent */
            return;
        }
        s->totals.tls_handshakes++;
        s->totals.tls_resumed += bench_tls_resumed(&c->tls);
        bench_smtpd_tls_on(&c->smtpd);
        if (s->tls_implicit)
            conn_apply(c, bench_smtpd_greet(&c->smtpd));
    }
    while (!c->is_dead) {
        size_t count = 0;
        enum bench_tls_result result = bench_tls_read(&c->tls, s->plain, sizeof(s->plain), &count);
        if (result == BENCH_TLS_WANT)
            return;
        if (result != BENCH_TLS_OK) {
            sink_conn_close(c);
            return;
        }
        conn_input(c, s->plain, count);
    }
}

/* A tenth of a second's bytes at most, where there is a rate: it is even then, and can be stopped.
 */
static size_t read_size(const struct sink *s)
{
    uint64_t size = s->rate_bytes / 10 + 1;
    return s->rate_bytes == 0 || size > sizeof(s->io) ? sizeof(s->io) : (size_t)size;
}

void sink_conn_readable(struct sink_conn *c)
{
    struct sink *s = c->sink;
    ssize_t count = recv(c->fd, s->io, read_size(s), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        sink_conn_close(c);
        return;
    }
    c->active_ns = s->now_ns;
    if (s->rate_bytes > 0)
        s->read_ns += (uint64_t)((double)count * 1e9 / (double)s->rate_bytes);
    if (c->tls.ssl == NULL) {
        conn_input(c, s->io, (size_t)count);
        return;
    }
    bench_buf_add(&c->tls.in, s->io, (size_t)count);
    conn_tls_input(c);
}

/* Sends what it can; false: the connection is gone. */
static bool conn_send(struct sink_conn *c, struct bench_buf *out)
{
    while (bench_buf_count(out) > 0) {
        ssize_t count = send(c->fd, bench_buf_head(out), bench_buf_count(out), MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            return true;
        if (count < 0) {
            sink_conn_close(c);
            return false;
        }
        bench_buf_consume(out, (size_t)count);
    }
    return true;
}

void sink_conn_flush(struct sink_conn *c)
{
    struct bench_buf *out = &c->smtpd.out;
    if (c->tls.ssl != NULL) {
        if (c->tls.established && bench_buf_count(out) > 0) {
            bench_tls_write(&c->tls, bench_buf_head(out), bench_buf_count(out));
            bench_buf_clear(out);
        }
        if (c->closing && !c->is_delayed)
            bench_tls_close(&c->tls);
        out = &c->tls.out;
    }
    if (!conn_send(c, out))
        return;
    bool blocked = bench_buf_count(out) > 0;
    if (!blocked && c->closing && !c->is_delayed) {
        sink_conn_close(c);
        return;
    }
    if (!blocked && c->tls_next) {
        c->tls_next = false;
        if (!bench_tls_start(&c->tls, c->sink->tls, NULL)) {
            sink_conn_close(c);
            return;
        }
    }
    conn_watch(c, (blocked ? EPOLLOUT : 0u) |
                      (c->is_delayed || c->closing || blocked ? 0u : (uint32_t)EPOLLIN));
}

void sink_conn_accept(struct sink *s, int listen_fd)
{
    for (int i = 0; i < SINK_ACCEPT_BATCH; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct sink_conn *c = calloc(1, sizeof(*c));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (c == NULL || epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
            free(c);
            close(fd);
            continue;
        }
        *c = (struct sink_conn){
            .fd = fd, .sink = s, .file.fd = -1, .events = EPOLLIN, .active_ns = s->now_ns};
        bench_smtpd_init(&c->smtpd, &s->config, c);
        TAILQ_INSERT_TAIL(&s->open, c, open_link);
        s->totals.connections++;
        if (++s->totals.connections_open > s->totals.connections_open_max)
            s->totals.connections_open_max = s->totals.connections_open;
        if (!s->tls_implicit)
            conn_apply(c, bench_smtpd_greet(&c->smtpd));
        else if (!bench_tls_start(&c->tls, s->tls, NULL))
            sink_conn_close(c);
    }
}
