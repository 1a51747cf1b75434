/*
 * tests/unit/segment_image.h - segments made byte by byte, for the tables of queue/FORMAT.md.
 */
#ifndef HIKYAKU_TESTS_SEGMENT_IMAGE_H
#define HIKYAKU_TESTS_SEGMENT_IMAGE_H

#include "queue/envelope.h"
#include "queue/record.h"

#define IMAGE_BYTES ((uint32_t)(8 * MIB))

struct image {
    uint8_t *bytes; /* IMAGE_BYTES */
    struct segment_header header;
    uint32_t seed, at, index;
    uint16_t batch;
    /* for the summary */
    uint8_t *entries;
    uint32_t entries_len;
};

struct image_message {
    uint64_t qid;
    uint32_t rcpt_count;
    uint32_t first_segment; /* 0: this one */
    struct slice body;
    const uint8_t *final_block, *state_block;
    uint32_t final_len, state_len;
};

/* Header of segment `id` of lane 0; no records. */
void image_begin(struct image *im, uint32_t id);
void image_free(struct image *im);
/* Any record; returns its offset. */
uint32_t image_record(struct image *im, uint8_t type, uint64_t qid, const void *payload,
                      uint32_t len);
/* MESSAGE, or MOVED when state_block is set. */
uint32_t image_message(struct image *im, const struct image_message *m);
/* A plain message with one recipient and a body of 100 bytes. */
uint32_t image_plain(struct image *im, uint64_t qid);
/* A state block: of `rcpt_count` recipients these are final (bits); all final: gone. */
uint32_t image_state_block(uint8_t *out, uint64_t qid, uint32_t rcpt_count, uint64_t final_bits,
                           uint8_t state, uint64_t next_attempt_wall_s);
uint32_t image_state(struct image *im, uint8_t type, uint64_t qid, uint32_t rcpt_count,
                     uint64_t final_bits, uint8_t state, uint64_t next_attempt_wall_s);
uint32_t image_tombstone(struct image *im, uint64_t qid);
/* SUMMARY and, if wanted, footer. Returns the summary's offset. */
uint32_t image_seal(struct image *im, bool footer);
/* spool/lane-00/SSSSSSSS.suffix */
void image_write(const struct image *im, const char *spool, uint32_t name, const char *suffix);

#endif
