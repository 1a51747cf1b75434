/*
 * tls/certificate.c - what a certificate says: names, dates, and whether a key is its own.
 *
 * Owns:     copies of names (tls_names), freed by the caller.
 * Runs on:  the thread that makes contexts or checks the configuration; a shard only when a
 *           verification failed.
 * Contract: subject alternative names count; the common name only when there are none of type DNS
 *           (RFC 6125 section 6.4.4). `*` stands for exactly one whole leftmost label.
 * Failure:  one line that names the files and says what to do.
 * Bounds:   TLS_NAMES_MAX names.
 * Tests:    tests/unit/test_tls_certificate.c
 */
#include "tls/internal.h"

#include <time.h>

#include <wolfssl/wolfcrypt/asn.h>

#include "gateway/limits.h"

/* ---- names ---- */

static struct slice without_dot(struct slice s)
{
    return s.len && s.ptr[s.len - 1] == '.' ? slice_head(s, s.len - 1) : s;
}

bool tls_name_match(struct slice pattern, struct slice host)
{
    pattern = without_dot(pattern);
    host = without_dot(host);
    if (pattern.len > 2 && pattern.ptr[0] == '*' && pattern.ptr[1] == '.') {
        size_t label = slice_find(host, '.');
        return label > 0 && label < host.len &&
               slice_find(slice_from(pattern, 2), '.') < pattern.len - 2 &&
               slice_eq_nocase(slice_from(host, label), slice_from(pattern, 1));
    }
    return host.len && slice_eq_nocase(pattern, host);
}

bool tls_names_match(const struct tls_names *n, struct slice host)
{
    for (uint32_t i = 0; i < n->count; i++)
        if (tls_name_match(slice_str(n->items[i]), host))
            return true;
    return false;
}

void tls_names_free(struct tls_names *n)
{
    for (uint32_t i = 0; i < n->count; i++)
        tls_memory_free(n->items[i]);
    tls_memory_free(n->items);
    *n = (struct tls_names){0};
}

/* Bytes that could confuse a log or a terminal become '?': a certificate is the peer's text. */
static bool add_name(struct tls_names *n, const char *name, size_t len)
{
    if (n->count == TLS_NAMES_MAX || len == 0 || len > 255)
        return true;
    char *copy = tls_memory_alloc(len + 1);
    if (!copy)
        return false;
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)name[i];
        copy[i] = c >= 0x20 && c < 0x7f ? (char)ascii_lower(c) : '?';
    }
    copy[len] = '\0';
    n->items[n->count++] = copy;
    return true;
}

static int64_t seconds_of(const byte *asn1, int len)
{
    const byte *date;
    byte format;
    int date_len;
    struct tm tm = {0};
    if (!asn1 || wc_GetDateInfo(asn1, len, &date, &format, &date_len) != 0 ||
        wc_GetDateAsCalendarTime(date, date_len, format, &tm) != 0)
        return 0;
    return (int64_t)timegm(&tm);
}

bool tls_names_read(struct slice der, struct tls_names *out)
{
    DecodedCert cert;
    bool ok, found = false;
    *out = (struct tls_names){0};
    wc_InitDecodedCert(&cert, der.ptr, (word32)der.len, NULL);
    ok = wc_ParseCert(&cert, CERT_TYPE, NO_VERIFY, NULL) == 0;
    if (ok) {
        size_t room = 1;
        for (const DNS_entry *e = cert.altNames; e && room < TLS_NAMES_MAX; e = e->next)
            room++;
        out->items = tls_memory_alloc(room * sizeof *out->items);
        ok = out->items != NULL;
    }
    for (const DNS_entry *e = ok ? cert.altNames : NULL; ok && e; e = e->next) {
        if (e->type != ASN_DNS_TYPE)
            continue;
        found = true;
        ok = add_name(out, e->name, (size_t)e->len);
    }
    if (ok && !found && cert.subjectCN)
        ok = add_name(out, cert.subjectCN, (size_t)cert.subjectCNLen);
    for (uint32_t i = 0; ok && i < out->count / 2; i++) { /* wolfSSL lists the last one first */
        char *name = out->items[i];
        out->items[i] = out->items[out->count - 1 - i];
        out->items[out->count - 1 - i] = name;
    }
    if (ok) {
        out->not_before_s = seconds_of(cert.beforeDate, cert.beforeDateLen);
        out->not_after_s = seconds_of(cert.afterDate, cert.afterDateLen);
    }
    wc_FreeDecodedCert(&cert);
    if (!ok)
        tls_names_free(out);
    return ok;
}

