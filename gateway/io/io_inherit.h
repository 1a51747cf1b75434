/*
 * gateway/io/io_inherit.h - listening sockets that systemd (or whoever started us) opened before:
 * socket activation, sd_listen_fds(3). They stay open while the gateway restarts, so that clients
 * wait instead of being refused, and ports below 1024 need no capability.
 */
#ifndef HIKYAKU_IO_INHERIT_H
#define HIKYAKU_IO_INHERIT_H

#include "gateway/io/io.h"

/* A new descriptor for the socket handed over that listens on `addr`; -1: there is none. */
int io_inherited_listener(const struct io_addr *addr);
/* How many were handed over, and where each listens. False: it is no TCP listener. */
uint32_t io_inherited_count(void);
bool io_inherited_addr(uint32_t index, struct io_addr *out) __attribute__((warn_unused_result));

#endif
