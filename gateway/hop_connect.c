/*
 * gateway/hop_connect.c - the beginning of an outbound connection: name, addresses, connect.
 *
 * Owns:     the hop that hop_open makes, until hop.c frees it.
 * Runs on:  the shard of the site.
 * Contract: the addresses of a host are tried in turn, each for OUT_CONNECT_NS; none of ours, and
 *           none that is private where a name of the DNS led to it.
 * Failure:  no address, none that answers: hop_failed, with the words of the last one.
 * Bounds:   DNS_ADDR_MAX addresses a host; hop_count_max connections.
 * Tests:    tests/system (next hops, MX), tests/sim
 */
#include "gateway/delivery.h"

#include <errno.h>

#include "gateway/own_addr.h"

static void hop_connect_next(struct hop *h, const struct why *why)
{
    struct shard *sh = h->site->delivery->shard;
    const struct config_send_connector *conf = h->site->send->conf;
    const struct io_addr *from = NULL;
    char text[IO_ADDR_TEXT_MAX];
    if (h->addr_next == h->addr_count) {
        hop_failed(h, why, true, false);
        return;
    }
    const struct io_addr *to = &h->addrs[h->addr_next++];
    for (uint32_t i = 0; i < conf->source_address_count; i++)
        if (conf->source_addresses[i].sa.sa_family == to->sa.sa_family) {
            from = &conf->source_addresses[i];
            break;
        }
    hop_set_state(h, HOP_CONNECT);
    snprintf(h->remote, sizeof h->remote, "%.60s [%.60s]", h->name, io_addr_text(to, true, text));
    hop_watch_begin(h, to);
    hop_touch(h);
    io_connect(sh->io, &h->connect, to, from);
}

static void hop_connected(struct io_op *op, int32_t res, uint32_t flags)
{
    struct hop *h = container_of(op, struct hop, connect);
    struct why why;
    (void)flags;
    if (h->state == HOP_CLOSING) {
        if (res >= 0)
            h->fd = res;
        hop_op_ended(h);
        return;
    }
    if (res < 0) {
        why_set(&why, 451, "4.4.1", "Connecting failed: %s",
                strerror(res == -ECANCELED ? ETIMEDOUT : -res));
        if (h->watch)
            watch_note(h->watch, slice_str(why.text), "failed");
        hop_connect_next(h, &why);
        return;
    }
    h->fd = res;
    if (h->watch)
        watch_connected(h->watch, res);
    hop_set_state(h, HOP_SMTP);
    smtp_out_init(&h->smtp, &h->smtp_config, false);
    hop_io_connected(h);
    hop_touch(h);
}

/* FAULTS 75: names from the DNS do not lead us into private networks unless the operator says so.
 */
static bool hop_addr_allowed(const struct hop *h, const struct io_addr *a)
{
    const struct config_send_connector *conf = h->site->send->conf;
    return !conf->mx || mx_addr_is_public(a) || config_networks_match(&conf->mx_allow, a);
}

static struct io_addr addr_at(const struct io_addr *a, uint16_t port)
{
    struct io_addr at = *a;
    if (a->sa.sa_family == AF_INET6)
        at.in6.sin6_port = htons(port);
    else
        at.in.sin_port = htons(port);
    return at;
}

static void hop_addr_add(struct hop *h, const struct io_addr *a)
{
    if (h->addr_count < DNS_ADDR_MAX && hop_addr_allowed(h, a))
        h->addrs[h->addr_count++] = addr_at(a, h->port);
}

/* FAULTS 74: an MX that has one of our addresses under another name. */
static bool hop_is_self(const struct hop *h, const struct dns_answer *a)
{
    const struct generation *gen = h->site->config->gen;
    for (uint32_t i = 0; h->site->send->conf->mx && i < a->addr_count; i++) {
        struct io_addr at = addr_at(&a->addr[i], h->port);
        if (own_addr_is(gen->config, gen->interfaces, gen->interface_count, &at))
            return true;
    }
    return false;
}

static void hop_resolved(struct dns_query *q, const struct dns_answer *a)
{
    struct hop *h = container_of(q, struct hop, query);
    struct why why;
    h->query_running = false;
    for (uint32_t i = 0; i < a->addr_count; i++)
        hop_addr_add(h, &a->addr[i]);
    if (a->status != DNS_OK)
        why_set(&why, 451, "4.4.3", "Looking up %s failed: %s", h->name, a->text);
    else if (a->addr_count && !h->addr_count)
        why_set(&why, 451, "4.4.4", "Every address of %s is private or special", h->name);
    else
        why_set(&why, 451, "4.4.4", "%s has no address", h->name);
    bool none = a->status == DNS_NXDOMAIN || a->status == DNS_NODATA;
    if (none && h->site->send->conf->mx && h->site->mx->verdict == MX_IMPLICIT) {
        struct why lasting;
        why_set(&lasting, 550, "5.1.2", "%s has neither a mail exchanger nor an address",
                h->site->domain);
        site_give_up(h->site, &lasting); /* RFC 5321 section 5.1 */
        hop_failed(h, &lasting, false, false);
        return;
    }
    if (hop_is_self(h, a)) {
        why_set(&why, 451, "4.4.6", "%s is this host itself", h->name);
        if (h->hosts_version == h->site->hosts_version)
            site_drop_self(h->site, h->host, &why);
        hop_failed(h, &why, false, false);
        return;
    }
    hop_connect_next(h, &why);
}

static void hop_resolve(struct hop *h)
{
    struct site *s = h->site;
    const struct config_send_connector *conf = s->send->conf;
    if (!conf->mx && conf->smart_hosts[h->host].literal) {
        h->addrs[0] = conf->smart_hosts[h->host].addr;
        h->addr_count = 1;
        hop_connect_next(h, NULL);
        return;
    }
    h->query_running = true;
    hop_touch(h);
    dns_addr(s->delivery->shard->dns, &h->query, h->name);
}

bool hop_open(struct site *s, uint32_t host)
{
    struct delivery *d = s->delivery;
    struct hop *h = d->hop_count < d->shard->hop_count_max ? slab_alloc(&d->hop_slab) : NULL;
    if (!h)
        return false;
    memset(h, 0, sizeof *h);
    h->magic = HOP_MAGIC;
    h->site = s;
    h->host = host;
    h->hosts_version = s->hosts_version;
    h->fd = -1;
    h->timer.fire = hop_timer_fired;
    h->connect.done = hop_connected;
    h->query.done = hop_resolved;
    list_init(&h->idle_link);
    list_init(&h->reap_link);
    list_init(&h->run_link);
    list_init(&h->noted.link);
    list_push_back(&s->hops, &h->link);
    h->in_clear = s->in_clear & 1u << host;
    h->smtp_config = s->send->smtp;
    if (h->in_clear)
        h->smtp_config.tls = SMTP_OUT_TLS_NONE;
    snprintf(h->name, sizeof h->name, "%s", s->host_names[host]);
    h->port = s->host_ports[host];
    snprintf(h->remote, sizeof h->remote, "%.100s", h->name);
    hop_io_init(h);
    s->hop_count++;
    s->opening++;
    d->hop_count++;
    metric_set(d->shard->metrics, M_OUT_OPEN, d->hop_count);
    metric_add(d->shard->metrics, M_OUT_CONNECTS, 1);
    hop_watch_begin(h, NULL);
    hop_resolve(h);
    return true;
}
