/*
 * bench/driver_io.c - a client session's bytes over gateway/io/io.h: connect, receive, send, TLS.
 *
 * Owns:     each session's operations, its bytes under way (wire) and its TLS state.
 * Runs on:  one thread.
 * Contract: what a send reads does not change until it is done. The final dot's time is that of the
 *           call that queued it if the kernel took it in that turn, else that of its completion: so
 *           a latency has the generator's own batch in it, and is not measured too short.
 * Failure:  the session fails with the error's name; a failed send waits for what the server said.
 * Bounds:   2 * WIRE_SIZE gathered, driver.chunk of a large body straight from where it lies; one
 *           send under way for each session.
 * Tests:    tests/system/test_bench.py: the commands against each other.
 */
#include <stdio.h>
#include <string.h>

#include "bench/driver_internal.h"
#include "gateway/base/list.h"
#include "gateway/limits.h"

#define WIRE_SIZE 8192u            /* gathered from the parts of the output: at most twice this */
#define TLS_CHUNK 16384u           /* plaintext given to wolfSSL at once */
#define TLS_WIRE  (4u * TLS_CHUNK) /* ciphertext sent at once */

#define SLOW_NS      (100ull * NS_PER_MS) /* between two pieces of a slow sender */
#define SOURCE_FIRST 0x7F000101u          /* 127.0.1.1 */

/* ---- input --------------------------------------------------------------------------------- */

/* False: the session is gone. */
static bool input(struct driver *d, struct driver_session *s, const char *data, size_t count)
{
    while (count > 0) {
        size_t used = 0;
        enum bench_reply_result result = bench_reply_feed(&s->reply, data, count, &used);
        if (result == BENCH_REPLY_BAD) {
            driver_session_fail(d, s, "not an SMTP reply");
            return false;
        }
        data += used;
        count -= used;
        if (result == BENCH_REPLY_DONE && !driver_session_reply(d, s))
            return false;
    }
    return true;
}

bool driver_tls_begin(struct driver *d, struct driver_session *s)
{
    if (!bench_tls_start(&s->tls, d->tls, d->tls_name)) {
        driver_session_fail(d, s, "no memory for TLS");
        return false;
    }
    if (s->ticket != NULL)
        bench_tls_session_use(&s->tls, s->ticket);
    bench_tls_handshake(&s->tls); /* makes the ClientHello */
    return true;
}

static bool handshake(struct driver *d, struct driver_session *s)
{
    enum bench_tls_result result = bench_tls_handshake(&s->tls);
    if (result == BENCH_TLS_WANT)
        return true;
    if (result != BENCH_TLS_OK) {
        driver_session_fail(d, s, "TLS handshake failed");
        return false;
    }
    d->stats.tls_handshakes++;
    d->stats.tls_resumed += bench_tls_resumed(&s->tls);
    if (d->tls_text[0] == '\0')
        snprintf(d->tls_text, sizeof(d->tls_text), "%s", bench_tls_describe(&s->tls));
    bench_client_tls_up(&s->client, d->tls_mode == DRIVER_TLS_IMPLICIT);
    return true;
}

static bool tls_input(struct driver *d, struct driver_session *s)
{
    if (!s->tls.established && !handshake(d, s))
        return false;
    while (s->tls.established) {
        size_t count = 0;
        enum bench_tls_result result = bench_tls_read(&s->tls, d->plain, sizeof(d->plain), &count);
        if (result == BENCH_TLS_WANT)
            return true;
        if (result != BENCH_TLS_OK) {
            driver_session_fail(d, s,
                                result == BENCH_TLS_CLOSED ? "closed by the server" : "TLS error");
            return false;
        }
        if (!input(d, s, d->plain, count))
            return false;
    }
    return true;
}

static void recv_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct driver_session *s = container_of(op, struct driver_session, recv);
    struct driver *d = s->driver;
    bool open = s->stage == DRIVER_OPEN;
    if (res > 0) {
        if (open && s->tls.ssl != NULL) {
            bench_buf_add(&s->tls.in, op->data, (size_t)res);
            open = tls_input(d, s);
        } else if (open) {
            open = input(d, s, (const char *)op->data, (size_t)res);
        }
        io_buf_put(d->io, op->buf_id);
        if (open)
            driver_io_go_on(d, s);
    } else if (open) {
        driver_session_fail(d, s, res == 0 ? "closed by the server" : strerror(-res));
    } else if ((flags & IO_MORE) == 0) {
        driver_session_ended(d, s);
    }
}

