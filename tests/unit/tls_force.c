/*
 * tests/unit/tls_force.c - make a connection behave as our own contexts never do: the tests' reach into tls/internal.h.
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
