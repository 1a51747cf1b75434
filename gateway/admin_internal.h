/*
 * gateway/admin_internal.h - what admin.c (transport) and admin_api.c (answers) share.
 */
#ifndef HIKYAKU_ADMIN_INTERNAL_H
#define HIKYAKU_ADMIN_INTERNAL_H

#include <microhttpd.h>

#include "gateway/admin.h"
#include "gateway/base/list.h"
#include "gateway/filter.h"

/* One HTTP request, from its first header to its answer. */
struct admin_call {
    struct admin *admin;
    struct MHD_Connection *connection;
    struct list link;
    bool trusted; /* came by the UNIX socket */
    bool answered, suspended;
    const char *method, *path;
    /* questions to shards */
    uint32_t asked, waiting;
    struct admin_request **requests; /* one a shard */
    struct filter *filter;
    uint32_t limit;
    void (*finish)(struct admin_call *call); /* all shards have answered */
    /* the answer */
    unsigned status;
    char *body; /* malloc'd */
    size_t body_len;
    const char *type;
};

/* One HTTP listener of libmicrohttpd. */
struct admin_door {
    struct admin *admin;
    struct MHD_Daemon *daemon;
    bool trusted;
    struct io_op poll;
    struct timer timer;
};

struct admin {
    struct control *control;
    struct admin_door tcp, local;
    struct io_addr http;
    char *token, *socket_path;
    struct list calls;
    bool closing;
};

/* The answer is complete: sends it (now, or when the connection goes on). */
void admin_answer(struct admin_call *call, unsigned status, const char *type, char *body,
                  size_t len);
/* {"error":"..."} */
void admin_error(struct admin_call *call, unsigned status, const char *text);
/* Value of a query argument, or NULL. */
const char *admin_arg(const struct admin_call *call, const char *name);

/* admin_api.c: routes a call; the answer may come later. */
void admin_dispatch(struct admin_call *call);
void admin_call_free(struct admin_call *call);

/* admin_metrics.c */
void admin_metrics(struct admin_call *call);
void admin_ready(struct admin_call *call);
/* Why the gateway does not accept, or NULL: it does. */
const char *admin_not_ready(struct control *c);

#endif
