/*
 * bench/tls.c - wolfSSL with its input and output in memory buffers.
 *
 * Owns:     the WOLFSSL object and both buffers of each connection.
 * Runs on:  the one thread of the command.
 * Contract: no socket is touched; what must be sent lies in `out`.
 * Failure:  FAILED: the connection is useless. The client does not verify the server: it measures.
 * Bounds:   the caller stops feeding while `out` is above BENCH_TLS_OUT_MAX.
 * Tests:    the tls-handshake command runs both sides against each other.
 */
#include "bench/tls.h"

#include <wolfssl/options.h>

#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/aes.h>
#include <wolfssl/wolfcrypt/random.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_tls_context {
    WOLFSSL_CTX *ctx;
    bool server;
    bool has_ticket_key;
    Aes aes;
    WC_RNG rng;
};

enum { TICKET_KEY_SIZE = 16, TICKET_NONCE_SIZE = 12, TICKET_TAG_SIZE = 16 };

/* Tickets of a server: sealed with a key that lives as long as its context. */
static int ticket_seal_or_open(WOLFSSL *ssl, byte name[WOLFSSL_TICKET_NAME_SZ],
                               byte iv[WOLFSSL_TICKET_IV_SZ], byte mac[WOLFSSL_TICKET_MAC_SZ],
                               int seal, byte *ticket, int len, int *out_len, void *arg)
{
    struct bench_tls_context *c = arg;
    (void)ssl;
    if (len < 0)
        return WOLFSSL_TICKET_RET_REJECT;
    if (seal) {
        memset(name, 1, WOLFSSL_TICKET_NAME_SZ); /* wolfSSL takes no name of zeros */
        memset(iv, 0, WOLFSSL_TICKET_IV_SZ);
        memset(mac, 0, WOLFSSL_TICKET_MAC_SZ);
        if (wc_RNG_GenerateBlock(&c->rng, iv, TICKET_NONCE_SIZE) != 0)
            return WOLFSSL_TICKET_RET_REJECT;
    }
    int rc = seal ? wc_AesGcmEncrypt(&c->aes, ticket, ticket, (word32)len, iv, TICKET_NONCE_SIZE,
                                     mac, TICKET_TAG_SIZE, NULL, 0)
                  : wc_AesGcmDecrypt(&c->aes, ticket, ticket, (word32)len, iv, TICKET_NONCE_SIZE,
                                     mac, TICKET_TAG_SIZE, NULL, 0);
    *out_len = len;
    return rc == 0 ? WOLFSSL_TICKET_RET_OK : WOLFSSL_TICKET_RET_REJECT;
}

static bool ticket_key_make(struct bench_tls_context *c)
{
    byte key[TICKET_KEY_SIZE];
    if (wc_InitRng(&c->rng) != 0)
        return false;
    if (wc_RNG_GenerateBlock(&c->rng, key, sizeof key) != 0 ||
        wc_AesInit(&c->aes, NULL, INVALID_DEVID) != 0) {
        wc_FreeRng(&c->rng);
        return false;
    }
    c->has_ticket_key = true;
    return wc_AesGcmSetKey(&c->aes, key, sizeof key) == 0 &&
           wolfSSL_CTX_set_TicketEncCb(c->ctx, ticket_seal_or_open) == WOLFSSL_SUCCESS &&
           wolfSSL_CTX_set_TicketEncCtx(c->ctx, c) == WOLFSSL_SUCCESS;
}

static int io_recv(WOLFSSL *ssl, char *data, int size, void *ctx)
{
    struct bench_tls *t = ctx;
    (void)ssl;
    size_t count = bench_buf_count(&t->in);
    if (count == 0)
        return WOLFSSL_CBIO_ERR_WANT_READ;
    if (count > (size_t)size)
        count = (size_t)size;
    memcpy(data, bench_buf_head(&t->in), count);
    bench_buf_consume(&t->in, count);
    return (int)count;
}

static int io_send(WOLFSSL *ssl, char *data, int count, void *ctx)
{
    struct bench_tls *t = ctx;
    (void)ssl;
    bench_buf_add(&t->out, data, (size_t)count);
    return count;
}

static struct bench_tls_context *context_new(WOLFSSL_METHOD *method, bool server, const char **why)
{
    struct bench_tls_context *c = calloc(1, sizeof(*c));
    if (c != NULL)
        c->ctx = wolfSSL_CTX_new(method);
    if (c == NULL || c->ctx == NULL) {
        *why = "no TLS context";
        free(c);
        return NULL;
    }
    c->server = server;
    wolfSSL_CTX_SetIORecv(c->ctx, io_recv);
    wolfSSL_CTX_SetIOSend(c->ctx, io_send);
    return c;
}

void bench_tls_context_free(struct bench_tls_context *c)
{
    if (c == NULL)
        return;
    wolfSSL_CTX_free(c->ctx);
    if (c->has_ticket_key) {
        wc_AesFree(&c->aes);
        wc_FreeRng(&c->rng);
    }
    free(c);
}

