/*
 * routing/site.c - the hosts behind one next hop: order, weight, health, limits.
 *
 * Owns:     nothing; the state is the caller's struct.
 * Runs on:  the shard that delivers.
 * Contract: the host with the lowest priority number that is healthy or due for a probe, by weight
 *           among equals. A host that failed gets no connection before retry_ns, then one at a time
 *           until it greeted SITE_UP_SUCCESSES times.
 * Failure:  SITE_BUSY at the limit; SITE_WAIT with a time when no host may be tried.
 * Bounds:   SITE_HOSTS_MAX hosts; backoff from SITE_BACKOFF_MIN_NS to SITE_BACKOFF_MAX_NS, +-10 %.
 * Tests:    tests/unit/test_site.c
 */
#include "routing/site.h"

#include <assert.h>

#include "gateway/limits.h"

#define RETRY_DEFAULT_S 300u

/* value +-10 % */
static uint64_t jittered(uint64_t value, struct prng *chance)
{
    uint64_t tenth = value / 10;
    return tenth ? value - tenth + prng_below(chance, 2 * tenth + 1) : value;
}

void site_hosts_init(struct site_hosts *s, uint32_t connections_max)
{
    memset(s, 0, sizeof *s);
    s->connections_max = connections_max;
}

bool site_hosts_add(struct site_hosts *s, uint32_t priority, uint32_t weight)
{
    if (s->count == SITE_HOSTS_MAX)
        return false;
    s->hosts[s->count++] = (struct site_host){.priority = priority, .weight = weight};
    return true;
}

static bool host_may_be_tried(const struct site_host *h, uint64_t now_ns)
{
    return !h->down || (!h->probing && h->retry_ns <= now_ns);
}

/*
 * One of the hosts of this priority that may be tried, by weight; when none of them has one, all
 * alike.
 */
static uint32_t site_draw(const struct site_hosts *s, uint32_t priority, uint64_t now_ns,
                          struct prng *chance)
{
    uint64_t total = 0;
    uint32_t candidates = 0;

    for (uint32_t i = 0; i < s->count; i++)
        if (s->hosts[i].priority == priority && host_may_be_tried(&s->hosts[i], now_ns)) {
            total += s->hosts[i].weight;
            candidates++;
        }
    assert(candidates > 0);
    uint64_t draw = prng_below(chance, total ? total : candidates);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct site_host *h = &s->hosts[i];
        if (h->priority != priority || !host_may_be_tried(h, now_ns))
            continue;
        uint64_t share = total ? h->weight : 1;
        if (draw < share)
            return i;
        draw -= share;
    }
    assert(!"the draw is below the sum of all shares");
    return 0;
}

static uint64_t site_next_try_ns(const struct site_hosts *s, uint64_t now_ns)
{
    uint64_t next = UINT64_MAX;

    for (uint32_t i = 0; i < s->count; i++) {
        const struct site_host *h = &s->hosts[i];
        uint64_t at = h->probing ? now_ns + SITE_PROBE_WAIT_NS : h->retry_ns;
        next = at < next ? at : next;
    }
    return next;
}

enum site_pick site_pick_host(struct site_hosts *s, uint64_t now_ns, struct prng *chance,
                              uint32_t *host, uint64_t *retry_ns)
{
    bool found = false;
    uint32_t priority = 0;

    if (s->connections_max && s->connections >= s->connections_max)
        return SITE_BUSY;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct site_host *h = &s->hosts[i];
        if (host_may_be_tried(h, now_ns) && (!found || h->priority < priority)) {
            priority = h->priority;
            found = true;
        }
    }
    if (!found) {
        *retry_ns = site_next_try_ns(s, now_ns);
        return SITE_WAIT;
    }
    *host = site_draw(s, priority, now_ns, chance);
    struct site_host *h = &s->hosts[*host];
    h->probing = h->down;
    h->connections++;
    s->connections++;
    return SITE_HOST;
}

/*
 * Failures of connections that were opened side by side count once: only the first, or a probe,
 * doubles the wait.
 */
static void host_failed(struct site_host *h, uint64_t now_ns, struct prng *chance)
{
    h->failures++;
    h->successes = 0;
    if (!h->down || h->probing) {
        uint64_t wait = SITE_BACKOFF_MIN_NS;
        for (uint32_t i = 0; i < h->backoff_steps && wait < SITE_BACKOFF_MAX_NS; i++)
            wait *= 2;
        if (wait > SITE_BACKOFF_MAX_NS)
            wait = SITE_BACKOFF_MAX_NS;
        else
            h->backoff_steps++;
        h->retry_ns = now_ns + jittered(wait, chance);
    }
    h->down = true;
    h->probing = false;
}

static void host_greeted(struct site_host *h, uint64_t now_ns)
{
    if (!h->down) {
        h->failures = 0;
        return;
    }
    h->probing = false;
    h->retry_ns = now_ns;
    if (++h->successes < SITE_UP_SUCCESSES)
        return;
    h->down = false;
    h->failures = h->successes = h->backoff_steps = 0;
}

void site_report(struct site_hosts *s, uint32_t host, enum site_outcome outcome, uint64_t now_ns,
                 struct prng *chance)
{
    assert(host < s->count);
    struct site_host *h = &s->hosts[host];

    switch (outcome) {
    case SITE_UP:
        s->failed_in_row = 0;
        host_greeted(h, now_ns);
        break;
    case SITE_DOWN:
        s->failed_in_row++;
        host_failed(h, now_ns, chance);
        break;
    case SITE_NEUTRAL: h->probing = false; break;
    }
}

void site_release(struct site_hosts *s, uint32_t host)
{
    assert(host < s->count);
    struct site_host *h = &s->hosts[host];
    assert(h->connections > 0 && s->connections > 0);

    h->connections--;
    s->connections--;
    if (h->connections == 0)
        h->probing = false; /* the probe ended without a word */
}

bool site_has_better(const struct site_hosts *s, uint32_t host, uint64_t now_ns)
{
    assert(host < s->count);
    for (uint32_t i = 0; i < s->count; i++)
        if (s->hosts[i].priority < s->hosts[host].priority &&
            host_may_be_tried(&s->hosts[i], now_ns))
            return true;
    return false;
}

bool site_is_unhealthy(const struct site_hosts *s, uint64_t now_ns)
{
    for (uint32_t i = 0; i < s->count; i++) {
        const struct site_host *h = &s->hosts[i];
        if (h->failures < SITE_DOWN_FAILURES || host_may_be_tried(h, now_ns))
            return false;
    }
    return s->count > 0;
}

uint64_t retry_delay_s(const uint64_t *intervals_s, uint32_t count, uint32_t attempt,
                       struct prng *chance)
{
    uint64_t interval = RETRY_DEFAULT_S;

    if (count)
        interval = intervals_s[attempt == 0 ? 0 : attempt > count ? count - 1 : attempt - 1];
    return jittered(interval, chance);
}

uint64_t retry_waited_s(const uint64_t *intervals_s, uint32_t count, uint32_t attempts)
{
    uint64_t waited = 0;

    for (uint32_t i = 0; i < count && i < attempts; i++)
        waited += intervals_s[i];
    if (attempts > count)
        waited += (attempts - count) * (count ? intervals_s[count - 1] : RETRY_DEFAULT_S);
    return waited;
}
