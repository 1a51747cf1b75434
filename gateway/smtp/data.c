/*
 * gateway/smtp/data.c - finds the end of data, undoes dots, looks over the header section.
 *
 * Owns:     at most SMTP_FIELD_NAME_MAX bytes of a header line whose name the input broke off.
 * Runs on:  any thread.
 * Contract: ends exactly at CRLF.CRLF however the input is cut; what it gives out of a message
 *           that it finds no fault with is the message, with CRLF as the only use of CR and LF.
 * Failure:  a fault is remembered and told by smtp_data_verdict after the end: 550 5.6.11 bare
 *           CR, LF or NUL; 552 5.3.4 size or header; 550 5.6.0 line length; 554 5.4.6 loop. The
 *           first of these in this order, so that how the input was cut does not show.
 * Bounds:   SMTP_TEXT_LINE_MAX, SMTP_HEADER_BYTES_MAX, SMTP_HEADER_FIELDS_MAX, SMTP_RECEIVED_MAX.
 * Tests:    tests/unit/test_smtp_data.c, tests/unit/test_smuggling.c, tests/fuzz/fuzz_smtp_in.c
 */
#include <assert.h>

#include "gateway/smtp/data.h"
#include "gateway/smtp/plain.h"

enum dot_state {
    DOT_LINE_START, /* at the start of the data, or behind a CRLF */
    DOT_TEXT,       /* within a line */
    DOT_CR,         /* within a line, behind a CR */
    DOT_DOT,        /* behind a dot that began a line; it has been taken away */
    DOT_DOT_CR      /* behind such a dot and a CR */
};

enum header_line { LINE_FIELD, LINE_CONTINUATION, LINE_BLANK, LINE_OTHER, LINE_UNKNOWN };

enum kept_field { KEPT_NONE, KEPT_SUBJECT, KEPT_MESSAGE_ID };

void smtp_data_start(struct smtp_data *d, uint64_t size_max)
{
    *d = (struct smtp_data){.size_max = size_max, .dot = DOT_LINE_START, .in_header = true};
}

static bool is_bad(const struct smtp_data *d)
{
    return d->bare || d->too_large || d->long_line || d->header_large || d->loop;
}

/* A fault is known: no more is given out, so nobody needs to hear of the header section. */
static void stop_header(struct smtp_data *d)
{
    d->in_header = d->name_open = d->headers_due = d->held_due = false;
    d->held_len = 0;
}

/* Counts bytes of the message; true when they are to be given out. */
static bool count_out(struct smtp_data *d, struct slice run, struct slice *body)
{
    d->bytes += run.len;
    if (d->size_max && d->bytes > d->size_max)
        d->too_large = true;
    if (is_bad(d)) {
        stop_header(d);
        return false;
    }
    *body = run;
    return run.len != 0;
}

/* ---- header section ---- */

/* Takes what there is of the kept field's lines, CRLF and all. */
static void kept_take(struct smtp_data *d, struct slice text)
{
    struct smtp_in_headers *h = &d->headers;
    bool subject = d->kept == KEPT_SUBJECT;
    uint8_t *len = subject ? &h->subject_len : &h->id_len;
    uint8_t *to = subject ? h->subject : h->id;
    uint8_t max = subject ? SMTP_SUBJECT_MAX : SMTP_MESSAGE_ID_MAX;
    if (d->kept_name) {
        text = slice_from(text, slice_find(text, ':') + 1);
        d->kept_name = false;
    }
    for (size_t i = 0; i < text.len && *len < max; i++) {
        uint8_t c = text.ptr[i];
        if (c == '\r' || c == '\n')
            continue;
        if (c < ' ' || c == 0x7f)
            c = ' ';
        if (c != ' ' || *len)
            to[(*len)++] = c;
    }
}

/* Without blanks at its end, and without part of a character where it was cut. */
static uint8_t kept_length(const uint8_t *text, uint8_t n, uint8_t max)
{
    if (n == max) {
        uint8_t lead = n - 1;
        while (n - lead < 4 && (text[lead] & 0xc0) == 0x80)
            lead--;
        uint8_t c = text[lead];
        if (c >= 0xc0 && n - lead < (c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2))
            n = lead;
    }
    while (n && text[n - 1] == ' ')
        n--;
    return n;
}

static void kept_end(struct smtp_data *d)
{
    struct smtp_in_headers *h = &d->headers;
    if (d->kept == KEPT_SUBJECT)
        h->subject_len = kept_length(h->subject, h->subject_len, SMTP_SUBJECT_MAX);
    else if (d->kept == KEPT_MESSAGE_ID)
        h->id_len = kept_length(h->id, h->id_len, SMTP_MESSAGE_ID_MAX);
    d->kept = KEPT_NONE;
}

