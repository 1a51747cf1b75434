/*
 * gateway/own_addr.h - is this address ourselves? (FAULTS 74) Pure.
 */
#ifndef HIKYAKU_OWN_ADDR_H
#define HIKYAKU_OWN_ADDR_H

#include "gateway/config.h"

/*
 * Who connects to `a` reaches one of our receive connectors: bound to that address and port, or to
 * the port at every address while `a` is one of `interfaces` (io_interfaces) or loopback. Or `a`,
 * whatever its port, is in own_addresses: where a router or load balancer leads to us.
 */
bool own_addr_is(const struct config *c, const struct io_addr *interfaces, uint32_t count,
                 const struct io_addr *a);

#endif
