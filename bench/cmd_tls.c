/*
 * bench/cmd_tls.c - the tls-handshake command: wolfSSL against itself in memory, the ceiling for
 * any server on this core.
 *
 * Owns:     both sides of one handshake at a time.
 * Runs on:  one thread; the CPU time of the server's steps is counted apart from the client's.
 * Contract: a handshake counts when both sides are done and the server's tickets are made; with
 *           --resume the server accepted the ticket.
 * Failure:  a handshake that fails ends the run with exit 1.
 * Bounds:   --seconds.
 * Tests:    run by hand; the same tls.c carries every TLS test of the bench.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/hist.h"
#include "bench/limits.h"
#include "bench/net.h"
#include "bench/opts.h"
#include "bench/tls.h"

struct handshakes {
    struct bench_tls_context *server, *client;
    struct bench_tls_session *ticket; /* NULL: full handshakes */
    uint64_t count, resumed, server_ns, client_ns, wall_ns;
    struct bench_hist server_hist;
    char cipher[96];
};

static void move_bytes(struct bench_tls *from, struct bench_tls *to)
{
    bench_buf_add(&to->in, bench_buf_head(&from->out), bench_buf_count(&from->out));
    bench_buf_clear(&from->out);
}

/* Both sides to the end; false: failed. */
static bool shake(struct handshakes *h, struct bench_tls *server, struct bench_tls *client,
                  uint64_t *server_ns)
{
    for (int step = 0; step < 16 && !(server->established && client->established); step++) {
        uint64_t begun = bench_clock_thread_ns();
        enum bench_tls_result result = BENCH_TLS_OK;
        if (!client->established)
            result = bench_tls_handshake(client);
        uint64_t middle = bench_clock_thread_ns();
        h->client_ns += middle - begun;
        if (result != BENCH_TLS_OK && result != BENCH_TLS_WANT)
            return false;
        move_bytes(client, server);
        middle = bench_clock_thread_ns();
        result = server->established ? BENCH_TLS_OK : bench_tls_handshake(server);
        *server_ns += bench_clock_thread_ns() - middle;
        if (result != BENCH_TLS_OK && result != BENCH_TLS_WANT)
            return false;
        move_bytes(server, client);
    }
    return server->established && client->established;
}

static bool one(struct handshakes *h, bool keep_ticket)
{
    struct bench_tls server = {0}, client = {0};
    uint64_t begun = bench_clock_thread_ns();
    bool good = bench_tls_start(&server, h->server, NULL);
    uint64_t server_ns = bench_clock_thread_ns() - begun;
    good = good && bench_tls_start(&client, h->client, NULL);
    if (good && h->ticket != NULL)
        bench_tls_session_use(&client, h->ticket);
    good = good && shake(h, &server, &client, &server_ns);
    if (good) {
        char byte;
        size_t count = 0;
        bench_tls_read(&client, &byte, 1, &count); /* takes the ticket */
        h->resumed += bench_tls_resumed(&server);
        snprintf(h->cipher, sizeof(h->cipher), "%s", bench_tls_describe(&server));
        if (keep_ticket)
            h->ticket = bench_tls_session_take(&client);
    }
    bench_tls_free(&client);
    begun = bench_clock_thread_ns();
    bench_tls_free(&server);
    server_ns += bench_clock_thread_ns() - begun;
    h->server_ns += server_ns;
    h->count++;
    bench_hist_record(&h->server_hist, server_ns);
    return good;
}

