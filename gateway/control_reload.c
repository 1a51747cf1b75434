/*
 * gateway/control_reload.c - generations of the configuration: read, offered to every shard,
 * adopted by all or by none.
 *
 * Owns:     generations until the last shard lets go of them.
 * Runs on:  the control thread.
 * Contract: a configuration that cannot be read, whose ports cannot be bound or whose
 *           certificates do not work changes nothing; the reason is kept for `status` and the
 *           log.
 * Failure:  as said: the old one stays.
 * Bounds:   one reload at a time.
 * Tests:    tests/system (reload)
 */
#include <stdlib.h>

#include "gateway/control_internal.h"

void control_look(struct timer *t)
{
    (void)t; /* only wakes the loop */
}

void generation_free(struct generation *g)
{
    if (g->users)
        users_free(g->users);
    if (g->accepted)
        relay_domains_destroy(g->accepted);
    relay_recipients_destroy(g->recipients);
    switches_free(&g->switches);
    if (g->config)
        config_free(g->config);
    free(g->interfaces);
    free(g);
}

static struct config *config_read(const struct control_options *o, struct why *why)
{
    static const size_t demo_max = 16384;
    if (!o->demo_dir)
        return config_load(o->config_path, why);
    char *text = malloc(demo_max);
    struct config *c = NULL;
    if (text) {
        struct buf b = buf_over(text, demo_max);
        if (config_demo(o->demo_dir, &b))
            c = config_parse("(embedded demo)", buf_slice(&b), why);
        else
            why_set(why, 451, "4.3.0", "the path %s is too long for the demo", o->demo_dir);
    }
    free(text);
    return c;
}

static bool accepted_load(struct generation *g, struct why *why)
{
    for (uint32_t i = 0; i < g->config->accepted_domains.count; i++) {
        const struct config_accepted_domain *d = &g->config->accepted_domains.items[i];
        uint8_t type = (uint8_t)(d->type | (d->recipients_file ? RELAY_LISTED : 0));
        uint32_t line;
        if (!relay_domains_add(g->accepted, d->domain, type))
            return false;
        if (!d->recipients_file ||
            relay_recipients_add(g->recipients, d->domain, d->recipients, &line))
            continue;
        if (line)
            why_set(why, 0, "", "%s:%u: expected a recipient of %s", d->recipients_file, line,
                    d->domain);
        return false;
    }
    return true;
}

struct generation *generation_load(const struct control_options *o, uint64_t number,
                                   const struct switches *switches, struct why *why)
{
    struct generation *g = calloc(1, sizeof *g);
    why_set(why, 451, "4.3.1", "out of memory");
    if (!g)
        return NULL;
    g->number = number;
    if (!switches_copy(switches, &g->switches))
        goto failed;
    g->seen = o->config_path ? config_file_seen(o->config_path) : 0;
    g->config = config_read(o, why);
    if (!g->config)
        goto failed;
    g->config->generation = number;
    for (const struct config_file *f = g->config->files; f; f = f->next)
        g->seen += f->seen;
    g->seen += g->config->users_file ? config_file_seen(g->config->users_file) : 0;
    if (g->config->users_file && !(g->users = users_load(g->config->users_file, why)))
        goto failed;
    g->accepted = relay_domains_create();
    g->interfaces = calloc(INTERFACES_MAX, sizeof *g->interfaces);
    g->recipients = relay_recipients_create();
    if (!g->accepted || !g->interfaces || !g->recipients)
        goto failed;
    g->interface_count = io_interfaces(g->interfaces, INTERFACES_MAX);
    if (accepted_load(g, why))
        return g;
failed:
    generation_free(g);
    return NULL;
}

static void control_reload_end(struct control *c, const struct why *why)
{
    struct log_line line;
    log_begin(&line, &c->log, why ? EV_RELOAD_FAILED : EV_RELOAD);
    if (why) {
        log_str(&line, "reason", why->text);
        snprintf(c->reload_error, sizeof c->reload_error, "%s", why->text);
        c->reloads_failed++;
    } else {
        c->reload_error[0] = '\0';
        c->watch.seen = c->current->seen;
        log_u64(&line, "generation", c->current->number);
    }
    log_end(&line);
    c->next = NULL;
    control_watch_update(c);
    if (c->reload_done)
        c->reload_done(c->reload_arg, why);
    c->reload_done = NULL;
}

bool control_reload(struct control *c, void (*done)(void *arg, const struct why *why), void *arg)
{
    struct why why;
    if (c->next || c->state != CONTROL_RUNNING)
        return false;
    c->reload_done = done;
    c->reload_arg = arg;
    control_watch_note(c);
    c->next = generation_load(&c->options, ++c->generations + 1, &c->switches, &why);
    if (c->next && !config_reload_possible(c->current->config, c->next->config, &why)) {
        generation_free(c->next);
        c->next = NULL;
    }
    if (!c->next) {
        control_reload_end(c, &why);
        return true;
    }
    series_assign(&c->series, c->next->config);
    c->answers = c->refusals = c->adopted = 0;
    c->next->shards_holding = c->gw.shard_count;
    struct ring_item item = {.kind = PEER_CONFIG, .ptr = c->next};
    control_post_shards(c, &item);
    return true;
}

void control_reload_ready(struct control *c, const struct ring_item *item)
{
    if (!item->b) {
        if (c->refusals++ == 0 && item->ptr)
            c->reload_why = *(struct why *)item->ptr;
        free(item->ptr);
    }
    if (++c->answers < c->gw.shard_count)
        return;
    struct why why;
    bool adopt = c->refusals == 0;
    if (adopt && !admin_reload(c->admin, c->next->config, &why)) {
        adopt = false;
        c->reload_why = why;
    }
    struct ring_item commit = {.kind = PEER_CONFIG_COMMIT, .a = adopt};
    control_post_shards(c, &commit);
    if (!adopt) {
        why = c->reload_why;
        control_reload_end(c, &why);
        return;
    }
    c->current = c->next; /* the old one is freed when the last shard lets go of it */
}

/* The answer waits for the last shard: a session begun behind it is under the new configuration. */
void control_reload_adopted(struct control *c)
{
    if (++c->adopted < c->gw.shard_count)
        return;
    control_reload_end(c, NULL);
    config_warnings(c->current->config, control_warn, c);
}

void control_generation_released(struct control *c, struct generation *g)
{
    if (--g->shards_holding > 0 || g == c->current)
        return;
    if (g == c->next)
        return; /* refused: still being answered */
    generation_free(g);
}
