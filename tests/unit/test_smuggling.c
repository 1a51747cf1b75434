/*
 * No message hides in another: every string of up to 7 bytes of CR, LF, dot, NUL and a letter as a
 * message, ended by CRLF.CRLF and followed by a command, in every split, against a reference that
 * sees it whole; and what is sent on of those that are taken. f1 to f6 of the hostile inputs that
 * the project counts.
 */
#include <criterion/criterion.h>

#include "gateway/base/sanitizers.h"
#include "gateway/smtp/smtp_in.h"
#include "gateway/smtp/smtp_out_internal.h"

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

/* A sanitizer slows this down: with it the strings are one byte shorter. */
#ifdef SANITIZES_ADDRESS
#define SPLITS_LEN_MAX 6
#define BRUTE_LEN_MAX  4
#else
#define SPLITS_LEN_MAX 7
#define BRUTE_LEN_MAX  5
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

TestSuite(smuggling, .init = init);

/* ---- every split ---- */

/*
 * 2^11 splits of 78,125 strings are too many to play one after the other, but two splits that have
 * led to the same machine and the same output need to be followed once only. So for each prefix of
 * a string there is the set of what its splits lead to, each with the number of splits that do:
 *
 *     reached(prefix) = union over its proper prefixes q of feed(reached(q), the rest as one piece)
 *
 * A sum of those numbers that is 2^(bytes - 1) shows that no split is missing. Nothing is taken for
 * equal but what is, byte for byte: the whole machine, what it gave out, its replies.
 */
#define REACHED_MAX 96
#define PLACES      (10 + 5 + 5 + 1)

struct reached {
    size_t len; /* of what was given out */
    size_t end; /* as in struct result, once `ended` */
    bool ended, accepted;
    uint32_t header_ends, reply_len;
    struct smtp_in s;
    uint8_t body[PLACES];
    uint8_t reply[100];
    uint64_t splits; /* last: not compared */
};

static struct reached_set {
    struct reached of[REACHED_MAX];
    uint32_t count;
} reached[PLACES]; /* by the length of the prefix */

static const uint8_t letters[6] = {'\r', '\n', '.', '\0', 'a', ':'};
static size_t letter_count;
static uint8_t wire[PLACES + sizeof MARKER];
static uint64_t strings_tried, splits_covered, taken;
static uint32_t reached_most;

static void reached_add(struct reached_set *set, const struct reached *new)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (memcmp(&set->of[i], new, offsetof(struct reached, splits)) == 0) {
            set->of[i].splits += new->splits;
            return;
        }
    cr_assert(set->count < REACHED_MAX);
    memcpy(&set->of[set->count++], new, sizeof *new);
    if (set->count > reached_most)
        reached_most = set->count;
}

/* One piece more, wire[at..next). What is behind the end of the message stays in the input. */
static void feed(struct reached *state, size_t at, size_t next)
{
    struct smtp_in_event ev;
    struct buf out = buf_over(out_memory, sizeof out_memory);
    struct slice in = slice_of(wire + at, next - at);
    while (!state->ended) {
        enum smtp_in_event_kind kind = smtp_in_step(&state->s, &in, &out, &ev);
        if (kind == SMTP_IN_NEED_INPUT) {
            cr_assert_eq(in.len, 0);
            cr_assert_eq(out.len, 0);
            return;
        }
        if (kind == SMTP_IN_BODY) {
            cr_assert(state->len + ev.body.len <= sizeof state->body);
            memcpy(state->body + state->len, ev.body.ptr, ev.body.len);
            state->len += ev.body.len;
        } else if (kind == SMTP_IN_HEADERS_END) {
            state->header_ends++;
        } else {
            cr_assert(kind == SMTP_IN_END || kind == SMTP_IN_DATA_BAD);
            state->ended = true;
            state->accepted = kind == SMTP_IN_END;
            state->end = next - in.len;
            cr_assert(out.len <= sizeof state->reply);
            state->reply_len = (uint32_t)out.len;
            memcpy(state->reply, out.ptr, out.len);
        }
    }
}

