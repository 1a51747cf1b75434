/*
 * tests/unit/test_smtp_out_faults.c - FAULTS 81 and 82: every way a server can fail at every stage,
 * pipelined and not, whole and byte by byte.
 *
 * A server of a few lines answers what the client sends, and misbehaves at one stage.
 */
#include <criterion/criterion.h>

#include "gateway/smtp/smtp_out.h"
#include "tests/unit/smtp_out_dialog.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum stage { BANNER, EHLO, MAIL, RCPT1, RCPT2, RCPT3, DATA, BODY, EOD, QUIT, STAGES };
enum fault { F4XX, F5XX, F421, CLOSE, TIMEOUT, FAULTS };

static const char *const stage_names[] = {"banner", "EHLO", "MAIL", "RCPT 1", "RCPT 2",
                                          "RCPT 3", "DATA", "body", "EOD",    "QUIT"};

/* What the owner hears. The first half of a row is common to all that get as far. */
#define R1     "ready "
#define R2     R1 "rcpt:0:250 "
#define R3     R2 "rcpt:1:250 "
#define R4     R3 "rcpt:2:250 "
#define R5     R4 "body "
#define DONE   R5 "done:250:eod:sent "
#define ALL_OK R5 "done:250:eod:sent closed"

static const char *const expected[STAGES][FAULTS] = {
    [BANNER] = {"failed:450:banner closed", "failed:550:banner closed", "failed:421:banner closed",
                "failed:0:banner closed", "failed:0:banner closed"},
    /* 5xx to EHLO: HELO, and all goes well */
    [EHLO] = {"failed:450:ehlo closed", ALL_OK, "failed:421:ehlo closed", "failed:0:ehlo closed",
              "failed:0:ehlo closed"},
    [MAIL] = {R1 "done:450:mail closed", R1 "done:550:mail closed", R1 "failed:421:mail closed",
              R1 "failed:0:mail closed", R1 "failed:0:mail closed"},
    [RCPT1] = {R1 "rcpt:0:450 rcpt:1:250 rcpt:2:250 body done:250:eod:sent closed",
               R1 "rcpt:0:550 rcpt:1:250 rcpt:2:250 body done:250:eod:sent closed",
               R1 "failed:421:rcpt closed", R1 "failed:0:rcpt closed", R1 "failed:0:rcpt closed"},
    [RCPT2] = {R2 "rcpt:1:450 rcpt:2:250 body done:250:eod:sent closed",
               R2 "rcpt:1:550 rcpt:2:250 body done:250:eod:sent closed",
               R2 "failed:421:rcpt closed", R2 "failed:0:rcpt closed", R2 "failed:0:rcpt closed"},
    [RCPT3] = {R3 "rcpt:2:450 body done:250:eod:sent closed",
               R3 "rcpt:2:550 body done:250:eod:sent closed", R3 "failed:421:rcpt closed",
               R3 "failed:0:rcpt closed", R3 "failed:0:rcpt closed"},
    [DATA] = {R4 "done:450:data closed", R4 "done:550:data closed", R4 "failed:421:data closed",
              R4 "failed:0:data closed", R4 "failed:0:data closed"},
    [BODY] = {R5 "failed:450:body closed", R5 "failed:550:body closed", R5 "failed:421:body closed",
              R5 "failed:0:body closed", R5 "failed:0:body closed"},
    /* without a reply to the dot the message may have been taken */
    [EOD] = {R5 "done:450:eod:sent closed", R5 "done:550:eod:sent closed",
             R5 "failed:421:eod closed", R5 "failed:0:eod:dup closed",
             R5 "failed:0:eod:dup closed"},
    [QUIT] = {ALL_OK, ALL_OK, ALL_OK, ALL_OK, ALL_OK},
};

struct world {
    struct smtp_out s;
    struct buf out, events;
    enum stage stage;
    enum fault fault;
    bool pipelining, bytes;
    /* server */
    char line[256];
    uint32_t line_len, rcpt_count;
    bool in_data, gone, closed;
    struct buf replies;
    struct smtp_reply last;
};

static const char *const fault_replies[] = {"450 4.2.1 later\r\n", "550 5.7.1 never\r\n",
                                            "421 4.3.2 going down\r\n"};

/* The server says `good`, or does what it does at its bad stage. */
static void answer(struct world *w, enum stage stage, const char *good)
{
    if (w->gone)
        return;
    if (stage != w->stage) {
        buf_add_str(&w->replies, good);
        return;
    }
    if (w->fault <= F421)
        buf_add_str(&w->replies, fault_replies[w->fault]);
    w->gone = w->fault >= F421;
}

static void take_command(struct world *w, const char *line)
{
    if (w->in_data) {
        if (strcmp(line, ".") == 0) {
            w->in_data = false;
            answer(w, EOD, "250 2.0.0 taken\r\n");
        }
    } else if (strncmp(line, "EHLO", 4) == 0)
        answer(w, EHLO, w->pipelining ? "250-mx\r\n250 PIPELINING\r\n" : "250 mx\r\n");
    else if (strncmp(line, "HELO", 4) == 0)
        buf_add_str(&w->replies, "250 mx\r\n");
    else if (strncmp(line, "MAIL", 4) == 0)
        answer(w, MAIL, "250 ok\r\n");
    else if (strncmp(line, "RCPT", 4) == 0)
        answer(w, RCPT1 + w->rcpt_count++, "250 ok\r\n");
    else if (strcmp(line, "DATA") == 0) {
        if (w->stage == MAIL && w->fault <= F5XX) {
            answer(w, STAGES, "503 no\r\n");
            return;
        }
        answer(w, DATA, "354 go\r\n");
        w->in_data = !(w->stage == DATA && w->fault <= F421);
    } else if (strcmp(line, "QUIT") == 0)
        answer(w, QUIT, "221 bye\r\n");
    else
        cr_assert_fail("the server got: %s", line);
}

