/*
 * gateway/auth/auth_cache.c - passwords that were right a moment ago, so that a busy client costs
 * one slow check, not a thousand.
 *
 * Owns:     a fixed table of tags; no name, hash or password is kept.
 * Runs on:  its shard.
 * Contract: a tag is HMAC-SHA256 under a key of this process over account, stored hash and
 *           password: a changed hash or password misses, and a dump of the table is worth nothing
 *           without the key. Only right passwords are added, so that a guess always costs the slow
 *           check.
 * Failure:  none: what is not known is checked.
 * Bounds:   the entries given at the start, in sets of WAYS; a full set gives up its oldest entry.
 * Tests:    tests/unit/test_auth_cache.c
 */
#include <wolfssl/options.h>

#include <wolfssl/wolfcrypt/hmac.h>

#include <stdlib.h>

#include "gateway/auth/auth.h"
#include "gateway/limits.h"

enum { WAYS = 4, TAG_SIZE = 24 };

struct entry {
    uint8_t tag[TAG_SIZE];
    uint64_t expires_ns; /* 0: free */
};

struct auth_cache {
    uint8_t key[32];
    uint32_t set_mask;
    bool used; /* something was added: else there is nothing to wipe, and no page to touch */
    struct entry entries[];
};

struct auth_cache *auth_cache_create(uint32_t entries, const uint8_t key[32])
{
    uint32_t sets = 1;
    while (sets * 2 * WAYS <= entries)
        sets *= 2;
    struct auth_cache *c = calloc(1, sizeof *c + (size_t)sets * WAYS * sizeof c->entries[0]);
    if (!c)
        return NULL;
    memcpy(c->key, key, sizeof c->key);
    c->set_mask = sets - 1;
    return c;
}

void auth_cache_destroy(struct auth_cache *c)
{
    if (!c)
        return;
    if (c->used)
        explicit_bzero(c->entries, ((size_t)c->set_mask + 1) * WAYS * sizeof c->entries[0]);
    explicit_bzero(c->key, sizeof c->key);
    free(c);
}

static bool add_field(Hmac *h, const void *data, size_t len)
{
    uint8_t size[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                       (uint8_t)len};
    return wc_HmacUpdate(h, size, sizeof size) == 0 &&
           (len == 0 || wc_HmacUpdate(h, data, (word32)len) == 0);
}

static bool tag_make(const struct auth_cache *c, struct slice user, const char *hash,
                     struct slice password, uint8_t tag[WC_SHA256_DIGEST_SIZE])
{
    Hmac h;
    uint8_t name[AUTH_USER_MAX];
    if (user.len > sizeof name || wc_HmacInit(&h, NULL, INVALID_DEVID) != 0)
        return false;
    for (size_t i = 0; i < user.len; i++)
        name[i] = ascii_lower(user.ptr[i]);
    bool ok = wc_HmacSetKey(&h, WC_SHA256, c->key, sizeof c->key) == 0 &&
              add_field(&h, name, user.len) && add_field(&h, hash, strlen(hash)) &&
              add_field(&h, password.ptr, password.len) && wc_HmacFinal(&h, tag) == 0;
    wc_HmacFree(&h);
    explicit_bzero(&h, sizeof h);
    return ok;
}

static struct entry *set_of(struct auth_cache *c, const uint8_t *tag)
{
    uint32_t at;
    memcpy(&at, tag + WC_SHA256_DIGEST_SIZE - sizeof at,
           sizeof at); /* bytes the entry does not hold */
    return c->entries + (size_t)(at & c->set_mask) * WAYS;
}

static bool tag_same(const uint8_t *a, const uint8_t *b)
{
    uint8_t diff = 0;
    for (int i = 0; i < TAG_SIZE; i++)
        diff |= a[i] ^ b[i];
    return diff == 0;
}

bool auth_cache_knows(struct auth_cache *c, struct slice user, const char *hash,
                      struct slice password, uint64_t now_ns)
{
    uint8_t tag[WC_SHA256_DIGEST_SIZE];
    if (!tag_make(c, user, hash, password, tag))
        return false;
    const struct entry *set = set_of(c, tag);
    for (int i = 0; i < WAYS; i++)
        if (set[i].expires_ns > now_ns && tag_same(set[i].tag, tag))
            return true;
    return false;
}

void auth_cache_add(struct auth_cache *c, struct slice user, const char *hash,
                    struct slice password, uint64_t now_ns, uint64_t ttl_ns)
{
    uint8_t tag[WC_SHA256_DIGEST_SIZE];
    if (ttl_ns == 0 || !tag_make(c, user, hash, password, tag))
        return;
    struct entry *set = set_of(c, tag), *to = set;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].expires_ns && tag_same(set[i].tag, tag)) {
            to = &set[i];
            break;
        }
        if (set[i].expires_ns < to->expires_ns) /* free ones have 0 */
            to = &set[i];
    }
    memcpy(to->tag, tag, TAG_SIZE);
    to->expires_ns = now_ns + ttl_ns;
    c->used = true;
}
