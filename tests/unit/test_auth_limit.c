/*
 * tests/unit/test_auth_limit.c - who may try a password when, after how many failures (FAULTS 46).
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>

#include "gateway/auth/auth_limit.h"
#include "gateway/limits.h"

static const uint8_t key[32] = "thirty-two bytes of a random key";

static struct auth_who who(const struct auth_limit *l, const char *address, const char *account)
{
    struct io_addr a = {0};
    struct auth_who w;
    if (strchr(address, ':')) {
        a.in6.sin6_family = AF_INET6;
        cr_assert_eq(inet_pton(AF_INET6, address, &a.in6.sin6_addr), 1);
    } else {
        a.in.sin_family = AF_INET;
        cr_assert_eq(inet_pton(AF_INET, address, &a.in.sin_addr), 1);
    }
    auth_limit_pair(l, &a, slice_str(account), &w);
    uint64_t pair = w.pair;
    cr_assert(pair && !w.address && !w.account);
    auth_limit_who(l, &a, slice_str(account), &w);
    cr_assert(w.pair == pair && w.address && w.account);
    return w;
}

static void fail_times(struct auth_limit *l, const struct auth_who *w, uint32_t times, uint64_t now)
{
    for (uint32_t i = 0; i < times; i++)
        auth_limit_failed(l, w, 1, now);
}

static enum auth_turn ask(struct auth_limit *l, const struct auth_who *w, uint64_t now)
{
    uint64_t wait_ns;
    return auth_limit_ask(l, w, now, &wait_ns);
}

Test(auth_limit, who_is_who)
{
    struct auth_limit *l = auth_limit_create(64, key);
    struct auth_who a = who(l, "192.0.2.1", "alice"), b = who(l, "192.0.2.1", "ALICE"),
                    c = who(l, "192.0.2.2", "alice"), d = who(l, "192.0.2.1", "bob");
    cr_assert(a.address == b.address && a.account == b.account && a.pair == b.pair);
    cr_assert(a.account == c.account && a.address != c.address && a.pair != c.pair);
    cr_assert(a.address == d.address && a.account != d.account && a.pair != d.pair);
    a = who(l, "2001:db8:1:2::1", "x");
    b = who(l, "2001:db8:1:2:ffff::2", "x");
    c = who(l, "2001:db8:1:3::1", "x");
    cr_assert(a.address == b.address, "one /64");
    cr_assert(a.address != c.address, "another /64");
    auth_limit_destroy(l);
}

Test(auth_limit, f46_failures_over_sessions_make_the_answer_late)
{
    struct auth_limit *l = auth_limit_create(64, key);
    struct auth_who w = who(l, "192.0.2.1", "alice");
    cr_assert_eq(auth_limit_failed(l, &w, 1, 1), AUTH_FAIL_DELAY_NS);
    cr_assert_eq(auth_limit_failed(l, &w, 2, 1), 2 * AUTH_FAIL_DELAY_NS, "within a session");
    fail_times(l, &w, 3, 1);
    cr_assert_eq(auth_limit_failed(l, &w, 1, 1), 3 * AUTH_FAIL_DELAY_NS, "over sessions");
    fail_times(l, &w, 1000, 1);
    cr_assert_eq(auth_limit_failed(l, &w, 1, 1), AUTH_FAIL_DELAY_MAX_NS, "has an end");
    auth_limit_destroy(l);
}

Test(auth_limit, f46_turns_by_address_whatever_the_account)
{
    struct auth_limit *l = auth_limit_create(4096, key);
    char name[16];
    uint64_t now = 5 * NS_PER_S, wait_ns;
    for (uint32_t i = 0; i < AUTH_FAILED_FREE; i++) {
        snprintf(name, sizeof name, "user%u", i);
        struct auth_who w = who(l, "192.0.2.1", name);
        cr_assert_eq(ask(l, &w, now), AUTH_TURN_NOW);
        auth_limit_failed(l, &w, 1, now);
    }
    struct auth_who w = who(l, "192.0.2.1", "next"), other = who(l, "192.0.2.9", "next");
    cr_assert_eq(auth_limit_ask(l, &w, now, &wait_ns), AUTH_TURN_NOW, "the first has its turn");
    cr_assert_eq(auth_limit_ask(l, &w, now, &wait_ns), AUTH_TURN_LATER);
    cr_assert_eq(wait_ns, AUTH_TURN_NS);
    cr_assert_eq(auth_limit_ask(l, &w, now, &wait_ns), AUTH_TURN_LATER);
    cr_assert_eq(wait_ns, 2 * AUTH_TURN_NS);
    cr_assert_eq(ask(l, &other, now), AUTH_TURN_NOW, "another address");
    uint32_t waiting = 3;
    while (ask(l, &w, now) == AUTH_TURN_LATER)
        waiting++;
    cr_assert_eq(ask(l, &w, now), AUTH_TURN_NEVER, "too many wait");
    cr_assert_eq(waiting, AUTH_TURN_WAIT_MAX_NS / AUTH_TURN_NS + 1);
    cr_assert_eq(ask(l, &w, now + 2 * AUTH_TURN_WAIT_MAX_NS), AUTH_TURN_NOW, "they had theirs");
    auth_limit_destroy(l);
}

Test(auth_limit, f46_turns_by_account_whatever_the_address)
{
    struct auth_limit *l = auth_limit_create(4096, key);
    char from[16];
    uint64_t wait_ns;
    for (uint32_t i = 0; i < AUTH_FAILED_FREE; i++) {
        snprintf(from, sizeof from, "198.51.100.%u", i);
        struct auth_who w = who(l, from, "alice");
        auth_limit_failed(l, &w, 1, 1);
    }
    struct auth_who w = who(l, "192.0.2.1", "alice");
    cr_assert_eq(ask(l, &w, 1), AUTH_TURN_NOW);
    cr_assert_eq(auth_limit_ask(l, &w, 1, &wait_ns), AUTH_TURN_LATER);
    w = who(l, "198.51.100.1", "bob");
    cr_assert_eq(ask(l, &w, 1), AUTH_TURN_NOW, "another account, one failure from there");
    auth_limit_destroy(l);
}

/* The turns of one who fails again and again come further and further apart. */
Test(auth_limit, f46_the_distance_grows)
{
    struct auth_limit *l = auth_limit_create(64, key);
    struct auth_who w = who(l, "192.0.2.1", "alice");
    uint64_t now = 1, last_ns = 0, wait_ns;
    for (uint32_t step = 0; step < AUTH_TURN_DOUBLINGS + 3; step++) {
        fail_times(l, &w, AUTH_FAILED_FREE, now);
        now += AUTH_TURN_WAIT_MAX_NS;
        cr_assert_eq(ask(l, &w, now), AUTH_TURN_NOW);
        cr_assert_eq(auth_limit_ask(l, &w, now, &wait_ns), AUTH_TURN_LATER);
        cr_assert(wait_ns >= last_ns && wait_ns <= AUTH_TURN_WAIT_MAX_NS);
        last_ns = wait_ns;
        now += AUTH_TURN_WAIT_MAX_NS;
    }
    cr_assert_eq(last_ns, AUTH_TURN_NS << (AUTH_TURN_DOUBLINGS - 1));
    auth_limit_destroy(l);
}

