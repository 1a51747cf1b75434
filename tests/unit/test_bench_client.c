/*
 * tests/unit/test_bench_client.c - the load generator's session against scripted replies.
 *
 * Owns:     one session at a time.
 * Runs on:  the test's process.
 * Contract: each test fails when a command, an id or an outcome is not the one expected.
 * Failure:  Criterion reports both texts.
 * Bounds:   none.
 * Tests:    bench/client.c, client_put.c, client_body.c
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "bench/client.h"

static struct bench_client client;
static struct bench_client_run run;
static struct bench_buf body;

static void begin(void)
{
    run.run_id = "R";
    run.helo = "h";
    run.from = "f%@x";
    run.to = "t%@y";
    run.to_number_max = 100;
    if (run.rcpt_count == 0)
        run.rcpt_count = 1;
    run.message_size = 256;
    run.claimed_max = 100;
    bench_client_make_body(&run, &body);
    bench_client_begin(&client, &run, 7);
}

static enum bench_client_event answer(const char *text)
{
    static struct bench_reply reply;
    size_t used = 0;
    bench_reply_init(&reply);
    cr_assert_eq(bench_reply_feed(&reply, text, strlen(text), &used), BENCH_REPLY_DONE);
    return bench_client_reply(&client, &reply);
}

/* All output so far, NUL-terminated. */
static const char *taken(void)
{
    static char text[8192];
    size_t count = bench_client_take(&client, text, sizeof(text) - 1);
    text[count] = '\0';
    return text;
}

static void end(void)
{
    bench_client_free(&client);
    bench_buf_free(&body);
}

/* A message: its id, its size, its end. */
static void assert_message(const char *id, const char *behind)
{
    char header[64];
    const char *text = taken(), *dot = strstr(text, "\r\n.\r\n");
    snprintf(header, sizeof(header), "\r\nX-Bench-Id: %s\r\n", id);
    cr_assert_not_null(strstr(text, header), "%s", text);
    cr_assert_not_null(dot);
    cr_assert_eq(dot + 2 - text, 256);
    cr_assert_str_eq(dot + 5, behind);
}

Test(bench_client, one_command_one_reply)
{
    run.messages_per_session = 2;
    begin();
    cr_assert_eq(answer("220 hi\r\n"), BENCH_CLIENT_NONE);
    cr_assert_str_eq(taken(), "EHLO h\r\n");
    answer("250 x\r\n");
    cr_assert_str_eq(taken(), "MAIL FROM:<f7@x>\r\n");
    answer("250 ok\r\n");
    cr_assert_str_eq(taken(), "RCPT TO:<t0@y>\r\n");
    answer("250 ok\r\n");
    cr_assert_str_eq(taken(), "DATA\r\n");
    answer("354 go\r\n");
    cr_assert(client.dot_sent);
    assert_message("R-7-0", "");
    cr_assert_eq(answer("250 ok\r\n"), BENCH_CLIENT_ACKED);
    cr_assert_eq(client.acked_message, 0);
    cr_assert_str_eq(taken(), "MAIL FROM:<f7@x>\r\n");
    answer("250 ok\r\n");
    cr_assert_str_eq(taken(), "RCPT TO:<t1@y>\r\n");
    answer("250 ok\r\n");
    answer("354 go\r\n");
    cr_assert_eq(answer("451 no\r\n"), BENCH_CLIENT_REFUSED);
    cr_assert_eq(answer("221 bye\r\n"), BENCH_CLIENT_DONE);
    cr_assert_eq(run.claimed, 2);
    end();
}

Test(bench_client, pipelined_envelope)
{
    run.pipeline = BENCH_PIPELINE_ENVELOPE;
    run.rcpt_count = 2;
    begin();
    answer("220 hi\r\n");
    taken();
    answer("250-x\r\n250 PIPELINING\r\n");
    cr_assert_str_eq(taken(), "MAIL FROM:<f7@x>\r\nRCPT TO:<t0@y>\r\nRCPT TO:<t1@y>\r\nDATA\r\n");
    answer("250 ok\r\n");
    answer("550 no\r\n");
    answer("250 ok\r\n");
    answer("354 go\r\n");
    assert_message("R-7-0", "");
    cr_assert_eq(answer("250 ok\r\n"), BENCH_CLIENT_ACKED);
    cr_assert_eq(client.rcpts_acked, 1);
    end();
}

