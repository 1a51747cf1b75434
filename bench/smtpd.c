/*
 * bench/smtpd.c - server side of the conversation for the sink, as a step function.
 *
 * Owns:     the transaction's envelope and the replies not yet sent.
 * Runs on:  the one thread of the sink.
 * Contract: replies come in the order of the commands; after DELAY nothing is read until resume.
 * Failure:  a peer's error is a reply; an over-long line closes with 500 5.5.2.
 * Bounds:   BENCH_LINE_SIZE_MAX a line, BENCH_RCPT_COUNT_MAX recipients (452 4.5.3).
 * Tests:    tests/unit/test_bench_smtpd.c
 */
#include "bench/smtpd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bench/base64.h"
#include "bench/limits.h"

static const struct bench_subjects no_subjects = {NULL, 0};

void bench_smtpd_init(struct bench_smtpd *s, const struct bench_smtpd_config *config, void *ctx)
{
    memset(s, 0, sizeof(*s));
    s->config = config;
    s->ctx = ctx;
}

static void transaction_end(struct bench_smtpd *s)
{
    bench_buf_clear(&s->from);
    bench_buf_clear(&s->rcpts);
    s->rcpt_count = 0;
    s->in_transaction = false;
    if (s->body_begun)
        s->config->hooks->abandon(s->ctx);
    s->body_begun = false;
}

void bench_smtpd_free(struct bench_smtpd *s)
{
    transaction_end(s);
    bench_buf_free(&s->out);
    bench_buf_free(&s->held);
    bench_buf_free(&s->line);
    bench_buf_free(&s->from);
    bench_buf_free(&s->rcpts);
}

/* "CODE text" with each '\n' in text made a continuation line. */
static void put_reply(struct bench_buf *out, int code, const char *text)
{
    for (;;) {
        size_t count = strcspn(text, "\n");
        bool last = text[count] == '\0';
        bench_buf_printf(out, "%03d%c%.*s\r\n", code, last ? ' ' : '-', (int)count, text);
        if (last)
            return;
        text += count + 1;
    }
}

struct answer {
    int code;
    const char *text;
};

/* The answer of a phase, or what the script wants instead. True: the answer was 2xx or 3xx. */
static bool answer_phase(struct bench_smtpd *s, enum bench_phase phase,
                         struct bench_subjects subjects, struct answer a)
{
    struct bench_script *script = s->config->script;
    uint32_t delay_ms = 0;
    if (script->count > 0) {
        if (bench_script_match(script, BENCH_RULE_DROP, phase, subjects) != NULL) {
            s->after = BENCH_SMTPD_DROP;
            return false;
        }
        struct bench_rule *rule = bench_script_match(script, BENCH_RULE_REPLY, phase, subjects);
        if (rule != NULL) {
            a.code = rule->code;
            a.text = rule->text;
        }
        rule = bench_script_match(script, BENCH_RULE_DELAY, phase, subjects);
        if (rule != NULL)
            delay_ms = rule->delay_ms > 0 ? rule->delay_ms : 1;
        rule = bench_script_match(script, BENCH_RULE_RATE, phase, subjects);
        uint32_t wait_ms = rule != NULL ? bench_script_rate_ms(script, rule) : 0;
        delay_ms = wait_ms > delay_ms ? wait_ms : delay_ms;
    }
    put_reply(delay_ms > 0 ? &s->held : &s->out, a.code, a.text);
    if (a.code == 421)
        s->after = BENCH_SMTPD_CLOSE;
    if (delay_ms > 0)
        s->delay_ms = delay_ms;
    return a.code < 400;
}

static void answer_plain(struct bench_smtpd *s, int code, const char *text)
{
    put_reply(&s->out, code, text);
}

/* What the caller must do now; a delay comes before anything else. */
static enum bench_smtpd_result outcome(struct bench_smtpd *s)
{
    if (s->after == BENCH_SMTPD_DROP)
        return BENCH_SMTPD_DROP;
    if (s->delay_ms > 0)
        return BENCH_SMTPD_DELAY;
    enum bench_smtpd_result result = s->after;
    s->after = BENCH_SMTPD_MORE;
    return result;
}

