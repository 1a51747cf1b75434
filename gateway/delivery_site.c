/*
 * gateway/delivery_site.c - sites: the next hops with mail waiting, their hosts, health and
 * connections.
 *
 * Owns:     sites (hash by configuration, connector and domain) and the tasks that wait in them.
 * Runs on:  the shard of the delivery.
 * Contract: a waiting task is taken by a ready connection, or gets a verdict when no host can be
 *           tried; tasks of a dead route are routed again, so that the next cost takes them
 *           (EXCHANGE E36).
 * Failure:  DNS: temporary answers defer, permanent ones fail with their DSN (FAULTS 71, 72).
 * Bounds:   SITE_COUNT_MAX sites; max_connections of the connector, by permits over all shards.
 * Tests:    tests/system (routing, mx, failover); routing/site.c has the policy and its unit
 *           tests
 */
#include "gateway/base/plant.h"
#include "gateway/delivery.h"

#include <assert.h>

#define SITE_DNS_TTL_MIN_S 30u
#define SITE_DNS_TTL_MAX_S 3600u
#define SITE_UNUSED_NS     (600 * NS_PER_S)
#define SITE_IN_CLEAR_NS \
    (600 * NS_PER_S) /* a host whose TLS failed is asked for TLS again after this */

/* ---- finding ---- */

static uint32_t site_bucket(uint32_t connector, struct slice domain)
{
    uint32_t h = 2166136261u ^ connector;
    for (size_t i = 0; i < domain.len; i++)
        h = (h ^ ascii_lower(domain.ptr[i])) * 16777619u;
    return h % SITE_BUCKETS;
}

struct site *site_find(struct delivery *d, struct shard_config *c, uint32_t connector,
                       struct slice domain)
{
    struct site *s = d->site_hash[site_bucket(connector, domain)];
    while (s && !(s->config == c && s->connector == connector &&
                  slice_eq_nocase(slice_str(s->domain), domain)))
        s = s->hash_next;
    return s;
}

static void site_timer_fired(struct timer *t)
{
    site_pump(container_of(t, struct site, timer));
}

static void site_mx_known(struct dns_query *q, const struct dns_answer *a);

static void site_smart_hosts(struct site *s)
{
    const struct config_send_connector *conf = s->send->conf;
    for (uint32_t i = 0; i < conf->smart_host_count && i < SITE_HOSTS_MAX; i++) {
        const struct config_smart_host *h = &conf->smart_hosts[i];
        if (!site_hosts_add(&s->hosts, h->priority, h->weight))
            break;
        s->host_names[i] = h->host;
        s->host_ports[i] = h->port;
    }
    s->dns = SITE_DNS_KNOWN;
    s->dns_expires_ns = UINT64_MAX;
}

struct site *site_get(struct delivery *d, struct shard_config *c, uint32_t connector,
                      struct slice domain)
{
    struct site *s = site_find(d, c, connector, domain);
    if (s || domain.len >= sizeof s->domain)
        return s;
    s = slab_alloc(&d->site_slab);
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    s->delivery = d;
    s->config = shard_config_ref(c);
    s->send = &c->send[connector];
    s->connector = connector;
    for (size_t i = 0; i < domain.len; i++)
        s->domain[i] = (char)ascii_lower(domain.ptr[i]);
    list_init(&s->tasks);
    list_init(&s->idle);
    list_init(&s->hops);
    s->timer.fire = site_timer_fired;
    s->query.done = site_mx_known;
    s->used_ns = io_now_ns(d->shard->io);
    site_hosts_init(&s->hosts, 0); /* permits hold max_connections over all shards */
    site_permit_init(s);
    if (!s->send->conf->mx)
        site_smart_hosts(s);
    struct site **bucket = &d->site_hash[site_bucket(connector, domain)];
    s->hash_next = *bucket;
    *bucket = s;
    list_push_back(&d->sites, &s->link);
    d->site_count++;
    metric_set(d->shard->metrics, M_SITES, d->site_count);
    return s;
}

static void site_free(struct site *s)
{
    struct delivery *d = s->delivery;
    struct site **p = &d->site_hash[site_bucket(s->connector, slice_str(s->domain))];
    assert(s->hop_count == 0 && list_empty(&s->tasks));
    while (*p != s)
        p = &(*p)->hash_next;
    *p = s->hash_next;
    if (s->dns == SITE_DNS_ASKED)
        dns_cancel(&s->query);
    if (s->mx)
        slab_free(&d->mx_slab, s->mx);
    io_timer_clear(d->shard->io, &s->timer);
    site_permit_end(s);
    list_remove(&s->link);
    d->site_count--;
    metric_set(d->shard->metrics, M_SITES, d->site_count);
    shard_config_unref(d->shard, s->config);
    slab_free(&d->site_slab, s);
}

