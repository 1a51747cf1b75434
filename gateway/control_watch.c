/*
 * gateway/control_watch.c - reload: {watch: true}: a changed configuration is reloaded by itself.
 *
 * Owns:     an inotify descriptor and the watches in it.
 * Runs on:  the control thread.
 * Contract: folders are watched, not files, as editors and ConfigMaps replace what has a name: the
 *           folder of each file, of each symbolic link on the way to it and of what that points to.
 *           After WATCH_SETTLE_NS without an event the files are compared with those that were
 *           read; only a difference is a reason to reload. A file that cannot be taken is not
 *           tried again before it changes once more.
 * Failure:  what cannot be watched: a warning; SIGHUP and `hikyakuctl reload` work as ever.
 * Bounds:   LINKS_MAX links behind each other.
 * Tests:    tests/system/test_reload.py
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "gateway/control_internal.h"

#define WATCH_SETTLE_NS (300 * NS_PER_MS)
#define LINKS_MAX       8u
#define EVENTS                                                                               \
    (IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | \
     IN_ATTRIB)

/* What the files are like now; the same sum as generation_load makes of what it reads. */
static uint64_t files_seen(const struct config *conf)
{
    uint64_t sum = config_file_seen(conf->path);
    if (conf->users_file)
        sum += config_file_seen(conf->users_file);
    for (const struct config_file *f = conf->files; f; f = f->next)
        sum += config_file_seen(f->path);
    return sum;
}

void control_watch_note(struct control *c)
{
    c->watch.seen = files_seen(c->current->config);
}

/* ---- watching ---- */

static void watch_folder_of(int fd, const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;
    if (len >= sizeof folder)
        return;
    memcpy(folder, path, len);
    folder[len] = '\0';
    inotify_add_watch(fd, slash ? (len ? folder : "/") : ".", EVENTS | IN_ONLYDIR);
}

/* Where a link at `path` leads; false: it is none. */
static bool link_target(const char *path, char out[PATH_MAX])
{
    char target[PATH_MAX];
    ssize_t n = readlink(path, target, sizeof target - 1);
    const char *slash = strrchr(path, '/');
    if (n <= 0)
        return false;
    target[n] = '\0';
    int folder = target[0] == '/' || !slash ? 0 : (int)(slash - path) + 1;
    return snprintf(out, PATH_MAX, "%.*s%s", folder, path, target) < PATH_MAX;
}

/* The folder of the file, and of each link on the way to it. */
static void watch_path(int fd, const char *path, uint32_t links)
{
    char part[PATH_MAX], target[PATH_MAX];
    size_t len = strlen(path);
    if (len >= sizeof part || links > LINKS_MAX)
        return;
    watch_folder_of(fd, path);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (!link_target(part, target))
            continue;
        if (i < len)
            watch_folder_of(fd, part);
        watch_path(fd, target, links + 1);
    }
}

static void watch_fired(struct timer *t)
{
    struct control *c = container_of(t, struct control, watch.timer);
    if (!c->current->config->reload.watch || c->state != CONTROL_RUNNING ||
        files_seen(c->current->config) == c->watch.seen)
        return;
    if (!control_reload(c, NULL, NULL)) /* one is under way: look again behind it */
        io_timer_set(c->io, t, io_now_ns(c->io) + WATCH_SETTLE_NS);
}

static void watch_event(struct io_op *op, int32_t res, uint32_t flags)
{
    struct control *c = container_of(op, struct control, watch.op);
    char events[4096];
    (void)flags;
    if (res == -ECANCELED)
        return;
    while (read(c->watch.inotify, events, sizeof events) > 0)
        ;
    io_timer_set(c->io, &c->watch.timer, io_now_ns(c->io) + WATCH_SETTLE_NS);
    io_poll_raw(c->io, op, c->watch.inotify, POLLIN);
}

static bool watch_open(struct control *c)
{
    c->watch.inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (c->watch.inotify < 0) {
        control_warn(c, "reload.watch: the system gives no inotify; SIGHUP still reloads");
        return false;
    }
    c->watch.op.done = watch_event;
    c->watch.timer.fire = watch_fired;
    io_poll_raw(c->io, &c->watch.op, c->watch.inotify, POLLIN);
    return true;
}

/* Watches of folders that are of no interest any more stay: their events change nothing. */
void control_watch_update(struct control *c)
{
    const struct config *conf = c->current->config;
    struct control_watch *w = &c->watch;
    if (!conf->reload.watch || c->options.demo_dir) {
        control_watch_stop(c);
        return;
    }
    if (w->inotify < 0 && !watch_open(c))
        return;
    watch_path(w->inotify, conf->path, 0);
    if (conf->users_file)
        watch_path(w->inotify, conf->users_file, 0);
    for (const struct config_file *f = conf->files; f; f = f->next)
        watch_path(w->inotify, f->path, 0);
    /* Anything may have changed before it was watched. */
    io_timer_set(c->io, &w->timer, io_now_ns(c->io) + WATCH_SETTLE_NS);
}

void control_watch_stop(struct control *c)
{
    if (c->watch.inotify < 0)
        return;
    io_timer_clear(c->io, &c->watch.timer);
    io_cancel(c->io, &c->watch.op);
    while (io_op_running(&c->watch.op))
        io_turn(c->io, true);
    close(c->watch.inotify);
    c->watch.inotify = -1;
}
