/*
 * The configuration as a whole: what is read, where defaults come from, the demo, includes, and
 * that every fault is told with file, line and column.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/auth/sasl.h"
#include "gateway/config_internal.h"
#include "gateway/log.h"
#include "tls/tls.h"

static char folder[32];

static void make_folder(void)
{
    struct why why;
    cr_assert(tls_global_init(&why), "%s", why.text);
    snprintf(folder, sizeof folder, "/tmp/hikyaku-config-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    setenv("DIR", folder, 1);
    setenv("DATA", "tests/unit/data/tls", 1);
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    cr_expect_eq(system(command), 0);
    tls_global_cleanup();
}

TestSuite(config, .init = make_folder, .fini = remove_folder);

static const char *file(const char *name, const char *text)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static struct config *parse(const char *text)
{
    struct why why;
    struct config *c = config_parse("t.yaml", slice_str(text), &why);
    cr_assert_not_null(c, "%s", why.text);
    return c;
}

Test(config, demo)
{
    char text[8192], path[256];
    struct buf b = buf_over(text, sizeof text);
    snprintf(path, sizeof path,
             "cp tests/unit/data/tls/mail.pem %s/tls.crt && "
             "cp tests/unit/data/tls/mail.key %s/tls.key",
             folder, folder);
    cr_assert_eq(system(path), 0);
    file("token", "secret\n");
    file("users", "");
    cr_assert(config_demo(folder, &b));
    struct why why;
    struct config *c = config_parse("demo", buf_slice(&b), &why);
    cr_assert_not_null(c, "%s", why.text);
    cr_expect_str_eq(c->hostname, "localhost");
    cr_expect_eq(c->spool.bytes_max, GIB);
    cr_expect_eq(c->spool.disk_free_min, 100 * MIB);
    cr_expect_str_eq(c->admin.token, "secret");
    cr_expect_eq(io_addr_port(&c->admin.http), 9025);
    snprintf(path, sizeof path, "%s/ctl.sock", folder);
    cr_expect_str_eq(c->admin.socket, path);
    cr_assert_eq(c->receive_count, 3);
    static const struct {
        uint16_t port;
        enum config_tls_mode mode;
        bool tls_required, submission;
        uint32_t mechanisms;
    } want[] = {{2587, CONFIG_TLS_STARTTLS, true, true, SASL_PLAIN | SASL_LOGIN},
                {2465, CONFIG_TLS_IMPLICIT, false, true, SASL_PLAIN | SASL_LOGIN},
                {2525, CONFIG_TLS_STARTTLS, false, false, 0}};
    for (int i = 0; i < 3; i++) {
        const struct config_receive_connector *r = &c->receive[i];
        cr_expect_eq(io_addr_port(&r->bind[0]), want[i].port);
        cr_expect_eq(r->tls.mode, want[i].mode);
        cr_expect_eq(r->tls.required, want[i].tls_required);
        cr_expect_eq(r->auth.required, want[i].mechanisms != 0);
        cr_expect_eq(r->auth.mechanisms, want[i].mechanisms);
        cr_expect_eq(r->submission, want[i].submission);
        cr_expect_eq(r->tls.certificate_count, 1);
        cr_expect_gt(r->tls.certificates[0].key_len, 100);
        cr_expect_str_eq(r->fqdn, "localhost");
    }
    cr_assert_eq(c->accepted_domains.count, 1);
    cr_expect_str_eq(c->accepted_domains.items[0].domain, "example.com");
    cr_assert_eq(c->send_count, 1);
    cr_assert_eq(c->send[0].smart_host_count, 1);
    cr_expect(c->send[0].smart_hosts[0].literal);
    cr_expect_eq(c->send[0].smart_hosts[0].port, 2526);
    cr_expect_str_eq(c->send[0].smart_hosts[0].host, "127.0.0.1");
    cr_expect_eq(c->send[0].tls.level, CONFIG_LEVEL_NONE);
    cr_expect_not_null(c->routes);
    config_free(c);
    b.len = 0;
    cr_expect(!config_demo("it's", &b), "no way to quote it");
    cr_expect(!config_demo("", &b));
    struct buf small = buf_over(text, 100);
    cr_expect(!config_demo(folder, &small));
}

Test(config, nothing_is_all_defaults)
{
    char name[256];
    struct config *c = parse("");
    cr_assert_eq(gethostname(name, sizeof name), 0);
    cr_expect_eq(strcasecmp(c->hostname, name), 0);
    cr_expect_eq(c->shards, 0);
    cr_expect_str_eq(c->spool.path, "/var/spool/hikyaku");
    cr_expect_eq(c->spool.bytes_max, 20 * GIB);
    cr_expect_eq(c->dns.timeout_ns, DNS_TIMEOUT_NS);
    cr_expect(c->dns.dnssec);
    cr_expect_eq(c->log.level, LOG_INFO);
    cr_expect(c->log.json);
    cr_expect_null(c->log.tracking);
    cr_assert_eq(c->retry.interval_count, 6);
    cr_expect_eq(c->retry.intervals_s[5], 3600);
    cr_expect_eq(c->retry.expire_s, 172800);
    cr_expect_eq(c->retry.warn_after_s, 14400);
    cr_expect_not_null(c->routes);
    config_free(c);
}

/* ---- the example of the operator's interface ---- */

