/*
 * bench/net.h - addresses, sockets, clocks and stop signals for the commands.
 */
#ifndef HIKYAKU_BENCH_NET_H
#define HIKYAKU_BENCH_NET_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct bench_addr {
    struct sockaddr_storage storage;
    socklen_t size; /* 0: not set */
    char text[64];
};

/* "127.0.0.1:25", "[::1]:25" or "localhost:25" (numeric addresses and localhost only: no resolver
 * is asked). NULL, or what is wrong. */
const char *bench_addr_parse(struct bench_addr *a, const char *text);
/* The same, as an option's call. */
const char *bench_addr_option(void *target, const char *text);

/* A non-blocking listening socket, or -1 with errno. */
int bench_net_listen(const struct bench_addr *a);
/* "listening on ADDR:PORT" on stdout, with the port the kernel chose where 0 was asked for. */
void bench_net_print_listening(const struct bench_addr *a, int fd);

uint64_t bench_clock_ns(void);        /* monotonic */
uint64_t bench_clock_thread_ns(void); /* CPU time of this thread */
double bench_cpu_self_seconds(void);  /* user and system time of this process */

/* Raises the limit of open files as far as allowed; returns the new limit. */
uint64_t bench_net_raise_files(uint64_t wanted);

/* Set by SIGINT and SIGTERM after bench_stop_install: the one piece of state a signal needs. */
extern volatile sig_atomic_t bench_stop_requested;
void bench_stop_install(void);

#endif