struct bench_tls_context *bench_tls_server(const char *certificate, const char *key,
                                           const char **why)
{
    wolfSSL_Init();
    struct bench_tls_context *c = context_new(wolfSSLv23_server_method(), true, why);
    if (c == NULL)
        return NULL;
    if (wolfSSL_CTX_use_certificate_chain_file(c->ctx, certificate) != WOLFSSL_SUCCESS)
        *why = "cannot read the certificate (PEM)";
    else if (wolfSSL_CTX_use_PrivateKey_file(c->ctx, key, WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS)
        *why = "cannot read the key (PEM)";
    else if (wolfSSL_CTX_check_private_key(c->ctx) != WOLFSSL_SUCCESS)
        *why = "the key does not fit the certificate";
    else if (!ticket_key_make(c))
        *why = "no key for tickets";
    else
        return c;
    bench_tls_context_free(c);
    return NULL;
}

struct bench_tls_context *bench_tls_client(const char *version, const char **why)
{
    wolfSSL_Init();
    WOLFSSL_METHOD *method = NULL;
    if (version == NULL)
        method = wolfSSLv23_client_method();
    else if (strcmp(version, "1.3") == 0)
        method = wolfTLSv1_3_client_method();
    else if (strcmp(version, "1.2") == 0)
        method = wolfTLSv1_2_client_method();
    if (method == NULL) {
        *why = "TLS version must be 1.2 or 1.3";
        return NULL;
    }
    struct bench_tls_context *c = context_new(method, false, why);
    if (c == NULL)
        return NULL;
    wolfSSL_CTX_set_verify(c->ctx, WOLFSSL_VERIFY_NONE, NULL);
    return c;
}

static int ticket_came(WOLFSSL *ssl, const unsigned char *ticket, int size, void *context)
{
    (void)ssl, (void)ticket, (void)size;
    ((struct bench_tls *)context)->ticket_came = true;
    return 0;
}

bool bench_tls_start(struct bench_tls *t, struct bench_tls_context *c, const char *name)
{
    bench_buf_clear(&t->in);
    bench_buf_clear(&t->out);
    t->established = t->ticket_came = false;
    WOLFSSL *ssl = wolfSSL_new(c->ctx);
    t->ssl = ssl;
    if (ssl == NULL)
        return false;
    wolfSSL_SetIOReadCtx(ssl, t);
    wolfSSL_SetIOWriteCtx(ssl, t);
    if (!c->server) {
        /* one key share, P-256: what the figures are quoted for */
        wolfSSL_UseKeyShare(ssl, WOLFSSL_ECC_SECP256R1);
        wolfSSL_set_SessionTicket_cb(ssl, ticket_came, t);
        if (name != NULL)
            wolfSSL_UseSNI(ssl, WOLFSSL_SNI_HOST_NAME, name, (unsigned short)strlen(name));
    }
    return true;
}

void bench_tls_free(struct bench_tls *t)
{
    if (t->ssl != NULL)
        wolfSSL_free(t->ssl);
    t->ssl = NULL;
    t->established = false;
    bench_buf_free(&t->in);
    bench_buf_free(&t->out);
}

static enum bench_tls_result failure(struct bench_tls *t, int code)
{
    int error = wolfSSL_get_error(t->ssl, code);
    if (error == WOLFSSL_ERROR_WANT_READ || error == WOLFSSL_ERROR_WANT_WRITE)
        return BENCH_TLS_WANT;
    if (error == WOLFSSL_ERROR_ZERO_RETURN)
        return BENCH_TLS_CLOSED;
    return BENCH_TLS_FAILED;
}

enum bench_tls_result bench_tls_handshake(struct bench_tls *t)
{
    int code = wolfSSL_is_server(t->ssl) ? wolfSSL_accept(t->ssl) : wolfSSL_connect(t->ssl);
    if (code != WOLFSSL_SUCCESS)
        return failure(t, code);
    t->established = true;
    return BENCH_TLS_OK;
}

enum bench_tls_result bench_tls_read(struct bench_tls *t, char *data, size_t size, size_t *count)
{
    int code = wolfSSL_read(t->ssl, data, (int)size);
    *count = code > 0 ? (size_t)code : 0;
    return code > 0 ? BENCH_TLS_OK : failure(t, code);
}

enum bench_tls_result bench_tls_write(struct bench_tls *t, const char *data, size_t count)
{
    while (count > 0) {
        int part = count > (1u << 20) ? 1 << 20 : (int)count;
        int code = wolfSSL_write(t->ssl, data, part);
        if (code <= 0)
            return failure(t, code);
        data += code;
        count -= (size_t)code;
    }
    return BENCH_TLS_OK;
}

void bench_tls_close(struct bench_tls *t)
{
    if (t->ssl != NULL && t->established)
        wolfSSL_shutdown(t->ssl);
}

struct bench_tls_session *bench_tls_session_take(struct bench_tls *t)
{
    /* wolfSSL puts the new connection's secret beside the old ticket, which opens nothing then */
    if (bench_tls_resumed(t) && !t->ticket_came)
        return NULL;
    return (struct bench_tls_session *)wolfSSL_get1_session(t->ssl);
}

void bench_tls_session_use(struct bench_tls *t, struct bench_tls_session *s)
{
    wolfSSL_set_session(t->ssl, (WOLFSSL_SESSION *)s);
}

void bench_tls_session_free(struct bench_tls_session *s)
{
    wolfSSL_SESSION_free((WOLFSSL_SESSION *)s);
}

bool bench_tls_resumed(const struct bench_tls *t)
{
    return wolfSSL_session_reused(t->ssl) == 1;
}

const char *bench_tls_describe(const struct bench_tls *t)
{
    static char text[96];
    snprintf(text, sizeof(text), "%s %s", wolfSSL_get_version(t->ssl), wolfSSL_get_cipher(t->ssl));
    return text;
}
