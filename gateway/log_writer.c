/*
 * gateway/log_writer.c - the thread that puts log lines out: standard error and the tracking
 * file.
 *
 * Owns:     its thread, the tracking file, a line buffer for each ring.
 * Runs on:  its own thread; start, reopen and stop are called by the control thread.
 * Contract: lines of one shard keep their order. Everything in the rings at stop is written.
 * Failure:  a blocked or failing sink holds up this thread alone; rings fill and shards count
 *           drops (FAULTS 69). A file that cannot be rotated or packed grows, or stays plain.
 * Bounds:   WRITER_PERIOD_US between looks at the rings; LOG_RING_BYTES a ring; a file about
 *           tracking_bytes, packed ones tracking_keep_s old.
 * Tests:    tests/system (logs)
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "gateway/log.h"
#include "gateway/tracking.h"

#define WRITER_PERIOD_US  20000
#define PACKER_PERIOD_US  200000
#define TRACKING_PATH_MAX 4096
#define WRITER_BATCH      65536u

struct log_writer {
    pthread_t thread;
    atomic_bool stop, reopen;
    bool json;
    char *tracking_path;
    int tracking_fd;
    uint64_t tracking_len, tracking_bytes, tracking_keep_s;
    pthread_t packer;
    bool packer_runs;
    atomic_bool pack; /* a file was set aside, or some may be left of an earlier life */
    uint32_t ring_count;
    struct ring_bytes **rings;
    struct partial { /* bytes of a ring that do not end in a line yet */
        uint32_t len;
        uint8_t bytes[WRITER_BATCH];
    } * partial;
    uint8_t all[WRITER_BATCH], tracked[WRITER_BATCH];
};

static void write_all(int fd, const uint8_t *p, size_t len)
{
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody to tell: standard error is the place for that */
        p += n;
        len -= (size_t)n;
    }
}

/* The text form for people: time, level, event, then key=value as they stand in JSON. */
static void put_text(const uint8_t *line, size_t len)
{
    uint8_t out[LOG_LINE_MAX + 64];
    size_t n = 0;
    bool quoted = false;
    for (size_t i = 1; i + 2 < len && n < sizeof out - 2; i++) { /* without { and }\n */
        if (line[i] == '"' && line[i - 1] != '\\')
            quoted = !quoted;
        if (!quoted && line[i] == ',')
            out[n++] = ' ';
        else if (!quoted && line[i] == ':')
            out[n++] = '=';
        else if (line[i] != '"')
            out[n++] = line[i];
    }
    out[n++] = '\n';
    write_all(STDERR_FILENO, out, n);
}

/* Whole lines: those that are tracked to the tracking file, all to standard error; one write each
 * where the form allows it. */
static void put_lines(struct log_writer *w, const uint8_t *lines, size_t len)
{
    size_t all = 0, tracked = 0;
    for (size_t at = 0, next; at < len; at = next) {
        const uint8_t *end = memchr(lines + at, '\n', len - at);
        next = (size_t)(end - lines) + 1;
        size_t n = next - at - 1; /* without the mark in front */
        if (lines[at] != LOG_SHOWN && w->tracking_fd >= 0) {
            memcpy(w->tracked + tracked, lines + at + 1, n);
            tracked += n;
        }
        if (lines[at] == LOG_TRACKED)
            continue;
        if (w->json) {
            memcpy(w->all + all, lines + at + 1, n);
            all += n;
        } else {
            put_text(lines + at + 1, n);
        }
    }
    write_all(w->tracking_fd, w->tracked, tracked);
    w->tracking_len += tracked;
    write_all(STDERR_FILENO, w->all, all);
}

static bool drain(struct log_writer *w, uint32_t ring)
{
    struct partial *p = &w->partial[ring];
    uint32_t n = ring_bytes_read(w->rings[ring], p->bytes + p->len, WRITER_BATCH - p->len);
    if (n == 0)
        return false;
    p->len += n;
    const uint8_t *end = memrchr(p->bytes, '\n', p->len);
    if (!end)
        return true;
    uint32_t whole = (uint32_t)(end - p->bytes) + 1;
    put_lines(w, p->bytes, whole);
    memmove(p->bytes, p->bytes + whole, p->len - whole);
    p->len -= whole;
    return true;
}

/* ---- rotation ---- */

/* Opens the tracking file, and says how long it is. */
static int tracking_open(const char *path, uint64_t *len)
{
    struct stat st;
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640) : -1;
    *len = fd >= 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    return fd;
}

static void tracking_reopen(struct log_writer *w)
{
    uint64_t len;
    int fd = tracking_open(w->tracking_path, &len);
    if (fd < 0)
        return;
    if (w->tracking_fd >= 0)
        close(w->tracking_fd);
    w->tracking_fd = fd;
    w->tracking_len = len;
}

