/*
 * gateway/auth/auth_limit.c - failed logins by address and by account, and who may try next.
 *
 * Owns:     a fixed table of entries: addresses and accounts with failures, and known pairs.
 * Runs on:  its shard, which counts for itself: a guesser whose connections reach n shards has n
 *           times the guesses, which is little beside what is taken away, and no login has to wait
 *           for another thread.
 * Contract: one failure is forgotten every AUTH_FORGIVE_NS. Up to AUTH_FAILED_FREE of them nobody
 *           waits; then attempts have turns, AUTH_TURN_NS apart, twice as far for every
 *           AUTH_FAILED_FREE more. A right password forgives nothing (an account of one's own is no
 *           licence to guess at others); it makes its pair known for AUTH_PAIR_NS.
 * Failure:  a full set gives up its entry with the fewest failures, or its oldest pair; pairs and
 *           failures do not push each other out. Who fills it with invented accounts still fails
 *           from somewhere, and that entry grows.
 * Bounds:   the entries given at the start; AUTH_FAILED_COUNT_MAX; AUTH_TURN_WAIT_MAX_NS.
 * Tests:    tests/unit/test_auth_limit.c, tests/system/test_auth.py
 */
#include <wolfssl/options.h>

#include <wolfssl/wolfcrypt/hmac.h>

#include <stdlib.h>

#include "gateway/auth/auth_limit.h"
#include "gateway/limits.h"

enum { WAYS = 4 };

struct entry {
    uint64_t tag;      /* 0: free */
    uint64_t until_ns; /* when the next failure is forgiven; of a pair: until when it is known */
    uint64_t turn_ns;  /* no attempt before */
    uint32_t failures; /* of a pair: 0 */
};

struct auth_limit {
    uint8_t key[32];
    uint32_t set_mask;
    struct entry entries[]; /* of each set WAYS for failures, then WAYS for pairs */
};

struct auth_limit *auth_limit_create(uint32_t entries, const uint8_t key[32])
{
    uint32_t sets = 1;
    while (sets * 4 * WAYS <= entries)
        sets *= 2;
    struct auth_limit *l = calloc(1, sizeof *l + (size_t)sets * 2 * WAYS * sizeof l->entries[0]);
    if (!l)
        return NULL;
    memcpy(l->key, key, sizeof l->key);
    l->set_mask = sets - 1;
    return l;
}

void auth_limit_destroy(struct auth_limit *l)
{
    if (l)
        explicit_bzero(l->key, sizeof l->key);
    free(l);
}

/* ---- who ---- */

/* 0, which no entry has, when the hash cannot be made. */
static uint64_t tag_make(const struct auth_limit *l, char kind, struct slice address,
                         struct slice account)
{
    uint8_t digest[WC_SHA256_DIGEST_SIZE];
    uint8_t head[2] = {(uint8_t)kind, (uint8_t)address.len};
    uint64_t tag;
    Hmac h;
    if (wc_HmacInit(&h, NULL, INVALID_DEVID) != 0)
        return 0;
    bool ok = wc_HmacSetKey(&h, WC_SHA256, l->key, sizeof l->key) == 0 &&
              wc_HmacUpdate(&h, head, sizeof head) == 0 &&
              (!address.len || wc_HmacUpdate(&h, address.ptr, (word32)address.len) == 0) &&
              (!account.len || wc_HmacUpdate(&h, account.ptr, (word32)account.len) == 0) &&
              wc_HmacFinal(&h, digest) == 0;
    wc_HmacFree(&h);
    memcpy(&tag, digest, sizeof tag);
    return ok ? tag | 1 : 0;
}

static struct slice limit_address(const struct io_addr *client)
{
    return client->sa.sa_family == AF_INET6
               ? slice_of((const uint8_t *)&client->in6.sin6_addr, 8) /* the /64 */
               : slice_of((const uint8_t *)&client->in.sin_addr, 4);
}

static struct slice limit_account(struct slice account, uint8_t name[AUTH_USER_MAX])
{
    size_t len = account.len < AUTH_USER_MAX ? account.len : AUTH_USER_MAX;
    for (size_t i = 0; i < len; i++)
        name[i] = ascii_lower(account.ptr[i]);
    return slice_of(name, len);
}

void auth_limit_who(const struct auth_limit *l, const struct io_addr *client, struct slice account,
                    struct auth_who *who)
{
    uint8_t name[AUTH_USER_MAX];
    struct slice none = slice_of(NULL, 0);
    auth_limit_pair(l, client, account, who);
    who->address = tag_make(l, 'a', limit_address(client), none);
    who->account = tag_make(l, 'u', none, limit_account(account, name));
}

void auth_limit_pair(const struct auth_limit *l, const struct io_addr *client, struct slice account,
                     struct auth_who *who)
{
    uint8_t name[AUTH_USER_MAX];
    struct slice user = limit_account(account, name);
    *who = (struct auth_who){.pair = tag_make(l, 'p', limit_address(client), user)};
}

