/*
 * routing/dns_packet.h - reading the answer section of a DNS message (RFC 1035 section 4). Pure.
 */
#ifndef HIKYAKU_DNS_PACKET_H
#define HIKYAKU_DNS_PACKET_H

#include "routing/dns.h"

#define DNS_TYPE_A    1
#define DNS_TYPE_MX   15
#define DNS_TYPE_AAAA 28

/*
 * Adds what the message answers to `a`: hosts for DNS_TYPE_MX (the best DNS_MX_MAX), addresses for
 * DNS_TYPE_A and DNS_TYPE_AAAA (the first DNS_ADDR_MAX). Sets status (OK, NXDOMAIN, NODATA or
 * TEMPORARY, by what this message says) and ttl_s. Owner names are not compared: the resolver has
 * already reduced the message to the question and its CNAME chain. False: not a DNS message;
 * `a` then has status DNS_TEMPORARY.
 */
bool dns_packet_read(const uint8_t *packet, size_t len, uint16_t type, struct dns_answer *a)
    __attribute__((warn_unused_result));

#endif
