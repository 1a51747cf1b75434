/*
 * tests/fuzz/fuzz_tls_hello.c - the walk through a ClientHello: the same answer for any prefix that
 * is long enough, nothing read past the end, and what is refused stays refused when more comes.
 */
#include <stdlib.h>

#include "gateway/limits.h"
#include "tls/hello.h"

#define REQUIRE(c) ((c) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls_hello whole, part;
    enum tls_hello_status last = TLS_HELLO_MORE;
    size_t step = size > 600 ? size / 300 : 1;
    for (size_t len = 0; len <= size; len += step) {
        uint8_t *exact = malloc(len ? len : 1); /* so that a read past the end is seen */
        REQUIRE(exact);
        memcpy(exact, data, len);
        enum tls_hello_status status = tls_hello_parse(slice_of(exact, len), &part);
        free(exact);
        REQUIRE(last == TLS_HELLO_MORE || status == last);
        if (last == TLS_HELLO_DONE) {
            REQUIRE(part.name_len == whole.name_len && part.ticket_len == whole.ticket_len);
            REQUIRE(memcmp(part.name, whole.name, whole.name_len) == 0);
            REQUIRE(!memchr(part.name, 0, part.name_len));
        }
        REQUIRE(status != TLS_HELLO_MORE || len <= TLS_HELLO_BYTES_MAX + TLS_HELLO_RECORDS_MAX * 5);
        last = status;
        whole = part;
    }
    return 0;
}
