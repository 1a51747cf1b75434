/*
 * gateway/smtp/smtp_in_command.c - one command line: which it is, whether it is due, what it says.
 *
 * Owns:     nothing; see smtp_in.c.
 * Runs on:  the session's shard.
 * Contract: a command is checked for its place, then for its syntax, then answered or given to the
 *           owner.
 * Failure:  500 5.5.2 unknown, 501 5.5.4 argument, 502 5.5.1 not implemented, 503 5.5.1 out of
 *           order, 530 5.7.0 TLS or AUTH missing; verbs of other protocols: 421 4.7.0 and CLOSE.
 * Bounds:   rcpt_count_max: 452 4.5.3; SMTP_RCPT_SEEN_MAX; message_size_max: 552 5.3.4.
 * Tests:    tests/unit/test_smtp_in.c, tests/fuzz/fuzz_smtp_in.c
 */
#include "gateway/smtp/smtp_in_internal.h"

typedef bool command_fn(struct smtp_in *s, struct slice arg, struct buf *out,
                        struct smtp_in_event *ev); /* a function type is clearer by name */

enum {
    BARE = 1,       /* takes no argument */
    AFTER_HELO = 2, /* 503 5.5.1 before EHLO or HELO */
    AFTER_TLS = 4   /* 530 5.7.0 before TLS where the connector demands it (RFC 3207 section 4) */
};

static const char *const foreign_verbs[] = {"GET",    "POST",    "PUT",     "HEAD",
                                            "DELETE", "OPTIONS", "CONNECT", "TRACE",
                                            "PATCH",  "PRI",     "HTTP/1.1"};

static struct slice trim(struct slice s)
{
    while (s.len && s.ptr[0] == ' ')
        s = slice_from(s, 1);
    while (s.len && s.ptr[s.len - 1] == ' ')
        s.len--;
    return s;
}

/* ---- greeting ---- */

