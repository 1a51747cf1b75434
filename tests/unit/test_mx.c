/* What MX answers mean (FAULTS 71, 72, 74, 75). */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>

#include "routing/mx.h"

static const char *const own[] = {"mail.own.example", "Alias.Own.Example."};

/* "10 a,20 b" as an answer. */
static struct dns_answer *answer(const char *list)
{
    static struct dns_answer a;
    memset(&a, 0, sizeof a);
    a.status = DNS_OK;
    while (*list) {
        unsigned preference;
        int used = 0;
        cr_assert_eq(sscanf(list, "%u %n", &preference, &used), 1);
        size_t len = strcspn(list += used, ",");
        struct dns_mx *mx = &a.mx[a.mx_count++];
        mx->preference = (uint16_t)preference;
        snprintf(mx->host, sizeof mx->host, "%.*s", (int)len, list);
        list += len + (list[len] == ',');
    }
    return &a;
}

static struct mx_list list;
static struct why why;
static struct prng chance;

static const char *evaluate(const struct dns_answer *a, const char *domain)
{
    static char text[2000];
    int len = 0;
    why_clear(&why);
    if (!chance.s[0])
        prng_seed(&chance, 1);
    mx_evaluate(a, domain, own, 2, &chance, &list, &why);
    text[0] = '\0';
    for (uint32_t i = 0; i < list.count; i++)
        len += snprintf(text + len, sizeof text - (size_t)len, "%s%u %s", i ? "," : "",
                        list.hosts[i].preference, list.hosts[i].host);
    return text;
}

Test(mx, sorts_by_preference)
{
    cr_expect_str_eq(evaluate(answer("30 c,10 a,20 b"), "d.example"), "10 a,20 b,30 c");
    cr_expect_eq(list.verdict, MX_HOSTS);
    cr_expect_str_eq(evaluate(answer("0 a"), "d.example"), "0 a");
    cr_expect_str_eq(evaluate(answer("65535 z,0 a"), "d.example"), "0 a,65535 z");
}

Test(mx, shuffles_equal_preferences)
{
    uint32_t first[3] = {0};
    for (int i = 0; i < 3000; i++) {
        evaluate(answer("20 x,10 a,10 b,10 c"), "d.example");
        cr_assert_eq(list.count, 4);
        cr_assert_str_eq(list.hosts[3].host, "x");
        first[list.hosts[0].host[0] - 'a']++;
    }
    for (int i = 0; i < 3; i++)
        cr_expect(first[i] > 900 && first[i] < 1100, "%u", first[i]);
}

Test(mx, takes_all_it_can_hold)
{
    struct dns_answer *a = answer("1 a");
    for (a->mx_count = 0; a->mx_count < DNS_MX_MAX; a->mx_count++) {
        a->mx[a->mx_count].preference = (uint16_t)(DNS_MX_MAX - a->mx_count);
        snprintf(a->mx[a->mx_count].host, sizeof a->mx[0].host, "h%u", a->mx_count);
    }
    evaluate(a, "d.example");
    cr_expect_eq(list.count, DNS_MX_MAX);
    for (uint32_t i = 1; i < list.count; i++)
        cr_expect_lt(list.hosts[i - 1].preference, list.hosts[i].preference);
}

Test(mx, the_same_host_twice_counts_once_at_its_best)
{
    cr_expect_str_eq(evaluate(answer("30 a,10 A,20 b"), "d.example"), "10 A,20 b");
}

Test(mx, ourselves_and_worse_are_dropped)
{
    cr_expect_str_eq(evaluate(answer("10 a,20 mail.own.example,20 b,30 c"), "d.example"), "10 a");
    cr_expect_str_eq(evaluate(answer("10 a,20 alias.own.example,15 b"), "d.example"), "10 a,15 b");
    cr_expect_str_eq(evaluate(answer("10 MAIL.own.example,20 b"), "d.example"), "");
    cr_expect_eq(list.verdict, MX_PERMANENT);
    cr_expect_eq(why.smtp_code, 554);
    cr_expect_str_eq(why.enhanced, "5.4.6");
    /* by address, found out later */
    evaluate(answer("10 a,20 b,20 c,30 d"), "d.example");
    mx_drop_self(&list, 2, &why);
    cr_expect_eq(list.count, 1);
    cr_expect_eq(list.verdict, MX_HOSTS);
    mx_drop_self(&list, 0, &why);
    cr_expect_eq(list.count, 0);
    cr_expect_eq(list.verdict, MX_PERMANENT);
    cr_expect_str_eq(why.enhanced, "5.4.6");
}

