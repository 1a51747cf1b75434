/*
 * gateway/addr_counts.h - how many sessions each client address has open on a shard. Open
 * addressing, bounded.
 */
#ifndef HIKYAKU_ADDR_COUNTS_H
#define HIKYAKU_ADDR_COUNTS_H

#include "gateway/io/io.h"

struct addr_counts;

/* Room for `addresses` different addresses at once. NULL: no memory. */
struct addr_counts *addr_counts_create(uint32_t addresses);
void addr_counts_destroy(struct addr_counts *c);
/* Counts one more and returns the new count; 0 when the table is full. IPv6 counts by /64: a
 * customer has a whole one. */
uint32_t addr_counts_add(struct addr_counts *c, const struct io_addr *a);
void addr_counts_remove(struct addr_counts *c, const struct io_addr *a);

#endif
