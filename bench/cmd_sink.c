/*
 * bench/cmd_sink.c - the sink command: its options, then the loop in sink.c.
 *
 * Owns:     the configuration of the run.
 * Runs on:  one thread.
 * Contract: serves until SIGTERM or SIGINT, then prints its totals as one line of JSON.
 * Failure:  wrong use exits 2; an address in use or a folder that cannot be written exits 1.
 * Bounds:   BENCH_LISTENER_COUNT_MAX addresses, BENCH_RULE_COUNT_MAX rules.
 * Tests:    tests/unit/test_bench_smtpd.c, test_bench_script.c, test_bench_maildir.c
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/opts.h"
#include "bench/sink.h"

struct sink_options {
    struct sink *sink;
    struct bench_script script;
    const char *maildir, *record, *hostname;
    char certificate[1024], key[1024];
    char user[128], password[256];
    bool tls_implicit, tls_required;
    unsigned extensions;
    uint64_t message_size_max, stats_every_s, seconds, messages, idle_timeout_s;
};

static const char *option_bind(void *target, const char *text)
{
    struct sink *s = target;
    if (s->bind_count == BENCH_LISTENER_COUNT_MAX)
        return "too many addresses";
    const char *error = bench_addr_parse(&s->binds[s->bind_count], text);
    s->bind_count += error == NULL;
    return error;
}

static const char *option_reply(void *target, const char *text)
{
    return bench_script_add(target, BENCH_RULE_REPLY, text);
}

static const char *option_delay(void *target, const char *text)
{
    return bench_script_add(target, BENCH_RULE_DELAY, text);
}

static const char *option_rate(void *target, const char *text)
{
    return bench_script_add(target, BENCH_RULE_RATE, text);
}

static const char *option_drop(void *target, const char *text)
{
    return bench_script_add(target, BENCH_RULE_DROP, text);
}

static const char *option_drop_after(void *target, const char *text)
{
    return bench_script_add(target, BENCH_RULE_DROP_AFTER_DOT, text != NULL ? text : "eod");
}

static const char *option_script(void *target, const char *text)
{
    return bench_script_file(target, text);
}

/* A:B into two fields, split at the first colon. */
static const char *split(const char *text, char *first, size_t first_size, char *second,
                         size_t second_size)
{
    const char *colon = strchr(text, ':');
    if (colon == NULL || colon == text || colon[1] == '\0')
        return "expected two parts with : between them";
    if ((size_t)(colon - text) >= first_size || strlen(colon + 1) >= second_size)
        return "too long";
    snprintf(first, first_size, "%.*s", (int)(colon - text), text);
    snprintf(second, second_size, "%s", colon + 1);
    return NULL;
}

static const char *option_tls(void *target, const char *text)
{
    struct sink_options *o = target;
    return split(text, o->certificate, sizeof(o->certificate), o->key, sizeof(o->key));
}

static const char *option_auth(void *target, const char *text)
{
    struct sink_options *o = target;
    return split(text, o->user, sizeof(o->user), o->password, sizeof(o->password));
}

static const char *option_without(void *target, const char *text)
{
    static const struct {
        const char *name;
        unsigned bit;
    } names[] = {{"PIPELINING", BENCH_EXT_PIPELINING},
                 {"8BITMIME", BENCH_EXT_8BITMIME},
                 {"SMTPUTF8", BENCH_EXT_SMTPUTF8},
                 {"SIZE", BENCH_EXT_SIZE},
                 {"ENHANCEDSTATUSCODES", BENCH_EXT_ENHANCED},
                 {"STARTTLS", BENCH_EXT_STARTTLS},
                 {"AUTH", BENCH_EXT_AUTH}};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcasecmp(text, names[i].name) == 0) {
            *(unsigned *)target &= ~names[i].bit;
            return NULL;
        }
    }
    return "no such extension";
}

