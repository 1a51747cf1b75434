/*
 * gateway/smtp/reply.h - an SMTP server's replies, parsed as they come (RFC 5321 section 4.2, RFC
 * 2034, RFC 3463), without I/O.
 *
 * Only CRLF ends a line. Every line of one reply must have the same code, of 200 to 599. What a
 * hostile server may send is bounded by SMTP_OUT_REPLY_*.
 */
#ifndef HIKYAKU_SMTP_REPLY_H
#define HIKYAKU_SMTP_REPLY_H

#include "gateway/limits.h"
#include "gateway/smtp/smtp.h"

/*
 * A server's reply, RFC 5321 section 4.2. `text`: all lines joined by " / ", without the code and
 * (where `enhanced` has it) without the enhanced status, printable ASCII (anything else is '?'),
 * cut to SMTP_OUT_REPLY_KEPT_MAX. So "code enhanced text" is what the server said. `enhanced` is ""
 * when the server gave none, or one that contradicts its code. Code 0: nobody replied, `text` says
 * what went wrong.
 */
struct smtp_reply {
    uint16_t code;
    char enhanced[12];
    char text[SMTP_OUT_REPLY_KEPT_MAX + 1];
};

struct smtp_reply_parser {
    /* facts after SMTP_PARSE_DONE */
    bool last;                         /* this line ends the reply */
    uint32_t line_count;               /* of this reply so far, this line counted */
    uint32_t line_len;                 /* of `line` */
    uint8_t line[SMTP_REPLY_LINE_MAX]; /* text behind the code and its separator, raw, cut to fit */
    /* private */
    uint8_t state;
    uint16_t code;       /* of the first line */
    uint16_t line_code;  /* of this line, so far */
    uint16_t text_len;   /* of the reply's text */
    uint32_t line_bytes; /* of this line, with code */
    uint32_t reply_bytes;
};

/* For the first reply, and again for each one after a reply was complete. */
void smtp_reply_start(struct smtp_reply_parser *p, struct smtp_reply *reply);

/*
 * Consumes up to one line from `in`. DONE: a line is complete (p->line, p->last); with p->last
 * `reply` is complete and the next call needs smtp_reply_start() before. NEED_MORE: `in` is used
 * up. BAD: not a reply; reply->code is 0, enhanced 4.5.0, text says why; the connection cannot be
 * trusted any more.
 */
enum smtp_parse smtp_reply_parse(struct smtp_reply_parser *p, struct slice *in,
                                 struct smtp_reply *reply) __attribute__((warn_unused_result));

/* Part of a reply has come, but not all of it. */
bool smtp_reply_is_partial(const struct smtp_reply_parser *p);

/* reply = {0, enhanced, text}. */
void smtp_reply_set_local(struct smtp_reply *reply, const char *enhanced, const char *text);

/* "550 5.1.1 No such user" (without what is not there) into `out`: up to SMTP_OUT_REPLY_KEPT_MAX +
 * 20 bytes. */
void smtp_reply_write(const struct smtp_reply *reply, struct buf *out);

#endif
