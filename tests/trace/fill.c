/*
 * tests/trace/fill.c - fill PATH COUNT: a tracking log of COUNT messages over thirty days, made by
 * the gateway's own log and writer: rotated, packed and indexed as in the product.
 *
 * Message i has the sender sN@client.example (20,000 of them) or, one in a hundred, a newsletter's;
 * the recipient uI@domainD.example, the Message-ID <I@client.example>, and the lines that a gateway
 * writes: accepted, routed, delivered; some deferred first, some failed with a report, some taken
 * over from a peer.
 */
#include <glob.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "gateway/log.h"

#define START_S  1792454400ull /* 2026-10-20 */
#define MONTH_S  (30 * 86400ull)
#define SHARD    3u
#define LINES    (1u << 20) /* bytes of the ring, as in the gateway */
#define ROTATE   (64 * MIB)
#define FOREVER  (3650 * 86400ull)
#define PATH_LEN 4096

static uint64_t now_ns;

static uint64_t wall(void *arg)
{
    (void)arg;
    return now_ns;
}

struct filler {
    struct log log;
    struct log_line line;
    uint64_t i;
    char qid[24], session[40], sender[64], rcpt[64], message_id[64];
};

/* A full ring drops lines; here none may be missing. */
static bool taken(struct filler *f)
{
    uint64_t before = f->log.dropped;
    log_end(&f->line);
    if (f->log.dropped == before)
        return true;
    usleep(2000);
    return false;
}

static void begin(struct filler *f, enum log_event event)
{
    log_begin(&f->line, &f->log, event);
    log_str(&f->line, "qid", f->qid);
    if (f->i % 1000 == 7) {
        char origin[48];
        snprintf(origin, sizeof origin, "5%012" PRIX64, f->i);
        log_str(&f->line, "origin", origin);
    }
    log_str(&f->line, "session", f->session);
}

static void put_accepted(struct filler *f)
{
    do {
        char client[32];
        begin(f, EV_ACCEPTED);
        snprintf(client, sizeof client, "10.%" PRIu64 ".%" PRIu64 ".%" PRIu64, f->i % 7,
                 f->i / 7 % 250, f->i / 1750 % 250);
        log_str(&f->line, "connector", "client-frontend");
        log_str(&f->line, "client", client);
        log_str(&f->line, "account", f->sender);
        log_str(&f->line, "sender", f->sender);
        log_str(&f->line, "recipient", f->rcpt);
        log_u64(&f->line, "recipients", 1);
        log_u64(&f->line, "size", 3000 + f->i % 9000);
        log_str(&f->line, "message_id", f->message_id);
        log_str(&f->line, "tls", "TLSv1.3 TLS_AES_128_GCM_SHA256");
        log_u64(&f->line, "durable_us", 400 + f->i % 900);
    } while (!taken(f));
}

static void put_step(struct filler *f, enum log_event event, uint64_t attempt, uint64_t code,
                     const char *reply)
{
    do {
        begin(f, event);
        log_str(&f->line, "sender", f->sender);
        log_str(&f->line, "recipient", f->rcpt);
        log_u64(&f->line, "attempt", attempt);
        log_str(&f->line, "connector", "internet");
        if (event == EV_ROUTED) {
            log_u64(&f->line, "cost", 10);
            continue;
        }
        log_str(&f->line, "remote", "mx1.domain.example [192.0.2.17:25]");
        log_str(&f->line, "tls", "TLSv1.3 TLS_AES_256_GCM_SHA384");
        log_u64(&f->line, "code", code);
        log_str(&f->line, "status", code < 300 ? "2.0.0" : code < 500 ? "4.2.0" : "5.1.1");
        log_str(&f->line, "reply", reply);
        log_u64(&f->line, "elapsed_us", 20000 + f->i % 300000);
    } while (!taken(f));
}

static void put_report(struct filler *f)
{
    do {
        char qid[24];
        snprintf(qid, sizeof qid, "1%012" PRIX64, f->i);
        log_begin(&f->line, &f->log, EV_DSN);
        log_str(&f->line, "qid", qid);
        log_str(&f->line, "about", f->qid);
        log_str(&f->line, "kind", "failed");
        log_str(&f->line, "session", f->session);
        log_str(&f->line, "recipient", f->sender);
    } while (!taken(f));
}

static void put_message(struct filler *f, uint64_t i, uint64_t count)
{
    now_ns = (START_S + MONTH_S * i / count) * NS_PER_S + i % 1000 * NS_PER_MS;
    f->i = i;
    snprintf(f->qid, sizeof f->qid, "0%012" PRIX64, i);
    snprintf(f->session, sizeof f->session, "03%08" PRIx64 "%06" PRIx64, i / 5, i % 4096);
    if (i % 100 == 50)
        snprintf(f->sender, sizeof f->sender, "newsletter@client.example");
    else
        snprintf(f->sender, sizeof f->sender, "s%" PRIu64 "@client.example", i * 7919 % 20000);
    snprintf(f->rcpt, sizeof f->rcpt, "u%" PRIu64 "@domain%" PRIu64 ".example", i, i % 5000);
    snprintf(f->message_id, sizeof f->message_id, "<%" PRIu64 "@client.example>", i);
    put_accepted(f);
    put_step(f, EV_ROUTED, 1, 0, "");
    if (i % 50 == 3) {
        put_step(f, EV_DEFERRED, 1, 450, "Mailbox busy, try again later");
        now_ns += 60 * NS_PER_S;
    }
    if (i % 100 == 9) {
        put_step(f, EV_FAILED, 1, 550, "No such user here");
        put_report(f);
    } else {
        put_step(f, EV_DELIVERED, i % 50 == 3 ? 2 : 1, 250, "Ok: queued as 4bXyZk1234");
    }
}

/* Packing is another thread's, and ends with the writer. */
static void wait_packed(const char *path)
{
    char pattern[PATH_LEN];
    snprintf(pattern, sizeof pattern, "%s-*Z", path);
    for (;;) {
        glob_t g;
        int none = glob(pattern, 0, NULL, &g);
        globfree(&g);
        if (none == GLOB_NOMATCH)
            return;
        usleep(50000);
    }
}

int main(int argc, char **argv)
{
    uint64_t count = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    static struct filler f;
    struct why why;
    if (!count) {
        fputs("usage: fill PATH COUNT\n", stderr);
        return 2;
    }
    struct ring_bytes *ring = ring_bytes_create(LINES);
    struct log_writer_params p = {.json = true,
                                  .tracking = argv[1],
                                  .tracking_bytes = ROTATE,
                                  .tracking_keep_s = FOREVER,
                                  .rings = &ring,
                                  .ring_count = 1};
    struct log_writer *w = ring ? log_writer_start(&p, &why) : NULL;
    if (!w) {
        fprintf(stderr, "fill: %s\n", ring ? why.text : "out of memory");
        return 1;
    }
    /* Level error: nothing of it is for standard error. */
    f.log = (struct log){
        .ring = ring, .level = LOG_ERROR, .tracking = true, .wall_ns = wall, .shard = SHARD};
    for (uint64_t i = 0; i < count; i++)
        put_message(&f, i, count);
    wait_packed(argv[1]);
    log_writer_stop(w);
    ring_bytes_destroy(ring);
    return 0;
}
