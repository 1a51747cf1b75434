/*
 * gateway/delivery_route.c - the recipients of a job, each to its site, together where they may be.
 *
 * Owns:     nothing; the groups lie in the job's arena.
 * Runs on:  the shard of the delivery.
 * Contract: every PENDING recipient is in a task of its site, or has its verdict; those of one site
 *           share tasks, as many as its connector takes in a message.
 * Failure:  no memory: deferred.
 * Bounds:   one step a recipient, however many sites there are.
 * Tests:    tests/system (next hops, mx), tests/sim
 */
#include "gateway/delivery.h"

#include "gateway/base/plant.h"

/* The recipients of a job by site, as chains through `next`, in the order of the envelope. */
struct groups {
    struct site **of; /* by recipient; NULL: routed nowhere */
    uint32_t *next;   /* by recipient: the next one for the same site + 1, 0: none */
    uint32_t *heads;  /* the first recipient of each group */
    uint32_t count;
};

static bool groups_alloc(struct job *j, struct groups *g)
{
    uint32_t n = j->env.rcpt_count;
    g->count = 0;
    g->of = arena_alloc_large(&j->arena, sizeof *g->of * n);
    g->next = arena_alloc_large(&j->arena, sizeof *g->next * n);
    g->heads = arena_alloc_large(&j->arena, sizeof *g->heads * n);
    return g->of && g->next && g->heads;
}

/* A site knows the last recipient of this pass that goes to it, so that nobody looks for one. */
static void groups_add(struct groups *g, struct site *s, uint32_t rcpt, uint64_t pass)
{
    g->of[rcpt] = s;
    g->next[rcpt] = 0;
    if (s->route_pass == pass)
        g->next[s->route_last] = rcpt + 1;
    else
        g->heads[g->count++] = rcpt;
    s->route_pass = pass;
    s->route_last = rcpt;
}

/* Queues the recipients of a group, as tasks of a size that the connector takes. */
static void job_route_group(struct job *j, const struct groups *g, uint32_t head)
{
    struct site *site = g->of[head];
    uint32_t max = site->send->conf->rcpts_per_message_max, count = 0;
    uint32_t batch[OUT_RCPTS_PER_MESSAGE_DEFAULT * 10];
    struct why why;
    if (max == 0 || max > sizeof batch / sizeof *batch)
        max = sizeof batch / sizeof *batch;
    for (uint32_t i = head + 1; i; i = g->next[i - 1]) {
        batch[count++] = i - 1;
        j->rcpts[i - 1].state = RCPT_IN_TASK;
        if (count < max && g->next[i - 1])
            continue;
        if ((PLANT(DELIVER_TWICE) && !site_enqueue(site, j, batch, count)) ||
            !site_enqueue(site, j, batch, count)) {
            why_set(&why, 451, "4.3.1", "Out of memory");
            for (uint32_t k = 0; k < count; k++)
                job_rcpt_done(j, batch[k], RCPT_DEFER, &why, NULL);
        }
        count = 0;
    }
}

void job_route(struct job *j)
{
    struct groups g;
    struct site *s;
    struct why why;
    uint64_t pass = ++j->delivery->route_pass;
    bool ok = groups_alloc(j, &g);
    j->routing = true; /* keeps tasks that end at once from finishing the job under our feet */
    if (!ok)
        why_set(&why, 451, "4.3.1", "Out of memory");
    for (uint32_t i = 0; i < j->env.rcpt_count; i++) {
        if (j->rcpts[i].state != RCPT_PENDING)
            continue;
        if (!ok)
            job_rcpt_done(j, i, RCPT_DEFER, &why, NULL);
        else if ((s = job_route_rcpt(j, i)))
            groups_add(&g, s, i, pass);
    }
    for (uint32_t i = 0; ok && i < g.count; i++)
        job_route_group(j, &g, g.heads[i]);
    j->routing = false;
    if (j->tasks_open == 0)
        job_finish(j);
}

/* ---- mail without a route ---- */

#define REROUTE_SLICE 1024u /* messages looked at a turn for those without a route */

/* A slice of the messages without a route are tried again; the rest with the next turn. */
static void delivery_reroute(struct timer *t)
{
    struct delivery *d = container_of(t, struct delivery, reroute);
    struct shard *sh = d->shard;
    for (uint32_t n = 0; n < REROUTE_SLICE && d->reroute_lane < sh->lane_count; n++) {
        struct lane *l = sh->lanes[d->reroute_lane];
        bool any = lane_stats(l)->by_state[QUEUE_UNREACHABLE] > 0;
        struct queue_msg *m = any ? lane_next(l, &d->reroute_cursor) : NULL;
        if (!m) {
            d->reroute_lane++;
            d->reroute_cursor = 0;
        } else if (m->state == QUEUE_UNREACHABLE && !m->owner) {
            lane_set_state(l, m, QUEUE_READY);
        }
    }
    if (d->reroute_lane < sh->lane_count)
        io_timer_set(sh->io, t, io_now_ns(sh->io));
}

void delivery_config_changed(struct delivery *d)
{
    d->reroute_lane = 0;
    d->reroute_cursor = 0;
    d->reroute.fire = delivery_reroute;
    io_timer_set(d->shard->io, &d->reroute, io_now_ns(d->shard->io));
    sites_config_changed(d);
}
