/*
 * tls/fault.c - wolfSSL's errors and TLS alerts in words that an operator understands.
 *
 * Owns:     the two tables of words.
 * Runs on:  any thread.
 * Contract: fills `why` with 454 and 4.7.0 (4.7.5 for a certificate that cannot be trusted, RFC
 *           8461 section 5); delivery turns that into a deferral, a server only logs it.
 * Failure:  an unknown code is named by its number and wolfSSL's own text.
 * Bounds:   WHY_TEXT_MAX.
 * Tests:    tests/unit/test_tls.c
 */
#include "tls/internal.h"

#include <time.h>

#include <wolfssl/error-ssl.h>
#include <wolfssl/wolfcrypt/error-crypt.h>

struct words {
    int code;
    const char *text;
};

static const struct words fault_words[] = {
    {MEMORY_E, "no memory left for TLS sessions"},
    {MEMORY_ERROR, "no memory left for TLS sessions"},
    {MATCH_SUITE_ERROR, "no cipher suite in common"},
    {UNSUPPORTED_SUITE, "no cipher suite in common"},
    {SUITES_ERROR, "no cipher suite in common"},
    {KEY_SHARE_ERROR, "no key exchange group in common"},
    {BAD_KEY_SHARE_DATA, "the peer's key share is malformed"},
    {ECC_CURVE_ERROR, "no key exchange group in common"},
    {VERSION_ERROR, "no TLS version in common"},
    {UNSUPPORTED_PROTO_VERSION, "no TLS version in common"},
    {UNKNOWN_RECORD_TYPE, "the peer sent something that is not TLS"},
    {PARSE_ERROR, "the peer sent a malformed TLS record"},
    {BUFFER_ERROR, "the peer sent a malformed TLS message"},
    {DECODE_E, "the peer sent a malformed TLS message"},
    {LENGTH_ERROR, "the peer sent a TLS record that is too long"},
    {HANDSHAKE_SIZE_ERROR, "the peer sent a TLS handshake message that is too long"},
    {INVALID_PARAMETER, "the peer sent an invalid TLS parameter"},
    {VERIFY_MAC_ERROR, "a TLS record was altered on the way"},
    {DECRYPT_ERROR, "a TLS record was altered on the way"},
    {AES_GCM_AUTH_E, "a TLS record was altered on the way"},
    {MAC_CMP_FAILED_E, "a TLS record was altered on the way"},
    {VERIFY_FINISHED_ERROR, "the TLS handshake was altered on the way"},
    {VERIFY_SIGN_ERROR, "the peer could not prove that it owns its certificate"},
    {SIG_VERIFY_E, "the peer could not prove that it owns its certificate"},
    {OUT_OF_ORDER_E, "the peer sent TLS messages out of order"},
    {SANITY_MSG_E, "the peer sent TLS messages out of order"},
    {DUPLICATE_MSG_E, "the peer repeated its handshake; there is no renegotiation here"},
    {SECURE_RENEGOTIATION_E, "the peer asked for renegotiation"},
    {ALERT_COUNT_E, "the peer sent too many alerts"},
    {NO_PEER_CERT, "the peer showed no certificate"},
    {RSA_KEY_SIZE_E, "the peer's RSA key is too short"},
    {ECC_KEY_SIZE_E, "the peer's elliptic curve key is too short"},
    {SOCKET_PEER_CLOSED_E, "the peer closed the connection"},
    {WOLFSSL_ERROR_ZERO_RETURN, "the peer closed the connection"},
};

static const struct words certificate_words[] = {
    {ASN_NO_SIGNER_E, "is not signed by an authority we trust"},
    {ASN_SELF_SIGNED_E, "is self-signed"},
    {ASN_SIG_CONFIRM_E, "has a signature that does not verify"},
    {ASN_SIG_OID_E, "is signed with an algorithm we do not accept"},
    {ASN_SIG_HASH_E, "is signed with an algorithm we do not accept"},
    {ASN_PARSE_E, "is malformed"},
    {ASN_NAME_INVALID_E, "has a name its authority may not sign"},
    {ASN_PATHLEN_INV_E, "has a chain longer than its authority allows"},
    {ASN_PATHLEN_SIZE_E, "has a chain longer than its authority allows"},
    {ASN_CRIT_EXT_E, "has a critical extension we do not know"},
    {NOT_CA_ERROR, "is signed by a certificate that is no authority"},
    {MAX_CHAIN_ERROR, "has a chain that is too long"},
    {EXTKEYUSE_AUTH_E, "is not meant for TLS servers"},
    {KEYUSE_SIGNATURE_E, "is not meant for this key exchange"},
    {RSA_KEY_SIZE_E, "has an RSA key that is too short"},
    {ECC_KEY_SIZE_E, "has an elliptic curve key that is too short"},
};

