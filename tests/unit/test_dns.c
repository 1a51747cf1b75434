/*
 * Lookups over libunbound against a small name server in a thread of this test (FAULTS 71 to 73).
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "routing/dns.h"
#include "routing/dns_packet.h"

/* ---- the name server ---- */

struct server {
    int udp, tcp;
    uint16_t port;
    pthread_t thread;
    atomic_bool stop;
    atomic_uint udp_count, tcp_count;
};

struct reply {
    uint8_t bytes[4096];
    size_t len;
    unsigned answers;
    unsigned rcode;
    bool truncated, silent;
};

static void u16(struct reply *r, unsigned v)
{
    r->bytes[r->len++] = (uint8_t)(v >> 8);
    r->bytes[r->len++] = (uint8_t)v;
}

static void put_name(struct reply *r, const char *text)
{
    while (*text) {
        size_t n = strcspn(text, ".");
        r->bytes[r->len++] = (uint8_t)n;
        memcpy(r->bytes + r->len, text, n);
        r->len += n;
        text += n + (text[n] == '.');
    }
    r->bytes[r->len++] = 0;
}

static void put_rr(struct reply *r, const char *owner, unsigned type, unsigned data_len)
{
    if (owner)
        put_name(r, owner);
    else
        u16(r, 0xc00c);
    u16(r, type), u16(r, 1), u16(r, 0), u16(r, 300), u16(r, data_len);
    r->answers++;
}

static void put_mx(struct reply *r, unsigned preference, const char *host)
{
    put_rr(r, NULL, DNS_TYPE_MX, 0);
    size_t at = r->len;
    u16(r, preference);
    put_name(r, host);
    r->bytes[at - 1] = (uint8_t)(r->len - at);
}

static void put_a(struct reply *r, const char *owner, const char *text)
{
    put_rr(r, owner, DNS_TYPE_A, 4);
    inet_pton(AF_INET, text, r->bytes + r->len);
    r->len += 4;
}

static void put_aaaa(struct reply *r, const char *text)
{
    put_rr(r, NULL, DNS_TYPE_AAAA, 16);
    inet_pton(AF_INET6, text, r->bytes + r->len);
    r->len += 16;
}

static bool is(const char *name, const char *other)
{
    return strcasecmp(name, other) == 0;
}

/* What this server knows. */
static void answer(struct reply *r, const char *name, unsigned type, bool tcp)
{
    bool v4 = type == DNS_TYPE_A, v6 = type == DNS_TYPE_AAAA;
    if (is(name, "two.example") && type == DNS_TYPE_MX) {
        put_mx(r, 20, "b.two.example");
        put_mx(r, 10, "A.two.example");
    } else if (is(name, "null.example") && type == DNS_TYPE_MX) {
        put_mx(r, 0, "");
    } else if (is(name, "nx.example")) {
        r->rcode = 3;
    } else if (is(name, "fail.example")) {
        r->rcode = 2;
    } else if (is(name, "refused.example")) {
        r->rcode = 5;
    } else if (strstr(name, "silent")) {
        r->silent = true;
    } else if (is(name, "big.example") && type == DNS_TYPE_MX) {
        r->truncated = !tcp;
        for (unsigned i = 0; i < 40 && tcp; i++) {
            char host[32];
            snprintf(host, sizeof host, "h%u.big.example", i);
            put_mx(r, 40 - i, host);
        }
    } else if (is(name, "host.example") && (v4 || v6)) {
        if (v4)
            put_a(r, NULL, "192.0.2.1"), put_a(r, NULL, "192.0.2.2");
        else
            put_aaaa(r, "2001:db8::1");
    } else if (is(name, "alias.example") && v4) {
        put_rr(r, NULL, 5, 14), put_name(r, "host.example");
        put_a(r, "host.example", "192.0.2.1");
    } else if (is(name, "v4.example") || is(name, "inside.test") || strstr(name, ".many.example")) {
        if (v4)
            put_a(r, NULL, "192.0.2.3");
    } else if (is(name, "half.example")) {
        if (v4)
            put_a(r, NULL, "192.0.2.4");
        r->silent = v6;
    } else if (is(name, "broken6.example")) {
        if (v4)
            put_a(r, NULL, "192.0.2.5");
        r->rcode = v6 ? 2 : 0;
    } else if (is(name, "garbage.example")) {
        put_rr(r, NULL, type, 500); /* data that is not there */
    }
}

