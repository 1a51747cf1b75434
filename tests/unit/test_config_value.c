/* Words to values, networks, and which word was meant. */
#include <criterion/criterion.h>

#include "gateway/config_internal.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

struct number {
    const char *text;
    bool good;
    uint64_t value;
};

static void numbers(bool (*parse)(const char *text, uint64_t *out), const struct number *all,
                    size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t got = 0;
        cr_expect_eq(parse(all[i].text, &got), all[i].good, "%s", all[i].text);
        if (all[i].good)
            cr_expect_eq(got, all[i].value, "%s: %llu", all[i].text, (unsigned long long)got);
    }
}

Test(config_value, counts)
{
    static const struct number all[] = {
        {"0", true, 0},    {"007", true, 7}, {"18446744073709551615", true, UINT64_MAX},
        {"", false, 0},    {"+1", false, 0}, {"18446744073709551616", false, 0},
        {"1 ", false, 0},  {" 1", false, 0}, {"99999999999999999999999999", false, 0},
        {"1e3", false, 0}, {"-0", false, 0},
    };
    numbers(config_count_parse, all, COUNT(all));
}

Test(config_value, sizes)
{
    static const struct number all[] = {
        {"0", true, 0},
        {"123", true, 123},
        {"123B", true, 123},
        {"1KiB", true, 1024},
        {"25mib", true, 25 * MIB},
        {"20GiB", true, 20 * GIB},
        {"16777215TiB", true, 16777215ull * 1024 * GIB},
        {"16777216TiB", false, 0},
        {"1k", false, 0},
        {"1KB", false, 0},
        {"1 KiB", false, 0},
        {"1.5GiB", false, 0},
        {"KiB", false, 0},
        {"", false, 0},
    };
    numbers(config_size_parse, all, COUNT(all));
}

Test(config_value, times)
{
    static const struct number all[] = {
        {"0", true, 0},
        {"1ms", true, NS_PER_MS},
        {"90s", true, 90 * NS_PER_S},
        {"5m", true, 300 * NS_PER_S},
        {"2h", true, 7200 * NS_PER_S},
        {"2d", true, 172800 * NS_PER_S},
        {"213503d", true, 213503ull * 86400 * NS_PER_S},
        {"213504d", false, 0},
        {"1", false, 0},
        {"00", false, 0},
        {"1h30m", false, 0},
        {"1w", false, 0},
        {"s", false, 0},
    };
    numbers(config_time_parse, all, COUNT(all));
}

Test(config_value, booleans)
{
    static const struct {
        const char *text;
        int want; /* -1: neither */
    } all[] = {{"true", 1}, {"Yes", 1}, {"ON", 1}, {"false", 0}, {"no", 0},   {"off", 0},
               {"1", -1},   {"", -1},   {"y", -1}, {"tru", -1},  {"yess", -1}};
    for (size_t i = 0; i < COUNT(all); i++) {
        bool got = false;
        cr_expect_eq(config_bool_parse(all[i].text, &got), all[i].want >= 0, "%s", all[i].text);
        if (all[i].want >= 0)
            cr_expect_eq(got, all[i].want == 1, "%s", all[i].text);
    }
}

Test(config_value, addresses)
{
    static const struct {
        const char *text;
        uint32_t port;
        const char *want; /* NULL: refused */
    } all[] = {
        {"0.0.0.0:25", CONFIG_PORT_GIVEN, "0.0.0.0:25"},
        {"[::]:587", CONFIG_PORT_GIVEN, "[::]:587"},
        {"0.0.0.0", CONFIG_PORT_GIVEN, NULL},
        {"::1:25", CONFIG_PORT_GIVEN, NULL},
        {"1.2.3.4:+25", CONFIG_PORT_GIVEN, NULL},
        {":25", CONFIG_PORT_GIVEN, NULL},
        {"", CONFIG_PORT_GIVEN, NULL},
        {"1.2.3.4", 53, "1.2.3.4:53"},
        {"1.2.3.4:54", 53, "1.2.3.4:54"},
        {"::1", 53, "[::1]:53"},
        {"[::1]", 53, "[::1]:53"},
        {"[::1]:54", 53, "[::1]:54"},
        {"1.2.3.4:x", 53, NULL},
        {"name:53", 53, NULL},
        {"1.2.3.4", CONFIG_PORT_NONE, "1.2.3.4:0"},
        {"::1", CONFIG_PORT_NONE, "[::1]:0"},
        {"1.2.3.4:1", CONFIG_PORT_NONE, NULL},
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        struct io_addr a;
        char text[IO_ADDR_TEXT_MAX];
        bool good = config_address_parse(all[i].text, all[i].port, &a);
        cr_expect_eq(good, all[i].want != NULL, "%s", all[i].text);
        if (good && all[i].want)
            cr_expect_str_eq(io_addr_text(&a, true, text), all[i].want);
    }
}

