/*
 * Tests of gateway/auth/sasl.c: both mechanisms in both roles. f<N>: as in test_smtp_in.c.
 */
#include <criterion/criterion.h>

#include "gateway/auth/sasl.h"

static uint8_t store[SASL_STORE_SIZE];
static struct sasl_server server;
static struct sasl_credentials got;
static struct slice challenge;

static enum sasl_status step(const char *response, size_t len)
{
    return sasl_server_step(&server, response != NULL, slice_of(response, len), &challenge, &got);
}
#define STEP(s) step(s, sizeof(s) - 1)

static bool wiped(void)
{
    for (size_t i = 0; i < sizeof store; i++)
        if (store[i])
            return false;
    return server.store == NULL;
}

static void start(enum sasl_mechanism m)
{
    memset(store, 0xa5, sizeof store);
    sasl_server_start(&server, m, store);
}

static void expect(const char *authzid, const char *authcid, const char *password)
{
    cr_assert(slice_eq(got.authzid, slice_str(authzid)));
    cr_assert(slice_eq(got.authcid, slice_str(authcid)));
    cr_assert(slice_eq(got.password, slice_str(password)));
}

Test(sasl, names)
{
    uint8_t memory[32];
    struct buf out = buf_over(memory, sizeof memory);
    cr_assert_eq(sasl_mechanism_find(SLICE_LIT("plain")), SASL_PLAIN);
    cr_assert_eq(sasl_mechanism_find(SLICE_LIT("LOGIN")), SASL_LOGIN);
    cr_assert_eq(sasl_mechanism_find(SLICE_LIT("LOGINS")), 0);
    cr_assert_eq(sasl_mechanism_find(SLICE_LIT("")), 0);
    sasl_mechanism_list(SASL_LOGIN | SASL_PLAIN, &out);
    cr_assert(slice_eq(buf_slice(&out), SLICE_LIT("PLAIN LOGIN")));
    out.len = 0;
    sasl_mechanism_list(SASL_LOGIN, &out);
    cr_assert(slice_eq(buf_slice(&out), SLICE_LIT("LOGIN")));
}

Test(sasl, plain)
{
    start(SASL_PLAIN);
    cr_assert_eq(step(NULL, 0), SASL_CHALLENGE);
    cr_assert_eq(challenge.len, 0);
    cr_assert_eq(STEP("\0user\0pass"), SASL_CHECK);
    expect("", "user", "pass");
    sasl_server_wipe(&server);
    cr_assert(wiped());
    start(SASL_PLAIN);
    cr_assert_eq(STEP("other\0user\0p\xc3\xa4ss"), SASL_CHECK);
    cr_assert_eq(got.mechanism, SASL_PLAIN);
    expect("other", "user", "p\xc3\xa4ss");
}

Test(sasl, login)
{
    start(SASL_LOGIN);
    cr_assert_eq(step(NULL, 0), SASL_CHALLENGE);
    cr_assert(slice_eq(challenge, SLICE_LIT("Username:")));
    cr_assert_eq(STEP("user"), SASL_CHALLENGE);
    cr_assert(slice_eq(challenge, SLICE_LIT("Password:")));
    cr_assert_eq(STEP("pass"), SASL_CHECK);
    expect("", "user", "pass");
    start(SASL_LOGIN);
    cr_assert_eq(STEP("user"), SASL_CHALLENGE);
    cr_assert(slice_eq(challenge, SLICE_LIT("Password:")));
    cr_assert_eq(STEP("pass"), SASL_CHECK);
    expect("", "user", "pass");
}

static void plain_malformed(const char *s, size_t len)
{
    start(SASL_PLAIN);
    cr_assert_eq(step(s, len), SASL_MALFORMED);
    cr_assert(wiped());
    start(SASL_PLAIN);
    cr_assert_eq(step(NULL, 0), SASL_CHALLENGE);
    cr_assert_eq(step(s, len), SASL_MALFORMED);
    cr_assert(wiped());
}
#define PLAIN_MALFORMED(s) plain_malformed(s, sizeof(s) - 1)

