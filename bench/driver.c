/*
 * bench/driver.c - runs client sessions over epoll, edge-triggered, one thread.
 *
 * Owns:     every session's socket, TLS state and timestamps; the record of acknowledged ids.
 * Runs on:  one thread.
 * Contract: an id is recorded only after its 2xx was read, and written before the next wait, so
 *           that the record is complete whenever the server is killed.
 * Failure:  a session's error is counted by kind; with keep_going it connects again.
 * Bounds:   session_count sessions, timeout_ms without progress, DRIVER_ERROR_KINDS names.
 * Tests:    the commands run against each other; client.c has the unit tests.
 */
#include "bench/driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define DRIVER_EVENTS     256
#define DRIVER_BACKOFF_NS 50000000ull
#define DRIVER_TLS_CHUNK  16384u

struct driver_session {
    int fd; /* -1: none */
    uint32_t index;
    bool connected, up, write_blocked;
    bool idle; /* in the driver's list of those without a message */
    uint64_t begun_ns, dot_ns, active_ns, due_ns;
    uint64_t finished; /* messages of this connection that were answered */
    struct bench_client client;
    struct bench_reply reply;
    struct bench_tls tls;
    struct bench_tls_session *ticket;
    TAILQ_ENTRY(driver_session) link;
};

/* ---- counting ------------------------------------------------------------------------------ */

/* Counts under name; the last slot takes what does not fit. */
static void count_name(struct driver_counter *counters, size_t size, const char *name)
{
    size_t i = 0;
    while (i + 1 < size && counters[i].count > 0 && strcmp(counters[i].name, name) != 0)
        i++;
    if (counters[i].count++ == 0)
        snprintf(counters[i].name, sizeof(counters[i].name), "%s", name);
}

static void count_error(struct driver *d, const char *name)
{
    count_name(d->stats.errors, DRIVER_ERROR_KINDS, name);
}

static void record_acked(struct driver *d, const struct bench_client *c)
{
    if (d->record_fd >= 0)
        bench_buf_printf(&d->record, "%s-%u-%llu\n", d->run.run_id, c->session,
                         (unsigned long long)c->acked_message);
}

/* ---- the life of a session ----------------------------------------------------------------- */

static bool wants_more(const struct driver *d)
{
    return !d->run.stop && (d->run.hold || d->run.claimed < d->run.claimed_max);
}

static void session_close(struct driver *d, struct driver_session *s)
{
    if (d->tls_resume && s->tls.ssl != NULL && s->tls.established) {
        struct bench_tls_session *ticket = bench_tls_session_take(&s->tls);
        if (ticket != NULL) {
            bench_tls_session_free(s->ticket);
            s->ticket = ticket;
        }
    }
    close(s->fd);
    s->fd = -1;
    if (s->idle)
        TAILQ_REMOVE(&d->idle, s, link);
    s->idle = false;
    d->active_count--;
    if (!s->up)
        d->connecting_count--;
    else if (d->run.hold)
        d->ready_count--;
    bench_tls_free(&s->tls);
}

/* The connection ended well: again, if there is more to do. */
static void session_done(struct driver *d, struct driver_session *s)
{
    bench_hist_record(&d->stats.session_ns, bench_clock_ns() - s->begun_ns);
    session_close(d, s);
    if (wants_more(d) && !d->run.hold)
        TAILQ_INSERT_TAIL(&d->waiting, s, link);
}

/* The connection was lost: messages it had begun are lost too; new ones may be begun for them. */
static void session_fail(struct driver *d, struct driver_session *s, const char *why)
{
    uint64_t lost = s->client.message_count - s->finished + s->client.claimed_ahead;
    char name[64];
    s->client.claimed_ahead = false;
    snprintf(name, sizeof(name), "%s (%s)", why,
             s->connected ? bench_client_state_name(s->client.state) : "connect");
    count_error(d, name);
    d->stats.lost += lost;
    session_close(d, s);
    if (!d->keep_going)
        return;
    if (!d->run.open_loop) /* there each message has its time, which is over */
        d->run.claimed -= lost;
    s->due_ns = bench_clock_ns() + DRIVER_BACKOFF_NS;
    TAILQ_INSERT_TAIL(&d->backoff, s, link);
}

