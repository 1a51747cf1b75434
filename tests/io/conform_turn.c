/*
 * tests/io/conform_turn.c - conformance: timers, the order of a turn, time, chance, messages.
 */
#include "gateway/base/prng.h"
#include "tests/io/conform_kit.h"

/* ---- timers ---- */

struct kit_timer {
    struct timer timer;
    struct kit *kit;
    uint32_t fired;
    struct kit_timer *clears; /* cleared when this one fires */
    uint32_t again;           /* sets itself again that often, at once */
};

static void on_timer(struct timer *t)
{
    struct kit_timer *kt = container_of(t, struct kit_timer, timer);

    cr_assert_eq(kt->kit->starting, 0);
    cr_assert_leq(t->deadline_ns, io_now_ns(kt->kit->io), "not before its time");
    cr_assert_not(timer_is_set(t));
    kt->fired++;
    if (kt->clears)
        io_timer_clear(kt->kit->io, &kt->clears->timer);
    if (kt->fired <= kt->again)
        io_timer_set(kt->kit->io, t, io_now_ns(kt->kit->io));
}

static struct kit_timer kit_timer(struct kit *k)
{
    return (struct kit_timer){.timer = {.fire = on_timer}, .kit = k};
}

void conform_timers(const struct conform *c)
{
    struct kit k;
    struct kit_timer a, b, cleared, past;
    uint64_t start, turns;

    kit_open(&k, c, 0, 0);
    a = b = cleared = past = kit_timer(&k);
    start = io_now_ns(k.io);
    b.clears = &cleared;
    START(&k, io_timer_set(k.io, &a.timer, start + 9 * NS_PER_MS));
    START(&k, io_timer_set(k.io, &b.timer, start + 4 * NS_PER_MS));
    START(&k, io_timer_set(k.io, &cleared.timer, start + 6 * NS_PER_MS));
    START(&k, io_timer_set(k.io, &past.timer, 0));
    past.again = 3;
    c->turn(k.io);
    cr_assert_geq(past.fired, 1u, "one that is due fires at the start of the turn");
    turns = io_stats(k.io)->turns;
    KIT_UNTIL(&k, past.fired == 4);
    cr_assert_leq(io_stats(k.io)->turns - turns, 4u);
    cr_assert_lt(io_now_ns(k.io) - start, 20 * NS_PER_S);
    KIT_UNTIL(&k, b.fired);
    KIT_UNTIL(&k, a.fired);
    cr_assert_geq(io_now_ns(k.io), start + 9 * NS_PER_MS);
    cr_assert_eq(cleared.fired, 0);
    past.again = UINT32_MAX;
    past.fired = 0;
    io_timer_set(k.io, &past.timer, 0);
    c->turn(k.io);
    cr_assert_leq(past.fired, 2u, "one that is always due does not hold the turn");
    io_timer_clear(k.io, &past.timer);
    io_timer_set(k.io, &b.timer, UINT64_MAX);
    io_timer_clear(k.io, &b.timer);
    io_timer_clear(k.io, &b.timer);
    kit_close(&k);
}

void conform_timer_storm(const struct conform *c)
{
    enum { COUNT = 5000 };
    static struct kit_timer timers[COUNT];
    struct kit k;
    struct prng p;
    uint64_t start;
    uint32_t fired = 0;

    kit_open(&k, c, 0, 0);
    prng_seed(&p, 4);
    start = io_now_ns(k.io);
    for (int i = 0; i < COUNT; i++) {
        timers[i] = kit_timer(&k);
        io_timer_set(k.io, &timers[i].timer, start + prng_below(&p, 20 * NS_PER_MS));
    }
    for (int i = 0; i < COUNT; i += 10) /* moved */
        io_timer_set(k.io, &timers[i].timer, start + prng_below(&p, 20 * NS_PER_MS));
    for (int i = 5; i < COUNT; i += 10)
        io_timer_clear(k.io, &timers[i].timer);
    while (fired < COUNT - COUNT / 10) {
        c->turn(k.io);
        fired = 0;
        for (int i = 0; i < COUNT; i++)
            fired += timers[i].fired;
    }
    for (int i = 0; i < COUNT; i++)
        cr_assert_eq(timers[i].fired, i % 10 != 5);
    kit_close(&k);
}

