/*
 * tests/unit/test_addr_counts.c - gateway/addr_counts.c against a plain array of counts.
 */
#include <criterion/criterion.h>

#include "gateway/addr_counts.h"
#include "gateway/base/prng.h"

static struct io_addr v4(uint32_t n)
{
    struct io_addr a = {.len = sizeof(struct sockaddr_in)};
    a.in.sin_family = AF_INET;
    a.in.sin_addr.s_addr = htonl(0x0a000000 | n);
    return a;
}

Test(addr_counts, agrees_with_a_plain_model)
{
    enum { ADDRESSES = 64 };
    struct addr_counts *c = addr_counts_create(ADDRESSES);
    uint32_t model[ADDRESSES] = {0};
    struct prng p;
    prng_seed(&p, 7);
    for (int i = 0; i < 200000; i++) {
        uint32_t n = (uint32_t)prng_below(&p, ADDRESSES);
        struct io_addr a = v4(n);
        if (model[n] == 0 || prng_below(&p, 2)) {
            cr_assert_eq(addr_counts_add(c, &a), ++model[n]);
        } else {
            addr_counts_remove(c, &a);
            model[n]--;
        }
    }
    addr_counts_destroy(c);
}

Test(addr_counts, a_full_table_says_so_and_recovers)
{
    struct addr_counts *c = addr_counts_create(2);
    struct io_addr a = v4(1), b = v4(2), d = v4(3);
    cr_assert_eq(addr_counts_add(c, &a), 1);
    cr_assert_eq(addr_counts_add(c, &b), 1);
    cr_assert_eq(addr_counts_add(c, &d), 0);
    cr_assert_eq(addr_counts_add(c, &b), 2);
    addr_counts_remove(c, &a);
    cr_assert_eq(addr_counts_add(c, &d), 1);
    addr_counts_destroy(c);
}

Test(addr_counts, ipv6_counts_by_the_64_prefix)
{
    struct addr_counts *c = addr_counts_create(8);
    struct io_addr a = {.len = sizeof(struct sockaddr_in6)}, b;
    a.in6.sin6_family = AF_INET6;
    a.in6.sin6_addr.s6_addr[0] = 0x20;
    b = a;
    b.in6.sin6_addr.s6_addr[15] = 9;
    cr_assert_eq(addr_counts_add(c, &a), 1);
    cr_assert_eq(addr_counts_add(c, &b), 2);
    b.in6.sin6_addr.s6_addr[7] = 1;
    cr_assert_eq(addr_counts_add(c, &b), 1);
    addr_counts_destroy(c);
}
