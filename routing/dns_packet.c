/*
 * routing/dns_packet.c - the answer section of a DNS message.
 *
 * Owns:     nothing.
 * Runs on:  the shard that asked.
 * Contract: never reads outside the message, never follows a compression pointer forwards, so that
 *           every name ends (FAULTS 73).
 * Failure:  false, with the status TEMPORARY: a broken answer is no answer.
 * Bounds:   DNS_MX_MAX hosts (the best), DNS_ADDR_MAX addresses; a name has 255 octets at most.
 * Tests:    tests/unit/test_dns_packet.c
 */
#include "routing/dns_packet.h"

#include <assert.h>

#define DNS_HEADER_SIZE    12
#define DNS_TYPE_SOA       6
#define DNS_CLASS_IN       1
#define DNS_RCODE_NXDOMAIN 3

struct dns_cursor {
    const uint8_t *packet;
    size_t len, at;
    bool bad;
};

struct dns_rr {
    uint16_t type, class;
    uint32_t ttl_s;
    size_t data, data_len; /* offset of the record's data */
};

static uint16_t take_u16(struct dns_cursor *c)
{
    if (c->bad || c->len - c->at < 2) {
        c->bad = true;
        return 0;
    }
    c->at += 2;
    return (uint16_t)(c->packet[c->at - 2] << 8 | c->packet[c->at - 1]);
}

static uint32_t take_u32(struct dns_cursor *c)
{
    uint32_t high = take_u16(c);
    return high << 16 | take_u16(c);
}

/*
 * A host name holds letters, digits, '-' and '_'; anything else could pretend to be a dot or a line
 * end in text.
 */
static char host_char(uint8_t c)
{
    c = ascii_lower(c);
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ? (char)c : '?';
}

/* One name, lower case, without the final dot; `text` (256 octets) may be NULL. */
static void take_name(struct dns_cursor *c, char *text)
{
    size_t at = c->at, limit = c->at, out = 0;
    bool jumped = false;

    while (!c->bad) {
        if (at >= c->len) {
            c->bad = true;
            return;
        }
        uint8_t label = c->packet[at++];
        if ((label & 0xc0) == 0xc0) {
            if (at >= c->len) {
                c->bad = true;
                return;
            }
            size_t target = (size_t)(label & 0x3f) << 8 | c->packet[at++];
            if (!jumped)
                c->at = at;
            jumped = true;
            c->bad = target >= limit; /* only ever backwards */
            at = limit = target;
            continue;
        }
        c->bad = label > 63 || label > c->len - at || out + label + 1 > 254;
        if (c->bad)
            return;
        if (label == 0)
            break;
        if (out && text)
            text[out] = '.';
        out += out > 0;
        for (size_t i = 0; i < label; i++, out++)
            if (text)
                text[out] = host_char(c->packet[at + i]);
        at += label;
    }
    if (text)
        text[out] = '\0';
    if (!jumped)
        c->at = at;
}

static bool take_rr(struct dns_cursor *c, struct dns_rr *rr)
{
    take_name(c, NULL);
    rr->type = take_u16(c);
    rr->class = take_u16(c);
    rr->ttl_s = take_u32(c);
    rr->data_len = take_u16(c);
    rr->data = c->at;
    if (c->bad || rr->data_len > c->len - c->at) {
        c->bad = true;
        return false;
    }
    c->at += rr->data_len;
    if (rr->ttl_s > INT32_MAX)
        rr->ttl_s = 0; /* RFC 2181 section 8 */
    return true;
}

/* A full list keeps the best: the newcomer takes the place of the worst. */
static void add_mx(struct dns_answer *a, uint16_t preference, const char *host)
{
    struct dns_mx *place = &a->mx[a->mx_count];

    if (a->mx_count == DNS_MX_MAX) {
        place = &a->mx[0];
        for (uint32_t i = 1; i < DNS_MX_MAX; i++)
            if (a->mx[i].preference > place->preference)
                place = &a->mx[i];
        if (place->preference <= preference)
            return;
    } else {
        a->mx_count++;
    }
    place->preference = preference;
    memcpy(place->host, host, strlen(host) + 1);
}

static void add_addr(struct dns_answer *a, int family, const uint8_t *octets)
{
    if (a->addr_count == DNS_ADDR_MAX)
        return;
    struct io_addr *addr = &a->addr[a->addr_count++];
    memset(addr, 0, sizeof *addr);
    if (family == AF_INET) {
        addr->in.sin_family = AF_INET;
        memcpy(&addr->in.sin_addr, octets, 4);
        addr->len = sizeof addr->in;
    } else {
        addr->in6.sin6_family = AF_INET6;
        memcpy(&addr->in6.sin6_addr, octets, 16);
        addr->len = sizeof addr->in6;
    }
}

static void read_answer(struct dns_cursor *c, const struct dns_rr *rr, struct dns_answer *a)
{
    const uint8_t *data = c->packet + rr->data;
    struct dns_cursor inner = {c->packet, rr->data + rr->data_len, rr->data, false};
    char host[256];

    switch (rr->type) {
    case DNS_TYPE_A:
        if (rr->data_len == 4)
            add_addr(a, AF_INET, data);
        else
            c->bad = true;
        break;
    case DNS_TYPE_AAAA:
        if (rr->data_len == 16)
            add_addr(a, AF_INET6, data);
        else
            c->bad = true;
        break;
    case DNS_TYPE_MX: {
        uint16_t preference = take_u16(&inner);
        take_name(&inner, host);
        if (inner.bad || inner.at != inner.len)
            c->bad = true;
        else
            add_mx(a, preference, host);
        break;
    }
    default: break;
    }
}

bool dns_packet_read(const uint8_t *packet, size_t len, uint16_t type, struct dns_answer *a)
{
    struct dns_cursor c = {packet, len, 0, false};
    uint32_t ttl_s = UINT32_MAX;
    struct dns_rr rr;

    a->status = DNS_TEMPORARY;
    if (len < DNS_HEADER_SIZE)
        return false;
    take_u16(&c);
    uint16_t flags = take_u16(&c), questions = take_u16(&c), answers = take_u16(&c),
             authorities = take_u16(&c);
    take_u16(&c);
    for (uint32_t i = 0; i < questions && !c.bad; i++) {
        take_name(&c, NULL);
        take_u32(&c);
    }
    uint32_t found = 0;
    for (uint32_t i = 0; i < answers && take_rr(&c, &rr); i++) {
        ttl_s = rr.ttl_s < ttl_s ? rr.ttl_s : ttl_s;
        if (rr.type != type || rr.class != DNS_CLASS_IN)
            continue;
        read_answer(&c, &rr, a);
        found++;
    }
    /* How long a "no" holds is the TTL of the SOA beside it (RFC 2308 section 5). */
    for (uint32_t i = 0; !found && i < authorities && !c.bad && take_rr(&c, &rr); i++)
        if (rr.type == DNS_TYPE_SOA)
            ttl_s = rr.ttl_s < ttl_s ? rr.ttl_s : ttl_s;
    if (c.bad) {
        a->mx_count = a->addr_count = 0;
        return false;
    }
    a->ttl_s = ttl_s == UINT32_MAX ? 0 : ttl_s;
    uint8_t rcode = flags & 0xf;
    if (rcode == 0)
        a->status = found ? DNS_OK : DNS_NODATA;
    else if (rcode == DNS_RCODE_NXDOMAIN)
        a->status = DNS_NXDOMAIN;
    assert(a->mx_count <= DNS_MX_MAX && a->addr_count <= DNS_ADDR_MAX);
    return true;
}
