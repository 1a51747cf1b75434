/*
 * gateway/log_writer.c - the thread that puts log lines out: standard error, the tracking file and
 * the protocol logs.
 *
 * Owns:     its thread, the files, a line buffer for each ring; the thread that packs files.
 * Runs on:  its own thread; start, reopen and stop are called by the control thread.
 * Contract: lines of one ring keep their order. Everything in the rings at stop is written.
 * Failure:  a blocked or failing sink holds up this thread alone; rings fill and shards count
 *           drops (FAULTS 69).
 * Bounds:   WRITER_PERIOD_US between looks at the rings; LOG_RING_BYTES, PROTOCOL_RING_BYTES a
 *           ring.
 * Tests:    tests/system (logs)
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/log.h"
#include "gateway/log_file.h"

#define WRITER_PERIOD_US 20000
#define PACKER_PERIOD_US 200000
#define WRITER_BATCH     65536u

enum writer_file { FILE_TRACKING, FILE_RECEIVE, FILE_SEND, FILE_COUNT };

static const char protocol_head[] =
    "#Software: Hikyaku\n#Log-type: SMTP protocol log\n#Fields: date-time,connector-id,session-id,"
    "sequence-number,local-endpoint,remote-endpoint,event,data,context\n";

struct log_writer {
    pthread_t thread;
    atomic_bool stop, reopen;
    bool json;
    struct log_file files[FILE_COUNT];
    pthread_t packer;
    bool packer_runs;
    atomic_bool pack; /* a file was set aside, or some may be left of an earlier life */
    uint32_t ring_count;
    struct ring_bytes **rings;
    struct partial { /* bytes of a ring that do not end in a line yet */
        uint32_t len;
        uint8_t bytes[WRITER_BATCH];
    } * partial;
    uint8_t all[WRITER_BATCH], filed[FILE_COUNT][WRITER_BATCH];
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

static int file_of(uint8_t mark)
{
    switch (mark) {
    case LOG_TRACKED:
    case LOG_BOTH: return FILE_TRACKING;
    case LOG_RECEIVE: return FILE_RECEIVE;
    case LOG_SEND: return FILE_SEND;
    default: return -1;
    }
}

/* Whole lines: each to its file, and to standard error what is for there; one write each where the
 * form allows it. */