enum bench_smtpd_result bench_smtpd_resume(struct bench_smtpd *s)
{
    bench_buf_add(&s->out, bench_buf_head(&s->held), bench_buf_count(&s->held));
    bench_buf_clear(&s->held);
    s->delay_ms = 0;
    return outcome(s);
}

enum bench_smtpd_result bench_smtpd_greet(struct bench_smtpd *s)
{
    char text[300];
    snprintf(text, sizeof(text), "%s ESMTP hikyaku-bench sink", s->config->hostname);
    if (!answer_phase(s, BENCH_PHASE_BANNER, no_subjects, (struct answer){220, text}) &&
        s->after == BENCH_SMTPD_MORE)
        s->after = BENCH_SMTPD_CLOSE;
    return outcome(s);
}

void bench_smtpd_tls_on(struct bench_smtpd *s)
{
    transaction_end(s);
    bench_buf_clear(&s->line);
    s->tls = true;
    s->greeted = false;
    s->authenticated = false;
    s->auth_name[0] = '\0';
}

static bool has(const struct bench_smtpd *s, unsigned extension)
{
    return (s->config->extensions & extension) != 0;
}

static bool auth_offered(const struct bench_smtpd *s)
{
    return s->config->auth_user != NULL && has(s, BENCH_EXT_AUTH) &&
           (s->tls || !s->config->tls_required);
}

static void command_ehlo(struct bench_smtpd *s, const char *name, bool extended)
{
    char text[512];
    int at = snprintf(text, sizeof(text), "%.200s", s->config->hostname);
    char size_line[48];
    snprintf(size_line, sizeof(size_line), "SIZE %llu",
             (unsigned long long)s->config->message_size_max);
    const struct {
        bool on;
        const char *line;
    } lines[] = {
        {has(s, BENCH_EXT_PIPELINING), "PIPELINING"},
        {has(s, BENCH_EXT_8BITMIME), "8BITMIME"},
        {has(s, BENCH_EXT_SMTPUTF8), "SMTPUTF8"},
        {has(s, BENCH_EXT_SIZE), size_line},
        {has(s, BENCH_EXT_ENHANCED), "ENHANCEDSTATUSCODES"},
        {has(s, BENCH_EXT_STARTTLS) && s->config->tls_available && !s->tls, "STARTTLS"},
        {auth_offered(s), "AUTH PLAIN LOGIN"},
    };
    for (size_t i = 0; extended && i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (lines[i].on)
            at += snprintf(text + at, sizeof(text) - (size_t)at, "\n%s", lines[i].line);
    }
    transaction_end(s);
    struct bench_subjects subject = {name, 1};
    s->greeted = answer_phase(s, BENCH_PHASE_EHLO, subject, (struct answer){250, text});
}

static void auth_finish(struct bench_smtpd *s, const char *user, const char *password)
{
    bool good =
        strcmp(user, s->config->auth_user) == 0 && strcmp(password, s->config->auth_password) == 0;
    struct bench_subjects subject = {user, 1};
    s->state = BENCH_SMTPD_COMMAND;
    struct answer a = good ? (struct answer){235, "2.7.0 Authentication successful"}
                           : (struct answer){535, "5.7.8 Authentication credentials invalid"};
    s->authenticated = answer_phase(s, BENCH_PHASE_AUTH, subject, a) && good;
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
        answer_plain(s, 501, "5.5.2 Cannot decode response");
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
        answer_plain(s, 501, "5.5.2 Cannot decode response");
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
    answer_plain(s, 334, "UGFzc3dvcmQ6"); /* Password: */
}

