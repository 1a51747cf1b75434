/*
 * tests/sim/test_bit_rot.c - a small spool in which one byte has changed, for every byte: what was
 * lost is told, at most one message is concerned, and no body is ever read with a wrong byte.
 *
 * `make test` changes one byte of 11; `make crash-points` all of them.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/base/sanitizers.h"
#include "gateway/limits.h"
#include "tests/sim/crash_kit.h"

#define MESSAGES 5u
#ifdef SANITIZES_ADDRESS /* the buffers of a lane are poisoned at each start */
#define STRIDE       997u
#define STRIDE_ZEROS 40009u
#else
#define STRIDE       11u
#define STRIDE_ZEROS 1511u
#endif
#define SEGMENT "/spool/lane-00/00000001.seg"
#define RECORDS 4096u /* where they begin */

/* Accepted, in this order; the second is over before the end, the third is deferred. */
static const uint32_t sizes[MESSAGES] = {100, 200, 300, 34000, 90};

struct tx {
    struct lane_tx tx;
    struct queue_msg *msg;
    bool done;
};

static void on_done(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    struct tx *t = container_of(tx, struct tx, tx);

    cr_assert_eq(why->smtp_code, 0);
    t->done = true;
    t->msg = m;
}

static struct queue_msg *put(struct crash_lane *k, uint32_t index)
{
    struct envelope_rcpt to[2] = {{.mailbox = SLICE_LIT("a@example.org")},
                                  {.mailbox = SLICE_LIT("b@example.org")}};
    struct envelope env = {.sender = SLICE_LIT("sender@example.com"),
                           .accepted_wall_ns = io_wall_ns(k->io),
                           .rcpts = to,
                           .rcpt_count = 2};
    struct tx t = {.tx = {.done = on_done}};
    struct why why;

    cr_assert(lane_tx_begin(k->lane, &t.tx, &why));
    for (uint32_t at = 0; at < sizes[index];) {
        uint8_t piece[1000];
        uint32_t n = sizes[index] - at < sizeof piece ? sizes[index] - at : sizeof piece;
        for (uint32_t i = 0; i < n; i++)
            piece[i] = crash_byte(index, at + i);
        cr_assert_eq(lane_tx_append(&t.tx, slice_of(piece, n)), LANE_APPEND_OK);
        at += n;
    }
    lane_tx_commit(&t.tx, &env, NULL, NULL, 0);
    while (!t.done)
        crash_lane_turn(k);
    return t.msg;
}

/* ---- what a spool holds, as its readers see it ---- */

struct seen {
    bool there, read;
    uint8_t state;
    uint32_t final;
};

struct reader {
    struct crash_lane k;
    uint64_t qids[MESSAGES];
    struct seen seen[MESSAGES];
    struct slab blocks;
    struct arena arena;
    bool done, good;
    int32_t res;
    uint32_t strangers;
};

static void on_body(struct lane_read *r, int32_t res)
{
    struct reader *d = r->msg->owner;

    d->done = true;
    d->res = res;
}

static void on_envelope(struct lane_envelope_read *r, const struct envelope *env,
                        struct slice error, const struct why *why)
{
    struct reader *d = r->read.msg->owner;

    (void)error;
    (void)why;
    d->done = true;
    d->good = env && env->rcpt_count == 2 &&
              slice_eq(env->sender, SLICE_LIT("sender@example.com")) &&
              slice_eq(env->rcpts[1].mailbox, SLICE_LIT("b@example.org"));
    cr_assert(!env || d->good, "an envelope with wrong bytes");
}

static bool read_message(struct reader *d, uint32_t index, struct queue_msg *m)
{
    struct lane_envelope_read e = {.done = on_envelope};
    struct lane_read r = {.done = on_body};
    uint8_t *body = malloc(sizes[index]);
    bool good;

    cr_assert_eq(m->body_size, sizes[index]);
    m->owner = d;
    d->done = d->good = false;
    arena_reset(&d->arena);
    lane_envelope_read(d->k.lane, m, &e, &d->arena);
    while (!d->done)
        crash_lane_turn(&d->k);
    d->done = false;
    lane_body_read(d->k.lane, m, &r, 0, body, sizes[index]);
    while (!d->done)
        crash_lane_turn(&d->k);
    good = d->good && d->res == (int32_t)sizes[index];
    for (uint32_t i = 0; good && i < sizes[index]; i++)
        cr_assert_eq(body[i], crash_byte(index, i), "message %u is read with a wrong byte", index);
    m->owner = NULL;
    free(body);
    return good;
}

static void on_found(struct crash_lane *k, struct queue_msg *m)
{
    struct reader *d = container_of(k, struct reader, k);

    for (uint32_t i = 0; i < MESSAGES; i++) {
        if (d->qids[i] != m->qid)
            continue;
        cr_assert_not(d->seen[i].there, "found twice");
        d->seen[i].there = true;
        d->seen[i].state = (uint8_t)m->state;
        d->seen[i].final = (uint32_t)m->rcpt_final_bits;
        return;
    }
    d->strangers++;
}

