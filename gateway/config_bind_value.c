/*
 * gateway/config_bind_value.c - one value into its place: texts, names, numbers, choices,
 * addresses.
 *
 * Owns:     nothing; what is stored belongs to the configuration's pool.
 * Runs on:  the control thread, at start and at reload.
 * Contract: a value is stored only when it is of its type and in its range. Values of texts, which
 *           may be passwords, never stand in messages.
 * Failure:  FILE:LINE:COLUMN of the value, and what was expected there.
 * Bounds:   those of the table.
 * Tests:    tests/unit/test_config_faults.c, tests/unit/test_config.c, tests/fuzz/fuzz_config.c
 */
#include "gateway/config_bind_internal.h"
#include "routing/domain.h"

/* ---- storing ---- */

bool config_wrong(const struct config_slot *s, const struct config_node *n, const char *expected)
{
    return config_fail(s->r, n->place, "%s: expected %s", s->path, expected);
}

void config_store(const struct config_slot *s, uint64_t value)
{
    char *at = s->base + s->key->offset;
    switch (s->key->width) {
    case 0: break;
    case 1: *(uint8_t *)at = (uint8_t)value; break;
    case 2: *(uint16_t *)at = (uint16_t)value; break;
    case 4: *(uint32_t *)at = (uint32_t)value; break;
    default: *(uint64_t *)at = value; break;
    }
}

static bool config_store_text(const struct config_slot *s, const char *text)
{
    if (s->key->width == 0)
        return true;
    char **at = (char **)(void *)(s->base + s->key->offset);
    *at = *text ? config_copy(s->r, s->r->pool, text, strlen(text)) : NULL;
    return !s->r->failed;
}

/* ---- words, numbers ---- */

static bool bind_name(const struct config_slot *s)
{
    const char *text = s->node->text;
    size_t len = strlen(text);
    bool ok = len > 0 && len <= CONFIG_NAME_MAX;
    for (size_t i = 0; ok && i < len; i++) {
        uint8_t c = ascii_lower((uint8_t)text[i]);
        ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("-_.", c);
    }
    return ok ? config_store_text(s, text)
              : config_wrong(s, s->node, "1 to 64 letters, digits, '-', '_' or '.'");
}

static bool bind_domain(const struct config_slot *s)
{
    struct why why;
    char ascii[DOMAIN_TEXT_MAX];
    struct slice text = slice_str(s->node->text);
    if (text.len == 0 && s->key->standard)
        return config_store_text(s, "");
    if (s->key->type == CONFIG_TYPE_SPACE ? !domain_pattern_to_ascii(text, ascii, &why)
                                          : !domain_to_ascii(text, ascii, &why)) {
        const char *reason = strstr(why.text, ": ");
        return config_fail(s->r, s->node->place, "%s: %.64s is no %s: %s", s->path, s->node->text,
                           s->key->type == CONFIG_TYPE_SPACE ? "address space" : "domain",
                           reason ? reason + 2 : why.text);
    }
    return config_store_text(s, ascii);
}

/* "14400000000000" is of no use in a message; the largest unit that divides it is. */
static void number_text(const struct config_key *k, uint64_t value, char text[32])
{
    static const struct {
        uint64_t factor;
        const char *word;
    } sizes[] = {{1024 * GIB, "TiB"}, {GIB, "GiB"}, {MIB, "MiB"}, {KIB, "KiB"}, {1, ""}},
      times[] = {{86400 * NS_PER_S, "d"}, {3600 * NS_PER_S, "h"}, {60 * NS_PER_S, "m"},
                 {NS_PER_S, "s"},         {NS_PER_MS, "ms"},      {1, "ns"}};
    bool time = k->type == CONFIG_TYPE_TIME || k->type == CONFIG_TYPE_TIMES;
    snprintf(text, 32, "%llu", (unsigned long long)value);
    if (value == 0 || (!time && k->type != CONFIG_TYPE_SIZE))
        return;
    value *= time ? k->unit : 1;
    for (uint32_t i = 0; i < 5; i++) {
        uint64_t factor = time ? times[i].factor : sizes[i].factor;
        if (value % factor == 0) {
            snprintf(text, 32, "%llu%s", (unsigned long long)(value / factor),
                     time ? times[i].word : sizes[i].word);
            return;
        }
    }
}

void config_range_text(const struct config_key *k, char text[80])
{
    char min[32], max[32];
    number_text(k, k->min, min);
    number_text(k, k->max, max);
    snprintf(text, 80, "%s to %s", min, max);
}