/* As the operators know it; what does not work yet is left at its default. */
static const char interfaces[] =
    "hostname: mail.example.com\n"
    "shards: auto                          # or a number\n"
    "spool: {path: /var/spool/hikyaku, max_size: 20GiB, min_free: 1GiB}\n"
    "admin: {socket: /run/hikyaku/ctl.sock, http: 127.0.0.1:9025, token_file: '${DIR}/token'}\n"
    "log: {level: info, format: json, tracking: /var/log/hikyaku/tracking.jsonl, protocol: ''}\n"
    "dns: {servers: [127.0.0.1:53], dnssec: true, timeout: 5s}\n"
    "users: {file: '${DIR}/users'}\n"
    "accepted_domains:\n"
    "  - {domain: example.com, type: authoritative}\n"
    "receive_connectors:\n"
    "  - name: client-frontend\n"
    "    bind: [\"0.0.0.0:587\", \"[::]:587\"]\n"
    "    fqdn: mail.example.com\n"
    "    tls: {mode: starttls, required: true, min_version: \"1.2\", min_bits: 128,\n"
    "          certificates: [{certificate: '${DATA}/mail.pem', key: '${DATA}/mail.key'}]}\n"
    "    auth: {required: true, require_tls: true, mechanisms: [PLAIN, LOGIN]}\n"
    "    remote: {allow: [0.0.0.0/0, \"::/0\"], deny: [], allow_names: [], deny_names: []}\n"
    "    relay: {authenticated: true, networks: [], names: []}\n"
    "    sender_identity: enforce\n"
    "    max_message_size: 35MiB\n"
    "    max_recipients: 500\n"
    "    proxy_protocol: {required: true, from: [10.1.0.4, 10.2.0.0/24]}\n"
    "  - name: default-frontend\n"
    "    bind: [\"0.0.0.0:25\"]\n"
    "    tls: {mode: starttls, required: false, certificates:\n"
    "          [{certificate: '${DATA}/mail.pem', key: '${DATA}/mail.key'}]}\n"
    "    auth: {required: false, mechanisms: []}\n"
    "send_connectors:\n"
    "  - name: internet\n"
    "    address_spaces: [{space: \"*\", cost: 10}]\n"
    "    delivery: mx\n"
    "    tls: {level: opportunistic}\n"
    "  - name: isp\n"
    "    address_spaces: [{space: \"*\", cost: 20}]\n"
    "    delivery: smart_hosts\n"
    "    smart_hosts: [{host: \"[192.0.2.10]:587\", weight: 1}, "
    "{host: smtp.isp.example, priority: 2}]\n"
    "    auth: {mechanism: PLAIN, username: relay, password_file: '${DIR}/isp.secret'}\n"
    "    tls: {level: verify, name: smtp.isp.example}\n"
    "    helo: ehlo\n"
    "    source_addresses: []\n"
    "    receive_connectors: []\n"
    "    max_message_size: 0\n"
    "    max_connections: 20\n"
    "    max_messages_per_connection: 100\n"
    "    max_recipients_per_message: 100\n"
    "    enabled: true\n"
    "retry: {intervals: [1m, 5m, 10m, 20m, 40m, 1h], expire: 2d, warn_after: 4h}\n"
    "rewrite: []\n";

