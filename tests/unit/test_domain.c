/* Domain names in one form; patterns found by suffix. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "routing/domain.h"

static const char *ascii(const char *in)
{
    static char out[DOMAIN_TEXT_MAX];
    return domain_to_ascii(slice_str(in), out, NULL) ? out : "(refused)";
}

static const char *pattern(const char *in)
{
    static char out[DOMAIN_TEXT_MAX];
    return domain_pattern_to_ascii(slice_str(in), out, NULL) ? out : "(refused)";
}

Test(domain, converts)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"example.com", "example.com"},
        {"EXAMPLE.Com.", "example.com"},
        {"a_b.x-1.example", "a_b.x-1.example"},
        {"localhost", "localhost"},
        {"bücher.example", "xn--bcher-kva.example"},
        {"BÜCHER.example", "xn--bcher-kva.example"},
        {"bu\xcc\x88"
         "cher.example",
         "xn--bcher-kva.example"},             /* combining diaeresis */
        {"faß.example", "xn--fa-hia.example"}, /* non-transitional: not fass */
        {"飛脚.jp", "xn--w40al00c.jp"},
        {"飛脚。jp", "xn--w40al00c.jp"}, /* ideographic full stop */
        {"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
        {"[192.0.2.1]", "[192.0.2.1]"},
        {"[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"},
        {"", "(refused)"},
        {".", "(refused)"},
        {"a..b", "(refused)"},
        {".a", "(refused)"},
        {"a b", "(refused)"},
        {"a/b", "(refused)"},
        {"a@b", "(refused)"},
        {"*.example.com", "(refused)"},
        {"ü／b.example", "(refused)"}, /* a full-width slash maps to '/' */
        {"\xff\xfe.example", "(refused)"},
        {"\xc0\xae.example", "(refused)"}, /* overlong */
        {"[192.0.2.1 ]", "(refused)"},
        {"[a]b]", "(refused)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        cr_expect_str_eq(ascii(cases[i].in), cases[i].out, "%s", cases[i].in);
}

Test(domain, says_why)
{
    char out[DOMAIN_TEXT_MAX];
    struct why why = {0};
    cr_expect_not(domain_to_ascii(slice_str("a..b"), out, &why));
    cr_expect_eq(why.smtp_code, 501);
    cr_expect_str_eq(why.enhanced, "5.1.3");
    cr_expect_str_eq(why.text, "Bad domain: empty label");
    cr_expect_not(domain_to_ascii(slice_of("b\303\274\0.x", 6), out, &why), "NUL");
}

Test(domain, keeps_its_limits)
{
    char name[400], out[DOMAIN_TEXT_MAX];
    memset(name, 'a', sizeof name);
    cr_expect(domain_to_ascii(slice_of(name, 63), out, NULL));
    cr_expect_not(domain_to_ascii(slice_of(name, 64), out, NULL));
    for (size_t i = 1; i < sizeof name; i += 2)
        name[i] = '.';
    cr_expect(domain_to_ascii(slice_of(name, 253), out, NULL));
    cr_expect_eq(strlen(out), 253);
    cr_expect_not(domain_to_ascii(slice_of(name, 255), out, NULL));
}

Test(domain, is_a_fixed_point)
{
    static const char *const names[] = {"Bücher.Example", "[IPv6:2001:DB8::1]", "A.b", "飛脚.jp."};
    for (size_t i = 0; i < 4; i++) {
        char once[DOMAIN_TEXT_MAX], twice[DOMAIN_TEXT_MAX];
        cr_assert(domain_to_ascii(slice_str(names[i]), once, NULL));
        cr_assert(domain_to_ascii(slice_str(once), twice, NULL));
        cr_expect_str_eq(once, twice);
    }
}

Test(domain, converts_patterns)
{
    cr_expect_str_eq(pattern("*"), "*");
    cr_expect_str_eq(pattern("*.Example.COM"), "*.example.com");
    cr_expect_str_eq(pattern("*.bücher.example"), "*.xn--bcher-kva.example");
    cr_expect_str_eq(pattern("Example.com"), "example.com");
    cr_expect_str_eq(pattern("*."), "(refused)");
    cr_expect_str_eq(pattern("*.*.com"), "(refused)");
    cr_expect_str_eq(pattern("*example.com"), "(refused)");
    cr_expect_str_eq(pattern("a.*"), "(refused)");
    cr_expect_str_eq(pattern("*.[192.0.2.1]"), "(refused)");
}

/* ---- the map ---- */

static void put(struct domain_map *m, const char *p, uint32_t value)
{
    uint32_t *slot = domain_map_slot(m, slice_str(p));
    cr_assert(slot);
    *slot = value;
}

/* What a walk yields, as "1 2 3". */
static const char *walk(const struct domain_map *m, const char *name)
{
    static char text[256];
    struct domain_walk w;
    uint32_t value;
    int len = 0;
    text[0] = '\0';
    domain_walk_start(&w, m, slice_str(name));
    while (domain_walk_next(&w, &value))
        len += snprintf(text + len, sizeof text - (size_t)len, "%s%u", len ? " " : "", value);
    cr_expect_not(domain_walk_next(&w, &value), "the end stays the end");
    return text;
}

Test(domain_map, walks_from_most_to_least_specific)
{
    struct domain_map *m = domain_map_create();
    put(m, "*", 0);
    put(m, "example.com", 1);
    put(m, "*.example.com", 2);
    put(m, "*.com", 3);
    put(m, "*.b.example.com", 4);
    put(m, "a.b.example.com", 5);
    put(m, "[192.0.2.1]", 6);
    cr_expect_str_eq(walk(m, "a.b.example.com"), "5 4 2 3 0");
    cr_expect_str_eq(walk(m, "A.B.EXAMPLE.COM."), "5 4 2 3 0");
    cr_expect_str_eq(walk(m, "b.example.com"), "4 2 3 0");
    cr_expect_str_eq(walk(m, "example.com"), "1 2 3 0");
    cr_expect_str_eq(walk(m, "xexample.com"), "3 0", "only at a label");
    cr_expect_str_eq(walk(m, "com"), "3 0");
    cr_expect_str_eq(walk(m, "example.org"), "0");
    cr_expect_str_eq(walk(m, "[192.0.2.1]"), "6 0");
    cr_expect_str_eq(walk(m, ""), "0");
    cr_expect_str_eq(walk(m, "."), "0");
    domain_map_destroy(m);
}

Test(domain_map, without_a_default_may_yield_nothing)
{
    struct domain_map *m = domain_map_create();
    cr_expect_str_eq(walk(m, "example.com"), "");
    put(m, "example.com", 7);
    cr_expect_str_eq(walk(m, "example.com"), "7");
    cr_expect_str_eq(walk(m, "sub.example.com"), "");
    cr_expect_eq(*domain_map_slot(m, slice_str("example.com")), 7);
    cr_expect_eq(*domain_map_slot(m, slice_str("new.example")), DOMAIN_MAP_NONE);
    cr_expect_null(domain_map_slot(m, slice_str("")));
    domain_map_destroy(m);
}

Test(domain_map, grows_and_loses_nothing)
{
    enum { COUNT = 10000 };
    struct domain_map *m = domain_map_create();
    char name[64], expected[32];
    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "%sd%u.example", i % 2 ? "*." : "", i);
        put(m, name, i);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "d%u.example", i);
        snprintf(expected, sizeof expected, "%u", i);
        cr_assert_str_eq(walk(m, name), expected);
        snprintf(name, sizeof name, "x.d%u.example", i);
        cr_assert_str_eq(walk(m, name), i % 2 ? expected : "");
    }
    domain_map_destroy(m);
}