static void note_field(struct smtp_data *d, struct slice name)
{
    if (++d->header_fields > SMTP_HEADER_FIELDS_MAX)
        d->header_large = true;
    kept_end(d);
    if (slice_eq_nocase(name, SLICE_LIT("Received"))) {
        if (++d->headers.received_count > SMTP_RECEIVED_MAX)
            d->loop = true;
    } else if (slice_eq_nocase(name, SLICE_LIT("Message-ID"))) {
        if (!d->headers.message_id)
            d->kept = KEPT_MESSAGE_ID;
        d->headers.message_id = true;
    } else if (slice_eq_nocase(name, SLICE_LIT("Date"))) {
        d->headers.date = true;
    } else if (slice_eq_nocase(name, SLICE_LIT("From"))) {
        d->headers.from = true;
    } else if (!d->subject_seen && slice_eq_nocase(name, SLICE_LIT("Subject"))) {
        d->subject_seen = true;
        d->kept = KEPT_SUBJECT;
    }
    d->kept_name = d->kept != KEPT_NONE;
}

/*
 * What the line that begins with `in` is. A field is a name, perhaps white space (RFC 5322
 * section 4.5), a colon. A name of SMTP_FIELD_NAME_MAX bytes without a colon yet is taken for a
 * field.
 */
static enum header_line line_classify(const struct smtp_data *d, struct slice in,
                                      struct slice *name)
{
    uint8_t first = in.ptr[0];
    *name = slice_of(NULL, 0);
    if (first == '\r')
        return LINE_BLANK;
    if (first == ' ' || first == '\t')
        return d->header_fields ? LINE_CONTINUATION : LINE_OTHER;
    size_t i = 0;
    while (i < in.len && i < SMTP_FIELD_NAME_MAX && in.ptr[i] > ' ' && in.ptr[i] < 0x7f &&
           in.ptr[i] != ':')
        i++;
    *name = slice_head(in, i);
    if (i == 0)
        return LINE_OTHER;
    while (i < in.len && i < SMTP_FIELD_NAME_MAX && (in.ptr[i] == ' ' || in.ptr[i] == '\t'))
        i++;
    if (i == SMTP_FIELD_NAME_MAX)
        return LINE_FIELD;
    if (i == in.len)
        return LINE_UNKNOWN;
    return in.ptr[i] == ':' ? LINE_FIELD : LINE_OTHER;
}

static void end_header(struct smtp_data *d, bool blank_line)
{
    d->in_header = d->name_open = false;
    kept_end(d);
    d->headers.no_blank_line = !blank_line;
    d->headers.field_count = d->header_fields;
    d->headers_due = true;
}

/*
 * At the start of a line of the header section, `in` being what is there of it. True: go on with
 * the line as text. False: the run before it has to be given out first, or the line goes to
 * d->held.
 */
static bool begin_header_line(struct smtp_data *d, struct slice in)
{
    struct slice name;
    switch (line_classify(d, in, &name)) {
    case LINE_FIELD: note_field(d, name); return true;
    case LINE_CONTINUATION: return true;
    case LINE_BLANK: end_header(d, true); return false;
    case LINE_OTHER: end_header(d, false); return false;
    default: d->name_open = true; return false;
    }
}

/* A name that the input broke off: its bytes gather in d->held until it is clear what the line is.
 */
static void hold_name(struct smtp_data *d, struct slice *in)
{
    while (in->len && d->name_open) {
        struct slice name;
        d->held[d->held_len++] = in->ptr[0];
        enum header_line line = line_classify(d, slice_of(d->held, d->held_len), &name);
        d->name_open = line == LINE_UNKNOWN;
        if (line == LINE_OTHER) {
            d->held_len--;
            d->held_due = true;
            end_header(d, false);
            return;
        }
        *in = slice_from(*in, 1);
        d->dot = DOT_TEXT;
        d->line_len++;
        d->header_bytes++;
        if (line == LINE_FIELD) {
            d->held_due = true;
            note_field(d, name);
            d->kept_name = false; /* the colon was the last byte */
        }
    }
}

/* ---- lines ---- */

/*
 * Takes text up to and with the CRLF that ends the line, or all there is. Returns how much; d->dot
 * says where that leaves us. Each CR and LF that is not part of a CRLF is a fault, as is a NUL.
 */
static size_t take_line(struct smtp_data *d, struct slice in)
{
    size_t lf = slice_find(in, '\n'), n = lf < in.len ? lf + 1 : in.len;
    struct slice text = slice_head(in, lf); /* what is before the LF */
    bool was_cr = d->dot == DOT_CR;
    bool is_cr = text.len ? text.ptr[text.len - 1] == '\r' : was_cr;
    size_t cr = slice_find(text, '\r');
    if ((was_cr && text.len) || cr + 1 < text.len) /* a CR before more text */
        d->bare = true;
    if (slice_find(text, '\0') < text.len)
        d->bare = true;
    d->line_len +=
        (uint32_t)(text.len < SMTP_TEXT_LINE_MAX + 2 ? text.len : SMTP_TEXT_LINE_MAX + 2);
    if (d->line_len > SMTP_TEXT_LINE_MAX + (is_cr ? 1u : 0u)) {
        d->long_line = true;
        d->line_len = SMTP_TEXT_LINE_MAX + 2;
    }
    if (lf == in.len) {
        d->dot = is_cr ? DOT_CR : DOT_TEXT;
    } else if (is_cr) {
        d->dot = DOT_LINE_START;
        d->line_len = 0;
    } else {
        d->bare = true;
        d->dot = DOT_TEXT;
    }
    return n;
}

