/*
 * bench/dot.c - finds the end of data, undoes and does dot-stuffing.
 *
 * Owns:     nothing.
 * Runs on:  the one thread of the command.
 * Contract: the same bytes come out for every split of the input; nothing after the end is read.
 * Failure:  none: every byte string is data until CRLF.CRLF.
 * Bounds:   no memory of its own: at most ".\r" is held, as a state.
 * Tests:    tests/unit/test_bench_dot.c (every split of every short string over CR LF dot x)
 */
#include "bench/dot.h"

#include <string.h>

void bench_dot_init(struct bench_dot *d)
{
    d->state = BENCH_DOT_LINE_START;
}

static void emit_run(bench_dot_emit *emit, void *ctx, const char *from, const char *to)
{
    if (emit != NULL && to > from)
        emit(ctx, from, (size_t)(to - from));
}

/* From inside a line to the byte after its CRLF, or to the end of the input. */
static const char *skip_text(struct bench_dot *d, const char *p, const char *end)
{
    if (d->state == BENCH_DOT_CR && *p == '\n') {
        d->state = BENCH_DOT_LINE_START;
        return p + 1;
    }
    const char *from = p;
    while (p < end) {
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        if (lf == NULL)
            break;
        if (lf > from && lf[-1] == '\r') {
            d->state = BENCH_DOT_LINE_START;
            return lf + 1;
        }
        p = lf + 1;
    }
    d->state = end[-1] == '\r' ? BENCH_DOT_CR : BENCH_DOT_TEXT;
    return end;
}

bool bench_dot_feed(struct bench_dot *d, const char *in, size_t count, size_t *used,
                    bench_dot_emit *emit, void *ctx)
{
    const char *p = in, *end = in + count, *run = in;
    while (p < end) {
        switch (d->state) {
        case BENCH_DOT_LINE_START:
            if (*p == '.') {
                emit_run(emit, ctx, run, p);
                run = ++p;
                d->state = BENCH_DOT_DOT;
            } else {
                d->state = BENCH_DOT_TEXT;
            }
            break;
        case BENCH_DOT_TEXT:
        case BENCH_DOT_CR: p = skip_text(d, p, end); break;
        case BENCH_DOT_DOT:
            if (*p == '\r') {
                run = ++p;
                d->state = BENCH_DOT_DOT_CR;
            } else {
                d->state = BENCH_DOT_TEXT; /* the dot was stuffing: dropped */
            }
            break;
        case BENCH_DOT_DOT_CR:
            if (*p == '\n') {
                d->state = BENCH_DOT_END;
                *used = (size_t)(p + 1 - in);
                return true;
            }
            emit_run(emit, ctx, "\r", &"\r"[1]);
            d->state = BENCH_DOT_TEXT;
            break;
        case BENCH_DOT_END: *used = (size_t)(p - in); return true;
        }
    }
    if (d->state != BENCH_DOT_DOT && d->state != BENCH_DOT_DOT_CR)
        emit_run(emit, ctx, run, end);
    *used = count;
    return d->state == BENCH_DOT_END;
}

void bench_dot_stuff(struct bench_buf *out, const char *data, size_t count, bool *line_start)
{
    const char *p = data, *end = data + count;
    while (p < end) {
        if (*line_start && *p == '.')
            bench_buf_add(out, ".", 1);
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        const char *next = lf != NULL ? lf + 1 : end;
        bench_buf_add(out, p, (size_t)(next - p));
        *line_start = lf != NULL;
        p = next;
    }
}