bool site_unhealthy(void *arg, uint32_t connector, struct slice domain)
{
    struct delivery *d = arg;
    struct shard_config *c = d->shard->config;
    struct site *s =
        site_find(d, c, connector, c->send[connector].conf->mx ? domain : slice_of(NULL, 0));
    return s && site_is_unhealthy(&s->hosts, io_now_ns(d->shard->io));
}

/* ---- health, for people ---- */

void site_note_error(struct site *s, const struct why *why, const char *remote)
{
    s->last_error = *why;
    if (remote != s->last_remote)
        snprintf(s->last_remote, sizeof s->last_remote, "%s", remote);
}

bool site_is_down(const struct site *s)
{
    return s->was_unhealthy || site_is_unhealthy(&s->hosts, io_now_ns(s->delivery->shard->io));
}

static void site_log_health(struct site *s)
{
    uint64_t now = io_now_ns(s->delivery->shard->io);
    bool down = site_is_unhealthy(&s->hosts, now);
    struct log_line line;
    if (down == s->was_unhealthy || (!down && s->hosts.failed_in_row))
        return;
    s->was_unhealthy = down;
    log_begin(&line, &s->delivery->shard->log, down ? EV_SITE_DOWN : EV_SITE_UP);
    log_str(&line, "connector", s->send->conf->name);
    if (s->domain[0])
        log_str(&line, "domain", s->domain);
    if (down) {
        log_str(&line, "remote", s->last_remote);
        log_str(&line, "reply", s->last_error.text);
    }
    log_end(&line);
}

/* ---- tasks ---- */

bool site_enqueue(struct site *s, struct job *j, const uint32_t *rcpts, uint32_t count)
{
    struct task *t = slab_alloc(&s->delivery->task_slab);
    if (!t)
        return false;
    memset(t, 0, sizeof *t);
    t->rcpts = count ? arena_alloc_large(&j->arena, sizeof *rcpts * count) : NULL;
    if (count && !t->rcpts) {
        slab_free(&s->delivery->task_slab, t);
        return false;
    }
    if (count)
        memcpy(t->rcpts, rcpts, sizeof *rcpts * count);
    t->rcpt_count = count;
    t->job = j;
    t->site = s;
    t->failover = count && j->rcpts[rcpts[0]].failover;
    j->tasks_open++;
    list_push_back(&s->tasks, &t->link);
    s->depth++;
    s->used_ns = io_now_ns(s->delivery->shard->io);
    site_pump(s);
    return true;
}

struct task *site_first_task(const struct site *s)
{
    return list_empty(&s->tasks) ? NULL : container_of(s->tasks.next, struct task, link);
}

struct task *site_next_task(struct site *s)
{
    struct list *l = list_pop_front(&s->tasks);
    if (!l)
        return NULL;
    s->depth--;
    return container_of(l, struct task, link);
}

bool site_is_over(const struct site *s)
{
    return s->config != s->delivery->shard->config || s->send->state != CONNECTOR_ON;
}

void site_task_back(struct task *t)
{
    struct site *s = t->site;
    t->hop = NULL;
    if (site_is_over(s) || site_is_drained(s)) {
        for (uint32_t i = 0; i < t->rcpt_count; i++)
            t->job->rcpts[t->rcpts[i]].state = RCPT_PENDING;
        job_task_done(t);
        return;
    }
    list_push_front(&t->site->tasks, &t->link);
    t->site->depth++;
}

/* Every waiting task gets the same verdict; PENDING sends its recipients back to routing. */
static void site_settle_tasks(struct site *s, enum rcpt_state state, const struct why *why)
{
    const struct job_via via = {.send = s->send, .remote = s->last_remote};
    struct list waiting;
    list_init(&waiting);
    struct task *t;
    while ((t = site_next_task(s)))
        list_push_back(&waiting, &t->link);
    struct list *l;
    while ((l = list_pop_front(&waiting))) {
        t = container_of(l, struct task, link);
        struct job *j = t->job;
        for (uint32_t i = 0; i < t->rcpt_count; i++) {
            if (state == RCPT_PENDING)
                j->rcpts[t->rcpts[i]].state = RCPT_PENDING;
            else
                job_rcpt_done(j, t->rcpts[i], state, why, &via);
        }
        s->deferred += state == RCPT_DEFER ? t->rcpt_count : 0;
        job_task_done(t);
    }
}

/* ---- MX ---- */

