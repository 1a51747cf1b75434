/*
 * bench/smtpd_auth.c - AUTH in the sink's conversation: PLAIN and LOGIN, one user.
 *
 * Owns:     nothing; the conversation is smtpd.c's.
 * Runs on:  the one thread of the sink.
 * Contract: RFC 4954, without confidentiality of its own: it waits for TLS where TLS is required.
 * Failure:  a peer's error is a reply.
 * Bounds:   a response of 511 bytes.
 * Tests:    tests/unit/test_bench_smtpd.c
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "bench/base64.h"
#include "bench/smtpd_internal.h"

bool smtpd_auth_offered(const struct bench_smtpd *s)
{
    return s->config->auth_user != NULL && (s->config->extensions & BENCH_EXT_AUTH) &&
           (s->tls || !s->config->tls_required);
}

static void auth_finish(struct bench_smtpd *s, const char *user, const char *password)
{
    bool good =
        strcmp(user, s->config->auth_user) == 0 && strcmp(password, s->config->auth_password) == 0;
    struct bench_subjects subject = {user, 1};
    s->state = BENCH_SMTPD_COMMAND;
    struct smtpd_answer a =
        good ? (struct smtpd_answer){235, "2.7.0 Authentication successful"}
             : (struct smtpd_answer){535, "5.7.8 Authentication credentials invalid"};
    s->authenticated = smtpd_answer_phase(s, BENCH_PHASE_AUTH, subject, a) && good;
    if (s->authenticated)
        snprintf(s->auth_name, sizeof(s->auth_name), "%s", user);
}

/* authzid NUL authcid NUL password (RFC 4616), in base64. */
static void auth_plain(struct bench_smtpd *s, const char *response)
{
    char plain[512];
    long count = bench_base64_decode(response, plain, sizeof(plain) - 1);
    const char *user = count > 0 ? memchr(plain, '\0', (size_t)count) : NULL;
    const char *password =
        user != NULL ? memchr(user + 1, '\0', (size_t)(plain + count - user - 1)) : NULL;
    if (password == NULL) {
        s->state = BENCH_SMTPD_COMMAND;
        smtpd_answer_plain(s, 501, "5.5.2 Cannot decode response");
        return;
    }
    plain[count] = '\0';
    auth_finish(s, user + 1, password + 1);
}

static void auth_login_step(struct bench_smtpd *s, const char *response)
{
    char text[256];
    long count = bench_base64_decode(response, text, sizeof(text) - 1);
    if (count < 0) {
        s->state = BENCH_SMTPD_COMMAND;
        smtpd_answer_plain(s, 501, "5.5.2 Cannot decode response");
        return;
    }
    text[count] = '\0';
    if (s->state == BENCH_SMTPD_AUTH_PASSWORD) {
        char user[sizeof(s->auth_name)];
        memcpy(user, s->auth_name, sizeof(user));
        s->auth_name[0] = '\0';
        auth_finish(s, user, text);
        return;
    }
    snprintf(s->auth_name, sizeof(s->auth_name), "%.127s", text);
    s->state = BENCH_SMTPD_AUTH_PASSWORD;
    smtpd_answer_plain(s, 334, "UGFzc3dvcmQ6"); /* Password: */
}

void smtpd_command_auth(struct bench_smtpd *s, const char *rest)
{
    if (s->config->auth_user == NULL) {
        smtpd_answer_plain(s, 502, "5.5.1 AUTH not offered");
    } else if (!smtpd_auth_offered(s)) {
        smtpd_answer_plain(s, 530, "5.7.0 Must issue a STARTTLS command first");
    } else if (s->authenticated || s->in_transaction || !s->greeted) {
        smtpd_answer_plain(s, 503, "5.5.1 Bad sequence of commands");
    } else if (strncasecmp(rest, "PLAIN ", 6) == 0) {
        auth_plain(s, rest + 6);
    } else if (strcasecmp(rest, "PLAIN") == 0) {
        s->state = BENCH_SMTPD_AUTH_PLAIN;
        smtpd_answer_plain(s, 334, "");
    } else if (strncasecmp(rest, "LOGIN ", 6) == 0) {
        s->state = BENCH_SMTPD_AUTH_USER;
        auth_login_step(s, rest + 6);
    } else if (strcasecmp(rest, "LOGIN") == 0) {
        s->state = BENCH_SMTPD_AUTH_USER;
        smtpd_answer_plain(s, 334, "VXNlcm5hbWU6"); /* Username: */
    } else {
        smtpd_answer_plain(s, 504, "5.5.4 Mechanism not offered");
    }
}

void smtpd_auth_response(struct bench_smtpd *s, const char *line)
{
    if (strcmp(line, "*") == 0) {
        s->state = BENCH_SMTPD_COMMAND;
        smtpd_answer_plain(s, 501, "5.7.0 Authentication cancelled");
    } else if (s->state == BENCH_SMTPD_AUTH_PLAIN) {
        auth_plain(s, line);
    } else {
        auth_login_step(s, line);
    }
}
