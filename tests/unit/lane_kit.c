/*
 * tests/unit/lane_kit.c - a lane over the real io on a temporary directory, and calls that wait.
 */
#include "tests/unit/lane_kit.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/limits.h"
#include "queue/lane_internal.h"

static void on_opened(void *arg, struct lane *l, const struct why *why)
{
    struct lane_kit *k = arg;

    cr_assert_eq(l, k->lane);
    cr_assert_not(k->opened);
    k->opened = true;
    k->opened_why = *why;
}

static void on_found(void *arg, struct lane *l, struct queue_msg *m)
{
    struct lane_kit *k = arg;

    cr_assert(k->opened && !k->recovered);
    cr_assert_eq(lane_find(l, m->qid), m);
    if (k->found_count < LANE_KIT_FOUND_MAX)
        k->found[k->found_count] = m->qid;
    k->found_count++;
    if (k->on_found)
        k->on_found(k, m);
}

static void on_recovered(void *arg, struct lane *l)
{
    struct lane_kit *k = arg;

    (void)l;
    cr_assert_not(k->recovered);
    k->recovered = true;
}

static void on_due(void *arg, struct lane *l, struct queue_msg *m)
{
    struct lane_kit *k = arg;

    (void)l;
    cr_assert_eq(m->schedule_index, 0);
    k->due_count++;
    k->due_last = m->qid;
    if (k->on_due)
        k->on_due(k, m);
}

static void on_health(void *arg, struct lane *l, enum lane_health h, const struct why *why)
{
    struct lane_kit *k = arg;

    (void)l;
    (void)why;
    k->health = h;
    k->health_count++;
}

static void on_damaged(void *arg, struct lane *l, uint32_t segment, uint64_t offset,
                       const char *what)
{
    struct lane_kit *k = arg;

    (void)l;
    (void)segment;
    (void)offset;
    k->damaged_count++;
    snprintf(k->damaged_what, sizeof k->damaged_what, "%s", what);
}

void lane_kit_start(struct lane_kit *k)
{
    k->opened = k->recovered = k->closed = false;
    k->found_count = k->due_count = k->damaged_count = k->health_count = 0;
    k->lane = lane_open(&k->params);
    cr_assert_not_null(k->lane);
}

static void start_and_wait(struct lane_kit *k)
{
    lane_kit_start(k);
    LANE_KIT_UNTIL(k, k->opened);
    cr_assert_eq(k->opened_why.smtp_code, 0, "%s", k->opened_why.text);
    LANE_KIT_UNTIL(k, k->recovered);
}

static void make_io(struct lane_kit *k)
{
    struct io_params params = {.fd_count_max = 512, .queue_depth = 256, .cpu = -1};
    struct why why;

    k->io = io_create(&params, &why);
    cr_assert_not_null(k->io, "%s", why.text);
}

void lane_kit_open(struct lane_kit *k, void (*edit)(struct lane_params *p))
{
    struct why why;
    int lock;

    memset(k, 0, sizeof *k);
    snprintf(k->spool, sizeof k->spool, "/tmp/hikyaku-lane-XXXXXX");
    cr_assert_not_null(mkdtemp(k->spool));
    make_io(k);
    cr_assert(spool_lock(k->io, k->spool, &lock, &why), "%s", why.text);
    io_unlock(k->io, lock);
    slab_init(&k->blocks, "test arena", ARENA_BLOCK_SIZE, 4096);
    arena_init(&k->arena, &k->blocks, 2048);
    k->params = (struct lane_params){.io = k->io,
                                     .spool = k->spool,
                                     .segment_bytes = 8 * MIB,
                                     .arg = k,
                                     .opened = on_opened,
                                     .found = on_found,
                                     .recovered = on_recovered,
                                     .due = on_due,
                                     .health = on_health,
                                     .damaged = on_damaged};
    if (edit)
        edit(&k->params);
    start_and_wait(k);
}

static void on_closed(void *arg)
{
    struct lane_kit *k = arg;

    k->closed = true;
    k->lane = NULL;
}

void lane_kit_close_lane(struct lane_kit *k)
{
    lane_close(k->lane, on_closed, k);
    LANE_KIT_UNTIL(k, k->closed);
}

void lane_kit_reopen(struct lane_kit *k)
{
    if (k->lane)
        lane_kit_close_lane(k);
    start_and_wait(k);
}