/*
 * Within a run of text: takes as many plain blocks as there are, if any, but no more at a time than
 * the line may be long; the line's length is known again after each such piece.
 */
static size_t take_blocks(struct smtp_data *d, struct slice in)
{
    size_t n = 0;
    while (d->line_len + SMTP_PLAIN_BLOCK < SMTP_TEXT_LINE_MAX) {
        size_t most = SMTP_TEXT_LINE_MAX - d->line_len, left = in.len - n;
        const uint8_t *from = in.ptr + n;
        size_t len = smtp_plain_blocks(from, left < most ? left : most, &d->eight_bit);
        if (len == 0)
            break;
        const uint8_t *lf = memrchr(from, '\n', len), *end = from + len;
        d->line_len = lf ? (uint32_t)(end - lf - 1) : d->line_len + (uint32_t)len;
        n += len;
    }
    if (n) {
        uint8_t last = in.ptr[n - 1];
        d->dot = last == '\n' ? DOT_LINE_START : last == '\r' ? DOT_CR : DOT_TEXT;
    }
    return n;
}

/* Behind ". CR" at the start of a line: the end, or a bare CR. */
static void after_dot_cr(struct smtp_data *d, struct slice *in)
{
    if (in->ptr[0] != '\n') {
        d->bare = true;
        d->dot = DOT_CR;
        return; /* not consumed: it is text behind a CR */
    }
    *in = slice_from(*in, 1);
    if (d->in_header && !is_bad(d))
        end_header(d, false);
    d->ended = true;
}

/*
 * Runs over the input until a piece of the message has to be given out, and consumes it. A piece
 * is contiguous in the input, so it ends where a dot is taken away, where the header section ends
 * and with the input.
 */
static bool next_run(struct smtp_data *d, struct slice *in, struct slice *body)
{
    struct slice left = *in;
    bool stop = false;
    while (left.len && !stop) {
        size_t run = (size_t)(left.ptr - in->ptr);
        switch (d->dot) {
        case DOT_DOT_CR:
            after_dot_cr(d, &left);
            *in = left;
            stop = d->ended;
            continue;
        case DOT_DOT:
            if (left.ptr[0] == '\r') {
                d->dot = DOT_DOT_CR;
                *in = left = slice_from(left, 1);
                continue;
            }
            break;
        case DOT_LINE_START:
            if (left.ptr[0] == '.') {
                stop = run != 0;
                if (!stop) {
                    d->dot = DOT_DOT;
                    *in = left = slice_from(left, 1);
                }
                continue;
            }
            break;
        default: break;
        }
        if (is_bad(d))
            stop_header(d);
        if (d->in_header && d->dot != DOT_TEXT && d->dot != DOT_CR && !begin_header_line(d, left)) {
            stop = true;
            continue;
        }
        size_t n = 0;
        if (!d->in_header && run) /* the byte before is the message's own */
            n = take_blocks(d, left);
        if (n == 0) {
            n = take_line(d, left);
            d->eight_bit = d->eight_bit || slice_has_8bit(slice_head(left, n));
        }
        if (d->in_header && (d->header_bytes += (uint32_t)n) > SMTP_HEADER_BYTES_MAX)
            d->header_large = true;
        if (d->kept != KEPT_NONE)
            kept_take(d, slice_head(left, n));
        left = slice_from(left, n);
    }
    struct slice run = slice_head(*in, in->len - left.len);
    *in = left;
    return count_out(d, run, body);
}

enum smtp_data_kind smtp_data_step(struct smtp_data *d, struct slice *in, struct slice *body)
{
    for (;;) {
        if (d->headers_due) {
            d->headers_due = false;
            return SMTP_DATA_HEADERS_END;
        }
        if (d->held_due) {
            d->held_due = false;
            struct slice held = slice_of(d->held, d->held_len);
            d->held_len = 0;
            if (count_out(d, held, body))
                return SMTP_DATA_BODY;
        }
        if (d->ended)
            return SMTP_DATA_END;
        if (in->len == 0)
            return SMTP_DATA_NEED_INPUT;
        if (d->name_open)
            hold_name(d, in);
        else if (next_run(d, in, body))
            return SMTP_DATA_BODY;
    }
}

bool smtp_data_verdict(const struct smtp_data *d, struct why *why)
{
    assert(d->ended);
    if (d->bare)
        why_set(why, 550, "5.6.11",
                "Bare CR, bare LF or NUL in the message: only CRLF ends a line");
    else if (d->too_large)
        why_set(why, 552, "5.3.4", "Message is larger than %llu bytes",
                (unsigned long long)d->size_max);
    else if (d->long_line)
        why_set(why, 550, "5.6.0", "A line is longer than %u bytes", SMTP_TEXT_LINE_MAX);
    else if (d->header_large)
        why_set(why, 552, "5.3.4", "Message header is too large");
    else if (d->loop)
        why_set(why, 554, "5.4.6", "Mail loop: more than %u Received fields", SMTP_RECEIVED_MAX);
    else
        return true;
    return false;
}
