/*
 * gateway/config.h - the configuration as read: one immutable tree, made by config_load, shared by
 * all threads for reading.
 *
 * Keys, types, units, defaults, ranges and help come from one table (gateway/config_table.c); the
 * parser, --print-defaults and docs/configuration.md are made from it. Strings are NUL-terminated
 * and owned by the tree.
 */
#ifndef HIKYAKU_CONFIG_H
#define HIKYAKU_CONFIG_H

#include <stdio.h>

#include "gateway/base/buf.h"
#include "gateway/base/why.h"
#include "gateway/io/io.h"
#include "routing/route.h"

enum config_tls_mode { CONFIG_TLS_NONE, CONFIG_TLS_STARTTLS, CONFIG_TLS_IMPLICIT };

struct config_certificate {
    char *certificate, *key;            /* paths */
    uint8_t *certificate_pem, *key_pem; /* contents, read and checked by config_load */
    size_t certificate_len, key_len;
};

struct config_network { /* a prefix */
    uint8_t family;     /* AF_INET or AF_INET6 */
    uint8_t bits;
    uint8_t addr[16];
};

struct config_networks {
    struct config_network *items;
    uint32_t count;
};

struct config_strings {
    char **items;
    uint32_t count;
};

struct config_receive_connector {
    char *name;
    struct io_addr *bind;
    uint32_t bind_count;
    char *fqdn; /* never NULL: defaults to hostname */
    struct {
        enum config_tls_mode mode;
        bool required;
        uint16_t version_min; /* 0x0303, 0x0304 */
        uint32_t bits_min;
        struct config_certificate *certificates;
        uint32_t certificate_count;
    } tls;
    struct {
        bool required, require_tls;
        uint32_t mechanisms; /* bits of enum sasl_mechanism */
    } auth;
    struct {
        struct config_networks allow, deny;
    } remote;
    struct {
        bool authenticated;
        struct config_networks networks;
    } relay;
    struct {
        bool required; /* whoever is not in `from`, or brings no header, is refused */
        struct config_networks from;
    } proxy;
    bool sender_identity_enforce;
    bool submission; /* a connector whose auth is required, or whose every bind port is 587 or 465,
                        unless the key says otherwise: adds Date and Message-ID */
    uint64_t message_size_max;
    uint32_t rcpt_count_max;
    uint64_t idle_ns;                       /* without a whole command, or text */
    struct config_strings handoff_accounts; /* gateways that may hand their mail over */
    bool protocol_log;
    uint16_t series; /* its place among the metrics (gateway/series.h); set by the control thread */
};

enum config_tls_level {
    CONFIG_LEVEL_NONE,
    CONFIG_LEVEL_OPPORTUNISTIC,
    CONFIG_LEVEL_REQUIRED,
    CONFIG_LEVEL_VERIFY
};

struct config_smart_host {
    char *host; /* name, or the literal without brackets */
    bool literal;
    struct io_addr addr; /* when literal */
    uint16_t port;
    uint32_t priority, weight;
};

struct config_send_connector {
    char *name;
    struct route_space *spaces; /* see routing/route.h */
    uint32_t space_count;
    bool mx; /* delivery: mx, else smart_hosts */
    struct config_smart_host *smart_hosts;
    uint32_t smart_host_count;
    struct {
        uint32_t mechanism; /* bits; 0: none */
        char *username, *password;
    } auth;
    struct {
        enum config_tls_level level;
        char *name;    /* to verify; NULL: the host's */
        char *ca_file; /* NULL: system */
    } tls;
    bool helo_only;
    struct io_addr *source_addresses;
    uint32_t source_address_count;
    struct config_strings receive_connectors;
    uint64_t message_size_max; /* 0: none */
    uint32_t connections_max, messages_per_connection_max, rcpts_per_message_max;
    bool enabled, failover, allow_relay, protocol_log;
    bool handoff; /* one of handoff.peers: takes no mail by address space */
    enum { CONFIG_UNCERTAIN_RETRY, CONFIG_UNCERTAIN_HOLD } on_uncertain;
    struct config_networks mx_allow; /* delivery: mx may connect to these although they are private
                                        or special (FAULTS 75) */
    uint16_t port;                   /* for delivery: mx; 25. For tests and odd set-ups */
    uint16_t series;                 /* as above */
};

/* A file that the configuration was read from or names, other than config.path. */
struct config_file {
    struct config_file *next;
    const char *path;
    uint64_t seen; /* config_file_seen before it was read */
};

