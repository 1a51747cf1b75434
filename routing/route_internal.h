/*
 * routing/route_internal.h - what route.c and route_explain.c share.
 */
#ifndef HIKYAKU_ROUTE_INTERNAL_H
#define HIKYAKU_ROUTE_INTERNAL_H

#include "routing/domain.h"
#include "routing/route.h"

struct route_offer {
    uint32_t connector, cost, weight;
};

/* All offers of one address space, by rising cost. */
struct route_group {
    uint32_t first, count; /* into offers */
};

struct route_table {
    struct route_connector *connectors;
    uint32_t count;
    struct route_offer *offers;
    struct route_group *groups;
    uint32_t offer_count, group_count;
    struct domain_map *map; /* space -> group */
};

bool route_in_scope(const struct route_connector *c, struct slice receive_connector);
bool route_takes_size(const struct route_connector *c, uint64_t size);
bool route_is_stopped(const struct route_query *q, uint32_t connector);

/* One call of q->explain for every connector, in the order of the configuration. */
void route_explain(const struct route_table *t, const struct route_query *q,
                   const struct route_answer *a);

#endif
