/*
 * gateway/dsn_internal.h - what the files of a report share. Each function writes one piece; where
 * there is no room for it `out` overflows, and dsn.c takes the piece back.
 */
#ifndef HIKYAKU_DSN_INTERNAL_H
#define HIKYAKU_DSN_INTERNAL_H

#include "gateway/dsn.h"

/* ---- dsn_put.c ---- */
/* One line of text: what could break it, and 8-bit where it is not allowed, becomes '?'. */
void dsn_put_text(const struct dsn *d, struct slice s, size_t max, struct buf *out);
void dsn_put_mailbox(const struct dsn *d, struct slice mailbox, struct buf *out);
void dsn_put_date(uint64_t wall_ns, struct buf *out);
/* "550 5.1.1 No such user", as far as it was said. */
void dsn_put_words(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out);
void dsn_put_boundary(const struct dsn *d, struct buf *out);
/* The border before a part, and the part's header. */
void dsn_put_part(const struct dsn *d, const char *type, bool eightbit, struct buf *out);

/* ---- dsn_text.c ---- */
void dsn_put_header(const struct dsn *d, struct buf *out);
void dsn_put_explanation(const struct dsn *d, struct buf *out);
void dsn_put_text_rcpt(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out);
void dsn_put_text_end(const struct dsn *d, struct buf *out);

/* ---- dsn_status.c ---- */
void dsn_put_status(const struct dsn *d, struct buf *out);
void dsn_put_status_rcpt(const struct dsn *d, const struct dsn_rcpt *r, struct buf *out);

#endif