bool config_number_of(const struct config_slot *s, const struct config_node *n, uint64_t *out)
{
    const struct config_key *k = s->key;
    char range[80];
    bool ok = n->kind == CONFIG_SCALAR;
    switch (k->type) {
    case CONFIG_TYPE_SIZE:
        if (!ok || !config_size_parse(n->text, out))
            return config_wrong(s, n, "a size such as 500KiB, 25MiB, 20GiB or a number of bytes");
        break;
    case CONFIG_TYPE_TIME:
    case CONFIG_TYPE_TIMES:
        if (!ok || !config_time_parse(n->text, out))
            return config_wrong(s, n, "a time such as 90s, 5m, 2h or 2d");
        if (*out % k->unit)
            return config_wrong(s, n, "whole seconds");
        *out /= k->unit;
        break;
    default:
        if (ok && k->zero && strcmp(n->text, k->zero) == 0) {
            *out = 0;
            return true;
        }
        if (!ok || !config_count_parse(n->text, out)) {
            config_range_text(k, range);
            return config_fail(s->r, n->place, "%s: expected %s%sa number from %s", s->path,
                               k->zero ? k->zero : "", k->zero ? " or " : "", range);
        }
    }
    if (*out >= k->min && *out <= k->max)
        return true;
    config_range_text(k, range);
    return config_fail(s->r, n->place, "%s: %.32s is out of range, %s", s->path, n->text, range);
}

static const char *choice_word(const void *arg, uint32_t i)
{
    return ((const struct config_choice *)arg)[i].word;
}

bool config_choice_of(const struct config_slot *s, const struct config_node *n, uint32_t *out)
{
    const struct config_choice *c = s->key->choices;
    char words[200] = "";
    uint32_t count = 0;
    size_t len = 0;
    for (; c->word; c++, count++) {
        if (n->kind == CONFIG_SCALAR && strcmp(n->text, c->word) == 0) {
            *out = c->value;
            return !c->unsupported ||
                   config_fail(s->r, n->place, "%s: %s is not supported yet", s->path, c->word);
        }
        if (!c->unsupported && len < sizeof words)
            len += (size_t)snprintf(words + len, sizeof words - len, "%s%s", len ? " | " : "",
                                    c->word);
    }
    const char *near = n->kind == CONFIG_SCALAR && !n->quoted && n->text[0]
                           ? config_nearest(n->text, choice_word, s->key->choices, count)
                           : NULL;
    return config_fail(s->r, n->place, "%s: expected %s%s%s%s", s->path, words,
                       near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

bool config_address_of(const struct config_slot *s, const struct config_node *n,
                       struct io_addr *out)
{
    uint32_t port = s->key->unit;
    if (n->kind == CONFIG_SCALAR && config_address_parse(n->text, port, out))
        return true;
    return config_wrong(s, n,
                        port == CONFIG_PORT_NONE ? "an address such as 192.0.2.1 or 2001:db8::1"
                        : port == CONFIG_PORT_GIVEN
                            ? "an address with port, such as 0.0.0.0:25 or \"[::]:25\""
                            : "an address such as 192.0.2.1 or \"[2001:db8::1]:5353\"");
}

bool config_bind_scalar(const struct config_slot *s)
{
    const struct config_key *k = s->key;
    uint64_t number = 0;
    uint32_t choice = 0;
    bool yes = false;
    struct io_addr a = {0};
    if (s->node->kind != CONFIG_SCALAR)
        return config_wrong(s, s->node, "one value, no list and no map");
    switch (k->type) {
    case CONFIG_TYPE_STRING: return config_store_text(s, s->node->text);
    case CONFIG_TYPE_NAME: return bind_name(s);
    case CONFIG_TYPE_DOMAIN:
    case CONFIG_TYPE_SPACE: return bind_domain(s);
    case CONFIG_TYPE_PATH: {
        char *path = s->node->text[0] ? config_path(s->r, &s->r->scratch, s->node) : "";
        return path && config_store_text(s, path);
    }
    case CONFIG_TYPE_BOOL:
        if (!config_bool_parse(s->node->text, &yes))
            return config_wrong(s, s->node, "true or false");
        config_store(s, yes);
        return true;
    case CONFIG_TYPE_CHOICE:
        if (!config_choice_of(s, s->node, &choice))
            return false;
        config_store(s, choice);
        return true;
    case CONFIG_TYPE_ADDRESS:
        if (s->node->text[0] && !config_address_of(s, s->node, &a))
            return false;
        if (k->width)
            *(struct io_addr *)(void *)(s->base + k->offset) = a;
        return true;
    default:
        if (!config_number_of(s, s->node, &number))
            return false;
        config_store(s, number);
        return true;
    }
}
