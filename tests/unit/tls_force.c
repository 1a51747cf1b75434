/*
 * tests/unit/tls_force.c - make a connection behave as our own contexts never do: the tests' reach
 * into tls/internal.h.
 */
#include "tls/internal.h"

#include <stdlib.h>

#include "tests/unit/tls_pair.h"

void pair_client_suites(struct tls_pair *p, const char *suites)
{
    if (wolfSSL_set_cipher_list(tls_conn_library(p->client), suites) != WOLFSSL_SUCCESS)
        abort();
}

struct tls_session *pair_session(struct tls_pair *p)
{
    return (struct tls_session *)wolfSSL_get1_session(tls_conn_library(p->client));
}

void pair_client_ticket(struct tls_pair *p, const uint8_t *ticket, uint32_t len)
{
    if (wolfSSL_set_SessionTicket(tls_conn_library(p->client), ticket, len) != WOLFSSL_SUCCESS)
        abort();
}

void pair_key_update(struct tls_pair *p)
{
    struct tls_conn *c = p->client;
    struct slice nothing = {0};
    uint8_t room[64];
    struct buf out = buf_over(room, sizeof room);
    struct why why;
    /* The library sends through the buffer of the call that is under way: lend it one. */
    tls_conn_lend(c, &nothing, &out, &why);
    if (wolfSSL_update_keys(tls_conn_library(c)) != WOLFSSL_SUCCESS)
        abort();
    tls_conn_lend(c, NULL, NULL, NULL);
    memcpy(p->to_server.bytes + p->to_server.len, room, out.len);
    p->to_server.len += out.len;
}
