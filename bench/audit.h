/*
 * bench/audit.h - what the sink remembers of one message for the record file: its size, its ids and
 * a checksum of its body, taken from the bytes as they pass.
 */
#ifndef HIKYAKU_BENCH_AUDIT_H
#define HIKYAKU_BENCH_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/buf.h"
#include "bench/crc32.h"

struct bench_audit {
    uint64_t size;       /* all bytes, header and body, dots undone, CRLFs counted */
    uint64_t body_size;  /* behind the empty line */
    uint32_t crc32;      /* of all bytes */
    uint32_t body_crc32; /* of the body: unchanged by added header fields */
    bool in_body;
    unsigned line_end_match; /* how much of CRLFCRLF the last bytes are */
    struct bench_buf header; /* the first BENCH_HEADER_SIZE_MAX bytes of it */
};

void bench_audit_begin(struct bench_audit *a);
void bench_audit_add(struct bench_audit *a, const struct bench_crc32_table *t, const char *data,
                     size_t count);
void bench_audit_free(struct bench_audit *a);

/* The value of the first header field of that name, without the space around it; NULL if there is
 * none. Points into the audit's header. Folded lines are not joined: the first line counts. */
const char *bench_audit_field(const struct bench_audit *a, const char *name, size_t *count);

#endif