/* Keeps what a client calls itself, as far as it may stand in a header comment and a log line. */
static bool helo_keep(struct smtp_in *s, struct slice name)
{
    size_t n = 0;
    name = slice_head(name, slice_find(name, ' '));
    if (name.len == 0 || !smtp_utf8_valid(name))
        return false;
    for (size_t i = 0; i < name.len && n + 1 < sizeof s->helo; i++) {
        uint8_t c = name.ptr[i], l = ascii_lower(c);
        bool plain = (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c >= 0x80 ||
                     (c && strchr("-._:[]", c));
        s->helo[n++] = (char)(plain ? c : '?');
    }
    if (n < name.len) /* cut: not in the middle of a character */
        while (n && ((uint8_t)name.ptr[n] & 0xc0) == 0x80)
            n--;
    s->helo[n] = '\0';
    return true;
}

/* HELO and EHLO do what RSET does (RFC 5321 section 4.1.4). */
static bool greeted(struct smtp_in *s, bool esmtp, struct smtp_in_event *ev)
{
    s->esmtp = esmtp;
    smtp_in_transaction_drop(s);
    ev->kind = SMTP_IN_RESET;
    return true;
}

static bool helo(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    if (!helo_keep(s, arg)) {
        smtp_in_reply_bad(s, out, 501, "5.5.4", "HELO needs a domain name");
        return false;
    }
    char text[256];
    snprintf(text, sizeof text, "%.*s", (int)s->config->fqdn.len, s->config->fqdn.ptr);
    smtp_in_reply_idle(s, out, 250, "", text);
    return greeted(s, false, ev);
}

static bool ehlo(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    const struct smtp_in_config *c = s->config;
    if (!helo_keep(s, arg)) {
        smtp_in_reply_bad(s, out, 501, "5.5.4", "EHLO needs a domain name");
        return false;
    }
    if (++s->idle_commands > SMTP_NOOP_MAX) {
        smtp_in_reply_close(s, out, 421, "4.7.0", "Too many commands without a message");
        return greeted(s, true, ev);
    }
    buf_add_str(out, "250-");
    buf_add_slice(out, c->fqdn);
    buf_add_str(out, "\r\n250-PIPELINING\r\n250-SIZE ");
    buf_add_number(out, c->message_size_max, 0);
    buf_add_str(out, "\r\n250-8BITMIME\r\n");
    if (c->starttls && !s->tls)
        buf_add_str(out, "250-STARTTLS\r\n");
    if (smtp_in_auth_offered(s)) {
        buf_add_str(out, "250-AUTH ");
        sasl_mechanism_list(smtp_in_auth_offered(s), out);
        buf_add_str(out, "\r\n");
    }
    if (smtp_in_handoff_offered(s))
        buf_add_str(out, "250-XHANDOFF 1\r\n");
    buf_add_str(out, "250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250 SMTPUTF8\r\n");
    return greeted(s, true, ev);
}

static bool starttls(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    (void)arg;
    if (s->tls) {
        smtp_in_reply_bad(s, out, 503, "5.5.1", "TLS is already active");
    } else if (!s->config->starttls) {
        if (s->config->tls_required)
            smtp_in_reply_bad(s, out, 454, "4.7.0", "TLS is not available now");
        else
            smtp_in_reply_bad(s, out, 502, "5.5.1", "STARTTLS is not offered");
    } else if (!s->esmtp || s->in_transaction) {
        smtp_in_reply_bad(s, out, 503, "5.5.1",
                          s->esmtp ? "Not inside a mail transaction" : "Send EHLO first");
    } else if (s->tls_short) {
        smtp_in_reply_idle(s, out, 454, "4.7.0", "TLS is not available now, try again later");
    } else {
        smtp_in_reply(out, 220, "2.0.0", "Ready to start TLS");
        smtp_in_connection_set(s, CONNECTION_STARTTLS);
        ev->kind = SMTP_IN_STARTTLS;
        return true;
    }
    return false;
}

/* ---- transaction ---- */

/* Takes "FROM:" or "TO:" off *arg. */
static bool take_prefix(struct slice *arg, struct slice prefix)
{
    if (!slice_starts_nocase(*arg, prefix))
        return false;
    *arg = trim(slice_from(*arg, prefix.len));
    return true;
}

static bool mail(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    struct why why;
    struct slice rest;
    struct buf decoded = buf_over(ev->decoded, sizeof ev->decoded);
    uint64_t size_max = s->config->message_size_max;
    if (s->in_transaction) {
        smtp_in_reply_bad(s, out, 503, "5.5.1", "A mail transaction is already open");
        return false;
    }
    if (s->config->auth_required && !s->authenticated) {
        smtp_in_reply_bad(s, out, 530, "5.7.0", "Authentication required");
        return false;
    }
    if (!take_prefix(&arg, SLICE_LIT("FROM:"))) {
        smtp_in_reply_bad(s, out, 501, "5.5.4", "Syntax: MAIL FROM:<address>");
        return false;
    }
    /* The address may need SMTPUTF8, which is said behind it. */
    if (!smtp_path_parse(arg, false, true, &ev->mail.from, &rest, &why) ||
        !smtp_mail_params_parse(rest, &ev->mail, &decoded, &why)) {
        smtp_in_reply_bad(s, out, why.smtp_code, why.enhanced, why.text);
        return false;
    }
    if (!ev->mail.smtputf8 && slice_has_8bit(ev->mail.from.mailbox)) {
        smtp_in_reply_bad(s, out, 553, "5.6.7", "Address is not ASCII: SMTPUTF8 is required");
        return false;
    }
    if (size_max && ev->mail.size > size_max) {
        why_set(&why, 552, "5.3.4", "Message is larger than %llu bytes",
                (unsigned long long)size_max);
        smtp_in_reply_idle(s, out, why.smtp_code, why.enhanced, why.text);
        return false;
    }
    s->smtputf8 = ev->mail.smtputf8;
    smtp_in_slot_set(s, SLOT_MAIL);
    ev->kind = SMTP_IN_MAIL;
    return true;
}

static bool rcpt(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    struct why why;
    struct slice rest;
    uint32_t max = s->config->rcpt_count_max ? s->config->rcpt_count_max : RCPT_COUNT_MAX;
    if (!s->in_transaction) {
        smtp_in_reply_bad(s, out, 503, "5.5.1", "Send MAIL first");
        return false;
    }
    if (++s->rcpt_seen > SMTP_RCPT_SEEN_MAX) {
        smtp_in_reply_close(s, out, 421, "4.7.0", "Too many recipients");
        return false;
    }
    if (!take_prefix(&arg, SLICE_LIT("TO:"))) {
        smtp_in_reply_bad(s, out, 501, "5.5.4", "Syntax: RCPT TO:<address>");
        return false;
    }
    if (!smtp_path_parse(arg, true, s->smtputf8, &ev->rcpt.to, &rest, &why) ||
        !smtp_rcpt_params_parse(rest, s->smtputf8, &ev->rcpt, &why)) {
        smtp_in_reply_rcpt(s, out, &why);
        return false;
    }
    if (s->rcpt_count >= max) {
        smtp_in_reply(out, 452, "4.5.3", "Too many recipients");
        return false;
    }
    smtp_in_slot_set(s, SLOT_RCPT);
    ev->kind = SMTP_IN_RCPT;
    return true;
}

static bool data(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    (void)arg;
    if (!s->in_transaction) {
        smtp_in_reply_bad(s, out, 503, "5.5.1", "Send MAIL first");
        return false;
    }
    if (s->rcpt_count == 0) {
        smtp_in_reply_bad(s, out, 554, "5.5.1", "No valid recipients");
        return false;
    }
    smtp_in_slot_set(s, SLOT_DATA);
    ev->kind = SMTP_IN_DATA;
    return true;
}

static bool rset(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    (void)arg;
    smtp_in_transaction_drop(s);
    smtp_in_reply_idle(s, out, 250, "2.0.0", "Ok");
    ev->kind = SMTP_IN_RESET;
    return true;
}

/* Not offered; but its octets are no commands, whoever sends them (RFC 3030 section 2). */
static bool bdat(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    uint64_t octets = 0;
    size_t i = 0;
    (void)ev;
    for (; i < arg.len && i < 12 && arg.ptr[i] >= '0' && arg.ptr[i] <= '9'; i++)
        octets = octets * 10 + (arg.ptr[i] - '0');
    if (i == 0 || (i < arg.len && arg.ptr[i] != ' ') || octets > s->config->message_size_max) {
        smtp_in_reply_close(s, out, 502, "5.5.1", "BDAT is not offered");
        return false;
    }
    s->chunk_left = octets;
    smtp_in_reply_bad(s, out, 502, "5.5.1", "BDAT is not offered");
    return false;
}

/* ---- the rest ---- */

static bool noop(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    (void)arg;
    (void)ev;
    smtp_in_reply_idle(s, out, 250, "2.0.0", "Ok");
    return false;
}

static bool vrfy(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    (void)arg;
    (void)ev;
    smtp_in_reply_idle(s, out, 252, "2.5.0",
                       "Cannot verify, but will take mail and try to deliver");
    return false;
}

static bool help(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    (void)arg;
    (void)ev;
    smtp_in_reply_idle(s, out, 214, "2.0.0", "See RFC 5321");
    return false;
}

static bool quit(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    (void)arg;
    (void)ev;
    s->quit = true;
    smtp_in_reply_close(s, out, 221, "2.0.0", "Bye");
    return false;
}

/* Only what stands before everything else, from a proxy that is known, is believed. */
static bool proxy(struct smtp_in *s, struct slice arg, struct buf *out, struct smtp_in_event *ev)
{
    (void)arg;
    (void)ev;
    smtp_in_reply_close(s, out, 550, "5.7.1", "PROXY is not accepted from your address");
    return false;
}

static bool not_implemented(struct smtp_in *s, struct slice arg, struct buf *out,
                            struct smtp_in_event *ev)
{
    (void)arg;
    (void)ev;
    smtp_in_reply_bad(s, out, 502, "5.5.1", "Command not implemented");
    return false;
}

static const struct {
    const char *verb;
    uint8_t rules;
    command_fn *perform;
} commands[] = {
    {"MAIL", AFTER_HELO | AFTER_TLS, mail},
    {"RCPT", AFTER_HELO | AFTER_TLS, rcpt},
    {"DATA", AFTER_HELO | AFTER_TLS | BARE, data},
    {"EHLO", 0, ehlo},
    {"HELO", 0, helo},
    {"RSET", BARE, rset},
    {"NOOP", 0, noop},
    {"QUIT", BARE, quit},
    {"STARTTLS", BARE, starttls},
    {"AUTH", 0, smtp_in_auth_command},
    {"VRFY", AFTER_TLS, vrfy},
    {"HELP", 0, help},
    {"BDAT", 0, bdat},
    {"EXPN", AFTER_TLS, not_implemented},
    {"ETRN", 0, not_implemented},
    {"ATRN", 0, not_implemented},
    {"TURN", 0, not_implemented},
    {"SEND", 0, not_implemented},
    {"SOML", 0, not_implemented},
    {"SAML", 0, not_implemented},
    {"PROXY", 0, proxy},
    {"XHANDOFF", AFTER_HELO | AFTER_TLS, smtp_in_handoff},
    {"XHANDOFF-COMMIT", AFTER_HELO | AFTER_TLS, smtp_in_handoff_commit},
    {"XHANDOFF-ABORT", AFTER_HELO | AFTER_TLS, smtp_in_handoff_abort},
    {"XHANDOFF-NEXT", AFTER_HELO | AFTER_TLS, smtp_in_handoff_next},
    {"XCLIENT", 0, not_implemented},
    {"XFORWARD", 0, not_implemented},
};

/* False: the command is not due, and that has been said. */
static bool command_due(struct smtp_in *s, uint8_t rules, struct slice arg, struct buf *out)
{
    if ((rules & AFTER_HELO) && s->helo[0] == '\0')
        smtp_in_reply_bad(s, out, 503, "5.5.1", "Send EHLO first");
    else if ((rules & AFTER_TLS) && s->config->tls_required && !s->tls)
        smtp_in_reply_bad(s, out, 530, "5.7.0", "Must issue a STARTTLS command first");
    else if ((rules & BARE) && arg.len)
        smtp_in_reply_bad(s, out, 501, "5.5.4", "Command takes no argument");
    else
        return true;
    return false;
}

bool smtp_in_command(struct smtp_in *s, struct slice line, struct buf *out,
                     struct smtp_in_event *ev)
{
    size_t end = slice_find(line, ' ');
    struct slice verb = slice_head(line, end), arg = trim(slice_from(line, end));
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (!slice_eq_nocase(verb, slice_str(commands[i].verb)))
            continue;
        return command_due(s, commands[i].rules, arg, out) && commands[i].perform(s, arg, out, ev);
    }
    /* A browser that was talked into this port sends its victim's data next (ALPACA). */
    for (size_t i = 0; i < sizeof foreign_verbs / sizeof *foreign_verbs; i++) {
        if (slice_eq_nocase(verb, slice_str(foreign_verbs[i]))) {
            smtp_in_reply_close(s, out, 421, "4.7.0", "This is an SMTP service");
            return false;
        }
    }
    smtp_in_reply_bad(s, out, 500, "5.5.2", "Command not recognized");
    return false;
}
