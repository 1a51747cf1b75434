/*
 * gateway/control_state.c - what the control thread keeps in the spool directory beside mail: the
 * connectors that the operator has switched.
 *
 * Owns:     SPOOL/connectors.
 * Runs on:  the control thread; blocks for a small file, as operators ask for it.
 * Contract: a file is replaced whole (written beside, synced, renamed, directory synced): after a
 *           crash it is the old one or the new one.
 * Failure:  a file that cannot be read stops the start, with its name and what to do; one that
 *           cannot be written leaves the old one.
 * Bounds:   STATE_FILE_MAX bytes.
 * Tests:    tests/system/test_connectors.py
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/control_internal.h"

#define STATE_FILE_MAX (256u * 1024)
#define STATE_PATH_MAX 4096u

static const char switches_name[] = "connectors";

static bool state_path(const struct control *c, const char *name, const char *suffix,
                       char path[STATE_PATH_MAX])
{
    const char *spool = c->current->config->spool.path;
    return snprintf(path, STATE_PATH_MAX, "%s/%s%s", spool, name, suffix) < (int)STATE_PATH_MAX;
}

/* The whole file into `out`; -errno, or 0. A file that is not there is empty. */
static int state_read(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = 1;
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    while (n > 0 && out->len < out->cap) {
        n = read(fd, out->ptr + out->len, out->cap - out->len);
        if (n > 0)
            out->len += (uint32_t)n;
    }
    int result = n < 0 ? -errno : out->len == out->cap ? -EFBIG : 0;
    close(fd);
    return result;
}

static int state_write_file(const char *path, struct slice text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), result = 0;
    if (fd < 0)
        return -errno;
    while (text.len && result == 0) {
        ssize_t n = write(fd, text.ptr, text.len);
        if (n < 0)
            result = -errno;
        else
            text = slice_from(text, (size_t)n);
    }
    if (result == 0 && fsync(fd) != 0)
        result = -errno;
    close(fd);
    return result;
}

static int state_sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 || fsync(fd) != 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return result;
}

static bool state_replace(const struct control *c, const char *name, struct slice text,
                          struct why *why)
{
    char path[STATE_PATH_MAX], beside[STATE_PATH_MAX];
    int error = -ENAMETOOLONG;
    if (state_path(c, name, "", path) && state_path(c, name, ".tmp", beside)) {
        error = state_write_file(beside, text);
        if (error == 0 && rename(beside, path) != 0)
            error = -errno;
        if (error == 0)
            error = state_sync_dir(c->current->config->spool.path);
    }
    if (error)
        why_set(why, 451, "4.3.0", "cannot write %s: %s", path, strerror(-error));
    return error == 0;
}

bool control_state_load(struct control *c, struct why *why)
{
    char path[STATE_PATH_MAX];
    char *text = malloc(STATE_FILE_MAX);
    int error = -ENAMETOOLONG;
    bool ok = false;
    if (text && state_path(c, switches_name, "", path)) {
        struct buf b = buf_over(text, STATE_FILE_MAX);
        error = state_read(path, &b);
        why_set(why, 451, "4.3.0", "cannot read %s: %s; remove it to have every connector enabled",
                path, strerror(-error));
        if (error == 0) {
            why_set(why, 451, "4.3.1", "out of memory");
            switches_free(&c->switches);
            switches_free(&c->current->switches);
            ok = switches_parse(buf_slice(&b), &c->switches) &&
                 switches_copy(&c->switches, &c->current->switches);
        }
    } else {
        why_set(why, 451, "4.3.1", "out of memory");
    }
    free(text);
    return ok;
}

const struct switches *control_switches(const struct control *c)
{
    return &c->switches;
}

bool control_switch(struct control *c, enum connector_kind kind, const char *name,
                    enum connector_switch state, struct why *why)
{
    char *text = malloc(STATE_FILE_MAX);
    if (!text || !switches_set(&c->switches, kind, name, state)) {
        why_set(why, 451, "4.3.1", "out of memory, or %u connectors are switched already",
                SWITCHES_MAX);
        free(text);
        return false;
    }
    struct buf b = buf_over(text, STATE_FILE_MAX);
    why_clear(why);
    if (!switches_write(&c->switches, &b))
        why_set(why, 451, "4.3.0", "too much to write down");
    else if (state_replace(c, switches_name, buf_slice(&b), why))
        why_clear(why);
    free(text);
    return true;
}