static void secrets(void)
{
    file("token", "t0ken\r\n");
    file("users", "");
    file("isp.secret", " pa$${ss} \n");
}

Test(config, interfaces_receive)
{
    secrets();
    struct config *c = parse(interfaces);
    char text[IO_ADDR_TEXT_MAX];
    cr_expect_str_eq(c->hostname, "mail.example.com");
    cr_expect_str_eq(c->admin.token, "t0ken", "CRLF at its end is dropped too");
    cr_assert_eq(c->dns.server_count, 1);
    cr_expect_str_eq(io_addr_text(&c->dns.servers[0], true, text), "127.0.0.1:53");
    cr_expect_null(c->log.protocol);
    cr_assert_eq(c->receive_count, 2);
    const struct config_receive_connector *r = &c->receive[0];
    cr_expect_str_eq(r->name, "client-frontend");
    cr_assert_eq(r->bind_count, 2);
    cr_expect_str_eq(io_addr_text(&r->bind[0], true, text), "0.0.0.0:587");
    cr_expect_str_eq(io_addr_text(&r->bind[1], true, text), "[::]:587");
    cr_expect_eq(r->tls.mode, CONFIG_TLS_STARTTLS);
    cr_expect_eq(r->tls.version_min, 0x0303);
    cr_expect_eq(r->tls.bits_min, 128);
    cr_expect(r->tls.required && r->auth.required && r->auth.require_tls);
    cr_expect(r->relay.authenticated && r->sender_identity_enforce && r->submission);
    cr_expect_eq(r->remote.allow.count, 2);
    cr_expect(r->proxy.required && r->proxy.from.count == 2 && r->proxy.from.items[1].bits == 24);
    cr_expect_eq(r->message_size_max, 35 * MIB);
    cr_expect_eq(r->rcpt_count_max, 500);
    cr_expect_eq(r->idle_ns, SESSION_IDLE_NS);
    r = &c->receive[1];
    cr_expect_str_eq(r->fqdn, "mail.example.com", "that of the whole");
    cr_expect(!r->tls.required && !r->auth.required && !r->submission);
    cr_expect_eq(r->auth.mechanisms, 0);
    cr_expect_eq(r->remote.allow.count, 2, "everybody by default");
    cr_expect(r->relay.authenticated);
    config_free(c);
}

Test(config, interfaces_send)
{
    secrets();
    struct config *c = parse(interfaces);
    char text[IO_ADDR_TEXT_MAX];
    cr_assert_eq(c->send_count, 2);
    const struct config_send_connector *s = &c->send[0];
    cr_expect(s->mx && s->enabled && s->failover);
    cr_expect_eq(s->spaces[0].cost, 10);
    cr_expect_eq(s->spaces[0].weight, 1);
    cr_expect_str_eq(s->spaces[0].space, "*");
    cr_expect_eq(s->tls.level, CONFIG_LEVEL_OPPORTUNISTIC);
    cr_expect_eq(s->auth.mechanism, 0);
    cr_expect_eq(s->port, 25);
    s = &c->send[1];
    cr_assert_eq(s->smart_host_count, 2);
    cr_expect(s->smart_hosts[0].literal);
    cr_expect_str_eq(s->smart_hosts[0].host, "192.0.2.10");
    cr_expect_str_eq(io_addr_text(&s->smart_hosts[0].addr, true, text), "192.0.2.10:587");
    cr_expect_eq(s->smart_hosts[0].port, 587);
    cr_expect_eq(s->smart_hosts[0].priority, 1);
    cr_expect(!s->smart_hosts[1].literal);
    cr_expect_str_eq(s->smart_hosts[1].host, "smtp.isp.example");
    cr_expect_eq(s->smart_hosts[1].port, 25);
    cr_expect_eq(s->smart_hosts[1].priority, 2);
    cr_expect_eq(s->auth.mechanism, SASL_PLAIN);
    cr_expect_str_eq(s->auth.username, "relay");
    cr_expect_str_eq(s->auth.password, " pa$${ss} ", "taken as it is but for the newline");
    cr_expect_eq(s->tls.level, CONFIG_LEVEL_VERIFY);
    cr_expect_str_eq(s->tls.name, "smtp.isp.example");
    cr_expect_null(s->tls.ca_file);
    cr_expect(!s->helo_only);
    cr_expect_eq(s->connections_max, 20);
    cr_expect_eq(s->messages_per_connection_max, 100);
    cr_expect_eq(s->rcpts_per_message_max, 100);
    struct route_answer a;
    struct route_query q = {.domain = SLICE_LIT("x.example"),
                            .receive_connector = SLICE_LIT("any")};
    route_choose(c->routes, &q, &a);
    cr_expect_eq(a.verdict, ROUTE_FOUND);
    cr_expect_eq(a.connector, 0, "the lower cost");
    config_free(c);
}

