/*
 * gateway/tracking_find.c - finds messages in the tracking log and writes what became of them.
 *
 * Owns:     the lines of the messages that it found.
 * Runs on:  hikyakuctl's only thread, or a thread of the admin's for one search.
 * Contract: first the ids of messages of which some line meets the first term (an exact one where
 *           there is one, which the index knows), then every line of these messages; a message is
 *           printed when each term holds for one of its lines, and != and !~ for all.
 * Failure:  TRACKING_FAILED and why; a wrong expression: TRACKING_WRONG.
 * Bounds:   TRACKING_TERMS_MAX, TRACKING_FOUND_MAX; without an exact term every line is read.
 * Tests:    tests/system/test_trace.py
 */
#include "gateway/tracking_find.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/tracking_read.h"

enum op { OP_EQ, OP_NE, OP_LIKE, OP_UNLIKE, OP_GE, OP_LE, OP_GT, OP_LT };

struct term {
    char key[32], value[512];
    enum op op;
};

struct message {
    char qid[32];
    char *lines;
    size_t len, cap;
};

struct trace {
    struct term terms[TRACKING_TERMS_MAX];
    uint32_t count, first;
    struct tracking_want want;
    const atomic_bool *stop;
    FILE *out;
    uint64_t *hashes;
    struct message *messages;
    uint32_t message_count;
    bool more;
    char lower[TRACKING_BLOCK_BYTES]; /* of the block that is looked at */
};

/* ---- the expression ---- */

/* The value as it stands in a line: quotes and backslashes escaped. */
static const char *parse_value(struct term *t, const char *p)
{
    char end = *p == '"' ? '"' : ' ';
    size_t n = 0;
    if (end == '"')
        p++;
    for (; *p && *p != end && n < sizeof t->value - 2; p++) {
        if (end == '"' && *p == '\\' && p[1])
            p++;
        if (*p == '\\' || *p == '"')
            t->value[n++] = '\\';
        t->value[n++] = *p;
    }
    t->value[n] = '\0';
    if (end == '"' && *p++ != '"')
        return NULL;
    return *p && *p != ' ' ? NULL : p;
}

static bool parse(struct trace *t, const char *p)
{
    static const char *const ops[] = {"!=", "!~", ">=", "<=", "=", "~", ">", "<"};
    static const enum op codes[] = {OP_NE, OP_UNLIKE, OP_GE, OP_LE, OP_EQ, OP_LIKE, OP_GT, OP_LT};
    while (*p) {
        p += strspn(p, " ");
        if (t->count == TRACKING_TERMS_MAX)
            return false;
        struct term *term = &t->terms[t->count++];
        size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz_"), i = 0;
        if (n == 0 || n >= sizeof term->key)
            return false;
        memcpy(term->key, p, n);
        p += n + strspn(p + n, " ");
        while (i < 8 && strncmp(p, ops[i], strlen(ops[i])) != 0)
            i++;
        if (i == 8)
            return false;
        term->op = codes[i];
        p += strlen(ops[i]);
        p = parse_value(term, p + strspn(p, " "));
        if (!p)
            return false;
        p += strspn(p, " ");
        if (*p && strncmp(p, "and ", 4) != 0)
            return false;
        p += *p ? 4 : 0;
    }
    return t->count > 0;
}

/* The first term is the one that finds the fewest: exact, and in the index. */
static void choose_first(struct trace *t)
{
    static const char *const best[] = {"qid",       "about",  "origin",  "message_id", "session",
                                       "recipient", "sender", "account", "client"};
    for (size_t k = 0; k < sizeof best / sizeof *best; k++)
        for (uint32_t i = 0; i < t->count; i++)
            if (t->terms[i].op == OP_EQ && strcmp(t->terms[i].key, best[k]) == 0) {
                t->first = i;
                t->hashes[0] =
                    tracking_hash(slice_str(t->terms[i].key), slice_str(t->terms[i].value));
                t->want.hashes = t->hashes;
                t->want.hash_count = 1;
                return;
            }
}

