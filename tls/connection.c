/*
 * tls/connection.c - one TLS connection: ciphertext in and out of buffers, plaintext out and in.
 *
 * Owns:     the WOLFSSL object; for a server the bytes of a ClientHello that is not complete yet.
 * Runs on:  the thread of its context.
 * Contract: a server makes no WOLFSSL object before the whole ClientHello is there, so a silent
 *           client costs next to nothing and the certificate is chosen by name. wolfSSL insists
 *           that a write which could not be sent is repeated with the same length: one write is at
 *           most one record, its length is kept here, and `data` moves on only when its ciphertext
 *           is in `out` (FAULTS 42).
 * Failure:  TLS_FAILED once, then for ever; what was read before is delivered first.
 * Bounds:   TLS_HELLO_*, TLS_HANDSHAKE_*, TLS_IDLE_RECORDS_MAX (FAULTS 39, 40).
 * Tests:    tests/unit/test_tls.c, test_tls_faults.c, tests/fuzz/fuzz_tls_server.c
 */
#include <assert.h>

#include "tls/internal.h"

#include <wolfssl/error-ssl.h>

#include "gateway/limits.h"
#include "tls/hello.h"

enum {
    RECORD_HEADER = 5,
    RECORD_DATA_MAX = 16384,
    RECORD_OVERHEAD_MAX = 96, /* header, nonce, padding, MAC: the most any suite adds */
    RECORD_SPLIT_MIN = 1024,  /* less room than this in a used buffer: no record is cut to fit it */
    EARLY_STEP = 512
};
enum { ALERT_UNEXPECTED_MESSAGE = 10, ALERT_RECORD_OVERFLOW = 22, ALERT_INTERNAL_ERROR = 80 };

struct tls_conn {
    struct tls_ctx *ctx;
    WOLFSSL *ssl; /* a server's: NULL until the hello is complete */
    char *name;   /* SNI: asked by or of the peer; NULL: none */
    /* Only during a call. */
    struct slice *in;
    struct buf *out;
    struct why *why;
    struct why *refusal; /* why a certificate was refused, kept until the handshake has failed */
    uint8_t *leaf;       /* a client's that inspects: the server's certificate */
    uint32_t leaf_len;
    /* The hello, until wolfSSL has taken it. */
    uint8_t *early;
    uint32_t early_len, early_size, early_at;
    /* Framing of what wolfSSL takes. */
    uint32_t record_left;
    uint32_t handshake_bytes;
    uint32_t records; /* in the handshake; afterwards since data last came */
    uint8_t header[RECORD_HEADER], header_len;
    bool alien; /* the first bytes of a record are no TLS */
    bool established, flooded, dead, closed, closed_told, close_sent;
    int fault; /* wolfSSL's error that came after data of the same call: told by the next one */
    uint32_t write_pending; /* length of a write that wolfSSL still holds */
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
        if (c->header_len == RECORD_HEADER) {
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

/* A failure before there is a WOLFSSL object: the alert is written by hand, in clear (RFC 8446
 * section 6). */
static enum tls_status failed_early(struct tls_conn *c, uint8_t alert, const char *text)
{
    const uint8_t record[] = {21, 3, 3, 0, 2, 2, alert};
    if (c->out && buf_room(c->out) >= sizeof record)
        buf_add(c->out, record, sizeof record);
    c->dead = true;
    why_set(c->why, 454, "4.7.0", "TLS: %s", text);
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

static bool attach(struct tls_conn *c, WOLFSSL_CTX *ssl_ctx)
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

static bool set_name(struct tls_conn *c, const void *name, size_t len)
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
    bool ok = attach(c, ctx->identities[0].ssl) && (len == 0 || set_name(c, name, len));
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

/* Keeps what came of a hello that is not complete. */
static bool keep(struct tls_conn *c, struct slice *in)
{
    uint32_t room = TLS_HELLO_BYTES_MAX - c->early_len;
    struct slice part = slice_head(*in, room);
    uint32_t need = c->early_len + (uint32_t)part.len;
    if (need > c->early_size) {
        uint32_t size = (need + EARLY_STEP - 1) / EARLY_STEP * EARLY_STEP;
        uint8_t *early = tls_memory_realloc(c->early, size);
        if (!early)
            return false;
        c->early = early;
        c->early_size = size;
    }
    if (part.len)
        memcpy(c->early + c->early_len, part.ptr, part.len);
    c->early_len = need;
    *in = slice_from(*in, part.len);
    return true;
}

static const char hello_too_long[] = "the client's first message is too long";

/* Reads the hello up to its end and makes the WOLFSSL object for the name it asks for. */
static enum tls_status await_hello(struct tls_conn *c)
{
    struct tls_hello hello;
    struct slice seen = *c->in;
    if (c->early_len) {
        if (!keep(c, c->in))
            return failed_early(c, ALERT_INTERNAL_ERROR, "no memory left for TLS sessions");
        seen = slice_of(c->early, c->early_len);
    }
    switch (tls_hello_parse(seen, &hello)) {
    case TLS_HELLO_MORE:
        if (c->early_len == 0 && c->in->len && !keep(c, c->in))
            return failed_early(c, ALERT_INTERNAL_ERROR, "no memory left for TLS sessions");
        if (c->early_len < TLS_HELLO_BYTES_MAX)
            return TLS_WANT_IN;
        return failed_early(c, ALERT_RECORD_OVERFLOW, hello_too_long);
    case TLS_HELLO_BAD:
        return failed_early(c, ALERT_UNEXPECTED_MESSAGE,
                            "the client sent something that is not TLS");
    case TLS_HELLO_LARGE: return failed_early(c, ALERT_RECORD_OVERFLOW, hello_too_long);
    case TLS_HELLO_ALERT:
        c->dead = true;
        tls_fault(c->why, FATAL_ERROR, seen.ptr[6], true);
        return TLS_FAILED;
    case TLS_HELLO_DONE: break;
    }
    struct slice name = slice_of(hello.name, hello.name_len);
    WOLFSSL_CTX *ssl = tls_ctx_choose(c->ctx, &hello);
    if ((name.len && !set_name(c, name.ptr, name.len)) || !attach(c, ssl))
        return failed_early(c, ALERT_INTERNAL_ERROR, "no memory left for TLS sessions");
    return TLS_OK;
}

/* The hello's bytes are of no more use once wolfSSL has taken them all. */
static void drop_early(struct tls_conn *c)
{
    if (c->early && c->early_at == c->early_len) {
        tls_memory_free(c->early);
        c->early = NULL;
        c->early_len = c->early_size = c->early_at = 0;
    }
}

static enum tls_status handshake(struct tls_conn *c)
{
    if (!c->ssl) {
        enum tls_status status = await_hello(c);
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
    drop_early(c);
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
    drop_early(c);
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

/* ---- facts ---- */

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
