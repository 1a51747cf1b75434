/*
 * gateway/admin_status.c - calls about the gateway itself: status, reload, drain, and what its
 * configuration warns of or would become.
 *
 * Owns:     nothing.
 * Runs on:  the control thread.
 * Contract: no shard is asked: counters are read, the rest is the control thread's. A reload is
 *           answered when it is adopted or refused.
 * Failure:  409 while another reload is under way; 422 with the words of a configuration that is
 *           refused.
 * Bounds:   one answer a call.
 * Tests:    tests/system/test_operate.py, tests/system/test_reload.py, tests/system/test_drain.py
 */
#include <stdlib.h>
#include <sys/resource.h>

#include "gateway/admin_internal.h"

/* ---- status ---- */

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

/* Of all shards together. */
static void put_counts(const struct gateway *gw, FILE *f)
{
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
        fprintf(f, ",\"%s\":%llu", shown[i].name, (unsigned long long)sum);
    }
}

void admin_status(struct admin_call *call)
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
    put_counts(gw, b.f);
    if (control_protocol(c)->count) {
        fputs(",", b.f);
        admin_put_protocol(c, b.f);
    }
    fputs("}", b.f);
    admin_body_answer(call, &b);
}

/* ---- reload and drain ---- */

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

void admin_config_reload(struct admin_call *call)
{
    call->waiting = 1;
    if (!control_reload(call->admin->control, reload_done, call)) {
        call->waiting = 0;
        admin_error(call, 409, "another reload is under way, or the gateway is stopping");
    }
}

void admin_drain(struct admin_call *call)
{
    struct admin_body b;
    control_drain(call->admin->control, false);
    if (!admin_body_open(call, &b))
        return;
    fputs("{\"state\":\"draining\"}", b.f);
    admin_body_answer(call, &b);
}

/* ---- configuration ---- */

/* An array in the making. */
struct items {
    FILE *f;
    const char *before; /* the next one */
};

static void put_difference(void *arg, const char *key, const char *what, bool restart)
{
    struct items *items = arg;
    fprintf(items->f, "%s{\"key\":", items->before);
    admin_put_string(items->f, slice_str(key));
    admin_put_member(items->f, "change", what);
    fprintf(items->f, ",\"restart\":%s}", restart ? "true" : "false");
    items->before = ",";
}

void admin_config_diff(struct admin_call *call)
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
        config_diff(control_generation(call->admin->control)->config, next, put_difference,
                    &(struct items){b.f, ""});
        fputs("]}", b.f);
        admin_body_answer(call, &b);
    }
    config_free(next);
}

static void put_warning(void *arg, const char *line)
{
    struct items *items = arg;
    fputs(items->before, items->f);
    admin_put_string(items->f, slice_str(line));
    items->before = ",";
}

void admin_config_warnings(struct admin_call *call)
{
    struct admin_body b;
    struct rlimit files;
    if (!admin_body_open(call, &b))
        return;
    fputs("{\"warnings\":[", b.f);
    config_warnings(control_generation(call->admin->control)->config, put_warning,
                    &(struct items){b.f, ""});
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        files.rlim_cur = 0;
    fprintf(b.f, "],\"descriptors\":%llu,\"descriptors_wanted\":%u}",
            (unsigned long long)files.rlim_cur, FD_WANTED);
    admin_body_answer(call, &b);
}
