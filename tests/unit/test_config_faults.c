/*
 * Broken configurations: each is refused with exactly one line, FILE:LINE:COLUMN and what to do.
 * What is told is the interface, so the whole line is compared.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config.h"
#include "tls/tls.h"

struct fault {
    const char *text, *message;
};

#define COUNT(a)  (sizeof(a) / sizeof(a)[0])
#define IN        "receive_connectors:\n- name: in\n  bind: [\"0.0.0.0:25\"]\n"
#define OUT       "send_connectors:\n- name: out\n  address_spaces: [\"*\"]\n"
#define OUT_HOSTS OUT "  delivery: smart_hosts\n  smart_hosts: \"[192.0.2.1]\"\n"
#define PEM       "tests/unit/data/tls/"
#define NO_FILE   "No such file or directory"

static void start(void)
{
    struct why why;
    cr_assert(tls_global_init(&why), "%s", why.text);
}

TestSuite(config_faults, .init = start, .fini = tls_global_cleanup);

static void refused(const struct fault *faults, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct why why;
        /* A copy of the exact size: reading past its end shows under AddressSanitizer. */
        size_t len = strlen(faults[i].text);
        uint8_t *text = malloc(len + !len);
        memcpy(text, faults[i].text, len);
        struct config *c = config_parse("t", slice_of(text, len), &why);
        cr_expect_null(c, "accepted: %s", faults[i].text);
        if (!c)
            cr_expect_str_eq(why.text, faults[i].message, "\nfrom: %s\ngot:  %s\nwant: %s",
                             faults[i].text, why.text, faults[i].message);
        config_free(c);
        free(text);
    }
}

