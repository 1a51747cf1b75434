/*
 * routing/relay.h - who may send to whom (EXCHANGE rows E17, E18, E33, E34). Pure; plain values in.
 */
#ifndef HIKYAKU_RELAY_H
#define HIKYAKU_RELAY_H

#include "gateway/base/slice.h"
#include "gateway/base/why.h"

struct relay_domains; /* accepted domains, hashed */

struct relay_domains *relay_domains_create(void);
bool relay_domains_add(struct relay_domains *d, const char *domain, uint8_t type);
void relay_domains_destroy(struct relay_domains *d);
/* `type` may be NULL. Compares without regard to case; IDN domains as given (A-labels) */
bool relay_domains_find(const struct relay_domains *d, struct slice domain, uint8_t *type);

/* With `type`: the domain has just the mailboxes of a list (relay_recipients). */
#define RELAY_LISTED 0x80u

struct relay_recipients; /* mailboxes of accepted domains, hashed */

struct relay_recipients *relay_recipients_create(void);
/* One "user" or "user@domain" a line, `#` begins a comment. False: *bad_line, or 0 for want of
 * memory. `domain`: in A-labels. */
bool relay_recipients_add(struct relay_recipients *r, const char *domain, struct slice text,
                          uint32_t *bad_line) __attribute__((warn_unused_result));
bool relay_recipients_has(const struct relay_recipients *r, struct slice local,
                          struct slice domain);
void relay_recipients_destroy(struct relay_recipients *r);

struct relay_query {
    bool authenticated;     /* and the connector's relay.authenticated is true */
    bool network_may_relay; /* the client address is in relay.networks */
    const struct relay_domains *accepted;
    const struct relay_recipients *recipients;
    struct slice rcpt_local, rcpt_domain; /* of the recipient, as sent */
    bool connector_allows;                /* a send connector with allow_relay has this space */
};
/*
 * False: 550 5.7.1 Unable to relay; 550 5.1.1 for a mailbox that a listed domain does not have,
 * whoever asks. Percent hacks, bang paths and source routes never widen what is
 * allowed (FAULTS 13, 34).
 */
bool relay_may(const struct relay_query *q, struct why *why) __attribute__((warn_unused_result));

/*
 * MAIL FROM must be one of the account's senders ("user@dom", "@dom" for a whole domain, "*" any;
 * empty list: the account name itself when it is an address, else anything at all is refused but
 * <>). Null sender allowed (RFC 6409 section 6.1 leaves it to policy). False: 550 5.7.60.
 */
bool relay_sender_may(struct slice account, const struct slice *senders, uint32_t sender_count,
                      struct slice mail_from, struct why *why) __attribute__((warn_unused_result));

#endif
