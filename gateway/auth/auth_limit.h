/*
 * gateway/auth/auth_limit.h - guessing is slow: failed logins counted over sessions, by client
 * address (IPv6: its /64) and by account (FAULTS 46). Pure: time is given.
 *
 * An attempt from an address, or at an account, with many recent failures waits for its turn before
 * its password is looked at, and is refused when too many wait already. Where an account logged in
 * from an address before, that pair goes first and never waits: a customer is not locked out by a
 * guesser behind the same NAT, nor by one who guesses at the customer's account from elsewhere.
 */
#ifndef HIKYAKU_AUTH_LIMIT_H
#define HIKYAKU_AUTH_LIMIT_H

#include "gateway/base/slice.h"
#include "gateway/io/io.h"

struct auth_limit; /* one per shard, fixed size */
struct auth_limit *auth_limit_create(uint32_t entries, const uint8_t key[32]);
void auth_limit_destroy(struct auth_limit *l);

/* Who tries, made once an attempt: keyed hashes of address, account, and both. */
struct auth_who {
    uint64_t address, account, pair;
};
void auth_limit_who(const struct auth_limit *l, const struct io_addr *client, struct slice account,
                    struct auth_who *who);
/* The pair alone, for one who needs no turn: its password is known to be right. */
void auth_limit_pair(const struct auth_limit *l, const struct io_addr *client, struct slice account,
                     struct auth_who *who);

enum auth_turn {
    AUTH_TURN_NOW,
    AUTH_TURN_LATER, /* in *wait_ns */
    AUTH_TURN_NEVER  /* too many wait: 421 4.7.0 */
};
/* May the password be looked at? Counts the attempt's turn unless the answer is NEVER. */
enum auth_turn auth_limit_ask(struct auth_limit *l, const struct auth_who *who, uint64_t now_ns,
                              uint64_t *wait_ns);
/* The password was wrong. Answers how late the 535 should be; `in_session`: failures of this
 * session, this one included. */
uint64_t auth_limit_failed(struct auth_limit *l, const struct auth_who *who, uint32_t in_session,
                           uint64_t now_ns);
/* The password was right. */
void auth_limit_passed(struct auth_limit *l, const struct auth_who *who, uint64_t now_ns);

#endif
