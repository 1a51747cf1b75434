/*
 * gateway/smtp/plain.h - the part of a message body that needs no second look, found quickly.
 *
 * A block is plain when it holds CR and LF as CRLF only, no NUL, and no dot that begins a line
 * (RFC 5321 sections 2.3.8, 4.5.2). Every version of the search gives the same answer; which one
 * runs depends on the processor alone.
 */
#ifndef HIKYAKU_SMTP_PLAIN_H
#define HIKYAKU_SMTP_PLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SMTP_PLAIN_BLOCK 64u /* bytes */

/*
 * Bytes at `p`, a multiple of SMTP_PLAIN_BLOCK and at most `len`, up to the first block that is not
 * plain. p[-1] is read too: it is the byte of the message before p. A CR as the last byte is left
 * to whoever looks at the byte behind it. *eight_bit becomes true when one of them is over 127, and
 * stays as it was when none is.
 */
size_t smtp_plain_blocks(const uint8_t *p, size_t len, bool *eight_bit)
    __attribute__((warn_unused_result));

/* One version, for comparison in tests. False: this processor does not have it. */
enum smtp_plain_version { SMTP_PLAIN_PORTABLE, SMTP_PLAIN_AVX2, SMTP_PLAIN_AVX512 };

bool smtp_plain_blocks_by(enum smtp_plain_version version, const uint8_t *p, size_t len,
                          bool *eight_bit, size_t *blocks) __attribute__((warn_unused_result));

#endif
