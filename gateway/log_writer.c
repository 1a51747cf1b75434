/*
 * gateway/log_writer.c - the thread that puts log lines out: standard error and the tracking
 * file.
 *
 * Owns:     its thread, the tracking file, a line buffer for each ring.
 * Runs on:  its own thread; start, reopen and stop are called by the control thread.
 * Contract: lines of one shard keep their order. Everything in the rings at stop is written.
 * Failure:  a blocked or failing sink holds up this thread alone; rings fill and shards count
 *           drops (FAULTS 69).
 * Bounds:   WRITER_PERIOD_US between looks at the rings; LOG_RING_BYTES a ring.
 * Tests:    tests/system (logs)
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/log.h"

#define WRITER_PERIOD_US 20000
#define WRITER_BATCH     65536u

struct log_writer {
    pthread_t thread;
    atomic_bool stop, reopen;
    bool json;
    char *tracking_path;
    int tracking_fd;
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

static int tracking_open(const char *path)
{
    return path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640) : -1;
}

static void *writer_main(void *arg)
{
    struct log_writer *w = arg;
    for (;;) {
        bool stop = atomic_load(&w->stop), any = false;
        if (atomic_exchange(&w->reopen, false)) {
            int fd = tracking_open(w->tracking_path);
            if (fd >= 0 && w->tracking_fd >= 0)
                close(w->tracking_fd);
            if (fd >= 0)
                w->tracking_fd = fd;
        }
        for (uint32_t i = 0; i < w->ring_count; i++)
            any |= drain(w, i);
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
        w->tracking_fd = tracking_open(p->tracking);
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
    writer_free(w);
}
