/*
 * gateway/protocol.c - the protocol log of one shard: which connections, and their lines.
 *
 * Owns:     the watches (slab) and the shard's end of the ring.
 * Runs on:  the shard.
 * Contract: a line is whole or not there, and what is not there is told in the log itself. Content
 *           of messages is counted, never shown; credentials are masked (smtp/transcript.c).
 * Failure:  a full ring drops lines and counts them; nothing waits. No watch left: the connection
 *           is not logged.
 * Bounds:   PROTOCOL_RING_BYTES, PROTOCOL_LINE_MAX, PROTOCOL_WATCHES_MAX, PROTOCOL_TARGETS_MAX.
 * Tests:    tests/unit/test_transcript.c, tests/system/test_protocol_log.py
 */
#include "gateway/protocol.h"

#include <stdlib.h>

#include "gateway/shard.h"

/* ---- lines ---- */

static void put_field(struct buf *b, struct slice text)
{
    bool quotes = slice_find(text, ',') < text.len || slice_find(text, '"') < text.len;
    buf_add_byte(b, ',');
    if (quotes)
        buf_add_byte(b, '"');
    while (text.len) {
        size_t n = slice_find(text, '"');
        buf_add(b, text.ptr, n);
        if (n < text.len)
            buf_add_str(b, "\"\"");
        text = slice_from(text, n + 1);
    }
    if (quotes)
        buf_add_byte(b, '"');
}

static bool put_raw(struct shard *s, struct buf *b)
{
    buf_add_byte(b, '\n');
    return !b->overflow && ring_bytes_write(s->protocol.ring, b->ptr, b->len);
}

static void begin_line(struct shard *s, bool outbound, struct buf *b)
{
    buf_add_byte(b, outbound ? LOG_SEND : LOG_RECEIVE);
    log_time(&s->log, b);
    buf_add_byte(b, 'Z');
}

/* False: there is no room to say so either. */
static bool tell_lost(struct shard *s, bool outbound)
{
    struct protocol *p = &s->protocol;
    uint8_t bytes[256];
    struct buf b = buf_over(bytes, sizeof bytes);
    if (p->dropped[outbound] == p->told[outbound])
        return true;
    begin_line(s, outbound, &b);
    buf_addf(&b, ",,,,,,*,%llu,lines are missing here: the log could not keep up",
             (unsigned long long)(p->dropped[outbound] - p->told[outbound]));
    if (!put_raw(s, &b))
        return false;
    p->told[outbound] = p->dropped[outbound];
    return true;
}

/* `data` is escaped already. */
static void put_line(struct watch *w, char event, struct slice data, const char *context)
{
    struct shard *s = w->shard;
    uint8_t bytes[PROTOCOL_LINE_MAX];
    struct buf b = buf_over(bytes, sizeof bytes);
    begin_line(s, w->outbound, &b);
    put_field(&b, slice_str(w->connector));
    put_field(&b, slice_str(w->session));
    buf_add_byte(&b, ',');
    buf_add_number(&b, w->sequence++, 1);
    put_field(&b, slice_str(w->local));
    put_field(&b, slice_str(w->remote));
    buf_add_byte(&b, ',');
    buf_add_byte(&b, (uint8_t)event);
    put_field(&b, data);
    put_field(&b, slice_str(context));
    if (tell_lost(s, w->outbound) && put_raw(s, &b))
        return;
    s->protocol.dropped[w->outbound]++;
    metric_add(s->metrics, M_PROTOCOL_DROPPED, 1);
}

/* ---- what watches see ---- */

static void tell_body(struct watch *w)
{
    char text[24];
    if (!w->body)
        return;
    snprintf(text, sizeof text, "%llu", (unsigned long long)w->body);
    w->body = 0;
    put_line(w, '*', slice_str(text),
             w->outbound ? "bytes of message sent" : "bytes of message received");
}

void watch_note(struct watch *w, struct slice data, const char *context)
{
    uint8_t bytes[1024];
    struct buf b = buf_over(bytes, sizeof bytes);
    tell_body(w);
    transcript_words(&w->transcript, slice_head(data, 255), &b);
    put_line(w, '*', buf_slice(&b), context);
}

