/*
 * gateway/admin_metrics.c - /metrics in Prometheus text format, and whether the gateway is ready.
 *
 * Owns:     nothing.
 * Runs on:  the control thread; reads the shards' counters without disturbing them.
 * Contract: every name comes from the table in metrics.h. Sums over shards, and per shard where
 *           that tells something.
 * Failure:  no memory: 500.
 * Bounds:   one line a metric and shard.
 * Tests:    tests/system (admin)
 */
#include <stdlib.h>

#include "gateway/admin_internal.h"
#include "tls/tls.h"

static const struct {
    const char *name, *type, *help;
} table[] = {
#define X(id, name, type, help) [id] = {name, type, help},
    METRICS(X)
#undef X
};

/* Gauges that do not add up: the largest is shown. */
static bool is_maximum(enum metric id)
{
    return id == M_SPOOL_HEALTH || id == M_TURN_MAX_NS ||
           (id >= M_PRESSURE_SPOOL && id <= M_PRESSURE_QUEUE);
}

static bool per_shard(enum metric id)
{
    return id == M_BUSY_NS || id == M_TURN_MAX_NS || id == M_UTILISATION_NS || id == M_SESSIONS ||
           id == M_ACCEPTED;
}

static uint64_t total(const struct gateway *gw, enum metric id)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < gw->shard_count; i++) {
        uint64_t v = metric_get(&gw->metrics[i], id);
        sum = is_maximum(id) ? (v > sum ? v : sum) : sum + v;
    }
    return sum;
}

/* Base units: what is counted in nanoseconds is shown in seconds. */
static void write_value(FILE *f, enum metric id, const char *label, uint64_t v)
{
    if (strstr(table[id].name, "seconds") || id == M_UTILISATION_NS)
        fprintf(f, "hikyaku_%s%s %.9f\n", table[id].name, label, (double)v / 1e9);
    else
        fprintf(f, "hikyaku_%s%s %llu\n", table[id].name, label, (unsigned long long)v);
}

static void write_certificates(FILE *f, const struct config *conf)
{
    fputs("# HELP hikyaku_certificate_expiry_seconds When the certificate ends, in seconds since "
          "1970.\n"
          "# TYPE hikyaku_certificate_expiry_seconds gauge\n",
          f);
    for (uint32_t i = 0; i < conf->receive_count; i++) {
        const struct config_receive_connector *r = &conf->receive[i];
        for (uint32_t k = 0; k < r->tls.certificate_count; k++) {
            const struct config_certificate *c = &r->tls.certificates[k];
            struct tls_identity id = {.certificate =
                                          slice_of(c->certificate_pem, c->certificate_len),
                                      .key = slice_of(c->key_pem, c->key_len),
                                      .certificate_name = c->certificate,
                                      .key_name = c->key};
            struct tls_certificate_info info;
            struct why why;
            if (tls_identity_check(&id, r->fqdn, &info, &why))
                fprintf(f,
                        "hikyaku_certificate_expiry_seconds{connector=\"%s\",index=\"%u\"} %lld\n",
                        r->name, k, (long long)info.not_after_s);
        }
    }
}

/* 0: nothing to compare with. */
static double ratio(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : 0;
}

