/*
 * bench/maildir.c - durable delivery into a Maildir.
 *
 * Owns:     the open file of each message until finish or abandon.
 * Runs on:  the one thread of the sink; it waits for the disk.
 * Contract: finish is true only after fsync of the file, rename, and fsync of DIR/new.
 * Failure:  any error: the file in tmp is removed and finish is false (the sink answers 451).
 * Bounds:   one open file for each session in data.
 * Tests:    tests/unit/test_bench_maildir.c
 */
#include "bench/maildir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void full_path(const struct bench_maildir *m, const char *folder, const char *name,
                      char *out, size_t size)
{
    snprintf(out, size, "%s/%s%s%s", m->path, folder, name[0] != '\0' ? "/" : "", name);
}

const char *bench_maildir_open(struct bench_maildir *m, const char *path)
{
    static const char *const folders[] = {"tmp", "new", "cur"};
    char full[4096];
    memset(m, 0, sizeof(*m));
    m->new_fd = -1;
    if (strlen(path) >= sizeof(m->path))
        return "path too long";
    strcpy(m->path, path);
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return "cannot make the folder";
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        full_path(m, folders[i], "", full, sizeof(full));
        if (mkdir(full, 0700) != 0 && errno != EEXIST)
            return "cannot make tmp, new and cur";
    }
    full_path(m, "new", "", full, sizeof(full));
    m->new_fd = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (m->new_fd < 0)
        return "cannot open new";
    if (gethostname(m->host, sizeof(m->host) - 1) != 0)
        strcpy(m->host, "localhost");
    for (char *p = m->host; *p != '\0'; p++) {
        if (*p == '/' || *p == ':')
            *p = '_';
    }
    return NULL;
}

void bench_maildir_close(struct bench_maildir *m)
{
    if (m->new_fd >= 0)
        close(m->new_fd);
    m->new_fd = -1;
}

void bench_maildir_begin(struct bench_maildir *m, struct bench_maildir_file *f)
{
    struct timespec now;
    char full[4096];
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(f->name, sizeof(f->name), "%lld.M%06ldP%ldQ%" PRIu64 ".%s", (long long)now.tv_sec,
             now.tv_nsec / 1000, (long)getpid(), ++m->count, m->host);
    full_path(m, "tmp", f->name, full, sizeof(full));
    f->fd = open(full, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    f->failed = f->fd < 0;
}

void bench_maildir_add(struct bench_maildir_file *f, const char *data, size_t count)
{
    while (count > 0 && !f->failed) {
        ssize_t written = write(f->fd, data, count);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            f->failed = true;
            return;
        }
        data += written;
        count -= (size_t)written;
    }
}

bool bench_maildir_finish(struct bench_maildir *m, struct bench_maildir_file *f)
{
    char from[4096], to[4096];
    if (f->failed || fsync(f->fd) != 0) {
        bench_maildir_abandon(m, f);
        return false;
    }
    full_path(m, "tmp", f->name, from, sizeof(from));
    full_path(m, "new", f->name, to, sizeof(to));
    if (close(f->fd) != 0 || rename(from, to) != 0 || fsync(m->new_fd) != 0) {
        f->fd = -1;
        bench_maildir_abandon(m, f);
        return false;
    }
    f->fd = -1;
    return true;
}

void bench_maildir_abandon(struct bench_maildir *m, struct bench_maildir_file *f)
{
    char full[4096];
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
    full_path(m, "tmp", f->name, full, sizeof(full));
    unlink(full);
}
