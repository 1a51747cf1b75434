/*
 * tests/unit/smtp_dialog.c - see smtp_dialog.h.
 *
 * Owns:     the line buffer that it lends, from the heap, so that a sanitizer sees a use after it
 *           was taken back.
 * Runs on:  a test's thread.
 * Contract: an idle session holds no line buffer, which is asserted after each piece of input.
 * Failure:  asserts.
 * Bounds:   the arrays in struct dialog; what is past them is dropped.
 */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

#include "tests/unit/smtp_dialog.h"

void dialog_init(struct dialog *d, bool tls)
{
    memset(d, 0, offsetof(struct dialog, log_memory));
    d->config = (struct smtp_in_config){.fqdn = SLICE_LIT("mx.example.com"),
                                        .starttls = true,
                                        .auth_mechanisms = SASL_PLAIN | SASL_LOGIN,
                                        .message_size_max = 100000,
                                        .rcpt_count_max = 5};
    d->log = buf_over(d->log_memory, sizeof d->log_memory - 1);
    d->body = buf_over(d->body_memory, sizeof d->body_memory);
    d->out = buf_over(d->out_memory, sizeof d->out_memory);
    smtp_in_init(&d->s, &d->config, tls);
}

static void flush(struct dialog *d)
{
    for (uint32_t i = 0; i + 1 < d->out.len; i++)
        if (d->out.ptr[i] == '\r' && d->out.ptr[i + 1] == '\n')
            d->replies++;
    if (!d->quiet)
        buf_add_slice(&d->log, buf_slice(&d->out));
    d->out.len = 0;
    assert(!d->out.overflow);
}

static void log_address(struct dialog *d, const char *what, struct slice mailbox)
{
    flush(d);
    buf_addf(&d->log, "<%s %.*s", what, (int)mailbox.len, (const char *)mailbox.ptr);
}

static void log_mail(struct dialog *d, const struct smtp_mail *m)
{
    log_address(d, "MAIL", m->from.mailbox);
    if (m->size)
        buf_addf(&d->log, " size=%llu", (unsigned long long)m->size);
    if (m->envid.len)
        buf_addf(&d->log, " envid=%.*s", (int)m->envid.len, (const char *)m->envid.ptr);
    if (m->auth.len)
        buf_addf(&d->log, " auth=%.*s", (int)m->auth.len, (const char *)m->auth.ptr);
    buf_addf(&d->log, "%s%s%s>\n", m->body_8bit ? " 8bit" : "", m->smtputf8 ? " utf8" : "",
             m->ret == SMTP_RET_FULL   ? " full"
             : m->ret == SMTP_RET_HDRS ? " hdrs"
                                       : "");
}

static void log_rcpt(struct dialog *d, const struct smtp_rcpt *r)
{
    log_address(d, "RCPT", r->to.mailbox);
    if (r->notify)
        buf_addf(&d->log, " notify=%u", r->notify);
    if (r->orcpt.len)
        buf_addf(&d->log, " orcpt=%.*s", (int)r->orcpt.len, (const char *)r->orcpt.ptr);
    buf_add_str(&d->log, ">\n");
}

static void log_body(struct dialog *d)
{
    flush(d);
    if (d->body.len)
        buf_addf(&d->log, "<BODY %.*s>\n", (int)d->body.len, (const char *)d->body.ptr);
    d->body.len = 0;
}

static bool contains(struct slice s, const char *word)
{
    return s.len && memmem(s.ptr, s.len, word, strlen(word));
}

