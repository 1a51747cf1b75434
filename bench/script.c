/*
 * bench/script.c - parses and matches the sink's scripted rules.
 *
 * Owns:     nothing; the caller owns the struct.
 * Runs on:  the one thread of the command.
 * Contract: rules apply in the order given; the first that matches wins and is counted.
 * Failure:  a text that says what is wrong with a rule.
 * Bounds:   BENCH_RULE_COUNT_MAX rules.
 * Tests:    tests/unit/test_bench_script.c
 */
#include "bench/script.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const phase_names[BENCH_PHASE_COUNT] = {"banner", "ehlo", "starttls", "auth",
                                                           "mail",   "rcpt", "data",     "body",
                                                           "eod",    "quit", "rset",     "noop"};

static const char *parse_phase(struct bench_rule *rule, const char *text, size_t count)
{
    for (int i = 0; i < BENCH_PHASE_COUNT; i++) {
        if (strlen(phase_names[i]) == count && strncmp(phase_names[i], text, count) == 0) {
            rule->phase = (enum bench_phase)i;
            return NULL;
        }
    }
    return "no such phase (banner ehlo starttls auth mail rcpt data body eod quit rset noop)";
}

static const char *parse_reply(struct bench_rule *rule, const char *value)
{
    char *end = NULL;
    long code = strtol(value, &end, 10);
    if (end != value + 3 || code < 200 || code > 599 || (*end != '\0' && *end != ' '))
        return "expected PHASE=CODE text, with a code of three digits";
    rule->code = (int)code;
    const char *from = *end == ' ' ? end + 1 : "scripted reply";
    size_t at = 0;
    while (*from != '\0' && at + 1 < sizeof(rule->text)) {
        if (from[0] == '\\' && from[1] == 'n') {
            rule->text[at++] = '\n';
            from += 2;
        } else {
            rule->text[at++] = *from++;
        }
    }
    rule->text[at] = '\0';
    return *from == '\0' ? NULL : "reply text too long";
}

static const char *parse_value(struct bench_rule *rule, const char *value)
{
    switch (rule->kind) {
    case BENCH_RULE_REPLY:
        if (rule->phase == BENCH_PHASE_BODY)
            return "nothing is answered at body; use eod";
        return value != NULL ? parse_reply(rule, value) : "expected PHASE=CODE text";
    case BENCH_RULE_DELAY: {
        char *end = NULL;
        unsigned long ms = value != NULL ? strtoul(value, &end, 10) : 0;
        if (value == NULL || *value < '0' || *value > '9' || *end != '\0' || ms > 3600000)
            return "expected PHASE=MILLISECONDS, at most 3600000";
        if (rule->phase == BENCH_PHASE_BODY)
            return "body cannot be delayed; use eod";
        rule->delay_ms = (uint32_t)ms;
        return NULL;
    }
    case BENCH_RULE_RATE: {
        char *end = NULL;
        unsigned long rate = value != NULL ? strtoul(value, &end, 10) : 0;
        if (value == NULL || *value < '0' || *value > '9' || *end != '\0' || rate < 1 ||
            rate > BENCH_RATE_MAX)
            return "expected PHASE=N, from 1 to 1000000 a second";
        if (rule->phase == BENCH_PHASE_BODY)
            return "body has no answer; use eod, or --rate-bytes";
        rule->rate = (uint32_t)rate;
        return NULL;
    }
    case BENCH_RULE_DROP: return value == NULL ? NULL : "takes no value";
    case BENCH_RULE_DROP_AFTER_DOT:
        return value == NULL && rule->phase == BENCH_PHASE_EOD ? NULL : "takes eod[~PATTERN][#N]";
    }
    return "no such rule";
}

