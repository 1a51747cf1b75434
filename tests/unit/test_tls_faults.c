/*
 * tests/unit/test_tls_faults.c - peers that are broken or hostile (FAULTS 27, 39 to 42).
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "gateway/limits.h"
#include "tests/unit/tls_pair.h"

static const uint8_t ticket_key[48] = "forty-eight bytes that all shards have in common";

static void feed(struct wire *w, const void *bytes, size_t len)
{
    memcpy(w->bytes + w->len, bytes, len);
    w->len += len;
}

/* ---- before the handshake ---- */

static void server_refuses(const void *bytes, size_t len, uint32_t in_max, const char *words)
{
    struct tls_pair p;
    enum tls_status status = TLS_WANT_IN;
    pair_init(&p, NULL, NULL);
    pair_connect(&p, NULL);
    uint64_t before = tls_memory();
    p.in_max = in_max;
    feed(&p.to_server, bytes, len);
    while (status == TLS_WANT_IN && p.to_server.at < p.to_server.len) {
        status = pair_step(&p, true);
        cr_assert_lt(tls_memory() - before, 20000, "%llu",
                     (unsigned long long)(tls_memory() - before));
    }
    cr_assert_eq(status, TLS_FAILED);
    cr_assert_str_eq(p.server_why.text, words);
    cr_assert_eq(p.to_client.len, 7, "an alert in clear");
    cr_assert_eq(p.to_client.bytes[0], 21);
    p.in_max = 0;
    cr_assert_eq(pair_step(&p, false), TLS_FAILED);
    cr_assert(strstr(p.client_why.text, "the server refused"), "%s", p.client_why.text);
    pair_free(&p);
}

