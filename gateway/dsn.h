/*
 * gateway/dsn.h - delivery status notifications (RFC 3461, 3462, 3464, 6533): who gets one, and its
 * text. Pure: no I/O, no clock.
 *
 * A report is written in pieces, so that neither it nor the original need sit in memory:
 *
 *     dsn_start(&w, &dsn);
 *     for (;;)
 *         switch (dsn_write(&w, &out)) {
 *         case DSN_FLUSH:          hand on what is in `out`, empty it
 *         case DSN_WANT_ORIGINAL:  dsn_original() with the original's next bytes, from its start;
 *                                  dsn_original_end() when there are none, or enough
 *         case DSN_DONE:           hand on what is in `out`: the report is complete
 *         }
 *
 * The report goes out with the null sender, to `to` (RFC 3464 section 2), with the body flags of
 * dsn_is_8bit() and dsn_is_utf8().
 */
#ifndef HIKYAKU_DSN_H
#define HIKYAKU_DSN_H

#include "gateway/base/buf.h"
#include "gateway/base/slice.h"
#include "gateway/limits.h"
#include "gateway/smtp/reply.h"
#include "gateway/smtp/smtp.h"

enum dsn_kind {
    DSN_FAILED,  /* refused for good */
    DSN_EXPIRED, /* refused for now until its time was over */
    DSN_DELAYED, /* not yet delivered; tried further (E39) */
    DSN_RELAYED  /* handed to a system that tells nothing further, although NOTIFY=SUCCESS was asked
                    for */
};

/* Does RFC 3461 want a report of this kind for a recipient with these bits of enum smtp_notify (0:
 * none given)? Never to the null sender. */
bool dsn_wanted(uint8_t notify, enum dsn_kind kind, bool sender_empty);

struct dsn_rcpt {
    struct slice mailbox;
    struct slice orcpt;   /* as kept: "rfc822;" xtext; may be empty */
    struct slice host;    /* the next hop that said it, by name; empty: none did */
    struct slice address; /* and by address as text, without brackets; may be empty */
    uint16_t code;        /* what it said; 0: nobody said it, `text` tells in our words */
    struct slice enhanced;
    struct slice text;
    uint64_t attempt_wall_ns; /* the last attempt; 0: none */
};

/* code, enhanced, text; `reply` must stay. */
void dsn_rcpt_set_reply(struct dsn_rcpt *r, const struct smtp_reply *reply);

/* All slices must stay until DSN_DONE. */
struct dsn {
    enum dsn_kind kind;
    struct slice hostname; /* ours */
    struct slice id;  /* letters and digits that nobody can guess, never used before: Message-ID and
                         the boundaries are made of it */
    struct slice qid; /* of the original */
    struct slice to;  /* the original's sender, not empty */
    struct slice envid; /* decoded; may be empty */
    uint64_t arrival_wall_ns, now_wall_ns;
    uint64_t retry_until_wall_ns; /* DSN_DELAYED; 0: not known */
    const struct dsn_rcpt *rcpts;
    uint32_t rcpt_count;
    enum smtp_ret ret;
    bool original_8bit, original_utf8; /* its envelope's flags */
    uint64_t original_size;
};

/* The original comes back whole: only for failures with RET=FULL, up to DSN_FULL_MAX (RFC 3461
 * section 4.3). Else its headers do. */
bool dsn_returns_full(const struct dsn *d);
/* "failed", "expired", "delayed", "relayed" */
const char *dsn_kind_name(enum dsn_kind kind);
const char *dsn_subject(const struct dsn *d);
/* How the report must be sent: BODY=8BITMIME, SMTPUTF8. */
bool dsn_is_8bit(const struct dsn *d);
bool dsn_is_utf8(const struct dsn *d);

struct dsn_writer {
    const struct dsn *dsn;
    uint8_t part;
    uint32_t rcpt;
    /* the original */
    uint64_t original_bytes;
    uint8_t line_state;
    bool original_done;
};

enum dsn_step { DSN_FLUSH, DSN_WANT_ORIGINAL, DSN_DONE };

void dsn_start(struct dsn_writer *w, const struct dsn *dsn);
/* `out` holds DSN_ROOM_MIN bytes or more when empty. */
enum dsn_step dsn_write(struct dsn_writer *w, struct buf *out) __attribute__((warn_unused_result));
/*
 * Bytes of the original (CRLF line ends), copied as far as there is room; returns how many were
 * taken. Behind the header section, when only headers go back, all is taken and nothing copied;
 * dsn_original_is_enough() then tells that no more need be read.
 */
size_t dsn_original(struct dsn_writer *w, struct slice data, struct buf *out);
bool dsn_original_is_enough(const struct dsn_writer *w);
void dsn_original_end(struct dsn_writer *w);

#endif
