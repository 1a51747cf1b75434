/* Who may send to whom, and as whom (FAULTS 13 and 34, EXCHANGE E17, E18, E33, E34). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "routing/relay.h"

static struct relay_domains *accepted(void)
{
    struct relay_domains *d = relay_domains_create();
    cr_assert(d);
    cr_assert(relay_domains_add(d, "Example.com", 1));
    cr_assert(relay_domains_add(d, "internal.example", 2));
    cr_assert(relay_domains_add(d, "*.wild.example", 3));
    cr_assert(relay_domains_add(d, "bücher.example", 4));
    return d;
}

Test(relay, accepted_domains)
{
    struct relay_domains *d = accepted();
    static const struct {
        const char *domain;
        int type; /* -1: not accepted */
    } cases[] = {
        {"example.com", 1},
        {"EXAMPLE.COM", 1},
        {"example.com.", 1},
        {"sub.example.com", -1},
        {"xexample.com", -1},
        {"internal.example", 2},
        {"wild.example", 3},
        {"a.b.wild.example", 3},
        {"bücher.example", 4},
        {"BÜCHER.example", 4},
        {"xn--bcher-kva.example", 4},
        {"XN--BCHER-KVA.EXAMPLE", 4},
        {"", -1},
        {"com", -1},
        {"[192.0.2.1]", -1},
        {"\xff.example", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t type = 99;
        bool found = relay_domains_find(d, slice_str(cases[i].domain), &type);
        cr_expect_eq(found, cases[i].type >= 0, "%s", cases[i].domain);
        if (found)
            cr_expect_eq(type, cases[i].type, "%s", cases[i].domain);
    }
    cr_expect(relay_domains_find(d, SLICE_LIT("example.com"), NULL));
    cr_expect_not(relay_domains_find(NULL, SLICE_LIT("example.com"), NULL));
    cr_expect_not(relay_domains_add(d, "a..b", 1));
    relay_domains_destroy(d);
}

/*
 * The forms that open-relay scanners send, as the address parser hands them on: it has removed a
 * source route, split at the last '@' that is not quoted, and refuses what has no domain (tried
 * here too: no domain, no relaying).
 */
static const struct {
    const char *form, *local, *domain;
} forms[] = {
    {"<victim@other.example>", "victim", "other.example"},
    {"<victim%other.example@example.com>", "victim%other.example", "example.com"},
    {"<victim%other.example@[192.0.2.1]>", "victim%other.example", "[192.0.2.1]"},
    {"<\"victim%other.example\"@example.com>", "\"victim%other.example\"", "example.com"},
    {"<\"victim@other.example\">", "\"victim@other.example\"", ""},
    {"<\"victim%other.example\">", "\"victim%other.example\"", ""},
    {"<victim@other.example@example.com>", "victim@other.example", "example.com"},
    {"<victim@other.example@[192.0.2.1]>", "victim@other.example", "[192.0.2.1]"},
    {"<\"victim@other.example\"@example.com>", "\"victim@other.example\"", "example.com"},
    {"<\"victim@other.example\"@[192.0.2.1]>", "\"victim@other.example\"", "[192.0.2.1]"},
    {"<\"victim\\@other.example\"@example.com>", "\"victim\\@other.example\"", "example.com"},
    {"<@example.com:victim@other.example>", "victim", "other.example"},
    {"<@[192.0.2.1]:victim@other.example>", "victim", "other.example"},
    {"<other.example!victim>", "other.example!victim", ""},
    {"<other.example!victim@example.com>", "other.example!victim", "example.com"},
    {"<other.example!victim@[192.0.2.1]>", "other.example!victim", "[192.0.2.1]"},
    {"<other.example!a!b%c@example.com>", "other.example!a!b%c", "example.com"},
    {"<node::victim@example.com>", "node::victim", "example.com"},
    {"<victim@other.example.>", "victim", "other.example."},
    {"<victim@[192.0.2.1]>", "victim", "[192.0.2.1]"},
    {"<victim@[ipv6:2001:db8::1]>", "victim", "[ipv6:2001:db8::1]"},
    {"<victim@example.com.other.example>", "victim", "example.com.other.example"},
    {"<victim>", "victim", ""},
};

Test(relay, no_form_passes_for_somebody_unknown)
{
    struct relay_domains *d = accepted();
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct relay_query q = {.accepted = d,
                                .rcpt_local = slice_str(forms[i].local),
                                .rcpt_domain = slice_str(forms[i].domain)};
        struct why why = {0};
        cr_expect_not(relay_may(&q, &why), "%s", forms[i].form);
        cr_expect_eq(why.smtp_code, 550);
        cr_expect_str_eq(why.enhanced, "5.7.1");
        cr_expect_str_eq(why.text, "Unable to relay");
    }
    relay_domains_destroy(d);
}

