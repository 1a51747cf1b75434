/*
 * gateway/config_check_receive.c - receive connectors: addresses, certificates, authentication.
 *
 * Owns:     nothing.
 * Runs on:  the control thread, at start and at reload.
 * Contract: no two connectors could take the same connection; none asks for what it cannot have
 *           (TLS without certificate, AUTH without accounts); certificate and key fit each other.
 * Failure:  FILE:LINE:COLUMN of the value that is wrong, or of the connector that lacks one.
 * Bounds:   CONFIG_PEM_MAX.
 * Tests:    tests/unit/test_config_faults.c, test_config.c
 */
#include "gateway/config_internal.h"
#include "tls/tls.h"

static bool fail_at(struct config_reader *r, const struct config_node *item, const char *key,
                    const char *message)
{
    return config_fail(r, config_node_near(item, key)->place, "%s: %s", key, message);
}

static bool check_certificate(struct config_reader *r, const struct config_node *n,
                              struct config_certificate *c)
{
    struct slice pem[2];
    struct tls_certificate_info info;
    struct why why;
    struct config_place at = config_node_near(n, "certificate")->place;
    struct config_place key_at = config_node_near(n, "key")->place;
    if (!config_read_file(r, r->pool, c->certificate, CONFIG_PEM_MAX, at,
                          "certificate: ", &pem[0]) ||
        !config_read_file(r, r->pool, c->key, CONFIG_PEM_MAX, key_at, "key: ", &pem[1]))
        return false;
    struct tls_identity id = {pem[0], pem[1], c->certificate, c->key};
    if (!tls_identity_check(&id, NULL, &info, &why)) {
        bool key = strstr(why.text, "private key") != NULL; /* else it is about the certificate */
        return config_fail(r, key ? key_at : at, "%s", why.text);
    }
    c->certificate_pem = (uint8_t *)(uintptr_t)pem[0].ptr;
    c->certificate_len = pem[0].len;
    c->key_pem = (uint8_t *)(uintptr_t)pem[1].ptr;
    c->key_len = pem[1].len;
    return true;
}

static bool check_tls(struct config_reader *r, const struct config_node *item,
                      struct config_receive_connector *c)
{
    const struct config_node *list = config_node_near(item, "tls.certificates");
    if (c->tls.mode == CONFIG_TLS_NONE && c->tls.required)
        return fail_at(r, item, "tls.required", "needs tls.mode starttls or implicit");
    if (c->tls.mode != CONFIG_TLS_NONE && c->tls.certificate_count == 0)
        return fail_at(r, item, "tls.mode", "needs tls.certificates");
    for (uint32_t i = 0; i < c->tls.certificate_count; i++)
        if (!check_certificate(r, list->entries[i].value, &c->tls.certificates[i]))
            return false;
    return true;
}

static bool check_auth(struct config_reader *r, const struct config_node *item,
                       const struct config_receive_connector *c, const struct config *conf)
{
    if (c->auth.required && c->auth.mechanisms == 0)
        return fail_at(r, item, "auth.required", "needs auth.mechanisms, such as [PLAIN, LOGIN]");
    if (c->auth.mechanisms && c->auth.require_tls && c->tls.mode == CONFIG_TLS_NONE)
        return fail_at(r, item, "auth.mechanisms",
                       "nobody could log in: auth.require_tls, but tls.mode is none");
    if (c->auth.mechanisms && !conf->users_file)
        return fail_at(r, item, "auth.mechanisms", "nobody could log in: users.file is missing");
    return true;
}

/* Whose header is believed can claim to be anybody, also one of relay.networks. */
static bool check_proxy(struct config_reader *r, const struct config_node *item,
                        const struct config_receive_connector *c)
{
    if (c->proxy.required && c->proxy.from.count == 0)
        return fail_at(r, item, "proxy_protocol.required",
                       "nobody could connect: proxy_protocol.from is empty");
    for (uint32_t i = 0; i < c->proxy.from.count; i++)
        if (c->proxy.from.items[i].bits == 0)
            return fail_at(r, item, "proxy_protocol.from",
                           "every client could claim any address; name the load balancers");
    return true;
}

