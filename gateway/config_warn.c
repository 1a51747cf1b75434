/*
 * gateway/config_warn.c - what is allowed, but likely not what was meant.
 *
 * Owns:     nothing.
 * Runs on:  the control thread: at start, at reload and for --check.
 * Contract: warnings never change anything; one line each.
 * Failure:  cannot fail.
 * Bounds:   one line a connector and matter.
 * Tests:    tests/unit/test_config.c
 */
#include <time.h>

#include "gateway/config_internal.h"
#include "tls/tls.h"

#define EXPIRY_WARNING_DAYS 14
#define DAY_S               86400

struct warnings {
    void (*each)(void *arg, const char *line);
    void *arg;
    int64_t now_s;
};

__attribute__((format(printf, 2, 3))) static void warn(const struct warnings *w, const char *fmt,
                                                       ...)
{
    char line[WHY_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    w->each(w->arg, line);
}

static void warn_expiry(const struct warnings *w, const char *connector,
                        const struct config_certificate *c, const struct tls_certificate_info *info)
{
    int64_t left = info->not_after_s - w->now_s;
    if (left <= 0)
        warn(w, "receive connector %s: the certificate %s has expired", connector, c->certificate);
    else if (left < EXPIRY_WARNING_DAYS * DAY_S)
        warn(w, "receive connector %s: the certificate %s expires in %lld days", connector,
             c->certificate, (long long)(left / DAY_S));
    if (info->not_before_s > w->now_s)
        warn(w, "receive connector %s: the certificate %s is not valid yet", connector,
             c->certificate);
}

static void warn_certificates(const struct warnings *w, const struct config_receive_connector *r)
{
    bool matches = false;
    struct tls_certificate_info info = {0};
    char names[sizeof info.names] = "";
    for (uint32_t i = 0; i < r->tls.certificate_count; i++) {
        const struct config_certificate *c = &r->tls.certificates[i];
        struct tls_identity id = {slice_of(c->certificate_pem, c->certificate_len),
                                  slice_of(c->key_pem, c->key_len), c->certificate, c->key};
        if (!tls_identity_check(&id, r->fqdn, &info, NULL))
            continue;
        matches |= info.matches;
        if (i == 0)
            snprintf(names, sizeof names, "%s", info.names);
        warn_expiry(w, r->name, c, &info);
    }
    if (r->tls.mode != CONFIG_TLS_NONE && !matches)
        warn(w, "receive connector %s: no certificate is for %s (the first is for %.200s)", r->name,
             r->fqdn, names);
}

static bool has_everybody(const struct config_networks *n)
{
    for (uint32_t i = 0; i < n->count; i++)
        if (n->items[i].bits == 0)
            return true;
    return false;
}

static void warn_receive(const struct warnings *w, const struct config_receive_connector *r)
{
    warn_certificates(w, r);
    if (has_everybody(&r->relay.networks))
        warn(w, "receive connector %s: relay.networks has every address; this is an open relay",
             r->name);
    if (r->auth.mechanisms && !r->auth.require_tls && r->tls.mode != CONFIG_TLS_IMPLICIT)
        warn(w, "receive connector %s: passwords may cross the network in clear text", r->name);
}

static void warn_send(const struct warnings *w, const struct config_send_connector *s)
{
    if (s->auth.mechanism && s->tls.level == CONFIG_LEVEL_NONE)
        warn(w,
             "send connector %s: its password crosses the network in clear text; "
             "tls.level required or verify prevents that",
             s->name);
    for (uint32_t i = 0; i < s->smart_host_count; i++)
        if (s->tls.level == CONFIG_LEVEL_VERIFY && s->smart_hosts[i].literal && !s->tls.name)
            warn(w,
                 "send connector %s: certificates have names, but %s is an address; give "
                 "tls.name",
                 s->name, s->smart_hosts[i].host);
}

static bool is_loopback(const struct io_addr *a)
{
    return a->sa.sa_family == AF_INET ? ntohl(a->in.sin_addr.s_addr) >> 24 == 127
                                      : IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
}

void config_warnings_at(const struct config *c, int64_t now_s,
                        void (*each)(void *arg, const char *line), void *arg)
{
    struct warnings w = {each, arg, now_s};
    if (c->receive_count == 0)
        warn(&w, "no receive connector: no mail can come in");
    if (c->send_count == 0)
        warn(&w, "no send connector: mail waits in the unreachable queue");
    if (c->admin.http.len && !c->admin.token && !is_loopback(&c->admin.http))
        warn(&w, "admin.http can be reached from other hosts, and there is no admin.token_file");
    for (uint32_t i = 0; i < c->receive_count; i++)
        warn_receive(&w, &c->receive[i]);
    for (uint32_t i = 0; i < c->send_count; i++)
        warn_send(&w, &c->send[i]);
}

void config_warnings(const struct config *c, void (*each)(void *arg, const char *line), void *arg)
{
    config_warnings_at(c, (int64_t)time(NULL), each, arg); /* tidy: clock, no shard runs this */
}