Test(bench_client, deep_pipelining_sends_the_next_envelope_with_the_body)
{
    run.pipeline = BENCH_PIPELINE_DEEP;
    run.messages_per_session = 2;
    begin();
    answer("220 hi\r\n");
    answer("250-x\r\n250 PIPELINING\r\n");
    taken();
    answer("250 ok\r\n");
    answer("250 ok\r\n");
    answer("354 go\r\n");
    assert_message("R-7-0", "MAIL FROM:<f7@x>\r\nRCPT TO:<t1@y>\r\nDATA\r\n");
    cr_assert_eq(answer("250 ok\r\n"), BENCH_CLIENT_ACKED);
    cr_assert_eq(client.acked_message, 0);
    cr_assert_str_eq(taken(), "");
    answer("250 ok\r\n");
    answer("250 ok\r\n");
    answer("354 go\r\n");
    assert_message("R-7-1", "");
    cr_assert_eq(answer("250 ok\r\n"), BENCH_CLIENT_ACKED);
    cr_assert_eq(client.acked_message, 1);
    cr_assert_str_eq(taken(), "QUIT\r\n");
    end();
}

Test(bench_client, no_recipient_taken)
{
    run.pipeline = BENCH_PIPELINE_ENVELOPE;
    begin();
    answer("220 hi\r\n");
    answer("250 PIPELINING\r\n");
    cr_assert_eq(answer("220 surplus\r\n"), BENCH_CLIENT_NONE); /* MAIL */
    answer("550 no\r\n");
    taken();
    answer("354 go all the same\r\n");
    cr_assert_str_eq(taken(), ".\r\n");
    cr_assert_eq(answer("250 ok\r\n"), BENCH_CLIENT_REFUSED);
    taken();
    answer("550 no\r\n");
    answer("503 no\r\n");
    cr_assert_eq(answer("503 no\r\n"), BENCH_CLIENT_REFUSED);
    cr_assert_str_eq(taken(), "RSET\r\n");
    cr_assert_eq(client.message, 0);
    end();
}

Test(bench_client, starttls_then_auth)
{
    run.starttls = true;
    run.auth_user = "user";
    run.auth_password = "secret";
    run.hold = true;
    begin();
    answer("220 hi\r\n");
    taken();
    answer("250-x\r\n250 STARTTLS\r\n");
    cr_assert_str_eq(taken(), "STARTTLS\r\n");
    cr_assert_eq(answer("220 go\r\n"), BENCH_CLIENT_WANT_TLS);
    bench_client_tls_up(&client, false);
    cr_assert_str_eq(taken(), "EHLO h\r\n");
    answer("250-x\r\n250 AUTH LOGIN PLAIN\r\n");
    cr_assert_str_eq(taken(), "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n");
    cr_assert_eq(answer("235 ok\r\n"), BENCH_CLIENT_READY);
    bench_client_quit(&client);
    cr_assert_str_eq(taken(), "QUIT\r\n");
    cr_assert_eq(answer("221 bye\r\n"), BENCH_CLIENT_DONE);
    end();
}

Test(bench_client, errors_end_the_session)
{
    begin();
    cr_assert_eq(answer("554 no\r\n"), BENCH_CLIENT_ERROR);
    bench_client_begin(&client, &run, 7);
    answer("220 hi\r\n");
    cr_assert_eq(answer("421 later\r\n"), BENCH_CLIENT_ERROR);
    run.starttls = true;
    bench_client_begin(&client, &run, 7);
    answer("220 hi\r\n");
    cr_assert_eq(answer("250 x\r\n"), BENCH_CLIENT_ERROR);
    end();
}

Test(bench_client, ids_survive_a_reconnect)
{
    begin();
    client.message = 41;
    bench_client_begin(&client, &run, 7);
    cr_assert_eq(client.message, 41);
    end();
}

Test(bench_client, every_size_makes_a_message_of_that_size)
{
    begin();
    for (run.message_size = 256; run.message_size < 600; run.message_size++) {
        run.claimed = 0;
        bench_buf_clear(&body);
        bench_client_make_body(&run, &body);
        struct bench_client fresh = {0};
        bench_client_free(&client);
        client = fresh;
        bench_client_begin(&client, &run, 0);
        answer("220 hi\r\n");
        answer("250 x\r\n");
        answer("250 ok\r\n");
        answer("250 ok\r\n");
        taken();
        answer("354 go\r\n");
        cr_assert_eq(strlen(taken()), run.message_size + 3);
        cr_assert_eq(memcmp(run.body + run.body_count - 2, "\r\n", 2), 0);
    }
    end();
}