/* reached[len], from those of all shorter prefixes; `behind` more bytes ride on the last piece. */
static void reach(size_t len, size_t behind)
{
    reached[len].count = 0;
    for (size_t at = 0; at < len; at++)
        for (uint32_t i = 0; i < reached[at].count; i++) {
            struct reached next;
            memcpy(&next, &reached[at].of[i], sizeof next);
            feed(&next, at, len + behind);
            reached_add(&reached[len], &next);
        }
}

static uint64_t splits_of(size_t len)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < reached[len].count; i++)
        sum += reached[len].of[i].splits;
    return sum;
}

static const char *hex_of(size_t len)
{
    static char hex[2 * sizeof wire + 1];
    for (size_t i = 0; i < len; i++)
        snprintf(hex + 2 * i, 3, "%02x", wire[i]);
    return hex;
}

/* What a next hop is sent of this body, in one piece and byte by byte, ends at its end only and is
 * the same body: said by the reference. */
static void check_sent_on(const struct result *r)
{
    static const struct smtp_out_config out_config;
    struct result there;
    uint8_t sent[2][64];
    size_t len[2];
    for (int by_byte = 0; by_byte < 2; by_byte++) {
        struct smtp_out s;
        struct buf out = buf_over(sent[by_byte], sizeof sent[by_byte]);
        smtp_out_init(&s, &out_config, false);
        s.state = SMTP_OUT_S_BODY;
        size_t piece = by_byte ? 1 : r->len;
        for (size_t at = 0; at < r->len; at += piece)
            cr_assert_eq(smtp_out_body(&s, slice_of(r->body + at, piece), &out), piece);
        cr_assert(smtp_out_body_end(&s, &out));
        len[by_byte] = out.len;
    }
    cr_assert(len[0] == len[1] && memcmp(sent[0], sent[1], len[0]) == 0, "%s", hex_of(PLACES));
    reference(sent[0], len[0], &there);
    cr_assert(there.accepted && there.end == len[0], "%s: ends at %zu of %zu", hex_of(PLACES),
              there.end, len[0]);
    cr_assert(there.len == r->len && memcmp(there.body, r->body, r->len) == 0);
}

/* wire[0..n) as a message, and each of its prefixes is in `reached`. */
static void finish(size_t n)
{
    struct result expected;
    size_t len = n + 5;
    memcpy(wire + n, TAIL MARKER, 5 + 6);
    for (size_t i = n + 1; i <= len; i++)
        reach(i, i == len ? 6 : 0);
    reference(wire, len, &expected);
    cr_assert_eq(splits_of(len), 1u << (len - 1), "%s: splits are missing", hex_of(len));
    for (uint32_t i = 0; i < reached[len].count; i++) {
        const struct reached *got = &reached[len].of[i];
        bool same = got->ended && got->accepted == expected.accepted && got->end == expected.end &&
                    !smtp_in_in_data(&got->s);
        if (same && expected.accepted)
            same = got->len == expected.len && got->header_ends == 1 && got->reply_len == 0 &&
                   memcmp(got->body, expected.body, expected.len) == 0;
        else if (same)
            same = memcmp(got->reply, "550 5.6.11 ", 11) == 0 &&
                   got->reply_len == reached[len].of[0].reply_len &&
                   memcmp(got->reply, reached[len].of[0].reply, got->reply_len) == 0;
        if (!same)
            cr_assert_fail("%s in %lu splits: ended %d, accepted %d not %d; end %zu not %zu; "
                           "length %zu not %zu; reply %.*s",
                           hex_of(len), (unsigned long)got->splits, got->ended, got->accepted,
                           expected.accepted, got->end, expected.end, got->len, expected.len,
                           (int)got->reply_len, (const char *)got->reply);
    }
    if (expected.accepted) {
        cr_assert_not(has_bare(&expected));
        check_sent_on(&expected);
        taken++;
    }
    strings_tried++;
    splits_covered += splits_of(len);
}

