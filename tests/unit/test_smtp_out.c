/*
 * tests/unit/test_smtp_out.c - dialogs of the SMTP client, whole, byte by byte and through a small
 * buffer.
 */
#include <criterion/criterion.h>

#include "gateway/smtp/smtp_out_internal.h"
#include "tests/unit/smtp_out_dialog.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define LIT(s)                               \
    {                                        \
        (const uint8_t *)"" s, sizeof(s) - 1 \
    }
#define RCPT(s)           \
    {                     \
        .mailbox = LIT(s) \
    }
#define TX(list) \
    .sender = LIT("a@example.com"), .size = 100, .rcpts = list, .rcpt_count = COUNT(list)

static const struct smtp_out_rcpt ONE[] = {RCPT("x@example.org")};
static const struct smtp_out_rcpt THREE[] = {RCPT("x@example.org"), RCPT("y@example.org"),
                                             RCPT("z@example.org")};
static const struct smtp_out_tx TX_ONE = {TX(ONE)};
static const struct smtp_out_tx TX_THREE = {TX(THREE)};

static const struct smtp_out_config PLAIN = {.helo_name = LIT("me")};
static const struct smtp_out_config HELO = {.helo_name = LIT("me"), .helo_only = true};
static const struct smtp_out_config HELO_MUST = {
    .helo_name = LIT("me"), .helo_only = true, .tls = SMTP_OUT_TLS_REQUIRED};
static const struct smtp_out_config MAY = {.helo_name = LIT("me"),
                                           .tls = SMTP_OUT_TLS_OPPORTUNISTIC};
static const struct smtp_out_config MUST = {.helo_name = LIT("me"), .tls = SMTP_OUT_TLS_REQUIRED};
#define AUTH_AS(bits)                                                                           \
    {                                                                                           \
        .helo_name = LIT("me"), .auth_mechanism = (bits), .username = LIT("joe"), .password = { \
            (const uint8_t *)"secret",                                                          \
            6                                                                                   \
        }                                                                                       \
    }
static const struct smtp_out_config AUTH_ANY = AUTH_AS(SASL_PLAIN | SASL_LOGIN);
static const struct smtp_out_config AUTH_LOGIN = AUTH_AS(SASL_LOGIN);
static const struct smtp_out_config AUTH_MAY = {.helo_name = LIT("me"),
                                                .tls = SMTP_OUT_TLS_OPPORTUNISTIC,
                                                .auth_mechanism = SASL_PLAIN,
                                                .username = LIT("joe"),
                                                .password = LIT("secret")};

#define HELLO       "S: 220 mx ESMTP\nC: EHLO me\n"
#define HELLO_PLAIN HELLO "S: 250 mx\n"
#define HELLO_PIPE  HELLO "S: 250-mx\nS: 250 PIPELINING\n"
#define MAIL        "C: MAIL FROM:<a@example.com>\n"
#define OK_MAIL     MAIL "S: 250 2.1.0 ok\n"
#define RCPT_X      "C: RCPT TO:<x@example.org>\n"
#define RCPT_Y      "C: RCPT TO:<y@example.org>\n"
#define RCPT_Z      "C: RCPT TO:<z@example.org>\n"
#define BYE         "C: QUIT\nS: 221 bye\n"

/* A client alone, for what a script cannot say. */
struct client {
    struct smtp_out s;
    struct smtp_out_event ev;
    uint8_t memory[4096];
    struct buf out;
};

static enum smtp_out_event_kind hear(struct client *c, const char *said)
{
    struct slice in = slice_str(said);
    c->out.len = 0;
    return smtp_out_step(&c->s, &in, &c->out, &c->ev);
}

/* Greeted, and told what the server offers. */
static enum smtp_out_event_kind greet(struct client *c, const struct smtp_out_config *config,
                                      const char *offers)
{
    c->out = buf_over(c->memory, SMTP_OUT_ROOM_MIN);
    smtp_out_init(&c->s, config, false);
    cr_assert_not(smtp_out_is_ready(&c->s));
    cr_assert_eq(hear(c, "220 mx\r\n"), SMTP_OUT_NEED_INPUT);
    return hear(c, offers);
}

static uint32_t lines_out(const struct client *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->out.len; i++)
        n += c->out.ptr[i] == '\n';
    return n;
}

static void play_all(const struct dialog *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dialog_play(&rows[i]);
}