Test(config, example_file)
{
    char command[256];
    secrets();
    snprintf(command, sizeof command,
             "cd tests/unit/data/tls && cp mail.pem %s/tls.crt && cp mail.key %s/tls.key && "
             "cp ../../../../deploy/examples/hikyaku.yaml %s/",
             folder, folder, folder);
    cr_assert_eq(system(command), 0);
    snprintf(command, sizeof command, "%s/hikyaku.yaml", folder);
    struct why why;
    struct config *c = config_load(command, &why);
    cr_assert_not_null(c, "%s", why.text);
    cr_expect_str_eq(c->path, command);
    snprintf(command, sizeof command, "%s/users", folder);
    cr_expect_str_eq(c->users_file, command, "relative paths start at the file's folder");
    cr_expect_eq(c->receive_count, 4);
    cr_expect_eq(c->send_count, 3);
    config_free(c);
    cr_expect_null(config_load("/none/hikyaku.yaml", &why));
    cr_expect_str_eq(why.text, "/none/hikyaku.yaml:1:1: cannot read /none/hikyaku.yaml: "
                               "No such file or directory");
}

/* ---- keys of the send connectors ---- */

Test(config, smart_hosts)
{
    static const struct {
        const char *written, *host;
        uint16_t port;
        bool literal;
    } all[] = {{"[192.0.2.1]", "192.0.2.1", 2525, true},
               {"192.0.2.1", "192.0.2.1", 2525, true},
               {"192.0.2.1:26", "192.0.2.1", 26, true},
               {"[2001:DB8::1]:26", "2001:db8::1", 26, true},
               {"[2001:db8::1]", "2001:db8::1", 2525, true},
               {"2001:db8::25", "2001:db8::25", 2525, true},
               {"SMTP.Example", "smtp.example", 2525, false},
               {"smtp.example.:465", "smtp.example", 465, false},
               {"b\303\274cher.example", "xn--bcher-kva.example", 2525, false}};
    for (size_t form = 0; form < 3; form++) { /* maps, texts, one text */
        char text[1024];
        struct buf b = buf_over(text, sizeof text);
        buf_addf(&b,
                 "send_connectors:\n- name: a\n  address_spaces: [\"*\"]\n  port: 2525\n"
                 "  delivery: smart_hosts\n  smart_hosts: %s",
                 form == 2 ? "\"" : "[");
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            buf_addf(&b,
                     form == 0   ? "%s{host: \"%s\"}"
                     : form == 1 ? "%s\"%s\""
                                 : "%s%s",
                     i == 0      ? ""
                     : form == 2 ? "; "
                                 : ",",
                     all[i].written);
        buf_addf(&b, "%s\n%c", form == 2 ? "\"" : "]", 0);
        struct config *c = parse(text);
        cr_assert_eq(c->send[0].smart_host_count, sizeof all / sizeof all[0]);
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
            const struct config_smart_host *h = &c->send[0].smart_hosts[i];
            cr_expect_str_eq(h->host, all[i].host);
            cr_expect_eq(h->port, all[i].port, "%s", all[i].written);
            cr_expect_eq(h->literal, all[i].literal);
            cr_expect_eq(h->literal ? io_addr_port(&h->addr) : 0, h->literal ? h->port : 0);
            cr_expect_eq(h->priority, 1);
            cr_expect_eq(h->weight, 1);
        }
        config_free(c);
    }
}

