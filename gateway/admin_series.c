/*
 * gateway/admin_series.c - /metrics: counters and histograms of each connector; age of the queue.
 *
 * Owns:     nothing.
 * Runs on:  the control thread; reads the shards' series without disturbing them.
 * Contract: a connector's series are there from its first configuration on, whatever they count.
 *           Connectors beyond the bound are summed up as "other", which is there when needed.
 * Failure:  none.
 * Bounds:   SERIES_CONNECTORS_MAX connectors of each kind; a fixed number of lines for each.
 * Tests:    tests/unit/test_series.c, tests/system/test_metrics.py
 */
#include "gateway/admin_internal.h"

struct series_row {
    const char *name, *outcome, *help;
};

static const struct series_row receive_rows[] = {
#define X(id, name, outcome, help) {name, outcome, help},
    RECEIVE_SERIES(X)
#undef X
};
static const struct series_row send_rows[] = {
#define X(id, name, outcome, help) {name, outcome, help},
    SEND_SERIES(X)
#undef X
};

static uint64_t get(const _Atomic uint64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

/* One connector's labels, or false: there is nothing in this place. */
static bool labels_of(const struct control *c, bool send, uint32_t slot, char labels[160])
{
    const struct series_names *n = control_series(c);
    uint32_t count = send ? n->send_count : n->receive_count;
    const char *name = slot == SERIES_OTHER ? "other" : send ? n->send[slot] : n->receive[slot];
    if (slot > count || (slot == SERIES_OTHER && count < SERIES_CONNECTORS_MAX))
        return false;
    if (send)
        snprintf(labels, 160, "connector=\"%s\",site_class=\"%s\"", name,
                 slot == SERIES_OTHER ? "any" : site_class_name(n->send_class[slot]));
    else
        snprintf(labels, 160, "connector=\"%s\"", name);
    return true;
}

static uint64_t count_of(const struct gateway *gw, bool send, uint32_t slot, uint32_t id)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < gw->shard_count; i++)
        sum += get(send ? &gw->metrics[i].send[slot].count[id]
                        : &gw->metrics[i].receive[slot].count[id]);
    return sum;
}

static void write_counters(FILE *f, const struct control *c, bool send)
{
    const struct series_row *rows = send ? send_rows : receive_rows;
    uint32_t row_count = send ? SEND_COUNTS : RECEIVE_COUNTS;
    char labels[160];
    for (uint32_t r = 0; r < row_count; r++) {
        if (r == 0 || strcmp(rows[r].name, rows[r - 1].name) != 0)
            fprintf(f, "# HELP hikyaku_%s %s\n# TYPE hikyaku_%s counter\n", rows[r].name,
                    rows[r].help, rows[r].name);
        for (uint32_t slot = 0; slot < SERIES_SLOTS; slot++)
            if (labels_of(c, send, slot, labels))
                fprintf(f, "hikyaku_%s{%s,outcome=\"%s\"} %llu\n", rows[r].name, labels,
                        rows[r].outcome,
                        (unsigned long long)count_of(control_gateway(c), send, slot, r));
    }
}

static const struct histogram *histogram_of(const struct metrics *m, uint32_t which, uint32_t slot)
{
    switch (which) {
    case 0: return &m->receive[slot].durable;
    case 1: return &m->send[slot].first;
    case 2: return &m->send[slot].attempt;
    default: return &m->send[slot].total;
    }
}

static void write_histogram(FILE *f, const struct gateway *gw, uint32_t which, uint32_t slot,
                            const char *name, const char *labels)
{
    uint64_t sum = 0, so_far = 0;
    for (uint32_t b = 0; b <= HISTOGRAM_BUCKETS; b++) {
        for (uint32_t i = 0; i < gw->shard_count; i++)
            so_far += get(&histogram_of(&gw->metrics[i], which, slot)->bucket[b]);
        if (b < HISTOGRAM_BUCKETS)
            fprintf(f, "hikyaku_%s_bucket{%s,le=\"%g\"} %llu\n", name, labels,
                    (double)histogram_bound_us[b] / 1e6, (unsigned long long)so_far);
    }
    for (uint32_t i = 0; i < gw->shard_count; i++)
        sum += get(&histogram_of(&gw->metrics[i], which, slot)->sum_ns);
    fprintf(f,
            "hikyaku_%s_bucket{%s,le=\"+Inf\"} %llu\nhikyaku_%s_sum{%s} %.9f\n"
            "hikyaku_%s_count{%s} %llu\n",
            name, labels, (unsigned long long)so_far, name, labels, (double)sum / 1e9, name, labels,
            (unsigned long long)so_far);
}

static void write_histograms(FILE *f, const struct control *c)
{
    static const struct {
        const char *name, *help;
    } all[] = {
        {"accept_to_durable_seconds",
         "From the end of a message's data to the end of the sync that covers it."},
        {"durable_to_first_attempt_seconds",
         "From durable to the beginning of a message's first transaction with a next hop."},
        {"attempt_seconds", "A transaction with a next hop, from MAIL to its last reply."},
        {"accept_to_delivered_seconds",
         "From DATA to the next hop's 250, for each recipient that was delivered."},
    };
    char labels[160];
    for (uint32_t which = 0; which < sizeof all / sizeof *all; which++) {
        fprintf(f, "# HELP hikyaku_%s %s\n# TYPE hikyaku_%s histogram\n", all[which].name,
                all[which].help, all[which].name);
        for (uint32_t slot = 0; slot < SERIES_SLOTS; slot++)
            if (labels_of(c, which > 0, slot, labels))
                write_histogram(f, control_gateway(c), which, slot, all[which].name, labels);
    }
}

static void write_ages(FILE *f, const struct control *c)
{
    const struct gateway *gw = control_gateway(c);
    uint64_t now_s = io_wall_ns(control_io((struct control *)(uintptr_t)c)) / NS_PER_S;
    uint64_t oldest_s = now_s;
    for (uint32_t i = 0; i < gw->shard_count; i++) {
        uint64_t s = get(&gw->metrics[i].queue_oldest_s);
        oldest_s = s && s < oldest_s ? s : oldest_s;
    }
    fprintf(
        f,
        "# HELP hikyaku_queue_oldest_age_seconds Age of the oldest message in the queue; a deep "
        "queue is looked through in minutes.\n# TYPE hikyaku_queue_oldest_age_seconds gauge\n"
        "hikyaku_queue_oldest_age_seconds %llu\n"
        "# HELP hikyaku_queue_messages_older Queued messages that are older than this many "
        "seconds.\n# TYPE hikyaku_queue_messages_older gauge\n",
        (unsigned long long)(now_s - oldest_s));
    for (uint32_t k = 0; k < QUEUE_AGES; k++) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < gw->shard_count; i++)
            sum += get(&gw->metrics[i].queue_older[k]);
        fprintf(f, "hikyaku_queue_messages_older{seconds=\"%u\"} %llu\n", queue_ages_s[k],
                (unsigned long long)sum);
    }
}

void admin_series(FILE *f, const struct control *c)
{
    write_counters(f, c, false);
    write_counters(f, c, true);
    write_histograms(f, c);
    write_ages(f, c);
}
