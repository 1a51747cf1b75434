/*
 * tests/unit/test_tls.c - handshakes and data between our client and our server, in memory.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "gateway/limits.h"
#include "tests/unit/tls_pair.h"

static const uint8_t ticket_key[48] = "forty-eight bytes that all shards have in common";

static struct slice pattern(size_t len)
{
    static uint8_t bytes[2u << 20];
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i * 31 + (i >> 8) * 7);
    return slice_of(bytes, len);
}

static void check_both_ways(struct tls_pair *p, size_t len)
{
    cr_assert(pair_transfer(p, false, pattern(len)), "to server: %s", p->server_why.text);
    cr_assert(pair_transfer(p, true, pattern(len)), "to client: %s", p->client_why.text);
}

Test(tls, tls13_by_default)
{
    struct tls_pair p;
    struct tls_facts f;
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "mail.example.test");
    cr_assert(pair_handshake(&p), "%s / %s", p.client_why.text, p.server_why.text);
    tls_facts(p.server, &f);
    cr_assert_str_eq(f.version, "TLSv1.3");
    cr_assert_str_eq(f.cipher, "TLS_AES_128_GCM_SHA256");
    cr_assert_eq(f.bits, 128);
    cr_assert_str_eq(f.sni, "mail.example.test");
    cr_assert_not(f.resumed);
    cr_assert_not(f.verified);
    tls_facts(p.client, &f);
    cr_assert(f.verified);
    check_both_ways(&p, 1);
    check_both_ways(&p, 100000);
    pair_free(&p);
}

Test(tls, tls12)
{
    struct tls_pair p;
    struct tls_facts f;
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "mail.example.test");
    pair_force_tls12(&p);
    cr_assert(pair_handshake(&p), "%s / %s", p.client_why.text, p.server_why.text);
    tls_facts(p.server, &f);
    cr_assert_str_eq(f.version, "TLSv1.2");
    cr_assert_str_eq(f.cipher, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    cr_assert_eq(f.bits, 128);
    check_both_ways(&p, 100000);
    pair_free(&p);
}

static void cut_up(uint32_t in_max, uint32_t out_max, bool tls12, bool tickets)
{
    struct tls_pair p;
    struct tls_identity mail = pair_identity("mail");
    struct tls_server_params s = pair_server_params(&mail);
    s.ticket_key = tickets ? ticket_key : NULL;
    pair_init(&p, &s, NULL);
    p.in_max = in_max;
    p.out_max = out_max;
    pair_connect(&p, "mail.example.test");
    if (tls12)
        pair_force_tls12(&p);
    cr_assert(pair_handshake(&p), "in %u out %u tls12 %d: %s / %s", in_max, out_max, tls12,
              p.client_why.text, p.server_why.text);
    check_both_ways(&p, 40000);
    pair_free(&p);
}

Test(tls, byte_by_byte)
{
    for (int tls12 = 0; tls12 < 2; tls12++)
        cut_up(1, 0, tls12, true);
}

Test(tls, one_byte_of_room)
{
    for (int tls12 = 0; tls12 < 2; tls12++) {
        cut_up(0, 1, tls12, true);
        cut_up(1, 1, tls12, false);
    }
}

Test(tls, odd_pieces)
{
    static const uint32_t sizes[] = {2, 3, 5, 6, 17, 97, 113, 1000, 4097};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        cut_up(sizes[i], sizes[sizeof sizes / sizeof sizes[0] - 1 - i], i & 1, i & 2);
}

/* FAULTS 42: room that changes from call to call, among it none; the data must come out whole. */
Test(tls, f42_want_write_with_changing_room)
{
    struct tls_pair p;
    uint32_t seed = 1;
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "mail.example.test");
    cr_assert(pair_handshake(&p));
    struct slice data = pattern(300000), rest = data;
    static uint8_t got[300000];
    struct buf plain = buf_over(got, sizeof got);
    uint32_t waits = 0;
    uint8_t room[20000];
    while (rest.len) {
        seed = seed * 1103515245 + 12345;
        uint32_t cap = (seed >> 16) % 5 == 0 ? (seed >> 8) % 20000 : (seed >> 16) % 40;
        struct buf out = buf_over(room, cap);
        size_t before = rest.len;
        enum tls_status w = tls_write(p.server, &rest, &out, &p.server_why);
        cr_assert(w == TLS_OK || w == TLS_WANT_OUT, "%s", p.server_why.text);
        cr_assert(w != TLS_OK || rest.len == 0);
        cr_assert_leq(rest.len, before);
        waits += w == TLS_WANT_OUT;
        memcpy(p.to_client.bytes + p.to_client.len, room, out.len);
        p.to_client.len += out.len;
    }
    while (plain.len < sizeof got && pair_read(&p, false, &plain) == TLS_OK)
        ;
    cr_assert(slice_eq(buf_slice(&plain), data));
    cr_assert_gt(waits, 100);
    pair_free(&p);
}

