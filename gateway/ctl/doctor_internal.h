/*
 * gateway/ctl/doctor_internal.h - what the files of the doctor share.
 */
#ifndef HIKYAKU_CTL_DOCTOR_INTERNAL_H
#define HIKYAKU_CTL_DOCTOR_INTERNAL_H

#include "gateway/ctl/doctor.h"

struct doctor {
    json_t *findings;
    bool wrong;
};

/* `advice` NULL: all is well. */
void doctor_say(struct doctor *d, const char *about, const char *what, const char *advice);

/* doctor_out.c: the resolver, smart hosts, the names of the addresses that mail leaves from. */
void doctor_look_out(struct doctor *d, const struct client *c);

#endif