/* Every string of n to n_max bytes that begins with wire[0..n). */
static void every_string(size_t n, size_t n_max, void (*with)(size_t n))
{
    with(n);
    for (size_t i = 0; n < n_max && i < letter_count; i++) {
        wire[n] = letters[i];
        reach(n + 1, 0);
        cr_assert_eq(splits_of(n + 1), 1u << n);
        every_string(n + 1, n_max, with);
    }
}

/* Every string of up to n_max of the first `count` letters behind `head`. */
static void every_string_behind(const char *head, size_t n_max, size_t count,
                                void (*with)(size_t n))
{
    struct reached first;
    size_t len = strlen(head);
    memset(&first, 0, sizeof first);
    memcpy(&first.s, &in_data, sizeof in_data);
    first.splits = 1;
    reached[0].count = 0;
    reached_add(&reached[0], &first);
    memcpy(wire, head, len);
    for (size_t i = 1; i <= len; i++)
        reach(i, 0);
    letter_count = count;
    every_string(len, len + n_max, with);
}

Test(smuggling, f1_f2_f3_f4_f5_f6_up_to_7_bytes_in_every_split, .timeout = 120)
{
    uint64_t strings = 0, splits = 0;
    for (uint64_t n = 0, count = 1; n <= SPLITS_LEN_MAX; n++, count *= 5) {
        strings += count;
        splits += count << (n + 4);
    }
    every_string_behind("", SPLITS_LEN_MAX, 5, finish);
    cr_assert_eq(strings_tried, strings); /* 97,656 up to 7 bytes */
    cr_assert_eq(splits_covered, splits); /* 177,777,776 */
    cr_log_info("%lu strings, %lu splits, %lu taken, at most %u states at one place",
                (unsigned long)strings_tried, (unsigned long)splits_covered, (unsigned long)taken,
                reached_most);
}

/* One split after the other: the sets are what comes of it, and how often. */
static void one_by_one(size_t n)
{
    uint64_t seen[REACHED_MAX] = {0};
    size_t len = n + 5;
    finish(n);
    for (uint32_t cuts = 0; cuts < 1u << (len - 1); cuts++) {
        struct reached got;
        memcpy(&got, &reached[0].of[0], sizeof got);
        for (size_t at = 0, next; at < len; at = next) {
            for (next = at + 1; next < len && !(cuts & 1u << (next - 1));)
                next++;
            feed(&got, at, next == len ? len + 6 : next);
        }
        uint32_t i = 0;
        while (i < reached[len].count &&
               memcmp(&reached[len].of[i], &got, offsetof(struct reached, splits)) != 0)
            i++;
        cr_assert(i < reached[len].count, "%s, cuts %x: not in the set", hex_of(len), cuts);
        seen[i]++;
    }
    for (uint32_t i = 0; i < reached[len].count; i++)
        cr_assert_eq(seen[i], reached[len].of[i].splits, "%s: counted wrong", hex_of(len));
}

Test(smuggling, sets_of_splits_are_those_of_one_by_one, .timeout = 120)
{
    every_string_behind("", BRUTE_LEN_MAX, 5, one_by_one);
}

/* The same behind a header line and behind a blank line, where other code runs. */
Test(smuggling, f1_f2_f3_f4_f5_f6_behind_a_header_in_every_split, .timeout = 120)
{
    static const char *const heads[] = {"a:b\r\n", "\r\n", "a:b\r\n\r\n", "a", "a:b\r\n "};
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        every_string_behind(heads[h], SPLITS_LEN_MAX - 2, 6, finish);
    cr_assert_eq(strings_tried, 5 * (SPLITS_LEN_MAX == 7 ? 9331 : 1555));
}

/* In the middle of text that is looked at by the block: every string of 3 bytes at every place. */
Test(smuggling, f1_f2_f3_f4_f6_within_long_text)
{
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
