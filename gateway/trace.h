/*
 * gateway/trace.h - header lines that a message gets on its way: Received:, and Date: and
 * Message-ID: on submission. Pure text.
 *
 * Every function appends whole lines with CRLF, or (no room) nothing, and then returns false. What
 * comes from a peer is sanitized here.
 */
#ifndef HIKYAKU_TRACE_H
#define HIKYAKU_TRACE_H

#include "gateway/base/buf.h"
#include "gateway/base/slice.h"
#include "gateway/limits.h"

/* RFC 5321 section 4.4. Slices of length 0: not known. */
struct trace_received {
    struct slice helo;     /* what the client called itself, as it came */
    struct slice client;   /* its address as text without brackets: "192.0.2.1", "2001:db8::1" */
    struct slice fqdn;     /* by whom: the receive connector's */
    struct slice id;       /* the queue id */
    struct slice instance; /* which gateway this is, told in a comment (FAULTS 70); may be empty */
    bool esmtp, tls, authenticated,
        smtputf8;                         /* choose the keyword: RFC 3848, RFC 6531 section 4.3 */
    struct slice tls_version, tls_cipher; /* "TLSv1.3", for the comment */
    uint32_t tls_bits;
    uint64_t wall_ns; /* since 1970 */
};

/* "ESMTPSA" and the like. */
const char *trace_keyword(const struct trace_received *t);

/* Needs up to TRACE_RECEIVED_MAX bytes. */
bool trace_received_write(const struct trace_received *t, struct buf *out)
    __attribute__((warn_unused_result));

/* "Sun, 22 Nov 2026 04:13:52 +0000" (RFC 5322 section 3.3), without CRLF; 31 bytes up to the year
 * 9999. */
bool trace_date_write(uint64_t wall_ns, struct buf *out) __attribute__((warn_unused_result));

/* "Date: ..." and "Message-ID: <id@host>" for submitted messages that lack them (RFC 6409
 * sections 8.2, 8.3). */
bool trace_date_line(uint64_t wall_ns, struct buf *out) __attribute__((warn_unused_result));
bool trace_message_id_line(struct slice id, struct slice host, struct buf *out)
    __attribute__((warn_unused_result));

#endif
