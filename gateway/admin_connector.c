/*
 * gateway/admin_connector.c - /api/v1/connectors and /api/v1/route: connectors listed, switched,
 * and explained.
 *
 * Owns:     nothing.
 * Runs on:  the control thread; shards are asked by messages.
 * Contract: a switch is answered when every shard has made it. What the shards count is left out
 *           of a listing made in the middle of a reload.
 * Failure:  {"error": "..."} with 4xx or 5xx, in words that say what to do.
 * Bounds:   as the configuration.
 * Tests:    tests/system/test_connectors.py, test_operate.py
 */
#include <stdlib.h>

#include "gateway/admin_internal.h"
#include "gateway/base/json.h"

/* ---- the list ---- */

/* Sums of what the shards know of connector `i`; false: they follow another configuration. */
static bool counts_of(const struct admin_call *call, uint32_t i, struct connector_counts *n)
{
    uint64_t generation = control_generation(call->admin->control)->number;
    memset(n, 0, sizeof *n);
    for (uint32_t k = 0; k < call->asked; k++) {
        const struct admin_request *r = call->requests[k];
        if (!r->counts || r->generation != generation)
            return false;
        const struct connector_counts *c = &r->counts[i];
        n->sessions += c->sessions;
        n->connections += c->connections;
        n->waiting += c->waiting;
        n->delivered += c->delivered;
        n->deferred += c->deferred;
        n->sites += c->sites;
        if (c->last_error[0] && (!n->last_error[0] || c->sites_down > n->sites_down))
            memcpy(n->last_error, c->last_error, sizeof n->last_error);
        n->sites_down += c->sites_down;
    }
    return true;
}

static void put_receive(FILE *f, const struct admin_call *call, uint32_t i)
{
    static const char *const modes[] = {"none", "starttls", "implicit"};
    const struct control *c = call->admin->control;
    const struct config_receive_connector *r = &control_generation(c)->config->receive[i];
    char text[IO_ADDR_TEXT_MAX];
    struct connector_counts n;
    fputs(i ? ",{\"kind\":\"receive\"" : "{\"kind\":\"receive\"", f);
    admin_put_member(f, "name", r->name);
    admin_put_member(
        f, "state",
        connector_switch_name(switches_get(control_switches(c), CONNECTOR_RECEIVE, r->name)));
    admin_put_member(f, "fqdn", r->fqdn);
    admin_put_member(f, "tls", modes[r->tls.mode]);
    fputs(",\"bind\":[", f);
    for (uint32_t k = 0; k < r->bind_count; k++)
        fprintf(f, "%s\"%s\"", k ? "," : "", io_addr_text(&r->bind[k], true, text));
    fputs("]", f);
    if (counts_of(call, i, &n))
        fprintf(f, ",\"sessions\":%llu", (unsigned long long)n.sessions);
    fputs("}", f);
}

static void put_send(FILE *f, const struct admin_call *call, uint32_t i)
{
    const struct control *c = call->admin->control;
    const struct config *conf = control_generation(c)->config;
    const struct config_send_connector *s = &conf->send[i];
    enum connector_switch state = switches_get(control_switches(c), CONNECTOR_SEND, s->name);
    struct connector_counts n;
    fprintf(f, "%s{\"kind\":\"send\",\"enabled\":%s", i ? "," : "", s->enabled ? "true" : "false");
    admin_put_member(f, "name", s->name);
    admin_put_member(f, "state", s->enabled ? connector_switch_name(state) : "disabled");
    admin_put_member(f, "delivery", s->mx ? "mx" : "smart_hosts");
    fputs(",\"address_spaces\":[", f);
    for (uint32_t k = 0; k < s->space_count; k++) {
        fputs(k ? ",{\"space\":" : "{\"space\":", f);
        admin_put_string(f, slice_str(s->spaces[k].space));
        fprintf(f, ",\"cost\":%u}", s->spaces[k].cost);
    }
    fputs("]", f);
    if (counts_of(call, conf->receive_count + i, &n)) {
        admin_put_member(f, "health",
                         n.sites == 0              ? "unknown"
                         : n.sites_down == 0       ? "up"
                         : n.sites_down == n.sites ? "down"
                                                   : "partly down");
        fprintf(f,
                ",\"connections\":%llu,\"waiting\":%llu,\"sites\":%llu,\"sites_down\":%llu,"
                "\"delivered\":%llu,\"deferred\":%llu",
                (unsigned long long)n.connections, (unsigned long long)n.waiting,
                (unsigned long long)n.sites, (unsigned long long)n.sites_down,
                (unsigned long long)n.delivered, (unsigned long long)n.deferred);
        admin_put_member(f, "last_error", n.last_error);
    }
    fputs("}", f);
}