Test(tls, half_full_buffer_is_not_overrun)
{
    struct tls_pair p;
    uint8_t room[256];
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "mail.example.test");
    cr_assert(pair_handshake(&p));
    struct buf out = buf_over(room, sizeof room);
    out.len = 250;
    struct slice data = pattern(100);
    cr_assert_eq(tls_write(p.server, &data, &out, &p.server_why), TLS_WANT_OUT);
    cr_assert_eq(out.len, 250);
    cr_assert_eq(data.len, 100);
    out.len = 0;
    cr_assert_eq(tls_write(p.server, &data, &out, &p.server_why), TLS_OK);
    cr_assert_eq(data.len, 0);
    pair_free(&p);
}

Test(tls, small_plaintext_room)
{
    struct tls_pair p;
    uint8_t room[100];
    size_t total = 0;
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "mail.example.test");
    cr_assert(pair_handshake(&p));
    struct slice data = pattern(20000), rest = data;
    while (rest.len)
        cr_assert_neq(pair_write(&p, false, &rest), TLS_FAILED);
    for (;;) {
        struct buf plain = buf_over(room, sizeof room);
        if (pair_read(&p, true, &plain) != TLS_OK)
            break;
        cr_assert(slice_eq(buf_slice(&plain), slice_of(data.ptr + total, plain.len)));
        total += plain.len;
        if (total < data.len)
            cr_assert(tls_pending(p.server) || p.to_server.at < p.to_server.len);
    }
    cr_assert_eq(total, data.len);
    cr_assert_not(tls_pending(p.server));
    pair_free(&p);
}

Test(tls, big_transfer)
{
    struct tls_pair p;
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "mail.example.test");
    cr_assert(pair_handshake(&p));
    check_both_ways(&p, 1500000);
    pair_free(&p);
}

/* ---- names ---- */

static void asks_for(struct tls_pair *p, const char *name, bool right)
{
    pair_connect(p, name);
    cr_assert_eq(pair_handshake(p), right, "%s: %s / %s", name, p->client_why.text,
                 p->server_why.text);
    if (right)
        check_both_ways(p, 1000);
}

Test(tls, sni_chooses_among_identities)
{
    struct tls_pair p;
    struct tls_identity ids[] = {pair_identity("mail"), pair_identity("other"),
                                 pair_identity("plain")};
    struct tls_server_params s = pair_server_params(ids);
    s.identity_count = 3;
    s.ticket_key = ticket_key;
    pair_init(&p, &s, NULL);
    asks_for(&p, "mail.example.test", true);
    asks_for(&p, "other.example.test", true); /* an RSA key beside ECDSA ones */
    asks_for(&p, "OTHER.example.TEST.", true);
    asks_for(&p, "x.wild.example.test", true);
    asks_for(&p, "plain.example.test", true); /* by its common name */
    asks_for(&p, "wild.example.test", false); /* falls to the default, which is not for it */
    cr_assert(strstr(p.client_why.text, "is for mail.example.test, *.wild.example.test, not for "
                                        "wild.example.test"),
              "%s", p.client_why.text);
    asks_for(&p, "a.b.wild.example.test", false);
    for (int round = 0; round < 2; round++) {
        pair_connect(&p, "other.example.test");
        pair_force_tls12(&p);
        cr_assert(pair_handshake(&p), "%s", p.client_why.text);
    }
    pair_free(&p);
}

