/*
 * gateway/ctl/main.c - hikyakuctl: the operator's command (INTERFACES.md section 2).
 *
 * Owns:     nothing.
 * Runs on:  its only thread.
 * Contract: exit 0 done, 1 the gateway said no, 2 wrong use. Errors go to stderr, one line, and
 *           say what to do.
 * Failure:  as said.
 * Bounds:   none.
 * Tests:    tests/system (queue commands)
 */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/auth/auth.h"
#include "gateway/base/path.h"
#include "gateway/ctl/client.h"
#include "gateway/ctl/doctor.h"
#include "gateway/ctl/print.h"
#include "gateway/ctl/probe.h"
#include "gateway/limits.h"
#include "gateway/tracking_find.h"

#define EXIT_USE        2
#define PROBE_TIMEOUT_S 10
#define PROBE_WAIT_S    30

static const char usage[] =
    "usage: hikyakuctl [--socket PATH] [--json] COMMAND\n"
    "  status                                        what the gateway does\n"
    "  queue list [--filter EXPR] [--limit N]        queued messages\n"
    "  queue show QID                                one message\n"
    "  queue export QID                              the message itself, to standard output\n"
    "  queue sites                                   next hops: depth, state, last error, retry "
    "time\n"
    "  queue progress                                how far listings and changes under way are\n"
    "  queue hold|release|retry|remove|bounce QID|--filter EXPR\n"
    "  connector list [--client-settings]            state, health, sessions, connections\n"
    "  connector check-dns                           do names and addresses of ours agree\n"
    "  connector suspend|resume NAME                 send: its mail waits; receive: 421 to "
    "clients\n"
    "  connector disable|enable NAME                 send: as if it were not there; receive: does "
    "not "
    "listen\n"
    "                                                (both hold until taken back, also over a "
    "restart)\n"
    "  route explain ADDRESS [--from SENDER] [--receive-connector NAME] [--size N]\n"
    "  trace EXPR [--limit N] [--file PATH]          what became of messages, from the tracking "
    "log\n"
    "  protocol-log list                             whom the protocol log watches now\n"
    "  protocol-log start TARGET [--for TIME]        each line of the sessions of an address, a "
    "network\n"
    "                                                or a connector, for a while (10m)\n"
    "  protocol-log stop TARGET|all                  no longer\n"
    "  config diff FILE                              what a reload of FILE would change\n"
    "  reload                                        read the configuration again\n"
    "  drain                                         finish what is under way and stop\n"
    "  probe NAME [--to ADDRESS] [--from SENDER] [--user NAME] [--password-file PATH] "
    "[--no-message] [--wait S]\n"
    "                                                receive: a test message goes in, is followed\n"
    "  probe NAME [--to ADDRESS] [--message] [--domain DOMAIN] [--file PATH] [--kind receive|send] "
    "[--timeout S]\n"
    "                                                send: its next hops, a step at a time\n"
    "  doctor                                        machine, disk, names, next hops: what to do\n"
    "  hash-password                                 reads a password from standard input, prints "
    "its hash\n"
    "EXPR is field op value joined by 'and', such as: recipient~*@example.com and age>1h and "
    "last_error~*timeout*\n"
    "fields of the queue: qid sender recipient domain connector site status size age retries "
    "last_error "
    "source_ip account subject\n"
    "fields of trace: qid origin sender recipient message_id session client account event "
    "connector time, as in the log\n"
    "The socket is /run/hikyaku/ctl.sock, or HIKYAKU_SOCKET, or --socket.\n";

struct command {
    struct client client;
    const char *filter, *limit, *from, *size, *receive_connector, *kind, *file;
    const char *timeout, *wait, *time;
    bool client_settings;
    struct probe_options probe;
    int argc;
    char **argv;
};

static int wrong_use(const char *text, const char *detail)
{
    fprintf(stderr, "hikyakuctl: %s%s%s (hikyakuctl --help tells more)\n", text, detail ? " " : "",
            detail ? detail : "");
    return EXIT_USE;
}

