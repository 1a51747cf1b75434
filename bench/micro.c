/*
 * bench/micro.c - the cases of the micro command.
 *
 * Owns:     nothing; struct micro is the command's.
 * Runs on:  one thread.
 * Contract: each round does the same work; results end in m->sum.
 * Failure:  asserts where a part does not do what it should: a figure of that would mean nothing.
 * Bounds:   the sizes in micro.h.
 * Tests:    tests/system/test_bench_suite.py (every case runs)
 */
#include "bench/micro.h"

#include <assert.h>
#include <string.h>

#include "gateway/base/crc32c.h"
#include "gateway/limits.h"
#include "gateway/smtp/smtp_in.h"
#include "gateway/smtp/smtp_out.h"
#include "queue/record.h"
#include "routing/permit.h"
#include "routing/route.h"

#define CHUNK 65536u

static void run_copy_cached(struct micro *m, uint64_t rounds)
{
    for (uint64_t i = 0; i < rounds; i++) {
        memcpy(m->to, m->from, CHUNK);
        m->sum += m->to[i % CHUNK];
    }
}

static void run_copy_memory(struct micro *m, uint64_t rounds)
{
    for (uint64_t i = 0; i < rounds; i++) {
        memcpy(m->to, m->from, MICRO_LARGE);
        m->sum += m->to[i % MICRO_LARGE];
    }
}

static void run_crc(struct micro *m, uint64_t rounds)
{
    for (uint64_t i = 0; i < rounds; i++)
        m->sum += crc32c((uint32_t)i, m->from, 4096);
}

static void run_data(struct micro *m, const char *text, size_t len, uint64_t rounds)
{
    for (uint64_t i = 0; i < rounds; i++) {
        struct smtp_data d;
        struct slice in = slice_of(text, len), body;
        enum smtp_data_kind kind;
        smtp_data_start(&d, 0);
        while ((kind = smtp_data_step(&d, &in, &body)) != SMTP_DATA_END) {
            assert(kind != SMTP_DATA_NEED_INPUT);
            m->sum += kind == SMTP_DATA_BODY ? body.len : 0;
        }
    }
}

static void run_data_short(struct micro *m, uint64_t rounds)
{
    run_data(m, m->short_lines, m->short_len, rounds);
}

static void run_data_long(struct micro *m, uint64_t rounds)
{
    run_data(m, m->long_lines, m->long_len, rounds);
}

/* MAIL, RCPT and RSET of a session, with the owner's answers. */
static void run_commands(struct micro *m, uint64_t rounds)
{
    static const char text[] = "MAIL FROM:<sender17@bench.test> SIZE=4096\r\n"
                               "RCPT TO:<user4711@example.com>\r\nRSET\r\n";
    struct smtp_in_config config = {
        .fqdn = SLICE_LIT("bench.test"), .message_size_max = 1u << 30, .rcpt_count_max = 100};
    struct smtp_in s;
    struct smtp_in_event ev;
    uint8_t replies[8192];
    struct buf out = buf_over(replies, sizeof(replies));
    struct slice in = SLICE_LIT("EHLO client.bench.test\r\n");
    smtp_in_init(&s, &config, false);
    smtp_in_greet(&s, &out, NULL);
    while (smtp_in_step(&s, &in, &out, &ev) != SMTP_IN_NEED_INPUT)
        continue;
    for (uint64_t i = 0; i < rounds; i++) {
        enum smtp_in_event_kind kind;
        in = slice_of(text, sizeof(text) - 1);
        s.commands = s.idle_commands = 0;
        out.len = 0;
        while ((kind = smtp_in_step(&s, &in, &out, &ev)) != SMTP_IN_NEED_INPUT)
            if (kind == SMTP_IN_MAIL || kind == SMTP_IN_RCPT)
                smtp_in_answer(&s, &out, NULL, NULL);
        assert(!smtp_in_is_closing(&s) && !in.len);
        m->sum += out.len;
    }
}

static void run_record(struct micro *m, uint64_t rounds)
{
    for (uint64_t i = 0; i < rounds; i++) {
        struct record_header fields = {.type = 1, .sequence = i, .qid = i + 1}, seen;
        fields.length = record_round(RECORD_HEADER_SIZE + 4096);
        record_seal(m->to, 4096, &fields, 7, 4096);
        enum record_result good =
            record_check(slice_of(m->to, fields.length), 7, 4096, 64u << 20, &seen);
        assert(good == RECORD_GOOD);
        m->sum += seen.sequence + (uint64_t)good;
    }
}

static void run_route(struct micro *m, uint64_t rounds)
{
    for (uint64_t i = 0; i < rounds; i++) {
        char domain[] = "mail.d0000.example.com";
        for (uint64_t n = i * 7919 % MICRO_SPACES, at = 9; n; n /= 10, at--)
            domain[at] = (char)('0' + n % 10);
        struct route_query q = {.domain = slice_of(domain, sizeof(domain) - 1), .choice = i};
        struct route_answer a;
        route_choose(m->routes, &q, &a);
        assert(a.verdict == ROUTE_FOUND);
        m->sum += a.connector;
    }
}

static void run_permit(struct micro *m, uint64_t rounds)
{
    struct permit_borrower b;
    permit_borrower_init(&b, 1, 20);
    b.held = 20;
    for (uint64_t i = 0; i < rounds; i++) {
        m->sum += permit_take(&b);
        permit_give(&b);
    }
}

/* What the server encrypts, the client decrypts: two records' work a round. */
static void run_tls_record(struct micro *m, uint64_t rounds)
{
    for (uint64_t i = 0; i < rounds; i++) {
        size_t count = 0;
        enum bench_tls_result wrote = bench_tls_write(&m->tls_server, m->plain, 4096);
        assert(wrote == BENCH_TLS_OK);
        bench_buf_add(&m->tls_client.in, bench_buf_head(&m->tls_server.out),
                      bench_buf_count(&m->tls_server.out));
        bench_buf_clear(&m->tls_server.out);
        enum bench_tls_result read = bench_tls_read(&m->tls_client, m->plain, 4096, &count);
        assert(read == BENCH_TLS_OK);
        m->sum += count + (uint64_t)wrote + (uint64_t)read;
    }
}

const struct micro_case micro_cases[] = {
    {"copy-cached", "memcpy of 64 KiB: the limit for bytes in the cache", CHUNK, run_copy_cached},
    {"copy-memory", "memcpy of 64 MiB: the limit for bytes in memory", MICRO_LARGE,
     run_copy_memory},
    {"crc32c", "checksum of 4 KiB", 4096, run_crc},
    {"dots-short", "end of data, dots, CR and LF in 64 KiB of lines of 78 bytes", CHUNK,
     run_data_short},
    {"dots-long", "the same in lines of 998 bytes", CHUNK, run_data_long},
    {"commands", "MAIL, RCPT and RSET parsed and answered", 0, run_commands},
    {"record", "a record of 4 KiB sealed, and checked again", 4096, run_record},
    {"route", "a domain looked up in 10,000 address spaces", 0, run_route},
    {"permit", "a connection's permit taken and given back", 0, run_permit},
    {"tls-record", "4 KiB encrypted, and decrypted again (TLS 1.3, AES-128-GCM)", 4096,
     run_tls_record},
};
const size_t micro_case_count = sizeof(micro_cases) / sizeof(micro_cases[0]);