static void command_auth(struct bench_smtpd *s, const char *rest)
{
    if (s->config->auth_user == NULL) {
        answer_plain(s, 502, "5.5.1 AUTH not offered");
    } else if (!auth_offered(s)) {
        answer_plain(s, 530, "5.7.0 Must issue a STARTTLS command first");
    } else if (s->authenticated || s->in_transaction || !s->greeted) {
        answer_plain(s, 503, "5.5.1 Bad sequence of commands");
    } else if (strncasecmp(rest, "PLAIN ", 6) == 0) {
        auth_plain(s, rest + 6);
    } else if (strcasecmp(rest, "PLAIN") == 0) {
        s->state = BENCH_SMTPD_AUTH_PLAIN;
        answer_plain(s, 334, "");
    } else if (strncasecmp(rest, "LOGIN ", 6) == 0) {
        s->state = BENCH_SMTPD_AUTH_USER;
        auth_login_step(s, rest + 6);
    } else if (strcasecmp(rest, "LOGIN") == 0) {
        s->state = BENCH_SMTPD_AUTH_USER;
        answer_plain(s, 334, "VXNlcm5hbWU6"); /* Username: */
    } else {
        answer_plain(s, 504, "5.5.4 Mechanism not offered");
    }
}

/* The text between < and >, quotes respected; the parameters follow at *rest. False: no path. */
static bool take_path(struct bench_buf *into, const char *text, const char **rest)
{
    bool quoted = false;
    while (*text == ' ')
        text++;
    if (*text != '<')
        return false;
    const char *from = text + 1, *p = from;
    for (; *p != '\0' && (quoted || *p != '>'); p++) {
        if (quoted && *p == '\\' && p[1] != '\0')
            p++;
        else if (*p == '"')
            quoted = !quoted;
    }
    if (*p != '>')
        return false;
    bench_buf_add(into, from, (size_t)(p - from));
    bench_buf_add(into, "", 1);
    *rest = p + 1;
    return true;
}

static uint64_t size_parameter(const char *rest)
{
    const char *at = strcasestr(rest, " SIZE=");
    return at != NULL ? strtoull(at + 6, NULL, 10) : 0;
}

static bool sequence_is_bad(struct bench_smtpd *s)
{
    if (s->config->tls_required && !s->tls) {
        answer_plain(s, 530, "5.7.0 Must issue a STARTTLS command first");
        return true;
    }
    if (s->config->auth_user != NULL && !s->authenticated) {
        answer_plain(s, 530, "5.7.0 Authentication required");
        return true;
    }
    return false;
}

static void command_mail(struct bench_smtpd *s, const char *text)
{
    const char *rest = NULL;
    if (sequence_is_bad(s))
        return;
    if (!s->greeted || s->in_transaction) {
        answer_plain(s, 503, "5.5.1 Bad sequence of commands");
        return;
    }
    bench_buf_clear(&s->from);
    if (!take_path(&s->from, text, &rest)) {
        answer_plain(s, 501, "5.5.4 Syntax: MAIL FROM:<address>");
        return;
    }
    if (s->config->message_size_max > 0 && size_parameter(rest) > s->config->message_size_max) {
        answer_plain(s, 552, "5.3.4 Message too large");
        return;
    }
    struct bench_subjects subject = {bench_buf_head(&s->from), 1};
    s->in_transaction =
        answer_phase(s, BENCH_PHASE_MAIL, subject, (struct answer){250, "2.1.0 Ok"});
}

static void command_rcpt(struct bench_smtpd *s, const char *text)
{
    const char *rest = NULL;
    size_t before = bench_buf_count(&s->rcpts);
    if (!s->in_transaction) {
        answer_plain(s, 503, "5.5.1 Bad sequence of commands");
    } else if (s->rcpt_count == BENCH_RCPT_COUNT_MAX) {
        answer_plain(s, 452, "4.5.3 Too many recipients");
    } else if (!take_path(&s->rcpts, text, &rest)) {
        answer_plain(s, 501, "5.5.4 Syntax: RCPT TO:<address>");
    } else {
        struct bench_subjects subject = {bench_buf_head(&s->rcpts) + before, 1};
        if (answer_phase(s, BENCH_PHASE_RCPT, subject, (struct answer){250, "2.1.5 Ok"}))
            s->rcpt_count++;
        else
            s->rcpts.end = s->rcpts.start + before;
    }
}

