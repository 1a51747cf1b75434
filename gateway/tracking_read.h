/*
 * gateway/tracking_read.h - the tracking log as blocks of lines, oldest first; those that an index
 * rules out are not read.
 */
#ifndef HIKYAKU_TRACKING_READ_H
#define HIKYAKU_TRACKING_READ_H

#include <stdbool.h>

#include "gateway/tracking.h"

/* What a block must have to be of interest. */
struct tracking_want {
    const uint64_t *hashes; /* one of these; NULL: anything */
    uint32_t hash_count;
    char from[TRACKING_TIME_LEN + 1], until[TRACKING_TIME_LEN + 1]; /* "": open */
};

/* Calls `each` with whole lines until it returns false. False: `why`. */
bool tracking_read(const char *path, const struct tracking_want *want,
                   bool (*each)(void *arg, struct slice lines), void *arg, struct why *why);

#endif
