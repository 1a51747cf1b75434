/*
 * gateway/session_auth.c - a session logs in: cache, turns of those who guess, workers, verdict.
 *
 * Owns:     the checks that workers have (shard->auth_running) with the sessions that wait for
 *           each, and the check of a session that waits for its turn.
 * Runs on:  the shard of the session.
 * Contract: every AUTH is answered once, by a worker's verdict or before it. Sessions that offer
 *           the same password for the same account at the same time wait for one check. A wrong
 *           password is answered late, later each time (FAULTS 46).
 * Failure:  workers all busy, no memory: 454 4.7.0. Too many failures: 421 4.7.0.
 * Bounds:   the rings to the workers; gateway/auth/auth_limit.c; SMTP_AUTH_FAILED_MAX a session.
 * Tests:    tests/unit/test_auth_limit.c, tests/system/test_auth.py, dialogs
 */
#include <assert.h>

#include "gateway/auth/auth_limit.h"
#include "gateway/session.h"

static void session_auth_log(struct session *s, enum log_event event, struct slice account,
                             const char *reason)
{
    struct log_line line;
    char text[IO_ADDR_TEXT_MAX];
    log_begin(&line, &s->shard->log, event);
    log_str(&line, "session", s->id);
    log_str(&line, "connector", s->receive->conf->name);
    log_str(&line, "client", io_addr_text(&s->peer, true, text));
    log_slice(&line, "account", account);
    if (reason)
        log_str(&line, "reason", reason);
    log_end(&line);
}

static struct slice session_auth_name(const struct session *s)
{
    return s->user ? s->user->name : slice_str("(unknown)");
}

/* ---- verdicts ---- */

/* The password was right. False: no memory to remember whose it was. */
static bool session_auth_accept(struct session *s)
{
    struct shard *sh = s->shard;
    struct slice account = s->user->name;
    if (!s->account)
        s->account = slab_alloc(&sh->account_slab);
    if (!s->account)
        return false;
    size_t len = account.len < AUTH_USER_MAX ? account.len : AUTH_USER_MAX;
    memcpy(s->account, account.ptr, len);
    s->account[len] = '\0';
    auth_limit_passed(sh->auth_limit, &s->who, io_now_ns(sh->io));
    metric_add(sh->metrics, M_AUTH_OK, 1);
    session_count(s, RS_AUTH_OK, 1);
    session_auth_log(s, EV_AUTH_OK, account, NULL);
    if (s->watch)
        watch_note(s->watch, account, "authenticated");
    return true;
}

static void why_unavailable(struct why *why)
{
    why_set(why, 454, "4.7.0", "Temporary authentication failure");
}

static void session_auth_result(struct session *s, const struct auth_check *check)
{
    struct shard *sh = s->shard;
    uint64_t now = io_now_ns(sh->io);
    struct why why;
    s->waits &= (uint8_t)~SESSION_WAIT_AUTH;
    if (check->failed) {
        why_unavailable(&why);
        session_answer(s, &why, NULL);
        return;
    }
    if (check->ok && s->user && !s->user->disabled) {
        auth_cache_add(sh->auth_cache, s->user->name, check->hash, slice_str(check->password), now,
                       AUTH_CACHE_NS);
        bool ok = session_auth_accept(s);
        why_unavailable(&why);
        session_answer(s, ok ? NULL : &why, NULL);
        return;
    }
    metric_add(sh->metrics, M_AUTH_FAILED, 1);
    session_count(s, RS_AUTH_FAILED, 1);
    session_auth_log(s, EV_AUTH_FAILED, session_auth_name(s), NULL);
    s->user = NULL;
    why_set(&why, 535, "5.7.8", "Authentication credentials invalid");
    uint64_t delay_ns = auth_limit_failed(sh->auth_limit, &s->who, ++s->auth_failures, now);
    session_answer_late(s, &why, delay_ns);
}

void session_auth_done(struct shard *sh, struct auth_check *check)
{
    struct list *l;
    list_remove(&check->running);
    while ((l = list_pop_front(&check->sessions))) {
        struct session *s = container_of(l, struct session, auth_link);
        if (s->state == SESSION_OPEN && s->waits & SESSION_WAIT_AUTH)
            session_auth_result(s, check);
    }
    auth_check_free(check);
    (void)sh;
}

/* ---- checks ---- */

static struct list *auth_bucket(struct shard *sh, const char *hash)
{
    uint32_t h = 2166136261u;
    for (; *hash; hash++)
        h = (h ^ (uint8_t)*hash) * 16777619u;
    return &sh->auth_running[h % AUTH_RUNNING_BUCKETS];
}

