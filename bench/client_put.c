/*
 * bench/client_put.c - what a client session says: commands, a message's header, and what goes
 * wrong on purpose.
 *
 * Owns:     nothing; the output is the session's.
 * Runs on:  the one thread of the load.
 * Contract: a command goes behind all that waits to be sent. What goes wrong does so in the first
 *           message of a connection.
 * Failure:  none.
 * Bounds:   run->rcpt_count recipients; BENCH_FAULT_COMMAND_BYTES, BENCH_FAULT_LINE_BYTES.
 * Tests:    tests/unit/test_bench_client.c
 */
#include <inttypes.h>
#include <string.h>

#include "bench/base64.h"
#include "bench/client_internal.h"

struct bench_buf *client_out(struct bench_client *c)
{
    return c->body_left > 0 || bench_buf_count(&c->tail) > 0 ? &c->tail : &c->head;
}

/* The pattern with each % replaced by the number. */
static void put_pattern(struct bench_buf *into, const char *pattern, uint64_t number)
{
    const char *percent;
    while ((percent = strchr(pattern, '%')) != NULL) {
        bench_buf_add(into, pattern, (size_t)(percent - pattern));
        bench_buf_printf(into, "%" PRIu64, number);
        pattern = percent + 1;
    }
    bench_buf_str(into, pattern);
}

/* ---- commands ---- */

void client_put_auth(struct bench_client *c)
{
    struct bench_buf plain = {0};
    bench_buf_add(&plain, "", 1);
    bench_buf_str(&plain, c->run->auth_user);
    bench_buf_add(&plain, "", 1);
    bench_buf_str(&plain, c->run->auth_password);
    bench_buf_str(client_out(c), "AUTH PLAIN ");
    bench_base64_encode(client_out(c), bench_buf_head(&plain), bench_buf_count(&plain));
    bench_buf_str(client_out(c), "\r\n");
    bench_buf_free(&plain);
    c->state = BENCH_CLIENT_AUTH;
}

void client_put_ehlo(struct bench_client *c)
{
    bench_buf_printf(client_out(c), "EHLO %s\r\n", c->run->helo);
    c->state = BENCH_CLIENT_EHLO;
}

static void put_mail(struct bench_client *c)
{
    struct bench_buf *to = client_out(c);
    bench_buf_str(to, "MAIL FROM:<");
    put_pattern(to, c->run->from, c->session);
    bench_buf_str(to, ">\r\n");
    c->rcpts_sent = 0;
    c->envelope_sent = true;
}

void client_put_rcpt(struct bench_client *c)
{
    struct bench_buf *to = client_out(c);
    bench_buf_str(to, "RCPT TO:<");
    put_pattern(to, c->run->to, c->run->rcpt_number++ % c->run->to_number_max);
    bench_buf_str(to, ">\r\n");
    c->rcpts_sent++;
}

/* A line of count bytes with its CRLF, that begins with text. */
static void put_long(struct bench_buf *to, const char *text, size_t count)
{
    static const char fill[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    size_t at = strlen(text) + 2;
    bench_buf_str(to, text);
    while (at < count) {
        size_t part = count - at < sizeof(fill) - 1 ? count - at : sizeof(fill) - 1;
        bench_buf_add(to, fill, part);
        at += part;
    }
    bench_buf_str(to, "\r\n");
}

/* True: a command goes before the envelope, and its reply is waited for. */
static bool put_bad_command(struct bench_client *c)
{
    if (c->fault_begun)
        return false;
    if (c->fault == BENCH_FAULT_LONG_COMMAND)
        put_long(client_out(c), "NOOP ", BENCH_FAULT_COMMAND_BYTES);
    else if (c->fault == BENCH_FAULT_BAD_COMMAND)
        bench_buf_str(client_out(c), "FETCH 1 (FLAGS)\r\n");
    else
        return false;
    c->fault_begun = true;
    c->state = BENCH_CLIENT_FAULT;
    return true;
}

void client_put_envelope(struct bench_client *c)
{
    if (put_bad_command(c))
        return;
    put_mail(c);
    if (c->run->pipeline == BENCH_PIPELINE_OFF)
        return;
    while (c->rcpts_sent < c->run->rcpt_count)
        client_put_rcpt(c);
    bench_buf_str(client_out(c), "DATA\r\n");
}

/* ---- messages ---- */

void client_put_header(struct bench_buf *to, const struct bench_client_run *run, uint32_t session,
                       uint64_t number)
{
    bench_buf_str(to, "From: <");
    put_pattern(to, run->from, session);
    bench_buf_printf(to,
                     ">\r\nX-Bench-Id: %s-%" PRIu32 "-%" PRIu64 "\r\nMessage-ID: <%s.%" PRIu32
                     ".%" PRIu64 "@bench.test>\r\nSubject: load\r\n\r\n",
                     run->run_id, session, number, run->run_id, session, number);
}

bool client_put_fault(struct bench_client *c)
{
    if (c->message_count != 1)
        return true;
    switch (c->fault) {
    case BENCH_FAULT_VANISH_DATA: c->body_left /= 2; break;
    case BENCH_FAULT_LONG_LINE: put_long(&c->head, "long: ", BENCH_FAULT_LINE_BYTES); break;
    case BENCH_FAULT_BARE_LF: bench_buf_str(&c->head, "ends without CR\nand goes on\r\n"); break;
    case BENCH_FAULT_VANISH_DOT:
    case BENCH_FAULT_HALF_CLOSE:
    case BENCH_FAULT_SLOW: break;
    case BENCH_FAULT_NONE:
    case BENCH_FAULT_VANISH_MAIL:
    case BENCH_FAULT_LONG_COMMAND:
    case BENCH_FAULT_BAD_COMMAND:
    case BENCH_FAULT_COUNT: return true;
    }
    c->fault_begun = true;
    c->vanish_when_sent = c->fault == BENCH_FAULT_VANISH_DATA || c->fault == BENCH_FAULT_VANISH_DOT;
    c->shut_when_sent = c->fault == BENCH_FAULT_HALF_CLOSE;
    return c->fault != BENCH_FAULT_VANISH_DATA;
}
