/*
 * gateway/control_protocol.c - whom the protocol log watches on the operator's word, and how long.
 *
 * Owns:     the list of targets; shards have copies.
 * Runs on:  the control thread.
 * Contract: a target ends by itself. It is not kept over a restart: a watch that nobody remembers
 *           would fill a disk.
 * Failure:  false and why; the list is as it was.
 * Bounds:   PROTOCOL_TARGETS_MAX, PROTOCOL_FOR_MAX_S.
 * Tests:    tests/system/test_protocol_log.py
 */
#include <stdlib.h>

#include "gateway/config_internal.h"
#include "gateway/control_internal.h"

const struct protocol_targets *control_protocol(const struct control *c)
{
    return &c->targets;
}

uint64_t control_protocol_left_s(const struct control *c, const struct protocol_target *t)
{
    uint64_t now = io_now_ns(c->io);
    return t->until_ns > now ? (t->until_ns - now + NS_PER_S - 1) / NS_PER_S : 0;
}

static void targets_end(struct timer *t);

/* Gives the list to the shards, and looks again when the first target ends. */
static void targets_tell(struct control *c)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < c->targets.count; i++)
        if (c->targets.items[i].until_ns < next)
            next = c->targets.items[i].until_ns;
    io_timer_clear(c->io, &c->targets_timer);
    c->targets_timer.fire = targets_end;
    if (next != UINT64_MAX)
        io_timer_set(c->io, &c->targets_timer, next);
    for (uint32_t i = 0; i < c->gw.shard_count; i++) {
        struct protocol_targets *copy = malloc(sizeof *copy);
        const struct ring_item item = {.kind = PEER_PROTOCOL, .ptr = copy};
        if (!copy)
            abort(); /* a watch must end */
        *copy = c->targets;
        control_post(c, i, &item);
    }
}

static void target_remove(struct control *c, uint32_t i)
{
    c->targets.items[i] = c->targets.items[--c->targets.count];
}

static void targets_end(struct timer *t)
{
    struct control *c = container_of(t, struct control, targets_timer);
    uint64_t now = io_now_ns(c->io);
    for (uint32_t i = c->targets.count; i-- > 0;)
        if (c->targets.items[i].until_ns <= now)
            target_remove(c, i);
    targets_tell(c);
}

static bool is_connector(const struct config *conf, const char *name)
{
    for (uint32_t i = 0; i < conf->receive_count; i++)
        if (strcmp(conf->receive[i].name, name) == 0)
            return true;
    for (uint32_t i = 0; i < conf->send_count; i++)
        if (strcmp(conf->send[i].name, name) == 0)
            return true;
    return false;
}

static bool target_parse(const struct config *conf, const char *text, struct protocol_target *t,
                         struct why *why)
{
    struct config_network networks[CONFIG_NETWORKS_OF_RANGE_MAX];
    struct why unused;
    *t = (struct protocol_target){.connector = is_connector(conf, text)};
    bool known = t->connector || config_network_parse(text, networks, &unused) == 1;
    if (!known || strlen(text) >= sizeof t->text) {
        why_set(why, 400, "", "%.64s is no connector, no address and no network", text);
        return false;
    }
    memcpy(t->text, text, strlen(text));
    if (!t->connector)
        t->network = networks[0];
    return true;
}

static struct protocol_target *target_find(struct control *c, const char *text)
{
    for (uint32_t i = 0; i < c->targets.count; i++)
        if (strcmp(c->targets.items[i].text, text) == 0)
            return &c->targets.items[i];
    return NULL;
}

bool control_protocol_watch(struct control *c, const char *target, uint64_t for_s, struct why *why)
{
    struct protocol_target t, *old = target_find(c, target);
    struct log_line line;
    if (!c->gw.protocol_rings) {
        why_set(why, 404, "", "this gateway keeps no protocol log: set log.protocol and restart");
        return false;
    }
    if (!target_parse(c->current->config, target, &t, why))
        return false;
    if (!old && c->targets.count == PROTOCOL_TARGETS_MAX) {
        why_set(why, 409, "", "%u targets are watched already: stop one", PROTOCOL_TARGETS_MAX);
        return false;
    }
    t.until_ns = io_now_ns(c->io) + for_s * NS_PER_S;
    *(old ? old : &c->targets.items[c->targets.count++]) = t;
    targets_tell(c);
    log_begin(&line, &c->log, EV_WARNING);
    log_str(&line, "reason", "the operator has the protocol log watch a target for a while");
    log_str(&line, "target", t.text);
    log_u64(&line, "seconds", for_s);
    log_end(&line);
    return true;
}

bool control_protocol_stop(struct control *c, const char *target)
{
    struct protocol_target *t = target ? target_find(c, target) : NULL;
    if (target ? !t : c->targets.count == 0)
        return false;
    if (t)
        target_remove(c, (uint32_t)(t - c->targets.items));
    else
        c->targets.count = 0;
    targets_tell(c);
    return true;
}