const char *bench_script_add(struct bench_script *s, enum bench_rule_kind kind, const char *text)
{
    if (s->count == BENCH_RULE_COUNT_MAX)
        return "too many rules";
    struct bench_rule rule = {.kind = kind, .remaining = UINT64_MAX};
    const char *equals = strchr(text, '=');
    size_t head = equals != NULL ? (size_t)(equals - text) : strlen(text);
    const char *tilde = memchr(text, '~', head);
    const char *hash = memrchr(text, '#', head);
    if (hash != NULL && tilde != NULL && hash < tilde)
        return "expected PHASE~PATTERN#N, in this order";
    const char *name_end = tilde != NULL ? tilde : hash != NULL ? hash : text + head;
    const char *error = parse_phase(&rule, text, (size_t)(name_end - text));
    if (error != NULL)
        return error;
    if (tilde != NULL) {
        const char *end = hash != NULL ? hash : text + head;
        size_t count = (size_t)(end - tilde - 1);
        if (count == 0 || count >= sizeof(rule.pattern))
            return "pattern empty or too long";
        memcpy(rule.pattern, tilde + 1, count);
    }
    if (hash != NULL) {
        char *end = NULL;
        rule.remaining = strtoull(hash + 1, &end, 10);
        if (hash[1] < '0' || hash[1] > '9' || end != text + head || rule.remaining == 0)
            return "expected a count from 1 behind #";
    }
    error = parse_value(&rule, equals != NULL ? equals + 1 : NULL);
    if (error != NULL)
        return error;
    s->rules[s->count++] = rule;
    return NULL;
}

static const char *add_line(struct bench_script *s, const char *line)
{
    static const struct {
        const char *word;
        enum bench_rule_kind kind;
    } kinds[] = {{"reply ", BENCH_RULE_REPLY},
                 {"delay ", BENCH_RULE_DELAY},
                 {"rate ", BENCH_RULE_RATE},
                 {"drop ", BENCH_RULE_DROP},
                 {"drop-after-dot ", BENCH_RULE_DROP_AFTER_DOT}};
    if (line[0] == '#' || line[0] == '\0')
        return NULL;
    if (strcmp(line, "drop-after-dot") == 0)
        return bench_script_add(s, BENCH_RULE_DROP_AFTER_DOT, "eod");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t count = strlen(kinds[i].word);
        if (strncmp(line, kinds[i].word, count) == 0)
            return bench_script_add(s, kinds[i].kind, line + count);
    }
    return "expected reply, delay, rate, drop or drop-after-dot and a rule";
}

const char *bench_script_file(struct bench_script *s, const char *path)
{
    static char why[256];
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return "cannot read the script";
    char line[512];
    unsigned number = 0;
    const char *error = NULL;
    while (error == NULL && fgets(line, sizeof(line), file) != NULL) {
        number++;
        line[strcspn(line, "\r\n")] = '\0';
        error = add_line(s, line);
    }
    fclose(file);
    if (error == NULL)
        return NULL;
    snprintf(why, sizeof(why), "line %u: %s", number, error);
    return why;
}

static int applies(const struct bench_rule *rule, struct bench_subjects subjects)
{
    if (rule->pattern[0] == '\0')
        return 1;
    const char *subject = subjects.strings;
    for (size_t i = 0; i < subjects.count; i++) {
        if (fnmatch(rule->pattern, subject, FNM_CASEFOLD | FNM_NOESCAPE) == 0)
            return 1;
        subject += strlen(subject) + 1;
    }
    return 0;
}

uint32_t bench_script_rate_ms(const struct bench_script *s, struct bench_rule *rule)
{
    uint64_t at = rule->next_ns > s->now_ns ? rule->next_ns : s->now_ns;
    rule->next_ns = at + 1000000000u / rule->rate;
    return (uint32_t)((at - s->now_ns + 999999u) / 1000000u);
}

struct bench_rule *bench_script_match(struct bench_script *s, enum bench_rule_kind kind,
                                      enum bench_phase phase, struct bench_subjects subjects)
{
    for (size_t i = 0; i < s->count; i++) {
        struct bench_rule *rule = &s->rules[i];
        if (rule->kind != kind || rule->phase != phase || rule->remaining == 0 ||
            !applies(rule, subjects))
            continue;
        if (rule->remaining != UINT64_MAX)
            rule->remaining--;
        return rule;
    }
    return NULL;
}
