/*
 * tests/sim/dns_sim.c - routing/dns.h for the simulation: a small world of names that answers late,
 * wrongly, or not at all.
 *
 * Owns:     the questions under way.
 * Runs on:  the one thread of a simulation; each answer comes from a timer of the asker's io.
 * Contract: as routing/dns.h says. dN.test has MX records (N even) or is reached by smart hosts;
 *           hK.test is the machine 10.0.2.K.
 * Failure:  by the seed: SERVFAIL, silence until the timeout, NXDOMAIN, bogus, null MX.
 * Bounds:   none.
 * Tests:    tests/sim (every run)
 */
#include <stdlib.h>

#include "routing/dns.h"
#include "tests/sim/world.h"

struct dns {
    struct io *io;
    uint64_t timeout_ns;
    struct list queries;
};

static struct world *world; /* the one that runs */

void dns_sim_world(struct world *w)
{
    world = w;
}

struct dns *dns_create(const struct dns_params *p, struct why *why)
{
    struct dns *d = calloc(1, sizeof *d);
    (void)why;
    d->io = p->io;
    d->timeout_ns = p->timeout_ns;
    list_init(&d->queries);
    return d;
}

void dns_cancel(struct dns_query *q)
{
    if (!q->dns)
        return;
    list_remove(&q->link);
    io_timer_clear(q->dns->io, &q->timer);
    free(q->answer);
    q->answer = NULL;
    q->dns = NULL;
}

void dns_destroy(struct dns *d)
{
    while (!list_empty(&d->queries))
        dns_cancel(container_of(d->queries.next, struct dns_query, link));
    free(d);
}

static void dns_fired(struct timer *t)
{
    struct dns_query *q = container_of(t, struct dns_query, timer);
    struct dns_answer *a = q->answer;
    list_remove(&q->link);
    q->answer = NULL;
    q->dns = NULL;
    q->done(q, a);
    free(a);
}

static struct dns_answer *dns_begin(struct dns *d, struct dns_query *q)
{
    struct prng *p = &world->names;
    struct dns_answer *a = calloc(1, sizeof *a);
    uint64_t wait = prng_below(p, 5 * NS_PER_MS);
    a->ttl_s = 1 + (uint32_t)prng_below(p, 30);
    if (world_chance(world, p, world->swarm.dns.silent)) {
        a->status = DNS_TEMPORARY;
        snprintf(a->text, sizeof a->text, "timed out");
        wait = d->timeout_ns;
    } else if (world_chance(world, p, world->swarm.dns.servfail)) {
        a->status = DNS_TEMPORARY;
        snprintf(a->text, sizeof a->text, "SERVFAIL");
    } else if (world_chance(world, p, world->swarm.dns.bogus)) {
        a->status = DNS_BOGUS;
        snprintf(a->text, sizeof a->text, "bogus");
    } else if (world_chance(world, p, world->swarm.dns.nxdomain)) {
        a->status = DNS_NXDOMAIN;
        snprintf(a->text, sizeof a->text, "no such name");
    }
    q->answer = a;
    q->dns = d;
    q->timer.fire = dns_fired;
    list_push_back(&d->queries, &q->link);
    io_timer_set(d->io, &q->timer, io_now_ns(d->io) + wait);
    return a;
}

static void dns_none(struct dns_answer *a)
{
    a->status = DNS_NXDOMAIN;
    snprintf(a->text, sizeof a->text, "no such name");
}

void dns_mx(struct dns *d, struct dns_query *q, const char *domain)
{
    struct dns_answer *a = dns_begin(d, q);
    uint32_t hosts = world->swarm.hosts, n;
    TRACE(world, "dns: MX of %s: %s", domain, a->status == DNS_OK ? "answered" : a->text);
    if (a->status != DNS_OK)
        return;
    if (world_chance(world, &world->names, world->swarm.dns.null_mx)) {
        a->mx_count = 1;
    } else if (strcmp(domain, WORLD_SENDER_HOST) == 0) {
        n = 0;
        goto some;
    } else if (sscanf(domain, "d%u.test", &n) == 1 && world_domain_kind(n) == DOMAIN_MX) {
    some:
        a->mx_count = hosts > 1 && n % 4 == 0 ? 2 : 1;
        for (uint32_t i = 0; i < a->mx_count; i++) {
            a->mx[i].preference = (uint16_t)(10 * (i + 1));
            snprintf(a->mx[i].host, sizeof a->mx[i].host, "h%u.test", (n / 2 + i) % hosts);
        }
    } else {
        dns_none(a);
    }
}

void dns_addr(struct dns *d, struct dns_query *q, const char *host)
{
    struct dns_answer *a = dns_begin(d, q);
    uint32_t n;
    if (a->status != DNS_OK)
        return;
    if (sscanf(host, "h%u.test", &n) == 1 && n < world->swarm.hosts) {
        a->addr_count = 1;
        a->addr[0] = world->hop_machines[n].addr;
        a->addr[0].in.sin_port = 0;
    } else {
        dns_none(a);
    }
}
