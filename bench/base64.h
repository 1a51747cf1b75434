/*
 * bench/base64.h - base64 (RFC 4648 section 4) for AUTH.
 */
#ifndef HIKYAKU_BENCH_BASE64_H
#define HIKYAKU_BENCH_BASE64_H

#include <stddef.h>

#include "bench/buf.h"

void bench_base64_encode(struct bench_buf *out, const void *data, size_t count);
/* Bytes written to out, or -1: not base64, or more than size bytes. "=" alone is nothing. */
long bench_base64_decode(const char *text, char *out, size_t size);

#endif
