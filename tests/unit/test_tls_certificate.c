/*
 * tests/unit/test_tls_certificate.c - names, dates, and keys that do or do not belong.
 */
#include <criterion/criterion.h>

#include "tests/unit/tls_pair.h"
#include "tls/internal.h"

static bool match(const char *pattern, const char *host)
{
    return tls_name_match(slice_str(pattern), slice_str(host));
}

/* RFC 6125 section 6.4 */
Test(tls_certificate, name_match)
{
    cr_assert(match("mail.example.com", "mail.example.com"));
    cr_assert(match("mail.example.com", "MAIL.Example.COM"));
    cr_assert(match("mail.example.com", "mail.example.com."));
    cr_assert(match("mail.example.com.", "mail.example.com"));
    cr_assert(match("*.example.com", "mail.example.com"));
    cr_assert(match("*.Example.com", "a.EXAMPLE.com"));
    cr_assert_not(match("*.example.com", "example.com"));
    cr_assert_not(match("*.example.com", "a.b.example.com"));
    cr_assert_not(match("*.example.com", ".example.com"));
    cr_assert_not(match("*.com", "example.com"), "a wildcard for a whole top-level domain");
    cr_assert_not(match("*", "example"));
    cr_assert_not(match("*.", "a."));
    cr_assert_not(match("m*.example.com", "mail.example.com"));
    cr_assert_not(match("mail.example.com", "xmail.example.com"));
    cr_assert_not(match("mail.example.com", ""));
    cr_assert_not(match("", ""));
    cr_assert_not(match("mail.*.com", "mail.example.com"));
}

static struct tls_certificate_info info;
static struct why why;

static bool check(const char *identity, const char *fqdn)
{
    struct tls_identity id = pair_identity(identity);
    why_clear(&why);
    return tls_identity_check(&id, fqdn, &info, &why);
}

Test(tls_certificate, names_and_dates)
{
    cr_assert(tls_global_init(&why));
    cr_assert(check("mail", "mail.example.test"), "%s", why.text);
    cr_assert(info.matches);
    cr_assert_str_eq(info.names, "mail.example.test, *.wild.example.test");
    cr_assert_eq(info.not_before_s, 1577836800); /* 2020-01-01 */
    cr_assert_eq(info.not_after_s, 4733510400);  /* 2120-01-01, past UTCTime */
    cr_assert(check("mail", "a.wild.example.test"));
    cr_assert(info.matches);
    cr_assert(check("mail", "other.example.test"));
    cr_assert_not(info.matches);
    cr_assert(check("mail", NULL));
    cr_assert_not(info.matches);
    cr_assert(check("plain", "plain.example.test"));
    cr_assert(info.matches, "the common name counts when there is no other");
    cr_assert(check("other", "OTHER.example.test")); /* RSA */
    cr_assert(info.matches);
    cr_assert(check("expired", "mail.example.test")); /* a warning, not an error */
    cr_assert_eq(info.not_after_s, 1609459200);
    tls_global_cleanup();
}

Test(tls_certificate, long_lists_are_cut)
{
    cr_assert(tls_global_init(&why));
    cr_assert(check("many", "mail.example.test"), "%s", why.text);
    cr_assert(info.matches, "the last of 201");
    cr_assert(strstr(info.names, "n1.example.test, n2.example.test, "), "%s", info.names);
    cr_assert(strstr(info.names, " more"), "%s", info.names);
    cr_assert_lt(strlen(info.names), sizeof info.names);
    tls_global_cleanup();
}

Test(tls_certificate, what_does_not_fit_is_named)
{
    struct tls_identity id = pair_identity("mail"), other = pair_identity("other");
    struct tls_identity expired = pair_identity("expired");
    uint64_t before = tls_memory();
    cr_assert(tls_global_init(&why));
    id.key = other.key; /* RSA for ECDSA */
    id.key_name = other.key_name;
    cr_assert_not(tls_identity_check(&id, NULL, &info, &why));
    cr_assert_str_eq(why.text,
                     "tests/unit/data/tls/other.key: the private key does not belong to the "
                     "certificate tests/unit/data/tls/mail.pem");
    id.key = expired.key; /* of the right kind */
    id.key_name = expired.key_name;
    cr_assert_not(tls_identity_check(&id, NULL, &info, &why));
    cr_assert_str_eq(why.text,
                     "tests/unit/data/tls/expired.key: the private key does not belong to "
                     "the certificate tests/unit/data/tls/mail.pem");
    id.key = id.certificate;
    id.key_name = id.certificate_name;
    cr_assert_not(tls_identity_check(&id, NULL, &info, &why));
    cr_assert_str_eq(why.text,
                     "tests/unit/data/tls/mail.pem: this is not a PEM private key (RSA, ECDSA "
                     "or Ed25519)");
    id = pair_identity("mail");
    id.certificate = id.key;
    cr_assert_not(tls_identity_check(&id, NULL, &info, &why));
    cr_assert_str_eq(why.text,
                     "tests/unit/data/tls/mail.pem: this is not a PEM certificate chain, leaf "
                     "first");
    id.certificate = SLICE_LIT("");
    cr_assert_not(tls_identity_check(&id, NULL, &info, &why));
    id = pair_identity("mail");
    id.key = SLICE_LIT(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    cr_assert_not(tls_identity_check(&id, NULL, &info, &why));
    cr_assert_str_eq(why.text,
                     "tests/unit/data/tls/mail.key: the private key is protected by a pass "
                     "phrase; give one without");
    cr_assert_eq(tls_memory(), before);
    tls_global_cleanup();
}

/* Every byte of a certificate changed: refused or read, never worse. */
Test(tls_certificate, altered)
{
    struct tls_names names;
    cr_assert(tls_global_init(&why));
    struct tls_identity id = pair_identity("mail");
    DerBuffer *leaf = tls_leaf_read(id.certificate);
    cr_assert_not_null(leaf);
    uint64_t before = tls_memory();
    for (word32 i = 0; i < leaf->length; i++) {
        for (int bit = 0; bit < 8; bit++) {
            leaf->buffer[i] ^= (byte)(1 << bit);
            if (tls_names_read(slice_of(leaf->buffer, leaf->length), &names))
                tls_names_free(&names);
            leaf->buffer[i] ^= (byte)(1 << bit);
            cr_assert_eq(tls_memory(), before);
        }
    }
    for (word32 len = 0; len < leaf->length; len++)
        cr_assert_not(tls_names_read(slice_of(leaf->buffer, len), &names));
    wc_FreeDer(&leaf);
    tls_global_cleanup();
}
