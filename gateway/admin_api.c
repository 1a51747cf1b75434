/*
 * gateway/admin_api.c - /api/v1: what hikyakuctl can do, as JSON.
 *
 * Owns:     the questions a call has put to the shards.
 * Runs on:  the control thread.
 * Contract: reading is GET, changing is POST. An answer is one JSON object; an error is {"error":
 *           "..."} with 4xx or 5xx.
 * Failure:  a shard that answers late holds up its call alone.
 * Bounds:   LIMIT_MAX messages a listing.
 * Tests:    tests/system (admin, queue commands)
 */
#include <stdlib.h>
#include <sys/resource.h>

#include "gateway/admin_internal.h"
#include "gateway/base/json.h"
#include "queue/queue.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     100000u

/* ---- writing ---- */

void admin_put_string(FILE *f, struct slice v)
{
    uint8_t bytes[4096];
    struct buf b = buf_over(bytes, sizeof bytes);
    json_string(&b, v, 0);
    fwrite(b.ptr, 1, b.len, f);
}

void admin_put_member(FILE *f, const char *key, const char *value)
{
    fprintf(f, ",\"%s\":", key);
    admin_put_string(f, slice_str(value));
}

bool admin_body_open(struct admin_call *call, struct admin_body *b)
{
    b->text = NULL;
    b->f = open_memstream(&b->text, &b->len);
    if (!b->f)
        admin_error(call, 500, "out of memory");
    return b->f != NULL;
}

void admin_body_answer(struct admin_call *call, struct admin_body *b)
{
    fputs("\n", b->f);
    fclose(b->f);
    admin_answer(call, 200, "application/json", b->text, b->len);
}

void admin_error_why(struct admin_call *call, unsigned status, const struct why *why)
{
    struct admin_body b;
    if (!admin_body_open(call, &b))
        return;
    fputs("{\"error\":", b.f);
    admin_put_string(b.f, slice_str(why->text));
    fputs("}\n", b.f);
    fclose(b.f);
    admin_answer(call, status, "application/json", b.text, b.len);
}

/* ---- asking shards ---- */

static void requests_free(struct admin_call *call)
{
    for (uint32_t i = 0; call->requests && i < call->asked; i++) {
        if (call->requests[i]) {
            free(call->requests[i]->json);
            free(call->requests[i]->counts);
        }
        free(call->requests[i]);
    }
    free(call->requests);
    call->requests = NULL;
    call->asked = 0;
}

void admin_call_free(struct admin_call *call)
{
    if (call->waiting) { /* its connection is gone; the last shard's answer frees it */
        call->connection = NULL;
        list_init(&call->link);
        return;
    }
    requests_free(call);
    filter_free(call->filter);
    free(call->body);
    free(call);
}

static void ask_done(void *arg, struct admin_request *r)
{
    struct admin_call *call = arg;
    (void)r;
    if (--call->waiting)
        return;
    if (call->connection)
        call->finish(call);
    else
        admin_call_free(call);
}

/* Puts the same question to every shard; `finish` answers the call. */
void admin_ask_all(struct admin_call *call, const struct admin_request *model,
                   void (*finish)(struct admin_call *call))
{
    struct control *c = call->admin->control;
    uint32_t n = control_gateway(c)->shard_count;
    call->requests = calloc(n, sizeof *call->requests);
    call->finish = finish;
    for (uint32_t i = 0; call->requests && i < n; i++) {
        struct admin_request *r = malloc(sizeof *r);
        if (!r)
            break;
        *r = *model;
        r->filter = call->filter;
        call->requests[call->asked++] = r;
    }
    if (!call->requests || call->asked < n) {
        requests_free(call);
        admin_error(call, 500, "out of memory");
        return;
    }
    call->waiting = n;
    for (uint32_t i = 0; i < n; i++)
        control_ask(c, i, call->requests[i], ask_done, call);
}

uint64_t admin_matched(const struct admin_call *call)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < call->asked; i++)
        sum += call->requests[i]->matched;
    return sum;
}

