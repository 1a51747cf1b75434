/*
 * gateway/admin_internal.h - what the files of the admin HTTP share: admin.c (transport),
 * admin_api.c (paths), and those that answer.
 */
#ifndef HIKYAKU_ADMIN_INTERNAL_H
#define HIKYAKU_ADMIN_INTERNAL_H

#include <microhttpd.h>

#include "gateway/admin.h"
#include "gateway/base/list.h"
#include "gateway/filter.h"
#include "gateway/pressure.h"

/* A body under construction. */
struct admin_body {
    FILE *f;
    char *text;
    size_t len;
};

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
    void (*finish)(struct admin_call *call); /* all shards have answered */
    struct why note;                         /* for `finish`: what is to be said beside */
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
    struct admin_search *search; /* the one under way, or NULL */
    bool closing;
};

/* The answer is complete: sends it (now, or when the connection goes on). */
void admin_answer(struct admin_call *call, unsigned status, const char *type, char *body,
                  size_t len);
/* {"error":"..."} */
void admin_error(struct admin_call *call, unsigned status, const char *text);
/* Value of a query argument, or NULL. */
const char *admin_arg(const struct admin_call *call, const char *name);

/* admin_call.c */
/* {"error":...} with the words of `why`. */
void admin_error_why(struct admin_call *call, unsigned status, const struct why *why);
/* JSON: a string; ,"key":"value". */
void admin_put_string(FILE *f, struct slice v);
void admin_put_member(FILE *f, const char *key, const char *value);
/* False: answered with an error. */
bool admin_body_open(struct admin_call *call, struct admin_body *b)
    __attribute__((warn_unused_result));
/* 200 with what was written into b->f. */
void admin_body_answer(struct admin_call *call, struct admin_body *b);
/* Puts the same question to every shard; `finish` answers the call. */
void admin_ask_all(struct admin_call *call, const struct admin_request *model,
                   void (*finish)(struct admin_call *call));
/* What the shards' answers say together. */
uint64_t admin_matched(const struct admin_call *call);
/* When its shards have answered, if it still waits for some. */
void admin_call_free(struct admin_call *call);

/* admin_queue.c */
void admin_queue_list(struct admin_call *call);
void admin_queue_show(struct admin_call *call, const char *qid);
void admin_queue_export(struct admin_call *call);
void admin_queue_change(struct admin_call *call, enum admin_change change);
void admin_queue_sites(struct admin_call *call);
/* How far the requests are that shards are working on: listings and changes of a deep queue. */
void admin_progress(struct admin_call *call);

/* admin_status.c */
void admin_status(struct admin_call *call);
void admin_config_reload(struct admin_call *call);
void admin_drain(struct admin_call *call);
/* What a reload of another file would change. It is read as a reload would read it. */
void admin_config_diff(struct admin_call *call);
/* What is allowed, but likely not what was meant: certificates that end, for instance. */
void admin_config_warnings(struct admin_call *call);

/* admin_connector.c */
enum connector_switch_action {
    CONNECTOR_SWITCH_ENABLE,
    CONNECTOR_SWITCH_DISABLE,
    CONNECTOR_SWITCH_SUSPEND,
    CONNECTOR_SWITCH_RESUME
};
void admin_connectors(struct admin_call *call);
void admin_connector_switch(struct admin_call *call, enum connector_switch_action action);
void admin_route_explain(struct admin_call *call);

/* admin_client.c */
void admin_client_settings(struct admin_call *call);
void admin_autoconfig(struct admin_call *call);

/* admin_trace.c: a search of the tracking log, in a thread of its own, one at a time. */
void admin_trace(struct admin_call *call);
/* Stops the one under way and waits for it; its call is answered. */
void admin_trace_close(struct admin *a);

/* admin_protocol.c */
void admin_protocol(struct admin_call *call);
void admin_protocol_start(struct admin_call *call);
void admin_protocol_stop(struct admin_call *call);
/* "protocol_log":[...] */
void admin_put_protocol(const struct control *c, FILE *f);

/* admin_page.c: the web page at / and what it consists of. False: no such file. */
bool admin_page(struct admin_call *call);

/* admin_api.c: routes a call; the answer may come later. */
void admin_dispatch(struct admin_call *call);

/* admin_metrics.c */
void admin_metrics(struct admin_call *call);
void admin_ready(struct admin_call *call);
/* Of each connector; ages of the queue. */
void admin_series(FILE *f, const struct control *c);
/* Why the gateway does not accept, or NULL: it does. */
const char *admin_not_ready(struct control *c);
/* The highest of all shards. */
enum pressure_level admin_pressure(struct control *c, enum pressure_resource r);

#endif
