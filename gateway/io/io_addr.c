/*
 * gateway/io/io_addr.c - addresses as text. Both backends share it.
 *
 * Owns:     nothing.
 * Runs on:  any thread.
 * Contract: io_addr_parse takes what inet_pton takes, IPv6 also in brackets; nothing is looked up.
 * Failure:  false, and *out is left alone.
 * Bounds:   IO_ADDR_TEXT_MAX.
 * Tests:    tests/unit/test_io_addr.c
 */
#include <arpa/inet.h>

#include "gateway/base/buf.h"
#include "gateway/io/io.h"

bool io_addr_parse(struct io_addr *out, struct slice host, uint16_t port)
{
    struct io_addr a = {0};
    char text[IO_ADDR_TEXT_MAX];

    if (host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']') {
        host = slice_head(slice_from(host, 1), host.len - 2);
        if (slice_find(host, ':') == host.len)
            return false; /* brackets are IPv6's here */
    }
    if (host.len == 0 || host.len >= sizeof text || slice_find(host, '\0') < host.len)
        return false;
    memcpy(text, host.ptr, host.len);
    text[host.len] = '\0';
    if (inet_pton(AF_INET, text, &a.in.sin_addr) == 1) {
        a.in.sin_family = AF_INET;
        a.in.sin_port = htons(port);
        a.len = sizeof a.in;
    } else if (inet_pton(AF_INET6, text, &a.in6.sin6_addr) == 1) {
        a.in6.sin6_family = AF_INET6;
        a.in6.sin6_port = htons(port);
        a.len = sizeof a.in6;
    } else {
        return false;
    }
    *out = a;
    return true;
}

static void add_host(struct buf *out, const struct io_addr *a)
{
    char v6[INET6_ADDRSTRLEN] = "?";
    uint8_t v4[4];

    if (a->len != 0 && a->sa.sa_family == AF_INET) {
        memcpy(v4, &a->in.sin_addr, sizeof v4);
        for (int i = 0; i < 4; i++) {
            if (i)
                buf_add_byte(out, '.');
            buf_add_number(out, v4[i], 1);
        }
        return;
    }
    if (a->len != 0 && a->sa.sa_family == AF_INET6)
        inet_ntop(AF_INET6, &a->in6.sin6_addr, v6, sizeof v6);
    buf_add_str(out, v6);
}

const char *io_addr_text(const struct io_addr *a, bool with_port, char text[IO_ADDR_TEXT_MAX])
{
    bool brackets = with_port && a->len != 0 && a->sa.sa_family == AF_INET6;
    struct buf out = buf_over(text, IO_ADDR_TEXT_MAX - 1);

    if (brackets)
        buf_add_byte(&out, '[');
    add_host(&out, a);
    if (brackets)
        buf_add_byte(&out, ']');
    if (with_port) {
        buf_add_byte(&out, ':');
        buf_add_number(&out, io_addr_port(a), 1);
    }
    text[out.len] = '\0';
    return text;
}

uint16_t io_addr_port(const struct io_addr *a)
{
    if (a->len == 0)
        return 0;
    return ntohs(a->sa.sa_family == AF_INET6 ? a->in6.sin6_port : a->in.sin_port);
}
