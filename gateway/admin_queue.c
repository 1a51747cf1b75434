/*
 * gateway/admin_queue.c - calls about queued messages: list, show, export, change; and how far the
 * shards are with them.
 *
 * Owns:     nothing; admin_call.c keeps the questions.
 * Runs on:  the control thread; the shards answer (shard_admin.c).
 * Contract: a change is of one queue id or of what a filter matches, never of both or of all by
 *           default. An export is the message's bytes as they are, not JSON.
 * Failure:  400 for what cannot be understood, 404 for a queue id that no message has, 409 for one
 *           that cannot be read.
 * Bounds:   LIMIT_MAX messages a listing.
 * Tests:    tests/system/test_operate.py, tests/system/test_export.py
 */
#include <stdlib.h>

#include "gateway/admin_internal.h"
#include "queue/queue.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     100000u

/* ---- answers ---- */

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

/* ---- questions ---- */

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

void admin_queue_list(struct admin_call *call)
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

void admin_queue_show(struct admin_call *call, const char *qid)
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

void admin_queue_export(struct admin_call *call)
{
    struct admin_request r = {.op = ADMIN_QUEUE_EXPORT};
    const char *qid = admin_arg(call, "qid");
    if (query_qid(call, qid ? qid : "", &r))
        admin_ask_all(call, &r, finish_export);
}

void admin_queue_change(struct admin_call *call, enum admin_change change)
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

void admin_queue_sites(struct admin_call *call)
{
    struct admin_request r = {.op = ADMIN_QUEUE_SITES};
    if (query_filter(call, &r))
        admin_ask_all(call, &r, finish_list);
}

void admin_progress(struct admin_call *call)
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
