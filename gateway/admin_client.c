/*
 * gateway/admin_client.c - what users have to enter in their mail program: /api/v1/client-settings,
 * /.well-known/autoconfig/mail/config-v1.1.xml (EXCHANGE E5).
 *
 * Owns:     nothing.
 * Runs on:  the control thread.
 * Contract: a receive connector is for users when it offers AUTH; its name is its fqdn, its ports
 *           those that it is bound to. Nothing in the answers is secret.
 * Failure:  no memory: 500.
 * Bounds:   as the configuration.
 * Tests:    tests/system/test_export.py
 */
#include "gateway/admin_internal.h"

static const char *const encryptions[] = {"none", "starttls", "tls"};
static const char *const socket_types[] = {"plain", "STARTTLS", "SSL"};

/* One way in for users. */
struct offer {
    const struct config_receive_connector *connector;
    uint16_t port;
};

/* Calls `each` once for each connector and port. */
static void each_offer(const struct config *conf,
                       void (*each)(void *arg, const struct offer *offer), void *arg)
{
    for (uint32_t i = 0; i < conf->receive_count; i++) {
        const struct config_receive_connector *r = &conf->receive[i];
        for (uint32_t b = 0; r->auth.mechanisms && b < r->bind_count; b++) {
            struct offer offer = {r, io_addr_port(&r->bind[b])};
            bool known = false; /* by another address */
            for (uint32_t k = 0; k < b; k++)
                known |= io_addr_port(&r->bind[k]) == offer.port;
            if (!known)
                each(arg, &offer);
        }
    }
}

static void put_setting(void *arg, const struct offer *o)
{
    FILE *f = arg;
    fputs(ftell(f) > (long)strlen("{\"settings\":[") ? ",{\"connector\":" : "{\"connector\":", f);
    admin_put_string(f, slice_str(o->connector->name));
    admin_put_member(f, "host", o->connector->fqdn);
    fprintf(f, ",\"port\":%u,\"encryption\":\"%s\"}", o->port, encryptions[o->connector->tls.mode]);
}

struct srv {
    FILE *f;
    const char *domain;
    uint32_t count;
};

/* RFC 6186 section 3.1, RFC 8314 section 5.1. Without TLS nothing is announced. */
static void put_srv(void *arg, const struct offer *o)
{
    struct srv *s = arg;
    char record[1024];
    if (o->connector->tls.mode == CONFIG_TLS_NONE)
        return;
    snprintf(record, sizeof record, "_%s._tcp.%s. IN SRV 0 1 %u %s.",
             o->connector->tls.mode == CONFIG_TLS_IMPLICIT ? "submissions" : "submission",
             s->domain, o->port, o->connector->fqdn);
    fputs(s->count++ ? "," : "", s->f);
    admin_put_string(s->f, slice_str(record));
}

void admin_client_settings(struct admin_call *call)
{
    const struct config *conf = control_generation(call->admin->control)->config;
    struct admin_body b;
    if (!admin_body_open(call, &b))
        return;
    fputs("{\"settings\":[", b.f);
    each_offer(conf, put_setting, b.f);
    fputs("],\"dns\":[", b.f);
    struct srv s = {.f = b.f};
    for (uint32_t i = 0; i < conf->accepted_domains.count; i++) {
        s.domain = conf->accepted_domains.items[i].domain;
        each_offer(conf, put_srv, &s);
    }
    fputs("]}", b.f);
    admin_body_answer(call, &b);
}

static void put_server(void *arg, const struct offer *o)
{
    fprintf(arg,
            "    <outgoingServer type=\"smtp\">\n"
            "      <hostname>%s</hostname>\n"
            "      <port>%u</port>\n"
            "      <socketType>%s</socketType>\n"
            "      <authentication>password-cleartext</authentication>\n"
            "      <username>%%EMAILADDRESS%%</username>\n"
            "    </outgoingServer>\n",
            o->connector->fqdn, o->port, socket_types[o->connector->tls.mode]);
}

void admin_autoconfig(struct admin_call *call)
{
    const struct config *conf = control_generation(call->admin->control)->config;
    struct admin_body b;
    if (!admin_body_open(call, &b))
        return;
    fprintf(b.f,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<clientConfig version=\"1.1\">\n"
            "  <emailProvider id=\"%s\">\n",
            conf->hostname);
    for (uint32_t i = 0; i < conf->accepted_domains.count; i++)
        fprintf(b.f, "    <domain>%s</domain>\n", conf->accepted_domains.items[i].domain);
    fprintf(b.f, "    <displayName>%s</displayName>\n", conf->hostname);
    each_offer(conf, put_server, b.f);
    fputs("  </emailProvider>\n</clientConfig>\n", b.f);
    fclose(b.f);
    admin_answer(call, 200, "text/xml; charset=utf-8", b.text, b.len);
}