/* RFC 8446 section 6. */
static const struct words alert_words[] = {
    {10, "unexpected message"},
    {20, "bad record MAC"},
    {22, "record overflow"},
    {40, "handshake failure: no cipher suite or parameters in common"},
    {42, "bad certificate"},
    {43, "unsupported certificate"},
    {44, "certificate revoked"},
    {45, "certificate expired"},
    {46, "certificate unknown"},
    {47, "illegal parameter"},
    {48, "unknown certificate authority"},
    {49, "access denied"},
    {50, "decode error"},
    {51, "decrypt error"},
    {70, "no TLS version in common"},
    {71, "insufficient security"},
    {80, "internal error"},
    {86, "inappropriate fallback"},
    {90, "user cancelled"},
    {109, "missing extension"},
    {110, "unsupported extension"},
    {112, "unrecognized name"},
    {116, "certificate required"},
    {120, "no application protocol"},
};

static const char *word_of(const struct words *table, size_t count, int code)
{
    for (size_t i = 0; i < count; i++)
        if (table[i].code == code)
            return table[i].text;
    return NULL;
}
#define WORD_OF(table, code) word_of(table, sizeof(table) / sizeof(table)[0], code)

void tls_fault(struct why *why, int code, int alert, bool server)
{
    const char *text;
    if (!why)
        return;
    if (alert > 0 && code == FATAL_ERROR) {
        text = WORD_OF(alert_words, alert);
        why_set(why, 454, "4.7.0", "TLS: the %s refused: %s (alert %d)",
                server ? "client" : "server", text ? text : "unknown alert", alert);
        return;
    }
    text = WORD_OF(fault_words, code);
    if (text) {
        why_set(why, 454, "4.7.0", "TLS: %s", text);
        return;
    }
    char buf[WOLFSSL_MAX_ERROR_SZ];
    wolfSSL_ERR_error_string_n((unsigned long)code, buf, sizeof buf);
    why_set(why, 454, "4.7.0", "TLS: %s (wolfSSL %d)", buf, code);
}

static void date_text(int64_t seconds, char text[16])
{
    time_t t = (time_t)seconds;
    struct tm tm;
    if (!gmtime_r(&t, &tm) || !strftime(text, 16, "%Y-%m-%d", &tm))
        snprintf(text, 16, "an unknown day");
}

void tls_fault_certificate(struct why *why, int code, struct slice der, const char *name)
{
    struct tls_names names = {0};
    char list[256] = "an unreadable certificate", day[16];
    if (!why)
        return;
    if (der.len && tls_names_read(der, &names))
        tls_names_text(&names, list, sizeof list);
    if (code == ASN_AFTER_DATE_E) {
        date_text(names.not_after_s, day);
        why_set(why, 454, "4.7.5", "TLS: the certificate for %s expired on %s", list, day);
    } else if (code == ASN_BEFORE_DATE_E) {
        date_text(names.not_before_s, day);
        why_set(why, 454, "4.7.5", "TLS: the certificate for %s is not valid before %s", list, day);
    } else if (code == DOMAIN_NAME_MISMATCH || code == IPADDR_MISMATCH) {
        why_set(why, 454, "4.7.5", "TLS: the certificate is for %s, not for %s", list,
                name ? name : "this host");
    } else {
        const char *text = WORD_OF(certificate_words, code);
        char buf[WOLFSSL_MAX_ERROR_SZ];
        if (!text) {
            wolfSSL_ERR_error_string_n((unsigned long)code, buf, sizeof buf);
            why_set(why, 454, "4.7.5", "TLS: the certificate for %s was refused: %s (wolfSSL %d)",
                    list, buf, code);
        } else {
            why_set(why, 454, "4.7.5", "TLS: the certificate for %s %s", list, text);
        }
    }
    tls_names_free(&names);
}
