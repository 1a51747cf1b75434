/*
 * tests/unit/tls_pair.c - a TLS client and a TLS server in one thread, with two wires of bytes
 * between them.
 *
 * Owns:     both ends and the wires.
 * Runs on:  the test's thread.
 * Contract: what one end puts into `out` is what the other end gets, cut into pieces as in_max and
 *           out_max say.
 * Failure:  aborts where the test's own set-up is at fault.
 * Bounds:   WIRE_SIZE each way.
 * Tests:    used by test_tls*.c
 */
#include "tests/unit/tls_pair.h"

#include <stdio.h>
#include <stdlib.h>

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "tls_pair: %s\n", what);
        abort();
    }
}

/* Files are read once and kept in static memory: identities point into it. */
struct kept_file {
    char path[96];
    uint8_t bytes[16384];
    size_t len;
};
static struct kept_file kept[32];

static const struct kept_file *file_read(const char *name, const char *suffix)
{
    char path[sizeof kept[0].path];
    uint32_t i = 0;
    snprintf(path, sizeof path, "tests/unit/data/tls/%s.%s", name, suffix);
    while (i < 32 && kept[i].path[0] && strcmp(kept[i].path, path) != 0)
        i++;
    must(i < 32, "too many files");
    if (!kept[i].path[0]) {
        FILE *f = fopen(path, "rb");
        must(f != NULL, path);
        kept[i].len = fread(kept[i].bytes, 1, sizeof kept[i].bytes, f);
        fclose(f);
        strcpy(kept[i].path, path);
    }
    return &kept[i];
}

struct tls_identity pair_identity(const char *name)
{
    const struct kept_file *certificate = file_read(name, "pem"), *key = file_read(name, "key");
    return (struct tls_identity){.certificate = slice_of(certificate->bytes, certificate->len),
                                 .key = slice_of(key->bytes, key->len),
                                 .certificate_name = certificate->path,
                                 .key_name = key->path};
}

struct tls_server_params pair_server_params(const struct tls_identity *id)
{
    return (struct tls_server_params){
        .identities = id, .identity_count = 1, .version_min = 0x0303, .bits_min = 128};
}

struct tls_client_params pair_client_params(bool verify)
{
    return (struct tls_client_params){
        .version_min = 0x0303, .verify = verify, .ca_file = "tests/unit/data/tls/ca.pem"};
}

void pair_init(struct tls_pair *p, const struct tls_server_params *s,
               const struct tls_client_params *c)
{
    struct why why = {0};
    *p = (struct tls_pair){0};
    must(tls_global_init(&why), why.text);
    struct tls_identity mail = pair_identity("mail");
    struct tls_server_params server = pair_server_params(&mail);
    struct tls_client_params client = pair_client_params(true);
    p->server_ctx = tls_server_ctx_create(s ? s : &server, &why);
    must(p->server_ctx != NULL, why.text);
    p->client_ctx = tls_client_ctx_create(c ? c : &client, &why);
    must(p->client_ctx != NULL, why.text);
    struct tls_client_params client12 = c ? *c : client;
    client12.version_max = 0x0303;
    p->client12_ctx = tls_client_ctx_create(&client12, &why);
    must(p->client12_ctx != NULL, why.text);
    p->to_server.bytes = malloc(WIRE_SIZE);
    p->to_client.bytes = malloc(WIRE_SIZE);
    must(p->to_server.bytes && p->to_client.bytes, "memory");
}

void pair_disconnect(struct tls_pair *p)
{
    tls_conn_free(p->server);
    tls_conn_free(p->client);
    p->server = p->client = NULL;
    p->to_server.at = p->to_server.len = p->to_client.at = p->to_client.len = 0;
    p->server_status = p->client_status = TLS_WANT_IN;
    p->calls = 0;
    why_clear(&p->server_why);
    why_clear(&p->client_why);
}

void pair_connect(struct tls_pair *p, const char *name)
{
    pair_disconnect(p);
    p->server = tls_server_conn(p->server_ctx);
    p->client = tls_client_conn(p->client_ctx, name);
    must(p->server && p->client, "no connection");
    p->name = name;
}

