/*
 * gateway/auth_worker.h - threads that check passwords.
 */
#ifndef HIKYAKU_AUTH_WORKER_H
#define HIKYAKU_AUTH_WORKER_H

#include "gateway/io/io.h"

struct auth_worker_start {
    struct io_group *group;
    uint32_t peer;
    struct why failed;
};

/* Thread entry; `arg` is struct auth_worker_start, kept by the caller. Ends on PEER_WORKER_STOP. */
void *auth_worker_thread(void *arg);

#endif
