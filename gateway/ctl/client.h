/*
 * gateway/ctl/client.h - hikyakuctl's end of the admin API: one request over the UNIX socket.
 */
#ifndef HIKYAKU_CTL_CLIENT_H
#define HIKYAKU_CTL_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

struct client {
    const char *socket;
    bool json; /* answers are printed as they came */
};

/* A query argument; value NULL: left out. */
struct client_arg {
    const char *name, *value;
};

/*
 * Sends METHOD path?args. NULL: no answer or a refusal; one line was said on stderr and *status is
 * the exit status (1). The caller gives the answer back with json_decref.
 */
json_t *client_call(const struct client *c, const char *method, const char *path,
                    const struct client_arg *args, int *status);

/* The same for an answer that is no JSON: its bytes go to standard output. Returns the exit status.
 */
int client_copy(const struct client *c, const char *path, const struct client_arg *args);

#endif