/* ---- output -------------------------------------------------------------------------------- */

static bool has_output(const struct driver_session *s)
{
    if (s->tls.ssl == NULL)
        return bench_client_has_output(&s->client);
    return bench_buf_count(&s->tls.out) > 0 ||
           (s->tls.established && bench_client_has_output(&s->client));
}

static void swap(struct bench_buf *a, struct bench_buf *b)
{
    struct bench_buf kept = *a;
    *a = *b;
    *b = kept;
}

/* A slow sender's bytes for SLOW_NS; SIZE_MAX for all others. */
static size_t slow_size(const struct driver *d, const struct driver_session *s)
{
    if (s->client.fault != BENCH_FAULT_SLOW || !bench_client_in_fault(&s->client))
        return SIZE_MAX;
    uint64_t bytes = d->faults.slow_bytes / (NS_PER_S / SLOW_NS);
    return bytes > 0 ? (size_t)bytes : 1;
}

/* Puts the next plain bytes under way: commands as they lie; a message gathered, but of a large one
 * only its beginning, and the rest from where it lies. */
static void fill_plain(struct driver_session *s, size_t size_max)
{
    struct bench_client *c = &s->client;
    if (size_max < WIRE_SIZE) {
        char *into = bench_buf_reserve(&s->wire, size_max);
        size_t count = bench_client_take(c, into, size_max);
        s->wire.end += count;
    } else if (c->body_left == 0 && bench_buf_count(&c->tail) == 0) {
        swap(&c->head, &s->wire);
    } else if (bench_buf_count(&c->head) == 0 && c->body_left > WIRE_SIZE) {
        s->body_in_flight = c->body_left;
        if (bench_client_dot_follows(c))
            s->body_in_flight += bench_buf_count(&c->tail);
        else
            s->body_in_flight -= WIRE_SIZE / 2; /* its end goes with the dot */
        if (s->body_in_flight > s->driver->chunk)
            s->body_in_flight = s->driver->chunk;
    } else {
        size_t size = c->body_left < 2 * WIRE_SIZE ? 2 * WIRE_SIZE : WIRE_SIZE / 4;
        char *into = bench_buf_reserve(&s->wire, size);
        size_t count = bench_client_take(c, into, size);
        s->wire.end += count;
    }
}

static bool fill_tls(struct driver *d, struct driver_session *s, size_t size_max)
{
    size_t chunk = size_max < TLS_CHUNK ? size_max : TLS_CHUNK;
    for (bool more = true; more && s->tls.established && bench_client_has_output(&s->client) &&
                           bench_buf_count(&s->tls.out) < TLS_WIRE;
         more = chunk == TLS_CHUNK) {
        size_t count = bench_client_take(&s->client, d->plain, chunk);
        if (bench_tls_write(&s->tls, d->plain, count) != BENCH_TLS_OK)
            return false;
    }
    swap(&s->tls.out, &s->wire);
    return true;
}

void driver_io_flush(struct driver *d, struct driver_session *s)
{
    if (s->stage != DRIVER_OPEN || io_op_running(&s->send) || !has_output(s) ||
        timer_is_set(&s->slow))
        return;
    size_t size_max = slow_size(d, s);
    s->body_in_flight = 0;
    if (s->tls.ssl == NULL) {
        fill_plain(s, size_max);
    } else if (!fill_tls(d, s, size_max)) {
        driver_session_fail(d, s, "write failed");
        return;
    }
    /* exact where a latency begins: the clock is read often enough to be seen in a profile */
    s->sent_ns = s->client.dot_sent ? bench_clock_ns() : io_now_ns(d->io);
    s->sent_turn = io_stats(d->io)->turns;
    if (s->body_in_flight > 0)
        io_send(d->io, &s->send, s->fd, s->client.body, (uint32_t)s->body_in_flight, IO_END_NONE);
    else
        io_send(d->io, &s->send, s->fd, bench_buf_head(&s->wire),
                (uint32_t)bench_buf_count(&s->wire), IO_END_NONE);
}