Test(relay, those_who_may_relay_may_use_any)
{
    struct relay_domains *d = accepted();
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct relay_query q = {.accepted = d,
                                .authenticated = true,
                                .rcpt_local = slice_str(forms[i].local),
                                .rcpt_domain = slice_str(forms[i].domain)};
        cr_expect(relay_may(&q, NULL), "%s", forms[i].form);
        q.authenticated = false;
        q.network_may_relay = true;
        cr_expect(relay_may(&q, NULL), "%s", forms[i].form);
    }
    relay_domains_destroy(d);
}

Test(relay, accepted_domains_are_open_to_all)
{
    static const struct {
        const char *local, *domain;
    } may[] = {
        {"user", "example.com"},
        {"user", "EXAMPLE.com"},
        {"\"a b\"", "example.com"},
        {"user+tag", "internal.example"},
        {"x", "deep.in.wild.example"},
        {"x", "bücher.example"},
        {"postmaster", ""},
        {"PostMaster", ""},
        {"a:b", "example.com"},
        {"postmaster", "example.com"},
    };
    struct relay_domains *d = accepted();
    for (size_t i = 0; i < sizeof may / sizeof may[0]; i++) {
        struct relay_query q = {.accepted = d,
                                .rcpt_local = slice_str(may[i].local),
                                .rcpt_domain = slice_str(may[i].domain)};
        struct why why = {0};
        cr_expect(relay_may(&q, &why), "%s@%s", may[i].local, may[i].domain);
        cr_expect_eq(why.smtp_code, 0);
    }
    relay_domains_destroy(d);
}

/* E21: a send connector may open its space, and opens nothing that a local part hides. */
Test(relay, an_open_connector_opens_its_space_only)
{
    struct relay_query q = {.connector_allows = true,
                            .rcpt_local = SLICE_LIT("user"),
                            .rcpt_domain = SLICE_LIT("other.example")};
    cr_expect(relay_may(&q, NULL));
    q.rcpt_local = SLICE_LIT("user%third.example");
    cr_expect_not(relay_may(&q, NULL));
    q.rcpt_local = SLICE_LIT("user");
    q.rcpt_domain = SLICE_LIT("");
    cr_expect_not(relay_may(&q, NULL));
}

/* ---- senders ---- */

static bool may_send(const char *account, const char *senders, const char *from)
{
    struct slice list[8];
    uint32_t count = 0;
    struct why why = {0};
    for (struct slice rest = slice_str(senders); rest.len;) {
        size_t comma = slice_find(rest, ',');
        list[count++] = slice_head(rest, comma);
        rest = slice_from(rest, comma + 1);
    }
    bool may = relay_sender_may(slice_str(account), list, count, slice_str(from), &why);
    if (!may) {
        cr_expect_eq(why.smtp_code, 550);
        cr_expect_str_eq(why.enhanced, "5.7.60");
        cr_expect_str_eq(why.text, "Client does not have permissions to send as this sender");
    }
    return may;
}

