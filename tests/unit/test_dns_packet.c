/* Reading DNS messages: whole, cut at every octet, hostile (FAULTS 73). */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "routing/dns_packet.h"

/* A message under construction. */
static uint8_t packet[65536];
static size_t len;

static void u16(unsigned v)
{
    packet[len++] = (uint8_t)(v >> 8);
    packet[len++] = (uint8_t)v;
}

static void name(const char *text)
{
    while (*text) {
        size_t n = strcspn(text, ".");
        packet[len++] = (uint8_t)n;
        memcpy(packet + len, text, n);
        len += n;
        text += n + (text[n] == '.');
    }
    packet[len++] = 0;
}

static void start(unsigned rcode, unsigned answers, unsigned authorities)
{
    len = 0;
    u16(0x1234), u16(0x8180 | rcode), u16(1), u16(answers), u16(authorities), u16(0);
    name("example.com");
    u16(DNS_TYPE_MX), u16(1);
}

/* Owner as a pointer to the question; data follows, data_len octets. */
static void rr(unsigned type, uint32_t ttl, unsigned data_len)
{
    u16(0xc00c), u16(type), u16(1), u16(ttl >> 16), u16(ttl & 0xffff), u16(data_len);
}

static void mx(uint32_t ttl, unsigned preference, const char *host)
{
    size_t at;
    rr(DNS_TYPE_MX, ttl, 0);
    at = len;
    u16(preference);
    name(host);
    packet[at - 1] = (uint8_t)(len - at);
}

static struct dns_answer a;

static bool read_as(unsigned type)
{
    memset(&a, 0, sizeof a);
    /* exactly as long as it is, so that a sanitizer sees a read behind it */
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, packet, len);
    bool ok = dns_packet_read(copy, len, (uint16_t)type, &a);
    free(copy);
    if (!ok)
        cr_assert(a.status == DNS_TEMPORARY && a.mx_count == 0 && a.addr_count == 0);
    return ok;
}

Test(dns_packet, mx)
{
    start(0, 2, 0);
    mx(300, 10, "MX1.Example.NET");
    mx(60, 20, "mx2.example.net");
    cr_assert(read_as(DNS_TYPE_MX));
    cr_expect_eq(a.status, DNS_OK);
    cr_expect_eq(a.ttl_s, 60);
    cr_assert_eq(a.mx_count, 2);
    cr_expect_eq(a.mx[0].preference, 10);
    cr_expect_str_eq(a.mx[0].host, "mx1.example.net");
    cr_expect_str_eq(a.mx[1].host, "mx2.example.net");
}

Test(dns_packet, null_mx)
{
    start(0, 1, 0);
    mx(300, 0, "");
    cr_assert(read_as(DNS_TYPE_MX));
    cr_assert_eq(a.mx_count, 1);
    cr_expect_str_eq(a.mx[0].host, "");
}

Test(dns_packet, compressed_host)
{
    start(0, 1, 0);
    rr(DNS_TYPE_MX, 1, 7);
    u16(5);
    packet[len++] = 2, packet[len++] = 'm', packet[len++] = 'x';
    u16(0xc00c);
    cr_assert(read_as(DNS_TYPE_MX));
    cr_expect_str_eq(a.mx[0].host, "mx.example.com");
}

Test(dns_packet, a_host_cannot_hide_dots_and_line_ends)
{
    start(0, 1, 0);
    mx(1, 5, "a\r\nb c\x80.example");
    cr_assert(read_as(DNS_TYPE_MX));
    cr_expect_str_eq(a.mx[0].host, "a??b?c?.example");
}

Test(dns_packet, addresses_behind_a_cname)
{
    static const uint8_t v6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};
    start(0, 3, 0);
    rr(5, 10, 2), u16(0xc00c); /* CNAME */
    rr(DNS_TYPE_A, 99, 4), u16(0xc000), u16(0x0201);
    rr(DNS_TYPE_AAAA, 99, 16);
    memcpy(packet + len, v6, 16), len += 16;
    cr_assert(read_as(DNS_TYPE_A));
    cr_assert_eq(a.addr_count, 1);
    cr_expect_eq(a.addr[0].in.sin_addr.s_addr, inet_addr("192.0.2.1"));
    cr_expect_eq(a.addr[0].len, sizeof(struct sockaddr_in));
    cr_expect_eq(a.ttl_s, 10);
    cr_assert(read_as(DNS_TYPE_AAAA));
    cr_assert_eq(a.addr_count, 1);
    cr_expect(memcmp(&a.addr[0].in6.sin6_addr, v6, 16) == 0);
    cr_assert(read_as(DNS_TYPE_MX));
    cr_expect_eq(a.status, DNS_NODATA);
}

Test(dns_packet, what_no_means)
{
    static const struct {
        unsigned rcode;
        enum dns_status status;
    } cases[] = {{0, DNS_NODATA},    {1, DNS_TEMPORARY}, {2, DNS_TEMPORARY}, {3, DNS_NXDOMAIN},
                 {4, DNS_TEMPORARY}, {5, DNS_TEMPORARY}, {9, DNS_TEMPORARY}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        start(cases[i].rcode, 0, 1);
        rr(6, 777, 22); /* SOA */
        memset(packet + len, 0, 22), len += 22;
        cr_assert(read_as(DNS_TYPE_MX));
        cr_expect_eq(a.status, cases[i].status, "rcode %u", cases[i].rcode);
        cr_expect_eq(a.ttl_s, 777);
    }
}