static const char summary[] =
    "A next hop for tests and benchmarks. Without --maildir it counts messages and throws them\n"
    "away. With --maildir it writes each to DIR/tmp, syncs it, renames it to DIR/new and only "
    "then\n"
    "answers 250. Dot-stuffing is undone; every line keeps its CRLF, nothing is added or changed,\n"
    "so that cmp against what was sent works. It serves until SIGTERM or SIGINT and then prints "
    "its\n"
    "totals as one line of JSON.\n"
    "\n"
    "Scripted rules are PHASE[~PATTERN][#N][=VALUE]: PHASE is banner, ehlo, starttls, auth, mail,\n"
    "rcpt, data, body (drop only), eod (end of data), quit, rset or noop; PATTERN is a glob on "
    "the\n"
    "sender (mail), the recipient (rcpt) or any accepted recipient (data, body, eod); #N: the "
    "first\n"
    "N times only. The first rule that matches counts. A reply of 421 also closes. For example:\n"
    "  --reply 'rcpt~bad*=550 5.1.1 No such user'   --reply 'eod#3=451 4.3.0 Try later'\n"
    "  --delay-ms eod=500   --rate eod=100   --drop-at body#1   --drop-after-dot";

static int parse(struct sink_options *o, int argc, char **argv)
{
    const struct bench_opt opts[] = {
        {"--bind", "ADDR:PORT", BENCH_OPT_CALL, o->sink, 0, 0, option_bind,
         "listen here; may be repeated; port 0 takes a free one and says which"},
        {"--maildir", "DIR", BENCH_OPT_STRING, &o->maildir, 0, 0, NULL,
         "keep messages in this Maildir, CRLF kept"},
        {"--record", "FILE", BENCH_OPT_STRING, &o->record, 0, 0, NULL,
         "append one JSON line for each message, before its 250"},
        {"--tls", "CERT:KEY", BENCH_OPT_CALL, o, 0, 0, option_tls, "PEM files; offers STARTTLS"},
        {"--tls-implicit", NULL, BENCH_OPT_FLAG, &o->tls_implicit, 0, 0, NULL,
         "TLS from the first byte"},
        {"--tls-required", NULL, BENCH_OPT_FLAG, &o->tls_required, 0, 0, NULL,
         "530 to MAIL and AUTH before TLS"},
        {"--auth", "USER:PASS", BENCH_OPT_CALL, o, 0, 0, option_auth,
         "offer AUTH PLAIN and LOGIN, and require it"},
        {"--reply", "RULE=CODE TEXT", BENCH_OPT_CALL, &o->script, 0, 0, option_reply,
         "answer this instead; \\n in TEXT makes several lines"},
        {"--delay-ms", "RULE=MS", BENCH_OPT_CALL, &o->script, 0, 0, option_delay,
         "wait before the answer"},
        {"--rate", "RULE=N", BENCH_OPT_CALL, &o->script, 0, 0, option_rate,
         "answer at most N a second, all connections together"},
        {"--rate-bytes", "N", BENCH_OPT_SIZE, &o->sink->rate_bytes, 0, UINT64_MAX / 2, NULL,
         "read at most N bytes a second, all connections together; 0: no limit (default)"},
        {"--drop-at", "RULE", BENCH_OPT_CALL, &o->script, 0, 0, option_drop,
         "close the connection instead of the answer; at eod nothing is kept"},
        {"--drop-after-dot", "RULE", BENCH_OPT_MAYBE, &o->script, 0, 0, option_drop_after,
         "keep the message, then close without the 250; RULE: eod[~PATTERN][#N]"},
        {"--script", "FILE", BENCH_OPT_CALL, &o->script, 0, 0, option_script,
         "rules from a file: lines of reply, delay, rate, drop or drop-after-dot and a RULE"},
        {"--without", "EXTENSION", BENCH_OPT_CALL, &o->extensions, 0, 0, option_without,
         "do not offer PIPELINING (or 8BITMIME, SMTPUTF8, SIZE, ENHANCEDSTATUSCODES, ...)"},
        {"--hostname", "NAME", BENCH_OPT_STRING, &o->hostname, 0, 0, NULL,
         "name in the greeting (sink.test)"},
        {"--max-size", "BYTES", BENCH_OPT_SIZE, &o->message_size_max, 0, UINT64_MAX, NULL,
         "552 above this; 0: no limit (default)"},
        {"--stats-every", "SECONDS", BENCH_OPT_COUNT, &o->stats_every_s, 0, 86400, NULL,
         "print totals this often"},
        {"--seconds", "N", BENCH_OPT_COUNT, &o->seconds, 0, BENCH_SECONDS_MAX, NULL,
         "stop after this time; 0: never (default)"},
        {"--messages", "N", BENCH_OPT_COUNT, &o->messages, 0, UINT64_MAX, NULL,
         "stop after this many messages; 0: never (default)"},
        {"--idle-timeout", "SECONDS", BENCH_OPT_COUNT, &o->idle_timeout_s, 0, 86400, NULL,
         "close a silent connection after this time (300); 0: never"},
    };
    const struct bench_opt_table table = {"sink", summary, opts, sizeof(opts) / sizeof(opts[0])};
    int status = bench_opts_parse(&table, argc, argv);
    if (status >= 0)
        return status;
    if (o->sink->bind_count == 0)
        return bench_opts_error(&table, "--bind ADDR:PORT is needed");
    if ((o->tls_implicit || o->tls_required) && o->certificate[0] == '\0')
        return bench_opts_error(&table, "--tls-implicit and --tls-required need --tls CERT:KEY");
    return -1;
}

