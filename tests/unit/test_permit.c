/* Permits: one site's connections lent to many shards. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/base/prng.h"
#include "gateway/limits.h"
#include "routing/permit.h"

Test(permit, messages_survive_packing)
{
    struct permit_message m = {0x1122334455667788ull, 0xdeadbeef, 0xfeedface, 65535, 1, 65534, 20};
    struct permit_message back;
    uint64_t raw[3];
    permit_pack(&m, raw);
    permit_unpack(raw, &back);
    cr_expect(back.key == m.key && back.seq == m.seq && back.ack == m.ack && back.held == m.held &&
              back.used == m.used && back.waiting == m.waiting && back.max == m.max);
}

/* ---- one message at a time ---- */

struct pair {
    struct permit_home *home;
    struct permit_borrower b[8];
    uint64_t now;
};

static struct pair *pair_new(uint32_t limit, uint32_t shards)
{
    static struct pair p;
    memset(&p, 0, sizeof p);
    p.home = calloc(1, permit_home_size(shards));
    permit_home_init(p.home, 7, limit, shards);
    for (uint32_t i = 0; i < shards; i++)
        permit_borrower_init(&p.b[i], 7, limit);
    p.now = NS_PER_S;
    return &p;
}

/* Delivers everything there is to say, at once. Returns how many messages that took. */
static uint32_t settle(struct pair *p)
{
    uint32_t count = 0, to;
    for (bool more = true; more;) {
        struct permit_message m;
        more = false;
        for (uint32_t i = 0; i < p->home->shard_count; i++)
            while (permit_borrower_poll(&p->b[i], p->now, &m)) {
                permit_home_take_state(p->home, i, &m);
                more = true;
                cr_assert_lt(count++, 1000, "they never stop talking");
            }
        while (permit_home_poll(p->home, p->now, &to, &m)) {
            permit_borrower_take_grant(&p->b[to], &m);
            more = true;
            cr_assert_lt(count++, 1000, "they never stop talking");
        }
    }
    return count;
}

static uint32_t take_all(struct permit_borrower *b)
{
    uint32_t n = 0;
    while (permit_take(b))
        n++;
    return n;
}

static void later(struct pair *p, uint64_t ns)
{
    p->now += ns;
    settle(p);
}

Test(permit, nothing_without_a_grant)
{
    struct pair *p = pair_new(3, 2);
    cr_expect_not(permit_take(&p->b[0]));
    permit_want(&p->b[0], 10);
    cr_expect_eq(settle(p), 4, "question, grant, taken, heard");
    cr_expect_eq(take_all(&p->b[0]), 3, "alone it may have all");
    cr_expect_not(permit_is_over(&p->b[0]));
    cr_expect_eq(settle(p), 0);
    free(p->home);
}

Test(permit, the_second_gets_half_when_the_first_lets_go)
{
    struct pair *p = pair_new(20, 2);
    permit_want(&p->b[0], 100);
    settle(p);
    cr_expect_eq(take_all(&p->b[0]), 20);
    permit_want(&p->b[0], 100);
    permit_want(&p->b[1], 100);
    settle(p);
    cr_expect_eq(take_all(&p->b[1]), 0, "all are in use");
    cr_expect(permit_is_over(&p->b[0]));
    for (uint32_t i = 1; i <= 10; i++) {
        permit_give(&p->b[0]);
        settle(p);
        cr_expect_eq(take_all(&p->b[0]), 0);
        cr_expect_eq(take_all(&p->b[1]), 1, "each one closed here is opened there");
    }
    cr_expect_not(permit_is_over(&p->b[0]));
    permit_give(&p->b[0]);
    settle(p);
    cr_expect_eq(take_all(&p->b[1]), 0);
    cr_expect_eq(take_all(&p->b[0]), 1, "from here on each keeps its own");
    free(p->home);
}

Test(permit, an_idle_permit_goes_back)
{
    struct pair *p = pair_new(5, 2);
    permit_want(&p->b[0], 5);
    settle(p);
    cr_expect_eq(take_all(&p->b[0]), 5);
    for (int i = 0; i < 5; i++)
        permit_give(&p->b[0]);
    cr_expect_eq(settle(p), 0, "not at once: it may be of use again");
    cr_expect_eq(permit_borrower_next_ns(&p->b[0]), p->now + PERMIT_IDLE_NS);
    later(p, PERMIT_IDLE_NS);
    cr_expect(permit_borrower_is_idle(&p->b[0]));
    cr_expect(permit_home_is_idle(p->home));
    cr_expect_eq(permit_borrower_next_ns(&p->b[0]), UINT64_MAX);
    cr_expect_eq(permit_home_next_ns(p->home), UINT64_MAX);
    free(p->home);
}

