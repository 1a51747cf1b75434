/*
 * gateway/smtp/smtp_out_reply.c - what each reply of the server means in each state.
 *
 * Owns:     the receiving cursor (s->answered) and the outcome of a transaction (s->result).
 * Runs on:  any thread; pure.
 * Contract: one call for each complete reply. 421 ends the connection wherever it comes (RFC 5321
 *           section 3.8); a reply that nobody waits for is an error, but a refusal inside the body
 *           is told as what it is.
 * Failure:  smtp_out_fail().
 * Bounds:   SMTP_OUT_AUTH_STEPS_MAX challenges.
 * Tests:    tests/unit/test_smtp_out.c, tests/unit/test_smtp_out_faults.c
 */
#include "gateway/smtp/smtp_out_internal.h"

/* ---- extensions ---- */

void smtp_out_forget(struct smtp_out *s)
{
    s->pipelining = s->size_offered = s->eightbit = s->utf8 = s->dsn = false;
    s->starttls = s->auth_offered = false;
    s->size_limit = 0;
    s->auth_offered_mechanisms = 0;
}

/* The next word of `line`, which is advanced over it. */
static struct slice next_word(struct slice *line)
{
    while (line->len > 0 && line->ptr[0] == ' ')
        *line = slice_from(*line, 1);
    struct slice word = slice_head(*line, slice_find(*line, ' '));
    *line = slice_from(*line, word.len);
    return word;
}

/* RFC 1870 section 4: no number, or 0, is no limit. */
static uint64_t size_limit(struct slice word)
{
    uint64_t n = 0;
    for (size_t i = 0; i < word.len; i++) {
        uint8_t c = word.ptr[i];
        if (c < '0' || c > '9')
            return 0;
        if (n > (UINT64_MAX - 9) / 10)
            return 0;
        n = n * 10 + (c - '0');
    }
    return n;
}

static void learn_auth(struct smtp_out *s, struct slice mechanisms)
{
    s->auth_offered = true;
    for (;;) {
        struct slice word = next_word(&mechanisms);
        if (word.len == 0)
            return;
        s->auth_offered_mechanisms |= sasl_mechanism_find(word);
    }
}

void smtp_out_learn(struct smtp_out *s, struct slice line)
{
    static const struct {
        const char *word;
        size_t offset;
    } flags[] = {
        {"PIPELINING", offsetof(struct smtp_out, pipelining)},
        {"8BITMIME", offsetof(struct smtp_out, eightbit)},
        {"SMTPUTF8", offsetof(struct smtp_out, utf8)},
        {"DSN", offsetof(struct smtp_out, dsn)},
        {"STARTTLS", offsetof(struct smtp_out, starttls)},
    };
    if (slice_starts_nocase(line, SLICE_LIT("AUTH="))) { /* before RFC 2554; still seen */
        learn_auth(s, slice_from(line, 5));
        return;
    }
    struct slice word = next_word(&line);
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (slice_eq_nocase(word, slice_str(flags[i].word)))
            *(bool *)((char *)s + flags[i].offset) = true;
    if (slice_eq_nocase(word, SLICE_LIT("AUTH")))
        learn_auth(s, line);
    if (slice_eq_nocase(word, SLICE_LIT("SIZE"))) {
        s->size_offered = true;
        s->size_limit = size_limit(next_word(&line));
    }
}

/* ---- before the first transaction ---- */

static void unexpected(struct smtp_out *s, const char *what)
{
    char text[64 + SMTP_OUT_REPLY_KEPT_MAX];
    snprintf(text, sizeof text, "%s: %u %s", what, s->last.code, s->last.text);
    smtp_out_fail_local(s, s->phase, "4.5.0", text);
}

static bool is_refusal(const struct smtp_out *s)
{
    return s->last.code >= 400;
}

/* Refused, or answered with something that makes no sense here. */
static void refused(struct smtp_out *s)
{
    if (is_refusal(s))
        smtp_out_fail(s, s->phase);
    else
        unexpected(s, "the server's reply does not fit");
}

/*
 * May nothing go on in clear? A password never does, unless the operator said `none`: whoever takes
 * STARTTLS out of the answer to EHLO would read it.
 */
static bool tls_is_due(const struct smtp_out *s)
{
    const struct smtp_out_config *c = s->config;
    return !s->tls && (c->tls == SMTP_OUT_TLS_REQUIRED ||
                       (c->tls == SMTP_OUT_TLS_OPPORTUNISTIC && c->auth_mechanism != 0));
}

