/*
 * gateway/smtp/proxy_header.c - the PROXY protocol's header, versions 1 and 2, byte by byte.
 *
 * Owns:     the bytes of one header until it is whole.
 * Runs on:  the session's shard.
 * Contract: no byte behind the header is consumed; the result does not depend on how the bytes
 *           come. Nothing is taken over before the whole header was found good.
 * Failure:  PROXY_BAD and a reason: the connection has no known client and must be closed.
 * Bounds:   PROXY_HEADER_MAX; version 1 has 107 bytes at most.
 * Tests:    tests/unit/test_proxy_header.c, tests/fuzz/fuzz_proxy_header.c
 */
#include "gateway/smtp/proxy_header.h"

#include <arpa/inet.h>
#include <assert.h>

#include "gateway/base/crc32c.h"

#define V1_MAX          107u /* section 2.1, with CRLF */
#define V2_FIXED        16u  /* section 2.2: signature, version and command, family, length */
#define TLV_AUTHORITY   0x02
#define TLV_CRC32C      0x03
#define TLV_SSL         0x20
#define TLV_SSL_VERSION 0x21
#define TLV_SSL_CN      0x22
#define TLV_SSL_CIPHER  0x23
#define SSL_FIXED       5u /* client flags and verify */
#define SSL_USED        0x01
#define SSL_CERTIFICATE 0x06 /* shown now, or earlier in the session */

static const uint8_t signature[12] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                      '\n', 'Q',  'U',  'I',  'T', '\n'};
static const uint8_t v1_start[6] = {'P', 'R', 'O', 'X', 'Y', ' '};

void proxy_header_init(struct proxy_header *p)
{
    memset(p, 0, offsetof(struct proxy_header, bytes));
}

static enum proxy_status bad(struct proxy_header *p, const char *reason)
{
    p->reason = reason;
    return PROXY_BAD;
}

/* ---- addresses ---- */

static void address_set(struct proxy_address *a, bool v6, const uint8_t *bytes, uint16_t port)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    *a = (struct proxy_address){.family = v6 ? 6 : 4, .port = port};
    if (v6 && memcmp(bytes, mapped, sizeof mapped) == 0) { /* rules for IPv4 hold for it too */
        a->family = 4;
        memcpy(a->bytes, bytes + sizeof mapped, 4);
    } else {
        memcpy(a->bytes, bytes, v6 ? 16 : 4);
    }
}

/* ---- version 1 ---- */

/* The next word of a line with single blanks between words; empty when there is none. */
static struct slice word(struct slice *line)
{
    size_t n = slice_find(*line, ' ');
    struct slice w = slice_head(*line, n);
    *line = slice_from(*line, n < line->len ? n + 1 : n);
    return w;
}

static bool text_address(struct slice w, bool v6, uint8_t out[16])
{
    char text[INET6_ADDRSTRLEN];
    if (w.len == 0 || w.len >= sizeof text || slice_find(w, '\0') < w.len)
        return false;
    memcpy(text, w.ptr, w.len);
    text[w.len] = '\0';
    return inet_pton(v6 ? AF_INET6 : AF_INET, text, out) == 1;
}

