/*
 * gateway/handoff_text.h - the state of a message as it goes from one gateway to another: version,
 * retries and envelope (queue/envelope.h), as lines of base64. docs/handoff.md.
 */
#ifndef HIKYAKU_HANDOFF_TEXT_H
#define HIKYAKU_HANDOFF_TEXT_H

#include "queue/queue.h"

struct handoff_state {
    struct lane_arrival arrival;
    struct envelope env;
};

/* Bytes of it, and of `bytes` of it as text. */
size_t handoff_state_size(const struct handoff_state *h);
size_t handoff_text_size(size_t bytes);
bool handoff_state_encode(const struct handoff_state *h, struct buf *out)
    __attribute__((warn_unused_result));
bool handoff_text_encode(struct slice bytes, struct buf *text) __attribute__((warn_unused_result));

/* Trusts nothing; false: not what encode makes. Strings stay in `bytes`, recipients lie in `arena`.
 */
bool handoff_text_decode(struct slice text, struct buf *bytes) __attribute__((warn_unused_result));
bool handoff_state_decode(struct slice bytes, struct arena *arena, struct handoff_state *out)
    __attribute__((warn_unused_result));

#endif
