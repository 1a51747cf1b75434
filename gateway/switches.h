/*
 * gateway/switches.h - connectors that the operator has suspended or disabled (hikyakuctl
 * connector).
 *
 * What is not in the list is on. The control thread owns the list and keeps it in the spool
 * directory, so that it survives a restart; a generation of the configuration carries a copy to the
 * shards.
 */
#ifndef HIKYAKU_SWITCHES_H
#define HIKYAKU_SWITCHES_H

#include "gateway/base/buf.h"
#include "gateway/base/slice.h"
#include "gateway/limits.h"

enum connector_kind { CONNECTOR_RECEIVE, CONNECTOR_SEND };

enum connector_switch {
    CONNECTOR_ON,
    CONNECTOR_SUSPENDED, /* send: its mail waits; receive: 421 4.3.2 */
    CONNECTOR_DISABLED   /* send: as if it were not there; receive: does not listen */
};

struct switch_item {
    enum connector_kind kind;
    enum connector_switch state;
    char name[CONFIG_NAME_MAX + 1];
};

/* Zeroed: all are on. */
struct switches {
    struct switch_item *items;
    uint32_t count, cap;
};

const char *connector_kind_name(enum connector_kind kind);
/* "enabled", "suspended", "disabled" */
const char *connector_switch_name(enum connector_switch state);

enum connector_switch switches_get(const struct switches *s, enum connector_kind kind,
                                   const char *name);
/* False: no memory, or SWITCHES_MAX are switched already. */
bool switches_set(struct switches *s, enum connector_kind kind, const char *name,
                  enum connector_switch state) __attribute__((warn_unused_result));
bool switches_copy(const struct switches *s, struct switches *out)
    __attribute__((warn_unused_result));
void switches_free(struct switches *s);

/* As text: "send suspended NAME" and a newline each. Lines that say nothing we know are left out.
 */
bool switches_write(const struct switches *s, struct buf *out) __attribute__((warn_unused_result));
bool switches_parse(struct slice text, struct switches *out) __attribute__((warn_unused_result));

#endif
