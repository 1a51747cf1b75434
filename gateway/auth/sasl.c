/*
 * gateway/auth/sasl.c - PLAIN (RFC 4616) and LOGIN, as server and as client.
 *
 * Owns:     nothing; the server's store is lent by whoever started it.
 * Runs on:  any thread; one exchange belongs to one.
 * Contract: takes and gives decoded messages. Credentials are complete and within their limits when
 *           SASL_CHECK is said; nothing about them is judged here.
 * Failure:  SASL_MALFORMED, and the store is wiped.
 * Bounds:   AUTH_USER_MAX for each name, AUTH_PASSWORD_MAX; longer is malformed.
 * Tests:    tests/unit/test_sasl.c
 */
#include <assert.h>
#include <string.h>

#include "gateway/auth/sasl.h"

static const struct {
    enum sasl_mechanism bit;
    const char *name;
} mechanisms[] = {{SASL_PLAIN, "PLAIN"}, {SASL_LOGIN, "LOGIN"}};

enum { STEP_START, STEP_RESPONSE, STEP_USER, STEP_PASSWORD, STEP_DONE };

uint32_t sasl_mechanism_find(struct slice name)
{
    for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms; i++)
        if (slice_eq_nocase(name, slice_str(mechanisms[i].name)))
            return mechanisms[i].bit;
    return 0;
}

void sasl_mechanism_list(uint32_t bits, struct buf *out)
{
    bool first = true;
    for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms; i++) {
        if (!(bits & mechanisms[i].bit))
            continue;
        if (!first)
            buf_add_byte(out, ' ');
        buf_add_str(out, mechanisms[i].name);
        first = false;
    }
}

void sasl_server_start(struct sasl_server *s, enum sasl_mechanism m, uint8_t store[SASL_STORE_SIZE])
{
    *s = (struct sasl_server){.mechanism = (uint8_t)m, .step = STEP_START};
    s->store = store;
}

void sasl_server_wipe(struct sasl_server *s)
{
    if (s->store)
        explicit_bzero(s->store, SASL_STORE_SIZE);
    *s = (struct sasl_server){0};
}

static enum sasl_status malformed(struct sasl_server *s)
{
    sasl_server_wipe(s);
    return SASL_MALFORMED;
}

/* The store holds authzid, authcid and password one behind the other. */
static enum sasl_status complete(struct sasl_server *s, struct sasl_credentials *out)
{
    s->step = STEP_DONE;
    out->mechanism = (enum sasl_mechanism)s->mechanism;
    out->authzid = slice_of(s->store, s->authzid_len);
    out->authcid = slice_of(s->store + s->authzid_len, s->user_len);
    out->password = slice_of(s->store + s->authzid_len + s->user_len, s->pass_len);
    return SASL_CHECK;
}

static bool field_fits(struct slice s, size_t max)
{
    return s.len >= 1 && s.len <= max && slice_find(s, '\0') == s.len;
}

/* message = [authzid] NUL authcid NUL passwd (RFC 4616 section 2) */
static enum sasl_status plain_response(struct sasl_server *s, struct slice in,
                                       struct sasl_credentials *out)
{
    size_t first = slice_find(in, '\0');
    if (first == in.len)
        return malformed(s);
    struct slice tail = slice_from(in, first + 1);
    size_t second = slice_find(tail, '\0');
    if (second == tail.len)
        return malformed(s);
    struct slice authzid = slice_head(in, first), user = slice_head(tail, second);
    struct slice password = slice_from(tail, second + 1);
    if (authzid.len > AUTH_USER_MAX || !field_fits(user, AUTH_USER_MAX) ||
        !field_fits(password, AUTH_PASSWORD_MAX))
        return malformed(s);
    struct buf store = buf_over(s->store, SASL_STORE_SIZE);
    buf_add_slice(&store, authzid);
    buf_add_slice(&store, user);
    buf_add_slice(&store, password);
    assert(!store.overflow);
    s->authzid_len = (uint16_t)authzid.len;
    s->user_len = (uint16_t)user.len;
    s->pass_len = (uint16_t)password.len;
    return complete(s, out);
}

static enum sasl_status login_user(struct sasl_server *s, struct slice in, struct slice *challenge)
{
    if (!field_fits(in, AUTH_USER_MAX))
        return malformed(s);
    memcpy(s->store, in.ptr, in.len);
    s->user_len = (uint16_t)in.len;
    s->step = STEP_PASSWORD;
    *challenge = SLICE_LIT("Password:");
    return SASL_CHALLENGE;
}

enum sasl_status sasl_server_step(struct sasl_server *s, bool has_response, struct slice response,
                                  struct slice *challenge, struct sasl_credentials *out)
{
    *challenge = slice_of(NULL, 0);
    bool login = s->mechanism == SASL_LOGIN;
    switch (s->step) {
    case STEP_START:
        if (!has_response) {
            s->step = login ? STEP_USER : STEP_RESPONSE;
            if (login)
                *challenge = SLICE_LIT("Username:");
            return SASL_CHALLENGE;
        }
        return login ? login_user(s, response, challenge) : plain_response(s, response, out);
    case STEP_RESPONSE: return plain_response(s, response, out);
    case STEP_USER: return login_user(s, response, challenge);
    case STEP_PASSWORD:
        if (!field_fits(response, AUTH_PASSWORD_MAX))
            return malformed(s);
        memcpy(s->store + s->user_len, response.ptr, response.len);
        s->pass_len = (uint16_t)response.len;
        return complete(s, out);
    default: assert(!"a step after the end of a SASL exchange"); return SASL_MALFORMED;
    }
}

void sasl_client_start(struct sasl_client *c, enum sasl_mechanism m, struct slice user,
                       struct slice password)
{
    *c = (struct sasl_client){
        .mechanism = (uint8_t)m, .step = STEP_START, .user = user, .password = password};
}

bool sasl_client_step(struct sasl_client *c, struct slice challenge, struct buf *out)
{
    if (c->mechanism == SASL_PLAIN) {
        if (c->step != STEP_START || challenge.len != 0)
            return false;
        c->step = STEP_DONE;
        return buf_add_byte(out, '\0') && buf_add_slice(out, c->user) && buf_add_byte(out, '\0') &&
               buf_add_slice(out, c->password);
    }
    /* LOGIN: the challenges' wording differs from server to server; their order does not. */
    if (c->step == STEP_START) {
        c->step = STEP_PASSWORD;
        return buf_add_slice(out, c->user);
    }
    if (c->step != STEP_PASSWORD)
        return false;
    c->step = STEP_DONE;
    return buf_add_slice(out, c->password);
}
