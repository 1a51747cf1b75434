/*
 * tests/unit/tls_pair.h - a TLS client and a TLS server in one thread, with two wires of bytes
 * between them.
 */
#ifndef HIKYAKU_TESTS_TLS_PAIR_H
#define HIKYAKU_TESTS_TLS_PAIR_H

#include "tls/tls.h"

#define WIRE_SIZE (4u << 20)

struct wire {
    uint8_t *bytes;
    size_t at, len;
};

struct tls_pair {
    struct tls_ctx *server_ctx, *client_ctx;
    struct tls_ctx *client12_ctx; /* the client's parameters, but without TLS 1.3 */
    struct tls_conn *server, *client;
    const char *name; /* of the last pair_connect */
    struct wire to_server, to_client;
    uint32_t in_max;  /* bytes given to one call; 0: all there is */
    uint32_t out_max; /* room given to one call; 0: 18 KiB */
    struct why server_why, client_why;
    enum tls_status server_status, client_status;
    uint32_t calls;
};

/* tests/unit/data/tls/NAME.pem and .key. */
struct tls_identity pair_identity(const char *name);
/*
 * Contexts with what the test wants; NULL params: one identity "mail", TLS 1.2 and up; a client
 * that trusts ca.pem.
 */
void pair_init(struct tls_pair *p, const struct tls_server_params *s,
               const struct tls_client_params *c);
struct tls_server_params pair_server_params(const struct tls_identity *id);
struct tls_client_params pair_client_params(bool verify);
/* New connections on the same contexts. */
void pair_connect(struct tls_pair *p, const char *name);
/* Handshakes until both are done or one has failed. True: both done. */
bool pair_handshake(struct tls_pair *p);
/* Drops the connections, keeps the contexts. */
void pair_disconnect(struct tls_pair *p);
void pair_free(struct tls_pair *p);

/* One call of each kind with the pair's limits. Output goes onto the wire. */
enum tls_status pair_step(struct tls_pair *p, bool server);
enum tls_status pair_write(struct tls_pair *p, bool server, struct slice *data);
enum tls_status pair_read(struct tls_pair *p, bool server, struct buf *plain);
/* Sends all of `data` one way and checks what arrives. */
bool pair_transfer(struct tls_pair *p, bool from_server, struct slice data);

/* Between pair_connect and the handshake: the client offers TLS 1.2 at most. */
void pair_force_tls12(struct tls_pair *p);

/* ---- tls_force.c: what our own contexts never do ---- */

void pair_client_suites(struct tls_pair *p, const char *suites);
/* The client offers a TLS 1.2 ticket of somebody else. */
void pair_client_ticket(struct tls_pair *p, const uint8_t *ticket, uint32_t len);
/* The client sends a TLS 1.3 KeyUpdate that asks for one in return. */
void pair_key_update(struct tls_pair *p);
/* The client's session, also a TLS 1.2 one. */
struct tls_session *pair_session(struct tls_pair *p);

#endif