Test(smtp_out, greeting)
{
    static const struct dialog rows[] = {
        {"nothing to send", &PLAIN, .script = HELLO_PLAIN BYE, .events = "ready closed"},
        {"long greeting", &PLAIN,
         .script = "S: 220-hello\nS: 220-you\nS: 220 there\nC: EHLO me\nS: 250 mx\n" BYE,
         .events = "ready closed"},
        {"code alone", &PLAIN, .script = "S: 220\nC: EHLO me\nS: 250\n" BYE,
         .events = "ready closed"},
        {"HELO as configured", &HELO, .script = "S: 220 x\nC: HELO me\nS: 250 x\n" BYE,
         .events = "ready closed"},
        {"EHLO unknown", &PLAIN, .script = HELLO "S: 502 what\nC: HELO me\nS: 250 x\n" BYE,
         .events = "ready closed"},
        {"EHLO unknown, TLS welcome", &MAY,
         .script = HELLO "S: 500 what\nC: HELO me\nS: 250 x\n" BYE, .events = "ready closed"},
        {"EHLO unknown, TLS needed", &MUST, .script = HELLO "S: 500 what\n",
         .events = "failed:500:ehlo closed"},
        {"EHLO unknown, AUTH needed", &AUTH_ANY, .script = HELLO "S: 504 what\n",
         .events = "failed:504:ehlo closed"},
        {"EHLO later", &PLAIN, .script = HELLO "S: 450 4.3.2 busy\n",
         .events = "failed:450:ehlo closed", .last_text = "busy"},
        {"HELO refused", &PLAIN, .script = HELLO "S: 502 what\nC: HELO me\nS: 550 no\n",
         .events = "failed:550:ehlo closed"},
        {"go away", &PLAIN, .script = "S: 554 5.7.1 go away\n",
         .events = "failed:554:banner closed", .last_text = "go away"},
        {"busy", &PLAIN, .script = "S: 421 busy\n", .events = "failed:421:banner closed"},
        {"no SMTP", &PLAIN, .script = "S: HTTP/1.1 400 Bad Request\n",
         .events = "failed:0:banner closed"},
        {"no greeting", &PLAIN, .script = "S: 250 hello\n", .events = "failed:0:banner closed"},
        {"greeted twice", &PLAIN, .script = "S: 220 a\nS: 220 b\n",
         .events = "failed:0:ehlo closed", .last_text = "unasked"},
    };
    /* byte by byte, EHLO is out before the second greeting comes: it is then the reply to EHLO */
    play_all(rows, COUNT(rows) - 1);
}

Test(smtp_out, extensions)
{
    struct smtp_out s;
    smtp_out_init(&s, &PLAIN, false);
    static const char *const lines[] = {"pipelining",
                                        "Size 1000",
                                        "8bitmime",
                                        "smtpUTF8",
                                        "DSN",
                                        "starttls",
                                        "AUTH=LOGIN",
                                        "auth CRAM-MD5  plain",
                                        "PIPELININGX",
                                        "X-SIZE 5",
                                        "ENHANCEDSTATUSCODES",
                                        ""};
    for (size_t i = 0; i < COUNT(lines); i++)
        smtp_out_learn(&s, slice_str(lines[i]));
    cr_assert(s.pipelining && s.size_offered && s.eightbit && s.utf8 && s.dsn && s.starttls);
    cr_assert_eq(s.size_limit, 1000);
    cr_assert_eq(s.auth_offered_mechanisms, SASL_PLAIN | SASL_LOGIN);
    smtp_out_forget(&s);
    cr_assert_not(s.pipelining || s.size_offered || s.eightbit || s.utf8 || s.dsn || s.starttls ||
                  s.auth_offered || s.size_limit || s.auth_offered_mechanisms);
    static const char *const near[] = {"SIZEX 5", "PIPELINE", "SIZE99", "XAUTH PLAIN", "DSN2"};
    for (size_t i = 0; i < COUNT(near); i++)
        smtp_out_learn(&s, slice_str(near[i]));
    cr_assert_not(s.pipelining || s.size_offered || s.dsn || s.auth_offered);
    static const char *const no_limit[] = {"SIZE", "SIZE 0", "SIZE x", "SIZE 99999999999999999999",
                                           "SIZE -1"};
    for (size_t i = 0; i < COUNT(no_limit); i++) {
        smtp_out_learn(&s, slice_str(no_limit[i]));
        cr_assert(s.size_offered);
        cr_assert_eq(s.size_limit, 0);
    }
}

Test(smtp_out, starttls)
{
    static const struct dialog rows[] = {
        {"offered, may", &MAY,
         .script = HELLO "S: 250-mx\nS: 250-PIPELINING\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n"
                         "C: EHLO me\nS: 250-mx\nS: 250 STARTTLS\n" BYE,
         .events = "starttls ready closed"},
        {"what was offered in clear is forgotten", &MUST, .tx = {&TX_ONE}, .body = "",
         .script = HELLO "S: 250-mx\nS: 250-PIPELINING\nS: 250-SIZE\nS: 250 STARTTLS\nC: STARTTLS\n"
                         "S: 220 go\nC: EHLO me\nS: 250 mx\n" OK_MAIL RCPT_X "S: 450 no\n" BYE,
         .events = "starttls ready rcpt:0:450 done:450:rcpt closed"},
        {"not offered, may", &MAY, .script = HELLO_PLAIN BYE, .events = "ready closed"},
        {"not offered, must", &MUST, .script = HELLO_PLAIN, .events = "failed:0:starttls closed",
         .last_text = "does not offer STARTTLS"},
        {"not wanted", &PLAIN, .script = HELLO "S: 250-mx\nS: 250 STARTTLS\n" BYE,
         .events = "ready closed"},
        {"refused", &MAY,
         .script = HELLO "S: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 no\n",
         .events = "failed:454:starttls closed"},
        {"implicit", &MUST, .implicit_tls = true,
         .script = HELLO "S: 250-mx\nS: 250 STARTTLS\n" BYE, .events = "ready closed"},
        {"HELO configured, must", &HELO_MUST, .script = "S: 220 x\nC: HELO me\nS: 250 x\n",
         .events = "failed:0:starttls closed"},
    };
    play_all(rows, COUNT(rows));
}

/* FAULTS 80 */
Test(smtp_out, data_behind_the_answer_to_starttls_is_an_attack)
{
    struct client c;
    cr_assert_eq(greet(&c, &MUST, "250-mx\r\n250 STARTTLS\r\n"), SMTP_OUT_NEED_INPUT);
    cr_assert_eq(hear(&c, "220 go\r\n250 AUTH PLAIN\r\n"), SMTP_OUT_FAILED);
    cr_assert_eq(c.ev.phase, SMTP_OUT_AT_STARTTLS);
    cr_assert_eq(c.ev.reply.code, 0);
    cr_assert_str_eq(c.ev.reply.enhanced, "4.7.5");
}

