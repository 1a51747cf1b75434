/*
 * tests/fuzz/fuzz_reply.c - a hostile server against the SMTP client: replies read the same however
 * they are cut, nothing goes past its bounds, and no message counts as taken that was not sent.
 */
#include <stdlib.h>

#include "gateway/smtp/smtp_out.h"

#define REQUIRE(c) ((c) ? (void)0 : abort())
#define LIT(s)                               \
    {                                        \
        (const uint8_t *)"" s, sizeof(s) - 1 \
    }

static const struct smtp_out_rcpt RCPTS[] = {{.mailbox = LIT("x@example.org")},
                                             {.mailbox = LIT("y@example.org"), .notify = 7}};
static const struct smtp_out_tx TX = {.sender = LIT("a@example.com"),
                                      .size = 10,
                                      .envid = LIT("e+1"),
                                      .ret = SMTP_RET_HDRS,
                                      .rcpts = RCPTS,
                                      .rcpt_count = 2};

struct outcome {
    char events[4096];
    struct buf log;
};

static void note(struct outcome *o, const struct smtp_out_event *ev)
{
    buf_addf(&o->log, "%d:%d:%u:%d:%u:%s:%s\n", ev->kind, ev->phase, ev->rcpt, ev->data_sent,
             ev->reply.code, ev->reply.enhanced, ev->reply.text);
}

/* One connection; 1 to `most` transactions. Each call to the client gets `step` bytes. */
static void play(struct slice script, uint8_t flags, size_t step, struct outcome *o)
{
    struct smtp_out_config config = {
        .helo_name = LIT("me"),
        .helo_only = (flags & 3) == 3,
        .tls = flags & 4 ? SMTP_OUT_TLS_OPPORTUNISTIC : SMTP_OUT_TLS_NONE,
        .auth_mechanism = flags & 8 ? SASL_PLAIN | SASL_LOGIN : 0,
        .username = LIT("joe"),
        .password = LIT("secret"),
    };
    struct smtp_out s;
    struct smtp_out_event ev;
    uint8_t memory[SMTP_OUT_ROOM_MIN];
    struct buf out = buf_over(memory, sizeof memory);
    int transactions = 3;

    o->log = buf_over(o->events, sizeof o->events);
    smtp_out_init(&s, &config, flags & 16);
    while (script.len > 0) {
        struct slice in = slice_head(script, step);
        script = slice_from(script, in.len);
        for (;;) {
            enum smtp_out_event_kind kind = smtp_out_step(&s, &in, &out, &ev);
            REQUIRE(kind == ev.kind && !out.overflow);
            REQUIRE(strlen(ev.reply.text) <= SMTP_OUT_REPLY_KEPT_MAX);
            out.len = 0;
            if (kind == SMTP_OUT_NEED_INPUT)
                break;
            if (kind != SMTP_OUT_FLUSH)
                note(o, &ev);
            if (kind == SMTP_OUT_CLOSED)
                return;
            REQUIRE(kind != SMTP_OUT_FAILED || !ev.data_sent || ev.reply.code == 0);
            if (kind == SMTP_OUT_STARTTLS)
                smtp_out_tls_started(&s);
            if ((kind == SMTP_OUT_READY || kind == SMTP_OUT_TX_DONE) && smtp_out_is_ready(&s)) {
                if (transactions-- > 0)
                    smtp_out_begin(&s, &TX);
                else
                    smtp_out_quit(&s, &out);
            }
            if (kind == SMTP_OUT_SEND_BODY) {
                REQUIRE(smtp_out_body(&s, SLICE_LIT(".a\r\n"), &out) == 4);
                REQUIRE(smtp_out_body_end(&s, &out));
                if (flags & 32 && transactions > 0 && smtp_out_ahead(&s, &TX, &out))
                    REQUIRE(s.ahead == &TX);
            }
        }
        REQUIRE(in.len == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct outcome o;
    if (size < 2)
        return 0;
    struct slice script = slice_of(data + 2, size - 2);
    /* A reply that comes before its command is seen as such only if it comes in one piece with the
     * one before; so events may differ with the cut, and only replies are compared. */
    play(script, data[0], 1, &o);
    play(script, data[0], 1 + data[1] % 64, &o);
    play(script, data[0], script.len, &o);

    struct smtp_reply a, b;
    struct smtp_reply_parser pa, pb;
    struct slice in = script;
    enum smtp_parse got_a = SMTP_PARSE_NEED_MORE, got_b = SMTP_PARSE_NEED_MORE;
    smtp_reply_start(&pa, &a);
    smtp_reply_start(&pb, &b);
    while (in.len > 0 && got_a != SMTP_PARSE_BAD && !(got_a == SMTP_PARSE_DONE && pa.last))
        got_a = smtp_reply_parse(&pa, &in, &a);
    for (size_t i = 0;
         i < script.len && got_b != SMTP_PARSE_BAD && !(got_b == SMTP_PARSE_DONE && pb.last); i++) {
        struct slice byte = slice_of(script.ptr + i, 1);
        got_b = smtp_reply_parse(&pb, &byte, &b);
    }
    REQUIRE(got_a == got_b && pa.reply_bytes == pb.reply_bytes);
    REQUIRE(a.code == b.code && strcmp(a.text, b.text) == 0 && strcmp(a.enhanced, b.enhanced) == 0);
    return 0;
}
