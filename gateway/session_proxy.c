/*
 * gateway/session_proxy.c - connections through a load balancer: whose PROXY header is believed,
 * and who the client is.
 *
 * Owns:     the header of a session in state PROXY, in a line buffer.
 * Runs on:  the shard of the session.
 * Contract: only the address at the other end of the connection decides whether a header is
 *           believed. From then on s->peer is the client: remote rules, relay.networks and counts
 *           look at nothing else. Without a client's address nobody relays by address.
 * Failure:  a bad, late or missing header: closed, or 554 5.7.1 where the client can read it.
 * Bounds:   PROXY_HEADER_MAX, SESSION_PROXY_NS, SESSION_PROXY_WAIT_NS.
 * Tests:    tests/system/test_proxy.py; the header itself: tests/unit/test_proxy_header.c
 */
#include <assert.h>

#include "gateway/session.h"

static_assert(sizeof(struct session_proxy) <= SMTP_AUTH_LINE_MAX, "it lies in a line buffer");

static bool believes(const struct config_receive_connector *conf, const struct io_addr *bind,
                     const struct io_addr *peer)
{
    return config_networks_match(&conf->proxy.from, peer) && config_receive_bound(conf, bind);
}

const struct shard_receive *session_proxy_connector(const struct shard_config *c,
                                                    const struct io_addr *bind,
                                                    const struct io_addr *peer)
{
    for (uint32_t i = 0; i < c->receive_count; i++)
        if (believes(c->receive[i].conf, bind, peer))
            return &c->receive[i];
    return NULL;
}

/* Of the connectors that believe this proxy: the first one that lets the client in. */
static const struct shard_receive *connector_for(const struct session *s,
                                                 const struct io_addr *proxy,
                                                 const struct io_addr *client, bool header)
{
    const struct shard_config *c = s->config;
    for (uint32_t i = 0; i < c->receive_count; i++) {
        const struct config_receive_connector *conf = c->receive[i].conf;
        if (believes(conf, &s->proxy->bind, proxy) && (header || !conf->proxy.required) &&
            config_networks_match(&conf->remote.allow, client) &&
            !config_networks_match(&conf->remote.deny, client))
            return &c->receive[i];
    }
    return NULL;
}

static bool all_require(const struct session *s)
{
    const struct shard_config *c = s->config;
    for (uint32_t i = 0; i < c->receive_count; i++)
        if (believes(c->receive[i].conf, &s->proxy->bind, &s->peer) &&
            !c->receive[i].conf->proxy.required)
            return false;
    return true;
}

bool session_proxy_await(struct session *s, const struct io_addr *bind)
{
    s->proxy = slab_alloc(&s->shard->line_slab);
    if (!s->proxy)
        return false;
    smtp_in_init(&s->smtp, &s->receive->smtp, false); /* until a client is known */
    proxy_header_init(&s->proxy->header);
    s->proxy->bind = *bind;
    s->proxy->required = all_require(s);
    s->deadline_ns =
        io_now_ns(s->shard->io) + (s->proxy->required ? SESSION_PROXY_NS : SESSION_PROXY_WAIT_NS);
    return true;
}

void session_proxy_free(struct session *s)
{
    if (s->proxy)
        slab_free(&s->shard->line_slab, s->proxy);
    s->proxy = NULL;
}

static void log_refused(struct session *s, const char *reason)
{
    struct log_line line;
    char text[IO_ADDR_TEXT_MAX];
    log_begin(&line, &s->shard->log, EV_SESSION_REFUSED);
    log_str(&line, "session", s->id);
    log_str(&line, "connector", s->receive->conf->name);
    log_str(&line, "client", io_addr_text(&s->peer, true, text));
    log_str(&line, "reason", "PROXY header refused");
    log_str(&line, "error", reason);
    log_end(&line);
    metric_add(s->shard->metrics, M_PROXY_REFUSED, 1);
    metric_add(s->shard->metrics, M_SESSIONS_REFUSED, 1);
}

/* What the proxy told, once, with the session's id. */
static void log_header(struct session *s, const struct io_addr *proxy)
{
    const struct proxy_header *h = &s->proxy->header;
    struct log_line line;
    char text[IO_ADDR_TEXT_MAX];
    log_begin(&line, &s->shard->log, EV_PROXIED);
    log_str(&line, "session", s->id);
    log_str(&line, "client", io_addr_text(&s->peer, true, text));
    log_str(&line, "proxy", io_addr_text(proxy, true, text));
    if (h->tls.used) {
        log_str(&line, "tls_version", h->tls.version);
        log_str(&line, "tls_cipher", h->tls.cipher);
        log_bool(&line, "tls_client_verified", h->tls.verified);
    }
    if (h->tls.common_name[0])
        log_str(&line, "tls_client_name", h->tls.common_name);
    if (h->server_name[0])
        log_str(&line, "server_name", h->server_name);
    log_end(&line);
}

static struct io_addr client_of(const struct proxy_address *a)
{
    struct io_addr out = {0};
    if (a->family == 6) {
        out.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(a->port)};
        memcpy(&out.in6.sin6_addr, a->bytes, 16);
        out.len = sizeof out.in6;
    } else {
        out.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(a->port)};
        memcpy(&out.in.sin_addr, a->bytes, 4);
        out.len = sizeof out.in;
    }
    return out;
}

/* `header`: one came. `client` NULL: it told none, or there was none. */
static void proxy_done(struct session *s, const struct proxy_address *client, bool header)
{
    const struct io_addr proxy = s->peer;
    if (client) {
        s->peer = client_of(client);
        metric_add(s->shard->metrics, M_PROXY_HEADERS, 1);
        log_header(s, &proxy);
    }
    s->peer_is_proxy = !client;
    /* The proxy's own connection is let in by being the proxy's. */
    const struct shard_receive *rc = connector_for(s, &proxy, &s->peer, header);
    assert(s->proxy);
    bool own = s->proxy->header.own_check;
    if (rc)
        s->receive = rc;
    session_proxy_free(s);
    session_begin(s, rc || own, true);
}

static void proxy_missing(struct session *s)
{
    struct why why;
    if (!s->proxy->required) {
        proxy_done(s, NULL, false);
        return;
    }
    metric_add(s->shard->metrics, M_PROXY_REFUSED, 1);
    why_set(&why, 554, "5.7.1", "PROXY header required");
    session_proxy_free(s);
    session_refuse(s, &why, true);
}

void session_proxy_input(struct session *s)
{
    struct proxy_header *h = &s->proxy->header;
    while (!held_empty(&s->held)) {
        struct slice in = held_slice(&s->shard->held, &s->held);
        enum proxy_status st = proxy_header_step(h, &in);
        held_consume(&s->shard->held, &s->held, in);
        switch (st) {
        case PROXY_NEED_MORE: break;
        case PROXY_NONE: proxy_missing(s); return;
        case PROXY_CLIENT: proxy_done(s, &h->client, true); return;
        case PROXY_LOCAL: proxy_done(s, NULL, true); return;
        case PROXY_BAD:
            log_refused(s, h->reason);
            session_finish(s, true);
            return;
        }
    }
    if (s->eof) /* a health check that only connects */
        session_finish(s, true);
}

void session_proxy_timeout(struct session *s)
{
    if (s->proxy->header.len == 0) {
        proxy_missing(s);
        session_resume(s);
        return;
    }
    log_refused(s, "it does not end");
    session_finish(s, true);
}

bool session_proxy_forged(struct session *s, struct slice in)
{
    if (!proxy_header_is_v2(in))
        return false;
    log_refused(s, "from an address that is no proxy");
    return true;
}