static void choose_times(struct trace *t)
{
    for (uint32_t i = 0; i < t->count; i++) {
        const struct term *term = &t->terms[i];
        if (strcmp(term->key, "time") != 0)
            continue;
        if (term->op == OP_GE || term->op == OP_GT)
            snprintf(t->want.from, sizeof t->want.from, "%.19s", term->value);
        if (term->op == OP_LE || term->op == OP_LT)
            snprintf(t->want.until, sizeof t->want.until, "%.19s", term->value);
    }
}

/* ---- terms and lines ---- */

static bool value_matches(const struct term *t, struct slice value)
{
    struct slice want = slice_str(t->value);
    size_t n = value.len < want.len ? value.len : want.len;
    int order = n ? memcmp(value.ptr, want.ptr, n) : 0;
    switch (t->op) {
    case OP_EQ:
    case OP_NE: return slice_eq_nocase(value, want);
    case OP_LIKE:
    case OP_UNLIKE: return slice_glob_nocase(want, value);
    case OP_GE: return order >= 0; /* 2026-11-22 is before all that begins with it */
    case OP_LT: return order < 0;
    case OP_GT: return order > 0;
    case OP_LE: return order <= 0;
    }
    return false;
}

static bool line_matches(const struct term *t, struct slice line)
{
    struct slice key, value;
    while (tracking_member(&line, &key, &value))
        if (slice_eq(key, slice_str(t->key)) && value_matches(t, value))
            return true;
    return false;
}

static bool message_matches(const struct trace *t, const struct message *m)
{
    for (uint32_t i = 0; i < t->count; i++) {
        bool any = false;
        for (struct slice rest = slice_of(m->lines, m->len); rest.len && !any;) {
            size_t end = slice_find(rest, '\n');
            any = line_matches(&t->terms[i], slice_head(rest, end));
            rest = slice_from(rest, end + 1);
        }
        if (any == (t->terms[i].op == OP_NE || t->terms[i].op == OP_UNLIKE))
            return false;
    }
    return true;
}

/* ---- first: which messages ---- */

static struct message *message_find(struct trace *t, struct slice qid)
{
    for (uint32_t i = t->message_count; i > 0; i--)
        if (slice_eq(slice_str(t->messages[i - 1].qid), qid))
            return &t->messages[i - 1];
    return NULL;
}

static bool note_line(struct trace *t, struct slice line)
{
    struct slice rest = line, key, value;
    while (tracking_member(&rest, &key, &value)) {
        if (!slice_eq(key, SLICE_LIT("qid")) && !slice_eq(key, SLICE_LIT("about")))
            continue;
        if (value.len >= sizeof t->messages->qid || message_find(t, value))
            continue;
        if (t->message_count == TRACKING_FOUND_MAX) {
            t->more = true;
            return false;
        }
        struct message *m = &t->messages[t->message_count++];
        memcpy(m->qid, value.ptr, value.len);
    }
    return true;
}

/* The line around a byte of the block. */
static struct slice line_around(struct slice lines, size_t at)
{
    const uint8_t *before = at ? memrchr(lines.ptr, '\n', at) : NULL;
    size_t start = before ? (size_t)(before - lines.ptr) + 1 : 0;
    struct slice rest = slice_from(lines, start);
    return slice_head(rest, slice_find(rest, '\n'));
}

static void note_value(struct trace *t, struct slice lines, const char *value)
{
    char needle[sizeof t->terms->value];
    size_t n = strlen(value);
    for (size_t i = 0; i < n; i++)
        needle[i] = (char)ascii_lower((uint8_t)value[i]);
    for (size_t i = 0; i < lines.len; i++) {
        uint8_t c = lines.ptr[i];
        t->lower[i] = (char)(c | (uint8_t)((uint8_t)(c - 'A') < 26) << 5);
    }
    for (size_t at = 0; at < lines.len;) {
        const char *hit = memmem(t->lower + at, lines.len - at, needle, n);
        if (!hit)
            return;
        struct slice line = line_around(lines, (size_t)(hit - t->lower));
        at = (size_t)(line.ptr - lines.ptr) + line.len + 1;
        if (line_matches(&t->terms[t->first], line) && !note_line(t, line))
            return;
    }
}

static bool stopped(const struct trace *t)
{
    return t->stop && atomic_load_explicit(t->stop, memory_order_relaxed);
}

