/*
 * gateway/control_state.c - what the control thread keeps in the spool directory beside mail: the
 * connectors that the operator has switched, and the name of this instance.
 *
 * Owns:     SPOOL/connectors, SPOOL/instance.
 * Runs on:  the control thread; blocks for a small file, as operators ask for it.
 * Contract: a file is replaced whole (written beside, synced, renamed, directory synced): after a
 *           crash it is the old one or the new one. A spool that was copied, or came to another
 *           host, gets a new instance, so that Received lines tell the two apart (FAULTS 70).
 * Failure:  a file that cannot be read stops the start, with its name and what to do; one that
 *           cannot be written leaves the old one.
 * Bounds:   STATE_FILE_MAX bytes.
 * Tests:    tests/system/test_connectors.py
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/control_internal.h"

#define STATE_FILE_MAX  (256u * 1024)
#define STATE_PATH_MAX  4096u
#define STATE_OWNER_MAX 512u

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

static int state_write_all(int fd, struct slice text)
{
    while (text.len) {
        ssize_t n = write(fd, text.ptr, text.len);
        if (n < 0)
            return -errno;
        text = slice_from(text, (size_t)n);
    }
    return fsync(fd) != 0 ? -errno : 0;
}

/* `owner`: the number of the file itself, and this, go behind the text. */
static int state_write_file(const char *path, struct slice text, const char *owner)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char whole[STATE_OWNER_MAX];
    struct stat st;
    if (fd < 0)
        return -errno;
    int result = owner && fstat(fd, &st) != 0 ? -errno : 0;
    if (owner && result == 0) {
        int len = snprintf(whole, sizeof whole, "%.*s %llu %s\n", (int)text.len,
                           (const char *)text.ptr, (unsigned long long)st.st_ino, owner);
        text = slice_of(whole, (size_t)len < sizeof whole ? (size_t)len : sizeof whole - 1);
    }
    if (result == 0)
        result = state_write_all(fd, text);
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
                          const char *owner, struct why *why)
{
    char path[STATE_PATH_MAX], beside[STATE_PATH_MAX];
    int error = -ENAMETOOLONG;
    if (state_path(c, name, "", path) && state_path(c, name, ".tmp", beside)) {
        error = state_write_file(beside, text, owner);
        if (error == 0 && rename(beside, path) != 0)
            error = -errno;
        if (error == 0)
            error = state_sync_dir(c->current->config->spool.path);
    }
    if (error)
        why_set(why, 451, "4.3.0", "cannot write %s: %s", path, strerror(-error));
    return error == 0;
}

static bool switches_load(struct control *c, struct why *why)
{
    char path[STATE_PATH_MAX];
    char *text = malloc(STATE_FILE_MAX);
    bool ok = false;
    why_set(why, 451, "4.3.1", "out of memory");
    if (text && state_path(c, switches_name, "", path)) {
        struct buf b = buf_over(text, STATE_FILE_MAX);
        int error = state_read(path, &b);
        if (error) {
            why_set(why, 451, "4.3.0",
                    "cannot read %s: %s; remove it to have every connector enabled", path,
                    strerror(-error));
        } else {
            switches_free(&c->switches);
            switches_free(&c->current->switches);
            ok = switches_parse(buf_slice(&b), &c->switches) &&
                 switches_copy(&c->switches, &c->current->switches);
        }
    }
    free(text);
    return ok;
}

/* ---- instance ---- */

static void instance_make(struct gateway *gw)
{
    static const char letters[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint8_t random[INSTANCE_LEN];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        abort();
    for (uint32_t i = 0; i < INSTANCE_LEN; i++)
        gw->instance[i] = letters[random[i] % 32];
    gw->instance[INSTANCE_LEN] = '\0';
}

/* "k7f3q2mz 1311 host": is it this file, on this host? False: a copy, moved, or nothing of ours. */
static bool instance_is_ours(const char *path, const char *text, const char *host)
{
    char expected[STATE_OWNER_MAX];
    struct stat st;
    if (strlen(text) < INSTANCE_LEN || stat(path, &st) != 0)
        return false;
    snprintf(expected, sizeof expected, "%.*s %llu %s\n", (int)INSTANCE_LEN, text,
             (unsigned long long)st.st_ino, host);
    return strcmp(text, expected) == 0;
}

static bool instance_load(struct control *c, struct why *why)
{
    char path[STATE_PATH_MAX], text[STATE_OWNER_MAX], host[256] = "", said[STATE_OWNER_MAX + 256];
    struct buf b = buf_over(text, sizeof text - 1);
    int error = state_path(c, "instance", "", path) ? state_read(path, &b) : -ENAMETOOLONG;
    if (error) {
        why_set(why, 451, "4.3.0", "cannot read %s: %s; remove it to have a new one made", path,
                strerror(-error));
        return false;
    }
    text[b.len] = '\0';
    gethostname(host, sizeof host - 1);
    if (instance_is_ours(path, text, host)) {
        memcpy(c->gw.instance, text, INSTANCE_LEN);
        return true;
    }
    instance_make(&c->gw);
    if (b.len) {
        text[strcspn(text, "\n")] = '\0';
        snprintf(
            said, sizeof said,
            "this spool is a copy or came from another host (instance, file, host: %s): if the "
            "original runs on, what was queued is delivered twice; this is instance %s now",
            text, c->gw.instance);
        control_warn(c, said);
    }
    return state_replace(c, "instance", slice_str(c->gw.instance), host, why);
}

bool control_state_load(struct control *c, struct why *why)
{
    return switches_load(c, why) && instance_load(c, why);
}

/* ---- switching ---- */

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
    else if (state_replace(c, switches_name, buf_slice(&b), NULL, why))
        why_clear(why);
    free(text);
    return true;
}
