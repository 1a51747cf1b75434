/*
 * routing/dns_event.h - libunbound's pluggable event base (unbound-event.h) over io.h.
 */
#ifndef HIKYAKU_DNS_EVENT_H
#define HIKYAKU_DNS_EVENT_H

#include <unbound-event.h>

#include "gateway/io/io.h"

struct dns_loop;

struct dns_loop *dns_loop_create(struct io *io); /* NULL: no memory */
struct ub_event_base *dns_loop_base(struct dns_loop *l);
/* After ub_ctx_delete, which frees every event. Polls that were cancelled end on later turns. */
void dns_loop_destroy(struct dns_loop *l);

#endif
