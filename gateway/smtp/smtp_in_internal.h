/*
 * gateway/smtp/smtp_in_internal.h - what the files of the server machine share; nobody else
 * includes it.
 */
#ifndef HIKYAKU_SMTP_IN_INTERNAL_H
#define HIKYAKU_SMTP_IN_INTERNAL_H

#include "gateway/smtp/smtp_in.h"

enum connection_state {
    CONNECTION_NEW,      /* before the greeting */
    CONNECTION_OPEN,     /* commands or data */
    CONNECTION_STARTTLS, /* 220 is said, the handshake is due */
    CONNECTION_CLOSING   /* the last reply is said */
};

enum slot_state {
    SLOT_FREE,
    SLOT_SASL, /* a 334 is said: the next line is a response */
    SLOT_AUTH, /* the owner's answer is due, as in all that follow */
    SLOT_MAIL,
    SLOT_RCPT,
    SLOT_DATA,
    SLOT_END,
    SLOT_HANDOFF /* XHANDOFF-COMMIT, -ABORT, -NEXT */
};

enum transaction_state {
    TRANSACTION_NONE,
    TRANSACTION_OPEN, /* MAIL was accepted */
    TRANSACTION_DATA, /* 354 is said */
    TRANSACTION_ENDED /* the end of data has come */
};

/* Of the lent buffer: the line's part; the rest is the SASL store. A longer line is known to be
 * wrong by its length. */
#define SMTP_IN_LINE_KEPT (SMTP_AUTH_LINE_MAX - SASL_STORE_SIZE)

enum line_result {
    LINE_NONE,     /* no whole line yet */
    LINE_READY,    /* *line, without its CRLF */
    LINE_TOO_LONG, /* said once; the tail is discarded */
    LINE_NOT_CRLF, /* a bare CR or LF or a NUL in it; it is discarded */
    LINE_FLOOD     /* SMTP_LINE_DISCARD_MAX is passed */
};

/* smtp_in_line.c */
enum line_result smtp_in_line_next(struct smtp_in *s, struct slice *in, struct slice *line);

/* smtp_in.c: one setter a machine; an edge that is not in its table asserts. */
void smtp_in_connection_set(struct smtp_in *s, enum connection_state to);
void smtp_in_slot_set(struct smtp_in *s, enum slot_state to);
void smtp_in_transaction_set(struct smtp_in *s, enum transaction_state to);
/* Drops the transaction, if any. */
void smtp_in_transaction_drop(struct smtp_in *s);

void smtp_in_reply(struct buf *out, unsigned code, const char *enhanced, const char *text);
/* As above, and the connection closes. */
void smtp_in_reply_close(struct smtp_in *s, struct buf *out, unsigned code, const char *enhanced,
                         const char *text);
/* Replies to a command that was wrong, or that brings no message nearer; too many of them:
 * 421 4.7.0 instead. */
void smtp_in_reply_bad(struct smtp_in *s, struct buf *out, unsigned code, const char *enhanced,
                       const char *text);
void smtp_in_reply_idle(struct smtp_in *s, struct buf *out, unsigned code, const char *enhanced,
                        const char *text);
/* Replies to a refused recipient. */
void smtp_in_reply_rcpt(struct smtp_in *s, struct buf *out, const struct why *why);

/* smtp_in_command.c: performs one line; true when *ev is to be given to the owner. */
bool smtp_in_command(struct smtp_in *s, struct slice line, struct buf *out,
                     struct smtp_in_event *ev);
/* smtp_in_auth.c */
bool smtp_in_auth_command(struct smtp_in *s, struct slice arg, struct buf *out,
                          struct smtp_in_event *ev);
bool smtp_in_auth_response(struct smtp_in *s, struct slice line, struct buf *out,
                           struct smtp_in_event *ev);
/* The exchange is over, however it went: secrets are wiped, the slot is free. */
void smtp_in_auth_end(struct smtp_in *s);
uint32_t smtp_in_auth_offered(const struct smtp_in *s);
/* smtp_in_handoff.c */
bool smtp_in_handoff(struct smtp_in *s, struct slice arg, struct buf *out,
                     struct smtp_in_event *ev);
bool smtp_in_handoff_commit(struct smtp_in *s, struct slice arg, struct buf *out,
                            struct smtp_in_event *ev);
bool smtp_in_handoff_abort(struct smtp_in *s, struct slice arg, struct buf *out,
                           struct smtp_in_event *ev);
bool smtp_in_handoff_next(struct smtp_in *s, struct slice arg, struct buf *out,
                          struct smtp_in_event *ev);
bool smtp_in_handoff_offered(const struct smtp_in *s);

#endif
