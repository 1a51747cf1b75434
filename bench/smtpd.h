/*
 * bench/smtpd.h - the sink's side of an SMTP conversation, without I/O: bytes in, replies out.
 *
 * The sink feeds bytes and does what the result asks for. It is a test peer: it obeys RFC 5321
 * where no scripted rule says otherwise, and takes only CRLF as the end of a line.
 */
#ifndef HIKYAKU_BENCH_SMTPD_H
#define HIKYAKU_BENCH_SMTPD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/buf.h"
#include "bench/dot.h"
#include "bench/script.h"

/* Extensions that can be left out. */
#define BENCH_EXT_PIPELINING 1u
#define BENCH_EXT_8BITMIME   2u
#define BENCH_EXT_SMTPUTF8   4u
#define BENCH_EXT_SIZE       8u
#define BENCH_EXT_ENHANCED   16u
#define BENCH_EXT_STARTTLS   32u
#define BENCH_EXT_AUTH       64u
#define BENCH_EXT_ALL        127u

struct bench_smtpd;

struct bench_smtpd_hooks {
    void (*begin)(void *ctx);
    void (*body)(void *ctx, const char *data, size_t count); /* dots undone */
    bool (*end)(void *ctx);                                  /* false: answer 451 */
    void (*abandon)(void *ctx); /* begun, but the connection or a rule ended it */
};

struct bench_smtpd_config {
    const char *hostname;
    struct bench_script *script;
    unsigned extensions;       /* BENCH_EXT_ bits */
    uint64_t message_size_max; /* 0: none */
    bool tls_available;        /* STARTTLS is offered */
    bool tls_required;         /* MAIL and AUTH wait for it: 530 */
    const char *auth_user;     /* NULL: no AUTH */
    const char *auth_password;
    const struct bench_smtpd_hooks *hooks;
};

enum bench_smtpd_state {
    BENCH_SMTPD_COMMAND,
    BENCH_SMTPD_AUTH_PLAIN, /* waits for the response */
    BENCH_SMTPD_AUTH_USER,
    BENCH_SMTPD_AUTH_PASSWORD,
    BENCH_SMTPD_DATA
};

enum bench_smtpd_result {
    BENCH_SMTPD_MORE,     /* all taken; send what is in out */
    BENCH_SMTPD_DELAY,    /* send out, wait delay_ms, then call resume and feed the rest */
    BENCH_SMTPD_STARTTLS, /* send out, then begin TLS; what follows in the clear is thrown away */
    BENCH_SMTPD_CLOSE,    /* send out, then close */
    BENCH_SMTPD_DROP      /* close at once */
};

struct bench_smtpd {
    const struct bench_smtpd_config *config;
    void *ctx; /* for the hooks */
    enum bench_smtpd_state state;
    enum bench_smtpd_result after; /* what follows the reply just made */
    bool tls, greeted, authenticated, in_transaction, body_begun, too_large;
    bool drop_in_body; /* scripted: close when the first bytes of the body come */
    uint32_t delay_ms;
    struct bench_buf out;   /* replies to send */
    struct bench_buf held;  /* the delayed one */
    struct bench_buf line;  /* a command in parts */
    struct bench_buf from;  /* NUL-terminated; empty for the null sender */
    struct bench_buf rcpts; /* NUL-terminated strings */
    size_t rcpt_count;
    char auth_name[128];
    struct bench_dot dot;
    uint64_t size; /* of the message being received */
};

void bench_smtpd_init(struct bench_smtpd *s, const struct bench_smtpd_config *config, void *ctx);
void bench_smtpd_free(struct bench_smtpd *s);

/* The greeting. */
enum bench_smtpd_result bench_smtpd_greet(struct bench_smtpd *s);
/* Takes bytes; *used tells how many (all of them with MORE). */
enum bench_smtpd_result bench_smtpd_feed(struct bench_smtpd *s, const char *in, size_t count,
                                         size_t *used) __attribute__((warn_unused_result));
/* After a delay: the held reply goes to out. MORE, STARTTLS or CLOSE. */
enum bench_smtpd_result bench_smtpd_resume(struct bench_smtpd *s);
/* TLS is up: the conversation begins again with EHLO (RFC 3207 section 4.2). */
void bench_smtpd_tls_on(struct bench_smtpd *s);

#endif
