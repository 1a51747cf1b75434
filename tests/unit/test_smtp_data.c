/*
 * Tests of gateway/smtp/data.c: end of data, dots, faults, header section. Each case whole, byte by
 * byte and in two pieces at every place.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/base/buf.h"
#include "gateway/smtp/data.h"

struct outcome {
    uint8_t body[400 * 1024];
    size_t len;       /* of body */
    size_t header_at; /* body bytes before HEADERS_END */
    uint32_t header_ends;
    struct smtp_in_headers headers;
    bool ended, ok;
    size_t consumed;
    struct why why;
};

static void feed(struct smtp_data *d, struct outcome *o, struct slice piece)
{
    struct slice in = piece, body;
    while (!o->ended) {
        switch (smtp_data_step(d, &in, &body)) {
        case SMTP_DATA_NEED_INPUT: cr_assert_eq(in.len, 0); goto out;
        case SMTP_DATA_BODY:
            cr_assert_neq(body.len, 0);
            cr_assert_leq(o->len + body.len, sizeof o->body);
            memcpy(o->body + o->len, body.ptr, body.len);
            o->len += body.len;
            break;
        case SMTP_DATA_HEADERS_END:
            o->header_ends++;
            o->header_at = o->len;
            o->headers = d->headers;
            break;
        case SMTP_DATA_END: o->ended = true; break;
        }
    }
out:
    o->consumed += piece.len - in.len;
}

/* Feeds pieces of `step` bytes, the first of `first` bytes. */
static struct outcome *run(struct slice in, size_t first, size_t step, uint64_t size_max)
{
    static struct outcome o;
    struct smtp_data d;
    memset(&o, 0, offsetof(struct outcome, len));
    memset(&o.len, 0, sizeof o - offsetof(struct outcome, len));
    smtp_data_start(&d, size_max);
    for (size_t at = 0, n = first; at < in.len && !o.ended; at += n, n = step) {
        struct slice piece = slice_head(slice_from(in, at), n);
        /* A copy of its own, so that a sanitizer sees a read past it. */
        uint8_t *copy = malloc(piece.len);
        memcpy(copy, piece.ptr, piece.len);
        feed(&d, &o, slice_of(copy, piece.len));
        free(copy);
    }
    o.ok = o.ended && smtp_data_verdict(&d, &o.why);
    return &o;
}

struct expect {
    const char *in;
    size_t in_len;
    const char *body; /* NULL: refused */
    size_t header_at;
    bool no_blank;
    const char *reply; /* of a refusal */
};
#define IN(s) s, sizeof(s) - 1

static void check_one(const struct expect *e, size_t first, size_t step, uint64_t size_max)
{
    struct outcome *o = run(slice_of(e->in, e->in_len), first, step, size_max);
    cr_assert(o->ended, "no end: %s (%zu, %zu)", e->in, first, step);
    cr_assert_eq(o->consumed, e->in_len, "consumed %zu of %zu: %s", o->consumed, e->in_len, e->in);
    if (!e->body) {
        char reply[32];
        snprintf(reply, sizeof reply, "%u %s", o->why.smtp_code, o->why.enhanced);
        cr_assert(!o->ok, "accepted: %s", e->in);
        cr_assert_str_eq(reply, e->reply, "%s: %s", e->in, reply);
        return;
    }
    cr_assert(o->ok, "refused %u %s: %s", o->why.smtp_code, o->why.text, e->in);
    cr_assert_eq(o->len, strlen(e->body), "%zu bytes: %s (%zu, %zu)", o->len, e->in, first, step);
    cr_assert_arr_eq(o->body, e->body, o->len);
    cr_assert_eq(o->header_ends, 1, "%u header ends: %s", o->header_ends, e->in);
    cr_assert_eq(o->header_at, e->header_at, "header ends at %zu: %s (%zu, %zu)", o->header_at,
                 e->in, first, step);
    cr_assert_eq(o->headers.no_blank_line, e->no_blank, "%s", e->in);
}

static void check(const struct expect *cases, size_t count, uint64_t size_max)
{
    for (size_t i = 0; i < count; i++) {
        check_one(&cases[i], cases[i].in_len, 1, size_max);
        for (size_t first = 1; first < cases[i].in_len; first++) {
            check_one(&cases[i], first, 1, size_max);
            check_one(&cases[i], first, cases[i].in_len, size_max);
        }
    }
}
#define CHECK(cases, size_max) check(cases, sizeof cases / sizeof *cases, size_max)