/* Asks and prints. */
static int ask(const struct command *c, const char *method, const char *path,
               const struct client_arg *args, void (*print)(json_t *j))
{
    int status;
    json_t *j = client_call(&c->client, method, path, args, &status);
    if (!j)
        return status;
    if (c->client.json)
        print_json(j);
    else
        print(j);
    json_decref(j);
    return 0;
}

static int queue_change(const struct command *c, const char *action)
{
    char path[64];
    const char *qid = c->argc > 2 ? c->argv[2] : NULL;
    struct client_arg args[] = {{"qid", qid}, {"filter", c->filter}, {NULL, NULL}};
    if (!qid == !c->filter)
        return wrong_use("give either a queue id or --filter EXPR", NULL);
    snprintf(path, sizeof path, "/api/v1/queue/%s", action);
    return ask(c, "POST", path, args, print_changed);
}

static int queue(const struct command *c)
{
    static const char *const changes[] = {"hold", "release", "retry", "remove", "bounce"};
    const char *what = c->argc > 1 ? c->argv[1] : "";
    struct client_arg args[] = {{"filter", c->filter}, {"limit", c->limit}, {NULL, NULL}};
    if (strcmp(what, "list") == 0)
        return ask(c, "GET", "/api/v1/queue", args, print_queue);
    if (strcmp(what, "sites") == 0)
        return ask(c, "GET", "/api/v1/sites", args + 1, print_sites);
    if (strcmp(what, "progress") == 0)
        return ask(c, "GET", "/api/v1/progress", NULL, print_progress);
    if (strcmp(what, "show") == 0) {
        char path[128];
        if (c->argc != 3 || strlen(c->argv[2]) > 32 || strchr(c->argv[2], '/'))
            return wrong_use("queue show takes one queue id", NULL);
        snprintf(path, sizeof path, "/api/v1/queue/%s", c->argv[2]);
        return ask(c, "GET", path, NULL, print_message);
    }
    if (strcmp(what, "export") == 0) {
        struct client_arg qid[] = {{"qid", c->argc == 3 ? c->argv[2] : NULL}, {NULL, NULL}};
        return qid->value ? client_copy(&c->client, "/api/v1/export", qid)
                          : wrong_use("queue export takes one queue id", NULL);
    }
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        if (strcmp(what, changes[i]) == 0)
            return queue_change(c, changes[i]);
    return wrong_use(
        "queue: list, show, export, sites, progress, hold, release, retry, remove or bounce, not",
        what);
}

static int connector(const struct command *c)
{
    const char *what = c->argc > 1 ? c->argv[1] : "";
    static const char *const switches[] = {"enable", "disable", "suspend", "resume"};
    struct client_arg args[] = {
        {"name", c->argc > 2 ? c->argv[2] : NULL}, {"kind", c->kind}, {NULL, NULL}};
    char path[64];
    if (strcmp(what, "check-dns") == 0 && c->argc == 2)
        return doctor_check_dns(&c->client);
    if (strcmp(what, "list") == 0 && c->argc == 2 && c->client_settings)
        return ask(c, "GET", "/api/v1/client-settings", NULL, print_client_settings);
    if (strcmp(what, "list") == 0 && c->argc == 2)
        return ask(c, "GET", "/api/v1/connectors", NULL, print_connectors);
    for (size_t i = 0; c->argc == 3 && i < sizeof switches / sizeof *switches; i++) {
        if (strcmp(what, switches[i]) != 0)
            continue;
        snprintf(path, sizeof path, "/api/v1/connectors/%s", what);
        return ask(c, "POST", path, args, print_switched);
    }
    return wrong_use("connector: list, or enable, disable, suspend, resume and a NAME, not", what);
}

static int route(const struct command *c)
{
    if (c->argc != 3 || strcmp(c->argv[1], "explain") != 0)
        return wrong_use("route explain takes one address", NULL);
    struct client_arg args[] = {{"address", c->argv[2]},
                                {"receive_connector", c->receive_connector},
                                {"from", c->from},
                                {"size", c->size},
                                {NULL, NULL}};
    return ask(c, "GET", "/api/v1/route", args, print_route);
}

