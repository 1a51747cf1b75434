/*
 * gateway/ctl/probe_line.c - one SMTP connection that waits for each thing it asks for.
 *
 * Owns:     the socket, the TLS connection, what came and was not looked at.
 * Runs on:  hikyakuctl's only thread, which waits here.
 * Contract: every call ends by the step's deadline.
 * Failure:  false and `why` in words; the line is of no more use.
 * Bounds:   limit_ns a step; the reply parser's bounds.
 * Tests:    tests/system/test_probe.py
 */
#include "gateway/ctl/probe_internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t probe_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

void line_init(struct probe_line *l, uint64_t limit_ns)
{
    l->fd = -1;
    l->limit_ns = limit_ns;
    l->tls = NULL;
    l->raw_at = l->raw_len = l->plain_at = l->plain_len = 0;
    line_step(l);
}

void line_step(struct probe_line *l)
{
    l->deadline_ns = probe_now_ns() + l->limit_ns;
}

void line_close(struct probe_line *l)
{
    tls_conn_free(l->tls);
    if (l->fd >= 0)
        close(l->fd);
    line_init(l, l->limit_ns);
}

bool line_has_more(const struct probe_line *l)
{
    return l->raw_at < l->raw_len || l->plain_at < l->plain_len;
}

/* ---- bytes ---- */

static bool line_wait(struct probe_line *l, short events, const char *what, struct why *why)
{
    struct pollfd p = {.fd = l->fd, .events = events};
    for (;;) {
        uint64_t now = probe_now_ns();
        int ms = now < l->deadline_ns ? (int)((l->deadline_ns - now) / NS_PER_MS) + 1 : 0;
        int got = ms ? poll(&p, 1, ms) : 0;
        if (got > 0)
            return true;
        if (got == 0) {
            why_set(why, 0, "", "%s within %.1f s", what, (double)l->limit_ns / 1e9);
            return false;
        }
        if (errno != EINTR) {
            why_set(why, 0, "", "%s", strerror(errno));
            return false;
        }
    }
}

bool line_connect(struct probe_line *l, const struct io_addr *to, const struct io_addr *from,
                  struct why *why)
{
    int error = 0;
    socklen_t len = sizeof error;
    l->fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0 || (from && bind(l->fd, &from->sa, from->len) < 0)) {
        why_set(why, 0, "", "%s%s", from && l->fd >= 0 ? "source address: " : "", strerror(errno));
        return false;
    }
    if (connect(l->fd, &to->sa, to->len) < 0 && errno != EINPROGRESS) {
        why_set(why, 0, "", "%s", strerror(errno));
        return false;
    }
    if (!line_wait(l, POLLOUT, "no answer", why))
        return false;
    if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error) {
        why_set(why, 0, "", "%s", strerror(error ? error : errno));
        return false;
    }
    return true;
}

static bool raw_send(struct probe_line *l, struct slice data, struct why *why)
{
    while (data.len) {
        ssize_t n = send(l->fd, data.ptr, data.len, MSG_NOSIGNAL);
        if (n > 0)
            data = slice_from(data, (size_t)n);
        else if (errno != EAGAIN && errno != EINTR) {
            why_set(why, 0, "", "%s", strerror(errno));
            return false;
        } else if (!line_wait(l, POLLOUT, "nothing was read", why))
            return false;
    }
    return true;
}

static bool raw_recv(struct probe_line *l, struct why *why)
{
    if (l->raw_at == l->raw_len)
        l->raw_at = l->raw_len = 0;
    if (l->raw_len == sizeof l->raw) {
        memmove(l->raw, l->raw + l->raw_at, l->raw_len - l->raw_at);
        l->raw_len -= l->raw_at;
        l->raw_at = 0;
    }
    for (;;) {
        ssize_t n = recv(l->fd, l->raw + l->raw_len, sizeof l->raw - l->raw_len, 0);
        if (n > 0) {
            l->raw_len += (uint32_t)n;
            return true;
        }
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            why_set(why, 0, "", n ? "%s" : "the connection was closed", strerror(errno));
            return false;
        }
        if (!line_wait(l, POLLIN, "no answer", why))
            return false;
    }
}