void lane_kit_end(struct lane_kit *k)
{
    char command[160];

    if (k->lane)
        lane_kit_close_lane(k);
    io_timer_clear(k->io, &k->tick);
    io_turn(k->io, false);
    io_destroy(k->io);
    arena_reset(&k->arena);
    slab_destroy(&k->blocks, false);
    snprintf(command, sizeof command, "rm -rf '%s'", k->spool);
    cr_assert_eq(system(command), 0);
}

static void tick(struct timer *t)
{
    (void)t; /* only ends the wait: what a test waits for may come from a timer */
}

void lane_kit_turn(struct lane_kit *k)
{
    k->tick.fire = tick;
    io_timer_set(k->io, &k->tick, io_now_ns(k->io) + NS_PER_MS);
    if (k->lane)
        lane_turn_end(k->lane);
    io_turn(k->io, true);
}

void lane_kit_copy(const struct lane_kit *k, char to[128])
{
    char command[320];

    snprintf(to, 128, "%s.copy", k->spool);
    snprintf(command, sizeof command, "rm -rf '%s' && cp -r --sparse=always '%s' '%s'", to,
             k->spool, to);
    cr_assert_eq(system(command), 0);
}

/* ---- messages ---- */

void lane_kit_body(uint64_t seed, uint64_t offset, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint64_t x = (seed << 32) + (offset + i) / 8;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
        x ^= x >> 27;
        out[i] = (uint8_t)(x >> 8 * ((offset + i) % 8));
    }
}

static void tx_resumed(struct lane_tx *tx)
{
    container_of(tx, struct lane_kit_tx, tx)->resumed = true;
}

static void tx_done(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    struct lane_kit_tx *t = container_of(tx, struct lane_kit_tx, tx);

    cr_assert_not(t->done);
    t->done = true;
    t->msg = m;
    t->code = why->smtp_code;
    t->qid = m ? m->qid : 0;
    cr_assert_eq(m == NULL, why->smtp_code != 0);
}

void lane_kit_begin(struct lane_kit *k, struct lane_kit_tx *t)
{
    struct why why;

    memset(t, 0, sizeof *t);
    t->kit = k;
    t->tx.resumed = tx_resumed;
    t->tx.done = tx_done;
    cr_assert(lane_tx_begin(k->lane, &t->tx, &why), "%s", why.text);
}

void lane_kit_append(struct lane_kit *k, struct lane_kit_tx *t, uint64_t seed, size_t len)
{
    uint8_t bytes[SESSION_RECV_BUF_SIZE];

    while (len) {
        size_t n = len < sizeof bytes ? len : sizeof bytes;
        lane_kit_body(seed, t->tx.body_size, bytes, n);
        t->resumed = false;
        switch (lane_tx_append(&t->tx, slice_of(bytes, n))) {
        case LANE_APPEND_OK: break;
        case LANE_APPEND_WAIT:
            cr_assert_not(t->resumed, "resumed from inside append");
            LANE_KIT_UNTIL(k, t->resumed);
            break;
        case LANE_APPEND_FAILED: return;
        }
        len -= n;
    }
}

static void commit(struct lane_kit *k, struct lane_kit_tx *t, uint32_t rcpt_count,
                   struct queue_msg *parent, uint32_t rcpt)
{
    struct envelope env = {.sender = SLICE_LIT("sender@example.com"),
                           .connector = SLICE_LIT("client-frontend"),
                           .flags = ENVELOPE_8BIT,
                           .accepted_wall_ns = io_wall_ns(k->io),
                           .rcpt_count = rcpt_count};

    env.rcpts = calloc(rcpt_count, sizeof *env.rcpts);
    for (uint32_t i = 0; i < rcpt_count; i++)
        env.rcpts[i].mailbox = SLICE_LIT("rcpt@example.org");
    lane_tx_commit(&t->tx, &env, parent, &rcpt, parent ? 1 : 0);
    cr_assert_not(t->done, "done from inside commit");
    free(env.rcpts);
}

void lane_kit_commit(struct lane_kit *k, struct lane_kit_tx *t, uint32_t rcpt_count)
{
    commit(k, t, rcpt_count, NULL, 0);
}

void lane_kit_commit_dsn(struct lane_kit *k, struct lane_kit_tx *t, struct queue_msg *parent,
                         uint32_t rcpt)
{
    lane_kit_begin(k, t);
    lane_kit_append(k, t, 1000 + rcpt, 700);
    commit(k, t, 1, parent, rcpt);
}

