/*
 * No message hides in another: every string of up to 7 bytes of CR, LF, dot, NUL and a letter as a
 * message, ended by CRLF.CRLF and followed by a command, in every split into up to three pieces (up
 * to 5 bytes: in every split), against a reference that sees it whole. f1 to f6 of the hostile
 * inputs that the project counts.
 */
#include <criterion/criterion.h>

#include "gateway/smtp/smtp_in.h"

#define TAIL   "\r\n.\r\n"
#define MARKER "NOOP\r\n"

static const struct smtp_in_config config = {.fqdn = {(const uint8_t *)"mx", 2}};
static uint8_t out_memory[2048];
static struct smtp_in in_data; /* behind 354 */

struct result {
    bool accepted;
    size_t end; /* offset of the first byte behind the message */
    size_t len;
    uint8_t body[400];
};

static void init(void)
{
    struct smtp_in_event ev;
    struct buf out = buf_over(out_memory, sizeof out_memory);
    struct slice in = SLICE_LIT("HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n");
    smtp_in_init(&in_data, &config, false);
    smtp_in_greet(&in_data, &out, NULL);
    while (smtp_in_step(&in_data, &in, &out, &ev) != SMTP_IN_NEED_INPUT)
        if (ev.kind != SMTP_IN_RESET)
            smtp_in_answer(&in_data, &out, NULL, NULL);
    cr_assert(smtp_in_in_data(&in_data));
}

static void reference(const uint8_t *wire, size_t len, struct result *r)
{
    uint8_t text[400] = "\r\n"; /* the start of the data counts as behind a CRLF */
    memcpy(text + 2, wire, len);
    size_t end = (size_t)((uint8_t *)memmem(text, len + 2, TAIL, 5) - text);
    *r = (struct result){.accepted = true, .end = end + 3};
    for (size_t i = 2; i < end + 2; i++) {
        if (text[i] == '\0' || (text[i] == '\r') != (text[i + 1] == '\n'))
            r->accepted = false;
        if (text[i] != '.' || text[i - 1] != '\n' || text[i - 2] != '\r')
            r->body[r->len++] = text[i];
    }
    if (end && text[2] == '\n')
        r->accepted = false;
}

/* A sanitizer slows this down: then a sample of the strings of 7 bytes does. */
#ifdef __SANITIZE_ADDRESS__
#define STRIDE 7
#else
#define STRIDE 1
#endif

/* Bit i of `cuts` set: a new piece begins behind byte i; past the bits there are no cuts. */
static void machine(const uint8_t *wire, size_t len, uint32_t cuts, struct result *r)
{
    struct smtp_in s = in_data;
    struct smtp_in_event ev;
    struct buf out = buf_over(out_memory, sizeof out_memory);
    uint32_t header_ends = 0;
    r->len = 0;
    for (size_t at = 0, next; at < len; at = next) {
        for (next = at + 1; next < len && !(next <= 32 && cuts & 1u << (next - 1));)
            next++;
        struct slice in = slice_of(wire + at, next - at);
        for (;;) {
            enum smtp_in_event_kind kind = smtp_in_step(&s, &in, &out, &ev);
            if (kind == SMTP_IN_NEED_INPUT)
                break;
            if (kind == SMTP_IN_BODY) {
                memcpy(r->body + r->len, ev.body.ptr, ev.body.len);
                r->len += ev.body.len;
            } else if (kind == SMTP_IN_HEADERS_END) {
                header_ends++;
            } else {
                cr_assert(kind == SMTP_IN_END || kind == SMTP_IN_DATA_BAD);
                r->accepted = kind == SMTP_IN_END;
                r->end = next - in.len;
                cr_assert(header_ends == 1 || (!r->accepted && header_ends == 0));
                cr_assert_not(smtp_in_in_data(&s));
                return;
            }
        }
    }
    cr_assert_fail("the message has no end");
}

static bool has_bare(const struct result *r)
{
    for (size_t i = 0; i < r->len; i++)
        if (r->body[i] == '\0' ||
            (r->body[i] == '\r' && (i + 1 == r->len || r->body[i + 1] != '\n')) ||
            (r->body[i] == '\n' && (i == 0 || r->body[i - 1] != '\r')))
            return true;
    return false;
}

static void compare(const uint8_t *wire, size_t len, uint32_t cuts, const struct result *expected)
{
    struct result got;
    machine(wire, len, cuts, &got);
    bool same = got.accepted == expected->accepted && got.end == expected->end;
    if (same && got.accepted)
        same = got.len == expected->len && memcmp(got.body, expected->body, got.len) == 0 &&
               !has_bare(&got);
    if (same)
        return;
    char hex[900] = "";
    for (size_t i = 0; i < len; i++)
        snprintf(hex + 2 * i, 3, "%02x", wire[i]);
    cr_assert_fail("%s, cuts %x: accepted %d, not %d; end %zu, not %zu; length %zu, not %zu", hex,
                   cuts, got.accepted, expected->accepted, got.end, expected->end, got.len,
                   expected->len);
}