/* A customer behind the guesser's NAT, and one whose account is guessed at. */
Test(auth_limit, f46_a_known_pair_never_waits)
{
    struct auth_limit *l = auth_limit_create(4096, key);
    struct auth_who customer = who(l, "192.0.2.1", "carol"), guesser = who(l, "192.0.2.1", "alice");
    auth_limit_passed(l, &customer, 1);
    fail_times(l, &guesser, AUTH_FAILED_COUNT_MAX, 1);
    while (ask(l, &guesser, 1) != AUTH_TURN_NEVER)
        ;
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(ask(l, &customer, 1), AUTH_TURN_NOW);
    struct auth_who elsewhere = who(l, "203.0.113.5", "carol");
    fail_times(l, &elsewhere, AUTH_FAILED_COUNT_MAX, 1);
    while (ask(l, &elsewhere, 1) != AUTH_TURN_NEVER)
        ;
    cr_assert_eq(ask(l, &customer, 1), AUTH_TURN_NOW);
    cr_assert_eq(ask(l, &customer, AUTH_PAIR_NS), AUTH_TURN_NOW);
    fail_times(l, &guesser, AUTH_FAILED_COUNT_MAX, AUTH_PAIR_NS + 1);
    cr_assert_eq(ask(l, &customer, AUTH_PAIR_NS + 1), AUTH_TURN_NOW, "the turn is free");
    cr_assert_eq(ask(l, &customer, AUTH_PAIR_NS + 1), AUTH_TURN_LATER, "known no more");
    auth_limit_destroy(l);
}

Test(auth_limit, f46_failures_are_forgiven_one_by_one)
{
    struct auth_limit *l = auth_limit_create(64, key);
    struct auth_who w = who(l, "192.0.2.1", "alice");
    fail_times(l, &w, AUTH_FAILED_FREE + 1, 1);
    uint64_t now = 1 + AUTH_FORGIVE_NS;
    cr_assert_eq(ask(l, &w, now), AUTH_TURN_NOW);
    cr_assert_eq(ask(l, &w, now), AUTH_TURN_LATER, "as many as free are left");
    now += AUTH_FORGIVE_NS;
    cr_assert_eq(ask(l, &w, now), AUTH_TURN_NOW);
    cr_assert_eq(ask(l, &w, now), AUTH_TURN_NOW, "one less");
    now += AUTH_FAILED_FREE * AUTH_FORGIVE_NS;
    cr_assert_eq(auth_limit_failed(l, &w, 1, now), AUTH_FAIL_DELAY_NS, "all are forgotten");
    auth_limit_passed(l, &w, now);
    fail_times(l, &w, 7, now);
    cr_assert_eq(auth_limit_failed(l, &w, 1, now), 4 * AUTH_FAIL_DELAY_NS,
                 "a right password forgives nothing");
    auth_limit_destroy(l);
}

/* A spray over invented accounts does not push out those who matter. */
Test(auth_limit, f46_a_full_table_keeps_what_says_most)
{
    struct auth_limit *l = auth_limit_create(64, key);
    struct auth_who w = who(l, "192.0.2.1", "alice"), customer = who(l, "192.0.2.7", "carol");
    char name[16];
    auth_limit_passed(l, &customer, 1);
    fail_times(l, &w, AUTH_FAILED_FREE, 1);
    for (uint32_t i = 0; i < 10000; i++) {
        snprintf(name, sizeof name, "u%u", i);
        struct auth_who spray = who(l, "192.0.2.1", name);
        auth_limit_failed(l, &spray, 1, 1);
    }
    while (ask(l, &w, 1) == AUTH_TURN_LATER || ask(l, &w, 1) == AUTH_TURN_NOW)
        ;
    cr_assert_eq(ask(l, &w, 1), AUTH_TURN_NEVER);
    fail_times(l, &customer, AUTH_FAILED_COUNT_MAX, 1);
    cr_assert_eq(ask(l, &customer, 1), AUTH_TURN_NOW);
    cr_assert_eq(ask(l, &customer, 1), AUTH_TURN_NOW);
    auth_limit_destroy(l);
}