/* ---- entries ---- */

static struct entry *set_of(struct auth_limit *l, uint64_t tag, bool pair)
{
    return l->entries + (size_t)(tag >> 32 & l->set_mask) * 2 * WAYS + (pair ? WAYS : 0);
}

/* What time has made of it. */
static void entry_age(struct entry *e, uint64_t now_ns)
{
    if (e->failures && now_ns >= e->until_ns) {
        uint64_t forgiven = 1 + (now_ns - e->until_ns) / AUTH_FORGIVE_NS;
        e->failures = forgiven < e->failures ? e->failures - (uint32_t)forgiven : 0;
        e->until_ns += forgiven * AUTH_FORGIVE_NS;
    }
    if (e->failures == 0 && now_ns >= e->until_ns)
        e->tag = 0;
}

static struct entry *entry_find(struct auth_limit *l, uint64_t tag, bool pair, uint64_t now_ns)
{
    struct entry *set = set_of(l, tag, pair);
    for (int i = 0; i < WAYS; i++) {
        if (!set[i].tag || set[i].tag != tag)
            continue;
        entry_age(&set[i], now_ns);
        return set[i].tag ? &set[i] : NULL;
    }
    return NULL;
}

/* The one there is, or a new one in place of the one that says least. */
static struct entry *entry_make(struct auth_limit *l, uint64_t tag, bool pair, uint64_t now_ns)
{
    struct entry *set = set_of(l, tag, pair), *to = entry_find(l, tag, pair, now_ns);
    if (to)
        return to;
    to = set;
    for (int i = 0; i < WAYS; i++) {
        entry_age(&set[i], now_ns);
        if (!set[i].tag) {
            to = &set[i];
            break;
        }
        if (set[i].failures < to->failures ||
            (set[i].failures == to->failures && set[i].until_ns < to->until_ns))
            to = &set[i];
    }
    *to = (struct entry){.tag = tag};
    return to;
}

/* ---- attempts ---- */

/* How far apart the turns are of somebody who failed so often; 0: there are none. */
static uint64_t turn_distance_ns(uint32_t failures)
{
    uint32_t steps = failures / AUTH_FAILED_FREE;
    if (steps == 0)
        return 0;
    return AUTH_TURN_NS << (steps <= AUTH_TURN_DOUBLINGS ? steps - 1 : AUTH_TURN_DOUBLINGS - 1);
}

enum auth_turn auth_limit_ask(struct auth_limit *l, const struct auth_who *who, uint64_t now_ns,
                              uint64_t *wait_ns)
{
    uint64_t turn_ns = now_ns;
    struct entry *of[2] = {entry_find(l, who->address, false, now_ns),
                           entry_find(l, who->account, false, now_ns)};
    *wait_ns = 0;
    if (entry_find(l, who->pair, true, now_ns))
        return AUTH_TURN_NOW;
    for (int i = 0; i < 2; i++)
        if (of[i] && turn_distance_ns(of[i]->failures) && of[i]->turn_ns > turn_ns)
            turn_ns = of[i]->turn_ns;
    if (turn_ns - now_ns > AUTH_TURN_WAIT_MAX_NS)
        return AUTH_TURN_NEVER;
    for (int i = 0; i < 2; i++)
        if (of[i] && turn_distance_ns(of[i]->failures))
            of[i]->turn_ns = turn_ns + turn_distance_ns(of[i]->failures);
    *wait_ns = turn_ns - now_ns;
    return *wait_ns ? AUTH_TURN_LATER : AUTH_TURN_NOW;
}

static uint32_t entry_count_failure(struct auth_limit *l, uint64_t tag, uint64_t now_ns)
{
    if (!tag)
        return 0;
    struct entry *e = entry_make(l, tag, false, now_ns);
    if (e->failures == 0)
        e->until_ns = now_ns + AUTH_FORGIVE_NS;
    if (e->failures < AUTH_FAILED_COUNT_MAX)
        e->failures++;
    return e->failures;
}

uint64_t auth_limit_failed(struct auth_limit *l, const struct auth_who *who, uint32_t in_session,
                           uint64_t now_ns)
{
    uint32_t address = entry_count_failure(l, who->address, now_ns);
    uint32_t account = entry_count_failure(l, who->account, now_ns);
    uint32_t steps = (address > account ? address : account) / 2;
    if (steps < in_session)
        steps = in_session;
    uint64_t delay_ns = steps * AUTH_FAIL_DELAY_NS;
    return delay_ns < AUTH_FAIL_DELAY_MAX_NS ? delay_ns : AUTH_FAIL_DELAY_MAX_NS;
}

void auth_limit_passed(struct auth_limit *l, const struct auth_who *who, uint64_t now_ns)
{
    if (who->pair)
        entry_make(l, who->pair, true, now_ns)->until_ns = now_ns + AUTH_PAIR_NS;
}
