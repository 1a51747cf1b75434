/*
 * gateway/filter.c - filters over queued messages.
 *
 * Owns:     the parsed terms.
 * Runs on:  parsed on the control thread, matched on shards (read only).
 * Contract: an unknown field or operator, or a value of the wrong kind, is an error, never a term
 *           that matches nothing.
 * Failure:  one line that names the term.
 * Bounds:   FILTER_TERMS_MAX terms, VALUE_MAX bytes a value.
 * Tests:    tests/unit/test_filter.c
 */
#include "gateway/filter.h"

#include <stdlib.h>

#define VALUE_MAX 512u

enum op { OP_EQ, OP_NE, OP_LIKE, OP_UNLIKE, OP_GT, OP_GE, OP_LT, OP_LE };

enum kind { KIND_TEXT, KIND_NUMBER, KIND_SIZE, KIND_TIME };

static const struct {
    const char *name;
    enum kind kind;
} fields[] = {
    [FILTER_QID] = {"qid", KIND_TEXT},
    [FILTER_SENDER] = {"sender", KIND_TEXT},
    [FILTER_RECIPIENT] = {"recipient", KIND_TEXT},
    [FILTER_DOMAIN] = {"domain", KIND_TEXT},
    [FILTER_CONNECTOR] = {"connector", KIND_TEXT},
    [FILTER_SITE] = {"site", KIND_TEXT},
    [FILTER_STATUS] = {"status", KIND_TEXT},
    [FILTER_SIZE] = {"size", KIND_SIZE},
    [FILTER_AGE] = {"age", KIND_TIME},
    [FILTER_RETRIES] = {"retries", KIND_NUMBER},
    [FILTER_LAST_ERROR] = {"last_error", KIND_TEXT},
    [FILTER_SOURCE_IP] = {"source_ip", KIND_TEXT},
    [FILTER_ACCOUNT] = {"account", KIND_TEXT},
    [FILTER_SUBJECT] = {"subject", KIND_TEXT},
};

#define FIELD_COUNT (sizeof fields / sizeof *fields)

static const struct {
    const char *text;
    enum op op;
} ops[] = {{"!=", OP_NE}, {"!~", OP_UNLIKE}, {">=", OP_GE}, {"<=", OP_LE},
           {"=", OP_EQ},  {"~", OP_LIKE},    {">", OP_GT},  {"<", OP_LT}};

struct term {
    uint8_t field, op;
    uint16_t len;
    uint64_t number;
    char value[VALUE_MAX];
};

struct filter {
    uint32_t count;
    struct term terms[FILTER_TERMS_MAX];
};

/* ---- matching ---- */

static int compare_text(struct slice a, struct slice b)
{
    for (size_t i = 0; i < a.len && i < b.len; i++) {
        int d = ascii_lower(a.ptr[i]) - ascii_lower(b.ptr[i]);
        if (d)
            return d;
    }
    return a.len < b.len ? -1 : a.len > b.len;
}

static bool order_matches(enum op op, int order)
{
    switch (op) {
    case OP_EQ: return order == 0;
    case OP_NE: return order != 0;
    case OP_GT: return order > 0;
    case OP_GE: return order >= 0;
    case OP_LT: return order < 0;
    case OP_LE: return order <= 0;
    default: return false;
    }
}

static bool text_matches(const struct term *t, struct slice v)
{
    struct slice want = slice_of(t->value, t->len);
    if (t->op == OP_LIKE || t->op == OP_UNLIKE)
        return slice_glob_nocase(want, v) == (t->op == OP_LIKE);
    return order_matches((enum op)t->op, compare_text(v, want));
}

/* Any recipient that matches will do; for != and !~ none may be what is excluded. */
static bool rcpt_matches(const struct term *t, const struct filter_row *row)
{
    bool all = t->op == OP_NE || t->op == OP_UNLIKE;
    for (uint32_t i = 0; i < row->rcpt_count; i++) {
        struct slice r = row->rcpt(row->arg, i);
        if (r.len == 0)
            continue;
        if (text_matches(t, t->field == FILTER_DOMAIN ? slice_after_last(r, '@') : r) != all)
            return !all;
    }
    return all;
}

static bool number_matches(const struct term *t, uint64_t v)
{
    return order_matches((enum op)t->op, v < t->number ? -1 : v > t->number);
}

static bool term_matches(const struct term *t, const struct filter_row *row)
{
    switch ((enum filter_field)t->field) {
    case FILTER_QID: return text_matches(t, row->qid);
    case FILTER_SENDER: return text_matches(t, row->sender);
    case FILTER_RECIPIENT:
    case FILTER_DOMAIN: return rcpt_matches(t, row);
    case FILTER_CONNECTOR: return text_matches(t, row->connector);
    case FILTER_SITE: return text_matches(t, row->site);
    case FILTER_STATUS: return text_matches(t, row->status);
    case FILTER_SIZE: return number_matches(t, row->size);
    case FILTER_AGE: return number_matches(t, row->age_s);
    case FILTER_RETRIES: return number_matches(t, row->retries);
    case FILTER_LAST_ERROR: return text_matches(t, row->last_error);
    case FILTER_SOURCE_IP: return text_matches(t, row->source_ip);
    case FILTER_ACCOUNT: return text_matches(t, row->account);
    case FILTER_SUBJECT: return text_matches(t, row->subject);
    }
    return false;
}

