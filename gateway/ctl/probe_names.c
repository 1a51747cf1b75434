/*
 * gateway/ctl/probe_names.c - names as the gateway looks them up: its resolver, on a loop of our
 * own.
 *
 * Owns:     the loop and the resolver.
 * Runs on:  hikyakuctl's only thread.
 * Contract: an answer is always given: dns.timeout bounds it.
 * Failure:  what the resolver says, in the answer.
 * Bounds:   one question at a time.
 * Tests:    tests/system/test_probe.py
 */
#include "gateway/ctl/probe_internal.h"

#include <stdlib.h>

struct probe_names {
    struct io *io;
    struct dns *dns;
    struct dns_query query;
    struct dns_answer *out;
};

static void names_answered(struct dns_query *q, const struct dns_answer *a)
{
    struct probe_names *n = container_of(q, struct probe_names, query);
    *n->out = *a;
    n->out = NULL;
}

struct probe_names *names_create(const struct config *conf, struct why *why)
{
    const struct io_params p = {.queue_depth = 64, .fd_count_max = 64, .cpu = -1};
    struct probe_names *n = calloc(1, sizeof *n);
    if (!n) {
        why_set(why, 0, "", "out of memory");
        return NULL;
    }
    n->query.done = names_answered;
    n->io = io_create(&p, why);
    if (n->io) {
        const struct dns_params d = {.io = n->io,
                                     .servers = conf->dns.servers,
                                     .server_count = conf->dns.server_count,
                                     .dnssec = conf->dns.dnssec,
                                     .timeout_ns = conf->dns.timeout_ns};
        n->dns = dns_create(&d, why);
    }
    if (n->dns)
        return n;
    names_destroy(n);
    return NULL;
}

void names_destroy(struct probe_names *n)
{
    if (!n)
        return;
    dns_destroy(n->dns);
    for (int i = 0; n->io && i < 4; i++) /* its operations end within a turn or two */
        io_turn(n->io, false);
    if (n->io)
        io_destroy(n->io);
    free(n);
}

void names_addr(struct probe_names *n, const char *host, struct dns_answer *out)
{
    n->out = out;
    dns_addr(n->dns, &n->query, host);
    while (n->out)
        io_turn(n->io, true);
}

void names_mx(struct probe_names *n, const char *domain, struct dns_answer *out)
{
    n->out = out;
    dns_mx(n->dns, &n->query, domain);
    while (n->out)
        io_turn(n->io, true);
}
