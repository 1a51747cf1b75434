/*
 * gateway/shard_config.c - a generation of the configuration as one shard uses it: step
 * configurations and TLS contexts.
 *
 * Owns:     struct shard_config and the TLS contexts in it (wolfSSL's contexts are not shared
 *           between threads).
 * Runs on:  the shard.
 * Contract: sessions, sites and the shard itself count references; the last one posts the
 *           generation back.
 * Failure:  a context that cannot be made: nothing is adopted, `why` says which connector.
 * Bounds:   as the configuration.
 * Tests:    tests/system (reload)
 */
#include "gateway/shard.h"

#include <stdlib.h>

static bool receive_init(struct shard_receive *r, const struct config_receive_connector *conf,
                         const uint8_t *ticket_key, struct why *why)
{
    struct tls_identity ids[64];
    uint32_t count = conf->tls.certificate_count < 64 ? conf->tls.certificate_count : 64;
    r->conf = conf;
    r->smtp = (struct smtp_in_config){
        .fqdn = slice_str(conf->fqdn),
        .starttls = conf->tls.mode == CONFIG_TLS_STARTTLS,
        .tls_required = conf->tls.mode != CONFIG_TLS_NONE && conf->tls.required,
        .auth_required = conf->auth.required,
        .auth_require_tls = conf->auth.require_tls,
        .auth_mechanisms = conf->auth.mechanisms,
        .submission = conf->submission,
        .message_size_max = conf->message_size_max,
        .rcpt_count_max = conf->rcpt_count_max,
        .handoff = conf->handoff_accounts.count > 0,
    };
    if (conf->tls.mode == CONFIG_TLS_NONE)
        return true;
    for (uint32_t i = 0; i < count; i++) {
        const struct config_certificate *c = &conf->tls.certificates[i];
        ids[i] = (struct tls_identity){
            .certificate = slice_of(c->certificate_pem, c->certificate_len),
            .key = slice_of(c->key_pem, c->key_len),
            .certificate_name = c->certificate,
            .key_name = c->key,
        };
    }
    struct tls_server_params p = {
        .identities = ids,
        .identity_count = count,
        .version_min = conf->tls.version_min,
        .bits_min = conf->tls.bits_min,
        .ticket_key = ticket_key,
    };
    r->tls = tls_server_ctx_create(&p, why);
    return r->tls != NULL;
}

static bool send_init(struct shard_send *s, const struct config_send_connector *conf,
                      const char *hostname, struct why *why)
{
    enum config_tls_level level = conf->tls.level;
    s->conf = conf;
    s->smtp = (struct smtp_out_config){
        .helo_name = slice_str(hostname),
        .helo_only = conf->helo_only,
        .tls = level == CONFIG_LEVEL_NONE            ? SMTP_OUT_TLS_NONE
               : level == CONFIG_LEVEL_OPPORTUNISTIC ? SMTP_OUT_TLS_OPPORTUNISTIC
                                                     : SMTP_OUT_TLS_REQUIRED,
        .auth_mechanism = conf->auth.mechanism,
        .username = slice_str(conf->auth.username),
        .password = slice_str(conf->auth.password),
    };
    if (level == CONFIG_LEVEL_NONE)
        return true;
    struct tls_client_params p = {
        .version_min = 0x0303,
        .verify = level == CONFIG_LEVEL_VERIFY,
        .ca_file = conf->tls.ca_file,
    };
    s->tls = tls_client_ctx_create(&p, why);
    return s->tls != NULL;
}

static void shard_config_free(struct shard_config *c)
{
    for (uint32_t i = 0; i < c->receive_count; i++)
        if (c->receive[i].tls)
            tls_ctx_destroy(c->receive[i].tls);
    for (uint32_t i = 0; i < c->send_count; i++)
        if (c->send[i].tls)
            tls_ctx_destroy(c->send[i].tls);
    free(c->receive);
    free(c->send);
    free(c);
}

struct shard_config *shard_config_create(struct generation *gen, const uint8_t *ticket_key,
                                         struct why *why)
{
    const struct config *conf = gen->config;
    struct shard_config *c = calloc(1, sizeof *c);
    if (c) {
        c->receive = calloc(conf->receive_count + 1, sizeof *c->receive);
        c->send = calloc(conf->send_count + 1, sizeof *c->send);
    }
    if (!c || !c->receive || !c->send) {
        why_set(why, 451, "4.3.1", "out of memory");
        if (c)
            shard_config_free(c);
        return NULL;
    }
    c->gen = gen;
    c->refs = 1;
    for (; c->receive_count < conf->receive_count; c->receive_count++)
        if (!receive_init(&c->receive[c->receive_count], &conf->receive[c->receive_count],
                          ticket_key, why))
            goto failed;
    for (; c->send_count < conf->send_count; c->send_count++)
        if (!send_init(&c->send[c->send_count], &conf->send[c->send_count], conf->hostname, why))
            goto failed;
    for (uint32_t i = 0; i < c->receive_count; i++)
        c->receive[i].state =
            switches_get(&gen->switches, CONNECTOR_RECEIVE, conf->receive[i].name);
    for (uint32_t i = 0; i < c->send_count; i++)
        c->send[i].state = switches_get(&gen->switches, CONNECTOR_SEND, conf->send[i].name);
    return c;
failed:
    shard_config_free(c);
    return NULL;
}

void shard_config_keep_switches(struct shard_config *c, const struct shard_config *old)
{
    for (uint32_t i = 0; i < c->receive_count; i++)
        for (uint32_t k = 0; k < old->receive_count; k++)
            if (strcmp(c->receive[i].conf->name, old->receive[k].conf->name) == 0)
                c->receive[i].state = old->receive[k].state;
    for (uint32_t i = 0; i < c->send_count; i++)
        for (uint32_t k = 0; k < old->send_count; k++)
            if (strcmp(c->send[i].conf->name, old->send[k].conf->name) == 0)
                c->send[i].state = old->send[k].state;
}

struct shard_config *shard_config_ref(struct shard_config *c)
{
    c->refs++;
    return c;
}

void shard_config_unref(struct shard *s, struct shard_config *c)
{
    if (--c->refs)
        return;
    struct ring_item item = {.kind = PEER_CONFIG_RELEASED, .ptr = c->gen};
    shard_config_free(c);
    shard_post(s, s->gw->control_peer, &item);
}