Test(smtp_data, header_section_ends)
{
    static const struct expect cases[] = {
        {IN("Subject: x\r\n\r\nbody\r\n.\r\n"), "Subject: x\r\n\r\nbody\r\n", 12, false, NULL},
        {IN("Subject: x\r\n folded: y\r\n\tz\r\n\r\n.\r\n"),
         "Subject: x\r\n folded: y\r\n\tz\r\n\r\n", 28, false, NULL},
        {IN(".\r\n"), "", 0, true, NULL},
        {IN("\r\n.\r\n"), "\r\n", 0, false, NULL},
        {IN("\r\nbody\r\n.\r\n"), "\r\nbody\r\n", 0, false, NULL},
        {IN("Subject: x\r\n.\r\n"), "Subject: x\r\n", 12, true, NULL},
        {IN("Subject: x\r\nno field\r\n.\r\n"), "Subject: x\r\nno field\r\n", 12, true, NULL},
        {IN("word\r\n\r\n.\r\n"), "word\r\n\r\n", 0, true, NULL},
        {IN(" first: line\r\n.\r\n"), " first: line\r\n", 0, true, NULL},
        {IN(": x\r\n.\r\n"), ": x\r\n", 0, true, NULL},
        {IN("Old \t: x\r\n\r\n.\r\n"), "Old \t: x\r\n\r\n", 10, false, NULL},
        {IN("a:\r\n\xe3\x81\x82: x\r\n.\r\n"), "a:\r\n\xe3\x81\x82: x\r\n", 4, true, NULL},
        {IN("A: 1\r\nB: 2\r\nline\r\nC: 3\r\n.\r\n"), "A: 1\r\nB: 2\r\nline\r\nC: 3\r\n", 12, true,
         NULL},
    };
    CHECK(cases, 0);
}

Test(smtp_data, f6_dots_are_undone_once)
{
    static const struct expect cases[] = {
        {IN("\r\n..\r\n.\r\n"), "\r\n.\r\n", 0, false, NULL},
        {IN("\r\n.x\r\n.\r\n"), "\r\nx\r\n", 0, false, NULL},
        {IN("\r\n...\r\na.b\r\n.\r\n"), "\r\n..\r\na.b\r\n", 0, false, NULL},
        {IN("..x: 1\r\n\r\n.\r\n"), ".x: 1\r\n\r\n", 7, false, NULL},
        {IN(".x: 1\r\n.y: 2\r\n..\r\n.\r\n"), "x: 1\r\ny: 2\r\n.\r\n", 12, true, NULL},
        {IN(".word\r\n.\r\n"), "word\r\n", 0, true, NULL},
    };
    CHECK(cases, 0);
}

