/*
 * gateway/smtp/transcript.c - lines of a dialog for the protocol log, with credentials masked.
 *
 * Owns:     a piece of the current line of each side, hashes of the last responses.
 * Runs on:  the shard of the connection; pure.
 * Contract: of AUTH the mechanism is shown and nothing else: no response, no challenge, no word of
 *           a response that a server says again. Lines that are no command are masked behind AUTH,
 *           DATA and BDAT: what was to follow one that was refused. Only CRLF ends a line.
 * Failure:  a line that is too long is cut, with its length.
 * Bounds:   TRANSCRIPT_LINE_MAX bytes of a line are kept; TRANSCRIPT_SECRETS words.
 * Tests:    tests/unit/test_transcript.c
 */
#include "gateway/smtp/transcript.h"

#include "gateway/base/json.h"

#define MASK     "***"
#define WORD_MIN 4u  /* shorter ones say too little to be secrets */
#define WORD_MAX 16u /* bytes of a word that are compared: more may have been cut */

static const char *const mechanisms[] = {"PLAIN",         "LOGIN",
                                         "CRAM-MD5",      "DIGEST-MD5",
                                         "SCRAM-SHA-1",   "SCRAM-SHA-1-PLUS",
                                         "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS",
                                         "NTLM",          "GSSAPI",
                                         "GSS-SPNEGO",    "XOAUTH2",
                                         "OAUTHBEARER",   "EXTERNAL",
                                         "ANONYMOUS"};

static const char *const verbs[] = {
    "EHLO",           "HELO",         "MAIL", "RCPT", "DATA", "BDAT", "RSET",     "NOOP",
    "QUIT",           "STARTTLS",     "VRFY", "EXPN", "HELP", "ETRN", "XHANDOFF", "XHANDOFF-COMMIT",
    "XHANDOFF-ABORT", "XHANDOFF-NEXT"};

static bool is_one_of(struct slice word, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (slice_eq_nocase(word, slice_str(words[i])))
            return true;
    return false;
}

/* ---- words of responses ---- */

static bool is_base64(uint8_t c)
{
    uint8_t l = ascii_lower(c);
    return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
}

/* The next run of base64 characters; *at is behind it. Empty: none is left. */
static struct slice next_word(struct slice s, size_t *at)
{
    while (*at < s.len && !is_base64(s.ptr[*at]))
        ++*at;
    size_t start = *at;
    while (*at < s.len && is_base64(s.ptr[*at]))
        ++*at;
    return slice_of(s.ptr + start, *at - start);
}

static uint64_t word_hash(struct slice word)
{
    uint64_t h = 14695981039346656037ull;
    for (size_t i = 0; i < word.len && i < WORD_MAX; i++)
        h = (h ^ word.ptr[i]) * 1099511628211ull;
    return h | 1;
}

static void secrets_note(struct transcript *d, struct slice response)
{
    size_t at = 0;
    for (struct slice w; (w = next_word(response, &at)).len;)
        if (w.len >= WORD_MIN)
            d->secrets[d->secret_next++ % TRANSCRIPT_SECRETS] = word_hash(w);
}

static bool is_secret(const struct transcript *d, struct slice word)
{
    uint64_t h = word_hash(word);
    for (uint32_t i = 0; word.len >= WORD_MIN && i < TRANSCRIPT_SECRETS; i++)
        if (d->secrets[i] == h)
            return true;
    return false;
}

/* ---- escaping ---- */

/* Characters that a terminal or an editor would act upon: C1 controls, bidirectional marks. */
static bool acts(struct slice c)
{
    return (c.len == 2 && c.ptr[0] == 0xc2 && c.ptr[1] < 0xa0) ||
           (c.len == 3 && c.ptr[0] == 0xe2 &&
            ((c.ptr[1] == 0x80 &&
              ((c.ptr[2] >= 0x8b && c.ptr[2] <= 0x8f) || (c.ptr[2] >= 0xa8 && c.ptr[2] <= 0xae))) ||
             (c.ptr[1] == 0x81 && c.ptr[2] >= 0xa0 && c.ptr[2] <= 0xaf)));
}

bool transcript_escape(struct slice text, struct buf *out)
{
    while (text.len) {
        uint8_t c = text.ptr[0];
        size_t n = json_utf8_sequence(text);
        bool plain = n && c >= 0x20 && c != 0x7f && c != '\\' && !acts(slice_head(text, n));
        uint32_t start = out->len;
        if (plain) {
            if (!buf_add(out, text.ptr, n))
                return false;
        } else {
            n = n ? n : 1;
            for (size_t i = 0; i < n; i++)
                if (!buf_addf(out, c == '\\' ? "\\\\" : "\\x%02x", text.ptr[i])) {
                    out->len = start;
                    return false;
                }
        }
        text = slice_from(text, n);
    }
    return true;
}

/* ---- masking ---- */