static void session_up(struct driver *d, struct driver_session *s)
{
    s->up = true;
    d->connecting_count--;
    bench_hist_record(&d->stats.setup_ns, bench_clock_ns() - s->begun_ns);
    if (d->run.hold)
        d->ready_count++;
}

static void session_acked(struct driver *d, struct driver_session *s, uint64_t now)
{
    s->finished++;
    d->stats.acked++;
    d->stats.last_acked_ns = now;
    d->stats.rcpts_acked += s->client.rcpts_acked;
    if (s->dot_ns != 0) /* 0: answered before all of it was written */
        bench_hist_record(&d->stats.eod_ns, now - s->dot_ns);
    if (d->interval_ns != 0)
        bench_hist_record(&d->stats.open_ns,
                          now - (d->stats.first_ns + s->client.acked_claim * d->interval_ns));
    record_acked(d, &s->client);
}

static void session_refused(struct driver *d, struct driver_session *s,
                            enum bench_client_state state)
{
    char name[64];
    s->finished++;
    d->stats.refused++;
    snprintf(name, sizeof(name), "%d at %s", s->client.last_code, bench_client_state_name(state));
    count_name(d->stats.refusals, DRIVER_REFUSAL_KINDS, name);
}

static bool tls_begin(struct driver *d, struct driver_session *s);

/* False: the session is gone. */
static bool session_reply(struct driver *d, struct driver_session *s)
{
    enum bench_client_state state = s->client.state;
    uint64_t now = bench_clock_ns();
    enum bench_client_event event = bench_client_reply(&s->client, &s->reply);
    s->active_ns = now;
    switch (event) {
    case BENCH_CLIENT_NONE: break;
    case BENCH_CLIENT_ACKED: session_acked(d, s, now); break;
    case BENCH_CLIENT_REFUSED: session_refused(d, s, state); break;
    case BENCH_CLIENT_READY: session_up(d, s); return true;
    case BENCH_CLIENT_WANT_TLS: return tls_begin(d, s);
    case BENCH_CLIENT_DONE: session_done(d, s); return false;
    case BENCH_CLIENT_ERROR: session_fail(d, s, s->client.error); return false;
    }
    if (!s->up && (s->client.state == BENCH_CLIENT_MAIL || s->client.state == BENCH_CLIENT_WAIT))
        session_up(d, s);
    if (s->client.state == BENCH_CLIENT_WAIT && !s->idle) {
        s->idle = true;
        TAILQ_INSERT_TAIL(&d->idle, s, link);
    }
    return true;
}

/* ---- bytes --------------------------------------------------------------------------------- */

static bool session_input(struct driver *d, struct driver_session *s, const char *data,
                          size_t count)
{
    while (count > 0) {
        size_t used = 0;
        enum bench_reply_result result = bench_reply_feed(&s->reply, data, count, &used);
        if (result == BENCH_REPLY_BAD) {
            session_fail(d, s, "not an SMTP reply");
            return false;
        }
        data += used;
        count -= used;
        if (result == BENCH_REPLY_DONE && !session_reply(d, s))
            return false;
    }
    return true;
}

static bool tls_begin(struct driver *d, struct driver_session *s)
{
    if (!bench_tls_start(&s->tls, d->tls, d->tls_name)) {
        session_fail(d, s, "no memory for TLS");
        return false;
    }
    if (s->ticket != NULL)
        bench_tls_session_use(&s->tls, s->ticket);
    bench_tls_handshake(&s->tls); /* makes the ClientHello */
    return true;
}

static bool tls_input(struct driver *d, struct driver_session *s)
{
    if (!s->tls.established) {
        enum bench_tls_result result = bench_tls_handshake(&s->tls);
        if (result == BENCH_TLS_WANT)
            return true;
        if (result != BENCH_TLS_OK) {
            session_fail(d, s, "TLS handshake failed");
            return false;
        }
        d->stats.tls_handshakes++;
        d->stats.tls_resumed += bench_tls_resumed(&s->tls);
        if (d->tls_text[0] == '\0')
            snprintf(d->tls_text, sizeof(d->tls_text), "%s", bench_tls_describe(&s->tls));
        bench_client_tls_up(&s->client, d->tls_mode == DRIVER_TLS_IMPLICIT);
    }
    for (;;) {
        size_t count = 0;
        enum bench_tls_result result = bench_tls_read(&s->tls, d->plain, sizeof(d->plain), &count);
        if (result == BENCH_TLS_WANT)
            return true;
        if (result != BENCH_TLS_OK) {
            session_fail(d, s, result == BENCH_TLS_CLOSED ? "closed by the server" : "TLS error");
            return false;
        }
        if (!session_input(d, s, d->plain, count))
            return false;
    }
}

