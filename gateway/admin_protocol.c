/*
 * gateway/admin_protocol.c - /api/v1/protocol-log: whom the operator watches.
 *
 * Owns:     nothing.
 * Runs on:  the control thread.
 * Contract: a change is answered when every shard has made it.
 * Failure:  {"error": "..."} with 4xx, in words that say what to do.
 * Bounds:   PROTOCOL_TARGETS_MAX, PROTOCOL_FOR_MAX_S.
 * Tests:    tests/system/test_protocol_log.py
 */
#include "gateway/admin_internal.h"
#include "gateway/config_internal.h"

void admin_put_protocol(const struct control *c, FILE *f)
{
    const struct protocol_targets *t = control_protocol(c);
    fputs("\"protocol_log\":[", f);
    for (uint32_t i = 0; i < t->count; i++) {
        fputs(i ? ",{\"target\":" : "{\"target\":", f);
        admin_put_string(f, slice_str(t->items[i].text));
        fprintf(f, ",\"kind\":\"%s\",\"left_s\":%llu}",
                t->items[i].connector ? "connector" : "address",
                (unsigned long long)control_protocol_left_s(c, &t->items[i]));
    }
    fputs("]", f);
}

static void answer(struct admin_call *call)
{
    const struct control *c = call->admin->control;
    struct admin_body b;
    if (!admin_body_open(call, &b))
        return;
    fputs("{", b.f);
    admin_put_protocol(c, b.f);
    if (control_generation(c)->config->log.protocol)
        admin_put_member(b.f, "folder", control_generation(c)->config->log.protocol);
    fputs("}", b.f);
    admin_body_answer(call, &b);
}

void admin_protocol(struct admin_call *call)
{
    answer(call);
}

static void answer_later(struct admin_call *call)
{
    const struct admin_request r = {.op = ADMIN_NOTHING};
    admin_ask_all(call, &r, answer);
}

void admin_protocol_start(struct admin_call *call)
{
    const char *target = admin_arg(call, "target"), *time = admin_arg(call, "for");
    uint64_t for_ns = PROTOCOL_FOR_S * NS_PER_S;
    struct why why;
    if (!target || !*target)
        admin_error(call, 400, "give target=ADDRESS, NETWORK or CONNECTOR");
    else if ((time && !config_time_parse(time, &for_ns)) || for_ns < NS_PER_S ||
             for_ns > PROTOCOL_FOR_MAX_S * NS_PER_S)
        admin_error(call, 400, "for: expected a time of 1s to 1d, such as 10m");
    else if (!control_protocol_watch(call->admin->control, target, for_ns / NS_PER_S, &why))
        admin_error_why(call, why.smtp_code, &why);
    else
        answer_later(call);
}

void admin_protocol_stop(struct admin_call *call)
{
    if (control_protocol_stop(call->admin->control, admin_arg(call, "target")))
        answer_later(call);
    else
        admin_error(call, 404, "it is not watched");
}