static bool inside(const struct config_network *n, uint32_t count, const char *address)
{
    struct config_networks all = {(struct config_network *)n, count};
    struct io_addr a;
    cr_assert(io_addr_parse(&a, slice_str(address), 25));
    return config_networks_match(&all, &a);
}

Test(config_value, networks_match)
{
    static const struct {
        const char *network, *address;
        bool want;
    } all[] = {
        {"0.0.0.0/0", "192.0.2.1", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "192.0.2.1", false},
        {"::/0", "2001:db8::1", true},
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/9", "10.127.255.255", true},
        {"10.0.0.0/9", "10.128.0.0", false},
        {"192.0.2.1", "192.0.2.1", true},
        {"192.0.2.1", "192.0.2.0", false},
        {"192.0.2.0/31", "192.0.2.1", true},
        {"2001:db8::/33", "2001:db8:7fff::", true},
        {"2001:db8::/33", "2001:db8:8000::", false},
        {"2001:db8::1/128", "2001:db8::1", true},
        {"10.0.0.0/8", "::ffff:10.0.0.1", true},
        {"::/0", "::ffff:10.0.0.1", false},
    };
    struct config_network n[CONFIG_NETWORKS_OF_RANGE_MAX];
    struct why why;
    for (size_t i = 0; i < COUNT(all); i++) {
        cr_assert_eq(config_network_parse(all[i].network, n, &why), 1, "%s", why.text);
        cr_expect_eq(inside(n, 1, all[i].address), all[i].want, "%s in %s", all[i].address,
                     all[i].network);
    }
    struct io_addr none = {0};
    struct config_networks everybody = {n, 1};
    cr_assert_eq(config_network_parse("0.0.0.0/0", n, &why), 1);
    cr_expect(!config_networks_match(&everybody, &none), "no address is in no network");
}

/* Every range of the last byte, address by address; then the widest there are. */
Test(config_value, ranges)
{
    struct config_network n[CONFIG_NETWORKS_OF_RANGE_MAX];
    struct why why;
    for (int low = 0; low < 256; low += 3)
        for (int high = low; high < 256; high += 5) {
            char text[64], address[32];
            snprintf(text, sizeof text, "192.0.2.%d-192.0.2.%d", low, high);
            uint32_t count = config_network_parse(text, n, &why);
            cr_assert(count > 0 && count <= 14, "%s: %u", text, count);
            for (int i = 0; i < 256; i++) {
                snprintf(address, sizeof address, "192.0.2.%d", i);
                bool in = i >= low && i <= high;
                if (inside(n, count, address) != in)
                    cr_assert_fail("%s in %s", address, text);
            }
        }
    static const struct {
        const char *text;
        uint32_t count;
    } wide[] = {
        {"0.0.0.0-255.255.255.255", 1},
        {"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1},
        {"0.0.0.1-255.255.255.254", 62},
        {"::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 254},
        {"255.255.255.255-255.255.255.255", 1},
        {"10.0.0.0-10.255.255.255", 1},
        {"10.0.0.255-10.0.1.0", 2},
    };
    for (size_t i = 0; i < COUNT(wide); i++)
        cr_expect_eq(config_network_parse(wide[i].text, n, &why), wide[i].count, "%s: %u",
                     wide[i].text, config_network_parse(wide[i].text, n, &why));
}

static const char *word_at(const void *arg, uint32_t i)
{
    return ((const char *const *)arg)[i];
}

Test(config_value, nearest)
{
    static const char *const words[] = {"name", "bind", "file", "max_message_size",
                                        "max_messages_per_connection"};
    static const struct {
        const char *word, *want;
    } all[] = {
        {"naem", "name"},
        {"fiel", "file"},
        {"bin", "bind"},
        {"files", "file"},
        {"max_mesage_size", "max_message_size"},
        {"maxmessagesize", "max_message_size"},
        {"foo", NULL},
        {"x", NULL},
        {"", NULL},
        {"nome", "name"},
        {"something_else", NULL},
        {"this_word_is_far_longer_than_sixty_four_letters_and_so_no_key_is_near_to_it", NULL},
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        const char *got = config_nearest(all[i].word, word_at, words, COUNT(words));
        cr_expect(got == all[i].want || (got && all[i].want && strcmp(got, all[i].want) == 0),
                  "%s: %s", all[i].word, got ? got : "none");
    }
}
