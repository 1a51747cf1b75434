/*
 * tests/io/conform_kit.h - operations, connections and waiting, as the conformance tests use them.
 */
#ifndef HIKYAKU_TESTS_IO_CONFORM_KIT_H
#define HIKYAKU_TESTS_IO_CONFORM_KIT_H

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/base/list.h"
#include "gateway/limits.h"
#include "tests/io/conform.h"

#define KIT_TURNS_MAX 200000u

struct kit {
    const struct conform *c;
    struct io *io;
    int starting; /* > 0: inside a call that starts something; no `done` may run now */
};

/* Starts something; a `done` that runs meanwhile fails the test. */
#define START(k, call)   \
    do {                 \
        (k)->starting++; \
        call;            \
        (k)->starting--; \
    } while (0)

/* An operation that remembers its result. */
struct kit_op {
    struct io_op op;
    struct kit *kit;
    int32_t res;
    uint32_t done_count;
};

/* One end of a connection: receives all it can into memory, and sends one piece at a time. */
struct kit_conn {
    struct kit *kit;
    int32_t fd;
    struct io_op recv;
    struct kit_op send;
    uint8_t *got;
    size_t got_len, got_cap;
    int32_t end; /* 1: still receiving; 0: the peer closed; < 0: error */
    bool hold;   /* keeps the buffers: held[0..held_count-1] */
    uint16_t held[64];
    uint32_t held_count;
    struct io_addr peer; /* of an accepted one */
};

/* A listener on loopback whose connections go into a table. */
struct kit_listener {
    struct kit *kit;
    struct io_acceptor acceptor;
    int32_t fd;
    struct io_addr addr;
    struct kit_conn *conns; /* in the order of their accepts */
    uint32_t conn_count, conn_max;
    uint32_t errors;
    int32_t last_error;
    bool stopped;
};

/* fd_count 256, 64 buffers of 4 KiB where 0. */
void kit_open(struct kit *k, const struct conform *c, uint32_t fd_count, uint32_t buf_count);
void kit_close(struct kit *k);

void kit_op_init(struct kit *k, struct kit_op *o);
/* Turns until the operation is done; returns its result. */
int32_t kit_wait(struct kit_op *o);
/* Turns until `cond`; fails after KIT_TURNS_MAX turns. */
#define KIT_UNTIL(k, cond)                                    \
    do {                                                      \
        uint32_t turns_ = 0;                                  \
        while (!(cond)) {                                     \
            cr_assert(turns_++ < KIT_TURNS_MAX, "%s", #cond); \
            (k)->c->turn((k)->io);                            \
        }                                                     \
    } while (0)

void kit_listen(struct kit *k, struct kit_listener *l, uint32_t conn_max);
void kit_unlisten(struct kit_listener *l);
/* Connects; the accepted end is *server. */
void kit_connect(struct kit_listener *l, struct kit_conn *client, struct kit_conn **server);
void kit_conn_init(struct kit *k, struct kit_conn *conn, int32_t fd);
void kit_receive(struct kit_conn *conn);
void kit_send(struct kit_conn *conn, const void *data, uint32_t len);
void kit_send_last(struct kit_conn *conn, const void *data, uint32_t len);
/* Gives held buffers back. */
void kit_release(struct kit_conn *conn);
/* Cancels what runs, closes, frees. */
void kit_disconnect(struct kit_conn *conn);

/* "DIR/NAME" in a buffer of the caller. */
const char *kit_path(const struct kit *k, const char *name, char path[256]);
int32_t kit_open_file(struct kit *k, const char *path, uint32_t flags);
/* Byte number i of the test pattern. */
uint8_t kit_byte(size_t i);
void kit_fill(uint8_t *data, size_t len, size_t from);
bool kit_holds(const uint8_t *data, size_t len, size_t from);

#endif
