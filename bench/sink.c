/*
 * bench/sink.c - the sink's epoll loop: reads, steps the conversations, records, then answers.
 *
 * Owns:     the listeners, the record buffer.
 * Runs on:  one thread.
 * Contract: replies of a round are sent after the round's records are written, and a message's 250
 *           after its file is synced: what was acknowledged can be audited after any kill.
 * Failure:  a record that cannot be written is said once on stderr and stops the sink.
 * Bounds:   BENCH_LISTENER_COUNT_MAX listeners; nothing is read while the rate is used up.
 * Tests:    tests/unit/test_bench_smtpd.c for the conversation; load runs against it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "bench/sink_internal.h"

#define SINK_EVENTS   256
#define RATE_SLEEP_NS 20000000u

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
            sink_conn_close(c);
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
        sink_conn_flush(c);
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
            sink_conn_accept(s, *listener);
            continue;
        }
        struct sink_conn *c = events[i].data.ptr;
        if (c->is_dead)
            continue;
        if (events[i].events & EPOLLOUT)
            sink_conn_dirty(c);
        if ((events[i].events & EPOLLIN) && s->read_ns > s->now_ns)
            continue; /* the rate is used up */
        if (events[i].events & EPOLLIN)
            sink_conn_readable(c);
        else if (events[i].events & (EPOLLHUP | EPOLLERR))
            sink_conn_close(c);
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
            sink_conn_resume(c);
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
        sink_conn_close(c);
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
