/*
 * routing/route_explain.c - the choice of a send connector in words: why this one, and why each
 * other one lost.
 *
 * Owns:     nothing.
 * Runs on:  the shard that was asked (hikyakuctl route explain); never on the message path.
 * Contract: every connector is named once, with the first reason in the order in which route.c
 *           decides.
 * Failure:  none.
 * Bounds:   reads every space of every connector; EXPLAIN_TEXT_MAX a sentence, longer ones are cut.
 * Tests:    tests/unit/test_route.c
 */
#include <inttypes.h>
#include <stdio.h>

#include "routing/route_internal.h"

#define EXPLAIN_TEXT_MAX 512

/*
 * 0: the domain itself; else how many octets of it the pattern leaves open: smaller is more
 * specific.
 */
#define SPACE_NO_MATCH UINT32_MAX
#define SPACE_ALL      (UINT32_MAX - 1)

static uint32_t space_openness(const char *space, struct slice domain)
{
    struct slice s = slice_str(space);

    if (domain.len && domain.ptr[domain.len - 1] == '.')
        domain.len--;
    if (slice_eq(s, SLICE_LIT("*")))
        return SPACE_ALL;
    if (!slice_starts_nocase(s, SLICE_LIT("*.")))
        return slice_eq_nocase(s, domain) ? 0 : SPACE_NO_MATCH;
    s = slice_from(s, 2);
    if (s.len == 0 || s.len > domain.len)
        return SPACE_NO_MATCH;
    size_t open = domain.len - s.len;
    if (open && domain.ptr[open - 1] != '.')
        return SPACE_NO_MATCH;
    return slice_eq_nocase(slice_from(domain, open), s) ? (uint32_t)open + 1 : SPACE_NO_MATCH;
}

/* The connector's most specific space for this domain (the cheaper of equals), or NULL. */
static const struct route_space *space_best(const struct route_connector *c, struct slice domain,
                                            uint32_t *openness)
{
    const struct route_space *best = NULL;

    *openness = SPACE_NO_MATCH;
    for (uint32_t i = 0; i < c->space_count; i++) {
        uint32_t open = space_openness(c->spaces[i].space, domain);
        if (open == SPACE_NO_MATCH)
            continue;
        if (!best || open < *openness || (open == *openness && c->spaces[i].cost < best->cost)) {
            best = &c->spaces[i];
            *openness = open;
        }
    }
    return best;
}

static void explain_scope(const struct route_connector *c, char *text, size_t cap)
{
    int len = snprintf(text, cap, "out of scope: takes only mail that came in through");

    for (uint32_t i = 0; i < c->receive_connector_count && len > 0 && (size_t)len < cap; i++)
        len += snprintf(text + len, cap - (size_t)len, "%s %s", i ? "," : "",
                        c->receive_connectors[i]);
}

/*
 * It was eligible and is not the answer. `best`: its space; the winner's are `won` and `won_open`.
 */
static void explain_loser(const struct route_table *t, const struct route_query *q,
                          const struct route_answer *a, uint32_t connector, char *text, size_t cap)
{
    const char *winner = t->connectors[a->connector].name;
    uint32_t open, won_open;
    const struct route_space *best = space_best(&t->connectors[connector], q->domain, &open);
    const struct route_space *won = space_best(&t->connectors[a->connector], q->domain, &won_open);

    if (!best || !won)
        return;
    bool sick = q->unhealthy && q->unhealthy(q->arg, connector, q->domain);
    if (open > won_open)
        snprintf(text, cap, "less specific: space \"%s\" against \"%s\" of %s", best->space,
                 won->space, winner);
    else if (open == won_open && best->cost > won->cost)
        snprintf(text, cap, "costlier: cost %" PRIu32 " against %" PRIu32 " of %s (space \"%s\")",
                 best->cost, won->cost, winner, best->space);
    else if (a->failover && sick)
        snprintf(text, cap,
                 "all hosts unhealthy: space \"%s\", cost %" PRIu32
                 " would win; %s takes over until a host recovers",
                 best->space, best->cost, winner);
    else
        snprintf(text, cap,
                 "lost by weight: same space \"%s\" and cost %" PRIu32
                 " as %s, whose turn this message is (weight %" PRIu32 " against %" PRIu32 ")",
                 best->space, best->cost, winner, best->weight ? best->weight : 1,
                 won->weight ? won->weight : 1);
}

static void explain_winner(const struct route_table *t, const struct route_query *q,
                           const struct route_answer *a, char *text, size_t cap)
{
    const struct route_connector *c = &t->connectors[a->connector];
    uint32_t open;
    const struct route_space *best = space_best(c, q->domain, &open);
    bool sick = q->unhealthy && q->unhealthy(q->arg, a->connector, q->domain);
    const char *note = "";

    if (a->failover)
        note = "; stands in for an unhealthy one";
    else if (sick && !c->failover)
        note = "; all its hosts are unhealthy, but failover is off: mail waits for them";
    else if (sick)
        note = "; all its hosts are unhealthy, and nobody else is healthy: mail waits for them";
    snprintf(text, cap, "chosen: space \"%s\", cost %" PRIu32 "%s", best ? best->space : "?",
             a->cost, note);
}

static void explain_connector(const struct route_table *t, const struct route_query *q,
                              const struct route_answer *a, uint32_t i, char *text, size_t cap)
{
    const struct route_connector *c = &t->connectors[i];
    uint32_t open;

    text[0] = '\0';
    if (!c->enabled)
        snprintf(text, cap, "disabled in the configuration");
    else if (route_is_stopped(q, i))
        snprintf(text, cap, "disabled by the operator");
    else if (!space_best(c, q->domain, &open))
        snprintf(text, cap, "no address space takes this domain");
    else if (!route_in_scope(c, q->receive_connector))
        explain_scope(c, text, cap);
    else if (!route_takes_size(c, q->size))
        snprintf(text, cap,
                 "too large: takes messages up to %" PRIu64 " bytes, this one has %" PRIu64,
                 c->message_size_max, q->size);
    else if (a->connector == i)
        explain_winner(t, q, a, text, cap);
    else
        explain_loser(t, q, a, i, text, cap);
}

void route_explain(const struct route_table *t, const struct route_query *q,
                   const struct route_answer *a)
{
    char text[EXPLAIN_TEXT_MAX];

    for (uint32_t i = 0; i < t->count; i++) {
        explain_connector(t, q, a, i, text, sizeof text);
        q->explain(q->explain_arg, t->connectors[i].name, text);
    }
}
