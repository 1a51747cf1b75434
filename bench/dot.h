/*
 * bench/dot.h - the end of data and dot-stuffing (RFC 5321 section 4.5.2), one pass, any split.
 *
 * Only CRLF ends a line; only CRLF.CRLF ends the data. The reader removes the stuffed dot and hands
 * the rest on byte for byte, the CRLF before the final dot included.
 */
#ifndef HIKYAKU_BENCH_DOT_H
#define HIKYAKU_BENCH_DOT_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/buf.h"

enum bench_dot_state {
    BENCH_DOT_LINE_START = 0, /* after CRLF, or at the first byte */
    BENCH_DOT_TEXT,
    BENCH_DOT_CR,     /* last byte was CR */
    BENCH_DOT_DOT,    /* line start, then a dot */
    BENCH_DOT_DOT_CR, /* line start, dot, CR */
    BENCH_DOT_END
};

struct bench_dot {
    enum bench_dot_state state;
};

/* Called with each run of message bytes; may be NULL where only the end matters. */
typedef void bench_dot_emit(void *ctx, const char *data, size_t count);

void bench_dot_init(struct bench_dot *d);

/* Takes bytes up to the end of data or count, *used tells how many. True: the data ended. */
bool bench_dot_feed(struct bench_dot *d, const char *in, size_t count, size_t *used,
                    bench_dot_emit *emit, void *ctx);

/* Appends data with dots stuffed to out. *line_start (true at the start of a message) carries the
 * state from call to call. Lines must already end in CRLF. */
void bench_dot_stuff(struct bench_buf *out, const char *data, size_t count, bool *line_start);

#endif