Test(tls_faults, f36_smtp_and_http_to_a_tls_port)
{
    static const char *const texts[] = {"EHLO client.example\r\nMAIL FROM:<>\r\n",
                                        "GET / HTTP/1.1\r\n\r\n", "\n", "\x80\x2e\x01\x03\x01"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        for (uint32_t in_max = 0; in_max < 2; in_max++)
            server_refuses(texts[i], strlen(texts[i]), in_max,
                           "TLS: the client sent something that is not TLS");
}

Test(tls_faults, f39_long_hello)
{
    static uint8_t bytes[70000] = {22, 3, 1, 0x3f, 0xff, 1, 0, 0xff, 0xff};
    server_refuses(bytes, sizeof bytes, 0, "TLS: the client's first message is too long");
    server_refuses(bytes, sizeof bytes, 100, "TLS: the client's first message is too long");
    /* 2^24 */
    bytes[6] = 0xff;
    server_refuses(bytes, sizeof bytes, 1, "TLS: the client's first message is too long");
    /* As much as is allowed, one byte at a time, and then no end. */
    static uint8_t slow[70000];
    for (size_t i = 0; i < sizeof slow; i += 5 + 2000) {
        static const uint8_t head[] = {22, 3, 1, 2000 >> 8, 2000 & 255};
        memcpy(slow + i, head, i + 5 < sizeof slow ? 5 : sizeof slow - i);
    }
    memcpy(slow + 5, "\x01\x00\x3f\xd0", 4);
    server_refuses(slow, 16384, 0, "TLS: the client's first message is too long");
    server_refuses(slow, 16384, 999, "TLS: the client's first message is too long");
}

Test(tls_faults, f39_silence_costs_little)
{
    struct tls_pair p;
    pair_init(&p, NULL, NULL);
    uint64_t before = tls_memory();
    struct tls_conn *c = tls_server_conn(p.server_ctx);
    cr_assert_lt(tls_memory() - before, 300);
    static const uint8_t part[] = {22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3};
    uint8_t room[64];
    struct why why;
    for (size_t i = 0; i < sizeof part; i++) {
        struct slice in = slice_of(part + i, 1);
        struct buf out = buf_over(room, sizeof room);
        cr_assert_eq(tls_handshake(c, &in, &out, &why), TLS_WANT_IN);
        cr_assert_eq(in.len, 0);
        cr_assert_eq(out.len, 0);
    }
    cr_assert_lt(tls_memory() - before, 1000);
    tls_conn_free(c);
    cr_assert_eq(tls_memory(), before);
    pair_free(&p);
}

Test(tls_faults, alert_instead_of_a_hello)
{
    struct tls_pair p;
    static const uint8_t alert[] = {21, 3, 1, 0, 2, 2, 48};
    pair_init(&p, NULL, NULL);
    pair_connect(&p, NULL);
    p.in_max = 1;
    feed(&p.to_server, alert, sizeof alert);
    for (size_t i = 1; i < sizeof alert; i++)
        cr_assert_eq(pair_step(&p, true), TLS_WANT_IN);
    cr_assert_eq(pair_step(&p, true), TLS_FAILED);
    cr_assert_str_eq(p.server_why.text,
                     "TLS: the client refused: unknown certificate authority (alert 48)");
    pair_free(&p);
}

Test(tls_faults, server_that_speaks_in_clear)
{
    static const char *const texts[] = {"220 ready\r\n", "554 no\r\n", "\r\n\r\n\r\n",
                                        "HTTP/1.1 400 Bad Request\r\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct tls_pair p;
        pair_init(&p, NULL, NULL);
        pair_connect(&p, "mail.example.test");
        cr_assert_eq(pair_step(&p, false), TLS_WANT_IN);
        feed(&p.to_client, texts[i], strlen(texts[i]));
        cr_assert_eq(pair_step(&p, false), TLS_FAILED);
        cr_assert_str_eq(p.client_why.text, "TLS: the peer sent something that is not TLS");
        pair_free(&p);
    }
}

/* ---- in the handshake ---- */

/* Any byte of the handshake changed: it fails, in words, or (a byte that TLS does not look at) ends
 * well; never in between. */
Test(tls_faults, every_byte_of_the_handshake)
{
    struct tls_pair p;
    struct tls_identity mail = pair_identity("mail");
    struct tls_server_params s = pair_server_params(&mail);
    s.ticket_key = ticket_key;
    uint32_t failed = 0, passed = 0;
    pair_init(&p, &s, NULL);
    for (int tls12 = 0; tls12 < 2; tls12++) {
        for (int to_server = 0; to_server < 2; to_server++) {
            for (size_t at = 0; at < 1600; at += 3) {
                pair_connect(&p, "mail.example.test");
                if (tls12)
                    pair_force_tls12(&p);
                p.server_status = p.client_status = TLS_WANT_OUT;
                struct wire *w = to_server ? &p.to_server : &p.to_client;
                bool hit = false;
                for (int round = 0; round < 12; round++) {
                    for (int server = 0; server < 2; server++) {
                        enum tls_status *st = server ? &p.server_status : &p.client_status;
                        if (*st == TLS_WANT_IN || *st == TLS_WANT_OUT)
                            pair_step(&p, server);
                        if (!hit && w->len > at) {
                            w->bytes[at] ^= 0x41;
                            hit = true;
                        }
                    }
                }
                bool ok = p.server_status == TLS_OK && p.client_status == TLS_OK;
                passed += hit && ok;
                failed += hit && !ok;
                if (p.server_status == TLS_FAILED)
                    cr_assert(strncmp(p.server_why.text, "TLS: ", 5) == 0, "%s", p.server_why.text);
                if (p.client_status == TLS_FAILED)
                    cr_assert(strncmp(p.client_why.text, "TLS: ", 5) == 0, "%s", p.client_why.text);
                if (!hit)
                    break;
            }
        }
    }
    cr_assert_gt(failed, 500);
    cr_assert_lt(passed, failed / 10, "%u of %u", passed, failed);
    pair_free(&p);
}

/* FAULTS 40: records without end that are all legal: change_cipher_spec in a TLS 1.3 handshake. */
Test(tls_faults, f40_handshake_flood)
{
    struct tls_pair p;
    static const uint8_t ccs[] = {20, 3, 3, 0, 1, 1};
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "mail.example.test");
    cr_assert_eq(pair_step(&p, false), TLS_WANT_IN);
    cr_assert_eq(pair_step(&p, true), TLS_WANT_IN);
    uint32_t count = 0;
    enum tls_status status = TLS_WANT_IN;
    for (; status == TLS_WANT_IN && count < 2000; count++) {
        feed(&p.to_server, ccs, sizeof ccs);
        status = pair_step(&p, true);
    }
    cr_assert_eq(status, TLS_FAILED);
    cr_assert_leq(count, TLS_HANDSHAKE_RECORDS_MAX + 1);
    pair_free(&p);
}

