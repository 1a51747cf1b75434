/*
 * gateway/ctl/doctor.h - hikyakuctl doctor and connector check-dns: what is not as it should be,
 * and what to do.
 */
#ifndef HIKYAKU_CTL_DOCTOR_H
#define HIKYAKU_CTL_DOCTOR_H

#include "gateway/ctl/client.h"

/* 0: nothing is wrong; 1: something is, or the gateway does not answer. */
int doctor_run(const struct client *c);
int doctor_check_dns(const struct client *c);

#endif