Test(tls, client_without_name)
{
    struct tls_pair p;
    struct tls_facts f;
    struct tls_client_params c = pair_client_params(false);
    pair_init(&p, NULL, &c);
    pair_connect(&p, NULL);
    cr_assert(pair_handshake(&p), "%s", p.client_why.text);
    tls_facts(p.server, &f);
    cr_assert_str_eq(f.sni, "");
    tls_facts(p.client, &f);
    cr_assert_not(f.verified);
    pair_connect(&p, "127.0.0.1"); /* an address is never sent as a name */
    cr_assert(pair_handshake(&p), "%s", p.client_why.text);
    tls_facts(p.server, &f);
    cr_assert_str_eq(f.sni, "");
    pair_free(&p);
}

/* FAULTS 40: a name is opaque; what goes into logs is printable. */
Test(tls, f40_odd_names)
{
    static const char *const names[] = {"a\\b", "a\nb\x1b[31m", "\xff\xfe", "."};
    static const char *const shown[] = {"a\\b", "a?b?[31m", "??", "."};
    struct tls_pair p;
    struct tls_facts f;
    struct tls_client_params c = pair_client_params(false);
    pair_init(&p, NULL, &c);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        pair_connect(&p, names[i]);
        cr_assert(pair_handshake(&p), "%s", p.server_why.text);
        tls_facts(p.server, &f);
        cr_assert_str_eq(f.sni, i == 3 ? "" : shown[i]);
    }
    pair_free(&p);
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "."); /* a name that is none is no reason to skip the check */
    cr_assert_not(pair_handshake(&p));
    pair_free(&p);
}

/* ---- trust ---- */

static void refused(const char *identity, bool verify, const char *words)
{
    for (int tls12 = 0; tls12 < 2; tls12++) {
        struct tls_pair p;
        struct tls_identity id = pair_identity(identity);
        struct tls_server_params s = pair_server_params(&id);
        struct tls_client_params c = pair_client_params(verify);
        pair_init(&p, &s, &c);
        pair_connect(&p, "mail.example.test");
        if (tls12)
            pair_force_tls12(&p);
        cr_assert_eq(pair_handshake(&p), !words, "%s: %s", identity, p.client_why.text);
        if (words) {
            cr_assert_eq(p.client_status, TLS_FAILED);
            cr_assert(strstr(p.client_why.text, words), "%s: %s", identity, p.client_why.text);
            cr_assert_str_eq(p.client_why.enhanced, "4.7.5");
            cr_assert_eq(p.client_why.smtp_code, 454);
            /* The alert was sent: the server knows why. */
            cr_assert_eq(p.server_status, TLS_FAILED);
            cr_assert(strstr(p.server_why.text, "the client refused: "), "%s", p.server_why.text);
            /* And it stays so. */
            cr_assert_eq(pair_step(&p, false), TLS_FAILED);
            cr_assert_eq(pair_step(&p, true), TLS_FAILED);
        }
        pair_free(&p);
    }
}

/* The reason survives when there is no room for the alert, or next to none. */
Test(tls, verify_refuses_without_room)
{
    for (uint32_t out_max = 1; out_max < 9; out_max += 3) {
        struct tls_pair p;
        struct tls_identity id = pair_identity("expired");
        struct tls_server_params s = pair_server_params(&id);
        pair_init(&p, &s, NULL);
        pair_connect(&p, "mail.example.test");
        p.out_max = out_max;
        cr_assert_not(pair_handshake(&p));
        cr_assert_eq(p.client_status, TLS_FAILED);
        cr_assert_str_eq(p.client_why.text,
                         "TLS: the certificate for mail.example.test expired on 2021-01-01");
        pair_free(&p);
    }
}

Test(tls, verify_accepts)
{
    refused("mail", true, NULL);
}

Test(tls, verify_accepts_a_chain_with_a_link_too_many)
{
    refused("chain", true, NULL);
}

Test(tls, verify_accepts_many_names)
{
    refused("many", true, NULL);
}

