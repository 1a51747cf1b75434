/*
 * tests/fuzz/fuzz_dns_packet.c - hostile DNS messages: bounded counts, hosts that are printable and
 * end, a status that fits what was found.
 */
#include <stdlib.h>

#include "routing/dns_packet.h"

#define REQUIRE(c) ((c) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t types[] = {DNS_TYPE_MX, DNS_TYPE_A, DNS_TYPE_AAAA};

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct dns_answer a = {0};
        bool ok = dns_packet_read(data, size, types[i], &a);
        REQUIRE(ok || (a.status == DNS_TEMPORARY && a.mx_count == 0 && a.addr_count == 0));
        REQUIRE(a.mx_count <= DNS_MX_MAX && a.addr_count <= DNS_ADDR_MAX);
        REQUIRE(a.status != DNS_OK || a.mx_count + a.addr_count > 0);
        for (uint32_t k = 0; k < a.mx_count; k++) {
            size_t len = strnlen(a.mx[k].host, sizeof a.mx[k].host);
            REQUIRE(len < sizeof a.mx[k].host);
            for (size_t c = 0; c < len; c++)
                REQUIRE(a.mx[k].host[c] > ' ' && a.mx[k].host[c] <= 'z');
        }
        for (uint32_t k = 0; k < a.addr_count; k++)
            REQUIRE(a.addr[k].len > 0);
    }
    return 0;
}
