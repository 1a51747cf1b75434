/*
 * tests/unit/test_lane_fault.c - writes that fail, disks that are full, crashes. A limit on the
 * size of files makes writes behind it fail as a broken disk would.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gateway/base/prng.h"
#include "gateway/limits.h"
#include "tests/unit/lane_kit.h"

static void direct(struct lane_params *p)
{
    p->mode = LANE_WRITE_DIRECT;
}

static void file_limit(uint64_t bytes)
{
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};

    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A failed commit: 451, the segment is left, the next one serves; nothing of the failed one is
 * found later. */
Test(lane_fault, failed_write_then_the_next_segment)
{
    struct lane_kit k;
    struct lane_kit_tx t, other;
    struct queue_msg *m;
    uint64_t kept, delivered, deferred, after;
    uint32_t zero = 0;

    lane_kit_open(&k, NULL);
    kept = lane_kit_put(&k, 1, 300, 1);
    delivered = lane_kit_put(&k, 2, 300, 1);
    deferred = lane_kit_put(&k, 3, 300, 2);
    for (int i = 0; i < 4; i++) /* behind what the limit will allow */
        lane_kit_put(&k, 4, 2000, 1);
    lane_kit_settle(&k);
    file_limit(8192);
    lane_kit_begin(&k, &other);
    lane_kit_append(&k, &other, 5, 50000); /* an extent in the batch that fails */
    lane_kit_send(&k, &t, 6, 100, 1);
    lane_kit_deliver(&k, delivered);
    m = lane_find(k.lane, deferred);
    lane_rcpts_final(k.lane, m, &zero, 1, RCPT_DELIVERED);
    lane_defer(k.lane, m, 4000000000, true, SLICE_LIT("later"));
    LANE_KIT_UNTIL(&k, t.done);
    cr_assert_eq(t.code, 451);
    cr_assert_eq(lane_stats(k.lane)->sync_failed, 1);
    after = lane_kit_put(&k, 7, 100, 1); /* fits below the limit of the new segment */
    lane_kit_commit(&k, &other, 1);
    LANE_KIT_UNTIL(&k, other.done);
    cr_assert_eq(other.code, 451, "its extent is lost");
    lane_kit_settle(&k);
    cr_assert_eq(lane_health(k.lane), LANE_OK);
    cr_assert_geq(k.health_count, 2);
    file_limit(RLIM_INFINITY);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 7);
    cr_assert_null(lane_find(k.lane, delivered));
    cr_assert_not_null(lane_find(k.lane, kept));
    m = lane_find(k.lane, deferred);
    cr_assert(m->state == QUEUE_DEFERRED && m->rcpt_pending == 1 && m->attempts == 1);
    cr_assert_eq(lane_kit_check_body(&k, after, 7, 100, 100), 0);
    cr_assert_eq(lane_kit_check_body(&k, kept, 1, 300, 100), 0);
    lane_kit_end(&k);
}

/* A body with extents in the batch that fails and in the next segment's first one: its message is
 * not acknowledged. */
Test(lane_fault, extents_on_both_sides_of_a_failed_batch)
{
    struct lane_kit k;
    struct lane_kit_tx t, other;

    lane_kit_open(&k, NULL);
    while (lane_stats(k.lane)->appended_bytes < 7800000)
        lane_kit_put(&k, 1, 30000, 1);
    lane_kit_settle(&k);
    file_limit(7000000);
    lane_kit_begin(&k, &t);
    for (uint64_t n = 0, at = lane_stats(k.lane)->appended_bytes; n < 30; n++) {
        uint8_t bytes[SPOOL_CHUNK_SIZE / 2] = {0};
        cr_assert_neq(lane_tx_append(&t.tx, slice_of(bytes, sizeof bytes)), LANE_APPEND_FAILED);
        cr_assert_neq(lane_tx_append(&t.tx, slice_of(bytes, sizeof bytes)), LANE_APPEND_FAILED);
        if (n == 29)
            cr_assert_gt(lane_stats(k.lane)->appended_bytes, at + 20 * SPOOL_CHUNK_SIZE);
    }
    lane_kit_commit(&k, &t, 1);
    LANE_KIT_UNTIL(&k, t.done);
    cr_assert_eq(t.code, 451, "half of it is lost");
    file_limit(RLIM_INFINITY);
    lane_kit_send(&k, &other, 2, 100, 1);
    LANE_KIT_UNTIL(&k, other.done);
    lane_kit_reopen(&k);
    cr_assert_null(lane_find(k.lane, t.tx.qid));
    lane_kit_end(&k);
}