static void finish_list(struct admin_call *call)
{
    struct admin_body b;
    bool first = true;
    if (!admin_body_open(call, &b))
        return;
    fprintf(b.f, "{\"matched\":%llu,\"items\":[", (unsigned long long)admin_matched(call));
    for (uint32_t i = 0; i < call->asked; i++) {
        const struct admin_request *r = call->requests[i];
        if (!r->json_len)
            continue;
        if (!first)
            fputc(',', b.f);
        fwrite(r->json, 1, r->json_len, b.f);
        first = false;
    }
    fputs("]}", b.f);
    admin_body_answer(call, &b);
}

static void finish_show(struct admin_call *call)
{
    struct admin_body b;
    if (admin_matched(call) == 0) {
        admin_error(call, 404, "no message has this queue id");
        return;
    }
    if (!admin_body_open(call, &b))
        return;
    for (uint32_t i = 0; i < call->asked; i++)
        if (call->requests[i]->json_len)
            fwrite(call->requests[i]->json, 1, call->requests[i]->json_len, b.f);
    admin_body_answer(call, &b);
}

static void finish_change(struct admin_call *call)
{
    struct admin_body b;
    if (admin_matched(call) == 0 && call->requests[0]->qid) {
        admin_error(call, 404, "no message has this queue id");
        return;
    }
    if (!admin_body_open(call, &b))
        return;
    fprintf(b.f, "{\"changed\":%llu}", (unsigned long long)admin_matched(call));
    admin_body_answer(call, &b);
}

/* ---- queue ---- */

/* Filter and limit from the query. False: answered with an error. */
static bool query_filter(struct admin_call *call, struct admin_request *r)
{
    const char *filter = admin_arg(call, "filter"), *limit = admin_arg(call, "limit");
    struct why why;
    if (filter && *filter && !(call->filter = filter_parse(filter, &why))) {
        admin_error_why(call, 400, &why);
        return false;
    }
    unsigned long n = limit ? strtoul(limit, NULL, 10) : LIMIT_DEFAULT;
    r->limit = (uint32_t)(n > LIMIT_MAX ? LIMIT_MAX : n);
    return true;
}

static void queue_list(struct admin_call *call)
{
    struct admin_request r = {.op = ADMIN_QUEUE_LIST};
    if (query_filter(call, &r))
        admin_ask_all(call, &r, finish_list);
}

static bool query_qid(struct admin_call *call, const char *text, struct admin_request *r)
{
    if (qid_parse(slice_str(text), &r->qid) && r->qid)
        return true;
    admin_error(call, 400, "this is no queue id");
    return false;
}

static void queue_show(struct admin_call *call, const char *qid)
{
    struct admin_request r = {.op = ADMIN_QUEUE_SHOW, .limit = 1};
    if (query_qid(call, qid, &r))
        admin_ask_all(call, &r, finish_show);
}

/* The bytes as they are; a message that nobody has is an error in JSON. */
static void finish_export(struct admin_call *call)
{
    for (uint32_t i = 0; i < call->asked; i++) {
        struct admin_request *r = call->requests[i];
        if (!r->matched)
            continue;
        if (r->why.smtp_code) {
            admin_error_why(call, 409, &r->why);
            return;
        }
        char *bytes = r->json;
        r->json = NULL; /* the answer's now */
        admin_answer(call, 200, "message/rfc822", bytes, r->json_len);
        return;
    }
    admin_error(call, 404, "no message has this queue id");
}

static void queue_export(struct admin_call *call)
{
    struct admin_request r = {.op = ADMIN_QUEUE_EXPORT};
    const char *qid = admin_arg(call, "qid");
    if (query_qid(call, qid ? qid : "", &r))
        admin_ask_all(call, &r, finish_export);
}

static void queue_change(struct admin_call *call, enum admin_change change)
{
    struct admin_request r = {.op = ADMIN_QUEUE_CHANGE, .change = change};
    const char *qid = admin_arg(call, "qid"), *filter = admin_arg(call, "filter");
    if (!qid == !filter) {
        admin_error(call, 400, "give either qid or filter");
        return;
    }
    if (qid ? query_qid(call, qid, &r) : query_filter(call, &r))
        admin_ask_all(call, &r, finish_change);
}

