/*
 * tests/unit/test_tls_hello.c - finding the name in a ClientHello, whole, byte by byte, over many
 * records, and broken.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "gateway/base/buf.h"
#include "gateway/limits.h"
#include "tls/hello.h"

/* ---- a ClientHello by hand (RFC 8446 section 4.1.2) ---- */

struct hello_text {
    uint8_t bytes[40000];
    struct buf b;
};

static void put16(struct buf *b, uint32_t v)
{
    buf_add_byte(b, (uint8_t)(v >> 8));
    buf_add_byte(b, (uint8_t)v);
}

static void extension(struct buf *b, uint32_t type, const void *data, size_t len)
{
    put16(b, type);
    put16(b, (uint32_t)len);
    buf_add(b, data, len);
}

static void server_name(struct buf *b, uint8_t kind, const void *name, size_t len)
{
    uint8_t room[600];
    struct buf e = buf_over(room, sizeof room);
    put16(&e, (uint32_t)len + 3);
    buf_add_byte(&e, kind);
    put16(&e, (uint32_t)len);
    buf_add(&e, name, len);
    extension(b, 0, e.ptr, e.len);
}

/* The handshake message around the extensions. */
static struct slice message(struct hello_text *h, struct slice extensions)
{
    static const uint8_t suites[] = {0, 4, 0x13, 1, 0xc0, 0x2b}, compression[] = {1, 0};
    uint8_t id[33] = {32};
    uint32_t len = 2 + 32 + 33 + sizeof suites + sizeof compression + 2 + (uint32_t)extensions.len;
    h->b = buf_over(h->bytes, sizeof h->bytes);
    buf_add_byte(&h->b, 1);
    buf_add_byte(&h->b, (uint8_t)(len >> 16));
    put16(&h->b, len);
    put16(&h->b, 0x0303);
    for (int i = 0; i < 32; i++)
        buf_add_byte(&h->b, (uint8_t)i);
    buf_add(&h->b, id, sizeof id);
    buf_add(&h->b, suites, sizeof suites);
    buf_add(&h->b, compression, sizeof compression);
    put16(&h->b, (uint32_t)extensions.len);
    buf_add_slice(&h->b, extensions);
    cr_assert_not(h->b.overflow);
    return buf_slice(&h->b);
}

/* Cut into records of at most `max` bytes of payload. */
static struct slice records(struct hello_text *to, struct slice message, uint32_t max)
{
    to->b = buf_over(to->bytes, sizeof to->bytes);
    while (message.len) {
        struct slice part = slice_head(message, max);
        buf_add_byte(&to->b, 22);
        put16(&to->b, 0x0301);
        put16(&to->b, (uint32_t)part.len);
        buf_add_slice(&to->b, part);
        message = slice_from(message, part.len);
    }
    cr_assert_not(to->b.overflow);
    return buf_slice(&to->b);
}

static struct hello_text m, r;
static struct tls_hello got;

static struct slice hello_for(const void *name, size_t len, uint32_t record_max)
{
    uint8_t room[1200];
    struct buf e = buf_over(room, sizeof room);
    extension(&e, 0x0a0a, "", 0);
    extension(&e, 43, "\x04\x03\x04\x03\x03", 5);
    if (name)
        server_name(&e, 0, name, len);
    extension(&e, 35, "0123456789abcdefTICKET", 22);
    return records(&r, message(&m, buf_slice(&e)), record_max);
}

static void finds(struct slice raw, const char *name)
{
    cr_assert_eq(tls_hello_parse(raw, &got), TLS_HELLO_DONE);
    cr_assert(slice_eq(slice_of(got.name, got.name_len), slice_str(name)), "%.*s", got.name_len,
              got.name);
}

Test(tls_hello, name_and_ticket)
{
    finds(hello_for("mail.example.test", 17, 16000), "mail.example.test");
    cr_assert_eq(got.ticket_len, 22);
    cr_assert_eq(memcmp(got.ticket_name, "0123456789abcdef", 16), 0);
    finds(hello_for(NULL, 0, 16000), "");
}

Test(tls_hello, no_extensions_at_all)
{
    struct slice whole = message(&m, slice_of(NULL, 0));
    uint8_t *bytes = m.bytes;
    size_t len = whole.len - 2; /* without even the length of extensions: SSLv3 style */
    bytes[3] = (uint8_t)(bytes[3] - 2);
    finds(records(&r, slice_of(bytes, len), 16000), "");
    cr_assert_eq(got.ticket_len, 0);
}

Test(tls_hello, byte_by_byte)
{
    struct slice raw = hello_for("mail.example.test", 17, 16000);
    for (size_t i = 0; i < raw.len; i++)
        cr_assert_eq(tls_hello_parse(slice_head(raw, i), &got), TLS_HELLO_MORE, "%zu", i);
    finds(raw, "mail.example.test");
}

Test(tls_hello, over_many_records_byte_by_byte)
{
    for (uint32_t max = 15; max < 200; max += 7) {
        struct slice raw = hello_for("mail.example.test", 17, max);
        for (size_t i = 0; i < raw.len; i++)
            cr_assert_eq(tls_hello_parse(slice_head(raw, i), &got), TLS_HELLO_MORE, "%u %zu", max,
                         i);
        finds(raw, "mail.example.test");
    }
}

