/*
 * gateway/config_check_send.c - send connectors: hosts, login, scope, relaying; the routing table.
 *
 * Owns:     nothing.
 * Runs on:  the control thread, at start and at reload.
 * Contract: each connector knows where to send; nobody becomes an open relay by one key alone.
 * Failure:  FILE:LINE:COLUMN of the value that is wrong, or of the connector that lacks one.
 * Bounds:   CONFIG_PEM_MAX.
 * Tests:    tests/unit/test_config_faults.c, test_config.c
 */
#include "gateway/config_internal.h"
#include "routing/domain.h"
#include "routing/site.h"

static bool fail_at(struct config_reader *r, const struct config_node *item, const char *key,
                    const char *message)
{
    return config_fail(r, config_node_near(item, key)->place, "%s: %s", key, message);
}

/* ---- smart hosts ---- */

/* "name", "name:587", "[192.0.2.1]", "[2001:db8::1]:587", "192.0.2.1:25". */
static bool host_parse(const char *text, uint16_t port, struct config_smart_host *h,
                       char name[DOMAIN_TEXT_MAX])
{
    struct slice host = slice_str(text);
    const char *colon = strrchr(text, ':');
    uint64_t given = port;
    if (colon && !io_addr_parse(&h->addr, host, 0) && host.ptr[host.len - 1] != ']') {
        if (!config_count_parse(colon + 1, &given) || given == 0 || given > UINT16_MAX)
            return false;
        host = slice_head(host, (size_t)(colon - text));
    }
    h->port = (uint16_t)given;
    if (domain_is_literal(host))
        host = slice_head(slice_from(host, 1), host.len - 2);
    else if (slice_find(host, ':') < host.len && host.len != strlen(text))
        return false; /* an IPv6 address with a port needs its brackets */
    h->literal = io_addr_parse(&h->addr, host, h->port);
    if (h->literal) {
        char bare[IO_ADDR_TEXT_MAX];
        snprintf(name, DOMAIN_TEXT_MAX, "%s", io_addr_text(&h->addr, false, bare));
        return true;
    }
    h->addr = (struct io_addr){0};
    return text[0] != '[' && domain_to_ascii(host, name, NULL);
}

_Static_assert(SITE_HOSTS_MAX == 32, "the message below says so");

static bool check_smart_hosts(struct config_reader *r, const struct config_node *item,
                              struct config_send_connector *c)
{
    const struct config_node *list = config_node_near(item, "smart_hosts");
    char name[DOMAIN_TEXT_MAX];
    if (c->mx && c->smart_host_count)
        return fail_at(r, item, "smart_hosts", "need delivery: smart_hosts");
    if (!c->mx && c->smart_host_count == 0)
        return fail_at(r, item, "delivery", "smart_hosts is missing");
    if (c->smart_host_count > SITE_HOSTS_MAX)
        return fail_at(r, item, "smart_hosts", "has more than 32 hosts");
    for (uint32_t i = 0; i < c->smart_host_count; i++) {
        struct config_smart_host *h = &c->smart_hosts[i];
        const struct config_node *n =
            list->kind == CONFIG_LIST ? config_node_near(list->entries[i].value, "host") : list;
        if (!h->host || !host_parse(h->host, c->port, h, name))
            return config_fail(r, n->place,
                               "smart_hosts: %.64s is no host; write name, name:port, [address] or "
                               "[address]:port",
                               h->host ? h->host : "\"\"");
        h->host = config_copy(r, r->pool, name, strlen(name));
        if (!h->host)
            return false;
    }
    return true;
}

/* ---- login, encryption ---- */

static bool check_auth(struct config_reader *r, const struct config_node *item,
                       struct config_send_connector *c)
{
    const struct config_node *file = config_node_near(item, "auth.password_file");
    bool from_file = file->kind == CONFIG_SCALAR && file->text[0];
    if (from_file && c->auth.password)
        return config_fail(r, file->place, "auth: password or password_file, not both");
    if (from_file)
        c->auth.password = config_secret(r, file, "auth.password_file: ");
    if (r->failed)
        return false;
    if (!c->auth.mechanism && (c->auth.username || c->auth.password))
        return fail_at(r, item, "auth", "auth.mechanism is missing, such as PLAIN");
    if (c->auth.mechanism && (!c->auth.username || !c->auth.password))
        return fail_at(r, item, "auth.mechanism",
                       "needs auth.username and auth.password or auth.password_file");
    if (c->auth.mechanism && c->mx)
        return fail_at(r, item, "auth.mechanism",
                       "a password is only given to smart hosts, not to any mail exchanger");
    if (c->auth.username && strlen(c->auth.username) > AUTH_USER_MAX)
        return fail_at(r, item, "auth.username", "longer than 255 bytes");
    if (c->auth.password && strlen(c->auth.password) > AUTH_PASSWORD_MAX)
        return fail_at(r, item, "auth", "the password is longer than 1024 bytes");
    return true;
}

static bool check_tls(struct config_reader *r, const struct config_node *item,
                      const struct config_send_connector *c)
{
    struct slice pem;
    const struct config_node *n = config_node_near(item, "tls.ca_file");
    if (!c->tls.ca_file)
        return true;
    if (!config_read_file(r, &r->scratch, c->tls.ca_file, CONFIG_PEM_MAX, n->place,
                          "tls.ca_file: ", &pem))
        return false;
    if (!memmem(pem.ptr, pem.len, "-----BEGIN", 10))
        return config_fail(r, n->place, "tls.ca_file: %s has no PEM certificate", c->tls.ca_file);
    return true;
}