/* "AUTH MECHANISM ***": a mechanism that is none may be a password in the wrong place. */
static void show_auth(struct transcript *d, struct slice text, struct buf *out)
{
    size_t at = 4, end;
    buf_add_str(out, "AUTH");
    d->wary = true;
    while (at < text.len && text.ptr[at] == ' ')
        at++;
    for (end = at; end < text.len && text.ptr[end] != ' ';)
        end++;
    struct slice word = slice_head(slice_from(text, at), end - at);
    if (at > 4 && is_one_of(word, mechanisms, sizeof mechanisms / sizeof *mechanisms)) {
        buf_add_byte(out, ' ');
        buf_add_slice(out, word);
        at = end;
    }
    struct slice response = slice_from(text, at);
    if (response.len == 0)
        return;
    secrets_note(d, response);
    buf_add_str(out, " " MASK);
}

static bool has_auth(struct slice s)
{
    for (; s.len >= 4; s = slice_from(s, 1))
        if (slice_starts_nocase(s, SLICE_LIT("AUTH")))
            return true;
    return false;
}

static void show_client(struct transcript *d, const struct transcript_side *s, struct buf *out)
{
    struct slice text = slice_of(s->text, s->kept);
    struct slice verb = slice_head(text, slice_find(text, ' '));
    bool command = is_one_of(verb, verbs, sizeof verbs / sizeof *verbs);
    if (slice_starts_nocase(text, SLICE_LIT("AUTH"))) {
        show_auth(d, text, out);
    } else if (slice_eq(text, SLICE_LIT("*"))) { /* an exchange is given up */
        buf_add_str(out, "*");
    } else if (s->secret || (!command && text.len && (d->wary || has_auth(text)))) {
        secrets_note(d, text);
        d->wary = true;
        buf_add_str(out, MASK);
    } else {
        d->wary |=
            slice_eq_nocase(verb, SLICE_LIT("DATA")) || slice_eq_nocase(verb, SLICE_LIT("BDAT"));
        transcript_escape(text, out);
    }
}

void transcript_words(const struct transcript *d, struct slice text, struct buf *out)
{
    size_t at = 0, shown = 0;
    for (struct slice w; (w = next_word(text, &at)).len;) {
        if (!is_secret(d, w))
            continue;
        transcript_escape(slice_head(slice_from(text, shown), at - w.len - shown), out);
        buf_add_str(out, MASK);
        shown = at;
    }
    transcript_escape(slice_from(text, shown), out);
}

static void show_server(struct transcript *d, const struct transcript_side *s, struct buf *out)
{
    struct slice text = slice_of(s->text, s->kept);
    if (s->secret) {
        buf_add_str(out, MASK);
        return;
    }
    if (slice_starts_nocase(text, SLICE_LIT("334"))) {
        d->challenged = true;
        buf_add_str(out, text.len > 4 ? "334 " MASK : "334");
        return;
    }
    transcript_words(d, text, out);
}

/* ---- lines ---- */

void transcript_init(struct transcript *d, bool late, bool cut)
{
    memset(d, 0, sizeof *d);
    d->side[TRANSCRIPT_CLIENT].secret = d->side[TRANSCRIPT_SERVER].secret = cut;
    d->wary = late;
}

void transcript_wipe(struct transcript *d)
{
    explicit_bzero(d, sizeof *d);
}

static void side_keep(struct transcript_side *s, struct slice piece)
{
    size_t room = TRANSCRIPT_LINE_MAX - s->kept, n = piece.len < room ? piece.len : room;
    if (n)
        memcpy(s->text + s->kept, piece.ptr, n);
    s->kept += (uint32_t)n;
    s->len += piece.len;
    s->cr = piece.ptr[piece.len - 1] == '\r';
}

/* Bytes of *in up to the LF of a CRLF, or all of it. */
static size_t line_end(const struct transcript_side *s, struct slice in, bool *whole)
{
    for (size_t at = 0; at < in.len;) {
        size_t lf = at + slice_find(slice_from(in, at), '\n');
        if (lf == in.len)
            break;
        if (lf ? in.ptr[lf - 1] == '\r' : s->cr) {
            *whole = true;
            return lf + 1;
        }
        at = lf + 1;
    }
    *whole = false;
    return in.len;
}

bool transcript_line(struct transcript *d, enum transcript_from from, bool secret, struct slice *in,
                     struct buf *out)
{
    struct transcript_side *s = &d->side[from];
    bool whole;
    if (in->len == 0)
        return false;
    if (from == TRANSCRIPT_CLIENT) {
        s->secret |= secret || d->challenged;
        d->wary |= secret;
    }
    size_t n = line_end(s, *in, &whole);
    side_keep(s, slice_head(*in, n));
    *in = slice_from(*in, n);
    if (!whole)
        return false;
    uint64_t len = s->len - 2;
    s->kept = (uint32_t)(s->kept < len ? s->kept : len);
    if (from == TRANSCRIPT_CLIENT) {
        d->challenged = false;
        show_client(d, s, out);
    } else {
        show_server(d, s, out);
    }
    if (len > s->kept)
        buf_addf(out, "... (%llu bytes)", (unsigned long long)len);
    explicit_bzero(s->text, s->kept);
    s->kept = 0;
    s->len = 0;
    s->cr = s->secret = false;
    return true;
}