Test(config_faults, yaml)
{
    static const struct fault faults[] = {
        {"hostname: [a\n",
         "t:2:1: did not find expected ',' or ']', while parsing a flow sequence"},
        {"spool: {path: /a\nshards: 2", "t:2:7: did not find expected ',' or '}', while parsing a "
                                        "flow mapping"},
        {"a: b: c", "t:1:5: mapping values are not allowed in this context"},
        {"\tshards: 1",
         "t:1:1: found character that cannot start any token, while scanning for the "
         "next token"},
        {"hostname: *b", "t:1:11: found undefined alias"},
        {"hostname: \"a", "t:1:13: found unexpected end of stream, while scanning a quoted scalar"},
        {"\xff", "t:1:1: invalid leading UTF-8 octet"},
        {"shards: 1\nspool: {path: \"\xc3\x28\"}", "t:2:17: invalid trailing UTF-8 octet"},
        {"- a", "t:1:1: expected keys and values, such as hostname: mail.example.com"},
        {"plain", "t:1:1: expected keys and values, such as hostname: mail.example.com"},
        {"? [a]\n: b", "t:1:3: a key must be a word"},
        {"hostname: !!int 3", "t:1:11: tags such as tag:yaml.org,2002:int are not used here"},
        {"hostname: !x 3", "t:1:11: tags such as !x are not used here"},
        {"shards: 1\n---\nshards: 2", "t:3:1: a second document begins here"},
        {"shards: 1\nspool: {}\nshards: 2", "t:3:1: shards is already given at line 1"},
        {"hostname: \"a\\nb\"", "t:1:11: a value must be one line without control characters"},
        {"hostname: \"a\\0b\"", "t:1:11: a value must be one line without control characters"},
        {"spool: &a {path: *a}", "t:1:12: maps and lists go deeper than 16"},
        {"rewrite: &a [*a]", "t:1:10: maps and lists go deeper than 16"},
        {"<<: {shards: 1}",
         "t:1:1: unknown key <<; known here: include, hostname, shards, spool, admin, log, "
         "dns, users, accepted_domains, postmaster, tls_memory, own_addresses, receive_connectors, "
         "send_connectors, back_pressure, retry, drain, handoff, reload, rewrite"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, environment)
{
    static const struct fault faults[] = {
        {"hostname: ${HIKYAKU_NOT_SET}", "t:1:11: the environment has no variable HIKYAKU_NOT_SET"},
        {"spool:\n  path: /a/${HIKYAKU_NOT_SET}/b",
         "t:2:9: the environment has no variable HIKYAKU_NOT_SET"},
        {"hostname: ${}", "t:1:11: after ${ comes a name and }; for a plain ${ write $${"},
        {"hostname: ${9}", "t:1:11: after ${ comes a name and }; for a plain ${ write $${"},
        {"hostname: ${A", "t:1:11: after ${ comes a name and }; for a plain ${ write $${"},
        {"hostname: ${A-b}", "t:1:11: after ${ comes a name and }; for a plain ${ write $${"},
        {"hostname: ${TWO_LINES}", "t:1:11: the variable TWO_LINES has control characters"},
        {"shards: ${WORD}", "t:1:9: shards: expected auto or a number from 1 to 64"},
    };
    setenv("TWO_LINES", "a\nb", 1);
    setenv("WORD", "word", 1);
    unsetenv("HIKYAKU_NOT_SET");
    refused(faults, COUNT(faults));
}

Test(config_faults, keys)
{
    static const struct fault faults[] = {
        {"hostnam: a", "t:1:1: unknown key hostnam; did you mean hostname?"},
        {"spool: {path: /x, max_szie: 1}",
         "t:1:19: unknown key spool.max_szie; did you mean max_size?"},
        {"spool: {size: 1}",
         "t:1:9: unknown key spool.size; known here: path, max_size, min_free, write"},
        {IN "  tls: {cert: x}", "t:4:9: unknown key tls.cert; known here: mode, required, "
                                "min_version, min_bits, certificates"},
        {IN "  tls:\n    mode: none\n    requird: true",
         "t:6:5: unknown key tls.requird; did you mean required?"},
        {OUT "  cost: 3", "t:4:3: unknown key cost"},
        {OUT "  max_conections: 3", "t:4:3: unknown key max_conections; did you mean "
                                    "max_connections?"},
        {"receive_connectors: [{bind: [\"0.0.0.0:25\"]}]", "t:1:22: name is missing"},
        {"receive_connectors:\n  - name: a\n", "t:2:5: bind is missing"},
        {"send_connectors: [{name: a}]", "t:1:19: address_spaces is missing"},
        {"accepted_domains: [{type: authoritative}]", "t:1:20: domain is missing"},
        {IN "  tls: {certificates: [{certificate: a}]}", "t:4:24: key is missing"},
        {OUT "  smart_hosts: [{weight: 1}]", "t:4:17: host is missing"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, types)
{
    static const struct fault faults[] = {
        {"spool: [1]", "t:1:8: spool: expected a map, such as {path: ...}"},
        {"spool: x", "t:1:8: spool: expected a map, such as {path: ...}"},
        {"spool:\n", "t:1:7: spool: no value; give one or leave the key out"},
        {"spool:\n  path:\n", "t:2:8: spool.path: no value; give one or leave the key out"},
        {"spool: {path: [a]}", "t:1:15: spool.path: expected one value, no list and no map"},
        {"spool: {max_size: {}}", "t:1:19: spool.max_size: expected one value, no list and no map"},
        {"dns: {servers: 127.0.0.1}", "t:1:16: dns.servers: expected a list, such as [a, b]"},
        {"dns: {servers: {a: b}}", "t:1:16: dns.servers: expected a list, such as [a, b]"},
        {"dns: {servers: [[a]]}",
         "t:1:17: dns.servers: expected an address such as 192.0.2.1 or \"[2001:db8::1]:5353\""},
        {"retry: {intervals: [[1m]]}",
         "t:1:21: retry.intervals: expected a time such as 90s, 5m, 2h or 2d"},
        {"receive_connectors: {name: a}", "t:1:21: receive_connectors: expected a list"},
        {"receive_connectors: [a]",
         "t:1:22: receive_connectors: expected a map, such as {name: ...}"},
        {OUT "  smart_hosts: {host: a}",
         "t:4:16: smart_hosts: expected a list, or one text with ';' between"},
        {OUT "  receive_connectors: [[a]]", "t:4:24: receive_connectors: expected a list of words"},
        {IN "  remote: {allow: [[a]]}", "t:4:20: remote.allow: expected a list of networks"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, numbers)
{
    static const char size[] = "t:1:19: spool.max_size: expected a size such as 500KiB, 25MiB, "
                               "20GiB or a number of bytes";
    static const struct fault faults[] = {
        {"shards: 0", "t:1:9: shards: 0 is out of range, 1 to 64"},
        {"shards: 65", "t:1:9: shards: 65 is out of range, 1 to 64"},
        {"shards: many", "t:1:9: shards: expected auto or a number from 1 to 64"},
        {"shards: -1", "t:1:9: shards: expected auto or a number from 1 to 64"},
        {"shards: 1.5", "t:1:9: shards: expected auto or a number from 1 to 64"},
        {"shards: 0x2", "t:1:9: shards: expected auto or a number from 1 to 64"},
        {"spool: {max_size: 20XB}", size},
        {"spool: {max_size: 20 GiB}", size},
        {"spool: {max_size: -5}", size},
        {"spool: {max_size: GiB}", size},
        {"spool: {max_size: 18446744073709551616}", size},
        {"spool: {max_size: 99999999TiB}", size},
        {"spool: {max_size: 127MiB}",
         "t:1:19: spool.max_size: 127MiB is out of range, 128MiB to 1024TiB"},
        {"dns: {timeout: 90}", "t:1:16: dns.timeout: expected a time such as 90s, 5m, 2h or 2d"},
        {"dns: {timeout: 1ms}", "t:1:16: dns.timeout: 1ms is out of range, 100ms to 1m"},
        {"dns: {timeout: 61s}", "t:1:16: dns.timeout: 61s is out of range, 100ms to 1m"},
        {"retry: {expire: 1500ms}", "t:1:17: retry.expire: expected whole seconds"},
        {"retry: {expire: 600000000d}",
         "t:1:17: retry.expire: expected a time such as 90s, 5m, 2h or 2d"},
        {"retry: {expire: 61d}", "t:1:17: retry.expire: 61d is out of range, 1s to 60d"},
        {"retry: {intervals: [1m, 0]}", "t:1:25: retry.intervals: 0 is out of range, 1s to 7d"},
        {IN "  idle_timeout: 0", "t:4:17: idle_timeout: 0 is out of range, 1s to 1d"},
        {IN "  idle_timeout: 2d", "t:4:17: idle_timeout: 2d is out of range, 1s to 1d"},
        {IN "  max_recipients: 0", "t:4:19: max_recipients: 0 is out of range, 1 to 20000"},
        {IN "  max_message_size: 5GiB",
         "t:4:21: max_message_size: 5GiB is out of range, 1 to 4GiB"},
        {OUT "  port: 65536", "t:4:9: port: 65536 is out of range, 1 to 65535"},
        {"send_connectors:\n- {name: a, address_spaces: [{space: \"*\", cost: 0}]}",
         "t:2:49: cost: 0 is out of range, 1 to 10000"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, words)
{
    static const struct fault faults[] = {
        {"dns: {dnssec: maybe}", "t:1:15: dns.dnssec: expected true or false"},
        {"log: {level: warn}", "t:1:14: log.level: expected error | warning | info | debug"},
        {"log: {level: debg}",
         "t:1:14: log.level: expected error | warning | info | debug; did you mean debug?"},
        {"spool: {write: fast}", "t:1:16: spool.write: expected auto | buffered | direct"},
        {IN "  tls: {min_version: \"1.1\"}", "t:4:22: tls.min_version: expected 1.2 | 1.3"},
        {IN "  tls: {mode: startls}",
         "t:4:15: tls.mode: expected none | starttls | implicit; did you mean starttls?"},
        {IN "  sender_identity: yes", "t:4:20: sender_identity: expected off | enforce"},
        {IN "  auth: {mechanisms: [PLIAN]}",
         "t:4:23: auth.mechanisms: expected PLAIN | LOGIN; did you mean PLAIN?"},
        {"receive_connectors: [{name: a b, bind: [\"0.0.0.0:25\"]}]",
         "t:1:29: name: expected 1 to 64 letters, digits, '-', '_' or '.'"},
        {"receive_connectors: [{name: \"\", bind: [\"0.0.0.0:25\"]}]",
         "t:1:29: name: expected 1 to 64 letters, digits, '-', '_' or '.'"},
        {"hostname: exa mple", "t:1:11: hostname: exa mple is no domain: a character that no mail "
                               "domain has"},
        {"hostname: a..b", "t:1:11: hostname: a..b is no domain: empty label"},
        {"accepted_domains: [\"*.example.com\"]",
         "t:1:20: domain: *.example.com is no domain: a character that no mail domain has"},
        {"send_connectors: [{name: a, address_spaces: [\"ex*\"]}]",
         "t:1:46: space: ex* is no address space: a character that no mail domain has"},
        {"send_connectors: [{name: a, address_spaces: [\"*.\"]}]",
         "t:1:46: space: *. is no address space: empty"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, addresses)
{
    static const char port[] = "t:1:39: bind: expected an address with port, such as 0.0.0.0:25 or "
                               "\"[::]:25\"";
    static const char network[] =
        "t:4:20: remote.allow: expected a network such as 192.0.2.0/24 or "
        "2001:db8::/32, or a range such as 192.0.2.10-192.0.2.20";
#define BIND(a)  "receive_connectors: [{name: a, bind: [\"" a "\"]}]", port
#define ALLOW(a) IN "  remote: {allow: [\"" a "\"]}"
    static const struct fault faults[] = {
        {BIND("0.0.0.0")},
        {BIND("0.0.0.0:")},
        {BIND("0.0.0.0:0")},
        {BIND("0.0.0.0:65536")},
        {BIND("::1:25")},
        {BIND("[::1]")},
        {BIND("[::1]25")},
        {BIND("localhost:25")},
        {BIND("256.0.0.1:25")},
        {"admin: {http: 9025}", "t:1:15: admin.http: expected an address with port, such as "
                                "0.0.0.0:25 or \"[::]:25\""},
        {OUT "  source_addresses: [\"192.0.2.1:25\"]",
         "t:4:22: source_addresses: expected an address such as 192.0.2.1 or 2001:db8::1"},
        {ALLOW("all"), network},
        {ALLOW("10.0.0"), network},
        {ALLOW("10.0.0.1-"), network},
        {ALLOW("10.0.0.0/33"),
         "t:4:20: remote.allow: the length behind / is a number from 0 to 32"},
        {ALLOW("10.0.0.0/"), "t:4:20: remote.allow: the length behind / is a number from 0 to 32"},
        {ALLOW("::/129"), "t:4:20: remote.allow: the length behind / is a number from 0 to 128"},
        {ALLOW("10.1.0.0/8"), "t:4:20: remote.allow: the address has bits beyond its prefix; write "
                              "10.0.0.0/8 or 10.1.0.0"},
        {ALLOW("10.0.0.9-10.0.0.1"),
         "t:4:20: remote.allow: a range goes from a lower to a higher address of one family"},
        {ALLOW("10.0.0.9-::1"),
         "t:4:20: remote.allow: a range goes from a lower to a higher address of one family"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, accepted_domains)
{
    static const struct fault faults[] = {
        {"accepted_domains: [{domain: a, type: internal_relay, recipients_file: /dev/null}]",
         "t:1:71: recipients_file: only for type: authoritative"},
        {"accepted_domains: [{domain: a, recipients_file: /no/file}]",
         "t:1:49: recipients_file: cannot read /no/file: No such file or directory"},
        {"postmaster: me",
         "t:1:13: postmaster: expected an address such as postmaster@example.com"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, not_supported_yet)
{
    static const struct fault faults[] = {
        {"users: {dovecot: /run/x}", "t:1:9: users.dovecot is not supported yet"},
        {"users: {deny_accounts: [a]}", "t:1:9: users.deny_accounts is not supported yet"},
        {"rewrite:\n  - {from: a, to: b}", "t:1:1: rewrite is not supported yet"},
        {IN "  auth: {mechanisms: [PLAIN, LOGIN, SCRAM-SHA-256]}",
         "t:4:37: auth.mechanisms: SCRAM-SHA-256 is not supported yet"},
        {IN "  auth: {mechanisms: [NTLM]}", "t:4:23: auth.mechanisms: NTLM is not supported yet"},
        {IN "  relay: {names: [x]}", "t:4:11: relay.names is not supported yet"},
        {IN "  remote: {allow_names: [x]}", "t:4:12: remote.allow_names is not supported yet"},
        {IN "  remote: {deny_names: [x]}", "t:4:12: remote.deny_names is not supported yet"},
        {IN "  proxy_protocol: {required: true}",
         "t:4:30: proxy_protocol.required: nobody could connect: proxy_protocol.from is empty"},
        {IN "  proxy_protocol: {from: [10.0.0.0/8, \"::/0\"]}",
         "t:4:26: proxy_protocol.from: every client could claim any address; name the load "
         "balancers"},
        {IN "  protocol_log: true",
         "t:4:17: protocol_log: needs log.protocol, the folder it is written to"},
        {OUT "  protocol_log: true",
         "t:4:17: protocol_log: needs log.protocol, the folder it is written to"},
        {OUT "  tls: {level: dane}", "t:4:16: tls.level: dane is not supported yet"},
        {OUT "  tls: {level: mta-sts}", "t:4:16: tls.level: mta-sts is not supported yet"},
        {OUT "  auth: {mechanism: XOAUTH2}",
         "t:4:21: auth.mechanism: XOAUTH2 is not supported yet"},
        {OUT "  instances: [a]", "t:4:3: instances is not supported yet"},
        {OUT "  dns: {servers: [\"::1\"]}", "t:4:9: dns.servers is not supported yet"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, receive_connectors)
{
#define TWO(first, second)                                                \
    "receive_connectors:\n- {name: a, bind: [\"0.0.0.0:25\"]" first "}\n" \
    "- {name: b, bind: [\"0.0.0.0:25\"]" second "}\n"
    static const char both[] =
        "t:3:20: bind: 0.0.0.0:25 is also bound by a, and some clients are let "
        "in by both; change remote.allow or remote.deny";
    static const struct fault faults[] = {
        {"receive_connectors: [{name: a, bind: []}]",
         "t:1:38: bind: expected at least one address"},
        {"receive_connectors: [{name: a, bind: [\"0.0.0.0:25\", \"0.0.0.0:25\"]}]",
         "t:1:53: bind: 0.0.0.0:25 stands here twice"},
        {"receive_connectors:\n- {name: a, bind: [\"0.0.0.0:25\"]}\n- {bind: [\"[::]:25\"], name: "
         "a}",
         "t:3:29: connector a is already given at t:2"},
        {TWO("", ""), both},
        {TWO(", remote: {allow: [10.0.0.0/8]}", ", remote: {deny: [10.0.0.0/9]}"), both},
        {TWO(", remote: {allow: [10.0.0.0/8]}", ", remote: {allow: [10.9.9.9]}"), both},
        {IN "  remote: {allow: []}", "t:4:19: remote.allow: nobody could connect"},
        {IN "  tls: {mode: starttls}", "t:4:15: tls.mode: needs tls.certificates"},
        {IN "  tls: {mode: implicit}", "t:4:15: tls.mode: needs tls.certificates"},
        {IN "  tls: {required: true}", "t:4:19: tls.required: needs tls.mode starttls or implicit"},
        {IN "  auth: {required: true}",
         "t:4:20: auth.required: needs auth.mechanisms, such as [PLAIN, LOGIN]"},
        {IN "  auth: {mechanisms: [PLAIN]}",
         "t:4:22: auth.mechanisms: nobody could log in: auth.require_tls, but tls.mode is none"},
        {IN "  auth: {mechanisms: [PLAIN], require_tls: no}",
         "t:4:22: auth.mechanisms: nobody could log in: users.file is missing"},
        {"spool: {max_size: 128MiB}\n" IN "  max_message_size: 129MiB",
         "t:5:21: max_message_size: larger than spool.max_size"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, certificates)
{
#define PAIR(crt, key)                                                               \
    IN "  tls:\n    mode: starttls\n    certificates:\n    - certificate: " crt "\n" \
       "      key: " key "\n"
    static const struct fault faults[] = {
        {PAIR("none.crt", PEM "mail.key"), "t:7:20: certificate: cannot read none.crt: " NO_FILE},
        {PAIR(PEM "mail.pem", "none.key"), "t:8:12: key: cannot read none.key: " NO_FILE},
        {PAIR(PEM "mail.pem", PEM), "t:8:12: key: cannot read " PEM ": Is a directory"},
        {PAIR(PEM "mail.pem", PEM "other.key"),
         "t:8:12: " PEM "other.key: the private key does not belong to the certificate " PEM
         "mail.pem"},
        {PAIR(PEM "mail.key", PEM "mail.key"),
         "t:7:20: " PEM "mail.key: this is not a PEM certificate chain, leaf first"},
        {PAIR(PEM "mail.pem", PEM "mail.pem"),
         "t:8:12: " PEM "mail.pem: this is not a PEM private key (RSA, ECDSA or Ed25519)"},
        {PAIR(PEM "mail.pem", PEM "locked.key"),
         "t:8:12: " PEM "locked.key: the private key is protected by a pass phrase; give one "
         "without"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, send_connectors)
{
#define HOST(h)                                                        \
    OUT "  delivery: smart_hosts\n  smart_hosts: [{host: \"" h "\"}]", \
        "t:5:24: smart_hosts: " h                                      \
        " is no host; write name, name:port, [address] or [address]:port"
#define H4 "[192.0.2.1];[192.0.2.2];[192.0.2.3];[192.0.2.4];"
    static const struct fault faults[] = {
        {"send_connectors: [{name: a, address_spaces: []}]",
         "t:1:45: address_spaces: expected at least one, such as {space: \"*\"}"},
        {"send_connectors:\n- name: a\n  address_spaces:\n  - \"*.Example.com\"\n  - \"*\"\n"
         "  - \"*.example.com.\"",
         "t:6:5: address space *.example.com is already given at t:4"},
        {"send_connectors:\n- {name: a, address_spaces: [\"*\"]}\n- {name: a, address_spaces: [b]}",
         "t:3:10: connector a is already given at t:2"},
        {OUT "  delivery: smart_hosts", "t:4:13: delivery: smart_hosts is missing"},
        {OUT "  delivery: smart_hosts\n  smart_hosts: []", "t:4:13: delivery: smart_hosts is "
                                                           "missing"},
        {OUT "  smart_hosts: \"[192.0.2.1]\"", "t:4:16: smart_hosts: need delivery: smart_hosts"},
        {OUT "  delivery: smart_hosts\n  smart_hosts: \"" H4 H4 H4 H4 H4 H4 H4 H4 "[192.0.2.9]\"",
         "t:5:16: smart_hosts: has more than 32 hosts"},
        {HOST("[192.0.2.1")},
        {HOST("[192.0.2.1]:x")},
        {HOST("[192.0.2.1]:0")},
        {HOST("[smtp.example.com]")},
        {HOST("2001:db8::1:")},
        {HOST("a b")},
        {HOST("a:65536")},
        {HOST(":25")},
        {OUT "  delivery: smart_hosts\n  smart_hosts: \"[192.0.2.1];;[192.0.2.2]\"",
         "t:5:16: smart_hosts: \"\" is no host; write name, name:port, [address] or "
         "[address]:port"},
        {OUT "  allow_relay: true",
         "t:4:16: allow_relay: with the space \"*\" anybody could send to anybody (an open relay); "
         "if that is wanted, say open_relay: yes-i-mean-it"},
        {OUT "  allow_relay: true\n  open_relay: yes",
         "t:5:15: open_relay: expected no | yes-i-mean-it"},
        {OUT "  auth: {username: x}", "t:4:9: auth: auth.mechanism is missing, such as PLAIN"},
        {OUT_HOSTS "  auth: {mechanism: PLAIN, username: x}",
         "t:6:21: auth.mechanism: needs auth.username and auth.password or auth.password_file"},
        {OUT "  auth: {mechanism: PLAIN, username: x, password: y}",
         "t:4:21: auth.mechanism: a password is only given to smart hosts, not to any mail "
         "exchanger"},
        {OUT_HOSTS "  auth: {mechanism: PLAIN, username: x, password_file: none}",
         "t:6:56: auth.password_file: cannot read none: " NO_FILE},
        {OUT_HOSTS "  auth: {mechanism: PLAIN, username: x, password: y, password_file: none}",
         "t:6:69: auth: password or password_file, not both"},
        {OUT_HOSTS "  auth: {mechanism: PLAIN, username: x, password_file: /dev/null}",
         "t:6:56: auth.password_file: /dev/null is empty"},
        {OUT_HOSTS "  auth: {mechanism: PLAIN, username: x, password_file: " PEM "mail.pem}",
         "t:6:56: auth.password_file: " PEM "mail.pem is not one line"},
        {OUT_HOSTS "  auth: {mechanism: PLAIN, username: x, password_file: /dev/zero}",
         "t:6:56: auth.password_file: /dev/zero is larger than 4 KiB"},
        {OUT "  tls: {ca_file: none}", "t:4:18: tls.ca_file: cannot read none: " NO_FILE},
        {OUT "  tls: {ca_file: Makefile}", "t:4:18: tls.ca_file: Makefile has no PEM certificate"},
        {IN OUT "  receive_connectors: [inn]",
         "t:7:24: receive_connectors: there is no receive connector inn; did you mean in?"},
        {OUT "  receive_connectors: [x]",
         "t:4:24: receive_connectors: there is no receive connector x"},
    };
    refused(faults, COUNT(faults));
}

Test(config_faults, others)
{
    static const struct fault faults[] = {
        {"shards: 4\nspool: {max_size: 511MiB}",
         "t:2:19: spool.max_size: 4 shards need 512MiB at least"},
        {"retry: {intervals: []}", "t:1:20: retry.intervals: expected at least one time"},
        {"retry: {expire: 1h, warn_after: 1h}",
         "t:1:33: retry.warn_after: must be shorter than retry.expire"},
        {"admin: {token_file: none}", "t:1:21: admin.token_file: cannot read none: " NO_FILE},
        {"admin: {socket: /a234567890123456789012345678901234567890123456789012345678901234567890"
         "23456789012345678901234567890123456789}",
         "t:1:17: admin.socket: the path of a socket has 107 bytes at most"},
        {"users: {file: none}", "t:1:15: users.file: cannot read none: " NO_FILE},
        {"accepted_domains: [example.com, {domain: EXAMPLE.com.}]",
         "t:1:42: domain example.com is already given at t:1"},
        {"accepted_domains: [b\303\274cher.example, xn--bcher-kva.example]",
         "t:1:36: domain xn--bcher-kva.example is already given at t:1"},
        {"include: none", "t:1:10: include: cannot read none: " NO_FILE},
        {"include: {a: b}", "t:1:10: include: expected a file, or a list of files"},
        {"include: [[a]]", "t:1:10: include: expected a file, or a list of files"},
        {"include:", "t:1:9: include: expected a file, or a list of files"},
        {"include: /etc", "t:1:10: include: cannot read /etc: Is a directory"},
    };
    refused(faults, COUNT(faults));
}

/* ---- what is too much ---- */

struct many {
    const char *head, *part, *tail, *message;
    size_t count;
};

Test(config_faults, bombs, .timeout = 20)
{
    static const struct many all[] = {
        {"a: ", "[", "", "t:1:19: maps and lists go deeper than 16", 1000000},
        {"a: ", "{a: ", "", "t:1:64: maps and lists go deeper than 16", 200000},
        {"", "- ", "", "t:1:33: maps and lists go deeper than 16", 500000},
        {"", "? ", "", "t:1:33: maps and lists go deeper than 16", 500000},
        {"a: [", "&a x, ", "]", "t:1:6005: more than 1000 anchors", 150000},
        {"hostname: ", "a", "", "t:1:11: a value has 4096 bytes at most", 1000000},
        {"", "a", "", "t:1:1: larger than 1024 KiB", 1048577},
        {"dns: {servers: [", "\"::1\",", "]}", "t:1:16: dns.servers: more than 16 entries", 17},
        {"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [", "*a,",
         "]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n",
         "t:1:14: more than 500000 keys and values", 1000},
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        char *text = NULL;
        size_t len = 0;
        FILE *f = open_memstream(&text, &len);
        fputs(all[i].head, f);
        for (size_t k = 0; k < all[i].count; k++)
            fputs(all[i].part, f);
        fputs(all[i].tail, f);
        fclose(f);
        struct fault fault = {text, all[i].message};
        refused(&fault, 1);
        free(text);
    }
}

/* A long value that aliases repeat: 100,000 times 4000 bytes would be 400 MB. */
Test(config_faults, repeated_text)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    fprintf(f, "a: [&a %04000d", 1);
    for (int i = 0; i < 100000; i++)
        fputs(",*a", f);
    fputs("]", f);
    fclose(f);
    struct fault fault = {text, "t:1:5: more than 500000 keys and values"};
    refused(&fault, 1);
    free(text);
}

/* Every beginning of a good file is good or refused; nothing is read past its end. */
Test(config_faults, cut_anywhere)
{
    static const char text[] = "hostname: \"a.example\"\nspool: {max_size: 20GiB}\n" IN
                               "  remote: {allow: [10.0.0.0/8, \"::/0\"]}\n" OUT_HOSTS
                               "  auth: &x {mechanism: PLAIN, username: a, password: $${b}\n";
    for (size_t len = 0; len < sizeof text; len++) {
        struct why why;
        uint8_t *copy = malloc(len + !len);
        memcpy(copy, text, len);
        struct config *c = config_parse("t", slice_of(copy, len), &why);
        if (!c)
            cr_expect_eq(strncmp(why.text, "t:", 2), 0, "%zu: %s", len, why.text);
        config_free(c);
        free(copy);
    }
}
