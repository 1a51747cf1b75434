/*
 * gateway/config_value.c - words to values: booleans, numbers, sizes, times, addresses, networks.
 *
 * Owns:     nothing.
 * Runs on:  any thread; pure.
 * Contract: the whole text is the value, or it is refused; no number wraps around.
 * Failure:  false; the caller knows what was expected.
 * Bounds:   none.
 * Tests:    tests/unit/test_config_value.c
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <strings.h>

#include "gateway/config_internal.h"

bool config_bool_parse(const char *text, bool *out)
{
    static const char *const words[2][3] = {{"false", "no", "off"}, {"true", "yes", "on"}};
    for (int i = 0; i < 6; i++)
        if (strcasecmp(text, words[i / 3][i % 3]) == 0) {
            *out = i / 3;
            return true;
        }
    return false;
}

/* Digits at the start of *text, which is moved behind them. */
static bool digits(const char **text, uint64_t *out)
{
    const char *p = *text;
    *out = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(*out, 10u, out) ||
            __builtin_add_overflow(*out, (uint64_t)(*p - '0'), out))
            return false;
    bool some = p != *text;
    *text = p;
    return some;
}

bool config_count_parse(const char *text, uint64_t *out)
{
    return digits(&text, out) && *text == '\0';
}

struct unit {
    const char *word;
    uint64_t factor;
};

static bool scaled(const char *text, const struct unit *units, uint32_t count, uint64_t *out)
{
    if (!digits(&text, out))
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (strcasecmp(text, units[i].word) == 0)
            return !__builtin_mul_overflow(*out, units[i].factor, out);
    return false;
}

bool config_size_parse(const char *text, uint64_t *out)
{
    static const struct unit units[] = {{"", 1},      {"B", 1},     {"KiB", KIB},
                                        {"MiB", MIB}, {"GiB", GIB}, {"TiB", 1024 * GIB}};
    return scaled(text, units, sizeof units / sizeof units[0], out);
}

bool config_time_parse(const char *text, uint64_t *out)
{
    static const struct unit units[] = {{"ms", NS_PER_MS},
                                        {"s", NS_PER_S},
                                        {"m", 60 * NS_PER_S},
                                        {"h", 3600 * NS_PER_S},
                                        {"d", 86400 * NS_PER_S}};
    if (strcmp(text, "0") == 0) {
        *out = 0;
        return true;
    }
    return scaled(text, units, sizeof units / sizeof units[0], out);
}

/* ---- addresses ---- */

bool config_address_parse(const char *text, uint32_t port, struct io_addr *out)
{
    struct slice host = slice_str(text);
    uint64_t given = port == CONFIG_PORT_NONE ? 0 : port;
    /* Without a port, brackets are not needed: "::1". */
    if (port != CONFIG_PORT_GIVEN && io_addr_parse(out, host, (uint16_t)given))
        return true;
    const char *colon = strrchr(text, ':');
    if (port == CONFIG_PORT_NONE || !colon || !config_count_parse(colon + 1, &given) ||
        given == 0 || given > UINT16_MAX)
        return false;
    host = slice_head(host, (size_t)(colon - text));
    /* An IPv6 address with a port needs its brackets, or the last group would be taken for one. */
    if (host.len && host.ptr[0] != '[' && slice_find(host, ':') < host.len)
        return false;
    return io_addr_parse(out, host, (uint16_t)given);
}

/* ---- networks ---- */

static uint8_t family_bits(uint8_t family)
{
    return family == AF_INET ? 32 : 128;
}

static bool host_parse(const char *text, size_t len, struct config_network *out)
{
    struct io_addr a;
    *out = (struct config_network){0};
    if (!io_addr_parse(&a, slice_of(text, len), 0))
        return false;
    out->family = (uint8_t)a.sa.sa_family;
    out->bits = family_bits(out->family);
    if (out->family == AF_INET)
        memcpy(out->addr, &a.in.sin_addr, 4);
    else
        memcpy(out->addr, &a.in6.sin6_addr, 16);
    return true;
}

/* Clears the bits behind the prefix. True: some were set. */
static bool network_trim(struct config_network *n)
{
    bool beyond = false;
    for (uint32_t i = n->bits; i < family_bits(n->family); i++) {
        uint8_t bit = (uint8_t)(0x80u >> i % 8);
        beyond |= n->addr[i / 8] & bit;
        n->addr[i / 8] &= (uint8_t)~bit;
    }
    return beyond;
}