Test(tls_faults, hello_twice)
{
    for (int tls12 = 0; tls12 < 2; tls12++) {
        struct tls_pair p;
        pair_init(&p, NULL, NULL);
        pair_connect(&p, "mail.example.test");
        if (tls12)
            pair_force_tls12(&p);
        cr_assert_eq(pair_step(&p, false), TLS_WANT_IN);
        size_t len = p.to_server.len;
        feed(&p.to_server, p.to_server.bytes, len);
        enum tls_status status = pair_step(&p, true);
        if (status == TLS_WANT_IN)
            status = pair_step(&p, true);
        cr_assert_eq(status, TLS_FAILED);
        pair_free(&p);
    }
}

/* ---- afterwards ---- */

static void connected(struct tls_pair *p, bool tls12)
{
    uint8_t room[64];
    struct buf plain = buf_over(room, sizeof room);
    pair_init(p, NULL, NULL);
    pair_connect(p, "mail.example.test");
    if (tls12)
        pair_force_tls12(p);
    cr_assert(pair_handshake(p));
    cr_assert_eq(pair_read(p, false, &plain), TLS_WANT_IN);
}

/* FAULTS 40: no renegotiation, here with a hello in clear; an encrypted one takes another client
 * (see SECURITY.md). */
Test(tls_faults, f40_hello_on_an_open_connection)
{
    for (int tls12 = 0; tls12 < 2; tls12++) {
        struct tls_pair p, q;
        uint8_t room[64];
        struct buf plain = buf_over(room, sizeof room);
        connected(&p, tls12);
        pair_init(&q, NULL, NULL);
        pair_connect(&q, "mail.example.test");
        pair_step(&q, false);
        feed(&p.to_server, q.to_server.bytes, q.to_server.len);
        cr_assert_eq(pair_read(&p, true, &plain), TLS_FAILED);
        cr_assert_eq(plain.len, 0);
        cr_assert_eq(pair_read(&p, true, &plain), TLS_FAILED);
        pair_free(&q);
        pair_free(&p);
    }
}

Test(tls_faults, altered_record_after_good_data)
{
    for (int tls12 = 0; tls12 < 2; tls12++) {
        struct tls_pair p;
        uint8_t room[64];
        struct buf plain = buf_over(room, sizeof room);
        connected(&p, tls12);
        struct slice one = slice_str("RSET\r\n"), two = slice_str("QUIT\r\n");
        cr_assert_eq(pair_write(&p, false, &one), TLS_OK);
        cr_assert_eq(pair_write(&p, false, &two), TLS_OK);
        p.to_server.bytes[p.to_server.len - 1] ^= 1;
        cr_assert_eq(pair_read(&p, true, &plain), TLS_OK);
        cr_assert(slice_eq(buf_slice(&plain), SLICE_LIT("RSET\r\n")));
        cr_assert(tls_pending(p.server));
        cr_assert_eq(pair_read(&p, true, &plain), TLS_FAILED);
        cr_assert_str_eq(p.server_why.text, "TLS: a TLS record was altered on the way");
        cr_assert_not(tls_pending(p.server));
        cr_assert_eq(plain.len, 6);
        struct buf out = buf_over(room, sizeof room);
        tls_close(p.server, &out);
        cr_assert_eq(out.len, 0);
        cr_assert_eq(pair_write(&p, true, &one), TLS_FAILED);
        pair_free(&p);
    }
}

