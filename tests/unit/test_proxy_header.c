/*
 * tests/unit/test_proxy_header.c - PROXY headers, good and bad: whole, byte by byte, in every cut.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>

#include "gateway/base/buf.h"
#include "gateway/base/crc32c.h"
#include "gateway/smtp/proxy_header.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define REST     "EHLO x\r\n"

/* Feeds `in`, at most `step` bytes a call (the first one `first`). *left: what was not consumed. */
static enum proxy_status feed(struct proxy_header *p, struct slice in, size_t first, size_t step,
                              size_t *left)
{
    enum proxy_status st = PROXY_NEED_MORE;
    size_t at = 0, n = first;
    proxy_header_init(p);
    while (st == PROXY_NEED_MORE && at < in.len) {
        struct slice piece = slice_head(slice_from(in, at), n);
        size_t len = piece.len;
        st = proxy_header_step(p, &piece);
        at += len - piece.len;
        n = step;
    }
    *left = in.len - at;
    return st;
}

static void text_of(const struct proxy_address *a, char out[80])
{
    char host[INET6_ADDRSTRLEN];
    inet_ntop(a->family == 6 ? AF_INET6 : AF_INET, a->bytes, host, sizeof host);
    snprintf(out, 80, "%s %u", host, a->port);
}

/* In every cut in two, and byte by byte: the same, and never a byte too many. */
static enum proxy_status try(struct proxy_header *p, struct slice in, size_t rest)
{
    size_t left;
    enum proxy_status st = feed(p, in, in.len, in.len, &left);
    struct proxy_header whole = *p;
    if (st == PROXY_CLIENT || st == PROXY_LOCAL)
        cr_assert_eq(left, rest, "%zu bytes left, not %zu", left, rest);
    for (size_t cut = 1; cut <= in.len; cut++) {
        size_t again;
        bool bytewise = cut == in.len;
        cr_assert_eq(feed(p, in, bytewise ? 1 : cut, bytewise ? 1 : in.len, &again), st);
        cr_assert_eq(again, left);
        cr_assert(memcmp(&whole.client, &p->client, sizeof p->client) == 0);
        cr_assert(memcmp(&whole.server, &p->server, sizeof p->server) == 0);
        cr_assert(memcmp(&whole.tls, &p->tls, sizeof p->tls) == 0);
        cr_assert_str_eq(whole.server_name, p->server_name);
        cr_assert(whole.reason == p->reason);
    }
    return st;
}

/* ---- version 1 ---- */