static void print_result(const struct handshakes *h, bool json)
{
    double server_us = (double)h->server_ns / 1e3 / (double)h->count;
    double client_us = (double)h->client_ns / 1e3 / (double)h->count;
    if (json) {
        printf("{\"handshakes\":%" PRIu64 ",\"resumed\":%" PRIu64
               ",\"cipher\":\"%s\",\"server_us\":%.2f,\"client_us\":%.2f"
               ",\"server_handshakes_per_second\":%.1f,\"server_us_p99\":%.2f}\n",
               h->count, h->resumed, h->cipher, server_us, client_us, 1e6 / server_us,
               (double)bench_hist_quantile(&h->server_hist, 0.99) / 1e3);
        return;
    }
    printf("handshakes         %" PRIu64 " (%" PRIu64 " resumed), %s\n", h->count, h->resumed,
           h->cipher);
    printf("server side        %.1f us CPU each (p50 %.1f, p99 %.1f): %.0f a second on one core\n",
           server_us, (double)bench_hist_quantile(&h->server_hist, 0.5) / 1e3,
           (double)bench_hist_quantile(&h->server_hist, 0.99) / 1e3, 1e6 / server_us);
    printf("client side        %.1f us CPU each\n", client_us);
}

static int measure(struct handshakes *h, uint64_t seconds, bool resume, bool json)
{
    if (resume && (!one(h, true) || h->ticket == NULL)) {
        fprintf(stderr, "hikyaku-bench tls-handshake: no session to resume\n");
        return BENCH_EXIT_FAILED;
    }
    h->count = h->resumed = h->server_ns = h->client_ns = 0;
    bench_hist_init(&h->server_hist);
    uint64_t end = bench_clock_ns() + seconds * 1000000000ull;
    while (!bench_stop_requested && bench_clock_ns() < end) {
        if (!one(h, false)) {
            fprintf(stderr, "hikyaku-bench tls-handshake: a handshake failed\n");
            return BENCH_EXIT_FAILED;
        }
    }
    if (h->count == 0)
        return BENCH_EXIT_FAILED;
    print_result(h, json);
    return BENCH_EXIT_OK;
}

int bench_cmd_tls_handshake(int argc, char **argv)
{
    struct handshakes h = {0};
    const char *certificate = NULL, *key = NULL, *version = "1.3", *why = NULL;
    uint64_t seconds = 5;
    bool resume = false, json = false;
    const struct bench_opt opts[] = {
        {"--certificate", "FILE", BENCH_OPT_STRING, &certificate, 0, 0, NULL,
         "PEM, P-256 or RSA: it decides what is measured"},
        {"--key", "FILE", BENCH_OPT_STRING, &key, 0, 0, NULL, "PEM"},
        {"--tls-version", "V", BENCH_OPT_STRING, &version, 0, 0, NULL, "1.2 or 1.3 (1.3)"},
        {"--seconds", "N", BENCH_OPT_COUNT, &seconds, 1, BENCH_SECONDS_MAX, NULL, "(5)"},
        {"--resume", NULL, BENCH_OPT_FLAG, &resume, 0, 0, NULL, "resumed handshakes"},
        {"--json", NULL, BENCH_OPT_FLAG, &json, 0, 0, NULL, "one line of JSON on stdout"},
    };
    const struct bench_opt_table table = {
        "tls-handshake",
        "Raw handshakes with the wolfSSL that the gateway is linked with, both sides in memory on\n"
        "one core, the server's CPU counted apart. Session objects are made and freed each time.\n"
        "  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "
        "/CN=localhost "
        "\\\n    -keyout key.pem -out certificate.pem      (or -newkey rsa:2048)",
        opts, sizeof(opts) / sizeof(opts[0])};
    int status = bench_opts_parse(&table, argc, argv);
    if (status >= 0)
        return status;
    if (certificate == NULL || key == NULL)
        return bench_opts_error(&table, "--certificate and --key are needed");
    h.server = bench_tls_server(certificate, key, &why);
    if (h.server != NULL)
        h.client = bench_tls_client(version, &why);
    bench_stop_install();
    if (h.client != NULL) {
        status = measure(&h, seconds, resume, json);
    } else {
        fprintf(stderr, "hikyaku-bench tls-handshake: %s\n", why);
        status = BENCH_EXIT_FAILED;
    }
    bench_tls_session_free(h.ticket);
    bench_tls_context_free(h.client);
    bench_tls_context_free(h.server);
    return status;
}