/* Answers one question; false: says nothing. */
static bool respond(const uint8_t *in, size_t len, bool tcp, struct reply *r)
{
    char name[256];
    size_t at = 12, out = 0;
    if (len < 17)
        return false;
    while (at < len && in[at] && at + in[at] + 5 < len && out + in[at] < 250) {
        if (out)
            name[out++] = '.';
        memcpy(name + out, in + at + 1, in[at]);
        out += in[at];
        at += in[at] + 1u;
    }
    name[out] = '\0';
    size_t question = at + 5 - 12;
    unsigned type = (unsigned)(in[at + 1] << 8 | in[at + 2]);
    r->len = r->answers = r->rcode = 0;
    r->truncated = r->silent = false;
    memcpy(r->bytes, in, 12 + question);
    r->len = 12 + question;
    answer(r, name, type, tcp);
    r->bytes[2] = (uint8_t)(0x84 | (in[2] & 1) | (r->truncated ? 2 : 0));
    r->bytes[3] = (uint8_t)(0x80 | r->rcode);
    r->bytes[4] = 0, r->bytes[5] = 1;
    r->bytes[6] = 0, r->bytes[7] = (uint8_t)r->answers;
    memset(r->bytes + 8, 0, 4);
    return !r->silent;
}

static void serve_udp(struct server *s, struct reply *r)
{
    uint8_t in[2048];
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    ssize_t n = recvfrom(s->udp, in, sizeof in, 0, (struct sockaddr *)&from, &from_len);
    s->udp_count++;
    if (n > 0 && respond(in, (size_t)n, false, r))
        sendto(s->udp, r->bytes, r->len, 0, (struct sockaddr *)&from, from_len);
}

static void serve_tcp(struct server *s, struct reply *r)
{
    uint8_t in[2048];
    int fd = accept(s->tcp, NULL, NULL);
    struct pollfd ready = {fd, POLLIN, 0};
    while (poll(&ready, 1, 500) > 0) {
        ssize_t n = recv(fd, in, 2, MSG_WAITALL);
        size_t len = (size_t)(in[0] << 8 | in[1]);
        if (n != 2 || len > sizeof in || recv(fd, in, len, MSG_WAITALL) != (ssize_t)len)
            break;
        s->tcp_count++;
        if (!respond(in, len, true, r))
            continue;
        uint8_t head[2] = {(uint8_t)(r->len >> 8), (uint8_t)r->len};
        send(fd, head, 2, MSG_NOSIGNAL | MSG_MORE);
        send(fd, r->bytes, r->len, MSG_NOSIGNAL);
    }
    close(fd);
}

static void *serve(void *arg)
{
    struct server *s = arg;
    struct reply *r = malloc(sizeof *r);
    while (!s->stop) {
        struct pollfd fds[2] = {{s->udp, POLLIN, 0}, {s->tcp, POLLIN, 0}};
        if (poll(fds, 2, 20) <= 0)
            continue;
        if (fds[0].revents)
            serve_udp(s, r);
        if (fds[1].revents)
            serve_tcp(s, r);
    }
    free(r);
    return NULL;
}

static void server_start(struct server *s)
{
    struct sockaddr_in addr;
    memset(s, 0, sizeof *s);
    for (int attempt = 0;; attempt++) {
        socklen_t len = sizeof addr;
        cr_assert_lt(attempt, 50);
        memset(&addr, 0, sizeof addr);
        addr.sin_family = AF_INET;
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        s->udp = socket(AF_INET, SOCK_DGRAM, 0);
        s->tcp = socket(AF_INET, SOCK_STREAM, 0);
        cr_assert_eq(bind(s->udp, (struct sockaddr *)&addr, sizeof addr), 0);
        getsockname(s->udp, (struct sockaddr *)&addr, &len);
        if (bind(s->tcp, (struct sockaddr *)&addr, sizeof addr) == 0 && listen(s->tcp, 8) == 0)
            break;
        close(s->udp);
        close(s->tcp);
    }
    s->port = ntohs(addr.sin_port);
    pthread_create(&s->thread, NULL, serve, s);
}

