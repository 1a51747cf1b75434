/*
 * tests/unit/test_lane.c - a lane on a real directory: take, read back, change, close, reopen.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/limits.h"
#include "queue/lane_internal.h"
#include "tests/unit/lane_kit.h"

Test(lane, message_survives_reopening)
{
    struct lane_kit k;
    struct envelope env;
    uint64_t qid;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 4096, 3);
    cr_assert_eq(lane_kit_check_body(&k, qid, 1, 4096, 1000), 0);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1);
    cr_assert_eq(k.found[0], qid);
    cr_assert_eq(lane_kit_check_body(&k, qid, 1, 4096, 65536), 0);
    cr_assert(lane_kit_envelope(&k, qid, &env, NULL));
    cr_assert_eq(env.rcpt_count, 3);
    cr_assert(slice_eq(env.sender, SLICE_LIT("sender@example.com")));
    cr_assert(slice_eq(env.rcpts[2].mailbox, SLICE_LIT("rcpt@example.org")));
    lane_kit_deliver(&k, qid);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 0);
    cr_assert_eq(k.damaged_count, 0);
    lane_kit_end(&k);
}

Test(lane, interleaved_large_bodies)
{
    enum { COUNT = 8 };
    struct lane_kit k;
    struct lane_kit_tx t[COUNT];
    uint64_t qid[COUNT];
    size_t len = 3 * MIB + 77;

    lane_kit_open(&k, NULL);
    for (int i = 0; i < COUNT; i++)
        lane_kit_begin(&k, &t[i]);
    for (size_t at = 0; at < len; at += 100000)
        for (int i = 0; i < COUNT; i++)
            lane_kit_append(&k, &t[i], (uint64_t)i, len - at < 100000 ? len - at : 100000);
    for (int i = 0; i < COUNT; i++)
        lane_kit_commit(&k, &t[i], 1);
    for (int i = 0; i < COUNT; i++) {
        LANE_KIT_UNTIL(&k, t[i].done);
        cr_assert_eq(t[i].code, 0);
        qid[i] = t[i].qid;
    }
    cr_assert_gt(lane_stats(k.lane)->segments, 3);
    for (int i = 0; i < COUNT; i++)
        cr_assert_eq(lane_kit_check_body(&k, qid[i], (uint64_t)i, len, 64 * 1024), 0);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, COUNT);
    for (int i = 0; i < COUNT; i++)
        cr_assert_eq(lane_kit_check_body(&k, qid[i], (uint64_t)i, len, 50001), 0);
    for (int i = 0; i < COUNT; i++)
        lane_kit_deliver(&k, qid[i]);
    lane_kit_settle(&k);
    cr_assert_leq(lane_stats(k.lane)->segments, 3, "%lu", lane_stats(k.lane)->segments);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 0);
    cr_assert_eq(k.damaged_count, 0, "%s", k.damaged_what);
    lane_kit_end(&k);
}

Test(lane, sizes_around_the_chunk)
{
    static const size_t sizes[] = {0,     1,     15,    16,    17,    32767, 32768,
                                   32769, 49152, 65535, 65536, 65537, 98304, 98305};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    struct lane_kit k;
    uint64_t qid[COUNT];

    lane_kit_open(&k, NULL);
    for (int i = 0; i < COUNT; i++)
        qid[i] = lane_kit_put(&k, (uint64_t)i, sizes[i], 1);
    lane_kit_reopen(&k);
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(lane_kit_check_body(&k, qid[i], (uint64_t)i, sizes[i], 1000), 0);
        cr_assert_eq(lane_kit_check_body(&k, qid[i], (uint64_t)i, sizes[i], 65536), 0);
    }
    lane_kit_end(&k);
}

Test(lane, thousand_messages_in_few_commits)
{
    enum { COUNT = 1000 };
    struct lane_kit k;
    struct lane_kit_tx *t = calloc(COUNT, sizeof *t);
    uint32_t live = 0;

    lane_kit_open(&k, NULL);
    for (int i = 0; i < COUNT; i++)
        lane_kit_send(&k, &t[i], (uint64_t)i, 4000 + (size_t)i, 1);
    for (int i = 0; i < COUNT; i++)
        LANE_KIT_UNTIL(&k, t[i].done);
    cr_assert_lt(lane_stats(k.lane)->commits, 20);
    for (int i = 0; i < COUNT; i += 3)
        lane_kit_deliver(&k, t[i].qid);
    lane_kit_reopen(&k);
    for (int i = 0; i < COUNT; i++) {
        if (i % 3 == 0) {
            cr_assert_null(lane_find(k.lane, t[i].qid));
            continue;
        }
        live++;
        cr_assert_eq(lane_kit_check_body(&k, t[i].qid, (uint64_t)i, 4000 + (size_t)i, 9000), 0);
    }
    cr_assert_eq(k.found_count, live);
    cr_assert_eq(lane_stats(k.lane)->messages, live);
    free(t);
    lane_kit_end(&k);
}

Test(lane, aborted_transactions_leave_nothing)
{
    struct lane_kit k;
    struct lane_kit_tx a, b;
    uint64_t qid;

    lane_kit_open(&k, NULL);
    lane_kit_begin(&k, &a);
    lane_kit_begin(&k, &b);
    lane_kit_append(&k, &a, 1, 300000);
    lane_kit_append(&k, &b, 2, 100);
    lane_tx_abort(&a.tx);
    lane_tx_abort(&b.tx);
    qid = lane_kit_put(&k, 3, 100, 1);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1);
    cr_assert_eq(k.found[0], qid);
    lane_kit_end(&k);
}

Test(lane, deferral_is_kept_with_its_error)
{
    struct lane_kit k;
    struct queue_msg *m;
    struct envelope env;
    char error[600];
    uint64_t qid, at;
    uint32_t first = 1;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 5000, 70);
    m = lane_find(k.lane, qid);
    at = io_wall_ns(k.io) / NS_PER_S + 1000;
    lane_defer(k.lane, m, at, true, SLICE_LIT("450 4.2.1 mailbox busy"));
    lane_rcpts_final(k.lane, m, &first, 1, RCPT_DELIVERED);
    cr_assert_eq(m->rcpt_pending, 69);
    lane_kit_reopen(&k);
    m = lane_find(k.lane, qid);
    cr_assert_eq(m->state, QUEUE_DEFERRED);
    cr_assert_eq(m->attempts, 1);
    cr_assert_eq(m->next_attempt_wall_s, at);
    cr_assert_eq(m->rcpt_pending, 69);
    cr_assert(queue_msg_rcpt_is_final(m, 1));
    cr_assert_not(queue_msg_rcpt_is_final(m, 65));
    cr_assert(lane_kit_envelope(&k, qid, &env, error));
    cr_assert_str_eq(error, "450 4.2.1 mailbox busy");
    lane_set_state(k.lane, m, QUEUE_HELD);
    lane_kit_reopen(&k);
    m = lane_find(k.lane, qid);
    cr_assert_eq(m->state, QUEUE_HELD);
    cr_assert_eq(lane_stats(k.lane)->by_state[QUEUE_HELD], 1);
    cr_assert(lane_kit_envelope(&k, qid, &env, error));
    cr_assert_str_eq(error, "450 4.2.1 mailbox busy");
    cr_assert_eq(k.due_count, 0);
    lane_set_state(k.lane, m, QUEUE_READY);
    LANE_KIT_UNTIL(&k, k.due_count == 1);
    lane_kit_end(&k);
}

/* More than both commit buffers hold: appends wait, nothing is lost, order is kept. */
Test(lane, buffers_full)
{
    enum { COUNT = 600 };
    struct lane_kit k;
    struct lane_kit_tx *t = calloc(COUNT, sizeof *t);
    uint32_t waits = 0;

    lane_kit_open(&k, NULL);
    for (int i = 0; i < COUNT; i++) {
        uint8_t bytes[16384];
        lane_kit_begin(&k, &t[i]);
        lane_kit_body((uint64_t)i, 0, bytes, sizeof bytes);
        cr_assert_eq(lane_tx_append(&t[i].tx, slice_of(bytes, sizeof bytes)), LANE_APPEND_OK);
        lane_kit_body((uint64_t)i, sizeof bytes, bytes, sizeof bytes);
        cr_assert_eq(lane_tx_append(&t[i].tx, slice_of(bytes, sizeof bytes)), LANE_APPEND_OK);
        lane_kit_body((uint64_t)i, 2 * sizeof bytes, bytes, sizeof bytes);
        waits += lane_tx_append(&t[i].tx, slice_of(bytes, sizeof bytes)) == LANE_APPEND_WAIT;
    }
    cr_assert_gt(waits, 0);
    for (int i = 0; i < COUNT; i++)
        lane_kit_commit(&k, &t[i], 1); /* also those that still wait */
    for (int i = 0; i < COUNT; i++) {
        LANE_KIT_UNTIL(&k, t[i].done);
        cr_assert_eq(t[i].code, 0);
    }
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, COUNT);
    for (int i = 0; i < COUNT; i += 7)
        cr_assert_eq(lane_kit_check_body(&k, t[i].qid, (uint64_t)i, 49152, 65536), 0);
    free(t);
    lane_kit_end(&k);
}

