/*
 * gateway/auth/auth_check.c - is this password the one behind this hash? The slow part of AUTH.
 *
 * Owns:     the check: one block with password and hash, wiped when it is freed.
 * Runs on:  made and freed by a shard, run by a worker thread; owned by one of them at a time.
 * Contract: an unknown or locked account costs the same work as a known one and never succeeds
 *           (FAULTS 46).
 * Failure:  no memory: create answers NULL, run sets `failed`; both mean 454 4.7.0, not a wrong
 *           password.
 * Bounds:   AUTH_PASSWORD_MAX; what crypt(3) takes (512 bytes) is less: a longer password is wrong.
 * Tests:    tests/unit/test_auth_check.c
 */
#include <crypt.h>
#include <errno.h>
#include <stdlib.h>

#include "gateway/auth/auth.h"
#include "gateway/limits.h"

/* yescrypt with libcrypt's usual cost. Its last character is not what any password gives. */
#define DUMMY_HASH "$y$j9T$TnfmdaF5G6VJZr.wrG00T0$.8Bs/zZ0x6.TJhxFfP1g0TpVw4aZDqnAGl/XUdPZMr."

const char *auth_dummy_hash(void)
{
    return DUMMY_HASH;
}

struct auth_check *auth_check_create(struct slice user, const char *hash, struct slice password)
{
    bool possible = hash && hash[0] == '$' && password.len <= AUTH_PASSWORD_MAX &&
                    slice_find(password, '\0') == password.len;
    (void)user;
    if (!possible) {
        hash = DUMMY_HASH;
        password = slice_head(password, slice_find(password, '\0'));
        password = slice_head(password, AUTH_PASSWORD_MAX);
    }
    size_t hash_len = strlen(hash);
    struct auth_check *c = malloc(sizeof *c + password.len + 1 + hash_len + 1);
    if (!c)
        return NULL;
    memset(c, 0, sizeof *c);
    if (password.len)
        memcpy(c->password, password.ptr, password.len);
    c->password[password.len] = '\0';
    c->hash = c->password + password.len + 1;
    memcpy(c->hash, hash, hash_len + 1);
    c->possible = possible;
    return c;
}

void auth_check_free(struct auth_check *c)
{
    if (!c)
        return;
    explicit_bzero(c->password, strlen(c->password));
    explicit_bzero(c->hash, strlen(c->hash));
    free(c);
}

/* Takes the same time wherever the first difference is. */
static bool same(const char *a, const char *b)
{
    size_t len = strlen(a);
    uint8_t diff = 0;
    if (len != strlen(b))
        return false;
    for (size_t i = 0; i < len; i++)
        diff |= (uint8_t)(a[i] ^ b[i]);
    return diff == 0;
}

bool auth_check_same(const struct auth_check *a, const struct auth_check *b)
{
    return a->possible && b->possible && strcmp(a->hash, b->hash) == 0 &&
           same(a->password, b->password);
}

void auth_check_run(struct auth_check *c)
{
    struct crypt_data *work = calloc(1, sizeof *work);
    c->ok = false;
    c->failed = work == NULL;
    if (!work)
        return;
    errno = 0;
    const char *got = crypt_r(c->password, c->hash, work);
    if (!got || got[0] == '*')
        c->failed = errno == ENOMEM;
    else
        c->ok = same(got, c->hash) && c->possible;
    explicit_bzero(work, sizeof *work);
    free(work);
}

bool auth_hash_password(const char *password, char *out, size_t out_len)
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    if (strlen(password) >= CRYPT_MAX_PASSPHRASE_SIZE ||
        !crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof setting))
        return false;
    struct crypt_data *work = calloc(1, sizeof *work);
    if (!work)
        return false;
    const char *got = crypt_r(password, setting, work);
    bool ok = got && got[0] == '$' && strlen(got) < out_len;
    if (ok)
        memcpy(out, got, strlen(got) + 1);
    explicit_bzero(work, sizeof *work);
    free(work);
    return ok;
}
