/*
 * gateway/ctl/probe_talk.c - the dialogue of a probe, a step at a time, each with what the other
 * side said.
 *
 * Owns:     the connection while it talks.
 * Runs on:  hikyakuctl's only thread.
 * Contract: one command, one reply, nothing pipelined: what went wrong is where it is shown. A
 *           password crosses the network in clear only where the connector's tls.level is none. No
 *           mail is left half: what is not meant to be sent ends with RSET.
 * Failure:  the step is written down as failed and the dialogue ends.
 * Bounds:   limit_ns a step.
 * Tests:    tests/system/test_probe.py
 */
#include "gateway/ctl/probe_internal.h"

#include <stdlib.h>
#include <time.h>

#define LINE_MAX_OUT 4096u

/* ---- writing down ---- */

void talk_begin(struct probe_talk *t)
{
    t->began_ns = probe_now_ns();
    line_step(&t->line);
}

void talk_add(struct probe_talk *t, const char *step, enum probe_status status,
              const struct smtp_reply *reply, const char *text, const char *advice)
{
    static const char *const names[] = {"ok", "note", "failed", "skipped"};
    double ms = status == PROBE_SKIPPED ? 0 : (double)(probe_now_ns() - t->began_ns) / 1e6;
    json_t *j = json_pack("{s:s, s:s, s:f}", "step", step, "status", names[status], "ms", ms);
    if (reply && reply->code) {
        json_object_set_new(j, "code", json_integer(reply->code));
        json_object_set_new(j, "enhanced", json_pack("s", reply->enhanced));
        json_object_set_new(j, "remote", json_pack("s", reply->text));
    }
    if (text && *text)
        json_object_set_new(j, "text", json_pack("s", text));
    if (advice)
        json_object_set_new(j, "advice", json_pack("s", advice));
    json_array_append_new(t->steps, j);
    t->failed |= status == PROBE_FAILED;
    talk_begin(t);
}

static bool talk_failed(struct probe_talk *t, const char *step, const struct why *why)
{
    talk_add(t, step, PROBE_FAILED, NULL, why->text, NULL);
    return false;
}

/* ---- commands ---- */

/* Waits for a reply and writes the step down; it is well with one of the class wanted (2, 3). */
static bool talk_hear(struct probe_talk *t, const char *step, unsigned wanted, const char *advice)
{
    struct smtp_reply reply;
    struct why why;
    if (!line_reply(&t->line, &reply, NULL, &why))
        return talk_failed(t, step, &why);
    bool ok = reply.code / 100 == wanted;
    snprintf(t->last_reply, sizeof t->last_reply, "%s", reply.text);
    talk_add(t, step, ok ? PROBE_OK : PROBE_FAILED, &reply, NULL, ok ? NULL : advice);
    return ok;
}

__attribute__((format(printf, 3, 4))) static bool talk_say(struct probe_talk *t, const char *step,
                                                           const char *fmt, ...)
{
    char line[LINE_MAX_OUT];
    struct why why;
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(line, sizeof line - 2, fmt, ap);
    va_end(ap);
    if (len < 0 || len >= (int)sizeof line - 2) {
        why_set(&why, 0, "", "too long to be sent");
        return talk_failed(t, step, &why);
    }
    line[len] = '\r';
    line[len + 1] = '\n';
    bool ok = line_send(&t->line, slice_of(line, (size_t)len + 2), &why);
    explicit_bzero(line, sizeof line);
    return ok || talk_failed(t, step, &why);
}

static bool talk_helo(struct probe_talk *t)
{
    return talk_say(t, "helo", "HELO %s", t->helo_name) && talk_hear(t, "helo", 2, NULL);
}

/* RFC 5321 section 3.2: who does not know EHLO may know HELO, unless an extension is needed. */
static bool talk_ehlo(struct probe_talk *t, const char *step)
{
    struct smtp_reply reply;
    struct why why;
    bool need = t->tls == PROBE_TLS_MUST || t->mechanisms;
    memset(&t->offers, 0, sizeof t->offers);
    if (t->helo_only)
        return talk_helo(t);
    if (!talk_say(t, step, "EHLO %s", t->helo_name))
        return false;
    if (!line_reply(&t->line, &reply, &t->offers, &why))
        return talk_failed(t, step, &why);
    bool ok = reply.code / 100 == 2, again = reply.code / 100 == 5 && !need;
    talk_add(t, step, ok ? PROBE_OK : again ? PROBE_NOTE : PROBE_FAILED, &reply, NULL, NULL);
    return ok || (again && talk_helo(t));
}

/* ---- connecting ---- */

static const struct io_addr *source_for(const struct io_addr *to, const struct io_addr *sources,
                                        uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (sources[i].sa.sa_family == to->sa.sa_family)
            return &sources[i];
    return NULL;
}