void watch_tls(struct watch *w, const struct tls_conn *tls)
{
    struct tls_facts f;
    char data[160], context[320];
    tls_facts(tls, &f);
    snprintf(data, sizeof data, "%.40s %.80s %u bits", f.version, f.cipher, f.bits);
    snprintf(context, sizeof context, "TLS%s%s%s%s", f.resumed ? ", resumed" : "",
             f.verified ? ", certificate verified" : "", f.sni[0] ? ", server name " : "", f.sni);
    for (char *c = context; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    watch_note(w, slice_str(data), context);
}

void watch_bytes(struct watch *w, bool sent, enum watch_bytes kind, struct slice bytes)
{
    uint8_t text[TRANSCRIPT_SHOWN_MAX];
    struct buf line = buf_over(text, sizeof text);
    enum transcript_from from = sent == w->outbound ? TRANSCRIPT_CLIENT : TRANSCRIPT_SERVER;
    if (kind == WATCH_BODY) {
        w->body += bytes.len;
        return;
    }
    while (transcript_line(&w->transcript, from, kind == WATCH_SECRET, &bytes, &line)) {
        tell_body(w);
        put_line(w, sent ? '>' : '<', buf_slice(&line), "");
        line.len = 0;
    }
}

/* ---- watches ---- */

void watch_connected(struct watch *w, int32_t fd)
{
    struct io_addr local;
    if (io_local_addr(w->shard->io, fd, &local))
        io_addr_text(&local, true, w->local);
    put_line(w, '+', slice_of(NULL, 0), "");
}

struct watch *watch_begin(struct shard *s, const struct watch_params *p)
{
    struct watch *w = slab_alloc(&s->protocol.watch_slab);
    struct io_addr local;
    if (!w)
        return NULL;
    memset(w, 0, offsetof(struct watch, transcript));
    transcript_init(&w->transcript, p->late, p->cut);
    w->shard = s;
    w->outbound = p->outbound;
    w->connector = p->connector;
    snprintf(w->session, sizeof w->session, "%s", p->session);
    if (p->remote)
        io_addr_text(p->remote, true, w->remote);
    if (p->late) {
        if (p->fd >= 0 && io_local_addr(s->io, p->fd, &local))
            io_addr_text(&local, true, w->local);
        put_line(w, '*', slice_of(NULL, 0), "the log begins in the middle of this session");
    } else if (p->fd >= 0) {
        watch_connected(w, p->fd);
    }
    return w;
}

static void watch_free(struct watch *w)
{
    transcript_wipe(&w->transcript);
    slab_free(&w->shard->protocol.watch_slab, w);
}

void watch_close(struct watch *w, const char *context)
{
    if (!w)
        return;
    tell_body(w);
    put_line(w, '-', slice_of(NULL, 0), context);
    watch_free(w);
}

void watch_leave(struct watch *w)
{
    tell_body(w);
    put_line(w, '*', slice_of(NULL, 0), "the log of this session ends here");
    watch_free(w);
}

/* ---- the shard ---- */

void protocol_init(struct shard *s, struct ring_bytes *ring)
{
    s->protocol.ring = ring;
    slab_init(&s->protocol.watch_slab, "protocol log", sizeof(struct watch), PROTOCOL_WATCHES_MAX);
}

void protocol_destroy(struct shard *s)
{
    slab_destroy(&s->protocol.watch_slab, false);
}

bool protocol_wants(const struct shard *s, bool flagged, const char *connector,
                    const struct io_addr *peer)
{
    const struct protocol *p = &s->protocol;
    if (!p->ring)
        return false;
    for (uint32_t i = 0; i < p->targets.count && !flagged; i++) {
        const struct protocol_target *t = &p->targets.items[i];
        const struct config_networks one = {(struct config_network *)(uintptr_t)&t->network, 1};
        flagged = t->connector ? strcmp(t->text, connector) == 0
                               : peer && config_networks_match(&one, peer);
    }
    return flagged;
}

void protocol_retarget(struct shard *s, struct protocol_targets *t)
{
    s->protocol.targets = *t;
    free(t);
    sessions_watch(s);
    delivery_watch(s->delivery);
}

void protocol_tick(struct shard *s)
{
    for (int outbound = 0; outbound < 2; outbound++)
        (void)tell_lost(s, outbound);
}
