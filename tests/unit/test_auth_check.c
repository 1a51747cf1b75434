/*
 * tests/unit/test_auth_check.c - passwords against hashes of every kind, and what unknown accounts
 * get.
 */
#include <criterion/criterion.h>

#include <crypt.h>
#include <string.h>
#include <time.h>

#include "gateway/auth/auth.h"
#include "gateway/limits.h"

#define SHA512                                                                                     \
    "$6$dbm5weruIDC3jWJ7$d6e0grWkgTQcpz.b/fQd9OTTHW/WI2Ra12F9ADNbneAtEhgFvvYJGeFAizMIRhhxq4tV9200" \
    "zkMVw9MRYOAlw0"

/* All of "secret". */
static const char *const hashes[] = {
    "$y$j9T$TnfmdaF5G6VJZr.wrG00T0$.8Bs/zZ0x6.TJhxFfP1g0TpVw4aZDqnAGl/XUdPZMrD",
    SHA512,
    "$2b$05$8mHS6aGuIol.VQ2sh/.u1OcJNNqDa9TBYcpcvTJs63MLQeLJ/H68W",
};

static bool check(const char *hash, struct slice password)
{
    struct auth_check *c = auth_check_create(SLICE_LIT("alice"), hash, password);
    cr_assert_not_null(c);
    auth_check_run(c);
    bool ok = c->ok;
    cr_assert_not(c->failed);
    auth_check_free(c);
    return ok;
}

Test(auth_check, kinds)
{
    for (size_t i = 0; i < sizeof hashes / sizeof hashes[0]; i++) {
        cr_assert(check(hashes[i], SLICE_LIT("secret")), "%s", hashes[i]);
        cr_assert_not(check(hashes[i], SLICE_LIT("Secret")));
        cr_assert_not(check(hashes[i], SLICE_LIT("secre")));
        cr_assert_not(check(hashes[i], SLICE_LIT("secrets")));
        cr_assert_not(check(hashes[i], SLICE_LIT("")));
    }
}

/* crypt(3) stops at a NUL: "secret\0x" must not pass for "secret". */
Test(auth_check, nul_in_password)
{
    cr_assert_not(check(hashes[2], slice_of("secret\0x", 8)));
    cr_assert_not(check(hashes[2], slice_of("secret\0", 7)));
}

Test(auth_check, locked_and_unknown)
{
    cr_assert_not(check(NULL, SLICE_LIT("secret")));
    cr_assert_not(check("!", SLICE_LIT("!")));
    cr_assert_not(check("!$2b$05$8mHS6aGuIol.VQ2sh/.u1OcJNNqDa9TBYcpcvTJs63MLQeLJ/H68W",
                        SLICE_LIT("secret")));
    cr_assert_not(check("", SLICE_LIT("")));
    cr_assert_not(check("*0", SLICE_LIT("x")));
    cr_assert_not(check("secret", SLICE_LIT("secret")));
    cr_assert_not(check(auth_dummy_hash(), SLICE_LIT("secret")));
}

Test(auth_check, the_dummy_is_real_work)
{
    cr_assert_eq(crypt_checksalt(auth_dummy_hash()), CRYPT_SALT_OK);
    struct crypt_data data = {0};
    const char *got = crypt_r("secret", auth_dummy_hash(), &data);
    cr_assert_not_null(got);
    cr_assert_eq(strlen(got), strlen(auth_dummy_hash()));
    cr_assert_str_neq(got, auth_dummy_hash());
}

static double seconds(const char *hash)
{
    struct timespec a, b;
    double best = 1e9;
    for (int i = 0; i < 4; i++) {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        check(hash, SLICE_LIT("a wrong password"));
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        double s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
        best = s < best ? s : best;
    }
    return best;
}

/* FAULTS 46, 33: unknown and locked accounts cost what a known one costs. */
Test(auth_check, unknown_takes_as_long)
{
    double known = seconds(hashes[0]), unknown = seconds(NULL), locked = seconds("!");
    cr_assert_gt(unknown, known * 0.6, "%f %f", unknown, known);
    cr_assert_lt(unknown, known * 1.6, "%f %f", unknown, known);
    cr_assert_gt(locked, known * 0.6);
}

Test(auth_check, long_passwords)
{
    char text[AUTH_PASSWORD_MAX * 2], hash[CRYPT_OUTPUT_SIZE];
    memset(text, 'p', sizeof text);
    cr_assert_not(check(hashes[2], slice_of(text, AUTH_PASSWORD_MAX)));
    cr_assert_not(check(hashes[2], slice_of(text, AUTH_PASSWORD_MAX + 1)));
    text[CRYPT_MAX_PASSPHRASE_SIZE] = '\0';
    cr_assert_not(auth_hash_password(text, hash, sizeof hash));
}

Test(auth_check, hash_password)
{
    char one[CRYPT_OUTPUT_SIZE], two[CRYPT_OUTPUT_SIZE];
    cr_assert(auth_hash_password("correct horse", one, sizeof one));
    cr_assert(auth_hash_password("correct horse", two, sizeof two));
    cr_assert_eq(strncmp(one, "$y$", 3), 0, "%s", one);
    cr_assert_str_neq(one, two);
    cr_assert(check(one, SLICE_LIT("correct horse")));
    cr_assert_not(check(one, SLICE_LIT("correct horsf")));
    cr_assert_not(auth_hash_password("x", one, 20));
    /* What it makes, the users file takes. */
    struct why why = {0};
    char line[CRYPT_OUTPUT_SIZE + 64];
    snprintf(line, sizeof line, "alice:%s:alice@example.com", two);
    struct users *u = users_parse("users", slice_str(line), &why);
    cr_assert_not_null(u, "%s", why.text);
    users_free(u);
}

static bool same(const char *hash_a, const char *a, const char *hash_b, const char *b)
{
    struct auth_check *x = auth_check_create(SLICE_LIT("alice"), hash_a, slice_str(a)),
                      *y = auth_check_create(SLICE_LIT("alice"), hash_b, slice_str(b));
    bool is = auth_check_same(x, y);
    auth_check_free(x);
    auth_check_free(y);
    return is;
}

/* Sessions of one account that come at once share a computation; nobody shares another's. */
Test(auth_check, same_question)
{
    cr_assert(same(SHA512, "secret", SHA512, "secret"));
    cr_assert_not(same(SHA512, "secret", SHA512, "secres"));
    cr_assert_not(same(SHA512, "secret", SHA512, "secre"));
    cr_assert_not(same(SHA512, "secret", hashes[0], "secret"));
    cr_assert_not(same(NULL, "secret", NULL, "secret"), "what cannot succeed is not shared");
}
