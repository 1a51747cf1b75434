/*
 * gateway/smtp/smtp_out_command.c - the commands that a client sends.
 *
 * Owns:     the sending cursor (s->sent).
 * Runs on:  any thread; pure.
 * Contract: whole command lines only. Where the server offers PIPELINING the sending cursor runs
 *           ahead of the receiving one as far as `out` has room (RFC 2920); else one command a
 *           reply. Nothing from an envelope can end a command line early.
 * Failure:  no room: nothing is appended, flush. What does not fit a command line is refused before
 *           anything is sent.
 * Bounds:   SMTP_OUT_COMMAND_MAX, SMTP_OUT_ROOM_MIN; addresses and parameters as on the way in.
 * Tests:    tests/unit/test_smtp_out.c
 */
#include <assert.h>

#include "gateway/smtp/smtp_out_internal.h"

/* RFC 5321 section 4.5.3.1.4; a longer initial response of AUTH waits for its 334 (RFC 4954 section
 * 4). */
#define AUTH_LINE_MAX     512u
#define SASL_RESPONSE_MAX (AUTH_USER_MAX + AUTH_PASSWORD_MAX + 8u)

bool smtp_out_is_waiting(const struct smtp_out *s)
{
    switch ((enum smtp_out_state)s->state) {
    case SMTP_OUT_S_BANNER:
    case SMTP_OUT_S_EOD:
    case SMTP_OUT_S_QUIT: return true;
    case SMTP_OUT_S_ENVELOPE: return s->answered < s->sent;
    case SMTP_OUT_S_READY:
    case SMTP_OUT_S_TLS:
    case SMTP_OUT_S_BODY:
    case SMTP_OUT_S_LOST:
    case SMTP_OUT_S_CLOSED: return false;
    default: return s->asked;
    }
}

/* ---- what can be sent at all ---- */

static bool has_control(struct slice s, bool space_too)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < (space_too ? 0x21 : 0x20) || s.ptr[i] == 0x7f)
            return true;
    return false;
}

static bool refuse(struct smtp_reply *r, uint16_t code, const char *enhanced, const char *text)
{
    smtp_reply_set_local(r, enhanced, text);
    r->code = code;
    return true;
}

bool smtp_out_tx_refused(const struct smtp_out *s, const struct smtp_out_tx *tx,
                         struct smtp_reply *reply)
{
    bool utf8 = tx->smtputf8 || slice_has_8bit(tx->sender);

    if (tx->sender.len > SMTP_PATH_MAX || has_control(tx->sender, false) ||
        tx->envid.len > SMTP_ENVID_MAX)
        return refuse(reply, 553, "5.1.7", "the sender's address cannot be sent");
    for (uint32_t i = 0; i < tx->rcpt_count; i++) {
        const struct smtp_out_rcpt *r = &tx->rcpts[i];
        if (r->mailbox.len == 0 || r->mailbox.len > SMTP_PATH_MAX ||
            has_control(r->mailbox, false) || r->orcpt.len > SMTP_ORCPT_MAX ||
            has_control(r->orcpt, true))
            return refuse(reply, 553, "5.1.3", "a recipient's address cannot be sent");
        utf8 = utf8 || slice_has_8bit(r->mailbox);
    }
    if (utf8 && !s->utf8)
        return refuse(reply, 553, "5.6.7",
                      "the message needs SMTPUTF8, which the server does not offer");
    if (tx->body_8bit && !s->eightbit)
        return refuse(reply, 554, "5.6.3",
                      "the message has 8-bit text, but the server does not offer 8BITMIME");
    if (s->size_limit > 0 && tx->size > s->size_limit) {
        char text[128];
        snprintf(text, sizeof text, "the message has %llu bytes, the server takes %llu",
                 (unsigned long long)tx->size, (unsigned long long)s->size_limit);
        return refuse(reply, 552, "5.3.4", text);
    }
    return false;
}