Test(permit, an_idle_permit_is_recalled_at_once_when_somebody_waits)
{
    struct pair *p = pair_new(4, 3);
    permit_want(&p->b[0], 4);
    settle(p);
    cr_expect_eq(take_all(&p->b[0]), 4);
    permit_give(&p->b[0]);
    permit_give(&p->b[0]);
    permit_want(&p->b[1], 1);
    settle(p);
    cr_expect_eq(take_all(&p->b[1]), 1);
    free(p->home);
}

Test(permit, shares_are_fair)
{
    struct pair *p = pair_new(20, 8);
    for (uint32_t i = 0; i < 8; i++)
        permit_want(&p->b[i], i == 3 ? 1 : 50);
    settle(p);
    for (int round = 0; round < 40; round++) { /* everybody closes and opens */
        for (uint32_t i = 0; i < 8; i++) {
            if (p->b[i].used)
                permit_give(&p->b[i]);
            settle(p);
            for (uint32_t k = 0; k < 8; k++)
                take_all(&p->b[k]);
            permit_want(&p->b[i], i == 3 ? 1 - p->b[3].used : 50);
        }
    }
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 8; i++) {
        sum += p->b[i].used;
        cr_expect(i == 3 ? p->b[i].used == 1 : p->b[i].used == 2 || p->b[i].used == 3,
                  "shard %u has %u", i, p->b[i].used);
    }
    cr_expect_eq(sum, 20, "and none is wasted");
    free(p->home);
}

Test(permit, more_shards_than_permits_take_turns)
{
    struct pair *p = pair_new(1, 8);
    uint32_t served[8] = {0};
    for (int round = 0; round < 1000; round++) {
        uint32_t sum = 0;
        for (uint32_t i = 0; i < 8; i++) {
            if (permit_is_over(&p->b[i]))
                permit_give(&p->b[i]);
            permit_want(&p->b[i], 10);
        }
        later(p, NS_PER_S / 10);
        for (uint32_t i = 0; i < 8; i++) {
            take_all(&p->b[i]);
            served[i] += p->b[i].used;
            sum += p->b[i].used;
        }
        cr_assert_leq(sum, 1);
    }
    for (uint32_t i = 0; i < 8; i++)
        cr_expect(served[i] > 80 && served[i] < 170, "shard %u was served %u times", i, served[i]);
    free(p->home);
}

Test(permit, the_limit_may_change)
{
    struct pair *p = pair_new(10, 2);
    permit_want(&p->b[0], 10);
    permit_want(&p->b[1], 10);
    settle(p);
    cr_expect_eq(take_all(&p->b[0]), 5);
    cr_expect_eq(take_all(&p->b[1]), 5);
    p->b[0].max = p->b[1].max = 4; /* reload */
    permit_want(&p->b[0], 20);
    permit_want(&p->b[1], 20);
    p->b[0].answer_due = p->b[1].answer_due = true;
    settle(p);
    cr_expect(permit_is_over(&p->b[0]) && permit_is_over(&p->b[1]));
    for (uint32_t i = 0; i < 3; i++) {
        permit_give(&p->b[0]);
        permit_give(&p->b[1]);
    }
    settle(p);
    cr_expect_eq(take_all(&p->b[0]) + take_all(&p->b[1]), 0);
    cr_expect_eq(p->b[0].used + p->b[1].used, 4);
    p->b[0].max = p->b[1].max = 0; /* no limit */
    p->b[0].answer_due = true;
    permit_want(&p->b[0], 1000);
    settle(p);
    cr_expect_eq(take_all(&p->b[0]), 1000);
    free(p->home);
}

Test(permit, a_forgotten_borrower_begins_anew)
{
    struct pair *p = pair_new(3, 2);
    for (int round = 0; round < 5; round++) {
        permit_want(&p->b[0], 3);
        settle(p);
        cr_assert_eq(take_all(&p->b[0]), 3, "round %d", round);
        while (p->b[0].used)
            permit_give(&p->b[0]);
        later(p, 1);
        later(p, PERMIT_IDLE_NS);
        cr_assert(permit_borrower_is_idle(&p->b[0]));
        permit_borrower_init(&p->b[0], 7, 3);
    }
    free(p->home);
}

