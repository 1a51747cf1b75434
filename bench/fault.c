/*
 * bench/fault.c - which connections misbehave, and how.
 *
 * Owns:     nothing.
 * Runs on:  the one thread of the load.
 * Contract: a draw depends on seed, session and connection alone.
 * Failure:  a text that says what is wrong with an option.
 * Bounds:   100 percent for all kinds together.
 * Tests:    tests/unit/test_bench_client.c
 */
#include "bench/fault.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[BENCH_FAULT_COUNT] = {
    "none", "vanish-mail",  "vanish-data", "vanish-dot", "half-close",
    "slow", "long-command", "bad-command", "long-line",  "bare-lf"};

const char *bench_fault_name(enum bench_fault fault)
{
    return names[fault];
}

const char *bench_fault_add(struct bench_fault_plan *p, const char *text)
{
    const char *equals = strchr(text, '=');
    char *end = NULL;
    if (equals == NULL)
        return "expected KIND=PERCENT";
    unsigned long percent = strtoul(equals + 1, &end, 10);
    if (equals[1] < '0' || equals[1] > '9' || *end != '\0' || percent > 100 - p->percent_sum)
        return "expected KIND=PERCENT, all kinds together at most 100";
    for (int i = 1; i < BENCH_FAULT_COUNT; i++) {
        if (strlen(names[i]) == (size_t)(equals - text) &&
            strncmp(names[i], text, (size_t)(equals - text)) == 0) {
            p->percent[i] += (uint32_t)percent;
            p->percent_sum += (uint32_t)percent;
            return NULL;
        }
    }
    return "no such kind (vanish-mail vanish-data vanish-dot half-close slow long-command "
           "bad-command long-line bare-lf)";
}

/* Spreads the bits of a number over all of them. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

enum bench_fault bench_fault_draw(const struct bench_fault_plan *p, uint32_t session,
                                  uint64_t connection)
{
    if (p->percent_sum == 0)
        return BENCH_FAULT_NONE;
    uint64_t chance = mix(mix(mix(p->seed + 1) + session + 1) + connection + 1) % 100;
    for (int i = 1; i < BENCH_FAULT_COUNT; i++) {
        if (chance < p->percent[i])
            return (enum bench_fault)i;
        chance -= p->percent[i];
    }
    return BENCH_FAULT_NONE;
}
