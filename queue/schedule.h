/*
 * queue/schedule.h - messages by the time of their next attempt: a binary heap that never scans.
 */
#ifndef HIKYAKU_QUEUE_SCHEDULE_H
#define HIKYAKU_QUEUE_SCHEDULE_H

#include "queue/pages.h"
#include "queue/queue.h"

struct schedule {
    struct pages heap;
    uint32_t count;
};

void schedule_destroy(struct schedule *s);
/* Room for one message more, taken before the message is promised anything. False: no memory. */
bool schedule_reserve(struct schedule *s, uint64_t message_count)
    __attribute__((warn_unused_result));
/* Puts the message at m->next_attempt_wall_s, or moves it there. There must be room. */
void schedule_set(struct schedule *s, struct queue_msg *m);
/* Takes it off; nothing happens when it is not on. */
void schedule_clear(struct schedule *s, struct queue_msg *m);
/* The earliest, or NULL. */
struct queue_msg *schedule_first(const struct schedule *s);
/* Takes off the earliest if it is due at `wall_s`, or gives NULL. */
struct queue_msg *schedule_pop(struct schedule *s, uint64_t wall_s);

#endif
