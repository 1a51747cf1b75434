/*
 * bench/script.h - scripted misbehaviour of the sink: what, at which phase, for whom, how often.
 *
 * A rule is written PHASE[~PATTERN][#N][=VALUE]:
 *   PHASE   banner ehlo starttls auth mail rcpt data body eod quit rset noop
 *   PATTERN a glob (* and ?, case ignored) on the sender (mail), the recipient (rcpt) or any
 *           accepted recipient (data, body, eod); it may not contain # or =
 *   N       only the first N times that it would apply
 *   VALUE   reply: "CODE text" (several lines separated by "\n"); delay: milliseconds; rate: so
 *           many a second
 */
#ifndef HIKYAKU_BENCH_SCRIPT_H
#define HIKYAKU_BENCH_SCRIPT_H

#include <stddef.h>
#include <stdint.h>

#include "bench/limits.h"

enum bench_phase {
    BENCH_PHASE_BANNER,
    BENCH_PHASE_EHLO,
    BENCH_PHASE_STARTTLS,
    BENCH_PHASE_AUTH,
    BENCH_PHASE_MAIL,
    BENCH_PHASE_RCPT,
    BENCH_PHASE_DATA,
    BENCH_PHASE_BODY,
    BENCH_PHASE_EOD,
    BENCH_PHASE_QUIT,
    BENCH_PHASE_RSET,
    BENCH_PHASE_NOOP,
    BENCH_PHASE_COUNT
};

enum bench_rule_kind {
    BENCH_RULE_REPLY,
    BENCH_RULE_DELAY,
    BENCH_RULE_RATE,          /* answers wait until they are so many a second */
    BENCH_RULE_DROP,          /* close instead of the answer */
    BENCH_RULE_DROP_AFTER_DOT /* eod only: keep the message, then close instead of the answer */
};

struct bench_rule {
    enum bench_rule_kind kind;
    enum bench_phase phase;
    char pattern[128];  /* empty: always */
    uint64_t remaining; /* UINT64_MAX: without end */
    uint32_t delay_ms;
    uint32_t rate;    /* a second */
    uint64_t next_ns; /* when the next one may be answered */
    int code;
    char text[256]; /* behind the code; '\n' between lines */
};

struct bench_script {
    uint64_t now_ns; /* set by the owner before each round: for rates */
    size_t count;
    struct bench_rule rules[BENCH_RULE_COUNT_MAX];
};

/* What a rule's pattern is compared with: count NUL-terminated strings, one behind the other. */
struct bench_subjects {
    const char *strings;
    size_t count;
};

/* NULL, or what is wrong with the text. */
const char *bench_script_add(struct bench_script *s, enum bench_rule_kind kind, const char *text);
/* Reads a file of lines "reply RULE", "delay RULE", "drop RULE", "drop-after-dot [RULE]"; # begins
 * a comment line. NULL, or what is wrong (valid until the next call). */
const char *bench_script_file(struct bench_script *s, const char *path);

/* How long the next answer under this rate must wait; takes its turn. */
uint32_t bench_script_rate_ms(const struct bench_script *s, struct bench_rule *rule);

/* The first rule of that kind which applies, its count taken down; NULL for none. */
struct bench_rule *bench_script_match(struct bench_script *s, enum bench_rule_kind kind,
                                      enum bench_phase phase, struct bench_subjects subjects);

#endif
