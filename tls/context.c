/*
 * tls/context.c - contexts: certificates, versions, ciphers, trust; one set per shard.
 *
 * Owns:     one WOLFSSL_CTX per identity (a client context has one), the ticket keys, one random
 *           generator.
 * Runs on:  made by any thread, then used by one: counts and the generator are not locked. A
 *           context may be handed over before its first connection.
 * Contract: connections hold a reference; the owner may let go first. AEAD suites with forward
 *           secrecy only; an opportunistic client also takes CBC suites, since the alternative
 *           would be clear text.
 * Failure:  NULL and one line that names the file.
 * Bounds:   TLS_IDENTITY_MAX.
 * Tests:    tests/unit/test_tls.c
 */
#include "tls/internal.h"

#include <wolfssl/wolfcrypt/sha512.h>

#include "gateway/limits.h"

#define SUITES_128                                                                             \
    "TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384:TLS13-CHACHA20-POLY1305-SHA256:"          \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:" \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define SUITES_256                                                                          \
    "TLS13-AES256-GCM-SHA384:TLS13-CHACHA20-POLY1305-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:" \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define SUITES_CBC                                                                                \
    ":ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA384:"               \
    "ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:" \
    "ECDHE-RSA-AES256-SHA"
#define SYSTEM_CA_FILE "/etc/ssl/certs/ca-certificates.crt"

/* ---- process ---- */

bool tls_global_init(struct why *why)
{
    byte digest[WC_SHA512_DIGEST_SIZE];
    if (wolfSSL_SetAllocators(tls_memory_alloc, tls_memory_free, tls_memory_realloc) != 0 ||
        wolfSSL_Init() != WOLFSSL_SUCCESS) {
        why_set(why, 0, "", "wolfSSL does not start");
        return false;
    }
    /* wolfSSL looks at the processor on first use; here no other thread is there yet. */
    if (wc_Sha256Hash(digest, 1, digest) != 0 || wc_Sha512Hash(digest, 1, digest) != 0) {
        why_set(why, 0, "", "wolfSSL's hashes do not work on this processor");
        return false;
    }
    return true;
}

void tls_global_cleanup(void)
{
    wolfSSL_Cleanup();
}

/* ---- life ---- */

static struct tls_ctx *ctx_new(uint32_t identity_count, bool server)
{
    size_t size = sizeof(struct tls_ctx) + identity_count * sizeof(struct tls_ctx_identity);
    struct tls_ctx *c = tls_memory_alloc(size);
    if (!c)
        return NULL;
    memset(c, 0, size);
    c->references = 1;
    c->server = server;
    c->identity_count = identity_count;
    c->has_rng = wc_InitRng(&c->rng) == 0;
    if (!c->has_rng) {
        tls_ctx_release(c);
        return NULL;
    }
    return c;
}

void tls_ctx_release(struct tls_ctx *c)
{
    if (!c || --c->references)
        return;
    for (uint32_t i = 0; i < c->identity_count; i++) {
        struct tls_ctx_identity *id = &c->identities[i];
        wolfSSL_CTX_free(id->ssl);
        wolfSSL_CTX_free(id->ssl_ticketless);
        tls_names_free(&id->names);
        if (id->has_ticket)
            tls_ticket_wipe(&id->ticket);
    }
    if (c->has_rng)
        wc_FreeRng(&c->rng);
    tls_memory_free(c);
}

void tls_ctx_destroy(struct tls_ctx *c)
{
    tls_ctx_release(c);
}

/* ---- common settings ---- */

