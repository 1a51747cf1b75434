/*
 * gateway/control.h - the control thread: start, signals, reload, drain, and the ear for
 * administrators.
 */
#ifndef HIKYAKU_CONTROL_H
#define HIKYAKU_CONTROL_H

#include "gateway/peers.h"
#include "gateway/protocol.h"

#define EXIT_CONFIG      2
#define EXIT_NO_IO_URING 69 /* EX_UNAVAILABLE */

struct control;

struct control_options {
    const char *config_path; /* --config */
    const char *demo_dir;    /* --demo: the embedded configuration instead */
};

/* Runs the gateway until it is told to stop. Returns the exit status; what went wrong was told on
 * stderr in one line. */
int control_run(const struct control_options *o);

/* --check: 0, or EXIT_CONFIG with one line on stderr. Warnings go to stderr too. */
int control_check(const char *config_path);

/* ---- for gateway/admin*.c, on the control thread ---- */

enum control_state { CONTROL_STARTING, CONTROL_RUNNING, CONTROL_DRAINING, CONTROL_STOPPED };

enum control_state control_state(const struct control *c);
struct io *control_io(struct control *c);
const struct gateway *control_gateway(const struct control *c);
/* The configuration in force. Valid until the next turn of the loop. */
const struct generation *control_generation(const struct control *c);
/* Of the last reload that failed: one line, or "". */
const char *control_reload_error(const struct control *c);
uint64_t control_reloads_failed(const struct control *c);
/* Reads the configuration again and swaps it on all shards, or keeps the old one. `done` is called
 * later, once. False: another reload is under way. */
bool control_reload(struct control *c, void (*done)(void *arg, const struct why *why), void *arg);
/* Stops: not ready from now on; `at_once` without the time of drain.accept, also when it runs. */
void control_drain(struct control *c, bool at_once);
enum drain_phase control_drain_phase(const struct control *c);
const char *drain_phase_name(enum drain_phase phase);
/* Which connectors the operator has switched. */
const struct switches *control_switches(const struct control *c);
/*
 * Notes the new state and writes it down; the shards are told by the caller (ADMIN_CONNECTOR).
 * False: nothing changed. True with a code in `why`: it holds, but could not be written down and
 * ends with the process.
 */
bool control_switch(struct control *c, enum connector_kind kind, const char *name,
                    enum connector_switch state, struct why *why)
    __attribute__((warn_unused_result));
/* Which connectors have series of their own. */
const struct series_names *control_series(const struct control *c);
/* Whom the operator watches now (gateway/control_protocol.c), and for how much longer. */
const struct protocol_targets *control_protocol(const struct control *c);
uint64_t control_protocol_left_s(const struct control *c, const struct protocol_target *t);
/* Watches an address, a network or a connector for a while, or for longer than before. False: why,
 * with 404 (log.protocol is not set), 400 (nothing of that name) or 409 (too many). */
bool control_protocol_watch(struct control *c, const char *target, uint64_t for_s, struct why *why)
    __attribute__((warn_unused_result));
/* Ends it; NULL: all. False: it was not watched. */
bool control_protocol_stop(struct control *c, const char *target)
    __attribute__((warn_unused_result));
/* Hands `r` to shard `shard`; `done` gets it back. The asker frees it then. */
void control_ask(struct control *c, uint32_t shard, struct admin_request *r,
                 void (*done)(void *arg, struct admin_request *r), void *arg);

#endif