Test(config, send_keys)
{
    struct config *c =
        parse("receive_connectors: [{name: in, bind: [\"[::1]:25\"], submission: yes}]\n"
              "send_connectors:\n- name: a\n  address_spaces: [{space: '*.B\303\274cher.example.', "
              "weight: 3}, x.example]\n  enabled: off\n  failover: no\n  helo: helo\n"
              "  mx_allow_networks: [10.0.0.0/8, 192.0.2.10-192.0.2.12]\n"
              "  source_addresses: [192.0.2.1, \"2001:db8::1\"]\n  receive_connectors: [in]\n"
              "  max_message_size: 10MiB\n  allow_relay: true\n"
              "  tls: {ca_file: '${DATA}/ca.pem', level: required}\n"
              "- {name: b, address_spaces: ['*'], allow_relay: true, open_relay: yes-i-mean-it}\n");
    const struct config_send_connector *s = &c->send[0];
    struct io_addr a;
    cr_expect(c->receive[0].submission, "said so");
    cr_assert_eq(s->space_count, 2);
    cr_expect_str_eq(s->spaces[0].space, "*.xn--bcher-kva.example");
    cr_expect_eq(s->spaces[0].weight, 3);
    cr_expect_eq(s->spaces[0].cost, 1);
    cr_expect_str_eq(s->spaces[1].space, "x.example");
    cr_expect(!s->enabled && !s->failover && s->helo_only && s->mx && s->allow_relay);
    cr_assert(io_addr_parse(&a, SLICE_LIT("10.9.9.9"), 25));
    cr_expect(config_networks_match(&s->mx_allow, &a));
    cr_assert(io_addr_parse(&a, SLICE_LIT("192.0.2.12"), 25));
    cr_expect(config_networks_match(&s->mx_allow, &a));
    cr_assert(io_addr_parse(&a, SLICE_LIT("192.0.2.13"), 25));
    cr_expect(!config_networks_match(&s->mx_allow, &a));
    cr_assert_eq(s->source_address_count, 2);
    cr_expect_eq(s->source_addresses[1].sa.sa_family, AF_INET6);
    cr_assert_eq(s->receive_connectors.count, 1);
    cr_expect_str_eq(s->receive_connectors.items[0], "in");
    cr_expect_eq(s->message_size_max, 10 * MIB);
    cr_expect_str_eq(s->tls.ca_file, "tests/unit/data/tls/ca.pem");
    cr_expect(c->send[1].allow_relay);
    config_free(c);
}

Test(config, submission)
{
    static const struct {
        const char *keys;
        bool want;
    } all[] = {{"bind: [\"0.0.0.0:587\", \"[::]:465\"]", true},
               {"bind: [\"0.0.0.0:587\", \"0.0.0.0:25\"]", false},
               {"bind: [\"0.0.0.0:25\"], auth: {required: yes, require_tls: no, mechanisms: "
                "[LOGIN]}",
                true},
               {"bind: [\"0.0.0.0:587\"], submission: no", false},
               {"bind: [\"0.0.0.0:587\"], submission: auto", true},
               {"bind: [\"0.0.0.0:25\"], submission: yes", true}};
    secrets();
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "users: {file: '${DIR}/users'}\nreceive_connectors: [{name: a, %s}]", all[i].keys);
        struct config *c = parse(text);
        cr_expect_eq(c->receive[0].submission, all[i].want, "%s", all[i].keys);
        config_free(c);
    }
}