void lane_kit_send(struct lane_kit *k, struct lane_kit_tx *t, uint64_t seed, size_t body_len,
                   uint32_t rcpt_count)
{
    lane_kit_begin(k, t);
    lane_kit_append(k, t, seed, body_len);
    lane_kit_commit(k, t, rcpt_count);
}

uint64_t lane_kit_put(struct lane_kit *k, uint64_t seed, size_t body_len, uint32_t rcpt_count)
{
    struct lane_kit_tx t;

    lane_kit_send(k, &t, seed, body_len, rcpt_count);
    LANE_KIT_UNTIL(k, t.done);
    cr_assert_eq(t.code, 0);
    return t.qid;
}

struct body_read {
    struct lane_read read;
    bool done;
    int32_t res;
};

static void body_done(struct lane_read *r, int32_t res)
{
    struct body_read *b = container_of(r, struct body_read, read);

    b->done = true;
    b->res = res;
}

int32_t lane_kit_check_body(struct lane_kit *k, uint64_t qid, uint64_t seed, size_t body_len,
                            uint32_t piece)
{
    struct queue_msg *m = lane_find(k->lane, qid);
    uint8_t *got = malloc(piece), *want = malloc(piece);
    uint64_t at = 0;
    int32_t result = 0;

    cr_assert_not_null(m);
    cr_assert_eq(m->body_size, body_len);
    do {
        struct body_read b = {.read = {.done = body_done}};
        lane_body_read(k->lane, m, &b.read, at, got, piece);
        cr_assert_not(b.done, "done from inside read");
        LANE_KIT_UNTIL(k, b.done);
        result = b.res < 0 ? b.res : 0;
        if (result)
            break;
        cr_assert_eq((uint64_t)b.res, body_len - at < piece ? body_len - at : piece);
        lane_kit_body(seed, at, want, (size_t)b.res);
        cr_assert_eq(memcmp(got, want, (size_t)b.res), 0, "at %lu", at);
        at += (uint64_t)b.res;
    } while (at < body_len);
    free(got);
    free(want);
    return result;
}

struct env_read {
    struct lane_envelope_read read;
    bool done, good;
    char error[600];
};

static void env_done(struct lane_envelope_read *r, const struct envelope *env, struct slice error,
                     const struct why *why)
{
    struct env_read *e = container_of(r, struct env_read, read);

    e->done = true;
    e->good = env != NULL;
    cr_assert_eq(e->good, why->smtp_code == 0);
    snprintf(e->error, sizeof e->error, "%.*s", (int)error.len,
             error.ptr ? (const char *)error.ptr : "");
}

bool lane_kit_envelope(struct lane_kit *k, uint64_t qid, struct envelope *out, char error[600])
{
    struct queue_msg *m = lane_find(k->lane, qid);
    struct env_read e = {.read = {.done = env_done}};

    cr_assert_not_null(m);
    arena_reset(&k->arena);
    lane_envelope_read(k->lane, m, &e.read, &k->arena);
    cr_assert_not(e.done);
    LANE_KIT_UNTIL(k, e.done);
    *out = e.read.env;
    if (error)
        memcpy(error, e.error, sizeof e.error);
    return e.good;
}

void lane_kit_deliver(struct lane_kit *k, uint64_t qid)
{
    struct queue_msg *m = lane_find(k->lane, qid);

    cr_assert_not_null(m);
    for (uint32_t i = 0, count = m->rcpt_count; i < count; i++)
        lane_rcpts_final(k->lane, m, &i, 1, RCPT_DELIVERED);
    cr_assert_null(lane_find(k->lane, qid));
}

struct settle {
    struct timer timer;
    bool fired;
};

static void settle_fire(struct timer *t)
{
    container_of(t, struct settle, timer)->fired = true;
}

static bool settle_is_busy(const struct lane *l)
{
    return !commit_idle(l) || l->seal.segment || l->prepare.segment || l->reap.running ||
           l->compact.running || l->compact.large.step || l->reads_running || l->quarantine_running;
}

/* A disk that takes its time only makes this longer: the pause begins again with each work seen.
 * It is long enough for what a lane looks for now and then. */
void lane_kit_settle(struct lane_kit *k)
{
    struct settle s = {.timer = {.fire = settle_fire}};

    for (uint32_t turns = 0; !s.fired; turns++) {
        if (turns == 0 || (k->lane && settle_is_busy(k->lane)))
            io_timer_set(k->io, &s.timer, io_now_ns(k->io) + 120 * NS_PER_MS);
        cr_assert_lt(turns, 2000000u);
        lane_kit_turn(k);
    }
}
