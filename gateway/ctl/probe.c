/*
 * gateway/ctl/probe.c - hikyakuctl probe: which addresses a connector means, and a dialogue with
 * each.
 *
 * Owns:     the configuration it reads, the result.
 * Runs on:  hikyakuctl's only thread.
 * Contract: addresses, names, passwords and TLS are those of the configuration that the gateway
 *           runs with; a change of the file since is said. One message at most is sent.
 * Failure:  exit 1 and the step that went wrong.
 * Bounds:   DNS_MX_MAX hosts, DNS_ADDR_MAX addresses each; limits of time in each step.
 * Tests:    tests/system/test_probe.py
 */
#include "gateway/ctl/probe_internal.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/base/prng.h"
#include "gateway/ctl/print.h"
#include "routing/mx.h"

#define EXIT_USE 2

struct probe_world {
    struct config *conf;
    struct probe_names *names;
};

struct probe {
    const struct client *client;
    const struct probe_options *o;
    struct probe_world *world;
    const struct config *conf; /* the world's */
    json_t *targets;
    bool failed, sent;
    char password[AUTH_PASSWORD_MAX + 2];
};

static int use(const char *text)
{
    fprintf(stderr, "hikyakuctl: %s (hikyakuctl --help tells more)\n", text);
    return EXIT_USE;
}

/* ---- what it stands on ---- */

static struct config *world_config(const struct client *c, const char *path, struct why *why)
{
    int status;
    json_t *j = NULL;
    if (!path) {
        j = client_call(c, "GET", "/api/v1/status", NULL, &status);
        path = json_string_value(json_object_get(j, "config"));
    }
    why_clear(why); /* a gateway that does not answer was told of */
    struct config *conf = path ? config_load(path, why) : NULL;
    json_decref(j);
    return conf;
}

struct probe_world *probe_world_open(const struct client *c, const char *path, struct why *why)
{
    struct probe_world *w = calloc(1, sizeof *w);
    why_set(why, 0, "", "out of memory");
    if (!w || !tls_global_init(why)) { /* before the certificates of the configuration are read */
        free(w);
        return NULL;
    }
    w->conf = world_config(c, path, why);
    w->names = w->conf ? names_create(w->conf, why) : NULL;
    if (w->names)
        return w;
    probe_world_close(w);
    return NULL;
}

const struct config *probe_world_config(const struct probe_world *w)
{
    return w->conf;
}

void probe_world_close(struct probe_world *w)
{
    names_destroy(w->names);
    config_free(w->conf);
    tls_global_cleanup();
    free(w);
}

bool probe_resolver(struct probe_world *w, char *text, size_t text_size)
{
    const struct config *conf = w->conf;
    const char *name =
        conf->accepted_domains.count ? conf->accepted_domains.items[0].domain : conf->hostname;
    struct dns_answer a;
    uint64_t began = probe_now_ns();
    names_mx(w->names, name, &a);
    bool ok = a.status != DNS_TEMPORARY && a.status != DNS_BOGUS;
    snprintf(text, text_size, "asked for the mail exchangers of %s: %s, %llu ms", name,
             ok ? a.status == DNS_OK ? "answered" : "answered, there are none" : a.text,
             (unsigned long long)((probe_now_ns() - began) / NS_PER_MS));
    return ok;
}

/* ---- one target ---- */

static struct tls_ctx *client_context(const struct config_send_connector *send, struct why *why)
{
    const struct tls_client_params p = {.version_min = 0x0303,
                                        .verify = send && send->tls.level == CONFIG_LEVEL_VERIFY,
                                        .inspect = true,
                                        .ca_file = send ? send->tls.ca_file : NULL};
    return tls_client_ctx_create(&p, why);
}

static struct probe_talk *talk_new(const struct config *conf, uint64_t limit_ns)
{
    struct probe_talk *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->steps = json_array();
    t->limit_ns = limit_ns;
    t->helo_name = t->hostname = conf->hostname;
    t->from = "";
    line_init(&t->line, limit_ns);
    talk_begin(t);
    return t;
}

static void talk_free(struct probe_talk *t)
{
    tls_ctx_destroy(t->tls_ctx);
    json_decref(t->steps);
    free(t);
}

/* The dialogue is over: into the result. */
static void probe_take(struct probe *p, struct probe_talk *t, const char *target)
{
    json_array_append_new(p->targets, json_pack("{s:s, s:b, s:O}", "target", target, "ok",
                                                !t->failed, "steps", t->steps));
    p->failed |= t->failed;
    p->sent |= t->delivered;
    talk_free(t);
}

/* ---- send connectors ---- */

