/*
 * gateway/prepared.h - composition: messages that other gateways hand over to this shard, by the id
 * under which they do, until they say that they are ours. docs/handoff.md. Included by the files of
 * gateway/ only.
 */
#ifndef HIKYAKU_PREPARED_H
#define HIKYAKU_PREPARED_H

#include "gateway/shard.h"

struct prepared;

struct prepared *prepared_create(struct shard *s);
void prepared_destroy(struct prepared *p);
/* Recovery found one; its id is read. */
void prepared_found(struct prepared *p, struct lane *l, struct queue_msg *m);
/* All that an earlier life prepared is known. */
bool prepared_is_ready(const struct prepared *p);

/* An offer begins: those of the same id before it, if they are still on their way, come to nothing.
 * 0: too many, or no memory. */
uint64_t prepared_offer(struct prepared *p, struct slice id) __attribute__((warn_unused_result));
/* It is durable, and takes the place of an older one, which is removed. False: a newer offer came
 * meanwhile, this one is removed. */
bool prepared_done(struct prepared *p, const struct envelope *env, uint64_t offer, struct lane *l,
                   struct queue_msg *m) __attribute__((warn_unused_result));
/* It came to nothing. */
void prepared_failed(struct prepared *p, struct slice id, uint64_t offer);
/* Takes it off the table; `state`: what it is to become. NULL: not known (any more). */
struct queue_msg *prepared_take(struct prepared *p, struct slice id, struct lane **l,
                                enum queue_state *state);
/* The first id of that instance behind `after`, in the order of bytes. False: none. */
bool prepared_next(const struct prepared *p, struct slice instance, struct slice after,
                   char id[HANDOFF_ID_MAX + 1]) __attribute__((warn_unused_result));
void prepared_remove(struct lane *l, struct queue_msg *m);

#endif