static void put_lines(struct log_writer *w, const uint8_t *lines, size_t len)
{
    size_t all = 0, filed[FILE_COUNT] = {0};
    for (size_t at = 0, next; at < len; at = next) {
        const uint8_t *end = memchr(lines + at, '\n', len - at);
        next = (size_t)(end - lines) + 1;
        size_t n = next - at - 1; /* without the mark in front */
        int file = file_of(lines[at]);
        if (file >= 0) {
            memcpy(w->filed[file] + filed[file], lines + at + 1, n);
            filed[file] += n;
        }
        if (lines[at] != LOG_SHOWN && lines[at] != LOG_BOTH)
            continue;
        if (w->json) {
            memcpy(w->all + all, lines + at + 1, n);
            all += n;
        } else {
            put_text(lines + at + 1, n);
        }
    }
    for (int i = 0; i < FILE_COUNT; i++)
        log_file_write(&w->files[i], w->filed[i], filed[i]);
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

/* Packing takes as long as it takes: on a thread of its own, that rings do not fill meanwhile. */
static void *packer_main(void *arg)
{
    struct log_writer *w = arg;
    while (!atomic_load(&w->stop)) {
        if (atomic_exchange(&w->pack, false)) {
            for (int i = 0; i < FILE_COUNT; i++)
                log_file_tidy(&w->files[i]);
        } else {
            usleep(PACKER_PERIOD_US); /* tidy: clock, the packer is no shard */
        }
    }
    return NULL;
}

static void writer_reopen(struct log_writer *w)
{
    for (int i = 0; i < FILE_COUNT; i++)
        log_file_reopen(&w->files[i]);
}

static void *writer_main(void *arg)
{
    struct log_writer *w = arg;
    for (;;) {
        bool stop = atomic_load(&w->stop), any = false;
        if (atomic_exchange(&w->reopen, false))
            writer_reopen(w);
        for (uint32_t i = 0; i < w->ring_count; i++)
            any |= drain(w, i);
        for (int i = 0; i < FILE_COUNT; i++)
            if (log_file_rotate(&w->files[i]))
                atomic_store(&w->pack, true);
        if (!any && stop)
            return NULL;
        if (!any)
            usleep(WRITER_PERIOD_US); /* tidy: clock, the writer is no shard */
    }
}

static void writer_free(struct log_writer *w)
{
    for (int i = 0; i < FILE_COUNT; i++)
        log_file_close(&w->files[i]);
    free(w->partial);
    free(w->rings);
    free(w);
}

/* ---- start ---- */

static bool writer_tracking(struct log_writer *w, const struct log_writer_params *p,
                            struct why *why)
{
    struct log_file *f = &w->files[FILE_TRACKING];
    if (!p->tracking)
        return true;
    f->path = strdup(p->tracking);
    f->bytes_max = p->tracking_bytes;
    f->keep_s = p->tracking_keep_s;
    f->indexed = true;
    if (f->path && log_file_open(f))
        return true;
    why_set(why, 451, "4.3.0", "cannot write the tracking log %s: %s", p->tracking,
            strerror(errno));
    return false;
}

static bool writer_protocol(struct log_writer *w, const struct log_writer_params *p,
                            struct why *why)
{
    if (!p->protocol)
        return true;
    if ((mkdir(p->protocol, 0750) != 0 && errno != EEXIST) || access(p->protocol, W_OK | X_OK)) {
        why_set(why, 451, "4.3.0", "cannot write into log.protocol %s: %s", p->protocol,
                strerror(errno));
        return false;
    }
    for (int i = FILE_RECEIVE; i <= FILE_SEND; i++) {
        struct log_file *f = &w->files[i];
        if (asprintf(&f->path, "%s/%s.log", p->protocol, i == FILE_SEND ? "send" : "receive") < 0)
            abort(); /* at start, before anything was accepted */
        f->bytes_max = p->protocol_bytes;
        f->keep_s = p->protocol_keep_s;
        f->folder_bytes_max = p->protocol_folder_bytes / 2;
        f->head = protocol_head;
        f->lazy = true;
        if (!log_file_open(f))
            return false;
    }
    return true;
}

static bool writer_rings(struct log_writer *w, const struct log_writer_params *p)
{
    uint32_t more = p->protocol ? p->protocol_ring_count : 0;
    w->ring_count = p->ring_count + more;
    w->rings = calloc(w->ring_count, sizeof *w->rings);
    w->partial = calloc(w->ring_count, sizeof *w->partial);
    if (!w->rings || !w->partial)
        return false;
    memcpy(w->rings, p->rings, sizeof *w->rings * p->ring_count);
    if (more)
        memcpy(w->rings + p->ring_count, p->protocol_rings, sizeof *w->rings * more);
    return true;
}

struct log_writer *log_writer_start(const struct log_writer_params *p, struct why *why)
{
    struct log_writer *w = calloc(1, sizeof *w);
    why_set(why, 451, "4.3.1", "out of memory");
    if (!w)
        return NULL;
    w->json = p->json;
    for (int i = 0; i < FILE_COUNT; i++)
        w->files[i].fd = -1;
    if (!writer_rings(w, p) || !writer_tracking(w, p, why) || !writer_protocol(w, p, why)) {
        writer_free(w);
        return NULL;
    }
    if (pthread_create(&w->thread, NULL, writer_main, w) != 0) {
        why_set(why, 451, "4.3.1", "cannot start the log writer");
        writer_free(w);
        return NULL;
    }
    atomic_store(&w->pack, true);
    w->packer_runs =
        (p->tracking || p->protocol) && pthread_create(&w->packer, NULL, packer_main, w) == 0;
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
