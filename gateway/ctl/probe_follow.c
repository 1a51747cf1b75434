/*
 * gateway/ctl/probe_follow.c - what became of a probe's message: asked of the queue, then of the
 * tracking log.
 *
 * Owns:     nothing.
 * Runs on:  hikyakuctl's only thread.
 * Contract: the step is well when each recipient was delivered; it ends as soon as that is known,
 *           or when the message waits, with the next hop's own words.
 * Failure:  what cannot be known is said.
 * Bounds:   wait_s; FOLLOW_EVERY_MS between two looks.
 * Tests:    tests/system/test_probe.py
 */
#include "gateway/ctl/probe_internal.h"

#include <stdlib.h>
#include <unistd.h>

#include "gateway/tracking_find.h"

#define FOLLOW_EVERY_MS 100u

struct follow {
    const struct client *client;
    struct probe_talk *talk;
    const char *qid;
    char *tracking; /* NULL: none is kept */
    uint64_t end_ns;
};

static const char *text_of(json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? s : "";
}

/* The message as it lies in the queue, new; NULL: it is not there. */
static json_t *follow_queued(const struct follow *f, bool *answered)
{
    char filter[64];
    int status;
    snprintf(filter, sizeof filter, "qid=%s", f->qid);
    const struct client_arg args[] = {{"filter", filter}, {NULL, NULL}};
    json_t *j = client_call(f->client, "GET", "/api/v1/queue", args, &status);
    json_t *row = json_incref(json_array_get(json_object_get(j, "items"), 0));
    *answered = j != NULL;
    json_decref(j);
    return row;
}

/* The last event that says how it ended, new; NULL: none yet. */
static json_t *follow_end(const struct follow *f)
{
    static const char *const ends[] = {"delivered", "failed", "expired", "withdrawn",
                                       "handoff-given"};
    char expr[64], *found = NULL;
    size_t len = 0, i;
    struct why why;
    json_t *event, *last = NULL;
    snprintf(expr, sizeof expr, "qid=%s", f->qid);
    const struct tracking_search search = {
        .path = f->tracking, .expr = expr, .limit = 1, .json = true};
    FILE *out = open_memstream(&found, &len);
    enum tracking_found got = out ? tracking_find(&search, out, &why) : TRACKING_FAILED;
    if (out)
        fclose(out);
    json_t *j = got == TRACKING_FOUND ? json_loadb(found, len, 0, NULL) : NULL;
    free(found);
    json_t *message = json_array_get(json_object_get(j, "messages"), 0);
    json_array_foreach(json_object_get(message, "events"), i, event)
    {
        for (size_t k = 0; k < sizeof ends / sizeof *ends; k++)
            if (strcmp(text_of(event, "event"), ends[k]) == 0)
                last = event;
    }
    json_incref(last);
    json_decref(j);
    return last;
}

/* A probe without a sender that failed is kept as a dead letter: nobody is to find it later. */
static void follow_remove(const struct follow *f)
{
    const struct client_arg args[] = {{"qid", f->qid}, {NULL, NULL}};
    int status;
    json_decref(client_call(f->client, "POST", "/api/v1/queue/remove", args, &status));
}

static bool follow_waits(struct follow *f, json_t *row)
{
    static const char *const waits[] = {"deferred", "unreachable", "held", "suspended", "poison"};
    const char *status = text_of(row, "status"), *error = text_of(row, "last_error");
    char text[1024];
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        if (strcmp(status, waits[i]) != 0)
            continue;
        bool held = strcmp(status, "held") == 0;
        snprintf(text, sizeof text, "%s%s%s", status, *error ? ": " : "", error);
        talk_add(f->talk, "delivered", PROBE_FAILED, NULL, text,
                 held ? "it was removed from the queue again"
                      : "it waits in the queue: `hikyakuctl queue show`, `route explain`");
        if (held)
            follow_remove(f);
        return true;
    }
    return false;
}

static bool follow_ended(struct follow *f)
{
    char text[1024];
    if (!f->tracking) {
        talk_add(f->talk, "delivered", PROBE_NOTE, NULL, "it has left the queue",
                 "set log.tracking to learn where it went");
        return true;
    }
    json_t *event = follow_end(f);
    if (!event)
        return false;
    bool well = strcmp(text_of(event, "event"), "delivered") == 0;
    snprintf(text, sizeof text, "%s by %s to %s: %s", text_of(event, "event"),
             text_of(event, "connector"), text_of(event, "remote"),
             *text_of(event, "reply") ? text_of(event, "reply") : text_of(event, "reason"));
    talk_add(f->talk, "delivered", well ? PROBE_OK : PROBE_FAILED, NULL, text, NULL);
    json_decref(event);
    return true;
}

/* True: it is known how it went. */
static bool follow_look(struct follow *f)
{
    bool answered;
    json_t *row = follow_queued(f, &answered);
    if (!answered) {
        talk_add(f->talk, "delivered", PROBE_FAILED, NULL, "the gateway does not answer any more",
                 NULL);
        return true;
    }
    bool known = row ? follow_waits(f, row) : follow_ended(f);
    json_decref(row);
    return known;
}

void follow_message(const struct client *c, struct probe_talk *t, uint32_t wait_s)
{
    char qid[32];
    int status;
    json_t *j = client_call(c, "GET", "/api/v1/status", NULL, &status);
    struct follow f = {.client = c, .talk = t, .qid = qid};
    snprintf(qid, sizeof qid, "%.*s", (int)strcspn(t->last_reply, " "), t->last_reply);
    if (json_string_value(json_object_get(j, "tracking")))
        f.tracking = strdup(text_of(j, "tracking"));
    json_decref(j);
    talk_begin(t);
    f.end_ns = probe_now_ns() + wait_s * NS_PER_S;
    bool known = false;
    while (!(known = follow_look(&f)) && probe_now_ns() < f.end_ns)
        usleep(FOLLOW_EVERY_MS * 1000);
    if (!known)
        talk_add(t, "delivered", PROBE_FAILED, NULL, "it is still under way, or its end unknown",
                 "`hikyakuctl trace` and `hikyakuctl queue show` tell of it; --wait is longer");
    free(f.tracking);
}