Test(smtp_out, auth)
{
#define OFFERS(list) HELLO "S: 250-mx\nS: 250 AUTH " list "\n"
    static const struct dialog rows[] = {
        {"plain", &AUTH_ANY,
         .script = OFFERS("LOGIN PLAIN") "C: AUTH PLAIN AGpvZQBzZWNyZXQ=\nS: 235 2.7.0 ok\n" BYE,
         .events = "ready closed"},
        {"login", &AUTH_ANY,
         .script = OFFERS("LOGIN") "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: am9l\n"
                                   "S: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\nS: 235 ok\n" BYE,
         .events = "ready closed"},
        {"login although plain is offered", &AUTH_LOGIN,
         .script = OFFERS("PLAIN LOGIN") "C: AUTH LOGIN\nS: 535 5.7.8 no\n",
         .events = "failed:535:auth closed", .last_text = "no"},
        {"wrong password", &AUTH_ANY,
         .script = OFFERS("PLAIN") "C: AUTH PLAIN AGpvZQBzZWNyZXQ=\nS: 535 5.7.8 wrong\n",
         .events = "failed:535:auth closed"},
        {"down", &AUTH_ANY,
         .script = OFFERS("PLAIN") "C: AUTH PLAIN AGpvZQBzZWNyZXQ=\nS: 454 later\n",
         .events = "failed:454:auth closed"},
        {"not offered", &AUTH_ANY, .script = HELLO_PLAIN, .events = "failed:0:auth closed",
         .last_text = "does not offer AUTH"},
        {"another is offered", &AUTH_ANY, .script = OFFERS("CRAM-MD5"),
         .events = "failed:0:auth closed", .last_text = "none of the configured"},
        {"plain asks for more", &AUTH_ANY,
         .script = OFFERS("PLAIN") "C: AUTH PLAIN AGpvZQBzZWNyZXQ=\nS: 334 \n",
         .events = "failed:0:auth closed"},
        {"challenge is no base64", &AUTH_LOGIN,
         .script = OFFERS("LOGIN") "C: AUTH LOGIN\nS: 334 !\n", .events = "failed:0:auth closed"},
        {"login never ends", &AUTH_LOGIN,
         .script =
             OFFERS("LOGIN") "C: AUTH LOGIN\nS: 334 \nC: am9l\nS: 334 \nC: c2VjcmV0\nS: 334 \n",
         .events = "failed:0:auth closed"},
    };
    play_all(rows, COUNT(rows));
}

/* Whoever takes STARTTLS out of the answer to EHLO, or breaks it, does not get the password. */
Test(smtp_out, password_never_in_clear_where_tls_is_opportunistic)
{
    static const struct dialog rows[] = {
        {"in TLS", &AUTH_MAY,
         .script = HELLO "S: 250-mx\nS: 250-AUTH PLAIN\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n"
                         "C: EHLO me\nS: 250-mx\nS: 250 AUTH PLAIN\n"
                         "C: AUTH PLAIN AGpvZQBzZWNyZXQ=\nS: 235 ok\n" BYE,
         .events = "starttls ready closed"},
        {"STARTTLS not offered", &AUTH_MAY, .script = OFFERS("PLAIN"),
         .events = "failed:0:starttls closed", .last_text = "password is not sent in clear"},
        {"STARTTLS refused", &AUTH_MAY,
         .script = HELLO "S: 250-mx\nS: 250-AUTH PLAIN\nS: 250 STARTTLS\nC: STARTTLS\n"
                         "S: 454 4.7.0 no\n",
         .events = "failed:454:starttls closed"},
        {"EHLO unknown", &AUTH_MAY, .script = HELLO "S: 502 what\n",
         .events = "failed:502:ehlo closed"},
        {"TLS from the start", &AUTH_MAY, .implicit_tls = true,
         .script = OFFERS("PLAIN") "C: AUTH PLAIN AGpvZQBzZWNyZXQ=\nS: 235 ok\n" BYE,
         .events = "ready closed"},
    };
    play_all(rows, COUNT(rows));
}

/* RFC 4954 section 4: an initial response must fit a command line. */
Test(smtp_out, long_secret_waits_to_be_asked)
{
    static char password[400], script[2048], encoded[1024];
    memset(password, 'p', sizeof password);
    struct smtp_out_config config = AUTH_ANY;
    config.password = slice_of(password, sizeof password);
    uint8_t plain[512];
    struct buf raw = buf_over(plain, sizeof plain), text = buf_over(encoded, sizeof encoded - 1);
    cr_assert(buf_add(&raw, "\0joe", 5) && buf_add(&raw, password, sizeof password));
    cr_assert(base64_encode(buf_slice(&raw), &text));
    snprintf(script, sizeof script,
             OFFERS("PLAIN") "C: AUTH PLAIN\nS: 334 \nC: %s\nS: 235 ok\n" BYE, encoded);
    struct dialog d = {"long", &config, .script = script, .events = "ready closed"};
    dialog_play(&d);
}

