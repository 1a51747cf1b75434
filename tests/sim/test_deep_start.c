/*
 * A start with a deep queue, all of it due: the first message is in a connection's hands while most
 * of the others are still on disk only. Counted in envelopes, so that no clock decides.
 */
#include <criterion/criterion.h>

#include "gateway/delivery.h"
#include "gateway/limits.h"
#include "queue/lane_internal.h"
#include "tests/sim/world.h"

#define DEEP 4000u

struct fill {
    struct fill_tx {
        struct lane_tx tx;
        struct fill *fill;
    } txs[DEEP];
    struct lane *lane;
    uint32_t durable;
    bool opened;
};

static void fill_opened(void *arg, struct lane *l, const struct why *why)
{
    struct fill *f = arg;
    (void)l;
    cr_assert(why->smtp_code == 0, "%s", why->text);
    f->opened = true;
}

static void fill_done(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    cr_assert(m, "%s", why->text);
    ((struct fill_tx *)tx)->fill->durable++;
}

static void fill_turn_end(void *arg)
{
    lane_turn_end(((struct fill *)arg)->lane);
}

static void fill_one(struct fill *f, struct fill_tx *t)
{
    struct envelope_rcpt to = {.mailbox = SLICE_LIT("you@d1.test")};
    struct envelope env = {.rcpt_count = 1, .rcpts = &to, .sender = SLICE_LIT("me@sender.test")};
    struct why why;

    t->tx.done = fill_done;
    t->fill = f;
    cr_assert(lane_tx_begin(f->lane, &t->tx, &why), "%s", why.text);
    cr_assert_eq(lane_tx_append(&t->tx, SLICE_LIT("Subject: x\r\n\r\nbody\r\n")), LANE_APPEND_OK);
    lane_tx_commit(&t->tx, &env, NULL, NULL, 0);
}

/* A process that took DEEP messages, delivered none, and was killed. */
static void fill(struct world *w, struct fill *f)
{
    struct io_params p = {.fd_count_max = 64, .cpu = -1};
    struct why why;

    sim_host_enter(w->gateway.host);
    struct io *io = io_create(&p, &why);
    cr_assert(io, "%s", why.text);
    struct lane_params lp = {.io = io,
                             .spool = "/spool",
                             .segment_bytes = w->swarm.segment_bytes,
                             .mode = LANE_WRITE_DIRECT,
                             .arg = f,
                             .opened = fill_opened};
    f->lane = lane_open(&lp);
    cr_assert(f->lane);
    io_on_turn_end(io, fill_turn_end, f);
    while (!f->opened)
        cr_assert(sim_step(w->sim));
    for (uint32_t i = 0; i < DEEP; i++) {
        fill_one(f, &f->txs[i]);
        if (i % 100 == 99)
            lane_turn_end(f->lane);
        while (i % 100 == 99 && f->durable <= i)
            cr_assert(sim_step(w->sim));
    }
    sim_host_kill(w->gateway.host);
}

static void make(struct world *w)
{
    w->swarm = (struct swarm){.shards = 1,
                              .hosts = 1,
                              .segment_bytes = SEGMENT_BYTES_MIN,
                              .max_connections = 5,
                              .messages_per_connection = 100,
                              .rcpts_per_message = 10,
                              .max_recipients = 10,
                              .message_size_max = MIB,
                              .expire_s = 3600};
    prng_seed(&w->hops, 1);
    prng_seed(&w->names, 2);
    prng_seed(&w->chaos, 3);
    w->sim = sim_create(1);
    list_init(&w->client_list);
    list_init(&w->hop_list);
    dns_sim_world(w);
    w->gateway.w = w;
    w->gateway.host = sim_host_add(w->sim, "gateway", "10.0.0.1");
    machine_start(w, &w->hop_machines[0], "h0", "10.0.2.1");
    nexthop_start(w, &w->hop_machines[0]);
    sim_host_disk_put(w->gateway.host, "/spool/README", "", 0);
}

static bool sending(const struct delivery *d)
{
    for (const struct list *p = d->sites.next; p != &d->sites; p = p->next) {
        const struct site *s = container_of(p, struct site, link);
        for (const struct list *q = s->hops.next; q != &s->hops; q = q->next)
            if (container_of(q, struct hop, link)->task)
                return true;
    }
    return false;
}

/* Envelopes, what compaction copies, and a body for each connection. */
static uint32_t reads_max(const struct delivery *d)
{
    return ENVELOPE_READS_MAX + COMPACT_SLOTS + d->hop_count;
}

Test(deep_start, the_first_is_sent_while_the_rest_is_read, .timeout = 120)
{
    struct world *w = calloc(1, sizeof *w);
    struct fill *f = calloc(1, sizeof *f);

    make(w);
    fill(w, f);
    cr_assert(gateway_start(w, 1));
    const struct delivery *d = w->gateway.shards[0]->delivery;
    const struct lane *l = w->gateway.shards[0]->lanes[0];
    while (!sending(d)) {
        cr_assert(sim_step(w->sim));
        cr_assert_leq(l->reads_running, reads_max(d));
    }
    cr_assert_lt(d->job_count, DEEP / 2, "%u of %u envelopes were read first", d->job_count, DEEP);

    /* And none of them is forgotten: all get their turn although nobody takes them. */
    sim_host_net(w->hop_machines[0].host, false);
    while (d->job_count < DEEP || d->read_count) {
        cr_assert(sim_step(w->sim));
        cr_assert_leq(l->reads_running, reads_max(d));
    }
    sim_destroy(w->sim);
    free(f);
    free(w);
}