static bool text_port(struct slice w, uint16_t *out)
{
    uint32_t n = 0;
    if (w.len == 0 || w.len > 5 || (w.len > 1 && w.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < w.len; i++) {
        if (w.ptr[i] < '0' || w.ptr[i] > '9')
            return false;
        n = n * 10 + (w.ptr[i] - '0');
    }
    *out = (uint16_t)n;
    return n <= UINT16_MAX;
}

/* The line without its CRLF. */
static enum proxy_status v1_parse(struct proxy_header *p, struct slice line)
{
    uint8_t from[16], to[16];
    uint16_t from_port, to_port;
    line = slice_from(line, sizeof v1_start);
    struct slice family = word(&line);
    if (slice_eq(family, SLICE_LIT("UNKNOWN"))) /* the rest of the line is ignored */
        return PROXY_LOCAL;
    bool v6 = slice_eq(family, SLICE_LIT("TCP6"));
    if (!v6 && !slice_eq(family, SLICE_LIT("TCP4")))
        return bad(p, "unknown protocol");
    struct slice source = word(&line), target = word(&line), source_port = word(&line);
    if (!text_address(source, v6, from) || !text_address(target, v6, to))
        return bad(p, "no address");
    if (!text_port(source_port, &from_port) || !text_port(line, &to_port))
        return bad(p, "no port");
    address_set(&p->client, v6, from, from_port);
    address_set(&p->server, v6, to, to_port);
    return PROXY_CLIENT;
}

static enum proxy_status v1_step(struct proxy_header *p)
{
    uint8_t c = p->bytes[p->len - 1];
    if (c == '\n') {
        if (p->bytes[p->len - 2] != '\r')
            return bad(p, "line does not end with CRLF");
        return v1_parse(p, slice_of(p->bytes, p->len - 2u));
    }
    if (p->len >= 2 && p->bytes[p->len - 2] == '\r')
        return bad(p, "line does not end with CRLF");
    return p->len >= V1_MAX ? bad(p, "line too long") : PROXY_NEED_MORE;
}

/* ---- version 2 ---- */

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Cuts to `size`; what is not printable ASCII becomes '?': it goes into logs. */
static void keep_text(char *out, size_t size, struct slice value)
{
    size_t n = value.len < size - 1 ? value.len : size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = value.ptr[i] > ' ' && value.ptr[i] < 0x7f ? (char)value.ptr[i] : '?';
    out[n] = '\0';
}

/* Takes one type-length-value off *in. */
static bool tlv_next(struct slice *in, uint8_t *type, struct slice *value)
{
    if (in->len < 3)
        return false;
    size_t len = get16(in->ptr + 1);
    if (len > in->len - 3)
        return false;
    *type = in->ptr[0];
    *value = slice_of(in->ptr + 3, len);
    *in = slice_from(*in, len + 3);
    return true;
}

static bool tls_parse(struct proxy_tls *t, struct slice in)
{
    struct slice value;
    uint8_t type;
    if (in.len < SSL_FIXED)
        return false;
    t->used = in.ptr[0] & SSL_USED;
    t->verified = (in.ptr[0] & SSL_CERTIFICATE) && get32(in.ptr + 1) == 0;
    in = slice_from(in, SSL_FIXED);
    while (in.len) {
        if (!tlv_next(&in, &type, &value))
            return false;
        if (type == TLV_SSL_VERSION)
            keep_text(t->version, sizeof t->version, value);
        else if (type == TLV_SSL_CIPHER)
            keep_text(t->cipher, sizeof t->cipher, value);
        else if (type == TLV_SSL_CN)
            keep_text(t->common_name, sizeof t->common_name, value);
    }
    return true;
}

/* Section 2.2.4: over the whole header, its own four bytes taken as zero. */
static bool checksum_good(struct proxy_header *p, struct slice value)
{
    uint8_t *at = p->bytes + (value.ptr - p->bytes);
    if (value.len != 4)
        return false;
    uint32_t said = get32(at);
    memset(at, 0, 4);
    return crc32c(0, p->bytes, p->len) == said;
}

static enum proxy_status tlvs_parse(struct proxy_header *p, struct slice in)
{
    struct slice value;
    uint8_t type;
    while (in.len) {
        if (!tlv_next(&in, &type, &value))
            return bad(p, "a field is longer than the header");
        if (type == TLV_CRC32C && !checksum_good(p, value))
            return bad(p, "wrong checksum");
        if (type == TLV_SSL && !tls_parse(&p->tls, value))
            return bad(p, "a TLS field is longer than its frame");
        if (type == TLV_AUTHORITY)
            keep_text(p->server_name, sizeof p->server_name, value);
    }
    return PROXY_CLIENT;
}

static enum proxy_status v2_parse(struct proxy_header *p)
{
    static const uint8_t sizes[] = {0, 12, 36, 216}; /* by family: unspecified, IPv4, IPv6, UNIX */
    uint8_t command = p->bytes[12] & 0x0f, family = p->bytes[13] >> 4;
    bool stream = (p->bytes[13] & 0x0f) == 1;
    struct slice rest = slice_of(p->bytes + V2_FIXED, p->len - V2_FIXED);
    if (command == 0) { /* LOCAL: whatever else it says is not looked at */
        p->own_check = true;
        return PROXY_LOCAL;
    }
    if (family == 0 || p->bytes[13] == 0)
        return PROXY_LOCAL;
    if (family >= sizeof sizes || !stream)
        return bad(p, "unknown protocol");
    if (rest.len < sizes[family])
        return bad(p, "too short for its addresses");
    enum proxy_status st = tlvs_parse(p, slice_from(rest, sizes[family]));
    if (st == PROXY_BAD)
        return st;
    if (family == 3)
        return PROXY_LOCAL;
    size_t n = family == 2 ? 16 : 4;
    address_set(&p->client, family == 2, rest.ptr, get16(rest.ptr + 2 * n));
    address_set(&p->server, family == 2, rest.ptr + n, get16(rest.ptr + 2 * n + 2));
    return PROXY_CLIENT;
}

static enum proxy_status v2_step(struct proxy_header *p)
{
    if (p->len < V2_FIXED)
        return PROXY_NEED_MORE;
    size_t size = V2_FIXED + get16(p->bytes + 14);
    if (p->len == V2_FIXED) {
        if (p->bytes[12] >> 4 != 2 || (p->bytes[12] & 0x0f) > 1)
            return bad(p, "unknown version or command");
        if (size > PROXY_HEADER_MAX)
            return bad(p, "header too long");
    }
    return p->len < size ? PROXY_NEED_MORE : v2_parse(p);
}

/* ---- both ---- */

bool proxy_header_is_v2(struct slice in)
{
    return in.len >= sizeof signature && memcmp(in.ptr, signature, sizeof signature) == 0;
}

enum proxy_status proxy_header_step(struct proxy_header *p, struct slice *in)
{
    while (in->len) {
        uint8_t c = in->ptr[0];
        if (p->len == 0 && c != signature[0] && c != v1_start[0])
            return PROXY_NONE;
        assert(p->len < sizeof p->bytes);
        p->bytes[p->len++] = c;
        *in = slice_from(*in, 1);
        bool v1 = p->bytes[0] == v1_start[0];
        const uint8_t *start = v1 ? v1_start : signature;
        size_t start_len = v1 ? sizeof v1_start : sizeof signature;
        if (p->len <= start_len && c != start[p->len - 1])
            return bad(p, "no PROXY header");
        if (p->len <= start_len)
            continue;
        enum proxy_status st = v1 ? v1_step(p) : v2_step(p);
        if (st != PROXY_NEED_MORE)
            return st;
    }
    return PROXY_NEED_MORE;
}
