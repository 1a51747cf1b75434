/*
 * gateway/trace.c - Received:, Date: and Message-ID: lines.
 *
 * Owns:     nothing.
 * Runs on:  any thread; pure.
 * Contract: strict CRLF, folded at clauses below TRACE_COLUMNS columns where a clause allows it,
 *           ASCII only: what a peer said about itself can neither end the line nor open a comment
 *           (FAULTS 31).
 * Failure:  no room: nothing is appended, false.
 * Bounds:   TRACE_NAME_MAX bytes of any name; TRACE_RECEIVED_MAX in all.
 * Tests:    tests/unit/test_trace.c
 */
#include "gateway/trace.h"

/* Appends clauses, and folds before one that would not fit on the line. */
struct folder {
    struct buf *out;
    uint32_t column;
};

static void put_clause(struct folder *f, struct slice clause)
{
    if (f->column + 1 + clause.len > TRACE_COLUMNS) {
        buf_add_str(f->out, "\r\n\t");
        f->column = 8;
    } else {
        buf_add_byte(f->out, ' ');
        f->column++;
    }
    buf_add_slice(f->out, clause);
    f->column += (uint32_t)clause.len;
}

/* A name as a peer gave it: letters, digits and what domains and address literals have; all else is
 * '?'. */
static void put_name(struct buf *out, struct slice name, const char *otherwise)
{
    if (name.len == 0) {
        buf_add_str(out, otherwise);
        return;
    }
    const struct slice marks = SLICE_LIT("-._:[]");
    name = slice_head(name, TRACE_NAME_MAX);
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.ptr[i], l = ascii_lower(c);
        bool plain =
            (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || slice_find(marks, c) < marks.len;
        buf_add_byte(out, plain ? c : '?');
    }
}

const char *trace_keyword(const struct trace_received *t)
{
    static const char *const words[2][4] = {{"ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA"},
                                            {"UTF8SMTP", "UTF8SMTPS", "UTF8SMTPA", "UTF8SMTPSA"}};
    if (!t->esmtp)
        return "SMTP"; /* HELO: no extension, so none of the others is registered for it */
    return words[t->smtputf8][(t->tls ? 1 : 0) + (t->authenticated ? 2 : 0)];
}

static void clause_from(const struct trace_received *t, struct buf *out)
{
    buf_add_str(out, "from ");
    put_name(out, t->helo, "unknown");
    if (t->client.len > 0) {
        bool v6 = slice_find(t->client, ':') < t->client.len;
        buf_add_str(out, v6 ? " ([IPv6:" : " ([");
        put_name(out, t->client, "");
        buf_add_str(out, "])");
    }
}

static void clause_by(const struct trace_received *t, struct buf *out)
{
    buf_add_str(out, "by ");
    put_name(out, t->fqdn, "unknown");
    if (t->instance.len > 0) {
        buf_add_str(out, " (");
        put_name(out, t->instance, "");
        buf_add_str(out, ")");
    }
}

static void clause_with(const struct trace_received *t, struct buf *out)
{
    buf_add_str(out, "with ");
    buf_add_str(out, trace_keyword(t));
    if (t->id.len > 0) {
        buf_add_str(out, " id ");
        put_name(out, t->id, "");
    }
}

static void clause_tls(const struct trace_received *t, struct buf *out)
{
    buf_add_str(out, "(");
    put_name(out, t->tls_version, "TLS");
    if (t->tls_cipher.len > 0) {
        buf_add_str(out, " ");
        put_name(out, t->tls_cipher, "");
    }
    if (t->tls_bits > 0) {
        buf_add_str(out, " ");
        buf_add_number(out, t->tls_bits, 0);
        buf_add_str(out, " bits");
    }
    buf_add_str(out, ")");
}

bool trace_received_write(const struct trace_received *t, struct buf *out)
{
    static void (*const clauses[])(const struct trace_received *, struct buf *) = {
        clause_from, clause_by, clause_with, clause_tls};
    uint8_t text[2 * TRACE_NAME_MAX + 64];
    uint32_t start = out->len;
    struct folder f = {.out = out, .column = 9};

    buf_add_str(out, "Received:");
    for (size_t i = 0; i < sizeof clauses / sizeof clauses[0]; i++) {
        struct buf clause = buf_over(text, sizeof text - 1); /* room for the ';' */
        if (clauses[i] == clause_tls && !t->tls)
            continue;
        clauses[i](t, &clause);
        bool last = clauses[i] == (t->tls ? clause_tls : clause_with);
        if (last)
            clause.ptr[clause.len++] = ';';
        put_clause(&f, buf_slice(&clause));
    }
    struct buf date = buf_over(text, sizeof text);
    bool dated = trace_date_write(t->wall_ns, &date);
    put_clause(&f, buf_slice(&date));
    buf_add_str(out, "\r\n");
    if (dated && !out->overflow)
        return true;
    out->len = start;
    return false;
}

/* Days since 1970 to a date of the Gregorian calendar, counted from the 1st of March of the year 0.
 */
static void civil_from_days(uint64_t days, uint32_t *year, uint32_t *month, uint32_t *day)
{
    uint64_t z = days + 719468;
    uint64_t era = z / 146097;
    uint32_t doe = (uint32_t)(z % 146097); /* day of the era of 400 years */
    uint32_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint32_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    uint32_t from_march = (5 * doy + 2) / 153;
    *day = doy - (153 * from_march + 2) / 5 + 1;
    *month = from_march < 10 ? from_march + 3 : from_march - 9;
    *year = (uint32_t)(yoe + era * 400) + (*month <= 2);
}

bool trace_date_write(uint64_t wall_ns, struct buf *out)
{
    static const char days[7][4] = {"Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    uint64_t s = wall_ns / NS_PER_S;
    uint32_t year, month, day, second = (uint32_t)(s % 86400);
    uint32_t start = out->len;

    civil_from_days(s / 86400, &year, &month, &day);
    buf_add_str(out, days[s / 86400 % 7]);
    buf_add_str(out, ", ");
    buf_add_number(out, day, 2);
    buf_add_byte(out, ' ');
    buf_add_str(out, months[month - 1]);
    buf_add_byte(out, ' ');
    buf_add_number(out, year, 4);
    for (uint32_t part = 3600; part; part /= 60) {
        buf_add_byte(out, part == 3600 ? ' ' : ':');
        buf_add_number(out, second / part % (part == 3600 ? 24 : 60), 2);
    }
    if (buf_add_str(out, " +0000"))
        return true;
    out->len = start;
    return false;
}

static bool whole_line(struct buf *out, uint32_t start)
{
    if (buf_add_str(out, "\r\n") && !out->overflow)
        return true;
    out->len = start;
    return false;
}

bool trace_date_line(uint64_t wall_ns, struct buf *out)
{
    uint32_t start = out->len;
    buf_add_str(out, "Date: ");
    return trace_date_write(wall_ns, out) ? whole_line(out, start) : (out->len = start, false);
}

bool trace_message_id_line(struct slice id, struct slice host, struct buf *out)
{
    uint32_t start = out->len;
    buf_add_str(out, "Message-ID: <");
    put_name(out, id, "none");
    buf_add_str(out, "@");
    put_name(out, host, "localhost");
    buf_add_str(out, ">");
    return whole_line(out, start);
}
