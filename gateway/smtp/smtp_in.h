/*
 * gateway/smtp/smtp_in.h - the server side of SMTP (RFC 5321, 6409, 4954, 3207, 2920, 1870, 6152,
 * 6531, 3461), without I/O.
 *
 * The owner feeds input bytes and performs events; replies are appended to a buffer in the order of
 * the commands. Loop:
 *
 *     smtp_in_greet(s, out);                               once, for the banner
 *     for (;;) {
 *         switch (smtp_in_step(s, &in, out, &ev)) { ... }  in: advanced over what was consumed
 *     }
 *
 * An event marked (answer) stops the machine until smtp_in_answer(): steps in between assert. So at
 * most one command is open, and replies keep their order although some answers come later. All
 * slices of an event point into `in`, into the machine or into the event and are valid until the
 * next call. The machine allocates nothing and reads no clock.
 *
 * Only CRLF ends a line, only CRLF.CRLF ends data (RFC 5321 section 2.3.8). A bare CR or LF or a
 * NUL in data lets the message run to its true end and refuses it with 550 5.6.11 there; in a
 * command it is 500 5.5.2.
 */
#ifndef HIKYAKU_SMTP_IN_H
#define HIKYAKU_SMTP_IN_H

#include "gateway/auth/sasl.h"
#include "gateway/limits.h"
#include "gateway/smtp/data.h"
#include "gateway/smtp/params.h"
#include "gateway/smtp/smtp.h"

/* What a receive connector offers and demands; must outlive the machine. */
struct smtp_in_config {
    struct slice fqdn;  /* in greeting and EHLO */
    bool starttls;      /* offered while the connection is in clear */
    bool tls_required;  /* AUTH, MAIL before TLS: 530 5.7.0 Must issue a STARTTLS command first */
    bool auth_required; /* MAIL before AUTH: 530 5.7.0 Authentication required */
    bool auth_require_tls;     /* AUTH is offered inside TLS only */
    uint32_t auth_mechanisms;  /* bits of enum sasl_mechanism; 0: AUTH is not offered */
    bool submission;           /* RFC 6409: tells the owner whether to add Date and Message-ID */
    uint64_t message_size_max; /* bytes; advertised by SIZE */
    uint32_t rcpt_count_max;
    bool handoff; /* XHANDOFF (docs/handoff.md), inside TLS and after AUTH only */
};

enum smtp_in_event_kind {
    SMTP_IN_NEED_INPUT,  /* all input is consumed; flush replies, then wait for more */
    SMTP_IN_FLUSH,       /* the reply buffer is too full to go on: send it, then step again */
    SMTP_IN_STARTTLS,    /* (answer, through smtp_in_tls_started) 220 is in the buffer. Input behind
                            it: the owner drops the connection */
    SMTP_IN_AUTH,        /* (answer) check ev->auth */
    SMTP_IN_MAIL,        /* (answer) ev->mail: may this sender? */
    SMTP_IN_RCPT,        /* (answer) ev->rcpt: relay policy and routing */
    SMTP_IN_DATA,        /* (answer) 354 comes next if accepted: reserve room */
    SMTP_IN_BODY,        /* ev->body: next bytes of the message, dots undone, only CRLF line ends */
    SMTP_IN_HEADERS_END, /* the header section ends before the next body bytes: ev->headers tells
                            what it had. Once a message; one that is refused may lack it */
    SMTP_IN_END, /* (answer) the message is complete and well formed: make it durable; the answer is
                    the final reply */
    SMTP_IN_DATA_BAD, /* refused after its end, the reply is in the buffer: throw away what BODY
                         gave. Transaction over */
    SMTP_IN_HANDOFF,  /* (answer) ev->handoff: 354 comes next if accepted, then BODY as after DATA:
                         first the state's text, then the message; END */
    SMTP_IN_HANDOFF_COMMIT, /* (answer) ev->handoff: the message is ours from now on */
    SMTP_IN_HANDOFF_ABORT,  /* (answer) ev->handoff: it never will be */
    SMTP_IN_HANDOFF_NEXT,   /* (answer) ev->handoff: the first id of instance `to`, behind `id` */
    SMTP_IN_LINE,           /* only where `lines` is set: a line was read that asks for nothing */
    SMTP_IN_RESET,          /* RSET, EHLO or HELO: the transaction, if any, is dropped */
    SMTP_IN_CLOSE           /* flush, then close (QUIT, too many errors, 421) */
};

struct smtp_in_handoff {
    struct slice id;     /* "instance/queue id" of the gateway that hands over */
    struct slice to;     /* COMMIT, ABORT: the instance that has prepared it; NEXT: whose */
    uint32_t text_bytes; /* HANDOFF: the state's text, before the message */
};