Test(proxy_header, v1_good)
{
    static const struct {
        const char *in, *client, *server;
    } rows[] = {
        {"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n", "192.0.2.7 56324", "198.51.100.1 25"},
        {"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0 0", "255.255.255.255 65535"},
        {"PROXY TCP6 2001:db8::1 ::1 1 465\r\n", "2001:db8::1 1", "::1 465"},
        {"PROXY TCP6 ::ffff:10.1.2.3 ::1 9 25\r\n", "10.1.2.3 9", "::1 25"},
        {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535",
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535"},
    };
    struct proxy_header p;
    char in[200], text[80];
    for (size_t i = 0; i < COUNT(rows); i++) {
        snprintf(in, sizeof in, "%s" REST, rows[i].in);
        cr_assert_eq(try(&p, slice_str(in), strlen(REST)), PROXY_CLIENT, "row %zu", i);
        text_of(&p.client, text);
        cr_assert_str_eq(text, rows[i].client);
        text_of(&p.server, text);
        cr_assert_str_eq(text, rows[i].server);
        cr_assert(!p.tls.used && !p.own_check);
    }
}

Test(proxy_header, v1_unknown)
{
    struct proxy_header p;
    cr_assert_eq(try(&p, SLICE_LIT("PROXY UNKNOWN\r\n" REST), strlen(REST)), PROXY_LOCAL);
    cr_assert(!p.own_check);
    cr_assert_eq(try(&p,
                     SLICE_LIT("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                               "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
                     0),
                 PROXY_LOCAL);
    cr_assert_eq(p.client.family, 0);
}

Test(proxy_header, v1_bad)
{
    static const char *const rows[] = {
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY tcp4 192.0.2.7 198.51.100.1 56324 25\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 56324 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 25 \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 25 x\r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 56324 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 056 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 -1 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 5.3 25\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 56324 25\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 56324 25\r\n",
        "PROXY TCP4 2001:db8::1 ::1 56324 25\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 56324 25\r\n",
        "PROXY TCP6 2001:db8::g ::1 56324 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\rEHLO x\r\n",
        "PROXY\r\n",
        "PROXXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n",
        "proxy TCP4 192.0.2.7 198.51.100.1 56324 25\r\n",
        "POST / HTTP/1.1\r\n",
        ("PROXY UNKNOWN 1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 "
         "1234567890 1234567890 12345\r\n"),
    };
    struct proxy_header p;
    for (size_t i = 0; i < COUNT(rows); i++) {
        enum proxy_status st = try(&p, slice_str(rows[i]), 0);
        if (rows[i][0] == 'p') {
            cr_assert_eq(st, PROXY_NONE);
            continue;
        }
        cr_assert_eq(st, PROXY_BAD, "row %zu: %s", i, rows[i]);
        cr_assert(p.reason && p.client.family == 0);
    }
    cr_assert_eq(try(&p, SLICE_LIT("PROXY TCP4 192.0\0.2.7 1.1.1.1 1 1\r\n"), 0), PROXY_BAD);
}

Test(proxy_header, no_header)
{
    struct proxy_header p;
    struct slice in = SLICE_LIT("EHLO x\r\n"), hello = SLICE_LIT("\x16\x03\x01");
    proxy_header_init(&p);
    cr_assert_eq(proxy_header_step(&p, &in), PROXY_NONE);
    cr_assert_eq(in.len, 8);
    cr_assert_eq(proxy_header_step(&p, &hello), PROXY_NONE);
    struct slice nothing = slice_of(NULL, 0);
    cr_assert_eq(proxy_header_step(&p, &nothing), PROXY_NEED_MORE);
}

/* ---- version 2 ---- */

#define V2 "\r\n\r\n\0\r\nQUIT\n"

struct made {
    uint8_t bytes[PROXY_HEADER_MAX + 64];
    struct buf b;
};

static void make(struct made *m, uint8_t command, uint8_t family)
{
    m->b = buf_over(m->bytes, sizeof m->bytes);
    buf_add_slice(&m->b, SLICE_LIT(V2));
    buf_add_slice(&m->b, slice_of((uint8_t[]){command, family, 0, 0}, 4));
}

static void make_v4(struct made *m)
{
    make(m, 0x21, 0x11);
    buf_add_slice(&m->b, SLICE_LIT("\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x00\x19"));
}

static void tlv(struct made *m, uint8_t type, struct slice value)
{
    buf_add_slice(&m->b,
                  slice_of((uint8_t[]){type, (uint8_t)(value.len >> 8), (uint8_t)value.len}, 3));
    buf_add_slice(&m->b, value);
}

static struct slice finish(struct made *m, int more)
{
    size_t len = (size_t)((int)m->b.len - 16 + more);
    m->bytes[14] = (uint8_t)(len >> 8);
    m->bytes[15] = (uint8_t)len;
    buf_add_slice(&m->b, SLICE_LIT(REST));
    return buf_slice(&m->b);
}

Test(proxy_header, v2_addresses)
{
    struct made m;
    struct proxy_header p;
    char text[80];
    make_v4(&m);
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_CLIENT);
    text_of(&p.client, text);
    cr_assert_str_eq(text, "192.0.2.7 56324");
    text_of(&p.server, text);
    cr_assert_str_eq(text, "198.51.100.1 25");

    uint8_t six[36] = {0x20, 0x01, 0x0d, 0xb8};
    six[15] = 9, six[31] = 1, six[33] = 7, six[35] = 25;
    make(&m, 0x21, 0x21);
    buf_add_slice(&m.b, slice_of(six, sizeof six));
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_CLIENT);
    text_of(&p.client, text);
    cr_assert_str_eq(text, "2001:db8::9 7");
    text_of(&p.server, text);
    cr_assert_str_eq(text, "::1 25");

    memset(six, 0, 16);
    six[10] = six[11] = 0xff, six[12] = 10, six[15] = 3;
    make(&m, 0x21, 0x21);
    buf_add_slice(&m.b, slice_of(six, sizeof six));
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_CLIENT);
    text_of(&p.client, text);
    cr_assert_str_eq(text, "10.0.0.3 7");
}

