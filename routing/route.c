/*
 * routing/route.c - which send connector takes a recipient: address spaces, cost, weight, health.
 *
 * Owns:     the address spaces, grouped by pattern and sorted by cost; strings stay the
 *           configuration's.
 * Runs on:  built by the thread that loads the configuration; read by every shard (nothing in it
 *           changes).
 * Contract: of the connectors that are enabled, in scope and take the size: the most specific
 *           space, then the lowest cost, then by weight, steadily for one `choice`. When that one
 *           is unhealthy and lets go (failover), the next in the same order that is healthy; when
 *           nobody is, the first again, to wait there.
 * Failure:  no memory at creation: NULL. A choice cannot fail.
 * Bounds:   no allocation and no copy in a choice; one probe a label and one step an offer of a
 *           matching space.
 * Tests:    tests/unit/test_route.c; explained in routing/route_explain.c
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "routing/route_internal.h"

struct route_sort {
    const char *space;
    struct route_offer offer;
};

static int route_sort_compare(const void *a, const void *b)
{
    const struct route_sort *x = a, *y = b;
    int order = strcmp(x->space, y->space);
    if (order)
        return order;
    if (x->offer.cost != y->offer.cost)
        return x->offer.cost < y->offer.cost ? -1 : 1;
    return x->offer.connector < y->offer.connector ? -1 : x->offer.connector > y->offer.connector;
}

/*
 * Sorted offers into groups of one space; of a connector that names a space twice the cheaper
 * counts.
 */
static bool route_table_group(struct route_table *t, const struct route_sort *sorted,
                              uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct route_sort *s = &sorted[i];
        if (i == 0 || strcmp(s->space, sorted[i - 1].space) != 0) {
            uint32_t *slot = domain_map_slot(t->map, slice_str(s->space));
            if (!slot)
                return false;
            *slot = t->group_count;
            t->groups[t->group_count++] = (struct route_group){.first = t->offer_count};
        }
        struct route_group *g = &t->groups[t->group_count - 1];
        bool known = false;
        for (uint32_t k = 0; k < g->count && !known; k++)
            known = t->offers[g->first + k].connector == s->offer.connector;
        if (known)
            continue;
        t->offers[t->offer_count++] = s->offer;
        g->count++;
    }
    return true;
}

struct route_table *route_table_create(const struct route_connector *connectors, uint32_t count)
{
    struct route_table *t = calloc(1, sizeof *t);
    struct route_sort *sorted = NULL;
    uint32_t spaces = 0, filled = 0;

    if (!t)
        return NULL;
    for (uint32_t i = 0; i < count; i++)
        spaces += connectors[i].space_count;
    t->count = count;
    t->connectors = calloc(count + 1, sizeof *t->connectors);
    t->offers = calloc(spaces + 1, sizeof *t->offers);
    t->groups = calloc(spaces + 1, sizeof *t->groups);
    t->map = domain_map_create();
    sorted = calloc(spaces + 1, sizeof *sorted);
    bool ok = t->connectors && t->offers && t->groups && t->map && sorted;
    if (ok && count)
        memcpy(t->connectors, connectors, count * sizeof *connectors);
    for (uint32_t i = 0; ok && i < count; i++)
        for (uint32_t k = 0; k < connectors[i].space_count; k++) {
            const struct route_space *s = &connectors[i].spaces[k];
            sorted[filled++] = (struct route_sort){
                s->space, {.connector = i, .cost = s->cost, .weight = s->weight ? s->weight : 1}};
        }
    if (ok && filled)
        qsort(sorted, filled, sizeof *sorted, route_sort_compare);
    ok = ok && route_table_group(t, sorted, filled);
    free(sorted);
    if (ok)
        return t;
    route_table_destroy(t);
    return NULL;
}

void route_table_destroy(struct route_table *t)
{
    if (!t)
        return;
    domain_map_destroy(t->map);
    free(t->groups);
    free(t->offers);
    free(t->connectors);
    free(t);
}

bool route_in_scope(const struct route_connector *c, struct slice receive_connector)
{
    for (uint32_t i = 0; i < c->receive_connector_count; i++)
        if (slice_eq(slice_str(c->receive_connectors[i]), receive_connector))
            return true;
    return c->receive_connector_count == 0;
}

bool route_takes_size(const struct route_connector *c, uint64_t size)
{
    return c->message_size_max == 0 || size <= c->message_size_max;
}

