/*
 * tls/connection.c - one TLS connection: ciphertext in and out of buffers, plaintext out and in.
 *
 * Owns:     the WOLFSSL object.
 * Runs on:  the thread of its context.
 * Contract: bytes move between the caller's buffers during a call only. wolfSSL insists that a
 *           write which could not be sent is repeated with the same length: one write is at most
 *           one record, its length is kept here, and `data` moves on only when its ciphertext is
 *           in `out` (FAULTS 42).
 * Failure:  TLS_FAILED once, then for ever; what was read before is delivered first.
 * Bounds:   TLS_HANDSHAKE_*, TLS_IDLE_RECORDS_MAX (FAULTS 39, 40).
 * Tests:    tests/unit/test_tls.c, tests/unit/test_tls_faults.c, tests/fuzz/fuzz_tls_server.c
 */
#include <assert.h>

#include "tls/connection_internal.h"

#include <wolfssl/error-ssl.h>

#include "gateway/limits.h"

enum {
    RECORD_DATA_MAX = 16384,
    RECORD_OVERHEAD_MAX = 96, /* header, nonce, padding, MAC: the most any suite adds */
    RECORD_SPLIT_MIN = 1024   /* less room than this in a used buffer: no record is cut to fit it */
};

/* ---- wolfSSL's view of the world ---- */

/* Follows record borders in what is handed to wolfSSL, and counts records without data. */
static void follow(struct tls_conn *c, const uint8_t *p, size_t len)
{
    while (len) {
        if (c->record_left) {
            size_t n = len < c->record_left ? len : c->record_left;
            c->record_left -= (uint32_t)n;
            p += n;
            len -= n;
            continue;
        }
        c->header[c->header_len++] = *p++;
        len--;
        if (c->header_len == TLS_RECORD_HEADER) {
            c->header_len = 0;
            c->alien = c->alien || (!c->established && (c->header[0] < 20 || c->header[0] > 24));
            c->record_left = (uint32_t)c->header[3] << 8 | c->header[4];
            c->records++;
        }
    }
    if (c->records > (c->established ? TLS_IDLE_RECORDS_MAX : TLS_HANDSHAKE_RECORDS_MAX) ||
        c->handshake_bytes > TLS_HANDSHAKE_BYTES_MAX)
        c->flooded = true;
}

static int receive(WOLFSSL *ssl, char *buf, int size, void *arg)
{
    struct tls_conn *c = arg;
    size_t n, want = size > 0 ? (size_t)size : 0;
    (void)ssl;
    if (c->flooded)
        return WOLFSSL_CBIO_ERR_GENERAL;
    if (c->early_at < c->early_len) {
        n = c->early_len - c->early_at;
        n = n < want ? n : want;
        memcpy(buf, c->early + c->early_at, n);
        c->early_at += (uint32_t)n;
    } else if (c->in && c->in->len) {
        n = c->in->len < want ? c->in->len : want;
        memcpy(buf, c->in->ptr, n);
        *c->in = slice_from(*c->in, n);
    } else {
        return WOLFSSL_CBIO_ERR_WANT_READ;
    }
    if (!c->established)
        c->handshake_bytes += (uint32_t)n;
    follow(c, (const uint8_t *)buf, n);
    return (int)n;
}

static int transmit(WOLFSSL *ssl, char *data, int size, void *arg)
{
    struct tls_conn *c = arg;
    uint32_t room = c->out ? buf_room(c->out) : 0, n = size > 0 ? (uint32_t)size : 0;
    (void)ssl;
    n = n < room ? n : room;
    if (n == 0)
        return WOLFSSL_CBIO_ERR_WANT_WRITE;
    buf_add(c->out, data, n);
    return (int)n;
}

/* ---- ends ---- */

static enum tls_status failed(struct tls_conn *c, int code)
{
    WOLFSSL_ALERT_HISTORY alerts = {.last_rx = {.code = -1}};
    c->dead = true;
    if (c->refusal) {
        if (c->why)
            *c->why = *c->refusal;
        return TLS_FAILED;
    }
    if (c->flooded) {
        why_set(c->why, 454, "4.7.0", "TLS: the peer sent too much that carries no data");
        return TLS_FAILED;
    }
    if (c->alien) {
        why_set(c->why, 454, "4.7.0", "TLS: the peer sent something that is not TLS");
        return TLS_FAILED;
    }
    if (c->ssl)
        wolfSSL_get_alert_history(c->ssl, &alerts);
    tls_fault(c->why, code, alerts.last_rx.code, c->ctx->server);
    return TLS_FAILED;
}