Test(tls, verify_expired)
{
    refused("expired", true, "the certificate for mail.example.test expired on 2021-01-01");
}

Test(tls, verify_not_yet_valid)
{
    refused("future", true, "the certificate for mail.example.test is not valid before 2100-01-01");
}

Test(tls, verify_unknown_authority)
{
    refused("strange", true,
            "the certificate for mail.example.test is not signed by an authority we trust");
}

Test(tls, verify_wrong_name)
{
    refused("other", true, "the certificate is for other.example.test, not for mail.example.test");
}

/* RFC 6125 section 6.4.4: the common name counts only where there is no DNS name. */
Test(tls, verify_common_name_beside_others)
{
    refused("both", true, "the certificate is for both.example.test, not for mail.example.test");
}

Test(tls, opportunistic_takes_anything)
{
    refused("expired", false, NULL);
    refused("strange", false, NULL);
    refused("other", false, NULL);
}

/* A client that inspects takes what a verifying one refuses, and can say why that would. */
static void inspected(const char *identity, bool verify, const char *words)
{
    for (int tls12 = 0; tls12 < 2; tls12++) {
        struct tls_pair p;
        struct tls_peer_certificate seen;
        struct tls_identity id = pair_identity(identity);
        struct tls_server_params s = pair_server_params(&id);
        struct tls_client_params c = pair_client_params(true);
        c.verify = verify;
        c.inspect = true;
        pair_init(&p, &s, &c);
        pair_connect(&p, "mail.example.test");
        cr_assert_not(tls_peer_certificate(p.client, &seen), "before the handshake");
        if (tls12)
            pair_force_tls12(&p);
        cr_assert(pair_handshake(&p), "%s: %s", identity, p.client_why.text);
        cr_assert(tls_peer_certificate(p.client, &seen));
        cr_assert_eq(seen.refusal[0] == '\0', words == NULL, "%s", seen.refusal);
        cr_assert(!words || strstr(seen.refusal, words), "%s: %s", identity, seen.refusal);
        cr_assert(strstr(seen.info.names, "example.test"), "%s", seen.info.names);
        cr_assert(seen.issuer[0], "the issuer");
        cr_assert_lt(seen.info.not_before_s, seen.info.not_after_s);
        pair_free(&p);
    }
}

Test(tls, inspect)
{
    for (int verify = 0; verify < 2; verify++) {
        inspected("mail", verify, NULL);
        inspected("expired", verify, "expired on 2021-01-01");
        inspected("strange", verify, "is not signed by an authority we trust");
        inspected("other", verify, "is for other.example.test, not for mail.example.test");
    }
}

/* Nobody asked for it: nothing is kept. */
Test(tls, inspect_is_asked_for)
{
    struct tls_pair p;
    struct tls_peer_certificate seen;
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "mail.example.test");
    cr_assert(pair_handshake(&p));
    cr_assert_not(tls_peer_certificate(p.client, &seen));
    pair_free(&p);
}

/* ---- versions and ciphers ---- */

Test(tls, server_wants_tls13)
{
    struct tls_pair p;
    struct tls_identity mail = pair_identity("mail");
    struct tls_server_params s = pair_server_params(&mail);
    s.version_min = 0x0304;
    pair_init(&p, &s, NULL);
    pair_connect(&p, "mail.example.test");
    cr_assert(pair_handshake(&p));
    pair_connect(&p, "mail.example.test");
    pair_force_tls12(&p);
    cr_assert_not(pair_handshake(&p));
    cr_assert_str_eq(p.server_why.text, "TLS: no TLS version in common");
    cr_assert(strstr(p.client_why.text, "the server refused"), "%s", p.client_why.text);
    pair_free(&p);
}

Test(tls, bits_min)
{
    struct tls_pair p;
    struct tls_facts f;
    struct tls_identity mail = pair_identity("mail");
    struct tls_server_params s = pair_server_params(&mail);
    s.bits_min = 256;
    pair_init(&p, &s, NULL);
    for (int tls12 = 0; tls12 < 2; tls12++) {
        pair_connect(&p, "mail.example.test");
        if (tls12)
            pair_force_tls12(&p);
        cr_assert(pair_handshake(&p), "%s", p.server_why.text);
        tls_facts(p.server, &f);
        cr_assert_eq(f.bits, 256, "%s", f.cipher);
    }
    pair_free(&p);
}

