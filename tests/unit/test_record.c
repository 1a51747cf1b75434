/*
 * tests/unit/test_record.c - every flipped byte and every cut of a record, header or footer is
 * seen.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/unit/segment_image.h"

#define SEED   0x12345678u
#define OFFSET 8192u

/* A record over an exact allocation, so that a sanitizer sees a read too far. */
static uint8_t *make(uint32_t payload_len, uint32_t *length)
{
    struct record_header h = {.type = RECORD_NOTE, .batch = 7, .sequence = 5ull << 32, .qid = 9};
    uint8_t *r = malloc(record_round(RECORD_HEADER_SIZE + payload_len));

    for (uint32_t i = 0; i < payload_len; i++)
        r[RECORD_HEADER_SIZE + i] = (uint8_t)(i * 7);
    record_seal(r, payload_len, &h, SEED, OFFSET);
    *length = record_round(RECORD_HEADER_SIZE + payload_len);
    return r;
}

Test(record, good_at_its_place_only)
{
    struct record_header h;
    uint32_t len;
    uint8_t *r = make(100, &len);
    struct slice s = slice_of(r, len);

    cr_assert_eq(record_check(s, SEED, OFFSET, IMAGE_BYTES, &h), RECORD_GOOD);
    cr_assert(h.length == len && h.type == RECORD_NOTE && h.batch == 7 && h.qid == 9 &&
              h.sequence == 5ull << 32);
    cr_assert_eq(record_check(s, SEED + 1, OFFSET, IMAGE_BYTES, &h), RECORD_BAD_HEADER);
    cr_assert_eq(record_check(s, SEED, OFFSET + 16, IMAGE_BYTES, &h), RECORD_BAD_HEADER);
    cr_assert_eq(record_check(s, SEED, OFFSET, OFFSET + len - 1, &h), RECORD_BAD_HEADER,
                 "would reach past the segment");
    cr_assert_eq(record_check(s, SEED, OFFSET, OFFSET + len, &h), RECORD_GOOD);
    free(r);
}

Test(record, every_flip_is_seen)
{
    static const uint32_t lens[] = {0, 1, 15, 16, 17, 100, 1000};

    for (size_t k = 0; k < sizeof lens / sizeof lens[0]; k++) {
        struct record_header h;
        uint32_t len;
        uint8_t *r = make(lens[k], &len);
        for (uint32_t i = 0; i < len; i++) {
            for (int bit = 0; bit < 8; bit++) {
                enum record_result got;
                r[i] ^= (uint8_t)(1 << bit);
                got = record_check(slice_of(r, len), SEED, OFFSET, IMAGE_BYTES, &h);
                cr_assert_eq(got, i < RECORD_HEADER_SIZE ? RECORD_BAD_HEADER : RECORD_BAD_PAYLOAD,
                             "byte %u bit %d", i, bit);
                cr_assert(i >= RECORD_HEADER_SIZE || len == RECORD_HEADER_SIZE ||
                          record_was_ours(slice_of(r, len), SEED, OFFSET, 5ull << 32));
                r[i] ^= (uint8_t)(1 << bit);
            }
        }
        free(r);
    }
}

Test(record, every_cut_is_seen)
{
    struct record_header h;
    uint32_t len;
    uint8_t *r = make(300, &len);

    for (uint32_t cut = 0; cut < len; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1);
        enum record_result got;
        memcpy(copy, r, cut);
        got = record_check(slice_of(copy, cut), SEED, OFFSET, IMAGE_BYTES, &h);
        cr_assert_eq(got, cut < RECORD_HEADER_SIZE ? RECORD_BAD_HEADER : RECORD_NEED_MORE);
        free(copy);
    }
    free(r);
}

Test(record, segment_header_copies)
{
    struct segment_header in = {.lane = 3,
                                .id = 8,
                                .salt = 99,
                                .segment_bytes = IMAGE_BYTES,
                                .qid_limit = 12345},
                          out;
    uint8_t block[SEGMENT_BLOCK];

    segment_header_encode(&in, block);
    cr_assert_eq(segment_header_decode(slice_of(block, sizeof block), &out), SEGMENT_HEADER_GOOD);
    cr_assert(out.lane == 3 && out.id == 8 && out.salt == 99 && out.qid_limit == 12345);
    cr_assert_eq(segment_header_decode(slice_of(block, sizeof block - 1), &out),
                 SEGMENT_HEADER_BAD);
    for (uint32_t i = 0; i < SEGMENT_BLOCK; i++) {
        block[i] ^= 0x10;
        cr_assert_eq(segment_header_decode(slice_of(block, sizeof block), &out),
                     SEGMENT_HEADER_ONE_COPY, "byte %u", i);
        cr_assert_eq(out.id, 8);
        block[(i + SEGMENT_HEADER_LEN) % SEGMENT_BLOCK] ^= 0x10;
        cr_assert_eq(segment_header_decode(slice_of(block, sizeof block), &out),
                     SEGMENT_HEADER_BAD);
        block[i] ^= 0x10;
        block[(i + SEGMENT_HEADER_LEN) % SEGMENT_BLOCK] ^= 0x10;
    }
}

