/*
 * gateway/pressure.h - back pressure: how near each resource is to its end, in levels with
 * hysteresis. No I/O, no clock.
 *
 * NORMAL: nothing. MEDIUM: the answer to MAIL is delayed. HIGH: MAIL is answered 452 4.3.1;
 * deliveries, reports and the operator's changes go on.
 */
#ifndef HIKYAKU_PRESSURE_H
#define HIKYAKU_PRESSURE_H

#include <stdint.h>

enum pressure_level { PRESSURE_NORMAL, PRESSURE_MEDIUM, PRESSURE_HIGH };

enum pressure_resource {
    PRESSURE_SPOOL,  /* bytes below spool.max_size */
    PRESSURE_DISK,   /* bytes above spool.min_free */
    PRESSURE_INODES, /* of the spool's file system */
    PRESSURE_MEMORY, /* resident bytes below back_pressure.memory */
    PRESSURE_QUEUE,  /* messages below back_pressure.queue_messages */
    PRESSURE_COUNT
};

/* What is left of a resource when a level begins and ends; the ends lie above the begins. */
struct pressure_rule {
    uint64_t medium, medium_end, high, high_end;
};

struct pressure {
    enum pressure_level level[PRESSURE_COUNT];
};

/* Of a limit: MEDIUM below 20 % left until 30 %, HIGH below 5 % until 10 %. */
struct pressure_rule pressure_rule_of(uint64_t limit);
/* The same in bytes or files that a disk has left. */
struct pressure_rule pressure_rule_disk(void);
struct pressure_rule pressure_rule_inodes(void);
/* Takes note of what is left; the new level. */
enum pressure_level pressure_update(struct pressure *p, enum pressure_resource r, uint64_t left,
                                    const struct pressure_rule *rule);
/* The highest; `which` (may be NULL) gets the first resource that has it. */
enum pressure_level pressure_worst(const struct pressure *p, enum pressure_resource *which);

const char *pressure_resource_name(enum pressure_resource r); /* "spool", "disk", ... */
const char *pressure_level_name(enum pressure_level l);       /* "normal", "medium", "high" */

#endif