static bool check_handoff(struct config_reader *r, const struct config_node *item,
                          const struct config_receive_connector *c)
{
    if (c->handoff_accounts.count == 0 || (c->auth.required && c->tls.mode != CONFIG_TLS_NONE &&
                                           (c->tls.required || c->tls.mode == CONFIG_TLS_IMPLICIT)))
        return true;
    return fail_at(r, item, "handoff_accounts", "need auth.required and tls.required");
}

static bool submission_of(const struct config_receive_connector *c, const struct config_node *item)
{
    const struct config_node *n = config_node_get(item, "submission");
    bool ports = true;
    if (n && strcmp(n->text, "auto") != 0)
        return strcmp(n->text, "yes") == 0;
    for (uint32_t i = 0; i < c->bind_count; i++) {
        uint16_t port = io_addr_port(&c->bind[i]);
        ports &= port == 587 || port == 465;
    }
    return c->auth.required || ports;
}

/* Bind address `k` of connector `i` against all before it. */
static bool check_bind(struct config_reader *r, const struct config *c,
                       const struct config_node *list, uint32_t i, uint32_t k)
{
    const struct config_receive_connector *mine = &c->receive[i];
    const struct config_node *n = config_node_get(list->entries[i].value, "bind")->entries[k].value;
    char text[IO_ADDR_TEXT_MAX];
    io_addr_text(&mine->bind[k], true, text);
    for (uint32_t b = 0; b < k; b++)
        if (config_address_same(&mine->bind[b], &mine->bind[k]))
            return config_fail(r, n->place, "bind: %s stands here twice", text);
    for (uint32_t j = 0; j < i; j++) {
        const struct config_receive_connector *other = &c->receive[j];
        for (uint32_t b = 0; b < other->bind_count; b++)
            if (config_address_same(&other->bind[b], &mine->bind[k]) &&
                config_remotes_overlap(&mine->remote.allow, &mine->remote.deny,
                                       &other->remote.allow, &other->remote.deny))
                return config_fail(
                    r, n->place,
                    "bind: %s is also bound by %s, and some clients are let in by both; "
                    "change remote.allow or remote.deny",
                    text, other->name);
    }
    return true;
}

static bool check_one(struct config_reader *r, const struct config_node *list, struct config *conf,
                      uint32_t i)
{
    const struct config_node *item = list->entries[i].value;
    struct config_receive_connector *c = &conf->receive[i];
    if (c->bind_count == 0)
        return fail_at(r, item, "bind", "expected at least one address");
    if (c->remote.allow.count == 0)
        return fail_at(r, item, "remote.allow", "nobody could connect");
    for (uint32_t k = 0; k < c->bind_count; k++)
        if (!check_bind(r, conf, list, i, k))
            return false;
    if (c->message_size_max > conf->spool.bytes_max)
        return fail_at(r, item, "max_message_size", "larger than spool.max_size");
    if (c->protocol_log && !conf->log.protocol)
        return fail_at(r, item, "protocol_log", "needs log.protocol, the folder it is written to");
    if (!c->fqdn)
        c->fqdn = conf->hostname;
    c->submission = submission_of(c, item);
    return check_tls(r, item, c) && check_auth(r, item, c, conf) && check_proxy(r, item, c) &&
           check_handoff(r, item, c);
}

static const char *receive_at(const void *arg, uint32_t i)
{
    return ((const struct config *)arg)->receive[i].name;
}

bool config_check_receive(struct config_reader *r, const struct config_node *root, struct config *c)
{
    const struct config_node *list = config_node_near(root, "receive_connectors");
    if (!config_unique(r, receive_at, c, c->receive_count, list, "name", "connector"))
        return false;
    for (uint32_t i = 0; i < c->receive_count; i++)
        if (!check_one(r, list, c, i))
            return false;
    return true;
}