/* ---- open loop ---- */

static void to_mail(void)
{
    answer("220 hi\r\n");
    answer("250 x\r\n");
    cr_assert_str_eq(taken(), "EHLO h\r\nMAIL FROM:<f7@x>\r\n");
}

static void through_message(void)
{
    answer("250 ok\r\n");
    answer("250 ok\r\n");
    answer("354 go\r\n");
    taken();
    cr_assert_eq(answer("250 ok\r\n"), BENCH_CLIENT_ACKED);
}

Test(bench_client, open_loop_waits_until_a_message_is_due)
{
    run = (struct bench_client_run){.open_loop = true, .due = 1, .messages_per_session = 2};
    begin();
    to_mail();
    through_message();
    cr_assert_eq(client.state, BENCH_CLIENT_WAIT);
    cr_assert_str_eq(taken(), "");
    cr_assert_not(bench_client_go(&client));
    run.due = 2;
    cr_assert(bench_client_go(&client));
    cr_assert_eq(client.claim, 1);
    cr_assert_str_eq(taken(), "MAIL FROM:<f7@x>\r\n");
    through_message();
    cr_assert_eq(client.acked_claim, 1);
    cr_assert_str_eq(taken(), "QUIT\r\n");
    end();
}

Test(bench_client, open_loop_takes_a_message_before_it_connects)
{
    run = (struct bench_client_run){
        .open_loop = true, .due = 1, .claim_at_connect = true, .messages_per_session = 1};
    client = (struct bench_client){0};
    run.claimed_max = 100;
    cr_assert(bench_client_claim(&client, &run));
    cr_assert_not(bench_client_claim(&(struct bench_client){0}, &run));
    begin();
    to_mail();
    cr_assert_eq(run.claimed, 1);
    end();
}

/* ---- sizes ---- */

Test(bench_client, a_mix_has_its_sizes_and_sums_to_a_hundred)
{
    const char *const names[] = {"mail", "small"};
    cr_assert_null(bench_size_mix_find("large"));
    for (size_t n = 0; n < 2; n++) {
        const struct bench_size_mix *mix = bench_size_mix_find(names[n]);
        unsigned percent = 0;
        uint64_t sum = 0, count = 20000, expected = 0;
        for (size_t i = 0; i < sizeof(mix->parts) / sizeof(mix->parts[0]); i++) {
            percent += mix->parts[i].percent;
            expected += (uint64_t)mix->parts[i].percent * mix->parts[i].bytes / 100;
        }
        cr_assert_eq(percent, 100);
        run = (struct bench_client_run){.mix = mix, .claimed_max = UINT64_MAX};
        begin();
        run.message_size = bench_size_mix_max(mix);
        bench_buf_clear(&body);
        bench_client_make_body(&run, &body);
        run.claimed_max = UINT64_MAX;
        to_mail();
        for (uint64_t i = 0; i < count; i++) {
            answer("250 ok\r\n");
            answer("250 ok\r\n");
            taken();
            answer("354 go\r\n");
            size_t size = bench_buf_count(&client.head) + client.body_left;
            cr_assert_leq(size, bench_size_mix_max(mix));
            cr_assert_eq(memcmp(client.body + client.body_left - 2, "\r\n", 2), 0);
            sum += size;
            bench_client_sent(&client, size + 3);
            answer("250 ok\r\n");
            taken();
        }
        cr_assert(sum / count > expected * 9 / 10 && sum / count < expected * 11 / 10,
                  "mean %llu, expected %llu", (unsigned long long)(sum / count),
                  (unsigned long long)expected);
        end();
    }
}

/* ---- faults ---- */

static void up_with(enum bench_fault fault)
{
    begin();
    client.fault = fault;
    answer("220 x\r\n");
    taken();
    answer("250-x\r\n250 PIPELINING\r\n");
}

Test(bench_client, a_bad_command_goes_before_the_envelope_once)
{
    run.messages_per_session = 2;
    up_with(BENCH_FAULT_BAD_COMMAND);
    cr_assert_str_eq(taken(), "FETCH 1 (FLAGS)\r\n");
    cr_assert(bench_client_in_fault(&client));
    cr_assert_eq(answer("500 what\r\n"), BENCH_CLIENT_FAULTED);
    cr_assert_eq(client.last_code, 500);
    cr_assert_str_eq(taken(), "MAIL FROM:<f7@x>\r\n");
    answer("250 a\r\n");
    answer("250 b\r\n");
    answer("354 c\r\n");
    taken();
    cr_assert_eq(answer("250 d\r\n"), BENCH_CLIENT_ACKED);
    cr_assert_str_eq(taken(), "MAIL FROM:<f7@x>\r\n");
    cr_assert_not(bench_client_in_fault(&client));
    end();
}

