/*
 * tests/sim/sim_group.c - the simulated backend: messages between the threads of one process.
 *
 * Owns:     one bounded ring for each ordered pair of peers.
 * Runs on:  the one thread of the simulation.
 * Contract: items of one sender arrive in order. The rings are small, so that they run full.
 * Failure:  a full ring, or one said to be: false, the caller keeps its item.
 * Bounds:   RING_COUNT a pair; a turn takes at most DELIVER_MAX of one sender.
 * Tests:    tests/sim/test_io_sim.c
 */
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

#define RING_COUNT  256u
#define DELIVER_MAX 64u

struct group_peer {
    struct io *io;
    uint32_t waiting; /* items for it */
};

struct io_group {
    uint32_t peer_count;
    struct group_peer *peers;
    struct ring_msg **rings; /* [from * peer_count + to], made when used */
};

struct io_group *io_group_create(uint32_t peer_count)
{
    struct io_group *g = calloc(1, sizeof *g);

    SIM_CHECK(g, "no memory");
    g->peer_count = peer_count;
    g->peers = calloc(peer_count, sizeof *g->peers);
    g->rings = calloc((size_t)peer_count * peer_count, sizeof(struct ring_msg *));
    SIM_CHECK(g->peers && g->rings, "no memory");
    return g;
}

void io_group_destroy(struct io_group *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; i < g->peer_count * g->peer_count; i++)
        if (g->rings[i])
            ring_msg_destroy(g->rings[i]);
    free(g->rings);
    free(g->peers);
    free(g);
}

void sim_group_join(struct io *io)
{
    if (!io->group)
        return;
    SIM_CHECK(io->peer < io->group->peer_count && !io->group->peers[io->peer].io,
              "io_create: peer %u is no place in the group, or taken", io->peer);
    io->group->peers[io->peer].io = io;
}

void sim_group_leave(struct io *io)
{
    if (io->group)
        io->group->peers[io->peer].io = NULL;
}

bool sim_group_has(const struct io *io)
{
    return io->group && io->handler && io->group->peers[io->peer].waiting > 0;
}

void io_on_message(struct io *io, void (*handler)(void *arg, const struct ring_item *item),
                   void *arg)
{
    io->handler = handler;
    io->handler_arg = arg;
    if (sim_group_has(io))
        sim_io_wake(io);
}

void sim_group_deliver(struct io *io)
{
    struct io_group *g = io->group;
    uint32_t start;

    if (!sim_group_has(io))
        return;
    start = (uint32_t)sim_below(&io->sim->prng, g->peer_count);
    for (uint32_t i = 0; i < g->peer_count; i++) {
        uint32_t from = (start + i) % g->peer_count;
        struct ring_msg *ring = g->rings[from * g->peer_count + io->peer];
        struct ring_item item;
        for (uint32_t n = 0; ring && n < DELIVER_MAX && ring_msg_pop(ring, &item); n++) {
            g->peers[io->peer].waiting--;
            sim_note(io->sim, io->host, "message", item.kind, item.from);
            io->handler(io->handler_arg, &item);
        }
    }
}

bool io_post(struct io *io, uint32_t to, const struct ring_item *item)
{
    struct io_group *g = io->group;
    struct sim_site *site = sim_site_of(io->host, SIM_POST, __builtin_return_address(0));
    bool asked = sim_site_asked(io->host, site);
    struct ring_item copy = *item;
    struct ring_msg **ring;

    SIM_CHECK(g && to < g->peer_count, "io_post: no such peer");
    ring = &g->rings[io->peer * g->peer_count + to];
    copy.from = io->peer;
    if (!*ring)
        *ring = ring_msg_create(RING_COUNT);
    SIM_CHECK(*ring, "no memory");
    if (asked || sim_fail_due(io->host, SIM_POST) != SIM_OK ||
        sim_chance(io->host, io->host->faults.post_full) || !ring_msg_push(*ring, &copy)) {
        sim_count(site, SIM_NO_BUF);
        return false;
    }
    sim_count(site, SIM_OK);
    g->peers[to].waiting++;
    if (g->peers[to].io)
        sim_io_wake(g->peers[to].io);
    return true;
}
