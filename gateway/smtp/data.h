/*
 * gateway/smtp/data.h - what comes behind DATA: end of data, dots, line ends, header section.
 *
 * RFC 5321 sections 2.3.8, 4.1.1.4, 4.5.2, 4.5.3.1.6; RFC 5322 section 2.2. Only CRLF.CRLF ends a
 * message, where the start of the data counts as the end of a line. A message with a fault runs
 * to
 * that end all the same; nothing more of it is given out.
 */
#ifndef HIKYAKU_SMTP_DATA_H
#define HIKYAKU_SMTP_DATA_H

#include "gateway/base/slice.h"
#include "gateway/base/why.h"
#include "gateway/limits.h"

struct smtp_in_headers {
    bool message_id, date, from; /* such a field was there */
    /* The section did not end in an empty line: a line that is no field came, or the data ended.
     * Who adds fields adds the empty line too. */
    bool no_blank_line;
    uint32_t received_count;
    uint32_t field_count; /* fields in all; 0: the message has no header section */
    /* Of the first Subject, unfolded, encoded words (RFC 2047) as they came, controls as blanks. */
    uint8_t subject_len;
    uint8_t subject[SMTP_SUBJECT_MAX];
    /* The same of the first Message-ID. */
    uint8_t id_len;
    uint8_t id[SMTP_MESSAGE_ID_MAX];
};

enum smtp_data_kind {
    SMTP_DATA_NEED_INPUT,  /* all input is consumed */
    SMTP_DATA_BODY,        /* the next bytes of the message, dots undone */
    SMTP_DATA_HEADERS_END, /* the header section is over; the empty line itself comes as body bytes
                            */
    SMTP_DATA_END          /* what follows in the input is the next command */
};

struct smtp_data {
    uint64_t bytes;    /* of the message so far, whether given out or not */
    uint64_t size_max; /* 0: none */
    bool eight_bit;    /* a byte of it so far is over 127 */
    struct smtp_in_headers headers;
    /* private */
    uint32_t line_len; /* of the current line, without its CRLF */
    uint32_t header_bytes, header_fields;
    uint8_t dot;    /* enum dot_state */
    uint8_t kept;   /* enum kept_field: whose value is being read */
    bool kept_name; /* its line is read up to the colon */
    bool subject_seen;
    bool in_header, name_open, headers_due, held_due, ended;
    bool bare, too_large, long_line, header_large, loop; /* faults */
    uint8_t held_len;
    uint8_t
        held[SMTP_FIELD_NAME_MAX]; /* the start of a header line, while it may yet be no field */
};

void smtp_data_start(struct smtp_data *d, uint64_t size_max);

/*
 * Takes the next piece of *in, which is advanced. BODY: *body points into the input or into *d and
 * is valid until the next call. HEADERS_END comes once, before the body bytes that follow the
 * header section; a message with a fault may end without it. After END: no further call before
 * smtp_data_start.
 */
enum smtp_data_kind smtp_data_step(struct smtp_data *d, struct slice *in, struct slice *body);

/* After END: whether the message may be taken. False: the reply is in `why`. */
bool smtp_data_verdict(const struct smtp_data *d, struct why *why)
    __attribute__((warn_unused_result));

#endif