static void site_set_hosts(struct site *s, const struct mx_list *mx)
{
    uint32_t open = s->hosts.connections;
    site_hosts_init(&s->hosts, s->hosts.connections_max);
    s->hosts.connections = open;
    s->hosts_version++;
    s->in_clear = 0;
    if (mx->verdict == MX_IMPLICIT) {
        s->host_names[0] = s->domain;
        s->host_ports[0] = s->send->conf->port;
        bool ok = site_hosts_add(&s->hosts, 0, 1);
        assert(ok);
        (void)ok;
        return;
    }
    for (uint32_t i = 0; i < mx->count; i++) {
        if (!site_hosts_add(&s->hosts, i, 1)) /* already in the order to be tried */
            break;
        s->host_names[i] = s->mx->hosts[i].host;
        s->host_ports[i] = s->send->conf->port;
    }
}

void site_give_up(struct site *s, const struct why *why)
{
    site_note_error(s, why, "");
    s->last_remote[0] = '\0';
    site_settle_tasks(s, RCPT_FAIL, why);
}

/* The list is in the order to be tried, so what is left keeps its places and its health. */
void site_drop_self(struct site *s, uint32_t host, struct why *why)
{
    mx_drop_self(s->mx, host, why);
    if (s->mx->verdict == MX_PERMANENT) {
        why_set(why, 554, "5.4.6", "Mail for %s loops back to this host, whose address %s has",
                s->domain, s->host_names[host]);
        s->dns = SITE_DNS_NONE;
        site_give_up(s, why);
        return;
    }
    s->hosts_version++; /* connections to those that go are no longer counted */
    s->hosts.count = s->mx->count;
    for (uint32_t i = 0; i < s->hosts.count; i++) {
        s->hosts.hosts[i].connections = 0;
        s->hosts.hosts[i].probing = false;
    }
}

static void site_mx_known(struct dns_query *q, const struct dns_answer *a)
{
    struct site *s = container_of(q, struct site, query);
    struct shard *sh = s->delivery->shard;
    const struct config *conf = s->config->gen->config;
    const char *own[64];
    uint32_t own_count = 0;
    struct why why;
    own[own_count++] = conf->hostname;
    for (uint32_t i = 0; i < conf->receive_count && own_count < 64; i++)
        own[own_count++] = conf->receive[i].fqdn;
    why_clear(&why);
    mx_evaluate(a, s->domain, own, own_count, &sh->chance, s->mx, &why);
    s->dns = SITE_DNS_NONE;
    s->last_remote[0] = '\0';
    if (s->mx->verdict == MX_PERMANENT) {
        site_give_up(s, &why);
        return;
    }
    if (s->mx->verdict == MX_TEMPORARY) {
        site_note_error(s, &why, "");
        site_settle_tasks(s, RCPT_DEFER, &why);
        return;
    }
    uint32_t ttl = a->ttl_s < SITE_DNS_TTL_MIN_S   ? SITE_DNS_TTL_MIN_S
                   : a->ttl_s > SITE_DNS_TTL_MAX_S ? SITE_DNS_TTL_MAX_S
                                                   : a->ttl_s;
    s->dns = SITE_DNS_KNOWN;
    s->dns_expires_ns = io_now_ns(sh->io) + ttl * NS_PER_S;
    site_set_hosts(s, s->mx);
    site_pump(s);
}

/* True when the hosts are known; else the answer will call site_pump again. */
static bool site_resolve(struct site *s)
{
    if (s->dns == SITE_DNS_KNOWN && io_now_ns(s->delivery->shard->io) < s->dns_expires_ns)
        return true;
    if (s->dns == SITE_DNS_ASKED)
        return false;
    if (!s->mx && !(s->mx = slab_alloc(&s->delivery->mx_slab))) {
        struct why why;
        why_set(&why, 451, "4.3.1", "Too many different next hops at once");
        site_settle_tasks(s, RCPT_DEFER, &why);
        return false;
    }
    s->dns = SITE_DNS_ASKED;
    dns_mx(s->delivery->shard->dns, &s->query, s->domain);
    return false;
}

/* ---- pump ---- */

/* All hosts are in their pause: the tasks wait once more, or are routed again. */
static void site_all_wait(struct site *s, uint64_t retry_ns)
{
    struct io *io = s->delivery->shard->io;
    s->retry_ns = retry_ns;
    site_log_health(s);
    if (site_is_unhealthy(&s->hosts, io_now_ns(io)))
        site_settle_tasks(s, RCPT_PENDING, NULL);
    else
        io_timer_set(io, &s->timer, retry_ns); /* one failure is no verdict: tried once more */
}