static void finish_connectors(struct admin_call *call)
{
    const struct config *conf = control_generation(call->admin->control)->config;
    struct admin_body b;
    if (!admin_body_open(call, &b))
        return;
    fputs("{\"receive\":[", b.f);
    for (uint32_t i = 0; i < conf->receive_count; i++)
        put_receive(b.f, call, i);
    fputs("],\"send\":[", b.f);
    for (uint32_t i = 0; i < conf->send_count; i++)
        put_send(b.f, call, i);
    fputs("]}", b.f);
    admin_body_answer(call, &b);
}

void admin_connectors(struct admin_call *call)
{
    struct admin_request r = {.op = ADMIN_CONNECTORS};
    admin_ask_all(call, &r, finish_connectors);
}

/* ---- switching ---- */

/* Every shard has changed the same connector. */
static void finish_switch(struct admin_call *call)
{
    const struct admin_request *r = call->requests[0];
    struct admin_body b;
    for (uint32_t i = 0; i < call->asked; i++)
        if (call->requests[i]->why.smtp_code) {
            admin_error_why(call, 500, &call->requests[i]->why);
            return;
        }
    if (!admin_body_open(call, &b))
        return;
    fprintf(b.f, "{\"changed\":%d", admin_matched(call) > 0);
    admin_put_member(b.f, "kind", connector_kind_name(r->kind));
    admin_put_member(b.f, "name", r->connector);
    admin_put_member(b.f, "state", connector_switch_name(r->state));
    if (call->note.smtp_code)
        admin_put_member(b.f, "warning", call->note.text);
    fputs("}", b.f);
    admin_body_answer(call, &b);
}

/* Which connector is meant. False: answered with an error. */
static bool switch_target(struct admin_call *call, struct admin_request *r)
{
    const char *name = admin_arg(call, "name"), *kind = admin_arg(call, "kind");
    const struct config *conf = control_generation(call->admin->control)->config;
    bool send = false, receive = false, off = false;
    for (uint32_t i = 0; name && i < conf->send_count; i++)
        if (strcmp(conf->send[i].name, name) == 0) {
            send = true;
            off = !conf->send[i].enabled;
        }
    for (uint32_t i = 0; name && i < conf->receive_count; i++)
        receive |= strcmp(conf->receive[i].name, name) == 0;
    if (kind) {
        send &= strcmp(kind, "send") == 0;
        receive &= strcmp(kind, "receive") == 0;
    }
    if (!send && !receive)
        admin_error(call, 404, "no connector has this name");
    else if (send && receive)
        admin_error(call, 409, "a receive and a send connector have this name: say which by kind");
    else if (send && off)
        admin_error(call, 409, "it is disabled in the configuration: change enabled and reload");
    else
        snprintf(r->connector, sizeof r->connector, "%s", name);
    r->kind = send ? CONNECTOR_SEND : CONNECTOR_RECEIVE;
    return r->connector[0] != '\0';
}