struct config {
    char *path;
    struct config_file *files; /* includes, certificates, keys, secrets */
    uint64_t generation;       /* grows with every reload; set by the control thread */
    char *hostname;
    uint32_t shards; /* 0: auto */
    struct {
        char *path;
        uint64_t bytes_max, disk_free_min;
        enum { CONFIG_WRITE_AUTO, CONFIG_WRITE_BUFFERED, CONFIG_WRITE_DIRECT } write;
    } spool;
    struct {
        char *socket;        /* NULL: none */
        struct io_addr http; /* len 0: none */
        char *token;         /* contents of token_file, or NULL */
    } admin;
    struct {
        uint8_t level; /* enum log_level */
        bool json;
        char *tracking, *protocol;                /* paths or NULL */
        uint64_t tracking_bytes, tracking_keep_s; /* one file; packed ones */
        uint64_t protocol_bytes, protocol_keep_s, protocol_folder_bytes;
    } log;
    struct {
        struct io_addr *servers;
        uint32_t server_count;
        bool dnssec;
        uint64_t timeout_ns;
    } dns;
    struct config_networks own_addresses; /* ours although no interface has them (FAULTS 74) */
    uint64_t tls_memory_max;              /* of each shard */
    char *users_file;
    char *postmaster; /* who hears of failed mail without a sender; NULL: nobody */
    struct {
        struct config_accepted_domain {
            char *domain; /* lower case, A-label form */
            enum { CONFIG_AUTHORITATIVE, CONFIG_INTERNAL_RELAY, CONFIG_EXTERNAL_RELAY } type;
            char *recipients_file;   /* NULL: any recipient */
            struct slice recipients; /* its text */
        } * items;
        uint32_t count;
    } accepted_domains;
    struct config_receive_connector *receive;
    uint32_t receive_count;
    struct config_send_connector *send;
    uint32_t send_count;
    struct route_table *routes; /* made from `send` */
    struct {
        bool watch;
    } reload;
    struct {
        uint64_t memory_bytes;   /* resident; 0: three quarters of what there is */
        uint64_t queue_messages; /* 0: no limit */
        uint64_t delay_ns;       /* of answers to MAIL at medium pressure */
    } back_pressure;
    struct {
        uint64_t accept_ns;     /* not ready, but connections are accepted */
        uint64_t deliveries_ns; /* new ones begin for so long after that */
    } drain;
    struct {
        struct config_strings peers; /* send connectors */
        uint32_t *connectors;        /* their numbers, as many */
        uint64_t timeout_ns;
    } handoff;
    struct {
        uint64_t *intervals_s;
        uint32_t interval_count;
        uint64_t expire_s, warn_after_s;
    } retry;
};

/*
 * Reads FILE (and its includes, and the files it names). NULL: `why->text` is "FILE:LINE:COLUMN:
 * message". Never touches the spool. Keys of INTERFACES that do not work yet are refused with "...
 * is not supported yet".
 */
struct config *config_load(const char *path, struct why *why);
/* The same from memory: for the embedded demo and tests. `name` stands in messages. */
struct config *config_parse(const char *name, struct slice text, struct why *why);
void config_free(struct config *c);
/*
 * Can a gateway that runs with `now` go on with `next`? False: `why->text` names the first key that
 * differs and needs a restart ("FILE: a change of shards needs a restart").
 */
bool config_reload_possible(const struct config *now, const struct config *next, struct why *why)
    __attribute__((warn_unused_result));
/* A number that is another one when the file at `path` was replaced or written. */
uint64_t config_file_seen(const char *path);
/* Calls `each` for every key that differs: "retry.expire", "send_connectors[out].enabled"; `what`
 * is changed, added or removed. Values are not told: some are secrets. */
void config_diff(const struct config *now, const struct config *next,
                 void (*each)(void *arg, const char *key, const char *what, bool restart),
                 void *arg);
/* Warnings (certificate names, expiry): one line each to `each`. */
void config_warnings(const struct config *c, void (*each)(void *arg, const char *line), void *arg);
/* YAML with every key, its default and its help. */
void config_print_defaults(FILE *f);
/* docs/configuration.md, generated: every key with type, default, range, and whether a reload takes
 * it. */
void config_print_reference(FILE *f);
/* The embedded demo of `make run`, all paths below `dir`. The text is written into `out` (YAML). */
bool config_demo(const char *dir, struct buf *out) __attribute__((warn_unused_result));

bool config_networks_match(const struct config_networks *n, const struct io_addr *a);
/* Is `addr` one of the connector's bind addresses? */
bool config_receive_bound(const struct config_receive_connector *c, const struct io_addr *addr);

#endif
