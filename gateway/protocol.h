/*
 * gateway/protocol.h - composition: the protocol log of a shard. Connections of connectors with
 * protocol_log, and those that the operator watches for a while, have a watch; others have none,
 * and that is all it costs them.
 *
 * Lines are those of Exchange's protocol log: date-time,connector-id,session-id,sequence-number,
 * local-endpoint,remote-endpoint,event,data,context; event is + connect, - disconnect, > sent,
 * < received, * information.
 */
#ifndef HIKYAKU_PROTOCOL_H
#define HIKYAKU_PROTOCOL_H

#include "gateway/base/slab.h"
#include "gateway/config.h"
#include "gateway/log.h"
#include "gateway/smtp/transcript.h"

struct shard;
struct tls_conn;

/* Whom the operator watches: other hosts (clients, next hops) or a connector. Plain values. */
struct protocol_target {
    bool connector;
    char text[CONFIG_NAME_MAX + 1]; /* as it was said: a name, an address, a network */
    struct config_network network;  /* unless it is a connector */
    uint64_t until_ns;              /* on the control thread's monotonic clock */
};

struct protocol_targets {
    uint32_t count;
    struct protocol_target items[PROTOCOL_TARGETS_MAX];
};

struct protocol {
    struct ring_bytes *ring; /* NULL: log.protocol is not set */
    struct protocol_targets targets;
    struct slab watch_slab;
    uint64_t dropped[2], told[2]; /* lines that found the ring full; by direction */
};

/* What the bytes are. */
enum watch_bytes { WATCH_LINES, WATCH_SECRET, WATCH_BODY };

/* One connection that is logged. */
struct watch {
    struct shard *shard;
    bool outbound;
    const char *connector; /* lives as long as the connection */
    char session[20], local[IO_ADDR_TEXT_MAX], remote[IO_ADDR_TEXT_MAX];
    uint64_t sequence;
    uint64_t body;     /* bytes of a message, not told yet */
    uint32_t out_seen; /* of the replies of this step */
    struct transcript transcript;
};

struct watch_params {
    bool outbound;
    bool late; /* the connection is not new */
    bool cut;  /* it is in the middle of a line */
    const char *connector, *session;
    const struct io_addr *remote;
    int32_t fd; /* -1: not connected yet */
};

void protocol_init(struct shard *s, struct ring_bytes *ring);
void protocol_destroy(struct shard *s);
/* Is a connection with `peer` to be logged? `flagged`: its connector has protocol_log. */
bool protocol_wants(const struct shard *s, bool flagged, const char *connector,
                    const struct io_addr *peer);
/* NULL: too many. */
struct watch *watch_begin(struct shard *s, const struct watch_params *p);
/* The connection is there: + */
void watch_connected(struct watch *w, int32_t fd);
/* -, or that only the log of it ends. Frees. NULL is none. */
void watch_close(struct watch *w, const char *context);
void watch_leave(struct watch *w);
/* `context`: words of ours; `data`: escaped and masked here. */
void watch_note(struct watch *w, struct slice data, const char *context);
void watch_tls(struct watch *w, const struct tls_conn *tls);
/* Read from the peer, or sent to it. */
void watch_bytes(struct watch *w, bool sent, enum watch_bytes kind, struct slice bytes);

/* The operator changed whom to watch: connections that are open begin and end to be logged. Takes
 * `t` (malloc'd). */
void protocol_retarget(struct shard *s, struct protocol_targets *t);
/* Once a second: says what was lost. */
void protocol_tick(struct shard *s);

#endif