Test(tls_faults, oversized_record)
{
    for (int tls12 = 0; tls12 < 2; tls12++) {
        struct tls_pair p;
        uint8_t room[64];
        struct buf plain = buf_over(room, sizeof room);
        static const uint8_t head[] = {23, 3, 3, 0x48, 1};
        connected(&p, tls12);
        uint64_t before = tls_memory();
        feed(&p.to_server, head, sizeof head);
        cr_assert_eq(pair_read(&p, true, &plain), TLS_FAILED);
        cr_assert_lt(tls_memory(), before + 5000);
        pair_free(&p);
    }
}

/* FAULTS 40: KeyUpdate after KeyUpdate ends the connection; a few between data do not. */
Test(tls_faults, f40_key_update_flood)
{
    struct tls_pair p;
    uint8_t room[64];
    struct buf plain = buf_over(room, sizeof room);
    connected(&p, false);
    for (int i = 0; i < 100; i++) {
        pair_key_update(&p);
        struct slice data = slice_str("NOOP\r\n");
        cr_assert_eq(pair_write(&p, false, &data), TLS_OK);
        plain.len = 0;
        cr_assert_eq(pair_read(&p, true, &plain), TLS_OK, "%d: %s", i, p.server_why.text);
        cr_assert_eq(plain.len, 6);
        struct slice answer = slice_str("250 OK\r\n");
        cr_assert_eq(pair_write(&p, true, &answer), TLS_OK);
        plain.len = 0;
        cr_assert_eq(pair_read(&p, false, &plain), TLS_OK, "%s", p.client_why.text);
    }
    plain.len = 0;
    uint32_t count = 0;
    enum tls_status status = TLS_WANT_IN;
    for (; status == TLS_WANT_IN && count < 200; count++) {
        pair_key_update(&p);
        status = pair_read(&p, true, &plain);
        cr_assert_neq(pair_read(&p, false, &plain), TLS_FAILED);
    }
    cr_assert_eq(status, TLS_FAILED);
    cr_assert_str_eq(p.server_why.text, "TLS: the peer sent too much that carries no data");
    cr_assert_leq(count, TLS_IDLE_RECORDS_MAX + 1);
    pair_free(&p);
}

/* The answer to a KeyUpdate needs room in `out`: without any it waits, and nothing is lost. */
Test(tls_faults, key_update_without_room)
{
    struct tls_pair p;
    uint8_t room[64], tiny[4];
    struct buf plain = buf_over(room, sizeof room);
    connected(&p, false);
    pair_key_update(&p);
    struct slice data = slice_str("NOOP\r\n");
    cr_assert_eq(pair_write(&p, false, &data), TLS_OK);
    struct slice in =
        slice_of(p.to_server.bytes + p.to_server.at, p.to_server.len - p.to_server.at);
    uint32_t calls = 0;
    enum tls_status status;
    do {
        struct buf out = buf_over(tiny, calls % 2 ? sizeof tiny : 0);
        status = tls_read(p.server, &in, &out, &plain, &p.server_why);
        feed(&p.to_client, tiny, out.len);
    } while (status == TLS_WANT_OUT && ++calls < 1000);
    cr_assert_eq(status, TLS_OK, "%s", p.server_why.text);
    cr_assert(slice_eq(buf_slice(&plain), SLICE_LIT("NOOP\r\n")));
    for (int i = 0; i < 50; i++) { /* whatever of the answer is left goes first */
        struct slice answer = slice_str("250 OK\r\n");
        cr_assert_eq(pair_write(&p, true, &answer), TLS_OK);
    }
    plain.len = 0;
    cr_assert_eq(pair_read(&p, false, &plain), TLS_OK, "%s", p.client_why.text);
    cr_assert(slice_starts_nocase(buf_slice(&plain), SLICE_LIT("250 OK\r\n250 OK\r\n")));
    pair_free(&p);
}
