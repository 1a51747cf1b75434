/*
 * gateway/ctl/trace.h - hikyakuctl trace: what became of messages, from the tracking log.
 */
#ifndef HIKYAKU_CTL_TRACE_H
#define HIKYAKU_CTL_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#define TRACE_TERMS_MAX    16u
#define TRACE_MESSAGES_MAX 10000u /* found in one call; more: the oldest ones, and it is said */

/*
 * `path`: the tracking file; packed ones beside it are read too. `expr`: field op value joined by
 * `and`; fields are the keys of the log's lines. Prints the messages of which every term holds for
 * a line, at most `limit`, whole. Returns the exit status.
 */
int trace_run(const char *path, const char *expr, uint32_t limit, bool json);

#endif
