/*
 * gateway/ctl/probe_internal.h - what the files of the probe share.
 */
#ifndef HIKYAKU_CTL_PROBE_INTERNAL_H
#define HIKYAKU_CTL_PROBE_INTERNAL_H

#include "gateway/auth/sasl.h"
#include "gateway/ctl/probe.h"
#include "gateway/smtp/smtp_out.h"
#include "routing/dns.h"
#include "tls/tls.h"

/* ---- probe_line.c: one connection, one thing after the other ---- */

struct probe_line {
    int fd;                         /* -1: none */
    uint64_t limit_ns, deadline_ns; /* of a step; of the one under way */
    struct tls_conn *tls;
    uint32_t raw_at, raw_len, plain_at, plain_len;
    uint8_t raw[16 * 1024], plain[16 * 1024];
};

uint64_t probe_now_ns(void);
void line_init(struct probe_line *l, uint64_t limit_ns);
/* A step begins: it has limit_ns. */
void line_step(struct probe_line *l);
/* Each of these: false and `why`. */
bool line_connect(struct probe_line *l, const struct io_addr *to, const struct io_addr *from,
                  struct why *why) __attribute__((warn_unused_result));
bool line_send(struct probe_line *l, struct slice data, struct why *why)
    __attribute__((warn_unused_result));
/* `offers` may be NULL. */
bool line_reply(struct probe_line *l, struct smtp_reply *reply, struct smtp_out *offers,
                struct why *why) __attribute__((warn_unused_result));
bool line_tls(struct probe_line *l, struct tls_ctx *ctx, const char *name, struct why *why)
    __attribute__((warn_unused_result));
/* Bytes came that nobody has asked for. */
bool line_has_more(const struct probe_line *l);
void line_close(struct probe_line *l);

/* ---- probe_talk.c: the dialogue ---- */

enum probe_tls { PROBE_TLS_NONE, PROBE_TLS_MAY, PROBE_TLS_MUST, PROBE_TLS_IMPLICIT };

struct probe_talk {
    /* what to do */
    uint64_t limit_ns;
    const char *helo_name;
    bool helo_only, proxy_header;
    enum probe_tls tls;
    bool verify; /* a certificate that is not right is a failure, not a note */
    struct tls_ctx *tls_ctx;
    const char *tls_name;
    uint32_t mechanisms; /* 0: no AUTH */
    const char *user, *password;
    const char *from, *to; /* to NULL: no MAIL */
    bool message;
    const char *hostname, *connector;
    /* what happened */
    json_t *steps;
    bool failed, delivered; /* delivered: the message was taken */
    char last_reply[SMTP_OUT_REPLY_KEPT_MAX + 1];
    uint64_t began_ns;
    struct probe_line line;
    struct smtp_out offers; /* what EHLO said */
};

enum probe_status { PROBE_OK, PROBE_NOTE, PROBE_FAILED, PROBE_SKIPPED };

/* The clock of the next step. */
void talk_begin(struct probe_talk *t);
/* Writes a step down; `reply` and `advice` may be NULL. */
void talk_add(struct probe_talk *t, const char *step, enum probe_status status,
              const struct smtp_reply *reply, const char *text, const char *advice);
/* From connecting to QUIT, or until something fails. */
void talk_run(struct probe_talk *t, const struct io_addr *addrs, uint32_t count,
              const struct io_addr *sources, uint32_t source_count);

/* ---- probe_names.c: the names as the gateway would look them up ---- */

struct probe_names;
struct probe_names *names_create(const struct config *conf, struct why *why);
void names_destroy(struct probe_names *n);
void names_addr(struct probe_names *n, const char *host, struct dns_answer *out);
void names_mx(struct probe_names *n, const char *domain, struct dns_answer *out);

/* ---- probe_follow.c ---- */

/* What became of the message whose id stands in the reply to it: one more step. */
void follow_message(const struct client *c, struct probe_talk *t, uint32_t wait_s);

#endif
