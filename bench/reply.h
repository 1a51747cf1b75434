/*
 * bench/reply.h - incremental parser of SMTP replies (RFC 5321 section 4.2), for the client side.
 */
#ifndef HIKYAKU_BENCH_REPLY_H
#define HIKYAKU_BENCH_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/limits.h"

enum bench_reply_result { BENCH_REPLY_NEED_MORE, BENCH_REPLY_DONE, BENCH_REPLY_BAD };

struct bench_reply {
    int code;                        /* of the finished reply */
    size_t text_count;               /* bytes of text, NUL-terminated behind them */
    char text[BENCH_REPLY_TEXT_MAX]; /* text of all lines, each ended by '\n'; cut when too long */
    size_t line_count;               /* bytes in line: an unfinished line */
    int first_code;                  /* of the first line; 0 before it */
    char line[BENCH_REPLY_LINE_MAX];
};

void bench_reply_init(struct bench_reply *r);

/* Takes bytes up to the end of one reply; *used tells how many. After DONE, code and text hold
 * until the next call, which begins the next reply. BAD: not a reply (no code, codes that differ, a
 * line too long, no CRLF); the connection is useless after it. */
enum bench_reply_result bench_reply_feed(struct bench_reply *r, const char *in, size_t count,
                                         size_t *used) __attribute__((warn_unused_result));

/* Whether an EHLO reply's text names the keyword and, where given, has the parameter with it. */
bool bench_reply_has_keyword(const struct bench_reply *r, const char *keyword, const char *param);

#endif