void admin_metrics(struct admin_call *call)
{
    struct control *c = call->admin->control;
    const struct gateway *gw = control_gateway(c);
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f) {
        admin_error(call, 500, "out of memory");
        return;
    }
    for (enum metric id = 0; id < METRIC_COUNT; id++) {
        fprintf(f, "# HELP hikyaku_%s %s\n# TYPE hikyaku_%s %s\n", table[id].name, table[id].help,
                table[id].name, table[id].type);
        if (!per_shard(id))
            write_value(f, id, "",
                        id == M_DRAIN_PHASE ? (uint64_t)control_drain_phase(c) : total(gw, id));
        for (uint32_t i = 0; per_shard(id) && i < gw->shard_count; i++) {
            char label[32];
            snprintf(label, sizeof label, "{shard=\"%u\"}", i);
            write_value(f, id, label, metric_get(&gw->metrics[i], id));
        }
    }
    fprintf(
        f,
        "# HELP hikyaku_spool_write_amplification Bytes written to the log for each byte of mail "
        "taken.\n# TYPE hikyaku_spool_write_amplification gauge\n"
        "hikyaku_spool_write_amplification %.3f\n"
        "# HELP hikyaku_spool_space_amplification Bytes of segment files for each byte of mail "
        "queued.\n# TYPE hikyaku_spool_space_amplification gauge\n"
        "hikyaku_spool_space_amplification %.3f\n",
        ratio(total(gw, M_SPOOL_WRITTEN), total(gw, M_SPOOL_BODY)),
        ratio(total(gw, M_SPOOL_BYTES), total(gw, M_QUEUE_BYTES)));
    fprintf(f,
            "# HELP hikyaku_ready Whether new mail is accepted.\n# TYPE hikyaku_ready "
            "gauge\nhikyaku_ready %d\n",
            admin_not_ready(c) == NULL);
    fprintf(f,
            "# HELP hikyaku_draining Whether it was asked to stop.\n# TYPE hikyaku_draining "
            "gauge\nhikyaku_draining %d\n",
            control_state(c) >= CONTROL_DRAINING);
    fprintf(f,
            "# HELP hikyaku_config_generation Number of the configuration in force.\n"
            "# TYPE hikyaku_config_generation gauge\nhikyaku_config_generation %llu\n",
            (unsigned long long)control_generation(c)->number);
    fprintf(f,
            "# HELP hikyaku_config_reloads_failed_total Reloads that kept the old configuration.\n"
            "# TYPE hikyaku_config_reloads_failed_total "
            "counter\nhikyaku_config_reloads_failed_total %llu\n",
            (unsigned long long)control_reloads_failed(c));
    fprintf(f,
            "# HELP hikyaku_config_last_reload_successful Whether the last reload was taken, or "
            "none failed yet.\n"
            "# TYPE hikyaku_config_last_reload_successful gauge\n"
            "hikyaku_config_last_reload_successful %d\n",
            control_reload_error(c)[0] == '\0');
    fprintf(f,
            "# HELP hikyaku_start_time_seconds When the gateway started, in seconds since 1970.\n"
            "# TYPE hikyaku_start_time_seconds gauge\nhikyaku_start_time_seconds %.3f\n",
            (double)gw->start_wall_ns / 1e9);
    write_certificates(f, control_generation(c)->config);
    admin_series(f, c);
    fclose(f);
    admin_answer(call, 200, "text/plain; version=0.0.4; charset=utf-8", text, len);
}

const char *admin_not_ready(struct control *c)
{
    static const char *const reasons[PRESSURE_COUNT] = {
        "back pressure: spool.max_size is nearly used up (452 4.3.1)",
        "back pressure: the disk is full but for spool.min_free (452 4.3.1)",
        "back pressure: the disk has no inodes left (452 4.3.1)",
        "back pressure: memory is short (452 4.3.1)",
        "back pressure: the queue is full (452 4.3.1)"};
    switch (control_state(c)) {
    case CONTROL_STARTING: return "starting";
    case CONTROL_DRAINING:
    case CONTROL_STOPPED: return "draining";
    case CONTROL_RUNNING: break;
    }
    switch (total(control_gateway(c), M_SPOOL_HEALTH)) {
    case 3: return "the spool is full (452 4.3.1)";
    case 4: return "the spool cannot be written (451 4.3.0)";
    default: break;
    }
    for (unsigned r = 0; r < PRESSURE_COUNT; r++)
        if (admin_pressure(c, r) == PRESSURE_HIGH)
            return reasons[r];
    return NULL;
}

enum pressure_level admin_pressure(struct control *c, enum pressure_resource r)
{
    return (enum pressure_level)total(control_gateway(c), M_PRESSURE_SPOOL + r);
}

void admin_ready(struct admin_call *call)
{
    const char *why = admin_not_ready(call->admin->control);
    char *text = NULL;
    int len = asprintf(&text, "%s\n", why ? why : "ready");
    admin_answer(call, why ? 503 : 200, "text/plain; charset=utf-8", text,
                 len < 0 ? 0 : (size_t)len);
}