/* Long enough: PATH becomes PATH-TIME, to be packed, and a new one is begun. */
static void tracking_rotate(struct log_writer *w)
{
    char aside[TRACKING_PATH_MAX];
    struct timespec now;
    struct tm tm;
    if (w->tracking_fd < 0 || !w->tracking_bytes || w->tracking_len < w->tracking_bytes)
        return;
    clock_gettime(CLOCK_REALTIME, &now); /* tidy: clock, the writer is no shard */
    gmtime_r(&now.tv_sec, &tm);
    int n = snprintf(aside, sizeof aside, "%s-", w->tracking_path);
    n += (int)strftime(aside + n, sizeof aside - (size_t)n, "%Y%m%dT%H%M%S", &tm);
    snprintf(aside + n, sizeof aside - (size_t)n, ".%06ldZ", now.tv_nsec / 1000);
    w->tracking_len = 0; /* if it fails, tried again after as much more */
    if (rename(w->tracking_path, aside) != 0)
        return;
    tracking_reopen(w);
    atomic_store(&w->pack, true);
}

/* One name in the folder of the tracking file: packed, or removed when it is too old. */
static void tracking_visit(const struct log_writer *w, const char *folder, const char *name)
{
    const char *slash = strrchr(w->tracking_path, '/'),
               *base = slash ? slash + 1 : w->tracking_path;
    size_t len = strlen(base), n = strlen(name);
    char path[TRACKING_PATH_MAX];
    struct stat st;
    struct why why;
    if (strncmp(name, base, len) != 0 || name[len] != '-' ||
        snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path ||
        stat(path, &st) != 0)
        return;
    if (name[n - 1] == 'Z') {
        if (!tracking_pack(path, &why))
            fprintf(stderr, "hikyaku: %s\n", why.text);
    } else if (w->tracking_keep_s && st.st_mtime + (time_t)w->tracking_keep_s <
                                         time(NULL)) { /* tidy: clock, the writer is no shard */
        unlink(path);
    }
}

static void tracking_tidy(const struct log_writer *w)
{
    const char *slash = strrchr(w->tracking_path, '/');
    char folder[TRACKING_PATH_MAX];
    if (!slash)
        snprintf(folder, sizeof folder, ".");
    else
        snprintf(folder, sizeof folder, "%.*s/", (int)(slash - w->tracking_path), w->tracking_path);
    DIR *dir = opendir(folder);
    struct dirent *e;
    while (dir && (e = readdir(dir)))
        tracking_visit(w, folder, e->d_name);
    if (dir)
        closedir(dir);
}

/* Packing takes as long as it takes: on a thread of its own, that rings do not fill meanwhile. */
static void *packer_main(void *arg)
{
    struct log_writer *w = arg;
    while (!atomic_load(&w->stop)) {
        if (atomic_exchange(&w->pack, false))
            tracking_tidy(w);
        else
            usleep(PACKER_PERIOD_US); /* tidy: clock, the packer is no shard */
    }
    return NULL;
}

static void *writer_main(void *arg)
{
    struct log_writer *w = arg;
    for (;;) {
        bool stop = atomic_load(&w->stop), any = false;
        if (atomic_exchange(&w->reopen, false))
            tracking_reopen(w);
        for (uint32_t i = 0; i < w->ring_count; i++)
            any |= drain(w, i);
        tracking_rotate(w);
        if (!any && stop)
            return NULL;
        if (!any)
            usleep(WRITER_PERIOD_US); /* tidy: clock, the writer is no shard */
    }
}

static void writer_free(struct log_writer *w)
{
    if (w->tracking_fd >= 0)
        close(w->tracking_fd);
    free(w->tracking_path);
    free(w->partial);
    free(w);
}

struct log_writer *log_writer_start(const struct log_writer_params *p, struct why *why)
{
    struct log_writer *w = calloc(1, sizeof *w);
    if (!w) {
        why_set(why, 451, "4.3.1", "out of memory");
        return NULL;
    }
    w->json = p->json;
    w->tracking_fd = -1;
    w->rings = p->rings;
    w->ring_count = p->ring_count;
    w->partial = calloc(p->ring_count, sizeof *w->partial);
    if (p->tracking) {
        w->tracking_path = strdup(p->tracking);
        w->tracking_bytes = p->tracking_bytes;
        w->tracking_keep_s = p->tracking_keep_s;
        w->tracking_fd = tracking_open(p->tracking, &w->tracking_len);
        if (w->tracking_fd < 0) {
            why_set(why, 451, "4.3.0", "cannot write the tracking log %s: %s", p->tracking,
                    strerror(errno));
            writer_free(w);
            return NULL;
        }
    }
    if (!w->partial || pthread_create(&w->thread, NULL, writer_main, w) != 0) {
        why_set(why, 451, "4.3.1", "cannot start the log writer");
        writer_free(w);
        return NULL;
    }
    atomic_store(&w->pack, true);
    w->packer_runs = p->tracking && pthread_create(&w->packer, NULL, packer_main, w) == 0;
    return w;
}

void log_writer_reopen(struct log_writer *w)
{
    atomic_store(&w->reopen, true);
}

void log_writer_stop(struct log_writer *w)
{
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    if (w->packer_runs)
        pthread_join(w->packer, NULL);
    writer_free(w);
}
