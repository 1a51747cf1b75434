/*
 * tls/facts.c - what is known of a connection: its parameters, and the peer's certificate or why it
 * was refused.
 *
 * Owns:     a server's certificate, for who inspects it; the reason of a refusal.
 * Runs on:  the thread of its context.
 * Contract: what a peer says of itself is printable when it comes out of here. Who inspects takes
 *           any certificate, and is told afterwards what is wrong with it.
 * Failure:  no memory: the certificate, or the reason, is not known.
 * Bounds:   one certificate, the length wolfSSL takes.
 * Tests:    tests/unit/test_tls.c, tests/unit/test_tls_faults.c
 */
#include "tls/connection_internal.h"

#include <wolfssl/error-ssl.h>

/* ---- during the handshake ---- */

static void keep_leaf(struct tls_conn *c, const WOLFSSL_BUFFER_INFO *leaf)
{
    if (c->leaf || !(c->leaf = tls_memory_alloc(leaf->length)))
        return;
    memcpy(c->leaf, leaf->buffer, leaf->length);
    c->leaf_len = leaf->length;
}

int tls_conn_verified(int ok, WOLFSSL_X509_STORE_CTX *store)
{
    struct tls_conn *c = store->userCtx;
    if (c && c->ctx->inspect && store->certs && store->totalCerts > 0)
        keep_leaf(c, &store->certs[0]);
    if (!ok && c && !c->refusal && (c->refusal = tls_memory_alloc(sizeof *c->refusal))) {
        struct slice der = {0};
        if (store->certs && store->error_depth >= 0 && store->error_depth < store->totalCerts)
            der = slice_of(store->certs[store->error_depth].buffer,
                           store->certs[store->error_depth].length);
        tls_fault_certificate(c->refusal, store->error, der, c->name);
    }
    return ok || (c && c->ctx->inspect);
}

/* ---- afterwards ---- */

void tls_facts(const struct tls_conn *c, struct tls_facts *out)
{
    *out = (struct tls_facts){.version = "", .cipher = ""};
    for (size_t i = 0; c->name && c->name[i] && i + 1 < sizeof out->sni; i++) {
        uint8_t byte = (uint8_t)c->name[i]; /* the peer's: it goes into logs */
        out->sni[i] = byte > ' ' && byte < 0x7f ? (char)byte : '?';
    }
    if (!c->ssl || !c->established)
        return;
    out->version = wolfSSL_get_version(c->ssl);
    out->cipher = wolfSSL_get_cipher(c->ssl);
    out->bits = strstr(out->cipher, "256_") || strstr(out->cipher, "CHACHA20") ? 256 : 128;
    out->resumed = wolfSSL_session_reused(c->ssl) != 0;
    out->verified = c->ctx->verify;
}

const char *tls_facts_text(const struct tls_facts *f, char text[TLS_TEXT_MAX])
{
    text[0] = '\0';
    if (f->version[0])
        snprintf(text, TLS_TEXT_MAX, "%s %s%s", f->version, f->cipher,
                 f->verified ? " verified" : "");
    return text;
}

bool tls_peer_certificate(const struct tls_conn *c, struct tls_peer_certificate *out)
{
    struct slice der = slice_of(c->leaf, c->leaf_len);
    struct tls_names names;
    struct why why;
    *out = (struct tls_peer_certificate){.info = {.names = ""}};
    if (!c->leaf || !tls_names_read(der, &names))
        return false;
    out->info.matches = c->name && tls_names_match(&names, slice_str(c->name));
    out->info.not_before_s = names.not_before_s;
    out->info.not_after_s = names.not_after_s;
    tls_names_text(&names, out->info.names, sizeof out->info.names);
    tls_names_free(&names);
    tls_issuer_read(der, out->issuer, sizeof out->issuer);
    if (!c->refusal && !out->info.matches)
        tls_fault_certificate(&why, DOMAIN_NAME_MISMATCH, der, c->name);
    if (c->refusal || !out->info.matches)
        snprintf(out->refusal, sizeof out->refusal, "%s", (c->refusal ? c->refusal : &why)->text);
    return true;
}