Test(smtp_out, one_message_after_another)
{
    static const struct dialog rows[] = {
        {"one by one", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "A: b\r\n\r\n.dot\r\n",
         .script = HELLO_PLAIN OK_MAIL RCPT_X
         "S: 250 ok\nC: DATA\nS: 354 go\nC: A: b\nC: \nC: ..dot\nC: .\nS: 250 2.0.0 taken\n" MAIL
         "S: 250 ok\n" RCPT_X "S: 251 ok\nC: DATA\nS: 354 go\nC: A: b\nC: \nC: ..dot\nC: .\n"
         "S: 452 4.3.1 full\n" BYE,
         .events =
             "ready rcpt:0:250 body done:250:eod:sent rcpt:0:251 body done:452:eod:sent closed",
         .last_text = "full"},
        {"pipelined", &PLAIN, .tx = {&TX_ONE, &TX_THREE}, .body = "x",
         .script = HELLO_PIPE MAIL RCPT_X
         "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: x\nC: .\nS: 250 taken\n" MAIL RCPT_X RCPT_Y
             RCPT_Z "C: DATA\nS: 250 ok\nS: 250 ok\nS: 452 many\nS: 550 no\nS: 354 go\n"
         "C: x\nC: .\nS: 550 spam\n" BYE,
         .events = "ready rcpt:0:250 body done:250:eod:sent rcpt:0:250 rcpt:1:452 rcpt:2:550 body "
                   "done:550:eod:sent closed"},
        {"empty body", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PIPE MAIL RCPT_X
         "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: .\nS: 250 ok\n" BYE,
         .events = "ready rcpt:0:250 body done:250:eod:sent closed"},
    };
    play_all(rows, COUNT(rows));
}

Test(smtp_out, refused_envelopes)
{
    static const struct dialog rows[] = {
        {"MAIL refused", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "",
         .script = HELLO_PLAIN MAIL "S: 550 5.7.1 not you\n" MAIL "S: 451 later\n" BYE,
         .events = "ready done:550:mail done:451:mail closed"},
        {"MAIL refused, pipelined", &PLAIN, .tx = {&TX_THREE}, .body = "",
         .script = HELLO_PIPE MAIL RCPT_X RCPT_Y RCPT_Z
         "C: DATA\nS: 550 not you\nS: 503 no\nS: 503 no\nS: 503 no\nS: 503 no\n" BYE,
         .events = "ready done:550:mail closed"},
        {"MAIL refused, DATA accepted", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "",
         .script = HELLO_PIPE MAIL RCPT_X
         "C: DATA\nS: 450 not now\nS: 503 no\nS: 354 go\nC: .\n"
         "S: 250 ok\n" MAIL RCPT_X
         "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 ok\nC: .\nS: 250 ok\n" BYE,
         .events = "ready done:450:mail rcpt:0:250 body done:250:eod:sent closed"},
        {"all refused, then RSET", &PLAIN, .tx = {&TX_THREE, &TX_ONE}, .body = "",
         .script =
             HELLO_PLAIN OK_MAIL RCPT_X "S: 550 a\n" RCPT_Y "S: 550 b\n" RCPT_Z "S: 450 c\n"
                                        "C: RSET\nS: 250 ok\n" OK_MAIL RCPT_X "S: 550 d\n" BYE,
         .events =
             "ready rcpt:0:550 rcpt:1:550 rcpt:2:450 done:450:rcpt rcpt:0:550 done:550:rcpt closed",
         .last_text = "d"},
        {"all refused, pipelined, DATA refused", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "",
         .script = HELLO_PIPE MAIL RCPT_X "C: DATA\nS: 250 ok\nS: 550 a\nS: 554 none\nC: RSET\n"
                                          "S: 250 ok\n" MAIL RCPT_X
                                          "C: DATA\nS: 250 ok\nS: 550 b\nS: 503 none\n" BYE,
         .events = "ready rcpt:0:550 done:550:rcpt rcpt:0:550 done:550:rcpt closed",
         .last_text = "b"},
        {"all refused, pipelined, DATA accepted", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "never",
         .script = HELLO_PIPE MAIL RCPT_X
         "C: DATA\nS: 250 ok\nS: 550 a\nS: 354 go\nC: .\nS: 554 none\n" MAIL RCPT_X
         "C: DATA\nS: 250 ok\nS: 550 b\nS: 354 go\nC: .\nS: 250 fine\n" BYE,
         .events = "ready rcpt:0:550 done:550:rcpt rcpt:0:550 done:550:rcpt closed"},
        {"DATA refused", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "",
         .script = HELLO_PLAIN OK_MAIL RCPT_X "S: 250 ok\nC: DATA\nS: 451 4.3.0 later\nC: RSET\n"
                                              "S: 250 ok\n" OK_MAIL RCPT_X
                                              "S: 250 ok\nC: DATA\nS: 554 no\n" BYE,
         .events = "ready rcpt:0:250 done:451:data rcpt:0:250 done:554:data closed"},
        {"RSET refused", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "",
         .script = HELLO_PLAIN OK_MAIL RCPT_X "S: 550 a\nC: RSET\nS: 500 what\n",
         .events = "ready rcpt:0:550 done:550:rcpt failed:0:mail closed", .last_text = "RSET: 500"},
    };
    play_all(rows, COUNT(rows));
}

