/*
 * gateway/tracking_find.h - what became of messages, from the tracking log: `hikyakuctl trace` and
 * /api/v1/trace.
 */
#ifndef HIKYAKU_TRACKING_FIND_H
#define HIKYAKU_TRACKING_FIND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "gateway/base/why.h"

#define TRACKING_TERMS_MAX 16u
#define TRACKING_FOUND_MAX 10000u /* in one search; more: the oldest ones, and it is said */

struct tracking_search {
    const char *path; /* the tracking file; packed ones beside it are read too */
    const char *expr; /* field op value joined by `and`; fields are the keys of the log's lines */
    uint32_t limit;   /* messages written */
    bool json;
    const atomic_bool *stop; /* gives up when it becomes true; NULL: never */
};

enum tracking_found {
    TRACKING_FOUND, /* written, were it none */
    TRACKING_WRONG, /* the expression; `why` says what is taken */
    TRACKING_FAILED /* `why` names the file, or it was told to stop */
};

/*
 * Writes the messages of which every term holds for a line, whole, to `out`: as text for people, or
 * as one JSON object. It reads files and takes its time: never on a shard.
 */
enum tracking_found tracking_find(const struct tracking_search *search, FILE *out, struct why *why);

#endif