static void parts(struct lane_params *p)
{
    p->mode = LANE_WRITE_DIRECT;
    p->early_bytes = 1;
}

/* Parts of bodies are written, and the write that brings their sync fails: they are lost, too. */
Test(lane_fault, parts_before_a_write_that_fails)
{
    struct lane_kit k;
    struct lane_kit_tx t, other;
    uint64_t kept, after;

    lane_kit_open(&k, parts);
    kept = lane_kit_put(&k, 1, 9000, 1);
    lane_kit_settle(&k);
    lane_kit_begin(&k, &other);
    lane_kit_append(&k, &other, 2, 40000);
    lane_kit_turn(&k);
    lane_kit_begin(&k, &t);
    lane_kit_append(&k, &t, 3, 100000);
    file_limit(8192);
    lane_kit_commit(&k, &t, 1);
    LANE_KIT_UNTIL(&k, t.done);
    cr_assert_eq(t.code, 451);
    cr_assert_geq(lane_stats(k.lane)->sync_failed, 1);
    file_limit(RLIM_INFINITY);
    LANE_KIT_UNTIL(&k, lane_health(k.lane) == LANE_OK);
    after = lane_kit_put(&k, 4, 100000, 1);
    lane_kit_commit(&k, &other, 1);
    LANE_KIT_UNTIL(&k, other.done);
    lane_kit_reopen(&k);
    cr_assert_null(lane_find(k.lane, t.tx.qid));
    cr_assert_eq(lane_kit_check_body(&k, kept, 1, 9000, 4096), 0);
    cr_assert_eq(lane_kit_check_body(&k, after, 4, 100000, 65536), 0);
    if (other.code == 0) /* a slow disk: its part was synced before */
        cr_assert_eq(lane_kit_check_body(&k, other.qid, 2, 40000, 4096), 0);
    else
        cr_assert_null(lane_find(k.lane, other.tx.qid));
    lane_kit_end(&k);
}

static void small_lane(struct lane_params *p)
{
    p->bytes_max = 10 * 8 * MIB;
}

/* One slow upload beside traffic that comes and goes: it may not fill the lane with dead segments.
 */
Test(lane_fault, slow_upload_gives_way_when_room_is_short)
{
    struct lane_kit k;
    struct lane_kit_tx slow, fresh;

    lane_kit_open(&k, small_lane);
    lane_kit_begin(&k, &slow);
    lane_kit_append(&k, &slow, 1, 40000); /* its first extent */
    for (uint32_t i = 0; i < 6000 && lane_stats(k.lane)->uploads_cut == 0; i++) {
        struct lane_kit_tx t;
        lane_kit_send(&k, &t, i, 30000, 1);
        LANE_KIT_UNTIL(&k, t.done);
        cr_assert_eq(t.code, 0, "message %u", i);
        lane_kit_deliver(&k, t.qid);
    }
    cr_assert_eq(lane_stats(k.lane)->uploads_cut, 1);
    cr_assert_geq(lane_stats(k.lane)->segments, 3, "not before room is short");
    lane_kit_commit(&k, &slow, 1);
    LANE_KIT_UNTIL(&k, slow.done);
    cr_assert_eq(slow.code, 452);
    for (int i = 0; i < 20 && lane_stats(k.lane)->segments > 4; i++)
        lane_kit_settle(&k);
    cr_assert_leq(lane_stats(k.lane)->segments, 4, "%lu", lane_stats(k.lane)->segments);
    lane_kit_begin(&k, &fresh); /* one that keeps little is let alone */
    lane_kit_append(&k, &fresh, 2, 40000);
    lane_kit_settle(&k);
    lane_kit_commit(&k, &fresh, 1);
    LANE_KIT_UNTIL(&k, fresh.done);
    cr_assert_eq(fresh.code, 0);
    lane_kit_end(&k);
}

/* Twice in a row: mail is refused, changes of state are kept, and all goes on by itself when the
 * disk is back. */
