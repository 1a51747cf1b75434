/*
 * gateway/tracking.h - the tracking log on disk: lines, packed files, their index. Written by
 * gateway/log_writer*.c, read by `hikyakuctl trace`.
 *
 *   PATH               being written: JSON lines, one event each, flat objects
 *   PATH-TIME          rotated, not packed yet
 *   PATH-TIME.gz       packed: a gzip member for each block of up to TRACKING_BLOCK_BYTES; zcat
 *                      and zgrep read it
 *   PATH-TIME.gz.idx   struct tracking_index, then for each block struct tracking_block and its
 *                      filter. A hint: without it the .gz is read whole.
 *
 * A filter says which values a block does not have (Bloom): of qid, about, origin, session, sender,
 * recipient, message_id, account and client. An index of another magic is not used.
 */
#ifndef HIKYAKU_TRACKING_H
#define HIKYAKU_TRACKING_H

#include "gateway/base/slice.h"
#include "gateway/base/why.h"

#define TRACKING_BLOCK_BYTES  (1u << 20)
#define TRACKING_FILTER_BYTES 16384u
#define TRACKING_MAGIC        "HIKYIDX2"
#define TRACKING_TIME_LEN     19u /* 2026-11-22T08:15:00 */

struct tracking_index {
    char magic[8];
    uint32_t block_count, filter_bytes;
};

struct tracking_block {
    uint64_t offset;        /* in the .gz */
    uint32_t packed, plain; /* bytes */
    char first[TRACKING_TIME_LEN + 1], last[TRACKING_TIME_LEN + 1];
};

/* Takes the next member of a line off it; the value without quotes, escapes as they are. False: no
 * more. */
bool tracking_member(struct slice *line, struct slice *key, struct slice *value);
/* Is this member in the filters? */
bool tracking_is_indexed(struct slice key);
/* Of a value (escaped as in the line), without regard to ASCII case. qid and about are alike. */
uint64_t tracking_hash(struct slice key, struct slice value);
void tracking_filter_add(uint8_t filter[TRACKING_FILTER_BYTES], uint64_t hash);
bool tracking_filter_has(const uint8_t filter[TRACKING_FILTER_BYTES], uint64_t hash);

/* Packs PATH-TIME into PATH-TIME.gz and, where asked for, its index, then removes it. Blocks. */
bool tracking_pack(const char *path, bool indexed, struct why *why)
    __attribute__((warn_unused_result));

#endif
