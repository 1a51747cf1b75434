/*
 * tls/hello.c - find the server name in a ClientHello, over any split into records.
 *
 * Owns:     nothing; the walk reads through record borders with a cursor, so nothing is copied.
 * Runs on:  any thread.
 * Contract: pure; the same bytes give the same answer. wolfSSL parses the hello again, and
 *           strictly: what is malformed beyond the framing counts here as "no name" and is refused
 *           there.
 * Failure:  BAD, LARGE or ALERT; the caller answers with an alert in clear.
 * Bounds:   TLS_HELLO_BYTES_MAX, TLS_HELLO_RECORDS_MAX.
 * Tests:    tests/unit/test_tls_hello.c, tests/fuzz/fuzz_tls_hello.c
 */
#include "tls/hello.h"

#include "gateway/limits.h"

enum {
    RECORD_ALERT = 21,
    RECORD_HANDSHAKE = 22,
    CLIENT_HELLO = 1,
    EXTENSION_SNI = 0,
    EXTENSION_TICKET = 35,
    SNI_HOST = 0
};

struct cursor {
    struct slice raw;
    size_t at;
    uint32_t record_left; /* payload bytes left in the record under the cursor */
    uint32_t left;        /* bytes left in the handshake message */
};

static uint32_t be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

/* The next byte of the message; 0 past its end (the callers look at `left` first). */
static uint8_t next(struct cursor *c)
{
    if (c->left == 0)
        return 0;
    while (c->record_left == 0) {
        c->record_left = be16(c->raw.ptr + c->at + 3);
        c->at += 5;
    }
    c->record_left--;
    c->left--;
    return c->raw.ptr[c->at++];
}

static uint32_t next16(struct cursor *c)
{
    uint32_t high = next(c);
    return high << 8 | next(c);
}

/* Past the end of the message it stops there: what follows is then as if it were not there. */
static void skip(struct cursor *c, uint32_t len)
{
    for (len = len < c->left ? len : c->left; len; len--)
        next(c);
}

/* Are all bytes of the hello there? Checks the framing on the way. */
static enum tls_hello_status framing(struct slice raw, uint32_t *message_len)
{
    size_t at = 0, payload = 0;
    uint8_t head[4] = {0};
    for (uint32_t records = 0;; records++) {
        struct slice s = slice_from(raw, at);
        if (s.len && s.ptr[0] != RECORD_HANDSHAKE)
            return s.ptr[0] == RECORD_ALERT && s.len >= 7 ? TLS_HELLO_ALERT
                   : s.ptr[0] == RECORD_ALERT             ? TLS_HELLO_MORE
                                                          : TLS_HELLO_BAD;
        if (s.len > 1 && s.ptr[1] != 3)
            return TLS_HELLO_BAD;
        if (records == TLS_HELLO_RECORDS_MAX || at >= TLS_HELLO_BYTES_MAX)
            return TLS_HELLO_LARGE;
        if (s.len < 5)
            return TLS_HELLO_MORE;
        uint32_t record = be16(s.ptr + 3);
        if (record == 0)
            return TLS_HELLO_BAD; /* RFC 8446 section 5.1: no empty handshake records */
        if (record >= TLS_HELLO_BYTES_MAX)
            return TLS_HELLO_LARGE;
        s = slice_from(s, 5);
        for (uint32_t i = 0; payload + i < sizeof head && i < record && i < s.len; i++)
            head[payload + i] = s.ptr[i];
        if (payload + (record < s.len ? record : s.len) >= 1 && head[0] != CLIENT_HELLO)
            return TLS_HELLO_BAD;
        if (payload + (record < s.len ? record : s.len) >= sizeof head) {
            *message_len = (uint32_t)head[1] << 16 | be16(head + 2);
            if (at + 5 + sizeof head + *message_len > TLS_HELLO_BYTES_MAX + payload)
                return TLS_HELLO_LARGE;
            if (payload + s.len >= sizeof head + *message_len &&
                payload + record >= sizeof head + *message_len)
                return TLS_HELLO_DONE;
        }
        if (s.len < record)
            return TLS_HELLO_MORE;
        payload += record;
        at += 5 + record;
    }
}

/* The body of a server_name extension: the first host name of the list. */
static void take_name(struct cursor *c, uint32_t len, struct tls_hello *out)
{
    uint32_t end = c->left - len;
    if (len < 2)
        return;
    next16(c); /* length of the list; the extension's own length bounds the walk */
    while (c->left >= end + 3) {
        uint8_t type = next(c);
        uint32_t n = next16(c);
        if (n > c->left - end)
            return;
        if (type != SNI_HOST || n == 0 || n > sizeof out->name) {
            skip(c, n);
            continue;
        }
        for (uint32_t i = 0; i < n; i++) {
            out->name[i] = next(c);
            if (out->name[i] == 0)
                return;
        }
        out->name_len = (uint8_t)n;
        return;
    }
}

static void take_ticket(struct cursor *c, uint32_t len, struct tls_hello *out)
{
    out->ticket_len = (uint16_t)len;
    memset(out->ticket_name, 0, sizeof out->ticket_name);
    for (uint32_t i = 0; i < len && i < sizeof out->ticket_name; i++)
        out->ticket_name[i] = next(c);
}

static void take_extensions(struct cursor *c, struct tls_hello *out)
{
    next16(c); /* their length; the message's own bounds the walk */
    while (c->left >= 4) {
        uint32_t type = next16(c), len = next16(c);
        if (len > c->left)
            return;
        uint32_t after = c->left - len;
        if (type == EXTENSION_SNI && out->name_len == 0)
            take_name(c, len, out);
        else if (type == EXTENSION_TICKET)
            take_ticket(c, len, out);
        skip(c, c->left - after);
    }
}

enum tls_hello_status tls_hello_parse(struct slice raw, struct tls_hello *out)
{
    uint32_t message_len = 0;
    out->name_len = 0;
    out->ticket_len = 0;
    enum tls_hello_status status = framing(raw, &message_len);
    if (status != TLS_HELLO_DONE)
        return status;

    struct cursor c = {.raw = raw, .left = 4 + message_len};
    skip(&c, 4 + 2 + 32); /* head, version, random */
    skip(&c, next(&c));   /* session id */
    skip(&c, next16(&c)); /* cipher suites */
    skip(&c, next(&c));   /* compression */
    take_extensions(&c, out);
    return TLS_HELLO_DONE;
}
