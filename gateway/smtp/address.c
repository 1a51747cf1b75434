/*
 * gateway/smtp/address.c - mailboxes and paths (RFC 5321 section 4.1.2, RFC 6531 section 3.3).
 *
 * Owns:     nothing; results are slices of the input.
 * Runs on:  any thread.
 * Contract: syntax only. A local part is opaque bytes: never unquoted, expanded or judged. A path
 *           without angle brackets is taken too, as people and devices do write it so.
 * Failure:  false, and why says 501 5.1.7 (sender), 501 5.1.3 (recipient) or 553 5.6.7 (not ASCII).
 * Bounds:   SMTP_PATH_MAX, SMTP_LOCAL_PART_MAX, SMTP_DOMAIN_MAX, SMTP_LABEL_MAX.
 * Tests:    tests/unit/test_address.c, tests/fuzz/fuzz_smtp_in.c
 */
#include <arpa/inet.h>

#include "gateway/limits.h"
#include "gateway/smtp/smtp.h"

static bool is_alnum(uint8_t c)
{
    return (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z');
}

/* RFC 5322 section 3.2.3; bytes of 0x80 and above have been checked as UTF-8 before. */
static bool is_atext(uint8_t c)
{
    return is_alnum(c) || c >= 0x80 || (c && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

/* Length of the UTF-8 sequence at p (RFC 3629 section 4: no overlong forms, surrogates), or 0. */
static size_t utf8_sequence(const uint8_t *p, size_t len)
{
    uint8_t c = p[0], low = 0x80, high = 0xbf;
    size_t n;
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf)
        n = 2;
    else if (c >= 0xe0 && c <= 0xef)
        n = 3;
    else if (c >= 0xf0 && c <= 0xf4)
        n = 4;
    else
        return 0;
    if (n > len)
        return 0;
    if (c == 0xe0)
        low = 0xa0;
    else if (c == 0xed)
        high = 0x9f;
    else if (c == 0xf0)
        low = 0x90;
    else if (c == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

bool smtp_utf8_valid(struct slice s)
{
    for (size_t i = 0; i < s.len;) {
        size_t n = utf8_sequence(s.ptr + i, s.len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

/* Length of the local part at the start of `in`: dot-string or quoted-string; 0: none. */
static size_t local_length(struct slice in)
{
    size_t i = 0;
    if (in.len && in.ptr[0] == '"') {
        for (i = 1; i < in.len; i++) {
            uint8_t c = in.ptr[i];
            if (c == '"')
                return i + 1;
            if (c == '\\' && ++i < in.len)
                c = in.ptr[i];
            if (c < 0x20 || c == 0x7f)
                return 0;
        }
        return 0;
    }
    for (;;) {
        size_t atom = i;
        while (i < in.len && is_atext(in.ptr[i]))
            i++;
        if (i == atom)
            return 0;
        if (i == in.len || in.ptr[i] != '.')
            return i;
        i++;
    }
}

/* "[192.0.2.1]" or "[IPv6:2001:db8::1]", `in` being what is between the brackets. */
static bool literal_valid(struct slice in)
{
    char text[INET6_ADDRSTRLEN + 1];
    struct in6_addr parsed;
    int family = AF_INET;
    if (slice_starts_nocase(in, SLICE_LIT("IPv6:"))) {
        family = AF_INET6;
        in = slice_from(in, 5);
    }
    if (in.len == 0 || in.len >= sizeof text || slice_find(in, '\0') != in.len)
        return false;
    memcpy(text, in.ptr, in.len);
    text[in.len] = '\0';
    return inet_pton(family, text, &parsed) == 1;
}

/* Length of the domain at the start of `in`, 0: none. Host names do have underscores. */
static size_t domain_length(struct slice in)
{
    size_t i = 0;
    if (in.len && in.ptr[0] == '[') {
        size_t end = slice_find(in, ']');
        return end < in.len && literal_valid(slice_of(in.ptr + 1, end - 1)) ? end + 1 : 0;
    }
    for (;;) {
        size_t label = i;
        bool ascii = true;
        for (; i < in.len; i++) {
            uint8_t c = in.ptr[i];
            if (!is_alnum(c) && c != '-' && c != '_' && c < 0x80)
                break;
            ascii = ascii && c < 0x80;
        }
        if (i == label || in.ptr[label] == '-' || in.ptr[i - 1] == '-' ||
            (ascii && i - label > SMTP_LABEL_MAX))
            return 0;
        if (i == in.len || in.ptr[i] != '.')
            return i;
        i++;
    }
}

/* Length of the mailbox at the start of `in`, filling *out; 0: none. */
static size_t mailbox_length(struct slice in, struct smtp_address *out)
{
    size_t local = local_length(in);
    if (local == 0 || local > SMTP_LOCAL_PART_MAX || local >= in.len || in.ptr[local] != '@')
        return 0;
    size_t domain = domain_length(slice_from(in, local + 1));
    size_t whole = local + 1 + domain;
    if (domain == 0 || domain > SMTP_DOMAIN_MAX || whole > SMTP_PATH_MAX)
        return 0;
    out->mailbox = slice_head(in, whole);
    out->local = slice_head(in, local);
    out->domain = slice_of(in.ptr + local + 1, domain);
    return whole;
}

bool smtp_mailbox_parse(struct slice in, bool utf8, struct smtp_address *out)
{
    if (slice_has_8bit(in) && (!utf8 || !smtp_utf8_valid(in)))
        return false;
    size_t n = mailbox_length(in, out);
    return n != 0 && n == in.len;
}

/* Length of "@a,@b:" at the start (RFC 5321 appendix C: taken and ignored); -1: malformed. */
static int64_t source_route_length(struct slice in)
{
    size_t i = 0;
    if (in.len == 0 || in.ptr[0] != '@')
        return 0;
    while (i < in.len && in.ptr[i] == '@') {
        size_t n = domain_length(slice_from(in, i + 1));
        i += 1 + n;
        if (n == 0 || i >= in.len)
            return -1;
        if (in.ptr[i] == ':')
            return (int64_t)i + 1;
        if (in.ptr[i++] != ',')
            return -1;
    }
    return -1;
}

/* What is inside the brackets or stands without them; returns its length, 0 when malformed. */
static size_t path_length(struct slice in, bool for_rcpt, struct smtp_address *out)
{
    int64_t route = source_route_length(in);
    if (route < 0)
        return 0;
    struct slice tail = slice_from(in, (size_t)route);
    size_t n = mailbox_length(tail, out);
    if (n != 0)
        return (size_t)route + n;
    struct slice postmaster = slice_head(in, 10);
    if (!for_rcpt || !slice_eq_nocase(postmaster, SLICE_LIT("postmaster")))
        return 0;
    if (in.len > 10 && in.ptr[10] != '>' && in.ptr[10] != ' ')
        return 0;
    *out = (struct smtp_address){.mailbox = postmaster, .local = postmaster};
    return postmaster.len;
}

/* The bytes that a path reaches over, as far as can be said before it is parsed: up to a space. */
static struct slice path_extent(struct slice in)
{
    bool quoted = false;
    for (size_t i = 0; i < in.len; i++) {
        if (in.ptr[i] == '\\' && quoted)
            i++;
        else if (in.ptr[i] == '"')
            quoted = !quoted;
        else if (in.ptr[i] == ' ' && !quoted)
            return slice_head(in, i);
    }
    return in;
}

bool smtp_path_parse(struct slice in, bool for_rcpt, bool utf8, struct smtp_address *out,
                     struct slice *rest, struct why *why)
{
    *out = (struct smtp_address){0};
    struct slice extent = path_extent(in);
    if (slice_has_8bit(extent) && !(utf8 && smtp_utf8_valid(extent))) {
        why_set(why, 553, "5.6.7",
                utf8 ? "Address is not valid UTF-8" : "Address is not ASCII: SMTPUTF8 is required");
        return false;
    }
    if (!for_rcpt && in.len >= 2 && in.ptr[0] == '<' && in.ptr[1] == '>') {
        *rest = slice_from(in, 2);
        return true;
    }
    bool bracket = in.len && in.ptr[0] == '<';
    struct slice inner = bracket ? slice_from(in, 1) : in;
    size_t n = path_length(inner, for_rcpt, out);
    bool ok = n != 0;
    if (ok && bracket)
        ok = n < inner.len && inner.ptr[n] == '>';
    else if (ok)
        ok = n == inner.len || inner.ptr[n] == ' ';
    if (!ok) {
        *out = (struct smtp_address){0};
        why_set(why, 501, for_rcpt ? "5.1.3" : "5.1.7", "Malformed %s address",
                for_rcpt ? "recipient" : "sender");
        return false;
    }
    *rest = slice_from(inner, n + (bracket ? 1 : 0));
    return true;
}