void tls_conn_lend(struct tls_conn *c, struct slice *in, struct buf *out, struct why *why)
{
    c->in = in;
    c->out = out;
    c->why = why;
}

static enum tls_status end(struct tls_conn *c, enum tls_status status)
{
    c->in = NULL;
    c->out = NULL;
    c->why = NULL;
    return status;
}

static enum tls_status dead(struct why *why)
{
    why_set(why, 454, "4.7.0", "TLS: the connection has failed before");
    return TLS_FAILED;
}

/* ---- life ---- */

static struct tls_conn *conn_new(struct tls_ctx *ctx)
{
    struct tls_conn *c = tls_memory_alloc(sizeof *c);
    if (!c)
        return NULL;
    memset(c, 0, sizeof *c);
    c->ctx = ctx;
    ctx->references++;
    return c;
}

bool tls_conn_attach(struct tls_conn *c, WOLFSSL_CTX *ssl_ctx)
{
    c->ssl = wolfSSL_new(ssl_ctx);
    if (!c->ssl)
        return false;
    wolfSSL_SSLSetIORecv(c->ssl, receive);
    wolfSSL_SSLSetIOSend(c->ssl, transmit);
    wolfSSL_SetIOReadCtx(c->ssl, c);
    wolfSSL_SetIOWriteCtx(c->ssl, c);
    wolfSSL_SetCertCbCtx(c->ssl, c);
    return true;
}

bool tls_conn_name(struct tls_conn *c, const void *name, size_t len)
{
    c->name = tls_memory_alloc(len + 1);
    if (!c->name)
        return false;
    memcpy(c->name, name, len);
    c->name[len] = '\0';
    return true;
}

struct tls_conn *tls_server_conn(struct tls_ctx *ctx)
{
    assert(ctx->server);
    return conn_new(ctx);
}

/* RFC 6066 section 3: an address literal is not sent as a server name. */
static bool is_address(const char *name)
{
    return strchr(name, ':') || strspn(name, "0123456789.") == strlen(name);
}

struct tls_conn *tls_client_conn(struct tls_ctx *ctx, const char *name)
{
    assert(!ctx->server);
    struct tls_conn *c = conn_new(ctx);
    size_t len = name ? strlen(name) : 0;
    if (!c)
        return NULL;
    if (len > 1 && name[len - 1] == '.')
        len--;
    bool ok =
        tls_conn_attach(c, ctx->identities[0].ssl) && (len == 0 || tls_conn_name(c, name, len));
    if (ok && len && len <= 255 && !is_address(c->name))
        ok = wolfSSL_UseSNI(c->ssl, WOLFSSL_SNI_HOST_NAME, c->name, (unsigned short)len) ==
             WOLFSSL_SUCCESS;
    if (ok && len && ctx->verify) /* who inspects compares names later */
        ok = wolfSSL_check_domain_name(c->ssl, c->name) == WOLFSSL_SUCCESS;
    if (!ok) {
        tls_conn_free(c);
        return NULL;
    }
    return c;
}

void tls_conn_free(struct tls_conn *c)
{
    if (!c)
        return;
    wolfSSL_free(c->ssl);
    tls_memory_free(c->name);
    tls_memory_free(c->early);
    tls_memory_free(c->refusal);
    tls_memory_free(c->leaf);
    tls_ctx_release(c->ctx);
    tls_memory_free(c);
}

/* ---- handshake ---- */

static enum tls_status handshake(struct tls_conn *c)
{
    if (!c->ssl) {
        enum tls_status status = tls_early_await(c);
        if (status != TLS_OK)
            return status;
    }
    int rc = c->ctx->server ? wolfSSL_accept(c->ssl) : wolfSSL_connect(c->ssl);
    if (rc != WOLFSSL_SUCCESS) {
        int code = wolfSSL_get_error(c->ssl, rc);
        return code == WOLFSSL_ERROR_WANT_READ    ? TLS_WANT_IN
               : code == WOLFSSL_ERROR_WANT_WRITE ? TLS_WANT_OUT
                                                  : failed(c, code);
    }
    c->established = true;
    c->records = 0;
    tls_early_drop(c);
    return TLS_OK;
}

enum tls_status tls_handshake(struct tls_conn *c, struct slice *in, struct buf *out,
                              struct why *why)
{
    if (c->dead)
        return dead(why);
    if (c->established)
        return TLS_OK;
    tls_conn_lend(c, in, out, why);
    return end(c, handshake(c));
}