Test(dns_packet, keeps_the_best_of_too_many)
{
    start(0, 500, 0);
    for (unsigned i = 0; i < 500; i++)
        mx(1, 1000 - i, "h.example");
    cr_assert(read_as(DNS_TYPE_MX));
    cr_assert_eq(a.mx_count, DNS_MX_MAX);
    for (uint32_t i = 0; i < a.mx_count; i++)
        cr_expect_leq(a.mx[i].preference, 500 + DNS_MX_MAX);
    start(0, 100, 0);
    for (unsigned i = 0; i < 100; i++)
        rr(DNS_TYPE_A, 1, 4), u16(0x0a00), u16(i);
    cr_assert(read_as(DNS_TYPE_A));
    cr_expect_eq(a.addr_count, DNS_ADDR_MAX);
}

Test(dns_packet, an_absurd_ttl_is_none)
{
    start(0, 1, 0);
    mx(0x80000000u, 1, "a.example");
    cr_assert(read_as(DNS_TYPE_MX));
    cr_expect_eq(a.ttl_s, 0);
}

/* Cut anywhere, the message is refused: byte by byte. */
Test(dns_packet, every_prefix_is_refused)
{
    start(0, 2, 0);
    mx(300, 10, "mx1.example.net");
    mx(60, 20, "mx2.example.net");
    size_t whole = len;
    for (len = 0; len < whole; len++)
        cr_expect_not(read_as(DNS_TYPE_MX), "%zu of %zu octets", len, whole);
    cr_expect(read_as(DNS_TYPE_MX));
}

Test(dns_packet, pointers_that_do_not_end)
{
    start(0, 1, 0); /* to itself */
    u16(0xc000 | (unsigned)len);
    u16(DNS_TYPE_MX), u16(1), u16(0), u16(1), u16(0);
    cr_expect_not(read_as(DNS_TYPE_MX));
    start(0, 1, 0); /* forwards */
    u16(0xc000 | (unsigned)(len + 2));
    u16(0xc00c), u16(DNS_TYPE_MX), u16(1), u16(0), u16(1), u16(0);
    cr_expect_not(read_as(DNS_TYPE_MX));
    start(0, 1, 0); /* two that point at each other, in the data */
    rr(DNS_TYPE_MX, 1, 6);
    u16(1), u16(0xc000 | (unsigned)(len + 2)), u16(0xc000 | (unsigned)(len - 2));
    cr_expect_not(read_as(DNS_TYPE_MX));
    start(0, 1, 0); /* reserved label types */
    packet[len++] = 0x80, packet[len++] = 0;
    cr_expect_not(read_as(DNS_TYPE_MX));
}

Test(dns_packet, names_that_are_too_long)
{
    for (unsigned labels = 1; labels < 300; labels++) {
        start(0, 1, 0);
        for (unsigned i = 0; i < labels; i++)
            packet[len++] = 1, packet[len++] = 'a';
        packet[len++] = 0;
        u16(DNS_TYPE_A), u16(1), u16(0), u16(1), u16(4), u16(0x0808), u16(0x0808);
        cr_expect_eq(read_as(DNS_TYPE_A), labels <= 127, "%u labels", labels);
    }
}

Test(dns_packet, data_of_the_wrong_length)
{
    for (unsigned n = 0; n < 40; n++) {
        start(0, 1, 0);
        rr(DNS_TYPE_A, 1, n);
        memset(packet + len, 1, n), len += n;
        cr_expect_eq(read_as(DNS_TYPE_A), n == 4, "A of %u", n);
        packet[len - n - 9] = DNS_TYPE_AAAA;
        cr_expect_eq(read_as(DNS_TYPE_AAAA), n == 16, "AAAA of %u", n);
    }
    start(0, 1, 0);
    rr(DNS_TYPE_MX, 1, 6);
    u16(5), packet[len++] = 1, packet[len++] = 'a', packet[len++] = 0;
    packet[len++] = 0; /* one octet behind the name */
    cr_expect_not(read_as(DNS_TYPE_MX));
}

/* Whatever the octets are: no crash, no read outside, bounded counts. */
Test(dns_packet, survives_noise)
{
    srand(11);
    for (int round = 0; round < 20000; round++) {
        start(0, 2, 0);
        mx(300, 10, "mx1.example.net");
        rr(DNS_TYPE_A, 1, 4), u16(1), u16(2);
        for (int flips = rand() % 8; flips >= 0; flips--)
            packet[(size_t)rand() % len] = (uint8_t)rand();
        read_as(rand() % 2 ? DNS_TYPE_MX : DNS_TYPE_A);
        cr_assert(a.mx_count <= DNS_MX_MAX && a.addr_count <= DNS_ADDR_MAX);
    }
}
