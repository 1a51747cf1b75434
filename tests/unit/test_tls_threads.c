/*
 * tests/unit/test_tls_threads.c - shards side by side: contexts made in one place, each used by a
 * thread of its own. wolfSSL is built without locks, so anything that contexts still shared would
 * show here, above all under the address sanitizer.
 */
#include <criterion/criterion.h>

#include <pthread.h>

#include "tests/unit/tls_pair.h"

enum { THREADS = 4, ROUNDS = 60 };

static const uint8_t ticket_key[48] = "forty-eight bytes that all shards have in common";

struct shard {
    struct tls_pair pair;
    pthread_t thread;
    uint32_t done, resumed;
};

/* A line there and one back. */
static bool talk(struct tls_pair *p)
{
    uint8_t room[64];
    struct slice command = slice_str("NOOP\r\n"), reply = slice_str("250 OK\r\n");
    struct buf plain = buf_over(room, sizeof room);
    if (pair_write(p, false, &command) != TLS_OK || pair_read(p, true, &plain) != TLS_OK ||
        plain.len != 6)
        return false;
    plain.len = 0;
    return pair_write(p, true, &reply) == TLS_OK && pair_read(p, false, &plain) == TLS_OK &&
           plain.len == 8;
}

static void *shard_run(void *arg)
{
    struct shard *s = arg;
    struct tls_session *session = NULL;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct tls_facts facts;
        pair_connect(&s->pair, i % 3 ? "mail.example.test" : "other.example.test");
        if (i % 5 == 1)
            pair_force_tls12(&s->pair);
        else if (session && i % 3 && !tls_session_set(s->pair.client, session))
            break;
        if (!pair_handshake(&s->pair) || !talk(&s->pair))
            break;
        tls_facts(s->pair.server, &facts);
        s->resumed += facts.resumed;
        s->done++;
        if (!session && i % 3 && i % 5 != 1)
            session = tls_session_get(s->pair.client);
    }
    tls_session_free(session);
    return NULL;
}

Test(tls_threads, shards_side_by_side)
{
    static struct shard shards[THREADS];
    struct tls_identity ids[] = {pair_identity("mail"), pair_identity("other")};
    struct tls_server_params p = pair_server_params(ids);
    p.identity_count = 2;
    p.ticket_key = ticket_key;
    for (int i = 0; i < THREADS; i++)
        pair_init(&shards[i].pair, &p, NULL);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&shards[i].thread, NULL, shard_run, &shards[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(shards[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) {
        cr_expect_eq(shards[i].done, ROUNDS, "%d: %s / %s", i, shards[i].pair.client_why.text,
                     shards[i].pair.server_why.text);
        cr_expect_gt(shards[i].resumed, 10);
        pair_free(&shards[i].pair);
    }
}
