/*
 * tests/unit/lane_kit.h - a lane over the real io on a temporary directory, and calls that wait.
 */
#ifndef HIKYAKU_TESTS_LANE_KIT_H
#define HIKYAKU_TESTS_LANE_KIT_H

#include "queue/queue.h"

#define LANE_KIT_FOUND_MAX 4096u

struct lane_kit {
    struct io *io;
    struct lane *lane;
    struct lane_params params;
    char spool[64];
    struct slab blocks;
    struct arena arena;
    struct timer tick;
    /* what the callbacks said */
    bool opened, recovered, closed;
    struct why opened_why;
    uint64_t found[LANE_KIT_FOUND_MAX];
    uint32_t found_count, due_count, damaged_count;
    uint64_t due_last;
    enum lane_health health;
    uint32_t health_count;
    char damaged_what[128];
    /* set by the test */
    void (*on_due)(struct lane_kit *k, struct queue_msg *m);
    void (*on_found)(struct lane_kit *k, struct queue_msg *m);
};

struct lane_kit_tx {
    struct lane_tx tx;
    struct lane_kit *kit;
    bool done, resumed;
    struct queue_msg *msg;
    uint64_t qid;
    uint16_t code;
};

/* Makes the directory, the io, and waits until the lane is open and recovered. `edit` may change
 * the parameters. */
void lane_kit_open(struct lane_kit *k, void (*edit)(struct lane_params *p));
/* Again on the same directory. */
void lane_kit_reopen(struct lane_kit *k);
/* Opens the lane without waiting. */
void lane_kit_start(struct lane_kit *k);
void lane_kit_close_lane(struct lane_kit *k);
/* Lane, io and directory. */
void lane_kit_end(struct lane_kit *k);
/* Turns the loop once; `lane_turn_end` at its end. */
void lane_kit_turn(struct lane_kit *k);

#define LANE_KIT_UNTIL(k, condition)                            \
    do {                                                        \
        uint32_t turns_ = 0;                                    \
        while (!(condition)) {                                  \
            lane_kit_turn(k);                                   \
            cr_assert_lt(++turns_, 2000000u, "%s", #condition); \
        }                                                       \
    } while (0)

/* Body bytes: byte i of message `seed`. */
void lane_kit_body(uint64_t seed, uint64_t offset, uint8_t *out, size_t len);
/* Begins, appends (waiting where told to) and commits; does not wait for `done`. */
void lane_kit_send(struct lane_kit *k, struct lane_kit_tx *t, uint64_t seed, size_t body_len,
                   uint32_t rcpt_count);
/* The same, and waits; the queue id. */
uint64_t lane_kit_put(struct lane_kit *k, uint64_t seed, size_t body_len, uint32_t rcpt_count);
void lane_kit_begin(struct lane_kit *k, struct lane_kit_tx *t);
void lane_kit_append(struct lane_kit *k, struct lane_kit_tx *t, uint64_t seed, size_t len);
void lane_kit_commit(struct lane_kit *k, struct lane_kit_tx *t, uint32_t rcpt_count);
/* A DSN with which recipient `rcpt` of `parent` becomes final. */
void lane_kit_commit_dsn(struct lane_kit *k, struct lane_kit_tx *t, struct queue_msg *parent,
                         uint32_t rcpt);
/* Reads the whole body in pieces of `piece` bytes and compares. 0, or the first error. */
int32_t lane_kit_check_body(struct lane_kit *k, uint64_t qid, uint64_t seed, size_t body_len,
                            uint32_t piece);
/* Reads the envelope; false: it could not be. `error` (may be NULL) gets the last error's text. */
bool lane_kit_envelope(struct lane_kit *k, uint64_t qid, struct envelope *out, char error[600]);
/* All recipients are delivered. */
void lane_kit_deliver(struct lane_kit *k, uint64_t qid);
/* Waits until nothing is under way any more. */
void lane_kit_settle(struct lane_kit *k);
/* Copies the spool directory, as a crash would leave it; the copy's path goes into `to`. */
void lane_kit_copy(const struct lane_kit *k, char to[128]);

#endif
