/*
 * gateway/ctl/print.c - answers of the admin API as lines and tables.
 *
 * Owns:     nothing.
 * Runs on:  hikyakuctl's only thread.
 * Contract: what came from a peer is printed without control characters, so that no message can
 *           play with a terminal.
 * Failure:  a member that is not there prints as "-".
 * Bounds:   columns are cut to their width, the last one is not.
 * Tests:    tests/system (queue commands)
 */
#include "gateway/ctl/print.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- cells ---- */

static const char *text(json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s && *s ? s : "-";
}

static long long number(json_t *j, const char *key)
{
    return (long long)json_integer_value(json_object_get(j, key));
}

/* At most `width` columns (0: all), padded when another column follows. */
static void cell(const char *s, int width)
{
    int n = 0;
    for (; *s && (width == 0 || n < width); s++) {
        unsigned char c = (unsigned char)*s;
        putchar(c < 0x20 || c == 0x7f ? '?' : c);
        n += (c & 0xc0) != 0x80;
    }
    for (; n < width; n++)
        putchar(' ');
    putchar(width ? ' ' : '\n');
}

static const char *age(long long s, char out[32])
{
    if (s < 120)
        snprintf(out, 32, "%llds", s);
    else if (s < 7200)
        snprintf(out, 32, "%lldm", s / 60);
    else if (s < 172800)
        snprintf(out, 32, "%lldh", s / 3600);
    else
        snprintf(out, 32, "%lldd", s / 86400);
    return out;
}

static const char *size(long long n, char out[32])
{
    if (n < 10240)
        snprintf(out, 32, "%lld", n);
    else if (n < 10485760)
        snprintf(out, 32, "%lldKiB", n / 1024);
    else
        snprintf(out, 32, "%lldMiB", n / 1048576);
    return out;
}

static const char *when(long long s, char out[32])
{
    time_t t = (time_t)s;
    struct tm tm;
    if (s == 0)
        return "-";
    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%d %H:%M:%SZ", &tm);
    return out;
}

/* ---- answers ---- */

