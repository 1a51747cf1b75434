/*
 * bench/cmd_null.c - the null server: holds the conversation and keeps nothing.
 *
 * The yardstick: its CPU per message is what TCP, epoll and the words of SMTP cost on this machine.
 *
 * Owns:     its listener and connections.
 * Runs on:  one thread.
 * Contract: every command is answered as a willing server would; data ends at CRLF.CRLF only. One
 *           read and one write for whatever a client pipelines.
 * Failure:  a connection's error closes it.
 * Bounds:   NULL_LINE_MAX a line (closes), the limit of open files; --seconds, or a stop signal.
 * Tests:    load against null; dot.c has the unit tests.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/dot.h"
#include "bench/limits.h"
#include "bench/net.h"
#include "bench/opts.h"

#define NULL_LINE_MAX 2048u
#define NULL_OUT_SIZE 65536u
#define NULL_EVENTS   256

struct null_conn {
    int fd;
    bool in_data;
    uint16_t line_count; /* bytes of an unfinished command */
    struct bench_dot dot;
    LIST_ENTRY(null_conn) link;
    char line[NULL_LINE_MAX];
};

LIST_HEAD(null_conn_list, null_conn);

struct null_server {
    struct null_conn_list open;
    int epoll_fd, listen_fd;
    uint64_t connections, messages, bytes;
    size_t out_count;
    char out[NULL_OUT_SIZE];
    char in[BENCH_IO_SIZE];
};

static void count_bytes(void *ctx, const char *data, size_t count)
{
    (void)data;
    *(uint64_t *)ctx += count;
}

static void put(struct null_server *s, const char *reply, size_t count)
{
    if (s->out_count + count > sizeof(s->out))
        return; /* a client that pipelines thousands of commands: it will miss a reply and stop */
    memcpy(s->out + s->out_count, reply, count);
    s->out_count += count;
}

#define PUT(s, text) put(s, text, sizeof(text) - 1)

/* False: close after the replies. */
static bool take_line(struct null_server *s, struct null_conn *c, const char *line, size_t count)
{
    if (count >= 4 && strncasecmp(line, "RCPT", 4) == 0) {
        PUT(s, "250 2.1.5 Ok\r\n");
    } else if (count >= 4 && strncasecmp(line, "MAIL", 4) == 0) {
        PUT(s, "250 2.1.0 Ok\r\n");
    } else if (count >= 4 && strncasecmp(line, "DATA", 4) == 0) {
        c->in_data = true;
        bench_dot_init(&c->dot);
        PUT(s, "354 End data with <CR><LF>.<CR><LF>\r\n");
    } else if (count >= 4 && strncasecmp(line, "EHLO", 4) == 0) {
        PUT(s, "250-null.test\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n"
               "250-AUTH PLAIN\r\n250 SMTPUTF8\r\n");
    } else if (count >= 4 && strncasecmp(line, "AUTH", 4) == 0) {
        PUT(s, "235 2.7.0 Ok\r\n");
    } else if (count >= 4 && strncasecmp(line, "QUIT", 4) == 0) {
        PUT(s, "221 2.0.0 Bye\r\n");
        return false;
    } else {
        PUT(s, "250 2.0.0 Ok\r\n");
    }
    return true;
}

/* One command, or its beginning, from in; bytes taken. *open turns false at QUIT. */
static size_t take_command(struct null_server *s, struct null_conn *c, const char *in, size_t count,
                           bool *open)
{
    const char *lf = memchr(in, '\n', count);
    size_t part = lf != NULL ? (size_t)(lf - in) + 1 : count;
    if (lf != NULL && c->line_count == 0) {
        *open = take_line(s, c, in, part);
        return part;
    }
    if (c->line_count + part > sizeof(c->line)) {
        *open = false;
        return count;
    }
    memcpy(c->line + c->line_count, in, part);
    c->line_count = (uint16_t)(c->line_count + part);
    if (lf != NULL) {
        *open = take_line(s, c, c->line, c->line_count);
        c->line_count = 0;
    }
    return part;
}

static bool take_bytes(struct null_server *s, struct null_conn *c, const char *in, size_t count)
{
    bool open = true;
    while (count > 0 && open) {
        size_t used = 0;
        if (c->in_data) {
            if (bench_dot_feed(&c->dot, in, count, &used, count_bytes, &s->bytes)) {
                c->in_data = false;
                s->messages++;
                PUT(s, "250 2.0.0 Ok\r\n");
            }
        } else {
            used = take_command(s, c, in, count, &open);
        }
        in += used;
        count -= used;
    }
    return open;
}