static void server_stop(struct server *s)
{
    s->stop = true;
    pthread_join(s->thread, NULL);
    close(s->udp);
    close(s->tcp);
}

/* ---- asking ---- */

struct asked {
    struct dns_query query; /* first */
    struct dns_answer answer;
    uint32_t done;
};

static struct server server;
static struct io *io;
static struct dns *dns;
static _Thread_local bool inside; /* a call that must not answer by itself */

/* Answers come from timers, and a turn sleeps after those: ticks end the sleep. */
struct ticker {
    struct timer timer; /* first */
    struct io *io;
};

static void tick(struct timer *t)
{
    struct ticker *k = (struct ticker *)t;
    io_timer_set(k->io, t, io_now_ns(k->io) + 2 * NS_PER_MS);
}

static void asked_done(struct dns_query *q, const struct dns_answer *a)
{
    struct asked *k = (struct asked *)q;
    cr_assert_not(inside, "answered from inside the question");
    k->answer = *a;
    k->done++;
}

static void open_dns(uint64_t timeout_ns, bool dnssec)
{
    struct io_params ip = {.fd_count_max = 16, .cpu = -1};
    struct io_addr forwarder;
    struct why why = {0};
    server_start(&server);
    io = io_create(&ip, &why);
    cr_assert(io, "%s", why.text);
    cr_assert(io_addr_parse(&forwarder, SLICE_LIT("127.0.0.1"), server.port));
    struct dns_params p = {.io = io,
                           .servers = &forwarder,
                           .server_count = 1,
                           .dnssec = dnssec,
                           .timeout_ns = timeout_ns};
    dns = dns_create(&p, &why);
    cr_assert(dns, "%s", why.text);
}

static void close_dns(void)
{
    dns_destroy(dns);
    dns = NULL;
    for (int i = 0; i < 5; i++)
        io_turn(io, false); /* cancelled polls end */
    io_destroy(io);
    server_stop(&server);
}

/* Turns the loop until `k` was answered, or for a number of milliseconds. */
static bool turn_until(struct asked *k, uint64_t ms)
{
    struct ticker ticker = {.timer = {.fire = tick}, .io = io};
    uint64_t end = io_now_ns(io) + ms * NS_PER_MS;
    tick(&ticker.timer);
    while (!(k && k->done) && io_now_ns(io) < end)
        io_turn(io, true);
    io_timer_clear(io, &ticker.timer);
    return k && k->done;
}

static void ask(struct asked *k, const char *name, bool mx)
{
    memset(k, 0, sizeof *k);
    k->query.done = asked_done;
    inside = true;
    (mx ? dns_mx : dns_addr)(dns, &k->query, name);
    inside = false;
}

static const struct dns_answer *get(const char *name, bool mx)
{
    static struct asked k;
    ask(&k, name, mx);
    cr_assert(turn_until(&k, 20000), "%s was never answered", name);
    cr_assert_eq(k.done, 1);
    return &k.answer;
}

static const char *addrs(const struct dns_answer *a)
{
    static char text[1024];
    char one[IO_ADDR_TEXT_MAX];
    int len = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < a->addr_count; i++)
        len += snprintf(text + len, sizeof text - (size_t)len, "%s%s", i ? " " : "",
                        io_addr_text(&a->addr[i], false, one));
    return text;
}