Test(record, footer_flips)
{
    struct segment_footer in = {.summary_offset = 8192,
                                .summary_count = 2,
                                .data_end = 8192,
                                .record_count = 5},
                          out;
    uint8_t block[SEGMENT_BLOCK];
    uint32_t at = IMAGE_BYTES - SEGMENT_BLOCK;

    segment_footer_encode(&in, SEED, at, block);
    cr_assert(segment_footer_decode(slice_of(block, sizeof block), SEED, at, &out));
    cr_assert_eq(out.record_count, 5);
    cr_assert_not(segment_footer_decode(slice_of(block, sizeof block), SEED + 1, at, &out));
    cr_assert_not(segment_footer_decode(slice_of(block, sizeof block), SEED, at - 16, &out));
    for (uint32_t i = 0; i < SEGMENT_BLOCK; i++) {
        block[i] ^= 1;
        cr_assert_not(segment_footer_decode(slice_of(block, sizeof block), SEED, at, &out));
        block[i] ^= 1;
    }
}

Test(record, state_blocks)
{
    uint64_t bits[2] = {5, 1};
    struct record_state in = {
        .qid = 77, .rcpt_count = 66, .final_words = 2, .error_len = 5, .attempts = 3, .state = 1};
    struct record_state_view v;
    uint8_t block[128];
    uint32_t used, size = record_state_encode(block, &in, bits, SLICE_LIT("hello"));

    cr_assert_eq(size, record_state_size(&in));
    cr_assert(record_state_decode(slice_of(block, size), &v, &used));
    cr_assert_eq(used, size);
    cr_assert(slice_eq(v.error, SLICE_LIT("hello")));
    cr_assert(record_state_word(&v, 0) == 5 && record_state_word(&v, 1) == 1);
    for (uint32_t cut = 0; cut < size; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1);
        memcpy(copy, block, cut);
        cr_assert_not(record_state_decode(slice_of(copy, cut), &v, &used));
        free(copy);
    }
    in.final_words = 1; /* does not fit 66 recipients */
    memcpy(block, &in, sizeof in);
    cr_assert_not(record_state_decode(slice_of(block, size), &v, &used));
}

/* What a summary says of a record is what the record says of itself. */
Test(record, summary_entry_equals_record)
{
    struct image im;
    uint8_t block[256], entry[512];
    uint32_t offset, used, len = image_state_block(block, 3, 5, 6, 1, 1000);
    struct record_header h;
    struct record_digest a, b;

    image_begin(&im, 2);
    offset = image_message(&im, &(struct image_message){.qid = 5,
                                                        .rcpt_count = 2,
                                                        .body = SLICE_LIT("hello"),
                                                        .final_block = block,
                                                        .final_len = len});
    cr_assert_eq(record_check(slice_of(im.bytes + offset, IMAGE_BYTES - offset), im.seed, offset,
                              IMAGE_BYTES, &h),
                 RECORD_GOOD);
    cr_assert(record_digest_of(
        &h, slice_of(im.bytes + offset + RECORD_HEADER_SIZE, h.length - RECORD_HEADER_SIZE), offset,
        &a));
    summary_entry_encode(entry, &a);
    cr_assert(summary_entry_decode(slice_of(entry, sizeof entry), &b, &used));
    cr_assert_eq(used, summary_entry_size(&a));
    cr_assert(a.type == b.type && a.offset == b.offset && a.length == b.length && a.qid == b.qid);
    cr_assert_eq(memcmp(&a.message, &b.message, sizeof a.message), 0);
    cr_assert(slice_eq(a.final_block, b.final_block) && slice_eq(a.state_block, b.state_block));
    for (uint32_t cut = 0; cut < used; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1);
        uint32_t dummy;
        memcpy(copy, entry, cut);
        cr_assert_not(summary_entry_decode(slice_of(copy, cut), &b, &dummy));
        free(copy);
    }
    image_free(&im);
}
