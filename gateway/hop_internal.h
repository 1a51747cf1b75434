/*
 * gateway/hop_internal.h - what hop.c (a connection's life and health) and hop_task.c (the tasks it
 * carries) want of each other. What the delivery wants of both stands in delivery.h.
 */
#ifndef HIKYAKU_HOP_INTERNAL_H
#define HIKYAKU_HOP_INTERNAL_H

#include "gateway/delivery.h"

/* ---- hop.c ---- */
/* A message that it took tells as much as a greeting: one connection may be all that there is. */
void hop_report_taken(struct hop *h);

/* ---- hop_task.c ---- */
/* In the next hop's words; a lost connection is a 451. */
void hop_why(struct why *why, const struct smtp_reply *r);
/* Ready for a task: the next one, a short wait for one, or QUIT. */
void hop_next(struct hop *h);
/* Replies to one recipient, and to the transaction. */
void hop_rcpt(struct hop *h, const struct smtp_out_event *ev);
void hop_tx_done(struct hop *h, const struct smtp_out_event *ev);
/* Every recipient of the task that has no verdict yet gets this one, and the task ends. */
void hop_task_end(struct hop *h, const struct why *why, uint64_t elapsed_ns);
/* The task, of which nothing was taken, is the site's again. */
void hop_task_back(struct hop *h);
/* The same for the one ahead, if there is one. */
void hop_ahead_back(struct hop *h);

#endif
