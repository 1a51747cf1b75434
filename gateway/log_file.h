/*
 * gateway/log_file.h - a log file that is set aside when it is long enough, packed, and removed
 * when it is old: the tracking log and the two protocol logs. Used by gateway/log_writer.c alone.
 *
 *   PATH            being written
 *   PATH.new        for a moment: the next one, before the last one is set aside
 *   PATH-TIME       set aside, not packed yet
 *   PATH-TIME.gz    packed (gateway/tracking.h), with an index where `indexed`
 */
#ifndef HIKYAKU_LOG_FILE_H
#define HIKYAKU_LOG_FILE_H

#include <stdbool.h>
#include <stdint.h>

#define LOG_FILE_PATH_MAX 4096

struct log_file {
    char *path; /* NULL: none; owned */
    int fd;     /* -1: not open */
    uint64_t len;
    uint64_t bytes_max, keep_s; /* 0: never set aside; never removed */
    uint64_t folder_bytes_max;  /* all of PATH-*; the oldest go. 0: no bound */
    bool indexed;               /* for hikyakuctl trace */
    bool lazy;                  /* made with its first line */
    bool torn;                  /* ends in half a line */
    const char *head;           /* first line of each file, or NULL */
};

/* False: it cannot be written, errno tells. A lazy one is not opened yet. */
bool log_file_open(struct log_file *f) __attribute__((warn_unused_result));
/* Begins again with what is at `path` now: somebody may have moved the file away. */
void log_file_reopen(struct log_file *f);
/* Whole lines. What cannot be written is lost: there is nobody to tell. */
void log_file_write(struct log_file *f, const void *lines, uint64_t len);
/* Long enough? Then it is set aside and a new one is begun: true. */
bool log_file_rotate(struct log_file *f);
void log_file_close(struct log_file *f);
/* Packs what was set aside, removes what is too old or too much. Blocks; another thread than the
 * writer's may run it. */
void log_file_tidy(const struct log_file *f);

#endif