static bool common_settings(WOLFSSL_CTX *ssl, uint16_t version_min, const char *suites,
                            struct why *why)
{
    int version = version_min == 0x0304 ? WOLFSSL_TLSV1_3 : WOLFSSL_TLSV1_2;
    if (wolfSSL_CTX_SetMinVersion(ssl, version) != WOLFSSL_SUCCESS ||
        wolfSSL_CTX_set_cipher_list(ssl, suites) != WOLFSSL_SUCCESS) {
        why_set(why, 0, "", "wolfSSL refuses our TLS versions or cipher suites");
        return false;
    }
#ifdef SINGLE_THREADED
    /* Connections share their context's generator: a context never serves two threads. */
    if (wolfSSL_CTX_new_rng(ssl) != WOLFSSL_SUCCESS) {
        why_set(why, 454, "4.7.0", "no memory for a TLS context");
        return false;
    }
#endif
#ifndef NO_SESSION_CACHE
    wolfSSL_CTX_set_session_cache_mode(ssl, WOLFSSL_SESS_CACHE_OFF);
#endif
    return true;
}

static bool version_known(uint16_t version_min, uint16_t version_max, struct why *why)
{
    if ((version_min == 0x0303 || version_min == 0x0304) &&
        (version_max == 0 || (version_max >= version_min && version_max <= 0x0304)))
        return true;
    why_set(why, 0, "", "TLS version 0x%04x is not offered; use 1.2 or 1.3", version_min);
    return false;
}

/* ---- servers ---- */

static WOLFSSL_CTX *server_library(const struct tls_server_params *p, const struct tls_identity *id,
                                   struct why *why)
{
    WOLFSSL_CTX *ssl = wolfSSL_CTX_new(p->version_max == 0x0303 ? wolfTLSv1_2_server_method()
                                                                : wolfSSLv23_server_method());
    if (!ssl) {
        why_set(why, 454, "4.7.0", "no memory for a TLS context");
        return NULL;
    }
    if (!common_settings(ssl, p->version_min, p->bits_min > 128 ? SUITES_256 : SUITES_128, why) ||
        !tls_identity_use(ssl, id, why)) {
        wolfSSL_CTX_free(ssl);
        return NULL;
    }
    wolfSSL_CTX_set_verify(ssl, WOLFSSL_VERIFY_NONE, NULL);
    return ssl;
}

static void no_tickets(WOLFSSL_CTX *ssl)
{
    wolfSSL_CTX_no_ticket_TLSv13(ssl);
    wolfSSL_CTX_NoTicketTLSv12(ssl);
}

static bool server_tickets(struct tls_ctx *c, struct tls_ctx_identity *id, struct slice leaf_der,
                           const struct tls_server_params *p, const struct tls_identity *from,
                           struct why *why)
{
    id->has_ticket = tls_ticket_init(&id->ticket, p->ticket_key, leaf_der, &c->rng);
    if (!id->has_ticket) {
        why_set(why, 0, "", "the key for session tickets cannot be used");
        return false;
    }
    tls_ticket_use(&id->ticket, id->ssl);
    id->ssl_ticketless = server_library(p, from, why);
    if (!id->ssl_ticketless)
        return false;
    no_tickets(id->ssl_ticketless);
    return true;
}

static bool server_identity(struct tls_ctx *c, uint32_t index, const struct tls_server_params *p,
                            struct why *why)
{
    struct tls_ctx_identity *id = &c->identities[index];
    const struct tls_identity *from = &p->identities[index];
    id->ssl = server_library(p, from, why);
    if (!id->ssl)
        return false;
    DerBuffer *leaf = tls_leaf_read(from->certificate);
    struct slice der = leaf ? slice_of(leaf->buffer, leaf->length) : slice_of(NULL, 0);
    bool ok = leaf && tls_names_read(der, &id->names);
    if (!ok)
        why_set(why, 0, "", "%s: the certificate cannot be read",
                from->certificate_name ? from->certificate_name : "certificate");
    else if (p->ticket_key)
        ok = server_tickets(c, id, der, p, from, why);
    else
        no_tickets(id->ssl);
    wc_FreeDer(&leaf);
    return ok;
}