Test(lane_fault, stops_and_recovers)
{
    struct lane_kit k;
    struct lane_kit_tx t;
    struct why why;
    uint64_t a, b;

    lane_kit_open(&k, NULL);
    a = lane_kit_put(&k, 1, 300, 1);
    b = lane_kit_put(&k, 2, 300, 1);
    lane_kit_settle(&k);
    file_limit(100);
    lane_kit_send(&k, &t, 3, 100, 1);
    LANE_KIT_UNTIL(&k, t.done);
    cr_assert_eq(t.code, 451);
    LANE_KIT_UNTIL(&k, lane_health(k.lane) == LANE_STOPPED && k.health == LANE_STOPPED);
    cr_assert_not(lane_has_room(k.lane, 100, &why));
    cr_assert_eq(why.smtp_code, 451);
    cr_assert_str_eq(why.enhanced, "4.3.0");
    memset(&t, 0, sizeof t);
    cr_assert_not(lane_tx_begin(k.lane, &t.tx, &why));
    cr_assert_eq(lane_kit_check_body(&k, b, 2, 300, 100), 0, "what is durable is delivered");
    lane_kit_deliver(&k, a);
    lane_kit_settle(&k);
    file_limit(RLIM_INFINITY);
    LANE_KIT_UNTIL(&k, lane_health(k.lane) == LANE_OK);
    lane_kit_put(&k, 4, 100, 1);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 2);
    cr_assert_null(lane_find(k.lane, a));
    cr_assert_not_null(lane_find(k.lane, b));
    lane_kit_end(&k);
}

static uint64_t unwritten_qid;
static uint32_t unwritten_count;

static void unwritten(void *arg, struct lane *l, uint64_t qid)
{
    (void)arg;
    (void)l;
    unwritten_qid = qid;
    unwritten_count++;
}

static void patient(struct lane_params *p)
{
    p->close_wait_ns = 300 * NS_PER_S;
    p->unwritten = unwritten;
}

static void hasty(struct lane_params *p)
{
    p->close_wait_ns = NS_PER_S / 2;
    p->unwritten = unwritten;
}

/* Stopped by a broken disk; the first of two messages is delivered, which cannot be written. */
static void stopped_with_news(struct lane_kit *k, uint64_t *delivered, uint64_t *deferred)
{
    struct lane_kit_tx t;

    *delivered = lane_kit_put(k, 1, 300, 1);
    *deferred = lane_kit_put(k, 2, 300, 2);
    lane_kit_settle(k);
    file_limit(100);
    lane_kit_send(k, &t, 3, 100, 1);
    LANE_KIT_UNTIL(k, lane_health(k->lane) == LANE_STOPPED && t.done);
    lane_kit_deliver(k, *delivered);
}

static void note_closed(void *arg)
{
    *(bool *)arg = true;
}

static void begin_closing(struct lane_kit *k, bool *closed)
{
    struct lane *l = k->lane;

    k->lane = NULL;
    lane_close(l, note_closed, closed);
    for (int i = 0; i < 10; i++)
        lane_kit_turn(k);
}

/* A drain beside a disk that takes nothing: the last words wait for it. */
Test(lane_fault, closing_waits_for_the_disk)
{
    struct lane_kit k;
    struct queue_msg *m;
    uint64_t delivered, deferred;
    bool closed = false;

    unwritten_count = 0;
    lane_kit_open(&k, patient);
    stopped_with_news(&k, &delivered, &deferred);
    m = lane_find(k.lane, deferred);
    lane_rcpts_final(k.lane, m, &(uint32_t){1}, 1, RCPT_DELIVERED);
    lane_defer(k.lane, m, 4000000000, true, SLICE_LIT("450 later"));
    begin_closing(&k, &closed);
    cr_assert_not(closed);
    file_limit(RLIM_INFINITY);
    LANE_KIT_UNTIL(&k, closed);
    cr_assert_eq(unwritten_count, 0);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1);
    m = lane_find(k.lane, deferred);
    cr_assert(m && m->rcpt_pending == 1 && m->attempts == 1 && m->state == QUEUE_DEFERRED);
    lane_kit_end(&k);
}

/* Not for ever: then what may be delivered again is said. */
Test(lane_fault, closing_says_what_the_disk_did_not_take)
{
    struct lane_kit k;
    uint64_t delivered, deferred;
    bool closed = false;

    unwritten_count = 0;
    lane_kit_open(&k, hasty);
    stopped_with_news(&k, &delivered, &deferred);
    begin_closing(&k, &closed);
    LANE_KIT_UNTIL(&k, closed);
    file_limit(RLIM_INFINITY);
    cr_assert_geq(unwritten_count, 1);
    cr_assert_eq(unwritten_qid, delivered);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 2);
    lane_kit_end(&k);
}

