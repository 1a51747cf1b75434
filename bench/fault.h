/*
 * bench/fault.h - clients that misbehave on request: which kinds, how many, chosen by a seed.
 *
 * A kind is drawn for each connection from the seed, the session's number and how many connections
 * it had before: the same in each run, whatever the server does. The connection's first message is
 * the one that goes wrong.
 */
#ifndef HIKYAKU_BENCH_FAULT_H
#define HIKYAKU_BENCH_FAULT_H

#include <stdint.h>

enum bench_fault {
    BENCH_FAULT_NONE,
    BENCH_FAULT_VANISH_MAIL,  /* closes once MAIL is answered */
    BENCH_FAULT_VANISH_DATA,  /* closes after half of the body */
    BENCH_FAULT_VANISH_DOT,   /* closes behind the final dot, before its reply */
    BENCH_FAULT_HALF_CLOSE,   /* ends its sending side behind the final dot, and reads on */
    BENCH_FAULT_SLOW,         /* sends the message at slow_bytes a second */
    BENCH_FAULT_LONG_COMMAND, /* a command line of BENCH_FAULT_COMMAND_BYTES first */
    BENCH_FAULT_BAD_COMMAND,  /* a command that nobody knows first */
    BENCH_FAULT_LONG_LINE,    /* a line of BENCH_FAULT_LINE_BYTES in the body */
    BENCH_FAULT_BARE_LF,      /* a line in the body that ends without CR */
    BENCH_FAULT_COUNT
};

#define BENCH_FAULT_COMMAND_BYTES \
    9000u                            /* RFC 5321 section 4.5.3.1.4: 512, and what extensions add */
#define BENCH_FAULT_LINE_BYTES 9000u /* section 4.5.3.1.6: 1000 */

struct bench_fault_plan {
    uint64_t seed, slow_bytes;
    uint32_t percent[BENCH_FAULT_COUNT], percent_sum;
};

/* "KIND=PERCENT", with the names of the kinds above in lower case and dashes. NULL, or what is
 * wrong. */
const char *bench_fault_add(struct bench_fault_plan *p, const char *text);
const char *bench_fault_name(enum bench_fault fault);
enum bench_fault bench_fault_draw(const struct bench_fault_plan *p, uint32_t session,
                                  uint64_t connection);

#endif