static void to_server(struct world *w)
{
    for (uint32_t i = 0; i < w->out.len; i++) {
        w->line[w->line_len++] = (char)w->out.ptr[i];
        cr_assert_lt(w->line_len, sizeof w->line);
        if (w->line_len >= 2 && memcmp(w->line + w->line_len - 2, "\r\n", 2) == 0) {
            w->line[w->line_len - 2] = '\0';
            w->line_len = 0;
            take_command(w, w->line);
        }
    }
    w->out.len = 0;
}

static void run(struct world *w, const struct smtp_out_tx *tx);

static void give_body(struct world *w, const struct smtp_out_tx *tx)
{
    cr_assert_eq(smtp_out_body(&w->s, SLICE_LIT("A: b\r\n\r\nfirst\r\n"), &w->out), 15);
    to_server(w);
    if (w->stage == BODY) {
        answer(w, BODY, "");
        run(w, tx); /* the owner steps when input comes */
    }
    cr_assert_eq(smtp_out_body(&w->s, SLICE_LIT("second\r\n"), &w->out), 8);
    cr_assert(smtp_out_body_end(&w->s, &w->out));
}

static void on_event(struct world *w, const struct smtp_out_event *ev, const struct smtp_out_tx *tx)
{
    switch (ev->kind) {
    case SMTP_OUT_READY: smtp_out_begin(&w->s, tx); break;
    case SMTP_OUT_SEND_BODY: give_body(w, tx); break;
    case SMTP_OUT_TX_DONE:
        if (smtp_out_is_ready(&w->s))
            smtp_out_quit(&w->s, &w->out);
        break;
    default: break;
    }
}

/* Carries bytes to and fro until nothing moves. */
static void run(struct world *w, const struct smtp_out_tx *tx)
{
    for (;;) {
        struct smtp_out_event ev;
        uint8_t copy[1024];
        size_t n = w->bytes && w->replies.len > 1 ? 1 : w->replies.len;
        struct slice in = slice_of(copy, n);
        memcpy(copy, w->replies.ptr, n);
        memmove(w->replies.ptr, w->replies.ptr + n, w->replies.len - n);
        w->replies.len -= (uint32_t)n;
        if (n == 0 && w->gone)
            smtp_out_lost(&w->s, w->fault == TIMEOUT ? "timed out" : "closed by the server");
        do {
            smtp_out_step(&w->s, &in, &w->out, &ev);
            if (ev.kind >= SMTP_OUT_STARTTLS && !w->closed) /* once, also behind a nested run */
                dialog_log_event(&ev, &w->events);
            on_event(w, &ev, tx);
            if (ev.kind == SMTP_OUT_FAILED || ev.kind == SMTP_OUT_TX_DONE)
                w->last = ev.reply;
            w->closed = w->closed || ev.kind == SMTP_OUT_CLOSED;
            if (w->closed)
                return;
        } while (ev.kind != SMTP_OUT_NEED_INPUT);
        cr_assert_eq(in.len, 0);
        to_server(w);
        if (w->replies.len == 0 && !w->gone)
            return;
    }
}

static void play(enum stage stage, enum fault fault, bool pipelining, bool bytes)
{
    static const struct smtp_out_config config = {.helo_name = {(const uint8_t *)"me", 2}};
    static const struct smtp_out_rcpt rcpts[] = {{.mailbox = {(const uint8_t *)"x@y", 3}},
                                                 {.mailbox = {(const uint8_t *)"y@y", 3}},
                                                 {.mailbox = {(const uint8_t *)"z@y", 3}}};
    static const struct smtp_out_tx tx = {.rcpts = rcpts, .rcpt_count = 3, .size = 20};
    uint8_t out[4096], replies[1024];
    char events[512] = "";
    struct world w = {.stage = stage,
                      .fault = fault,
                      .pipelining = pipelining,
                      .bytes = bytes,
                      .out = buf_over(out, sizeof out),
                      .replies = buf_over(replies, sizeof replies),
                      .events = buf_over(events, sizeof events - 1)};
    smtp_out_init(&w.s, &config, false);
    answer(&w, BANNER, "220 mx\r\n");
    run(&w, &tx);
    cr_expect_str_eq(events, expected[stage][fault], "%s, fault %d%s%s: %s\nnot %s",
                     stage_names[stage], fault, pipelining ? ", pipelined" : "",
                     bytes ? ", byte by byte" : "", events, expected[stage][fault]);
    /* the server's own words, or what happened in ours */
    if (strstr(events, "failed:0:"))
        cr_expect_str_eq(w.last.text, fault == TIMEOUT ? "timed out" : "closed by the server");
    if (strstr(events, ":550:"))
        cr_expect(strstr(events, "rcpt:") || strcmp(w.last.text, "never") == 0);
}

Test(smtp_out_faults, matrix)
{
    for (int stage = BANNER; stage < STAGES; stage++)
        for (int fault = F4XX; fault < FAULTS; fault++)
            for (int mode = 0; mode < 4; mode++)
                play((enum stage)stage, (enum fault)fault, mode & 1, mode & 2);
}

/* The same server, well behaved: no fault is told where there is none. */
Test(smtp_out_faults, none)
{
    for (int mode = 0; mode < 4; mode++)
        for (int fault = F4XX; fault < FAULTS; fault++)
            play(QUIT, (enum fault)fault, mode & 1, mode & 2);
}