Test(permit, a_forgotten_home_begins_anew)
{
    struct pair *p = pair_new(3, 2);
    for (int round = 0; round < 5; round++) {
        permit_want(&p->b[0], 3);
        settle(p);
        cr_assert_eq(take_all(&p->b[0]), 3, "round %d", round);
        while (p->b[0].used)
            permit_give(&p->b[0]);
        later(p, 1);
        later(p, PERMIT_IDLE_NS);
        cr_assert(permit_home_is_idle(p->home));
        permit_home_init(p->home, 7, 3, 2);
    }
    free(p->home);
}

Test(permit, a_lost_question_is_asked_again)
{
    struct pair *p = pair_new(3, 1);
    struct permit_message m;
    permit_want(&p->b[0], 1);
    cr_assert(permit_borrower_poll(&p->b[0], p->now, &m)); /* lost */
    cr_expect_not(permit_borrower_poll(&p->b[0], p->now, &m));
    cr_expect_eq(permit_borrower_next_ns(&p->b[0]), p->now + PERMIT_RESEND_NS);
    later(p, PERMIT_RESEND_NS);
    cr_expect_eq(take_all(&p->b[0]), 1);
    free(p->home);
}

/* ---- a network that delays, doubles, reorders and loses ---- */

#define SHARDS_MAX 64
#define FLIGHT_MAX 4096

struct flight {
    uint64_t at;
    uint32_t shard;
    bool to_home;
    struct permit_message m;
};

struct world {
    struct permit_home *home;
    struct permit_borrower b[SHARDS_MAX];
    uint32_t shards, limit, flights;
    struct flight flight[FLIGHT_MAX];
    struct prng chance;
    uint64_t now, delay_max;
    uint32_t loss, doubling; /* per 100 */
    uint64_t since[SHARDS_MAX], wait_max, messages;
    uint64_t served[SHARDS_MAX], used_time;
};

static void world_send(struct world *w, uint32_t shard, bool to_home,
                       const struct permit_message *m)
{
    w->messages++;
    for (int copies = prng_below(&w->chance, 100) < w->doubling ? 2 : 1; copies > 0; copies--) {
        if (prng_below(&w->chance, 100) < w->loss)
            continue;
        cr_assert_lt(w->flights, FLIGHT_MAX, "the network fills up");
        w->flight[w->flights++] =
            (struct flight){w->now + prng_below(&w->chance, w->delay_max), shard, to_home, *m};
    }
}

static void world_speak(struct world *w)
{
    struct permit_message m;
    uint32_t to;
    for (uint32_t i = 0; i < w->shards; i++)
        while (permit_borrower_poll(&w->b[i], w->now, &m))
            world_send(w, i, true, &m);
    while (permit_home_poll(w->home, w->now, &to, &m))
        world_send(w, to, false, &m);
}

static void world_deliver(struct world *w)
{
    for (uint32_t i = 0; i < w->flights;) {
        struct flight f = w->flight[i];
        if (f.at > w->now) {
            i++;
            continue;
        }
        w->flight[i] = w->flight[--w->flights];
        if (f.to_home)
            permit_home_take_state(w->home, f.shard, &f.m);
        else
            permit_borrower_take_grant(&w->b[f.shard], &f.m);
        world_speak(w);
    }
}

/* The one thing that must always hold. */
static void world_check(struct world *w)
{
    uint32_t used = 0, held = 0;
    for (uint32_t i = 0; i < w->shards; i++) {
        used += w->b[i].used;
        held += w->b[i].held > w->b[i].used ? w->b[i].held : w->b[i].used;
    }
    cr_assert_leq(used, w->limit, "%u connections are open, %u may be", used, w->limit);
    cr_assert_leq(held, w->limit, "%u connections could be open, %u may be", held, w->limit);
    w->used_time += used;
}

/* Each shard has work with a chance of `busy` in 100 and closes connections now and then. */
static void world_work(struct world *w, uint32_t busy)
{
    for (uint32_t i = 0; i < w->shards; i++) {
        struct permit_borrower *b = &w->b[i];
        bool works = prng_below(&w->chance, 100) < busy;
        while (b->used && (permit_is_over(b) || !works || prng_below(&w->chance, 20) == 0)) {
            permit_give(b);
            if (works)
                break;
        }
        permit_want(b, works ? 1 + (uint32_t)prng_below(&w->chance, 30) : 0);
        while (b->waiting && permit_take(b))
            ;
        w->served[i] += b->used;
        if (b->used || !works)
            w->since[i] = w->now;
        else if (w->now - w->since[i] > w->wait_max)
            w->wait_max = w->now - w->since[i];
    }
}

