/*
 * routing/dns_context.h - making libunbound's resolver on a loop of ours.
 */
#ifndef HIKYAKU_ROUTING_DNS_CONTEXT_H
#define HIKYAKU_ROUTING_DNS_CONTEXT_H

#include "routing/dns.h"

struct ub_ctx;
struct ub_event_base;

#define DNS_CLASS_IN 1

/* NULL: `why`. The base must outlive it. */
struct ub_ctx *dns_context_create(struct ub_event_base *base, const struct dns_params *p,
                                  struct why *why) __attribute__((warn_unused_result));
/* NULL is let be. */
void dns_context_destroy(struct ub_ctx *c);

#endif
