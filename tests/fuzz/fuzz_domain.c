/*
 * tests/fuzz/fuzz_domain.c - domains as they come: what is taken is a fixed point within its
 * bounds, and a map finds it by itself and by its suffix.
 */
#include <stdlib.h>

#include "routing/domain.h"

#define REQUIRE(c) ((c) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void find(const char *name)
{
    struct domain_map *m = domain_map_create();
    struct domain_walk walk;
    char below[DOMAIN_TEXT_MAX];
    uint32_t value, *slot = domain_map_slot(m, slice_str(name));

    REQUIRE(slot && *slot == DOMAIN_MAP_NONE);
    *slot = 1;
    if (!domain_is_literal(slice_str(name))) {
        char pattern[DOMAIN_TEXT_MAX + 2] = "*.";
        memcpy(pattern + 2, name, strlen(name) + 1);
        if (domain_pattern_to_ascii(slice_str(pattern), below, NULL)) {
            slot = domain_map_slot(m, slice_str(below));
            REQUIRE(slot && *slot == DOMAIN_MAP_NONE);
            *slot = 2;
        }
    }
    domain_walk_start(&walk, m, slice_str(name));
    REQUIRE(domain_walk_next(&walk, &value) && value == 1);
    while (domain_walk_next(&walk, &value))
        REQUIRE(value == 2);
    domain_map_destroy(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char once[DOMAIN_TEXT_MAX], twice[DOMAIN_TEXT_MAX];
    struct why why = {0};

    if (!domain_to_ascii(slice_of(data, size), once, &why)) {
        REQUIRE(why.smtp_code == 501);
        return 0;
    }
    REQUIRE(strlen(once) < DOMAIN_TEXT_MAX && once[0]);
    REQUIRE(domain_to_ascii(slice_str(once), twice, NULL) && strcmp(once, twice) == 0);
    find(once);
    return 0;
}
