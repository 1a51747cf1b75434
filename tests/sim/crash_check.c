/*
 * tests/sim/crash_check.c - recoveries from what power cuts leave, held against the books.
 *
 * Owns:     a machine of its own, on whose disk the copies are laid.
 * Runs on:  the one thread of the simulation.
 * Contract: acknowledged: found, with the right bytes; final and durable: never back; neither:
 *           whole or absent. Reading a second time, also after a crash
 *           inside the first, finds the same.
 * Failure:  run->fault says what was wrong, and where.
 * Bounds:   HASHES_MAX different disks of one point are told apart.
 * Tests:    tests/sim/test_crash_points.c
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "gateway/limits.h"
#include "tests/sim/crash_kit.h"

#define HASHES_MAX  1024u
#define TORN_CUTS   4u
#define CHANCE_CUTS 24u
#define INNER_MAX   24u
#define PIECE       4096u

struct finding {
    uint64_t qid;
    uint8_t state;
    uint32_t final;
};

struct checker {
    struct crash_lane k;
    struct crash_run *run;
    const struct crash_point *point;
    struct sim *sim;
    struct sim_host *host;
    uint64_t keep;
    const char *when; /* "recovery", "second recovery" */
    struct finding found[CRASH_MESSAGES_MAX + 1];
    uint32_t found_count;
    /* crashes inside a recovery */
    struct sim_disk *inner[INNER_MAX];
    uint32_t inner_count;
    bool body_done;
    int32_t body_res;
    uint64_t hashes[HASHES_MAX];
    uint32_t hash_count;
};

__attribute__((format(printf, 2, 3))) static bool wrong(struct checker *c, const char *fmt, ...)
{
    char work[200], text[100];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (c->run->fault[0] == '\0')
        snprintf(c->run->fault, sizeof c->run->fault, "%s: before effect %llu, kept %llx: %s: %s",
                 crash_work_text(c->run->work, work), (unsigned long long)c->point->effect,
                 (unsigned long long)c->keep, c->when, text);
    return false;
}

/* ---- one message ---- */

static void on_found(struct crash_lane *k, struct queue_msg *m)
{
    struct checker *c = container_of(k, struct checker, k);
    struct finding f = {.qid = m->qid, .state = (uint8_t)m->state};

    for (uint32_t i = 0; i < m->rcpt_count && i < 32; i++)
        f.final |= (uint32_t)queue_msg_rcpt_is_final(m, i) << i;
    if (c->found_count <= CRASH_MESSAGES_MAX)
        c->found[c->found_count++] = f;
}

static const struct finding *found(const struct checker *c, uint64_t qid)
{
    for (uint32_t i = 0; i < c->found_count; i++)
        if (c->found[i].qid == qid)
            return &c->found[i];
    return NULL;
}

static void on_body(struct lane_read *r, int32_t res)
{
    struct checker *c = r->msg->owner;

    c->body_done = true;
    c->body_res = res;
}

static bool check_body(struct checker *c, uint32_t index, struct queue_msg *m, uint32_t size)
{
    uint8_t piece[PIECE];

    if (m->body_size != size || m->rcpt_count != c->point->books.entries[index].rcpts)
        return wrong(c, "message %u has another size or other recipients", index);
    m->owner = c;
    for (uint32_t at = 0; at < size;) {
        struct lane_read r = {.done = on_body};
        uint32_t n = size - at < PIECE ? size - at : PIECE;
        c->body_done = false;
        lane_body_read(c->k.lane, m, &r, at, piece, n);
        while (!c->body_done)
            crash_lane_turn(&c->k);
        if (c->body_res != (int32_t)n)
            return wrong(c, "message %u cannot be read: %d", index, c->body_res);
        for (uint32_t i = 0; i < n; i++)
            if (piece[i] != crash_byte(index, at + i))
                return wrong(c, "message %u has wrong bytes at %u", index, at + i);
        at += n;
    }
    m->owner = NULL;
    return true;
}