/* ---- data ---- */

enum tls_status tls_read(struct tls_conn *c, struct slice *in, struct buf *out, struct buf *plain,
                         struct why *why)
{
    uint32_t before = plain->len;
    int code = c->fault;
    if (c->dead)
        return dead(why);
    assert(c->established && buf_room(plain));
    tls_conn_lend(c, in, out, why);
    while (!c->closed && !code && buf_room(plain)) {
        int n = wolfSSL_read(c->ssl, plain->ptr + plain->len, (int)buf_room(plain));
        if (n <= 0) {
            code = wolfSSL_get_error(c->ssl, n);
            c->closed = code == WOLFSSL_ERROR_ZERO_RETURN;
            break;
        }
        plain->len += (uint32_t)n;
        c->records = 0;
    }
    tls_early_drop(c);
    bool waits = code == WOLFSSL_ERROR_WANT_READ || code == WOLFSSL_ERROR_WANT_WRITE;
    if (plain->len > before) {
        c->fault = waits || c->closed ? 0 : code;
        return end(c, TLS_OK);
    }
    if (c->closed) {
        c->closed_told = true;
        return end(c, TLS_CLOSED);
    }
    return end(c, !waits                            ? failed(c, code)
                  : code == WOLFSSL_ERROR_WANT_READ ? TLS_WANT_IN
                                                    : TLS_WANT_OUT);
}

/* How much the next record takes; 0: what is in `out` should go first. */
static uint32_t record_len(size_t data_len, const struct buf *out)
{
    uint32_t room = buf_room(out), len = RECORD_DATA_MAX;
    uint32_t fits = room > RECORD_OVERHEAD_MAX ? room - RECORD_OVERHEAD_MAX : 0;
    if (data_len < len)
        len = (uint32_t)data_len;
    if (len > fits && fits < RECORD_SPLIT_MIN && out->len)
        return 0;
    return fits && fits < len ? fits : len;
}

enum tls_status tls_write(struct tls_conn *c, struct slice *data, struct buf *out, struct why *why)
{
    if (c->dead)
        return dead(why);
    assert(c->established && data->len >= c->write_pending);
    tls_conn_lend(c, NULL, out, why);
    while (data->len) {
        uint32_t len = c->write_pending;
        if (len == 0)
            len = record_len(data->len, out);
        if (len == 0)
            return end(c, TLS_WANT_OUT);
        int n = wolfSSL_write(c->ssl, data->ptr, (int)len);
        if (n <= 0) {
            int code = wolfSSL_get_error(c->ssl, n);
            if (code != WOLFSSL_ERROR_WANT_WRITE)
                return end(c, failed(c, code));
            c->write_pending = len;
            return end(c, TLS_WANT_OUT);
        }
        c->write_pending = 0;
        *data = slice_from(*data, (size_t)n);
    }
    return end(c, TLS_OK);
}

void tls_close(struct tls_conn *c, struct buf *out)
{
    if (c->dead || !c->established || c->close_sent)
        return;
    tls_conn_lend(c, NULL, out, NULL);
    wolfSSL_shutdown(c->ssl);
    c->close_sent = true;
    end(c, TLS_OK);
}

bool tls_pending(const struct tls_conn *c)
{
    if (!c->ssl || c->dead)
        return false;
    return wolfSSL_pending(c->ssl) > 0 || c->early_at < c->early_len || c->fault ||
           (c->closed && !c->closed_told);
}

WOLFSSL *tls_conn_library(struct tls_conn *c)
{
    return c->ssl;
}

/* ---- resumption by clients ---- */

/* wolfSSL's client takes any server that does not resume a TLS 1.2 ticket for a broken one, so 1.2
 * sessions are not kept. */
struct tls_session *tls_session_get(struct tls_conn *c)
{
    if (!c->established || wolfSSL_version(c->ssl) != TLS1_3_VERSION)
        return NULL;
    return (struct tls_session *)wolfSSL_get1_session(c->ssl);
}

bool tls_session_set(struct tls_conn *c, struct tls_session *s)
{
    return wolfSSL_set_session(c->ssl, (WOLFSSL_SESSION *)s) == WOLFSSL_SUCCESS;
}

void tls_session_free(struct tls_session *s)
{
    wolfSSL_SESSION_free((WOLFSSL_SESSION *)s);
}