/* One more connection for the waiting tasks. True: it is being opened, look again. */
static bool site_open_one(struct site *s)
{
    struct delivery *d = s->delivery;
    struct io *io = d->shard->io;
    uint32_t host;
    uint64_t retry_ns = 0;
    if (!permit_take(&s->permit) && !PLANT(PERMIT_FREE))
        return false; /* a grant pumps again */
    enum site_pick pick =
        site_pick_host(&s->hosts, io_now_ns(io), &d->shard->chance, &host, &retry_ns);
    if (pick == SITE_HOST) {
        if (hop_open(s, host))
            return true;
        site_report(&s->hosts, host, SITE_NEUTRAL, io_now_ns(io), &d->shard->chance);
        site_release(&s->hosts, host);
        if (s->hop_count == 0)
            io_timer_set(io, &s->timer, io_now_ns(io) + NS_PER_S);
    }
    permit_give(&s->permit);
    if (pick == SITE_WAIT && s->hop_count == 0)
        site_all_wait(s, retry_ns);
    return false;
}

void site_pump(struct site *s)
{
    bool more = true;
    while (permit_is_over(&s->permit) && !list_empty(&s->idle)) /* another shard has work for it */
        hop_quit(container_of(list_pop_front(&s->idle), struct hop, idle_link));
    while (more && !list_empty(&s->tasks) && !site_is_drained(s)) {
        struct list *idle = list_pop_front(&s->idle);
        if (idle)
            hop_take(container_of(idle, struct hop, idle_link), site_next_task(s));
        else
            more = s->opening < s->depth && site_resolve(s) && site_open_one(s);
    }
    if (list_empty(&s->tasks))
        site_log_health(s);
    permit_want(&s->permit, s->depth > s->opening ? s->depth - s->opening : 0);
    site_permit_poll(s);
}

/* ---- life ---- */

void sites_sweep(struct delivery *d)
{
    uint64_t now = io_now_ns(d->shard->io);
    for (struct list *l = d->sites.next, *next; l != &d->sites; l = next) {
        struct site *s = container_of(l, struct site, link);
        next = l->next;
        bool old = s->config != d->shard->config;
        if (s->in_clear && now >= s->in_clear_until_ns)
            s->in_clear = 0;
        if (s->hop_count == 0 && list_empty(&s->tasks) && permit_borrower_is_idle(&s->permit) &&
            (old || now - s->used_ns > SITE_UNUSED_NS))
            site_free(s);
    }
}

void sites_failback(struct delivery *d)
{
    struct list back, *l;
    list_init(&back);
    for (struct list *p = d->sites.next; p != &d->sites; p = p->next) {
        struct site *s = container_of(p, struct site, link);
        for (struct list *next, *t = s->tasks.next; t != &s->tasks; t = next) {
            next = t->next;
            if (!container_of(t, struct task, link)->failover)
                continue;
            list_remove(t);
            list_push_back(&back, t);
            s->depth--;
        }
    }
    while ((l = list_pop_front(&back))) {
        struct task *t = container_of(l, struct task, link);
        for (uint32_t i = 0; i < t->rcpt_count; i++)
            t->job->rcpts[t->rcpts[i]].state = RCPT_PENDING;
        job_task_done(t);
    }
}

static void site_quit_idle(struct site *s)
{
    struct list *idle;
    while ((idle = list_pop_front(&s->idle)))
        hop_quit(container_of(idle, struct hop, idle_link));
}

void sites_drain(struct delivery *d, bool force)
{
    struct why why;
    why_set(&why, 451, "4.3.2", "The gateway is shutting down");
    for (struct list *l = d->sites.next, *next; l != &d->sites; l = next) {
        struct site *s = container_of(l, struct site, link);
        next = l->next;
        if (!site_is_drained(s))
            continue;
        site_quit_idle(s);
        site_settle_tasks(s, RCPT_PENDING, NULL);
        for (struct list *p = s->hops.next, *after; p != &s->hops; p = after) {
            struct hop *h = container_of(p, struct hop, link);
            after = p->next;
            if (force || (!h->task && !h->quitting))
                hop_failed(h, &why, false, h->smtp.phase == SMTP_OUT_AT_EOD);
        }
    }
}

/* Waiting mail is routed again by the new configuration, or without a connector that was suspended;
 * connections under way finish their task under the old one. */
void sites_config_changed(struct delivery *d)
{
    for (struct list *l = d->sites.next, *next; l != &d->sites; l = next) {
        struct site *s = container_of(l, struct site, link);
        next = l->next;
        if (!site_is_over(s))
            continue;
        site_quit_idle(s);
        site_settle_tasks(s, RCPT_PENDING, NULL);
    }
    sites_sweep(d);
}

void sites_destroy(struct delivery *d)
{
    while (!list_empty(&d->sites))
        site_free(container_of(d->sites.next, struct site, link));
}