/* ---- command lines ---- */

/* RFC 3461 section 4: xtext. */
static void put_xtext(struct buf *out, struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        if (c > 0x20 && c < 0x7f && c != '+' && c != '=')
            buf_add_byte(out, c);
        else
            buf_addf(out, "+%02X", c);
    }
}

static void put_mail(const struct smtp_out *s, const struct smtp_out_tx *tx, struct buf *out)
{
    bool utf8 = tx->smtputf8 || slice_has_8bit(tx->sender);

    buf_add_str(out, "MAIL FROM:<");
    buf_add_slice(out, tx->sender);
    buf_add_str(out, ">");
    if (s->size_offered && tx->size > 0) {
        buf_add_str(out, " SIZE=");
        buf_add_number(out, tx->size, 1);
    }
    if (s->eightbit && tx->body_8bit)
        buf_add_str(out, " BODY=8BITMIME");
    for (uint32_t i = 0; !utf8 && i < tx->rcpt_count; i++)
        utf8 = slice_has_8bit(tx->rcpts[i].mailbox);
    if (utf8)
        buf_add_str(out, " SMTPUTF8");
    if (s->dsn && tx->ret != SMTP_RET_NONE)
        buf_add_str(out, tx->ret == SMTP_RET_FULL ? " RET=FULL" : " RET=HDRS");
    if (s->dsn && tx->envid.len > 0) {
        buf_add_str(out, " ENVID=");
        put_xtext(out, tx->envid);
    }
    buf_add_str(out, "\r\n");
}

static void put_notify(uint8_t notify, struct buf *out)
{
    static const struct {
        uint8_t bit;
        const char *word;
    } words[] = {{SMTP_NOTIFY_SUCCESS, "SUCCESS"},
                 {SMTP_NOTIFY_FAILURE, "FAILURE"},
                 {SMTP_NOTIFY_DELAY, "DELAY"}};
    if (notify & SMTP_NOTIFY_NEVER) {
        buf_add_str(out, " NOTIFY=NEVER");
        return;
    }
    const char *before = " NOTIFY=";
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (notify & words[i].bit) {
            buf_add_str(out, before);
            buf_add_str(out, words[i].word);
            before = ",";
        }
}

static void put_rcpt(const struct smtp_out *s, const struct smtp_out_rcpt *r, struct buf *out)
{
    buf_add_str(out, "RCPT TO:<");
    buf_add_slice(out, r->mailbox);
    buf_add_str(out, ">");
    if (s->dsn) {
        put_notify(r->notify, out);
        if (r->orcpt.len > 0) {
            buf_add_str(out, " ORCPT=");
            buf_add_slice(out, r->orcpt);
        }
    }
    buf_add_str(out, "\r\n");
}

/* May the envelope's next command go out before all others are answered? */
static bool may_send(const struct smtp_out *s)
{
    uint32_t data = s->tx->rcpt_count + 1;
    if (s->tx->command.len)
        return s->sent == 0;
    if (s->decided || s->sent > data)
        return false;
    return s->pipelining || s->sent == s->answered;
}

/* The command at this place of the envelope. */
static void put_command(const struct smtp_out *s, const struct smtp_out_tx *tx, uint32_t at,
                        struct buf *out)
{
    if (tx->command.len)
        buf_addf(out, "%.*s\r\n", (int)tx->command.len, (const char *)tx->command.ptr);
    else if (at == 0)
        put_mail(s, tx, out);
    else if (at <= tx->rcpt_count)
        put_rcpt(s, &tx->rcpts[at - 1], out);
    else
        buf_add_str(out, "DATA\r\n");
    assert(!out->overflow);
}

static bool send_envelope(struct smtp_out *s, struct buf *out)
{
    while (may_send(s)) {
        if (buf_room(out) < SMTP_OUT_COMMAND_MAX)
            return false;
        put_command(s, s->tx, s->sent++, out);
    }
    return true;
}