static void talk_as(struct probe_talk *t, const struct config_send_connector *send)
{
    static const enum probe_tls levels[] = {[CONFIG_LEVEL_NONE] = PROBE_TLS_NONE,
                                            [CONFIG_LEVEL_OPPORTUNISTIC] = PROBE_TLS_MAY,
                                            [CONFIG_LEVEL_REQUIRED] = PROBE_TLS_MUST,
                                            [CONFIG_LEVEL_VERIFY] = PROBE_TLS_MUST};
    struct why why;
    t->connector = send->name;
    t->helo_only = send->helo_only;
    t->tls = levels[send->tls.level];
    t->verify = send->tls.level == CONFIG_LEVEL_VERIFY;
    if (t->tls != PROBE_TLS_NONE && !(t->tls_ctx = client_context(send, &why)))
        talk_add(t, "tls", PROBE_FAILED, NULL, why.text, NULL);
}

/* The addresses of a host, as the gateway would try them. False: none, written down. */
static bool host_addrs(struct probe_world *w, struct probe_talk *t, const char *host, uint16_t port,
                       const struct config_send_connector *send, struct dns_answer *a)
{
    char text[256];
    uint32_t kept = 0;
    struct io_addr literal;
    names_addr(w->names, host, a);
    uint32_t found = a->status == DNS_OK ? a->addr_count : 0;
    for (uint32_t i = 0; i < found; i++) {
        struct io_addr at = a->addr[i];
        if (send->mx && !mx_addr_is_public(&at) && !config_networks_match(&send->mx_allow, &at))
            continue;
        *(at.sa.sa_family == AF_INET6 ? &at.in6.sin6_port : &at.in.sin_port) = htons(port);
        a->addr[kept++] = at;
    }
    if (a->status != DNS_OK)
        snprintf(text, sizeof text, "%.120s: %s", host, a->text);
    else if (!kept)
        snprintf(text, sizeof text, "%.120s: each address is private or special", host);
    else
        snprintf(text, sizeof text, "%.120s has %u address%s%s", host, kept, kept > 1 ? "es" : "",
                 a->secure ? ", DNSSEC" : "");
    a->addr_count = kept;
    if (kept && io_addr_parse(&literal, slice_str(host), 0)) /* nothing was asked */
        return true;
    talk_add(t, "dns", kept ? PROBE_OK : PROBE_FAILED, NULL, text,
             kept || !found ? NULL : "allow them with mx_allow_networks if that is meant");
    return kept > 0;
}

static void talk_host(struct probe_world *w, struct probe_talk *t, const char *host, uint16_t port,
                      const struct config_send_connector *send)
{
    struct dns_answer a;
    t->tls_name = send->tls.name ? send->tls.name : host;
    if (!t->failed && host_addrs(w, t, host, port, send, &a))
        talk_run(t, a.addr, a.addr_count, send->source_addresses, send->source_address_count);
}

bool probe_smart_host(struct probe_world *w, const struct config_send_connector *send,
                      uint32_t host, uint64_t limit_ns, char *text, size_t text_size)
{
    const struct config_smart_host *h = &send->smart_hosts[host];
    struct probe_talk *t = talk_new(w->conf, limit_ns);
    json_t *step;
    size_t i;
    if (!t) {
        snprintf(text, text_size, "out of memory");
        return false;
    }
    talk_as(t, send);
    talk_host(w, t, h->host, h->port, send);
    snprintf(text, text_size, "answers as %s demands", send->name);
    json_array_foreach(t->steps, i, step)
    {
        const char *said = json_string_value(json_object_get(step, "text"));
        const char *remote = json_string_value(json_object_get(step, "remote"));
        if (strcmp(json_string_value(json_object_get(step, "status")), "failed") == 0)
            snprintf(text, text_size, "%s: %s", json_string_value(json_object_get(step, "step")),
                     said     ? said
                     : remote ? remote
                              : "");
    }
    bool ok = !t->failed;
    talk_free(t);
    return ok;
}

static void probe_host(struct probe *p, const char *host, bool literal, uint16_t port,
                       const struct config_send_connector *send)
{
    struct probe_talk *t = talk_new(p->conf, p->o->timeout_s * NS_PER_S);
    char target[320];
    if (!t)
        return;
    snprintf(target, sizeof target, literal ? "[%s]:%u" : "%s:%u", host, port);
    talk_as(t, send);
    t->mechanisms = send->auth.mechanism;
    t->user = send->auth.username;
    t->password = send->auth.password;
    t->from = p->o->from ? p->o->from : "";
    t->to = p->o->to;
    t->message = p->o->message && !p->sent;
    talk_host(p->world, t, host, port, send);
    probe_take(p, t, target);
}

