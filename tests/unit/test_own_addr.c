/*
 * tests/unit/test_own_addr.c - which addresses are ourselves (FAULTS 74).
 */
#include <criterion/criterion.h>

#include "gateway/own_addr.h"

static struct io_addr addr(const char *host, uint16_t port)
{
    struct io_addr a;
    cr_assert(io_addr_parse(&a, slice_str(host), port), "%s", host);
    return a;
}

static struct config *config(const char *keys)
{
    char text[1024];
    struct why why;
    snprintf(text, sizeof text, "hostname: gw.test\n%s", keys);
    struct config *c = config_parse("test", slice_str(text), &why);
    cr_assert_not_null(c, "%s", why.text);
    return c;
}

static bool is(const struct config *c, const char *host, uint16_t port)
{
    const struct io_addr interfaces[] = {addr("192.0.2.1", 0), addr("2001:db8::1", 0),
                                         addr("127.0.0.1", 0)};
    struct io_addr a = addr(host, port);
    return own_addr_is(c, interfaces, 3, &a);
}

Test(own_addr, f74_bound_to_an_address)
{
    struct config *c =
        config("receive_connectors: [{name: r, bind: ['192.0.2.1:25', '[2001:db8::1]:2525']}]");
    cr_assert(is(c, "192.0.2.1", 25));
    cr_assert_not(is(c, "192.0.2.1", 2525), "another server at that port");
    cr_assert_not(is(c, "192.0.2.2", 25));
    cr_assert_not(is(c, "127.0.0.1", 25));
    cr_assert(is(c, "2001:db8::1", 2525));
    cr_assert_not(is(c, "2001:db8::2", 2525));
    cr_assert(is(c, "::ffff:192.0.2.1", 25), "IPv4 in IPv6's clothes");
    config_free(c);
}

Test(own_addr, f74_bound_to_every_address)
{
    struct config *c = config("receive_connectors: [{name: r, bind: ['0.0.0.0:25']}]");
    cr_assert(is(c, "192.0.2.1", 25));
    cr_assert(is(c, "127.0.0.1", 25));
    cr_assert(is(c, "127.3.4.5", 25), "the whole of 127.0.0.0/8 is this machine");
    cr_assert(is(c, "0.0.0.0", 25));
    cr_assert_not(is(c, "192.0.2.2", 25), "no interface has it");
    cr_assert_not(is(c, "192.0.2.1", 587));
    cr_assert_not(is(c, "2001:db8::1", 25), "IPv4 alone is bound");
    config_free(c);
    c = config("receive_connectors: [{name: r, bind: ['[::]:25']}]");
    cr_assert(is(c, "2001:db8::1", 25));
    cr_assert_not(is(c, "2001:db8::2", 25));
    cr_assert_not(is(c, "192.0.2.1", 25));
    config_free(c);
}

Test(own_addr, f74_given_by_the_operator)
{
    struct config *c = config("own_addresses: [198.51.100.7, '2001:db8:ffff::/48']\n"
                              "receive_connectors: [{name: r, bind: ['192.0.2.1:2525']}]");
    cr_assert(is(c, "198.51.100.7", 25));
    cr_assert(is(c, "2001:db8:ffff::5", 25));
    cr_assert_not(is(c, "198.51.100.8", 25));
    config_free(c);
}

/* What the kernel tells: loopback at least. */
Test(own_addr, interfaces)
{
    struct io_addr all[64];
    uint32_t count = io_interfaces(all, 64);
    bool loopback = false;
    for (uint32_t i = 0; i < count; i++) {
        cr_assert(all[i].len == sizeof(struct sockaddr_in) ||
                  all[i].len == sizeof(struct sockaddr_in6));
        loopback |=
            all[i].sa.sa_family == AF_INET && all[i].in.sin_addr.s_addr == htonl(0x7f000001);
    }
    cr_assert(loopback);
    cr_assert_leq(io_interfaces(all, 1), 1);
}