struct smtp_in_event {
    enum smtp_in_event_kind kind;
    union {
        struct sasl_credentials auth;
        struct smtp_mail mail;
        struct smtp_rcpt rcpt;
        struct slice body;
        struct smtp_in_headers headers; /* gateway/smtp/data.h */
        struct smtp_in_handoff handoff;
    };
    uint8_t decoded[SMTP_DECODED_MAX]; /* what slices of `mail` may point to: copy them, not the
                                          event */
};

struct smtp_in {
    const struct smtp_in_config *config;
    /* facts that owners read */
    bool tls, authenticated, esmtp;
    bool tls_short; /* set by the owner: no memory for a handshake now, STARTTLS is answered 454 */
    bool lines;     /* set by the owner, who watches: a step reads one line at most, and what is
                       left of one that was refused */
    bool in_transaction; /* MAIL was accepted */
    bool smtputf8;       /* of the current transaction */
    bool handing;        /* the current transaction is one of XHANDOFF */
    bool quit;           /* QUIT was answered */
    uint32_t rcpt_count; /* accepted in this transaction */
    uint64_t data_bytes; /* of the message so far */
    uint64_t commands;   /* in all */
    uint32_t messages;   /* accepted with 250 */
    char helo[256]; /* what the client called itself: printable ASCII or UTF-8 domain, cut to fit;
                       "" before EHLO */
    /* everything below is private */
    uint8_t connection, slot, transaction; /* the three machines, see smtp_in_internal.h */
    bool line_wanted, line_discarding, line_cr;
    uint32_t line_len;   /* of the partial line, counted also where it is not kept */
    uint32_t discarded;  /* of one overlong line */
    uint64_t chunk_left; /* of a BDAT that was refused */
    uint32_t bad_commands, idle_commands, rcpt_rejected, auth_failed, rcpt_seen;
    struct smtp_data data;
    struct sasl_server sasl;
    uint8_t *line; /* lent, or NULL */
};

/* `tls`: implicit TLS, the handshake is done. */
void smtp_in_init(struct smtp_in *s, const struct smtp_in_config *config, bool tls);

/*
 * A line that the input breaks off, and what an AUTH exchange has to keep, lies in a buffer of
 * SMTP_AUTH_LINE_MAX bytes that the owner lends (from a slab): so an idle session holds none.
 *   wants: NEED_INPUT was said although `in` is not consumed: lend one, then step again with the
 * same input.
 */
bool smtp_in_wants_line(const struct smtp_in *s);
void smtp_in_lend_line(struct smtp_in *s, uint8_t *line);
/* Returns the lent buffer when nothing is kept in it (to be freed by the owner), else NULL. */
uint8_t *smtp_in_take_line(struct smtp_in *s);
/* The session is over, whatever was under way: wipes and returns the lent buffer, if any. */
uint8_t *smtp_in_abandon(struct smtp_in *s);

/* The 220 greeting. A refusal instead (554 5.7.1, 421 4.7.0): `why` given; then close. */
void smtp_in_greet(struct smtp_in *s, struct buf *out, const struct why *why);

/* See above. `out` needs at least 1 KiB of room, else the answer is SMTP_IN_FLUSH. */
enum smtp_in_event_kind smtp_in_step(struct smtp_in *s, struct slice *in, struct buf *out,
                                     struct smtp_in_event *ev);

/*
 * Answers the open event. `why` NULL or code 0: yes, with the usual reply (END: "250 2.0.0 <text>",
 * text = `detail`, the queue id; `detail` NULL otherwise). A refusal says its code; a code of 421
 * also closes.
 */
void smtp_in_answer(struct smtp_in *s, struct buf *out, const struct why *why, const char *detail);

/* After SMTP_IN_STARTTLS: the handshake is done; all knowledge of the client is forgotten (RFC 3207
 * section 4.2). */
void smtp_in_tls_started(struct smtp_in *s);

/*
 * Time limit, drain, overload: appends a 421 (unless an answer or a handshake is due), and the next
 * step is CLOSE. An answer that was due may no longer be given, so a message that may become
 * durable is waited for first. Twice does no harm.
 */
void smtp_in_shutdown(struct smtp_in *s, struct buf *out, const struct why *why);

/* The next step can only be CLOSE. */
bool smtp_in_is_closing(const struct smtp_in *s);
/* Between transactions and commands: nothing of a command or message is under way. Drain closes
 * such sessions at once. */
bool smtp_in_is_idle(const struct smtp_in *s);
/* Between DATA's 354 and the end of data. */
bool smtp_in_in_data(const struct smtp_in *s);

/* What the next step takes its input for. */
enum smtp_in_reading { SMTP_IN_READS_LINE, SMTP_IN_READS_SECRET, SMTP_IN_READS_CONTENT };
enum smtp_in_reading smtp_in_reading(const struct smtp_in *s);
/* Nothing of a line has been read yet. */
bool smtp_in_at_line(const struct smtp_in *s);

#endif
