/*
 * tests/unit/test_envelope.c - envelopes as bytes.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/limits.h"
#include "queue/envelope.h"

static void arena_make(struct slab *blocks, struct arena *a)
{
    slab_init(blocks, "test", ARENA_BLOCK_SIZE, 1024);
    arena_init(a, blocks, 1024);
}

static struct envelope sample(struct envelope_rcpt *rcpts, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        rcpts[i] = (struct envelope_rcpt){.mailbox = SLICE_LIT("user@example.org"),
                                          .orcpt = i % 2 ? SLICE_LIT("rfc822;user@example.org")
                                                         : slice_of(NULL, 0),
                                          .notify = (uint8_t)i};
    return (struct envelope){.sender = SLICE_LIT("a@example.com"),
                             .envid = SLICE_LIT("id+2B"),
                             .account = SLICE_LIT("alice"),
                             .connector = SLICE_LIT("client-frontend"),
                             .client = SLICE_LIT("2001:db8::1"),
                             .helo = SLICE_LIT("host.example"),
                             .session = SLICE_LIT("0-1234"),
                             .subject = SLICE_LIT("caf\xc3\xa9"),
                             .flags = ENVELOPE_8BIT | ENVELOPE_DSN,
                             .accepted_wall_ns = 1234567890123456789ull,
                             .rcpts = rcpts,
                             .rcpt_count = count};
}

static void assert_same(const struct envelope *a, const struct envelope *b)
{
    cr_assert(slice_eq(a->sender, b->sender) && slice_eq(a->envid, b->envid) &&
              slice_eq(a->account, b->account) && slice_eq(a->connector, b->connector) &&
              slice_eq(a->client, b->client) && slice_eq(a->helo, b->helo) &&
              slice_eq(a->session, b->session) && slice_eq(a->subject, b->subject));
    cr_assert_eq(a->flags, b->flags);
    cr_assert_eq(a->accepted_wall_ns, b->accepted_wall_ns);
    cr_assert_eq(a->rcpt_count, b->rcpt_count);
    for (uint32_t i = 0; i < a->rcpt_count; i++)
        cr_assert(slice_eq(a->rcpts[i].mailbox, b->rcpts[i].mailbox) &&
                  slice_eq(a->rcpts[i].orcpt, b->rcpts[i].orcpt) &&
                  a->rcpts[i].notify == b->rcpts[i].notify);
}

/* Only a message that was handed over needs version 2. */
Test(envelope, handed_over)
{
    struct envelope_rcpt rcpts[2];
    struct envelope e = sample(rcpts, 2), got;
    struct slab blocks;
    struct arena arena;
    uint8_t bytes[1024];
    struct buf b = buf_over(bytes, sizeof bytes);

    arena_make(&blocks, &arena);
    cr_assert(envelope_encode(&e, &b));
    cr_assert(b.len == envelope_encoded_size(&e) && bytes[0] == 1);
    e.handoff = SLICE_LIT("abcd1234/00G1");
    e.origin = SLICE_LIT("00G1");
    b.len = 0;
    cr_assert(envelope_encode(&e, &b));
    cr_assert(b.len == envelope_encoded_size(&e) && bytes[0] == 2);
    cr_assert(envelope_decode(buf_slice(&b), &arena, &got));
    assert_same(&e, &got);
    cr_assert(slice_eq(got.handoff, e.handoff) && slice_eq(got.origin, e.origin));
    bytes[0] = 3;
    cr_assert_not(envelope_decode(buf_slice(&b), &arena, &got));
    arena_reset(&arena);
    slab_destroy(&blocks, true);
}

Test(envelope, encode_and_decode_agree)
{
    static const uint32_t counts[] = {0, 1, 2, 101, 500, RCPT_COUNT_LIMIT};
    struct envelope_rcpt *rcpts = calloc(RCPT_COUNT_LIMIT, sizeof *rcpts);
    struct slab blocks;
    struct arena arena;

    arena_make(&blocks, &arena);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct envelope in = sample(rcpts, counts[i]), out;
        size_t size = envelope_encoded_size(&in);
        uint8_t *bytes = malloc(size);
        struct buf b = buf_over(bytes, size);
        cr_assert(envelope_encode(&in, &b));
        cr_assert_eq(b.len, size, "the size is exact");
        cr_assert(envelope_decode(buf_slice(&b), &arena, &out));
        assert_same(&in, &out);
        b = buf_over(bytes, size - 1);
        cr_assert_not(envelope_encode(&in, &b));
        free(bytes);
        arena_reset(&arena);
    }
    slab_destroy(&blocks, false);
    free(rcpts);
}

/* Truncated anywhere, or longer by a byte: refused; the copy is exactly as long, so that a
 * sanitizer sees a read too far. */
Test(envelope, other_lengths_are_refused)
{
    struct envelope_rcpt rcpts[3];
    struct envelope in = sample(rcpts, 3), out;
    uint8_t bytes[1024];
    struct buf b = buf_over(bytes, sizeof bytes);
    struct slab blocks;
    struct arena arena;

    arena_make(&blocks, &arena);
    cr_assert(envelope_encode(&in, &b));
    for (size_t len = 0; len <= b.len + 1; len++) {
        uint8_t *copy = calloc(1, len ? len : 1);
        memcpy(copy, bytes, len < b.len ? len : b.len);
        cr_assert_eq(envelope_decode(slice_of(copy, len), &arena, &out), len == b.len, "%zu", len);
        free(copy);
        arena_reset(&arena);
    }
    slab_destroy(&blocks, false);
}

Test(envelope, counts_are_not_believed)
{
    struct envelope_rcpt rcpts[1];
    struct envelope in = sample(rcpts, 1), out;
    uint8_t bytes[1024];
    struct buf b = buf_over(bytes, sizeof bytes);
    struct slab blocks;
    struct arena arena;
    uint32_t count = UINT32_MAX;

    arena_make(&blocks, &arena);
    cr_assert(envelope_encode(&in, &b));
    memcpy(bytes + 16, &count, sizeof count);
    cr_assert_not(envelope_decode(buf_slice(&b), &arena, &out));
    cr_assert_eq(arena.block_count, 0, "nothing was taken for it");
    slab_destroy(&blocks, false);
}