void pair_force_tls12(struct tls_pair *p)
{
    tls_conn_free(p->client);
    p->client = tls_client_conn(p->client12_ctx, p->name);
    must(p->client != NULL, "no connection");
}

void pair_free(struct tls_pair *p)
{
    pair_disconnect(p);
    tls_ctx_destroy(p->server_ctx);
    tls_ctx_destroy(p->client_ctx);
    tls_ctx_destroy(p->client12_ctx);
    free(p->to_server.bytes);
    free(p->to_client.bytes);
    tls_global_cleanup();
}

/* ---- one call ---- */

struct call {
    struct wire *from, *to;
    uint8_t room[18 * 1024];
    struct buf out;
    struct slice in;
    size_t given;
};

static void call_begin(struct tls_pair *p, bool server, struct call *c)
{
    c->from = server ? &p->to_server : &p->to_client;
    c->to = server ? &p->to_client : &p->to_server;
    c->out = buf_over(c->room, p->out_max ? p->out_max : sizeof c->room);
    c->in = slice_of(c->from->bytes + c->from->at, c->from->len - c->from->at);
    if (p->in_max)
        c->in = slice_head(c->in, p->in_max);
    c->given = c->in.len;
    p->calls++;
}

static void call_end(struct call *c)
{
    c->from->at += c->given - c->in.len;
    must(c->to->len + c->out.len <= WIRE_SIZE, "wire is full");
    memcpy(c->to->bytes + c->to->len, c->out.ptr, c->out.len);
    c->to->len += c->out.len;
}

enum tls_status pair_step(struct tls_pair *p, bool server)
{
    struct call c;
    call_begin(p, server, &c);
    enum tls_status status = tls_handshake(server ? p->server : p->client, &c.in, &c.out,
                                           server ? &p->server_why : &p->client_why);
    call_end(&c);
    *(server ? &p->server_status : &p->client_status) = status;
    return status;
}

enum tls_status pair_write(struct tls_pair *p, bool server, struct slice *data)
{
    struct call c;
    call_begin(p, server, &c);
    enum tls_status status = tls_write(server ? p->server : p->client, data, &c.out,
                                       server ? &p->server_why : &p->client_why);
    call_end(&c);
    return status;
}

enum tls_status pair_read(struct tls_pair *p, bool server, struct buf *plain)
{
    struct call c;
    call_begin(p, server, &c);
    enum tls_status status = tls_read(server ? p->server : p->client, &c.in, &c.out, plain,
                                      server ? &p->server_why : &p->client_why);
    call_end(&c);
    return status;
}

static bool has_input(const struct wire *w)
{
    return w->at < w->len;
}

bool pair_handshake(struct tls_pair *p)
{
    p->server_status = p->client_status = TLS_WANT_OUT;
    for (;;) {
        bool moved = false;
        for (int server = 0; server < 2; server++) {
            enum tls_status *status = server ? &p->server_status : &p->client_status;
            struct wire *from = server ? &p->to_server : &p->to_client;
            if (*status == TLS_OK || *status == TLS_FAILED ||
                (*status == TLS_WANT_IN && !has_input(from)))
                continue;
            moved = true;
            pair_step(p, server);
        }
        if (!moved)
            return p->server_status == TLS_OK && p->client_status == TLS_OK;
    }
}

bool pair_transfer(struct tls_pair *p, bool from_server, struct slice data)
{
    static uint8_t got[WIRE_SIZE];
    struct buf plain = buf_over(got, sizeof got);
    struct slice rest = data;
    enum tls_status w = TLS_WANT_OUT;
    for (int idle = 0; plain.len < data.len && idle < 4; idle++) {
        while (w == TLS_WANT_OUT)
            w = pair_write(p, from_server, &rest);
        if (w != TLS_OK)
            return false;
        struct wire *from = from_server ? &p->to_client : &p->to_server;
        while (has_input(from) || tls_pending(from_server ? p->client : p->server)) {
            enum tls_status r = pair_read(p, !from_server, &plain);
            if (r == TLS_FAILED || r == TLS_CLOSED)
                return false;
            idle = 0;
        }
    }
    return rest.len == 0 && slice_eq(buf_slice(&plain), data);
}
