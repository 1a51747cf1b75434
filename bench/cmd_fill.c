/*
 * bench/cmd_fill.c - the fill command: a spool with many queued messages, made through the lanes'
 * own interface as fast as the disk takes them.
 *
 * Owns:     the spool while it runs (its lock), one lane at a time.
 * Runs on:  one thread.
 * Contract: what it leaves is a spool that a gateway opens: lanes closed in good order, or with
 *           --crash as a crash leaves them.
 * Failure:  exit 1 with what the lane said.
 * Bounds:   FILL_WINDOW transactions at a time.
 * Tests:    bench/depth uses it; run by hand.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/opts.h"
#include "gateway/limits.h"
#include "queue/queue.h"

#define FILL_WINDOW 2048u
#define FILL_FAR_S  (10u * 86400u)

struct fill {
    struct io *io;
    struct lane *lane;
    const char *spool;
    uint64_t lanes, messages, size, defer_s;
    bool crash, closed, opened;
    uint64_t begun, done, failed; /* of this lane */
    uint8_t *body;
    struct fill_tx {
        struct lane_tx tx;
        struct fill *fill;
        bool busy;
    } txs[FILL_WINDOW];
    struct why why;
};

static void fill_done(struct lane_tx *tx, struct queue_msg *m, const struct why *why)
{
    struct fill_tx *t = container_of(tx, struct fill_tx, tx);
    struct fill *f = t->fill;
    uint64_t now_s = io_wall_ns(f->io) / NS_PER_S;

    t->busy = false;
    f->done++;
    if (!m) {
        f->failed++;
        f->why = *why;
    } else if (f->defer_s) {
        lane_defer(f->lane, m, now_s + f->defer_s, true,
                   slice_str("451 4.4.1 Connecting failed: Connection refused"));
    } else { /* as if the process were not quick enough to begin with it */
        m->owner = f;
    }
}

static void fill_one(struct fill *f, struct fill_tx *t)
{
    char rcpt[64];
    struct envelope_rcpt to;
    struct envelope env = {.sender = SLICE_LIT("bench@sender.test"),
                           .client = SLICE_LIT("127.0.0.1"),
                           .helo = SLICE_LIT("client.test"),
                           .connector = SLICE_LIT("relay"),
                           .accepted_wall_ns = io_wall_ns(f->io),
                           .rcpts = &to,
                           .rcpt_count = 1};

    t->tx.done = fill_done;
    t->tx.resumed = NULL;
    t->fill = f;
    if (!lane_tx_begin(f->lane, &t->tx, &f->why)) {
        f->failed = f->messages;
        return;
    }
    t->busy = true;
    snprintf(rcpt, sizeof rcpt, "u%" PRIu64 "@d%" PRIu64 ".test", f->begun, f->begun % 1000);
    memset(&to, 0, sizeof to);
    to.mailbox = slice_str(rcpt);
    for (uint64_t at = 0; at < f->size; at += SESSION_RECV_BUF_SIZE) {
        uint64_t n = f->size - at < SESSION_RECV_BUF_SIZE ? f->size - at : SESSION_RECV_BUF_SIZE;
        if (lane_tx_append(&t->tx, slice_of(f->body + at, n)) != LANE_APPEND_OK)
            f->failed++;
    }
    lane_tx_commit(&t->tx, &env, NULL, NULL, 0);
    f->begun++;
}

static void fill_opened(void *arg, struct lane *l, const struct why *why)
{
    struct fill *f = arg;

    (void)l;
    f->opened = true;
    f->why = *why;
}

static void fill_closed(void *arg)
{
    ((struct fill *)arg)->closed = true;
}

static void fill_forget(struct fill *f)
{
    struct queue_msg *m;
    uint64_t cursor = 0;

    while ((m = lane_next(f->lane, &cursor)))
        m->owner = NULL;
}

