/*
 * gateway/shard_admin_connector.c - what an operator asks of one shard about connectors: switching
 * them, what they do now, which of them a recipient would take.
 *
 * Owns:     nothing.
 * Runs on:  the shard; the request comes from the control thread and goes back to it.
 * Contract: a switch holds for new sessions and for attempts that have not begun; sessions and
 *           transactions under way end as they began. A route is explained with what this shard
 *           knows now: switches, health of hosts.
 * Failure:  an address that cannot be listened on: r->why, and the others are as asked.
 * Bounds:   one look at every session and site a request.
 * Tests:    tests/system/test_connectors.py, test_operate.py (route explain)
 */
#include <stdlib.h>

#include "gateway/base/json.h"
#include "gateway/delivery.h"

/* ---- switching ---- */

void shard_admin_connector(struct shard *s, struct admin_request *r)
{
    struct shard_config *c = s->config;
    why_clear(&r->why);
    for (uint32_t i = 0; r->kind == CONNECTOR_SEND && i < c->send_count; i++)
        if (strcmp(c->send[i].conf->name, r->connector) == 0) {
            c->send[i].state = r->state;
            r->matched++;
        }
    for (uint32_t i = 0; r->kind == CONNECTOR_RECEIVE && i < c->receive_count; i++)
        if (strcmp(c->receive[i].conf->name, r->connector) == 0) {
            c->receive[i].state = r->state;
            r->matched++;
        }
    if (r->matched && r->kind == CONNECTOR_SEND)
        delivery_config_changed(s->delivery);
    else if (r->matched && !shard_listeners_update(s, &r->why) && r->why.smtp_code == 0)
        r->why.smtp_code = 451;
    shard_admin_done(s, r);
}

/* ---- counting ---- */

static void count_site(struct connector_counts *n, const struct site *site)
{
    bool down = site_is_down(site);
    n->connections += site->hop_count;
    n->waiting += site->depth;
    n->delivered += site->delivered;
    n->deferred += site->deferred;
    n->sites++;
    n->sites_down += down;
    if (site->last_error.smtp_code && (down || !n->last_error[0]))
        snprintf(n->last_error, sizeof n->last_error, "%u %s %s", site->last_error.smtp_code,
                 site->last_error.enhanced, site->last_error.text);
}

void shard_admin_connectors(struct shard *s, struct admin_request *r)
{
    const struct shard_config *c = s->config;
    uint32_t count = c->receive_count + c->send_count;
    r->counts = calloc(count + 1, sizeof *r->counts);
    r->generation = c->gen->number;
    for (uint32_t i = 0; r->counts && i < s->session_count_max; i++) {
        const struct shard_receive *receive = shard_session_receive(s, i);
        for (uint32_t k = 0; receive && k < c->receive_count; k++)
            r->counts[k].sessions += strcmp(receive->conf->name, c->receive[k].conf->name) == 0;
    }
    struct list *sites = &s->delivery->sites;
    for (struct list *p = sites->next; r->counts && p != sites; p = p->next) {
        const struct site *site = container_of(p, struct site, link);
        for (uint32_t k = 0; k < c->send_count; k++)
            if (strcmp(site->send->conf->name, c->send[k].conf->name) == 0)
                count_site(&r->counts[c->receive_count + k], site);
    }
    shard_admin_done(s, r);
}

/* ---- route explain ---- */

#define EXPLAIN_MAX (CONFIG_CONNECTORS_MAX * 1024u + 65536u)

struct explain {
    struct buf *b;
    bool any;
};

static void explain_step(void *arg, const char *connector, const char *verdict)
{
    struct explain *e = arg;
    buf_add_str(e->b, e->any ? ",{\"connector\":" : "{\"connector\":");
    json_string(e->b, slice_str(connector), 256);
    buf_add_str(e->b, ",\"verdict\":");
    json_string(e->b, slice_str(verdict), 256);
    buf_add_str(e->b, "}");
    e->any = true;
}

