/*
 * tls/early.c - a server's connection before there is a WOLFSSL object: the ClientHello comes in,
 * and says which certificate is wanted.
 *
 * Owns:     the bytes of a ClientHello, until wolfSSL has taken them.
 * Runs on:  the thread of its context.
 * Contract: a silent client costs next to nothing, and the certificate is chosen by name. The hello
 *           is handed to wolfSSL as it came.
 * Failure:  an alert, written by hand, and TLS_FAILED.
 * Bounds:   TLS_HELLO_BYTES_MAX, grown by EARLY_STEP.
 * Tests:    tests/unit/test_tls.c, tests/unit/test_tls_faults.c, tests/fuzz/fuzz_tls_server.c
 */
#include "tls/connection_internal.h"

#include <wolfssl/error-ssl.h>

#include "gateway/limits.h"
#include "tls/hello.h"

enum { EARLY_STEP = 512 };
enum { ALERT_UNEXPECTED_MESSAGE = 10, ALERT_RECORD_OVERFLOW = 22, ALERT_INTERNAL_ERROR = 80 };

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

enum tls_status tls_early_await(struct tls_conn *c)
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
    if ((name.len && !tls_conn_name(c, name.ptr, name.len)) || !tls_conn_attach(c, ssl))
        return failed_early(c, ALERT_INTERNAL_ERROR, "no memory left for TLS sessions");
    return TLS_OK;
}

void tls_early_drop(struct tls_conn *c)
{
    if (c->early && c->early_at == c->early_len) {
        tls_memory_free(c->early);
        c->early = NULL;
        c->early_len = c->early_size = c->early_at = 0;
    }
}
