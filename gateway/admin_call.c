/*
 * gateway/admin_call.c - what calls have in common: an answer written as JSON, the same question to
 * every shard.
 *
 * Owns:     the questions that a call has put to the shards.
 * Runs on:  the control thread.
 * Contract: an answer is one JSON object; an error is {"error": "..."} with 4xx or 5xx. A call
 *           whose connection goes is freed when the last shard has answered.
 * Failure:  a shard that answers late holds up its call alone; no memory: 500.
 * Bounds:   one question a shard.
 * Tests:    tests/system/test_operate.py
 */
#include <stdlib.h>

#include "gateway/admin_internal.h"
#include "gateway/base/json.h"

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
