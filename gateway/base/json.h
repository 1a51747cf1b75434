/*
 * gateway/base/json.h - writing JSON strings whatever bytes they hold (RFC 8259 section 7).
 */
#ifndef HIKYAKU_BASE_JSON_H
#define HIKYAKU_BASE_JSON_H

#include "gateway/base/buf.h"

/*
 * Appends `v` with quotes. Control characters, quotes and backslashes are escaped; bytes that are
 * no UTF-8 are shown as Latin-1 escapes. Stops before `reserve` bytes of room are left; false: it
 * was cut (the closing quote is there all the same).
 */
bool json_string(struct buf *b, struct slice v, uint32_t reserve);

/* Length of the well-formed UTF-8 sequence that `v` (not empty) begins with (RFC 3629), 0: none. */
size_t json_utf8_sequence(struct slice v);

#endif