Test(tls, no_cipher_in_common)
{
    struct tls_pair p;
    struct tls_identity mail = pair_identity("mail");
    struct tls_server_params s = pair_server_params(&mail);
    s.bits_min = 256;
    pair_init(&p, &s, NULL);
    pair_connect(&p, "mail.example.test");
    pair_client_suites(&p, "TLS13-AES128-GCM-SHA256");
    cr_assert_not(pair_handshake(&p));
    cr_assert_str_eq(p.server_why.text, "TLS: no cipher suite in common");
    cr_assert(strstr(p.client_why.text, "handshake failure"), "%s", p.client_why.text);
    pair_free(&p);
}

Test(tls, bad_params)
{
    struct why why;
    struct tls_identity mail = pair_identity("mail");
    struct tls_server_params s = pair_server_params(&mail);
    cr_assert(tls_global_init(&why));
    s.version_min = 0x0302;
    cr_assert_null(tls_server_ctx_create(&s, &why));
    cr_assert_str_eq(why.text, "TLS version 0x0302 is not offered; use 1.2 or 1.3");
    s.version_min = 0x0303;
    s.bits_min = 512;
    cr_assert_null(tls_server_ctx_create(&s, &why));
    s.bits_min = 0;
    s.identity_count = 0;
    cr_assert_null(tls_server_ctx_create(&s, &why));
    struct tls_client_params c = pair_client_params(true);
    c.ca_file = "tests/unit/data/tls/nothing.pem";
    cr_assert_null(tls_client_ctx_create(&c, &why));
    cr_assert_str_eq(why.text,
                     "tests/unit/data/tls/nothing.pem: no certificates of authorities could be "
                     "read from it");
    c.ca_file = NULL;
    struct tls_ctx *ctx = tls_client_ctx_create(&c, &why);
    cr_assert_not_null(ctx, "%s", why.text); /* the system's bundle */
    tls_ctx_destroy(ctx);
    tls_global_cleanup();
}

/* ---- resumption ---- */

static void resume(bool tls12)
{
    struct tls_pair p, q;
    struct tls_facts f;
    uint8_t room[64];
    struct tls_identity ids[] = {pair_identity("mail"), pair_identity("other")};
    struct tls_server_params s = pair_server_params(ids);
    s.identity_count = 2;
    s.ticket_key = ticket_key;
    pair_init(&p, &s, NULL);
    pair_init(&q, &s, NULL); /* another shard */
    pair_connect(&p, "mail.example.test");
    if (tls12)
        pair_force_tls12(&p);
    cr_assert(pair_handshake(&p));
    struct buf plain = buf_over(room, sizeof room);
    cr_assert_eq(pair_read(&p, false, &plain), TLS_WANT_IN); /* TLS 1.3: the ticket */
    struct tls_session *session = pair_session(&p);
    cr_assert_not_null(session);

    struct tls_pair *shards[] = {&p, &q};
    for (int i = 0; i < 2; i++) {
        pair_connect(shards[i], "mail.example.test");
        if (tls12)
            pair_force_tls12(shards[i]);
        cr_assert(tls_session_set(shards[i]->client, session));
        cr_assert(pair_handshake(shards[i]), "%s / %s", shards[i]->client_why.text,
                  shards[i]->server_why.text);
        tls_facts(shards[i]->server, &f);
        cr_assert(f.resumed, "shard %d", i);
        tls_facts(shards[i]->client, &f);
        cr_assert(f.resumed);
        check_both_ways(shards[i], 5000);
    }
    /* Another name has another certificate: the ticket does not open there, a full handshake
     * follows. */
    pair_connect(&p, "other.example.test");
    if (tls12)
        pair_force_tls12(&p);
    cr_assert(tls_session_set(p.client, session));
    bool ok = pair_handshake(&p);
    if (tls12) { /* wolfSSL's own client cannot go on then; the server sent what it should */
        cr_assert_str_eq(p.client_why.text, "TLS: the peer sent TLS messages out of order");
    } else {
        cr_assert(ok, "%s / %s", p.client_why.text, p.server_why.text);
        tls_facts(p.server, &f);
        cr_assert_not(f.resumed);
    }
    tls_session_free(session);
    pair_free(&p);
    pair_free(&q);
}