Test(relay, senders)
{
    static const struct {
        const char *account, *senders, *from;
        bool may;
    } cases[] = {
        {"app", "app@example.com", "app@example.com", true},
        {"app", "app@example.com", "APP@Example.COM", true},
        {"app", "app@example.com", "", true},
        {"app", "app@example.com", "boss@example.com", false},
        {"app", "app@example.com", "app@example.org", false},
        {"app", "app@example.com", "app@sub.example.com", false},
        {"app", "app@example.com,@example.net", "anyone@example.net", true},
        {"app", "@example.net", "anyone@sub.example.net", false},
        {"app", "*@example.net", "anyone@example.net", true},
        {"app", "@example.net", "@example.net", false},
        {"app", "*", "anyone@anywhere.example", true},
        {"app", "@bücher.example", "x@xn--bcher-kva.example", true},
        {"app", "@xn--bcher-kva.example", "x@BÜCHER.example", true},
        {"app", "", "app@example.com", false},
        {"app", "", "", true},
        {"app@example.com", "", "app@example.com", true},
        {"app@example.com", "", "App@EXAMPLE.com", true},
        {"app@example.com", "", "boss@example.com", false},
        {"app@example.com", "other@example.com", "app@example.com", false},
        {"*", "", "boss@example.com", false},
        {"@example.com", "", "boss@example.com", false},
        {"app", "app@example.com", "app@example.com@evil.example", false},
        {"app", "@example.com", "\"x@y\"@example.com", true},
        {"app", "@example.com", "x@evil.example\"@example.com", true},
        {"app", "@example.com", "nodomain", false},
        {"app", "broken", "broken", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        cr_expect_eq(may_send(cases[i].account, cases[i].senders, cases[i].from), cases[i].may,
                     "%s [%s] as <%s>", cases[i].account, cases[i].senders, cases[i].from);
}

static bool has(const struct relay_recipients *r, const char *local, const char *domain)
{
    return relay_recipients_has(r, slice_str(local), slice_str(domain));
}

/* E34: a domain whose mailboxes are known. */
Test(relay, e34_lists_of_recipients)
{
    struct relay_recipients *r = relay_recipients_create();
    uint32_t line = 99;
    cr_assert(relay_recipients_add(r, "example.com",
                                   slice_str("# ours\nAlice\r\n  bob@Example.COM \n\n\"q r\n"
                                             "alice\nlast"),
                                   &line) == false);
    cr_assert_eq(line, 5, "a blank in a name");
    relay_recipients_destroy(r);
    r = relay_recipients_create();
    cr_assert(relay_recipients_add(
        r, "example.com", slice_str("# ours\nAlice\r\n  bob@Example.COM \n\nalice\na+b\nlast"),
        &line));
    cr_assert(relay_recipients_add(r, "xn--bcher-kva.example", slice_str("dora"), &line));
    cr_expect(has(r, "alice", "example.com"));
    cr_expect(has(r, "ALICE", "Example.Com."));
    cr_expect(has(r, "bob", "example.com"));
    cr_expect(has(r, "last", "example.com"));
    cr_expect(has(r, "bob+detail", "example.com"));
    cr_expect(has(r, "a+b", "example.com"));
    cr_expect(has(r, "postmaster", "example.com"));
    cr_expect(has(r, "dora",
                  "b\xc3\xbc"
                  "cher.example"));
    cr_expect_not(has(r, "dora", "example.com"));
    cr_expect_not(has(r, "bobo", "example.com"));
    cr_expect_not(has(r, "bo", "example.com"));
    cr_expect_not(has(r, "a", "example.com"));
    cr_expect_not(has(r, "a+c", "example.com"));
    cr_expect_not(has(r, "+bob", "example.com"));
    cr_expect_not(has(r, "", "example.com"));
    cr_expect_not(has(r, "# ours", "example.com"));
    cr_expect_not(relay_recipients_add(r, "example.com", slice_str("x\ny@other.example"), &line));
    cr_expect_eq(line, 2);
    cr_expect_not(relay_recipients_add(r, "example.com", slice_str("@example.com"), &line));
    relay_recipients_destroy(r);
}

Test(relay, e34_many_recipients)
{
    enum { COUNT = 20000 };
    struct relay_recipients *r = relay_recipients_create();
    char *text = malloc(COUNT * 12), name[16];
    uint32_t line, len = 0;
    for (int i = 0; i < COUNT; i++)
        len += (uint32_t)sprintf(text + len, "user%d\n", i);
    cr_assert(relay_recipients_add(r, "example.com", slice_of(text, len), &line));
    for (int i = 0; i < COUNT + 100; i++) {
        snprintf(name, sizeof name, "user%d", i);
        cr_assert_eq(has(r, name, "example.com"), i < COUNT, "%s", name);
    }
    free(text);
    relay_recipients_destroy(r);
}

Test(relay, e34_unknown_recipients_are_refused_whoever_asks)
{
    struct relay_domains *d = accepted();
    struct relay_recipients *r = relay_recipients_create();
    uint32_t line;
    cr_assert(relay_domains_add(d, "listed.example", 1 | RELAY_LISTED));
    cr_assert(relay_recipients_add(r, "listed.example", SLICE_LIT("alice"), &line));
    for (int who = 0; who < 3; who++) {
        struct relay_query q = {.accepted = d,
                                .recipients = r,
                                .authenticated = who == 1,
                                .network_may_relay = who == 2,
                                .rcpt_local = SLICE_LIT("alice"),
                                .rcpt_domain = SLICE_LIT("listed.example")};
        struct why why = {0};
        cr_expect(relay_may(&q, &why));
        q.rcpt_local = SLICE_LIT("nobody");
        cr_expect_not(relay_may(&q, &why));
        cr_expect_str_eq(why.enhanced, "5.1.1");
        q.rcpt_domain = SLICE_LIT("example.com");
        cr_expect(relay_may(&q, &why), "a domain without a list");
    }
    relay_domains_destroy(d);
    relay_recipients_destroy(r);
}
