/*
 * gateway/hop_watch.c - outbound connections in the protocol log.
 *
 * Owns:     hop.watch.
 * Runs on:  the shard of the hop.
 * Contract: what is sent or read while the machine authenticates is masked, what belongs to a body
 *           is counted.
 * Failure:  as gateway/protocol.c.
 * Bounds:   as gateway/protocol.c.
 * Tests:    tests/system/test_protocol_log.py
 */
#include "gateway/delivery.h"

static bool wanted(const struct hop *h, const struct io_addr *peer)
{
    const struct config_send_connector *conf = h->site->send->conf;
    return protocol_wants(h->site->delivery->shard, conf->protocol_log, conf->name, peer);
}

static void watch(struct hop *h, const struct io_addr *peer, bool late)
{
    struct delivery *d = h->site->delivery;
    char id[20];
    snprintf(id, sizeof id, "%02xo%012llx", d->shard->index, (unsigned long long)++d->hop_serial);
    const struct watch_params p = {.outbound = true,
                                   .late = late,
                                   .cut = late && smtp_reply_is_partial(&h->smtp.parser),
                                   .connector = h->site->send->conf->name,
                                   .session = id,
                                   .remote = peer,
                                   .fd = h->fd};
    h->watch = watch_begin(d->shard, &p);
}

void hop_watch_begin(struct hop *h, const struct io_addr *peer)
{
    if (!h->watch && wanted(h, peer))
        watch(h, peer, false);
    if (h->watch && peer) { /* one address after the other is tried */
        io_addr_text(peer, true, h->watch->remote);
        watch_note(h->watch, slice_str(h->remote), "connecting");
    }
}

void hop_watch_bytes(struct hop *h, bool sent, struct slice bytes)
{
    bool secret = h->smtp.phase == SMTP_OUT_AT_AUTH;
    bool body = sent && h->sending_body;
    watch_bytes(h->watch, sent, body ? WATCH_BODY : secret ? WATCH_SECRET : WATCH_LINES, bytes);
}

void delivery_watch(struct delivery *d)
{
    for (struct list *l = d->sites.next; l != &d->sites; l = l->next) {
        struct site *s = container_of(l, struct site, link);
        for (struct list *k = s->hops.next; k != &s->hops; k = k->next) {
            struct hop *h = container_of(k, struct hop, link);
            const struct io_addr *peer = h->addr_next ? &h->addrs[h->addr_next - 1] : NULL;
            if (h->state == HOP_CLOSING)
                continue;
            bool want = wanted(h, peer);
            if (want && !h->watch) {
                watch(h, peer, h->state >= HOP_TLS);
            } else if (!want && h->watch) {
                watch_leave(h->watch);
                h->watch = NULL;
            }
        }
    }
}
