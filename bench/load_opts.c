/*
 * bench/load_opts.c - options that load and idle share.
 *
 * Owns:     nothing; the caller owns the struct and the driver.
 * Runs on:  the main thread, before the run.
 * Contract: after apply the driver is ready for driver_start.
 * Failure:  wrong use is one line and exit status 2.
 * Bounds:   each row's min and max.
 * Tests:    tests/unit/test_bench_text.c (the parser)
 */
#include "bench/load_opts.h"

#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

static const char *option_tls(void *target, const char *text)
{
    enum driver_tls *mode = target;
    if (strcmp(text, "starttls") == 0)
        *mode = DRIVER_TLS_STARTTLS;
    else if (strcmp(text, "implicit") == 0)
        *mode = DRIVER_TLS_IMPLICIT;
    else if (strcmp(text, "none") == 0)
        *mode = DRIVER_TLS_NONE;
    else
        return "expected none, starttls or implicit";
    return NULL;
}

static const char *option_auth(void *target, const char *text)
{
    struct load_opts *o = target;
    const char *colon = strchr(text, ':');
    if (colon == NULL || colon == text)
        return "expected USER:PASS";
    if ((size_t)(colon - text) >= sizeof(o->user) || strlen(colon + 1) >= sizeof(o->password))
        return "too long";
    snprintf(o->user, sizeof(o->user), "%.*s", (int)(colon - text), text);
    snprintf(o->password, sizeof(o->password), "%s", colon + 1);
    return NULL;
}

size_t load_opts_rows(struct load_opts *o, struct bench_opt *rows)
{
    const struct bench_opt common[LOAD_OPTS_COMMON_COUNT] = {
        {"--to", "ADDR:PORT", BENCH_OPT_CALL, &o->driver->to, 0, 0, bench_addr_option,
         "the server (numeric)"},
        {"--sessions", "N", BENCH_OPT_COUNT, &o->sessions, 1, BENCH_SESSION_COUNT_MAX, NULL,
         "open sessions at once (load: 1, idle: 1000)"},
        {"--tls", "MODE", BENCH_OPT_CALL, &o->driver->tls_mode, 0, 0, option_tls,
         "none (default), starttls or implicit; certificates are not verified"},
        {"--tls-version", "V", BENCH_OPT_STRING, &o->tls_version, 0, 0, NULL, "1.2 or 1.3 only"},
        {"--tls-name", "NAME", BENCH_OPT_STRING, &o->driver->tls_name, 0, 0, NULL, "send SNI"},
        {"--auth", "USER:PASS", BENCH_OPT_CALL, o, 0, 0, option_auth, "AUTH PLAIN"},
        {"--helo", "NAME", BENCH_OPT_STRING, &o->driver->run.helo, 0, 0, NULL,
         "name in EHLO (client.bench.test)"},
        {"--source-ips", "N", BENCH_OPT_COUNT, &o->source_ips, 0, BENCH_SOURCE_IP_MAX, NULL,
         "connect from 127.0.1.1 .. 127.0.1.N in turn"},
        {"--timeout", "SECONDS", BENCH_OPT_COUNT, &o->timeout_s, 1, 3600, NULL,
         "give a session up after this time without progress (30)"},
        {"--connecting", "N", BENCH_OPT_COUNT, &o->connecting, 0, BENCH_SESSION_COUNT_MAX, NULL,
         "sessions on their way up at once; 0: no limit"},
        {"--server-pid", "PID", BENCH_OPT_COUNT, &o->server_pid, 0, 4194304, NULL,
         "measure this process and its descendants"},
    };
    memcpy(rows, common, sizeof(common));
    return LOAD_OPTS_COMMON_COUNT;
}

int load_opts_apply(struct load_opts *o, const struct bench_opt_table *table)
{
    struct driver *d = o->driver;
    if (d->to.size == 0)
        return bench_opts_error(table, "--to ADDR:PORT is needed");
    if (o->source_ips > 0 && d->to.storage.ss_family != AF_INET)
        return bench_opts_error(table, "--source-ips needs an IPv4 --to");
    if (o->tls_version != NULL && d->tls_mode == DRIVER_TLS_NONE)
        return bench_opts_error(table, "--tls-version needs --tls");
    d->session_count = (uint32_t)o->sessions;
    d->source_ip_count = (unsigned)o->source_ips;
    d->timeout_ms = o->timeout_s * 1000;
    d->connecting_max = o->connecting > 0 ? (uint32_t)o->connecting : UINT32_MAX;
    d->run.starttls = d->tls_mode == DRIVER_TLS_STARTTLS;
    if (o->user[0] != '\0') {
        d->run.auth_user = o->user;
        d->run.auth_password = o->password;
    }
    if (d->tls_mode != DRIVER_TLS_NONE) {
        const char *why = NULL;
        d->tls = bench_tls_client(o->tls_version, &why);
        if (d->tls == NULL)
            return bench_opts_error(table, "%s", why);
    }
    return -1;
}
