/*
 * bench/sink.c - the sink's epoll loop: reads, steps the conversation, records, then answers.
 *
 * Owns:     the listeners, every connection, the record buffer.
 * Runs on:  one thread.
 * Contract: replies of a round are sent after the round's records are written, and a message's 250
 *           after its file is synced: what was acknowledged can be audited after any kill.
 * Failure:  a connection's error closes it and is counted; a record that cannot be written is said
 *           once on stderr and stops the sink.
 * Bounds:   the limit of open files; BENCH_IO_SIZE a read; none while a reply is delayed, or the
 *           rate is used up.
 * Tests:    tests/unit/test_bench_smtpd.c for the conversation; load runs against it.
 */
#include "bench/sink.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define SINK_EVENTS       256
#define SINK_ACCEPT_BATCH 64
#define RATE_SLEEP_NS     20000000u

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

/* ---- messages ------------------------------------------------------------------------------ */

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

/* ---- connections --------------------------------------------------------------------------- */

static void conn_watch(struct sink_conn *c, uint32_t events)
{
    if (c->events == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(c->sink->epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    c->events = events;
}

/* Closes; the memory goes at the end of the round: an event of this round may still name it. */
static void conn_close(struct sink_conn *c)
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

static void conn_dirty(struct sink_conn *c)
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
        conn_close(c);
        return;
    }
    conn_dirty(c);
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

static void conn_resume(struct sink_conn *c)
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
        conn_dirty(c);
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
            conn_close(c);
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

static void conn_readable(struct sink_conn *c)
{
    struct sink *s = c->sink;
    ssize_t count = recv(c->fd, s->io, read_size(s), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        conn_close(c);
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
            conn_close(c);
            return false;
        }
        bench_buf_consume(out, (size_t)count);
    }
    return true;
}

static void conn_flush(struct sink_conn *c)
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
        conn_close(c);
        return;
    }
    if (!blocked && c->tls_next) {
        c->tls_next = false;
        if (!bench_tls_start(&c->tls, c->sink->tls, NULL)) {
            conn_close(c);
            return;
        }
    }
    conn_watch(c, (blocked ? EPOLLOUT : 0u) |
                      (c->is_delayed || c->closing || blocked ? 0u : (uint32_t)EPOLLIN));
}

static void conn_accept(struct sink *s, int listen_fd)
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
            conn_close(c);
    }
}

/* ---- the loop ------------------------------------------------------------------------------ */

static bool record_write(struct sink *s)
{
    while (bench_buf_count(&s->record) > 0) {
        ssize_t count =
            write(s->record_fd, bench_buf_head(&s->record), bench_buf_count(&s->record));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            fprintf(stderr, "hikyaku-bench sink: cannot write the record: %s\n", strerror(errno));
            s->record_failed = true;
            return false;
        }
        bench_buf_consume(&s->record, (size_t)count);
    }
    return true;
}

static void close_idle(struct sink *s)
{
    struct sink_conn *c, *next;
    for (c = TAILQ_FIRST(&s->open); s->idle_timeout_ms > 0 && c != NULL; c = next) {
        next = TAILQ_NEXT(c, open_link);
        if (!c->is_delayed && s->now_ns - c->active_ns > s->idle_timeout_ms * 1000000ull)
            conn_close(c);
    }
}

static void end_round(struct sink *s)
{
    struct sink_conn *c;
    if (s->record_fd >= 0 && !record_write(s))
        return; /* unrecorded messages get no 250: their connections are cut by sink_stop */
    while ((c = TAILQ_FIRST(&s->dirty)) != NULL) {
        TAILQ_REMOVE(&s->dirty, c, dirty_link);
        c->is_dirty = false;
        conn_flush(c);
    }
    while ((c = TAILQ_FIRST(&s->dead)) != NULL) {
        TAILQ_REMOVE(&s->dead, c, open_link);
        free(c);
    }
}

static int wait_ms(const struct sink *s)
{
    const struct sink_conn *c = TAILQ_FIRST(&s->delayed);
    if (c == NULL)
        return 200;
    uint64_t now = bench_clock_ns();
    uint64_t ms = c->due_ns > now ? (c->due_ns - now + 999999) / 1000000 : 0;
    return ms < 200 ? (int)ms : 200;
}

