/* The hosts behind one next hop. */
#include <criterion/criterion.h>

#include "gateway/limits.h"
#include "routing/site.h"

#define START (1000 * NS_PER_S)

static struct prng chance;
static struct site_hosts site;

static void setup(uint32_t max)
{
    prng_seed(&chance, 5);
    site_hosts_init(&site, max);
}

static uint32_t pick(uint64_t now)
{
    uint32_t host = 99;
    uint64_t retry;
    cr_assert_eq(site_pick_host(&site, now, &chance, &host, &retry), SITE_HOST);
    return host;
}

static uint64_t wait_until(uint64_t now)
{
    uint32_t host;
    uint64_t retry = 0;
    cr_assert_eq(site_pick_host(&site, now, &chance, &host, &retry), SITE_WAIT);
    cr_assert_gt(retry, now);
    return retry;
}

static void end(uint32_t host, enum site_outcome outcome, uint64_t now)
{
    site_report(&site, host, outcome, now, &chance);
    site_release(&site, host);
}

Test(site, lowest_priority_number_first)
{
    setup(0);
    cr_assert(site_hosts_add(&site, 20, 1) && site_hosts_add(&site, 10, 1) &&
              site_hosts_add(&site, 30, 1));
    for (int i = 0; i < 100; i++)
        cr_assert_eq(pick(START), 1);
    cr_expect_eq(site.connections, 100);
}

Test(site, equal_priority_by_weight)
{
    uint32_t got[4] = {0};
    setup(0);
    for (uint32_t i = 0; i < 3; i++)
        cr_assert(site_hosts_add(&site, 1, i)); /* weights 0, 1, 2 */
    cr_assert(site_hosts_add(&site, 2, 100));
    for (int i = 0; i < 3000; i++)
        got[pick(START)]++;
    cr_expect_eq(got[0], 0);
    cr_expect_eq(got[3], 0);
    cr_expect(got[1] > 900 && got[1] < 1100, "%u", got[1]);
    /* only the one without weight is left */
    end(1, SITE_DOWN, START);
    end(2, SITE_DOWN, START);
    cr_expect_eq(pick(START), 0);
}

Test(site, hosts_and_connections_are_bounded)
{
    setup(2);
    for (int i = 0; i < SITE_HOSTS_MAX; i++)
        cr_assert(site_hosts_add(&site, 1, 1));
    cr_expect_not(site_hosts_add(&site, 1, 1));
    uint32_t host, first = pick(START);
    uint64_t retry;
    pick(START);
    cr_expect_eq(site_pick_host(&site, START, &chance, &host, &retry), SITE_BUSY);
    site_release(&site, first);
    pick(START);
}

Test(site, a_failed_host_is_left_alone_ever_longer_and_probed_once)
{
    uint64_t now = START, expected = SITE_BACKOFF_MIN_NS;
    setup(0);
    cr_assert(site_hosts_add(&site, 1, 1));
    end(pick(now), SITE_DOWN, now);
    for (int i = 0; i < 12; i++) {
        uint64_t retry = wait_until(now);
        cr_expect(retry - now >= expected * 9 / 10 && retry - now <= expected * 11 / 10,
                  "round %d: %llu s", i, (unsigned long long)((retry - now) / NS_PER_S));
        cr_expect_eq(wait_until(retry - 1), retry);
        now = retry;
        uint32_t probe = pick(now);
        cr_expect_eq(wait_until(now), now + SITE_PROBE_WAIT_NS, "one probe at a time");
        end(probe, SITE_DOWN, now);
        expected = expected * 2 < SITE_BACKOFF_MAX_NS ? expected * 2 : SITE_BACKOFF_MAX_NS;
    }
    cr_expect_eq(expected, SITE_BACKOFF_MAX_NS);
}

Test(site, failures_side_by_side_double_the_wait_once)
{
    setup(0);
    cr_assert(site_hosts_add(&site, 1, 1));
    for (int i = 0; i < 20; i++)
        pick(START);
    for (int i = 0; i < 20; i++)
        end(0, SITE_DOWN, START);
    cr_expect_leq(wait_until(START) - START, SITE_BACKOFF_MIN_NS * 11 / 10);
}

Test(site, the_next_priority_takes_over_and_gives_back)
{
    setup(0);
    cr_assert(site_hosts_add(&site, 1, 1) && site_hosts_add(&site, 2, 1));
    end(pick(START), SITE_DOWN, START);
    cr_expect_eq(pick(START), 1);
    cr_expect_not(site_is_unhealthy(&site, START));
    uint64_t later = site.hosts[0].retry_ns;
    cr_expect_eq(pick(later), 0, "the probe");
    cr_expect_eq(pick(later), 1, "meanwhile the other one");
    site_report(&site, 0, SITE_UP, later, &chance);
    cr_expect_eq(pick(later), 0, "a second probe");
    cr_expect_eq(pick(later), 1);
    site_report(&site, 0, SITE_UP, later, &chance);
    for (int i = 0; i < 10; i++)
        cr_expect_eq(pick(later), 0, "healthy again");
}

