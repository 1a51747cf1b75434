/*
 * gateway/auth/auth.h - who an account is: users file, password checks by worker threads, a cache
 * of verified passwords.
 */
#ifndef HIKYAKU_AUTH_H
#define HIKYAKU_AUTH_H

#include "gateway/base/list.h"
#include "gateway/base/slice.h"
#include "gateway/base/why.h"
#include "gateway/io/io.h"

/* ---- the users file: lines user:hash[:sender,sender,...]; '#' comments; a hash of "!" or an
 * account beginning with "!" cannot log in (E8) ---- */

struct users; /* immutable once loaded; shared by all threads for reading */
struct user {
    struct slice name; /* compared without regard to ASCII case */
    const char *hash;  /* crypt(3) string */
    bool disabled;
    const struct slice *senders;
    uint32_t sender_count;
};
/* NULL: why->text is "FILE:LINE: message". */
struct users *users_load(const char *path, struct why *why);
struct users *users_parse(const char *name, struct slice text, struct why *why);
void users_free(struct users *u);
const struct user *users_find(const struct users *u, struct slice name);
uint32_t users_count(const struct users *u);
/*
 * For accounts that do not exist or are locked: a hash of the same kind and cost as those in the
 * file (the most common setting), so that the time of an answer tells nothing. No password matches
 * it.
 */
const char *users_dummy_hash(const struct users *u);

/* For hikyakuctl hash-password: yescrypt with a fresh salt. */
bool auth_hash_password(const char *password, char *out, size_t out_len)
    __attribute__((warn_unused_result));

/* ---- cache of verified passwords: one per shard; keyed hash of (user, stored hash, password), so
 * that a changed hash is a miss ---- */

struct auth_cache;
struct auth_cache *auth_cache_create(uint32_t entries, const uint8_t key[32]);
void auth_cache_destroy(struct auth_cache *c);
bool auth_cache_knows(struct auth_cache *c, struct slice user, const char *hash,
                      struct slice password, uint64_t now_ns);
void auth_cache_add(struct auth_cache *c, struct slice user, const char *hash,
                    struct slice password, uint64_t now_ns, uint64_t ttl_ns);

/* ---- checks by workers
 * --------------------------------------------------------------------------------------- */

/* One check under way; allocated by auth_check_create (the message path's only malloc for AUTH),
 * moves to a worker as ring_item.ptr and back. */
struct auth_check {
    struct list running, sessions; /* the shard's own, also while a worker has the check */
    uint32_t shard;
    bool ok;
    bool failed;   /* could not be checked (no memory): 454 4.7.0 */
    bool possible; /* false: whatever the password, `ok` will be false */
    char *hash;
    char password[]; /* wiped by auth_check_free */
};
/* `hash` NULL or locked ("!"): the dummy. NULL: no memory (454 4.7.0). */
struct auth_check *auth_check_create(struct slice user, const char *hash, struct slice password);
void auth_check_free(struct auth_check *c); /* may be NULL */
/* The same password against the same hash: one computation answers both. */
bool auth_check_same(const struct auth_check *a, const struct auth_check *b);
/* Does the work (tens of milliseconds), on a worker thread. An unknown user is checked against a
 * dummy hash, so that time tells nothing. */
void auth_check_run(struct auth_check *c);
/* A hash that no password matches, of the usual cost: for unknown accounts. */
const char *auth_dummy_hash(void);

#endif
