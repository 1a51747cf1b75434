/*
 * gateway/handoff_job.h - what handoff.c and handoff_sweep.c share.
 */
#ifndef HIKYAKU_HANDOFF_JOB_H
#define HIKYAKU_HANDOFF_JOB_H

#include "gateway/delivery.h"

struct handoff {
    uint32_t connector; /* the peer's */
    bool sweep;         /* no message: asks the peer what it has prepared */
    uint32_t peer;      /* sweep: its place in handoff.peers */
    bool asked, clean;  /* sweep: NEXT, not ABORT, was said last; the peer said `none` */
    char id[HANDOFF_ID_MAX + 1];
    char to[INSTANCE_LEN + 1]; /* the peer's instance */
    char command[HANDOFF_ID_MAX + 64];
    struct slice text;
};

/* A peer said its name. */
void handoff_peer_is(struct delivery *d, uint32_t connector, const char *instance);
bool handoff_peer_is_up(struct delivery *d, uint32_t connector);
/* Bits. */
static inline uint64_t handoff_all_peers(const struct config *conf)
{
    uint32_t n = conf->handoff.peers.count;
    return n >= 64 ? UINT64_MAX : (1ull << n) - 1;
}

#endif
