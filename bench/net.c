/*
 * bench/net.c - addresses, sockets, clocks, stop signals.
 *
 * Owns:     bench_stop_requested, the only global: a signal handler can reach nothing else.
 * Runs on:  the one thread of the command.
 * Contract: sockets are non-blocking, close-on-exec and without Nagle's delay.
 * Failure:  -1 with errno; the caller says what it was doing.
 * Bounds:   none of its own.
 * Tests:    tests/unit/test_bench_text.c (addresses)
 */
#include "bench/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

volatile sig_atomic_t bench_stop_requested;

static void on_stop(int signal_number)
{
    (void)signal_number;
    bench_stop_requested = 1;
}

void bench_stop_install(void)
{
    struct sigaction action = {.sa_handler = on_stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

const char *bench_addr_parse(struct bench_addr *a, const char *text)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text)
        return "expected ADDR:PORT";
    size_t count = (size_t)(colon - text);
    if (count >= sizeof(host))
        return "address too long";
    bool bracket = text[0] == '[' && colon[-1] == ']';
    memcpy(host, text + bracket, count - 2 * bracket);
    host[count - 2 * bracket] = '\0';
    char *end = NULL;
    long port = strtol(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end != '\0' || port > 65535)
        return "not a port";
    if (strcmp(host, "localhost") == 0)
        strcpy(host, "127.0.0.1");
    memset(a, 0, sizeof(*a));
    struct sockaddr_in *in4 = (struct sockaddr_in *)&a->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a->storage;
    if (!bracket && inet_pton(AF_INET, host, &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
        in4->sin_port = htons((uint16_t)port);
        a->size = sizeof(*in4);
    } else if (bracket && inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        a->size = sizeof(*in6);
    } else {
        return "not a numeric address (127.0.0.1:25 or [::1]:25)";
    }
    snprintf(a->text, sizeof(a->text), "%s", text);
    return NULL;
}

const char *bench_addr_option(void *target, const char *text)
{
    return bench_addr_parse(target, text);
}

int bench_net_listen(const struct bench_addr *a)
{
    int fd = socket(a->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (a->storage.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    /* accepted sockets inherit it */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (bind(fd, (const struct sockaddr *)&a->storage, a->size) != 0 || listen(fd, 4096) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

void bench_net_print_listening(const struct bench_addr *a, int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
    } bound;
    socklen_t size = sizeof(bound);
    memset(&bound, 0, sizeof(bound));
    getsockname(fd, &bound.any, &size);
    unsigned port =
        ntohs(bound.any.sa_family == AF_INET6 ? bound.in6.sin6_port : bound.in4.sin_port);
    printf("listening on %.*s:%u\n", (int)(strrchr(a->text, ':') - a->text), a->text, port);
    fflush(stdout);
}

static uint64_t clock_read(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

uint64_t bench_clock_ns(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

uint64_t bench_clock_thread_ns(void)
{
    return clock_read(CLOCK_THREAD_CPUTIME_ID);
}

double bench_cpu_self_seconds(void)
{
    return (double)clock_read(CLOCK_PROCESS_CPUTIME_ID) / 1e9;
}

uint64_t bench_net_raise_files(uint64_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    if (limit.rlim_cur < wanted) {
        struct rlimit raised = limit;
        if (raised.rlim_max < wanted)
            raised.rlim_max = wanted; /* root may; for others the next line fails */
        raised.rlim_cur = wanted;
        if (setrlimit(RLIMIT_NOFILE, &raised) != 0) {
            raised = limit;
            raised.rlim_cur = limit.rlim_max;
            setrlimit(RLIMIT_NOFILE, &raised);
        }
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    return (uint64_t)limit.rlim_cur;
}
