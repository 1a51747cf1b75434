/*
 * gateway/config_demo.c - the configuration of `make run`: everything on loopback, below one
 * folder.
 *
 * Owns:     nothing.
 * Runs on:  the control thread, at start.
 * Contract: submission 2587 (STARTTLS) and 2465 (TLS), relay 2525 for example.com, admin 9025, a
 *           mailbox sink as smart host on 2526. The files are made by deploy/run-demo.
 * Failure:  the folder's name has a character that YAML would need escaped, or no room: false.
 * Bounds:   the caller's buffer; 4 KiB suffice for names of up to 200 bytes.
 * Tests:    tests/unit/test_config.c
 */
#include "gateway/config_internal.h"

/* %1$s: the folder. */
static const char demo[] =
    "hostname: localhost\n"
    "spool: {path: '%1$s/spool', max_size: 1GiB, min_free: 100MiB}\n"
    "admin: {socket: '%1$s/ctl.sock', http: 127.0.0.1:9025, token_file: '%1$s/token'}\n"
    "log: {level: info, format: text, tracking: '%1$s/tracking.jsonl'}\n"
    "users: {file: '%1$s/users'}\n"
    "accepted_domains: [{domain: example.com, type: internal_relay}]\n"
    "receive_connectors:\n"
    "  - name: submission\n"
    "    bind: [127.0.0.1:2587]\n"
    "    tls: {mode: starttls, required: true, certificates: &certificates\n"
    "      [{certificate: '%1$s/tls.crt', key: '%1$s/tls.key'}]}\n"
    "    auth: {required: true, mechanisms: [PLAIN, LOGIN]}\n"
    "    sender_identity: enforce\n"
    "  - name: submission-tls\n"
    "    bind: [127.0.0.1:2465]\n"
    "    tls: {mode: implicit, certificates: *certificates}\n"
    "    auth: {required: true, mechanisms: [PLAIN, LOGIN]}\n"
    "    sender_identity: enforce\n"
    "  - name: relay\n"
    "    bind: [127.0.0.1:2525]\n"
    "    tls: {mode: starttls, certificates: *certificates}\n"
    "send_connectors:\n"
    "  - name: mailbox\n"
    "    address_spaces: ['*']\n"
    "    delivery: smart_hosts\n"
    "    smart_hosts: '[127.0.0.1]:2526'\n"
    "    tls: {level: none}\n";

bool config_demo(const char *dir, struct buf *out)
{
    if (*dir == '\0' || strpbrk(dir, "'$"))
        return false;
    for (const char *p = dir; *p; p++)
        if ((uint8_t)*p < 0x20 || *p == 0x7f)
            return false;
    return buf_addf(out, demo, dir);
}