Test(dns, answers)
{
    const struct dns_answer *a;
    open_dns(5 * NS_PER_S, false);

    a = get("two.example", true);
    cr_expect_eq(a->status, DNS_OK);
    cr_assert_eq(a->mx_count, 2);
    cr_expect_eq(a->mx[0].preference + a->mx[1].preference, 30);
    const struct dns_mx *best = a->mx[0].preference == 10 ? &a->mx[0] : &a->mx[1];
    cr_expect_str_eq(best->host, "a.two.example");
    cr_expect(a->ttl_s > 290 && a->ttl_s <= 300);
    cr_expect_not(a->secure);
    cr_expect_str_eq(a->text, "");

    a = get("null.example", true);
    cr_expect_eq(a->status, DNS_OK);
    cr_assert_eq(a->mx_count, 1);
    cr_expect_str_eq(a->mx[0].host, "");

    a = get("host.example", false);
    cr_expect_eq(a->status, DNS_OK);
    cr_expect(strcmp(addrs(a), "2001:db8::1 192.0.2.1 192.0.2.2") == 0 ||
                  strcmp(addrs(a), "2001:db8::1 192.0.2.2 192.0.2.1") == 0,
              "%s", addrs(a));
    cr_expect_eq(io_addr_port(&a->addr[0]), 0);

    a = get("v4.example", false);
    cr_expect_eq(a->status, DNS_OK);
    cr_expect_str_eq(addrs(a), "192.0.2.3");
    a = get("alias.example", false);
    cr_expect_eq(a->status, DNS_OK);
    cr_expect(strstr(addrs(a), "192.0.2.1"), "%s", addrs(a));
    cr_expect_str_eq(addrs(get("inside.test", false)), "192.0.2.3", "test. is not blocked");
    close_dns();
}

Test(dns, no_and_no_idea_are_different)
{
    open_dns(3 * NS_PER_S, false);
    cr_expect_eq(get("nx.example", true)->status, DNS_NXDOMAIN);
    cr_expect_eq(get("nx.example", false)->status, DNS_NXDOMAIN);
    cr_expect_eq(get("v4.example", true)->status, DNS_NODATA);
    cr_expect_eq(get("nobody.example", false)->status, DNS_NODATA);
    const struct dns_answer *a = get("fail.example", true);
    cr_expect_eq(a->status, DNS_TEMPORARY);
    cr_expect_str_eq(a->text, "the name server said SERVFAIL");
    cr_expect_eq(get("refused.example", true)->status, DNS_TEMPORARY);
    cr_expect_eq(get("garbage.example", false)->status, DNS_TEMPORARY);
    /* one family broken: the other will do */
    a = get("broken6.example", false);
    cr_expect_eq(a->status, DNS_OK);
    cr_expect_str_eq(addrs(a), "192.0.2.5");
    close_dns();
}

Test(dns, silence_ends_at_the_time_limit)
{
    open_dns(400 * NS_PER_MS, false);
    uint64_t before = io_now_ns(io);
    const struct dns_answer *a = get("silent.example", true);
    uint64_t took_ms = (io_now_ns(io) - before) / NS_PER_MS;
    cr_expect_eq(a->status, DNS_TEMPORARY);
    cr_expect_str_eq(a->text, "no answer within 400 ms");
    cr_expect(took_ms >= 400 && took_ms < 20000, "%lu ms", (unsigned long)took_ms);
    a = get("half.example", false);
    cr_expect_eq(a->status, DNS_OK, "what is known by then");
    cr_expect_str_eq(addrs(a), "192.0.2.4");
    close_dns();
}

Test(dns, truncated_answers_are_asked_again_over_tcp)
{
    open_dns(5 * NS_PER_S, false);
    const struct dns_answer *a = get("big.example", true);
    cr_expect_eq(a->status, DNS_OK);
    cr_expect_eq(a->mx_count, DNS_MX_MAX, "bounded");
    for (uint32_t i = 0; i < a->mx_count; i++)
        cr_expect_leq(a->mx[i].preference, DNS_MX_MAX, "the best are kept");
    cr_expect_geq(server.tcp_count, 1);
    close_dns();
}

Test(dns, answers_from_the_cache_come_later_too)
{
    open_dns(5 * NS_PER_S, false);
    get("two.example", true);
    uint32_t asked = server.udp_count;
    for (int i = 0; i < 10; i++)
        cr_expect_eq(get("Two.Example.", true)->mx_count, 2);
    cr_expect_eq(server.udp_count, asked);
    close_dns();
}

