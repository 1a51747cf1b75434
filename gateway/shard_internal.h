/*
 * gateway/shard_internal.h - what the files that make up a shard share: shard.c (life, loop,
 * reload, drain), shard_listen.c, shard_lanes.c, shard_pressure.c.
 */
#ifndef HIKYAKU_SHARD_INTERNAL_H
#define HIKYAKU_SHARD_INTERNAL_H

#include "gateway/shard.h"

/* ---- shard.c ---- */

/* Tells the control thread that something was done (`ok`), or why not. */
void shard_tell(struct shard *s, uint32_t kind, uint64_t a, bool ok, const struct why *why);
/* A listener is gone: the reload that dropped it may be over. */
void shard_config_adopted(struct shard *s);

/* ---- shard_listen.c ---- */

/* Binds what `c` wants and `have` lacks, into `made`, not accepting. False: `why`. */
bool shard_listeners_bind(struct shard *s, const struct shard_config *c, struct list *have,
                          struct list *made, struct why *why) __attribute__((warn_unused_result));
/* Closes listeners that never accepted. */
void shard_listeners_discard(struct shard *s, struct list *made);
/* They accept from now on. */
void shard_listeners_start(struct shard *s, struct list *made);
/* Ends every listener that `c` does not want (NULL: all). */
void shard_listeners_stop(struct shard *s, const struct shard_config *c);

/* ---- shard_lanes.c ---- */

/* Opens the shard's own lane and adopts others by number; they tell when they are open. */
bool shard_lanes_open(struct shard *s, struct why *why) __attribute__((warn_unused_result));

/* ---- shard_pressure.c ---- */

/* Once a second: the gauges among the metrics; the levels of back pressure. */
void shard_gauges(struct shard *s);
void shard_pressure(struct shard *s);
/* Says so when memory for TLS gets short. */
void shard_tls_trouble(struct shard *s);

#endif