Test(smtp_data, f1_f2_f3_f4_only_crlf_ends_a_line_or_the_data)
{
    static const struct expect cases[] = {
        {IN("a: b\r\n\r\nx\n.\ny\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\r\nx\r\n.\ny\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\r\nx\n.\r\ny\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\r\nx\r.\r\ny\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\r\nx\r\n.\ry\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\r\nx\r.\ry\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\r\nx\n.\ry\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\r\nx\r\n.\r\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\r\n\0.\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\r\n.\0\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("a\0b: c\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("a: b\rc\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("a: b\n\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\r\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
        {IN("\n.\r\n\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
    };
    CHECK(cases, 0);
}

Test(smtp_data, f19_size_is_counted_while_it_streams)
{
    static const struct expect cases[] = {
        {IN("a: b\r\n\r\n12\r\n.\r\n"), "a: b\r\n\r\n12\r\n", 6, false, NULL},
        {IN("a: b\r\n\r\n1\r\n..\r\n.\r\n"), NULL, 0, false, "552 5.3.4"},
        {IN("a: b\r\n\r\n123\r\n.\r\n"), NULL, 0, false, "552 5.3.4"},
        {IN("a: b\r\n\r\n123\n\r\n.\r\n"), NULL, 0, false, "550 5.6.11"},
    };
    CHECK(cases, 12);
}

Test(smtp_data, f19_no_byte_past_the_limit_is_given_out)
{
    uint8_t text[5000];
    memset(text, 'x', sizeof text);
    for (size_t step = 1; step < 5000; step += 499) {
        struct outcome *o = run(slice_of(text, sizeof text), step, step, 1000);
        cr_assert_leq(o->len, 1000);
        cr_assert(!o->ended);
    }
}

/* n times `unit`, then `tail`. */
static struct slice repeat(const char *head, size_t n, const char *unit, const char *tail)
{
    static char text[600 * 1024];
    struct buf b = buf_over(text, sizeof text);
    buf_add_str(&b, head);
    for (size_t i = 0; i < n; i++)
        buf_add_str(&b, unit);
    buf_add_str(&b, tail);
    cr_assert(!b.overflow);
    return buf_slice(&b);
}

static void expect_reply(struct slice in, const char *reply)
{
    const size_t steps[] = {1, 7, 4096, in.len};
    for (size_t i = 0; i < 4; i++) {
        char got[32] = "";
        struct outcome *o = run(in, steps[i], steps[i], 0);
        cr_assert(o->ended);
        if (!o->ok)
            snprintf(got, sizeof got, "%u %s", o->why.smtp_code, o->why.enhanced);
        cr_assert_str_eq(got, reply, "'%s', not '%s', with pieces of %zu", got, reply, steps[i]);
        if (o->ok)
            cr_assert_eq(o->header_ends, 1);
    }
}

Test(smtp_data, f8_line_length)
{
    expect_reply(repeat("\r\n", SMTP_TEXT_LINE_MAX, "x", "\r\n.\r\n"), "");
    expect_reply(repeat("\r\n", SMTP_TEXT_LINE_MAX + 1, "x", "\r\n.\r\n"), "550 5.6.0");
    expect_reply(repeat("\r\n", 2 * SMTP_TEXT_LINE_MAX, "x", "\r\n.\r\n"), "550 5.6.0");
    expect_reply(repeat("\r\n", 3 * 998, "xxxx\r\n", ".\r\n"), "");
    expect_reply(repeat("\r\n", SMTP_TEXT_LINE_MAX + 1, "x", "\n\r\n.\r\n"), "550 5.6.11");
}

Test(smtp_data, f9_header_limits)
{
    expect_reply(repeat("", SMTP_HEADER_FIELDS_MAX, "A: b\r\n", "\r\n.\r\n"), "");
    expect_reply(repeat("", SMTP_HEADER_FIELDS_MAX + 1, "A: b\r\n", "\r\n.\r\n"), "552 5.3.4");
    expect_reply(repeat("A: b\r\n", SMTP_HEADER_BYTES_MAX / 8, " 12345\r\n", "\r\n.\r\n"),
                 "552 5.3.4");
    expect_reply(repeat("A: b\r\n", SMTP_HEADER_BYTES_MAX / 8 - 1, " 12345\r\n", "\r\n.\r\n"), "");
    expect_reply(repeat("A: b\r\n\r\n", SMTP_HEADER_BYTES_MAX / 8, " 12345\r\n", "\r\n.\r\n"), "");
    expect_reply(repeat("", 300 * 1024 / 4, "x\r\ny", "\r\n.\r\n"), "");
}

Test(smtp_data, f30_received_fields_are_counted)
{
    expect_reply(repeat("", SMTP_RECEIVED_MAX, "ReCeived: by x\r\n", "\r\n.\r\n"), "");
    expect_reply(repeat("", SMTP_RECEIVED_MAX + 1, "Received: by x\r\n", "\r\n.\r\n"), "554 5.4.6");
    expect_reply(repeat("A: b\r\n\r\n", SMTP_RECEIVED_MAX + 1, "Received: by x\r\n", "\r\n.\r\n"),
                 "");
    expect_reply(repeat("A: b\r\n", 60, " Received: by x\r\n", "\r\n.\r\n"), "");
    expect_reply(repeat("", 60, "Received-SPF: pass\r\n", "\r\n.\r\n"), "");
}

Test(smtp_data, fields_are_seen_in_the_header_only)
{
    static const char text[] =
        "message-id: <1@x>\r\nDATE : now\r\nReceived: a\r\n\r\nFrom: x\r\n.\r\n";
    for (size_t step = 1; step < sizeof text; step++) {
        struct outcome *o = run(slice_of(text, sizeof text - 1), step, step, 0);
        cr_assert(o->ok);
        cr_assert(o->headers.message_id && o->headers.date && !o->headers.from);
        cr_assert_eq(o->headers.received_count, 1);
    }
}

#define SIXTY_FOUR "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

Test(smtp_data, the_first_subject_is_kept)
{
    static const struct {
        const char *in, *subject;
    } cases[] = {
        {"Subject: hello\r\n\r\nSubject: body\r\n.\r\n", "hello"},
        {"A: b\r\n\r\nSubject: body\r\n.\r\n", ""},
        {"subject :  two words \t \r\nSubject: second\r\n\r\n.\r\n", "two words"},
        {"A: b\r\nSUBJECT:tight\r\nB: c\r\n more\r\n\r\n.\r\n", "tight"},
        {"Subject: folded\r\n\tover\r\n  lines\r\nTo: x\r\n\r\n.\r\n", "folded over  lines"},
        {"Subject:\r\n =?UTF-8?Q?caf=C3=A9?=\r\n\r\n.\r\n", "=?UTF-8?Q?caf=C3=A9?="},
        {"Subject: \x1b[31mred\x7f\r\n\r\n.\r\n", "[31mred"},
        {"Subject: a:b: c\r\nno field\r\n.\r\n", "a:b: c"},
        {"Subject: last\r\n.\r\n", "last"},
        {"Subject:\r\n\r\n.\r\n", ""},
        {"X-Subject: no\r\nSubjects: no\r\n\r\n.\r\n", ""},
        {"Subject: " SIXTY_FOUR SIXTY_FOUR "x\r\n\r\n.\r\n", SIXTY_FOUR SIXTY_FOUR},
        {"Subject: x" SIXTY_FOUR SIXTY_FOUR "\xc3\xa9\r\n\r\n.\r\n",
         "x" SIXTY_FOUR "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"},
        {"Subject: xyz" SIXTY_FOUR "0123456789abcdef0123456789abcdef0123456789abcdef01234567890"
         "\xe6\xbc\xa2\r\n\r\n.\r\n",
         "xyz" SIXTY_FOUR "0123456789abcdef0123456789abcdef0123456789abcdef01234567890"},
        {"Subject: xy" SIXTY_FOUR "0123456789abcdef0123456789abcdef0123456789abcdef01234567890"
         "\xe6\xbc\xa2\r\n\r\n.\r\n",
         "xy" SIXTY_FOUR "0123456789abcdef0123456789abcdef0123456789abcdef01234567890"
         "\xe6\xbc\xa2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i].in);
        for (size_t step = 1; step <= len; step++) {
            struct outcome *o = run(slice_of(cases[i].in, len), step, step, 0);
            cr_assert(o->ok);
            struct slice got = slice_of(o->headers.subject, o->headers.subject_len);
            cr_assert(slice_eq(got, slice_str(cases[i].subject)), "%zu by %zu: '%.*s'", i, step,
                      (int)got.len, (const char *)got.ptr);
        }
    }
}

Test(smtp_data, the_first_message_id_is_kept)
{
    static const char text[] = "Message-ID: \r\n <1@x.test> \r\nSubject: s\r\nmessage-id: <2@x>\r\n"
                               "\r\n.\r\n";
    for (size_t step = 1; step < sizeof text; step++) {
        struct outcome *o = run(slice_of(text, sizeof text - 1), step, step, 0);
        cr_assert(o->ok);
        cr_assert(slice_eq(slice_of(o->headers.id, o->headers.id_len), slice_str("<1@x.test>")));
        cr_assert(slice_eq(slice_of(o->headers.subject, o->headers.subject_len), slice_str("s")));
    }
}

Test(smtp_data, a_name_too_long_to_hold_is_a_field)
{
    struct slice in = repeat("", SMTP_FIELD_NAME_MAX + 9, "n", ": x\r\n\r\n.\r\n");
    for (size_t step = 1; step <= in.len; step++) {
        struct outcome *o = run(in, step, step, 0);
        cr_assert(o->ok);
        cr_assert_not(o->headers.no_blank_line);
        cr_assert_eq(o->header_at, SMTP_FIELD_NAME_MAX + 9 + 5);
    }
}

Test(smtp_data, what_follows_the_end_is_left)
{
    struct smtp_data d;
    struct slice body, in = SLICE_LIT("\r\nx\r\n.\r\nNOOP\r\n");
    smtp_data_start(&d, 0);
    cr_assert_eq(smtp_data_step(&d, &in, &body), SMTP_DATA_HEADERS_END);
    cr_assert_eq(smtp_data_step(&d, &in, &body), SMTP_DATA_BODY);
    cr_assert_eq(body.len, 5);
    cr_assert_eq(smtp_data_step(&d, &in, &body), SMTP_DATA_END);
    cr_assert(slice_eq(in, SLICE_LIT("NOOP\r\n")));
    cr_assert_eq(d.bytes, 5);
}

Test(smtp_data, a_large_body_is_given_out_uncopied)
{
    struct slice in = repeat("\r\n", 1000, "0123456789\r\n", "");
    struct slice whole = in, body;
    struct smtp_data d;
    smtp_data_start(&d, 0);
    cr_assert_eq(smtp_data_step(&d, &in, &body), SMTP_DATA_HEADERS_END);
    cr_assert_eq(smtp_data_step(&d, &in, &body), SMTP_DATA_BODY);
    cr_assert_eq(body.ptr, whole.ptr);
    cr_assert_eq(body.len, whole.len);
}
