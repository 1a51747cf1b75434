/* The choice of a send connector (INTERFACES section 4; EXCHANGE E19 to E21, E24, E35, E36). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "gateway/base/sanitizers.h"
#include "routing/route.h"

#define COUNT(a) (uint32_t)(sizeof(a) / sizeof(a)[0])

enum { INTERNET, ISP, PARTNER, SUBS, OFF, SCOPED, SMALL, CONNECTORS };

static struct route_space internet_spaces[] = {{"*", 10, 1}};
static struct route_space isp_spaces[] = {{"*", 20, 1}};
static struct route_space partner_spaces[] = {{"partner.example", 50, 1}, {"both.example", 5, 1}};
static struct route_space subs_spaces[] = {{"*.example", 40, 1}, {"*.deep.sub.example", 60, 1}};
static struct route_space off_spaces[] = {{"partner.example", 1, 1}};
static struct route_space scoped_spaces[] = {{"scoped.example", 1, 1}};
static struct route_space small_spaces[] = {{"small.example", 1, 1}, {"tiny.invalid", 1, 1}};
static const char *const scoped_names[] = {"client-frontend", "app"};

static struct route_connector connectors[CONNECTORS] = {
    [INTERNET] = {"internet", true, true, 0, internet_spaces, 1, NULL, 0},
    [ISP] = {"isp", true, true, 0, isp_spaces, 1, NULL, 0},
    [PARTNER] = {"partner", true, true, 0, partner_spaces, 2, NULL, 0},
    [SUBS] = {"subs", true, true, 0, subs_spaces, 2, NULL, 0},
    [OFF] = {"off", false, true, 0, off_spaces, 1, NULL, 0},
    [SCOPED] = {"scoped", true, true, 0, scoped_spaces, 1, scoped_names, 2},
    [SMALL] = {"small", true, true, 1000, small_spaces, 2, NULL, 0},
};

struct state {
    bool sick[CONNECTORS], stopped[CONNECTORS];
    char said[CONNECTORS][600];
    uint32_t calls;
};

static bool is_sick(void *arg, uint32_t connector, struct slice domain)
{
    cr_assert(domain.len > 0);
    return ((struct state *)arg)->sick[connector];
}

static bool is_stopped(void *arg, uint32_t connector)
{
    return ((struct state *)arg)->stopped[connector];
}

static void said(void *arg, const char *connector, const char *verdict)
{
    struct state *s = arg;
    cr_assert_lt(s->calls, CONNECTORS);
    cr_expect_str_eq(connector, connectors[s->calls].name, "in the order of the configuration");
    snprintf(s->said[s->calls++], sizeof s->said[0], "%s", verdict);
}

static struct route_answer choose(struct state *s, const char *domain, const char *in,
                                  uint64_t size)
{
    struct route_table *t = route_table_create(connectors, CONNECTORS);
    struct route_query q = {.domain = slice_str(domain),
                            .receive_connector = slice_str(in),
                            .size = size,
                            .choice = 42,
                            .unhealthy = is_sick,
                            .stopped = is_stopped,
                            .arg = s,
                            .explain = said,
                            .explain_arg = s};
    struct route_answer a, silent;
    cr_assert(t);
    s->calls = 0;
    route_choose(t, &q, &a);
    cr_expect_eq(s->calls, CONNECTORS);
    q.explain = NULL;
    route_choose(t, &q, &silent);
    cr_expect(a.verdict == silent.verdict && a.connector == silent.connector &&
                  a.cost == silent.cost && a.failover == silent.failover,
              "explaining changes nothing");
    route_table_destroy(t);
    return a;
}

#define EXPECT(answer, index, price, over)                                       \
    do {                                                                         \
        struct route_answer a_ = (answer);                                       \
        cr_expect_eq(a_.verdict, ROUTE_FOUND);                                   \
        cr_expect_eq(a_.connector, (uint32_t)(index), "chose %u", a_.connector); \
        cr_expect_eq(a_.cost, (uint32_t)(price));                                \
        cr_expect_eq(a_.failover, over);                                         \
    } while (0)

Test(route, cost_decides_in_one_space)
{
    struct state s = {0};
    EXPECT(choose(&s, "anything.org", "x", 0), INTERNET, 10, false);
    cr_expect_str_eq(s.said[INTERNET], "chosen: space \"*\", cost 10");
    cr_expect_str_eq(s.said[ISP], "costlier: cost 20 against 10 of internet (space \"*\")");
    cr_expect_str_eq(s.said[PARTNER], "no address space takes this domain");
    cr_expect_str_eq(s.said[OFF], "disabled in the configuration");
}

Test(route, the_most_specific_space_wins_at_any_cost)
{
    struct state s = {0};
    EXPECT(choose(&s, "PARTNER.example", "x", 0), PARTNER, 50, false);
    cr_expect_str_eq(s.said[SUBS],
                     "less specific: space \"*.example\" against \"partner.example\" of partner");
    EXPECT(choose(&s, "other.example", "x", 0), SUBS, 40, false);
    EXPECT(choose(&s, "example", "x", 0), SUBS, 40, false);
    EXPECT(choose(&s, "sub.partner.example", "x", 0), SUBS, 40, false);
    EXPECT(choose(&s, "a.deep.sub.example", "x", 0), SUBS, 60, false);
    EXPECT(choose(&s, "deep.sub.example.", "x", 0), SUBS, 60, false);
    EXPECT(choose(&s, "notexample", "x", 0), INTERNET, 10, false);
    EXPECT(choose(&s, "[192.0.2.7]", "x", 0), INTERNET, 10, false);
}

Test(route, scope)
{
    struct state s = {0};
    EXPECT(choose(&s, "scoped.example", "app", 0), SCOPED, 1, false);
    EXPECT(choose(&s, "scoped.example", "default", 0), SUBS, 40, false);
    cr_expect_str_eq(s.said[SCOPED],
                     "out of scope: takes only mail that came in through client-frontend, app");
}

Test(route, size)
{
    struct state s = {0};
    EXPECT(choose(&s, "small.example", "x", 1000), SMALL, 1, false);
    EXPECT(choose(&s, "small.example", "x", 1001), SUBS, 40, false);
    cr_expect_str_eq(s.said[SMALL],
                     "too large: takes messages up to 1000 bytes, this one has 1001");
}

Test(route, too_large_for_every_match_or_none)
{
    struct state s = {0};
    connectors[INTERNET].message_size_max = connectors[ISP].message_size_max = 500;
    cr_expect_eq(choose(&s, "tiny.invalid", "x", 5000).verdict, ROUTE_TOO_LARGE);
    EXPECT(choose(&s, "tiny.invalid", "x", 800), SMALL, 1, false);
    EXPECT(choose(&s, "tiny.invalid", "x", 0), SMALL, 1, false);
    /* One that is stopped but would take it: wait for it rather than bounce. */
    connectors[ISP].message_size_max = 0;
    s.stopped[ISP] = true;
    cr_expect_eq(choose(&s, "tiny.invalid", "x", 5000).verdict, ROUTE_NONE);
    cr_expect_str_eq(s.said[ISP], "disabled by the operator");
    s.stopped[INTERNET] = s.stopped[SMALL] = true;
    cr_expect_eq(choose(&s, "tiny.invalid", "x", 10).verdict, ROUTE_NONE);
    connectors[INTERNET].message_size_max = 0;
}