static void answer(struct dialog *d, const struct smtp_in_event *ev)
{
    struct why why = {0};
    char qid[16] = "";
    switch (ev->kind) {
    case SMTP_IN_AUTH:
        flush(d);
        buf_addf(&d->log, "<AUTH %.*s/%.*s/%.*s>\n", (int)ev->auth.authzid.len,
                 (const char *)ev->auth.authzid.ptr, (int)ev->auth.authcid.len,
                 (const char *)ev->auth.authcid.ptr, (int)ev->auth.password.len,
                 (const char *)ev->auth.password.ptr);
        if (slice_eq(ev->auth.password, SLICE_LIT("later")))
            why_set(&why, 454, "4.7.0", "Try again later");
        else if (!slice_eq(ev->auth.password, SLICE_LIT("secret")))
            why_set(&why, 535, "5.7.8", "Wrong");
        break;
    case SMTP_IN_MAIL:
        log_mail(d, &ev->mail);
        if (contains(ev->mail.from.mailbox, "bad@"))
            why_set(&why, 550, "5.7.60", "Not yours");
        break;
    case SMTP_IN_RCPT:
        log_rcpt(d, &ev->rcpt);
        if (slice_starts_nocase(ev->rcpt.to.mailbox, SLICE_LIT("no")))
            why_set(&why, 550, "5.7.1", "Unable to relay");
        else if (slice_starts_nocase(ev->rcpt.to.mailbox, SLICE_LIT("later")))
            why_set(&why, 451, "4.3.0", "Later");
        else if (slice_starts_nocase(ev->rcpt.to.mailbox, SLICE_LIT("drain")))
            why_set(&why, 421, "4.3.2", "Going");
        break;
    case SMTP_IN_HANDOFF:
    case SMTP_IN_HANDOFF_COMMIT:
    case SMTP_IN_HANDOFF_ABORT:
    case SMTP_IN_HANDOFF_NEXT: {
        static const char *const words[] = {"HANDOFF", "COMMIT", "ABORT", "NEXT"};
        log_address(d, words[ev->kind - SMTP_IN_HANDOFF], ev->handoff.id);
        buf_addf(&d->log, " %.*s %u>\n", (int)ev->handoff.to.len, (const char *)ev->handoff.to.ptr,
                 ev->handoff.text_bytes);
        if (contains(ev->handoff.id, "bad"))
            why_set(&why, 450, "4.3.2", "Not now");
        break;
    }
    case SMTP_IN_END:
        if (contains(buf_slice(&d->body), "FAIL"))
            why_set(&why, 451, "4.3.0", "Not now");
        log_body(d);
        buf_add_str(&d->log, "<END>\n");
        snprintf(qid, sizeof qid, "Q%u", ++d->queued);
        break;
    default: break;
    }
    smtp_in_answer(&d->s, &d->out, &why, *qid ? qid : NULL);
}

static void perform(struct dialog *d, const struct smtp_in_event *ev, struct slice in)
{
    switch (ev->kind) {
    case SMTP_IN_LINE: break;
    case SMTP_IN_FLUSH: flush(d); break;
    case SMTP_IN_STARTTLS:
        flush(d);
        buf_add_str(&d->log, "<STARTTLS>\n");
        d->drop_behind_starttls = d->closed = in.len != 0;
        if (!d->closed)
            smtp_in_tls_started(&d->s);
        break;
    case SMTP_IN_BODY: buf_add_slice(&d->body, ev->body); break;
    case SMTP_IN_HEADERS_END:
        log_body(d);
        buf_addf(&d->log, "<HEADERS%s%s%s%s>\n", ev->headers.from ? " from" : "",
                 ev->headers.date ? " date" : "", ev->headers.message_id ? " id" : "",
                 ev->headers.no_blank_line ? " open" : "");
        break;
    case SMTP_IN_DATA_BAD:
        d->body.len = 0;
        flush(d);
        buf_add_str(&d->log, "<BAD>\n");
        break;
    case SMTP_IN_RESET:
        flush(d);
        buf_add_str(&d->log, "<RESET>\n");
        break;
    case SMTP_IN_CLOSE:
        flush(d);
        buf_add_str(&d->log, "<CLOSE>\n");
        d->closed = true;
        break;
    default: answer(d, ev); break;
    }
}

static void feed_piece(struct dialog *d, struct slice in)
{
    struct smtp_in_event ev;
    while (!d->closed) {
        memset(&ev, 0xa5, sizeof ev);
        enum smtp_in_event_kind kind = smtp_in_step(&d->s, &in, &d->out, &ev);
        assert(kind == ev.kind);
        if (kind != SMTP_IN_NEED_INPUT) {
            perform(d, &ev, in);
            continue;
        }
        if (!smtp_in_wants_line(&d->s))
            break;
        if (d->starved) {
            struct why why;
            why_set(&why, 421, "4.3.2", "No memory");
            smtp_in_shutdown(&d->s, &d->out, &why);
        } else {
            smtp_in_lend_line(&d->s, malloc(SMTP_AUTH_LINE_MAX));
        }
    }
    assert(d->closed || in.len == 0);
    free(smtp_in_take_line(&d->s));
    assert(!smtp_in_is_idle(&d->s) || !d->s.line);
}

void dialog_feed(struct dialog *d, struct slice in, size_t step)
{
    for (size_t at = 0; at < in.len && !d->closed; at += step) {
        struct slice piece = slice_head(slice_from(in, at), step);
        uint8_t *copy = malloc(piece.len);
        memcpy(copy, piece.ptr, piece.len);
        feed_piece(d, slice_of(copy, piece.len));
        free(copy);
    }
    if (!d->closed)
        feed_piece(d, slice_of(NULL, 0));
    flush(d);
}

void dialog_run(struct dialog *d, struct slice in, size_t step)
{
    smtp_in_greet(&d->s, &d->out, NULL);
    dialog_feed(d, in, step);
}

const char *dialog_text(struct dialog *d)
{
    d->log_memory[d->log.len] = '\0';
    return (const char *)d->log_memory;
}

void dialog_end(struct dialog *d)
{
    free(smtp_in_abandon(&d->s));
}