Test(dns, literals_and_impossible_names_ask_nobody)
{
    char longest[300];
    open_dns(5 * NS_PER_S, false);
    cr_expect_str_eq(addrs(get("192.0.2.77", false)), "192.0.2.77");
    cr_expect_str_eq(addrs(get("2001:db8::77", false)), "2001:db8::77");
    cr_expect_eq(get("a..b", true)->status, DNS_NXDOMAIN);
    cr_expect_eq(get("", false)->status, DNS_NXDOMAIN);
    cr_expect_eq(get("a?b.example", false)->status, DNS_NXDOMAIN);
    memset(longest, 'x', sizeof longest);
    longest[299] = '\0';
    cr_expect_eq(get(longest, true)->status, DNS_NXDOMAIN);
    cr_expect_eq(get("localhost", false)->status, DNS_OK);
    cr_expect_eq(server.udp_count, 0);
    close_dns();
}

Test(dns, an_unsigned_root_is_bogus)
{
    open_dns(5 * NS_PER_S, true);
    const struct dns_answer *a = get("host.example", false);
    cr_expect(a->status == DNS_BOGUS || a->status == DNS_TEMPORARY, "%d", a->status);
    cr_expect_eq(a->addr_count, 0);
    cr_expect_not(a->secure);
    cr_expect(a->text[0]);
    close_dns();
}

/* ---- cancelling and ending at any moment ---- */

static uint32_t cancel(struct asked *k)
{
    if (k->done || k->query.done != asked_done)
        return 0;
    dns_cancel(&k->query);
    dns_cancel(&k->query);
    memset(&k->query, 0xee, sizeof k->query);
    return 1;
}

Test(dns, cancel_at_any_moment)
{
    static struct asked many[400];
    open_dns(300 * NS_PER_MS, false);
    dns_cancel(&(struct dns_query){0});
    uint32_t cancelled = 0, answered = 0;
    for (uint32_t i = 0; i < 400; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s%u.many.example", i % 5 ? "n" : "silent", i / 2);
        ask(&many[i], i % 7 ? name : "192.0.2.9", i % 3 == 0);
        if (i % 12 == 1)
            cancelled += cancel(&many[i]); /* at once */
    }
    for (uint32_t i = 0; i < 400; i++) { /* as far as the time limit has not ended them */
        if (i % 3 == 1)
            cancelled += cancel(&many[i]);
        if (i % 10 == 0)
            io_turn(io, false);
    }
    for (uint32_t i = 0; i < 400; i++) {
        if (!many[i].done && many[i].query.done == asked_done)
            turn_until(&many[i], 20000);
        answered += many[i].done;
    }
    cr_expect_gt(cancelled, 20);
    cr_expect_eq(answered, 400 - cancelled, "%u of 400, %u cancelled", answered, cancelled);
    close_dns();
}

Test(dns, destroy_with_lookups_under_way)
{
    static struct asked many[60];
    for (int turns = 0; turns < 6; turns++) {
        open_dns(5 * NS_PER_S, false);
        for (uint32_t i = 0; i < 60; i++) {
            char name[64];
            snprintf(name, sizeof name, "%s%u.many.example", i % 2 ? "n" : "silent", i);
            ask(&many[i], i % 20 ? name : "192.0.2.9", false);
        }
        for (int i = 0; i < turns * 3; i++)
            io_turn(io, false);
        uint32_t before = 0, after = 0;
        for (uint32_t i = 0; i < 60; i++)
            before += many[i].done;
        close_dns();
        for (uint32_t i = 0; i < 60; i++)
            after += many[i].done;
        cr_expect_eq(before, after, "no callback after the end");
    }
}

static void ask_again(struct dns_query *q, const struct dns_answer *a)
{
    struct asked *k = (struct asked *)q;
    cr_assert_eq(a->status, DNS_OK);
    if (++k->done < 5)
        dns_addr(dns, q, k->done % 2 ? "host.example" : "v4.example");
}

