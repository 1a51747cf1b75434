/*
 * gateway/site_permit.c - carries the permits of routing/permit.h: max_connections holds over all
 * shards.
 *
 * Owns:     the homes of this shard (one for each site whose key leads here), their timers.
 * Runs on:  the shard; states and grants of other shards come as messages.
 * Contract: a connection is opened only with a permit, and the permit goes back when its
 *           descriptor is closed.
 * Failure:  a message that finds a ring full is dropped: the protocol says it again. No memory
 *           for a home: the
 *           borrowers ask again.
 * Bounds:   SITE_COUNT_MAX sites, as many homes; idle ones are freed once a second.
 * Tests:    tests/unit/test_permit.c (protocol), tests/system (limits over shards)
 */
#include <stdlib.h>

#include "gateway/delivery.h"

struct home {
    struct home *next;
    struct delivery *delivery;
    struct timer timer;
    struct permit_home permit; /* last: it ends in an array */
};

uint64_t site_key(const struct shard_config *c, uint32_t connector, struct slice domain)
{
    uint64_t h = (14695981039346656037ull ^ c->gen->number) * 1099511628211ull;
    h = (h ^ connector) * 1099511628211ull; /* a step each: 3,0 and 2,1 are different sites */
    for (size_t i = 0; i < domain.len; i++)
        h = (h ^ ascii_lower(domain.ptr[i])) * 1099511628211ull;
    return h ^ h >> 29;
}

/* ---- home ---- */

static void home_fired(struct timer *t);
static void home_poll(struct home *h);

static struct home *home_get(struct delivery *d, const struct permit_message *m)
{
    struct home **bucket = &d->homes[m->key % SITE_BUCKETS], *h = *bucket;
    uint32_t shards = d->shard->gw->shard_count;
    while (h && h->permit.key != m->key)
        h = h->next;
    if (h)
        return h;
    h = calloc(1, offsetof(struct home, permit) + permit_home_size(shards));
    if (!h)
        return NULL;
    h->delivery = d;
    h->timer.fire = home_fired;
    permit_home_init(&h->permit, m->key, m->max, shards);
    h->next = *bucket;
    *bucket = h;
    d->home_count++;
    return h;
}

static void permit_send(struct delivery *d, uint32_t to, uint32_t kind,
                        const struct permit_message *m)
{
    uint64_t v[3];
    permit_pack(m, v);
    struct ring_item item = {.kind = kind, .a = v[0], .b = v[1], .c = v[2]};
    if (!io_post(d->shard->io, to, &item))
        return; /* said again after PERMIT_RESEND_NS */
}

static void take_grant(struct delivery *d, const struct permit_message *m)
{
    struct io *io = d->shard->io;
    for (struct site *s = d->site_keys[m->key % SITE_BUCKETS]; s; s = s->key_next) {
        if (s->permit.key != m->key)
            continue;
        permit_borrower_take_grant(&s->permit, m);
        io_timer_set(io, &s->timer, io_now_ns(io)); /* pumps at the start of the next turn */
        return;
    }
}

static void home_poll(struct home *h)
{
    struct delivery *d = h->delivery;
    struct io *io = d->shard->io;
    struct permit_message m;
    uint32_t to;
    while (permit_home_poll(&h->permit, io_now_ns(io), &to, &m)) {
        if (to == d->shard->index)
            take_grant(d, &m);
        else
            permit_send(d, to, PEER_PERMIT_GRANT, &m);
    }
    uint64_t next = permit_home_next_ns(&h->permit);
    if (next == UINT64_MAX)
        io_timer_clear(io, &h->timer);
    else
        io_timer_set(io, &h->timer, next);
}

static void home_fired(struct timer *t)
{
    home_poll(container_of(t, struct home, timer));
}

static void home_take(struct delivery *d, uint32_t from, const struct permit_message *m)
{
    struct home *h = home_get(d, m);
    if (!h)
        return;
    permit_home_take_state(&h->permit, from, m);
    home_poll(h);
}

/* ---- borrower ---- */

void site_permit_poll(struct site *s)
{
    struct delivery *d = s->delivery;
    struct io *io = d->shard->io;
    struct permit_message m;
    uint32_t home = (uint32_t)(s->permit.key % d->shard->gw->shard_count);
    while (permit_borrower_poll(&s->permit, io_now_ns(io), &m)) {
        if (home == d->shard->index)
            home_take(d, home, &m);
        else
            permit_send(d, home, PEER_PERMIT_STATE, &m);
    }
    uint64_t next = permit_borrower_next_ns(&s->permit);
    if (next == UINT64_MAX)
        io_timer_clear(io, &s->permit_timer);
    else
        io_timer_set(io, &s->permit_timer, next);
}

static void site_permit_fired(struct timer *t)
{
    site_permit_poll(container_of(t, struct site, permit_timer));
}

void site_permit_init(struct site *s)
{
    struct delivery *d = s->delivery;
    uint64_t key = site_key(s->config, s->connector, slice_str(s->domain));
    struct site **bucket = &d->site_keys[key % SITE_BUCKETS];
    permit_borrower_init(&s->permit, key, s->send->conf->connections_max);
    s->permit_timer.fire = site_permit_fired;
    s->key_next = *bucket;
    *bucket = s;
}

void site_permit_end(struct site *s)
{
    struct delivery *d = s->delivery;
    struct site **p = &d->site_keys[s->permit.key % SITE_BUCKETS];
    while (*p != s)
        p = &(*p)->key_next;
    *p = s->key_next;
    io_timer_clear(d->shard->io, &s->permit_timer);
}

/* ---- messages, life ---- */

void delivery_permit_message(struct delivery *d, const struct ring_item *item)
{
    struct permit_message m;
    const uint64_t v[3] = {item->a, item->b, item->c};
    permit_unpack(v, &m);
    if (item->kind == PEER_PERMIT_STATE)
        home_take(d, item->from, &m);
    else
        take_grant(d, &m);
}

void homes_sweep(struct delivery *d, bool all)
{
    for (uint32_t i = 0; d->home_count && i < SITE_BUCKETS; i++) {
        for (struct home **p = &d->homes[i]; *p;) {
            struct home *h = *p;
            if (!all && !permit_home_is_idle(&h->permit)) {
                p = &h->next;
                continue;
            }
            *p = h->next;
            io_timer_clear(d->shard->io, &h->timer);
            d->home_count--;
            free(h);
        }
    }
}
