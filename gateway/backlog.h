/*
 * gateway/backlog.h - queue ids that wait for a delivery job: a first-in first-out that grows as
 * needed.
 *
 * Ids, not pointers: a message that was removed meanwhile is simply not found.
 */
#ifndef HIKYAKU_BACKLOG_H
#define HIKYAKU_BACKLOG_H

#include <stdbool.h>
#include <stdint.h>

struct backlog;

struct backlog *backlog_create(void);
void backlog_destroy(struct backlog *b);
/* False: no memory. */
bool backlog_push(struct backlog *b, uint64_t qid) __attribute__((warn_unused_result));
bool backlog_pop(struct backlog *b, uint64_t *qid) __attribute__((warn_unused_result));
bool backlog_empty(const struct backlog *b);

#endif