static bool fill_lane(struct fill *f, uint32_t number)
{
    struct lane_params p = {.io = f->io,
                            .spool = f->spool,
                            .lane = number,
                            .mode = LANE_WRITE_DIRECT,
                            .arg = f,
                            .opened = fill_opened};

    f->opened = f->closed = false;
    f->begun = f->done = f->failed = 0;
    f->lane = lane_open(&p);
    if (!f->lane)
        return false;
    while (!f->opened)
        io_turn(f->io, true);
    while (f->done < f->messages && !f->failed && !f->why.smtp_code) {
        for (uint32_t i = 0; i < FILL_WINDOW && f->begun < f->messages && !f->failed; i++)
            if (!f->txs[i].busy)
                fill_one(f, &f->txs[i]);
        lane_turn_end(f->lane);
        io_turn(f->io, true);
    }
    if (f->failed || f->why.smtp_code) {
        fprintf(stderr, "hikyaku-bench fill: lane %u: %s\n", number, f->why.text);
        return false;
    }
    if (f->crash) /* the last changes of state go out with a commit of their own */
        for (uint64_t end = io_now_ns(f->io) + 200 * NS_PER_MS; io_now_ns(f->io) < end;) {
            lane_turn_end(f->lane);
            io_turn(f->io, false);
        }
    if (f->crash)
        return true;
    fill_forget(f);
    lane_close(f->lane, fill_closed, f);
    while (!f->closed)
        io_turn(f->io, true);
    return true;
}

static bool fill_all(struct fill *f)
{
    struct io_params params = {.fd_count_max = 1024, .queue_depth = 256, .cpu = -1};
    struct why why;
    int lock;
    bool good;

    f->io = io_create(&params, &why);
    good = f->io && spool_lock(f->io, f->spool, &lock, &why);
    if (!good)
        fprintf(stderr, "hikyaku-bench fill: %s\n", why.text);
    for (uint32_t i = 0; i < f->lanes && good; i++)
        good = fill_lane(f, i);
    if (good)
        printf("%" PRIu64 " messages of %" PRIu64 " bytes in each of %" PRIu64 " lanes\n",
               f->messages, f->size, f->lanes);
    return good;
}

int bench_cmd_fill(int argc, char **argv)
{
    static struct fill f = {.lanes = 1, .messages = 1000000, .size = 4096};
    const struct bench_opt opts[] = {
        {"--spool", "DIR", BENCH_OPT_STRING, &f.spool, 0, 0, NULL, "made when it is not there"},
        {"--lanes", "N", BENCH_OPT_COUNT, &f.lanes, 1, 64, NULL, "one for each shard (1)"},
        {"--messages", "N", BENCH_OPT_COUNT, &f.messages, 1, 100000000, NULL,
         "in each lane (1000000)"},
        {"--size", "BYTES", BENCH_OPT_SIZE, &f.size, 1, 1u << 20, NULL, "of a body (4KiB)"},
        {"--defer", "SECONDS", BENCH_OPT_COUNT, &f.defer_s, 0, FILL_FAR_S, NULL,
         "deferred once, due again in so long; 0: never tried (0)"},
        {"--crash", NULL, BENCH_OPT_FLAG, &f.crash, 0, 0, NULL,
         "leave the last segment open, as a crash does"},
    };
    const struct bench_opt_table table = {"fill", "Fills a spool with queued messages.", opts,
                                          sizeof(opts) / sizeof(opts[0])};
    int status = bench_opts_parse(&table, argc, argv);

    if (status >= 0)
        return status;
    if (!f.spool)
        return bench_opts_error(&table, "--spool DIR is needed");
    f.body = malloc(f.size);
    if (!f.body)
        return BENCH_EXIT_FAILED;
    for (uint64_t i = 0; i < f.size; i++)
        f.body[i] = (uint8_t)(i % 78 == 76 ? '\r' : i % 78 == 77 ? '\n' : 'a' + i % 26);
    return fill_all(&f) ? BENCH_EXIT_OK : BENCH_EXIT_FAILED;
}
