/*
 * tests/unit/smtp_dialog.h - drives gateway/smtp/smtp_in.h with a text and writes down all that
 * comes of it.
 *
 * The log holds replies and events in their order: "250 2.1.0 Sender ok\r\n", "<MAIL a@x>\n",
 * "<BODY ...>\n". The owner it plays: refuses the sender bad@ (550), recipients no*@ (550) and
 * later@ (451), accepts the password "secret", queues as Q1, Q2 ...; a message whose body has FAIL
 * is answered 451.
 */
#ifndef HIKYAKU_TESTS_SMTP_DIALOG_H
#define HIKYAKU_TESTS_SMTP_DIALOG_H

#include "gateway/smtp/smtp_in.h"

struct dialog {
    struct smtp_in_config config;
    struct smtp_in s;
    bool drop_behind_starttls; /* set: plaintext stood behind STARTTLS */
    bool closed;
    bool quiet;   /* replies are counted, not kept */
    bool starved; /* no line buffer is to be had */
    uint32_t replies, queued;
    struct buf log, body, out;
    uint8_t log_memory[256 * 1024]; /* from here on not cleared by dialog_init */
    uint8_t body_memory[128 * 1024];
    uint8_t out_memory[1536];
};

/* A connector that offers all and demands nothing. */
void dialog_init(struct dialog *d, bool tls);
/* Greets, then feeds `in` in pieces of `step` bytes, each in memory of its own. Stops at CLOSE. */
void dialog_run(struct dialog *d, struct slice in, size_t step);
void dialog_feed(struct dialog *d, struct slice in, size_t step);
/* The log as a string. */
const char *dialog_text(struct dialog *d);
void dialog_end(struct dialog *d);

#endif
