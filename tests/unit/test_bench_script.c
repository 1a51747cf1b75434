/*
 * tests/unit/test_bench_script.c - the sink's scripted rules.
 *
 * Owns:     nothing.
 * Runs on:  the test's process.
 * Contract: each test fails when a rule is read or applied otherwise than bench/script.h says.
 * Failure:  Criterion reports it.
 * Bounds:   none.
 * Tests:    bench/script.c
 */
#include <criterion/criterion.h>
#include <string.h>

#include "bench/script.h"

static struct bench_script script;

static struct bench_rule *match(enum bench_rule_kind kind, enum bench_phase phase, const char *name)
{
    return bench_script_match(&script, kind, phase, (struct bench_subjects){name, name != NULL});
}

Test(bench_script, reply_with_pattern_and_count)
{
    cr_assert_null(bench_script_add(&script, BENCH_RULE_REPLY, "rcpt~bad*@A.test#2=450 4.2.1 no"));
    cr_assert_null(match(BENCH_RULE_REPLY, BENCH_PHASE_RCPT, "good@a.test"));
    cr_assert_null(match(BENCH_RULE_REPLY, BENCH_PHASE_MAIL, "bad1@a.test"));
    cr_assert_null(match(BENCH_RULE_DROP, BENCH_PHASE_RCPT, "bad1@a.test"));
    struct bench_rule *rule = match(BENCH_RULE_REPLY, BENCH_PHASE_RCPT, "bad1@a.test");
    cr_assert_not_null(rule);
    cr_assert_eq(rule->code, 450);
    cr_assert_str_eq(rule->text, "4.2.1 no");
    cr_assert_not_null(match(BENCH_RULE_REPLY, BENCH_PHASE_RCPT, "BAD@A.TEST"));
    cr_assert_null(match(BENCH_RULE_REPLY, BENCH_PHASE_RCPT, "bad1@a.test"));
}

Test(bench_script, any_of_several_recipients)
{
    static const char recipients[] = "one@x\0two@x";
    struct bench_subjects both = {recipients, 2}, first = {recipients, 1};
    cr_assert_null(bench_script_add(&script, BENCH_RULE_DROP, "eod~two@*"));
    cr_assert_null(bench_script_match(&script, BENCH_RULE_DROP, BENCH_PHASE_EOD, first));
    cr_assert_not_null(bench_script_match(&script, BENCH_RULE_DROP, BENCH_PHASE_EOD, both));
}

Test(bench_script, the_first_rule_wins_until_it_is_used_up)
{
    cr_assert_null(bench_script_add(&script, BENCH_RULE_REPLY, "mail#1=451 first"));
    cr_assert_null(bench_script_add(&script, BENCH_RULE_REPLY, "mail=550 a\\nb"));
    cr_assert_eq(match(BENCH_RULE_REPLY, BENCH_PHASE_MAIL, "")->code, 451);
    cr_assert_str_eq(match(BENCH_RULE_REPLY, BENCH_PHASE_MAIL, "")->text, "a\nb");
}

Test(bench_script, delays_and_drops)
{
    cr_assert_null(bench_script_add(&script, BENCH_RULE_DELAY, "banner=1500"));
    cr_assert_eq(match(BENCH_RULE_DELAY, BENCH_PHASE_BANNER, NULL)->delay_ms, 1500);
    cr_assert_null(bench_script_add(&script, BENCH_RULE_DROP, "body#1"));
    cr_assert_null(bench_script_add(&script, BENCH_RULE_DROP_AFTER_DOT, "eod"));
    cr_assert_eq(script.count, 3);
}

Test(bench_script, what_is_wrong_is_refused)
{
    static const struct {
        enum bench_rule_kind kind;
        const char *text;
    } cases[] = {
        {BENCH_RULE_REPLY, "nophase=250 x"}, {BENCH_RULE_REPLY, "mail"},
        {BENCH_RULE_REPLY, "mail=25 x"},     {BENCH_RULE_REPLY, "mail=999 x"},
        {BENCH_RULE_REPLY, "mail=250x"},     {BENCH_RULE_REPLY, "mail#0=250 x"},
        {BENCH_RULE_REPLY, "mail#x=250 x"},  {BENCH_RULE_REPLY, "mail~=250 x"},
        {BENCH_RULE_REPLY, "body=250 x"},    {BENCH_RULE_REPLY, "mail#1~a=250 x"},
        {BENCH_RULE_DELAY, "mail=x"},        {BENCH_RULE_DELAY, "mail"},
        {BENCH_RULE_DELAY, "body=1"},        {BENCH_RULE_DROP, "mail=1"},
        {BENCH_RULE_DROP_AFTER_DOT, "mail"}, {BENCH_RULE_REPLY, ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        cr_assert_not_null(bench_script_add(&script, cases[i].kind, cases[i].text), "%s",
                           cases[i].text);
    cr_assert_eq(script.count, 0);
}

Test(bench_script, rules_are_bounded)
{
    for (unsigned i = 0; i < BENCH_RULE_COUNT_MAX; i++)
        cr_assert_null(bench_script_add(&script, BENCH_RULE_DROP, "eod"));
    cr_assert_not_null(bench_script_add(&script, BENCH_RULE_DROP, "eod"));
}

Test(bench_script, a_rate_gives_turns)
{
    cr_assert_null(bench_script_add(&script, BENCH_RULE_RATE, "eod~*@slow=100"));
    cr_assert_not_null(bench_script_add(&script, BENCH_RULE_RATE, "eod=0"));
    cr_assert_not_null(bench_script_add(&script, BENCH_RULE_RATE, "eod"));
    cr_assert_not_null(bench_script_add(&script, BENCH_RULE_RATE, "body=5"));
    script.now_ns = 5000000000;
    cr_assert_null(match(BENCH_RULE_RATE, BENCH_PHASE_EOD, "a@quick"));
    struct bench_rule *rule = match(BENCH_RULE_RATE, BENCH_PHASE_EOD, "a@slow");
    cr_assert_eq(bench_script_rate_ms(&script, rule), 0);
    cr_assert_eq(bench_script_rate_ms(&script, rule), 10);
    cr_assert_eq(bench_script_rate_ms(&script, rule), 20);
    script.now_ns += 15000000;
    cr_assert_eq(bench_script_rate_ms(&script, rule), 15);
    script.now_ns += 1000000000; /* turns that nobody took are gone */
    cr_assert_eq(bench_script_rate_ms(&script, rule), 0);
    cr_assert_eq(bench_script_rate_ms(&script, rule), 10);
}