static bool talk_connect(struct probe_talk *t, const struct io_addr *addrs, uint32_t count,
                         const struct io_addr *sources, uint32_t source_count)
{
    char at[IO_ADDR_TEXT_MAX], text[WHY_TEXT_MAX + 80];
    struct why why;
    for (uint32_t i = 0; i < count; i++) {
        talk_begin(t);
        bool ok =
            line_connect(&t->line, &addrs[i], source_for(&addrs[i], sources, source_count), &why);
        snprintf(text, sizeof text, "%s%s%s", io_addr_text(&addrs[i], true, at), ok ? "" : ": ",
                 ok ? "" : why.text);
        talk_add(t, "connect",
                 ok              ? PROBE_OK
                 : i + 1 < count ? PROBE_NOTE
                                 : PROBE_FAILED,
                 NULL, text, NULL);
        if (ok)
            return true;
        line_close(&t->line);
    }
    return false;
}

/* ---- TLS ---- */

/* What was shown, and what a client that verifies would say of it. */
static bool talk_certificate(struct probe_talk *t)
{
    struct tls_peer_certificate c;
    char text[sizeof c.info.names + sizeof c.issuer + sizeof c.refusal + 96], day[16] = "?";
    if (!tls_peer_certificate(t->line.tls, &c))
        return true;
    time_t end = (time_t)c.info.not_after_s;
    struct tm tm;
    if (gmtime_r(&end, &tm))
        strftime(day, sizeof day, "%Y-%m-%d", &tm);
    snprintf(text, sizeof text, "%s, by %s, until %s (%lld days)%s%s", c.info.names, c.issuer, day,
             (long long)((end - time(NULL)) / 86400), c.refusal[0] ? "; " : "; trusted, right name",
             c.refusal);
    talk_add(t, "certificate",
             !c.refusal[0] ? PROBE_OK
             : t->verify   ? PROBE_FAILED
                           : PROBE_NOTE,
             NULL, text,
             !c.refusal[0] ? NULL
             : t->verify   ? "tls.level verify refuses it: mind tls.name and tls.ca_file"
                           : "who verifies certificates refuses it");
    return !(c.refusal[0] && t->verify);
}

static bool talk_handshake(struct probe_talk *t)
{
    struct tls_facts f;
    char text[TLS_TEXT_MAX];
    struct why why;
    if (!line_tls(&t->line, t->tls_ctx, t->tls_name, &why)) {
        talk_add(t, "tls", PROBE_FAILED, NULL, why.text,
                 t->tls == PROBE_TLS_MAY && !t->mechanisms
                     ? "tls.level opportunistic: the gateway goes on in clear"
                     : NULL);
        return false;
    }
    tls_facts(t->line.tls, &f);
    talk_add(t, "tls", PROBE_OK, NULL, tls_facts_text(&f, text), NULL);
    return talk_certificate(t);
}

static bool talk_starttls(struct probe_talk *t)
{
    struct why why;
    /* As the gateway does: a password waits for TLS, whoever took STARTTLS out of the answer. */
    bool must = t->tls == PROBE_TLS_MUST || t->mechanisms;
    if (t->tls == PROBE_TLS_NONE || t->tls == PROBE_TLS_IMPLICIT)
        return true;
    if (!t->offers.starttls) {
        talk_add(t, "starttls", must ? PROBE_FAILED : PROBE_NOTE, NULL, "it is not offered",
                 must ? "TLS is demanded here: ask who runs the other side" : NULL);
        return !must;
    }
    if (!talk_say(t, "starttls", "STARTTLS") || !talk_hear(t, "starttls", 2, NULL))
        return false;
    if (line_has_more(&t->line)) {
        why_set(&why, 0, "", "plaintext came behind the answer to STARTTLS");
        return talk_failed(t, "starttls", &why);
    }
    return talk_handshake(t) && talk_ehlo(t, "ehlo-tls");
}

/* ---- AUTH ---- */

static bool auth_write(struct probe_talk *t, struct sasl_client *sasl, struct slice challenge,
                       const char *before)
{
    uint8_t plain[AUTH_USER_MAX + AUTH_PASSWORD_MAX + 8], coded[sizeof plain * 2];
    struct buf p = buf_over(plain, sizeof plain), c = buf_over(coded, sizeof coded);
    struct why why;
    why_set(&why, 0, "", "the challenge makes no sense, or the password is too long");
    bool ok = sasl_client_step(sasl, challenge, &p) && base64_encode(buf_slice(&p), &c);
    ok = ok ? talk_say(t, "auth", "%s%.*s", before, (int)c.len, (const char *)coded)
            : talk_failed(t, "auth", &why);
    explicit_bzero(plain, sizeof plain);
    explicit_bzero(coded, sizeof coded);
    return ok;
}