Test(mx, null_mx)
{
    cr_expect_str_eq(evaluate(answer("0 "), "d.example"), "");
    cr_expect_eq(list.verdict, MX_PERMANENT);
    cr_expect_eq(why.smtp_code, 556);
    cr_expect_str_eq(why.enhanced, "5.1.10");
    cr_expect_str_eq(evaluate(answer("0 ,10 a"), "d.example"), "10 a", "RFC 7505 section 3");
}

Test(mx, addresses_where_names_belong)
{
    cr_expect_str_eq(evaluate(answer("10 192.0.2.1,20 a"), "d.example"), "20 a");
    cr_expect_str_eq(evaluate(answer("10 192.0.2.1,20 2001:db8::1"), "d.example"), "");
    cr_expect_eq(list.verdict, MX_TEMPORARY);
    cr_expect_str_eq(why.enhanced, "4.4.4");
}

Test(mx, without_mx)
{
    struct dns_answer *a = answer("");
    cr_expect_str_eq(evaluate(a, "d.example"), "0 d.example");
    cr_expect_eq(list.verdict, MX_IMPLICIT);
    a->status = DNS_NODATA;
    cr_expect_str_eq(evaluate(a, "d.example"), "0 d.example");
    cr_expect_eq(list.verdict, MX_IMPLICIT);
    evaluate(a, "alias.own.example");
    cr_expect_eq(list.verdict, MX_PERMANENT);
    cr_expect_str_eq(why.enhanced, "5.4.6");
}

Test(mx, only_a_clear_no_is_permanent)
{
    struct dns_answer *a = answer("");
    a->status = DNS_NXDOMAIN;
    evaluate(a, "d.example");
    cr_expect_eq(list.verdict, MX_PERMANENT);
    cr_expect_eq(why.smtp_code, 550);
    cr_expect_str_eq(why.enhanced, "5.1.2");
    static const enum dns_status temporary[] = {DNS_TEMPORARY, DNS_BOGUS};
    for (int i = 0; i < 2; i++) {
        a->status = temporary[i];
        evaluate(a, "d.example");
        cr_expect_eq(list.verdict, MX_TEMPORARY);
        cr_expect_eq(why.smtp_code, 451);
        cr_expect_str_eq(why.enhanced, "4.4.3");
    }
}

Test(mx, public_addresses)
{
    static const struct {
        const char *text;
        bool is_public;
    } cases[] = {
        {"8.8.8.8", true},
        {"192.0.2.1", true},
        {"0.0.0.0", false},
        {"0.1.2.3", false},
        {"10.255.255.255", false},
        {"11.0.0.0", true},
        {"100.63.255.255", true},
        {"100.64.0.0", false},
        {"100.127.255.255", false},
        {"100.128.0.0", true},
        {"127.0.0.1", false},
        {"127.255.255.255", false},
        {"128.0.0.1", true},
        {"169.254.169.254", false},
        {"172.15.255.255", true},
        {"172.16.0.0", false},
        {"172.31.255.255", false},
        {"172.32.0.0", true},
        {"192.167.255.255", true},
        {"192.168.0.1", false},
        {"192.169.0.0", true},
        {"223.255.255.255", true},
        {"224.0.0.1", false},
        {"240.0.0.1", false},
        {"255.255.255.255", false},
        {"::", false},
        {"::1", false},
        {"::7f00:1", false},
        {"::ffff:127.0.0.1", false},
        {"::ffff:8.8.8.8", true},
        {"64:ff9b::a00:1", false},
        {"64:ff9b::808:808", true},
        {"2002:7f00:1::", false},
        {"2002:808:808::", true},
        {"fc00::1", false},
        {"fdff::1", false},
        {"fe80::1", false},
        {"fec0::1", false},
        {"ff02::1", false},
        {"2001:db8::1", true},
        {"2606:4700::1111", true},
        {"fbff::1", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct io_addr a = {0};
        if (strchr(cases[i].text, ':')) {
            a.in6.sin6_family = AF_INET6;
            a.len = sizeof a.in6;
            cr_assert_eq(inet_pton(AF_INET6, cases[i].text, &a.in6.sin6_addr), 1);
        } else {
            a.in.sin_family = AF_INET;
            a.len = sizeof a.in;
            cr_assert_eq(inet_pton(AF_INET, cases[i].text, &a.in.sin_addr), 1);
        }
        cr_expect_eq(mx_addr_is_public(&a), cases[i].is_public, "%s", cases[i].text);
    }
    cr_expect_not(mx_addr_is_public(&(struct io_addr){0}));
}
