/*
 * routing/domain.c - domain names in one form: lower-case A-labels.
 *
 * Owns:     nothing.
 * Runs on:  any thread.
 * Contract: what comes out has 1 to 63 octets a label of a-z, 0-9, '-', '_' and at most 253 in all,
 *           or is an address literal; it is a fixed point: converting it again changes nothing.
 * Failure:  false, and 501 5.1.3 in `why`.
 * Bounds:   names over DOMAIN_INPUT_MAX octets of UTF-8 are refused unread. Only a name with octets
 *           of 0x80 and above reaches libidn2, which allocates.
 * Tests:    tests/unit/test_domain.c
 */
#include "routing/domain.h"

#include <idn2.h>

#define DOMAIN_INPUT_MAX  1012 /* 253 characters of four octets */
#define DOMAIN_ASCII_MAX  253
#define DOMAIN_LABEL_SIZE 63

static bool domain_octet_ok(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static bool domain_refuse(struct why *why, const char *reason)
{
    why_set(why, 501, "5.1.3", "Bad domain: %s", reason);
    return false;
}

bool domain_is_literal(struct slice domain)
{
    return domain.len >= 2 && domain.ptr[0] == '[' && domain.ptr[domain.len - 1] == ']';
}

static bool domain_literal_copy(struct slice in, char out[DOMAIN_TEXT_MAX], struct why *why)
{
    if (in.len > DOMAIN_LITERAL_MAX)
        return domain_refuse(why, "too long");
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = ascii_lower(in.ptr[i]);
        bool inner = i > 0 && i + 1 < in.len;
        if (inner && !domain_octet_ok(c) && c != '.' && c != ':')
            return domain_refuse(why, "not an address literal");
        out[i] = (char)c;
    }
    out[in.len] = '\0';
    return true;
}

/* Lowers and checks a name that is all ASCII. */
static bool domain_ascii_copy(struct slice in, char out[DOMAIN_TEXT_MAX], struct why *why)
{
    size_t label = 0;

    if (in.len && in.ptr[in.len - 1] == '.')
        in.len--;
    if (in.len == 0)
        return domain_refuse(why, "empty");
    if (in.len > DOMAIN_ASCII_MAX)
        return domain_refuse(why, "longer than 253 octets");
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = ascii_lower(in.ptr[i]);
        if (c == '.') {
            if (label == 0)
                return domain_refuse(why, "empty label");
            label = 0;
        } else if (!domain_octet_ok(c)) {
            return domain_refuse(why, "a character that no mail domain has");
        } else if (++label > DOMAIN_LABEL_SIZE) {
            return domain_refuse(why, "label longer than 63 octets");
        }
        out[i] = (char)c;
    }
    if (label == 0)
        return domain_refuse(why, "empty label");
    out[in.len] = '\0';
    return true;
}

bool domain_to_ascii(struct slice domain, char out[DOMAIN_TEXT_MAX], struct why *why)
{
    char input[DOMAIN_INPUT_MAX + 1];
    uint8_t *ascii = NULL;
    bool plain = true;

    if (domain_is_literal(domain))
        return domain_literal_copy(domain, out, why);
    for (size_t i = 0; i < domain.len && plain; i++)
        plain = domain.ptr[i] < 0x80;
    if (plain)
        return domain_ascii_copy(domain, out, why);

    if (domain.len > DOMAIN_INPUT_MAX)
        return domain_refuse(why, "too long");
    if (slice_find(domain, 0) < domain.len)
        return domain_refuse(why, "a character that no mail domain has");
    memcpy(input, domain.ptr, domain.len);
    input[domain.len] = '\0';
    int rc = idn2_to_ascii_8z(input, (char **)&ascii, IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT);
    if (rc != IDN2_OK)
        return domain_refuse(why, idn2_strerror(rc));
    /*
     * The mapping can yield ASCII that no name may have (a full-width slash), so it is checked like
     * the rest.
     */
    bool ok = domain_ascii_copy(slice_str((char *)ascii), out, why);
    idn2_free(ascii);
    return ok;
}

bool domain_pattern_to_ascii(struct slice pattern, char out[DOMAIN_TEXT_MAX], struct why *why)
{
    char name[DOMAIN_TEXT_MAX];

    if (slice_eq(pattern, SLICE_LIT("*"))) {
        memcpy(out, "*", 2);
        return true;
    }
    if (!slice_starts_nocase(pattern, SLICE_LIT("*.")))
        return domain_to_ascii(pattern, out, why);
    pattern = slice_from(pattern, 2);
    if (domain_is_literal(pattern))
        return domain_refuse(why, "nothing lies below an address literal");
    if (!domain_to_ascii(pattern, name, why))
        return false;
    size_t len = strlen(name);
    if (len + 3 > DOMAIN_TEXT_MAX)
        return domain_refuse(why, "too long");
    out[0] = '*';
    out[1] = '.';
    memcpy(out + 2, name, len + 1);
    return true;
}
