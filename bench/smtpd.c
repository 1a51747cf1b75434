/*
 * bench/smtpd.c - server side of the conversation for the sink, as a step function: bytes into
 * lines and bodies, answers as the script wants them.
 *
 * Owns:     the transaction's envelope and the replies not yet sent.
 * Runs on:  the one thread of the sink.
 * Contract: replies come in the order of the commands; after DELAY nothing is read until resume.
 * Failure:  an over-long line closes with 500 5.5.2.
 * Bounds:   BENCH_LINE_SIZE_MAX a line.
 * Tests:    tests/unit/test_bench_smtpd.c
 */
#include <stdio.h>
#include <string.h>

#include "bench/limits.h"
#include "bench/smtpd_internal.h"

void bench_smtpd_init(struct bench_smtpd *s, const struct bench_smtpd_config *config, void *ctx)
{
    memset(s, 0, sizeof(*s));
    s->config = config;
    s->ctx = ctx;
}

void smtpd_transaction_end(struct bench_smtpd *s)
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
    smtpd_transaction_end(s);
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

bool smtpd_answer_phase(struct bench_smtpd *s, enum bench_phase phase,
                        struct bench_subjects subjects, struct smtpd_answer a)
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

void smtpd_answer_plain(struct bench_smtpd *s, int code, const char *text)
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
    if (!smtpd_answer_phase(s, BENCH_PHASE_BANNER, SMTPD_NO_SUBJECTS,
                            (struct smtpd_answer){220, text}) &&
        s->after == BENCH_SMTPD_MORE)
        s->after = BENCH_SMTPD_CLOSE;
    return outcome(s);
}

void bench_smtpd_tls_on(struct bench_smtpd *s)
{
    smtpd_transaction_end(s);
    bench_buf_clear(&s->line);
    s->tls = true;
    s->greeted = false;
    s->authenticated = false;
    s->auth_name[0] = '\0';
}

struct bench_subjects smtpd_rcpt_subjects(const struct bench_smtpd *s)
{
    return (struct bench_subjects){bench_buf_head(&s->rcpts), s->rcpt_count};
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
    struct bench_subjects subjects = smtpd_rcpt_subjects(s);
    s->state = BENCH_SMTPD_COMMAND;
    if (s->too_large) {
        smtpd_answer_plain(s, 552, "5.3.4 Message too large");
    } else {
        /* a scripted refusal means that nothing is kept, so it is asked for first */
        size_t held = bench_buf_count(&s->held), out = bench_buf_count(&s->out);
        if (smtpd_answer_phase(s, BENCH_PHASE_EOD, subjects,
                               (struct smtpd_answer){250, "2.0.0 Ok"})) {
            s->body_begun = false;
            if (!s->config->hooks->end(s->ctx)) {
                s->held.end = s->held.start + held;
                s->out.end = s->out.start + out;
                s->delay_ms = 0;
                smtpd_answer_plain(s, 451, "4.3.0 Cannot store the message");
            }
            if (bench_script_match(script, BENCH_RULE_DROP_AFTER_DOT, BENCH_PHASE_EOD, subjects) !=
                NULL)
                s->after = BENCH_SMTPD_DROP;
        }
    }
    smtpd_transaction_end(s);
}

/* One line of commands out of in; false when it is not complete yet. */
static bool next_line(struct bench_smtpd *s, const char *in, size_t count, size_t *used)
{
    size_t at = 0;
    while (at < count) {
        const char *lf = memchr(in + at, '\n', count - at);
        size_t part = lf != NULL ? (size_t)(lf - in) + 1 - at : count - at;
        if (bench_buf_count(&s->line) + part > BENCH_LINE_SIZE_MAX) {
            smtpd_answer_plain(s, 500, "5.5.2 Line too long");
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
            if (s->state == BENCH_SMTPD_COMMAND)
                smtpd_command(s, bench_buf_head(&s->line));
            else
                smtpd_auth_response(s, bench_buf_head(&s->line));
            bench_buf_clear(&s->line);
        }
        at += part;
    }
    *used = at;
    return outcome(s);
}