Test(bench_client, a_long_command_is_one_line)
{
    up_with(BENCH_FAULT_LONG_COMMAND);
    static char text[2 * BENCH_FAULT_COMMAND_BYTES];
    size_t count = bench_client_take(&client, text, sizeof(text));
    cr_assert_eq(count, BENCH_FAULT_COMMAND_BYTES);
    cr_assert_eq(memchr(text, '\n', count), text + count - 1);
    end();
}

static const char *message_with(enum bench_fault fault)
{
    up_with(fault);
    answer("250 a\r\n");
    answer("250 b\r\n");
    taken();
    answer("354 c\r\n");
    static char text[16384];
    size_t count = bench_client_take(&client, text, sizeof(text) - 1);
    text[count] = '\0';
    end();
    return text;
}

Test(bench_client, bodies_that_go_wrong)
{
    const char *text = message_with(BENCH_FAULT_VANISH_DATA);
    cr_assert(client.vanish_when_sent && client.fault_begun);
    cr_assert_null(strstr(text, "\r\n.\r\n"));
    text = message_with(BENCH_FAULT_VANISH_DOT);
    cr_assert(client.vanish_when_sent);
    cr_assert_not_null(strstr(text, "\r\n.\r\n"));
    text = message_with(BENCH_FAULT_HALF_CLOSE);
    cr_assert(client.shut_when_sent && !client.vanish_when_sent);
    text = message_with(BENCH_FAULT_BARE_LF);
    cr_assert_not_null(strstr(text, "without CR\nand"));
    text = message_with(BENCH_FAULT_LONG_LINE);
    const char *at = strstr(text, "long: ");
    cr_assert_eq(strchr(at, '\n') + 1 - at, BENCH_FAULT_LINE_BYTES);
    text = message_with(BENCH_FAULT_NONE);
    cr_assert(!client.fault_begun && !client.vanish_when_sent && !client.shut_when_sent);
}

Test(bench_client, vanishing_behind_mail_waits_for_its_reply)
{
    up_with(BENCH_FAULT_VANISH_MAIL);
    cr_assert_str_eq(taken(), "MAIL FROM:<f7@x>\r\n");
    cr_assert_eq(answer("250 a\r\n"), BENCH_CLIENT_VANISH);
    cr_assert(bench_client_in_fault(&client));
    end();
}

Test(bench_client, faults_are_drawn_by_the_seed)
{
    struct bench_fault_plan plan = {.seed = 3}, other = {.seed = 4};
    cr_assert_eq(bench_fault_draw(&plan, 1, 1), BENCH_FAULT_NONE);
    cr_assert_null(bench_fault_add(&plan, "slow=20"));
    cr_assert_null(bench_fault_add(&plan, "bare-lf=10"));
    cr_assert_not_null(bench_fault_add(&plan, "slow=71"));
    cr_assert_not_null(bench_fault_add(&plan, "slower=1"));
    cr_assert_not_null(bench_fault_add(&plan, "none=1"));
    cr_assert_not_null(bench_fault_add(&plan, "slow"));
    cr_assert_not_null(bench_fault_add(&plan, "slow=x"));
    cr_assert_null(bench_fault_add(&other, "slow=20"));
    unsigned drawn[BENCH_FAULT_COUNT] = {0}, differ = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        enum bench_fault fault = bench_fault_draw(&plan, i % 100, i / 100);
        cr_assert_eq(fault, bench_fault_draw(&plan, i % 100, i / 100));
        differ += fault != bench_fault_draw(&other, i % 100, i / 100);
        drawn[fault]++;
    }
    cr_assert(drawn[BENCH_FAULT_SLOW] > 1800 && drawn[BENCH_FAULT_SLOW] < 2200);
    cr_assert(drawn[BENCH_FAULT_BARE_LF] > 900 && drawn[BENCH_FAULT_BARE_LF] < 1100);
    cr_assert_eq(drawn[BENCH_FAULT_NONE] + drawn[BENCH_FAULT_SLOW] + drawn[BENCH_FAULT_BARE_LF],
                 10000);
    cr_assert(differ > 2000);
}
