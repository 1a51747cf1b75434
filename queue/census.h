/*
 * queue/census.h - how many records of the old segments still speak of a message behind its MESSAGE
 * record: when none is left, nothing can contradict what is known of it. No I/O.
 */
#ifndef HIKYAKU_QUEUE_CENSUS_H
#define HIKYAKU_QUEUE_CENSUS_H

#include <stdbool.h>
#include <stdint.h>

struct census {
    uint64_t *qids; /* open addressing; 0: free */
    uint32_t *left;
    uint32_t slots, used; /* slots: a power of two, or 0 */
    bool lost;            /* no memory: nothing is known */
};

void census_free(struct census *c);
/* One more record speaks of it. */
void census_add(struct census *c, uint64_t qid);
/* One of them was replayed; the number of those to come. */
uint32_t census_take(struct census *c, uint64_t qid);
/* The number of those to come; when memory was short never 0. */
uint32_t census_left(const struct census *c, uint64_t qid);

#endif