Test(dns, a_callback_may_ask_again)
{
    static struct asked k;
    open_dns(5 * NS_PER_S, false);
    k.query.done = ask_again;
    dns_addr(dns, &k.query, "v4.example");
    for (int i = 0; i < 1000 && k.done < 5; i++)
        turn_until(NULL, 20);
    cr_expect_eq(k.done, 5);
    turn_until(NULL, 50);
    cr_expect_eq(k.done, 5, "and no sixth");
    close_dns();
}

static void end_it(struct dns_query *q, const struct dns_answer *a)
{
    struct asked *k = (struct asked *)q;
    dns_destroy(dns);
    dns = NULL;
    k->answer = *a;
    k->done++;
}

Test(dns, a_callback_may_destroy)
{
    static struct asked k, other;
    open_dns(5 * NS_PER_S, false);
    k.query.done = end_it;
    dns_addr(dns, &k.query, "v4.example");
    ask(&other, "silent.example", true);
    cr_assert(turn_until(&k, 20000));
    cr_expect_str_eq(addrs(&k.answer), "192.0.2.3");
    turn_until(NULL, 100);
    cr_expect_eq(other.done, 0);
    close_dns();
}

Test(dns, more_than_it_will_hold_is_said_and_not_lost)
{
    enum { COUNT = DNS_LOOKUPS_MAX + 200 };
    static struct asked *many;
    uint32_t busy = 0, answered = 0;
    open_dns(1500 * NS_PER_MS, false);
    many = calloc(COUNT, sizeof *many);
    for (uint32_t i = 0; i < COUNT; i++) {
        char name[64];
        snprintf(name, sizeof name, "silent%u.example", i % 100);
        ask(&many[i], name, true);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        turn_until(&many[i], 20000);
        answered += many[i].done;
        busy += strcmp(many[i].answer.text, "too many lookups are under way") == 0;
    }
    cr_expect_eq(answered, COUNT);
    cr_expect_eq(busy, 200, "%u", busy);
    cr_expect_eq(many[COUNT - 1].answer.status, DNS_TEMPORARY);
    close_dns();
    free(many);
}

/* ---- several shards ---- */

static void *one_shard(void *arg)
{
    struct io_params ip = {.fd_count_max = 16, .cpu = -1};
    struct why why = {0};
    struct io *own_io = io_create(&ip, &why);
    for (int i = 0; own_io && i < 3; i++) {
        struct dns_params p = {
            .io = own_io, .servers = arg, .server_count = 1, .timeout_ns = 5 * NS_PER_S};
        struct dns *d = dns_create(&p, &why);
        struct asked k = {.query = {.done = asked_done}};
        if (!d)
            return "no resolver";
        dns_addr(d, &k.query, "host.example");
        struct ticker ticker = {.timer = {.fire = tick}, .io = own_io};
        tick(&ticker.timer);
        while (!k.done)
            io_turn(own_io, true);
        io_timer_clear(own_io, &ticker.timer);
        dns_destroy(d);
        if (k.answer.addr_count != 3)
            return "wrong answer";
    }
    for (int i = 0; own_io && i < 5; i++)
        io_turn(own_io, false);
    if (own_io)
        io_destroy(own_io);
    return own_io ? NULL : "no io";
}

Test(dns, resolvers_of_several_threads)
{
    pthread_t threads[4];
    struct io_addr forwarder;
    server_start(&server);
    cr_assert(io_addr_parse(&forwarder, SLICE_LIT("127.0.0.1"), server.port));
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, one_shard, &forwarder);
    for (int i = 0; i < 4; i++) {
        void *fault;
        pthread_join(threads[i], &fault);
        cr_expect_null(fault, "%s", (char *)fault);
    }
    server_stop(&server);
}

Test(dns, without_servers_takes_those_of_the_system)
{
    struct io_params ip = {.fd_count_max = 16, .cpu = -1};
    struct why why = {0};
    server_start(&server);
    io = io_create(&ip, &why);
    cr_assert(io);
    dns = dns_create(&(struct dns_params){.io = io}, &why);
    cr_assert(dns, "%s", why.text);
    cr_expect_eq(get("localhost", false)->status, DNS_OK);
    close_dns();
}