/* What was decided before the connection was lost is still told. */
Test(smtp_out, decided_then_lost)
{
    static const struct dialog rows[] = {
        {"MAIL refused, closed", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PIPE MAIL RCPT_X "C: DATA\nS: 550 not you\nX: closed\n",
         .events = "ready done:550:mail failed:0:idle closed"},
        {"MAIL refused, 421", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PIPE MAIL RCPT_X "C: DATA\nS: 550 not you\nS: 421 bye\n",
         .events = "ready done:550:mail failed:421:idle closed"},
        {"RCPT refused, closed", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PIPE MAIL RCPT_X "C: DATA\nS: 250 ok\nS: 550 no\nX: closed\n",
         .events = "ready rcpt:0:550 done:550:rcpt failed:0:idle closed"},
        {"RCPT refused, closed behind the empty dot", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script =
             HELLO_PIPE MAIL RCPT_X "C: DATA\nS: 250 ok\nS: 550 no\nS: 354 go\nC: .\nX: closed\n",
         .events = "ready rcpt:0:550 done:550:rcpt failed:0:idle closed"},
        {"RCPT refused, nonsense for DATA", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PIPE MAIL RCPT_X "C: DATA\nS: 250 ok\nS: 550 no\nS: 250 go\n",
         .events = "ready rcpt:0:550 done:550:rcpt failed:0:idle closed"},
        {"one of three refused, closed", &PLAIN, .tx = {&TX_THREE}, .body = "",
         .script = HELLO_PIPE MAIL RCPT_X RCPT_Y RCPT_Z
         "C: DATA\nS: 250 ok\nS: 550 no\nS: 250 ok\nX: closed\n",
         .events = "ready rcpt:0:550 rcpt:1:250 failed:0:rcpt closed"},
    };
    play_all(rows, COUNT(rows));
}

/* RFC 2920 section 3.1: the commands of the next message leave with the end of the one before. */
#define ENVELOPE MAIL RCPT_X "C: DATA\n"
#define FIRST    HELLO_PIPE ENVELOPE "S: 250 ok\nS: 250 ok\nS: 354 go\nC: .\n"
#define TOLD     "ready rcpt:0:250 body "
#define NEXT     "rcpt:0:250 body done:250:eod:sent "

Test(smtp_out, next_envelope_behind_the_dot)
{
    static const struct smtp_out_tx large = {
        .sender = LIT("a@example.com"), .size = 9999, .rcpts = ONE, .rcpt_count = 1};
    static const struct dialog rows[] = {
        {"one round trip each", &PLAIN, .tx = {&TX_ONE, &TX_ONE, &TX_ONE}, .body = "",
         .ahead = true,
         .script = FIRST ENVELOPE "S: 250 taken\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: .\n" ENVELOPE
                                  "S: 250 taken\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: .\n"
                                  "S: 250 2.0.0 third\n" BYE,
         .events = TOLD "done:250:eod:sent " NEXT NEXT "closed", .last_text = "third"},
        {"the first is refused, the next is not", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "",
         .ahead = true,
         .script =
             FIRST ENVELOPE "S: 554 spam\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: .\nS: 250 ok\n" BYE,
         .events = TOLD "done:554:eod:sent " NEXT "closed"},
        {"MAIL refused", &PLAIN, .tx = {&TX_ONE, &TX_ONE, &TX_ONE}, .body = "", .ahead = true,
         .script = FIRST ENVELOPE "S: 250 taken\nS: 450 no\nS: 503 no\nS: 503 no\n" ENVELOPE
                                  "S: 250 ok\nS: 250 ok\nS: 354 go\nC: .\nS: 250 ok\n" BYE,
         .events = TOLD "done:250:eod:sent done:450:mail " NEXT "closed"},
        {"RCPT refused, DATA accepted", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "", .ahead = true,
         .script = FIRST ENVELOPE
         "S: 250 taken\nS: 250 ok\nS: 550 no\nS: 354 go\nC: .\nS: 554 none\n" BYE,
         .events = TOLD "done:250:eod:sent rcpt:0:550 done:550:rcpt closed"},
        {"DATA refused, then RSET", &PLAIN, .tx = {&TX_ONE, &TX_ONE, &TX_ONE}, .body = "",
         .ahead = true,
         .script = FIRST ENVELOPE "S: 250 taken\nS: 250 ok\nS: 250 ok\nS: 451 no\nC: RSET\n"
                                  "S: 250 ok\n" ENVELOPE
                                  "S: 250 ok\nS: 250 ok\nS: 354 go\nC: .\nS: 250 ok\n" BYE,
         .events = TOLD "done:250:eod:sent rcpt:0:250 done:451:data " NEXT "closed"},
        {"lost behind the dot: nobody knows of the first, nothing of the next", &PLAIN,
         .tx = {&TX_ONE, &TX_ONE}, .body = "", .ahead = true,
         .script = FIRST ENVELOPE "X: closed\n", .events = TOLD "failed:0:eod:dup closed"},
        {"421 behind the dot", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "", .ahead = true,
         .script = FIRST ENVELOPE "S: 421 bye\n", .events = TOLD "failed:421:eod closed"},
        {"taken, then closed", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "", .ahead = true,
         .script = FIRST ENVELOPE "S: 250 taken\nX: closed\n",
         .events = TOLD "done:250:eod:sent failed:0:mail closed"},
        {"taken, then 421", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "", .ahead = true,
         .script = FIRST ENVELOPE "S: 250 taken\nS: 421 enough\n",
         .events = TOLD "done:250:eod:sent failed:421:mail closed"},
        {"354 for the first: what follows is not believed", &PLAIN, .tx = {&TX_ONE, &TX_ONE},
         .body = "", .ahead = true, .script = FIRST ENVELOPE "S: 354 more\n",
         .events = TOLD "failed:0:eod:dup closed"},
        {"three recipients", &PLAIN, .tx = {&TX_ONE, &TX_THREE}, .body = "", .ahead = true,
         .script = FIRST MAIL RCPT_X RCPT_Y RCPT_Z
         "C: DATA\nS: 250 taken\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 ok\n"
         "S: 354 go\nC: .\nS: 250 ok\n" BYE,
         .events = TOLD
         "done:250:eod:sent rcpt:0:250 rcpt:1:250 rcpt:2:250 body done:250:eod:sent closed"},
        {"not where commands go one by one", &PLAIN, .tx = {&TX_ONE, &TX_ONE}, .body = "",
         .ahead = true,
         .script = HELLO_PLAIN OK_MAIL RCPT_X
         "S: 250 ok\nC: DATA\nS: 354 go\nC: .\nS: 250 taken\n" MAIL "S: 550 no\n" BYE,
         .events = "ready rcpt:0:250 body done:250:eod:sent done:550:mail closed"},
        {"not when the server cannot have it", &PLAIN, .tx = {&TX_ONE, &large}, .body = "",
         .ahead = true,
         .script = HELLO "S: 250-mx\nS: 250-SIZE 1000\nS: 250 PIPELINING\n"
                         "C: MAIL FROM:<a@example.com> SIZE=100\n" RCPT_X "C: DATA\nS: 250 ok\n"
                         "S: 250 ok\nS: 354 go\nC: .\nS: 250 taken\n" BYE,
         .events = TOLD "done:250:eod:sent done:552:mail closed"},
    };
    play_all(rows, COUNT(rows));
}

