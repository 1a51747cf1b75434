/*
 * gateway/smtp/smtp_out_internal.h - what the files of smtp_out share with one another and with
 * their unit tests.
 */
#ifndef HIKYAKU_SMTP_OUT_INTERNAL_H
#define HIKYAKU_SMTP_OUT_INTERNAL_H

#include "gateway/smtp/smtp_out.h"

enum smtp_out_state {
    SMTP_OUT_S_BANNER,
    SMTP_OUT_S_EHLO,
    SMTP_OUT_S_HELO,
    SMTP_OUT_S_STARTTLS,
    SMTP_OUT_S_TLS, /* the owner shakes hands */
    SMTP_OUT_S_AUTH,
    SMTP_OUT_S_READY,
    SMTP_OUT_S_RSET,
    SMTP_OUT_S_ENVELOPE,
    SMTP_OUT_S_BODY,
    SMTP_OUT_S_EMPTY_DOT, /* 354 although nobody is left to send to: RFC 2920 section 3.1 */
    SMTP_OUT_S_EOD,
    SMTP_OUT_S_QUIT,
    SMTP_OUT_S_LOST, /* FAILED is to be told */
    SMTP_OUT_S_CLOSED
};

/* Asserts that the edge is in the table. */
void smtp_out_set_state(struct smtp_out *s, enum smtp_out_state to);
/* Tells s->phase anew: after a cursor moved. */
void smtp_out_set_phase(struct smtp_out *s);
bool smtp_out_edge_allowed(enum smtp_out_state from, enum smtp_out_state to);

/* The connection is lost, s->last says why. An outcome that was known before is still told. */
void smtp_out_fail(struct smtp_out *s, enum smtp_out_phase phase);
/* The same for what the server did not say itself. */
void smtp_out_fail_local(struct smtp_out *s, enum smtp_out_phase phase, const char *enhanced,
                         const char *text);

/* smtp_out_command.c: appends the next command if one may go out now. False: no room, flush. */
bool smtp_out_send_next(struct smtp_out *s, struct buf *out) __attribute__((warn_unused_result));
/* A reply is due. */
bool smtp_out_is_waiting(const struct smtp_out *s);
/* Why the message cannot go to this server, or false. */
bool smtp_out_tx_refused(const struct smtp_out *s, const struct smtp_out_tx *tx,
                         struct smtp_reply *reply);

/* smtp_out_reply.c: acts on the complete reply s->last. NEED_INPUT: nothing to tell. */
enum smtp_out_event_kind smtp_out_take_reply(struct smtp_out *s, struct slice in,
                                             struct smtp_out_event *ev);
void smtp_out_forget(struct smtp_out *s);

#endif