static void queue_sites(struct admin_call *call)
{
    struct admin_request r = {.op = ADMIN_QUEUE_SITES};
    if (query_filter(call, &r))
        admin_ask_all(call, &r, finish_list);
}

/* How far the requests are that shards are working on: listings and changes of a deep queue. */
static void progress(struct admin_call *call)
{
    const struct gateway *gw = control_gateway(call->admin->control);
    const char *before = "";
    struct admin_body b;
    uint64_t total = 0;
    if (!admin_body_open(call, &b))
        return;
    for (uint32_t i = 0; i < gw->shard_count; i++)
        total += metric_get(&gw->metrics[i], M_QUEUE_MESSAGES);
    fputs("{\"items\":[", b.f);
    for (struct list *p = call->admin->calls.next; p != &call->admin->calls; p = p->next) {
        const struct admin_call *other = container_of(p, struct admin_call, link);
        uint64_t seen = 0;
        if (!other->waiting || !other->asked)
            continue;
        for (uint32_t i = 0; i < other->asked; i++)
            seen += atomic_load_explicit(&other->requests[i]->seen, memory_order_relaxed);
        fprintf(b.f, "%s{\"method\":\"%s\",\"path\":", before, other->method);
        admin_put_string(b.f, slice_str(other->path));
        fprintf(b.f, ",\"seen\":%llu,\"messages\":%llu,\"shards_left\":%u}",
                (unsigned long long)seen, (unsigned long long)total, other->waiting);
        before = ",";
    }
    fputs("]}", b.f);
    admin_body_answer(call, &b);
}

/* ---- status, reload, drain ---- */

static void put_pressure(struct control *c, FILE *f)
{
    struct pressure p;
    for (unsigned r = 0; r < PRESSURE_COUNT; r++)
        p.level[r] = admin_pressure(c, r);
    admin_put_member(f, "pressure", pressure_level_name(pressure_worst(&p, NULL)));
    for (unsigned r = 0; r < PRESSURE_COUNT; r++) {
        char key[32];
        snprintf(key, sizeof key, "pressure_%s", pressure_resource_name(r));
        admin_put_member(f, key, pressure_level_name(p.level[r]));
    }
}

/* From the root, for programs that run in another folder. */
static void put_path(FILE *f, const char *key, const char *path)
{
    char *real = path ? realpath(path, NULL) : NULL;
    if (real)
        admin_put_member(f, key, real);
    free(real);
}

static void status(struct admin_call *call)
{
    static const char *const states[] = {"starting", "running", "draining", "stopped"};
    struct control *c = call->admin->control;
    const struct gateway *gw = control_gateway(c);
    const char *not_ready = admin_not_ready(c);
    uint64_t now = io_wall_ns(control_io(c));
    struct admin_body b;
    if (!admin_body_open(call, &b))
        return;
    fprintf(b.f, "{\"state\":\"%s\",\"ready\":%s", states[control_state(c)],
            not_ready ? "false" : "true");
    if (not_ready)
        admin_put_member(b.f, "not_ready", not_ready);
    if (control_state(c) >= CONTROL_DRAINING)
        admin_put_member(b.f, "drain_phase", drain_phase_name(control_drain_phase(c)));
    put_pressure(c, b.f);
    admin_put_member(b.f, "instance", gw->instance);
    put_path(b.f, "tracking", control_generation(c)->config->log.tracking);
    admin_put_member(b.f, "spool", control_generation(c)->config->spool.path);
    if (control_generation(c)->config->path)
        admin_put_member(b.f, "config", control_generation(c)->config->path);
    fprintf(b.f, ",\"config_generation\":%llu,\"uptime_s\":%llu,\"shards\":%u",
            (unsigned long long)control_generation(c)->number,
            (unsigned long long)((now - gw->start_wall_ns) / NS_PER_S), gw->shard_count);
    if (control_reload_error(c)[0])
        admin_put_member(b.f, "last_reload_error", control_reload_error(c));
    static const struct {
        const char *name;
        enum metric id;
    } shown[] = {{"sessions", M_SESSIONS},
                 {"messages_accepted", M_ACCEPTED},
                 {"recipients_delivered", M_DELIVERED},
                 {"recipients_deferred", M_DEFERRED},
                 {"recipients_failed", M_FAILED},
                 {"queue_messages", M_QUEUE_MESSAGES},
                 {"queue_bytes", M_QUEUE_BYTES},
                 {"queue_deferred", M_QUEUE_DEFERRED},
                 {"queue_held", M_QUEUE_HELD},
                 {"queue_unreachable", M_QUEUE_UNREACHABLE},
                 {"queue_poison", M_QUEUE_POISON},
                 {"outbound_connections", M_OUT_OPEN},
                 {"drain_work", M_DRAIN_WORK},
                 {"spool_bytes", M_SPOOL_BYTES}};
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        uint64_t sum = 0;
        for (uint32_t k = 0; k < gw->shard_count; k++)
            sum += metric_get(&gw->metrics[k], shown[i].id);
        fprintf(b.f, ",\"%s\":%llu", shown[i].name, (unsigned long long)sum);
    }
    if (control_protocol(c)->count) {
        fputs(",", b.f);
        admin_put_protocol(c, b.f);
    }
    fputs("}", b.f);
    admin_body_answer(call, &b);
}

