/*
 * gateway/series.c - places of connectors among the series, and histograms.
 *
 * Owns:     nothing.
 * Runs on:  histogram_add: a shard; series_assign: the control thread.
 * Contract: a name keeps its place for the life of the process.
 * Failure:  no place left: SERIES_OTHER.
 * Bounds:   SERIES_CONNECTORS_MAX.
 * Tests:    tests/unit/test_series.c
 */
#include "gateway/series.h"

#include <stdio.h>
#include <string.h>

#include "gateway/config.h"

#define MS 1000ull
#define S  1000000ull

const uint64_t histogram_bound_us[HISTOGRAM_BUCKETS] = {
    MS,        5 * MS / 2, 5 * MS, 10 * MS, 25 * MS, 50 * MS, 100 * MS, 250 * MS,  500 * MS, S,
    5 * S / 2, 5 * S,      10 * S, 30 * S,  60 * S,  300 * S, 1800 * S, 14400 * S, 86400 * S};

void histogram_add(struct histogram *h, uint64_t ns)
{
    uint32_t b = 0;
    while (b < HISTOGRAM_BUCKETS && ns > histogram_bound_us[b] * NS_PER_US)
        b++;
    series_add(&h->bucket[b], 1);
    series_add(&h->sum_ns, ns);
}

const char *site_class_name(enum site_class c)
{
    static const char *const names[] = {"smart_host", "mx", "peer"};
    return names[c];
}

static uint16_t place_of(char names[SERIES_SLOTS][CONFIG_NAME_MAX + 1], uint32_t *count,
                         const char *name)
{
    for (uint32_t i = 1; i <= *count; i++)
        if (strcmp(names[i], name) == 0)
            return (uint16_t)i;
    if (*count == SERIES_CONNECTORS_MAX)
        return SERIES_OTHER;
    snprintf(names[++*count], CONFIG_NAME_MAX + 1, "%s", name);
    return (uint16_t)*count;
}

void series_assign(struct series_names *names, struct config *c)
{
    for (uint32_t i = 0; i < c->receive_count; i++)
        c->receive[i].series = place_of(names->receive, &names->receive_count, c->receive[i].name);
    for (uint32_t i = 0; i < c->send_count; i++) {
        struct config_send_connector *s = &c->send[i];
        s->series = place_of(names->send, &names->send_count, s->name);
        names->send_class[s->series] = s->handoff ? SITE_CLASS_PEER
                                       : s->mx    ? SITE_CLASS_MX
                                                  : SITE_CLASS_SMART_HOST;
    }
}