/* ---- the turn ---- */

struct order {
    struct kit *kit;
    uint32_t hooks, done_at_hook;
    struct kit_op *op;
    bool start_in_hook;
};

static void on_turn_end(void *arg)
{
    struct order *o = arg;

    o->hooks++;
    o->done_at_hook = o->op->done_count;
    if (o->start_in_hook) {
        o->start_in_hook = false;
        START(o->kit, io_file_size(o->kit->io, &o->op->op, "/"));
    }
}

void conform_turn_order(const struct conform *c)
{
    struct kit k;
    struct kit_op op;
    struct order o = {.kit = &k, .op = &op};
    uint32_t hooks;

    kit_open(&k, c, 0, 0);
    kit_op_init(&k, &op);
    io_on_turn_end(k.io, on_turn_end, &o);
    io_turn(k.io, false);
    cr_assert_eq(o.hooks, 1, "also after a turn in which nothing happened");
    START(&k, io_file_size(k.io, &op.op, c->dir));
    while (op.done_count == 0) {
        hooks = o.hooks;
        c->turn(k.io);
        cr_assert_eq(o.hooks, hooks + 1);
        cr_assert_eq(o.done_at_hook, op.done_count, "the hook comes after the completions");
    }
    o.start_in_hook = true;
    io_turn(k.io, false);
    cr_assert_eq(op.done_count, 1);
    cr_assert(io_op_running(&op.op));
    kit_wait(&op);
    cr_assert_eq(op.done_count, 2);
    kit_close(&k);
}

void conform_time_and_chance(const struct conform *c)
{
    static uint8_t large[100000];
    uint8_t a[32], b[32], zero[32] = {0};
    struct kit k;
    uint64_t last;
    bool seen[3] = {false};
    uint32_t counts[256] = {0};

    kit_open(&k, c, 0, 0);
    last = io_now_ns(k.io);
    cr_assert_gt(io_wall_ns(k.io), 1577836800 * NS_PER_S, "after 2019");
    for (int i = 0; i < 100; i++) {
        io_turn(k.io, false);
        cr_assert_geq(io_now_ns(k.io), last);
        last = io_now_ns(k.io);
    }
    for (int i = 0; i < 1000; i++) { /* over several blocks of what it keeps */
        io_random(k.io, a, sizeof a);
        io_random(k.io, b, sizeof b);
        cr_assert_neq(memcmp(a, b, sizeof a), 0);
        cr_assert_neq(memcmp(a, zero, sizeof a), 0);
        seen[io_chance(k.io, 3)] = true;
    }
    cr_assert(seen[0] && seen[1] && seen[2]);
    cr_assert_eq(io_chance(k.io, 1), 0);
    io_random(k.io, large, sizeof large);
    for (size_t i = 0; i < sizeof large; i++)
        counts[large[i]]++;
    for (int i = 0; i < 256; i++)
        cr_assert(counts[i] > 200 && counts[i] < 600, "%d: %u", i, counts[i]);
    kit_close(&k);
}

/* ---- owners ---- */

struct restless {
    struct io_op op;
    struct kit *kit;
    uint32_t rounds;
    bool *freed;
};

static void start_again(struct io_op *op, int32_t res, uint32_t flags)
{
    struct restless *r = container_of(op, struct restless, op);

    cr_assert_eq(r->kit->starting, 0);
    cr_assert_eq(flags, 0);
    cr_assert(res == 0 || res == -EBADF);
    if (r->rounds-- > 0) {
        if (r->rounds % 2) /* refused at once: still not from inside the call */
            START(r->kit, io_send(r->kit->io, op, -1, "x", 1, IO_END_NONE));
        else
            START(r->kit, io_file_size(r->kit->io, op, "/"));
        return;
    }
    *r->freed = true;
    free(r);
}

