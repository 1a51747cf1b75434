/*
 * routing/route.h - which send connector takes a recipient (INTERFACES.md section 4, EXCHANGE rows
 * E20, E21, E24, E35, E36). Pure.
 */
#ifndef HIKYAKU_ROUTE_H
#define HIKYAKU_ROUTE_H

#include "gateway/base/slice.h"
#include "gateway/base/why.h"

/*
 * One address space: "*", "example.com" (exact) or "*.example.com" (that domain and all below it).
 * Lower case, A-labels.
 */
struct route_space {
    char *space;
    uint32_t cost;
    uint32_t weight; /* among equal cost; 1 */
};

/*
 * What the table needs to know of a send connector, in the order of the configuration (its index is
 * the answer).
 */
struct route_connector {
    const char *name;
    bool enabled, failover;
    uint64_t message_size_max; /* 0: no limit */
    const struct route_space *spaces;
    uint32_t space_count;
    const char *const *receive_connectors; /* scope; empty: all */
    uint32_t receive_connector_count;
};

struct route_table;
/*
 * Keeps pointers into `connectors`' strings; they must outlive the table. NULL: no memory. Ten
 * thousand spaces are looked up in well under a microsecond (hash by suffix).
 */
struct route_table *route_table_create(const struct route_connector *connectors, uint32_t count);
void route_table_destroy(struct route_table *t);

struct route_query {
    struct slice domain; /* of the recipient, any case */
    struct slice receive_connector;
    uint64_t size;   /* 0: not known yet */
    uint64_t choice; /* steady per message (the queue id): picks among equal cost by weight */
    /* Is every host of this connector unhealthy for this domain? NULL: nobody is. */
    bool (*unhealthy)(void *arg, uint32_t connector, struct slice domain);
    void *arg;
    /* Disabled at run time (hikyakuctl connector disable). NULL: nobody. */
    bool (*stopped)(void *arg, uint32_t connector);
    /* route explain: one call for each connector and step, in words. May be NULL. */
    void (*explain)(void *arg, const char *connector, const char *verdict);
    void *explain_arg;
};

enum route_verdict {
    ROUTE_FOUND,
    ROUTE_NONE /* unreachable queue */,
    ROUTE_TOO_LARGE /* DSN 5.3.4 */
};

struct route_answer {
    enum route_verdict verdict;
    uint32_t connector; /* index */
    uint32_t cost;
    bool failover; /* not the first choice: that one is unhealthy */
};

void route_choose(const struct route_table *t, const struct route_query *q, struct route_answer *a);

#endif
