/*
 * bench/driver.c - runs client sessions over io_uring, one thread: rounds and sessions' lives.
 *
 * Owns:     the thread's io; every session and its timestamps; the record of acknowledged ids.
 * Runs on:  one thread.
 * Contract: an id is recorded only after its 2xx was read, and written before the next wait, so
 *           that the record is complete whenever the server is killed. A message of an open loop
 *           is counted from the time it was due, whatever the driver did meanwhile.
 * Failure:  a session's error is counted by kind; with keep_going it connects again.
 * Bounds:   session_count sessions, timeout_ms without progress, DRIVER_ERROR_KINDS names,
 *           RECV_BUFS of RECV_BUF_SIZE for what was received and not looked at yet.
 * Tests:    tests/system/test_bench.py: the commands against each other; client.c has unit tests.
 */
#include "bench/driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench/driver_internal.h"

#define DRIVER_BACKOFF_NS 50000000ull
#define DRIVER_FDS_SPARE  64u
#define RECV_BUFS         1024u
#define RECV_BUF_SIZE     2048u

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

bool driver_wants_more(const struct driver *d)
{
    return !d->run.stop && (d->run.hold || d->run.claimed < d->run.claimed_max);
}

void driver_session_ended(struct driver *d, struct driver_session *s)
{
    if (io_op_running(&s->connect) || io_op_running(&s->recv) || io_op_running(&s->send))
        return;
    s->stage = DRIVER_NONE;
    d->active_count--;
    if (s->after == DRIVER_AFTER_WAIT) {
        TAILQ_INSERT_TAIL(&d->waiting, s, link);
    } else if (s->after == DRIVER_AFTER_BACKOFF) {
        s->due_ns = bench_clock_ns() + DRIVER_BACKOFF_NS;
        TAILQ_INSERT_TAIL(&d->backoff, s, link);
    }
}

static void session_close(struct driver *d, struct driver_session *s, enum driver_after after)
{
    if (d->tls_resume && s->tls.ssl != NULL && s->tls.established) {
        struct bench_tls_session *ticket = bench_tls_session_take(&s->tls);
        if (ticket != NULL) {
            bench_tls_session_free(s->ticket);
            s->ticket = ticket;
        }
    }
    if (s->idle)
        TAILQ_REMOVE(&d->idle, s, link);
    s->idle = false;
    if (!s->up)
        d->connecting_count--;
    else if (d->run.hold)
        d->ready_count--;
    bench_tls_free(&s->tls);
    s->after = after;
    if (!driver_io_close(d, s))
        driver_session_ended(d, s);
}

/* Once a connection: its first message goes wrong. */
static void fault_count(struct driver *d, struct driver_session *s)
{
    if (!s->fault_counted && s->client.fault_begun)
        d->stats.faults[s->client.fault].begun++;
    s->fault_counted = s->client.fault_begun;
}

/* The connection ended well: again, if there is more to do. */
static void session_done(struct driver *d, struct driver_session *s)
{
    bench_hist_record(&d->stats.session_ns, bench_clock_ns() - s->begun_ns);
    bool again = driver_wants_more(d) && !d->run.hold;
    session_close(d, s, again ? DRIVER_AFTER_WAIT : DRIVER_AFTER_NOTHING);
}

void driver_session_vanish(struct driver *d, struct driver_session *s)
{
    fault_count(d, s);
    session_close(d, s, driver_wants_more(d) ? DRIVER_AFTER_WAIT : DRIVER_AFTER_NOTHING);
}

void driver_session_fail(struct driver *d, struct driver_session *s, const char *why)
{
    uint64_t lost = s->client.message_count - s->finished + s->client.claimed_ahead;
    char name[64];
    if (bench_client_in_fault(&s->client) && lost > 0) {
        d->stats.faults[s->client.fault].cut++;
        driver_session_vanish(d, s);
        return;
    }
    s->client.claimed_ahead = false;
    snprintf(name, sizeof(name), "%s (%s)", why,
             s->stage == DRIVER_OPEN ? bench_client_state_name(s->client.state) : "connect");
    count_error(d, name);
    d->stats.lost += lost;
    if (d->keep_going && !d->run.open_loop) /* there each message has its time, which is over */
        d->run.claimed -= lost;
    session_close(d, s, d->keep_going ? DRIVER_AFTER_BACKOFF : DRIVER_AFTER_NOTHING);
}

static void session_up(struct driver *d, struct driver_session *s)
{
    s->up = true;
    d->connecting_count--;
    bench_hist_record(&d->stats.setup_ns, bench_clock_ns() - s->begun_ns);
    if (d->run.hold)
        d->ready_count++;
}

/* True: the message that was answered is one whose bytes went wrong. */
static bool fault_answered(const struct driver_session *s)
{
    return s->finished == 1 && s->client.fault_begun &&
           s->client.fault != BENCH_FAULT_LONG_COMMAND &&
           s->client.fault != BENCH_FAULT_BAD_COMMAND;
}