/* E4: one address, clients told apart by their own. */
Test(config, shared_bind)
{
    static const struct {
        const char *first, *second;
        bool fits;
    } all[] = {
        {"{allow: [10.0.0.0/8]}", "{deny: [10.0.0.0/8]}", true},
        {"{allow: [10.0.0.0/8]}", "{deny: [10.0.0.0/9, 10.128.0.0/9]}", true},
        {"{allow: [10.0.0.0/8]}", "{deny: [10.0.0.0/9, 10.128.0.0/10]}", false},
        {"{allow: [10.0.0.0/8]}", "{allow: [11.0.0.0/8, \"::/0\"]}", true},
        {"{allow: [10.0.0.0/8], deny: [10.1.0.0/16]}", "{allow: [10.1.2.0/24]}", true},
        {"{allow: [10.0.0.0/8], deny: [10.1.2.0/25]}", "{allow: [10.1.2.0/24]}", false},
        {"{allow: [\"::/0\"]}", "{allow: [0.0.0.0/0]}", true},
        {"{allow: [\"2001:db8::/32\"]}", "{deny: [\"2001:db8::/33\"]}", false},
        {"{allow: [192.0.2.7-192.0.2.23]}", "{deny: [192.0.2.0-192.0.2.30]}", true},
        {"{allow: [192.0.2.7-192.0.2.23]}", "{deny: [192.0.2.8-192.0.2.30]}", false},
        {"{allow: [10.0.0.0/8, 11.0.0.0/8]}", "{deny: [10.0.0.0/8]}", false},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (int swap = 0; swap < 2; swap++) {
            char text[512];
            struct why why;
            snprintf(text, sizeof text,
                     "receive_connectors:\n- {name: a, bind: [\"[::]:25\"], remote: %s}\n"
                     "- {name: b, bind: [\"[::]:25\"], remote: %s}",
                     swap ? all[i].second : all[i].first, swap ? all[i].first : all[i].second);
            struct config *c = config_parse("t", slice_str(text), &why);
            cr_expect_eq(c != NULL, all[i].fits, "%s: %s", text, why.text);
            config_free(c);
        }
}

/* ---- environment, includes ---- */

Test(config, environment)
{
    setenv("PORT", "2525", 1);
    setenv("EMPTY", "", 1);
    struct config *c =
        parse("spool: {path: '/a/${PORT}${EMPTY}/$${PORT}/$PORT'}\n"
              "send_connectors: [{name: a, address_spaces: ['*'], port: '${PORT}'}]\n"
              "receive_connectors: [{name: b, bind: ['127.0.0.1:${PORT}']}]\n");
    cr_expect_str_eq(c->spool.path, "/a/2525/${PORT}/$PORT");
    cr_expect_eq(c->send[0].port, 2525);
    cr_expect_eq(io_addr_port(&c->receive[0].bind[0]), 2525);
    config_free(c);
}

static struct config *load(const char *name, struct why *why)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return config_load(path, why);
}

Test(config, includes)
{
    char path[128];
    struct why why;
    snprintf(path, sizeof path, "%s/sub", folder);
    cr_assert_eq(mkdir(path, 0700), 0);
    file("main", "include: [sub/a, b]\nspool: {path: here}\nreceive_connectors:\n"
                 "- {name: m, bind: [\"127.0.0.1:1\"]}\n");
    file("sub/a", "include: c\nspool: {max_size: 1GiB}\nreceive_connectors:\n"
                  "- {name: a, bind: [\"127.0.0.1:2\"]}\n");
    file("sub/c", "shards: 3\nlog: {tracking: t.jsonl}\n");
    file("b", "receive_connectors:\n- {name: b, bind: [\"127.0.0.1:3\"]}\n");
    struct config *c = load("main", &why);
    cr_assert_not_null(c, "%s", why.text);
    snprintf(path, sizeof path, "%s/here", folder);
    cr_expect_str_eq(c->spool.path, path);
    cr_expect_eq(c->spool.bytes_max, GIB);
    cr_expect_eq(c->shards, 3);
    snprintf(path, sizeof path, "%s/sub/t.jsonl", folder);
    cr_expect_str_eq(c->log.tracking, path, "relative to the included file");
    cr_assert_eq(c->receive_count, 3);
    cr_expect_str_eq(c->receive[0].name, "m");
    cr_expect_str_eq(c->receive[1].name, "a");
    cr_expect_str_eq(c->receive[2].name, "b");
    config_free(c);
}