Test(domain_map, survives_names_of_every_length)
{
    struct domain_map *m = domain_map_create();
    char name[600];
    put(m, "*.a", 1);
    put(m, "*", 2);
    for (size_t len = 1; len < sizeof name; len++) {
        struct domain_walk w;
        uint32_t value;
        unsigned n = 0;
        for (size_t i = 0; i < len; i++)
            name[len - 1 - i] = i % 2 ? '.' : 'a';
        domain_walk_start(&w, m, slice_of(name, len));
        while (domain_walk_next(&w, &value))
            n++;
        cr_expect_eq(n, len < DOMAIN_TEXT_MAX ? 2 : 1, "length %zu", len);
    }
    domain_map_destroy(m);
}

/* With more dots than a walk keeps places, it would not be found by itself. */
Test(domain, takes_address_literals_that_a_map_can_find)
{
    char literal[DOMAIN_TEXT_MAX];
    struct domain_map *m = domain_map_create();
    struct domain_walk walk;
    uint32_t value, *slot;

    for (size_t len = DOMAIN_LITERAL_MAX; len <= DOMAIN_LITERAL_MAX + 1; len++) {
        memset(literal, '.', len);
        literal[0] = '[';
        literal[len - 1] = ']';
        literal[len] = '\0';
        cr_assert_str_eq(ascii(literal), len > DOMAIN_LITERAL_MAX ? "(refused)" : literal);
    }
    literal[DOMAIN_LITERAL_MAX - 1] = ']';
    literal[DOMAIN_LITERAL_MAX] = '\0';
    slot = domain_map_slot(m, slice_str(literal));
    cr_assert(slot);
    *slot = 1;
    domain_walk_start(&walk, m, slice_str(literal));
    cr_assert(domain_walk_next(&walk, &value));
    cr_assert_eq(value, 1);
    domain_map_destroy(m);
}