/* The owner thinks better of it, the connection is of no use any more. */
Test(smtp_out, quit_with_an_envelope_ahead_just_closes)
{
    struct client c;
    struct smtp_out_tx other = TX_ONE;
    cr_assert_eq(greet(&c, &PLAIN, "250-mx\r\n250 PIPELINING\r\n"), SMTP_OUT_READY);
    c.out = buf_over(c.memory, sizeof c.memory);
    smtp_out_begin(&c.s, &TX_ONE);
    cr_assert_eq(hear(&c, ""), SMTP_OUT_NEED_INPUT);
    cr_assert_not(smtp_out_ahead(&c.s, &other, &c.out), "before the dot");
    cr_assert_eq(hear(&c, "250 ok\r\n"), SMTP_OUT_NEED_INPUT);
    cr_assert_eq(hear(&c, "250 ok\r\n"), SMTP_OUT_RCPT);
    cr_assert_eq(hear(&c, "354 go\r\n"), SMTP_OUT_SEND_BODY);
    cr_assert(smtp_out_body_end(&c.s, &c.out));
    struct buf small = buf_over(c.memory + c.out.len, SMTP_OUT_COMMAND_MAX + 40);
    cr_assert_not(smtp_out_ahead(&c.s, &other, &small), "all or nothing");
    cr_assert_eq(small.len, 0);
    cr_assert(smtp_out_ahead(&c.s, &other, &c.out));
    cr_assert_eq(lines_out(&c), 4);
    cr_assert_not(smtp_out_ahead(&c.s, &TX_ONE, &c.out), "one at a time");
    cr_assert_eq(hear(&c, "250 taken\r\n"), SMTP_OUT_TX_DONE);
    smtp_out_quit(&c.s, &c.out);
    cr_assert_eq(c.out.len, 0);
    cr_assert_eq(hear(&c, ""), SMTP_OUT_CLOSED);
}

/* FAULTS 83: what nobody asked for. */
Test(smtp_out, unasked_replies)
{
    static const struct dialog rows[] = {
        {"at once too many", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PIPE MAIL RCPT_X
         "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: .\nS: 250 ok\n" BYE,
         .events = "ready rcpt:0:250 body done:250:eod:sent closed"},
        {"354 for MAIL", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PLAIN MAIL "S: 354 go\n", .events = "ready failed:0:mail closed",
         .last_text = "does not fit: 354"},
        {"354 for RCPT", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PLAIN OK_MAIL RCPT_X "S: 354 go\n",
         .events = "ready failed:0:rcpt closed"},
        {"250 for DATA", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PLAIN OK_MAIL RCPT_X "S: 250 ok\nC: DATA\nS: 250 ok\n",
         .events = "ready rcpt:0:250 failed:0:data closed"},
        {"354 for the message", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PLAIN OK_MAIL RCPT_X "S: 250 ok\nC: DATA\nS: 354 go\nC: .\nS: 354 more\n",
         .events = "ready rcpt:0:250 body failed:0:eod:dup closed"},
        {"nonsense for the message", &PLAIN, .tx = {&TX_ONE}, .body = "",
         .script = HELLO_PLAIN OK_MAIL RCPT_X "S: 250 ok\nC: DATA\nS: 354 go\nC: .\nS: 999 yes\n",
         .events = "ready rcpt:0:250 body failed:0:eod:dup closed"},
    };
    play_all(rows, COUNT(rows));
}

/* A reply that comes with the one before it, before its command was sent. */
Test(smtp_out, early_replies)
{
    struct client c;
    smtp_out_init(&c.s, &PLAIN, false);
    c.out = buf_over(c.memory, sizeof c.memory);
    cr_assert_eq(hear(&c, "220 mx\r\n250 mx\r\n"), SMTP_OUT_FAILED);
    cr_assert_not_null(strstr(c.ev.reply.text, "unasked: 250 mx"));

    cr_assert_eq(greet(&c, &PLAIN, "250 mx\r\n250 ok\r\n"), SMTP_OUT_READY);
    smtp_out_begin(&c.s, &TX_ONE);
    cr_assert_eq(hear(&c, "250 ok\r\n"), SMTP_OUT_FAILED);
    cr_assert_eq(c.out.len, 0);

    /* half of it: nothing goes out, so that the rest cannot pass as an answer to MAIL */
    cr_assert_eq(greet(&c, &PLAIN, "250 mx\r\n"), SMTP_OUT_READY);
    cr_assert_eq(hear(&c, "2"), SMTP_OUT_NEED_INPUT);
    smtp_out_begin(&c.s, &TX_ONE);
    cr_assert_eq(hear(&c, ""), SMTP_OUT_NEED_INPUT);
    cr_assert_eq(c.out.len, 0);
    cr_assert_eq(hear(&c, "50 ok\r\n"), SMTP_OUT_FAILED);
}

