/*
 * tls/ticket.c - session tickets without state: any shard can resume what another one issued.
 *
 * Owns:     the AES key of one identity, derived from the key all shards share.
 * Runs on:  the context's thread.
 * Contract: the key is HKDF-SHA256 over the shared key, salted with the certificate: a ticket
 *           resumes only with the same identity, and a replaced certificate ends all its tickets.
 *           AES-256-GCM, random 96-bit nonce, the key name and the nonce authenticated with the
 *           ticket.
 * Failure:  a ticket that is unknown, altered or too long is refused without ending the handshake.
 * Bounds:   TLS_TICKET_SECONDS.
 * Tests:    tests/unit/test_tls.c
 */
#include "tls/internal.h"

#include <wolfssl/wolfcrypt/hmac.h>

#include "gateway/limits.h"

enum { NONCE_SIZE = 12, TAG_SIZE = 16, KEY_SIZE = 32, SHARED_SIZE = 48 };

bool tls_ticket_init(struct tls_ticket_key *t, const uint8_t key[48], struct slice leaf_der,
                     WC_RNG *rng)
{
    static const char info[] = "hikyaku session ticket";
    uint8_t out[WOLFSSL_TICKET_NAME_SZ + KEY_SIZE], salt[WC_SHA256_DIGEST_SIZE];
    if (wc_Sha256Hash(leaf_der.ptr, (word32)leaf_der.len, salt) != 0 ||
        wc_HKDF(WC_SHA256, key, SHARED_SIZE, salt, sizeof salt, (const byte *)info, sizeof info - 1,
                out, sizeof out) != 0)
        return false;
    memcpy(t->name, out, sizeof t->name);
    t->rng = rng;
    bool ok = wc_AesInit(&t->aes, NULL, INVALID_DEVID) == 0 &&
              wc_AesGcmSetKey(&t->aes, out + WOLFSSL_TICKET_NAME_SZ, KEY_SIZE) == 0;
    explicit_bzero(out, sizeof out);
    return ok;
}

void tls_ticket_wipe(struct tls_ticket_key *t)
{
    wc_AesFree(&t->aes);
    explicit_bzero(t, sizeof *t);
}

static int seal_or_open(WOLFSSL *ssl, byte name[WOLFSSL_TICKET_NAME_SZ],
                        byte iv[WOLFSSL_TICKET_IV_SZ], byte mac[WOLFSSL_TICKET_MAC_SZ], int seal,
                        byte *ticket, int in_len, int *out_len, void *arg)
{
    struct tls_ticket_key *t = arg;
    byte aad[WOLFSSL_TICKET_NAME_SZ + WOLFSSL_TICKET_IV_SZ];
    (void)ssl;
    if (in_len < 0)
        return WOLFSSL_TICKET_RET_REJECT;
    if (seal) {
        memcpy(name, t->name, WOLFSSL_TICKET_NAME_SZ);
        memset(iv, 0, WOLFSSL_TICKET_IV_SZ);
        memset(mac, 0, WOLFSSL_TICKET_MAC_SZ);
        if (wc_RNG_GenerateBlock(t->rng, iv, NONCE_SIZE) != 0)
            return WOLFSSL_TICKET_RET_REJECT;
    } else if (memcmp(name, t->name, WOLFSSL_TICKET_NAME_SZ) != 0) {
        return WOLFSSL_TICKET_RET_REJECT;
    }
    memcpy(aad, name, WOLFSSL_TICKET_NAME_SZ);
    memcpy(aad + WOLFSSL_TICKET_NAME_SZ, iv, WOLFSSL_TICKET_IV_SZ);
    int rc = seal ? wc_AesGcmEncrypt(&t->aes, ticket, ticket, (word32)in_len, iv, NONCE_SIZE, mac,
                                     TAG_SIZE, aad, sizeof aad)
                  : wc_AesGcmDecrypt(&t->aes, ticket, ticket, (word32)in_len, iv, NONCE_SIZE, mac,
                                     TAG_SIZE, aad, sizeof aad);
    if (rc != 0)
        return WOLFSSL_TICKET_RET_REJECT;
    *out_len = in_len;
    return WOLFSSL_TICKET_RET_OK;
}

void tls_ticket_use(struct tls_ticket_key *t, WOLFSSL_CTX *ssl)
{
    wolfSSL_CTX_set_TicketEncCb(ssl, seal_or_open);
    wolfSSL_CTX_set_TicketEncCtx(ssl, t);
    wolfSSL_CTX_set_TicketHint(ssl, (int)TLS_TICKET_SECONDS);
    wolfSSL_CTX_set_timeout(ssl, TLS_TICKET_SECONDS);
}

bool tls_ticket_ours(const struct tls_ticket_key *t, const struct tls_hello *hello)
{
    return hello->ticket_len >= sizeof t->name &&
           memcmp(hello->ticket_name, t->name, sizeof t->name) == 0;
}
