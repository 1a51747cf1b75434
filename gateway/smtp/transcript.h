/*
 * gateway/smtp/transcript.h - what a protocol log shows of a dialog: its lines, credentials masked,
 * control characters escaped. Pure.
 *
 * The owner gives the bytes of both sides as they are read and written, and says for each piece
 * what the machine took it for. Content of messages never comes here; its owner counts it.
 */
#ifndef HIKYAKU_SMTP_TRANSCRIPT_H
#define HIKYAKU_SMTP_TRANSCRIPT_H

#include "gateway/base/buf.h"
#include "gateway/limits.h"

enum transcript_from { TRANSCRIPT_CLIENT, TRANSCRIPT_SERVER };

struct transcript_side {
    uint32_t kept; /* bytes of the line in `text` */
    uint64_t len;  /* bytes of the line so far */
    bool cr;       /* the last one was CR */
    bool secret;   /* a response of an AUTH exchange, whole or in part */
    uint8_t text[TRANSCRIPT_LINE_MAX];
};

#define TRANSCRIPT_SECRETS 4u /* words of responses that are masked in replies too */

struct transcript {
    struct transcript_side side[2]; /* by enum transcript_from */
    bool challenged;                /* a 334 was said: a response comes next */
    bool wary; /* lines that are no command may be secrets or text of a refused message */
    uint32_t secret_next;
    uint64_t secrets[TRANSCRIPT_SECRETS]; /* hashes, 0: none */
};

/* `late`: the dialog began before. `cut`: a line of it, too, so the first one of each side is shown
 * masked. */
void transcript_init(struct transcript *d, bool late, bool cut);

/*
 * Takes bytes off *in up to the end of a line. True: `out` has the line's text, masked and escaped,
 * without its CRLF (TRANSCRIPT_SHOWN_MAX bytes of room are enough). False: *in is empty, the line
 * is not whole. `secret`: the machine is in an AUTH exchange. Only CRLF ends a line.
 */
bool transcript_line(struct transcript *d, enum transcript_from from, bool secret, struct slice *in,
                     struct buf *out) __attribute__((warn_unused_result));

/* The words of a server, told again: those of responses masked, escaped. */
void transcript_words(const struct transcript *t, struct slice text, struct buf *out);

/* Wipes what is kept. */
void transcript_wipe(struct transcript *d);

/* Appends text with control characters, backslashes and bytes that are no UTF-8 as \xNN. False: no
 * room, it was cut. */
bool transcript_escape(struct slice text, struct buf *out);

#endif