static struct slice raw_slice(const struct probe_line *l)
{
    return slice_of(l->raw + l->raw_at, l->raw_len - l->raw_at);
}

/* What a call of TLS left of `in`, and what it wants sent. */
static bool tls_after(struct probe_line *l, struct slice in, struct buf *out, struct why *why)
{
    l->raw_at = l->raw_len - (uint32_t)in.len;
    return out->len == 0 || raw_send(l, buf_slice(out), why);
}

bool line_tls(struct probe_line *l, struct tls_ctx *ctx, const char *name, struct why *why)
{
    uint8_t wire[16 * 1024];
    l->tls = tls_client_conn(ctx, name);
    if (!l->tls) {
        why_set(why, 0, "", "out of memory");
        return false;
    }
    for (;;) {
        struct slice in = raw_slice(l);
        struct buf out = buf_over(wire, sizeof wire);
        struct why ignored;
        enum tls_status st = tls_handshake(l->tls, &in, &out, why);
        if (!tls_after(l, in, &out, st == TLS_FAILED ? &ignored : why) || st == TLS_FAILED)
            return false;
        if (st == TLS_OK)
            return true;
        if (st == TLS_WANT_IN && !raw_recv(l, why))
            return false;
    }
}

bool line_send(struct probe_line *l, struct slice data, struct why *why)
{
    uint8_t wire[20 * 1024];
    if (!l->tls)
        return raw_send(l, data, why);
    while (data.len) {
        struct buf out = buf_over(wire, sizeof wire);
        if (tls_write(l->tls, &data, &out, why) == TLS_FAILED || !raw_send(l, buf_slice(&out), why))
            return false;
    }
    return true;
}

/* At least one byte to look at. */
static bool line_fill(struct probe_line *l, struct slice *in, struct why *why)
{
    uint8_t wire[4096];
    if (!l->tls) {
        if (l->raw_at == l->raw_len && !raw_recv(l, why))
            return false;
        *in = raw_slice(l);
        return true;
    }
    while (l->plain_at == l->plain_len) {
        struct slice cipher = raw_slice(l);
        struct buf plain = buf_over(l->plain, sizeof l->plain), out = buf_over(wire, sizeof wire);
        enum tls_status st = tls_read(l->tls, &cipher, &out, &plain, why);
        l->plain_at = 0;
        l->plain_len = plain.len;
        if (!tls_after(l, cipher, &out, why) || st == TLS_FAILED)
            return false;
        if (st == TLS_CLOSED) {
            why_set(why, 0, "", "the connection was closed");
            return false;
        }
        if (st == TLS_WANT_IN && !raw_recv(l, why))
            return false;
    }
    *in = slice_of(l->plain + l->plain_at, l->plain_len - l->plain_at);
    return true;
}

bool line_reply(struct probe_line *l, struct smtp_reply *reply, struct smtp_out *offers,
                struct why *why)
{
    struct smtp_reply_parser p;
    struct slice in;
    smtp_reply_start(&p, reply);
    while (line_fill(l, &in, why)) {
        size_t given = in.len;
        enum smtp_parse got = smtp_reply_parse(&p, &in, reply);
        *(l->tls ? &l->plain_at : &l->raw_at) += (uint32_t)(given - in.len);
        if (got == SMTP_PARSE_BAD) {
            why_set(why, 0, "", "%s", reply->text);
            return false;
        }
        if (got == SMTP_PARSE_DONE && offers && p.line_count > 1)
            smtp_out_learn(offers, slice_of(p.line, p.line_len));
        if (got == SMTP_PARSE_DONE && p.last)
            return true;
    }
    return false;
}