bool smtp_out_ahead(struct smtp_out *s, const struct smtp_out_tx *tx, struct buf *out)
{
    uint32_t start = out->len;
    struct smtp_reply refused;

    if (s->state != SMTP_OUT_S_EOD || !s->pipelining || s->ahead || tx->command.len ||
        smtp_out_tx_refused(s, tx, &refused))
        return false;
    for (uint32_t at = 0; at < tx->rcpt_count + 2; at++) {
        if (buf_room(out) < SMTP_OUT_COMMAND_MAX) {
            out->len = start;
            return false;
        }
        put_command(s, tx, at, out);
    }
    s->ahead = tx;
    return true;
}

/* ---- AUTH ---- */

static bool put_response(struct smtp_out *s, struct slice challenge, struct buf *out)
{
    uint8_t plain[SASL_RESPONSE_MAX];
    struct buf response = buf_over(plain, sizeof plain);
    bool ok = sasl_client_step(&s->sasl, challenge, &response) &&
              base64_encode(buf_slice(&response), out);
    explicit_bzero(plain, sizeof plain);
    return ok;
}

static bool put_auth(struct smtp_out *s, struct buf *out)
{
    bool plain = s->sasl.mechanism == SASL_PLAIN;
    size_t encoded = (s->config->username.len + s->config->password.len + 4) / 3 * 4;
    if (s->auth_steps > 0) {
        uint8_t raw[SMTP_REPLY_LINE_MAX];
        struct buf challenge = buf_over(raw, sizeof raw);
        return base64_decode(slice_of(s->parser.line, s->parser.line_len), &challenge) &&
               put_response(s, buf_slice(&challenge), out);
    }
    buf_add_str(out, plain ? "AUTH PLAIN" : "AUTH LOGIN");
    if (!plain || encoded + strlen("AUTH PLAIN \r\n") > AUTH_LINE_MAX)
        return true;
    buf_add_str(out, " ");
    return put_response(s, slice_of(NULL, 0), out);
}

static bool send_auth(struct smtp_out *s, struct buf *out)
{
    if (buf_room(out) < SMTP_OUT_ROOM_MIN)
        return false;
    uint32_t start = out->len;
    if (put_auth(s, out) && buf_add_str(out, "\r\n")) {
        s->asked = true;
        return true;
    }
    out->len = start;
    out->overflow = false;
    smtp_out_fail_local(s, SMTP_OUT_AT_AUTH, "4.7.0", "the server's AUTH challenge makes no sense");
    return true;
}

/* ---- one command of its own ---- */

static bool send_word(struct smtp_out *s, struct buf *out, const char *word, struct slice rest)
{
    if (buf_room(out) < SMTP_OUT_COMMAND_MAX)
        return false;
    buf_add_str(out, word);
    buf_add_slice(out, slice_head(rest, SMTP_DOMAIN_MAX));
    buf_add_str(out, "\r\n");
    s->asked = true;
    return true;
}

bool smtp_out_send_next(struct smtp_out *s, struct buf *out)
{
    struct slice nothing = slice_of(NULL, 0);
    if (s->state == SMTP_OUT_S_ENVELOPE)
        return send_envelope(s, out);
    if (s->asked)
        return true;
    switch ((enum smtp_out_state)s->state) {
    case SMTP_OUT_S_EHLO: return send_word(s, out, "EHLO ", s->config->helo_name);
    case SMTP_OUT_S_HELO: return send_word(s, out, "HELO ", s->config->helo_name);
    case SMTP_OUT_S_STARTTLS: return send_word(s, out, "STARTTLS", nothing);
    case SMTP_OUT_S_AUTH: return send_auth(s, out);
    case SMTP_OUT_S_RSET: return send_word(s, out, "RSET", nothing);
    case SMTP_OUT_S_EMPTY_DOT: return send_word(s, out, ".", nothing);
    default: return true;
    }
}
