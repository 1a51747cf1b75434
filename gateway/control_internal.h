/*
 * gateway/control_internal.h - what control.c and control_reload.c share.
 */
#ifndef HIKYAKU_CONTROL_INTERNAL_H
#define HIKYAKU_CONTROL_INTERNAL_H

#include "gateway/admin.h"
#include "gateway/auth_worker.h"
#include "gateway/control.h"
#include "gateway/shard.h"

#ifndef HIKYAKU_VERSION
#define HIKYAKU_VERSION "unknown"
#endif

/* Files whose change is a reason to reload. */
struct control_watch {
    int inotify; /* -1: none */
    struct io_op op;
    struct timer timer;
    uint64_t seen; /* of all files, when they were last read */
};

struct control {
    struct control_options options;
    struct gateway gw;
    enum control_state state;
    struct io *io;
    struct log log;
    struct log_writer *writer;
    struct admin *admin;
    int spool_lock, signal_fd;
    struct io_op signal_op;
    struct shard_start *shard_starts;
    struct auth_worker_start *worker_starts;
    uint32_t shards_up, shards_down;
    bool failed;
    struct why failure;
    /* drain */
    bool drain_begun; /* the shards know */
    struct timer drain_timer;
    /* reload */
    struct generation *current, *next;
    struct switches switches;
    uint64_t generations;
    uint32_t answers, refusals, adopted;
    bool reload_again;
    struct control_watch watch;
    struct series_names series;
    struct protocol_targets targets;
    struct timer targets_timer;
    struct why reload_why;
    char reload_error[WHY_TEXT_MAX];
    uint64_t reloads_failed;
    void (*reload_done)(void *arg, const struct why *why);
    void *reload_arg;
};

void control_post(struct control *c, uint32_t to, const struct ring_item *item);
void control_post_shards(struct control *c, const struct ring_item *item);
void control_warn(void *arg, const char *text);

/* control_reload.c */
/* Configuration, users, accepted domains. NULL: `why`. */
struct generation *generation_load(const struct control_options *o, uint64_t number,
                                   const struct switches *switches, struct why *why);
void generation_free(struct generation *g);
void control_reload_ready(struct control *c, const struct ring_item *item);
void control_reload_adopted(struct control *c);
void control_generation_released(struct control *c, struct generation *g);
void control_look(struct timer *t);

/* control_watch.c */
/* What is to be watched may have changed; called at start and after every reload. */
void control_watch_update(struct control *c);
/* Notes what the files are like, before they are read. */
void control_watch_note(struct control *c);
void control_watch_stop(struct control *c);

/* control_state.c */
/* What an earlier life left in the spool directory. The spool is locked. */
bool control_state_load(struct control *c, struct why *why) __attribute__((warn_unused_result));

/* control_notify.c */
/* Lines of sd_notify(3), such as "READY=1", to the service manager, if there is one. */
void control_notify(const char *state);
/* One warning for each socket handed over that nobody accepts from. */
void control_warn_inherited(struct control *c);

#endif
