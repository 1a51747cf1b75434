/*
 * tests/unit/segment_image.c - segments made byte by byte, for the tables of queue/FORMAT.md.
 */
#include "tests/unit/segment_image.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/limits.h"

void image_begin(struct image *im, uint32_t id)
{
    *im = (struct image){.bytes = calloc(1, IMAGE_BYTES),
                         .at = SEGMENT_BLOCK,
                         .batch = 1,
                         .entries = calloc(1, MIB),
                         .header = {.id = id,
                                    .salt = 0x1234567800000000ull + id,
                                    .segment_bytes = IMAGE_BYTES,
                                    .qid_limit = id * QID_BLOCK}};
    im->seed = segment_seed(im->header.salt, id, 0);
    segment_header_encode(&im->header, im->bytes);
}

void image_free(struct image *im)
{
    free(im->bytes);
    free(im->entries);
}

uint32_t image_record(struct image *im, uint8_t type, uint64_t qid, const void *payload,
                      uint32_t len)
{
    struct record_header h = {.type = type,
                              .batch = im->batch,
                              .sequence = (uint64_t)im->header.id << 32 | im->index++,
                              .qid = qid};
    struct record_digest d;
    uint32_t offset = im->at;
    uint8_t *at = im->bytes + offset;

    memcpy(at + RECORD_HEADER_SIZE, payload, len);
    record_seal(at, len, &h, im->seed, offset);
    memcpy(&h, at, sizeof h);
    im->at += h.length;
    if (record_digest_of(&h, slice_of(at + RECORD_HEADER_SIZE, h.length - RECORD_HEADER_SIZE),
                         offset, &d) &&
        summary_entry_size(&d)) {
        summary_entry_encode(im->entries + im->entries_len, &d);
        im->entries_len += summary_entry_size(&d);
    }
    return offset;
}

uint32_t image_message(struct image *im, const struct image_message *m)
{
    struct envelope_rcpt rcpts[200];
    struct envelope env = {
        .sender = SLICE_LIT("s@example.com"), .rcpts = rcpts, .rcpt_count = m->rcpt_count};
    struct record_message head = {.body_size = m->body.len,
                                  .accepted_wall_s = 1700000000,
                                  .rcpt_count = m->rcpt_count,
                                  .chunk = SPOOL_CHUNK_SIZE,
                                  .tail_len = (uint32_t)m->body.len,
                                  .first_segment =
                                      m->first_segment ? m->first_segment : im->header.id,
                                  .final_len = m->final_len,
                                  .state_len = m->state_len};
    uint8_t payload[64 * 1024];
    struct buf b = buf_over(payload, sizeof payload);

    cr_assert_leq(m->rcpt_count, 200);
    for (uint32_t i = 0; i < m->rcpt_count; i++)
        rcpts[i] = (struct envelope_rcpt){.mailbox = SLICE_LIT("r@example.org")};
    head.envelope_len = (uint32_t)envelope_encoded_size(&env);
    cr_assert(buf_add(&b, &head, sizeof head) && buf_add(&b, m->final_block, m->final_len) &&
              buf_add(&b, m->state_block, m->state_len) && envelope_encode(&env, &b) &&
              buf_add_slice(&b, m->body));
    return image_record(im, m->state_len ? RECORD_MOVED : RECORD_MESSAGE, m->qid, payload, b.len);
}

uint32_t image_plain(struct image *im, uint64_t qid)
{
    uint8_t body[100];

    memset(body, (int)qid, sizeof body);
    return image_message(im, &(struct image_message){
                                 .qid = qid, .rcpt_count = 1, .body = slice_of(body, sizeof body)});
}

uint32_t image_state_block(uint8_t *out, uint64_t qid, uint32_t rcpt_count, uint64_t final_bits,
                           uint8_t state, uint64_t next_attempt_wall_s)
{
    bool gone = (uint32_t)__builtin_popcountll(final_bits) == rcpt_count;
    struct record_state s = {.qid = qid,
                             .next_attempt_wall_s = next_attempt_wall_s,
                             .rcpt_count = rcpt_count,
                             .final_words = gone ? 0 : 1,
                             .attempts = 4,
                             .state = state,
                             .gone = gone};

    return record_state_encode(out, &s, &final_bits, slice_of(NULL, 0));
}

uint32_t image_state(struct image *im, uint8_t type, uint64_t qid, uint32_t rcpt_count,
                     uint64_t final_bits, uint8_t state, uint64_t next_attempt_wall_s)
{
    uint8_t block[256];
    uint32_t len =
        image_state_block(block, qid, rcpt_count, final_bits, state, next_attempt_wall_s);

    return image_record(im, type, qid, block, len);
}

uint32_t image_tombstone(struct image *im, uint64_t qid)
{
    return image_state(im, RECORD_RCPT_FINAL, qid, 1, 1, 0, 0);
}

uint32_t image_seal(struct image *im, bool footer)
{
    uint32_t end = im->at, count = im->index, at = IMAGE_BYTES - SEGMENT_BLOCK;
    struct segment_footer f = {.summary_offset = end,
                               .summary_count = im->entries_len ? 1 : 0,
                               .data_end = end,
                               .record_count = count};

    if (im->entries_len)
        image_record(im, RECORD_SUMMARY, 0, im->entries, im->entries_len);
    if (footer)
        segment_footer_encode(&f, im->seed, at, im->bytes + at);
    return end;
}

void image_write(const struct image *im, const char *spool, uint32_t name, const char *suffix)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof path, "%s/lane-00", spool);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/lane-00/%08x.%s", spool, name, suffix);
    file = fopen(path, "w");
    cr_assert_not_null(file);
    /* Sparse, but for what there is. */
    cr_assert_eq(fwrite(im->bytes, 1, im->at, file), im->at);
    cr_assert_eq(fseek(file, IMAGE_BYTES - SEGMENT_BLOCK, SEEK_SET), 0);
    cr_assert_eq(fwrite(im->bytes + IMAGE_BYTES - SEGMENT_BLOCK, 1, SEGMENT_BLOCK, file),
                 SEGMENT_BLOCK);
    cr_assert_eq(fclose(file), 0);
}