/* Reads what is there; false: the session is gone. */
static bool session_read(struct driver *d, struct driver_session *s)
{
    for (;;) {
        ssize_t count = recv(s->fd, d->io, sizeof(d->io), 0);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            return true;
        if (count <= 0) {
            session_fail(d, s, count == 0 ? "closed by the server" : strerror(errno));
            return false;
        }
        if (s->tls.ssl != NULL) {
            bench_buf_add(&s->tls.in, d->io, (size_t)count);
            if (!tls_input(d, s))
                return false;
        } else if (!session_input(d, s, d->io, (size_t)count)) {
            return false;
        }
        if ((size_t)count < sizeof(d->io))
            return true; /* edge-triggered: a short read drained it, more makes a new event */
    }
}

/* Sends plain output; bytes sent, 0 when the socket is full, -1 on an error. */
static ssize_t send_plain(struct driver_session *s)
{
    struct bench_client *c = &s->client;
    struct iovec parts[] = {
        {(void *)(uintptr_t)bench_buf_head(&c->head), bench_buf_count(&c->head)},
        {(void *)(uintptr_t)c->body, c->body_left},
        {(void *)(uintptr_t)bench_buf_head(&c->tail), bench_buf_count(&c->tail)}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = sizeof(parts) / sizeof(parts[0])};
    ssize_t count;
    if (c->body_left == 0 && bench_buf_count(&c->tail) == 0)
        count = send(s->fd, parts[0].iov_base, parts[0].iov_len, MSG_NOSIGNAL);
    else
        count = sendmsg(s->fd, &message, MSG_NOSIGNAL);
    if (count > 0)
        bench_client_sent(c, (size_t)count);
    return count;
}

static ssize_t send_tls(struct driver *d, struct driver_session *s)
{
    while (s->tls.established && bench_client_has_output(&s->client) &&
           bench_buf_count(&s->tls.out) < BENCH_TLS_OUT_MAX) {
        size_t count = bench_client_take(&s->client, d->plain, DRIVER_TLS_CHUNK);
        if (bench_tls_write(&s->tls, d->plain, count) != BENCH_TLS_OK) {
            errno = EPROTO;
            return -1;
        }
    }
    ssize_t count =
        send(s->fd, bench_buf_head(&s->tls.out), bench_buf_count(&s->tls.out), MSG_NOSIGNAL);
    if (count > 0)
        bench_buf_consume(&s->tls.out, (size_t)count);
    return count;
}

static bool has_output(const struct driver_session *s)
{
    if (s->tls.ssl == NULL)
        return bench_client_has_output(&s->client);
    return bench_buf_count(&s->tls.out) > 0 ||
           (s->tls.established && bench_client_has_output(&s->client));
}

static void session_write(struct driver *d, struct driver_session *s)
{
    while (has_output(s)) {
        ssize_t count = s->tls.ssl != NULL ? send_tls(d, s) : send_plain(s);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN) {
            s->write_blocked = true;
            return;
        }
        if (count < 0) {
            /* what the server said before it closed matters more than the failed write */
            if (session_read(d, s))
                session_fail(d, s, "write failed");
            return;
        }
        d->stats.bytes_sent += (uint64_t)count;
        s->active_ns = bench_clock_ns();
    }
    if (s->client.dot_sent && s->dot_ns == 0)
        s->dot_ns = s->active_ns;
}

/* After input: a new dot is timed when it has been written. */
static void session_go_on(struct driver *d, struct driver_session *s)
{
    if (!s->client.dot_sent || bench_client_has_output(&s->client))
        s->dot_ns = 0;
    if (!s->write_blocked)
        session_write(d, s);
}

