/*
 * gateway/config_table.h - how the table of keys is written, and its parts that have files of their
 * own. Included by config_table*.c only.
 */
#ifndef HIKYAKU_CONFIG_TABLE_H
#define HIKYAKU_CONFIG_TABLE_H

#include "gateway/config_internal.h"

#define COUNT(a) (uint32_t)(sizeof(a) / sizeof(a)[0])
/* clang-format off */
#define AT(type, field)                      \
    .offset = offsetof(struct type, field),  \
    .width = sizeof ((struct type *)0)->field
#define LIST(type, field, n)                     \
    .offset = offsetof(struct type, field),      \
    .width = sizeof(void *),                     \
    .count_offset = offsetof(struct type, n),    \
    .item_size = sizeof *((struct type *)0)->field
#define KEYS(array) &(const struct config_keys){.items = array, .count = COUNT(array)}
/* clang-format on */
#define SETS(type, field) .offset = offsetof(struct type, field), .width = 1

extern const struct config_keys config_spool_keys, config_back_pressure_keys, config_drain_keys,
    config_reload_keys, config_handoff_keys, config_log_keys;

#endif
