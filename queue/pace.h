/*
 * queue/pace.h - how much of large bodies goes into one commit.
 *
 * A message waits for the commit under way and for its own. Parts of bodies, for which nobody waits
 * yet, would make both as long as the buffers are large; too little of them at a time wastes the
 * disk on what each commit costs whatever is in it. So as many bytes of them go in as keep a commit
 * near COMMIT_AIM_NS, or near twice a small one's time where that is longer.
 */
#ifndef HIKYAKU_QUEUE_PACE_H
#define HIKYAKU_QUEUE_PACE_H

#include <stdint.h>

struct pace {
    uint64_t small_ns;   /* what a small commit takes, smoothed; 0: there was none */
    uint32_t extent_max; /* bytes of bodies in one commit */
};

void pace_init(struct pace *p);

/* A commit of `len` bytes, `extent_bytes` of them of bodies, was durable after `ns`. */
void pace_commit(struct pace *p, uint32_t len, uint32_t extent_bytes, uint64_t ns);

#endif