static struct world *world_new(uint64_t seed, uint32_t shards, uint32_t limit)
{
    struct world *w = calloc(1, sizeof *w);
    w->home = calloc(1, permit_home_size(shards));
    w->shards = shards;
    w->limit = limit;
    w->now = NS_PER_S;
    prng_seed(&w->chance, seed);
    permit_home_init(w->home, 1, limit, shards);
    for (uint32_t i = 0; i < shards; i++) {
        permit_borrower_init(&w->b[i], 1, limit);
        w->since[i] = w->now;
    }
    return w;
}

static void world_free(struct world *w)
{
    free(w->home);
    free(w);
}

static void world_run(struct world *w, uint32_t steps, uint64_t step_ns, uint32_t busy)
{
    for (uint32_t i = 0; i < steps; i++) {
        w->now += step_ns;
        world_deliver(w);
        world_work(w, busy);
        world_check(w);
        world_speak(w);
        world_check(w);
    }
}

/* Everybody stops: all permits must come home, and the talk must end. */
static void world_end(struct world *w)
{
    w->loss = 0;
    world_run(w, 300, NS_PER_S / 10, 0);
    uint64_t said = w->messages;
    world_run(w, 300, NS_PER_S / 10, 0);
    cr_expect_eq(w->messages, said, "they go on talking");
    for (uint32_t i = 0; i < w->shards; i++)
        cr_expect(permit_borrower_is_idle(&w->b[i]), "shard %u", i);
    cr_expect(permit_home_is_idle(w->home));
}

Test(permit, never_too_many_whatever_becomes_of_messages)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct world *w = world_new(seed, 1 + seed % 16, 1 + seed * 7 % 40);
        w->delay_max = (seed % 3 ? 300 : 5000) * NS_PER_MS;
        w->loss = seed % 4 * 15;
        w->doubling = seed % 5 * 10;
        world_run(w, 600, 50 * NS_PER_MS, 30 + (uint32_t)seed % 70);
        world_run(w, 300, 50 * NS_PER_MS, 3);
        world_run(w, 300, 50 * NS_PER_MS, 100);
        world_end(w);
        world_free(w);
    }
}

Test(permit, a_limit_of_20_serves_every_shard_and_is_used)
{
    static const uint32_t counts[] = {1, 2, 3, 8, 20, 33, 64};
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        struct world *w = world_new(k + 1, counts[k], 20);
        uint64_t least = UINT64_MAX, most = 0;
        w->delay_max = NS_PER_MS; /* rings between threads */
        world_run(w, 20000, 20 * NS_PER_MS, 100);
        for (uint32_t i = 0; i < w->shards; i++) {
            least = w->served[i] < least ? w->served[i] : least;
            most = w->served[i] > most ? w->served[i] : most;
        }
        double use = (double)w->used_time / (2.0 * 20000 * 20);
        cr_expect_leq(w->messages, 4000, "%u shards: %lu messages in 400 s", w->shards,
                      w->messages);
        cr_expect_gt(use, 0.9, "%u shards use %.0f %%", w->shards, use * 100);
        cr_expect_leq(most, least * 2, "%u shards: from %lu to %lu", w->shards, least, most);
        cr_expect_leq(w->wait_max, 64 * PERMIT_TURN_NS, "somebody waited %lu s",
                      w->wait_max / (uint64_t)NS_PER_S);
        world_end(w);
        world_free(w);
    }
}

Test(permit, nobody_starves_when_every_fifth_message_is_lost)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct world *w = world_new(seed, 8, 3);
        w->delay_max = 20 * NS_PER_MS;
        w->loss = 20;
        world_run(w, 5000, 50 * NS_PER_MS, 100);
        for (uint32_t i = 0; i < w->shards; i++)
            cr_expect_gt(w->served[i], 500, "seed %lu shard %u: %lu", seed, i, w->served[i]);
        cr_expect_leq(w->wait_max, 30 * NS_PER_S, "somebody waited %lu s",
                      w->wait_max / (uint64_t)NS_PER_S);
        world_end(w);
        world_free(w);
    }
}