void admin_connector_switch(struct admin_call *call, enum connector_switch_action action)
{
    static const enum connector_switch wanted[] = {
        [CONNECTOR_SWITCH_ENABLE] = CONNECTOR_ON,
        [CONNECTOR_SWITCH_DISABLE] = CONNECTOR_DISABLED,
        [CONNECTOR_SWITCH_SUSPEND] = CONNECTOR_SUSPENDED,
        [CONNECTOR_SWITCH_RESUME] = CONNECTOR_ON,
    };
    struct control *c = call->admin->control;
    struct admin_request r = {.op = ADMIN_CONNECTOR, .state = wanted[action]};
    struct why why;
    if (!switch_target(call, &r))
        return;
    enum connector_switch now = switches_get(control_switches(c), r.kind, r.connector);
    bool disabled = now == CONNECTOR_DISABLED;
    if (disabled && (action == CONNECTOR_SWITCH_SUSPEND || action == CONNECTOR_SWITCH_RESUME)) {
        admin_error(call, 409, "it is disabled: enable it first");
        return;
    }
    if (!control_switch(c, r.kind, r.connector, r.state, &why)) {
        admin_error_why(call, 500, &why);
        return;
    }
    call->note = why;
    admin_ask_all(call, &r, finish_switch);
}

/* ---- route explain ---- */

/* The answer of a shard that has tried the next hop lately, if there is one. */
static const struct admin_request *route_shown(const struct admin_call *call)
{
    for (uint32_t i = 0; i < call->asked; i++)
        if (call->requests[i]->site_known)
            return call->requests[i];
    return call->requests[0];
}

/* Shards that choose otherwise: each finds out by itself which hosts are down. */
static void put_otherwise(FILE *f, const struct admin_call *call, const struct admin_request *shown)
{
    uint32_t others = 0;
    for (uint32_t i = 0; i < call->asked; i++) {
        const struct admin_request *r = call->requests[i];
        if (r->decision == shown->decision)
            continue;
        fprintf(f, "%s{\"shard\":%u,", others++ ? "," : ",\"otherwise\":[", i);
        fwrite(r->json, 1, r->json_len, f);
        fputs("}", f);
    }
    if (others)
        fputs("]", f);
}

static void finish_route(struct admin_call *call)
{
    const struct admin_request *shown = route_shown(call);
    const char *from = admin_arg(call, "from");
    struct admin_body b;
    for (uint32_t i = 0; i < call->asked; i++) {
        const struct admin_request *r = call->requests[i];
        if (!r->matched || r->why.smtp_code) {
            admin_error_why(call, 500, &r->why);
            return;
        }
    }
    if (!admin_body_open(call, &b))
        return;
    fputs("{\"address\":", b.f);
    admin_put_string(b.f, slice_str(shown->address));
    if (from)
        admin_put_member(b.f, "from", from);
    if (shown->connector[0])
        admin_put_member(b.f, "receive_connector", shown->connector);
    fprintf(b.f, ",\"size\":%llu,", (unsigned long long)shown->size);
    fwrite(shown->json, 1, shown->json_len, b.f);
    put_otherwise(b.f, call, shown);
    fputs("}", b.f);
    admin_body_answer(call, &b);
}

void admin_route_explain(struct admin_call *call)
{
    const struct config *conf = control_generation(call->admin->control)->config;
    const char *address = admin_arg(call, "address"), *size = admin_arg(call, "size");
    const char *via = admin_arg(call, "receive_connector");
    const char *at = address ? strrchr(address, '@') : NULL;
    struct admin_request r = {.op = ADMIN_ROUTE, .size = size ? strtoull(size, NULL, 10) : 0};
    bool known = !via;
    for (uint32_t i = 0; via && i < conf->receive_count; i++)
        known |= strcmp(conf->receive[i].name, via) == 0;
    if (!at || !at[1] || strlen(address) >= sizeof r.address) {
        admin_error(call, 400, "give address=LOCAL@DOMAIN");
        return;
    }
    if (!known) {
        admin_error(call, 404, "no receive connector has this name");
        return;
    }
    snprintf(r.address, sizeof r.address, "%s", address);
    snprintf(r.connector, sizeof r.connector, "%s", via ? via : "");
    why_set(&r.why, 451, "4.3.0", "the gateway is stopping");
    r.why.smtp_code = 0;
    admin_ask_all(call, &r, finish_route);
}
