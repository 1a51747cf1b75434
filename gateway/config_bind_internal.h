/*
 * gateway/config_bind_internal.h - what config_bind.c (maps and lists) and config_bind_value.c
 * (values) share.
 */
#ifndef HIKYAKU_CONFIG_BIND_INTERNAL_H
#define HIKYAKU_CONFIG_BIND_INTERNAL_H

#include "gateway/config_internal.h"

/* Where a value goes and what messages call it. */
struct config_slot {
    struct config_reader *r;
    const struct config_key *key;
    const struct config_node *node;
    char *base;
    const char *path; /* "tls.mode" */
};

/* Always false: what stands at `n` is not what was expected. */
bool config_wrong(const struct config_slot *s, const struct config_node *n, const char *expected);
/* A number of the key's width. */
void config_store(const struct config_slot *s, uint64_t value);
/* A number, size or time of node `n`; range checked. */
bool config_number_of(const struct config_slot *s, const struct config_node *n, uint64_t *out)
    __attribute__((warn_unused_result));
bool config_choice_of(const struct config_slot *s, const struct config_node *n, uint32_t *out)
    __attribute__((warn_unused_result));
bool config_address_of(const struct config_slot *s, const struct config_node *n,
                       struct io_addr *out) __attribute__((warn_unused_result));
/* What the slot's node says, where it is one value. */
bool config_bind_scalar(const struct config_slot *s) __attribute__((warn_unused_result));

#endif