/* Closing waits for nothing that cannot come, and for what must: open transactions. */
Test(lane_fault, closes_while_stopped)
{
    struct lane_kit k;
    struct lane_kit_tx t, open;
    uint64_t a;

    lane_kit_open(&k, NULL);
    a = lane_kit_put(&k, 1, 300, 1);
    lane_kit_settle(&k);
    lane_kit_begin(&k, &open);
    lane_kit_append(&k, &open, 9, 1000);
    file_limit(100);
    lane_kit_send(&k, &t, 3, 100, 1);
    LANE_KIT_UNTIL(&k, lane_health(k.lane) == LANE_STOPPED && t.done);
    lane_kit_deliver(&k, a); /* cannot be written any more */
    lane_close(k.lane, NULL, NULL);
    for (int i = 0; i < 3; i++)
        lane_kit_turn(&k);
    lane_tx_abort(&open.tx);
    k.lane = NULL;
    lane_kit_settle(&k);
    file_limit(RLIM_INFINITY);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1, "it is delivered again");
    lane_kit_end(&k);
}

static void small(struct lane_params *p)
{
    p->bytes_max = 24 * MIB; /* three segments */
}

/* Room runs out: 452, states can still be written, and delivering makes room again. */
Test(lane_fault, full_and_free_again)
{
    enum { MAX = 64 };
    struct lane_kit k;
    struct lane_kit_tx t;
    struct why why;
    uint64_t qids[MAX];
    uint32_t count = 0;

    lane_kit_open(&k, small);
    while (lane_has_room(k.lane, MIB, &why) && count < MAX) {
        lane_kit_send(&k, &t, count, MIB, 1);
        LANE_KIT_UNTIL(&k, t.done);
        if (t.code) {
            cr_assert_eq(t.code, 452);
            break;
        }
        qids[count++] = t.qid;
        lane_kit_settle(&k);
    }
    cr_assert(count >= 12 && count < 24, "%u", count);
    cr_assert_not(lane_has_room(k.lane, MIB, &why));
    cr_assert_eq(why.smtp_code, 452);
    cr_assert_str_eq(why.enhanced, "4.3.1");
    cr_assert_leq(lane_stats(k.lane)->segment_bytes, 24 * MIB);
    for (int round = 0; round < 200; round++) /* the reserve */
        lane_defer(k.lane, lane_find(k.lane, qids[0]), 4000000000, true, SLICE_LIT("later"));
    lane_kit_settle(&k);
    for (uint32_t i = 0; i < count; i++)
        lane_kit_deliver(&k, qids[i]);
    LANE_KIT_UNTIL(&k, lane_has_room(k.lane, MIB, &why));
    lane_kit_put(&k, 99, MIB, 1);
    cr_assert_eq(lane_health(k.lane), LANE_OK);
    lane_kit_reopen(&k);
    cr_assert_eq(k.found_count, 1);
    lane_kit_end(&k);
}

/* The newest segment file of the copied spool. */
static void newest_segment(const char *spool, char path[256])
{
    char dir[160], best[64] = "";
    struct dirent *e;
    DIR *d;

    snprintf(dir, sizeof dir, "%s/lane-00", spool);
    d = opendir(dir);
    cr_assert_not_null(d);
    while ((e = readdir(d)) != NULL)
        if (strlen(e->d_name) == 12 && strcmp(e->d_name + 8, ".seg") == 0 &&
            strcmp(e->d_name, best) > 0) {
            char name[256];
            uint8_t bytes[16];
            FILE *file;
            snprintf(name, sizeof name, "%s/%.12s", dir, e->d_name);
            file = fopen(name, "r");
            cr_assert_eq(fseek(file, 4096, SEEK_SET), 0);
            cr_assert_eq(fread(bytes, 1, sizeof bytes, file), sizeof bytes);
            fclose(file);
            if (memcmp(bytes, (uint8_t[16]){0}, sizeof bytes) != 0)
                snprintf(best, sizeof best, "%.12s", e->d_name);
        }
    closedir(d);
    snprintf(path, 256, "%s/%s", dir, best);
}

/* As a crash leaves it: the directory is copied while the lane is open, the tail zeroed from a
 * random point on. */