/* ---- routing ---- */

static const char *space_at(const void *arg, uint32_t i)
{
    return ((const struct config_send_connector *)arg)->spaces[i].space;
}

static const char *receive_at(const void *arg, uint32_t i)
{
    return ((const struct config *)arg)->receive[i].name;
}

static bool check_spaces(struct config_reader *r, const struct config_node *item,
                         const struct config_send_connector *c)
{
    const struct config_node *list = config_node_near(item, "address_spaces");
    const struct config_node *open = config_node_get(item, "open_relay");
    if (c->handoff && c->space_count)
        return fail_at(r, item, "address_spaces",
                       "must be empty: the connector is one of handoff.peers");
    if (c->space_count == 0 && !c->handoff)
        return fail_at(r, item, "address_spaces", "expected at least one, such as {space: \"*\"}");
    for (uint32_t i = 0; i < c->space_count; i++)
        if (c->allow_relay && strcmp(c->spaces[i].space, "*") == 0 &&
            (!open || strcmp(open->text, "yes-i-mean-it") != 0))
            return fail_at(r, item, "allow_relay",
                           "with the space \"*\" anybody could send to anybody (an open relay); "
                           "if that is wanted, say open_relay: yes-i-mean-it");
    return config_unique(r, space_at, c, c->space_count, list, "space", "address space");
}

static bool check_scope(struct config_reader *r, const struct config_node *item,
                        const struct config_send_connector *c, const struct config *conf)
{
    const struct config_node *list = config_node_near(item, "receive_connectors");
    for (uint32_t i = 0; i < c->receive_connectors.count; i++) {
        const char *name = c->receive_connectors.items[i];
        bool known = false;
        for (uint32_t k = 0; k < conf->receive_count && !known; k++)
            known = strcmp(conf->receive[k].name, name) == 0;
        if (known)
            continue;
        const char *near = config_nearest(name, receive_at, conf, conf->receive_count);
        return config_fail(r, list->entries[i].value->place,
                           "receive_connectors: there is no receive connector %.64s%s%s%s", name,
                           near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
    return true;
}

static bool make_routes(struct config_reader *r, const struct config_node *root, struct config *c)
{
    struct route_connector *all = config_alloc(r, r->pool, c->send_count, sizeof *all);
    if (!all)
        return false;
    for (uint32_t i = 0; i < c->send_count; i++) {
        const struct config_send_connector *s = &c->send[i];
        all[i] = (struct route_connector){.name = s->name,
                                          .enabled = s->enabled,
                                          .failover = s->failover,
                                          .message_size_max = s->message_size_max,
                                          .spaces = s->spaces,
                                          .space_count = s->space_count,
                                          .receive_connectors =
                                              (const char *const *)s->receive_connectors.items,
                                          .receive_connector_count = s->receive_connectors.count};
    }
    c->routes = route_table_create(all, c->send_count);
    return c->routes || config_fail(r, root->place, "no memory for the routing table");
}

static const char *send_at(const void *arg, uint32_t i)
{
    return ((const struct config *)arg)->send[i].name;
}

/* ---- peers ---- */

static bool find_peers(struct config_reader *r, const struct config_node *root, struct config *c)
{
    const struct config_node *list = config_node_near(root, "handoff.peers");
    c->handoff.connectors =
        config_alloc(r, r->pool, c->handoff.peers.count + 1, sizeof *c->handoff.connectors);
    if (!c->handoff.connectors)
        return false;
    for (uint32_t i = 0; i < c->handoff.peers.count; i++) {
        uint32_t k = 0;
        while (k < c->send_count && strcmp(c->send[k].name, c->handoff.peers.items[i]) != 0)
            k++;
        if (k == c->send_count || c->send[k].handoff)
            return config_fail(r, list->entries[i].value->place, "handoff.peers: %.64s is %s",
                               c->handoff.peers.items[i],
                               k == c->send_count ? "no send connector" : "given twice");
        c->send[k].handoff = true;
        c->handoff.connectors[i] = k;
    }
    return true;
}

/* A peer gets mail with all that is known of it: nobody may stand in between. */
static bool check_peer(struct config_reader *r, const struct config_node *item,
                       const struct config_send_connector *c)
{
    if (!c->handoff)
        return true;
    if (c->mx)
        return fail_at(r, item, "delivery", "a peer of handoff needs smart_hosts");
    if (!c->auth.mechanism)
        return fail_at(r, item, "auth", "a peer of handoff needs a login");
    if (c->tls.level != CONFIG_LEVEL_VERIFY)
        return fail_at(r, item, "tls.level", "a peer of handoff needs verify");
    return true;
}

bool config_check_send(struct config_reader *r, const struct config_node *root, struct config *c)
{
    const struct config_node *list = config_node_near(root, "send_connectors");
    if (!config_unique(r, send_at, c, c->send_count, list, "name", "connector") ||
        !find_peers(r, root, c))
        return false;
    for (uint32_t i = 0; i < c->send_count; i++) {
        const struct config_node *item = list->entries[i].value;
        if (c->send[i].protocol_log && !c->log.protocol)
            return fail_at(r, item, "protocol_log",
                           "needs log.protocol, the folder it is written to");
        if (!check_spaces(r, item, &c->send[i]) || !check_smart_hosts(r, item, &c->send[i]) ||
            !check_auth(r, item, &c->send[i]) || !check_tls(r, item, &c->send[i]) ||
            !check_scope(r, item, &c->send[i], c) || !check_peer(r, item, &c->send[i]))
            return false;
    }
    return make_routes(r, root, c);
}
