/*
 * gateway/config_internal.h - what the files of the configuration share: places, nodes, the table.
 */
#ifndef HIKYAKU_CONFIG_INTERNAL_H
#define HIKYAKU_CONFIG_INTERNAL_H

#include "gateway/config.h"
#include "gateway/limits.h"

/* ---- memory: one allocation each, freed (and wiped, for secrets) whole ---- */

struct config_block;

struct config_pool {
    struct config_block *blocks;
};

void config_pool_free(struct config_pool *p);

/* What config_load really makes: config_free finds the pool behind the configuration. */
struct config_tree {
    struct config config;
    struct config_pool pool;
};

/* ---- nodes: YAML with places, environment expanded, includes merged ---- */

struct config_place {
    const char *file;
    uint32_t line, column; /* from 1 */
};

enum config_kind { CONFIG_SCALAR, CONFIG_LIST, CONFIG_MAP };

struct config_node {
    enum config_kind kind;
    bool quoted;
    struct config_place place;
    char *text;                   /* scalar */
    struct config_entry *entries; /* list and map */
    uint32_t count;
};

struct config_entry {
    struct config_node *key; /* NULL in a list */
    struct config_node *value;
};

/* One reading: the first error stays. */
struct config_reader {
    struct config_pool *pool;   /* lives as long as the configuration */
    struct config_pool scratch; /* nodes: until the reading ends */
    struct config_file **files; /* where the files that are read are noted, or NULL */
    struct why *why;
    bool failed;
    uint32_t node_count, file_count;
};

