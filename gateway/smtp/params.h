/*
 * gateway/smtp/params.h - the parameters of MAIL and RCPT (RFC 1870, 3461, 4954, 6152, 6531).
 */
#ifndef HIKYAKU_SMTP_PARAMS_H
#define HIKYAKU_SMTP_PARAMS_H

#include "gateway/limits.h"
#include "gateway/smtp/smtp.h"

/* Room that the decoded values of one MAIL need. */
#define SMTP_DECODED_MAX (SMTP_ENVID_MAX + SMTP_PATH_MAX + 2)

/*
 * Parse what follows the path: " KEY[=VALUE]" any number of times. Fill all of `out` but the
 * address. `decoded`: where xtext that has escapes is decoded to; values without any stay slices of
 * `in`. `utf8` (RCPT): the transaction is SMTPUTF8. False fills `why`: 501 5.5.4 or 555 5.5.4.
 */
bool smtp_mail_params_parse(struct slice in, struct smtp_mail *out, struct buf *decoded,
                            struct why *why) __attribute__((warn_unused_result));
bool smtp_rcpt_params_parse(struct slice in, bool utf8, struct smtp_rcpt *out, struct why *why)
    __attribute__((warn_unused_result));

/* xtext (RFC 3461 section 4) both ways. What decodes to anything but printable ASCII is refused. */
bool smtp_xtext_decode(struct slice in, struct buf *out) __attribute__((warn_unused_result));
bool smtp_xtext_encode(struct slice in, struct buf *out) __attribute__((warn_unused_result));

#endif
