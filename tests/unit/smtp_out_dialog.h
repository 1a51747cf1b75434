/*
 * tests/unit/smtp_out_dialog.h - plays a written dialog against smtp_out and tells what the owner
 * heard.
 *
 * A script has one line for each thing that happens:
 *   S: text   the server says it, with CRLF       P: text   the same without CRLF
 *   C: text   the client has said it, with CRLF   X: text   the connection is lost
 * Consecutive S lines come in one piece (or byte by byte), consecutive C lines are all that was
 * sent since. The owner begins one transaction after another and quits after the last.
 */
#ifndef HIKYAKU_TESTS_SMTP_OUT_DIALOG_H
#define HIKYAKU_TESTS_SMTP_OUT_DIALOG_H

#include "gateway/smtp/smtp_out.h"

struct dialog {
    const char *name;
    const struct smtp_out_config *config;
    bool implicit_tls;
    const struct smtp_out_tx *tx[4]; /* NULL: no more */
    const char *body;
    bool ahead; /* a transaction's commands go out behind the dot of the one before, if they may */
    const char *script;
    /* Words: starttls ready rcpt:N:CODE body done:CODE:PHASE[:sent] failed:CODE:PHASE[:dup] closed
     */
    const char *events;
    const char *last_text; /* part of the last reply told, or NULL */
};

/* In one piece, byte by byte, and with a small buffer. */
void dialog_play(const struct dialog *d);

/* The word for one event, appended to `log`. */
void dialog_log_event(const struct smtp_out_event *ev, struct buf *log);

#endif