/* The hosts of a domain. */
static void probe_mx(struct probe *p, const char *domain, const struct config_send_connector *send)
{
    struct probe_talk *t = talk_new(p->conf, p->o->timeout_s * NS_PER_S);
    struct dns_answer *a = calloc(1, sizeof *a);
    struct mx_list *list = calloc(1, sizeof *list);
    const char *own[] = {p->conf->hostname};
    struct prng chance;
    struct why why;
    if (t && a && list) {
        prng_seed(&chance, probe_now_ns());
        why_clear(&why);
        names_mx(p->world->names, domain, a);
        mx_evaluate(a, domain, own, 1, &chance, list, &why);
        bool found = list->verdict == MX_HOSTS || list->verdict == MX_IMPLICIT;
        char text[160];
        snprintf(text, sizeof text, "%s%u host%s%s",
                 list->verdict == MX_IMPLICIT ? "no mail exchanger, the domain itself: " : "",
                 list->count, list->count == 1 ? "" : "s", a->secure ? ", DNSSEC" : "");
        talk_add(t, "mx", found ? PROBE_OK : PROBE_FAILED, NULL, found ? text : why.text, NULL);
        probe_take(p, t, domain);
        for (uint32_t i = 0; found && i < list->count; i++)
            probe_host(p, list->hosts[i].host, false, send->port, send);
    }
    free(a);
    free(list);
}

static int probe_send(struct probe *p, const struct config_send_connector *send)
{
    const char *at = p->o->to ? strrchr(p->o->to, '@') : NULL;
    const char *domain = p->o->domain ? p->o->domain : at ? at + 1 : NULL;
    if (p->o->message && !p->o->to)
        return use("--message needs --to ADDRESS");
    if (send->mx && !domain)
        return use("delivery: mx needs --domain DOMAIN or --to ADDRESS");
    if (send->mx)
        probe_mx(p, domain, send);
    for (uint32_t i = 0; !send->mx && i < send->smart_host_count; i++)
        probe_host(p, send->smart_hosts[i].host, send->smart_hosts[i].literal,
                   send->smart_hosts[i].port, send);
    return 0;
}

/* ---- receive connectors ---- */

/* Every address means the loopback one here. */
static struct io_addr reachable(const struct io_addr *bind)
{
    struct io_addr a = *bind;
    if (a.sa.sa_family == AF_INET && a.in.sin_addr.s_addr == htonl(INADDR_ANY))
        a.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (a.sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a.in6.sin6_addr))
        a.in6.sin6_addr = in6addr_loopback;
    return a;
}

/* Does a connection from here to there bring a header? Who is in `from` sends one. */
static bool sends_header(const struct config_receive_connector *r, const struct io_addr *to)
{
    struct io_addr from = {.len = sizeof from.in6};
    socklen_t len = sizeof from.in6;
    int fd = socket(to->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, &to->sa, to->len) == 0 && getsockname(fd, &from.sa, &len) == 0;
    if (fd >= 0)
        close(fd);
    from.len = len;
    return ok && config_networks_match(&r->proxy.from, &from);
}

static void probe_bind(struct probe *p, const struct config_receive_connector *r,
                       const struct io_addr *bind, const char *to)
{
    struct probe_talk *t = talk_new(p->conf, p->o->timeout_s * NS_PER_S);
    const struct io_addr addr = reachable(bind);
    char target[IO_ADDR_TEXT_MAX];
    struct why why;
    if (!t)
        return;
    t->connector = r->name;
    t->tls = r->tls.mode == CONFIG_TLS_IMPLICIT ? PROBE_TLS_IMPLICIT
             : r->tls.mode == CONFIG_TLS_NONE   ? PROBE_TLS_NONE
             : r->tls.required                  ? PROBE_TLS_MUST
                                                : PROBE_TLS_MAY;
    t->tls_name = r->fqdn;
    t->proxy_header = sends_header(r, &addr);
    t->mechanisms = p->o->user ? SASL_PLAIN | SASL_LOGIN : 0;
    t->user = p->o->user;
    t->password = p->password;
    t->from = p->o->from ? p->o->from : p->o->user && strchr(p->o->user, '@') ? p->o->user : "";
    t->message = !p->o->no_message && !p->sent;
    bool silent = r->auth.required && !p->o->user; /* MAIL would be refused with 530 */
    t->to = silent ? NULL : to;
    if (r->tls.mode != CONFIG_TLS_NONE && !(t->tls_ctx = client_context(NULL, &why)))
        talk_add(t, "tls", PROBE_FAILED, NULL, why.text, NULL);
    else
        talk_run(t, &addr, 1, NULL, 0);
    if (silent && !t->failed)
        talk_add(t, "auth", p->o->no_message ? PROBE_SKIPPED : PROBE_FAILED, NULL,
                 "not tried: a name and a password are needed here",
                 "--user NAME, and the password on standard input or --password-file");
    if (t->delivered && p->o->wait_s)
        follow_message(p->client, t, p->o->wait_s);
    probe_take(p, t, io_addr_text(&addr, true, target));
}

