/*
 * gateway/smtp/smtp_out.h - the client side of SMTP (RFC 5321, 2920, 3207, 4954, 1870, 6152, 6531,
 * 3461), without I/O.
 *
 * One machine a connection, one transaction after another on it. Commands go out pipelined where
 * the server offers it: one cursor sends, one receives. The owner feeds reply bytes, sends what is
 * in `out`, and performs events.
 */
#ifndef HIKYAKU_SMTP_OUT_H
#define HIKYAKU_SMTP_OUT_H

#include "gateway/auth/sasl.h"
#include "gateway/limits.h"
#include "gateway/smtp/reply.h"
#include "gateway/smtp/smtp.h"

enum smtp_out_tls { SMTP_OUT_TLS_NONE, SMTP_OUT_TLS_OPPORTUNISTIC, SMTP_OUT_TLS_REQUIRED };

struct smtp_out_config {
    struct slice helo_name;
    bool helo_only;          /* HELO instead of EHLO (E22) */
    enum smtp_out_tls tls;   /* whether STARTTLS is asked for; verification is the owner's */
    uint32_t auth_mechanism; /* enum sasl_mechanism, 0: none; the first that the server offers of
                                PLAIN, LOGIN when several bits */
    struct slice username, password;
};

struct smtp_out_rcpt {
    struct slice mailbox;
    struct slice orcpt;
    uint8_t notify;
};

/* Must stay valid until TX_DONE or FAILED. */
struct smtp_out_tx {
    struct slice sender; /* mailbox, empty for <> */
    uint64_t size;       /* bytes of the message with CRLF */
    bool body_8bit, smtputf8;
    enum smtp_ret ret;
    struct slice envid;
    const struct smtp_out_rcpt *rcpts;
    uint32_t rcpt_count;
    /*
     * Not empty: no MAIL, no recipients, but this line (without its CRLF), which ends in TX_DONE
     * with its reply; `command_body`: which is 354, and the body follows as after DATA.
     */
    struct slice command;
    bool command_body;
};

enum smtp_out_event_kind {
    SMTP_OUT_NEED_INPUT, /* flush `out`, then wait for the server */
    SMTP_OUT_FLUSH,      /* `out` is too full to go on: send it, then step again */
    SMTP_OUT_STARTTLS, /* 220 came. Input behind it is refused by the owner (FAULTS 80). Handshake,
                          then smtp_out_tls_started() */
    SMTP_OUT_READY,    /* greeted, in TLS and authenticated as asked for: smtp_out_begin() or
                          smtp_out_quit() */
    SMTP_OUT_RCPT, /* ev->rcpt, ev->reply: refused (4xx, 5xx) or accepted; one event a recipient, in
                      order; none when MAIL was refused */
    SMTP_OUT_SEND_BODY, /* 354 came: give the body with smtp_out_body() until all is sent, then
                           smtp_out_body_end(). Step meanwhile when input comes; without input that
                           is NEED_INPUT */
    SMTP_OUT_TX_DONE, /* ev->reply: the final reply of the message, or of the command that ended it
                         (MAIL, DATA, all recipients refused: the last refusal). ev->phase: AT_EOD,
                         AT_MAIL, AT_DATA, AT_RCPT tells which. ev->data_sent tells */
    SMTP_OUT_FAILED,  /* the connection is of no more use: ev->reply (code 0: ev->reply.text says
                         what went wrong), ev->phase. Close it. A transaction under way gets no
                         TX_DONE (where its fate was known before, TX_DONE came first and phase is
                         AT_IDLE) */
    SMTP_OUT_CLOSED   /* QUIT answered (or not): close */
};

enum smtp_out_phase { /* where a failure happened */
                      SMTP_OUT_AT_CONNECT,
                      SMTP_OUT_AT_BANNER,
                      SMTP_OUT_AT_EHLO,
                      SMTP_OUT_AT_STARTTLS,
                      SMTP_OUT_AT_AUTH,
                      SMTP_OUT_AT_MAIL,
                      SMTP_OUT_AT_RCPT,
                      SMTP_OUT_AT_DATA,
                      SMTP_OUT_AT_BODY,
                      SMTP_OUT_AT_EOD,
                      SMTP_OUT_AT_IDLE,
                      SMTP_OUT_AT_QUIT
};