Test(proxy_header, v2_without_client)
{
    struct made m;
    struct proxy_header p;
    make(&m, 0x20, 0x00); /* LOCAL */
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_LOCAL);
    cr_assert(p.own_check);
    make(&m, 0x20, 0x11); /* LOCAL: its addresses are not looked at, its length counts */
    buf_add_slice(&m.b, SLICE_LIT("whatever"));
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_LOCAL);
    cr_assert(p.own_check && p.client.family == 0);
    make(&m, 0x21, 0x00); /* AF_UNSPEC */
    buf_add_slice(&m.b, SLICE_LIT("xyz"));
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_LOCAL);
    cr_assert_not(p.own_check);
    uint8_t names[216] = "/run/socket";
    make(&m, 0x21, 0x31); /* AF_UNIX */
    buf_add_slice(&m.b, slice_of(names, sizeof names));
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_LOCAL);
    cr_assert_not(p.own_check);
}

Test(proxy_header, v2_tls_fields)
{
    static const struct slice ssl = {
        (const uint8_t *)"\x05\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x0a"
                         "bob\n\x80 smit"
                         "\x23\0\x16TLS_AES_128_GCM_SHA256\x24\0\x02xy",
        5 + 10 + 13 + 25 + 5};
    struct made m;
    struct proxy_header p;
    make_v4(&m);
    tlv(&m, 0x01, SLICE_LIT("smtp"));
    tlv(&m, 0x20, ssl);
    tlv(&m, 0x02, SLICE_LIT("mail.example.com"));
    tlv(&m, 0xee, SLICE_LIT(""));
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_CLIENT);
    cr_assert(p.tls.used && p.tls.verified);
    cr_assert_str_eq(p.tls.version, "TLSv1.3");
    cr_assert_str_eq(p.tls.cipher, "TLS_AES_128_GCM_SHA256");
    cr_assert_str_eq(p.tls.common_name, "bob???smit");
    cr_assert_str_eq(p.server_name, "mail.example.com");

    char name[400];
    memset(name, 'a', sizeof name);
    make_v4(&m);
    tlv(&m, 0x20, SLICE_LIT("\x01\0\0\0\1"));
    tlv(&m, 0x02, slice_of(name, sizeof name));
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_CLIENT);
    cr_assert(p.tls.used && !p.tls.verified);
    cr_assert_eq(strlen(p.server_name), sizeof p.server_name - 1);

    make_v4(&m);
    tlv(&m, 0x20, SLICE_LIT("\x07\0\0\0\1"));
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_CLIENT);
    cr_assert(p.tls.used && !p.tls.verified, "the proxy did not find the certificate good");
}

Test(proxy_header, v2_checksum)
{
    struct made m;
    struct proxy_header p;
    for (int wrong = 0; wrong < 2; wrong++) {
        make_v4(&m);
        tlv(&m, 0x03, SLICE_LIT("\0\0\0\0"));
        size_t at = m.b.len - 4;
        struct slice all = finish(&m, 0);
        uint32_t sum = crc32c(0, m.bytes, all.len - strlen(REST)) ^ (uint32_t)wrong;
        m.bytes[at] = (uint8_t)(sum >> 24);
        m.bytes[at + 1] = (uint8_t)(sum >> 16);
        m.bytes[at + 2] = (uint8_t)(sum >> 8);
        m.bytes[at + 3] = (uint8_t)sum;
        cr_assert_eq(try(&p, all, strlen(REST)), wrong ? PROXY_BAD : PROXY_CLIENT);
    }
    make_v4(&m);
    tlv(&m, 0x03, SLICE_LIT("\0\0\0"));
    cr_assert_eq(try(&p, finish(&m, 0), 0), PROXY_BAD);
}