static void probe_receive(struct probe *p, const struct config_receive_connector *r)
{
    char to[300];
    snprintf(to, sizeof to, "postmaster@%s",
             p->conf->accepted_domains.count ? p->conf->accepted_domains.items[0].domain
                                             : p->conf->hostname);
    for (uint32_t i = 0; i < r->bind_count; i++)
        probe_bind(p, r, &r->bind[i], p->o->to ? p->o->to : to);
}

/* ---- the command ---- */

static bool has_control(const char *s)
{
    for (; s && *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f || *s == '<' || *s == '>')
            return true;
    return false;
}

/* False: none to be had, said. */
static bool read_password(struct probe *p)
{
    const char *path = p->o->password_file;
    if (!p->o->user)
        return true;
    if (!path && isatty(STDIN_FILENO))
        fputs("Password (it is shown): ", stderr);
    FILE *f = path ? fopen(path, "re") : stdin;
    bool ok = f && fgets(p->password, sizeof p->password, f);
    if (f && path)
        fclose(f);
    p->password[strcspn(p->password, "\r\n")] = '\0';
    if (!ok || !p->password[0])
        fprintf(stderr, "hikyakuctl: %s: there is no password in it\n",
                path ? path : "standard input");
    return ok && p->password[0];
}

/* The file may say something else than what runs. */
static bool file_differs(const struct probe *p)
{
    const struct client_arg args[] = {{"file", p->conf->path}, {NULL, NULL}};
    int status;
    if (p->o->file)
        return false;
    json_t *j = client_call(p->client, "GET", "/api/v1/config/diff", args, &status);
    bool differs = json_array_size(json_object_get(j, "changes")) > 0;
    json_decref(j);
    return differs;
}

static int probe_finish(struct probe *p, bool receive)
{
    json_t *j = json_pack("{s:s, s:s, s:b, s:b, s:O}", "connector", p->o->connector, "kind",
                          receive ? "receive" : "send", "ok", !p->failed, "file_differs",
                          file_differs(p), "targets", p->targets);
    if (p->client->json)
        print_json(j);
    else
        print_probe(j);
    json_decref(j);
    return p->failed ? 1 : 0;
}

static int probe_connector(struct probe *p)
{
    const struct config_receive_connector *receive = NULL;
    const struct config_send_connector *send = NULL;
    const char *kind = p->o->kind, *name = p->o->connector;
    for (uint32_t i = 0; i < p->conf->receive_count; i++)
        if (strcmp(p->conf->receive[i].name, name) == 0 && !(kind && strcmp(kind, "send") == 0))
            receive = &p->conf->receive[i];
    for (uint32_t i = 0; i < p->conf->send_count; i++)
        if (strcmp(p->conf->send[i].name, name) == 0 && !(kind && strcmp(kind, "receive") == 0))
            send = &p->conf->send[i];
    if (receive && send)
        return use("two connectors have this name: say --kind receive or --kind send");
    if (!receive && !send) {
        fprintf(stderr, "hikyakuctl: no connector is called %s: `hikyakuctl connector list`\n",
                name);
        return 1;
    }
    if (!read_password(p))
        return 1;
    int status = 0;
    if (receive)
        probe_receive(p, receive);
    else
        status = probe_send(p, send);
    return status ? status : probe_finish(p, receive != NULL);
}

int probe_run(const struct client *c, const struct probe_options *o)
{
    struct probe p = {.client = c, .o = o, .targets = json_array()};
    struct why why;
    int status = 1;
    if (has_control(o->from) || has_control(o->to) || has_control(o->domain)) {
        json_decref(p.targets);
        return use("addresses stand without < and > and control characters");
    }
    p.world = probe_world_open(c, o->file, &why);
    if (!p.world && why.text[0])
        fprintf(stderr, "hikyakuctl: %s; is this the gateway's user, or root?\n", why.text);
    if (p.world) {
        p.conf = p.world->conf;
        status = probe_connector(&p);
        probe_world_close(p.world);
    }
    json_decref(p.targets);
    explicit_bzero(p.password, sizeof p.password);
    return status;
}