Test(sasl, f45_plain_malformed)
{
    PLAIN_MALFORMED("");
    PLAIN_MALFORMED("user");
    PLAIN_MALFORMED("\0user");
    PLAIN_MALFORMED("\0\0pass");
    PLAIN_MALFORMED("\0user\0");
    PLAIN_MALFORMED("\0user\0pass\0");
    PLAIN_MALFORMED("\0user\0pa\0ss");
    PLAIN_MALFORMED("\0\0\0");
}

/* authzid, authcid, password of these lengths */
static enum sasl_status sized(size_t authzid, size_t authcid, size_t password)
{
    static char text[70000];
    size_t len = authzid + authcid + password + 2;
    memset(text, 'x', len);
    text[authzid] = text[authzid + 1 + authcid] = '\0';
    start(SASL_PLAIN);
    return step(text, len);
}

Test(sasl, f45_lengths)
{
    cr_assert_eq(sized(AUTH_USER_MAX, AUTH_USER_MAX, AUTH_PASSWORD_MAX), SASL_CHECK);
    cr_assert_eq(got.password.len, AUTH_PASSWORD_MAX);
    cr_assert_eq(sized(AUTH_USER_MAX + 1, 1, 1), SASL_MALFORMED);
    cr_assert_eq(sized(0, AUTH_USER_MAX + 1, 1), SASL_MALFORMED);
    cr_assert_eq(sized(0, 1, AUTH_PASSWORD_MAX + 1), SASL_MALFORMED);
    cr_assert_eq(sized(0, 1, 65536), SASL_MALFORMED);
    static char text[AUTH_PASSWORD_MAX + 1];
    memset(text, 'x', sizeof text);
    start(SASL_LOGIN);
    cr_assert_eq(step(text, AUTH_USER_MAX + 1), SASL_MALFORMED);
    start(SASL_LOGIN);
    cr_assert_eq(step(text, AUTH_USER_MAX), SASL_CHALLENGE);
    cr_assert_eq(step(text, AUTH_PASSWORD_MAX + 1), SASL_MALFORMED);
    cr_assert(wiped());
}

Test(sasl, f45_login_malformed)
{
    start(SASL_LOGIN);
    cr_assert_eq(STEP(""), SASL_MALFORMED);
    start(SASL_LOGIN);
    cr_assert_eq(STEP("us\0er"), SASL_MALFORMED);
    start(SASL_LOGIN);
    cr_assert_eq(STEP("user"), SASL_CHALLENGE);
    cr_assert_eq(STEP(""), SASL_MALFORMED);
    cr_assert(wiped());
}

/* Both roles talk to each other. */
static void agree(enum sasl_mechanism m, bool initial)
{
    struct sasl_client c;
    uint8_t memory[64];
    struct buf out = buf_over(memory, sizeof memory);
    enum sasl_status status = SASL_CHALLENGE;
    sasl_client_start(&c, m, SLICE_LIT("user"), SLICE_LIT("pass"));
    start(m);
    challenge = slice_of(NULL, 0);
    if (!initial)
        status = step(NULL, 0);
    while (status == SASL_CHALLENGE) {
        out.len = 0;
        cr_assert(sasl_client_step(&c, challenge, &out));
        status = step((char *)memory, out.len);
    }
    cr_assert_eq(status, SASL_CHECK);
    expect("", "user", "pass");
    cr_assert_not(sasl_client_step(&c, slice_of(NULL, 0), &out));
}

Test(sasl, client)
{
    agree(SASL_PLAIN, true);
    agree(SASL_PLAIN, false);
    agree(SASL_LOGIN, true);
    agree(SASL_LOGIN, false);
}

Test(sasl, client_refuses)
{
    struct sasl_client c;
    uint8_t memory[4];
    struct buf out = buf_over(memory, sizeof memory);
    sasl_client_start(&c, SASL_PLAIN, SLICE_LIT("user"), SLICE_LIT("pass"));
    cr_assert_not(sasl_client_step(&c, SLICE_LIT("x"), &out));
    cr_assert_not(sasl_client_step(&c, SLICE_LIT(""), &out)); /* no room */
}