static bool check_entry(struct checker *c, uint32_t index)
{
    const struct crash_entry *e = &c->point->books.entries[index];
    const struct finding *f = found(c, e->qid);
    uint32_t all = (1u << e->rcpts) - 1;
    bool known = false;

    if (!f) {
        if (e->acked && e->asked != all)
            return wrong(c, "message %u was acknowledged and is lost", index);
        return true;
    }
    if (e->durable == all)
        return wrong(c, "message %u was over and is back", index);
    if ((f->final & e->durable) != e->durable)
        return wrong(c, "message %u: a recipient that was final is not", index);
    if (f->final & ~e->asked)
        return wrong(c, "message %u: a recipient is final that nobody said so of", index);
    for (uint32_t i = e->state_durable; i < e->state_count; i++)
        known |= e->states[i] == f->state;
    if (!known)
        return wrong(c, "message %u is in state %u", index, f->state);
    return check_body(c, index, lane_find(c->k.lane, e->qid), e->size);
}

/* A DSN and the failure that it reports: both or neither. */
static bool check_pair(struct checker *c, uint32_t index)
{
    const struct crash_books *b = &c->point->books;
    const struct crash_entry *dsn = &b->entries[index], *parent = &b->entries[dsn->parent];
    const struct finding *f = found(c, parent->qid);
    bool final = !f || f->final >> dsn->parent_rcpt & 1;
    bool dsn_over = dsn->asked == (1u << dsn->rcpts) - 1;

    if (found(c, dsn->qid) && !final)
        return wrong(c, "the report %u is there, the failure is not", index);
    if (!found(c, dsn->qid) && !dsn_over && f && final)
        return wrong(c, "the failure is there, its report %u is not", index);
    return true;
}

static bool check_books(struct checker *c)
{
    const struct crash_books *b = &c->point->books;
    uint32_t known = 0;

    for (uint32_t i = 0; i < b->count; i++) {
        known += found(c, b->entries[i].qid) != NULL;
        if (!check_entry(c, i) || (b->entries[i].parent >= 0 && !check_pair(c, i)))
            return false;
    }
    return known == c->found_count || wrong(c, "found what nobody sent, or something twice");
}

/* ---- one recovery ---- */

static void look_inside(void *arg, uint64_t n)
{
    struct checker *c = arg;

    (void)n;
    if (c->inner_count < INNER_MAX)
        c->inner[c->inner_count++] = sim_host_disk_save(c->host);
}

/* Reads the disk of the host; the lane stays open when all is well. */
static bool recover(struct checker *c, bool look)
{
    sim_host_enter(c->host);
    c->k = (struct crash_lane){.found = on_found};
    c->found_count = 0;
    c->run->recoveries++;
    sim_host_on_disk_op(c->host, look ? look_inside : NULL, c);
    if (!crash_lane_open(&c->k, c->run->work->mode))
        return wrong(c, "%.80s", c->k.why.text);
    sim_host_on_disk_op(c->host, NULL, NULL);
    return check_books(c);
}

static bool same_findings(struct checker *c, const struct finding *before, uint32_t count)
{
    if (count != c->found_count)
        return wrong(c, "found %u messages, then %u", count, c->found_count);
    for (uint32_t i = 0; i < count; i++) {
        const struct finding *f = found(c, before[i].qid);
        if (!f || f->state != before[i].state || f->final != before[i].final)
            return wrong(c, "found something else than before");
    }
    return true;
}

/* Crashes at the effects of the recovery itself: what was found must be found again. */
static bool check_inner(struct checker *c, const struct finding *before, uint32_t count)
{
    bool ok = true;

    c->when = "recovery after a crash in recovery";
    for (uint32_t i = 0; i < c->inner_count; i++) {
        for (int cut = 0; ok && cut < 3; cut++) {
            sim_host_disk_load(c->host, c->inner[i]);
            if (cut == 2)
                sim_host_power_cut(c->host);
            else
                sim_host_power_cut_subset(c->host, cut ? UINT64_MAX : 0);
            ok = recover(c, false) && same_findings(c, before, count);
            if (ok)
                crash_lane_close(&c->k, false);
        }
        sim_disk_free(c->inner[i]);
    }
    c->inner_count = 0;
    return ok;
}