Test(route, nothing_matches)
{
    struct route_table *t = route_table_create(&connectors[PARTNER], 1);
    struct route_query q = {.domain = SLICE_LIT("nobody.example")};
    struct route_answer a;
    route_choose(t, &q, &a);
    cr_expect_eq(a.verdict, ROUTE_NONE);
    q.domain = SLICE_LIT("");
    route_choose(t, &q, &a);
    cr_expect_eq(a.verdict, ROUTE_NONE);
    route_table_destroy(t);
    t = route_table_create(NULL, 0);
    cr_assert(t);
    route_choose(t, &q, &a);
    cr_expect_eq(a.verdict, ROUTE_NONE);
    route_table_destroy(t);
}

Test(route, unhealthy_moves_to_the_next_cost_and_back)
{
    struct state s = {0};
    s.sick[INTERNET] = true;
    EXPECT(choose(&s, "anything.org", "x", 0), ISP, 20, true);
    cr_expect_str_eq(s.said[INTERNET], "all hosts unhealthy: space \"*\", cost 10 would win; isp "
                                       "takes over until a host recovers");
    cr_expect_str_eq(s.said[ISP], "chosen: space \"*\", cost 20; stands in for an unhealthy one");
    s.sick[INTERNET] = false;
    EXPECT(choose(&s, "anything.org", "x", 0), INTERNET, 10, false);
}

/* E36: a dead specific connector does not hold its mail. */
Test(route, unhealthy_moves_to_a_less_specific_space)
{
    struct state s = {0};
    s.sick[PARTNER] = true;
    EXPECT(choose(&s, "partner.example", "x", 0), SUBS, 40, true);
    s.sick[SUBS] = true;
    EXPECT(choose(&s, "partner.example", "x", 0), INTERNET, 10, true);
}