static int fail(const char *what, const char *name, const char *why)
{
    fprintf(stderr, "hikyaku-bench sink: %s %s: %s\n", what, name, why);
    return BENCH_EXIT_FAILED;
}

static int prepare(struct sink *s, struct sink_options *o, struct bench_maildir *maildir)
{
    const char *why = NULL;
    s->config = (struct bench_smtpd_config){.hostname = o->hostname,
                                            .script = &o->script,
                                            .extensions = o->extensions,
                                            .message_size_max = o->message_size_max,
                                            .tls_available = o->certificate[0] != '\0',
                                            .tls_required = o->tls_required,
                                            .auth_user = o->user[0] != '\0' ? o->user : NULL,
                                            .auth_password = o->password,
                                            .hooks = &sink_hooks};
    s->tls_implicit = o->tls_implicit;
    s->idle_timeout_ms = o->idle_timeout_s * 1000;
    s->stats_every_ms = o->stats_every_s * 1000;
    s->stop_after_ms = o->seconds * 1000;
    s->stop_after_messages = o->messages;
    s->record_fd = -1;
    if (o->certificate[0] != '\0') {
        s->tls = bench_tls_server(o->certificate, o->key, &why);
        if (s->tls == NULL)
            return fail("--tls", o->certificate, why);
    }
    if (o->maildir != NULL) {
        why = bench_maildir_open(maildir, o->maildir);
        if (why != NULL) {
            fprintf(stderr, "hikyaku-bench sink: --maildir %s: %s: %s\n", o->maildir, why,
                    strerror(errno));
            return BENCH_EXIT_FAILED;
        }
        s->maildir = maildir;
    }
    if (o->record != NULL) {
        s->record_fd = open(o->record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (s->record_fd < 0)
            return fail("--record", o->record, strerror(errno));
    }
    return -1;
}

int bench_cmd_sink(int argc, char **argv)
{
    struct bench_maildir maildir = {.new_fd = -1};
    struct sink *s = calloc(1, sizeof(*s));
    struct sink_options *o = calloc(1, sizeof(*o));
    int status = BENCH_EXIT_FAILED;
    if (s == NULL || o == NULL)
        goto out;
    s->record_fd = -1;
    o->sink = s;
    o->hostname = "sink.test";
    o->extensions = BENCH_EXT_ALL;
    o->idle_timeout_s = 300;
    status = parse(o, argc, argv);
    if (status >= 0)
        goto out;
    status = prepare(s, o, &maildir);
    if (status >= 0)
        goto out;
    bench_stop_install();
    bench_net_raise_files(BENCH_SESSION_COUNT_MAX + 1024);
    status = BENCH_EXIT_FAILED;
    if (sink_start(s)) {
        sink_run(s);
        sink_print_totals(s);
        status = s->record_failed ? BENCH_EXIT_FAILED : BENCH_EXIT_OK;
        sink_stop(s);
    }
out:
    if (s != NULL) {
        bench_tls_context_free(s->tls);
        if (s->record_fd >= 0)
            close(s->record_fd);
    }
    bench_maildir_close(&maildir);
    free(o);
    free(s);
    return status;
}