Test(smtp_out, what_the_server_lacks_is_told_before_anything_is_sent)
{
    static const struct smtp_out_rcpt utf8_rcpt[] = {RCPT("\xc3\xbc@example.org")};
    static const struct smtp_out_rcpt evil_rcpt[] = {RCPT("x@example.org>\r\nDATA")};
    static const struct smtp_out_rcpt evil_orcpt[] = {
        {.mailbox = LIT("x@y"), .orcpt = LIT("rfc822;a b")}};
    static const struct smtp_out_tx utf8 = {TX(ONE), .smtputf8 = true};
    static const struct smtp_out_tx utf8_address = {TX(utf8_rcpt)};
    static const struct smtp_out_tx eightbit = {TX(ONE), .body_8bit = true};
    static const struct smtp_out_tx evil[3] = {
        {TX(evil_rcpt)}, {TX(evil_orcpt)}, {.sender = LIT("a\r\n"), .rcpts = ONE, .rcpt_count = 1}};
    static const struct dialog rows[] = {
        {"SMTPUTF8", &PLAIN, .tx = {&utf8, &utf8_address}, .script = HELLO_PLAIN BYE,
         .events = "ready done:553:mail done:553:mail closed", .last_text = "SMTPUTF8"},
        {"8BITMIME", &PLAIN, .tx = {&eightbit}, .script = HELLO_PLAIN BYE,
         .events = "ready done:554:mail closed", .last_text = "8BITMIME"},
        {"SIZE", &PLAIN, .tx = {&TX_ONE}, .script = HELLO "S: 250-mx\nS: 250 SIZE 99\n" BYE,
         .events = "ready done:552:mail closed", .last_text = "takes 99"},
        {"no limit", &PLAIN, .tx = {&TX_ONE},
         .script =
             HELLO "S: 250-mx\nS: 250 SIZE\nC: MAIL FROM:<a@example.com> SIZE=100\nS: 552 no\n" BYE,
         .events = "ready done:552:mail closed"},
        {"injection", &PLAIN, .tx = {&evil[0], &evil[1], &evil[2]}, .script = HELLO_PLAIN BYE,
         .events = "ready done:553:mail done:553:mail done:553:mail closed"},
    };
    play_all(rows, COUNT(rows));
}

Test(smtp_out, parameters_go_where_they_are_offered)
{
    static const struct smtp_out_rcpt rcpts[] = {
        {.mailbox = LIT("x@y"), .notify = SMTP_NOTIFY_NEVER},
        {.mailbox = LIT("z@y"),
         .notify = SMTP_NOTIFY_SUCCESS | SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY,
         .orcpt = LIT("rfc822;o+2Br@y")},
        {.mailbox = LIT("\"a b\"@y"), .notify = SMTP_NOTIFY_FAILURE}};
    static const struct smtp_out_tx tx = {.sender = LIT("\xc3\xbc@x"),
                                          .size = 7,
                                          .body_8bit = true,
                                          .ret = SMTP_RET_HDRS,
                                          .envid = LIT("a+b= \xff"),
                                          .rcpts = rcpts,
                                          .rcpt_count = COUNT(rcpts)};
    static const struct smtp_out_rcpt plain_rcpts[] = {
        {.mailbox = LIT("x@y"), .notify = SMTP_NOTIFY_SUCCESS, .orcpt = LIT("rfc822;x")}};
    static const struct smtp_out_tx bounce = {
        .size = 7, .ret = SMTP_RET_FULL, .envid = LIT("q"), .rcpts = plain_rcpts, .rcpt_count = 1};
    static const struct dialog rows[] = {
        {"all", &PLAIN, .tx = {&tx, &bounce},
         .script = HELLO
         "S: 250-mx\nS: 250-SIZE 1000\nS: 250-8BITMIME\nS: 250-SMTPUTF8\nS: 250-DSN\nS: 250 "
         "PIPELINING\n"
         "C: MAIL FROM:<\xc3\xbc@x> SIZE=7 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb+3D+20+FF\n"
         "C: RCPT TO:<x@y> NOTIFY=NEVER\n"
         "C: RCPT TO:<z@y> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;o+2Br@y\n"
         "C: RCPT TO:<\"a b\"@y> NOTIFY=FAILURE\nC: DATA\n"
         "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 451 no\nC: RSET\nS: 250 ok\n"
         "C: MAIL FROM:<> SIZE=7 RET=FULL ENVID=q\n"
         "C: RCPT TO:<x@y> NOTIFY=SUCCESS ORCPT=rfc822;x\nC: DATA\n"
         "S: 450 no\nS: 503 no\nS: 503 no\n" BYE,
         .events = "ready rcpt:0:250 rcpt:1:250 rcpt:2:250 done:451:data done:450:mail closed"},
        {"none", &PLAIN, .tx = {&bounce},
         .script = HELLO_PLAIN "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<x@y>\nS: 550 no\n" BYE,
         .events = "ready rcpt:0:550 done:550:rcpt closed"},
    };
    play_all(rows, COUNT(rows));
}