Test(route, everybody_unhealthy_waits_at_the_first)
{
    struct state s = {.sick = {true, true, true, true, true, true, true}};
    EXPECT(choose(&s, "partner.example", "x", 0), PARTNER, 50, false);
    cr_expect(strstr(s.said[PARTNER], "nobody else is healthy"), "%s", s.said[PARTNER]);
}

Test(route, failover_off_holds_its_mail)
{
    struct state s = {0};
    s.sick[PARTNER] = true;
    connectors[PARTNER].failover = false;
    EXPECT(choose(&s, "partner.example", "x", 0), PARTNER, 50, false);
    cr_expect(strstr(s.said[PARTNER], "failover is off"), "%s", s.said[PARTNER]);
    connectors[PARTNER].failover = true;
}

Test(route, stopped_at_run_time)
{
    struct state s = {0};
    s.stopped[INTERNET] = true;
    EXPECT(choose(&s, "anything.org", "x", 0), ISP, 20, false);
    cr_expect_str_eq(s.said[INTERNET], "disabled by the operator");
}

Test(route, a_connector_that_names_a_space_twice_counts_once_and_cheap)
{
    struct route_space spaces[] = {{"*", 30, 1}, {"*", 5, 1}};
    struct route_connector c[] = {{"a", true, true, 0, spaces, 2, NULL, 0}};
    struct route_table *t = route_table_create(c, 1);
    struct route_query q = {.domain = SLICE_LIT("x.y")};
    struct route_answer a;
    route_choose(t, &q, &a);
    EXPECT(a, 0, 5, false);
    route_table_destroy(t);
}

/* ---- equal cost ---- */

struct balance {
    uint32_t chosen[3];
    uint32_t where[30000];
    uint32_t sick; /* index, or 3 */
    char verdicts[3][300];
    uint32_t calls;
};

static bool balance_sick(void *arg, uint32_t connector, struct slice domain)
{
    (void)domain;
    return ((struct balance *)arg)->sick == connector;
}

static void balance_said(void *arg, const char *connector, const char *verdict)
{
    struct balance *b = arg;
    (void)connector;
    snprintf(b->verdicts[b->calls++], sizeof b->verdicts[0], "%s", verdict);
}

static void balance_run(struct balance *b)
{
    struct route_space s1[] = {{"*", 7, 1}}, s2[] = {{"*", 7, 2}}, s3[] = {{"*", 7, 3}};
    struct route_connector c[] = {{"one", true, true, 0, s1, 1, NULL, 0},
                                  {"two", true, true, 0, s2, 1, NULL, 0},
                                  {"three", true, true, 0, s3, 1, NULL, 0}};
    struct route_table *t = route_table_create(c, 3);
    struct route_answer a, again;
    for (uint32_t i = 0; i < COUNT(b->where); i++) {
        struct route_query q = {
            .domain = SLICE_LIT("x.y"), .choice = i, .unhealthy = balance_sick, .arg = b};
        route_choose(t, &q, &a);
        route_choose(t, &q, &again);
        cr_assert_eq(a.connector, again.connector, "steady");
        b->chosen[a.connector]++;
        b->where[i] = a.connector;
    }
    struct route_query q = {.domain = SLICE_LIT("x.y"),
                            .unhealthy = balance_sick,
                            .arg = b,
                            .explain = balance_said,
                            .explain_arg = b};
    route_choose(t, &q, &a);
    route_table_destroy(t);
}

Test(route, equal_cost_shares_by_weight_and_moves_only_what_must)
{
    static struct balance all = {.sick = 3}, less = {.sick = 1};
    balance_run(&all);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t expected = COUNT(all.where) * (i + 1) / 6;
        cr_expect(all.chosen[i] > expected * 95 / 100 && all.chosen[i] < expected * 105 / 100,
                  "weight %u got %u of %u", i + 1, all.chosen[i], expected);
    }
    uint32_t by_weight = 0;
    for (uint32_t i = 0; i < 3; i++)
        by_weight += strstr(all.verdicts[i], "lost by weight") != NULL;
    cr_expect_eq(by_weight, 2, "%s / %s / %s", all.verdicts[0], all.verdicts[1], all.verdicts[2]);
    balance_run(&less);
    cr_expect_eq(less.chosen[1], 0);
    for (uint32_t i = 0; i < COUNT(all.where); i++)
        if (all.where[i] != 1)
            cr_assert_eq(less.where[i], all.where[i], "message %u moved for nothing", i);
}

/* ---- against a plain reading of the rules ---- */

static int plain_specificity(const char *space, const char *domain)
{
    size_t ls = strlen(space), ld = strlen(domain);
    if (strcmp(space, "*") == 0)
        return 0;
    if (strncmp(space, "*.", 2) != 0)
        return strcmp(space, domain) == 0 ? 1000 : -1;
    if (strcmp(space + 2, domain) == 0)
        return (int)ls;
    return ld > ls - 1 && strcmp(domain + ld - (ls - 1), space + 1) == 0 ? (int)ls : -1;
}

