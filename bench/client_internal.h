/*
 * bench/client_internal.h - a client session, shared by its files: client.c (replies, and what they
 * lead to), client_put.c (commands), client_body.c (sizes and bodies).
 */
#ifndef HIKYAKU_BENCH_CLIENT_INTERNAL_H
#define HIKYAKU_BENCH_CLIENT_INTERNAL_H

#include "bench/client.h"

/* ---- client_put.c ---- */
/* Where the next command goes: behind a body that still waits, if there is one. */
struct bench_buf *client_out(struct bench_client *c);
void client_put_ehlo(struct bench_client *c);
void client_put_auth(struct bench_client *c);
/* MAIL, and with pipelining all up to DATA; or, first, a command that should be refused. */
void client_put_envelope(struct bench_client *c);
void client_put_rcpt(struct bench_client *c);
/* The header of message `number` of a session. */
void client_put_header(struct bench_buf *to, const struct bench_client_run *run, uint32_t session,
                       uint64_t number);
/* What goes wrong in a first message, behind its header. False: the message has no end. */
bool client_put_fault(struct bench_client *c);

/* ---- client_body.c ---- */
/* How much of the shared body a message takes: all, or as many whole lines as the mix says. */
size_t client_body_count(struct bench_client_run *run, size_t header);

#endif