static void session_acked(struct driver *d, struct driver_session *s, uint64_t now)
{
    s->finished++;
    d->stats.acked++;
    d->stats.last_acked_ns = now;
    d->stats.rcpts_acked += s->client.rcpts_acked;
    record_acked(d, &s->client);
    if (fault_answered(s)) { /* its times are the client's own */
        d->stats.faults[s->client.fault].accepted++;
        return;
    }
    if (s->dot_ns != 0) /* 0: answered before all of it was written */
        bench_hist_record(&d->stats.eod_ns, now - s->dot_ns);
    if (d->interval_ns != 0)
        bench_hist_record(&d->stats.open_ns,
                          now - (d->stats.first_ns + s->client.acked_claim * d->interval_ns));
}

static void session_refused(struct driver *d, struct driver_session *s,
                            enum bench_client_state state)
{
    char name[64];
    s->finished++;
    if (fault_answered(s)) {
        d->stats.faults[s->client.fault].refused++;
        return;
    }
    d->stats.refused++;
    snprintf(name, sizeof(name), "%d at %s", s->client.last_code, bench_client_state_name(state));
    count_name(d->stats.refusals, DRIVER_REFUSAL_KINDS, name);
}

bool driver_session_reply(struct driver *d, struct driver_session *s)
{
    enum bench_client_state state = s->client.state;
    enum bench_client_event event = bench_client_reply(&s->client, &s->reply);
    s->active_ns = io_now_ns(d->io);
    fault_count(d, s);
    switch (event) {
    case BENCH_CLIENT_NONE: break;
    case BENCH_CLIENT_ACKED: session_acked(d, s, bench_clock_ns()); break;
    case BENCH_CLIENT_REFUSED: session_refused(d, s, state); break;
    case BENCH_CLIENT_READY: session_up(d, s); return true;
    case BENCH_CLIENT_WANT_TLS: return driver_tls_begin(d, s);
    case BENCH_CLIENT_DONE: session_done(d, s); return false;
    case BENCH_CLIENT_VANISH: driver_session_vanish(d, s); return false;
    case BENCH_CLIENT_FAULTED:
        if (s->client.last_code < 400)
            d->stats.faults[s->client.fault].accepted++;
        else
            d->stats.faults[s->client.fault].refused++;
        break;
    case BENCH_CLIENT_ERROR: driver_session_fail(d, s, s->client.error); return false;
    }
    if (s->client.fault == BENCH_FAULT_HALF_CLOSE && s->client.state == BENCH_CLIENT_QUIT) {
        driver_session_vanish(d, s); /* its QUIT could not be sent */
        return false;
    }
    if (!s->up && (s->client.state == BENCH_CLIENT_MAIL || s->client.state == BENCH_CLIENT_WAIT))
        session_up(d, s);
    if (s->client.state == BENCH_CLIENT_WAIT && !s->idle) {
        s->idle = true;
        TAILQ_INSERT_TAIL(&d->idle, s, link);
    }
    return true;
}

/* ---- rounds -------------------------------------------------------------------------------- */

/* Nothing to do: a round that waited ends. */
static void tick(struct timer *t)
{
    (void)t;
}

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
    const struct io_params params = {.fd_count_max = d->session_count + DRIVER_FDS_SPARE,
                                     .recv_buf_count = RECV_BUFS,
                                     .recv_buf_size = RECV_BUF_SIZE,
                                     .cpu = -1};
    struct why why = {0};
    d->io = io_create(&params, &why);
    if (d->io == NULL) {
        fprintf(stderr, "hikyaku-bench: %s\n", why.text);
        return false;
    }
    d->sessions = calloc(d->session_count, sizeof(*d->sessions));
    if (d->sessions == NULL) {
        fprintf(stderr, "hikyaku-bench: no memory for %u sessions\n", d->session_count);
        io_destroy(d->io);
        return false;
    }
    d->tick.fire = tick;
    /* waits end when they should, not up to 50 us later: messages are due at fixed times */
    (void)prctl(PR_SET_TIMERSLACK, 1);
    for (uint32_t i = 0; i < d->session_count; i++) {
        d->sessions[i].index = i;
        driver_io_init(d, &d->sessions[i]);
        TAILQ_INSERT_TAIL(&d->waiting, &d->sessions[i], link);
    }
    d->stats.first_ns = d->swept_ns = bench_clock_ns();
    return true;
}

static void session_connect(struct driver *d, struct driver_session *s)
{
    bench_client_begin(&s->client, &d->run, s->index);
    s->client.fault = bench_fault_draw(&d->faults, s->index, s->connection_count++);
    bench_reply_init(&s->reply);
    bench_buf_clear(&s->wire);
    s->up = s->fault_counted = false;
    s->finished = 0;
    s->dot_ns = 0;
    s->begun_ns = s->active_ns = bench_clock_ns();
    d->active_count++;
    d->connecting_count++;
    driver_io_connect(d, s);
}

