/*
 * bench/maildir.h - writes messages into a Maildir: DIR/tmp, synced, then renamed to DIR/new.
 */
#ifndef HIKYAKU_BENCH_MAILDIR_H
#define HIKYAKU_BENCH_MAILDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_maildir {
    char path[3072];
    char host[64]; /* for file names */
    uint64_t count;
    int new_fd; /* DIR/new, to sync the rename */
};

struct bench_maildir_file {
    int fd; /* -1: none open */
    bool failed;
    char name[192];
};

/* Makes DIR, tmp, new and cur where they are missing. NULL, or what failed (with errno). */
const char *bench_maildir_open(struct bench_maildir *m, const char *path);
void bench_maildir_close(struct bench_maildir *m);

/* One message: begin, add..., then finish or abandon. Errors are kept and told by finish. */
void bench_maildir_begin(struct bench_maildir *m, struct bench_maildir_file *f);
void bench_maildir_add(struct bench_maildir_file *f, const char *data, size_t count);
/* True: the message lies in DIR/new and both it and the rename are synced. */
bool bench_maildir_finish(struct bench_maildir *m, struct bench_maildir_file *f)
    __attribute__((warn_unused_result));
void bench_maildir_abandon(struct bench_maildir *m, struct bench_maildir_file *f);

#endif
