/*
 * gateway/ctl/probe.h - hikyakuctl probe: a connector tried step by step, from its name to a
 * message that arrived (EXCHANGE row E6).
 */
#ifndef HIKYAKU_CTL_PROBE_H
#define HIKYAKU_CTL_PROBE_H

#include "gateway/config.h"
#include "gateway/ctl/client.h"

struct probe_options {
    const char *connector, *kind; /* kind NULL: whichever has the name */
    const char *file;             /* a configuration; NULL: the one the gateway runs with */
    const char *from, *to, *domain, *user, *password_file; /* NULL: not given */
    bool message, no_message;
    uint32_t timeout_s, wait_s; /* for each step; for the message's way */
};

/* Prints what happened. Returns the exit status: 0 all steps went well, 1 one failed or could not
 * be tried, 2 wrong use. */
int probe_run(const struct client *c, const struct probe_options *o);

/*
 * What a probe stands on: a configuration (the file `path`; NULL: the running gateway's), its
 * resolver, TLS. One in a process at a time. NULL: `why`,
 * empty where stderr has it already.
 */
struct probe_world;
struct probe_world *probe_world_open(const struct client *c, const char *path, struct why *why);
const struct config *probe_world_config(const struct probe_world *w);
void probe_world_close(struct probe_world *w);
/* Does the resolver of the configuration answer at all? `text` says how. */
bool probe_resolver(struct probe_world *w, char *text, size_t text_size);
/*
 * One smart host, as far as TLS, as its connector demands; no password, no mail. Each step within
 * `limit_ns`. The steps that were not well go into `text`. True: all is well.
 */
bool probe_smart_host(struct probe_world *w, const struct config_send_connector *send,
                      uint32_t host, uint64_t limit_ns, char *text, size_t text_size);

#endif
