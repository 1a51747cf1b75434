/*
 * bench/client.h - the load generator's side of a session, without I/O: replies in, commands out.
 */
#ifndef HIKYAKU_BENCH_CLIENT_H
#define HIKYAKU_BENCH_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/buf.h"
#include "bench/fault.h"
#include "bench/reply.h"

enum bench_pipeline {
    BENCH_PIPELINE_OFF,      /* one command, one reply */
    BENCH_PIPELINE_ENVELOPE, /* MAIL, RCPT and DATA in one group */
    BENCH_PIPELINE_DEEP      /* and the next envelope right behind the final dot */
};

/* Sizes of messages and how often each comes. */
struct bench_size_mix {
    const char *name;
    struct {
        uint32_t bytes, percent;
    } parts[8];
};

/* The mixes there are, and what they follow: bench/README.md. NULL: no mix has this name. */
const struct bench_size_mix *bench_size_mix_find(const char *name);
uint64_t bench_size_mix_max(const struct bench_size_mix *mix);

/* What all sessions of a run share. */
struct bench_client_run {
    /* set by the command */
    const char *run_id;
    const char *helo;
    const char *from; /* patterns: each % becomes a number */
    const char *to;
    uint64_t to_number_max; /* recipients are numbered 0 .. this - 1 */
    const char *auth_user;  /* NULL: no AUTH */
    const char *auth_password;
    bool starttls, hold; /* hold: stop after EHLO, TLS and AUTH */
    enum bench_pipeline pipeline;
    uint32_t rcpt_count;
    uint64_t messages_per_session;    /* 0: no end */
    uint64_t message_size;            /* bytes of header and body; with a mix, of the largest */
    const struct bench_size_mix *mix; /* NULL: every message is message_size long */
    bool claim_at_connect;            /* a connection is made for a message that is due */
    const char *body;                 /* behind the header, dots stuffed, ends in CRLF; the final
                                       * dot lies behind it */
    size_t body_count;
    /* counted here */
    uint64_t claimed, claimed_max; /* messages begun; no more begin at the maximum */
    bool open_loop;
    uint64_t due; /* open loop: messages that may have begun by now; the driver counts it up */
    uint32_t mix_random;
    bool stop; /* no new message begins */
    uint64_t rcpt_number;
};

enum bench_client_state {
    BENCH_CLIENT_BANNER,
    BENCH_CLIENT_EHLO,
    BENCH_CLIENT_STARTTLS,
    BENCH_CLIENT_TLS,
    BENCH_CLIENT_AUTH,
    BENCH_CLIENT_MAIL,
    BENCH_CLIENT_RCPT,
    BENCH_CLIENT_DATA,
    BENCH_CLIENT_EOD,
    BENCH_CLIENT_RSET,
    BENCH_CLIENT_HOLD,
    BENCH_CLIENT_WAIT, /* open loop: up, and no message is due */
    BENCH_CLIENT_QUIT,
    BENCH_CLIENT_FAULT, /* a command that should be refused */
    BENCH_CLIENT_STATE_COUNT
};

enum bench_client_event {
    BENCH_CLIENT_NONE,
    BENCH_CLIENT_ACKED,    /* 2xx to the end of data: the message is the server's */
    BENCH_CLIENT_REFUSED,  /* MAIL, all RCPT, DATA or the end of data got 4xx or 5xx */
    BENCH_CLIENT_WANT_TLS, /* begin TLS, then call tls_up */
    BENCH_CLIENT_READY,    /* hold: the session is up */
    BENCH_CLIENT_DONE,     /* QUIT was answered */
    BENCH_CLIENT_FAULTED,  /* a bad command was answered, with last_code */
    BENCH_CLIENT_VANISH,   /* a fault: close without a word */
    BENCH_CLIENT_ERROR     /* the session cannot go on: error says why */
};

struct bench_client {
    struct bench_client_run *run;
    enum bench_client_state state; /* what the next reply answers */
    uint32_t session;              /* for the id */
    uint64_t message;              /* of this session, over all its connections */
    uint64_t message_count;        /* on this connection */
    uint64_t acked_message;        /* the one the last EOD was for */
    uint64_t claim, acked_claim;   /* which message of the run this is; the last one answered */
    uint32_t rcpts_sent, rcpts_answered, rcpts_accepted;
    uint32_t rcpts_acked; /* accepted recipients of the last acknowledged message */
    bool tls, envelope_sent, envelope_refused, body_sent_empty, claimed_ahead;
    bool dot_sent; /* a dot lies in the output and is not answered yet */
    /* a fault of this connection: set after begin; it is in the first message */
    enum bench_fault fault;
    bool fault_begun;
    bool vanish_when_sent, shut_when_sent; /* what to do when all output is sent */
    int last_code;
    const char *error;
    /* output: head, then body_left bytes at body, then tail */
    struct bench_buf head, tail;
    const char *body;
    size_t body_left;
};

/* A connection begins. session and message survive it. */
void bench_client_begin(struct bench_client *c, struct bench_client_run *run, uint32_t session);
void bench_client_free(struct bench_client *c);
enum bench_client_event bench_client_reply(struct bench_client *c, const struct bench_reply *r);
/* TLS is established: EHLO again, or wait for the banner where TLS was implicit. */
void bench_client_tls_up(struct bench_client *c, bool implicit);
/* From HOLD or WAIT: QUIT. */
void bench_client_quit(struct bench_client *c);
/* From WAIT: begins a message if one is due; false: none is. */
bool bench_client_go(struct bench_client *c);
/* Before bench_client_begin, with claim_at_connect: takes the message that is due. */
bool bench_client_claim(struct bench_client *c, struct bench_client_run *run);
/* The message that the next reply or error is about is one that goes wrong on purpose. */
bool bench_client_in_fault(const struct bench_client *c);
/* Name of a state for error counts: "banner", "ehlo", ... */
const char *bench_client_state_name(enum bench_client_state state);
bool bench_client_has_output(const struct bench_client *c);
/* Moves up to size bytes of output into data; how many. */
size_t bench_client_take(struct bench_client *c, char *data, size_t size);
/* Drops count bytes of output that were sent. */
void bench_client_sent(struct bench_client *c, size_t count);

/* True when what follows the body in memory is what follows it in the output, and all of that. */
bool bench_client_dot_follows(const struct bench_client *c);

/* Fills in run->body for a message of run->message_size bytes: lines of 76 printable characters. */
void bench_client_make_body(struct bench_client_run *run, struct bench_buf *into);

#endif