static void conn_close(struct null_conn *c)
{
    LIST_REMOVE(c, link);
    close(c->fd);
    free(c);
}

static void conn_readable(struct null_server *s, struct null_conn *c)
{
    ssize_t count = recv(c->fd, s->in, sizeof(s->in), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        conn_close(c);
        return;
    }
    s->out_count = 0;
    bool open = take_bytes(s, c, s->in, (size_t)count);
    /* replies are small against a socket's buffer: one that does not fit is a client that does not
     * read, and is closed */
    if (s->out_count > 0 &&
        send(c->fd, s->out, s->out_count, MSG_NOSIGNAL) != (ssize_t)s->out_count)
        open = false;
    if (!open)
        conn_close(c);
}

static void conn_accept(struct null_server *s)
{
    static const char greeting[] = "220 null.test ESMTP\r\n";
    for (int i = 0; i < 64; i++) {
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct null_conn *c = malloc(sizeof(*c));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (c == NULL || epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0 ||
            send(fd, greeting, sizeof(greeting) - 1, MSG_NOSIGNAL) < 0) {
            free(c);
            close(fd);
            continue;
        }
        c->fd = fd;
        c->in_data = false;
        c->line_count = 0;
        LIST_INSERT_HEAD(&s->open, c, link);
        s->connections++;
    }
}

static int serve(struct null_server *s, const struct bench_addr *bind, uint64_t seconds)
{
    struct epoll_event events[NULL_EVENTS];
    s->listen_fd = bench_net_listen(bind);
    if (s->listen_fd < 0) {
        fprintf(stderr, "hikyaku-bench null: cannot listen on %s: %s\n", bind->text,
                strerror(errno));
        return BENCH_EXIT_FAILED;
    }
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->listen_fd, &event);
    bench_net_print_listening(bind, s->listen_fd);
    uint64_t started = bench_clock_ns();
    while (!bench_stop_requested) {
        int count = epoll_wait(s->epoll_fd, events, NULL_EVENTS, 200);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                conn_accept(s);
            else
                conn_readable(s, events[i].data.ptr);
        }
        if (seconds > 0 && bench_clock_ns() - started > seconds * 1000000000ull)
            break;
    }
    double cpu = bench_cpu_self_seconds();
    printf("{\"connections\":%" PRIu64 ",\"messages\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"cpu_seconds\":%.3f,\"cpu_us_per_message\":%.2f}\n",
           s->connections, s->messages, s->bytes, cpu,
           s->messages > 0 ? cpu * 1e6 / (double)s->messages : 0.0);
    for (struct null_conn *c = LIST_FIRST(&s->open), *next; c != NULL; c = next) {
        next = LIST_NEXT(c, link);
        close(c->fd);
        free(c);
    }
    close(s->listen_fd);
    close(s->epoll_fd);
    return BENCH_EXIT_OK;
}

int bench_cmd_null(int argc, char **argv)
{
    struct bench_addr bind = {.size = 0};
    uint64_t seconds = 0;
    const struct bench_opt opts[] = {
        {"--bind", "ADDR:PORT", BENCH_OPT_CALL, &bind, 0, 0, bench_addr_option, "listen here"},
        {"--seconds", "N", BENCH_OPT_COUNT, &seconds, 0, BENCH_SECONDS_MAX, NULL,
         "stop after this time; 0: at SIGTERM or SIGINT (default)"},
    };
    const struct bench_opt_table table = {
        "null",
        "The null server: one thread, epoll, holds the whole conversation and keeps nothing. Any\n"
        "AUTH succeeds. Prints its totals and its CPU per message as JSON when it stops.",
        opts, sizeof(opts) / sizeof(opts[0])};
    int status = bench_opts_parse(&table, argc, argv);
    if (status >= 0)
        return status;
    if (bind.size == 0)
        return bench_opts_error(&table, "--bind ADDR:PORT is needed");
    struct null_server *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return BENCH_EXIT_FAILED;
    bench_stop_install();
    bench_net_raise_files(BENCH_SESSION_COUNT_MAX + 1024);
    status = serve(s, &bind, seconds);
    free(s);
    return status;
}