/* The hosts that would be tried, as far as they are known. */
static void explain_hosts(struct buf *b, const struct site *site, uint64_t now_ns)
{
    buf_add_str(b, ",\"hosts\":[");
    for (uint32_t i = 0; i < site->hosts.count && buf_room(b) > 2048; i++) {
        const struct site_host *h = &site->hosts.hosts[i];
        buf_add_str(b, i ? ",{\"host\":" : "{\"host\":");
        json_string(b, slice_str(site->host_names[i]), 256);
        buf_addf(b, ",\"port\":%u,\"priority\":%u,\"weight\":%u,\"state\":\"%s\"",
                 site->host_ports[i], h->priority, h->weight,
                 !h->failures && !h->down ? "up"
                 : h->retry_ns > now_ns   ? "down"
                                          : "to be tried again");
        if (h->retry_ns > now_ns)
            buf_addf(b, ",\"retry_in_s\":%llu",
                     (unsigned long long)((h->retry_ns - now_ns) / NS_PER_S));
        buf_add_str(b, "}");
    }
    buf_add_str(b, "]");
    if (site->last_error.smtp_code) {
        buf_addf(b, ",\"last_code\":%u,\"last_error\":", site->last_error.smtp_code);
        json_string(b, slice_str(site->last_error.text), 256);
    }
}

static void explain_smart_hosts(struct buf *b, const struct config_send_connector *conf)
{
    buf_add_str(b, ",\"smart_hosts\":[");
    for (uint32_t i = 0; i < conf->smart_host_count; i++) {
        char host[320];
        snprintf(host, sizeof host, conf->smart_hosts[i].literal ? "[%s]:%u" : "%s:%u",
                 conf->smart_hosts[i].host, conf->smart_hosts[i].port);
        buf_add_str(b, i ? "," : "");
        json_string(b, slice_str(host), 256);
    }
    buf_add_str(b, "]");
}

/* True: the site is known here. */
static bool explain_answer(struct shard *s, struct buf *b, struct slice domain,
                           const struct route_answer *a)
{
    struct shard_send *send = &s->config->send[a->connector];
    const struct config_send_connector *conf = send->conf;
    struct slice none = slice_of(NULL, 0);
    buf_add_str(b, ",\"connector\":");
    json_string(b, slice_str(conf->name), 256);
    buf_addf(b, ",\"cost\":%u,\"failover\":%s,\"state\":\"%s\",\"delivery\":\"%s\"", a->cost,
             a->failover ? "true" : "false", connector_switch_name(send->state),
             conf->mx ? "mx" : "smart_hosts");
    explain_smart_hosts(b, conf);
    const struct site *site =
        site_find(s->delivery, s->config, a->connector, conf->mx ? domain : none);
    if (site)
        explain_hosts(b, site, io_now_ns(s->io));
    return site != NULL;
}

void shard_admin_route(struct shard *s, struct admin_request *r)
{
    static const char *const verdicts[] = {"found", "unreachable", "too_large"};
    struct route_answer a;
    struct buf b;
    r->json = malloc(EXPLAIN_MAX);
    if (!r->json) {
        why_set(&r->why, 451, "4.3.1", "out of memory");
        shard_admin_done(s, r);
        return;
    }
    b = buf_over(r->json, EXPLAIN_MAX);
    struct explain e = {.b = &b};
    struct slice domain = slice_after_last(slice_str(r->address), '@');
    struct route_query q = {.domain = domain,
                            .receive_connector = slice_str(r->connector),
                            .size = r->size,
                            .unhealthy = site_unhealthy,
                            .stopped = delivery_connector_disabled,
                            .arg = s->delivery,
                            .explain = explain_step,
                            .explain_arg = &e};
    buf_add_str(&b, "\"steps\":[");
    route_choose(s->config->gen->config->routes, &q, &a);
    buf_addf(&b, "],\"verdict\":\"%s\"", verdicts[a.verdict]);
    if (a.verdict == ROUTE_FOUND)
        r->site_known = explain_answer(s, &b, domain, &a);
    r->decision = (uint64_t)a.verdict << 32 | a.connector;
    r->json_len = b.len;
    r->matched++;
    if (b.overflow)
        why_set(&r->why, 451, "4.3.1", "too many connectors to explain");
    shard_admin_done(s, r);
}
