/*
 * gateway/smtp/params.c - the parameters of MAIL and RCPT.
 *
 * Owns:     nothing; results are slices of the input or of the memory given for decoded text.
 * Runs on:  any thread.
 * Contract: each keyword at most once, each value checked in full: no control character gets past
 *           here, decoded or not. Whether a size is too large is the caller's question.
 * Failure:  false, and why says 555 5.5.4 (keyword not known) or 501 5.5.4 (all else).
 * Bounds:   SMTP_ENVID_MAX, SMTP_ORCPT_MAX, SMTP_PATH_MAX.
 * Tests:    tests/unit/test_params.c, tests/fuzz/fuzz_smtp_in.c
 */
#include "gateway/smtp/params.h"

enum { SEEN_SIZE = 1, SEEN_BODY = 2, SEEN_UTF8 = 4, SEEN_RET = 8, SEEN_ENVID = 16, SEEN_AUTH = 32 };
enum { SEEN_NOTIFY = 1, SEEN_ORCPT = 2 };

struct param {
    struct slice key, value;
    bool has_value;
};

static bool fail(struct why *why, const char *name)
{
    why_set(why, 501, "5.5.4", "Bad parameter: %s", name);
    return false;
}

static bool fail_unknown(struct why *why)
{
    why_set(why, 555, "5.5.4", "Parameter is not known or not offered");
    return false;
}

static bool is_keyword_char(uint8_t c, bool first)
{
    uint8_t l = ascii_lower(c);
    return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || (c == '-' && !first);
}

/* Takes the next " KEY[=VALUE]" off *in. DONE: one is in *p. NEED_MORE: there are no more. */
static enum smtp_parse param_next(struct slice *in, struct param *p)
{
    size_t i = 0;
    while (i < in->len && in->ptr[i] == ' ')
        i++;
    if (i == in->len)
        return SMTP_PARSE_NEED_MORE;
    if (i == 0) /* something sticks to the '>' or to the parameter before */
        return SMTP_PARSE_BAD;
    size_t key = i;
    while (i < in->len && is_keyword_char(in->ptr[i], i == key))
        i++;
    p->key = slice_of(in->ptr + key, i - key);
    p->has_value = i < in->len && in->ptr[i] == '=';
    p->value = slice_of(NULL, 0);
    if (p->has_value) {
        size_t value = ++i;
        while (i < in->len && in->ptr[i] > ' ' && in->ptr[i] != 0x7f && in->ptr[i] != '=')
            i++;
        p->value = slice_of(in->ptr + value, i - value);
    }
    if (p->key.len == 0 || (p->has_value && p->value.len == 0) ||
        (i < in->len && in->ptr[i] != ' '))
        return SMTP_PARSE_BAD;
    *in = slice_from(*in, i);
    return SMTP_PARSE_DONE;
}

static bool first_time(uint32_t *seen, uint32_t bit)
{
    bool first = !(*seen & bit);
    *seen |= bit;
    return first;
}

static int hex_value(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes the xtext character at *i: printable ASCII, or -1. */
static int xtext_char(struct slice in, size_t *i)
{
    uint8_t c = in.ptr[(*i)++];
    if (c < '!' || c > '~' || c == '=')
        return -1;
    if (c != '+')
        return c;
    if (in.len - *i < 2)
        return -1;
    int high = hex_value(in.ptr[*i]), low = hex_value(in.ptr[*i + 1]);
    *i += 2;
    int v = high * 16 + low;
    return high < 0 || low < 0 || v < ' ' || v > '~' ? -1 : v;
}

bool smtp_xtext_decode(struct slice in, struct buf *out)
{
    for (size_t i = 0; i < in.len;) {
        int c = xtext_char(in, &i);
        if (c < 0 || !buf_add_byte(out, (uint8_t)c))
            return false;
    }
    return true;
}

bool smtp_xtext_encode(struct slice in, struct buf *out)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.ptr[i];
        bool plain = c >= '!' && c <= '~' && c != '+' && c != '=';
        uint8_t escaped[3] = {'+', (uint8_t)hex[c >> 4], (uint8_t)hex[c & 15]};
        if (!buf_add(out, plain ? &c : escaped, plain ? 1 : 3))
            return false;
    }
    return true;
}

/* Checks xtext and gives its decoded form: a slice of `in` where nothing is escaped. */
static bool xtext_value(struct slice in, size_t decoded_max, struct buf *decoded, struct slice *out)
{
    uint32_t start = decoded->len;
    if (slice_find(in, '+') == in.len) {
        *out = in;
        for (size_t i = 0; i < in.len;)
            if (xtext_char(in, &i) < 0)
                return false;
        return in.len <= decoded_max;
    }
    if (!smtp_xtext_decode(in, decoded))
        return false;
    *out = slice_of(decoded->ptr + start, decoded->len - start);
    return out->len <= decoded_max;
}

static bool size_value(struct slice in, uint64_t *out)
{
    uint64_t v = 0;
    if (in.len == 0 || in.len > 20)
        return false;
    for (size_t i = 0; i < in.len; i++) {
        if (in.ptr[i] < '0' || in.ptr[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, in.ptr[i] - '0', &v))
            return false;
    }
    *out = v;
    return true;
}

