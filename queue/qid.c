/*
 * queue/qid.c - queue ids as text: 13 characters of base 32, sorted as the numbers are.
 *
 * Owns:     nothing.
 * Runs on:  any thread.
 * Contract: qid_parse(qid_text(x)) is x; letters of either case; I, L, O and U never occur.
 * Failure:  qid_parse: false for any other text, for 0 and for more than 64 bits.
 * Bounds:   QID_TEXT_MAX.
 * Tests:    tests/unit/test_qid.c
 */
#include "queue/queue.h"

#define QID_DIGITS 13

static const char ALPHABET[33] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

const char *qid_text(uint64_t qid, char text[QID_TEXT_MAX])
{
    for (int i = QID_DIGITS - 1; i >= 0; i--) {
        text[i] = ALPHABET[qid & 31];
        qid >>= 5;
    }
    text[QID_DIGITS] = '\0';
    return text;
}

bool qid_parse(struct slice text, uint64_t *qid)
{
    uint64_t value = 0;

    if (text.len != QID_DIGITS)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        const char *digit;
        if (c >= 'a' && c <= 'z')
            c = (uint8_t)(c - 'a' + 'A');
        digit = c ? strchr(ALPHABET, c) : NULL;
        if (!digit || (i == 0 && digit - ALPHABET > 15)) /* 13 digits hold 65 bits */
            return false;
        value = value << 5 | (uint64_t)(digit - ALPHABET);
    }
    *qid = value;
    return value != 0;
}