/* Many recipients through a buffer that holds few: both cursors move, order is kept. */
Test(smtp_out, pipelining_is_bounded_by_the_buffer)
{
    enum { N = 400 };
    static struct smtp_out_rcpt rcpts[N];
    static char names[N][32];
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "r%d@example.org", i);
        rcpts[i].mailbox = slice_str(names[i]);
    }
    struct smtp_out_tx tx = {TX(rcpts)};
    struct client c;
    cr_assert_eq(greet(&c, &PLAIN, "250-mx\r\n250 PIPELINING\r\n"), SMTP_OUT_READY);
    smtp_out_begin(&c.s, &tx);
    uint32_t sent = 0, answered = 0, flushes = 0;
    for (;;) {
        enum smtp_out_event_kind kind = hear(&c, "");
        sent += lines_out(&c);
        if (kind == SMTP_OUT_NEED_INPUT)
            break;
        cr_assert_eq(kind, SMTP_OUT_FLUSH);
        flushes++;
        /* the server answers a few meanwhile; RCPT is told before more is sent */
        for (int k = 0; k < 3; k++, answered++) {
            kind = hear(&c, "250 ok\r\n");
            sent += lines_out(&c);
            cr_assert_eq(kind == SMTP_OUT_RCPT, answered > 0);
            if (kind == SMTP_OUT_RCPT)
                cr_assert_eq(c.ev.rcpt, answered - 1);
        }
    }
    cr_assert_eq(sent, N + 2);
    cr_assert_gt(flushes, 5);
}

Test(smtp_out, refusal_stops_what_was_not_sent_yet)
{
    enum { N = 100 };
    static struct smtp_out_rcpt rcpts[N];
    for (int i = 0; i < N; i++)
        rcpts[i] = ONE[0];
    struct smtp_out_tx tx = {TX(rcpts)};
    struct client c;
    cr_assert_eq(greet(&c, &PLAIN, "250-mx\r\n250 PIPELINING\r\n"), SMTP_OUT_READY);
    smtp_out_begin(&c.s, &tx);
    cr_assert_eq(hear(&c, ""), SMTP_OUT_FLUSH);
    uint32_t sent = lines_out(&c);
    cr_assert_lt(sent, N);
    cr_assert_eq(hear(&c, "550 5.7.1 not you\r\n"), SMTP_OUT_NEED_INPUT);
    for (uint32_t i = 1; i < sent; i++) {
        cr_assert_eq(hear(&c, "503 no\r\n"),
                     i + 1 == sent ? SMTP_OUT_TX_DONE : SMTP_OUT_NEED_INPUT);
        cr_assert_eq(c.out.len, 0);
    }
    cr_assert_eq(c.ev.reply.code, 550);
    cr_assert_str_eq(c.ev.reply.enhanced, "5.7.1");
    cr_assert(smtp_out_is_ready(&c.s));
}

Test(smtp_out, idle_connection)
{
    static const struct {
        const char *said;
        uint16_t code;
    } rows[] = {{"421 4.4.2 idle too long\r\n", 421}, {"250 boo\r\n", 0}, {"\n", 0}};
    for (size_t i = 0; i <= COUNT(rows); i++) {
        struct client c;
        cr_assert_eq(greet(&c, &PLAIN, "250 mx\r\n"), SMTP_OUT_READY);
        cr_assert(smtp_out_is_ready(&c.s));
        if (i == COUNT(rows))
            smtp_out_lost(&c.s, "closed");
        cr_assert_eq(hear(&c, i < COUNT(rows) ? rows[i].said : ""), SMTP_OUT_FAILED);
        cr_assert_eq(c.ev.phase, SMTP_OUT_AT_IDLE);
        cr_assert_eq(c.ev.reply.code, i < COUNT(rows) ? rows[i].code : 0);
        cr_assert_not(c.ev.data_sent);
        cr_assert_not(smtp_out_is_ready(&c.s));
        smtp_out_begin(&c.s, &TX_ONE); /* too late, but not wrong */
        cr_assert_eq(hear(&c, ""), SMTP_OUT_CLOSED);
    }
}

Test(smtp_out, quit_in_the_middle_just_closes)
{
    struct client c;
    cr_assert_eq(greet(&c, &PLAIN, ""), SMTP_OUT_NEED_INPUT);
    smtp_out_quit(&c.s, &c.out);
    cr_assert_eq(c.out.len, 0);
    cr_assert_eq(hear(&c, ""), SMTP_OUT_CLOSED);
    smtp_out_quit(&c.s, &c.out);
    smtp_out_lost(&c.s, "late");
    cr_assert_eq(hear(&c, ""), SMTP_OUT_CLOSED);
}

/* Every state can be lost or closed but the last two; nothing leads out of CLOSED. */
Test(smtp_out, edges)
{
    for (int from = 0; from <= SMTP_OUT_S_CLOSED; from++) {
        cr_expect_eq(smtp_out_edge_allowed(from, SMTP_OUT_S_CLOSED), from != SMTP_OUT_S_CLOSED);
        cr_expect_eq(smtp_out_edge_allowed(from, SMTP_OUT_S_LOST), from < SMTP_OUT_S_QUIT);
        cr_expect_eq(smtp_out_edge_allowed(from, SMTP_OUT_S_EOD), from == SMTP_OUT_S_BODY);
        cr_expect_not(smtp_out_edge_allowed(SMTP_OUT_S_CLOSED, from));
    }
}
