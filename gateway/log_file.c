/*
 * gateway/log_file.c - rotation, packing and removal of log files.
 *
 * Owns:     the descriptor of the file being written.
 * Runs on:  the writer thread; log_file_tidy on the packing thread, which touches only files that
 *           were set aside.
 * Contract: a line is in one file, whole: half a line, left by a kill or a full disk, is ended
 *           before the next one. A packed file has its name when it is whole.
 * Failure:  a file that cannot be set aside or packed grows, or stays plain; tried again later.
 * Bounds:   about bytes_max a file; keep_s and folder_bytes_max for packed ones.
 * Tests:    tests/unit/test_log_file.c, tests/system/test_trace.py, test_protocol_log.py
 */
#include "gateway/log_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "gateway/tracking.h"

/* How much of it was written. */
static size_t write_all(int fd, const void *bytes, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = write(fd, (const uint8_t *)bytes + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

/* Goes on in this one, from its end. */
static void file_take(struct log_file *f, int fd)
{
    struct stat st;
    char last = '\n';
    if (f->fd >= 0)
        close(f->fd);
    f->fd = fd;
    f->len = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    f->torn = f->len && pread(fd, &last, 1, (off_t)f->len - 1) == 1 && last != '\n';
    if (f->head && f->len == 0)
        f->len = write_all(fd, f->head, strlen(f->head));
}

static bool file_open(struct log_file *f)
{
    int fd = open(f->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd >= 0)
        file_take(f, fd);
    return fd >= 0;
}

bool log_file_open(struct log_file *f)
{
    f->fd = -1;
    return !f->path || f->lazy || file_open(f);
}

void log_file_reopen(struct log_file *f)
{
    if (f->path && (f->fd >= 0 || !f->lazy))
        (void)file_open(f);
}

void log_file_write(struct log_file *f, const void *lines, uint64_t len)
{
    if (!f->path || len == 0 || (f->fd < 0 && !file_open(f)))
        return;
    if (f->torn)
        f->torn = write_all(f->fd, "\n", 1) != 1;
    size_t done = f->torn ? 0 : write_all(f->fd, lines, len);
    if (done)
        f->torn = ((const char *)lines)[done - 1] != '\n';
    f->len += len;
}

/*
 * The next file is there before this one gets its other name: by that the packer takes it, and it
 * can never have it back.
 */
static bool file_set_aside(struct log_file *f, const char *aside)
{
    char next[LOG_FILE_PATH_MAX];
    if (snprintf(next, sizeof next, "%s.new", f->path) >= (int)sizeof next)
        return false;
    int fd = open(next, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0)
        return false;
    if (rename(f->path, aside) != 0) {
        close(fd);
        unlink(next);
        return false;
    }
    file_take(f, fd);
    if (rename(next, f->path) != 0) { /* the next line makes one */
        close(f->fd);
        f->fd = -1;
        unlink(next);
    }
    return true;
}

bool log_file_rotate(struct log_file *f)
{
    char aside[LOG_FILE_PATH_MAX];
    struct timespec now;
    struct tm tm;
    if (f->fd < 0 || !f->bytes_max || f->len < f->bytes_max)
        return false;
    clock_gettime(CLOCK_REALTIME, &now); /* tidy: clock, the writer is no shard */
    gmtime_r(&now.tv_sec, &tm);
    int n = snprintf(aside, sizeof aside, "%s-", f->path);
    n += (int)strftime(aside + n, sizeof aside - (size_t)n, "%Y%m%dT%H%M%S", &tm);
    snprintf(aside + n, sizeof aside - (size_t)n, ".%06ldZ", now.tv_nsec / 1000);
    f->len = 0; /* if it fails, tried again after as much more */
    return file_set_aside(f, aside);
}

void log_file_close(struct log_file *f)
{
    if (f->path && f->fd >= 0)
        close(f->fd);
    free(f->path);
    f->path = NULL;
}

/* ---- what was set aside ---- */

struct aside {
    char path[LOG_FILE_PATH_MAX];
    uint64_t bytes;
    int64_t written_s;
};

/* Calls `each` for every file PATH-*; stops when it returns false. */
static void aside_each(const struct log_file *f,
                       bool (*each)(void *arg, const struct log_file *f, const struct aside *a),
                       void *arg)
{
    const char *slash = strrchr(f->path, '/'), *base = slash ? slash + 1 : f->path;
    char folder[LOG_FILE_PATH_MAX];
    struct aside a;
    struct stat st;
    size_t len = strlen(base);
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - f->path) + 1 : 1,
             slash ? f->path : ".");
    DIR *dir = opendir(folder);
    struct dirent *e;
    bool more = true;
    while (dir && more && (e = readdir(dir))) {
        if (strncmp(e->d_name, base, len) != 0 || e->d_name[len] != '-' ||
            snprintf(a.path, sizeof a.path, "%s/%s", folder, e->d_name) >= (int)sizeof a.path ||
            stat(a.path, &st) != 0)
            continue;
        a.bytes = (uint64_t)st.st_size;
        a.written_s = st.st_mtime;
        more = each(arg, f, &a);
    }
    if (dir)
        closedir(dir);
}

static bool aside_pack(void *arg, const struct log_file *f, const struct aside *a)
{
    struct why why;
    time_t now = time(NULL); /* tidy: clock, the packer is no shard */
    (void)arg;
    if (a->path[strlen(a->path) - 1] == 'Z') {
        if (!tracking_pack(a->path, f->indexed, &why))
            fprintf(stderr, "hikyaku: %s\n", why.text);
    } else if (f->keep_s && a->written_s + (int64_t)f->keep_s < now) {
        unlink(a->path);
    }
    return true;
}

struct oldest {
    uint64_t bytes;
    struct aside file;
};

static bool aside_sum(void *arg, const struct log_file *f, const struct aside *a)
{
    struct oldest *o = arg;
    (void)f;
    if (o->bytes == 0 || strcmp(a->path, o->file.path) < 0) /* the name tells the time */
        o->file = *a;
    o->bytes += a->bytes;
    return true;
}

void log_file_tidy(const struct log_file *f)
{
    if (!f->path)
        return;
    aside_each(f, aside_pack, NULL);
    for (;;) {
        struct oldest o = {0};
        if (f->folder_bytes_max)
            aside_each(f, aside_sum, &o);
        if (o.bytes <= f->folder_bytes_max || o.bytes == 0 || unlink(o.file.path) != 0)
            return;
    }
}
