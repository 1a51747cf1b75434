/*
 * gateway/session_watch.c - inbound sessions in the protocol log: which, and what is read and said.
 *
 * Owns:     session.watch.
 * Runs on:  the shard of the session.
 * Contract: lines stand in the order in which they were read and said. What the machine takes for
 *           content or a response is never given on as a line.
 * Failure:  as gateway/protocol.c.
 * Bounds:   as gateway/protocol.c.
 * Tests:    tests/system/test_protocol_log.py
 */
#include "gateway/session.h"

static bool wanted(const struct session *s)
{
    const struct config_receive_connector *conf = s->receive->conf;
    return protocol_wants(s->shard, conf->protocol_log, conf->name, &s->peer);
}

static void watch(struct session *s, bool late)
{
    const struct watch_params p = {.late = late,
                                   .cut = late && !smtp_in_at_line(&s->smtp),
                                   .connector = s->receive->conf->name,
                                   .session = s->id,
                                   .remote = &s->peer,
                                   .fd = s->fd};
    s->watch = watch_begin(s->shard, &p);
    s->smtp.lines = s->watch != NULL;
}

void session_watch_begin(struct session *s)
{
    if (!s->watch && wanted(s))
        watch(s, false);
}

void session_watch_read(struct session *s, enum smtp_in_reading what, struct slice before,
                        struct slice rest)
{
    static const enum watch_bytes kinds[] = {[SMTP_IN_READS_LINE] = WATCH_LINES,
                                             [SMTP_IN_READS_SECRET] = WATCH_SECRET,
                                             [SMTP_IN_READS_CONTENT] = WATCH_BODY};
    watch_bytes(s->watch, false, kinds[what], slice_head(before, before.len - rest.len));
}

void session_watch_out(struct session *s, const struct buf *out)
{
    watch_bytes(s->watch, true, WATCH_LINES, slice_from(buf_slice(out), s->watch->out_seen));
    s->watch->out_seen = out->len;
}

void sessions_watch(struct shard *sh)
{
    for (uint32_t i = 0; i < sh->session_count_max; i++) {
        struct session *s = sh->sessions[i];
        if (!s || (s->state != SESSION_HANDSHAKE && s->state != SESSION_OPEN))
            continue;
        bool want = wanted(s);
        if (want && !s->watch) {
            watch(s, true);
        } else if (!want && s->watch) {
            watch_leave(s->watch);
            s->watch = NULL;
            s->smtp.lines = false;
        }
    }
}