static uint32_t count_resumed(const struct lane_kit_tx *t, uint32_t count)
{
    uint32_t resumed = 0;

    for (uint32_t i = 0; i < count; i++)
        resumed += t[i].resumed;
    return resumed;
}

/* Parts of large bodies wait for room by the hundred; a short message does not wait for them. */
Test(lane, a_message_goes_before_the_parts_of_large_ones)
{
    enum { COUNT = 600, PARTS = 3 };
    struct lane_kit k;
    struct lane_kit_tx *t = calloc(COUNT, sizeof *t), small;
    uint32_t waits = 0, resumed;
    uint8_t bytes[16384];

    lane_kit_open(&k, NULL);
    lane_kit_body(1, 0, bytes, sizeof bytes);
    for (int i = 0; i < COUNT; i++) {
        lane_kit_begin(&k, &t[i]);
        for (int part = 0; part < PARTS; part++)
            waits += lane_tx_append(&t[i].tx, slice_of(bytes, sizeof bytes)) == LANE_APPEND_WAIT;
    }
    lane_kit_send(&k, &small, 2, 100, 1);
    LANE_KIT_UNTIL(&k, small.done);
    resumed = count_resumed(t, COUNT);
    cr_assert_eq(small.code, 0);
    cr_assert_gt(waits, COUNT / 2);
    cr_assert_lt(resumed, waits / 2, "%u of %u went before it", resumed, waits);
    LANE_KIT_UNTIL(&k, count_resumed(t, COUNT) == waits);
    for (int i = 0; i < COUNT; i++)
        lane_tx_abort(&t[i].tx);
    free(t);
    lane_kit_end(&k);
}

