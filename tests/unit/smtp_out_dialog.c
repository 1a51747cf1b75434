/*
 * tests/unit/smtp_out_dialog.c - see smtp_out_dialog.h.
 */
#include "tests/unit/smtp_out_dialog.h"

#include <criterion/criterion.h>

struct player {
    const struct dialog *d;
    struct smtp_out s;
    struct smtp_out_event ev;
    struct buf out, sent, expected, events, input;
    uint32_t tx_index;
    struct smtp_reply last;
};

void dialog_log_event(const struct smtp_out_event *ev, struct buf *log)
{
    static const char *const phases[] = {"connect", "banner", "ehlo", "starttls", "auth", "mail",
                                         "rcpt",    "data",   "body", "eod",      "idle", "quit"};
    const char *phase = phases[ev->phase];
    const char *space = log->len ? " " : "";

    switch (ev->kind) {
    case SMTP_OUT_STARTTLS: buf_addf(log, "%sstarttls", space); break;
    case SMTP_OUT_READY: buf_addf(log, "%sready", space); break;
    case SMTP_OUT_RCPT: buf_addf(log, "%srcpt:%u:%u", space, ev->rcpt, ev->reply.code); break;
    case SMTP_OUT_SEND_BODY: buf_addf(log, "%sbody", space); break;
    case SMTP_OUT_TX_DONE:
        buf_addf(log, "%sdone:%u:%s%s", space, ev->reply.code, phase, ev->data_sent ? ":sent" : "");
        break;
    case SMTP_OUT_FAILED:
        buf_addf(log, "%sfailed:%u:%s%s", space, ev->reply.code, phase,
                 ev->data_sent ? ":dup" : "");
        break;
    case SMTP_OUT_CLOSED: buf_addf(log, "%sclosed", space); break;
    default: break;
    }
}

static void flush(struct player *p)
{
    cr_assert(buf_add_slice(&p->sent, buf_slice(&p->out)));
    p->out.len = 0;
}

static void next_transaction(struct player *p)
{
    const struct smtp_out_tx *tx = p->d->tx[p->tx_index];
    if (!smtp_out_is_ready(&p->s))
        return; /* lost behind the transaction: the next step says so */
    if (tx) {
        p->tx_index++;
        smtp_out_begin(&p->s, tx);
    } else {
        smtp_out_quit(&p->s, &p->out);
    }
}

static void give_body(struct player *p)
{
    struct slice body = slice_str(p->d->body);
    while (body.len > 0) {
        body = slice_from(body, smtp_out_body(&p->s, body, &p->out));
        if (body.len > 0)
            flush(p);
    }
    while (!smtp_out_body_end(&p->s, &p->out))
        flush(p);
    if (p->d->ahead && p->d->tx[p->tx_index]) {
        flush(p);
        bool went = smtp_out_ahead(&p->s, p->d->tx[p->tx_index], &p->out);
        cr_assert(went || p->out.len == 0);
    }
}

/* Steps until there is nothing left to do. */
static void pump(struct player *p, struct slice in)
{
    for (;;) {
        enum smtp_out_event_kind kind = smtp_out_step(&p->s, &in, &p->out, &p->ev);
        cr_assert_eq(kind, p->ev.kind);
        if (kind == SMTP_OUT_NEED_INPUT || kind == SMTP_OUT_FLUSH)
            flush(p);
        else
            dialog_log_event(&p->ev, &p->events);
        if (kind == SMTP_OUT_RCPT || kind == SMTP_OUT_TX_DONE || kind == SMTP_OUT_FAILED)
            p->last = p->ev.reply;
        switch (kind) {
        case SMTP_OUT_NEED_INPUT: cr_assert_eq(in.len, 0, "%s", p->d->name); return;
        case SMTP_OUT_STARTTLS: smtp_out_tls_started(&p->s); break;
        case SMTP_OUT_READY: next_transaction(p); break;
        case SMTP_OUT_TX_DONE: next_transaction(p); break;
        case SMTP_OUT_SEND_BODY: give_body(p); break;
        case SMTP_OUT_CLOSED: flush(p); return;
        default: break;
        }
    }
}

static void check_sent(struct player *p)
{
    cr_assert(slice_eq(buf_slice(&p->sent), buf_slice(&p->expected)),
              "%s: sent:\n%.*s\nexpected:\n%.*s", p->d->name, (int)p->sent.len, p->sent.ptr,
              (int)p->expected.len, p->expected.ptr);
    p->sent.len = p->expected.len = 0;
}

static void feed(struct player *p, bool byte_by_byte)
{
    struct slice in = buf_slice(&p->input);
    size_t step = byte_by_byte ? 1 : in.len;
    for (size_t i = 0; i < in.len; i += step)
        if (!p->events.len || !strstr((char *)p->events.ptr, "closed"))
            pump(p, slice_of(in.ptr + i, step));
    p->input.len = 0;
}

static void play(const struct dialog *d, bool byte_by_byte, uint32_t out_cap)
{
    static uint8_t out[65536], sent[1 << 20], expected[1 << 20], input[1 << 20];
    static char events[4096];
    struct player p = {.d = d,
                       .out = buf_over(out, out_cap),
                       .sent = buf_over(sent, sizeof sent),
                       .expected = buf_over(expected, sizeof expected),
                       .input = buf_over(input, sizeof input),
                       .events = buf_over(events, sizeof events)};
    memset(events, 0, sizeof events);
    smtp_out_init(&p.s, d->config, d->implicit_tls);
    for (const char *line = d->script; *line;) {
        size_t len = strcspn(line, "\n");
        char kind = line[0];
        if (kind == 'S' || kind == 'P')
            check_sent(&p);
        struct buf *to = kind == 'C' ? &p.expected : &p.input;
        if (kind != 'X') {
            buf_add(to, line + 3, len - 3);
            buf_add_str(to, kind == 'P' ? "" : "\r\n");
        }
        line += len + (line[len] == '\n');
        if (kind == 'X') {
            smtp_out_lost(&p.s, "the connection was closed");
            pump(&p, slice_of(NULL, 0));
        } else if (kind != 'C' && *line != 'S' && *line != 'P') {
            feed(&p, byte_by_byte);
        }
    }
    check_sent(&p);
    cr_assert_str_eq(events, d->events, "%s (%s): %s\nnot %s", d->name,
                     byte_by_byte ? "bytes" : "whole", events, d->events);
    if (d->last_text)
        cr_assert_not_null(strstr(p.last.text, d->last_text), "%s: %s", d->name, p.last.text);
}

void dialog_play(const struct dialog *d)
{
    play(d, false, 65536);
    play(d, true, 65536);
    play(d, false, SMTP_OUT_ROOM_MIN);
    play(d, true, SMTP_OUT_ROOM_MIN);
}