/* Greeted by name: what comes next depends on what is wanted and what is offered. */
static enum smtp_out_event_kind greeted(struct smtp_out *s)
{
    const struct smtp_out_config *c = s->config;
    if (c->tls != SMTP_OUT_TLS_NONE && !s->tls) {
        if (s->starttls) {
            smtp_out_set_state(s, SMTP_OUT_S_STARTTLS);
            return SMTP_OUT_NEED_INPUT;
        }
        if (tls_is_due(s)) {
            smtp_out_fail_local(s, SMTP_OUT_AT_STARTTLS, "4.7.4",
                                c->tls == SMTP_OUT_TLS_REQUIRED
                                    ? "TLS is required, but the server does not offer STARTTLS"
                                    : "our password is not sent in clear, and the server does "
                                      "not offer STARTTLS");
            return SMTP_OUT_NEED_INPUT;
        }
    }
    if (c->auth_mechanism == 0) {
        smtp_out_set_state(s, SMTP_OUT_S_READY);
        return SMTP_OUT_READY;
    }
    uint32_t both = c->auth_mechanism & s->auth_offered_mechanisms;
    if (both == 0) {
        smtp_out_fail_local(s, SMTP_OUT_AT_AUTH, "4.7.4",
                            s->auth_offered
                                ? "the server offers none of the configured AUTH mechanisms"
                                : "authentication is configured, but the server does not offer "
                                  "AUTH");
        return SMTP_OUT_NEED_INPUT;
    }
    sasl_client_start(&s->sasl, both & SASL_PLAIN ? SASL_PLAIN : SASL_LOGIN, c->username,
                      c->password);
    s->auth_steps = 0;
    smtp_out_set_state(s, SMTP_OUT_S_AUTH);
    return SMTP_OUT_NEED_INPUT;
}

static enum smtp_out_event_kind take_ehlo(struct smtp_out *s)
{
    const struct smtp_out_config *c = s->config;
    bool need_extension = tls_is_due(s) || c->auth_mechanism != 0;
    if (s->last.code / 100 == 2)
        return greeted(s);
    if (s->last.code / 100 == 5 && !need_extension)
        smtp_out_set_state(s, SMTP_OUT_S_HELO); /* RFC 5321 section 3.2 */
    else
        refused(s);
    return SMTP_OUT_NEED_INPUT;
}

static enum smtp_out_event_kind take_helo(struct smtp_out *s)
{
    if (s->last.code / 100 != 2) {
        refused(s);
        return SMTP_OUT_NEED_INPUT;
    }
    smtp_out_forget(s);
    const struct smtp_out_config *c = s->config;
    if (tls_is_due(s) || c->auth_mechanism != 0)
        smtp_out_fail_local(s, c->auth_mechanism ? SMTP_OUT_AT_AUTH : SMTP_OUT_AT_STARTTLS, "4.7.4",
                            "HELO is configured, which allows neither STARTTLS nor AUTH");
    else {
        smtp_out_set_state(s, SMTP_OUT_S_READY);
        return SMTP_OUT_READY;
    }
    return SMTP_OUT_NEED_INPUT;
}

static enum smtp_out_event_kind take_starttls(struct smtp_out *s, struct slice in)
{
    if (s->last.code != 220) {
        refused(s);
    } else if (in.len > 0) { /* FAULTS 80 */
        smtp_out_fail_local(s, SMTP_OUT_AT_STARTTLS, "4.7.5",
                            "the server sent data in clear behind its answer to STARTTLS");
    } else {
        smtp_out_set_state(s, SMTP_OUT_S_TLS);
        return SMTP_OUT_STARTTLS;
    }
    return SMTP_OUT_NEED_INPUT;
}

static enum smtp_out_event_kind take_auth(struct smtp_out *s)
{
    if (s->last.code / 100 == 2) {
        smtp_out_set_state(s, SMTP_OUT_S_READY);
        return SMTP_OUT_READY;
    }
    if (s->last.code != 334)
        refused(s);
    else if (++s->auth_steps > SMTP_OUT_AUTH_STEPS_MAX)
        smtp_out_fail_local(s, SMTP_OUT_AT_AUTH, "4.7.0",
                            "the server's AUTH does not come to an end");
    else
        s->asked = false; /* the response goes out; the challenge is in the parser's line */
    return SMTP_OUT_NEED_INPUT;
}

/* ---- transactions ---- */

static void decide(struct smtp_out *s)
{
    s->decided = true;
    s->result = s->last;
    s->result_phase = s->phase;
}

static void end_transaction(struct smtp_out *s)
{
    s->tx_done = true;
    smtp_out_set_state(s, SMTP_OUT_S_READY);
}