/* More changes of state in one turn than the buffers hold: they are kept and written. */
Test(lane, many_changes_in_one_turn)
{
    enum { COUNT = 3000, ROUNDS = 40 };
    struct lane_kit k;
    struct lane_kit_tx *t = calloc(COUNT, sizeof *t);

    lane_kit_open(&k, NULL);
    for (int i = 0; i < COUNT; i++)
        lane_kit_send(&k, &t[i], (uint64_t)i, 10, 1);
    for (int i = 0; i < COUNT; i++)
        LANE_KIT_UNTIL(&k, t[i].done);
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < COUNT; i++)
            lane_set_state(k.lane, t[i].msg, round % 2 ? QUEUE_HELD : QUEUE_UNREACHABLE);
    for (int i = 0; i < COUNT; i += 2)
        lane_kit_deliver(&k, t[i].qid);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, COUNT / 2);
    cr_assert_eq(lane_stats(k.lane)->by_state[QUEUE_HELD], COUNT / 2);
    cr_assert_eq(k.damaged_count, 0, "%s", k.damaged_what);
    free(t);
    lane_kit_end(&k);
}

Test(lane, largest_envelope)
{
    struct lane_kit k;
    struct envelope env;
    struct queue_msg *m;
    uint64_t qid;
    uint32_t rcpt = RCPT_COUNT_LIMIT - 1;

    lane_kit_open(&k, NULL);
    qid = lane_kit_put(&k, 1, 40000, RCPT_COUNT_LIMIT);
    m = lane_find(k.lane, qid);
    lane_rcpts_final(k.lane, m, &rcpt, 1, RCPT_DELIVERED);
    lane_kit_reopen(&k);
    m = lane_find(k.lane, qid);
    cr_assert_eq(m->rcpt_pending, RCPT_COUNT_LIMIT - 1);
    cr_assert(queue_msg_rcpt_is_final(m, rcpt));
    cr_assert(lane_kit_envelope(&k, qid, &env, NULL));
    cr_assert_eq(env.rcpt_count, RCPT_COUNT_LIMIT);
    cr_assert_eq(lane_kit_check_body(&k, qid, 1, 40000, 65536), 0);
    for (rcpt = 0; rcpt < RCPT_COUNT_LIMIT - 1; rcpt++)
        lane_rcpts_final(k.lane, m, &rcpt, 1, RCPT_DELIVERED);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 0);
    lane_kit_end(&k);
}