Test(proxy_header, f52_v2_bad)
{
    struct made m;
    struct proxy_header p;
    static const struct {
        uint8_t command, family;
        const char *reason;
    } rows[] = {
        {0x11, 0x11, "unknown version or command"},
        {0x31, 0x11, "unknown version or command"},
        {0x01, 0x11, "unknown version or command"},
        {0x22, 0x11, "unknown version or command"},
        {0x2f, 0x11, "unknown version or command"},
        {0x21, 0x12, "unknown protocol"},
        {0x21, 0x10, "unknown protocol"},
        {0x21, 0x22, "unknown protocol"},
        {0x21, 0x41, "unknown protocol"},
        {0x21, 0xf1, "unknown protocol"},
        {0x21, 0x21, "too short for its addresses"},
        {0x21, 0x31, "too short for its addresses"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        make_v4(&m);
        m.bytes[12] = rows[i].command;
        m.bytes[13] = rows[i].family;
        cr_assert_eq(try(&p, finish(&m, 0), 0), PROXY_BAD, "row %zu", i);
        cr_assert_str_eq(p.reason, rows[i].reason);
        cr_assert_eq(p.client.family, 0);
    }
    for (int len = 0; len < 12; len++) { /* too short for IPv4's addresses */
        make(&m, 0x21, 0x11);
        buf_add_slice(&m.b, slice_of("\1\2\3\4\5\6\7\10\11\12\13", (size_t)len));
        cr_assert_eq(try(&p, finish(&m, 0), 0), PROXY_BAD);
    }
    for (int cut = 1; cut < 4; cut++) { /* a field that goes past the header */
        make_v4(&m);
        tlv(&m, 0x01, SLICE_LIT("h2"));
        cr_assert_eq(try(&p, finish(&m, -cut), 0), PROXY_BAD);
        make_v4(&m);
        tlv(&m, 0x20, slice_head(SLICE_LIT("\x01\0\0\0\0\x21\0\x04"), (size_t)cut + 4));
        cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), cut == 1 ? PROXY_CLIENT : PROXY_BAD);
    }
    make_v4(&m);
    tlv(&m, 0x20, SLICE_LIT("\x01\0\0\0\0\x21\0\x04tls"));
    cr_assert_eq(try(&p, finish(&m, 0), 0), PROXY_BAD);
}

Test(proxy_header, f52_length)
{
    struct made m;
    struct proxy_header p;
    static const uint8_t zeros[PROXY_HEADER_MAX];
    make_v4(&m);
    tlv(&m, 0x04, slice_of(zeros, PROXY_HEADER_MAX - m.b.len - 3)); /* NOOP, as long as may be */
    cr_assert_eq(try(&p, finish(&m, 0), strlen(REST)), PROXY_CLIENT);
    make_v4(&m);
    m.bytes[14] = (PROXY_HEADER_MAX - 16 + 1) >> 8;
    m.bytes[15] = (PROXY_HEADER_MAX - 16 + 1) & 0xff;
    cr_assert_eq(try(&p, buf_slice(&m.b), 0), PROXY_BAD);
    m.bytes[14] = m.bytes[15] = 0xff;
    cr_assert_eq(try(&p, buf_slice(&m.b), 0), PROXY_BAD);
    m.bytes[14] = 0;
    m.bytes[15] = 12;
    m.bytes[11] = '\r'; /* not the signature */
    cr_assert_eq(try(&p, buf_slice(&m.b), 0), PROXY_BAD);
    cr_assert(proxy_header_is_v2(SLICE_LIT(V2)));
    cr_assert_not(proxy_header_is_v2(slice_head(SLICE_LIT(V2), 11)));
    cr_assert_not(proxy_header_is_v2(SLICE_LIT("\r\n\r\n\0\r\nQUIT\r\n")));
}