struct tls_ctx *tls_server_ctx_create(const struct tls_server_params *p, struct why *why)
{
    if (!version_known(p->version_min, p->version_max, why))
        return NULL;
    if (p->bits_min > 256) {
        why_set(why, 0, "", "no cipher has %u bits; the most is 256", p->bits_min);
        return NULL;
    }
    if (p->identity_count == 0 || p->identity_count > TLS_IDENTITY_MAX) {
        why_set(why, 0, "", "a TLS server needs 1 to %u certificates, not %u", TLS_IDENTITY_MAX,
                p->identity_count);
        return NULL;
    }
    struct tls_ctx *c = ctx_new(p->identity_count, true);
    if (!c) {
        why_set(why, 454, "4.7.0", "no memory for a TLS context");
        return NULL;
    }
    for (uint32_t i = 0; i < p->identity_count; i++) {
        if (!server_identity(c, i, p, why)) {
            tls_ctx_release(c);
            return NULL;
        }
    }
    return c;
}

WOLFSSL_CTX *tls_ctx_choose(const struct tls_ctx *c, const struct tls_hello *hello)
{
    const struct tls_ctx_identity *id = &c->identities[0];
    struct slice name = slice_of(hello->name, hello->name_len);
    for (uint32_t i = 0; name.len && i < c->identity_count; i++) {
        if (tls_names_match(&c->identities[i].names, name)) {
            id = &c->identities[i];
            break;
        }
    }
    bool foreign = id->has_ticket && hello->ticket_len && !tls_ticket_ours(&id->ticket, hello);
    return foreign ? id->ssl_ticketless : id->ssl;
}

/* ---- clients ---- */

static bool client_trust(WOLFSSL_CTX *ssl, const char *ca_file, struct why *why)
{
    /* The system's bundle may hold authorities of kinds we do not know or that have expired: those
     * are left out. */
    word32 flags = ca_file ? WOLFSSL_LOAD_FLAG_NONE : WOLFSSL_LOAD_FLAG_IGNORE_ERR;
    const char *file = ca_file ? ca_file : SYSTEM_CA_FILE;
    int rc = wolfSSL_CTX_load_verify_locations_ex(ssl, file, NULL, flags);
    if (rc == WOLFSSL_SUCCESS)
        return true;
    if (ca_file)
        why_set(why, 0, "", "%s: no certificates of authorities could be read from it", file);
    else
        why_set(why, 0, "", "%s: cannot be read; install ca-certificates or set ca_file", file);
    return false;
}

struct tls_ctx *tls_client_ctx_create(const struct tls_client_params *p, struct why *why)
{
    if (!version_known(p->version_min, p->version_max, why))
        return NULL;
    struct tls_ctx *c = ctx_new(1, false);
    WOLFSSL_CTX *ssl = NULL;
    if (c)
        ssl = wolfSSL_CTX_new(p->version_max == 0x0303 ? wolfTLSv1_2_client_method()
                                                       : wolfSSLv23_client_method());
    if (!ssl) {
        why_set(why, 454, "4.7.0", "no memory for a TLS context");
        tls_ctx_release(c);
        return NULL;
    }
    c->identities[0].ssl = ssl;
    c->verify = p->verify && !p->inspect;
    c->inspect = p->inspect;
    if (!common_settings(ssl, p->version_min, p->verify ? SUITES_128 : SUITES_128 SUITES_CBC,
                         why) ||
        (p->verify && !client_trust(ssl, p->ca_file, why)) ||
        (p->identity && !tls_identity_use(ssl, p->identity, why))) {
        tls_ctx_release(c);
        return NULL;
    }
    if (p->inspect && !p->verify)
        (void)client_trust(ssl, p->ca_file, NULL); /* without: nothing is trusted, which is said */
    bool looked_at = p->verify || p->inspect;
    wolfSSL_CTX_set_verify(ssl, looked_at ? WOLFSSL_VERIFY_PEER : WOLFSSL_VERIFY_NONE,
                           looked_at ? tls_conn_verified : NULL);
    wolfSSL_CTX_UseSessionTicket(ssl);
    return c;
}