static void session_connect(struct driver *d, struct driver_session *s)
{
    unsigned source = d->source_ip_count > 0 ? 1 + s->index % d->source_ip_count : 0;
    bench_client_begin(&s->client, &d->run, s->index);
    bench_reply_init(&s->reply);
    s->connected = s->up = s->write_blocked = false;
    s->finished = 0;
    s->dot_ns = 0;
    s->begun_ns = s->active_ns = bench_clock_ns();
    s->fd = bench_net_connect(&d->to, source);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = s};
    if (s->fd < 0 || epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, s->fd, &event) != 0) {
        d->stats.connections_failed++;
        char name[64];
        snprintf(name, sizeof(name), "%s (connect)", strerror(errno));
        count_error(d, name);
        if (s->fd >= 0)
            close(s->fd);
        s->fd = -1;
        if (d->keep_going) {
            s->due_ns = s->begun_ns + DRIVER_BACKOFF_NS;
            TAILQ_INSERT_TAIL(&d->backoff, s, link);
        }
        return;
    }
    d->active_count++;
    d->connecting_count++;
}

/* True: connected now; false: not yet, or failed. */
static bool session_connected(struct driver *d, struct driver_session *s)
{
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
        d->stats.connections_failed++;
        session_fail(d, s, strerror(error));
        return false;
    }
    s->connected = true;
    d->stats.connections++;
    if (d->tls_mode != DRIVER_TLS_IMPLICIT)
        return true;
    s->client.state = BENCH_CLIENT_TLS;
    return tls_begin(d, s);
}

static void session_event(struct driver *d, struct driver_session *s, uint32_t events)
{
    if (!s->connected) {
        if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) || !session_connected(d, s))
            return;
    } else if (events & EPOLLOUT) {
        s->write_blocked = false;
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !session_read(d, s))
        return;
    session_go_on(d, s);
}

/* ---- rounds -------------------------------------------------------------------------------- */

bool driver_start(struct driver *d)
{
    TAILQ_INIT(&d->waiting);
    TAILQ_INIT(&d->backoff);
    bench_hist_init(&d->stats.eod_ns);
    bench_hist_init(&d->stats.session_ns);
    bench_hist_init(&d->stats.setup_ns);
    bench_hist_init(&d->stats.open_ns);
    TAILQ_INIT(&d->idle);
    d->run.open_loop = d->interval_ns != 0;
    d->run.claim_at_connect = d->run.open_loop && d->run.messages_per_session == 1;
    if (bench_net_raise_files(d->session_count + 64ull) < d->session_count + 16ull) {
        fprintf(stderr,
                "hikyaku-bench: the limit of open files is below %u sessions; raise it "
                "with ulimit -n\n",
                d->session_count);
        return false;
    }
    d->sessions = calloc(d->session_count, sizeof(*d->sessions));
    d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (d->sessions == NULL || d->epoll_fd < 0) {
        fprintf(stderr, "hikyaku-bench: no memory for %u sessions\n", d->session_count);
        return false;
    }
    for (uint32_t i = 0; i < d->session_count; i++) {
        d->sessions[i].fd = -1;
        d->sessions[i].index = i;
        TAILQ_INSERT_TAIL(&d->waiting, &d->sessions[i], link);
    }
    d->stats.first_ns = d->swept_ns = bench_clock_ns();
    return true;
}

static void connect_waiting(struct driver *d)
{
    struct driver_session *s;
    uint64_t now = TAILQ_EMPTY(&d->backoff) ? 0 : bench_clock_ns();
    while ((s = TAILQ_FIRST(&d->backoff)) != NULL && (s->due_ns <= now || !wants_more(d))) {
        TAILQ_REMOVE(&d->backoff, s, link);
        TAILQ_INSERT_TAIL(&d->waiting, s, link);
    }
    while ((s = TAILQ_FIRST(&d->waiting)) != NULL) {
        if (wants_more(d) && d->connecting_count >= d->connecting_max)
            return;
        if (d->run.claim_at_connect && wants_more(d) && !bench_client_claim(&s->client, &d->run))
            return;
        TAILQ_REMOVE(&d->waiting, s, link);
        if (wants_more(d))
            session_connect(d, s);
    }
}

