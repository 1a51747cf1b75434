/*
 * gateway/session.h - composition: one inbound session. Included by its own files only.
 *
 *   bytes from io -> held buffers -> (tls_read) -> smtp_in_step -> events -> session_event.c
 *   replies       <- out buffer   <- (tls_write) <-
 *
 * A session is freed at the end of a turn (sessions_reap), never earlier: within a turn its
 * pointer
 * stays good. session.c owns life and state, session_io.c bytes, session_event.c what the
 * protocol
 * asks for, session_auth.c logging in, session_tx.c the message.
 */
#ifndef HIKYAKU_SESSION_H
#define HIKYAKU_SESSION_H

#include "gateway/auth/auth_limit.h"
#include "gateway/shard.h"
#include "gateway/smtp/proxy_header.h"

enum session_state {
    SESSION_PROXY,     /* waiting for a PROXY header */
    SESSION_HANDSHAKE, /* TLS handshake under way */
    SESSION_OPEN,      /* SMTP */
    SESSION_LINGER,    /* our last reply is on its way or sent; waiting for the peer to close,
                          but after QUIT in clear */
    SESSION_CLOSING    /* operations are being cancelled; freed when none is left */
};

/* Why an open session does not step: bits. */
enum session_wait {
    SESSION_WAIT_AUTH = 1,   /* a worker checks the password */
    SESSION_WAIT_COMMIT = 2, /* the message is being made durable */
    SESSION_WAIT_ROOM = 4,   /* the lane's commit buffers are full */
    SESSION_WAIT_OUT = 8,    /* the peer does not read our replies fast enough */
    SESSION_WAIT_DELAY = 16, /* a refusal is held back on purpose */
    SESSION_WAIT_TURN = 32   /* so is a password: too many from there were wrong */
};

struct tx_rcpt {
    struct tx_rcpt *next;
    struct envelope_rcpt rcpt;
};

struct session_handoff; /* session_handoff.c */

/* A transaction, from MAIL or XHANDOFF on. */
struct session_tx {
    struct session *session; /* NULL: answered 451 while its commit is under way */
    struct shard *shard;
    struct list commit_link; /* in shard->committing, the oldest first */
    struct arena arena;
    struct envelope env;
    struct tx_rcpt *first, *last;
    struct lane_tx lane_tx;
    bool writing; /* lane_tx is begun */
    bool failed;  /* the lane refused: the rest of the body is thrown away, 451 at its end */
    uint64_t declared_size;
    uint64_t data_end_ns; /* when the end of data was read */
    struct slice message_id;
    struct session_handoff *handoff; /* in the arena; NULL: MAIL */
};

/* Lies in a line buffer while a PROXY header is awaited. */
struct session_proxy {
    struct proxy_header header;
    struct io_addr bind; /* of the listener */
    bool required;       /* by every connector that could take the connection */
};

struct session {
    uint32_t magic;
    uint32_t slot, generation;
    struct shard *shard;
    struct shard_config *config;
    const struct shard_receive *receive;
    enum session_state state;
    uint8_t waits; /* bits of enum session_wait */
    bool eof, recv_paused, in_run, implicit_tls_pending, counted, hard_close, tls_notified, reaping,
        end_sent;
    struct list reap_link;
    int32_t fd;
    struct io_addr peer;         /* the client; behind a proxy the one that its header tells */
    bool peer_is_proxy;          /* no header told a client: nobody relays by this address */
    struct session_proxy *proxy; /* state PROXY */
    struct io_op recv, send;
    struct timer timer, delay;
    uint64_t deadline_ns;
    /* input */
    struct held held;
    struct tls_conn *tls;
    uint8_t *plain; /* decrypted but not consumed, NULL: none */
    uint32_t plain_off, plain_len;
    /* output */
    uint8_t *out; /* NULL: nothing to send */
    uint32_t out_sent, out_len, out_in_flight;
    /* SMTP */
    struct smtp_in smtp;
    struct session_tx *tx;
    char *account; /* authenticated as, NULL: nobody */
    const struct user *user;
    struct why delayed;           /* answer held back by SESSION_WAIT_DELAY */
    struct list auth_link;        /* auth_check.sessions while SESSION_WAIT_AUTH */
    struct auth_check *auth_held; /* while SESSION_WAIT_TURN */
    struct auth_who who;
    uint32_t auth_failures;
    uint64_t rate_start_ns, rate_bytes;
    struct watch *watch; /* for the protocol log, NULL: none */
    char id[20];
};

#define SESSION_MAGIC 0x5e5510aau

/* session.c */
void session_set_state(struct session *s, enum session_state state);
/* Sends what is in `out`, then closes. `hard`: without waiting for the peer. */
void session_finish(struct session *s, bool hard);
void session_touch(struct session *s);
/* The text of a message begins: from now on it has to come fast enough. */
void session_rate_begin(struct session *s);
/* Appends a 421 with `why` and finishes. */
void session_abandon(struct session *s, const struct why *why);
/* Nobody is authenticated any more. */
void session_forget_account(struct session *s);
/* 421 4.3.2 to a session that is between messages. */
void session_drain(struct session *s);
/* Nothing is left to send. */
void session_output_done(struct session *s);
/*
 * The client has said QUIT and nothing behind it: no input can come that nobody reads. In TLS its
 * own farewell may still come.
 */