Test(tls, resumption_tls13)
{
    resume(false);
}

Test(tls, resumption_tls12)
{
    resume(true);
}

Test(tls, no_tickets_without_key)
{
    struct tls_pair p;
    struct tls_facts f;
    uint8_t room[64];
    pair_init(&p, NULL, NULL);
    for (int tls12 = 0; tls12 < 2; tls12++) {
        pair_connect(&p, "mail.example.test");
        if (tls12)
            pair_force_tls12(&p);
        cr_assert(pair_handshake(&p));
        struct buf plain = buf_over(room, sizeof room);
        cr_assert_eq(pair_read(&p, false, &plain), TLS_WANT_IN);
        struct tls_session *session = pair_session(&p);
        pair_connect(&p, "mail.example.test");
        if (tls12)
            pair_force_tls12(&p);
        if (session && tls_session_set(p.client, session)) {
            cr_assert(pair_handshake(&p), "%s", p.client_why.text);
            tls_facts(p.server, &f);
            cr_assert_not(f.resumed);
        }
        tls_session_free(session);
    }
    pair_free(&p);
}

/* A client may know this host's name from another server and offer that one's ticket: no reason to
 * fail. */
Test(tls, foreign_tickets_are_ignored)
{
    static const uint32_t sizes[] = {1, 16, 17, 100, 174, 192, 208, 700};
    static uint8_t ticket[700];
    struct tls_identity mail = pair_identity("mail");
    struct tls_server_params s = pair_server_params(&mail);
    s.ticket_key = ticket_key;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct tls_pair p;
        pair_init(&p, &s, NULL);
        pair_connect(&p, "mail.example.test");
        pair_force_tls12(&p);
        memset(ticket, (int)i, sizeof ticket);
        pair_client_ticket(&p, ticket, sizes[i]);
        cr_assert_eq(pair_step(&p, false), TLS_WANT_IN);
        cr_assert_eq(pair_step(&p, true), TLS_WANT_IN, "%u: %s", sizes[i], p.server_why.text);
        cr_assert_gt(p.to_client.len, 500, "certificate and key exchange follow");
        cr_assert_eq(p.to_client.bytes[0], 22);
        pair_free(&p);
    }
}

/* ---- the end ---- */

Test(tls, close_notify)
{
    for (int tls12 = 0; tls12 < 2; tls12++) {
        struct tls_pair p;
        uint8_t room[64], out_room[64];
        pair_init(&p, NULL, NULL);
        pair_connect(&p, "mail.example.test");
        if (tls12)
            pair_force_tls12(&p);
        cr_assert(pair_handshake(&p));
        struct slice data = slice_str("QUIT\r\n");
        cr_assert_eq(pair_write(&p, false, &data), TLS_OK);
        struct buf out = buf_over(out_room, sizeof out_room);
        tls_close(p.client, &out);
        cr_assert_gt(out.len, 0);
        uint32_t len = out.len;
        tls_close(p.client, &out); /* only once */
        cr_assert_eq(out.len, len);
        memcpy(p.to_server.bytes + p.to_server.len, out.ptr, out.len);
        p.to_server.len += out.len;
        struct buf plain = buf_over(room, sizeof room);
        cr_assert_eq(pair_read(&p, true, &plain), TLS_OK); /* data first */
        cr_assert_eq(plain.len, 6);
        cr_assert(tls_pending(p.server));
        cr_assert_eq(pair_read(&p, true, &plain), TLS_CLOSED);
        cr_assert_not(tls_pending(p.server));
        cr_assert_eq(pair_read(&p, true, &plain), TLS_CLOSED);
        pair_free(&p);
    }
}