bool filter_matches(const struct filter *f, const struct filter_row *row)
{
    for (uint32_t i = 0; f && i < f->count; i++)
        if (!term_matches(&f->terms[i], row))
            return false;
    return true;
}

bool filter_needs_envelope(const struct filter *f)
{
    for (uint32_t i = 0; f && i < f->count; i++) {
        uint8_t field = f->terms[i].field;
        if (field != FILTER_QID && field != FILTER_STATUS && field != FILTER_SIZE &&
            field != FILTER_AGE && field != FILTER_RETRIES)
            return true;
    }
    return false;
}

/* ---- parsing ---- */

static bool parse_number(struct term *t, enum kind kind)
{
    static const struct {
        enum kind kind;
        const char *unit;
        uint64_t factor;
    } units[] = {{KIND_SIZE, "KiB", 1024},    {KIND_SIZE, "MiB", 1024 * 1024},
                 {KIND_SIZE, "GiB", 1 << 30}, {KIND_SIZE, "B", 1},
                 {KIND_TIME, "s", 1},         {KIND_TIME, "m", 60},
                 {KIND_TIME, "h", 3600},      {KIND_TIME, "d", 86400}};
    char *end;
    if (t->value[0] < '0' || t->value[0] > '9')
        return false;
    t->number = strtoull(t->value, &end, 10);
    if (*end == '\0')
        return true;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (units[i].kind == kind && strcmp(end, units[i].unit) == 0)
            return !__builtin_mul_overflow(t->number, units[i].factor, &t->number);
    return false;
}

static const char *skip_space(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

/* The value: quoted, or up to the next space. NULL: too long, or a quote that does not end. */
static const char *parse_value(struct term *t, const char *p)
{
    char end = ' ';
    if (*p == '"') {
        end = '"';
        p++;
    }
    while (*p && *p != end && t->len < VALUE_MAX - 1)
        t->value[t->len++] = *p++;
    t->value[t->len] = '\0';
    if (end == '"' && *p++ != '"')
        return NULL;
    return *p && *p != ' ' ? NULL : p;
}

static const char *parse_term(struct term *t, const char *p, struct why *why)
{
    size_t len = strspn(p, "abcdefghijklmnopqrstuvwxyz_"), i;
    for (i = 0; i < FIELD_COUNT; i++)
        if (strlen(fields[i].name) == len && strncmp(p, fields[i].name, len) == 0)
            break;
    if (i == FIELD_COUNT) {
        why_set(why, 501, "5.5.4", "filter: no field is called '%.*s'", len ? (int)len : 10, p);
        return NULL;
    }
    t->field = (uint8_t)i;
    const char *at = skip_space(p + len);
    for (i = 0; i < sizeof ops / sizeof *ops; i++)
        if (strncmp(at, ops[i].text, strlen(ops[i].text)) == 0)
            break;
    if (i == sizeof ops / sizeof *ops) {
        why_set(why, 501, "5.5.4", "filter: '%.*s' needs one of = != ~ !~ > >= < <= behind it",
                (int)len, p);
        return NULL;
    }
    t->op = (uint8_t)ops[i].op;
    const char *end = parse_value(t, skip_space(at + strlen(ops[i].text)));
    enum kind kind = fields[t->field].kind;
    bool glob = t->op == OP_LIKE || t->op == OP_UNLIKE;
    if (!end)
        why_set(why, 501, "5.5.4",
                "filter: the value of '%.*s' is too long or its quote does not end", (int)len, p);
    else if (kind != KIND_TEXT && (glob || !parse_number(t, kind)))
        why_set(why, 501, "5.5.4", "filter: '%.*s' compares with a %s, such as %s>%s", (int)len, p,
                kind == KIND_TIME   ? "time"
                : kind == KIND_SIZE ? "size"
                                    : "number",
                fields[t->field].name,
                kind == KIND_TIME   ? "1h"
                : kind == KIND_SIZE ? "1MiB"
                                    : "3");
    else
        return end;
    return NULL;
}

struct filter *filter_parse(const char *text, struct why *why)
{
    struct filter *f = calloc(1, sizeof *f);
    const char *p = skip_space(text);
    why_set(why, 451, "4.3.1", "out of memory");
    while (f) {
        if (f->count == FILTER_TERMS_MAX) {
            why_set(why, 501, "5.5.4", "filter: more than %d terms", FILTER_TERMS_MAX);
            break;
        }
        p = parse_term(&f->terms[f->count++], p, why);
        if (!p)
            break;
        p = skip_space(p);
        if (!*p)
            return f;
        if (strncmp(p, "and ", 4) != 0) {
            why_set(why, 501, "5.5.4", "filter: terms are joined by 'and', not '%.20s'", p);
            break;
        }
        p = skip_space(p + 4);
    }
    filter_free(f);
    return NULL;
}

void filter_free(struct filter *f)
{
    free(f);
}
