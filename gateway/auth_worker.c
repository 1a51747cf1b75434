/*
 * gateway/auth_worker.c - a thread that checks passwords, so that no shard ever computes one.
 *
 * Owns:     its thread's io.
 * Runs on:  its own thread.
 * Contract: every check that comes goes back to its shard, with its verdict.
 * Failure:  a shard whose ring is full gets its answer on a later turn.
 * Bounds:   checks wait in the rings (RING_ITEMS a shard): a full one is 454 4.7.0 at the shard.
 * Tests:    tests/system (auth)
 */
#include "gateway/auth_worker.h"

#include <stdlib.h>

#include "gateway/peers.h"

static void worker_message(void *arg, const struct ring_item *item)
{
    struct auth_worker *w = arg;
    if (item->kind == PEER_WORKER_STOP) {
        w->stop = true;
        return;
    }
    struct auth_check *check = item->ptr;
    struct ring_item back = {.kind = PEER_AUTH_DONE, .ptr = check};
    uint32_t shard = check->shard;
    auth_check_run(check);
    while (!io_post(w->io, shard, &back)) /* as many answers as questions fit: rare */
        sched_yield();
}

struct auth_worker *auth_worker_create(struct auth_worker_start *start)
{
    struct io_params p = {.group = start->group,
                          .peer = start->peer,
                          .queue_depth = 64,
                          .fd_count_max = 16,
                          .cpu = -1};
    struct auth_worker *w = calloc(1, sizeof *w);
    why_set(&start->failed, 451, "4.3.1", "out of memory");
    if (w && !(w->io = io_create(&p, &start->failed))) {
        free(w);
        w = NULL;
    }
    if (w)
        io_on_message(w->io, worker_message, w);
    return w;
}

void auth_worker_destroy(struct auth_worker *w)
{
    io_destroy(w->io);
    free(w);
}

void *auth_worker_thread(void *arg)
{
    struct auth_worker_start *start = arg;
    struct auth_worker *w = auth_worker_create(start);
    atomic_store(w ? &start->up : &start->dead, true);
    if (!w)
        return NULL;
    while (!w->stop)
        io_turn(w->io, true);
    auth_worker_destroy(w);
    return NULL;
}