struct smtp_out_event {
    enum smtp_out_event_kind kind;
    enum smtp_out_phase phase;
    uint32_t rcpt; /* index into tx->rcpts */
    /*
     * TX_DONE: the final dot was sent. FAILED: it was sent and no valid reply came, so the message
     * may have been taken (dup_possible); never set when the server did reply (421 to the final
     * dot: it was not taken). "Sent" means put into `out`.
     */
    bool data_sent;
    struct smtp_reply reply;
};

struct smtp_out {
    const struct smtp_out_config *config;
    const struct smtp_out_tx *tx;
    const struct smtp_out_tx *ahead; /* its commands are out already; NULL: none */
    /* facts that owners read */
    bool tls;
    bool pipelining, size_offered, eightbit, utf8, dsn, starttls, auth_offered;
    uint64_t size_limit;
    uint32_t auth_offered_mechanisms;
    enum smtp_out_phase phase;
    /* private */
    uint8_t state;           /* enum smtp_out_state */
    bool asked;              /* the state's command is in `out` */
    uint32_t sent, answered; /* cursors over the envelope: 0 MAIL, 1..n RCPT, n+1 DATA */
    uint32_t rcpt_accepted;
    bool decided;  /* the transaction's outcome is known before its end: `result` */
    bool tx_done;  /* to be reported */
    bool rset_due; /* a transaction is open on the server's side */
    bool dot_sent, fail_data_sent;
    uint8_t body_state, auth_steps;
    enum smtp_out_phase result_phase, fail_phase;
    struct sasl_client sasl;
    struct smtp_reply result, last;
    struct smtp_reply_parser parser;
};

void smtp_out_init(struct smtp_out *s, const struct smtp_out_config *config, bool implicit_tls);
/* `in` is advanced over what was consumed (all of it, unless an event comes first). `out` holds
 * SMTP_OUT_ROOM_MIN bytes or more when empty. */
enum smtp_out_event_kind smtp_out_step(struct smtp_out *s, struct slice *in, struct buf *out,
                                       struct smtp_out_event *ev);
void smtp_out_tls_started(struct smtp_out *s);
/*
 * Begins a transaction; only after READY or TX_DONE. Where the server lacks what the message needs
 * (SMTPUTF8: 5.6.7; SIZE: 5.3.4), nothing is sent and the next step gives TX_DONE with that reply.
 * 8-bit content to a server without 8BITMIME: TX_DONE 554 5.6.3 (no conversion). An address that
 * would break a command line: TX_DONE 553 5.1.3 or 5.1.7.
 */
void smtp_out_begin(struct smtp_out *s, const struct smtp_out_tx *tx);
/*
 * Behind smtp_out_body_end(), before the reply: the commands of the next transaction go into `out`,
 * all of them, so that they leave together with the final dot and a message takes one round trip.
 * RFC 2920 section 3.1 allows the message's content to be the first part of a group, with DATA as
 * the last. False, and nothing is said: the server does not pipeline, there is no room, or it is to
 * be told by smtp_out_begin() that the message cannot go there. True: `tx` must stay valid, and is
 * what smtp_out_begin() gets behind TX_DONE, or the owner quits, which then closes.
 */
bool smtp_out_ahead(struct smtp_out *s, const struct smtp_out_tx *tx, struct buf *out)
    __attribute__((warn_unused_result));
/* Message bytes, dot-stuffed into `out`; returns how many bytes of `data` were taken (fewer: flush,
 * go on). CRLF only; should a bare CR or LF ever come, it leaves as CRLF. */
size_t smtp_out_body(struct smtp_out *s, struct slice data, struct buf *out);
/* The final dot, after a CRLF where the last line lacks one. False: no room in `out` (flush, try
 * again). */
bool smtp_out_body_end(struct smtp_out *s, struct buf *out) __attribute__((warn_unused_result));
/* The peer closed, a time limit passed, the network failed: gives FAILED through the next step with
 * `text`. */
void smtp_out_lost(struct smtp_out *s, const char *text);
/* Only while nothing is under way, nor sent ahead; else, or without room, the next step is CLOSED
 * at once. */
void smtp_out_quit(struct smtp_out *s, struct buf *out);
/* One line of the answer to EHLO behind the first becomes a fact of `s`; also for who holds the
 * conversation by itself. */
void smtp_out_learn(struct smtp_out *s, struct slice line);
/* Nothing under way: may take a transaction. */
bool smtp_out_is_ready(const struct smtp_out *s);

#endif