static void direct(struct lane_params *p)
{
    p->mode = LANE_WRITE_DIRECT;
}

static void parts(struct lane_params *p)
{
    p->mode = LANE_WRITE_DIRECT;
    p->early_bytes = 1;
}

struct durable_wait {
    struct lane_wait wait;
    bool done;
};

static void is_durable(struct lane_wait *w, bool ok)
{
    cr_assert(ok);
    container_of(w, struct durable_wait, wait)->done = true;
}

/* Nobody waits for a body before its end: it is written as it comes, and synced with its end. */
Test(lane, parts_of_bodies_cause_no_sync)
{
    enum { PARTS = 100 };
    struct durable_wait last = {.wait = {.done = is_durable}};
    struct lane_kit k;
    struct lane_kit_tx t, other;
    uint64_t syncs;
    uint8_t bytes[16384];

    lane_kit_open(&k, parts);
    lane_kit_put(&k, 1, 100, 1);
    lane_kit_settle(&k);
    syncs = lane_stats(k.lane)->syncs;
    lane_kit_begin(&k, &t);
    for (uint64_t at = 0; at < PARTS * sizeof bytes; at += sizeof bytes) {
        lane_kit_body(2, at, bytes, sizeof bytes);
        if (lane_tx_append(&t.tx, slice_of(bytes, sizeof bytes)) == LANE_APPEND_WAIT)
            LANE_KIT_UNTIL(&k, t.resumed);
        t.resumed = false;
        lane_kit_turn(&k);
    }
    cr_assert_leq(lane_stats(k.lane)->syncs, syncs + PARTS / 4); /* a slow disk has its timer */
    lane_kit_commit(&k, &t, 1);
    LANE_KIT_UNTIL(&k, t.done);
    cr_assert_gt(lane_stats(k.lane)->syncs, syncs);
    lane_kit_begin(&k, &other);
    lane_kit_append(&k, &other, 3, 200000);
    lane_kit_turn(&k);
    lane_when_durable(k.lane, &last.wait);
    LANE_KIT_UNTIL(&k, last.done);
    lane_tx_abort(&other.tx);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 2);
    cr_assert_eq(k.damaged_count, 0, "%s", k.damaged_what);
    cr_assert_eq(lane_kit_check_body(&k, t.qid, 2, PARTS * sizeof bytes, 65536), 0);
    lane_kit_end(&k);
}

Test(lane, direct_writes)
{
    enum { COUNT = 300 };
    struct lane_kit k;
    struct lane_kit_tx t;
    uint64_t qids[COUNT], large;

    lane_kit_open(&k, direct);
    for (int i = 0; i < COUNT; i++)
        qids[i] = lane_kit_put(&k, (uint64_t)i, (size_t)i * 300, 1);
    lane_kit_send(&k, &t, 77, 5 * MIB, 1);
    LANE_KIT_UNTIL(&k, t.done);
    large = t.qid;
    for (int i = 0; i < COUNT; i += 2)
        lane_kit_deliver(&k, qids[i]);
    for (int again = 0; again < 2; again++) {
        lane_kit_reopen(&k);
        cr_assert_eq(k.damaged_count, 0, "%s", k.damaged_what);
        cr_assert_eq(k.found_count, COUNT / 2 + 1);
        for (int i = 1; i < COUNT; i += 2)
            cr_assert_eq(lane_kit_check_body(&k, qids[i], (uint64_t)i, (size_t)i * 300, 65536), 0);
        cr_assert_eq(lane_kit_check_body(&k, large, 77, 5 * MIB, 65536), 0);
        k.params.mode = LANE_WRITE_BUFFERED; /* the other mode reads the same */
    }
    lane_kit_end(&k);
}