Test(config, include_faults)
{
    static const struct {
        const char *main, *other, *message; /* the folder is left out of messages */
    } all[] = {
        {"include: other\nspool: {path: a}\n", "\nspool: {path: b}\n",
         "other:2:9: path is already given at main:2:15"},
        {"include: other\nspool: {path: a}\n", "spool: [a]\n",
         "other:1:1: spool is already given at main:2:8"},
        {"include: [other, other]\n", "shards: 1\n",
         "other:1:1: shards is already given at other:1:9"},
        {"include: other\n", "shards: 100\n", "other:1:9: shards: 100 is out of range, 1 to 64"},
        {"include: other\n", "\n  shard: 100\n",
         "other:2:3: unknown key shard; did you mean shards?"},
        {"include: other\n", "- 1\n",
         "other:1:1: expected keys and values, such as hostname: mail.example.com"},
        {"include: other\n", "include: none\n",
         "other:1:10: include: cannot read none: "
         "No such file or directory"},
        {"include: other\n", "include: main\n",
         "main:1:10: includes go deeper than 8; does a file include itself?"},
        {"include: main\n", "",
         "main:1:10: includes go deeper than 8; does a file include itself?"},
        {"include: other\nsend_connectors: [{name: a, address_spaces: [\"*\"]}]\n",
         "send_connectors: [{name: a, address_spaces: [\"*\"]}]\n",
         "other:1:26: connector a is already given at main:2"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct why why;
        file("main", all[i].main);
        file("other", all[i].other);
        cr_expect_null(load("main", &why));
        char text[WHY_TEXT_MAX] = "";
        size_t skip = strlen(folder) + 1, len = 0;
        for (const char *p = why.text; *p; p++) {
            if (strncmp(p, folder, skip - 1) == 0)
                p += skip;
            text[len++] = *p;
        }
        cr_expect_str_eq(text, all[i].message);
    }
    struct buf b = buf_over(malloc(8192), 8192);
    buf_add_str(&b, "include: [");
    for (int i = 0; i < 65; i++)
        buf_add_str(&b, "other,");
    buf_addf(&b, "]%c", 0);
    file("main", (char *)b.ptr);
    free(b.ptr);
    file("other", "");
    struct why why;
    cr_expect_null(load("main", &why));
    cr_expect_not_null(strstr(why.text, "main:1:395: more than 64 included files"), "%s", why.text);
}

/* Secrets and values of texts never stand in messages. */
Test(config, secrets_are_not_told)
{
    static const char *const all[] = {
        ("send_connectors: [{name: a, address_spaces: ['*'], auth: {password: S3CRET, mechanism: "
         "x}}]"),
        "send_connectors: [{name: a, address_spaces: ['*'], auth: {password: S3CRET}}]",
        "send_connectors: [{name: a, address_spaces: ['*'], auth: {password: [S3CRET]}}]",
        "send_connectors: [{name: a, address_spaces: ['*'], auth: {password: {S3CRET: a}}}]",
        "send_connectors: [{name: a, address_spaces: ['*'], auth: {password: \"S3CRET\\n\"}}]",
        "send_connectors: [{name: a, address_spaces: ['*'], auth: {password: 'S3CRET${NO_SUCH}'}}]",
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct why why;
        cr_expect_null(config_parse("t", slice_str(all[i]), &why), "%s", all[i]);
        cr_expect_null(strstr(why.text, "S3CRET"), "%s", why.text);
    }
}

/* ---- reload, warnings ---- */

Test(config, reload_possible)
{
    static const struct {
        const char *now, *next, *message; /* NULL: possible */
    } all[] = {
        {"", "", NULL},
        {"", "log: {level: debug}\nretry: {expire: 3d}\nhostname: b.example", NULL},
        {"", "receive_connectors: [{name: a, bind: [\"127.0.0.1:25\"]}]", NULL},
        {"", "shards: 2", "t: a change of shards needs a restart"},
        {"spool: {path: /a}", "spool: {path: /b}", "t: a change of spool.path needs a restart"},
        {"", "spool: {write: direct}", "t: a change of spool.write needs a restart"},
        {"", "admin: {http: 127.0.0.1:1}", "t: a change of admin.http needs a restart"},
        {"admin: {http: 127.0.0.1:1}", "admin: {http: 127.0.0.1:2}",
         "t: a change of admin.http needs a restart"},
        {"admin: {socket: \"\"}", "", "t: a change of admin.socket needs a restart"},
        {"dns: {servers: [\"::1\"]}", "dns: {servers: [\"[::1]:53\"]}", NULL},
        {"dns: {servers: [\"::1\"]}", "dns: {servers: [\"::2\"]}",
         "t: a change of dns.servers needs a restart"},
        {"", "dns: {servers: [\"::2\"]}", "t: a change of dns.servers needs a restart"},
        {"", "dns: {timeout: 6s}", "t: a change of dns.timeout needs a restart"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct why why;
        struct config *now = config_parse("t", slice_str(all[i].now), &why);
        struct config *next = config_parse("t", slice_str(all[i].next), &why);
        cr_assert(now && next, "%s", why.text);
        bool possible = config_reload_possible(now, next, &why);
        cr_expect_eq(possible, all[i].message == NULL, "%s | %s", all[i].now, all[i].next);
        if (!possible && all[i].message)
            cr_expect_str_eq(why.text, all[i].message);
        config_free(now);
        config_free(next);
    }
}

static void collect(void *arg, const char *line)
{
    buf_addf(arg, "%s\n", line);
}

static void warned(const char *yaml, int64_t now_s, const char *want)
{
    char text[4096] = "";
    struct buf b = buf_over(text, sizeof text - 1);
    struct config *c = parse(yaml);
    config_warnings_at(c, now_s, collect, &b);
    text[b.len] = '\0';
    cr_expect_str_eq(text, want, "\nfrom: %s\ngot: %s\nwant: %s", yaml, text, want);
    config_free(c);
}

#define SENDS "send_connectors: [{name: s, address_spaces: ['*']}]\n"
#define TAKES(fqdn, pair)                                                       \
    SENDS "receive_connectors: [{name: r, bind: ['[::1]:25'], fqdn: " fqdn      \
          ", tls: {mode: starttls, certificates: [{certificate: '${DATA}/" pair \
          ".pem', key: '${DATA}/" pair ".key'}]}}]\n"

Test(config, warnings)
{
    const int64_t y2026 = 1767225600, y2021 = 1609459200, y2120 = 4733510400, day = 86400;
    secrets();
    warned("", y2026,
           "no receive connector: no mail can come in\n"
           "no send connector: mail waits in the unreachable queue\n");
    warned(TAKES("mail.example.test", "mail"), y2026, "");
    warned(TAKES("a.wild.example.test", "mail"), y2026, "");
    warned(TAKES("other.example", "mail"), y2026,
           "receive connector r: no certificate is for other.example (the first is for "
           "mail.example.test, *.wild.example.test)\n");
    warned(TAKES("mail.example.test", "expired"), y2026,
           "receive connector r: the certificate tests/unit/data/tls/expired.pem has expired\n");
    warned(TAKES("mail.example.test", "expired"), y2021 - 15 * day, "");
    warned(TAKES("mail.example.test", "expired"), y2021 - 13 * day - 1,
           "receive connector r: the certificate tests/unit/data/tls/expired.pem expires in 13 "
           "days\n");
    warned(
        TAKES("mail.example.test", "future"), y2026,
        "receive connector r: the certificate tests/unit/data/tls/future.pem is not valid yet\n");
    warned(TAKES("mail.example.test", "future"), y2120,
           "receive connector r: the certificate tests/unit/data/tls/future.pem has expired\n");
    warned(SENDS "receive_connectors: [{name: r, bind: ['[::1]:25'], relay: {networks: "
                 "[0.0.0.0/0]}}]",
           y2026, "receive connector r: relay.networks has every address; this is an open relay\n");
    warned("users: {file: '${DIR}/users'}\n" SENDS "receive_connectors: [{name: r, bind: "
           "['[::1]:25'], auth: {mechanisms: [PLAIN], require_tls: no}}]",
           y2026, "receive connector r: passwords may cross the network in clear text\n");
    warned("receive_connectors: [{name: r, bind: ['[::1]:25']}]\n"
           "send_connectors: [{name: s, address_spaces: ['*'], delivery: smart_hosts, tls: {level: "
           "verify}, smart_hosts: '[192.0.2.1];a.example'}]",
           y2026,
           "send connector s: certificates have names, but 192.0.2.1 is an address; give "
           "tls.name\n");
    warned("admin: {http: 0.0.0.0:80}\nreceive_connectors: [{name: r, bind: ['[::1]:25']}]\n"
           "send_connectors: [{name: s, address_spaces: ['*'], delivery: smart_hosts, smart_hosts: "
           "a, tls: {level: none}, auth: {mechanism: LOGIN, username: u, password: p}}]",
           y2026,
           "admin.http can be reached from other hosts, and there is no admin.token_file\n"
           "send connector s: its password crosses the network in clear text; tls.level required "
           "or verify prevents that\n");
    warned("receive_connectors: [{name: r, bind: ['[::1]:25']}]\n"
           "send_connectors: [{name: s, address_spaces: ['*'], delivery: smart_hosts, smart_hosts: "
           "a, auth: {mechanism: LOGIN, username: u, password: p}}]",
           y2026, "");
}