static int trace_files(const struct command *c, const char *path, uint32_t limit)
{
    const struct tracking_search search = {
        .path = path, .expr = c->argv[1], .limit = limit, .json = c->client.json};
    struct why why;
    enum tracking_found found = tracking_find(&search, stdout, &why);
    if (found != TRACKING_FOUND)
        fprintf(stderr, "hikyakuctl: %s\n", why.text);
    return found == TRACKING_FOUND ? 0 : found == TRACKING_WRONG ? 2 : 1;
}

/* From the files of the gateway that answers, or of --file without one. */
static int trace(const struct command *c)
{
    unsigned long limit = c->limit ? strtoul(c->limit, NULL, 10) : 100;
    uint32_t shown = limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit;
    int status;
    if (c->argc != 2)
        return wrong_use("trace takes one expression", NULL);
    if (c->file)
        return trace_files(c, c->file, shown);
    json_t *j = client_call(&c->client, "GET", "/api/v1/status", NULL, &status);
    if (!j)
        return status;
    const char *path = json_string_value(json_object_get(j, "tracking"));
    if (path)
        status = trace_files(c, path, shown);
    else
        fputs("hikyakuctl: this gateway keeps no tracking log: set log.tracking\n", stderr);
    json_decref(j);
    return path ? status : 1;
}

static int protocol_log(const struct command *c)
{
    const char *what = c->argc > 1 ? c->argv[1] : "", *target = c->argc > 2 ? c->argv[2] : "";
    struct client_arg args[] = {{"target", target}, {"for", c->time}, {NULL, NULL}};
    if (strcmp(what, "list") == 0 && c->argc == 2)
        return ask(c, "GET", "/api/v1/protocol-log", NULL, print_protocol);
    if (strcmp(what, "start") == 0 && c->argc == 3)
        return ask(c, "POST", "/api/v1/protocol-log/start", args, print_protocol);
    if (strcmp(what, "stop") == 0 && c->argc == 3 && !c->time)
        return ask(c, "POST", "/api/v1/protocol-log/stop",
                   strcmp(target, "all") == 0 ? args + 2 : args, print_protocol);
    return wrong_use("protocol-log: list, start TARGET [--for TIME], stop TARGET or stop all",
                     NULL);
}

static int config(const struct command *c)
{
    if (c->argc != 3 || strcmp(c->argv[1], "diff") != 0)
        return wrong_use("config diff takes one file", NULL);
    char path[PATH_MAX]; /* the gateway's folder is another one */
    if (!path_from_root(c->argv[2], path, sizeof path) || access(path, F_OK) != 0) {
        fprintf(stderr, "hikyakuctl: %s: there is no such file\n", c->argv[2]);
        return 1;
    }
    struct client_arg args[] = {{"file", path}, {NULL, NULL}};
    return ask(c, "GET", "/api/v1/config/diff", args, print_changes);
}

/* Seconds; 0: no such number. */
static uint32_t seconds_of(const char *text, uint32_t standard)
{
    char *end;
    unsigned long n = text ? strtoul(text, &end, 10) : standard;
    return text && (*end || end == text || n > 3600) ? 0 : (uint32_t)n;
}

static int probe(const struct command *c)
{
    struct probe_options o = c->probe;
    if (c->argc != 2)
        return wrong_use("probe takes one connector's name", NULL);
    if (c->kind && strcmp(c->kind, "receive") != 0 && strcmp(c->kind, "send") != 0)
        return wrong_use("--kind is receive or send, not", c->kind);
    if (o.message && o.no_message)
        return wrong_use("--message or --no-message, not both", NULL);
    o.connector = c->argv[1];
    o.kind = c->kind;
    o.file = c->file;
    o.from = c->from;
    o.timeout_s = seconds_of(c->timeout, PROBE_TIMEOUT_S);
    o.wait_s = c->wait && strcmp(c->wait, "0") == 0 ? 0 : seconds_of(c->wait, PROBE_WAIT_S);
    if (!o.timeout_s || (!o.wait_s && c->wait && strcmp(c->wait, "0") != 0))
        return wrong_use("--timeout and --wait are seconds, at most 3600", NULL);
    return probe_run(&c->client, &o);
}