/* What follows the hello in the same read does not matter. */
Test(tls_hello, more_behind_it)
{
    struct slice raw = hello_for("mail.example.test", 17, 16000);
    memcpy(r.bytes + raw.len, "\x17\x03\x03\x00\x01x", 6);
    finds(slice_of(r.bytes, raw.len + 6), "mail.example.test");
}

Test(tls_hello, too_many_records)
{
    struct slice raw = hello_for("mail.example.test", 17, 1);
    enum tls_hello_status status = TLS_HELLO_MORE;
    size_t i = 0;
    while (status == TLS_HELLO_MORE && i < raw.len)
        status = tls_hello_parse(slice_head(raw, ++i), &got);
    cr_assert_eq(status, TLS_HELLO_LARGE);
    cr_assert_leq(i, TLS_HELLO_RECORDS_MAX * 6 + 2);
}

/* FAULTS 39: 64 KiB of hello, a length of 2^24. */
Test(tls_hello, f39_large)
{
    uint8_t head[] = {22, 3, 1, 0x3f, 0xff, 1, 0xff, 0xff, 0xff};
    cr_assert_eq(tls_hello_parse(slice_of(head, 8), &got), TLS_HELLO_MORE);
    cr_assert_eq(tls_hello_parse(slice_of(head, 9), &got), TLS_HELLO_LARGE);
    static const uint8_t wide[] = {22, 3, 1, 0xff, 0xff, 1, 0, 1, 0};
    cr_assert_eq(tls_hello_parse(slice_of(wide, sizeof wide), &got), TLS_HELLO_LARGE);
    static uint8_t padding[39000];
    struct buf e = buf_over(padding, sizeof padding);
    e.len = 4 + 17000;
    padding[0] = 0;
    padding[1] = 21;
    padding[2] = 17000 >> 8;
    padding[3] = (uint8_t)17000;
    struct slice raw = records(&r, message(&m, buf_slice(&e)), 8000);
    cr_assert_eq(tls_hello_parse(raw, &got), TLS_HELLO_LARGE);
    e.len = 4 + 12000;
    padding[2] = 12000 >> 8;
    padding[3] = (uint8_t)12000;
    raw = records(&r, message(&m, buf_slice(&e)), 8000);
    finds(raw, "");
}

Test(tls_hello, not_tls)
{
    static const char *const texts[] = {"EHLO x\r\n", "GET / HTTP/1.0\r\n", "\x80\x2e\x01\x03\x01",
                                        "\x17\x03\x03\x01\x01", "\x16\x02\x01\x01\x01"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        cr_assert_eq(tls_hello_parse(slice_str(texts[i]), &got), TLS_HELLO_BAD, "%zu", i);
    /* A record that is no hello, and one without payload. */
    cr_assert_eq(tls_hello_parse(slice_of("\x16\x03\x01\x00\x05\x02", 6), &got), TLS_HELLO_BAD);
    cr_assert_eq(tls_hello_parse(slice_of("\x16\x03\x01\x00\x00", 5), &got), TLS_HELLO_BAD);
    /* The second record is not a handshake any more. */
    struct slice raw = hello_for("mail.example.test", 17, 64);
    r.bytes[69] = 23;
    cr_assert_eq(tls_hello_parse(raw, &got), TLS_HELLO_BAD);
}

Test(tls_hello, alert_instead)
{
    static const uint8_t alert[] = {21, 3, 1, 0, 2, 2, 48};
    for (size_t i = 0; i < sizeof alert; i++)
        cr_assert_eq(tls_hello_parse(slice_of(alert, i), &got), TLS_HELLO_MORE);
    cr_assert_eq(tls_hello_parse(slice_of(alert, sizeof alert), &got), TLS_HELLO_ALERT);
}

/* FAULTS 40: odd names. They are opaque; with a NUL, or too long, they count as none. */
Test(tls_hello, f40_odd_names)
{
    char name[300];
    memset(name, 'a', sizeof name);
    finds(hello_for("a\\b", 3, 16000), "a\\b");
    finds(hello_for("\xff\xfe", 2, 16000), "\xff\xfe");
    cr_assert_eq(tls_hello_parse(hello_for("a\0b", 3, 16000), &got), TLS_HELLO_DONE);
    cr_assert_eq(got.name_len, 0);
    finds(hello_for("", 0, 16000), "");
    finds(hello_for(name, 256, 16000), "");
    cr_assert_eq(tls_hello_parse(hello_for(name, 255, 16000), &got), TLS_HELLO_DONE);
    cr_assert_eq(got.name_len, 255);
}

Test(tls_hello, first_host_name_counts)
{
    uint8_t room[600];
    struct buf e = buf_over(room, sizeof room);
    static const uint8_t list[] = "\x00\x0f\x07\x00\x02zz\x00\x00\x01x\x00\x00\x02yy";
    extension(&e, 0, list, sizeof list - 1);
    finds(records(&r, message(&m, buf_slice(&e)), 16000), "x");
}

/* Lengths that lie: nothing is read past the end, and what is malformed is no name. */
Test(tls_hello, every_byte_changed)
{
    struct slice raw = hello_for("mail.example.test", 17, 100);
    uint8_t *copy = malloc(raw.len);
    for (size_t i = 0; i < raw.len; i++) {
        for (int v = 0; v < 256; v += 5) {
            memcpy(copy, raw.ptr, raw.len);
            copy[i] = (uint8_t)v;
            enum tls_hello_status status = tls_hello_parse(slice_of(copy, raw.len), &got);
            cr_assert_leq(status, TLS_HELLO_ALERT);
        }
    }
    free(copy);
}