/* All that was found ends; it must stay away, whatever a crash makes of it. */
static bool check_gone(struct checker *c)
{
    struct crash_books none = c->point->books;
    const struct crash_point *point = c->point;
    struct crash_point over = *point;
    bool ok = true;

    for (uint32_t i = 0; i < c->found_count; i++) {
        struct queue_msg *m = lane_find(c->k.lane, c->found[i].qid);
        for (uint32_t r = 0, n = m->rcpt_count; r < n; r++)
            if (!queue_msg_rcpt_is_final(m, r))
                lane_rcpts_final(c->k.lane, m, &r, 1, RCPT_DELIVERED);
    }
    crash_lane_flush(&c->k);
    crash_lane_close(&c->k, false);
    for (uint32_t i = 0; i < none.count; i++)
        none.entries[i].asked = none.entries[i].durable = (1u << none.entries[i].rcpts) - 1;
    over.books = none;
    c->point = &over;
    c->when = "recovery after all was delivered";
    sim_host_power_cut(c->host);
    ok = recover(c, false);
    if (ok)
        crash_lane_close(&c->k, false);
    c->point = point;
    return ok;
}

/* The disk of the host as a cut left it. */
static bool check_cut(struct checker *c, bool deep)
{
    struct finding before[CRASH_MESSAGES_MAX + 1];
    uint64_t hash = sim_host_disk_hash(c->host);
    uint32_t count;

    c->run->cuts++;
    for (uint32_t i = 0; i < c->hash_count; i++)
        if (c->hashes[i] == hash)
            return true;
    if (c->hash_count < HASHES_MAX)
        c->hashes[c->hash_count++] = hash;
    c->when = "recovery";
    if (!recover(c, deep))
        return false;
    count = c->found_count;
    memcpy(before, c->found, sizeof before);
    if (!deep) {
        crash_lane_close(&c->k, false);
        return true;
    }
    return check_gone(c) && check_inner(c, before, count);
}

/* ---- one point ---- */

static bool try_keep(struct checker *c, uint64_t keep, bool deep)
{
    c->keep = keep;
    sim_host_disk_load(c->host, c->point->disk);
    sim_host_power_cut_subset(c->host, keep);
    return check_cut(c, deep);
}

/* Too many for each alone: every subset of `groups` groups of neighbours. */
static bool try_groups(struct checker *c, uint32_t things, uint32_t groups)
{
    uint32_t bits = things < 64 ? things : 64;

    for (uint64_t kept = 0; kept < 1ull << groups; kept++) {
        uint64_t keep = 0;
        for (uint32_t i = 0; i < bits; i++)
            keep |= (kept >> (i * groups / bits) & 1) << i;
        if (!try_keep(c, keep, false))
            return false;
    }
    return true;
}

static bool try_subsets(struct checker *c, uint32_t things, uint32_t bits_max, bool deep)
{
    if (things <= bits_max) {
        c->run->whole++;
        for (uint64_t keep = 0; keep < 1ull << things; keep++)
            if (!try_keep(c, keep, deep && (keep == 0 || keep + 1 == 1ull << things)))
                return false;
        return true;
    }
    if (!try_keep(c, 0, deep) || !try_keep(c, UINT64_MAX, deep))
        return false;
    for (uint32_t i = 0; i < things && i < 64; i++)
        if (!try_keep(c, 1ull << i, false) || !try_keep(c, ~(1ull << i), false) ||
            !try_keep(c, (1ull << i) - 1, false))
            return false;
    for (uint32_t i = 0; i < CHANCE_CUTS; i++)
        if (!try_keep(c, sim_draw(c->sim, UINT64_MAX), false))
            return false;
    return try_groups(c, things, bits_max);
}

static bool check_point(struct checker *c, uint32_t bits_max, bool deep)
{
    uint32_t things;

    c->hash_count = 0;
    sim_host_disk_load(c->host, c->point->disk);
    things = sim_host_unsynced_count(c->host);
    if (!try_subsets(c, things, bits_max, deep))
        return false;
    for (uint32_t i = 0; i < TORN_CUTS && things > 0; i++) {
        c->keep = 0x7042;
        sim_host_disk_load(c->host, c->point->disk);
        sim_host_power_cut(c->host);
        if (!check_cut(c, deep && i == 0))
            return false;
    }
    return true;
}

bool crash_run_check(struct crash_run *run, struct sim *sim, uint32_t bits_max, bool deep)
{
    struct checker *c = calloc(1, sizeof *c);
    bool ok = true;

    assert(c);
    c->run = run;
    c->sim = sim;
    c->host = sim_host_add(sim, "checker", "10.1.0.2");
    for (uint32_t i = 0; ok && i < run->point_count; i++) {
        c->point = &run->points[i];
        ok = check_point(c, bits_max, deep);
    }
    free(c);
    return ok;
}