static uint64_t all_strings(size_t n, bool every_split)
{
    static const uint8_t letters[5] = {'\r', '\n', '.', '\0', 'a'};
    uint8_t wire[32];
    uint64_t count = 1, dialogs = 0;
    size_t len = n + 5;
    for (size_t i = 0; i < n; i++)
        count *= 5;
    memcpy(wire + n, TAIL MARKER, 5 + 6);
    for (uint64_t k = 0; k < count; k += n == 7 ? STRIDE : 1) {
        struct result expected;
        uint64_t rest = k;
        for (size_t i = 0; i < n; i++, rest /= 5)
            wire[i] = letters[rest % 5];
        reference(wire, len, &expected);
        /* The marker rides on the last piece, and is left in the input. */
        uint32_t places = (uint32_t)len - 1;
        for (uint32_t cuts = 0; every_split && cuts < 1u << places; cuts++, dialogs++)
            compare(wire, len + 6, cuts, &expected);
        for (uint32_t a = 0; !every_split && a < places; a++)
            for (uint32_t b = a; b < places; b++, dialogs++)
                compare(wire, len + 6, 1u << a | 1u << b, &expected);
        compare(wire, len + 6, 0, &expected);
    }
    return dialogs;
}

TestSuite(smuggling, .init = init);

Test(smuggling, f1_f2_f3_f4_f5_f6_up_to_5_bytes_in_every_split)
{
    for (size_t n = 0; n <= 5; n++)
        all_strings(n, true);
}

Test(smuggling, f1_f2_f3_f4_f5_f6_6_bytes_in_three_pieces)
{
    cr_assert_eq(all_strings(6, false), 15625 * 55);
}

Test(smuggling, f1_f2_f3_f4_f5_f6_7_bytes_in_three_pieces)
{
    cr_assert_eq(all_strings(7, false), (78125 + STRIDE - 1) / STRIDE * 66);
}

/* The same behind a header line and behind a blank line, where other code runs. */
Test(smuggling, f1_f2_f3_f4_f5_f6_behind_a_header)
{
    static const char *const heads[] = {"a:b\r\n", "\r\n", "a:b\r\n\r\n", "a", "a:b\r\n "};
    static const uint8_t letters[6] = {'\r', '\n', '.', '\0', 'a', ':'};
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++) {
        uint8_t wire[32];
        size_t head = strlen(heads[h]), len = head + 5 + 5;
        memcpy(wire, heads[h], head);
        memcpy(wire + head + 5, TAIL MARKER, 5 + 6);
        for (uint32_t k = 0; k < 7776; k++) {
            struct result expected;
            uint32_t rest = k;
            for (size_t i = 0; i < 5; i++, rest /= 6)
                wire[head + i] = letters[rest % 6];
            reference(wire, len, &expected);
            for (uint32_t a = 0; a + 1 < len; a++)
                compare(wire, len + 6, 1u << a, &expected);
            compare(wire, len + 6, UINT32_MAX, &expected);
        }
    }
}

/* In the middle of text that is looked at by the block: every string of 3 bytes at every place. */
Test(smuggling, f1_f2_f3_f4_f6_within_long_text)
{
    static const uint8_t letters[5] = {'\r', '\n', '.', '\0', 'a'};
    uint8_t wire[300];
    const size_t head = 8, text = 200, len = head + text + 5;
    for (size_t at = 0; at + 3 <= text; at++) {
        for (uint32_t k = 0; k < 125; k++) {
            struct result expected;
            memcpy(wire, "\r\nx\r\ny\r\n", head);
            for (size_t i = 0; i < text; i++)
                wire[head + i] = i % 21 == 19 ? '\r' : i % 21 == 20 ? '\n' : 'x';
            memcpy(wire + head + text, TAIL MARKER, 5 + 6);
            wire[head + at] = letters[k % 5];
            wire[head + at + 1] = letters[k / 5 % 5];
            wire[head + at + 2] = letters[k / 25];
            reference(wire, len, &expected);
            compare(wire, len + 6, 0, &expected);
            compare(wire, len + 6, 1u << (at % 8), &expected);
        }
    }
}

Test(smuggling, what_follows_is_a_command)
{
    struct smtp_in s = in_data;
    struct smtp_in_event ev;
    struct buf out = buf_over(out_memory, sizeof out_memory);
    struct slice in = SLICE_LIT("\r\nx" TAIL MARKER);
    while (smtp_in_step(&s, &in, &out, &ev) != SMTP_IN_END)
        ;
    smtp_in_answer(&s, &out, NULL, "Q1");
    cr_assert_eq(smtp_in_step(&s, &in, &out, &ev), SMTP_IN_NEED_INPUT);
    cr_assert(slice_eq(buf_slice(&out), SLICE_LIT("250 2.0.0 Q1\r\n250 2.0.0 Ok\r\n")));
}