static void read_spool(struct reader *d)
{
    memset(d->seen, 0, sizeof d->seen);
    d->k = (struct crash_lane){.found = on_found};
    d->strangers = 0;
    cr_assert(crash_lane_open(&d->k, LANE_WRITE_BUFFERED), "%s", d->k.why.text);
    cr_assert_eq(d->strangers, 0u);
    for (uint32_t i = 0; i < MESSAGES; i++)
        if (d->seen[i].there)
            d->seen[i].read = read_message(d, i, lane_find(d->k.lane, d->qids[i]));
    crash_lane_close(&d->k, false);
}

/* ---- a spool ---- */

/* Left as a crash leaves it, or closed. */
static void make_spool(struct reader *d, struct sim_host *host, bool closed)
{
    const uint32_t both[2] = {0, 1}, first = 0;
    struct queue_msg *m[MESSAGES];

    sim_host_enter(host);
    cr_assert(crash_lane_open(&d->k, LANE_WRITE_BUFFERED));
    for (uint32_t i = 0; i < MESSAGES; i++) {
        m[i] = put(&d->k, i);
        d->qids[i] = m[i]->qid;
        if (i == 1)
            lane_rcpts_final(d->k.lane, m[1], both, 2, RCPT_DELIVERED);
        if (i == 2)
            lane_defer(d->k.lane, m[2], io_wall_ns(d->k.io) / NS_PER_S + 3600, true,
                       SLICE_LIT("451 later"));
    }
    lane_rcpts_final(d->k.lane, m[0], &first, 1, RCPT_DELIVERED);
    crash_lane_flush(&d->k);
    if (closed)
        crash_lane_close(&d->k, false);
    else
        sim_host_kill(host);
}

struct rot {
    uint32_t flips, told, harmless, concerned;
    uint32_t end; /* of what is written in records */
};

static void flip_one(struct reader *d, struct sim_host *host, const struct sim_disk *saved,
                     const struct seen *good, uint32_t offset, uint8_t mask, struct rot *rot)
{
    uint32_t concerned = 0;
    bool told;

    sim_host_disk_load(host, saved);
    cr_assert(sim_host_disk_flip(host, SEGMENT, offset, mask));
    read_spool(d);
    told = d->k.damaged > 0;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        told |= d->seen[i].there && !d->seen[i].read;
        concerned += memcmp(&d->seen[i], &good[i], sizeof good[i]) != 0;
    }
    cr_assert_leq(concerned, 1u, "byte %u: %u messages are concerned", offset, concerned);
    cr_assert(concerned == 0 || told, "byte %u: a message changed and nobody was told", offset);
    rot->flips++;
    rot->told += told;
    rot->harmless += !told;
    rot->concerned += concerned;
}

/* The end of what is not zero, below `limit`. */
static uint32_t written(struct sim_host *host, uint32_t limit)
{
    static uint8_t data[256 * KIB];
    uint32_t n = (uint32_t)sim_host_disk_read(host, SEGMENT, data, sizeof data, 0);

    n = n < limit ? n : limit;
    while (n > 0 && data[n - 1] == 0)
        n--;
    return n;
}

static void rot_away(bool closed)
{
    uint32_t stride = getenv("CRASH_POINTS") ? 1 : STRIDE, end, size = 256 * KIB;
    struct reader *d = calloc(1, sizeof *d);
    struct sim *sim = sim_create(1);
    struct sim_host *host = sim_host_add(sim, "rotten", "10.0.0.1");
    struct seen good[MESSAGES];
    struct sim_disk *saved;
    struct rot rot = {0};

    slab_init(&d->blocks, "test arena", ARENA_BLOCK_SIZE, 64);
    arena_init(&d->arena, &d->blocks, 64);
    make_spool(d, host, closed);
    saved = sim_host_disk_save(host);
    read_spool(d);
    cr_assert_eq(d->k.damaged, 0u);
    memcpy(good, d->seen, sizeof good);
    cr_assert(good[0].read && good[0].final == 1 && !good[1].there && good[2].read);
    cr_assert(good[2].state == QUEUE_DEFERRED && good[3].read && good[4].read);
    sim_host_disk_load(host, saved);
    end = written(host, size - 4096);
    cr_assert_gt(end, RECORDS + 34000u);
    for (uint32_t at = 0; at < end; at += stride)
        flip_one(d, host, saved, good, at, getenv("CRASH_POINTS") ? 0xff : 1u << at % 8, &rot);
    if (!closed) /* where it stands alone, each byte counts */
        cr_assert_eq(rot.harmless, 0u);
    for (uint32_t at = end; at < size; at += at < size - 4096 ? STRIDE_ZEROS : stride)
        flip_one(d, host, saved, good, at, 0x10, &rot);
    printf("bit rot (%s): %u flips, %u told, %u of no consequence, %u concern a message\n",
           closed ? "sealed" : "open", rot.flips, rot.told, rot.harmless, rot.concerned);
    sim_disk_free(saved);
    arena_reset(&d->arena);
    slab_destroy(&d->blocks, false);
    sim_destroy(sim);
    free(d);
}

Test(bit_rot, every_byte_of_an_open_segment, .timeout = 6 * 3600)
{
    rot_away(false);
}

Test(bit_rot, every_byte_of_a_sealed_segment, .timeout = 6 * 3600)
{
    rot_away(true);
}
