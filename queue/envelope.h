/*
 * queue/envelope.h - what travels with a message besides its bytes; encoded into MESSAGE records.
 *
 * Plain data: slices point into an arena (or into a decoded record) of whoever holds the envelope.
 */
#ifndef HIKYAKU_QUEUE_ENVELOPE_H
#define HIKYAKU_QUEUE_ENVELOPE_H

#include "gateway/base/arena.h"
#include "gateway/base/buf.h"
#include "gateway/base/slice.h"

struct envelope_rcpt {
    struct slice mailbox;
    struct slice orcpt; /* RFC 3461; may be empty */
    uint8_t notify;     /* RFC 3461 bits, gateway/smtp/smtp.h */
};

enum envelope_flags {
    ENVELOPE_8BIT = 1,
    ENVELOPE_SMTPUTF8 = 2,
    ENVELOPE_RET_FULL = 4,
    ENVELOPE_RET_HDRS = 8,
    ENVELOPE_AUTHENTICATED = 16,
    ENVELOPE_TLS = 32,
    ENVELOPE_DSN = 64,       /* a delivery status notification that we made */
    ENVELOPE_WAS_HELD = 128, /* handed over: its state where it came from */
    ENVELOPE_WAS_POISON = 256
};

struct envelope {
    struct slice sender; /* mailbox; empty: null sender */
    struct slice envid;
    struct slice account;   /* authenticated as; may be empty */
    struct slice connector; /* receive connector's name */
    struct slice client;    /* client address as text */
    struct slice helo;
    struct slice session; /* session id, for tracking */
    struct slice subject; /* first SMTP_SUBJECT_MAX bytes, for operators; may be empty */
    /* Of a message that another gateway handed over: the id under which it did, and the queue id
     * that it had where it was accepted. Else empty. */
    struct slice handoff, origin;
    uint32_t flags; /* enum envelope_flags */
    uint64_t accepted_wall_ns;
    struct envelope_rcpt *rcpts;
    uint32_t rcpt_count;
};

/* Bytes that envelope_encode needs. */
size_t envelope_encoded_size(const struct envelope *e);
bool envelope_encode(const struct envelope *e, struct buf *out) __attribute__((warn_unused_result));
/* Trusts nothing. Strings stay in `in`; the recipient array comes from `arena`. */
bool envelope_decode(struct slice in, struct arena *arena, struct envelope *out)
    __attribute__((warn_unused_result));

#endif
