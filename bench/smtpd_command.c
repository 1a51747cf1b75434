/*
 * bench/smtpd_command.c - the commands of the sink's conversation, but for AUTH.
 *
 * Owns:     nothing; the conversation is smtpd.c's.
 * Runs on:  the one thread of the sink.
 * Contract: RFC 5321 where no scripted rule says otherwise.
 * Failure:  a peer's error is a reply.
 * Bounds:   BENCH_RCPT_COUNT_MAX recipients (452 4.5.3).
 * Tests:    tests/unit/test_bench_smtpd.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bench/limits.h"
#include "bench/smtpd_internal.h"

static bool has(const struct bench_smtpd *s, unsigned extension)
{
    return (s->config->extensions & extension) != 0;
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
        {smtpd_auth_offered(s), "AUTH PLAIN LOGIN"},
    };
    for (size_t i = 0; extended && i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (lines[i].on)
            at += snprintf(text + at, sizeof(text) - (size_t)at, "\n%s", lines[i].line);
    }
    smtpd_transaction_end(s);
    struct bench_subjects subject = {name, 1};
    s->greeted = smtpd_answer_phase(s, BENCH_PHASE_EHLO, subject, (struct smtpd_answer){250, text});
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
        smtpd_answer_plain(s, 530, "5.7.0 Must issue a STARTTLS command first");
        return true;
    }
    if (s->config->auth_user != NULL && !s->authenticated) {
        smtpd_answer_plain(s, 530, "5.7.0 Authentication required");
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
        smtpd_answer_plain(s, 503, "5.5.1 Bad sequence of commands");
        return;
    }
    bench_buf_clear(&s->from);
    if (!take_path(&s->from, text, &rest)) {
        smtpd_answer_plain(s, 501, "5.5.4 Syntax: MAIL FROM:<address>");
        return;
    }
    if (s->config->message_size_max > 0 && size_parameter(rest) > s->config->message_size_max) {
        smtpd_answer_plain(s, 552, "5.3.4 Message too large");
        return;
    }
    struct bench_subjects subject = {bench_buf_head(&s->from), 1};
    s->in_transaction =
        smtpd_answer_phase(s, BENCH_PHASE_MAIL, subject, (struct smtpd_answer){250, "2.1.0 Ok"});
}

static void command_rcpt(struct bench_smtpd *s, const char *text)
{
    const char *rest = NULL;
    size_t before = bench_buf_count(&s->rcpts);
    if (!s->in_transaction) {
        smtpd_answer_plain(s, 503, "5.5.1 Bad sequence of commands");
    } else if (s->rcpt_count == BENCH_RCPT_COUNT_MAX) {
        smtpd_answer_plain(s, 452, "4.5.3 Too many recipients");
    } else if (!take_path(&s->rcpts, text, &rest)) {
        smtpd_answer_plain(s, 501, "5.5.4 Syntax: RCPT TO:<address>");
    } else {
        struct bench_subjects subject = {bench_buf_head(&s->rcpts) + before, 1};
        if (smtpd_answer_phase(s, BENCH_PHASE_RCPT, subject,
                               (struct smtpd_answer){250, "2.1.5 Ok"}))
            s->rcpt_count++;
        else
            s->rcpts.end = s->rcpts.start + before;
    }
}

static void command_data(struct bench_smtpd *s)
{
    if (!s->in_transaction) {
        smtpd_answer_plain(s, 503, "5.5.1 Bad sequence of commands");
        return;
    }
    if (s->rcpt_count == 0) {
        smtpd_answer_plain(s, 554, "5.5.1 No valid recipients");
        return;
    }
    if (!smtpd_answer_phase(s, BENCH_PHASE_DATA, smtpd_rcpt_subjects(s),
                            (struct smtpd_answer){354, "End data with <CR><LF>.<CR><LF>"}))
        return;
    s->state = BENCH_SMTPD_DATA;
    s->size = 0;
    s->too_large = false;
    bench_dot_init(&s->dot);
    s->body_begun = true;
    s->config->hooks->begin(s->ctx);
    s->drop_in_body = bench_script_match(s->config->script, BENCH_RULE_DROP, BENCH_PHASE_BODY,
                                         smtpd_rcpt_subjects(s)) != NULL;
}

static void command_starttls(struct bench_smtpd *s)
{
    if (!has(s, BENCH_EXT_STARTTLS) || !s->config->tls_available || s->tls)
        smtpd_answer_plain(s, 502, "5.5.1 STARTTLS not offered");
    else if (smtpd_answer_phase(s, BENCH_PHASE_STARTTLS, SMTPD_NO_SUBJECTS,
                                (struct smtpd_answer){220, "2.0.0 Ready to start TLS"}))
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

void smtpd_command(struct bench_smtpd *s, const char *line)
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
        smtpd_command_auth(s, rest);
    } else if (verb_rest(line, "RSET") != NULL) {
        smtpd_transaction_end(s);
        smtpd_answer_phase(s, BENCH_PHASE_RSET, SMTPD_NO_SUBJECTS,
                           (struct smtpd_answer){250, "2.0.0 Ok"});
    } else if (verb_rest(line, "NOOP") != NULL) {
        smtpd_answer_phase(s, BENCH_PHASE_NOOP, SMTPD_NO_SUBJECTS,
                           (struct smtpd_answer){250, "2.0.0 Ok"});
    } else if (verb_rest(line, "QUIT") != NULL) {
        smtpd_answer_phase(s, BENCH_PHASE_QUIT, SMTPD_NO_SUBJECTS,
                           (struct smtpd_answer){221, "2.0.0 Bye"});
        if (s->after == BENCH_SMTPD_MORE)
            s->after = BENCH_SMTPD_CLOSE;
    } else if (verb_rest(line, "VRFY") != NULL) {
        smtpd_answer_plain(s, 252, "2.1.5 Cannot verify, will accept");
    } else {
        smtpd_answer_plain(s, 500, "5.5.2 Command not recognized");
    }
}
