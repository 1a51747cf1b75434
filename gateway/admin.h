/*
 * gateway/admin.h - the operator's HTTP (INTERFACES.md section 5): metrics, health, /api/v1 on a
 * TCP address and on a UNIX socket.
 *
 * Runs on the control thread. libmicrohttpd does HTTP; its epoll descriptor is watched through
 * io_poll_raw.
 */
#ifndef HIKYAKU_ADMIN_H
#define HIKYAKU_ADMIN_H

#include "gateway/control.h"

struct admin;

/* Opens the socket and the address of the configuration. NULL: `why` names what could not be
 * opened. */
struct admin *admin_create(struct control *c, const struct config *conf, struct why *why);
/* Closes both; requests under way are answered 503. */
void admin_destroy(struct admin *a);
/* The configuration changed: token, and addresses when they differ. False: the old ones stay, `why`
 * says why. */
bool admin_reload(struct admin *a, const struct config *conf, struct why *why);

#endif