/* Zeroed. NULL: no memory, or more than `len` can say; the reader has failed. */
void *config_alloc(struct config_reader *r, struct config_pool *p, size_t count, size_t size);
char *config_copy(struct config_reader *r, struct config_pool *p, const char *text, size_t len);
/* "FILE:LINE:COLUMN: ..." unless an error is there already. Always false. */
bool config_fail(struct config_reader *r, struct config_place at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The text as a tree; includes are not followed. NULL: failed. An empty text is an empty map. */
struct config_node *config_yaml(struct config_reader *r, const char *file, struct slice text);
/* The same with includes merged in. */
struct config_node *config_document(struct config_reader *r, const char *file, struct slice text);
struct config_node *config_node_new(struct config_reader *r, enum config_kind kind,
                                    struct config_place at);
/* A new node of kind map or list has room for `count` entries. */
bool config_node_room(struct config_reader *r, struct config_node *n, uint32_t count);
/* Value of a key of a map; NULL: not there. */
struct config_node *config_node_get(const struct config_node *map, const char *key);
/* By a path "tls.mode"; where it is not there, the nearest map above it: a place to point at. */
const struct config_node *config_node_near(const struct config_node *map, const char *path);

/*
 * A whole file into memory of `pool`, with a NUL behind it. `at` is the place that names it;
 * messages start with `what`.
 */
bool config_read_file(struct config_reader *r, struct config_pool *pool, const char *path,
                      uint64_t size_max, struct config_place at, const char *what,
                      struct slice *out);
/* A path as written, taken from the folder of the file it stands in unless it is absolute. */
char *config_path(struct config_reader *r, struct config_pool *pool, const struct config_node *n);

/* ---- the table ---- */

enum config_type {
    CONFIG_TYPE_STRING,
    CONFIG_TYPE_PATH,
    CONFIG_TYPE_NAME,   /* of a connector */
    CONFIG_TYPE_DOMAIN, /* stored as lower-case A-labels */
    CONFIG_TYPE_SPACE,  /* the same, also "*" and "*.example.com" */
    CONFIG_TYPE_BOOL,
    CONFIG_TYPE_COUNT,
    CONFIG_TYPE_SIZE,
    CONFIG_TYPE_TIME,
    CONFIG_TYPE_CHOICE,
    CONFIG_TYPE_CHOICES, /* a list of them, joined as bits */
    CONFIG_TYPE_ADDRESS,
    CONFIG_TYPE_ADDRESSES,
    CONFIG_TYPE_NETWORKS,
    CONFIG_TYPE_STRINGS,
    CONFIG_TYPE_PATHS,
    CONFIG_TYPE_TIMES,
    CONFIG_TYPE_GROUP, /* a map of keys of the same struct */
    CONFIG_TYPE_ITEMS  /* a list of maps, each a struct */
};

struct config_choice {
    const char *word;
    uint32_t value;
    bool unsupported;
};

#define CONFIG_PORT_NONE  0x10000u /* addresses of this key have no port */
#define CONFIG_PORT_GIVEN 0u       /* each must say its port; else unit is the default port */

struct config_key {
    const char *name;
    enum config_type type;
    const char *standard;  /* the default, as YAML; NULL: the key must be there */
    const char *otherwise; /* the default in words, where it is none of fixed text */
    uint64_t min, max;     /* of a number, size or time (in `unit`) */
    uint32_t unit;         /* times: nanoseconds of what is stored, 1 or 10^9; addresses: port */
    const char *zero;      /* a word that stands for 0 */
    const struct config_choice *choices;
    const struct config_keys *keys; /* groups and items */
    size_t offset, width;           /* where it goes; width 0: nowhere, a check looks at it */
    size_t count_offset, item_size; /* lists */
    uint32_t count_max;
    const char *item_key; /* items: a scalar stands for a map with this key alone */
    char separator;       /* items: a scalar stands for a list of its parts */
    bool unsupported;
    bool restart; /* a reload does not take it */
    const char *example;
    const char *help;
};

struct config_keys {
    const struct config_key *items;
    uint32_t count;
};

const struct config_keys *config_table(void);

/* "1m to 7d" */
void config_range_text(const struct config_key *k, char text[80]);
/* Stores a map into the struct at `base`, by the table. */
bool config_bind(struct config_reader *r, const struct config_keys *keys,
                 const struct config_node *map, void *base);

/* The first key in which two structs of these keys differ, or NULL. */
const struct config_key *config_same(const struct config_keys *keys, const void *a, const void *b);

/* ---- values ---- */

bool config_bool_parse(const char *text, bool *out) __attribute__((warn_unused_result));
bool config_count_parse(const char *text, uint64_t *out) __attribute__((warn_unused_result));
bool config_size_parse(const char *text, uint64_t *out) __attribute__((warn_unused_result));
/* Nanoseconds. */
bool config_time_parse(const char *text, uint64_t *out) __attribute__((warn_unused_result));
/* `port`: CONFIG_PORT_NONE, CONFIG_PORT_GIVEN or the default. */
bool config_address_parse(const char *text, uint32_t port, struct io_addr *out)
    __attribute__((warn_unused_result));
/*
 * "192.0.2.0/24", an address alone, or a range "192.0.2.10-192.0.2.20", which takes several
 * networks. Returns how many; 0: `why` says what is wrong.
 */
#define CONFIG_NETWORKS_OF_RANGE_MAX 254u
uint32_t config_network_parse(const char *text,
                              struct config_network out[CONFIG_NETWORKS_OF_RANGE_MAX],
                              struct why *why) __attribute__((warn_unused_result));
/* Address and port. */
bool config_address_same(const struct io_addr *a, const struct io_addr *b);
bool config_network_covers(const struct config_network *outer, const struct config_network *inner);
/* Is there an address that both let in? */
bool config_remotes_overlap(const struct config_networks *allow_a,
                            const struct config_networks *deny_a,
                            const struct config_networks *allow_b,
                            const struct config_networks *deny_b);
/* The most like `word` of `count` words, or NULL when none is near. */
const char *config_nearest(const char *word, const char *(*word_at)(const void *arg, uint32_t i),
                           const void *arg, uint32_t count);

/* ---- checks across keys; files that are named are read here ---- */

bool config_check(struct config_reader *r, const struct config_node *root, struct config *c);
/*
 * The line in a file that holds a password or token, without the newline at its end. NULL: failed.
 */
char *config_secret(struct config_reader *r, const struct config_node *file, const char *what);
/* No two of `count` texts are equal; else `key` of the later item of `list` is wrong. */
bool config_unique(struct config_reader *r, const char *(*text_at)(const void *arg, uint32_t i),
                   const void *arg, uint32_t count, const struct config_node *list, const char *key,
                   const char *what);
bool config_check_receive(struct config_reader *r, const struct config_node *root,
                          struct config *c);
bool config_check_send(struct config_reader *r, const struct config_node *root, struct config *c);

/* ---- for unit tests ---- */

/* Markdown: docs/configuration.md. */
void config_warnings_at(const struct config *c, int64_t now_s,
                        void (*each)(void *arg, const char *line), void *arg);

#endif