static void handle_events(struct sink *s, const struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        int *listener = events[i].data.ptr;
        if (listener >= s->listen_fds && listener < s->listen_fds + BENCH_LISTENER_COUNT_MAX) {
            conn_accept(s, *listener);
            continue;
        }
        struct sink_conn *c = events[i].data.ptr;
        if (c->is_dead)
            continue;
        if (events[i].events & EPOLLOUT)
            conn_dirty(c);
        if ((events[i].events & EPOLLIN) && s->read_ns > s->now_ns)
            continue; /* the rate is used up */
        if (events[i].events & EPOLLIN)
            conn_readable(c);
        else if (events[i].events & (EPOLLHUP | EPOLLERR))
            conn_close(c);
    }
}

/* Sleeps while the rate is used up: all connections wait, as those of a slow host do. */
static void wait_for_rate(struct sink *s)
{
    uint64_t now = bench_clock_ns(), left = s->read_ns > now ? s->read_ns - now : 0;
    if (left == 0) {
        s->read_ns = now; /* what was not used is gone */
        return;
    }
    if (left > RATE_SLEEP_NS)
        left = RATE_SLEEP_NS;
    nanosleep(&(struct timespec){.tv_nsec = (long)left}, NULL);
}

void sink_run(struct sink *s)
{
    struct epoll_event events[SINK_EVENTS];
    uint64_t stats_ns = s->started_ns, sweep_ns = 0;
    while (!bench_stop_requested && !s->record_failed) {
        if (s->rate_bytes > 0)
            wait_for_rate(s);
        int count = epoll_wait(s->epoll_fd, events, SINK_EVENTS, wait_ms(s));
        s->now_ns = s->config.script->now_ns = bench_clock_ns();
        handle_events(s, events, count);
        struct sink_conn *c;
        while ((c = TAILQ_FIRST(&s->delayed)) != NULL && c->due_ns <= s->now_ns)
            conn_resume(c);
        if (s->now_ns - sweep_ns > 1000000000ull) {
            sweep_ns = s->now_ns;
            close_idle(s);
        }
        end_round(s);
        if (s->stats_every_ms > 0 && s->now_ns - stats_ns >= s->stats_every_ms * 1000000ull) {
            stats_ns = s->now_ns;
            sink_print_totals(s);
        }
        if ((s->stop_after_ms > 0 && s->now_ns - s->started_ns > s->stop_after_ms * 1000000ull) ||
            (s->stop_after_messages > 0 && s->totals.messages >= s->stop_after_messages))
            break;
    }
}

bool sink_start(struct sink *s)
{
    TAILQ_INIT(&s->open);
    TAILQ_INIT(&s->dirty);
    TAILQ_INIT(&s->delayed);
    TAILQ_INIT(&s->dead);
    bench_crc32_table_init(&s->crc_table);
    s->started_ns = s->now_ns = bench_clock_ns();
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < s->bind_count; i++) {
        int fd = bench_net_listen(&s->binds[i]);
        if (fd < 0) {
            fprintf(stderr, "hikyaku-bench sink: cannot listen on %s: %s\n", s->binds[i].text,
                    strerror(errno));
            return false;
        }
        s->listen_fds[i] = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &s->listen_fds[i]};
        epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event);
        bench_net_print_listening(&s->binds[i], fd);
    }
    return true;
}

void sink_stop(struct sink *s)
{
    struct sink_conn *c;
    while ((c = TAILQ_FIRST(&s->open)) != NULL)
        conn_close(c);
    while ((c = TAILQ_FIRST(&s->dead)) != NULL) {
        TAILQ_REMOVE(&s->dead, c, open_link);
        free(c);
    }
    for (size_t i = 0; i < s->bind_count; i++)
        close(s->listen_fds[i]);
    close(s->epoll_fd);
    bench_buf_free(&s->record);
}

void sink_print_totals(const struct sink *s)
{
    const struct sink_totals *t = &s->totals;
    double seconds = (double)(bench_clock_ns() - s->started_ns) / 1e9;
    printf("{\"seconds\":%.3f,\"connections\":%" PRIu64 ",\"connections_open\":%" PRIu64
           ",\"connections_open_max\":%" PRIu64 ",\"messages\":%" PRIu64 ",\"recipients\":%" PRIu64
           ",\"bytes\":%" PRIu64 ",\"abandoned\":%" PRIu64 ",\"dropped\":%" PRIu64
           ",\"store_failed\":%" PRIu64 ",\"tls_handshakes\":%" PRIu64 ",\"tls_resumed\":%" PRIu64
           ",\"tls_failed\":%" PRIu64 ",\"cpu_seconds\":%.3f}\n",
           seconds, t->connections, t->connections_open, t->connections_open_max, t->messages,
           t->recipients, t->bytes, t->abandoned, t->dropped, t->store_failed, t->tls_handshakes,
           t->tls_resumed, t->tls_failed, bench_cpu_self_seconds());
    fflush(stdout);
}