static void reload_done(void *arg, const struct why *why)
{
    struct admin_call *call = arg;
    struct admin_body b;
    call->waiting = 0;
    if (!call->connection) {
        admin_call_free(call);
    } else if (why) {
        admin_error_why(call, 422, why);
    } else if (admin_body_open(call, &b)) {
        fprintf(b.f, "{\"config_generation\":%llu}",
                (unsigned long long)control_generation(call->admin->control)->number);
        admin_body_answer(call, &b);
    }
}

static void reload(struct admin_call *call)
{
    call->waiting = 1;
    if (!control_reload(call->admin->control, reload_done, call)) {
        call->waiting = 0;
        admin_error(call, 409, "another reload is under way, or the gateway is stopping");
    }
}

static void put_difference(void *arg, const char *key, const char *what, bool restart)
{
    FILE *f = arg;
    fputs(ftell(f) > 12 ? ",{\"key\":" : "{\"key\":", f);
    admin_put_string(f, slice_str(key));
    admin_put_member(f, "change", what);
    fprintf(f, ",\"restart\":%s}", restart ? "true" : "false");
}

/* What a reload of another file would change. It is read as a reload would read it. */
static void config_difference(struct admin_call *call)
{
    const char *path = admin_arg(call, "file");
    struct admin_body b;
    struct why why;
    if (!path || path[0] != '/') {
        admin_error(call, 400, "give file=PATH, from the root");
        return;
    }
    struct config *next = config_load(path, &why);
    if (!next) {
        admin_error_why(call, 422, &why);
        return;
    }
    if (admin_body_open(call, &b)) {
        fputs("{\"changes\":[", b.f);
        config_diff(control_generation(call->admin->control)->config, next, put_difference, b.f);
        fputs("]}", b.f);
        admin_body_answer(call, &b);
    }
    config_free(next);
}

static void put_warning(void *arg, const char *line)
{
    FILE *f = arg;
    fputs(ftell(f) > 13 ? "," : "", f);
    admin_put_string(f, slice_str(line));
}

/* What is allowed, but likely not what was meant: certificates that end, for instance. */
static void config_warned(struct admin_call *call)
{
    struct admin_body b;
    struct rlimit files;
    if (!admin_body_open(call, &b))
        return;
    fputs("{\"warnings\":[", b.f);
    config_warnings(control_generation(call->admin->control)->config, put_warning, b.f);
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        files.rlim_cur = 0;
    fprintf(b.f, "],\"descriptors\":%llu,\"descriptors_wanted\":%u}",
            (unsigned long long)files.rlim_cur, FD_WANTED);
    admin_body_answer(call, &b);
}

