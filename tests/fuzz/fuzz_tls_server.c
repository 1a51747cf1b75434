/*
 * tests/fuzz/fuzz_tls_server.c - bytes of a stranger against the TLS server, cut as the first byte
 * says: it never gets in, output keeps to its room, failures have words, and all memory comes back.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tls/tls.h"

#define REQUIRE(c) ((c) ? (void)0 : abort())

static uint8_t pem[2][8192];

static struct slice file_read(int i, const char *path)
{
    FILE *f = fopen(path, "rb");
    REQUIRE(f);
    size_t n = fread(pem[i], 1, sizeof pem[i], f);
    fclose(f);
    return slice_of(pem[i], n);
}

static struct tls_ctx *context(void)
{
    static const uint8_t ticket_key[48] = "fuzz";
    struct why why = {0};
    REQUIRE(tls_global_init(&why));
    struct tls_identity id = {.certificate = file_read(0, "tests/unit/data/tls/mail.pem"),
                              .key = file_read(1, "tests/unit/data/tls/mail.key")};
    struct tls_server_params p = {.identities = &id,
                                  .identity_count = 1,
                                  .version_min = 0x0303,
                                  .bits_min = 128,
                                  .ticket_key = ticket_key};
    struct tls_ctx *ctx = tls_server_ctx_create(&p, &why);
    REQUIRE(ctx);
    return ctx;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tls_ctx *ctx;
    if (!ctx)
        ctx = context();
    if (size == 0)
        return 0;
    uint64_t before = tls_memory();
    struct tls_conn *c = tls_server_conn(ctx);
    REQUIRE(c);
    size_t step = data[0] ? data[0] * 7 : size;
    struct slice all = slice_of(data + 1, size - 1);
    enum tls_status status = TLS_WANT_IN;
    while (all.len && status == TLS_WANT_IN) {
        struct slice in = slice_head(all, step);
        size_t given = in.len;
        do {
            uint8_t room[4096];
            struct buf out = buf_over(room, data[0] & 1 ? 33 : sizeof room);
            struct why why = {0};
            status = tls_handshake(c, &in, &out, &why);
            REQUIRE(status == TLS_WANT_IN || status == TLS_WANT_OUT || status == TLS_FAILED);
            REQUIRE(!out.overflow && out.len <= out.cap);
            REQUIRE((status == TLS_FAILED) == (strncmp(why.text, "TLS: ", 5) == 0));
            REQUIRE(tls_memory() - before < 100000);
        } while (status == TLS_WANT_OUT);
        REQUIRE(in.len == 0 || status == TLS_FAILED);
        all = slice_from(all, given);
    }
    tls_conn_free(c);
    REQUIRE(tls_memory() == before);
    return 0;
}
