/*
 * gateway/switches.c - the list of suspended and disabled connectors, in memory and as text.
 *
 * Owns:     the items of a list (malloc'd: not the message path).
 * Runs on:  the control thread; shards read the copy in their generation.
 * Contract: a connector is in the list at most once, and only when it is not on.
 * Failure:  false, and the list is as it was.
 * Bounds:   SWITCHES_MAX.
 * Tests:    tests/unit/test_switches.c
 */
#include "gateway/switches.h"

#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = {"receive", "send"};
static const char *const states[] = {"enabled", "suspended", "disabled"};

const char *connector_kind_name(enum connector_kind kind)
{
    return kinds[kind];
}

const char *connector_switch_name(enum connector_switch state)
{
    return states[state];
}

static struct switch_item *find(const struct switches *s, enum connector_kind kind,
                                const char *name)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (s->items[i].kind == kind && strcmp(s->items[i].name, name) == 0)
            return &s->items[i];
    return NULL;
}

enum connector_switch switches_get(const struct switches *s, enum connector_kind kind,
                                   const char *name)
{
    const struct switch_item *item = find(s, kind, name);
    return item ? item->state : CONNECTOR_ON;
}

static bool room(struct switches *s)
{
    if (s->count < s->cap)
        return true;
    uint32_t cap = s->cap ? s->cap * 2 : 16;
    if (cap > SWITCHES_MAX)
        return false;
    struct switch_item *more = realloc(s->items, sizeof *more * cap);
    if (!more)
        return false;
    s->items = more;
    s->cap = cap;
    return true;
}

bool switches_set(struct switches *s, enum connector_kind kind, const char *name,
                  enum connector_switch state)
{
    struct switch_item *item = find(s, kind, name);
    if (strlen(name) >= sizeof item->name)
        return false;
    if (item && state == CONNECTOR_ON) {
        *item = s->items[--s->count];
    } else if (item) {
        item->state = state;
    } else if (state != CONNECTOR_ON) {
        if (!room(s))
            return false;
        item = &s->items[s->count++];
        *item = (struct switch_item){.kind = kind, .state = state};
        memcpy(item->name, name, strlen(name));
    }
    return true;
}

bool switches_copy(const struct switches *s, struct switches *out)
{
    *out = (struct switches){0};
    if (s->count == 0)
        return true;
    out->items = malloc(sizeof *out->items * s->count);
    if (!out->items)
        return false;
    memcpy(out->items, s->items, sizeof *out->items * s->count);
    out->count = out->cap = s->count;
    return true;
}

void switches_free(struct switches *s)
{
    free(s->items);
    *s = (struct switches){0};
}

bool switches_write(const struct switches *s, struct buf *out)
{
    for (uint32_t i = 0; i < s->count; i++)
        buf_addf(out, "%s %s %s\n", kinds[s->items[i].kind], states[s->items[i].state],
                 s->items[i].name);
    return !out->overflow;
}

/* The word before the next blank, which is taken off too. */
static struct slice take_word(struct slice *line)
{
    size_t n = slice_find(*line, ' ');
    struct slice word = slice_head(*line, n);
    *line = slice_from(*line, n < line->len ? n + 1 : n);
    return word;
}

static uint32_t word_index(const char *const *words, uint32_t count, struct slice word)
{
    uint32_t i = 0;
    while (i < count && !slice_eq(slice_str(words[i]), word))
        i++;
    return i;
}

bool switches_parse(struct slice text, struct switches *out)
{
    *out = (struct switches){0};
    while (text.len) {
        size_t end = slice_find(text, '\n');
        struct slice line = slice_head(text, end);
        text = slice_from(text, end < text.len ? end + 1 : end);
        uint32_t kind = word_index(kinds, 2, take_word(&line));
        uint32_t state = word_index(states, 3, take_word(&line));
        char name[CONFIG_NAME_MAX + 1];
        if (kind == 2 || state == 3 || line.len == 0 || line.len >= sizeof name)
            continue;
        memcpy(name, line.ptr, line.len);
        name[line.len] = '\0';
        if (!switches_set(out, (enum connector_kind)kind, name, (enum connector_switch)state)) {
            switches_free(out);
            return false;
        }
    }
    return true;
}