static bool find_in_block(void *arg, struct slice lines)
{
    struct trace *t = arg;
    const struct term *first = &t->terms[t->first];
    if (stopped(t))
        return false;
    if (first->op == OP_EQ && first->value[0]) { /* most lines do not have it: not taken apart */
        note_value(t, lines, first->value);
        return !t->more;
    }
    while (lines.len) {
        size_t end = slice_find(lines, '\n');
        struct slice line = slice_head(lines, end);
        bool excludes = first->op == OP_NE || first->op == OP_UNLIKE;
        if (line_matches(first, line) != excludes && !note_line(t, line))
            return false;
        lines = slice_from(lines, end < lines.len ? end + 1 : end);
    }
    return true;
}

/* ---- then: all their lines ---- */

static void message_add(struct message *m, struct slice line)
{
    if (m->len + line.len + 1 > m->cap) {
        size_t cap = (m->len + line.len + 1) * 2;
        char *more = realloc(m->lines, cap);
        if (!more)
            return;
        m->lines = more;
        m->cap = cap;
    }
    if (line.len)
        memcpy(m->lines + m->len, line.ptr, line.len);
    m->len += line.len;
    m->lines[m->len++] = '\n';
}

static int hash_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

#define NEEDLES_MAX 8u /* with more messages every line is looked at */

static bool block_has_any(const struct trace *t, struct slice lines)
{
    for (uint32_t i = 0; i < t->message_count; i++)
        if (memmem(lines.ptr, lines.len, t->messages[i].qid, strlen(t->messages[i].qid)))
            return true;
    return false;
}

static void gather_line(struct trace *t, struct slice lines, size_t at)
{
    struct slice value = slice_from(lines, at);
    value = slice_head(value, slice_find(value, '"'));
    uint64_t hash = tracking_hash(SLICE_LIT("qid"), value);
    struct message *m = bsearch(&hash, t->hashes, t->message_count, sizeof hash, hash_order)
                            ? message_find(t, value)
                            : NULL;
    if (m)
        message_add(m, line_around(lines, at));
}

/* Where the next value of `key` begins, behind `at`; lines.len: none. */
static size_t next_value(struct slice lines, size_t at, struct slice key)
{
    const uint8_t *hit =
        at < lines.len ? memmem(lines.ptr + at, lines.len - at, key.ptr, key.len) : NULL;
    return hit ? (size_t)(hit - lines.ptr) + key.len : lines.len;
}

/* Quotes in strings are escaped: what looks like a key is one. */
static void gather_lines(struct trace *t, struct slice lines)
{
    const struct slice qid = SLICE_LIT("\"qid\":\""), about = SLICE_LIT("\"about\":\"");
    size_t q = next_value(lines, 0, qid), a = next_value(lines, 0, about);
    while (q < lines.len || a < lines.len) { /* in the order of the lines */
        gather_line(t, lines, q < a ? q : a);
        if (q < a)
            q = next_value(lines, q, qid);
        else
            a = next_value(lines, a, about);
    }
}

static bool gather_in_block(void *arg, struct slice lines)
{
    struct trace *t = arg;
    if (stopped(t))
        return false;
    if (t->message_count <= NEEDLES_MAX && !block_has_any(t, lines))
        return true;
    gather_lines(t, lines);
    return true;
}

/* ---- printing ---- */

static const char *text_of(json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? s : "";
}

static void put_words(FILE *f, const char *s)
{
    for (; *s; s++)
        fputc((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s, f);
}

static void put_line(FILE *f, struct slice line)
{
    static const char *const shown[] = {"client", "account", "sender",     "recipient", "connector",
                                        "remote", "tls",     "message_id", "kind",      "about",
                                        "action", "status",  "reply",      "reason"};
    json_t *j = json_loadb((const char *)line.ptr, line.len, 0, NULL);
    if (!j)
        return;
    fprintf(f, "  %.23s  %-11s", text_of(j, "time"), text_of(j, "event"));
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        if (!text_of(j, shown[i])[0])
            continue;
        fprintf(f, " %s=", shown[i]);
        put_words(f, text_of(j, shown[i]));
    }
    fputc('\n', f);
    json_decref(j);
}