bool session_is_over(const struct session *s);
/* An operation or a commit ended: a closing session may be freed now. */
void session_op_ended(struct session *s);

/* The connection's client is known: greets it, or refuses it. `allowed`: s->receive takes it. */
void session_begin(struct session *s, bool allowed, bool receiving);
/* Says `why` in place of the greeting, where that can be read, and ends. */
void session_refuse(struct session *s, const struct why *why, bool receiving);

/* Counts for the connector. */
static inline void session_count(struct session *s, enum receive_count what, uint64_t by)
{
    series_add(&s->shard->metrics->receive[s->receive->conf->series].count[what], by);
}

/* session_watch.c */
/* The client is known: is this session to be logged? */
void session_watch_begin(struct session *s);
/* A step has read the start of `before` up to `rest`. */
void session_watch_read(struct session *s, enum smtp_in_reading what, struct slice before,
                        struct slice rest);
/* Replies in `out` that were not seen yet. */
void session_watch_out(struct session *s, const struct buf *out);

/* session_proxy.c */
/* The first connector bound to `bind` that believes headers of `peer`, NULL: none. */
const struct shard_receive *session_proxy_connector(const struct shard_config *c,
                                                    const struct io_addr *bind,
                                                    const struct io_addr *peer);
/* Waits for a header (state PROXY). False: no memory for one. */
bool session_proxy_await(struct session *s, const struct io_addr *bind)
    __attribute__((warn_unused_result));
/* There is input, or the end of it. */
void session_proxy_input(struct session *s);
void session_proxy_timeout(struct session *s);
void session_proxy_free(struct session *s);
/* A stranger begins with a header of version 2: told and counted; the caller closes. */
bool session_proxy_forged(struct session *s, struct slice in);

/* session_io.c */
void session_io_init(struct session *s);
void session_io_start(struct session *s);
void session_io_free(struct session *s);
/* Steps the protocol as far as input, waits and room allow, then sends. */
void session_run(struct session *s);
void session_flush(struct session *s);
/* Something that was waited for is there: goes on where the session stands. */
void session_resume(struct session *s);
bool session_input_pending(const struct session *s);
/* Room for replies: a region of the wire buffer, or scratch to be encrypted by session_out_end.
 * False: none now (SESSION_WAIT_OUT). */
bool session_out_begin(struct session *s, struct buf *out);
void session_out_end(struct session *s, struct buf *out);
void session_greet(struct session *s, const struct why *why);
/* The handshake begins (state HANDSHAKE). */
void session_tls_begin(struct session *s);
/* Puts close_notify behind the last reply, once, where TLS is used and somebody still reads. */
void session_tls_notify(struct session *s);

/* session_event.c */
/* `rest`: input behind the command that made the event. */
void session_event(struct session *s, struct smtp_in_event *ev, struct slice rest, struct buf *out);
/* Answers outside of a step: finds room, answers, goes on. */
void session_answer(struct session *s, const struct why *why, const char *detail);
/* Says it after a while. */
void session_answer_late(struct session *s, const struct why *why, uint64_t delay_ns);
void session_delay_fired(struct timer *t);

/* session_auth.c */
void session_auth(struct session *s, const struct sasl_credentials *c, struct buf *out);
/* The turn that was waited for has come. */
void session_auth_turn(struct session *s);
/* The session ends. */
void session_auth_drop(struct session *s);

/* session_tx.c */
void session_tx_mail(struct session *s, const struct smtp_mail *mail, struct why *why);
void session_tx_rcpt(struct session *s, const struct smtp_rcpt *rcpt, struct why *why);
void session_tx_data(struct session *s, struct why *why);
void session_tx_headers(struct session *s, const struct smtp_in_headers *h);
void session_tx_body(struct session *s, struct slice body);
/* Before the input that body bytes came from is given away. */
void session_tx_keep(struct session *s);
void session_tx_end(struct session *s);
/* Answers who has waited SESSION_COMMIT_WAIT_NS for the disk. */
void session_commit_late(struct timer *t);
/* The message was refused by the protocol machine: for the log. */
void session_tx_refused(struct session *s);
/* Drops the transaction, whatever its state before the commit. */
void session_tx_drop(struct session *s);
/* A transaction in place of the one before, if any. NULL: no memory. */
struct session_tx *session_tx_new(struct session *s);
void session_tx_append(struct session *s, struct slice data);
void session_tx_resumed(struct lane_tx *lt);

/* session_handoff.c */
void session_handoff(struct session *s, const struct smtp_in_handoff *ev, struct why *why);
void session_handoff_body(struct session *s, struct slice body);
void session_handoff_end(struct session *s);
/* The transaction is being dropped before its commit. */
void session_handoff_dropped(struct session_tx *tx);
/* True: *why is the answer. False: it comes when what changed is durable. */
bool session_handoff_settle(struct session *s, const struct smtp_in_handoff *ev, bool take,
                            struct why *why) __attribute__((warn_unused_result));
/* "prepared ID of INSTANCE", or "none of INSTANCE". */
void session_handoff_next(struct session *s, const struct smtp_in_handoff *ev,
                          char words[HANDOFF_ID_MAX + 32], struct why *why);

#endif
