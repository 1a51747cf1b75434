/*
 * gateway/io/uring_group.c - the io_uring backend: messages between the threads of one process.
 *
 * Owns:     one bounded ring for each ordered pair of peers; for each peer the bits of the senders
 *           that posted.
 * Runs on:  any peer's thread for io_post; a peer's own thread for the rest.
 * Contract: items of one sender arrive in order. A sender sets its bit after its push; a receiver
 *           says that it may sleep before it looks at the bits (all sequentially consistent): so
 *           one of the two always sees the other, and a sleeper is woken. A wake-up (MSG_RING) is
 *           sent only to who may sleep, with the sender's next submission.
 * Failure:  a full ring: false, the caller keeps its item.
 * Bounds:   RING_ITEMS a pair; a turn takes at most DELIVER_MAX of one sender.
 * Tests:    tests/unit/test_uring.c (also under ThreadSanitizer)
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "gateway/io/uring_internal.h"
#include "gateway/limits.h"

#define WORD_BITS   64u
#define WORDS       4u   /* 256 peers */
#define DELIVER_MAX 512u /* items of one sender in a turn */

struct group_peer {
    _Alignas(64) _Atomic uint64_t posted[WORDS]; /* a bit for each sender */
    atomic_bool may_sleep;
    atomic_int ring_fd; /* -1: no io yet, or none any more */
};

struct io_group {
    uint32_t peer_count;
    struct group_peer *peers;
    struct ring_msg **rings; /* [from * peer_count + to] */
};

static struct ring_msg *ring_of(const struct io_group *g, uint32_t from, uint32_t to)
{
    return g->rings[from * g->peer_count + to];
}

struct io_group *io_group_create(uint32_t peer_count)
{
    struct io_group *g = calloc(1, sizeof *g);

    assert(peer_count > 0 && peer_count <= WORDS * WORD_BITS);
    if (!g)
        return NULL;
    g->peer_count = peer_count;
    g->rings = calloc((size_t)peer_count * peer_count, sizeof(struct ring_msg *));
    g->peers = aligned_alloc(64, peer_count * sizeof *g->peers);
    if (!g->rings || !g->peers) {
        io_group_destroy(g);
        return NULL;
    }
    for (uint32_t i = 0; i < peer_count; i++) {
        for (uint32_t w = 0; w < WORDS; w++)
            atomic_init(&g->peers[i].posted[w], 0);
        atomic_init(&g->peers[i].may_sleep, false);
        atomic_init(&g->peers[i].ring_fd, -1);
    }
    for (uint32_t i = 0; i < peer_count * peer_count; i++) {
        g->rings[i] = ring_msg_create(RING_ITEMS);
        if (!g->rings[i]) {
            io_group_destroy(g);
            return NULL;
        }
    }
    return g;
}

void io_group_destroy(struct io_group *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; g->rings && i < g->peer_count * g->peer_count; i++)
        ring_msg_destroy(g->rings[i]);
    free(g->rings);
    free(g->peers);
    free(g);
}

void uring_group_join(struct io *io)
{
    if (!io->group)
        return;
    assert(io->peer < io->group->peer_count);
    atomic_store(&io->group->peers[io->peer].ring_fd, io->ring.ring_fd);
}

void uring_group_leave(struct io *io)
{
    if (!io->group)
        return;
    atomic_store(&io->group->peers[io->peer].may_sleep, false);
    atomic_store(&io->group->peers[io->peer].ring_fd, -1);
}

bool uring_group_sleep(struct io *io)
{
    struct group_peer *me = &io->group->peers[io->peer];

    atomic_store(&me->may_sleep, true);
    for (uint32_t w = 0; w < WORDS; w++)
        if (atomic_load(&me->posted[w]) != 0 && io->handler)
            return false;
    return true;
}

void uring_group_awake(struct io *io)
{
    struct group_peer *me = &io->group->peers[io->peer];

    if (atomic_load_explicit(&me->may_sleep, memory_order_relaxed))
        atomic_store(&me->may_sleep, false);
}

/* Takes what one sender posted; the bound keeps a fast sender from holding the turn. */
static void deliver_from(struct io *io, uint32_t from)
{
    struct ring_msg *ring = ring_of(io->group, from, io->peer);
    struct ring_item item;

    for (uint32_t n = 0; n < DELIVER_MAX; n++) {
        if (!ring_msg_pop(ring, &item))
            return;
        assert(item.from == from);
        io->handler(io->handler_arg, &item);
    }
    atomic_fetch_or(&io->group->peers[io->peer].posted[from / WORD_BITS],
                    1ull << (from % WORD_BITS));
}

void uring_group_deliver(struct io *io)
{
    struct group_peer *me = &io->group->peers[io->peer];

    if (!io->handler)
        return;
    for (uint32_t w = 0; w < WORDS; w++) {
        uint64_t bits;
        if (atomic_load_explicit(&me->posted[w], memory_order_relaxed) == 0)
            continue;
        bits = atomic_exchange(&me->posted[w], 0);
        while (bits) {
            uint32_t bit = (uint32_t)__builtin_ctzll(bits);
            bits &= bits - 1;
            deliver_from(io, w * WORD_BITS + bit);
        }
    }
}

void io_on_message(struct io *io, void (*handler)(void *arg, const struct ring_item *item),
                   void *arg)
{
    io->handler = handler;
    io->handler_arg = arg;
}

static void wake(struct io *io, int ring_fd)
{
    struct io_uring_sqe *sqe = uring_sqe(io);

    io_uring_prep_msg_ring(sqe, ring_fd, 0, URING_IGNORE, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    uring_tag(sqe, NULL, URING_IGNORE);
}

bool io_post(struct io *io, uint32_t to, const struct ring_item *item)
{
    struct ring_item copy = *item;
    struct group_peer *peer;

    assert(io->group && to < io->group->peer_count);
    peer = &io->group->peers[to];
    copy.from = io->peer;
    if (!ring_msg_push(ring_of(io->group, io->peer, to), &copy))
        return false;
    atomic_fetch_or(&peer->posted[io->peer / WORD_BITS], 1ull << (io->peer % WORD_BITS));
    if (atomic_load(&peer->may_sleep) && atomic_exchange(&peer->may_sleep, false)) {
        int ring_fd = atomic_load(&peer->ring_fd);
        if (ring_fd >= 0)
            wake(io, ring_fd);
    }
    return true;
}