/* FAULTS 27: bytes in clear behind a close_notify are never taken for data. */
Test(tls, f27_plaintext_after_close)
{
    struct tls_pair p;
    uint8_t room[64], out_room[64];
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "mail.example.test");
    cr_assert(pair_handshake(&p));
    struct buf out = buf_over(out_room, sizeof out_room);
    tls_close(p.client, &out);
    memcpy(p.to_server.bytes + p.to_server.len, out.ptr, out.len);
    p.to_server.len += out.len;
    p.to_server.bytes[p.to_server.len++] = '\n';
    struct buf plain = buf_over(room, sizeof room);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pair_read(&p, true, &plain), TLS_CLOSED);
    cr_assert_eq(plain.len, 0);
    pair_free(&p);
}

/* Contexts may go while connections live. */
Test(tls, context_goes_first)
{
    struct tls_pair p;
    pair_init(&p, NULL, NULL);
    pair_connect(&p, "mail.example.test");
    tls_ctx_destroy(p.server_ctx);
    tls_ctx_destroy(p.client_ctx);
    p.server_ctx = p.client_ctx = NULL;
    cr_assert(pair_handshake(&p));
    check_both_ways(&p, 1000);
    pair_free(&p);
}

/* ---- memory ---- */

Test(tls, memory_is_counted_and_given_back)
{
    struct tls_pair p;
    uint64_t start = tls_memory();
    pair_init(&p, NULL, NULL);
    uint64_t idle = tls_memory();
    cr_assert_gt(idle, start);
    for (int i = 0; i < 3; i++) {
        pair_connect(&p, "mail.example.test");
        cr_assert(pair_handshake(&p));
        check_both_ways(&p, 20000);
        cr_assert_gt(tls_memory(), idle);
        pair_disconnect(&p);
        cr_assert_eq(tls_memory(), idle);
    }
    pair_free(&p);
    cr_assert_eq(tls_memory(), start);
}

/* An idle session's heap: the goal of the project is 10 KB at most. */
Test(tls, memory_of_an_idle_server_session)
{
    struct tls_pair p;
    struct tls_identity mail = pair_identity("mail");
    struct tls_server_params s = pair_server_params(&mail);
    s.ticket_key = ticket_key;
    pair_init(&p, &s, NULL);
    for (int tls12 = 0; tls12 < 2; tls12++) {
        enum { COUNT = 50 };
        struct tls_conn *kept[COUNT];
        uint64_t sum = 0;
        pair_connect(&p, "mail.example.test");
        cr_assert(pair_handshake(&p));
        pair_disconnect(&p);
        for (int i = 0; i < COUNT; i++) {
            uint64_t before = tls_memory();
            pair_connect(&p, "mail.example.test");
            if (tls12)
                pair_force_tls12(&p);
            cr_assert(pair_handshake(&p));
            check_both_ways(&p, 5000);
            kept[i] = p.server;
            p.server = NULL;
            pair_disconnect(&p);
            sum += tls_memory() - before;
        }
        cr_log_info("idle TLS 1.%d server session: %llu bytes", tls12 ? 2 : 3,
                    (unsigned long long)(sum / COUNT));
        cr_expect_leq(sum / COUNT, 10240);
        for (int i = 0; i < COUNT; i++)
            tls_conn_free(kept[i]);
    }
    pair_free(&p);
}

Test(tls, memory_limit_ends_handshakes_in_words)
{
    struct tls_pair p;
    pair_init(&p, NULL, NULL);
    uint64_t idle = tls_memory();
    uint32_t refused_count = 0, done = 0;
    for (uint64_t extra = 15000; extra < 40000; extra += 250) {
        pair_connect(&p, "mail.example.test");
        tls_memory_limit(idle + extra);
        bool ok = pair_handshake(&p);
        tls_memory_limit(0);
        done += ok;
        if (!ok) {
            const char *text =
                p.server_status == TLS_FAILED ? p.server_why.text : p.client_why.text;
            refused_count += strstr(text, "no memory left") != NULL;
        }
        pair_disconnect(&p);
        cr_assert_eq(tls_memory(), idle, "leak at %llu", (unsigned long long)extra);
    }
    cr_assert_gt(refused_count, 5);
    cr_assert_gt(done, 5);
    pair_free(&p);
}