static void crash_at_any_point_of_the_tail(void (*mode)(struct lane_params *p))
{
    enum { COUNT = 40, ROUNDS = 25 };
    struct lane_kit k, crashed;
    uint64_t qids[COUNT];
    uint32_t ends[COUNT];
    char copy[128], path[256], command[400];
    struct prng rng;

    prng_seed(&rng, 3);
    lane_kit_open(&k, mode);
    for (int i = 0; i < COUNT; i++) {
        struct queue_msg *m;
        qids[i] = lane_kit_put(&k, (uint64_t)i, 100 + (size_t)i * 37, 1);
        m = lane_find(k.lane, qids[i]);
        ends[i] = m->offset + m->record_size;
    }
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t cut =
            round ? 4096 + (uint32_t)prng_below(&rng, ends[COUNT - 1] - 4096) : ends[COUNT - 1];
        uint8_t *zeros = calloc(1, MIB);
        int fd;
        lane_kit_copy(&k, copy);
        newest_segment(copy, path);
        fd = open(path, O_WRONLY);
        cr_assert_geq(fd, 0);
        cr_assert_eq(pwrite(fd, zeros, MIB, cut), (ssize_t)MIB);
        close(fd);
        free(zeros);
        lane_kit_open(&crashed, mode);
        lane_kit_close_lane(&crashed);
        snprintf(command, sizeof command, "rm -rf '%s' && mv '%s' '%s'", crashed.spool, copy,
                 crashed.spool);
        cr_assert_eq(system(command), 0);
        for (int again = 0; again < 2; again++) { /* and once more after a first recovery */
            lane_kit_reopen(&crashed);
            for (int i = 0; i < COUNT; i++) {
                struct queue_msg *m = lane_find(crashed.lane, qids[i]);
                cr_assert_eq(m != NULL, ends[i] <= cut, "message %d, cut %u", i, cut);
                if (m)
                    cr_assert_eq(lane_kit_check_body(&crashed, qids[i], (uint64_t)i,
                                                     100 + (size_t)i * 37, 65536),
                                 0);
            }
        }
        cr_assert_gt(lane_kit_put(&crashed, 1, 10, 1), qids[COUNT - 1]);
        lane_kit_end(&crashed);
    }
    lane_kit_end(&k);
}

Test(lane_fault, crash_at_any_point_of_the_tail_buffered)
{
    crash_at_any_point_of_the_tail(NULL);
}

Test(lane_fault, crash_at_any_point_of_the_tail_direct)
{
    crash_at_any_point_of_the_tail(direct);
}

/*
 * Messages come, are deferred and delivered at random for a while, with crashes in between: after
 * each, exactly what was durable is there. Segments are deleted and used again meanwhile.
 */
static void random_life_with_crashes(void (*mode)(struct lane_params *p))
{
    enum { MAX = 600, STEPS = 4000 };
    struct lane_kit k;
    uint64_t *qids = calloc(MAX, sizeof *qids);
    uint8_t *attempts = calloc(MAX, 1);
    uint32_t count = 0, highest = 0;
    struct prng rng;
    char copy[128], command[400];

    prng_seed(&rng, 11);
    lane_kit_open(&k, mode);
    for (int step = 0; step < STEPS; step++) {
        uint32_t what = (uint32_t)prng_below(&rng, 100), i;
        if (what < 52 && count < MAX) {
            qids[count] = lane_kit_put(&k, count, 20000, 1);
            attempts[count++] = 0;
        } else if (what < 96 && count) {
            i = (uint32_t)prng_below(&rng, count);
            if (qids[i] && what < 60) {
                lane_defer(k.lane, lane_find(k.lane, qids[i]), 4000000000, true,
                           SLICE_LIT("later"));
                attempts[i]++;
            } else if (qids[i]) {
                lane_kit_deliver(&k, qids[i]);
                qids[i] = 0;
            }
        }
        if (count == MAX)
            for (count = 0, i = 0; i < MAX; i++)
                if (qids[i]) {
                    qids[count] = qids[i];
                    attempts[count++] = attempts[i];
                }
        if (lane_stats(k.lane)->segments > highest)
            highest = (uint32_t)lane_stats(k.lane)->segments;
        if (step % 500 != 499)
            continue;
        lane_kit_settle(&k);
        lane_kit_copy(&k, copy);
        lane_kit_close_lane(&k);
        snprintf(command, sizeof command, "rm -rf '%s' && mv '%s' '%s'", k.spool, copy, k.spool);
        cr_assert_eq(system(command), 0);
        lane_kit_reopen(&k);
        for (i = 0, what = 0; i < count; i++) {
            struct queue_msg *m = qids[i] ? lane_find(k.lane, qids[i]) : NULL;
            if (!qids[i])
                continue;
            what++;
            cr_assert_not_null(m, "lost");
            cr_assert_eq(m->attempts, attempts[i]);
        }
        cr_assert_eq(k.found_count, what, "came back");
        cr_assert_eq(k.damaged_count, 0, "%s", k.damaged_what);
    }
    cr_assert_gt(lane_stats(k.lane)->segments, 1);
    cr_assert_lt(highest, 12, "%u", highest);
    free(qids);
    free(attempts);
    lane_kit_end(&k);
}

