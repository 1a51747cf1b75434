/*
 * tests/fuzz/fuzz_proxy_header.c - PROXY headers: the same however they are cut, no byte behind the
 * header consumed, nothing in the texts that a log would have to fear.
 */
#include <stdlib.h>

#include "gateway/smtp/proxy_header.h"

#define REQUIRE(c) ((c) ? (void)0 : abort())

static enum proxy_status feed(struct proxy_header *p, struct slice in, size_t step, size_t *used)
{
    enum proxy_status st = PROXY_NEED_MORE;
    size_t at = 0;
    proxy_header_init(p);
    while (st == PROXY_NEED_MORE && at < in.len) {
        struct slice piece = slice_head(slice_from(in, at), step);
        size_t len = piece.len;
        st = proxy_header_step(p, &piece);
        at += len - piece.len;
        REQUIRE(st != PROXY_NEED_MORE || piece.len == 0);
    }
    *used = at;
    return st;
}

static void require_plain(const char *text, size_t size)
{
    size_t n = strnlen(text, size);
    REQUIRE(n < size);
    for (size_t i = 0; i < n; i++)
        REQUIRE(text[i] > ' ' && text[i] < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header whole, bytewise;
    size_t used, used_bytewise;
    struct slice in = slice_of(data, size);
    enum proxy_status st = feed(&whole, in, size ? size : 1, &used);
    REQUIRE(feed(&bytewise, in, 1, &used_bytewise) == st && used == used_bytewise);
    REQUIRE(used <= PROXY_HEADER_MAX);
    REQUIRE(memcmp(&whole.client, &bytewise.client, sizeof whole.client) == 0);
    REQUIRE(memcmp(&whole.tls, &bytewise.tls, sizeof whole.tls) == 0);
    REQUIRE((st == PROXY_BAD) == (whole.reason != NULL));
    REQUIRE((st == PROXY_CLIENT) == (whole.client.family != 0));
    REQUIRE(st != PROXY_NONE || used == 0);
    require_plain(whole.tls.version, sizeof whole.tls.version);
    require_plain(whole.tls.cipher, sizeof whole.tls.cipher);
    require_plain(whole.tls.common_name, sizeof whole.tls.common_name);
    require_plain(whole.server_name, sizeof whole.server_name);
    return 0;
}