Test(site, flapping_keeps_its_backoff)
{
    uint64_t now = START;
    setup(0);
    cr_assert(site_hosts_add(&site, 1, 1));
    end(pick(now), SITE_DOWN, now);
    for (int i = 0; i < 4; i++) {
        now = wait_until(now);
        end(pick(now), SITE_UP, now); /* greets once, then fails */
        end(pick(now), SITE_DOWN, now);
    }
    cr_expect_gt(wait_until(now) - now, 10 * SITE_BACKOFF_MIN_NS);
}

Test(site, unhealthy_needs_every_host_down_twice)
{
    setup(0);
    cr_expect_not(site_is_unhealthy(&site, START), "no host, no opinion");
    cr_assert(site_hosts_add(&site, 1, 1) && site_hosts_add(&site, 1, 1));
    pick(START), pick(START), pick(START), pick(START);
    site.hosts[0].connections = site.hosts[1].connections = 2;
    end(0, SITE_DOWN, START);
    end(1, SITE_DOWN, START);
    cr_expect_not(site_is_unhealthy(&site, START), "a single failure may be chance");
    end(0, SITE_DOWN, START);
    cr_expect_not(site_is_unhealthy(&site, START));
    end(1, SITE_DOWN, START);
    cr_expect(site_is_unhealthy(&site, START));

    /* When a probe is due somebody must come and try. */
    uint64_t retry = wait_until(START);
    cr_expect(site_is_unhealthy(&site, retry - 1));
    cr_expect_not(site_is_unhealthy(&site, retry));
    uint64_t both = site.hosts[0].retry_ns > site.hosts[1].retry_ns ? site.hosts[0].retry_ns
                                                                    : site.hosts[1].retry_ns;
    uint32_t probe = pick(both), other = pick(both);
    cr_expect_neq(probe, other);
    cr_expect(site_is_unhealthy(&site, both), "both are being tried");
    end(other, SITE_DOWN, both);
    site_report(&site, probe, SITE_UP, both, &chance);
    cr_expect_not(site_is_unhealthy(&site, both));
}

Test(site, a_probe_without_result_is_due_again)
{
    setup(0);
    cr_assert(site_hosts_add(&site, 1, 1));
    end(pick(START), SITE_DOWN, START);
    uint64_t retry = wait_until(START);
    end(pick(retry), SITE_NEUTRAL, retry);
    site_release(&site, pick(retry)); /* not even a report */
    pick(retry);
}

Test(site, retry_delay)
{
    static const uint64_t intervals[] = {60, 300, 3600};
    prng_seed(&chance, 3);
    uint64_t low = UINT64_MAX, high = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t d = retry_delay_s(intervals, 3, 2, &chance);
        low = d < low ? d : low;
        high = d > high ? d : high;
    }
    cr_expect(low >= 270 && low < 275 && high <= 330 && high > 325, "%lu..%lu", low, high);
    for (uint32_t attempt = 3; attempt < 1000; attempt += 100) {
        uint64_t d = retry_delay_s(intervals, 3, attempt, &chance);
        cr_expect(d >= 3240 && d <= 3960);
    }
    uint64_t d = retry_delay_s(intervals, 3, 1, &chance);
    cr_expect(d >= 54 && d <= 66);
    cr_expect_gt(retry_delay_s(NULL, 0, 1, &chance), 0);
    cr_expect_eq(retry_delay_s((uint64_t[]){1}, 1, 9, &chance), 1);
}

/* A connection to the second choice ends when the first is healthy, or due for its probe. */
Test(site, the_first_choice_gets_its_mail_back)
{
    setup(0);
    cr_assert(site_hosts_add(&site, 1, 1) && site_hosts_add(&site, 2, 1) &&
              site_hosts_add(&site, 2, 1));
    cr_assert_not(site_has_better(&site, 0, START));
    cr_assert(site_has_better(&site, 1, START), "it is healthy");
    cr_assert_eq(pick(START), 0);
    end(0, SITE_DOWN, START);
    cr_assert_eq(pick(START) > 0, true);
    cr_assert_not(site_has_better(&site, 1, START), "it is down, the other is no better");
    uint64_t due = site.hosts[0].retry_ns;
    cr_assert_not(site_has_better(&site, 1, due - 1));
    cr_assert(site_has_better(&site, 1, due), "its probe is due");
    cr_assert_eq(pick(due), 0);
    cr_assert_not(site_has_better(&site, 1, due), "it is being probed");
    end(0, SITE_DOWN, due);
    cr_assert_not(site_has_better(&site, 1, due + 1));
}

/* FAULTS 68: what the attempts alone tell of a message's age. */
Test(site, f68_attempts_tell_an_age)
{
    static const uint64_t intervals[] = {60, 300, 600, 3600};
    cr_assert_eq(retry_waited_s(intervals, 4, 0), 0);
    cr_assert_eq(retry_waited_s(intervals, 4, 1), 60);
    cr_assert_eq(retry_waited_s(intervals, 4, 3), 960);
    cr_assert_eq(retry_waited_s(intervals, 4, 4), 4560);
    cr_assert_eq(retry_waited_s(intervals, 4, 14), 4560 + 10 * 3600);
    cr_assert_eq(retry_waited_s(intervals, 1, 65535), 65535 * 60);
    cr_assert_eq(retry_waited_s(NULL, 0, 2), 600);
}
