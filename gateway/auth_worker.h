/*
 * gateway/auth_worker.h - threads that check passwords.
 */
#ifndef HIKYAKU_AUTH_WORKER_H
#define HIKYAKU_AUTH_WORKER_H

#include <stdatomic.h>

#include "gateway/io/io.h"

struct auth_worker_start {
    struct io_group *group;
    uint32_t peer;
    atomic_bool up, dead; /* dead: `failed` says why */
    struct why failed;
};

/* Thread entry; `arg` is struct auth_worker_start, kept by the caller. Ends on PEER_WORKER_STOP. */
void *auth_worker_thread(void *arg);

/*
 * The parts of it, for a thread that turns several peers: create, io_turn(w->io) until w->stop,
 * destroy. NULL: start->failed says why.
 */
struct auth_worker {
    struct io *io;
    bool stop;
};
struct auth_worker *auth_worker_create(struct auth_worker_start *start);
void auth_worker_destroy(struct auth_worker *w);

#endif