static void connect_waiting(struct driver *d)
{
    struct driver_session *s;
    uint64_t now = TAILQ_EMPTY(&d->backoff) ? 0 : bench_clock_ns();
    while ((s = TAILQ_FIRST(&d->backoff)) != NULL && (s->due_ns <= now || !driver_wants_more(d))) {
        TAILQ_REMOVE(&d->backoff, s, link);
        TAILQ_INSERT_TAIL(&d->waiting, s, link);
    }
    while ((s = TAILQ_FIRST(&d->waiting)) != NULL) {
        if (driver_wants_more(d) && d->connecting_count >= d->connecting_max)
            return;
        if (d->run.claim_at_connect && driver_wants_more(d) &&
            !bench_client_claim(&s->client, &d->run))
            return;
        TAILQ_REMOVE(&d->waiting, s, link);
        if (driver_wants_more(d))
            session_connect(d, s);
    }
}

static bool is_open(const struct driver_session *s)
{
    return s->stage == DRIVER_CONNECTING || s->stage == DRIVER_OPEN;
}

static void sweep(struct driver *d)
{
    uint64_t now = bench_clock_ns();
    if (now - d->swept_ns < 1000000000ull)
        return;
    d->swept_ns = now;
    for (uint32_t i = 0; i < d->session_count; i++) {
        struct driver_session *s = &d->sessions[i];
        bool waits = s->stage == DRIVER_OPEN &&
                     (s->client.state == BENCH_CLIENT_HOLD || s->client.state == BENCH_CLIENT_WAIT);
        if (is_open(s) && !waits && now > s->active_ns &&
            now - s->active_ns > d->timeout_ms * 1000000ull)
            driver_session_fail(d, s, "timeout");
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
        if (!driver_wants_more(d))
            bench_client_quit(&s->client);
        else if (!bench_client_go(&s->client))
            return;
        TAILQ_REMOVE(&d->idle, s, link);
        s->idle = false;
        s->active_ns = bench_clock_ns();
        driver_io_go_on(d, s);
    }
}

/* How long a round may wait: until the next message is due, if a session waits for it. */
static uint64_t wait_ns(const struct driver *d, int wait_ms)
{
    uint64_t wait = (uint64_t)wait_ms * 1000000u;
    if (!TAILQ_EMPTY(&d->backoff) && wait > 10000000u)
        wait = 10000000u;
    bool ready = !TAILQ_EMPTY(&d->idle) || !TAILQ_EMPTY(&d->waiting);
    if (d->interval_ns == 0 || !ready || !driver_wants_more(d))
        return wait;
    uint64_t next = d->stats.first_ns + d->run.claimed * d->interval_ns, now = bench_clock_ns();
    uint64_t left = next > now ? next - now : 0;
    return left < wait ? left : wait;
}

void driver_round(struct driver *d, int wait_ms)
{
    if (d->interval_ns != 0)
        begin_due(d);
    connect_waiting(d);
    io_timer_set(d->io, &d->tick, bench_clock_ns() + wait_ns(d, wait_ms));
    io_turn(d->io, true);
    if (d->record_fd >= 0)
        write_record(d);
    sweep(d);
}

bool driver_finished(const struct driver *d)
{
    return d->active_count == 0 &&
           ((TAILQ_EMPTY(&d->waiting) && TAILQ_EMPTY(&d->backoff)) || !driver_wants_more(d));
}

void driver_quit_held(struct driver *d)
{
    for (uint32_t i = 0; i < d->session_count; i++) {
        struct driver_session *s = &d->sessions[i];
        if (s->stage == DRIVER_OPEN && s->client.state == BENCH_CLIENT_HOLD) {
            bench_client_quit(&s->client);
            s->active_ns = bench_clock_ns();
            driver_io_flush(d, s);
        }
    }
}

void driver_stop(struct driver *d)
{
    bool keep_going = d->keep_going;
    d->run.stop = true;
    d->keep_going = false; /* what is cut now stays cut */
    for (uint32_t i = 0; i < d->session_count; i++) {
        if (is_open(&d->sessions[i]))
            driver_session_fail(d, &d->sessions[i], "unfinished at the end");
    }
    while (d->active_count > 0)
        io_turn(d->io, true); /* what was cancelled ends */
    d->keep_going = keep_going;
    for (uint32_t i = 0; i < d->session_count; i++) {
        struct driver_session *s = &d->sessions[i];
        bench_client_free(&s->client);
        bench_tls_session_free(s->ticket);
        bench_buf_free(&s->wire);
    }
    io_timer_clear(d->io, &d->tick);
    io_destroy(d->io);
    free(d->sessions);
    d->sessions = NULL;
    bench_buf_free(&d->record);
}