/* The last address of `n` is set in `out`, whose bits are those of a host. */
static void network_last(const struct config_network *n, struct config_network *out)
{
    *out = *n;
    out->bits = family_bits(n->family);
    for (uint32_t i = n->bits; i < out->bits; i++)
        out->addr[i / 8] |= (uint8_t)(0x80u >> i % 8);
}

/* The address behind `a`. False: there is none. */
static bool host_next(struct config_network *a)
{
    for (uint32_t i = family_bits(a->family) / 8; i-- > 0;)
        if (++a->addr[i] != 0)
            return true;
    return false;
}

/* The fewest networks that are exactly `low` to `high`: each time the largest that starts at low.
 */
static uint32_t range_split(struct config_network low, const struct config_network *high,
                            struct config_network *out)
{
    struct config_network last;
    uint32_t count = 0;
    do {
        struct config_network n = low;
        while (n.bits > 0) {
            struct config_network wider = n;
            wider.bits--;
            if (network_trim(&wider))
                break; /* would start before low */
            network_last(&wider, &last);
            if (memcmp(last.addr, high->addr, sizeof last.addr) > 0)
                break;
            n = wider;
        }
        out[count++] = n;
        network_last(&n, &low);
        last = low;
    } while (memcmp(last.addr, high->addr, sizeof last.addr) < 0 && host_next(&low));
    return count;
}

uint32_t config_network_parse(const char *text,
                              struct config_network out[CONFIG_NETWORKS_OF_RANGE_MAX],
                              struct why *why)
{
    const char *dash = strchr(text, '-'), *slash = strchr(text, '/');
    size_t len = dash ? (size_t)(dash - text) : slash ? (size_t)(slash - text) : strlen(text);
    struct config_network n, high;
    uint64_t bits;
    if (!host_parse(text, len, &n) || (dash && !host_parse(dash + 1, strlen(dash + 1), &high))) {
        why_set(why, 0, "",
                "expected a network such as 192.0.2.0/24 or 2001:db8::/32, or a range such as "
                "192.0.2.10-192.0.2.20");
        return 0;
    }
    if (dash) {
        if (n.family == high.family && memcmp(n.addr, high.addr, sizeof n.addr) <= 0)
            return range_split(n, &high, out);
        why_set(why, 0, "", "a range goes from a lower to a higher address of one family");
        return 0;
    }
    bits = n.bits;
    if (slash && (!config_count_parse(slash + 1, &bits) || bits > n.bits)) {
        why_set(why, 0, "", "the length behind / is a number from 0 to %u", n.bits);
        return 0;
    }
    n.bits = (uint8_t)bits;
    if (network_trim(&n)) { /* a slip of the pen that would open more, or less, than was meant */
        char right[INET6_ADDRSTRLEN] = "";
        inet_ntop(n.family, n.addr, right, sizeof right);
        why_set(why, 0, "", "the address has bits beyond its prefix; write %s/%u or %.*s", right,
                n.bits, (int)len, text);
        return 0;
    }
    out[0] = n;
    return 1;
}

/* ---- words ---- */

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/*
 * Slips of the pen from a to b, both short: a letter too much, too few, another one, or two swapped
 * (optimal string alignment). Rows: this one, the one before, the one before that.
 */
static uint32_t distance(const char *a, const char *b)
{
    uint32_t rows[3][CONFIG_NAME_MAX + 1];
    uint32_t m = (uint32_t)strlen(a), n = (uint32_t)strlen(b);
    if (m > CONFIG_NAME_MAX || n > CONFIG_NAME_MAX)
        return UINT32_MAX;
    for (uint32_t j = 0; j <= n; j++)
        rows[0][j] = j;
    for (uint32_t i = 1; i <= m; i++) {
        uint32_t *row = rows[i % 3], *before = rows[(i + 2) % 3], *older = rows[(i + 1) % 3];
        row[0] = i;
        for (uint32_t j = 1; j <= n; j++) {
            row[j] = before[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = least(row[j], least(before[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], older[j - 2] + 1);
        }
    }
    return rows[m % 3][n];
}

const char *config_nearest(const char *word, const char *(*word_at)(const void *arg, uint32_t i),
                           const void *arg, uint32_t count)
{
    const char *best = NULL;
    uint32_t best_distance = (uint32_t)(strlen(word) + 2) / 4;
    for (uint32_t i = 0; i < count; i++) {
        const char *other = word_at(arg, i);
        uint32_t d = distance(word, other);
        if (d < best_distance || (d == best_distance && !best)) {
            best = other;
            best_distance = d;
        }
    }
    return best;
}