/* LOGIN asks twice. */
static bool auth_answer(struct probe_talk *t, struct sasl_client *sasl)
{
    struct smtp_reply reply;
    struct why why;
    for (int i = 0; i < 3; i++) {
        if (!line_reply(&t->line, &reply, NULL, &why))
            return talk_failed(t, "auth", &why);
        if (reply.code != 334)
            break;
        uint8_t bytes[256];
        struct buf challenge = buf_over(bytes, sizeof bytes);
        if (!base64_decode(slice_str(reply.text), &challenge))
            challenge.len = 0;
        if (!auth_write(t, sasl, buf_slice(&challenge), ""))
            return false;
    }
    bool ok = reply.code / 100 == 2;
    talk_add(t, "auth", ok ? PROBE_OK : PROBE_FAILED, &reply, NULL,
             ok ? NULL : "user name and password are not taken");
    return ok;
}

static bool talk_auth(struct probe_talk *t)
{
    uint32_t fit = t->mechanisms & t->offers.auth_offered_mechanisms;
    struct sasl_client sasl;
    struct why why;
    if (!t->mechanisms)
        return true;
    if (!fit) {
        why_set(&why, 0, "",
                t->offers.auth_offered ? "none of our mechanisms is offered"
                                       : "AUTH is not offered");
        return talk_failed(t, "auth", &why);
    }
    enum sasl_mechanism m = fit & SASL_PLAIN ? SASL_PLAIN : SASL_LOGIN;
    sasl_client_start(&sasl, m, slice_str(t->user), slice_str(t->password));
    if (m == SASL_PLAIN ? !auth_write(t, &sasl, slice_of(NULL, 0), "AUTH PLAIN ")
                        : !talk_say(t, "auth", "AUTH LOGIN"))
        return false;
    return auth_answer(t, &sasl);
}

/* ---- mail ---- */

static bool talk_message(struct probe_talk *t)
{
    static const char body[] =
        "This message was sent by hikyakuctl probe, to see whether mail flows.\r\n"
        "Nothing has to be done.\r\n.";
    char date[64];
    time_t now = time(NULL);
    struct tm tm;
    struct timespec ts;
    gmtime_r(&now, &tm);
    clock_gettime(CLOCK_REALTIME, &ts);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S +0000", &tm);
    if (!talk_say(t, "data", "DATA") || !talk_hear(t, "data", 3, NULL) ||
        !talk_say(t, "message",
                  "From: <%s%s>\r\nTo: <%s>\r\nSubject: hikyakuctl probe of %s\r\nDate: %s\r\n"
                  "Message-ID: <probe.%lld.%09ld@%s>\r\nAuto-Submitted: auto-generated\r\n\r\n%s",
                  t->from[0] ? t->from : "postmaster@", t->from[0] ? "" : t->hostname, t->to,
                  t->connector, date, (long long)ts.tv_sec, ts.tv_nsec, t->hostname, body))
        return false;
    t->delivered = talk_hear(t, "message", 2, NULL);
    return t->delivered;
}

static bool talk_mail(struct probe_talk *t)
{
    if (!t->to)
        return true;
    if (!talk_say(t, "mail", "MAIL FROM:<%s>", t->from) ||
        !talk_hear(t, "mail", 2, "give the account with --user, its address with --from") ||
        !talk_say(t, "rcpt", "RCPT TO:<%s>", t->to) ||
        !talk_hear(t, "rcpt", 2, "give a recipient that is taken here with --to"))
        return false;
    if (t->message)
        return talk_message(t);
    return talk_say(t, "rset", "RSET") && talk_hear(t, "rset", 2, NULL);
}

static bool talk_proxy_header(struct probe_talk *t)
{
    struct why why;
    return !t->proxy_header || line_send(&t->line, SLICE_LIT("PROXY UNKNOWN\r\n"), &why) ||
           talk_failed(t, "proxy", &why);
}

void talk_run(struct probe_talk *t, const struct io_addr *addrs, uint32_t count,
              const struct io_addr *sources, uint32_t source_count)
{
    struct smtp_reply reply;
    struct why why;
    line_init(&t->line, t->limit_ns);
    if (talk_connect(t, addrs, count, sources, source_count) && talk_proxy_header(t) &&
        (t->tls != PROBE_TLS_IMPLICIT || talk_handshake(t)) && talk_hear(t, "banner", 2, NULL) &&
        talk_ehlo(t, "ehlo") && talk_starttls(t) && talk_auth(t))
        (void)talk_mail(t);
    /* What it answers to QUIT changes nothing. */
    bool polite = t->line.fd >= 0 && !t->failed &&
                  line_send(&t->line, SLICE_LIT("QUIT\r\n"), &why) &&
                  line_reply(&t->line, &reply, NULL, &why);
    (void)polite;
    line_close(&t->line);
}