static bool mail_param(const struct param *p, uint32_t *seen, struct smtp_mail *out,
                       struct buf *decoded, struct why *why)
{
    if (slice_eq_nocase(p->key, SLICE_LIT("SIZE")))
        return (first_time(seen, SEEN_SIZE) && size_value(p->value, &out->size)) ||
               fail(why, "SIZE");
    if (slice_eq_nocase(p->key, SLICE_LIT("BODY"))) {
        out->body_8bit = slice_eq_nocase(p->value, SLICE_LIT("8BITMIME"));
        bool known = out->body_8bit || slice_eq_nocase(p->value, SLICE_LIT("7BIT"));
        return (first_time(seen, SEEN_BODY) && known) || fail(why, "BODY");
    }
    if (slice_eq_nocase(p->key, SLICE_LIT("SMTPUTF8"))) {
        out->smtputf8 = true;
        return (first_time(seen, SEEN_UTF8) && !p->has_value) || fail(why, "SMTPUTF8");
    }
    if (slice_eq_nocase(p->key, SLICE_LIT("RET"))) {
        out->ret = slice_eq_nocase(p->value, SLICE_LIT("FULL"))   ? SMTP_RET_FULL
                   : slice_eq_nocase(p->value, SLICE_LIT("HDRS")) ? SMTP_RET_HDRS
                                                                  : SMTP_RET_NONE;
        return (first_time(seen, SEEN_RET) && out->ret != SMTP_RET_NONE) || fail(why, "RET");
    }
    if (slice_eq_nocase(p->key, SLICE_LIT("ENVID")))
        return (first_time(seen, SEEN_ENVID) && p->has_value && p->value.len <= SMTP_ENVID_MAX &&
                xtext_value(p->value, SMTP_ENVID_MAX, decoded, &out->envid)) ||
               fail(why, "ENVID");
    if (slice_eq_nocase(p->key, SLICE_LIT("AUTH")))
        return (first_time(seen, SEEN_AUTH) && p->has_value &&
                xtext_value(p->value, SMTP_PATH_MAX + 2, decoded, &out->auth)) ||
               fail(why, "AUTH");
    return fail_unknown(why);
}

bool smtp_mail_params_parse(struct slice in, struct smtp_mail *out, struct buf *decoded,
                            struct why *why)
{
    struct smtp_address from = out->from;
    uint32_t seen = 0;
    struct param p;
    *out = (struct smtp_mail){.from = from};
    for (;;) {
        switch (param_next(&in, &p)) {
        case SMTP_PARSE_NEED_MORE: return true;
        case SMTP_PARSE_BAD: return fail(why, "malformed");
        case SMTP_PARSE_DONE:
            if (!mail_param(&p, &seen, out, decoded, why))
                return false;
        }
    }
}

/* NEVER alone, or a list of the others (RFC 3461 section 4.1). */
static bool notify_value(struct slice in, uint8_t *out)
{
    *out = 0;
    if (slice_eq_nocase(in, SLICE_LIT("NEVER"))) {
        *out = SMTP_NOTIFY_NEVER;
        return true;
    }
    for (;;) {
        size_t n = slice_find(in, ',');
        struct slice word = slice_head(in, n);
        if (slice_eq_nocase(word, SLICE_LIT("SUCCESS")))
            *out |= SMTP_NOTIFY_SUCCESS;
        else if (slice_eq_nocase(word, SLICE_LIT("FAILURE")))
            *out |= SMTP_NOTIFY_FAILURE;
        else if (slice_eq_nocase(word, SLICE_LIT("DELAY")))
            *out |= SMTP_NOTIFY_DELAY;
        else
            return false;
        if (n == in.len)
            return true;
        in = slice_from(in, n + 1);
    }
}

/* addr-type ";" xtext (RFC 3461 section 4.2); in an SMTPUTF8 transaction also UTF-8 (RFC 6533
 * section 3). */
static bool orcpt_valid(struct slice in, bool utf8)
{
    size_t type = slice_find(in, ';');
    if (in.len > SMTP_ORCPT_MAX || type == 0 || in.len - type < 2)
        return false;
    for (size_t i = 0; i < type; i++)
        if (!is_keyword_char(in.ptr[i], i == 0))
            return false;
    if (slice_has_8bit(in) && !(utf8 && smtp_utf8_valid(in)))
        return false;
    struct slice text = slice_from(in, type + 1);
    for (size_t i = 0; i < text.len;) {
        if (text.ptr[i] & 0x80)
            i++;
        else if (xtext_char(text, &i) < 0)
            return false;
    }
    return true;
}

bool smtp_rcpt_params_parse(struct slice in, bool utf8, struct smtp_rcpt *out, struct why *why)
{
    uint32_t seen = 0;
    struct param p;
    out->notify = 0;
    out->orcpt = slice_of(NULL, 0);
    for (;;) {
        switch (param_next(&in, &p)) {
        case SMTP_PARSE_NEED_MORE: return true;
        case SMTP_PARSE_BAD: return fail(why, "malformed");
        case SMTP_PARSE_DONE: break;
        }
        if (slice_eq_nocase(p.key, SLICE_LIT("NOTIFY"))) {
            if (!first_time(&seen, SEEN_NOTIFY) || !notify_value(p.value, &out->notify))
                return fail(why, "NOTIFY");
        } else if (slice_eq_nocase(p.key, SLICE_LIT("ORCPT"))) {
            if (!first_time(&seen, SEEN_ORCPT) || !orcpt_valid(p.value, utf8))
                return fail(why, "ORCPT");
            out->orcpt = p.value;
        } else {
            return fail_unknown(why);
        }
    }
}
