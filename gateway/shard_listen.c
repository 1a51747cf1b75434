/*
 * gateway/shard_listen.c - a shard's listening sockets, as its configuration wants them.
 *
 * Owns:     the listeners, until the acceptor of each has stopped.
 * Runs on:  the shard's thread.
 * Contract: an address that the old configuration and the new one share stays bound throughout.
 *           What is bound does not accept before it is started.
 * Failure:  an address that cannot be bound: `why`, and nothing has changed.
 * Bounds:   one listener an address; LISTEN_BACKLOG.
 * Tests:    tests/system (start, reload, connectors)
 */
#include "gateway/shard_internal.h"

#include <stdlib.h>

#define LISTENER_BUSY "421 4.3.2 Too many connections, try again later\r\n"

static void listener_accepted(struct io_acceptor *a, int32_t fd, const struct io_addr *peer)
{
    struct listener *l = container_of(a, struct listener, acceptor);
    struct log_line line;
    if (fd >= 0) {
        session_accept(l, fd, peer);
        return;
    }
    log_begin(&line, &l->shard->log, EV_WARNING);
    log_str(&line, "reason", "accepting connections failed, trying again shortly");
    log_str(&line, "error", strerror(-fd));
    log_end(&line);
}

static void listener_stopped(struct io_acceptor *a)
{
    struct listener *l = container_of(a, struct listener, acceptor);
    struct shard *s = l->shard;
    io_close(s->io, l->fd);
    list_remove(&l->link);
    free(l);
    shard_config_adopted(s);
}

/* One that stops is of no use any more: who wants its address binds it again. */
static struct listener *listener_find(struct list *in, const struct io_addr *addr)
{
    for (struct list *p = in->next; p != in; p = p->next) {
        struct listener *l = container_of(p, struct listener, link);
        if (!l->stopping && l->addr.len == addr->len &&
            memcmp(&l->addr.sa, &addr->sa, addr->len) == 0)
            return l;
    }
    return NULL;
}

/* Is there a connector at this address that is not disabled? Those for peers are open on one shard,
 * which thus knows all that they hand over. */
static bool listener_wanted(const struct shard *s, const struct shard_config *c,
                            const struct io_addr *addr)
{
    for (uint32_t i = 0; i < c->receive_count; i++) {
        const struct config_receive_connector *conf = c->receive[i].conf;
        for (uint32_t b = 0; b < conf->bind_count; b++)
            if (c->receive[i].state != CONNECTOR_DISABLED &&
                (s->index == 0 || conf->handoff_accounts.count == 0) &&
                addr->len == conf->bind[b].len &&
                memcmp(&addr->sa, &conf->bind[b].sa, addr->len) == 0)
                return true;
    }
    return false;
}

/* Binds what `c` wants and `have` lacks, into `made`. */
bool shard_listeners_bind(struct shard *s, const struct shard_config *c, struct list *have,
                          struct list *made, struct why *why)
{
    const struct io_listen_opts opts = {
        .backlog = LISTEN_BACKLOG, .reuse_port = true, .v6_only = true};
    for (uint32_t i = 0; i < c->receive_count; i++) {
        const struct config_receive_connector *conf = c->receive[i].conf;
        for (uint32_t b = 0; b < conf->bind_count; b++) {
            const struct io_addr *addr = &conf->bind[b];
            if (!listener_wanted(s, c, addr) || listener_find(have, addr) ||
                listener_find(made, addr))
                continue;
            struct listener *l = calloc(1, sizeof *l);
            if (!l) {
                why_set(why, 451, "4.3.1", "out of memory");
                return false;
            }
            l->shard = s;
            l->addr = *addr;
            l->acceptor.on_accept = listener_accepted;
            l->acceptor.busy = conf->tls.mode == CONFIG_TLS_IMPLICIT ? NULL : LISTENER_BUSY;
            l->acceptor.on_stopped = listener_stopped;
            if (!io_listen(s->io, addr, &opts, &l->fd, why)) {
                free(l);
                return false;
            }
            list_push_back(made, &l->link);
        }
    }
    return true;
}

/* Listeners that never accepted. */
void shard_listeners_discard(struct shard *s, struct list *made)
{
    struct list *p;
    while ((p = list_pop_front(made))) {
        struct listener *l = container_of(p, struct listener, link);
        io_close(s->io, l->fd);
        free(l);
    }
}

void shard_listeners_start(struct shard *s, struct list *made)
{
    struct list *p;
    while ((p = list_pop_front(made))) {
        struct listener *l = container_of(p, struct listener, link);
        list_push_back(&s->listeners, &l->link);
        io_accept_start(s->io, &l->acceptor, l->fd);
    }
}

/* Ends every listener that `c` does not want (NULL: all). */
void shard_listeners_stop(struct shard *s, const struct shard_config *c)
{
    for (struct list *p = s->listeners.next, *next; p != &s->listeners; p = next) {
        struct listener *l = container_of(p, struct listener, link);
        next = p->next;
        if (!l->stopping && !(c && listener_wanted(s, c, &l->addr))) {
            l->stopping = true;
            io_accept_stop(s->io, &l->acceptor);
        }
    }
}

bool shard_listeners_update(struct shard *s, struct why *why)
{
    struct list made;
    list_init(&made);
    if (s->draining)
        return true;
    if (!shard_listeners_bind(s, s->config, &s->listeners, &made, why)) {
        shard_listeners_discard(s, &made);
        return false;
    }
    shard_listeners_start(s, &made);
    shard_listeners_stop(s, s->config);
    return true;
}