void tls_issuer_read(struct slice der, char *text, size_t text_size)
{
    DecodedCert cert;
    const char *name = "", *common;
    size_t len = 0;
    wc_InitDecodedCert(&cert, der.ptr, (word32)der.len, NULL);
    if (wc_ParseCert(&cert, CERT_TYPE, NO_VERIFY, NULL) == 0)
        name = cert.issuer;
    common = strstr(name, "/CN=");
    for (name = common ? common + 4 : name; *name && len + 1 < text_size; name++) {
        if (common && *name == '/')
            break;
        text[len++] = *name >= 0x20 && *name < 0x7f ? *name : '?';
    }
    text[len] = '\0';
    wc_FreeDecodedCert(&cert);
}

void tls_names_text(const struct tls_names *n, char *text, size_t text_size)
{
    const size_t tail = sizeof ", and 1000 more";
    size_t len = 0;
    snprintf(text, text_size, "%s", n->count ? "" : "no name");
    for (uint32_t i = 0; i < n->count; i++) {
        size_t need = strlen(n->items[i]) + 2;
        if (len + need + tail > text_size) {
            snprintf(text + len, text_size - len, "%sand %u more", len ? ", " : "", n->count - i);
            return;
        }
        len += (size_t)snprintf(text + len, text_size - len, "%s%s", len ? ", " : "", n->items[i]);
    }
}

/* ---- chain and key ---- */

DerBuffer *tls_leaf_read(struct slice pem)
{
    DerBuffer *der = NULL;
    if (wc_PemToDer(pem.ptr, (long)pem.len, CERT_TYPE, &der, NULL, NULL, NULL) != 0) {
        wc_FreeDer(&der);
        return NULL;
    }
    return der;
}

static const char *shown(const char *name, const char *otherwise)
{
    return name ? name : otherwise;
}

bool tls_identity_use(WOLFSSL_CTX *ssl, const struct tls_identity *id, struct why *why)
{
    const char *certificate = shown(id->certificate_name, "certificate");
    const char *key = shown(id->key_name, "key");
    if (wolfSSL_CTX_use_certificate_chain_buffer(ssl, id->certificate.ptr,
                                                 (long)id->certificate.len) != WOLFSSL_SUCCESS) {
        why_set(why, 0, "", "%s: this is not a PEM certificate chain, leaf first", certificate);
        return false;
    }
    if (memmem(id->key.ptr, id->key.len, "ENCRYPTED", 9)) {
        why_set(why, 0, "", "%s: the private key is protected by a pass phrase; give one without",
                key);
        return false;
    }
    if (wolfSSL_CTX_use_PrivateKey_buffer(ssl, id->key.ptr, (long)id->key.len,
                                          WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS) {
        why_set(why, 0, "", "%s: this is not a PEM private key (RSA, ECDSA or Ed25519)", key);
        return false;
    }
    if (wolfSSL_CTX_check_private_key(ssl) != WOLFSSL_SUCCESS) {
        why_set(why, 0, "", "%s: the private key does not belong to the certificate %s", key,
                certificate);
        return false;
    }
    return true;
}

bool tls_identity_check(const struct tls_identity *id, const char *fqdn,
                        struct tls_certificate_info *info, struct why *why)
{
    struct tls_names names = {0};
    WOLFSSL_CTX *ssl = wolfSSL_CTX_new(wolfSSLv23_server_method());
    DerBuffer *leaf = NULL;
    bool ok = false;
    *info = (struct tls_certificate_info){0};
    if (!ssl) {
        why_set(why, 454, "4.7.0", "no memory to check a certificate");
        return false;
    }
    if (tls_identity_use(ssl, id, why)) {
        leaf = tls_leaf_read(id->certificate);
        ok = leaf && tls_names_read(slice_of(leaf->buffer, leaf->length), &names);
        if (!ok)
            why_set(why, 0, "", "%s: the certificate cannot be read",
                    shown(id->certificate_name, "certificate"));
    }
    if (ok) {
        info->matches = fqdn && tls_names_match(&names, slice_str(fqdn));
        info->not_before_s = names.not_before_s;
        info->not_after_s = names.not_after_s;
        tls_names_text(&names, info->names, sizeof info->names);
    }
    tls_names_free(&names);
    wc_FreeDer(&leaf);
    wolfSSL_CTX_free(ssl);
    return ok;
}