static void drain(struct admin_call *call)
{
    struct admin_body b;
    control_drain(call->admin->control, false);
    if (!admin_body_open(call, &b))
        return;
    fputs("{\"state\":\"draining\"}", b.f);
    admin_body_answer(call, &b);
}

/* ---- dispatch ---- */

static void healthz(struct admin_call *call)
{
    admin_answer(call, 200, "text/plain; charset=utf-8", strdup("alive\n"), 6);
}

static void hold(struct admin_call *c)
{
    queue_change(c, ADMIN_HOLD);
}
static void release(struct admin_call *c)
{
    queue_change(c, ADMIN_RELEASE);
}
static void retry(struct admin_call *c)
{
    queue_change(c, ADMIN_RETRY);
}
static void remove_(struct admin_call *c)
{
    queue_change(c, ADMIN_REMOVE);
}
static void bounce(struct admin_call *c)
{
    queue_change(c, ADMIN_BOUNCE);
}
static void connector_enable(struct admin_call *c)
{
    admin_connector_switch(c, CONNECTOR_SWITCH_ENABLE);
}
static void connector_disable(struct admin_call *c)
{
    admin_connector_switch(c, CONNECTOR_SWITCH_DISABLE);
}
static void connector_suspend(struct admin_call *c)
{
    admin_connector_switch(c, CONNECTOR_SWITCH_SUSPEND);
}
static void connector_resume(struct admin_call *c)
{
    admin_connector_switch(c, CONNECTOR_SWITCH_RESUME);
}

static const struct {
    const char *method, *path;
    void (*run)(struct admin_call *call);
} calls[] = {
    {"GET", "/metrics", admin_metrics},
    {"GET", "/healthz", healthz},
    {"GET", "/readyz", admin_ready},
    {"GET", "/.well-known/autoconfig/mail/config-v1.1.xml", admin_autoconfig},
    {"GET", "/api/v1/client-settings", admin_client_settings},
    {"GET", "/api/v1/status", status},
    {"GET", "/api/v1/trace", admin_trace},
    {"GET", "/api/v1/queue", queue_list},
    {"GET", "/api/v1/progress", progress},
    {"GET", "/api/v1/export", queue_export},
    {"GET", "/api/v1/sites", queue_sites},
    {"GET", "/api/v1/config/diff", config_difference},
    {"GET", "/api/v1/config/warnings", config_warned},
    {"GET", "/api/v1/connectors", admin_connectors},
    {"GET", "/api/v1/route", admin_route_explain},
    {"POST", "/api/v1/queue/hold", hold},
    {"POST", "/api/v1/queue/release", release},
    {"POST", "/api/v1/queue/retry", retry},
    {"POST", "/api/v1/queue/remove", remove_},
    {"POST", "/api/v1/queue/bounce", bounce},
    {"POST", "/api/v1/connectors/enable", connector_enable},
    {"POST", "/api/v1/connectors/disable", connector_disable},
    {"POST", "/api/v1/connectors/suspend", connector_suspend},
    {"POST", "/api/v1/connectors/resume", connector_resume},
    {"GET", "/api/v1/protocol-log", admin_protocol},
    {"POST", "/api/v1/protocol-log/start", admin_protocol_start},
    {"POST", "/api/v1/protocol-log/stop", admin_protocol_stop},
    {"POST", "/api/v1/reload", reload},
    {"POST", "/api/v1/drain", drain},
};

void admin_dispatch(struct admin_call *call)
{
    static const char queue[] = "/api/v1/queue/";
    bool path_known = false;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (strcmp(call->path, calls[i].path) != 0)
            continue;
        path_known = true;
        if (strcmp(call->method, calls[i].method) == 0) {
            calls[i].run(call);
            return;
        }
    }
    if (strcmp(call->method, "GET") == 0 && admin_page(call))
        return;
    if (path_known)
        admin_error(call, 405, "reading is GET, changing is POST");
    else if (strncmp(call->path, queue, sizeof queue - 1) == 0 && strcmp(call->method, "GET") == 0)
        queue_show(call, call->path + sizeof queue - 1);
    else
        admin_error(call, 404, "no such path; see /api/v1/status");
}
