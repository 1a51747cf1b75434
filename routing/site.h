/*
 * routing/site.h - the hosts behind one next hop: order, weight, health, limits (ARCHITECTURE.md
 * section 6). Pure: time is given.
 *
 * A site is keyed by send connector and, for MX delivery, by domain. The owner asks for a host when
 * a connection is wanted and reports what became of it. A host that fails is left alone for a time
 * that doubles (SITE_BACKOFF_MIN..MAX), then gets one probe.
 */
#ifndef HIKYAKU_SITE_H
#define HIKYAKU_SITE_H

#include "gateway/base/prng.h"
#include "gateway/base/slice.h"
#include "gateway/base/why.h"

#define SITE_HOSTS_MAX 32

struct site_host {
    uint32_t priority, weight;
    uint32_t failures; /* in a row */
    uint64_t retry_ns; /* not before */
    bool probing;      /* one connection tries it now */
    bool down;         /* failed, and not yet greeted us SITE_UP_SUCCESSES times again */
    uint32_t successes, backoff_steps, connections;
};

struct site_hosts {
    uint32_t count;
    uint32_t connections, connections_max; /* max 0: no limit here */
    uint64_t failed_in_row;
    struct site_host hosts[SITE_HOSTS_MAX];
};

void site_hosts_init(struct site_hosts *s, uint32_t connections_max);
bool site_hosts_add(struct site_hosts *s, uint32_t priority, uint32_t weight)
    __attribute__((warn_unused_result));

enum site_pick {
    SITE_HOST /* *host */,
    SITE_BUSY /* connections_max reached */,
    SITE_WAIT /* until *retry_ns: all unhealthy */
};
/*
 * Lowest priority number first, by weight among equals, unhealthy ones left out. SITE_HOST counts a
 * connection.
 */
enum site_pick site_pick_host(struct site_hosts *s, uint64_t now_ns, struct prng *chance,
                              uint32_t *host, uint64_t *retry_ns);

enum site_outcome {
    SITE_UP,     /* greeted us: healthy */
    SITE_DOWN,   /* no connection, 421 or 4xx/5xx greeting, TLS failure, our AUTH refused */
    SITE_NEUTRAL /* says nothing about the host (our own shutdown) */
};
void site_report(struct site_hosts *s, uint32_t host, enum site_outcome outcome, uint64_t now_ns,
                 struct prng *chance);
/* A host that goes before this one is healthy, or due for its probe: a connection to this one is to
 * end with its message, so that the other gets its mail back. */
bool site_has_better(const struct site_hosts *s, uint32_t host, uint64_t now_ns);
/* The connection of that host is gone. */
void site_release(struct site_hosts *s, uint32_t host);
/*
 * Every host is unhealthy: routing takes the next cost (E36). It takes SITE_DOWN_FAILURES failures
 * in a row to say so, and SITE_UP_SUCCESSES greetings to take it back. False while a host is due
 * for its probe, so that a message comes to try it; when site_pick_host then says SITE_WAIT
 * (another message was first), route again.
 */
bool site_is_unhealthy(const struct site_hosts *s, uint64_t now_ns);

/*
 * Seconds until attempt number `attempt` (1: after the first failure), from retry.intervals (the
 * last repeats), with +-10 % jitter.
 */
uint64_t retry_delay_s(const uint64_t *intervals_s, uint32_t count, uint32_t attempt,
                       struct prng *chance);
/*
 * Seconds that a message with so many attempts behind it has waited at the least, by the same
 * intervals: an age that no step of a clock changes.
 */
uint64_t retry_waited_s(const uint64_t *intervals_s, uint32_t count, uint32_t attempts);

#endif