static enum smtp_out_event_kind take_data(struct smtp_out *s)
{
    if (s->last.code == 354) {
        smtp_out_set_state(s, s->decided ? SMTP_OUT_S_EMPTY_DOT : SMTP_OUT_S_BODY);
        return s->decided ? SMTP_OUT_NEED_INPUT : SMTP_OUT_SEND_BODY;
    }
    if (!is_refusal(s)) {
        unexpected(s, "the server's reply to DATA does not fit");
        return SMTP_OUT_NEED_INPUT;
    }
    if (!s->decided)
        decide(s);
    end_transaction(s);
    return SMTP_OUT_NEED_INPUT;
}

/* The reply to a command that stands for a whole envelope. */
static enum smtp_out_event_kind take_command(struct smtp_out *s)
{
    bool body = s->tx->command_body && s->last.code == 354;
    if (body) {
        smtp_out_set_state(s, SMTP_OUT_S_BODY);
        return SMTP_OUT_SEND_BODY;
    }
    if (!is_refusal(s) && (s->tx->command_body || s->last.code / 100 != 2)) {
        unexpected(s, "the server's reply does not fit");
        return SMTP_OUT_NEED_INPUT;
    }
    decide(s);
    end_transaction(s);
    return SMTP_OUT_NEED_INPUT;
}

static enum smtp_out_event_kind take_envelope(struct smtp_out *s, struct smtp_out_event *ev)
{
    uint32_t command = s->answered, rcpt_count = s->tx->rcpt_count;
    bool told = false;

    if (s->tx->command.len)
        return take_command(s);
    if (command > rcpt_count)
        return take_data(s);
    if (s->last.code / 100 == 3) {
        unexpected(s, "the server's reply does not fit");
        return SMTP_OUT_NEED_INPUT;
    }
    if (command == 0) {
        if (is_refusal(s))
            decide(s);
        else
            s->rset_due = true;
    } else if (s->result_phase != SMTP_OUT_AT_MAIL || !s->decided) {
        told = true; /* after a refused MAIL the answers to RCPT say nothing about recipients */
        ev->rcpt = command - 1;
        ev->phase = SMTP_OUT_AT_RCPT;
        ev->reply = s->last;
        s->rcpt_accepted += !is_refusal(s);
        if (command == rcpt_count && s->rcpt_accepted == 0)
            decide(s);
    }
    s->answered++;
    smtp_out_set_phase(s);
    if (s->decided && s->answered == s->sent)
        end_transaction(s);
    return told ? SMTP_OUT_RCPT : SMTP_OUT_NEED_INPUT;
}

static void take_final(struct smtp_out *s)
{
    if (s->last.code / 100 == 3) {
        unexpected(s, "the server's reply to the message does not fit");
        return;
    }
    s->rset_due = false;
    if (!s->decided)
        decide(s);
    end_transaction(s);
}

/* A reply that nobody waits for. */
static void take_unasked(struct smtp_out *s)
{
    if (s->state == SMTP_OUT_S_BODY && is_refusal(s))
        smtp_out_fail(s, SMTP_OUT_AT_BODY);
    else
        unexpected(s, "the server replied unasked");
}

enum smtp_out_event_kind smtp_out_take_reply(struct smtp_out *s, struct slice in,
                                             struct smtp_out_event *ev)
{
    if (s->state == SMTP_OUT_S_QUIT) {
        smtp_out_set_state(s, SMTP_OUT_S_CLOSED);
        return SMTP_OUT_NEED_INPUT;
    }
    if (s->last.code == 421) {
        smtp_out_fail(s, s->phase);
        return SMTP_OUT_NEED_INPUT;
    }
    if (!smtp_out_is_waiting(s)) {
        take_unasked(s);
        return SMTP_OUT_NEED_INPUT;
    }
    switch ((enum smtp_out_state)s->state) {
    case SMTP_OUT_S_BANNER:
        if (s->last.code == 220)
            smtp_out_set_state(s, s->config->helo_only ? SMTP_OUT_S_HELO : SMTP_OUT_S_EHLO);
        else
            refused(s);
        break;
    case SMTP_OUT_S_EHLO: return take_ehlo(s);
    case SMTP_OUT_S_HELO: return take_helo(s);
    case SMTP_OUT_S_STARTTLS: return take_starttls(s, in);
    case SMTP_OUT_S_AUTH: return take_auth(s);
    case SMTP_OUT_S_RSET:
        if (s->last.code / 100 == 2)
            smtp_out_set_state(s, SMTP_OUT_S_ENVELOPE);
        else
            unexpected(s, "the server refused RSET");
        break;
    case SMTP_OUT_S_ENVELOPE: return take_envelope(s, ev);
    case SMTP_OUT_S_EMPTY_DOT:
    case SMTP_OUT_S_EOD: take_final(s); break;
    default: break;
    }
    return SMTP_OUT_NEED_INPUT;
}
