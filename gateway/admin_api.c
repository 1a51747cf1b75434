/*
 * gateway/admin_api.c - which call answers which path: /api/v1, metrics, health, and the page.
 *
 * Owns:     nothing.
 * Runs on:  the control thread.
 * Contract: reading is GET, changing is POST.
 * Failure:  404 for a path that is not known, 405 for the wrong method.
 * Bounds:   a fixed table.
 * Tests:    tests/system/test_operate.py
 */
#include "gateway/admin_internal.h"

static void healthz(struct admin_call *call)
{
    admin_answer(call, 200, "text/plain; charset=utf-8", strdup("alive\n"), 6);
}

static void hold(struct admin_call *c)
{
    admin_queue_change(c, ADMIN_HOLD);
}
static void release(struct admin_call *c)
{
    admin_queue_change(c, ADMIN_RELEASE);
}
static void retry(struct admin_call *c)
{
    admin_queue_change(c, ADMIN_RETRY);
}
static void remove_(struct admin_call *c)
{
    admin_queue_change(c, ADMIN_REMOVE);
}
static void bounce(struct admin_call *c)
{
    admin_queue_change(c, ADMIN_BOUNCE);
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
    {"GET", "/api/v1/status", admin_status},
    {"GET", "/api/v1/trace", admin_trace},
    {"GET", "/api/v1/queue", admin_queue_list},
    {"GET", "/api/v1/progress", admin_progress},
    {"GET", "/api/v1/export", admin_queue_export},
    {"GET", "/api/v1/sites", admin_queue_sites},
    {"GET", "/api/v1/config/diff", admin_config_diff},
    {"GET", "/api/v1/config/warnings", admin_config_warnings},
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
    {"POST", "/api/v1/reload", admin_config_reload},
    {"POST", "/api/v1/drain", admin_drain},
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
        admin_queue_show(call, call->path + sizeof queue - 1);
    else
        admin_error(call, 404, "no such path; see /api/v1/status");
}