static void slow_fire(struct timer *t)
{
    struct driver_session *s = container_of(t, struct driver_session, slow);
    driver_io_flush(s->driver, s);
}

static void shut(struct driver *d, struct driver_session *s)
{
    s->client.shut_when_sent = false;
    io_shutdown(d->io, s->fd);
}

static void send_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct driver_session *s = container_of(op, struct driver_session, send);
    struct driver *d = s->driver;
    (void)flags;
    if (s->stage == DRIVER_CLOSING) {
        driver_session_ended(d, s);
        return;
    }
    if (res < 0) /* what the server said before it closed matters more: the receive ends, too */
        return;
    /* taken at once, in the turn that began it: then it was handed over when it was begun */
    bool at_once = io_stats(d->io)->turns <= s->sent_turn + 1;
    s->active_ns = at_once ? s->sent_ns : bench_clock_ns();
    d->stats.bytes_sent += (uint32_t)res;
    bench_client_sent(&s->client, s->body_in_flight);
    s->body_in_flight = 0;
    bench_buf_clear(&s->wire);
    if (has_output(s) && slow_size(d, s) != SIZE_MAX)
        io_timer_set(d->io, &s->slow, io_now_ns(d->io) + SLOW_NS);
    else if (has_output(s))
        driver_io_flush(d, s);
    else if (s->client.vanish_when_sent)
        driver_session_vanish(d, s);
    else if (s->client.shut_when_sent)
        shut(d, s);
    else if (s->client.dot_sent && s->dot_ns == 0)
        s->dot_ns = s->active_ns;
}

void driver_io_go_on(struct driver *d, struct driver_session *s)
{
    if (!s->client.dot_sent || bench_client_has_output(&s->client))
        s->dot_ns = 0;
    driver_io_flush(d, s);
}

/* ---- connections --------------------------------------------------------------------------- */

static void connect_done(struct io_op *op, int32_t res, uint32_t flags)
{
    struct driver_session *s = container_of(op, struct driver_session, connect);
    struct driver *d = s->driver;
    (void)flags;
    if (s->stage == DRIVER_CLOSING) {
        if (res >= 0)
            io_close(d->io, res);
        driver_session_ended(d, s);
        return;
    }
    if (res < 0) {
        d->stats.connections_failed++;
        driver_session_fail(d, s, strerror(-res));
        return;
    }
    s->fd = res;
    s->stage = DRIVER_OPEN;
    d->stats.connections++;
    io_recv(d->io, &s->recv, s->fd);
    if (d->tls_mode != DRIVER_TLS_IMPLICIT)
        return;
    s->client.state = BENCH_CLIENT_TLS;
    if (driver_tls_begin(d, s))
        driver_io_flush(d, s);
}

void driver_io_init(struct driver *d, struct driver_session *s)
{
    s->driver = d;
    s->fd = -1;
    s->connect.done = connect_done;
    s->recv.done = recv_done;
    s->send.done = send_done;
    s->slow.fire = slow_fire;
}

void driver_io_connect(struct driver *d, struct driver_session *s)
{
    struct io_addr to = {.len = d->to.size}, from = {0};
    memcpy(&to.in6, &d->to.storage, d->to.size);
    if (d->source_ip_count > 0) {
        from.len = sizeof(from.in);
        from.in = (struct sockaddr_in){.sin_family = AF_INET,
                                       .sin_addr.s_addr =
                                           htonl(SOURCE_FIRST + s->index % d->source_ip_count)};
    }
    s->stage = DRIVER_CONNECTING;
    io_connect(d->io, &s->connect, &to, &from);
}

bool driver_io_close(struct driver *d, struct driver_session *s)
{
    s->stage = DRIVER_CLOSING;
    io_timer_clear(d->io, &s->slow);
    io_cancel(d->io, &s->connect);
    io_cancel(d->io, &s->recv);
    io_cancel(d->io, &s->send);
    if (s->fd >= 0)
        io_close(d->io, s->fd);
    s->fd = -1;
    return io_op_running(&s->connect) || io_op_running(&s->recv) || io_op_running(&s->send);
}