void conform_restart_in_done(const struct conform *c)
{
    struct restless *r = calloc(1, sizeof *r);
    struct kit k;
    bool freed = false;

    kit_open(&k, c, 0, 0);
    *r = (struct restless){.op = {.done = start_again}, .kit = &k, .rounds = 1000, .freed = &freed};
    START(&k, io_send(k.io, &r->op, -1, "x", 1, IO_END_NONE));
    KIT_UNTIL(&k, freed);
    kit_close(&k);
}

/* ---- messages ---- */

struct inbox {
    uint32_t count;
    uint64_t next[3]; /* of each sender */
};

static void on_message(void *arg, const struct ring_item *item)
{
    struct inbox *in = arg;

    cr_assert_lt(item->from, 3u);
    cr_assert_eq(item->kind, 42);
    cr_assert_eq(item->a, in->next[item->from]);
    cr_assert_eq(item->b, ~item->a);
    in->next[item->from]++;
    in->count++;
}

void conform_messages(const struct conform *c)
{
    struct io_group *group = io_group_create(3);
    struct inbox inbox[3] = {0};
    struct io *ios[3];
    struct ring_item item = {.kind = 42, .from = 77};
    uint64_t sent = 0;

    cr_assert_not_null(group);
    for (uint32_t i = 0; i < 3; i++) {
        struct io_params params = {.group = group, .peer = i, .fd_count_max = 8, .cpu = -1};
        ios[i] = c->create(&params);
        cr_assert_not_null(ios[i]);
        io_on_message(ios[i], on_message, &inbox[i]);
    }
    /* To one that does not turn: bounded, nothing lost, and told when it is full. */
    for (;; sent++) {
        item.a = sent;
        item.b = ~sent;
        if (!io_post(ios[0], 1, &item))
            break;
        cr_assert_lt(sent, 100000u);
    }
    cr_assert_gt(sent, 100u);
    for (uint64_t i = 0; i < 10; i++) {
        item.a = i;
        item.b = ~i;
        cr_assert(io_post(ios[2], 1, &item), "each sender has its own room");
        cr_assert(io_post(ios[2], 0, &item));
        cr_assert(io_post(ios[1], 1, &item), "to itself");
    }
    io_turn(ios[0], false);
    io_turn(ios[2], false);
    cr_assert_eq(inbox[0].count, 10);
    cr_assert_eq(inbox[1].count, 0);
    for (int turns = 0; inbox[1].count < sent + 20 && turns < 1000; turns++)
        c->turn(ios[1]); /* there are messages: must not sleep */
    cr_assert_eq(inbox[1].count, sent + 20);
    item.a = sent;
    item.b = ~sent;
    cr_assert(io_post(ios[0], 1, &item), "there is room again");
    io_turn(ios[0], false);
    c->turn(ios[1]);
    cr_assert_eq(inbox[1].count, sent + 21);
    for (int i = 0; i < 3; i++)
        c->destroy(ios[i]);
    io_group_destroy(group);
}

/* What is posted to a peer that has no io yet waits for it, and for its handler. */
void conform_messages_wait(const struct conform *c)
{
    struct io_group *group = io_group_create(3);
    struct io_params params = {.group = group, .peer = 2, .fd_count_max = 8, .cpu = -1};
    struct inbox inbox = {0};
    struct io *early, *late;
    struct ring_item item = {.kind = 42};

    cr_assert_not_null(group);
    early = c->create(&params);
    for (item.a = 0; item.a < 50; item.a++) {
        item.b = ~item.a;
        cr_assert(io_post(early, 1, &item));
    }
    io_turn(early, false);
    params.peer = 1;
    late = c->create(&params);
    io_turn(late, false); /* without a handler */
    io_on_message(late, on_message, &inbox);
    for (int turns = 0; inbox.count < 50 && turns < 100; turns++)
        c->turn(late);
    cr_assert_eq(inbox.count, 50u);
    cr_assert_eq(inbox.next[2], 50u);
    c->destroy(early);
    c->destroy(late);
    io_group_destroy(group);
}