static int hash_password(void)
{
    char password[AUTH_PASSWORD_MAX + 2], hash[512];
    if (isatty(STDIN_FILENO))
        fputs("Password (it is shown): ", stderr);
    if (!fgets(password, sizeof password, stdin))
        return wrong_use("hash-password reads the password from standard input", NULL);
    password[strcspn(password, "\r\n")] = '\0';
    if (!password[0])
        return wrong_use("the password is empty", NULL);
    bool ok = auth_hash_password(password, hash, sizeof hash);
    explicit_bzero(password, sizeof password);
    if (!ok) {
        fputs("hikyakuctl: this system's libcrypt offers no yescrypt\n", stderr);
        return 1;
    }
    puts(hash);
    return 0;
}

static int run(const struct command *c)
{
    const char *what = c->argv[0];
    if (strcmp(what, "status") == 0)
        return ask(c, "GET", "/api/v1/status", NULL, print_status);
    if (strcmp(what, "queue") == 0)
        return queue(c);
    if (strcmp(what, "connector") == 0)
        return connector(c);
    if (strcmp(what, "route") == 0)
        return route(c);
    if (strcmp(what, "reload") == 0)
        return ask(c, "POST", "/api/v1/reload", NULL, print_generation);
    if (strcmp(what, "drain") == 0)
        return ask(c, "POST", "/api/v1/drain", NULL, print_status);
    if (strcmp(what, "doctor") == 0)
        return doctor_run(&c->client);
    if (strcmp(what, "config") == 0)
        return config(c);
    if (strcmp(what, "trace") == 0)
        return trace(c);
    if (strcmp(what, "protocol-log") == 0)
        return protocol_log(c);
    if (strcmp(what, "hash-password") == 0)
        return hash_password();
    if (strcmp(what, "probe") == 0)
        return probe(c);
    return wrong_use("there is no command", what);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"socket", required_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"filter", required_argument, NULL, 'f'},
                                            {"limit", required_argument, NULL, 'l'},
                                            {"from", required_argument, NULL, 'F'},
                                            {"size", required_argument, NULL, 'z'},
                                            {"receive-connector", required_argument, NULL, 'r'},
                                            {"kind", required_argument, NULL, 'k'},
                                            {"file", required_argument, NULL, 'i'},
                                            {"for", required_argument, NULL, 'W'},
                                            {"client-settings", no_argument, NULL, 'c'},
                                            {"to", required_argument, NULL, 't'},
                                            {"domain", required_argument, NULL, 'd'},
                                            {"user", required_argument, NULL, 'u'},
                                            {"password-file", required_argument, NULL, 'p'},
                                            {"message", no_argument, NULL, 'm'},
                                            {"no-message", no_argument, NULL, 'n'},
                                            {"timeout", required_argument, NULL, 'T'},
                                            {"wait", required_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *env = getenv("HIKYAKU_SOCKET");
    struct command c = {.client = {.socket = env && *env ? env : "/run/hikyaku/ctl.sock"}};
    int opt;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case 's': c.client.socket = optarg; break;
        case 'j': c.client.json = true; break;
        case 'f': c.filter = optarg; break;
        case 'l': c.limit = optarg; break;
        case 'F': c.from = optarg; break;
        case 'z': c.size = optarg; break;
        case 'r': c.receive_connector = optarg; break;
        case 'k': c.kind = optarg; break;
        case 'c': c.client_settings = true; break;
        case 'i': c.file = optarg; break;
        case 't': c.probe.to = optarg; break;
        case 'd': c.probe.domain = optarg; break;
        case 'u': c.probe.user = optarg; break;
        case 'p': c.probe.password_file = optarg; break;
        case 'm': c.probe.message = true; break;
        case 'n': c.probe.no_message = true; break;
        case 'T': c.timeout = optarg; break;
        case 'w': c.wait = optarg; break;
        case 'W': c.time = optarg; break;
        case 'h': fputs(usage, stdout); return 0;
        default: return EXIT_USE;
        }
    }
    c.argc = argc - optind;
    c.argv = argv + optind;
    if (c.argc < 1)
        return wrong_use("give a command", NULL);
    return run(&c);
}