Test(route, agrees_with_a_plain_reference)
{
    static const char *const names[] = {"*",     "a",       "*.a",     "b.a", "*.b.a",
                                        "c.b.a", "*.c.b.a", "d.c.b.a", "*.b"};
    static const char *const asked[] = {"a",         "b.a", "c.b.a", "d.c.b.a",
                                        "e.d.c.b.a", "b",   "x.b",   "z"};
    srand(7);
    for (int round = 0; round < 2000; round++) {
        struct route_space spaces[6][3];
        struct route_connector c[6];
        bool sick[CONNECTORS] = {0};
        struct state s = {0};
        for (uint32_t i = 0; i < 6; i++) {
            for (int k = 0; k < 3; k++) /* costs differ, so that the weight has no say */
                spaces[i][k] = (struct route_space){(char *)names[rand() % 9],
                                                    (uint32_t)(rand() % 50) * 6 + i, 1};
            c[i] = (struct route_connector){
                "c", rand() % 8 != 0, true, rand() % 4 ? 0 : 100, spaces[i], 3, NULL, 0};
            s.sick[i] = sick[i] = rand() % 3 == 0;
        }
        struct route_table *t = route_table_create(c, 6);
        const char *domain = asked[rand() % 8];
        uint64_t size = rand() % 2 ? 200 : 50;
        int first = -1, next = -1, first_rank[2] = {-1, 0}, next_rank[2] = {-1, 0};
        for (int i = 0; i < 6; i++)
            for (int k = 0; k < 3; k++) {
                int rank = plain_specificity(spaces[i][k].space, domain);
                int cost = (int)spaces[i][k].cost;
                if (rank < 0 || !c[i].enabled ||
                    (c[i].message_size_max && size > c[i].message_size_max))
                    continue;
                if (rank > first_rank[0] || (rank == first_rank[0] && cost < first_rank[1])) {
                    first = i;
                    first_rank[0] = rank;
                    first_rank[1] = cost;
                }
                if (!sick[i] &&
                    (rank > next_rank[0] || (rank == next_rank[0] && cost < next_rank[1]))) {
                    next = i;
                    next_rank[0] = rank;
                    next_rank[1] = cost;
                }
            }
        struct route_query q = {
            .domain = slice_str(domain), .size = size, .unhealthy = is_sick, .arg = &s};
        struct route_answer a;
        route_choose(t, &q, &a);
        if (first < 0) {
            cr_assert_neq(a.verdict, ROUTE_FOUND);
        } else {
            cr_assert_eq(a.verdict, ROUTE_FOUND);
            cr_assert_eq(a.connector, (uint32_t)(next < 0 ? first : next), "round %d", round);
            cr_assert_eq(a.failover, next >= 0 && next != first);
        }
        route_table_destroy(t);
    }
}

/* ---- speed ---- */

Test(route, ten_thousand_spaces_cost_well_under_a_microsecond)
{
    enum { SPACES = 10000, LOOKUPS = 200000 };
    static struct route_space spaces[SPACES];
    static char names[SPACES][64], asked[SPACES][64];
    struct timespec from, to;
    for (uint32_t i = 0; i < SPACES; i++) {
        snprintf(names[i], sizeof names[i], "%sd%u.customers.example", i % 2 ? "*." : "", i);
        snprintf(asked[i], sizeof asked[i], "mail.d%u.customers.example", i);
        spaces[i] = (struct route_space){names[i], i % 100, 1};
    }
    struct route_connector c[] = {{"many", true, true, 0, spaces, SPACES, NULL, 0},
                                  {"rest", true, true, 0, internet_spaces, 1, NULL, 0}};
    struct route_table *t = route_table_create(c, 2);
    uint32_t found = 0;
    double best_ns = 1e9;
    for (int round = 0; round < 5; round++) {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
        for (uint32_t i = 0; i < LOOKUPS; i++) {
            struct route_query q = {.domain = slice_str(asked[i * 7919u % SPACES]), .choice = i};
            struct route_answer a;
            route_choose(t, &q, &a);
            found += a.connector == 0;
        }
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
        double ns =
            ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) /
            LOOKUPS;
        best_ns = ns < best_ns ? ns : best_ns;
    }
    cr_expect_eq(found, 5 * LOOKUPS / 2);
    printf("route: %.0f ns a lookup among %d spaces\n", best_ns, SPACES);
#ifndef SANITIZES_ADDRESS
    cr_expect_lt(best_ns, 1000);
#endif
    route_table_destroy(t);
}
