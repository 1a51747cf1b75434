/*
 * tests/unit/test_handoff_text.c - the state of a message as text and back.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/handoff_text.h"
#include "gateway/limits.h"

static struct slab blocks;
static struct arena arena;

static void setup(void)
{
    slab_init(&blocks, "test", ARENA_BLOCK_SIZE, 1024);
    arena_init(&arena, &blocks, 1024);
}

static void teardown(void)
{
    arena_reset(&arena);
    slab_destroy(&blocks, true);
}

TestSuite(handoff_text, .init = setup, .fini = teardown);

static struct handoff_state sample(struct envelope_rcpt *rcpts, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        rcpts[i] = (struct envelope_rcpt){.mailbox = SLICE_LIT("user@example.org"),
                                          .orcpt = SLICE_LIT("rfc822;user@example.org"),
                                          .notify = 6};
    return (struct handoff_state){
        .arrival = {.next_attempt_wall_s = 4000000000, .attempts = 7, .warned = true},
        .env = {.sender = SLICE_LIT("a@example.com"),
                .envid = SLICE_LIT("e1"),
                .account = SLICE_LIT("alice"),
                .connector = SLICE_LIT("in"),
                .client = SLICE_LIT("192.0.2.1"),
                .helo = SLICE_LIT("host.example"),
                .session = SLICE_LIT("0-1"),
                .subject = SLICE_LIT("caf\xc3\xa9"),
                .handoff = SLICE_LIT("abcd1234/00G1"),
                .origin = SLICE_LIT("00G1"),
                .flags = ENVELOPE_8BIT | ENVELOPE_WAS_HELD,
                .accepted_wall_ns = 1234567890123456789ull,
                .rcpts = rcpts,
                .rcpt_count = count}};
}

/* The text of it; the caller frees. */
static struct slice text_of(const struct handoff_state *h)
{
    size_t size = handoff_state_size(h), text_size = handoff_text_size(size);
    uint8_t *bytes = malloc(size), *text = malloc(text_size);
    struct buf b = buf_over(bytes, size), t = buf_over(text, text_size);
    cr_assert(handoff_state_encode(h, &b));
    cr_assert_eq(b.len, size);
    cr_assert(handoff_text_encode(buf_slice(&b), &t));
    cr_assert_eq(t.len, text_size, "%u, said %zu", t.len, text_size);
    free(bytes);
    return buf_slice(&t);
}

static bool back(struct slice text, struct handoff_state *out, uint8_t *room, size_t size)
{
    struct buf b = buf_over(room, size);
    return handoff_text_decode(text, &b) && handoff_state_decode(buf_slice(&b), &arena, out);
}

Test(handoff_text, there_and_back)
{
    static const uint32_t counts[] = {1, 2, 9, 10, 11, 100, 20000};
    struct envelope_rcpt *rcpts = calloc(20000, sizeof *rcpts);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct handoff_state h = sample(rcpts, counts[i]), got;
        struct slice text = text_of(&h);
        uint8_t *room = malloc(text.len);
        cr_assert(back(text, &got, room, text.len), "%u recipients", counts[i]);
        cr_assert_eq(got.arrival.next_attempt_wall_s, 4000000000);
        cr_assert(got.arrival.attempts == 7 && got.arrival.warned && !got.arrival.uncertain);
        cr_assert(slice_eq(got.env.handoff, h.env.handoff) &&
                  slice_eq(got.env.origin, h.env.origin) &&
                  slice_eq(got.env.subject, h.env.subject) && got.env.flags == h.env.flags &&
                  got.env.accepted_wall_ns == h.env.accepted_wall_ns);
        cr_assert_eq(got.env.rcpt_count, counts[i]);
        cr_assert_eq(got.env.rcpts[counts[i] - 1].notify, 6);
        free(room);
        free((void *)(uintptr_t)text.ptr);
        arena_reset(&arena);
    }
    free(rcpts);
}

Test(handoff_text, nothing_is_believed)
{
    struct envelope_rcpt rcpts[20];
    struct handoff_state h = sample(rcpts, 20), got;
    struct slice text = text_of(&h);
    uint8_t *room = malloc(text.len), *copy = malloc(text.len);
    for (size_t cut = 0; cut < text.len; cut++) /* cut short anywhere */
        cr_assert_not(back(slice_head(text, cut), &got, room, text.len), "%zu", cut);
    for (size_t i = 0; i < text.len; i++) { /* whatever a byte becomes, no more is read */
        memcpy(copy, text.ptr, text.len);
        copy[i] ^= 0x15;
        (void)!back(slice_of(copy, text.len), &got, room, text.len);
    }
    free(room);
    free(copy);
    free((void *)(uintptr_t)text.ptr);
}

static bool taken(struct handoff_state *h)
{
    struct handoff_state got;
    struct slice text = text_of(h);
    uint8_t *room = malloc(text.len);
    bool ok = back(text, &got, room, text.len);
    free(room);
    free((void *)(uintptr_t)text.ptr);
    return ok;
}

Test(handoff_text, no_control_characters)
{
    struct envelope_rcpt rcpts[2];
    struct handoff_state h = sample(rcpts, 2);
    cr_assert(taken(&h));
    h.env.sender = SLICE_LIT("a@b>\r\nRCPT TO:<x@y");
    cr_assert_not(taken(&h));
    h = sample(rcpts, 2);
    rcpts[1].orcpt = SLICE_LIT("rfc822;a\r\nb");
    cr_assert_not(taken(&h));
    h = sample(rcpts, 2);
    rcpts[0].mailbox = slice_of(NULL, 0);
    cr_assert_not(taken(&h));
    h = sample(rcpts, 0);
    cr_assert_not(taken(&h));
}