Test(lane_fault, random_life_with_crashes_buffered)
{
    random_life_with_crashes(NULL);
}

Test(lane_fault, random_life_with_crashes_direct)
{
    random_life_with_crashes(direct);
}

Test(lane_fault, random_life_with_crashes_in_parts)
{
    random_life_with_crashes(parts);
}

enum fate { FATE_NONE, FATE_LIVE, FATE_OVER, FATE_REFUSED };

struct life {
    struct lane_kit_tx t;
    uint64_t qid, seed;
    size_t len;
    enum fate fate;
    uint8_t attempts;
};

static void check_lives(struct lane_kit *k, struct life *lives, uint32_t count)
{
    uint32_t live = 0;

    for (uint32_t i = 0; i < count; i++) {
        struct life *x = &lives[i];
        struct queue_msg *m = lane_find(k->lane, x->qid);
        cr_assert_eq(m != NULL, x->fate == FATE_LIVE, "message %u, fate %d", i, x->fate);
        if (!m)
            continue;
        live++;
        cr_assert_eq(m->attempts, x->attempts, "message %u", i);
        cr_assert_eq(lane_kit_check_body(k, x->qid, x->seed, x->len, 65536), 0);
    }
    cr_assert_eq(k->found_count, live);
}

/* Writes fail now and then, amid small and large messages and changes of state; crashes in between.
 */
static void random_life_with_failing_writes(void (*mode)(struct lane_params *p))
{
    enum { ROUNDS = 40, PER_ROUND = 12, MAX = ROUNDS * PER_ROUND };
    struct life *lives = calloc(MAX, sizeof *lives);
    char copy[128], command[400];
    struct lane_kit k;
    struct prng rng;
    uint32_t count = 0, refused = 0;

    prng_seed(&rng, 17);
    lane_kit_open(&k, mode);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t from = count;
        bool fails = prng_below(&rng, 4) == 0;
        for (; count < from + PER_ROUND; count++) {
            struct life *x = &lives[count];
            x->seed = count;
            x->len = prng_below(&rng, 5) ? prng_below(&rng, 9000) : prng_below(&rng, 300000);
            if (fails && count == from + PER_ROUND / 2)
                file_limit(4096 + 300 + prng_below(&rng, 30000));
            lane_kit_send(&k, &x->t, x->seed, x->len, 1);
            x->qid = x->t.tx.qid;
        }
        for (uint32_t i = 0; i < from; i += 1 + (uint32_t)prng_below(&rng, 20)) {
            if (lives[i].fate != FATE_LIVE)
                continue;
            if (prng_below(&rng, 2)) {
                lane_kit_deliver(&k, lives[i].qid);
                lives[i].fate = FATE_OVER;
            } else {
                lane_defer(k.lane, lane_find(k.lane, lives[i].qid), 4000000000, true,
                           SLICE_LIT("later"));
                lives[i].attempts++;
            }
        }
        for (uint32_t i = 0; fails && i < 50; i++)
            lane_kit_turn(&k);
        file_limit(RLIM_INFINITY);
        for (uint32_t i = from; i < count; i++) {
            LANE_KIT_UNTIL(&k, lives[i].t.done);
            lives[i].fate = lives[i].t.code ? FATE_REFUSED : FATE_LIVE;
            refused += lives[i].t.code != 0;
        }
        LANE_KIT_UNTIL(&k, lane_health(k.lane) == LANE_OK);
        if (round % 10 != 9)
            continue;
        lane_kit_settle(&k);
        lane_kit_copy(&k, copy);
        lane_kit_close_lane(&k);
        snprintf(command, sizeof command, "rm -rf '%s' && mv '%s' '%s'", k.spool, copy, k.spool);
        cr_assert_eq(system(command), 0);
        lane_kit_reopen(&k);
        check_lives(&k, lives, count);
    }
    cr_assert(refused > 5 && refused < MAX / 2, "%u", refused);
    free(lives);
    lane_kit_end(&k);
}

Test(lane_fault, random_life_with_failing_writes_buffered)
{
    random_life_with_failing_writes(NULL);
}

Test(lane_fault, random_life_with_failing_writes_direct)
{
    random_life_with_failing_writes(direct);
}

Test(lane_fault, random_life_with_failing_writes_in_parts)
{
    random_life_with_failing_writes(parts);
}