static void sweep(struct driver *d)
{
    uint64_t now = bench_clock_ns();
    if (now - d->swept_ns < 1000000000ull)
        return;
    d->swept_ns = now;
    for (uint32_t i = 0; i < d->session_count; i++) {
        struct driver_session *s = &d->sessions[i];
        if (s->fd >= 0 && s->client.state != BENCH_CLIENT_HOLD &&
            s->client.state != BENCH_CLIENT_WAIT && now > s->active_ns &&
            now - s->active_ns > d->timeout_ms * 1000000ull)
            session_fail(d, s, "timeout");
    }
}

static void write_record(struct driver *d)
{
    while (!d->record_failed && bench_buf_count(&d->record) > 0) {
        ssize_t count =
            write(d->record_fd, bench_buf_head(&d->record), bench_buf_count(&d->record));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            fprintf(stderr, "hikyaku-bench: cannot write the record: %s\n", strerror(errno));
            d->record_failed = true;
            d->run.stop = true;
            return;
        }
        bench_buf_consume(&d->record, (size_t)count);
    }
}

/* Open loop: what is due by now goes to sessions without a message; at the end they leave. */
static void begin_due(struct driver *d)
{
    d->run.due = (bench_clock_ns() - d->stats.first_ns) / d->interval_ns + 1;
    struct driver_session *s;
    while ((s = TAILQ_FIRST(&d->idle)) != NULL) {
        if (!wants_more(d))
            bench_client_quit(&s->client);
        else if (!bench_client_go(&s->client))
            return;
        TAILQ_REMOVE(&d->idle, s, link);
        s->idle = false;
        s->active_ns = bench_clock_ns();
        session_go_on(d, s);
    }
}

/* How long a round may wait: until the next message is due, if a session waits for it. */
static uint64_t wait_ns(const struct driver *d, int wait_ms)
{
    uint64_t wait = (uint64_t)wait_ms * 1000000u;
    if (!TAILQ_EMPTY(&d->backoff) && wait > 10000000u)
        wait = 10000000u;
    bool ready = !TAILQ_EMPTY(&d->idle) || !TAILQ_EMPTY(&d->waiting);
    if (d->interval_ns == 0 || !ready || !wants_more(d))
        return wait;
    uint64_t next = d->stats.first_ns + d->run.claimed * d->interval_ns, now = bench_clock_ns();
    uint64_t left = next > now ? next - now : 0;
    return left < wait ? left : wait;
}

void driver_round(struct driver *d, int wait_ms)
{
    struct epoll_event events[DRIVER_EVENTS];
    if (d->interval_ns != 0)
        begin_due(d);
    connect_waiting(d);
    uint64_t wait = wait_ns(d, wait_ms);
    struct timespec limit = {.tv_sec = (time_t)(wait / 1000000000u),
                             .tv_nsec = (long)(wait % 1000000000u)};
    int count = epoll_pwait2(d->epoll_fd, events, DRIVER_EVENTS, &limit, NULL);
    for (int i = 0; i < count; i++) {
        struct driver_session *s = events[i].data.ptr;
        if (s->fd >= 0)
            session_event(d, s, events[i].events);
    }
    if (d->record_fd >= 0)
        write_record(d);
    sweep(d);
}

bool driver_finished(const struct driver *d)
{
    return d->active_count == 0 &&
           ((TAILQ_EMPTY(&d->waiting) && TAILQ_EMPTY(&d->backoff)) || !wants_more(d));
}

void driver_quit_held(struct driver *d)
{
    for (uint32_t i = 0; i < d->session_count; i++) {
        struct driver_session *s = &d->sessions[i];
        if (s->fd >= 0 && s->client.state == BENCH_CLIENT_HOLD) {
            bench_client_quit(&s->client);
            s->active_ns = bench_clock_ns();
            session_write(d, s);
        }
    }
}

void driver_stop(struct driver *d)
{
    d->run.stop = true;
    for (uint32_t i = 0; d->sessions != NULL && i < d->session_count; i++) {
        struct driver_session *s = &d->sessions[i];
        if (s->fd >= 0) {
            d->keep_going = false;
            session_fail(d, s, "unfinished at the end");
        }
        bench_client_free(&s->client);
        bench_tls_session_free(s->ticket);
    }
    free(d->sessions);
    d->sessions = NULL;
    close(d->epoll_fd);
    bench_buf_free(&d->record);
}