bool route_is_stopped(const struct route_query *q, uint32_t connector)
{
    return q->stopped && q->stopped(q->arg, connector);
}

static bool route_is_eligible(const struct route_table *t, const struct route_query *q,
                              uint32_t connector)
{
    const struct route_connector *c = &t->connectors[connector];
    return c->enabled && route_takes_size(c, q->size) && route_in_scope(c, q->receive_connector) &&
           !route_is_stopped(q, connector);
}

static bool route_is_unhealthy(const struct route_query *q, uint32_t connector)
{
    return q->unhealthy && q->unhealthy(q->arg, connector, q->domain);
}

static uint64_t route_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/*
 * Weighted rendezvous hashing: each offer draws a score from the message and its own number, the
 * highest wins. A share is in proportion to the weight, steady per message, and when one offer goes
 * only its own messages move.
 */
static double route_score(uint64_t choice, const struct route_offer *o)
{
    uint64_t draw = route_mix(route_mix(choice) ^ (0xa0761d6478bd642full * (o->connector + 1)));
    double unit = ((double)(draw >> 11) + 0.5) * 0x1p-53; /* in (0, 1) */
    return (double)o->weight / -log(unit);
}

/* The winner among `count` offers of one cost, or NULL. */
static const struct route_offer *route_draw(const struct route_table *t,
                                            const struct route_query *q,
                                            const struct route_offer *offers, uint32_t count,
                                            bool healthy_only)
{
    const struct route_offer *best = NULL;
    double best_score = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct route_offer *o = &offers[i];
        if (!route_is_eligible(t, q, o->connector))
            continue;
        if (healthy_only && route_is_unhealthy(q, o->connector))
            continue;
        double score = count == 1 ? 1 : route_score(q->choice, o);
        if (!best || score > best_score) {
            best = o;
            best_score = score;
        }
    }
    return best;
}

/* Offers of equal cost from `at` on within the group. */
static uint32_t route_tier(const struct route_table *t, const struct route_group *g, uint32_t at)
{
    uint32_t n = 1;
    while (at + n < g->count && t->offers[g->first + at + n].cost == t->offers[g->first + at].cost)
        n++;
    return n;
}

/*
 * Nothing is eligible: is it for the size alone? A disabled connector that would take it is a
 * reason to wait.
 */
static enum route_verdict route_none(const struct route_table *t, const struct route_query *q)
{
    struct domain_walk walk;
    uint32_t group;
    bool matched = false;

    domain_walk_start(&walk, t->map, q->domain);
    while (domain_walk_next(&walk, &group)) {
        const struct route_group *g = &t->groups[group];
        for (uint32_t i = 0; i < g->count; i++) {
            const struct route_connector *c = &t->connectors[t->offers[g->first + i].connector];
            if (!route_in_scope(c, q->receive_connector))
                continue;
            if (route_takes_size(c, q->size))
                return ROUTE_NONE;
            matched = true;
        }
    }
    return matched ? ROUTE_TOO_LARGE : ROUTE_NONE;
}

static void route_choose_offer(const struct route_table *t, const struct route_query *q,
                               struct route_answer *a)
{
    const struct route_offer *first = NULL;
    struct domain_walk walk;
    uint32_t group;

    domain_walk_start(&walk, t->map, q->domain);
    while (domain_walk_next(&walk, &group)) {
        const struct route_group *g = &t->groups[group];
        for (uint32_t at = 0, n; at < g->count; at += n) {
            const struct route_offer *tier = &t->offers[g->first + at], *o;
            n = route_tier(t, g, at);
            if (!first) {
                first = route_draw(t, q, tier, n, false);
                if (!first)
                    continue;
                *a = (struct route_answer){ROUTE_FOUND, first->connector, first->cost, false};
                if (!route_is_unhealthy(q, first->connector) ||
                    !t->connectors[first->connector].failover)
                    return;
            }
            o = route_draw(t, q, tier, n, true);
            if (!o || o->connector == first->connector)
                continue;
            *a = (struct route_answer){ROUTE_FOUND, o->connector, o->cost, true};
            return;
        }
    }
}

void route_choose(const struct route_table *t, const struct route_query *q, struct route_answer *a)
{
    *a = (struct route_answer){.verdict = ROUTE_NONE};
    route_choose_offer(t, q, a);
    if (a->verdict != ROUTE_FOUND)
        a->verdict = route_none(t, q);
    assert(a->verdict != ROUTE_FOUND || a->connector < t->count);
    if (q->explain)
        route_explain(t, q, a);
}