static struct bench_subjects rcpt_subjects(const struct bench_smtpd *s)
{
    return (struct bench_subjects){bench_buf_head(&s->rcpts), s->rcpt_count};
}

static void command_data(struct bench_smtpd *s)
{
    if (!s->in_transaction) {
        answer_plain(s, 503, "5.5.1 Bad sequence of commands");
        return;
    }
    if (s->rcpt_count == 0) {
        answer_plain(s, 554, "5.5.1 No valid recipients");
        return;
    }
    if (!answer_phase(s, BENCH_PHASE_DATA, rcpt_subjects(s),
                      (struct answer){354, "End data with <CR><LF>.<CR><LF>"}))
        return;
    s->state = BENCH_SMTPD_DATA;
    s->size = 0;
    s->too_large = false;
    bench_dot_init(&s->dot);
    s->body_begun = true;
    s->config->hooks->begin(s->ctx);
    s->drop_in_body = bench_script_match(s->config->script, BENCH_RULE_DROP, BENCH_PHASE_BODY,
                                         rcpt_subjects(s)) != NULL;
}

static void command_starttls(struct bench_smtpd *s)
{
    if (!has(s, BENCH_EXT_STARTTLS) || !s->config->tls_available || s->tls)
        answer_plain(s, 502, "5.5.1 STARTTLS not offered");
    else if (answer_phase(s, BENCH_PHASE_STARTTLS, no_subjects,
                          (struct answer){220, "2.0.0 Ready to start TLS"}))
        s->after = BENCH_SMTPD_STARTTLS;
}

/* The text behind a verb, or NULL when the line has another one. */
static const char *verb_rest(const char *line, const char *verb)
{
    size_t count = strlen(verb);
    if (strncasecmp(line, verb, count) != 0)
        return NULL;
    if (verb[count - 1] == ':')
        return line + count;
    if (line[count] == '\0')
        return line + count;
    return line[count] == ' ' ? line + count + 1 : NULL;
}

static void command_line(struct bench_smtpd *s, const char *line)
{
    const char *rest;
    if ((rest = verb_rest(line, "MAIL FROM:")) != NULL) {
        command_mail(s, rest);
    } else if ((rest = verb_rest(line, "RCPT TO:")) != NULL) {
        command_rcpt(s, rest);
    } else if (verb_rest(line, "DATA") != NULL) {
        command_data(s);
    } else if ((rest = verb_rest(line, "EHLO")) != NULL) {
        command_ehlo(s, rest, true);
    } else if ((rest = verb_rest(line, "HELO")) != NULL) {
        command_ehlo(s, rest, false);
    } else if (verb_rest(line, "STARTTLS") != NULL) {
        command_starttls(s);
    } else if ((rest = verb_rest(line, "AUTH")) != NULL) {
        command_auth(s, rest);
    } else if (verb_rest(line, "RSET") != NULL) {
        transaction_end(s);
        answer_phase(s, BENCH_PHASE_RSET, no_subjects, (struct answer){250, "2.0.0 Ok"});
    } else if (verb_rest(line, "NOOP") != NULL) {
        answer_phase(s, BENCH_PHASE_NOOP, no_subjects, (struct answer){250, "2.0.0 Ok"});
    } else if (verb_rest(line, "QUIT") != NULL) {
        answer_phase(s, BENCH_PHASE_QUIT, no_subjects, (struct answer){221, "2.0.0 Bye"});
        if (s->after == BENCH_SMTPD_MORE)
            s->after = BENCH_SMTPD_CLOSE;
    } else if (verb_rest(line, "VRFY") != NULL) {
        answer_plain(s, 252, "2.1.5 Cannot verify, will accept");
    } else {
        answer_plain(s, 500, "5.5.2 Command not recognized");
    }
}

