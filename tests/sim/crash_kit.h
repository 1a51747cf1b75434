/*
 * tests/sim/crash_kit.h - a lane on a simulated disk, a few steps of work, and a copy of the disk
 * and of what was promised before every effect; then recoveries from what power cuts there may
 * leave.
 *
 * The books say for each message what its owner knows: accepted or not, which recipients were said
 * to be final and of which that is durable, which states were asked for and which of them is the
 * oldest that may still be there. A recovery must agree with them.
 */
#ifndef HIKYAKU_TESTS_SIM_CRASH_KIT_H
#define HIKYAKU_TESTS_SIM_CRASH_KIT_H

#include "gateway/base/prng.h"
#include "queue/queue.h"
#include "tests/sim/sim.h"

#define CRASH_STEPS_MAX    3u
#define CRASH_MESSAGES_MAX (CRASH_STEPS_MAX + 1)
#define CRASH_POINTS_MAX   160u
#define CRASH_SMALL        700u
#define CRASH_LARGE        70000u

enum crash_step {
    CRASH_ACCEPT_SMALL,
    CRASH_ACCEPT_LARGE, /* of several extents */
    CRASH_DELIVER_ONE,  /* a recipient of the oldest message that has any left */
    CRASH_DELIVER_ALL,
    CRASH_DEFER,
    CRASH_HOLD,
    CRASH_RELEASE,
    CRASH_BOUNCE,  /* a DSN that ends one recipient */
    CRASH_ATTEMPT, /* the final dot is about to be sent */
    CRASH_REOPEN,
    CRASH_STEP_COUNT,
    CRASH_FILL = CRASH_STEP_COUNT /* the spare segment is filled with zeros, then used */
};

struct crash_entry {
    uint64_t qid;
    uint32_t size;
    uint16_t rcpts;
    bool acked, failed;
    uint32_t asked, durable; /* final recipients, as bits */
    uint8_t states[CRASH_STEPS_MAX + 1], state_count, state_durable;
    /* A DSN: with it this recipient of that message became final; parent < 0: none. */
    int parent;
    uint32_t parent_rcpt;
};

struct crash_books {
    struct crash_entry entries[CRASH_MESSAGES_MAX];
    uint32_t count;
};

struct crash_point {
    uint64_t effect;
    struct sim_disk *disk;
    struct crash_books books;
};

struct crash_work {
    enum crash_step steps[CRASH_STEPS_MAX];
    uint32_t step_count;
    bool together; /* steps do not wait for each other, where they need not */
    enum lane_write_mode mode;
    bool fill;  /* the lane fills its spare segments while it has nothing to do */
    bool parts; /* each extent is written by itself, before anybody waits for it */
    uint64_t seed;
    struct sim_faults faults;
};

struct crash_run {
    const struct crash_work *work;
    struct crash_point points[CRASH_POINTS_MAX];
    uint32_t point_count;
    uint64_t recoveries, cuts; /* done so far; cuts that left the same bytes are not read again */
    uint64_t whole;            /* points whose every subset was tried */
    char fault[300];           /* what was found wrong; "": nothing */
};

/* ---- shared by crash_work.c and crash_check.c ---- */

/* A lane that somebody turns. */
struct crash_lane {
    struct io *io;
    struct lane *lane;
    struct timer tick;
    int lock;
    bool opened, recovered, closed;
    struct why why;
    void (*found)(struct crash_lane *k, struct queue_msg *m);
    void (*edit)(struct lane_params *p); /* may change the parameters; or NULL */
    uint32_t damaged;
};

/* Opens the spool of the current host; k->edit was set. False: k->why. */
bool crash_lane_open(struct crash_lane *k, enum lane_write_mode mode);
void crash_lane_turn(struct crash_lane *k);
/* Also the io. */
void crash_lane_close(struct crash_lane *k, bool lane_only);
/* Turns for so long. */
void crash_lane_idle(struct crash_lane *k, uint64_t ns);
/* Waits until all that was said is durable. */
void crash_lane_flush(struct crash_lane *k);
/* Byte number i of the message with that number. */
uint8_t crash_byte(uint32_t message, uint64_t i);

/* False: a step has no message to work on; such work is not worth its time. */
bool crash_work_makes_sense(const struct crash_work *work);
/* "accept, defer, reopen (together, direct)" */
const char *crash_work_text(const struct crash_work *work, char text[200]);

/* Does the work once and notes a point before each effect. */
void crash_run_work(struct crash_run *run, struct sim *sim);
/*
 * Recovers from every point, with every subset of up to `bits_max` unsynced things (of more: all,
 * none, each alone, all but each, all before each, some by chance, and every subset of `bits_max`
 * groups of neighbours), and some torn ones. `deep`: also crashes each such recovery again, and
 * looks that what ends then stays away. False: run->fault.
 */
bool crash_run_check(struct crash_run *run, struct sim *sim, uint32_t bits_max, bool deep);
void crash_run_free(struct crash_run *run);

#endif
