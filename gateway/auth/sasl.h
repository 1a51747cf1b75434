/*
 * gateway/auth/sasl.h - SASL mechanisms (RFC 4422, 4616 PLAIN, LOGIN as deployed), both roles,
 * without I/O.
 *
 * Messages here are decoded; base64 is done by the SMTP machines.
 */
#ifndef HIKYAKU_SASL_H
#define HIKYAKU_SASL_H

#include "gateway/base/buf.h"
#include "gateway/base/slice.h"
#include "gateway/limits.h"

enum sasl_mechanism { SASL_PLAIN = 1, SASL_LOGIN = 2 };

/* Valid while the sasl_server lives and is not wiped. Length 0 authzid: none given. */
struct sasl_credentials {
    enum sasl_mechanism mechanism;
    struct slice authzid, authcid, password;
};

enum sasl_status {
    SASL_CHALLENGE, /* send `challenge` and come again */
    SASL_CHECK,     /* credentials are complete */
    SASL_MALFORMED  /* 501 5.5.2 */
};

struct sasl_server {
    uint8_t mechanism, step;
    uint16_t user_len, pass_len, authzid_len;
    uint8_t *store; /* user, password: memory lent by the owner, AUTH_USER_MAX*2 + AUTH_PASSWORD_MAX
                       + 8 bytes; wiped at the end */
};

/* Name without regard to case; 0: unknown. */
uint32_t sasl_mechanism_find(struct slice name);
/* "PLAIN LOGIN" in the usual order for the given bits. */
void sasl_mechanism_list(uint32_t mechanisms, struct buf *out);

#define SASL_STORE_SIZE (AUTH_USER_MAX * 2 + AUTH_PASSWORD_MAX + 8)
void sasl_server_start(struct sasl_server *s, enum sasl_mechanism m,
                       uint8_t store[SASL_STORE_SIZE]);
/* `has_response` false: no initial response was given. Challenges for LOGIN: "Username:",
 * "Password:". */
enum sasl_status sasl_server_step(struct sasl_server *s, bool has_response, struct slice response,
                                  struct slice *challenge, struct sasl_credentials *out);
void sasl_server_wipe(struct sasl_server *s);

struct sasl_client {
    uint8_t mechanism, step;
    struct slice user, password;
};
void sasl_client_start(struct sasl_client *c, enum sasl_mechanism m, struct slice user,
                       struct slice password);
/* Next response to `challenge` (decoded), appended to `out`. False: the server's challenge makes no
 * sense. `*initial` asks for an initial response at start (challenge empty). */
bool sasl_client_step(struct sasl_client *c, struct slice challenge, struct buf *out)
    __attribute__((warn_unused_result));

/* RFC 4648 section 4, strict: no white space, correct padding. Return false when it does not fit or
 * is malformed. */
bool base64_decode(struct slice in, struct buf *out) __attribute__((warn_unused_result));
bool base64_encode(struct slice in, struct buf *out) __attribute__((warn_unused_result));

#endif
