/*
 * bench/opts.c - reads a command's options by its table.
 *
 * Owns:     nothing; string values point into argv.
 * Runs on:  the main thread, before the command starts.
 * Contract: every option is in the table, so --help cannot forget one.
 * Failure:  one line on stderr that names the option, exit status 2.
 * Bounds:   each number's min and max are in its row.
 * Tests:    tests/unit/test_bench_text.c
 */
#include "bench/opts.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bench/bench.h"

int bench_opts_error(const struct bench_opt_table *table, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "hikyaku-bench %s: ", table->command);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; try hikyaku-bench %s --help\n", table->command);
    return BENCH_EXIT_USAGE;
}

static void help(const struct bench_opt_table *table)
{
    printf("usage: hikyaku-bench %s [OPTION...]\n\n%s\n\n", table->command, table->summary);
    for (size_t i = 0; i < table->count; i++) {
        const struct bench_opt *o = &table->opts[i];
        char left[64];
        const char *between = o->arg == NULL ? "" : o->kind == BENCH_OPT_MAYBE ? "[=" : " ";
        snprintf(left, sizeof(left), "%s%s%s%s", o->name, between, o->arg != NULL ? o->arg : "",
                 o->kind == BENCH_OPT_MAYBE ? "]" : "");
        printf("  %-28s %s\n", left, o->help);
    }
}

const char *bench_opts_size(const char *text, uint64_t *bytes)
{
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"", 0},   {"B", 0},    {"K", 10}, {"KiB", 10},
                 {"M", 20}, {"MiB", 20}, {"G", 30}, {"GiB", 30}};
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || errno != 0)
        return "not a size";
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcasecmp(end, units[i].unit) != 0)
            continue;
        if (value > UINT64_MAX >> units[i].shift)
            return "too large";
        *bytes = (uint64_t)value << units[i].shift;
        return NULL;
    }
    return "not a size (units: K, KiB, M, MiB, G, GiB)";
}

static const char *set_number(const struct bench_opt *o, const char *value, char *why, size_t size)
{
    uint64_t number = 0;
    if (o->kind == BENCH_OPT_SIZE) {
        const char *error = bench_opts_size(value, &number);
        if (error != NULL)
            return error;
    } else {
        char *end = NULL;
        errno = 0;
        number = strtoull(value, &end, 10);
        if (!isdigit((unsigned char)value[0]) || *end != '\0' || errno != 0)
            return "not a whole number";
    }
    if (number < o->min || number > o->max) {
        snprintf(why, size, "must be %" PRIu64 " to %" PRIu64, o->min, o->max);
        return why;
    }
    *(uint64_t *)o->target = number;
    return NULL;
}

static const char *set_value(const struct bench_opt *o, const char *value, char *why, size_t size)
{
    switch (o->kind) {
    case BENCH_OPT_FLAG: break;
    case BENCH_OPT_COUNT:
    case BENCH_OPT_SIZE: return set_number(o, value, why, size);
    case BENCH_OPT_STRING: *(const char **)o->target = value; return NULL;
    case BENCH_OPT_CALL:
    case BENCH_OPT_MAYBE: return o->call(o->target, value);
    }
    return "internal: no such kind";
}

static const struct bench_opt *find(const struct bench_opt_table *table, const char *name,
                                    size_t count)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct bench_opt *o = &table->opts[i];
        if (strlen(o->name) == count && strncmp(o->name, name, count) == 0)
            return o;
    }
    return NULL;
}

int bench_opts_parse(const struct bench_opt_table *table, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            help(table);
            return BENCH_EXIT_OK;
        }
        const char *equals = strchr(word, '=');
        size_t count = equals != NULL ? (size_t)(equals - word) : strlen(word);
        const struct bench_opt *o = find(table, word, count);
        if (o == NULL)
            return bench_opts_error(table, "unknown option '%.*s'", (int)count, word);
        if (o->kind == BENCH_OPT_FLAG) {
            if (equals != NULL)
                return bench_opts_error(table, "%s takes no value", o->name);
            *(bool *)o->target = true;
            continue;
        }
        const char *value = equals != NULL ? equals + 1 : NULL;
        if (value == NULL && o->kind != BENCH_OPT_MAYBE && i + 1 < argc)
            value = argv[++i];
        if (value == NULL && o->kind != BENCH_OPT_MAYBE)
            return bench_opts_error(table, "%s needs a value (%s)", o->name, o->arg);
        char why[96];
        const char *error = set_value(o, value, why, sizeof(why));
        if (error != NULL)
            return bench_opts_error(table, "%s '%s': %s", o->name, value != NULL ? value : "",
                                    error);
    }
    return -1;
}