static void put_message(FILE *f, const struct message *m, bool json, bool first)
{
    if (json)
        fprintf(f, "%s{\"qid\":\"%s\",\"events\":[", first ? "" : ",", m->qid);
    else
        fprintf(f, "%s\n", m->qid);
    for (struct slice rest = slice_of(m->lines, m->len); rest.len;) {
        size_t end = slice_find(rest, '\n');
        struct slice line = slice_head(rest, end);
        if (json)
            fprintf(f, "%s%.*s", rest.ptr == (const uint8_t *)m->lines ? "" : ",", (int)line.len,
                    (const char *)line.ptr);
        else
            put_line(f, line);
        rest = slice_from(rest, end + 1);
    }
    if (json)
        fputs("]}", f);
}

/* Of an expression that found nothing: a field that is none of those known by name, mistyped most
 * likely; NULL: none. Lines may have more than these, so it is said and not refused. */
static const char *odd_field(const struct trace *t)
{
    static const char *const usual[] = {"qid",        "origin",  "about",  "sender",  "recipient",
                                        "message_id", "session", "client", "account", "event",
                                        "connector",  "time",    "remote", "code",    "status",
                                        "reply",      "attempt", "size",   "tls",     "kind"};
    for (uint32_t k = 0; k < t->count; k++) {
        size_t i = 0, count = sizeof usual / sizeof *usual;
        while (i < count && strcmp(usual[i], t->terms[k].key) != 0)
            i++;
        if (i == count)
            return t->terms[k].key;
    }
    return NULL;
}

static void put_all(const struct trace *t, uint32_t limit, bool json)
{
    uint32_t matched = 0;
    if (json)
        fputs("{\"messages\":[", t->out);
    for (uint32_t i = 0; i < t->message_count; i++) {
        if (!message_matches(t, &t->messages[i]))
            continue;
        if (matched++ < limit)
            put_message(t->out, &t->messages[i], json, matched == 1);
    }
    uint32_t shown = matched < limit ? matched : limit;
    const char *odd = matched == 0 && !t->more ? odd_field(t) : NULL;
    if (json)
        fprintf(t->out, "],\"matched\":%u,\"shown\":%u,\"more\":%s}\n", matched, shown,
                t->more ? "true" : "false");
    else if (odd)
        fprintf(t->out, "0 messages, 0 shown; '%s' is not one of the usual fields\n", odd);
    else
        fprintf(t->out, "%u messages, %u shown%s\n", matched, shown,
                t->more ? "; there are more, older ones were taken" : "");
}

/* ---- all of it ---- */

static bool search_files(struct trace *t, const char *path, struct why *why)
{
    if (!tracking_read(path, &t->want, find_in_block, t, why))
        return false;
    for (uint32_t i = 0; i < t->message_count; i++)
        t->hashes[i] = tracking_hash(SLICE_LIT("qid"), slice_str(t->messages[i].qid));
    qsort(t->hashes, t->message_count, sizeof *t->hashes, hash_order);
    const struct tracking_want all = {.hashes = t->hashes, .hash_count = t->message_count};
    if (t->message_count && !tracking_read(path, &all, gather_in_block, t, why))
        return false;
    if (stopped(t))
        why_set(why, 0, "", "the search was stopped");
    return !stopped(t);
}

enum tracking_found tracking_find(const struct tracking_search *search, FILE *out, struct why *why)
{
    struct trace *t = calloc(1, sizeof *t);
    enum tracking_found found = TRACKING_FAILED;
    why_set(why, 0, "", "out of memory");
    if (t) {
        t->messages = calloc(TRACKING_FOUND_MAX, sizeof *t->messages);
        t->hashes = calloc(TRACKING_FOUND_MAX, sizeof *t->hashes);
        t->stop = search->stop;
        t->out = out;
    }
    if (t && t->messages && t->hashes && !parse(t, search->expr)) {
        why_set(why, 0, "",
                "trace takes field op value joined by 'and', such as: "
                "recipient=a@example.com and time>=2026-11-22T08:00");
        found = TRACKING_WRONG;
    } else if (t && t->messages && t->hashes) {
        choose_first(t);
        choose_times(t);
        if (search_files(t, search->path, why)) {
            put_all(t, search->limit, search->json);
            found = TRACKING_FOUND;
        }
    }
    for (uint32_t i = 0; t && t->messages && i < t->message_count; i++)
        free(t->messages[i].lines);
    if (t) {
        free(t->messages);
        free(t->hashes);
    }
    free(t);
    return found;
}