static void filled(struct lane_params *p)
{
    p->mode = LANE_WRITE_DIRECT;
    p->zero_fill = 1;
}

/* Or its file system takes no direct writes. */
static bool has_filled(const struct lane *l)
{
    return l->p.mode != LANE_WRITE_DIRECT || l->open->written == l->open->bytes ||
           (l->spare && l->spare->written == l->spare->bytes);
}

Test(lane, zero_filled_segments)
{
    struct lane_kit k;
    uint64_t qid;

    lane_kit_open(&k, filled);
    lane_kit_put(&k, 30, MIB, 1);
    LANE_KIT_UNTIL(&k, has_filled(k.lane));
    for (int i = 0; i < 30; i++)
        qid = lane_kit_put(&k, (uint64_t)i, MIB, 1);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 31);
    cr_assert_eq(lane_kit_check_body(&k, qid, 29, MIB, 65536), 0);
    lane_kit_end(&k);
}

/* ---- envelopes that cannot be read ---- */

struct unreadable {
    struct lane_envelope_read read;
    bool done, good;
    char text[512];
};

static void unreadable_done(struct lane_envelope_read *r, const struct envelope *env,
                            struct slice error, const struct why *why)
{
    struct unreadable *u = container_of(r, struct unreadable, read);
    (void)error;
    u->done = true;
    u->good = env != NULL;
    snprintf(u->text, sizeof u->text, "%s", why->text);
}

static void read_envelope(struct lane_kit *k, uint64_t qid, struct arena *arena,
                          struct unreadable *u)
{
    *u = (struct unreadable){.read = {.done = unreadable_done}};
    lane_envelope_read(k->lane, lane_find(k->lane, qid), &u->read, arena);
    LANE_KIT_UNTIL(k, u->done);
    arena_reset(arena);
}

static void flip_envelope(const struct lane_kit *k)
{
    char path[400];
    snprintf(path, sizeof path, "%s/lane-00", k->spool);
    DIR *dir = opendir(path);
    cr_assert_not_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        static uint8_t bytes[1 << 16];
        snprintf(path, sizeof path, "%s/lane-00/%s", k->spool, e->d_name);
        int fd = open(path, O_RDWR);
        ssize_t n = fd < 0 ? -1 : pread(fd, bytes, sizeof bytes, 0);
        uint8_t *at = n > 0 ? memmem(bytes, (size_t)n, "sender@example.com", 18) : NULL;
        if (at)
            cr_assert_eq(pwrite(fd, "S", 1, at - bytes), 1);
        if (fd >= 0)
            close(fd);
    }
    closedir(dir);
}

/* What may go well later is told apart from what never will: only that is set aside. */
Test(lane, envelope_damaged_or_only_not_readable_now)
{
    struct lane_kit k;
    struct slab few;
    struct arena small;
    struct unreadable u;

    lane_kit_open(&k, NULL);
    uint64_t qid = lane_kit_put(&k, 1, 4096, 3);
    lane_kit_reopen(&k);
    slab_init(&few, "too few", ARENA_BLOCK_SIZE, 1);
    arena_init(&small, &few, 1);
    cr_assert_not_null(arena_alloc(&small, arena_alloc_max(&small)));
    read_envelope(&k, qid, &small, &u);
    cr_assert(!u.good && !u.read.damaged, "%s", u.text);

    read_envelope(&k, qid, &k.arena, &u);
    cr_assert(u.good);
    flip_envelope(&k);
    read_envelope(&k, qid, &k.arena, &u);
    cr_assert(!u.good && u.read.damaged, "%s", u.text);
    cr_assert_geq(k.damaged_count, 1);
    lane_kit_end(&k);
}