static void take_line(struct bench_smtpd *s, const char *line)
{
    if (s->state == BENCH_SMTPD_COMMAND) {
        command_line(s, line);
    } else if (strcmp(line, "*") == 0) {
        s->state = BENCH_SMTPD_COMMAND;
        answer_plain(s, 501, "5.7.0 Authentication cancelled");
    } else if (s->state == BENCH_SMTPD_AUTH_PLAIN) {
        auth_plain(s, line);
    } else {
        auth_login_step(s, line);
    }
}

static void body_part(void *ctx, const char *data, size_t count)
{
    struct bench_smtpd *s = ctx;
    s->size += count;
    if (s->config->message_size_max > 0 && s->size > s->config->message_size_max)
        s->too_large = true;
    else
        s->config->hooks->body(s->ctx, data, count);
}

static void end_of_data(struct bench_smtpd *s)
{
    struct bench_script *script = s->config->script;
    struct bench_subjects subjects = rcpt_subjects(s);
    s->state = BENCH_SMTPD_COMMAND;
    if (s->too_large) {
        answer_plain(s, 552, "5.3.4 Message too large");
    } else {
        /* a scripted refusal means that nothing is kept, so it is asked for first */
        size_t held = bench_buf_count(&s->held), out = bench_buf_count(&s->out);
        if (answer_phase(s, BENCH_PHASE_EOD, subjects, (struct answer){250, "2.0.0 Ok"})) {
            s->body_begun = false;
            if (!s->config->hooks->end(s->ctx)) {
                s->held.end = s->held.start + held;
                s->out.end = s->out.start + out;
                s->delay_ms = 0;
                answer_plain(s, 451, "4.3.0 Cannot store the message");
            }
            if (bench_script_match(script, BENCH_RULE_DROP_AFTER_DOT, BENCH_PHASE_EOD, subjects) !=
                NULL)
                s->after = BENCH_SMTPD_DROP;
        }
    }
    transaction_end(s);
}

/* One line of commands out of in; false when it is not complete yet. */
static bool next_line(struct bench_smtpd *s, const char *in, size_t count, size_t *used)
{
    size_t at = 0;
    while (at < count) {
        const char *lf = memchr(in + at, '\n', count - at);
        size_t part = lf != NULL ? (size_t)(lf - in) + 1 - at : count - at;
        if (bench_buf_count(&s->line) + part > BENCH_LINE_SIZE_MAX) {
            answer_plain(s, 500, "5.5.2 Line too long");
            s->after = BENCH_SMTPD_CLOSE;
            *used = count;
            return false;
        }
        bench_buf_add(&s->line, in + at, part);
        at += part;
        size_t have = bench_buf_count(&s->line);
        if (lf != NULL && have >= 2 && bench_buf_head(&s->line)[have - 2] == '\r') {
            s->line.data[s->line.start + have - 2] = '\0';
            *used = at;
            return true;
        }
    }
    *used = at;
    return false;
}

enum bench_smtpd_result bench_smtpd_feed(struct bench_smtpd *s, const char *in, size_t count,
                                         size_t *used)
{
    size_t at = 0;
    while (at < count && s->after == BENCH_SMTPD_MORE && s->delay_ms == 0) {
        size_t part = 0;
        if (s->state == BENCH_SMTPD_DATA && s->drop_in_body) {
            s->after = BENCH_SMTPD_DROP;
            part = count - at;
        } else if (s->state == BENCH_SMTPD_DATA) {
            if (bench_dot_feed(&s->dot, in + at, count - at, &part, body_part, s))
                end_of_data(s);
        } else if (next_line(s, in + at, count - at, &part)) {
            take_line(s, bench_buf_head(&s->line));
            bench_buf_clear(&s->line);
        }
        at += part;
    }
    *used = at;
    return outcome(s);
}
