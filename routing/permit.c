/*
 * routing/permit.c - lending a site's connections to shards, fairly and never more than there are.
 *
 * Owns:     nothing; both sides' state is the caller's struct.
 * Runs on:  home: the site's home shard; borrower: each shard that delivers there.
 * Contract: the connections open on all shards together never exceed the limit, whatever becomes of
 *           messages (but after the limit was lowered, until the surplus is closed). Who waits gets
 *           a fair share; with more shards than permits they take turns. Idle permits go back.
 * Failure:  a message lost: said again after PERMIT_RESEND_NS; one that is old: ignored.
 * Bounds:   PERMIT_LIMIT_MAX permits, SHARD_COUNT_MAX shards; work per message is linear in shards.
 * Tests:    tests/unit/test_permit.c, also over a simulated network that delays, doubles and loses
 */
#include "routing/permit.h"

#include <assert.h>
#include <string.h>

#include "gateway/limits.h"

/* Numbers of messages wrap: `a` was made after `b`. */
static bool seq_newer(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) > 0;
}

static uint32_t lesser(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t greater(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t limit_of(uint32_t limit)
{
    return limit == 0 || limit > PERMIT_LIMIT_MAX ? PERMIT_LIMIT_MAX : limit;
}

void permit_pack(const struct permit_message *m, uint64_t out[3])
{
    out[0] = m->key;
    out[1] = (uint64_t)m->seq << 32 | m->ack;
    out[2] =
        (uint64_t)m->held << 48 | (uint64_t)m->used << 32 | (uint64_t)m->waiting << 16 | m->max;
}

void permit_unpack(const uint64_t in[3], struct permit_message *m)
{
    *m = (struct permit_message){.key = in[0],
                                 .seq = (uint32_t)(in[1] >> 32),
                                 .ack = (uint32_t)in[1],
                                 .held = (uint16_t)(in[2] >> 48),
                                 .used = (uint16_t)(in[2] >> 32),
                                 .waiting = (uint16_t)(in[2] >> 16),
                                 .max = (uint16_t)in[2]};
}

/* ---- the borrower ---- */

void permit_borrower_init(struct permit_borrower *b, uint64_t key, uint32_t limit)
{
    memset(b, 0, sizeof *b);
    b->key = key;
    b->max = limit_of(limit);
}

static uint32_t borrower_demand(const struct permit_borrower *b)
{
    return lesser(b->used + b->waiting, limit_of(b->max));
}

bool permit_take(struct permit_borrower *b)
{
    if (b->used >= b->held)
        return false;
    b->used++;
    if (b->waiting)
        b->waiting--;
    return true;
}

void permit_give(struct permit_borrower *b)
{
    assert(b->used > 0);
    b->used--;
}

void permit_want(struct permit_borrower *b, uint32_t waiting)
{
    b->waiting = lesser(waiting, PERMIT_LIMIT_MAX);
}

bool permit_is_over(const struct permit_borrower *b)
{
    return b->used > b->held;
}

void permit_borrower_take_grant(struct permit_borrower *b, const struct permit_message *m)
{
    if (seq_newer(m->ack, b->acked) && !seq_newer(m->ack, b->seq))
        b->acked = m->ack;
    if (seq_newer(m->seq, b->grant)) {
        b->grant = m->seq;
        b->held = m->held;
    }
    if (m->max)
        b->answer_due = true;
}

static bool message_eq(const struct permit_message *a, const struct permit_message *b)
{
    return a->key == b->key && a->seq == b->seq && a->ack == b->ack && a->held == b->held &&
           a->used == b->used && a->waiting == b->waiting && a->max == b->max;
}

/* Less is needed than home believes: than is held, or than was asked for. */
static bool borrower_has_surplus(const struct permit_borrower *b)
{
    uint32_t demand = borrower_demand(b);
    return b->held > demand || b->said_demand > demand;
}

static bool borrower_must_speak(const struct permit_borrower *b, uint64_t now_ns)
{
    uint32_t demand = borrower_demand(b);

    if (b->answer_due)
        return true;
    if (demand > b->held && demand > b->said_demand)
        return true; /* asks for more */
    if (b->said.used > b->held && b->used < b->said.used)
        return true; /* over the limit no longer, or less so: others wait for that */
    if (b->seq != b->acked)
        return now_ns >= b->sent_ns + PERMIT_RESEND_NS;
    return b->idle_ns && now_ns >= b->idle_ns + PERMIT_IDLE_NS;
}

bool permit_borrower_poll(struct permit_borrower *b, uint64_t now_ns, struct permit_message *out)
{
    uint32_t demand = borrower_demand(b);

    if (!borrower_has_surplus(b))
        b->idle_ns = 0;
    else if (b->idle_ns == 0)
        b->idle_ns = now_ns ? now_ns : 1;
    if (!borrower_must_speak(b, now_ns))
        return false;
    if (b->idle_ns && now_ns >= b->idle_ns + PERMIT_IDLE_NS) {
        b->held = lesser(b->held, demand);
        b->idle_ns = 0;
    }
    struct permit_message m = {
        .key = b->key,
        .seq = b->seq,
        .ack = b->grant,
        .held = (uint16_t)b->held,
        .used = (uint16_t)b->used,
        .waiting = (uint16_t)(demand > b->used ? demand - b->used : 0),
        .max = (uint16_t)limit_of(b->max),
    };
    /* The same said again keeps its number, so that a late answer to the first time counts too. */
    if (b->seq == 0 || !message_eq(&m, &b->said))
        m.seq = ++b->seq;
    b->said = m;
    b->said_demand = demand;
    b->answer_due = false;
    b->sent_ns = now_ns;
    *out = m;
    return true;
}

uint64_t permit_borrower_next_ns(const struct permit_borrower *b)
{
    uint64_t next = UINT64_MAX;

    if (b->seq != b->acked)
        next = b->sent_ns + PERMIT_RESEND_NS;
    else if (b->idle_ns)
        next = b->idle_ns + PERMIT_IDLE_NS;
    return next;
}

bool permit_borrower_is_idle(const struct permit_borrower *b)
{
    return b->held == 0 && b->used == 0 && b->waiting == 0 && b->said_demand == 0 &&
           b->seq == b->acked && !b->answer_due;
}

/* ---- the home ---- */

size_t permit_home_size(uint32_t shard_count)
{
    return sizeof(struct permit_home) + shard_count * sizeof(struct permit_lent);
}

void permit_home_init(struct permit_home *h, uint64_t key, uint32_t limit, uint32_t shard_count)
{
    assert(shard_count > 0 && shard_count <= SHARD_COUNT_MAX);
    memset(h, 0, permit_home_size(shard_count));
    h->key = key;
    h->limit = limit_of(limit);
    h->shard_count = shard_count;
}

/* What must be counted as taken by this shard. */
static uint32_t lent_reserved(const struct permit_lent *l)
{
    return greater(l->ceiling, l->used);
}

static void lent_set(struct permit_lent *l, uint32_t granted)
{
    if (l->granted == granted)
        return;
    l->granted = (uint16_t)granted;
    l->ceiling = (uint16_t)greater(l->ceiling, granted);
    l->grant++;
    l->send = true;
}

/*
 * The fair share of each (`share`: zeroed): nobody has more than he wants; who wants more than an
 * equal part gets an equal part of what the modest leave. What cannot be divided goes one each,
 * from the shard whose turn it is.
 */
static void home_share(const struct permit_home *h, uint32_t share[SHARD_COUNT_MAX])
{
    uint32_t left = h->limit, hungry = 0;

    for (uint32_t i = 0; i < h->shard_count; i++)
        hungry += h->shards[i].demand > 0;
    while (hungry && left >= hungry) {
        uint32_t part = left / hungry;
        for (uint32_t i = 0; i < h->shard_count; i++) {
            uint32_t missing = h->shards[i].demand - share[i];
            if (missing == 0)
                continue;
            uint32_t more = lesser(missing, part);
            share[i] += more;
            left -= more;
            hungry -= more == missing;
        }
    }
    for (uint32_t k = 0; k < h->shard_count && left; k++) {
        uint32_t i = (h->turn + k) % h->shard_count;
        if (share[i] < h->shards[i].demand) {
            share[i]++;
            left--;
        }
    }
}

/* Raises grants as far as free permits reach; returns how many permits are still missing. */
static uint32_t home_raise(struct permit_home *h, const uint32_t share[SHARD_COUNT_MAX])
{
    uint32_t reserved = 0, missing = 0;

    for (uint32_t i = 0; i < h->shard_count; i++)
        reserved += lent_reserved(&h->shards[i]);
    uint32_t spare = h->limit > reserved ? h->limit - reserved : 0;
    for (uint32_t k = 0; k < h->shard_count; k++) {
        struct permit_lent *l = &h->shards[(h->turn + k) % h->shard_count];
        uint32_t target = share[(h->turn + k) % h->shard_count];
        if (l->granted >= target)
            continue;
        uint32_t own = lent_reserved(l);
        uint32_t now = lesser(target, own + spare);
        if (now > l->granted) {
            spare -= now > own ? now - own : 0;
            lent_set(l, now);
        }
        missing += target - l->granted;
    }
    return missing;
}

/* Recalls from those who have more than their share, no more than is missing and not already on its
 * way back. */
static void home_recall(struct permit_home *h, const uint32_t share[SHARD_COUNT_MAX],
                        uint32_t missing)
{
    uint32_t coming = 0, granted = 0;

    for (uint32_t i = 0; i < h->shard_count; i++) {
        const struct permit_lent *l = &h->shards[i];
        granted += l->granted;
        coming += lent_reserved(l) - lesser(l->granted, lent_reserved(l));
    }
    uint32_t surplus = granted > h->limit ? granted - h->limit : 0;
    uint32_t wanted = greater(missing > coming ? missing - coming : 0, surplus);
    for (uint32_t i = 0; i < h->shard_count && wanted; i++) {
        struct permit_lent *l = &h->shards[i];
        if (l->granted <= share[i])
            continue;
        uint32_t back = lesser(l->granted - share[i], wanted);
        lent_set(l, l->granted - back);
        wanted -= back;
    }
}

static void home_balance(struct permit_home *h)
{
    uint32_t share[SHARD_COUNT_MAX] = {0};

    home_share(h, share);
    home_recall(h, share, home_raise(h, share));
    h->starving = false;
    for (uint32_t i = 0; i < h->shard_count; i++)
        h->starving = h->starving || (h->shards[i].demand > 0 && share[i] == 0);
}

void permit_home_take_state(struct permit_home *h, uint32_t from, const struct permit_message *m)
{
    assert(from < h->shard_count);
    struct permit_lent *l = &h->shards[from];
    bool first = l->seen == 0;

    /* A borrower that was idle and forgot begins at 1 again; else that number is an old message. */
    bool anew = m->seq == 1 && l->used == 0 && l->demand == 0;
    if (!first && !anew && !seq_newer(m->seq, l->seen)) {
        l->send = l->send || m->seq == l->seen; /* it did not hear the answer */
        return;
    }
    l->seen = m->seq;
    l->send = true; /* says that it was heard */
    if (first && seq_newer(m->ack, l->grant)) {
        l->grant = l->answered = m->ack;
        l->granted = l->ceiling = m->held;
    }
    if (m->max)
        h->limit = m->max;
    l->used = m->used;
    l->demand = (uint16_t)lesser((uint32_t)m->used + m->waiting, h->limit);
    if (seq_newer(m->ack, l->answered))
        l->answered = m->ack;
    if (m->ack == l->grant)
        l->granted = l->ceiling = (uint16_t)lesser(l->granted, m->held);
    home_balance(h);
}

/* The next shard in line is served first from now on. */
static void home_next_turn(struct permit_home *h)
{
    for (uint32_t k = 1; k <= h->shard_count; k++) {
        uint32_t i = (h->turn + k) % h->shard_count;
        if (h->shards[i].demand > 0) {
            h->turn = i;
            break;
        }
    }
    home_balance(h);
}

static bool lent_is_unanswered(const struct permit_lent *l)
{
    return l->answered != l->grant;
}

bool permit_home_poll(struct permit_home *h, uint64_t now_ns, uint32_t *to,
                      struct permit_message *out)
{
    if (!h->starving)
        h->turn_ns = 0;
    else if (h->turn_ns == 0)
        h->turn_ns = now_ns + PERMIT_TURN_NS;
    else if (now_ns >= h->turn_ns) {
        home_next_turn(h);
        h->turn_ns = now_ns + PERMIT_TURN_NS;
    }
    for (uint32_t i = 0; i < h->shard_count; i++) {
        struct permit_lent *l = &h->shards[i];
        if (!l->send && !(lent_is_unanswered(l) && now_ns >= l->sent_ns + PERMIT_RESEND_NS))
            continue;
        l->send = false;
        l->sent_ns = now_ns;
        *to = i;
        *out = (struct permit_message){.key = h->key,
                                       .seq = l->grant,
                                       .ack = l->seen,
                                       .held = l->granted,
                                       .max = lent_is_unanswered(l)};
        return true;
    }
    return false;
}

uint64_t permit_home_next_ns(const struct permit_home *h)
{
    uint64_t next = h->starving && h->turn_ns ? h->turn_ns : UINT64_MAX;

    for (uint32_t i = 0; i < h->shard_count; i++) {
        const struct permit_lent *l = &h->shards[i];
        uint64_t at = l->send                 ? 0
                      : lent_is_unanswered(l) ? l->sent_ns + PERMIT_RESEND_NS
                                              : UINT64_MAX;
        next = at < next ? at : next;
    }
    return next;
}

bool permit_home_is_idle(const struct permit_home *h)
{
    for (uint32_t i = 0; i < h->shard_count; i++) {
        const struct permit_lent *l = &h->shards[i];
        if (l->granted || l->ceiling || l->used || l->demand || l->send || lent_is_unanswered(l))
            return false;
    }
    return true;
}
