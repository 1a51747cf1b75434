/*
 * gateway/smtp/smtp.h - words shared by both roles of SMTP (RFC 5321).
 */
#ifndef HIKYAKU_SMTP_H
#define HIKYAKU_SMTP_H

#include "gateway/base/buf.h"
#include "gateway/base/slice.h"
#include "gateway/base/why.h"

/* What a step wants from its caller. */
enum smtp_parse { SMTP_PARSE_NEED_MORE, SMTP_PARSE_DONE, SMTP_PARSE_BAD };

/* RFC 3461 section 4.1. 0: not given (the default: FAILURE, and DELAY at our choice). */
enum smtp_notify {
    SMTP_NOTIFY_NEVER = 1,
    SMTP_NOTIFY_SUCCESS = 2,
    SMTP_NOTIFY_FAILURE = 4,
    SMTP_NOTIFY_DELAY = 8
};

enum smtp_ret { SMTP_RET_NONE, SMTP_RET_FULL, SMTP_RET_HDRS }; /* RFC 3461 section 4.3 */

/* A mailbox: local-part@domain as sent (quoted local parts keep their quotes); <> has len 0. */
struct smtp_address {
    struct slice mailbox;       /* whole, without <>, source route stripped */
    struct slice local, domain; /* inside mailbox; domain may be an address literal "[192.0.2.1]" */
};

/* MAIL FROM with its parameters. Slices point into the caller's input line. */
struct smtp_mail {
    struct smtp_address from; /* mailbox.len 0: the null sender */
    uint64_t size;            /* RFC 1870; 0: not declared */
    bool body_8bit;           /* BODY=8BITMIME (RFC 6152) */
    bool smtputf8;            /* RFC 6531 */
    enum smtp_ret ret;
    struct slice envid; /* decoded xtext */
    struct slice auth;  /* AUTH= (RFC 4954 section 5), decoded; kept for the log only */
};

struct smtp_rcpt {
    struct smtp_address to;
    uint8_t notify;     /* bits of enum smtp_notify */
    struct slice orcpt; /* as sent: "rfc822;" xtext; checked */
};

/*
 * Parses the path after "FROM:"/"TO:" (with optional source route, RFC 5321 section 4.1.2; quoted
 * strings, address literals). `utf8`: non-ASCII allowed (RFC 6531) and checked to be valid UTF-8.
 * `postmaster_ok`: <Postmaster> without a domain. On success *rest is what follows the '>'. False
 * fills `why` (501 5.1.3 or 5.1.7 as `for_rcpt`, 553 5.6.7).
 */
bool smtp_path_parse(struct slice in, bool for_rcpt, bool utf8, struct smtp_address *out,
                     struct slice *rest, struct why *why) __attribute__((warn_unused_result));

/* A bare mailbox (no <>), as in configuration files and DSN fields. */
bool smtp_mailbox_parse(struct slice in, bool utf8, struct smtp_address *out)
    __attribute__((warn_unused_result));

bool smtp_utf8_valid(struct slice s);

#endif