void print_json(json_t *j)
{
    json_dumpf(j, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
}

static void print_targets(json_t *list)
{
    json_t *t;
    size_t i;
    char buf[32];
    json_array_foreach(list, i, t)
        printf("%s%s for %s more", i ? ", " : "", text(t, "target"), age(number(t, "left_s"), buf));
    putchar('\n');
}

void print_status(json_t *j)
{
    const char *key;
    json_t *value;
    json_object_foreach(j, key, value)
    {
        printf("%-22s ", key);
        if (json_is_string(value))
            cell(json_string_value(value), 0);
        else if (json_is_array(value))
            print_targets(value);
        else if (json_is_boolean(value))
            puts(json_is_true(value) ? "yes" : "no");
        else
            printf("%lld\n", (long long)json_integer_value(value));
    }
}

static const char *first_rcpt(json_t *j)
{
    json_t *r, *list = json_object_get(j, "recipients");
    size_t i;
    json_array_foreach(list, i, r)
    {
        if (strcmp(text(r, "status"), "pending") == 0)
            return text(r, "address");
    }
    return "-";
}

void print_queue(json_t *j)
{
    json_t *m, *items = json_object_get(j, "items");
    char buf[32], buf2[32];
    size_t i;
    if (json_array_size(items))
        printf("%-16s %-11s %-7s %-9s %-3s %-28s %-28s %s\n", "QID", "STATUS", "AGE", "SIZE", "TRY",
               "SENDER", "RECIPIENT", "LAST ERROR");
    json_array_foreach(items, i, m)
    {
        cell(text(m, "qid"), 16);
        cell(text(m, "status"), 11);
        cell(age(number(m, "age_s"), buf), 7);
        cell(size(number(m, "size"), buf2), 9);
        printf("%-3lld ", number(m, "attempts"));
        cell(text(m, "sender"), 28);
        cell(first_rcpt(m), 28);
        cell(text(m, "last_error"), 0);
    }
    printf("%lld messages, %zu shown\n", number(j, "matched"), json_array_size(items));
}

void print_message(json_t *j)
{
    static const char *const keys[] = {
        "qid",     "status", "sender",    "subject",           "account",   "source_ip",
        "session", "site",   "connector", "receive_connector", "last_error"};
    json_t *r;
    char buf[32];
    size_t i;
    for (i = 0; i < sizeof keys / sizeof *keys; i++) {
        printf("%-18s ", keys[i]);
        cell(text(j, keys[i]), 0);
    }
    printf("%-18s %lld\n%-18s %lld\n", "size", number(j, "size"), "attempts",
           number(j, "attempts"));
    printf("%-18s %s\n", "accepted", when(number(j, "accepted"), buf));
    printf("%-18s %s\n", "next_attempt", when(number(j, "next_attempt"), buf));
    json_array_foreach(json_object_get(j, "recipients"), i, r)
    {
        printf("%-18s ", "recipient");
        cell(text(r, "status"), 8);
        cell(text(r, "address"), 0);
    }
}

void print_progress(json_t *j)
{
    json_t *p, *items = json_object_get(j, "items");
    size_t i;
    json_array_foreach(items, i, p)
        printf("%s %s: %lld of %lld messages looked at\n", text(p, "method"), text(p, "path"),
               number(p, "seen"), number(p, "messages"));
    if (json_array_size(items) == 0)
        puts("nothing is under way");
}

void print_sites(json_t *j)
{
    json_t *s, *items = json_object_get(j, "items");
    char buf[32];
    size_t i;
    if (json_array_size(items))
        printf("%-16s %-24s %-8s %-7s %-5s %-9s %-6s %-28s %s\n", "CONNECTOR", "DOMAIN", "STATE",
               "WAITING", "CONN", "DELIVERED", "RETRY", "REMOTE", "LAST ERROR");
    json_array_foreach(items, i, s)
    {
        cell(text(s, "connector"), 16);
        cell(text(s, "domain"), 24);
        cell(text(s, "state"), 8);
        printf("%-7lld %-5lld %-9lld ", number(s, "waiting"), number(s, "connections"),
               number(s, "delivered"));
        cell(number(s, "retry_in_s") ? age(number(s, "retry_in_s"), buf) : "-", 6);
        cell(text(s, "remote"), 28);
        if (number(s, "last_code"))
            printf("%lld ", number(s, "last_code"));
        cell(text(s, "last_error"), 0);
    }
    printf("%lld next hops\n", number(j, "matched"));
}

static void print_spaces(json_t *list)
{
    json_t *s;
    size_t i;
    json_array_foreach(list, i, s)
        printf("%s%s cost %lld", i ? ", " : "", text(s, "space"), number(s, "cost"));
    putchar('\n');
}

void print_connectors(json_t *j)
{
    json_t *c, *b;
    size_t i, k;
    json_array_foreach(json_object_get(j, "receive"), i, c)
    {
        printf("receive  ");
        cell(text(c, "name"), 20);
        cell(text(c, "state"), 9);
        printf("%4lld sessions     ", number(c, "sessions"));
        cell(text(c, "tls"), 9);
        json_array_foreach(json_object_get(c, "bind"), k, b)
            printf("%s%s", k ? ", " : "", json_string_value(b));
        putchar('\n');
    }
    json_array_foreach(json_object_get(j, "send"), i, c)
    {
        printf("send     ");
        cell(text(c, "name"), 20);
        cell(text(c, "state"), 9);
        printf("%4lld connections  ", number(c, "connections"));
        cell(text(c, "health"), 11);
        cell(text(c, "delivery"), 11);
        print_spaces(json_object_get(c, "address_spaces"));
        if (number(c, "sites_down")) {
            printf("%30s", "");
            cell(text(c, "last_error"), 0);
        }
    }
}

/* The hosts that would be tried, with what this gateway knows of them. */
static void print_hosts(json_t *j)
{
    json_t *h;
    size_t i;
    char buf[32];
    json_array_foreach(json_object_get(j, "hosts"), i, h)
    {
        printf("   ");
        cell(text(h, "host"), 28);
        printf("%-5lld priority %lld weight %lld, %s", number(h, "port"), number(h, "priority"),
               number(h, "weight"), text(h, "state"));
        if (number(h, "retry_in_s"))
            printf(", tried again in %s", age(number(h, "retry_in_s"), buf));
        putchar('\n');
    }
    if (number(j, "last_code")) {
        printf("   last error: %lld ", number(j, "last_code"));
        cell(text(j, "last_error"), 0);
    }
}

static void print_route_one(json_t *j)
{
    json_t *s;
    size_t i;
    const char *verdict = text(j, "verdict");
    json_array_foreach(json_object_get(j, "steps"), i, s)
    {
        cell(text(s, "connector"), 20);
        cell(text(s, "verdict"), 0);
    }
    if (strcmp(verdict, "found") == 0) {
        printf("=> connector %s (cost %lld), %s", text(j, "connector"), number(j, "cost"),
               text(j, "delivery"));
        json_array_foreach(json_object_get(j, "smart_hosts"), i, s)
            printf("%s%s", i ? ", " : " ", json_string_value(s));
        if (strcmp(text(j, "state"), "suspended") == 0)
            printf("; suspended by the operator: mail waits until it is resumed");
        putchar('\n');
        print_hosts(j);
    } else {
        puts(strcmp(verdict, "too_large") == 0
                 ? "=> too large for every connector that matches: returned to the sender (5.3.4)"
                 : "=> no connector matches: waits in the unreachable queue");
    }
}

void print_route(json_t *j)
{
    json_t *o;
    size_t i;
    if (json_object_get(j, "from")) {
        printf("from ");
        cell(text(j, "from"), 0);
        puts("   (a sender plays no part in the choice)");
    }
    print_route_one(j);
    json_array_foreach(json_object_get(j, "otherwise"), i, o)
    {
        printf("shard %lld sees it otherwise:\n", number(o, "shard"));
        print_route_one(o);
    }
}

void print_switched(json_t *j)
{
    printf("%s connector %s is %s\n", text(j, "kind"), text(j, "name"), text(j, "state"));
    if (json_object_get(j, "warning"))
        fprintf(stderr, "hikyakuctl: it holds until the next start only: %s\n", text(j, "warning"));
}

void print_changed(json_t *j)
{
    printf("%lld changed\n", number(j, "changed"));
}

void print_changes(json_t *j)
{
    json_t *c, *changes = json_object_get(j, "changes");
    size_t i;
    json_array_foreach(changes, i, c)
    {
        cell(text(c, "change"), 8);
        printf("%s%s\n", text(c, "key"),
               json_is_true(json_object_get(c, "restart")) ? "  (needs a restart)" : "");
    }
    if (json_array_size(changes) == 0)
        puts("no difference");
}

void print_client_settings(json_t *j)
{
    json_t *s;
    size_t i;
    json_array_foreach(json_object_get(j, "settings"), i, s)
    {
        cell(text(s, "host"), 40);
        printf("%-5lld ", number(s, "port"));
        cell(text(s, "encryption"), 0);
    }
    if (json_array_size(json_object_get(j, "dns")))
        puts("\nfor the name server (RFC 6186):");
    json_array_foreach(json_object_get(j, "dns"), i, s) puts(json_string_value(s));
}

void print_protocol(json_t *j)
{
    json_t *t, *items = json_object_get(j, "protocol_log");
    char buf[32];
    size_t i;
    json_array_foreach(items, i, t)
    {
        cell(text(t, "kind"), 9);
        cell(text(t, "target"), 44);
        printf("for %s more\n", age(number(t, "left_s"), buf));
    }
    if (json_array_size(items) == 0)
        puts("nothing is watched but connectors with protocol_log");
    if (json_object_get(j, "folder"))
        printf("log: %s\n", text(j, "folder"));
}

void print_generation(json_t *j)
{
    printf("reloaded: configuration %lld is in force\n", number(j, "config_generation"));
}

static void print_step(json_t *s)
{
    const char *status = text(s, "status");
    printf("  ");
    cell(strcmp(status, "failed") == 0 ? "FAILED" : status, 7);
    cell(text(s, "step"), 11);
    printf("%8.1f ms  ", json_number_value(json_object_get(s, "ms")));
    if (number(s, "code"))
        printf("%lld %s%s", number(s, "code"),
               *text(s, "enhanced") == '-' ? "" : text(s, "enhanced"),
               *text(s, "enhanced") == '-' ? "" : " ");
    cell(number(s, "code") ? text(s, "remote") : text(s, "text"), 0);
    if (json_object_get(s, "advice"))
        printf("%34s-> %s\n", "", text(s, "advice"));
}

void print_probe(json_t *j)
{
    json_t *t, *s;
    size_t i, k;
    if (json_is_true(json_object_get(j, "file_differs")))
        puts("the configuration file differs from what runs: `hikyakuctl config diff`, `reload`");
    json_array_foreach(json_object_get(j, "targets"), i, t)
    {
        cell(text(t, "target"), 0);
        json_array_foreach(json_object_get(t, "steps"), k, s) print_step(s);
    }
    printf("%s connector %s: %s\n", text(j, "kind"), text(j, "connector"),
           json_is_true(json_object_get(j, "ok")) ? "all went well" : "something went wrong");
}