/* A check of the same password against the same hash that a worker has already. */
static struct auth_check *auth_same(struct shard *sh, const struct auth_check *check)
{
    struct list *bucket = auth_bucket(sh, check->hash);
    for (struct list *l = bucket->next; l != bucket; l = l->next) {
        struct auth_check *other = container_of(l, struct auth_check, running);
        if (auth_check_same(check, other))
            return other;
    }
    return NULL;
}

/* Takes the check. False: the workers have no room for it. */
static bool session_auth_check(struct session *s, struct auth_check *check)
{
    struct shard *sh = s->shard;
    struct auth_check *other = auth_same(sh, check);
    struct ring_item item = {.kind = PEER_AUTH, .ptr = check};
    if (other) {
        auth_check_free(check);
        check = other;
        metric_add(sh->metrics, M_AUTH_MERGED, 1);
    } else {
        uint32_t worker = sh->gw->first_worker_peer + sh->auth_next_worker++ % sh->gw->worker_count;
        list_init(&check->sessions);
        list_init(&check->running);
        check->shard = sh->index;
        if (!io_post(sh->io, worker, &item)) {
            auth_check_free(check);
            return false;
        }
        list_push_back(auth_bucket(sh, check->hash), &check->running);
    }
    list_push_back(&check->sessions, &s->auth_link);
    s->waits |= SESSION_WAIT_AUTH;
    return true;
}

void session_auth_turn(struct session *s)
{
    struct auth_check *check = s->auth_held;
    struct why why;
    s->auth_held = NULL;
    s->waits &= (uint8_t)~SESSION_WAIT_TURN;
    if (session_auth_check(s, check))
        return;
    why_unavailable(&why);
    session_answer(s, &why, NULL);
}

void session_auth_drop(struct session *s)
{
    list_remove(&s->auth_link);
    auth_check_free(s->auth_held);
    s->auth_held = NULL;
}

/* Too many failures from here or at this account, and too many who wait already. */
static void session_auth_refuse(struct session *s)
{
    struct why why;
    metric_add(s->shard->metrics, M_AUTH_LIMITED, 1);
    session_count(s, RS_AUTH_FAILED, 1);
    session_auth_log(s, EV_AUTH_FAILED, session_auth_name(s), "too many failures, not looked at");
    s->user = NULL;
    why_set(&why, 421, "4.7.0", "Too many failed authentications, try again later");
    session_answer_late(s, &why, AUTH_FAIL_DELAY_NS);
}

void session_auth(struct session *s, const struct sasl_credentials *c, struct buf *out)
{
    struct shard *sh = s->shard;
    const struct users *users = s->config->gen->users;
    uint64_t now = io_now_ns(sh->io), wait_ns;
    struct why why;
    /* Acting for another account is not offered: an authzid must name the account itself. */
    bool other = c->authzid.len && !slice_eq_nocase(c->authzid, c->authcid);
    s->user = users && !other ? users_find(users, c->authcid) : NULL;
    bool usable = s->user && !s->user->disabled;
    const char *hash = usable ? s->user->hash : users ? users_dummy_hash(users) : NULL;
    why_unavailable(&why);
    if (usable && auth_cache_knows(sh->auth_cache, s->user->name, hash, c->password, now)) {
        auth_limit_pair(sh->auth_limit, &s->peer, c->authcid, &s->who);
        metric_add(sh->metrics, M_AUTH_CACHED, 1);
        bool ok = session_auth_accept(s);
        smtp_in_answer(&s->smtp, out, ok ? NULL : &why, NULL);
        return;
    }
    struct auth_check *check = auth_check_create(c->authcid, hash, c->password);
    if (!check) {
        smtp_in_answer(&s->smtp, out, &why, NULL);
        return;
    }
    auth_limit_who(sh->auth_limit, &s->peer, c->authcid, &s->who);
    enum auth_turn turn = auth_limit_ask(sh->auth_limit, &s->who, now, &wait_ns);
    if (turn == AUTH_TURN_NEVER) {
        auth_check_free(check);
        session_auth_refuse(s);
    } else if (turn == AUTH_TURN_LATER) {
        s->auth_held = check;
        s->waits |= SESSION_WAIT_TURN;
        io_timer_set(sh->io, &s->delay, now + wait_ns);
    } else if (!session_auth_check(s, check)) {
        smtp_in_answer(&s->smtp, out, &why, NULL);
    }
}
